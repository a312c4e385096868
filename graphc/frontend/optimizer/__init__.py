"""Optimizers: the update of a parameter as a function of graph ops."""

from graphc.frontend.optimizer.adam import Adam as Adam
from graphc.frontend.optimizer.adam import AdamW as AdamW
from graphc.frontend.optimizer.adaptive import AdaGrad as AdaGrad
from graphc.frontend.optimizer.adaptive import RMSProp as RMSProp
from graphc.frontend.optimizer.base import Optimizer as Optimizer
from graphc.frontend.optimizer.base import create as create
from graphc.frontend.optimizer.base import register as register
from graphc.frontend.optimizer.sgd import NAG as NAG
from graphc.frontend.optimizer.sgd import SGD as SGD

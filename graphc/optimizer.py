"""Optimizers."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.optimizer import NAG as NAG
from graphc.frontend.optimizer import SGD as SGD
from graphc.frontend.optimizer import AdaGrad as AdaGrad
from graphc.frontend.optimizer import Adam as Adam
from graphc.frontend.optimizer import AdamW as AdamW
from graphc.frontend.optimizer import Optimizer as Optimizer
from graphc.frontend.optimizer import RMSProp as RMSProp
from graphc.frontend.optimizer import create as create
from graphc.frontend.optimizer import register as register

_suggest_attributes(__name__)

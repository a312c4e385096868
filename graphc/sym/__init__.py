"""Symbols: graphs composed by hand, with the operators of `graphc.nd`."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.ops.common import *  # noqa: F403
from graphc.frontend.symbol.executor import Executor as Executor
from graphc.frontend.symbol.functions import RNN as RNN
from graphc.frontend.symbol.functions import Activation as Activation
from graphc.frontend.symbol.functions import BatchNorm as BatchNorm
from graphc.frontend.symbol.functions import Convolution as Convolution
from graphc.frontend.symbol.functions import Deconvolution as Deconvolution
from graphc.frontend.symbol.functions import Dropout as Dropout
from graphc.frontend.symbol.functions import Embedding as Embedding
from graphc.frontend.symbol.functions import FullyConnected as FullyConnected
from graphc.frontend.symbol.functions import Group as Group
from graphc.frontend.symbol.functions import GroupNorm as GroupNorm
from graphc.frontend.symbol.functions import InstanceNorm as InstanceNorm
from graphc.frontend.symbol.functions import LayerNorm as LayerNorm
from graphc.frontend.symbol.functions import LeakyReLU as LeakyReLU
from graphc.frontend.symbol.functions import Pooling as Pooling
from graphc.frontend.symbol.functions import SoftmaxActivation as SoftmaxActivation
from graphc.frontend.symbol.functions import Variable as Variable
from graphc.frontend.symbol.functions import arange as arange
from graphc.frontend.symbol.functions import eye as eye
from graphc.frontend.symbol.functions import full as full
from graphc.frontend.symbol.functions import linspace as linspace
from graphc.frontend.symbol.functions import normal as normal
from graphc.frontend.symbol.functions import ones as ones
from graphc.frontend.symbol.functions import random_normal as random_normal
from graphc.frontend.symbol.functions import random_randint as random_randint
from graphc.frontend.symbol.functions import random_uniform as random_uniform
from graphc.frontend.symbol.functions import softmax_cross_entropy as softmax_cross_entropy
from graphc.frontend.symbol.functions import uniform as uniform
from graphc.frontend.symbol.functions import var as var
from graphc.frontend.symbol.functions import zeros as zeros
from graphc.frontend.symbol.naming import NameManager as NameManager
from graphc.frontend.symbol.naming import Prefix as Prefix
from graphc.frontend.symbol.symbol import Symbol as Symbol
from graphc.sym import contrib as contrib
from graphc.sym import linalg as linalg
from graphc.sym import random as random

_suggest_attributes(__name__)

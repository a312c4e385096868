"""Arrays and operators with MXNet 1.9's names and meaning."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.creation import arange as arange
from graphc.frontend.creation import array as array
from graphc.frontend.creation import empty as empty
from graphc.frontend.creation import eye as eye
from graphc.frontend.creation import from_dlpack as from_dlpack
from graphc.frontend.creation import from_numpy as from_numpy
from graphc.frontend.creation import full as full
from graphc.frontend.creation import linspace as linspace
from graphc.frontend.creation import ones as ones
from graphc.frontend.creation import waitall as waitall
from graphc.frontend.creation import zeros as zeros
from graphc.frontend.files import load as load
from graphc.frontend.files import save as save
from graphc.frontend.ndarray import NDArray as NDArray
from graphc.frontend.ops.common import *  # noqa: F403
from graphc.frontend.ops.indexing import Embedding as Embedding
from graphc.frontend.ops.loss import softmax_cross_entropy as softmax_cross_entropy
from graphc.frontend.ops.nn import Activation as Activation
from graphc.frontend.ops.nn import Convolution as Convolution
from graphc.frontend.ops.nn import Deconvolution as Deconvolution
from graphc.frontend.ops.nn import Dropout as Dropout
from graphc.frontend.ops.nn import FullyConnected as FullyConnected
from graphc.frontend.ops.nn import LeakyReLU as LeakyReLU
from graphc.frontend.ops.nn import Pooling as Pooling
from graphc.frontend.ops.nn import SoftmaxActivation as SoftmaxActivation
from graphc.frontend.ops.norm import BatchNorm as BatchNorm
from graphc.frontend.ops.norm import GroupNorm as GroupNorm
from graphc.frontend.ops.norm import InstanceNorm as InstanceNorm
from graphc.frontend.ops.norm import LayerNorm as LayerNorm
from graphc.frontend.ops.rnn import RNN as RNN
from graphc.frontend.sampling import normal as normal
from graphc.frontend.sampling import random_exponential as random_exponential
from graphc.frontend.sampling import random_normal as random_normal
from graphc.frontend.sampling import random_randint as random_randint
from graphc.frontend.sampling import random_uniform as random_uniform
from graphc.frontend.sampling import sample_multinomial as sample_multinomial
from graphc.frontend.sampling import shuffle as shuffle
from graphc.frontend.sampling import uniform as uniform
from graphc.nd import contrib as contrib
from graphc.nd import linalg as linalg
from graphc.nd import random as random

_suggest_attributes(__name__)

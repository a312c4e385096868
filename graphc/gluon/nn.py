"""Layers."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.gluon.block import Block as Block
from graphc.frontend.gluon.hybrid_block import HybridBlock as HybridBlock
from graphc.frontend.gluon.nn.activations import ELU as ELU
from graphc.frontend.gluon.nn.activations import GELU as GELU
from graphc.frontend.gluon.nn.activations import SELU as SELU
from graphc.frontend.gluon.nn.activations import Activation as Activation
from graphc.frontend.gluon.nn.activations import LeakyReLU as LeakyReLU
from graphc.frontend.gluon.nn.activations import PReLU as PReLU
from graphc.frontend.gluon.nn.activations import SiLU as SiLU
from graphc.frontend.gluon.nn.activations import Swish as Swish
from graphc.frontend.gluon.nn.attention import MultiHeadAttention as MultiHeadAttention
from graphc.frontend.gluon.nn.basic import Dense as Dense
from graphc.frontend.gluon.nn.basic import Dropout as Dropout
from graphc.frontend.gluon.nn.basic import Embedding as Embedding
from graphc.frontend.gluon.nn.basic import Flatten as Flatten
from graphc.frontend.gluon.nn.basic import HybridLambda as HybridLambda
from graphc.frontend.gluon.nn.basic import Identity as Identity
from graphc.frontend.gluon.nn.basic import Lambda as Lambda
from graphc.frontend.gluon.nn.containers import HybridSequential as HybridSequential
from graphc.frontend.gluon.nn.containers import Sequential as Sequential
from graphc.frontend.gluon.nn.conv import Conv1D as Conv1D
from graphc.frontend.gluon.nn.conv import Conv1DTranspose as Conv1DTranspose
from graphc.frontend.gluon.nn.conv import Conv2D as Conv2D
from graphc.frontend.gluon.nn.conv import Conv2DTranspose as Conv2DTranspose
from graphc.frontend.gluon.nn.conv import Conv3D as Conv3D
from graphc.frontend.gluon.nn.normalization import BatchNorm as BatchNorm
from graphc.frontend.gluon.nn.normalization import GroupNorm as GroupNorm
from graphc.frontend.gluon.nn.normalization import InstanceNorm as InstanceNorm
from graphc.frontend.gluon.nn.normalization import LayerNorm as LayerNorm
from graphc.frontend.gluon.nn.pool import AvgPool1D as AvgPool1D
from graphc.frontend.gluon.nn.pool import AvgPool2D as AvgPool2D
from graphc.frontend.gluon.nn.pool import AvgPool3D as AvgPool3D
from graphc.frontend.gluon.nn.pool import GlobalAvgPool1D as GlobalAvgPool1D
from graphc.frontend.gluon.nn.pool import GlobalAvgPool2D as GlobalAvgPool2D
from graphc.frontend.gluon.nn.pool import GlobalMaxPool1D as GlobalMaxPool1D
from graphc.frontend.gluon.nn.pool import GlobalMaxPool2D as GlobalMaxPool2D
from graphc.frontend.gluon.nn.pool import MaxPool1D as MaxPool1D
from graphc.frontend.gluon.nn.pool import MaxPool2D as MaxPool2D
from graphc.frontend.gluon.nn.pool import MaxPool3D as MaxPool3D

_suggest_attributes(__name__)

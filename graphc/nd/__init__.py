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
from graphc.frontend.ops.elementwise import Cast as Cast
from graphc.frontend.ops.elementwise import ElementWiseSum as ElementWiseSum
from graphc.frontend.ops.elementwise import abs as abs
from graphc.frontend.ops.elementwise import add as add
from graphc.frontend.ops.elementwise import add_n as add_n
from graphc.frontend.ops.elementwise import arccos as arccos
from graphc.frontend.ops.elementwise import arccosh as arccosh
from graphc.frontend.ops.elementwise import arcsin as arcsin
from graphc.frontend.ops.elementwise import arcsinh as arcsinh
from graphc.frontend.ops.elementwise import arctan as arctan
from graphc.frontend.ops.elementwise import arctan2 as arctan2
from graphc.frontend.ops.elementwise import arctanh as arctanh
from graphc.frontend.ops.elementwise import broadcast_add as broadcast_add
from graphc.frontend.ops.elementwise import broadcast_div as broadcast_div
from graphc.frontend.ops.elementwise import broadcast_equal as broadcast_equal
from graphc.frontend.ops.elementwise import broadcast_greater as broadcast_greater
from graphc.frontend.ops.elementwise import broadcast_greater_equal as broadcast_greater_equal
from graphc.frontend.ops.elementwise import broadcast_hypot as broadcast_hypot
from graphc.frontend.ops.elementwise import broadcast_lesser as broadcast_lesser
from graphc.frontend.ops.elementwise import broadcast_lesser_equal as broadcast_lesser_equal
from graphc.frontend.ops.elementwise import broadcast_logical_and as broadcast_logical_and
from graphc.frontend.ops.elementwise import broadcast_logical_or as broadcast_logical_or
from graphc.frontend.ops.elementwise import broadcast_logical_xor as broadcast_logical_xor
from graphc.frontend.ops.elementwise import broadcast_maximum as broadcast_maximum
from graphc.frontend.ops.elementwise import broadcast_minimum as broadcast_minimum
from graphc.frontend.ops.elementwise import broadcast_minus as broadcast_minus
from graphc.frontend.ops.elementwise import broadcast_mod as broadcast_mod
from graphc.frontend.ops.elementwise import broadcast_mul as broadcast_mul
from graphc.frontend.ops.elementwise import broadcast_not_equal as broadcast_not_equal
from graphc.frontend.ops.elementwise import broadcast_plus as broadcast_plus
from graphc.frontend.ops.elementwise import broadcast_power as broadcast_power
from graphc.frontend.ops.elementwise import broadcast_sub as broadcast_sub
from graphc.frontend.ops.elementwise import cast as cast
from graphc.frontend.ops.elementwise import cbrt as cbrt
from graphc.frontend.ops.elementwise import ceil as ceil
from graphc.frontend.ops.elementwise import clip as clip
from graphc.frontend.ops.elementwise import cos as cos
from graphc.frontend.ops.elementwise import cosh as cosh
from graphc.frontend.ops.elementwise import degrees as degrees
from graphc.frontend.ops.elementwise import divide as divide
from graphc.frontend.ops.elementwise import elemwise_add as elemwise_add
from graphc.frontend.ops.elementwise import elemwise_div as elemwise_div
from graphc.frontend.ops.elementwise import elemwise_mul as elemwise_mul
from graphc.frontend.ops.elementwise import elemwise_sub as elemwise_sub
from graphc.frontend.ops.elementwise import equal as equal
from graphc.frontend.ops.elementwise import erf as erf
from graphc.frontend.ops.elementwise import exp as exp
from graphc.frontend.ops.elementwise import expm1 as expm1
from graphc.frontend.ops.elementwise import fix as fix
from graphc.frontend.ops.elementwise import floor as floor
from graphc.frontend.ops.elementwise import full_like as full_like
from graphc.frontend.ops.elementwise import gelu as gelu
from graphc.frontend.ops.elementwise import greater as greater
from graphc.frontend.ops.elementwise import greater_equal as greater_equal
from graphc.frontend.ops.elementwise import hard_sigmoid as hard_sigmoid
from graphc.frontend.ops.elementwise import hypot as hypot
from graphc.frontend.ops.elementwise import isfinite as isfinite
from graphc.frontend.ops.elementwise import isinf as isinf
from graphc.frontend.ops.elementwise import isnan as isnan
from graphc.frontend.ops.elementwise import lesser as lesser
from graphc.frontend.ops.elementwise import lesser_equal as lesser_equal
from graphc.frontend.ops.elementwise import log as log
from graphc.frontend.ops.elementwise import log1p as log1p
from graphc.frontend.ops.elementwise import log2 as log2
from graphc.frontend.ops.elementwise import log10 as log10
from graphc.frontend.ops.elementwise import log_sigmoid as log_sigmoid
from graphc.frontend.ops.elementwise import logical_and as logical_and
from graphc.frontend.ops.elementwise import logical_not as logical_not
from graphc.frontend.ops.elementwise import logical_or as logical_or
from graphc.frontend.ops.elementwise import logical_xor as logical_xor
from graphc.frontend.ops.elementwise import maximum as maximum
from graphc.frontend.ops.elementwise import minimum as minimum
from graphc.frontend.ops.elementwise import modulo as modulo
from graphc.frontend.ops.elementwise import multiply as multiply
from graphc.frontend.ops.elementwise import negative as negative
from graphc.frontend.ops.elementwise import not_equal as not_equal
from graphc.frontend.ops.elementwise import ones_like as ones_like
from graphc.frontend.ops.elementwise import power as power
from graphc.frontend.ops.elementwise import radians as radians
from graphc.frontend.ops.elementwise import reciprocal as reciprocal
from graphc.frontend.ops.elementwise import relu as relu
from graphc.frontend.ops.elementwise import rint as rint
from graphc.frontend.ops.elementwise import round as round
from graphc.frontend.ops.elementwise import rsqrt as rsqrt
from graphc.frontend.ops.elementwise import sigmoid as sigmoid
from graphc.frontend.ops.elementwise import sign as sign
from graphc.frontend.ops.elementwise import silu as silu
from graphc.frontend.ops.elementwise import sin as sin
from graphc.frontend.ops.elementwise import sinh as sinh
from graphc.frontend.ops.elementwise import softplus as softplus
from graphc.frontend.ops.elementwise import softrelu as softrelu
from graphc.frontend.ops.elementwise import softsign as softsign
from graphc.frontend.ops.elementwise import sqrt as sqrt
from graphc.frontend.ops.elementwise import square as square
from graphc.frontend.ops.elementwise import subtract as subtract
from graphc.frontend.ops.elementwise import swish as swish
from graphc.frontend.ops.elementwise import tan as tan
from graphc.frontend.ops.elementwise import tanh as tanh
from graphc.frontend.ops.elementwise import true_divide as true_divide
from graphc.frontend.ops.elementwise import trunc as trunc
from graphc.frontend.ops.elementwise import where as where
from graphc.frontend.ops.elementwise import zeros_like as zeros_like
from graphc.frontend.ops.indexing import Embedding as Embedding
from graphc.frontend.ops.indexing import SequenceLast as SequenceLast
from graphc.frontend.ops.indexing import SequenceMask as SequenceMask
from graphc.frontend.ops.indexing import batch_take as batch_take
from graphc.frontend.ops.indexing import choose_element_0index as choose_element_0index
from graphc.frontend.ops.indexing import gather_nd as gather_nd
from graphc.frontend.ops.indexing import one_hot as one_hot
from graphc.frontend.ops.indexing import pick as pick
from graphc.frontend.ops.indexing import scatter_nd as scatter_nd
from graphc.frontend.ops.indexing import take as take
from graphc.frontend.ops.linalg import batch_dot as batch_dot
from graphc.frontend.ops.linalg import dot as dot
from graphc.frontend.ops.linalg import linalg_gemm as linalg_gemm
from graphc.frontend.ops.linalg import linalg_gemm2 as linalg_gemm2
from graphc.frontend.ops.linalg import linalg_syrk as linalg_syrk
from graphc.frontend.ops.loss import MakeLoss as MakeLoss
from graphc.frontend.ops.loss import make_loss as make_loss
from graphc.frontend.ops.loss import smooth_l1 as smooth_l1
from graphc.frontend.ops.loss import softmax_cross_entropy as softmax_cross_entropy
from graphc.frontend.ops.nn import Activation as Activation
from graphc.frontend.ops.nn import Convolution as Convolution
from graphc.frontend.ops.nn import Deconvolution as Deconvolution
from graphc.frontend.ops.nn import Dropout as Dropout
from graphc.frontend.ops.nn import FullyConnected as FullyConnected
from graphc.frontend.ops.nn import LeakyReLU as LeakyReLU
from graphc.frontend.ops.nn import Pooling as Pooling
from graphc.frontend.ops.nn import SoftmaxActivation as SoftmaxActivation
from graphc.frontend.ops.nn import avg_pool2d as avg_pool2d
from graphc.frontend.ops.nn import log_softmax as log_softmax
from graphc.frontend.ops.nn import max_pool2d as max_pool2d
from graphc.frontend.ops.nn import softmax as softmax
from graphc.frontend.ops.nn import softmin as softmin
from graphc.frontend.ops.norm import BatchNorm as BatchNorm
from graphc.frontend.ops.norm import GroupNorm as GroupNorm
from graphc.frontend.ops.norm import InstanceNorm as InstanceNorm
from graphc.frontend.ops.norm import LayerNorm as LayerNorm
from graphc.frontend.ops.reduce import L2Normalization as L2Normalization
from graphc.frontend.ops.reduce import argmax as argmax
from graphc.frontend.ops.reduce import argmax_channel as argmax_channel
from graphc.frontend.ops.reduce import argmin as argmin
from graphc.frontend.ops.reduce import max as max
from graphc.frontend.ops.reduce import max_axis as max_axis
from graphc.frontend.ops.reduce import mean as mean
from graphc.frontend.ops.reduce import min as min
from graphc.frontend.ops.reduce import min_axis as min_axis
from graphc.frontend.ops.reduce import moments as moments
from graphc.frontend.ops.reduce import nanprod as nanprod
from graphc.frontend.ops.reduce import nansum as nansum
from graphc.frontend.ops.reduce import norm as norm
from graphc.frontend.ops.reduce import prod as prod
from graphc.frontend.ops.reduce import sum as sum
from graphc.frontend.ops.reduce import sum_axis as sum_axis
from graphc.frontend.ops.shape import BlockGrad as BlockGrad
from graphc.frontend.ops.shape import Concat as Concat
from graphc.frontend.ops.shape import Flatten as Flatten
from graphc.frontend.ops.shape import Pad as Pad
from graphc.frontend.ops.shape import Reshape as Reshape
from graphc.frontend.ops.shape import SliceChannel as SliceChannel
from graphc.frontend.ops.shape import SwapAxis as SwapAxis
from graphc.frontend.ops.shape import broadcast_axes as broadcast_axes
from graphc.frontend.ops.shape import broadcast_axis as broadcast_axis
from graphc.frontend.ops.shape import broadcast_like as broadcast_like
from graphc.frontend.ops.shape import broadcast_to as broadcast_to
from graphc.frontend.ops.shape import concat as concat
from graphc.frontend.ops.shape import concatenate as concatenate
from graphc.frontend.ops.shape import crop as crop
from graphc.frontend.ops.shape import expand_dims as expand_dims
from graphc.frontend.ops.shape import flatten as flatten
from graphc.frontend.ops.shape import flip as flip
from graphc.frontend.ops.shape import identity as identity
from graphc.frontend.ops.shape import moveaxis as moveaxis
from graphc.frontend.ops.shape import pad as pad
from graphc.frontend.ops.shape import repeat as repeat
from graphc.frontend.ops.shape import reshape as reshape
from graphc.frontend.ops.shape import reshape_like as reshape_like
from graphc.frontend.ops.shape import reverse as reverse
from graphc.frontend.ops.shape import slice as slice
from graphc.frontend.ops.shape import slice_axis as slice_axis
from graphc.frontend.ops.shape import slice_like as slice_like
from graphc.frontend.ops.shape import split as split
from graphc.frontend.ops.shape import split_v2 as split_v2
from graphc.frontend.ops.shape import squeeze as squeeze
from graphc.frontend.ops.shape import stack as stack
from graphc.frontend.ops.shape import stop_gradient as stop_gradient
from graphc.frontend.ops.shape import swapaxes as swapaxes
from graphc.frontend.ops.shape import tile as tile
from graphc.frontend.ops.shape import transpose as transpose
from graphc.frontend.sampling import exponential as random_exponential
from graphc.frontend.sampling import multinomial as sample_multinomial
from graphc.frontend.sampling import normal as normal
from graphc.frontend.sampling import normal as random_normal
from graphc.frontend.sampling import randint as random_randint
from graphc.frontend.sampling import shuffle as shuffle
from graphc.frontend.sampling import uniform as random_uniform
from graphc.frontend.sampling import uniform as uniform
from graphc.nd import contrib as contrib
from graphc.nd import linalg as linalg
from graphc.nd import random as random

__all__ = [
    "Activation",
    "BatchNorm",
    "BlockGrad",
    "Cast",
    "Concat",
    "Convolution",
    "Deconvolution",
    "Dropout",
    "ElementWiseSum",
    "Embedding",
    "Flatten",
    "FullyConnected",
    "GroupNorm",
    "InstanceNorm",
    "L2Normalization",
    "LayerNorm",
    "LeakyReLU",
    "MakeLoss",
    "NDArray",
    "Pad",
    "Pooling",
    "Reshape",
    "SequenceLast",
    "SequenceMask",
    "SliceChannel",
    "SoftmaxActivation",
    "SwapAxis",
    "abs",
    "add",
    "add_n",
    "arange",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "argmax",
    "argmax_channel",
    "argmin",
    "array",
    "avg_pool2d",
    "batch_dot",
    "batch_take",
    "broadcast_add",
    "broadcast_axes",
    "broadcast_axis",
    "broadcast_div",
    "broadcast_equal",
    "broadcast_greater",
    "broadcast_greater_equal",
    "broadcast_hypot",
    "broadcast_lesser",
    "broadcast_lesser_equal",
    "broadcast_like",
    "broadcast_logical_and",
    "broadcast_logical_or",
    "broadcast_logical_xor",
    "broadcast_maximum",
    "broadcast_minimum",
    "broadcast_minus",
    "broadcast_mod",
    "broadcast_mul",
    "broadcast_not_equal",
    "broadcast_plus",
    "broadcast_power",
    "broadcast_sub",
    "broadcast_to",
    "cast",
    "cbrt",
    "ceil",
    "choose_element_0index",
    "clip",
    "concat",
    "concatenate",
    "contrib",
    "cos",
    "cosh",
    "crop",
    "degrees",
    "divide",
    "dot",
    "elemwise_add",
    "elemwise_div",
    "elemwise_mul",
    "elemwise_sub",
    "empty",
    "equal",
    "erf",
    "exp",
    "expand_dims",
    "expm1",
    "eye",
    "fix",
    "flatten",
    "flip",
    "floor",
    "from_dlpack",
    "from_numpy",
    "full",
    "full_like",
    "gather_nd",
    "gelu",
    "greater",
    "greater_equal",
    "hard_sigmoid",
    "hypot",
    "identity",
    "isfinite",
    "isinf",
    "isnan",
    "lesser",
    "lesser_equal",
    "linalg",
    "linalg_gemm",
    "linalg_gemm2",
    "linalg_syrk",
    "linspace",
    "load",
    "log",
    "log10",
    "log1p",
    "log2",
    "log_sigmoid",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "make_loss",
    "max",
    "max_axis",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "min_axis",
    "minimum",
    "modulo",
    "moments",
    "moveaxis",
    "multiply",
    "nanprod",
    "nansum",
    "negative",
    "norm",
    "normal",
    "not_equal",
    "one_hot",
    "ones",
    "ones_like",
    "pad",
    "pick",
    "power",
    "prod",
    "radians",
    "random",
    "random_exponential",
    "random_normal",
    "random_randint",
    "random_uniform",
    "reciprocal",
    "relu",
    "repeat",
    "reshape",
    "reshape_like",
    "reverse",
    "rint",
    "round",
    "rsqrt",
    "sample_multinomial",
    "save",
    "scatter_nd",
    "shuffle",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "slice",
    "slice_axis",
    "slice_like",
    "smooth_l1",
    "softmax",
    "softmax_cross_entropy",
    "softmin",
    "softplus",
    "softrelu",
    "softsign",
    "split",
    "split_v2",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "stop_gradient",
    "subtract",
    "sum",
    "sum_axis",
    "swapaxes",
    "swish",
    "take",
    "tan",
    "tanh",
    "tile",
    "transpose",
    "true_divide",
    "trunc",
    "uniform",
    "waitall",
    "where",
    "zeros",
    "zeros_like",
]

_suggest_attributes(__name__)

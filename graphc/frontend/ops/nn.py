"""Layers as functions: products, convolutions, pools, activations, dropout, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import ArgumentError, ShapeError, user_location
from graphc.frontend.array import mode as scopes
from graphc.frontend.ops.operator import chosen, dims, operator
from graphc.frontend.ops.reduce import floating
from graphc.frontend.random_key import draw_key
from graphc.ir.ops import (
    activation,
    arithmetic,
    average_pooling,
    basic,
    comparison,
    contraction,
    convolution,
    creation,
    movement,
    pooling,
    random,
    rearrange,
    transcendental,
    transposed_convolution,
)
from graphc.ir.ops import softmax as core
from graphc.ir.sizes import unify
from graphc.ir.types import as_dtype, normalize_axis, shape_text

Numbers = int | Sequence[int]


def _expect(op: str, name: str, size: Any, asked: Any, shape: Any) -> None:
    """Raise where an argument contradicts the weight; None and 0 say nothing."""
    if asked and unify(size, int(asked)) is None:
        raise ShapeError(
            f"{op}: {name} is {asked}, but the weight has shape {shape_text(shape)}",
            where=user_location(),
        )


@operator("FullyConnected", inputs=("data", "weight", "bias"))
def FullyConnected(
    data: Any, weight: Any, bias: Any = None, num_hidden: int | None = None,
    no_bias: bool = False, flatten: bool = True,
) -> Any:  # fmt: skip
    """Return ``data @ weight.T + bias``.

    Parameters
    ----------
    data : array, shape (N, ...)
    weight : array, shape (num_hidden, width)
    bias : array, shape (num_hidden,), optional
    num_hidden : int, optional
        Checked against the weight.
    no_bias : bool
    flatten : bool
        Join all axes of ``data`` but the first; otherwise only the last is multiplied.
    """
    _expect("FullyConnected", "num_hidden", dims(weight)[0], num_hidden, dims(weight))
    rows = rearrange.flatten(data) if flatten and len(dims(data)) != 2 else data
    found = contraction.matmul(rows, weight, transpose_b=True)
    return found if no_bias or bias is None else found + bias


def _window(value: Any, default: int, axes: int) -> Any:
    """Return one number for each spatial axis; an empty tuple is the default."""
    if value is None or (isinstance(value, (tuple, list)) and not value):
        return (default,) * axes
    return value


_LAYOUTS = {1: ("NCW",), 2: ("NCHW",), 3: ("NCDHW",)}


def _check_layout(layout: str | None, axes: int) -> None:
    if layout is not None:
        chosen(f"layout for {axes} spatial axes", layout, _LAYOUTS.get(axes, ()))


@operator("Convolution", inputs=("data", "weight", "bias"))
def Convolution(
    data: Any, weight: Any, bias: Any = None, kernel: Numbers | None = None,
    stride: Numbers = (), dilate: Numbers = (), pad: Numbers = (), num_filter: int | None = None,
    num_group: int = 1, workspace: int = 1024, no_bias: bool = False,
    cudnn_tune: str | None = None, cudnn_off: bool = False, layout: str | None = None,
) -> Any:  # fmt: skip
    """Convolve over the axes after batch and channel.

    Parameters
    ----------
    data : array, shape (N, C, *spatial)
    weight : array, shape (num_filter, C // num_group, *kernel)
    bias : array, shape (num_filter,), optional
    kernel, num_filter : optional
        Checked against the weight.
    stride, dilate, pad : int or sequence of int
        For each spatial axis; by default 1, 1 and 0.
    num_group : int
    no_bias : bool
    layout : {"NCW", "NCHW", "NCDHW"}, optional
    workspace, cudnn_tune, cudnn_off
        Accepted as MXNet's; they have no effect.
    """
    shape = dims(weight)
    axes = len(shape) - 2
    _check_layout(layout, axes)
    _expect("Convolution", "num_filter", shape[0], num_filter, shape)
    window = (kernel,) * axes if isinstance(kernel, int) else tuple(kernel or ())
    for size, asked in zip(shape[2:], window):
        _expect("Convolution", "kernel", size, asked, shape)
    steps = _window(stride, 1, axes), _window(pad, 0, axes), _window(dilate, 1, axes)
    found = convolution.conv(data, weight, *steps, num_group)
    return _with_bias(found, None if no_bias else bias, axes)


def _with_bias(found: Any, bias: Any, axes: int) -> Any:
    if bias is None:
        return found
    return found + movement.reshape(bias, (*dims(bias), *(1,) * axes))


@operator("Deconvolution", inputs=("data", "weight", "bias"))
def Deconvolution(
    data: Any, weight: Any, bias: Any = None, kernel: Numbers | None = None,
    stride: Numbers = (), dilate: Numbers = (), pad: Numbers = (), adj: Numbers = (),
    num_filter: int | None = None, num_group: int = 1, workspace: int = 512,
    no_bias: bool = True, cudnn_tune: str | None = None, cudnn_off: bool = False,
    layout: str | None = None,
) -> Any:  # fmt: skip
    """Return the transposed convolution, that is the gradient of `Convolution` by its data.

    Parameters
    ----------
    data : array, shape (N, C, *spatial)
    weight : array, shape (C, num_filter // num_group, *kernel)
    bias : array, shape (num_filter,), optional
    adj : int or sequence of int
        Added to the sizes of the result.
    """
    axes = len(dims(weight)) - 2
    _check_layout(layout, axes)
    steps = _window(stride, 1, axes), _window(pad, 0, axes), _window(dilate, 1, axes)
    found = transposed_convolution.conv_transpose(
        data, weight, *steps, groups=num_group, output_pad=_window(adj, 0, axes)
    )
    return _with_bias(found, None if no_bias else bias, axes)


# -- pools -------------------------------------------------------------------------------------

_POOLS = ("max", "avg", "sum")


@operator("Pooling")
def Pooling(
    data: Any, kernel: Numbers = (), pool_type: str = "max", global_pool: bool = False,
    cudnn_off: bool = False, pooling_convention: str = "valid", stride: Numbers = (),
    pad: Numbers = (), p_value: int | None = None, count_include_pad: bool = True,
    layout: str | None = None,
) -> Any:  # fmt: skip
    """Reduce windows.

    Parameters
    ----------
    data : array, shape (N, C, *spatial)
    kernel : int or sequence of int
        Size of the window.
    pool_type : {"max", "avg", "sum"}
    global_pool : bool
        One window over everything.
    pooling_convention : {"valid", "full"}
        Whether a last, incomplete window is dropped or kept.
    stride, pad : int or sequence of int
        By default 1 and 0.
    count_include_pad : bool
        Whether padding counts in an average.
    """
    chosen("pool_type", pool_type, _POOLS)
    chosen("pooling_convention", pooling_convention, ("valid", "full"))
    axes = len(dims(data)) - 2
    _check_layout(layout, axes)
    if global_pool:
        return _global_pool(data, pool_type)
    if not kernel:
        raise ArgumentError("Pooling needs kernel=, the size of its windows", where=user_location())
    windows = kernel, _window(stride, 1, axes), _window(pad, 0, axes)
    ceil_mode = pooling_convention == "full"
    if pool_type == "max":
        return pooling.max_pool(data, *windows, ceil_mode)
    means = average_pooling.avg_pool(data, *windows, ceil_mode, pool_type == "sum" or
                                     bool(count_include_pad))
    if pool_type == "avg":
        return means
    sizes = (kernel,) * axes if isinstance(kernel, int) else tuple(kernel)
    count = 1
    for size in sizes:
        count *= int(size)
    return means * float(count)


def _global_pool(data: Any, pool_type: str) -> Any:
    if pool_type == "max":
        return average_pooling.global_max_pool(data)
    if pool_type == "avg":
        return average_pooling.global_avg_pool(data)
    return data.sum(axis=tuple(range(2, len(dims(data)))), keepdims=True)


@operator("max_pool2d")
def max_pool2d(
    data: Any, pool_size: Numbers = 2, strides: Numbers | None = None, padding: Numbers = 0,
    ceil_mode: bool = False,
) -> Any:  # fmt: skip
    """Return the largest element of each window.

    Parameters
    ----------
    data : array, shape (N, C, H, W)
    pool_size : int or pair of int
    strides : int or pair of int, optional
        By default windows lie side by side.
    padding : int or pair of int
    ceil_mode : bool
        Keep a last, incomplete window.
    """
    return pooling.max_pool(data, pool_size, strides, padding, ceil_mode)


@operator("avg_pool2d")
def avg_pool2d(
    data: Any, pool_size: Numbers = 2, strides: Numbers | None = None, padding: Numbers = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Any:  # fmt: skip
    """Return the mean of each window; arguments as of `max_pool2d`."""
    return average_pooling.avg_pool(
        data, pool_size, strides, padding, ceil_mode, count_include_pad
    )


# -- activations -------------------------------------------------------------------------------

_ACTIVATIONS = {
    "relu": activation.relu,
    "sigmoid": transcendental.sigmoid,
    "tanh": transcendental.tanh,
    "softrelu": transcendental.softplus,
    "softsign": activation.softsign,
    "log_sigmoid": transcendental.log_sigmoid,
    "gelu": activation.gelu,
    "silu": activation.silu,
    "swish": activation.silu,
}


@operator("Activation")
def Activation(data: Any, act_type: str) -> Any:
    """Apply an activation by its name.

    Parameters
    ----------
    data : array
    act_type : {"relu", "sigmoid", "tanh", "softrelu", "softsign", "log_sigmoid", "gelu", "silu"}
    """
    return _ACTIVATIONS[chosen("activation", act_type, tuple(_ACTIVATIONS))](data)


_LEAKY = ("leaky", "prelu", "elu", "selu", "gelu", "rrelu")


@operator("LeakyReLU", inputs=("data", "gamma"))
def LeakyReLU(
    data: Any, gamma: Any = None, act_type: str = "leaky", slope: float = 0.25,
    lower_bound: float = 0.125, upper_bound: float = 0.334,
) -> Any:  # fmt: skip
    """Apply one of the rectifiers that let a part of negative values through.

    Parameters
    ----------
    data : array
    gamma : array, optional
        Slopes of ``"prelu"``, one or one for each channel (axis 1).
    act_type : {"leaky", "prelu", "elu", "selu", "gelu", "rrelu"}
    slope : float
        Of ``"leaky"``; the factor of ``"elu"``.
    lower_bound, upper_bound : float
        In training ``"rrelu"`` draws slopes between them, otherwise it takes their mean.
    """
    chosen("act_type", act_type, _LEAKY)
    if act_type == "leaky":
        return activation.leaky_relu(data, slope)
    if act_type == "elu":
        return activation.elu(data, slope)
    if act_type == "prelu":
        return activation.prelu(data, _per_channel(data, gamma))
    if act_type == "rrelu":
        return _randomized_relu(data, lower_bound, upper_bound)
    return activation.selu(data) if act_type == "selu" else activation.gelu(data)


def _per_channel(data: Any, gamma: Any) -> Any:
    if gamma is None:
        raise ArgumentError("LeakyReLU: act_type 'prelu' needs gamma", where=user_location())
    if len(dims(gamma)) == 1 and len(dims(data)) > 2:
        return movement.reshape(gamma, (*dims(gamma), *(1,) * (len(dims(data)) - 2)))
    return gamma


def _randomized_relu(data: Any, low: float, high: float) -> Any:
    if not scopes.training:
        return activation.leaky_relu(data, (low + high) / 2)
    slopes = random.random_uniform(*draw_key(), dims(data), low, high, as_dtype(data.dtype))
    return activation.prelu(data, slopes)


# -- softmax -----------------------------------------------------------------------------------


def _masked(data: Any, length: Any, axis: int, dtype: Any, rule: Any, ruled_out: float) -> Any:
    """Apply a softmax; elements at ``length`` and beyond do not count."""
    data = floating(data) if dtype is None else basic.cast(data, dtype)
    if length is None:
        return rule(data)
    shape = dims(data)
    place = normalize_axis(axis, len(shape))
    steps = creation.arange(shape[place], dtype=as_dtype(length.dtype))
    lane = [d if a == place else 1 for a, d in enumerate(shape)]
    inside = comparison.less(movement.reshape(steps, lane), movement.expand_dims(length, place))
    found = rule(comparison.where(inside, data, float("-inf")))
    return comparison.where(inside, found, ruled_out)


@operator("softmax", inputs=("data", "length"))
def softmax(
    data: Any, length: Any = None, axis: int = -1, temperature: float | None = None,
    dtype: Any = None, use_length: bool = False,
) -> Any:  # fmt: skip
    """Return ``exp(x) / sum(exp(x))`` along an axis.

    Parameters
    ----------
    data : array
    length : array, optional
        With ``use_length``, how many elements along ``axis`` count; the others get 0.
    axis : int
    temperature : float, optional
        Divides ``data`` first.
    dtype : optional
        Type to compute in.
    use_length : bool
    """
    length = length if use_length else None
    return _masked(data, length, axis, dtype, lambda x: core.softmax(x, axis, temperature), 0.0)


@operator("log_softmax", inputs=("data", "length"))
def log_softmax(
    data: Any, length: Any = None, axis: int = -1, temperature: float | None = None,
    dtype: Any = None, use_length: bool = False,
) -> Any:  # fmt: skip
    """Return ``log(softmax(x))``; arguments as of `softmax`."""
    length = length if use_length else None
    lowest = float("-inf")
    return _masked(
        data, length, axis, dtype, lambda x: core.log_softmax(x, axis, temperature), lowest
    )


@operator("softmin")
def softmin(
    data: Any, axis: int = -1, temperature: float | None = None, dtype: Any = None
) -> Any:
    """Return ``softmax(-x)``."""
    return softmax(arithmetic.negative(data), None, axis, temperature, dtype)


@operator("SoftmaxActivation")
def SoftmaxActivation(data: Any, mode: str = "instance") -> Any:
    """Return the softmax over everything but axis 0, or with ``mode="channel"`` over axis 1."""
    if chosen("mode", mode, ("instance", "channel")) == "channel":
        return core.softmax(data, 1)
    return movement.reshape(core.softmax(rearrange.flatten(data), -1), dims(data))


# -- dropout -----------------------------------------------------------------------------------


@operator("Dropout")
def Dropout(
    data: Any, p: float = 0.5, mode: str = "training", axes: Sequence[int] = (),
    cudnn_off: bool = False,
) -> Any:  # fmt: skip
    """Set elements to zero at random and scale the others up, in training.

    Parameters
    ----------
    data : array
    p : float
        Probability of zero.
    mode : {"training", "always"}
        ``"always"`` drops in prediction as well.
    axes : sequence of int
        Axes along which all elements share one draw.
    """
    always = chosen("mode", mode, ("training", "always")) == "always"
    if not 0 <= p <= 1:
        raise ArgumentError(
            f"Dropout: p is a probability, got {p}",
            remedy="Pass the share of elements to drop, between 0 and 1.",
            where=user_location(),
        )
    if p == 0 or not (always or scopes.training):
        return data
    return random.dropout(floating(data), *draw_key(), p, tuple(axes))

"""Layer and batch normalisation and their kin, as reductions and pointwise ops.

The gradient in the data has a closed form with two reductions: with ``n = (x - mean) / std`` and
``h`` the gradient of ``n``, it is ``(h - mean(h) - n * mean(h * n)) / std``. It is written with the
records' outputs, so it has gradients itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.dim import Dim, product
from graphc.ir.op import FLOATS, Kind, OpDef, Spec, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.arithmetic import rsqrt, sqrt
from graphc.ir.ops.basic import size_value
from graphc.ir.ops.composite import attempt, composite, shape_of
from graphc.ir.ops.movement import broadcast_to, reshape
from graphc.ir.ops.reduction import mean
from graphc.ir.ops.reduction import sum as sum_
from graphc.ir.sizes import resolve
from graphc.ir.types import (
    DType,
    TensorType,
    as_dtype,
    float32,
    float64,
    floating_dtype,
    normalize_axes,
    normalize_axis,
    promote,
    same_shape,
    shape_text,
)

Axes = tuple[int, ...]
_TOLERANCE = {float32: (1e-4, 1e-5), float64: (1e-10, 1e-11)}


def moments(x: Any, axes: Axes) -> tuple[Any, Any, Any]:
    """Return ``x - mean``, the mean and the biased variance over ``axes``, which are kept."""
    center = mean(x, axis=axes, keepdims=True)
    centered = x - center
    return centered, center, mean(centered * centered, axis=axes, keepdims=True)


def _numpy_moments(x: np.ndarray, axes: Axes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.errstate(all="ignore"):
        count = x.dtype.type(np.prod([x.shape[a] for a in axes]))
        center = x.sum(axis=axes, keepdims=True) / count
        centered = x - center
        variance = (centered * centered).sum(axis=axes, keepdims=True) / count
    return centered, center, variance


def _numpy_normalized(
    x: np.ndarray, axes: Axes, scaled: Axes, affine: tuple[Any, Any], eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalise over ``axes``; gamma and beta lie along the axes ``scaled``."""
    centered, middle, variance = _numpy_moments(x, axes)
    shape = tuple(d if a in scaled else 1 for a, d in enumerate(x.shape))
    gamma, beta = (None if v is None else v.reshape(shape) for v in affine)
    y = centered / np.sqrt(variance + x.dtype.type(eps))
    y = y if gamma is None else y * gamma
    return (y if beta is None else y + beta), middle, variance


def _affine(operands: Sequence[Any], scale: bool, center: bool) -> tuple[Any, Any]:
    """Return gamma and beta from the operands after the data, None where there is none."""
    rest = list(operands)
    gamma = rest.pop(0) if scale else None
    return gamma, rest.pop(0) if center else None


def _check_affine(op: str, types: Sequence[TensorType], shape: Sequence[Dim], scale: bool) -> None:
    names = ("gamma", "beta") if scale else ("beta",)
    for name, kind in zip(names, types):
        if not same_shape(kind.shape, shape):
            raise ShapeError(
                f"{name} of {op} has shape {shape_text(kind.shape)}, the axes it scales have "
                f"{shape_text(shape)}",
                remedy="Another axis may be meant, or a layer made for another number of channels.",
            )


class Normalization(OpDef):
    """What the two records share: operands ``x``, then gamma and beta where there are any."""

    kind, tolerance = Kind.REDUCE, _TOLERANCE

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Promote the operands to one floating type."""
        return (floating_dtype(promote(*(t.dtype for t in types))),) * len(types)


class LayerNorm(Normalization):
    """Normalisation over axes, ``(x - mean) / sqrt(var + eps) * gamma + beta``.

    The record has three outputs: the result, and mean and biased variance with the axes kept.
    """

    name = "layer_norm"
    samples = (
        sample((2, 5), axis=(1,), eps=1e-5, scale=False, center=False),
        sample((2, 5), (5,), (5,), axis=(1,), eps=1e-5, scale=True, center=True),
        sample((2, 3, 4), (4,), axis=(2,), eps=1e-3, scale=True, center=False),
        sample((2, 3, 4), (3, 4), axis=(1, 2), eps=1e-5, scale=False, center=True),
        sample((2, 3, 4), (3,), (3,), axis=(1,), eps=1e-5, scale=True, center=True),
        sample((4,), (4,), axis=(0,), eps=1e-5, scale=True, center=False),
        sample((0, 4), (4,), axis=(1,), eps=1e-5, scale=True, center=False),
    )

    def __call__(
        self, x: Any, gamma: Any = None, beta: Any = None, axis: int | Sequence[int] = -1,
        eps: float = 1e-5,
    ) -> Any:  # fmt: skip
        """Normalise over ``axis``.

        Parameters
        ----------
        x : operand
        gamma, beta : operand, optional
            Shaped like the axes that are normalised.
        axis : int or sequence of int
        eps : float
            Added to the variance.

        Returns
        -------
        operand
            Shaped like ``x``.
        """
        axes = (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
        operands = tuple(v for v in (x, gamma, beta) if v is not None)
        attrs = {
            "axis": tuple(int(a) for a in axes), "eps": float(eps),
            "scale": gamma is not None, "center": beta is not None,
        }  # fmt: skip
        return apply(self, operands, attrs)[0]

    def infer(
        self, x: TensorType, *affine: TensorType, axis: Axes, eps: float, scale: bool, center: bool
    ) -> tuple[TensorType, ...]:
        """Return the types of result, mean and variance."""
        axes = normalize_axes(axis, x.ndim)
        _check_affine("layer_norm", affine, tuple(x.shape[a] for a in axes), scale)
        kept = x.with_shape([1 if a in axes else d for a, d in enumerate(x.shape)])
        return x, kept, kept

    def decompose(
        self, x: Any, *affine: Any, axis: Axes, eps: float, scale: bool, center: bool
    ) -> Any:
        """Subtract the mean, divide by the standard deviation, scale and shift."""
        axes = normalize_axes(axis, x.ndim)
        centered, middle, variance = moments(x, axes)
        gamma, beta = (_spread(v, x.shape, axes) for v in _affine(affine, scale, center))
        y = centered * rsqrt(variance + eps)
        y = y if gamma is None else y * gamma
        return (y if beta is None else y + beta), middle, variance

    def vjp(
        self, g: Any, y: Any, x: Any, *affine: Any, axis: Axes, eps: float, scale: bool,
        center: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Return the gradients by the closed form."""
        axes = normalize_axes(axis, x.ndim)
        gamma = _spread(_affine(affine, scale, center)[0], x.shape, axes)
        others = tuple(a for a in range(x.ndim) if a not in axes)
        rstd = rsqrt(y[2] + eps)
        normal = (x - y[1]) * rstd
        dx = _moment_gradients(g[1], g[2], x - y[1], axes)
        if g[0] is None:
            return (dx, *(None,) * len(affine))
        h = g[0] if gamma is None else g[0] * gamma
        slope = mean(h * normal, axis=axes, keepdims=True)
        own = rstd * (h - mean(h, axis=axes, keepdims=True) - normal * slope)
        scales = [g[0] * normal] if scale else []
        shifts = [g[0]] if center else []
        shape = tuple(x.shape[a] for a in axes)
        return (
            own if dx is None else own + dx,
            *(reshape(sum_(v, axis=others, keepdims=True), shape) for v in scales + shifts),
        )

    def reference(
        self, x: np.ndarray, *affine: np.ndarray, axis: Axes, eps: float, scale: bool, center: bool
    ) -> Any:
        """Compute with NumPy."""
        axes = normalize_axes(axis, x.ndim)
        return _numpy_normalized(x, axes, axes, _affine(affine, scale, center), eps)


def _spread(v: Any, shape: Sequence[Dim], axes: Axes) -> Any:
    """Give gamma or beta the axes of the data, of size 1 where it is constant."""
    if v is None:
        return None
    return reshape(v, tuple(d if a in axes else 1 for a, d in enumerate(shape)))


def _moment_gradients(g_mean: Any, g_variance: Any, centered: Any, axes: Axes) -> Any:
    """Return what the gradients of mean and variance (axes kept) add to that of the data."""
    count = size_value(product(centered.shape[a] for a in axes), as_dtype(centered.dtype))
    found = None if g_mean is None else g_mean / count
    if g_variance is not None:
        part = centered * (g_variance * 2.0 / count)
        found = part if found is None else found + part
    elif found is not None:
        found = broadcast_to(found, centered.shape)
    return found


class BatchNorm(Normalization):
    """Normalisation of each channel over all other axes, in training.

    Three outputs: the result, and each channel's mean and biased variance.
    """

    name = "batch_norm"
    samples = (
        sample((6, 3), (3,), (3,), axis=1, eps=1e-3, scale=True, center=True),
        sample((3, 2, 2, 3), (2,), (2,), axis=1, eps=1e-5, scale=True, center=True),
        sample((3, 2, 2, 3), (3,), axis=-1, eps=1e-5, scale=False, center=True),
        sample((4, 2, 3), (2,), axis=1, eps=1e-5, scale=True, center=False),
        sample((4, 2, 3), axis=0, eps=1e-5, scale=False, center=False),
        sample((1, 2, 3), (2,), (2,), axis=1, eps=1e-5, scale=True, center=True),
    )

    def __call__(
        self, x: Any, gamma: Any = None, beta: Any = None, axis: int = 1, eps: float = 1e-5
    ) -> Any:
        """Normalise by the statistics of this batch.

        Parameters
        ----------
        x : operand
        gamma, beta : operand, shape (C,), optional
        axis : int
            The channel axis.
        eps : float
            Added to the variance.

        Returns
        -------
        tuple of operand
            The result, and mean and biased variance of shape ``(C,)``.
        """
        operands = tuple(v for v in (x, gamma, beta) if v is not None)
        attrs = {
            "axis": int(axis), "eps": float(eps), "scale": gamma is not None,
            "center": beta is not None,
        }  # fmt: skip
        return apply(self, operands, attrs)

    def infer(
        self, x: TensorType, *affine: TensorType, axis: int, eps: float, scale: bool, center: bool
    ) -> tuple[TensorType, ...]:
        """Return the types of result, mean and variance."""
        shape = (x.shape[normalize_axis(axis, x.ndim)],)
        _check_affine("batch_norm", affine, shape, scale)
        return x, x.with_shape(shape), x.with_shape(shape)

    def decompose(
        self, x: Any, *affine: Any, axis: int, eps: float, scale: bool, center: bool
    ) -> Any:
        """Subtract the mean, divide by the standard deviation, scale and shift."""
        channel, axes = _channel(x, axis)
        centered, middle, variance = moments(x, axes)
        gamma, beta = (_spread(v, x.shape, channel) for v in _affine(affine, scale, center))
        factor = rsqrt(variance + eps)
        y = centered * (factor if gamma is None else factor * gamma)
        shape = (x.shape[channel[0]],)
        y = y if beta is None else y + beta
        return y, reshape(middle, shape), reshape(variance, shape)

    def vjp(
        self, g: Any, y: Any, x: Any, *affine: Any, axis: int, eps: float, scale: bool,
        center: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Return the gradients by the closed form: gamma's and beta's are its two reductions."""
        channel, axes = _channel(x, axis)
        middle, variance = (_spread(v, x.shape, channel) for v in y[1:])
        gamma = _spread(_affine(affine, scale, center)[0], x.shape, channel)
        g_mean, g_variance = (_spread(v, x.shape, channel) for v in g[1:])
        dx = _moment_gradients(g_mean, g_variance, x - middle, axes)
        if g[0] is None:
            return (dx, *(None,) * len(affine))
        rstd = rsqrt(variance + eps)
        normal = (x - middle) * rstd
        shift = sum_(g[0], axis=axes, keepdims=True)
        slope = sum_(g[0] * normal, axis=axes, keepdims=True)
        count = size_value(product(x.shape[a] for a in axes), as_dtype(x.dtype))
        factor = rstd if gamma is None else rstd * gamma
        own = factor * (g[0] - shift / count - normal * (slope / count))
        shape = (x.shape[channel[0]],)
        return (
            own if dx is None else own + dx,
            *([reshape(slope, shape)] if scale else []),
            *([reshape(shift, shape)] if center else []),
        )

    def reference(
        self, x: np.ndarray, *affine: np.ndarray, axis: int, eps: float, scale: bool, center: bool
    ) -> Any:
        """Compute with NumPy."""
        channel, axes = _channel(x, axis)
        parts = _affine(affine, scale, center)
        y, middle, variance = _numpy_normalized(x, axes, channel, parts, eps)
        return y, middle.reshape(-1), variance.reshape(-1)


def _channel(x: Any, axis: int) -> tuple[Axes, Axes]:
    """Return the channel axis and the others."""
    channel = normalize_axis(axis, x.ndim)
    return (channel,), tuple(a for a in range(x.ndim) if a != channel)


layer_norm = register(LayerNorm())
batch_norm = register(BatchNorm())


# -- compositions ------------------------------------------------------------------------------


def batch_norm_inference(
    x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any, axis: int = 1,
    eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Normalise each channel by given statistics.

    Parameters
    ----------
    x : operand
    gamma, beta : operand, shape (C,), or None
    running_mean, running_var : operand, shape (C,)
    axis : int
        The channel axis.
    eps : float
        Added to the variance.
    """
    shape = shape_of(x)
    channel = (attempt("batch_norm", (x,), normalize_axis, axis, len(shape)),)
    middle, variance, scale, shift = (
        _spread(v, shape, channel) for v in (running_mean, running_var, gamma, beta)
    )
    factor = rsqrt(variance + eps)
    y = (x - middle) * (factor if scale is None else factor * scale)
    return y if shift is None else y + shift


@composite(
    lambda x, axis, eps: x / np.sqrt((x * x).sum(axis=axis, keepdims=True) + x.dtype.type(eps)),
    dtypes=FLOATS,
    samples=(
        sample((2, 3), axis=-1, eps=1e-10),
        sample((2, 3, 2), axis=(1, 2), eps=1e-3),
        sample(Spec((2, 2), 0, 0.0), axis=0, eps=0.5),
    ),
)
def l2_normalize(x: Any, axis: int | Sequence[int] = -1, eps: float = 1e-10) -> Any:
    """Return ``x`` divided by its Euclidean norm over ``axis``, ``sqrt(sum(x * x) + eps)``."""
    return x / sqrt(sum_(x * x, axis=axis, keepdims=True) + eps)


def instance_norm(x: Any, gamma: Any = None, beta: Any = None, eps: float = 1e-5) -> Any:
    """Normalise each channel (axis 1) of each example over its spatial axes."""
    shape = shape_of(x)
    y = layer_norm(x, axis=range(2, len(shape)), eps=eps)
    scale, shift = (_spread(v, shape, (1,)) for v in (gamma, beta))
    y = y if scale is None else y * scale
    return y if shift is None else y + shift


def group_norm(
    x: Any, groups: int, gamma: Any = None, beta: Any = None, eps: float = 1e-5
) -> Any:
    """Normalise groups of channels (axis 1) of each example, then scale each channel.

    Raises
    ------
    ShapeError
        When the channels do not divide into ``groups``.
    """
    shape = shape_of(x)
    if resolve(shape[1] % groups) != 0:
        raise ShapeError(f"{resolve(shape[1])} channels do not divide into {groups} groups")
    split = reshape(x, (shape[0], groups, shape[1] // groups * product(shape[2:])))
    y = reshape(layer_norm(split, axis=-1, eps=eps), shape)
    scale, shift = (_spread(v, shape, (1,)) for v in (gamma, beta))
    y = y if scale is None else y * scale
    return y if shift is None else y + shift

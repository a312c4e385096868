"""Reductions: ``axis`` may be an axis or a list, ``exclude`` turns it around, nothing is 0-d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontend.ops.operator import at_least_1d, chosen, dims, operator
from graphc.ir.ops import basic, comparison, normalization, reduction, statistics
from graphc.ir.ops.composite import attempt
from graphc.ir.types import as_dtype, normalize_axes

Axis = int | Sequence[int] | None


def _axes(op: str, data: Any, axis: Axis, exclude: bool = False) -> tuple[int, ...] | None:
    """Return the axes to reduce; None for all of them."""
    if axis is None or (hasattr(axis, "__len__") and not len(axis)):
        return None
    ndim = len(dims(data))
    axes = attempt(op, (data,), normalize_axes, axis, ndim)
    return tuple(a for a in range(ndim) if a not in axes) if exclude else axes


def floating(data: Any) -> Any:
    """Return integers as float32, which MXNet's means are of."""
    return data if as_dtype(data.dtype).floating else basic.cast(data, "float32")


def _own_type(data: Any) -> str | None:
    """Return the type integers are summed in: their own, if that is not a small one."""
    dtype = as_dtype(data.dtype)
    if dtype.floating:
        return None
    return "int64" if dtype.item_bytes == 8 else "int32"


@operator("sum", "sum_axis")
def sum(data: Any, axis: Axis = None, keepdims: bool = False, exclude: bool = False) -> Any:
    """Return sums over axes.

    Parameters
    ----------
    data : array
        Integers are summed in int32, in int64 where they are.
    axis : int, list of int or None
        None, or an empty list, for all axes.
    keepdims : bool
        Keep the axes with size 1.
    exclude : bool
        Reduce the axes that ``axis`` does not name.

    Returns
    -------
    array
        Of shape (1,) where every axis was reduced.
    """
    dtype = _own_type(data)
    total = reduction.sum(data, _axes("sum", data, axis, exclude), keepdims, dtype=dtype)
    return at_least_1d(total)


sum_axis = sum


@operator("nansum")
def nansum(data: Any, axis: Axis = None, keepdims: bool = False, exclude: bool = False) -> Any:
    """Return sums over axes, NaN counted as 0."""
    return sum(comparison.where(comparison.isnan(data), 0.0, data), axis, keepdims, exclude)


@operator("nanprod")
def nanprod(data: Any, axis: Axis = None, keepdims: bool = False, exclude: bool = False) -> Any:
    """Return products over axes, NaN counted as 1."""
    return prod(comparison.where(comparison.isnan(data), 1.0, data), axis, keepdims, exclude)


@operator("mean")
def mean(data: Any, axis: Axis = None, keepdims: bool = False, exclude: bool = False) -> Any:
    """Return means over axes; those of integers are float32."""
    data = floating(data)
    return at_least_1d(reduction.mean(data, _axes("mean", data, axis, exclude), keepdims))


@operator("prod")
def prod(data: Any, axis: Axis = None, keepdims: bool = False, exclude: bool = False) -> Any:
    """Return products over axes."""
    dtype = _own_type(data)
    axes = _axes("prod", data, axis, exclude)
    return at_least_1d(reduction.prod(data, axes, keepdims, dtype=dtype))


@operator("max", "max_axis")
def max(data: Any, axis: Axis = None, keepdims: bool = False, exclude: bool = False) -> Any:
    """Return the largest elements over axes."""
    return at_least_1d(reduction.max(data, _axes("max", data, axis, exclude), keepdims))


@operator("min", "min_axis")
def min(data: Any, axis: Axis = None, keepdims: bool = False, exclude: bool = False) -> Any:
    """Return the smallest elements over axes."""
    return at_least_1d(reduction.min(data, _axes("min", data, axis, exclude), keepdims))


max_axis, min_axis = max, min


@operator("argmax")
def argmax(data: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Return the position of the first largest element, as float32.

    Parameters
    ----------
    data : array
    axis : int or None
        None for the position among all elements.
    keepdims : bool
    """
    return at_least_1d(basic.cast(reduction.argmax(data, axis, keepdims), "float32"))


@operator("argmin")
def argmin(data: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Return the position of the first smallest element, as float32."""
    return at_least_1d(basic.cast(reduction.argmin(data, axis, keepdims), "float32"))


@operator("argmax_channel")
def argmax_channel(data: Any) -> Any:
    """Return the position of the largest element of each row, as float32."""
    return basic.cast(reduction.argmax(data, 1), "float32")


@operator("norm")
def norm(data: Any, ord: float = 2, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return ``sum(|x| ** ord) ** (1 / ord)`` over axes."""
    data = floating(data)
    return at_least_1d(statistics.norm(data, ord, _axes("norm", data, axis), keepdims))


@operator("moments", outputs=lambda **_: ("output", "var"))
def moments(data: Any, axes: Axis = None, keepdims: bool = False) -> list[Any]:
    """Return mean and biased variance over axes."""
    data = floating(data)
    over = _axes("moments", data, axes)
    parts = reduction.mean(data, over, keepdims), statistics.var(data, over, 0, keepdims)
    return [at_least_1d(part) for part in parts]


_L2_MODES = ("instance", "channel", "spatial")


@operator("L2Normalization")
def L2Normalization(data: Any, eps: float = 1e-10, mode: str = "instance") -> Any:
    """Return ``x / sqrt(sum(x * x) + eps)``.

    Parameters
    ----------
    data : array, shape (N, C, ...)
    eps : float
    mode : {"instance", "channel", "spatial"}
        Sum over everything but axis 0, over axis 1, or over the axes from 2.
    """
    ndim = len(dims(data))
    first = {"instance": 1, "channel": 1, "spatial": 2}[chosen("mode", mode, _L2_MODES)]
    axes = (1,) if mode == "channel" else tuple(range(first, ndim))
    return normalization.l2_normalize(data, axes, eps)

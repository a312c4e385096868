"""Max pooling over spatial axes, and its gradient in gather form.

Data is ``(N, C, *spatial)`` with 1, 2 or 3 spatial axes. To fusion these are MOVEMENT: they read
windows of a few elements at other places than they write, and their results feed pointwise ops.
The gradients are records whose own gradients are records here, so any order exists.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError
from graphc.ir.dim import Dim
from graphc.ir.expr import Expr
from graphc.ir.op import FLOATS, NUMBERS, Kind, OpDef, Spec, register, sample
from graphc.ir.operand import apply
from graphc.ir.operations import highest, lowest
from graphc.ir.ops.composite import known_shape
from graphc.ir.ops.windows import (
    Array,
    add_patches,
    check_layout,
    count_windows,
    inside,
    over_covering_windows,
    patches,
    per_axis,
    read,
)
from graphc.ir.sizes import resolve
from graphc.ir.types import DType, TensorType, as_dtype, int32, int64, same_shape, shape_text

Numbers = int | Sequence[int]
Window = tuple[int, ...]


def pool_settings(
    kernel: Numbers, stride: Numbers | None, pad: Numbers, shape: Any
) -> dict[str, Any]:
    """Return kernel, stride and padding with one number for each spatial axis."""
    given = [v for v in (kernel, stride, pad) if isinstance(v, Iterable)]
    axes = max((len(tuple(v)) for v in given), default=0) or (len(shape) - 2 if shape else 2)
    sizes = per_axis("kernel", kernel, axes, 1)
    border = per_axis("pad", pad, axes, 0)
    if any(p >= n for p, n in zip(border, sizes)):
        raise ArgumentError(
            f"pad {pad} must be smaller than the window {kernel}",
            remedy="Otherwise a window could lie on padding only.",
        )
    steps = sizes if stride is None else per_axis("stride", stride, axes, 1)
    return {"kernel": sizes, "stride": steps, "pad": border}


def pooled(
    op: str, x: TensorType, kernel: Window, stride: Window, pad: Window, ceil_mode: bool
) -> TensorType:
    """Return the type with a window's result in place of every window."""
    check_layout(op, x, len(kernel))
    for axis, size in enumerate(x.shape[2:]):
        if resolve(size) == 0:
            raise ShapeError(f"{op} over spatial axis {axis}, which has no elements")
    plain = (1,) * len(kernel)
    counts = count_windows(op, x.shape[2:], kernel, stride, pad, plain, ceil_mode)
    return x.with_shape((*x.shape[:2], *counts))


def _positions(
    windows: Sequence[Expr], offsets: Sequence[Any], stride: Window, pad: Window
) -> list[Expr]:
    return [i * s + r - p for i, r, s, p in zip(windows, offsets, stride, pad)]


def window_read(
    x: Any, index: Sequence[Expr], offsets: Sequence[Any], fill: int | float | bool,
    stride: Window, pad: Window, ceil_mode: bool,
) -> tuple[Expr, Expr | None]:  # fmt: skip
    """Return an element of the window at ``index``, and whether it is on the data."""
    batch, channel, *windows = index
    at = _positions(windows, offsets, stride, pad)
    padded = [p > 0 for p in pad]
    mask = inside(at, x.shape[2:], padded, [p or ceil_mode for p in padded])
    return read(x, mask, fill, batch, channel, *at), mask


def _flat(offsets: Sequence[Expr], kernel: Window) -> Expr:
    """Return the row-major number of a position within its window."""
    flat = offsets[0]
    for offset, size in zip(offsets[1:], kernel[1:]):
        flat = flat * size + offset
    return flat


def check_same(op: str, a: TensorType, b: TensorType) -> None:
    """Raise ShapeError unless two operands have the same shape."""
    if not same_shape(a.shape, b.shape):
        raise ShapeError(f"shapes of {op} differ: {shape_text(a.shape)} and {shape_text(b.shape)}")


def columns(
    x: Array, kernel: Window, stride: Window, pad: Window, ceil_mode: bool, fill: Any
) -> Array:
    """Return the windows of an array, shape ``(N, C, *counts, elements)``."""
    plain = (1,) * len(kernel)
    counts = count_windows("a pool", x.shape[2:], kernel, stride, pad, plain, ceil_mode)
    sizes = [int(n) for n in counts]
    view = patches(x, kernel, stride, pad, plain, sizes, fill)
    return view.reshape(*x.shape[:2], *sizes, math.prod(kernel))


def _least(x: Array) -> int | float | bool:
    return lowest(as_dtype(x.dtype))


_MAX_SAMPLES = tuple(
    sample(Spec(shape, distinct=True), kernel=kernel, stride=stride, pad=pad, ceil_mode=ceil_mode)
    for shape, kernel, stride, pad, ceil_mode in (
        ((2, 3, 4, 6), (2, 2), (2, 2), (0, 0), False),
        ((1, 2, 5, 5), (2, 2), (2, 2), (0, 0), False),
        ((1, 2, 5, 5), (2, 2), (2, 2), (0, 0), True),
        ((2, 1, 6, 5), (3, 3), (2, 1), (1, 1), False),
        ((1, 2, 7, 4), (3, 2), (2, 3), (1, 0), True),
        ((1, 1, 5, 7), (1, 2), (2, 3), (0, 0), False),
        ((2, 2, 7), (3,), (2,), (1,), False),
        ((1, 1, 3, 4, 4), (2, 2, 2), (1, 2, 2), (0, 0, 1), False),
        ((0, 2, 4, 4), (2, 2), (2, 2), (0, 0), False),
    )
)


class MaxPooling(OpDef):
    """What the pool and the index record share: settings and checks."""

    kind, dtypes, compiled = Kind.MOVEMENT, NUMBERS, True
    samples = _MAX_SAMPLES
    tolerance: dict[DType, tuple[float, float]] = {}

    def __call__(
        self, x: Any, kernel: Numbers, stride: Numbers | None = None, pad: Numbers = 0,
        ceil_mode: bool = False,
    ) -> Any:  # fmt: skip
        """Look for the largest element of each window.

        Parameters
        ----------
        x : operand, shape (N, C, *spatial)
        kernel : int or sequence of int
            Size of the window.
        stride : int or sequence of int, optional
            Distance of windows; by default they lie side by side.
        pad : int or sequence of int
            Padding on both sides, smaller than the window; never the largest element.
        ceil_mode : bool
            Keep a last, incomplete window, unless it begins in the right padding.

        Returns
        -------
        operand, shape (N, C, *counts)

        Raises
        ------
        ShapeError
            When a window is larger than the padded input.
        """
        settings = pool_settings(kernel, stride, pad, known_shape(x))
        return apply(self, (x,), {**settings, "ceil_mode": bool(ceil_mode)})


class MaxPool(MaxPooling):
    """Largest element of each window; NaN if the window has one."""

    name = "max_pool"

    def infer(
        self, x: TensorType, *, kernel: Window, stride: Window, pad: Window, ceil_mode: bool
    ) -> TensorType:
        """Return ``(N, C, *counts)``."""
        return pooled("max_pool", x, kernel, stride, pad, ceil_mode)

    def vjp(
        self, g: Any, y: Any, x: Any, *, kernel: Window, stride: Window, pad: Window,
        ceil_mode: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Give the gradient of a window to its first largest element."""
        index = max_pool_index(x, kernel, stride, pad, ceil_mode)
        return (max_pool_grad(g, index, tuple(x.shape[2:]), kernel, stride, pad),)

    def lower(
        self, k: Any, x: Any, *, kernel: Window, stride: Window, pad: Window, ceil_mode: bool
    ) -> Any:
        """Reduce over the window; padding reads as the smallest value."""
        fill = lowest(x.dtype)

        def element(*offsets: Expr) -> Expr:
            return window_read(x, k.index, offsets, fill, stride, pad, ceil_mode)[0]

        return k.reduce("max", kernel, element)

    def reference(
        self, x: Array, *, kernel: Window, stride: Window, pad: Window, ceil_mode: bool
    ) -> Any:
        """Take maxima of windows with NumPy."""
        cols = columns(x, kernel, stride, pad, ceil_mode, _least(x))
        return cols.max(axis=-1)


class MaxPoolIndex(MaxPooling):
    """Row-major position of the first largest element in each window; of the first NaN, if any."""

    name, gradient = "max_pool_index", False

    def infer(
        self, x: TensorType, *, kernel: Window, stride: Window, pad: Window, ceil_mode: bool
    ) -> TensorType:
        """Return int32 ``(N, C, *counts)``."""
        return pooled("max_pool", x, kernel, stride, pad, ceil_mode).with_dtype(int32)

    def lower(
        self, k: Any, x: Any, *, kernel: Window, stride: Window, pad: Window, ceil_mode: bool
    ) -> Any:
        """Take the least position among those that hold the maximum."""
        fill = lowest(x.dtype)

        def element(*offsets: Expr) -> tuple[Expr, Expr | None]:
            return window_read(x, k.index, offsets, fill, stride, pad, ceil_mode)

        peak = k.reduce("max", kernel, lambda *offsets: element(*offsets)[0])

        def position(*offsets: Expr) -> Expr:
            value, mask = element(*offsets)
            found = value.eq(peak) | value.ne(value) if x.dtype.floating else value.eq(peak)
            found = found if mask is None else found & mask
            place: Expr = k.select(found, k.cast(_flat(offsets, kernel), int32), highest(int32))
            return place

        return k.reduce("min", kernel, position)

    def reference(
        self, x: Array, *, kernel: Window, stride: Window, pad: Window, ceil_mode: bool
    ) -> Any:
        """Look for maxima of windows with NumPy."""
        cols = columns(x, kernel, stride, pad, ceil_mode, _least(x))
        real = columns(np.ones(x.shape, bool), kernel, stride, pad, ceil_mode, False)
        found = ((cols == cols.max(axis=-1, keepdims=True)) | (cols != cols)) & real
        return found.argmax(axis=-1).astype(np.int32)


class MaxPoolGrad(OpDef):
    """Spreads the gradient of each window to the element that its index names; zero elsewhere."""

    name, kind, dtypes, compiled = "max_pool_grad", Kind.MOVEMENT, FLOATS, True
    samples = (
        sample((1, 2, 2, 3), Spec((1, 2, 2, 3), 0, 4, int32), spatial=(4, 6), kernel=(2, 2),
               stride=(2, 2), pad=(0, 0)),
        sample((1, 2, 2, 2), Spec((1, 2, 2, 2), 0, 4, int32), spatial=(5, 5), kernel=(2, 2),
               stride=(2, 2), pad=(0, 0)),
        sample((2, 1, 3, 5), Spec((2, 1, 3, 5), 0, 9, int32), spatial=(6, 5), kernel=(3, 3),
               stride=(2, 1), pad=(1, 1)),
        sample((1, 1, 3, 2), Spec((1, 1, 3, 2), 0, 2, int32), spatial=(5, 7), kernel=(1, 2),
               stride=(2, 3), pad=(0, 0)),
        sample((2, 2, 4), Spec((2, 2, 4), 0, 3, int32), spatial=(7,), kernel=(3,), stride=(2,),
               pad=(1,)),
    )  # fmt: skip

    def __call__(
        self, g: Any, index: Any, spatial: Sequence[Dim], kernel: Window, stride: Window,
        pad: Window,
    ) -> Any:  # fmt: skip
        """Spread ``g`` over data of ``spatial`` sizes, by the ``index`` of `max_pool_index`."""
        settings = {"kernel": tuple(kernel), "stride": tuple(stride), "pad": tuple(pad)}
        return apply(self, (g, index), {"spatial": tuple(spatial), **settings})

    def infer(
        self, g: TensorType, index: TensorType, *, spatial: tuple[Dim, ...], kernel: Window,
        stride: Window, pad: Window,
    ) -> TensorType:  # fmt: skip
        """Return ``(N, C, *spatial)``."""
        check_layout("max_pool_grad", g, len(kernel))
        check_same("max_pool_grad", g, index)
        return g.with_shape((*g.shape[:2], *spatial))

    def vjp(
        self, g: Any, y: Any, ct: Any, index: Any, *, spatial: tuple[Dim, ...], kernel: Window,
        stride: Window, pad: Window,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Take the elements that the index names."""
        return max_pool_take(g, index, kernel, stride, pad), None

    def lower(
        self, k: Any, g: Any, index: Any, *, spatial: tuple[Dim, ...], kernel: Window,
        stride: Window, pad: Window,
    ) -> Any:  # fmt: skip
        """Add over the windows that cover a position and name it."""
        batch, channel = k.index[:2]

        def term(mask: Expr | None, windows: list[Expr], offsets: list[Expr]) -> Expr:
            named = read(index, mask, -1, batch, channel, *windows)
            here = named.eq(k.cast(_flat(offsets, kernel), int32))
            value = read(g, mask, 0, batch, channel, *windows)
            return k.select(here, value, 0)  # type: ignore[no-any-return]

        return over_covering_windows(k, kernel, stride, pad, g.shape[2:], term)

    def reference(
        self, g: Array, index: Array, *, spatial: Window, kernel: Window, stride: Window,
        pad: Window,
    ) -> Any:  # fmt: skip
        """Put each gradient in its place of a window, and add the windows up."""
        places = np.arange(math.prod(kernel), dtype=np.int32)
        cols = np.where(index[..., None] == places, g[..., None], 0).astype(g.dtype)
        cols = cols.reshape(*g.shape, *kernel)
        return add_patches(cols, spatial, stride, pad, (1,) * len(kernel))


class MaxPoolTake(OpDef):
    """The element of each window that its index names; zero where that is padding."""

    name, kind, dtypes, compiled = "max_pool_take", Kind.MOVEMENT, FLOATS, True
    samples = (
        sample((1, 2, 4, 6), Spec((1, 2, 2, 3), 0, 4, int32), kernel=(2, 2), stride=(2, 2),
               pad=(0, 0)),
        sample((2, 1, 6, 5), Spec((2, 1, 3, 5), 0, 9, int32), kernel=(3, 3), stride=(2, 1),
               pad=(1, 1)),
        sample((2, 2, 7), Spec((2, 2, 4), 0, 3, int32), kernel=(3,), stride=(2,), pad=(1,)),
    )  # fmt: skip

    def __call__(self, x: Any, index: Any, kernel: Window, stride: Window, pad: Window) -> Any:
        """Take from ``x`` by the ``index`` of `max_pool_index`."""
        settings = {"kernel": tuple(kernel), "stride": tuple(stride), "pad": tuple(pad)}
        return apply(self, (x, index), settings)

    def infer(
        self, x: TensorType, index: TensorType, *, kernel: Window, stride: Window, pad: Window
    ) -> TensorType:
        """Return a value for each index."""
        check_layout("max_pool_take", x, len(kernel))
        return x.with_shape(index.shape)

    def vjp(
        self, g: Any, y: Any, x: Any, index: Any, *, kernel: Window, stride: Window, pad: Window
    ) -> tuple[Any, ...]:
        """Put the gradients back."""
        return max_pool_grad(g, index, tuple(x.shape[2:]), kernel, stride, pad), None

    def lower(
        self, k: Any, x: Any, index: Any, *, kernel: Window, stride: Window, pad: Window
    ) -> Any:
        """Read at the position that the index names."""
        batch, channel, *windows = k.index
        flat = k.cast(index.at(*k.index), int64)
        offsets = []
        for axis, size in enumerate(kernel):
            stride_within = math.prod(kernel[axis + 1 :])
            digit = flat // stride_within if stride_within > 1 else flat
            offsets.append(digit % size if axis else digit)
        at = _positions(windows, offsets, stride, pad)
        every = [True] * len(kernel)
        return read(x, inside(at, x.shape[2:], every, every), 0, batch, channel, *at)

    def reference(
        self, x: Array, index: Array, *, kernel: Window, stride: Window, pad: Window
    ) -> Any:
        """Take along the windows with NumPy."""
        plain = (1,) * len(kernel)
        cols = patches(x, kernel, stride, pad, plain, index.shape[2:])
        cols = cols.reshape(*index.shape, math.prod(kernel))
        return np.take_along_axis(cols, index[..., None].astype(np.int64), -1)[..., 0]


max_pool = register(MaxPool())
max_pool_index = register(MaxPoolIndex())
max_pool_grad = register(MaxPoolGrad())
max_pool_take = register(MaxPoolTake())

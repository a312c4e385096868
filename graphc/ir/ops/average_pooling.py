"""Average and global pooling over spatial axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.ir.dim import Dim
from graphc.ir.expr import Expr
from graphc.ir.op import FLOATS, NUMBERS, Kind, OpDef, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.composite import composite, known_shape, shape_of
from graphc.ir.ops.pooling import (
    Numbers,
    Window,
    check_same,
    columns,
    pool_settings,
    pooled,
    window_read,
)
from graphc.ir.ops.reduction import max as max_
from graphc.ir.ops.reduction import mean
from graphc.ir.ops.windows import (
    Array,
    add_patches,
    check_layout,
    over_covering_windows,
    read,
)
from graphc.ir.types import DType, TensorType, float32, floating_dtype

_MEAN_SAMPLES = tuple(
    (shape, {"kernel": kernel, "stride": stride, "pad": pad, "ceil_mode": ceil_mode,
             "count_include_pad": include})
    for shape, kernel, stride, pad, ceil_mode, include in (
        ((2, 3, 4, 6), (2, 2), (2, 2), (0, 0), False, True),
        ((1, 2, 5, 5), (2, 2), (2, 2), (0, 0), True, True),
        ((2, 1, 6, 5), (3, 3), (2, 1), (1, 1), False, True),
        ((2, 1, 6, 5), (3, 3), (2, 1), (1, 1), False, False),
        ((1, 2, 7, 4), (3, 2), (2, 3), (1, 1), True, True),
        ((1, 2, 7, 4), (3, 2), (2, 3), (1, 1), True, False),
        ((1, 1, 5, 7), (1, 2), (2, 3), (0, 0), False, True),
        ((2, 2, 7), (3,), (2,), (1,), False, False),
    )
)  # fmt: skip


def _windows(shape: tuple[int, ...], attrs: dict[str, Any]) -> tuple[int, ...]:
    numbers = attrs["kernel"], attrs["stride"], attrs["pad"], attrs["ceil_mode"]
    found = pooled("avg_pool", TensorType(float32, shape), *numbers)
    return tuple(int(n) for n in found.shape[2:])


def _divisor(
    k: Any, windows: Sequence[Expr], spatial: Sequence[Dim], dtype: DType, kernel: Window,
    stride: Window, pad: Window, ceil_mode: bool, count_include_pad: bool,
) -> Expr:  # fmt: skip
    """Return how many elements the mean of a window is over."""
    if not any(pad) and not ceil_mode or count_include_pad and not ceil_mode:
        return k.const(math.prod(kernel), dtype)  # type: ignore[no-any-return]
    count: Any = 1
    for window, size, n, s, p in zip(windows, spatial, kernel, stride, pad):
        border = p if count_include_pad else 0
        start = window * s - p
        end = k.minimum(start + n, k.size(size + border))
        count = (end - (start if border == p else k.maximum(start, -border))) * count
    # Windows that do not exist, which the gradient asks for and drops, must not divide by zero.
    return k.cast(k.maximum(count, 1), dtype)  # type: ignore[no-any-return]


def _counts_of(
    spatial: Sequence[int], counts: Sequence[int], dtype: Any, kernel: Window, stride: Window,
    pad: Window, count_include_pad: bool,
) -> Array:  # fmt: skip
    total = np.ones((1,) * len(kernel))
    for axis, (size, count, n, s, p) in enumerate(zip(spatial, counts, kernel, stride, pad)):
        border = p if count_include_pad else 0
        start = np.arange(count) * s - p
        covered = np.minimum(start + n, size + border) - np.maximum(start, -border)
        total = total * covered.reshape([-1 if a == axis else 1 for a in range(len(kernel))])
    return total.astype(dtype)


class AvgPool(OpDef):
    """Mean of each window.

    With ``count_include_pad`` padding counts as zeros, otherwise it does not count.
    """

    name, kind, compiled = "avg_pool", Kind.MOVEMENT, True
    samples = tuple(sample(shape, **attrs) for shape, attrs in _MEAN_SAMPLES)

    def __call__(
        self, x: Any, kernel: Numbers, stride: Numbers | None = None, pad: Numbers = 0,
        ceil_mode: bool = False, count_include_pad: bool = True,
    ) -> Any:  # fmt: skip
        """Average windows.

        Parameters
        ----------
        x : operand, shape (N, C, *spatial)
            Integers are averaged in floating point.
        kernel, stride, pad, ceil_mode
            As of `max_pool`.
        count_include_pad : bool
            Whether padding counts, as zeros.

        Returns
        -------
        operand, shape (N, C, *counts)
        """
        settings = pool_settings(kernel, stride, pad, known_shape(x))
        flags = {"ceil_mode": bool(ceil_mode), "count_include_pad": bool(count_include_pad)}
        return apply(self, (x,), {**settings, **flags})

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Promote integers to floating point."""
        return (floating_dtype(types[0].dtype),)

    def infer(
        self, x: TensorType, *, kernel: Window, stride: Window, pad: Window, ceil_mode: bool,
        count_include_pad: bool,
    ) -> TensorType:  # fmt: skip
        """Return ``(N, C, *counts)``."""
        return pooled("avg_pool", x, kernel, stride, pad, ceil_mode)

    def vjp(self, g: Any, y: Any, x: Any, **attrs: Any) -> tuple[Any, ...]:
        """Spread the gradient evenly over each window."""
        return (avg_pool_grad(g, spatial=tuple(x.shape[2:]), **attrs),)

    def lower(
        self, k: Any, x: Any, *, kernel: Window, stride: Window, pad: Window, ceil_mode: bool,
        count_include_pad: bool,
    ) -> Any:  # fmt: skip
        """Add over the window and divide."""

        def element(*offsets: Expr) -> Expr:
            return window_read(x, k.index, offsets, 0, stride, pad, ceil_mode)[0]

        settings = kernel, stride, pad, ceil_mode, count_include_pad
        divisor = _divisor(k, k.index[2:], x.shape[2:], x.dtype, *settings)
        return k.reduce("add", kernel, element) / divisor

    def reference(
        self, x: Array, *, kernel: Window, stride: Window, pad: Window, ceil_mode: bool,
        count_include_pad: bool,
    ) -> Any:  # fmt: skip
        """Add windows up with NumPy and divide."""
        cols = columns(x, kernel, stride, pad, ceil_mode, 0)
        shapes = x.shape[2:], cols.shape[2:-1]
        return cols.sum(axis=-1) / _counts_of(
            *shapes, x.dtype, kernel, stride, pad, count_include_pad
        )


class AvgPoolGrad(OpDef):
    """Spreads the gradient of each window evenly over the elements it is the mean of."""

    name, kind, compiled = "avg_pool_grad", Kind.MOVEMENT, True
    samples = tuple(
        sample(shape[:2] + _windows(shape, attrs), spatial=shape[2:], **attrs)
        for shape, attrs in _MEAN_SAMPLES
    )

    def __call__(self, g: Any, spatial: Sequence[Dim], **attrs: Any) -> Any:
        """Spread ``g`` over data of ``spatial`` sizes; the attributes are those of `avg_pool`."""
        return apply(self, (g,), {"spatial": tuple(spatial), **attrs})

    def infer(
        self, g: TensorType, *, spatial: tuple[Dim, ...], kernel: Window, stride: Window,
        pad: Window, ceil_mode: bool, count_include_pad: bool,
    ) -> TensorType:  # fmt: skip
        """Return ``(N, C, *spatial)``."""
        check_layout("avg_pool_grad", g, len(kernel))
        data = g.with_shape((*g.shape[:2], *spatial))
        check_same("avg_pool_grad", g, pooled("avg_pool", data, kernel, stride, pad, ceil_mode))
        return data

    def vjp(
        self, g: Any, y: Any, ct: Any, *, spatial: tuple[Dim, ...], **attrs: Any
    ) -> tuple[Any, ...]:
        """Average the windows."""
        return (avg_pool(g, **attrs),)

    def lower(
        self, k: Any, g: Any, *, spatial: tuple[Dim, ...], kernel: Window, stride: Window,
        pad: Window, ceil_mode: bool, count_include_pad: bool,
    ) -> Any:  # fmt: skip
        """Add over the windows that cover a position."""
        batch, channel = k.index[:2]
        settings = kernel, stride, pad, ceil_mode, count_include_pad

        def term(mask: Expr | None, windows: list[Expr], offsets: list[Expr]) -> Expr:
            divisor = _divisor(k, windows, k.shape[2:], g.dtype, *settings)
            return read(g, mask, 0, batch, channel, *windows) / divisor

        return over_covering_windows(k, kernel, stride, pad, g.shape[2:], term)

    def reference(
        self, g: Array, *, spatial: Window, kernel: Window, stride: Window, pad: Window,
        ceil_mode: bool, count_include_pad: bool,
    ) -> Any:  # fmt: skip
        """Divide, repeat over each window and add the windows up."""
        counts = _counts_of(
            spatial, g.shape[2:], g.dtype, kernel, stride, pad, count_include_pad
        )
        share = (g / counts).reshape(*g.shape, *(1,) * len(kernel))
        cols = np.broadcast_to(share, (*g.shape, *kernel))
        return add_patches(cols, spatial, stride, pad, (1,) * len(kernel))


avg_pool = register(AvgPool())
avg_pool_grad = register(AvgPoolGrad())


# -- global pools ------------------------------------------------------------------------------


def _spatial(x: Any) -> tuple[int, ...]:
    ndim = len(shape_of(x))
    return tuple(range(2, ndim))


@composite(
    lambda x: x.max(axis=tuple(range(2, x.ndim)), keepdims=True),
    dtypes=NUMBERS, samples=(sample((2, 3, 4, 2)), sample((2, 3, 4)), sample((0, 2, 3, 3))),
)  # fmt: skip
def global_max_pool(x: Any) -> Any:
    """Return the largest element of each channel, shape ``(N, C, 1, ...)``."""
    return max_(x, axis=_spatial(x), keepdims=True)


@composite(
    lambda x: x.mean(axis=tuple(range(2, x.ndim)), keepdims=True),
    dtypes=FLOATS, samples=(sample((2, 3, 4, 2)), sample((2, 3, 4)), sample((0, 2, 3, 3))),
)  # fmt: skip
def global_avg_pool(x: Any) -> Any:
    """Return the mean of each channel, shape ``(N, C, 1, ...)``."""
    return mean(x, axis=_spatial(x), keepdims=True)

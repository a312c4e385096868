"""Convolutions and pools over data with its channels last: ``(N, *spatial, C)``.

The pass `layout` puts these in place of the ops over ``(N, C, *spatial)`` once gradients are taken.
Channels are then what vectors run along: no lane falls on the border of an image, however small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product as places
from typing import Any, NoReturn

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.dim import Dim
from graphc.ir.expr import Expr
from graphc.ir.op import Kind, OpDef, register, sample
from graphc.ir.operand import apply
from graphc.ir.operations import lowest
from graphc.ir.ops.windows import Array, count_windows, inside, patches, read
from graphc.ir.sizes import unify
from graphc.ir.types import TensorType, as_dtype, float32, float64, shape_text

Window = tuple[int, ...]
PANEL = 16
"""Columns of a panel of weights: a vector, or two, on every machine."""


def _counts(op: str, x: TensorType, window: Sequence[Dim], stride: Window, pad: Window) -> Any:
    """Return how many windows fit on each spatial axis; raise ShapeError where axes differ."""
    if x.ndim != len(window) + 2:
        raise ShapeError(f"{op} over {len(window)} spatial axes got {shape_text(x.shape)}")
    return count_windows(op, x.shape[1:-1], window, stride, pad, (1,) * len(window))


def _check_channels(op: str, x: TensorType, w: TensorType, axis: int) -> None:
    if w.ndim < 2 or unify(x.shape[-1], w.shape[axis]) is None:
        _differ(op, x, w)


def _check_panels(op: str, x: TensorType, w: TensorType) -> None:
    """Raise ShapeError unless weights come in panels, for the channels of the data."""
    if w.ndim < 3 or unify(w.shape[-1], PANEL) is None:
        _differ(op, x, w)
    _check_channels(op, x, w, -2)


def _differ(op: str, x: TensorType, w: TensorType) -> NoReturn:
    raise ShapeError(f"{op} got data {shape_text(x.shape)} and weights {shape_text(w.shape)}")


def _taps(
    x: Any, index: Sequence[Expr], window: Window, stride: Window, pad: Window, fill: Any
) -> Iterator[Expr]:
    """Yield what the window at an output index reads, in row-major order.

    Only taps that some window has on padding ask whether they are.
    """
    batch, *windows, channel = index
    for offsets in places(*map(range, window)):
        at = [i * s + r - p for i, s, r, p in zip(windows, stride, offsets, pad)]
        below = [r < p for r, p in zip(offsets, pad)]
        above = [r >= n - p for r, n, p in zip(offsets, window, pad)]
        mask = inside(at, x.shape[1:-1], below, above)
        yield read(x, mask, fill, batch, *at, channel)


def _patches(x: Array, window: Window, stride: Window, pad: Window, fill: Any = 0) -> Array:
    """Return windows of an array, shape ``(N, *counts, C, *window)``."""
    plain, first = (1,) * len(window), np.moveaxis(x, -1, 1)
    counts = count_windows("a window", first.shape[2:], window, stride, pad, plain)
    found = patches(first, window, stride, pad, plain, [int(n) for n in counts], fill)
    return np.moveaxis(found, 1, len(window) + 1)


def _window(kernel: Window, stride: Window, pad: Window) -> dict[str, Window]:
    return {"kernel": tuple(kernel), "stride": tuple(stride), "pad": tuple(pad)}


class Last(OpDef):
    """What the records here share."""

    dtypes, gradient = (float32, float64), False
    tolerance = {float32: (1e-4, 2e-5), float64: (1e-11, 1e-12)}


class PanelMatmul(Last):
    """Product of matrices, the second one in panels: ``(*batch, M, K)`` by ``(*batch, P, K, 16)``.

    Column ``16 * p + c`` of that matrix is ``[p, :, c]``: as register tiles read it.
    """

    name, kind = "panel_matmul", Kind.CONTRACT
    samples = (
        sample((5, 3), (2, 3, PANEL)),
        sample((2, 3, 4, 7), (1, 7, PANEL)),
        sample((4, 9, 20), (4, 5, 20, PANEL)),
        sample((0, 3), (2, 3, PANEL)),
    )

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        """Return ``(*batch, M, 16 * P)``."""
        _check_panels("panel_matmul", a, b)
        batch = b.ndim - 3
        if a.ndim <= batch or any(unify(x, y) is None for x, y in zip(a.shape, b.shape[:batch])):
            _differ("panel_matmul", a, b)
        return a.with_shape((*a.shape[:-1], PANEL * b.shape[-3]))

    def lower(self, k: Any, a: Any, b: Any) -> Any:
        """Sum over the inner axis."""
        *rows, column = k.index
        batch = rows[: b.ndim - 3]

        def term(i: Expr) -> Expr:
            weight: Expr = b.at(*batch, column // PANEL, i, column % PANEL)
            found: Expr = a.at(*rows, i) * weight
            return found

        return k.reduce("add", a.shape[-1:], term)

    def reference(self, a: Array, b: Array) -> Array:
        """Put the columns in a row and multiply."""
        matrix = np.moveaxis(b, -3, -2).reshape(*b.shape[:-3], b.shape[-2], -1)
        found: Array = np.matmul(a, matrix)
        return found


class ConvLast(Last):
    """Convolution, channels last: ``(N, *spatial, C)`` by panels ``(P, *window, C, 16)``."""

    name, kind = "conv_last", Kind.CONTRACT
    samples = (
        sample((2, 5, 6, 3), (1, 3, 2, 3, PANEL), stride=(1, 1), pad=(0, 0)),
        sample((1, 7, 6, 2), (2, 3, 3, 2, PANEL), stride=(2, 3), pad=(1, 2)),
        sample((2, 5, 5, 18), (3, 3, 3, 18, PANEL), stride=(1, 1), pad=(1, 1)),
        sample((0, 4, 4, 2), (1, 3, 3, 2, PANEL), stride=(1, 1), pad=(0, 0)),
    )

    def __call__(self, x: Any, w: Any, stride: Window, pad: Window) -> Any:
        """Convolve ``x`` with ``w``; ``stride`` and ``pad`` are for each spatial axis."""
        return apply(self, (x, w), {"stride": tuple(stride), "pad": tuple(pad)})

    def infer(self, x: TensorType, w: TensorType, *, stride: Window, pad: Window) -> TensorType:
        """Return ``(N, *counts, 16 * P)``."""
        _check_panels("conv_last", x, w)
        counts = _counts("conv_last", x, w.shape[1:-2], stride, pad)
        return x.with_shape((x.shape[0], *counts, PANEL * w.shape[0]))

    def lower(self, k: Any, x: Any, w: Any, *, stride: Window, pad: Window) -> Any:
        """Sum over window and input channels."""
        batch, *windows, out = k.index
        padded = [p > 0 for p in pad]

        def term(*index: Expr) -> Expr:
            *offsets, channel = index
            at = [i * s + r - p for i, s, r, p in zip(windows, stride, offsets, pad)]
            mask = inside(at, x.shape[1:-1], padded, padded)
            data = read(x, mask, 0, batch, *at, channel)
            weight: Expr = w.at(out // PANEL, *index, out % PANEL)
            return data * weight

        return k.reduce("add", w.shape[1:-1], term)

    def reference(self, x: Array, w: Array, *, stride: Window, pad: Window) -> Array:
        """Multiply a matrix of patches by the weights."""
        found = _patches(x, w.shape[1:-2], stride, pad)
        turned = np.moveaxis(w, (-2, 0), (0, -2))
        turned = turned.reshape(-1, turned.shape[-2] * PANEL)
        rows = found.reshape(*found.shape[: len(stride) + 1], len(turned))
        result: Array = rows @ turned
        return result


class ConvTurning(ConvLast):
    """Convolution of data with channels first to channels last, by panels ``(P, *window, C, 16)``.

    Data of few channels, ``(N, C, *spatial)``, needs no transpose ahead of it.
    """

    name = "conv_turning"
    samples = (
        sample((2, 3, 5, 6), (1, 3, 2, 3, PANEL), stride=(1, 1), pad=(0, 0)),
        sample((1, 2, 9, 20), (2, 3, 3, 2, PANEL), stride=(2, 2), pad=(0, 0)),
        sample((1, 2, 7, 6), (3, 3, 3, 2, PANEL), stride=(2, 3), pad=(1, 2)),
        sample((0, 2, 4, 4), (1, 3, 3, 2, PANEL), stride=(1, 1), pad=(0, 0)),
    )

    def infer(self, x: TensorType, w: TensorType, *, stride: Window, pad: Window) -> TensorType:
        """Return ``(N, *counts, 16 * P)``."""
        if x.ndim < 3:
            _differ(self.name, x, w)
        turned = x.with_shape((x.shape[0], *x.shape[2:], x.shape[1]))
        return super().infer(turned, w, stride=stride, pad=pad)

    def lower(self, k: Any, x: Any, w: Any, *, stride: Window, pad: Window) -> Any:
        """Sum over window and input channels."""
        batch, *windows, out = k.index
        padded = [p > 0 for p in pad]

        def term(*index: Expr) -> Expr:
            *offsets, channel = index
            at = [i * s + r - p for i, s, r, p in zip(windows, stride, offsets, pad)]
            mask = inside(at, x.shape[2:], padded, padded)
            data = read(x, mask, 0, batch, channel, *at)
            weight: Expr = w.at(out // PANEL, *index, out % PANEL)
            return data * weight

        return k.reduce("add", w.shape[1:-1], term)

    def reference(self, x: Array, w: Array, *, stride: Window, pad: Window) -> Array:
        """Turn the data and convolve."""
        return super().reference(np.moveaxis(x, 1, -1), w, stride=stride, pad=pad)


class DepthwiseLast(Last):
    """Convolution of each channel by weights of its own: ``(N, *spatial, C)`` by ``(*window, C)``.

    A kernel reads a few neighbours of what it writes, as a pool does, so to fusion it is movement.
    """

    name, kind = "depthwise_last", Kind.MOVEMENT
    samples = (
        sample((2, 5, 6, 3), (3, 2, 3), kernel=(3, 2), stride=(1, 1), pad=(0, 0)),
        sample((1, 7, 6, 18), (3, 3, 18), kernel=(3, 3), stride=(2, 2), pad=(1, 1)),
        sample((2, 5, 9, 16), (3, 3, 16), kernel=(3, 3), stride=(1, 1), pad=(1, 1)),
        sample((1, 6, 7, 5), (5, 5, 5), kernel=(5, 5), stride=(1, 2), pad=(2, 2)),
    )

    def __call__(self, x: Any, w: Any, kernel: Window, stride: Window, pad: Window) -> Any:
        """Convolve ``x`` with ``w``, a window of ``kernel`` sizes."""
        return apply(self, (x, w), _window(kernel, stride, pad))

    def infer(
        self, x: TensorType, w: TensorType, *, kernel: Window, stride: Window, pad: Window
    ) -> TensorType:
        """Return ``(N, *counts, C)``."""
        _check_channels("depthwise_last", x, w, -1)
        if any(unify(a, b) is None for a, b in zip(w.shape, kernel)):
            raise ShapeError(f"depthwise_last over {kernel} got weights {shape_text(w.shape)}")
        counts = _counts("depthwise_last", x, kernel, stride, pad)
        return x.with_shape((x.shape[0], *counts, x.shape[-1]))

    def lower(
        self, k: Any, x: Any, w: Any, *, kernel: Window, stride: Window, pad: Window
    ) -> Any:
        """Sum over the window."""
        batch, *windows, channel = k.index
        padded = [p > 0 for p in pad]

        def term(*offsets: Expr) -> Expr:
            at = [i * s + r - p for i, s, r, p in zip(windows, stride, offsets, pad)]
            mask = inside(at, x.shape[1:-1], padded, padded)
            weight: Expr = w.at(*offsets, channel)
            return read(x, mask, 0, batch, *at, channel) * weight

        return k.reduce("add", kernel, term)

    def reference(
        self, x: Array, w: Array, *, kernel: Window, stride: Window, pad: Window
    ) -> Array:
        """Multiply patches by the weights and add."""
        axes = len(kernel)
        found = _patches(x, kernel, stride, pad) * np.moveaxis(w, -1, 0)
        total: Array = found.sum(axis=tuple(range(-axes, 0)))
        return total.astype(x.dtype)


class MaxPoolLast(Last):
    """Largest element of each window, channels last; NaN if the window has one."""

    name, kind = "max_pool_last", Kind.MOVEMENT
    tolerance = {}
    samples = (
        sample((2, 4, 6, 3), kernel=(2, 2), stride=(2, 2), pad=(0, 0)),
        sample((2, 6, 5, 17), kernel=(3, 3), stride=(2, 1), pad=(1, 1)),
        sample((0, 4, 4, 2), kernel=(2, 2), stride=(2, 2), pad=(0, 0)),
    )

    def __call__(self, x: Any, kernel: Window, stride: Window, pad: Window) -> Any:
        """Look for the largest element of each window; the settings are those of `max_pool`."""
        return apply(self, (x,), _window(kernel, stride, pad))

    def infer(self, x: TensorType, *, kernel: Window, stride: Window, pad: Window) -> TensorType:
        """Return ``(N, *counts, C)``."""
        counts = _counts("max_pool_last", x, kernel, stride, pad)
        return x.with_shape((x.shape[0], *counts, x.shape[-1]))

    def lower(self, k: Any, x: Any, *, kernel: Window, stride: Window, pad: Window) -> Any:
        """Compare the window's elements; padding reads as the smallest value."""
        first, *rest = _taps(x, k.index, kernel, stride, pad, lowest(x.dtype))
        for tap in rest:
            first = k.maximum(first, tap)
        return first

    def reference(self, x: Array, *, kernel: Window, stride: Window, pad: Window) -> Array:
        """Take the maximum with NumPy."""
        found = _patches(x, kernel, stride, pad, lowest(as_dtype(x.dtype)))
        largest: Array = found.max(axis=tuple(range(-len(kernel), 0)))
        return largest


panel_matmul = register(PanelMatmul())
conv_last = register(ConvLast())
conv_turning = register(ConvTurning())
depthwise_last = register(DepthwiseLast())
max_pool_last = register(MaxPoolLast())

"""Convolution and its two gradients: three records, closed under differentiation.

Data is ``(N, C, *spatial)``, weights are ``(O, C // groups, *window)``, with 1, 2 or 3 spatial
axes. Each of the three is bilinear, and the other two are its gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.ir.dim import Dim
from graphc.ir.expr import Expr
from graphc.ir.op import NUMBERS, Kind, OpDef, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.composite import known_shape
from graphc.ir.ops.windows import (
    LAYOUTS,
    Array,
    add_patches,
    check_layout,
    count_windows,
    from_groups,
    inside,
    patch_matrix,
    per_axis,
    read,
    to_groups,
)
from graphc.ir.sizes import known_size, resolve, unify
from graphc.ir.types import DType, TensorType, bool_, float32, float64, promote, shape_text

Numbers = int | Sequence[int]

_CHANNELS_FIRST = (
    "Images go in channels first: ToTensor() makes float32 (C, H, W) of uint8 (H, W, C) images; "
    "an array in (N, H, W, C) needs transpose((0, 3, 1, 2))."
)
_MISSING_AXIS = (
    "One example needs a batch axis, a batch of grey images needs a channel axis: reshape the data."
)


def settings(
    operand: Any, stride: Numbers, pad: Numbers, dilate: Numbers, groups: int
) -> dict[str, Any]:
    """Return the attributes of a convolution, one number for each spatial axis of ``operand``."""
    given = (v for v in (stride, pad, dilate) if not isinstance(v, (int, np.integer)))
    longest = max((len(tuple(v)) for v in given), default=0)
    shape = known_shape(operand)
    if not longest and shape is None:
        raise ArgumentError(
            "stride, pad or dilate must be a tuple here: the operand has no shape yet",
            remedy="Write (1, 1) for a convolution over two axes.",
        )
    axes = longest or len(shape or ()) - 2
    if not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ArgumentError(f"groups must be a positive integer, got {groups!r}")
    return {
        "stride": per_axis("stride", stride, axes, 1),
        "pad": per_axis("pad", pad, axes, 0),
        "dilate": per_axis("dilate", dilate, axes, 1),
        "groups": int(groups),
    }


def _check_dtypes(op: str, data: TensorType, weights: TensorType) -> None:
    if data.dtype is weights.dtype and data.dtype is not bool_:
        return
    names = f"{data.dtype.name} data and {weights.dtype.name} weights"
    raise DTypeError(
        f"{op} got {names}",
        remedy='Convert the data first, by .astype("float32") or, for images, by ToTensor().',
    )


def _check_channels(op: str, x: TensorType, w: TensorType, axes: int, groups: int) -> None:
    if w.ndim != axes + 2:
        raise ShapeError(
            f"{op} with {axes} spatial axes has weights (O, C, ...) of {axes + 2} axes, "
            f"got {shape_text(w.shape)}"
        )
    channels = resolve(w.shape[1] * groups)
    detail = f" with {channels} channels"
    check_layout(op, x, axes, detail, _CHANNELS_FIRST if x.ndim > axes + 2 else _MISSING_AXIS)
    if unify(x.shape[1], channels) is None:
        grouped = f" ({groups} groups of {resolve(w.shape[1])})" if groups > 1 else ""
        last = known_size(x.shape[-1])
        remedy = _CHANNELS_FIRST if last is not None and last == known_size(channels) else (
            f"The weights {shape_text(w.shape)} fix the number of channels."
        )  # fmt: skip
        raise ShapeError(
            f"{op} expects {LAYOUTS[axes]}{detail}{grouped}, got {shape_text(x.shape)}",
            remedy=remedy,
        )
    _check_groups(op, w.shape[0], groups, "output")


def _check_groups(op: str, channels: Dim, groups: int, which: str) -> None:
    count = known_size(channels)
    if count is not None and count % groups:
        raise ShapeError(f"{count} {which} channels of {op} do not divide into {groups} groups")


def _check_same(op: str, what: str, a: Dim, b: Dim) -> None:
    if unify(a, b) is None:
        raise ShapeError(f"{what} of {op} differ: {resolve(a)} and {resolve(b)}")


class Convolution(OpDef):
    """What the three records share: kind, types and operand promotion."""

    kind, dtypes = Kind.CONTRACT, NUMBERS
    tolerance = {float32: (1e-4, 2e-5), float64: (1e-11, 1e-12)}

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Promote floating types; integers beside floats are an error that `infer` raises."""
        dtypes = [t.dtype for t in types]
        return (promote(*dtypes),) * 2 if all(d.floating for d in dtypes) else None


def _attrs(axes: int, stride: Any = 1, pad: Any = 0, dilate: Any = 1, groups: int = 1) -> Any:
    return {
        "stride": per_axis("stride", stride, axes, 1),
        "pad": per_axis("pad", pad, axes, 0),
        "dilate": per_axis("dilate", dilate, axes, 1),
        "groups": groups,
    }


# Data shape, weight shape, settings; the samples of all three records are made from these.
_CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 3, 5, 6), (4, 3, 3, 2), _attrs(2)),
    ((2, 2, 5, 5), (3, 2, 3, 3), _attrs(2, pad=1)),
    ((1, 2, 7, 6), (2, 2, 3, 3), _attrs(2, stride=(2, 3), pad=(1, 2))),
    ((2, 1, 8, 7), (2, 1, 2, 3), _attrs(2, stride=(1, 2), pad=(0, 1), dilate=(3, 2))),
    ((2, 4, 4, 5), (6, 2, 2, 3), _attrs(2, pad=(0, 1), groups=2)),
    ((1, 3, 5, 4), (3, 1, 3, 3), _attrs(2, stride=2, pad=1, groups=3)),
    ((2, 3, 4, 3), (5, 3, 1, 1), _attrs(2)),
    ((2, 3, 9), (4, 3, 4), _attrs(1, stride=2, pad=1, dilate=2)),
    ((1, 2, 3, 4, 3), (2, 2, 2, 2, 2), _attrs(3, pad=(0, 1, 0))),
    ((0, 2, 4, 4), (3, 2, 3, 3), _attrs(2)),
    ((2, 0, 4, 4), (3, 0, 3, 3), _attrs(2)),
)


def _counts(
    spatial: Sequence[int], window: Sequence[int], stride: Sequence[int], pad: Sequence[int],
    dilate: Sequence[int],
) -> tuple[int, ...]:  # fmt: skip
    return tuple(int(n) for n in count_windows("conv", spatial, window, stride, pad, dilate))


def _output_shape(x: Sequence[int], w: Sequence[int], attrs: dict[str, Any]) -> tuple[int, ...]:
    counts = _counts(x[2:], w[2:], attrs["stride"], attrs["pad"], attrs["dilate"])
    return (x[0], w[0], *counts)


class Conv(Convolution):
    """Convolution (cross-correlation) over the axes after batch and channel.

    Output ``(N, O, *counts)`` with
    ``count = (size + 2 * pad - dilate * (window - 1) - 1) // stride + 1``.
    """

    name = "conv"
    samples = tuple(sample(x, w, **attrs) for x, w, attrs in _CASES)

    def __call__(
        self, x: Any, w: Any, stride: Numbers = 1, pad: Numbers = 0, dilate: Numbers = 1,
        groups: int = 1,
    ) -> Any:  # fmt: skip
        """Convolve ``x`` with ``w``.

        Parameters
        ----------
        x : operand, shape (N, C, *spatial)
        w : operand, shape (O, C // groups, *window)
        stride, pad, dilate : int or sequence of int
            For each spatial axis; zeros are padded on both sides.
        groups : int
            Output channels of group ``i`` see input channels of group ``i`` only.

        Returns
        -------
        operand, shape (N, O, *counts)

        Raises
        ------
        ShapeError
            When channels or axes do not fit, or the window is larger than the padded input.
        DTypeError
            When integer data meets floating weights.
        """
        return apply(self, (x, w), settings(w, stride, pad, dilate, groups))

    def infer(
        self, x: TensorType, w: TensorType, *, stride: tuple[int, ...], pad: tuple[int, ...],
        dilate: tuple[int, ...], groups: int,
    ) -> TensorType:  # fmt: skip
        """Return ``(N, O, *counts)``."""
        _check_channels("conv", x, w, len(stride), groups)
        _check_dtypes("conv", x, w)
        counts = count_windows("conv", x.shape[2:], w.shape[2:], stride, pad, dilate)
        return x.with_shape((x.shape[0], w.shape[0], *counts))

    def vjp(self, g: Any, y: Any, x: Any, w: Any, **attrs: Any) -> tuple[Any, ...]:
        """Return the gradients of data and weights."""
        return (
            conv_data_grad(g, w, spatial=tuple(x.shape[2:]), **attrs),
            conv_weight_grad(g, x, window=tuple(w.shape[2:]), **attrs),
        )

    def lower(
        self, k: Any, x: Any, w: Any, *, stride: tuple[int, ...], pad: tuple[int, ...],
        dilate: tuple[int, ...], groups: int,
    ) -> Any:  # fmt: skip
        """Sum over input channels and window."""
        batch, out, *window = k.index
        first = _first_channel(out, k.shape[1], x.shape[1], w.shape[1], groups)

        def term(channel: Expr, *offsets: Expr) -> Expr:
            data = _read_data(x, batch, channel + first, window, offsets, stride, pad, dilate)
            weight: Expr = w.at(out, channel, *offsets)
            return data * weight

        return k.reduce("add", w.shape[1:], term)

    def reference(
        self, x: Array, w: Array, *, stride: tuple[int, ...], pad: tuple[int, ...],
        dilate: tuple[int, ...], groups: int,
    ) -> Array:  # fmt: skip
        """Multiply a matrix of patches by the weights, group by group."""
        counts = _counts(x.shape[2:], w.shape[2:], stride, pad, dilate)
        cols = patch_matrix(x, w.shape[2:], counts, stride, pad, dilate, groups)
        rows = w.reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:]))
        product = np.matmul(rows, cols.transpose(0, 2, 1))
        return from_groups(product, x.shape[0], w.shape[0], counts)


class ConvDataGrad(Convolution):
    """Gradient of `conv` in its data; the transposed convolution of ``g`` with ``w``."""

    name = "conv_data_grad"
    samples = tuple(
        sample(_output_shape(x, w, attrs), w, spatial=x[2:], **attrs) for x, w, attrs in _CASES
    )

    def __call__(
        self, g: Any, w: Any, spatial: Sequence[Dim], stride: Numbers = 1, pad: Numbers = 0,
        dilate: Numbers = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        """Spread ``g`` over the data that each of its elements was computed from.

        Parameters
        ----------
        g : operand, shape (N, O, *counts)
        w : operand, shape (O, C // groups, *window)
        spatial : tuple of Dim
            Spatial sizes of the data.
        stride, pad, dilate, groups
            Those of the convolution.

        Returns
        -------
        operand, shape (N, C, *spatial)
        """
        attrs = settings(w, stride, pad, dilate, groups)
        return apply(self, (g, w), {"spatial": tuple(spatial), **attrs})

    def infer(
        self, g: TensorType, w: TensorType, *, spatial: tuple[Dim, ...], stride: tuple[int, ...],
        pad: tuple[int, ...], dilate: tuple[int, ...], groups: int,
    ) -> TensorType:  # fmt: skip
        """Return ``(N, C, *spatial)``."""
        check_layout("conv_data_grad", g, len(stride))
        check_layout("the weights of conv_data_grad", w, len(stride))
        _check_same("conv_data_grad", "output channels", g.shape[1], w.shape[0])
        _check_groups("conv_data_grad", w.shape[0], groups, "output")
        _check_dtypes("conv_data_grad", g, w)
        _check_counts(self.name, g, spatial, w.shape[2:], stride, pad, dilate)
        return g.with_shape((g.shape[0], w.shape[1] * groups, *spatial))

    def vjp(
        self, g: Any, y: Any, x: Any, w: Any, *, spatial: tuple[Dim, ...], **attrs: Any
    ) -> tuple[Any, ...]:
        """Return the gradients; ``g`` is shaped like the data of the convolution here."""
        return conv(g, w, **attrs), conv_weight_grad(x, g, window=tuple(w.shape[2:]), **attrs)

    def lower(
        self, k: Any, g: Any, w: Any, *, spatial: tuple[Dim, ...], stride: tuple[int, ...],
        pad: tuple[int, ...], dilate: tuple[int, ...], groups: int,
    ) -> Any:  # fmt: skip
        """Sum over output channels and window, where a window meets the position."""
        batch, channel, *positions = k.index
        group = 0 if groups == 1 else channel if w.shape[1] == 1 else channel // w.shape[1]
        own = channel - group * w.shape[1] if groups > 1 else channel
        members: Dim = w.shape[0] if groups == 1 else w.shape[0] // groups
        if groups > 1 and k.shape[1] == w.shape[0] and w.shape[1] == 1:
            members = 1

        def term(member: Expr, *offsets: Expr) -> Expr:
            out = member + group * members
            windows, mask = _meeting(positions, offsets, g, w, stride, pad, dilate)
            weight: Expr = w.at(out, own, *offsets)
            return read(g, mask, 0, batch, out, *windows) * weight

        return k.reduce("add", [members, *w.shape[2:]], term)

    def reference(
        self, g: Array, w: Array, *, spatial: tuple[int, ...], stride: tuple[int, ...],
        pad: tuple[int, ...], dilate: tuple[int, ...], groups: int,
    ) -> Array:  # fmt: skip
        """Multiply by the weights and add the patches up."""
        rows = w.reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:]))
        cols = np.matmul(to_groups(g, groups).transpose(0, 2, 1), rows)
        n, counts, window = g.shape[0], g.shape[2:], w.shape[2:]
        shape = (groups, n, math.prod(counts), w.shape[1], math.prod(window))
        cols = cols.reshape(shape).transpose(1, 0, 3, 2, 4)
        cols = cols.reshape(n, groups * w.shape[1], *counts, *window)
        return add_patches(cols, spatial, stride, pad, dilate)


class ConvWeightGrad(Convolution):
    """Gradient of `conv` in its weights."""

    name = "conv_weight_grad"
    samples = tuple(
        sample(_output_shape(x, w, attrs), x, window=w[2:], **attrs) for x, w, attrs in _CASES
    )

    def __call__(
        self, g: Any, x: Any, window: Sequence[Dim], stride: Numbers = 1, pad: Numbers = 0,
        dilate: Numbers = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        """Correlate data with the gradient of the output.

        Parameters
        ----------
        g : operand, shape (N, O, *counts)
        x : operand, shape (N, C, *spatial)
        window : tuple of Dim
            Spatial sizes of the weights.
        stride, pad, dilate, groups
            Those of the convolution.

        Returns
        -------
        operand, shape (O, C // groups, *window)
        """
        attrs = settings(x, stride, pad, dilate, groups)
        return apply(self, (g, x), {"window": tuple(window), **attrs})

    def infer(
        self, g: TensorType, x: TensorType, *, window: tuple[Dim, ...], stride: tuple[int, ...],
        pad: tuple[int, ...], dilate: tuple[int, ...], groups: int,
    ) -> TensorType:  # fmt: skip
        """Return ``(O, C // groups, *window)``."""
        check_layout("conv_weight_grad", g, len(stride))
        check_layout("conv_weight_grad", x, len(stride))
        _check_same("conv_weight_grad", "batch sizes", g.shape[0], x.shape[0])
        _check_groups("conv_weight_grad", g.shape[1], groups, "output")
        _check_groups("conv_weight_grad", x.shape[1], groups, "input")
        _check_dtypes("conv_weight_grad", g, x)
        _check_counts(self.name, g, x.shape[2:], window, stride, pad, dilate)
        return g.with_shape((g.shape[1], x.shape[1] // groups, *window))

    def vjp(
        self, g: Any, y: Any, ct: Any, x: Any, *, window: tuple[Dim, ...], **attrs: Any
    ) -> tuple[Any, ...]:
        """Return the gradients; ``g`` is shaped like the weights of the convolution here."""
        return conv(x, g, **attrs), conv_data_grad(ct, g, spatial=tuple(x.shape[2:]), **attrs)

    def lower(
        self, k: Any, g: Any, x: Any, *, window: tuple[Dim, ...], stride: tuple[int, ...],
        pad: tuple[int, ...], dilate: tuple[int, ...], groups: int,
    ) -> Any:  # fmt: skip
        """Sum over the batch and all windows."""
        out, own, *offsets = k.index
        first = _first_channel(out, k.shape[0], x.shape[1], k.shape[1], groups)

        def term(batch: Expr, *windows: Expr) -> Expr:
            data = _read_data(x, batch, own + first, windows, offsets, stride, pad, dilate)
            gradient: Expr = g.at(batch, out, *windows)
            return gradient * data

        return k.reduce("add", [g.shape[0], *g.shape[2:]], term)

    def reference(
        self, g: Array, x: Array, *, window: tuple[int, ...], stride: tuple[int, ...],
        pad: tuple[int, ...], dilate: tuple[int, ...], groups: int,
    ) -> Array:  # fmt: skip
        """Multiply the gradient by the matrix of patches, group by group."""
        cols = patch_matrix(x, window, g.shape[2:], stride, pad, dilate, groups)
        shape = (g.shape[1], x.shape[1] // groups, *window)
        product: Array = np.matmul(to_groups(g, groups), cols)
        return product.reshape(shape)


# -- inside lowerings ------------------------------------------------------------------------


def _first_channel(out: Expr, outputs: Dim, inputs: Dim, own: Dim, groups: int) -> Any:
    """Return the first of the ``own`` input channels that an output channel sees.

    Depthwise convolutions, one channel a group, need no division.
    """
    if groups == 1:
        return 0
    return out if own == 1 and inputs == outputs else out // (outputs // groups) * own


def _read_data(
    x: Any, batch: Expr, channel: Expr, windows: Sequence[Expr], offsets: Sequence[Expr],
    stride: Sequence[int], pad: Sequence[int], dilate: Sequence[int],
) -> Expr:  # fmt: skip
    """Return the data that ``offsets`` of ``windows`` lie on, zero on the padding."""
    at = [i * s + r * d - p for i, s, r, d, p in zip(windows, stride, offsets, dilate, pad)]
    padded = [p > 0 for p in pad]
    return read(x, inside(at, x.shape[2:], padded, padded), 0, batch, channel, *at)


def _meeting(
    positions: Sequence[Expr], offsets: Sequence[Expr], g: Any, w: Any,
    stride: Sequence[int], pad: Sequence[int], dilate: Sequence[int],
) -> tuple[list[Expr], Expr | None]:  # fmt: skip
    """Return the windows whose ``offsets`` lie on ``positions``, and whether there are such."""
    windows: list[Expr] = []
    mask: Expr | None = None
    for axis, (position, r, s, p, d) in enumerate(zip(positions, offsets, stride, pad, dilate)):
        start = position + p - r * d
        window = start // s
        exact = s == 1 and p == 0 and w.shape[2 + axis] == 1
        test = inside([window], [g.shape[2 + axis]], [not exact], [not exact])
        if s > 1 and test is not None:
            test = (window * s).eq(start) & test
        if test is not None:
            mask = test if mask is None else mask & test
        windows.append(window)
    return windows, mask


# -- checks -----------------------------------------------------------------------------------


def _check_counts(
    op: str, g: TensorType, spatial: Sequence[Dim], window: Sequence[Dim],
    stride: Sequence[int], pad: Sequence[int], dilate: Sequence[int],
) -> None:  # fmt: skip
    counts = count_windows(op, spatial, window, stride, pad, dilate)
    for axis, (found, expected) in enumerate(zip(g.shape[2:], counts)):
        if unify(found, expected) is None:
            raise ShapeError(
                f"{op} got {resolve(found)} windows on spatial axis {axis}, where "
                f"{resolve(expected)} fit into a size of {resolve(spatial[axis])}"
            )


conv = register(Conv())
conv_data_grad = register(ConvDataGrad())
conv_weight_grad = register(ConvWeightGrad())

"""Sliding windows over spatial axes: what convolution and pooling share."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError
from graphc.ir.dim import Dim, ceil_div, dim_min
from graphc.ir.expr import Expr
from graphc.ir.sizes import known_size, resolve
from graphc.ir.types import TensorType, shape_text

Array = np.ndarray[Any, Any]
LAYOUTS = {1: "(N, C, W)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}


def per_axis(name: str, value: int | Iterable[int], axes: int, least: int) -> tuple[int, ...]:
    """Return ``value`` for each spatial axis.

    Parameters
    ----------
    name : str
        Name of the argument, for errors.
    value : int or sequence of int
        One number for all axes, or one for each.
    axes : int
        Number of spatial axes.
    least : int
        Smallest number allowed.

    Raises
    ------
    ArgumentError
        When there are too many or too few numbers, or one is too small.
    """
    given = tuple(value) if isinstance(value, Iterable) else (value,) * axes
    try:
        found = tuple(map(operator.index, given))
    except TypeError:
        raise ArgumentError(f"{name} must be made of integers, got {value!r}") from None
    if len(found) != axes:
        raise ArgumentError(
            f"{name} has {len(found)} numbers for {axes} spatial axes",
            remedy=f"Pass one number, or {axes} of them.",
        )
    if any(v < least for v in found):
        raise ArgumentError(f"{name} must be at least {least}, got {value}")
    return found


def check_layout(op: str, x: TensorType, axes: int, detail: str = "", remedy: str = "") -> None:
    """Raise ShapeError unless ``x`` has a batch, a channel and ``axes`` spatial axes."""
    if axes not in LAYOUTS:
        raise ArgumentError(f"{op} works on 1, 2 or 3 spatial axes, got {axes}")
    if x.ndim != axes + 2:
        raise ShapeError(
            f"{op} expects {LAYOUTS[axes]}{detail}, got {shape_text(x.shape)}",
            remedy=remedy or f"Reshape the data to {LAYOUTS[axes]}.",
        )


def count_windows(
    op: str, shape: Sequence[Dim], window: Sequence[Dim], stride: Sequence[int],
    pad: Sequence[int], dilate: Sequence[int], ceil_mode: bool = False,
) -> tuple[Dim, ...]:  # fmt: skip
    """Return how many windows fit on each spatial axis of a padded ``shape``.

    With ``ceil_mode`` a last, incomplete window counts as long as it begins before the right
    padding does.

    Raises
    ------
    ShapeError
        When a window is larger than the padded axis.
    """
    counts = []
    for axis, (size, k, s, p, d) in enumerate(zip(shape, window, stride, pad, dilate)):
        reach = d * (k - 1) + 1
        room = size + 2 * p - reach
        known = known_size(room)
        if known is not None and known < 0 and not (ceil_mode and known > -s and s > p):
            raise ShapeError(
                f"the window of {op}, {resolve(reach)}, is larger than spatial axis {axis} of the "
                f"input: {resolve(size)} with a padding of {p} on each side",
                remedy="Use a smaller window, a larger input or more padding. Channels come "
                "second: transpose data that has them last.",
            )
        counts.append(_ceil_count(size, room, s, p) if ceil_mode else room // s + 1)
    return tuple(counts)


def _ceil_count(size: Dim, room: Dim, stride: int, pad: int) -> Dim:
    return dim_min(ceil_div(room, stride) + 1, (size + pad - 1) // stride + 1)


# -- inside lowerings ------------------------------------------------------------------------


def inside(
    positions: Sequence[Expr], sizes: Sequence[Dim], below: Sequence[bool], above: Sequence[bool]
) -> Expr | None:
    """Return whether positions are on their axes, or None where nothing has to be asked.

    ``below[i]`` says that position ``i`` may be negative, ``above[i]`` that it may be past the end.
    """
    mask: Expr | None = None
    for position, size, low, high in zip(positions, sizes, below, above):
        tests = ([position >= 0] if low else []) + ([position < size] if high else [])
        for test in tests:
            mask = test if mask is None else mask & test
    return mask


def read(operand: Any, mask: Expr | None, fill: int | float | bool, *index: Expr) -> Expr:
    """Return the element at ``index``; ``fill`` where there is a mask and it does not hold."""
    found = operand.at(*index) if mask is None else operand.at_where(mask, fill, *index)
    return found  # type: ignore[no-any-return]


def over_covering_windows(
    k: Any, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int],
    counts: Sequence[Dim], body: Callable[[Expr | None, list[Expr], list[Expr]], Expr],
) -> Expr:  # fmt: skip
    """Add ``body`` over all windows that cover the spatial position ``k.index[2:]``.

    ``body(mask, windows, offsets)`` gets the number of a window on each axis and the position's
    offset in it. Where windows do not overlap there is one term, and no reduction.
    """
    covers = [-(-n // s) for n, s in zip(kernel, stride)]
    several = [axis for axis, cover in enumerate(covers) if cover > 1]

    def term(*steps: Expr) -> Expr:
        back = dict(zip(several, steps))
        windows, offsets = [], []
        mask: Expr | None = None
        for axis, (position, n, s, p) in enumerate(zip(k.index[2:], kernel, stride, pad)):
            window = (position + p) // s - back.get(axis, 0)
            offset = position + p - window * s
            overlaps = axis in back
            test = inside([window], [counts[axis]], [overlaps], [True])
            if n % s and test is not None:
                test = test & (offset < n)
            if test is not None:
                mask = test if mask is None else mask & test
            windows.append(window)
            offsets.append(offset)
        return body(mask, windows, offsets)

    found = k.reduce("add", [covers[axis] for axis in several], term)
    return found  # type: ignore[no-any-return]


# -- with NumPy ------------------------------------------------------------------------------


def patches(
    x: Array, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int],
    dilate: Sequence[int], counts: Sequence[int], fill: Any = 0,
) -> Array:  # fmt: skip
    """Return the windows of an array, shape ``(N, C, *counts, *kernel)``."""
    axes = len(kernel)
    reach = [d * (n - 1) + 1 for n, d in zip(kernel, dilate)]
    ends = [(c - 1) * s + r for c, s, r in zip(counts, stride, reach)]
    beyond = [max(e - n - p, 0) for e, n, p in zip(ends, x.shape[2:], pad)]
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pad, beyond)], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + axes)))
    where = [slice(None)] * 2
    where += [slice(0, c * s, s) for c, s in zip(counts, stride)]
    return view[(*where, *(slice(None, None, d) for d in dilate))]


def add_patches(
    cols: Array, spatial: Sequence[int], stride: Sequence[int], pad: Sequence[int],
    dilate: Sequence[int],
) -> Array:  # fmt: skip
    """Add windows ``(N, C, *counts, *kernel)`` up where they came from: `patches` transposed."""
    axes = len(spatial)
    counts, kernel = cols.shape[2 : 2 + axes], cols.shape[2 + axes :]
    ends = [(c - 1) * s + d * (n - 1) + 1 for c, s, d, n in zip(counts, stride, dilate, kernel)]
    sizes = [max(e, n + 2 * p) for e, n, p in zip(ends, spatial, pad)]
    total = np.zeros((*cols.shape[:2], *sizes), cols.dtype)
    for offset in np.ndindex(*kernel):
        where = tuple(
            slice(r * d, r * d + (c - 1) * s + 1, s)
            for r, d, c, s in zip(offset, dilate, counts, stride)
        )
        total[:, :, *where] += cols[..., *offset]
    inner = (slice(p, p + n) for p, n in zip(pad, spatial))
    return total[:, :, *inner]


def patch_matrix(
    x: Array, window: Sequence[int], counts: Sequence[int], stride: Sequence[int],
    pad: Sequence[int], dilate: Sequence[int], groups: int,
) -> Array:  # fmt: skip
    """Return patches as ``(groups, N * windows, channels of a group * window)``."""
    cols = patches(x, window, stride, pad, dilate, counts)
    n, own = x.shape[0], x.shape[1] // groups
    many, inner = math.prod(counts), math.prod(window)
    cols = cols.reshape(n, groups, own, many, inner).transpose(1, 0, 3, 2, 4)
    return cols.reshape(groups, n * many, own * inner)


def to_groups(g: Array, groups: int) -> Array:
    """Return ``(N, O, *counts)`` as ``(groups, channels of a group, N * windows)``."""
    n, own, many = g.shape[0], g.shape[1] // groups, math.prod(g.shape[2:])
    return g.reshape(n, groups, own, many).transpose(1, 2, 0, 3).reshape(groups, own, n * many)


def from_groups(product: Array, n: int, channels: int, counts: Sequence[int]) -> Array:
    """Undo `to_groups`."""
    groups, own, many = len(product), channels // len(product), math.prod(counts)
    split = product.reshape(groups, own, n, many).transpose(2, 0, 1, 3)
    return split.reshape(n, channels, *counts)

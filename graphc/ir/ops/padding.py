"""Padding by a constant, by the edge or by the mirror image."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError, nearest
from graphc.ir.dim import Dim
from graphc.ir.op import sample
from graphc.ir.ops.composite import attempt, composite, shape_of
from graphc.ir.ops.movement import broadcast_to
from graphc.ir.ops.slicing import concat, pad_constant, slice_sizes
from graphc.ir.sizes import known_size
from graphc.ir.types import shape_text

PAD_MODES = ("constant", "edge", "reflect")


def _width(width: Any, ndim: int) -> tuple[tuple[int, int], ...]:
    """Return one pair for each axis, from one number, one pair or pairs."""
    spread = np.broadcast_to(np.asarray(width, int), (ndim, 2)) if ndim else np.zeros((0, 2), int)
    return tuple((int(before), int(after)) for before, after in spread)


@composite(
    lambda x, width, mode, value: np.pad(
        x, width, mode, **({"constant_values": value} if mode == "constant" else {})
    ),
    samples=(
        sample((2, 3), width=((1, 0), (2, 1)), mode="constant", value=2.0),
        sample((2, 3), width=((1, 2), (0, 2)), mode="edge", value=0.0),
        sample((3, 4), width=((2, 1), (0, 3)), mode="reflect", value=0.0),
    ),
)
def pad(x: Any, width: Any, mode: str = "constant", value: float = 0.0) -> Any:
    """Add elements around ``x``.

    Parameters
    ----------
    x : operand
    width : int, pair, or sequence of pairs
        Elements before and after, for all axes or for each.
    mode : {"constant", "edge", "reflect"}
        ``value``, the nearest element, or the mirror image without the edge itself.
    value : float
    """
    if mode not in PAD_MODES:
        raise ArgumentError(
            f"there is no pad mode {mode!r}.{nearest(mode, PAD_MODES)}",
            remedy=f"Modes are {', '.join(PAD_MODES)}.",
        )
    shape = shape_of(x)
    try:
        pairs = _width(width, len(shape))
    except ValueError:
        raise ShapeError(
            f"pad width {width} does not fit shape {shape_text(shape)}",
            remedy="Pass one number, one pair, or a pair (before, after) for each axis.",
        ) from None
    if mode == "constant":
        return pad_constant(x, pairs, value)
    for axis, (before, after) in enumerate(pairs):
        x = attempt("pad", (x,), _bordered, x, axis, before, after, mode)
    return x


def _bordered(x: Any, axis: int, before: int, after: int, mode: str) -> Any:
    """Return ``x`` with edge or mirrored elements on both sides of one axis."""
    if min(before, after) < 0:
        raise ShapeError(f"pad width {(before, after)} of axis {axis} is negative")
    size = shape_of(x)[axis]
    known = known_size(size)
    least = 1 if mode == "edge" else max(before, after) + 1
    if max(before, after) > 0 and known is not None and known < least:
        raise ShapeError(
            f"mode {mode!r} cannot pad axis {axis} of size {known} by {(before, after)}",
            remedy=f"The axis must have at least {least} elements.",
        )
    parts = [x]
    if before:
        parts.insert(0, _border(x, axis, before, mode, front=True))
    if after:
        parts.append(_border(x, axis, after, mode, front=False))
    return concat(parts, axis) if len(parts) > 1 else x


def _border(x: Any, axis: int, count: int, mode: str, front: bool) -> Any:
    shape = list(shape_of(x))
    last = shape[axis] - 1
    begin: list[Dim] = [0] * len(shape)
    step = [1] * len(shape)
    if mode == "edge":
        begin[axis] = 0 if front else last
        edge = slice_sizes(x, tuple(begin), (*shape[:axis], 1, *shape[axis + 1 :]), tuple(step))
        return broadcast_to(edge, (*shape[:axis], count, *shape[axis + 1 :]))
    begin[axis], step[axis] = (count if front else last - 1), -1
    return slice_sizes(x, tuple(begin), (*shape[:axis], count, *shape[axis + 1 :]), tuple(step))

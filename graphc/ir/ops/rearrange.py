"""Functions that rearrange arrays, composed of reshape, transpose, broadcast, slice and concat.

Their gradients are those of the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, IndexRangeError, ShapeError
from graphc.ir.dim import Dim, SizeExpr, dim_max, modulo
from graphc.ir.op import sample
from graphc.ir.ops.composite import as_shape, attempt, composite, shape_of, type_of
from graphc.ir.ops.movement import broadcast_to, expand_dims, reshape, transpose
from graphc.ir.ops.slice_bounds import slice_bounds
from graphc.ir.ops.slicing import concat, slice_sizes
from graphc.ir.sizes import fix, known_size, require_elements
from graphc.ir.types import normalize_axes, normalize_axis, same_shape, shape_text

Bounds = Sequence[Any]


# -- slices ------------------------------------------------------------------------------------


def _sliced(x: Any, keys: Sequence[Any]) -> Any:
    """Return ``x[keys]`` for one key for each axis; ``x`` itself where they take everything.

    A key is a slice, or an integer, which keeps its axis with size 1.
    """
    shape = shape_of(x)
    parts = [
        slice_bounds(key, d) if isinstance(key, slice) else (integer_begin(key, axis, d), 1, 1)
        for axis, (key, d) in enumerate(zip(keys, shape, strict=True))
    ]
    if all(b == 0 and n == d and s == 1 for (b, n, s), d in zip(parts, shape, strict=True)):
        return x
    begin, size, step = zip(*parts, strict=True)
    return slice_sizes(x, begin, size, step)


def _keys(begin: Bounds, end: Bounds, step: Bounds) -> tuple[slice, ...]:
    steps = tuple(step) or (None,) * len(begin)
    if not len(begin) == len(end) == len(steps):
        raise ArgumentError(f"slice got {len(begin)} begins, {len(end)} ends, {len(steps)} steps")
    return tuple(slice(*bounds) for bounds in zip(begin, end, steps, strict=True))


@composite(
    lambda x, begin, end, step: x[_keys(begin, end, step)],
    name="slice_range",
    samples=(
        sample((5, 4), begin=(1,), end=(-1,), step=()),
        sample((5, 4), begin=(None, -1), end=(3, None), step=(2, -3)),
        sample((3,), begin=(5,), end=(9,), step=(1,)),
    ),
)
def slice_(x: Any, begin: Bounds, end: Bounds, step: Bounds = ()) -> Any:
    """Return a part of ``x``, as ``x[begin[0]:end[0]:step[0], ...]`` does.

    Parameters
    ----------
    x : operand
    begin, end, step : sequence of int or None
        One for each of the first axes; None and negative numbers mean what they mean in Python.
    """
    keys = attempt("slice", (x,), _keys, begin, end, step)
    return attempt("slice", (x,), lambda: _sliced(x, expanded_key(keys, len(shape_of(x)))))


@composite(
    lambda x, axis, begin, end: np.take(x, range(x.shape[axis])[begin:end], axis),
    samples=(sample((3, 5), axis=-1, begin=1, end=None), sample((3,), axis=0, begin=-2, end=-1)),
)
def slice_axis(x: Any, axis: int, begin: Dim | None, end: Dim | None) -> Any:
    """Return ``begin:end`` of one axis."""
    place = attempt("slice_axis", (x,), normalize_axis, axis, len(shape_of(x)))
    keys = [slice(None)] * len(shape_of(x))
    keys[place] = slice(begin, end)
    return attempt("slice_axis", (x,), _sliced, x, keys)


def _thawed(key: Any) -> Any:
    """Return one item of a basic index as Python writes it."""
    if isinstance(key, tuple) and key and key[0] == "slice":
        return slice(*key[1:])
    return Ellipsis if key == ("ellipsis",) else key


def _is_ellipsis(key: Any) -> bool:
    return key is Ellipsis


def expanded_key(key: Any, ndim: int) -> tuple[Any, ...]:
    """Return an index with ``...`` and missing axes written as full slices.

    Raises
    ------
    ShapeError
        When it indexes more axes than there are.
    """
    items = key if isinstance(key, tuple) and _thawed(key) == key else (_thawed(key),)
    items = tuple(map(_thawed, items))
    used = sum(1 for item in items if item is not None and not _is_ellipsis(item))
    if used > ndim:
        raise ShapeError(
            f"{used} indices for an operand with {ndim} axes",
            remedy=f"Index at most {ndim} axes.",
        )
    places = [n for n, item in enumerate(items) if _is_ellipsis(item)]
    if len(places) > 1:
        raise ArgumentError("an index may have one ellipsis (...)")
    place = places[0] if places else len(items)
    full = (slice(None),) * (ndim - used)
    return items[:place] + full + items[place + 1 :]


def is_whole(item: Any) -> bool:
    """Return whether one item of an index is an integer or a size."""
    return isinstance(item, (int, np.integer, SizeExpr)) and not isinstance(item, bool)


def integer_begin(index: Dim, axis: int, size: Dim) -> Dim:
    """Return an index counted from the start of an axis.

    The first and the last element of an axis leave a symbolic size open, for all but an empty
    axis; any other index fixes it, since it is in range for some sizes only.

    Raises
    ------
    IndexRangeError
        When there is no such element.
    """
    known, at = known_size(size), known_size(index)
    if known is not None and at is not None and not -known <= at < known:
        raise IndexRangeError(
            f"index {at} is out of range for axis {axis} of size {known}",
            remedy=f"Indices run from {-known} to {known - 1}." if known else "The axis is empty.",
        )
    if isinstance(size, SizeExpr) and index not in (0, -1):
        fixed = fix(size)
        size = size if fixed is None else fixed
    require_elements(size)
    return size + index if at is not None and at < 0 else index


def _indexed(x: Any, key: Any) -> Any:
    shape = shape_of(x)
    slices, kept, axis = [], [], 0
    for item in expanded_key(key, len(shape)):
        if item is None:
            kept.append(-1)
            continue
        if isinstance(item, slice):
            kept.append(axis)
        elif is_whole(item):
            item = item if isinstance(item, SizeExpr) else int(item)
        else:
            raise ArgumentError(
                f"{item!r} is no basic index",
                remedy="Use integers, slices, None and ..., or integer arrays.",
            )
        slices.append(item)
        axis += 1
    part = _sliced(x, slices)
    if kept == list(range(len(shape))):
        return part
    return reshape(part, tuple(1 if a < 0 else shape_of(part)[a] for a in kept))


@composite(
    lambda x, key: x[tuple(map(_thawed, key))],
    samples=(
        sample((3, 4), key=(1,)),
        sample((3, 4), key=(("ellipsis",), -1)),
        sample((5, 4), key=(("slice", None, None, -2), None, 2)),
        sample((2, 3, 4), key=(0, ("slice", 1, None, None), ("slice", -2, 0, -1))),
        sample((3,), key=(None, ("slice", 3, None, None))),
        sample((2,), key=(1,)),
    ),
)
def getitem(x: Any, key: Any) -> Any:
    """Return ``x[key]`` for a basic index: integers, slices, None and an ellipsis.

    Raises
    ------
    IndexRangeError
        When an integer is out of range; names the axis and its size.
    """
    return attempt("getitem", (x,), _indexed, x, key)


# -- axes --------------------------------------------------------------------------------------


@composite(
    np.swapaxes, samples=(sample((2, 3, 4), axis1=0, axis2=-1), sample((2, 3), axis1=1, axis2=1))
)
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Exchange two axes."""
    ndim = len(shape_of(x))
    a, b = (attempt("swapaxes", (x,), normalize_axis, axis, ndim) for axis in (axis1, axis2))
    order = list(range(ndim))
    order[a], order[b] = b, a
    return transpose(x, order)


@composite(
    np.moveaxis,
    samples=(
        sample((2, 3, 4), source=0, destination=-1),
        sample((2, 3, 4), source=(0, 1), destination=(2, 0)),
    ),
)
def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """Move axes to other places; the others keep their order."""
    ndim = len(shape_of(x))

    def places(axis: int | Sequence[int]) -> list[int]:
        given = [axis] if isinstance(axis, (int, np.integer)) else list(axis)
        return [normalize_axis(a, ndim) for a in given]

    start, end = (attempt("moveaxis", (x,), places, axis) for axis in (source, destination))
    if len(start) != len(end) or len(set(start)) != len(start) or len(set(end)) != len(end):
        raise ShapeError(f"cannot move axes {source} to {destination}: they do not pair up")
    order = [a for a in range(ndim) if a not in start]
    for place, axis in sorted(zip(end, start, strict=True)):
        order.insert(place, axis)
    return transpose(x, order)


@composite(np.ravel, samples=(sample((2, 3)), sample(()), sample((0, 2))))
def ravel(x: Any) -> Any:
    """Return the elements in row-major order as one axis."""
    total: Dim = 1
    for d in shape_of(x):
        total = total * d
    return reshape(x, (total,))


@composite(
    lambda x: x.reshape(x.shape[0], int(np.prod(x.shape[1:]))),
    samples=(sample((2, 3, 2)), sample((4,)), sample((0, 3))),
)
def flatten(x: Any) -> Any:
    """Keep the first axis and join the others into one."""
    shape = shape_of(x)
    if not shape:
        raise ShapeError("flatten needs at least one axis, got a 0-d operand")
    rest: Dim = 1
    for d in shape[1:]:
        rest = rest * d
    return reshape(x, (shape[0], rest))


@composite(
    lambda x, like: np.broadcast_to(x, like.shape),
    operands=2,
    samples=(sample((1, 3), (2, 3)), sample((), (2, 0))),
)
def broadcast_like(x: Any, like: Any) -> Any:
    """Return ``x`` repeated to the shape of ``like``."""
    return broadcast_to(x, shape_of(like))


# -- joining and parting -----------------------------------------------------------------------


@composite(
    np.stack,
    operands=None,
    samples=(sample((2, 3), (2, 3), axis=1), sample((), (), (), axis=0), sample((2,), axis=-1)),
)
def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Join arrays of one shape along a new axis.

    Raises
    ------
    ShapeError
        When the shapes differ.
    """
    arrays = tuple(arrays)
    if not arrays:
        raise ArgumentError("stack needs at least one array")
    first = shape_of(arrays[0])
    for other in arrays[1:]:
        if not same_shape(shape_of(other), first):
            raise ShapeError(
                f"cannot stack shapes {_shape_in_call(arrays[0])} and {_shape_in_call(other)}",
                remedy="All shapes must be equal.",
            )
    place = attempt("stack", arrays, normalize_axis, axis, len(first) + 1)
    return concat([expand_dims(x, place) for x in arrays], place)


def _shape_in_call(x: Any) -> str:
    kind = type_of(x)
    return "()" if kind is None else shape_text(kind.sized().shape)


def _cuts(sections: Any, size: Dim) -> list[tuple[Dim, Dim]]:
    if not isinstance(sections, (int, np.integer)):
        places = [None, *sections, None]
        return [slice_bounds(slice(*pair), size)[:2] for pair in zip(places, places[1:])]
    count = int(sections)
    if count > 0 and size % count == 0:
        return [(n * (size // count), size // count) for n in range(count)]
    known = known_size(size)
    if count < 1 or known is None or known % count:
        raise ShapeError(
            f"an axis of size {size if known is None else known} does not split into {count} "
            "equal parts",
            remedy="Pass a divisor of the size, or the indices to cut at.",
        )
    fix(size)
    return [(n * (known // count), known // count) for n in range(count)]


@composite(
    lambda x, sections, axis: tuple(np.split(x, sections, axis)),
    samples=(
        sample((4, 3), sections=2, axis=0),
        sample((2, 7), sections=(1, 4, 4), axis=-1),
        sample((3,), sections=(2, 9), axis=0),
    ),
)
def split(x: Any, sections: int | Sequence[int], axis: int = 0) -> tuple[Any, ...]:
    """Cut ``x`` into parts along an axis.

    Parameters
    ----------
    x : operand
    sections : int or sequence of int
        How many equal parts, or the indices to cut at.
    axis : int

    Returns
    -------
    tuple of operands
    """
    shape = shape_of(x)
    place = attempt("split", (x,), normalize_axis, axis, len(shape))
    parts = []
    for start, count in attempt("split", (x,), _cuts, sections, shape[place]):
        begin = tuple(start if a == place else 0 for a in range(len(shape)))
        size = tuple(count if a == place else d for a, d in enumerate(shape))
        parts.append(slice_sizes(x, begin, size, (1,) * len(shape)))
    return tuple(parts)


# -- repeating and turning ---------------------------------------------------------------------


@composite(
    np.flip,
    samples=(
        sample((2, 3), axis=0), sample((2, 3), axis=(0, 1)), sample((3,), axis=None),
        sample((0,), axis=0),
    ),
)  # fmt: skip
def flip(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """Reverse the elements along axes; along all of them where ``axis`` is None."""
    ndim = len(shape_of(x))
    axes = attempt("flip", (x,), normalize_axes, axis, ndim)
    keys = [slice(None, None, -1) if a in axes else slice(None) for a in range(ndim)]
    return _sliced(x, keys)


@composite(
    lambda x, repeats: np.tile(x, repeats),
    samples=(
        sample((2, 3), repeats=(2, 1)), sample((3,), repeats=2), sample((2,), repeats=(3, 1, 2)),
        sample((2, 2), repeats=(2,)), sample((), repeats=(2,)), sample((2,), repeats=0),
    ),
)  # fmt: skip
def tile(x: Any, repeats: int | Sequence[int]) -> Any:
    """Repeat the whole of ``x`` along axes; ``repeats`` align with the last axes."""
    times = as_shape(repeats)
    shape = shape_of(x)
    ndim = max(len(times), len(shape))
    times = (1,) * (ndim - len(times)) + times
    shape = (1,) * (ndim - len(shape)) + shape
    spread = [1] * (2 * ndim), [1] * (2 * ndim)
    narrow: list[Dim] = list(spread[0])
    wide: list[Dim] = list(spread[1])
    narrow[1::2], wide[1::2], wide[::2] = shape, shape, times
    joined = tuple(t * d for t, d in zip(times, shape, strict=True))
    return reshape(broadcast_to(reshape(x, narrow), wide), joined)


@composite(
    np.repeat,
    samples=(
        sample((2, 3), repeats=2, axis=1), sample((2, 3), repeats=3, axis=None),
        sample((2,), repeats=0, axis=0), sample((1, 2), repeats=2, axis=-2),
    ),
)  # fmt: skip
def repeat(x: Any, repeats: int, axis: int | None = None) -> Any:
    """Repeat each element ``repeats`` times along an axis, or all of the flattened array."""
    x = ravel(x) if axis is None else x
    shape = shape_of(x)
    place = attempt("repeat", (x,), normalize_axis, 0 if axis is None else axis, len(shape))
    wide = (*shape[: place + 1], int(repeats), *shape[place + 1 :])
    joined = (*shape[:place], shape[place] * int(repeats), *shape[place + 1 :])
    return reshape(broadcast_to(expand_dims(x, place + 1), wide), joined)


@composite(
    np.roll,
    samples=(
        sample((5,), shift=2, axis=0), sample((2, 3), shift=-4, axis=1),
        sample((2, 3), shift=(1, 2), axis=(0, 1)), sample((2, 3), shift=2, axis=None),
        sample((2, 3), shift=(1, 3), axis=1), sample((2, 3), shift=1, axis=(0, -1)),
        sample((0,), shift=1, axis=0),
    ),
)  # fmt: skip
def roll(x: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Any:
    """Move elements along axes by ``shift`` places; those that leave come in at the other end."""
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), shape_of(x))
    given = [list(v) if isinstance(v, (tuple, list)) else [v] for v in (axis, shift)]
    count = max(map(len, given))
    axes, shifts = (v * count if len(v) == 1 else v for v in given)
    if len(axes) != len(shifts):
        raise ArgumentError(f"roll got {len(shifts)} shifts for {len(axes)} axes")
    for by, where in zip(shifts, axes, strict=True):
        place = attempt("roll", (x,), normalize_axis, where, len(shape_of(x)))
        size = shape_of(x)[place]
        # An empty axis has nothing to turn; sizes divide by no less than 1.
        turn: Dim = modulo(int(by), dim_max(size, 1))
        if turn != 0:
            ends = slice_axis(x, place, size - turn, None), slice_axis(x, place, None, size - turn)
            x = concat(ends, place)
    return x

"""Operators that move elements: shapes, axes, joining, cutting, repeating."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError, user_location
from graphc.frontend.ops.operator import at_least_1d, chosen, dims, listed, operator
from graphc.frontend.ops.reshape_codes import coded_shape
from graphc.frontend.tracer import plain_sizes
from graphc.ir.dim import Dim
from graphc.ir.ops import basic, movement, padding, rearrange
from graphc.ir.ops import slicing as core
from graphc.ir.ops.composite import attempt
from graphc.ir.types import normalize_axes, normalize_axis, shape_text

Sizes = int | Sequence[int]


def as_tuple(sizes: Any) -> tuple[Any, ...]:
    """Return sizes or axes given as one or as a sequence as a tuple of Dims."""
    plain = plain_sizes(sizes.tolist() if isinstance(sizes, np.ndarray) else sizes)
    return tuple(plain) if isinstance(plain, (tuple, list)) else (plain,)


@operator("reshape", "Reshape")
def reshape(data: Any, shape: Sizes, reverse: bool = False) -> Any:
    """Return the elements in row-major order under another shape.

    Parameters
    ----------
    data : array
    shape : int or sequence of int
        0 keeps the size at its place, -1 is what the others leave, -2 is all remaining sizes, -3
        joins two sizes, -4 splits one into the two that follow it.
    reverse : bool
        Match the sizes from the last on.
    """
    target = attempt("reshape", (data,), coded_shape, dims(data), as_tuple(shape), reverse)
    return movement.reshape(data, target)


Reshape = reshape


@operator("reshape_like", inputs=("lhs", "rhs"))
def reshape_like(lhs: Any, rhs: Any) -> Any:
    """Return ``lhs`` under the shape of ``rhs``."""
    return movement.reshape(lhs, dims(rhs))


@operator("flatten", "Flatten")
def flatten(data: Any) -> Any:
    """Return ``(N, ...)`` as ``(N, product of the rest)``."""
    return rearrange.flatten(data)


Flatten = flatten


@operator("transpose")
def transpose(data: Any, axes: Sequence[int] | None = None) -> Any:
    """Return the axes in the order ``axes``, reversed where none are given."""
    return movement.transpose(data, tuple(axes) if axes else None)


@operator("swapaxes", "SwapAxis")
def swapaxes(data: Any, dim1: int = 0, dim2: int = 0) -> Any:
    """Exchange two axes."""
    return rearrange.swapaxes(data, dim1, dim2)


SwapAxis = swapaxes


@operator("expand_dims")
def expand_dims(data: Any, axis: int) -> Any:
    """Insert an axis of size 1."""
    return movement.expand_dims(data, axis)


@operator("squeeze")
def squeeze(data: Any, axis: int | Sequence[int] | None = None) -> Any:
    """Drop axes of size 1, all of them or those named."""
    return at_least_1d(movement.squeeze(data, axis))


@operator("broadcast_to")
def broadcast_to(data: Any, shape: Sizes) -> Any:
    """Repeat to a shape; 0 keeps the size at its place."""
    own, asked = dims(data), as_tuple(shape)
    if len(own) == len(asked):
        asked = tuple(d if s == 0 else s for d, s in zip(own, asked, strict=True))
    return movement.broadcast_to(data, asked)


@operator("broadcast_axis", "broadcast_axes")
def broadcast_axis(data: Any, axis: Sizes = (), size: Sizes = ()) -> Any:
    """Repeat axes of size 1 to sizes."""
    target = list(dims(data))
    for a, s in zip(as_tuple(axis), as_tuple(size), strict=True):
        target[attempt("broadcast_axis", (data,), normalize_axis, a, len(target))] = s
    return movement.broadcast_to(data, target)


broadcast_axes = broadcast_axis


@operator("broadcast_like", inputs=("lhs", "rhs"))
def broadcast_like(
    lhs: Any, rhs: Any, lhs_axes: Sizes | None = None, rhs_axes: Sizes | None = None
) -> Any:
    """Repeat ``lhs`` to the shape of ``rhs``, or only to the sizes of axes named in pairs."""
    if lhs_axes is None or rhs_axes is None:
        return movement.broadcast_to(lhs, dims(rhs))
    target, other = list(dims(lhs)), dims(rhs)
    for a, b in zip(as_tuple(lhs_axes), as_tuple(rhs_axes), strict=True):
        target[a] = other[b]
    return movement.broadcast_to(lhs, target)


# -- joining and cutting -----------------------------------------------------------------------


@operator("concat", "Concat", variadic=True)
def concat(*data: Any, dim: int = 1, num_args: int | None = None) -> Any:
    """Join arrays along axis ``dim``, which they have."""
    return core.concat(listed("concat", data), dim)


Concat = concat


@operator("stack", variadic=True)
def stack(*data: Any, axis: int = 0, num_args: int | None = None) -> Any:
    """Join arrays of one shape along a new axis."""
    return rearrange.stack(listed("stack", data), axis)


def _numbered(num_outputs: int, **_: Any) -> list[str]:
    return [f"output{n}" for n in range(num_outputs)] if num_outputs > 1 else ["output"]


@operator("SliceChannel", "split", outputs=_numbered)
def split(data: Any, num_outputs: int, axis: int = 1, squeeze_axis: bool = False) -> Any:
    """Cut an axis into equal parts.

    Parameters
    ----------
    data : array
    num_outputs : int
        How many.
    axis : int
    squeeze_axis : bool
        Drop the axis, of which each part then has one element.

    Returns
    -------
    list of array
        The array itself where there is only one.
    """
    return _parts(data, int(num_outputs), axis, squeeze_axis)


SliceChannel = split


def _cut(indices_or_sections: Any, **_: Any) -> list[str]:
    whole = isinstance(indices_or_sections, int)
    count = indices_or_sections if whole else len(as_tuple(indices_or_sections)) + 1
    return _numbered(count)


@operator("split_v2", inputs=("ary",), outputs=_cut)
def split_v2(
    ary: Any, indices_or_sections: Any, axis: int = 0, squeeze_axis: bool = False
) -> Any:
    """Cut an axis into equal parts, or at places."""
    return _parts(ary, indices_or_sections, axis, squeeze_axis)


def _parts(data: Any, sections: Any, axis: int, squeeze_axis: bool) -> Any:
    parts = list(rearrange.split(data, sections, axis))
    if squeeze_axis:
        parts = [at_least_1d(movement.squeeze(part, axis)) for part in parts]
    return parts[0] if len(parts) == 1 else parts


@operator("slice", "crop")
def slice(data: Any, begin: Any, end: Any, step: Any = None) -> Any:
    """Return ``data[begin[0]:end[0]:step[0], ...]``; None means what it means in Python."""
    return rearrange.slice_(data, as_tuple(begin), as_tuple(end), as_tuple(step) if step else ())


crop = slice


@operator("slice_axis")
def slice_axis(data: Any, axis: int, begin: int, end: int | None) -> Any:
    """Return ``begin:end`` of one axis."""
    return rearrange.slice_axis(data, axis, plain_sizes(begin), plain_sizes(end))


@operator("slice_like", inputs=("data", "shape_like"))
def slice_like(data: Any, shape_like: Any, axes: Sizes = ()) -> Any:
    """Cut axes, by default all, to the sizes of ``shape_like``."""
    own, other = dims(data), dims(shape_like)
    given = as_tuple(axes)
    places = attempt("slice_like", (data,), normalize_axes, given or None, len(own))
    size: list[Dim] = list(own)
    for place in places:
        if place >= len(other):
            raise ShapeError(
                f"slice_like: shape_like of shape {shape_text(other)} has no axis {place}",
                where=user_location(),
            )
        size[place] = other[place]
    return core.slice_sizes(data, (0,) * len(own), tuple(size), (1,) * len(own))


# -- repeating, turning, padding ---------------------------------------------------------------


@operator("tile")
def tile(data: Any, reps: Sizes) -> Any:
    """Repeat the whole array along axes."""
    return rearrange.tile(data, as_tuple(reps))


@operator("repeat")
def repeat(data: Any, repeats: int, axis: int | None = None) -> Any:
    """Repeat each element along an axis, or all of the flattened array."""
    return rearrange.repeat(data, repeats, axis)


@operator("flip", "reverse")
def flip(data: Any, axis: int | Sequence[int]) -> Any:
    """Reverse the order of elements along axes."""
    return rearrange.flip(data, axis)


reverse = flip
_PAD_MODES = ("constant", "edge", "reflect")


@operator("Pad", "pad")
def pad(data: Any, mode: str, pad_width: Sequence[int], constant_value: float = 0.0) -> Any:
    """Add elements around the array.

    Parameters
    ----------
    data : array
    mode : {"constant", "edge", "reflect"}
    pad_width : sequence of int
        Two numbers, before and after, for each axis.
    constant_value : float
    """
    chosen("pad mode", mode, _PAD_MODES)
    if len(pad_width) != 2 * len(dims(data)):
        raise ArgumentError(
            f"pad_width has {len(pad_width)} numbers for an array with {len(dims(data))} axes",
            remedy="Pass two, before and after, for each axis.",
            where=user_location(),
        )
    width = tuple(zip(pad_width[::2], pad_width[1::2], strict=True))
    return padding.pad(data, width, mode, constant_value)


Pad = pad


# -- as it is ----------------------------------------------------------------------------------


@operator("identity", "_copy")
def identity(data: Any) -> Any:
    """Return a copy."""
    return basic.copy(data)


@operator("BlockGrad", "stop_gradient")
def BlockGrad(data: Any) -> Any:
    """Return a copy through which no gradient flows."""
    return basic.stop_gradient(data)


stop_gradient = BlockGrad


# -- what MXNet writes differently for arrays only ---------------------------------------------


@operator("concatenate", variadic=True)
def concatenate(arrays: Sequence[Any], axis: int = 0, always_copy: bool = True) -> Any:
    """Join a sequence of arrays along axis 0, or another."""
    return core.concat(listed("concatenate", (arrays,)), axis)


@operator("moveaxis", inputs=("tensor",))
def moveaxis(tensor: Any, source: Sizes, destination: Sizes) -> Any:
    """Move axes to other places; the others keep their order."""
    return rearrange.moveaxis(tensor, source, destination)

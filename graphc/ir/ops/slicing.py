"""Ops that cut arrays up and put them together: slice and its inverse, concat, pad."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError, user_location
from graphc.ir import expr as E
from graphc.ir.dim import Dim
from graphc.ir.expr import Expr
from graphc.ir.op import register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.composite import as_shape, shape_of
from graphc.ir.ops.movement import Movement
from graphc.ir.types import (
    DType,
    TensorType,
    bool_,
    normalize_axis,
    promote,
    require_range,
    same_shape,
)

Sizes = tuple[Dim, ...]


class Slice(Movement):
    """Elements ``begin + i * step`` for ``i < size`` along every axis."""

    name = "slice"
    samples = (
        sample((5, 4), begin=(1, 0), size=(3, 4), step=(1, 1)),
        sample((6,), begin=(5,), size=(3,), step=(-2,)),
        sample((7, 3), begin=(0, 2), size=(3, 2), step=(3, -1)),
        sample((3, 2), begin=(3, 0), size=(0, 2), step=(1, 1)),
        sample((), begin=(), size=(), step=()),
    )

    def __call__(self, x: Any, begin: Sizes, size: Sizes, step: tuple[int, ...]) -> Any:
        """Return the elements ``begin + i * step``, ``i < size``; nothing is clamped."""
        attrs = {"begin": as_shape(begin), "size": as_shape(size), "step": tuple(step)}
        return apply(self, (x,), attrs)

    def infer(self, x: TensorType, *, begin: Sizes, size: Sizes, step: tuple[int, ...]) -> Any:
        """Return ``size`` as the shape."""
        for d, b, n, s in zip(x.shape, begin, size, step, strict=True):
            last = b + (n - 1) * s
            ends = range(d) if isinstance(d, int) else ()
            known = isinstance(b, int) and isinstance(n, int) and isinstance(d, int)
            if known and n != 0 and not (b in ends and last in ends):
                raise ShapeError(f"slice from {b} to {last} leaves an axis of size {d}")
        return x.with_shape(size)

    def vjp(self, g: Any, y: Any, x: Any, *, begin: Sizes, size: Sizes, step: Any) -> Any:
        """Put the gradient back into zeros."""
        return (unslice(g, begin, shape_of(x), step),)

    def lower(self, k: Any, x: Any, *, begin: Sizes, size: Sizes, step: Any) -> Any:
        """Read at ``begin + i * step``."""
        starts = [k.size(b) for b in begin]
        return x.at(*(b + i * s for b, i, s in zip(starts, k.index, step, strict=True)))

    def reference(self, x: np.ndarray, *, begin: Any, size: Any, step: Any) -> Any:
        """Slice with NumPy."""
        lanes = [b + np.arange(n) * s for b, n, s in zip(begin, size, step, strict=True)]
        return x[np.ix_(*lanes)] if lanes else x


class Unslice(Movement):
    """Zeros with the operand placed at ``begin + i * step``: the transpose of ``slice``."""

    name = "unslice"
    samples = (
        sample((3, 4), begin=(1, 0), shape=(5, 4), step=(1, 1)),
        sample((3,), begin=(5,), shape=(6,), step=(-2,)),
        sample((3, 2), begin=(0, 2), shape=(7, 3), step=(3, -1)),
        sample((0, 2), begin=(3, 0), shape=(3, 2), step=(1, 1)),
    )

    def __call__(self, x: Any, begin: Sizes, shape: Sizes, step: tuple[int, ...]) -> Any:
        """Place ``x`` into zeros of ``shape`` at ``begin + i * step`` along every axis."""
        attrs = {"begin": as_shape(begin), "shape": as_shape(shape), "step": tuple(step)}
        return apply(self, (x,), attrs)

    def infer(self, x: TensorType, *, begin: Sizes, shape: Sizes, step: Any) -> TensorType:
        """Return the larger shape."""
        return x.with_shape(shape)

    def vjp(self, g: Any, y: Any, x: Any, *, begin: Sizes, shape: Sizes, step: Any) -> Any:
        """Slice the gradient."""
        return (slice_sizes(g, begin, shape_of(x), step),)

    def lower(self, k: Any, x: Any, *, begin: Sizes, shape: Sizes, step: Any) -> Any:
        """Read the operand where an index comes from it, else 0."""
        mask: Expr = k.const(True, bool_)
        places: list[Expr] = []
        for axis, (i, b, s) in enumerate(zip(k.index, begin, step, strict=True)):
            if b == 0 and s == 1 and k.shape[axis] == x.shape[axis]:
                places.append(i)
                continue
            distance = i - k.size(b) if s > 0 else k.size(b) - i
            if abs(s) > 1:
                mask = mask & (distance % abs(s)).eq(0)
            place = distance // abs(s) if abs(s) > 1 else distance
            mask = mask & (place >= 0) & (place < E.index(x.shape[axis]))
            places.append(place)
        return x.at_where(mask, 0, *places)

    def reference(self, x: np.ndarray, *, begin: Any, shape: Any, step: Any) -> Any:
        """Place with NumPy."""
        out = np.zeros(shape, x.dtype)
        lanes = [b + np.arange(n) * s for b, n, s in zip(begin, x.shape, step, strict=True)]
        out[np.ix_(*lanes) if lanes else ()] = x
        return out


# -- concat and pad ----------------------------------------------------------------------------


class Concat(Movement):
    """Operands one after the other along an axis."""

    name = "concat"
    samples = (
        sample((2, 3), (4, 3), axis=0),
        sample((2, 3), (2, 1), (2, 2), axis=-1),
        sample((3,), (0,), (2,), axis=0),
        sample((2, 2), axis=1),
    )

    def __call__(self, arrays: Sequence[Any], axis: int = 0) -> Any:
        """Join a sequence of arrays along an axis they already have.

        Parameters
        ----------
        arrays : sequence of operands
            Shapes equal but for ``axis``; element types are promoted.
        axis : int

        Raises
        ------
        ShapeError
            When the other sizes differ.
        """
        operands = tuple(arrays)
        if not operands:
            raise ArgumentError("concat needs at least one array", where=user_location())
        return apply(self, operands, {"axis": int(axis)})

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Promote all operands to one type."""
        return (promote(*(t.dtype for t in types)),) * len(types)

    def infer(self, *types: TensorType, axis: int) -> TensorType:
        """Return the shape with the sizes along the axis added up."""
        first = types[0]
        place = normalize_axis(axis, first.ndim)
        rest = [d for a, d in enumerate(first.shape) if a != place]
        for number, other in enumerate(types[1:], 1):
            others = [d for a, d in enumerate(other.shape) if a != place]
            if other.ndim != first.ndim or not same_shape(others, rest):
                raise ShapeError(
                    f"cannot concat {first} and {other} along axis {axis}",
                    remedy=f"Operand {number} must have the sizes of operand 0 on all other axes.",
                )
        sizes = list(first.shape)
        sizes[place] = _total(t.shape[place] for t in types)
        return first.with_shape(sizes)

    def vjp(self, g: Any, y: Any, *inputs: Any, axis: int) -> tuple[Any, ...]:
        """Cut the gradient up."""
        place = axis % inputs[0].ndim
        offset: Dim = 0
        parts = []
        for x in inputs:
            begin = tuple(offset if a == place else 0 for a in range(x.ndim))
            parts.append(slice_sizes(g, begin, shape_of(x), (1,) * x.ndim))
            offset = offset + shape_of(x)[place]
        return tuple(parts)

    def lower(self, k: Any, *operands: Any, axis: int) -> Any:
        """Select the operand that holds the index; only that one is read."""
        place = axis % operands[0].ndim
        position = k.index[place]
        offset: Dim = 0
        if len(operands) == 1:
            return operands[0].at(*k.index)
        parts: list[tuple[Expr, Expr]] = []
        for x in operands:
            end = offset + x.shape[place]
            index = list(k.index)
            index[place] = position - E.index(offset)
            inside = position < E.index(end)
            mask = inside if offset == 0 else inside & (position >= E.index(offset))
            parts.append((inside, x.at_where(mask, 0, *index)))
            offset = end
        found = parts[-1][1]
        for inside, element in reversed(parts[:-1]):
            found = k.select(inside, element, found)
        return found

    def reference(self, *arrays: np.ndarray, axis: int) -> Any:
        """Concatenate with NumPy."""
        return np.concatenate(arrays, axis)


def _total(sizes: Iterable[Dim]) -> Dim:
    total: Dim = 0
    for size in sizes:
        total = total + size
    return total


class PadConstant(Movement):
    """A constant around the operand."""

    name = "pad_constant"
    samples = (
        sample((3,), width=((1, 2),), value=0.0),
        sample((2, 3), width=((0, 0), (2, 1)), value=1.0),
        sample((0, 2), width=((1, 1), (0, 0)), value=0.0),
        sample((1,), width=((0, 0),), value=3.0),
    )

    def __call__(self, x: Any, width: tuple[tuple[int, int], ...], value: float = 0.0) -> Any:
        """Put ``width[axis] == (before, after)`` elements ``value`` around every axis."""
        return apply(self, (x,), {"width": width, "value": value})

    def infer(self, x: TensorType, *, width: Any, value: float) -> TensorType:
        """Return the shape with both widths added."""
        if len(width) != x.ndim or any(min(pair) < 0 for pair in width):
            raise ShapeError(
                f"pad width {width} does not fit {x}",
                remedy=f"Pass {x.ndim} pairs (before, after) of numbers that are 0 or more.",
            )
        if x.dtype.integer and value != value // 1:
            raise DTypeError(
                f"pad of {x.dtype.name} values with {value!r}, which is no whole number",
                remedy="Cast the operand to a floating type, or give a whole number.",
            )
        require_range(value, x.dtype)
        return x.with_shape([d + b + a for d, (b, a) in zip(x.shape, width, strict=True)])

    def vjp(self, g: Any, y: Any, x: Any, *, width: Any, value: float) -> tuple[Any, ...]:
        """Cut the padding off."""
        begin = tuple(before for before, _ in width)
        return (slice_sizes(g, begin, shape_of(x), (1,) * x.ndim),)

    def lower(self, k: Any, x: Any, *, width: Any, value: float) -> Any:
        """Read inside, else return the constant."""
        mask: Expr = k.const(True, bool_)
        places = []
        for i, size, (before, after) in zip(k.index, x.shape, width, strict=True):
            places.append(i - before)
            if before:
                mask = mask & (i >= before)
            if after:
                mask = mask & (i < E.index(size + before))
        return x.at_where(mask, x.dtype.numpy.type(value).item(), *places)

    def reference(self, x: np.ndarray, *, width: Any, value: float) -> Any:
        """Pad with NumPy."""
        return np.pad(x, width, constant_values=value) if width else x


slice_sizes = register(Slice())
unslice = register(Unslice())
concat = register(Concat())
pad_constant = register(PadConstant())

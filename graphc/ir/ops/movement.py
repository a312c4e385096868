"""Ops that give the same elements another shape: reshape, transpose, broadcast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, product
from graphc.ir.expr import Expr
from graphc.ir.op import EVERY, Kind, OpDef, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.composite import as_shape, attempt, known_shape, shape_of, type_of
from graphc.ir.sizes import fix, known_size, resolve, unify
from graphc.ir.types import (
    TensorType,
    broadcast_shapes,
    normalize_axes,
    normalize_axis,
    same_shape,
    shape_text,
    sizes_of,
)


class Movement(OpDef):
    """Base of the records here: every element type, results of the first operand's type."""

    kind, dtypes = Kind.MOVEMENT, EVERY


# -- reshape -----------------------------------------------------------------------------------


def _counted(shape: Sequence[Dim]) -> str:
    return ", ".join(str(d if (size := known_size(d)) is None else size) for d in shape)


def _misfit(x: TensorType, shape: Sequence[Dim], why: str) -> ShapeError:
    """Return the error of a reshape that does not fit, with a shape that would."""
    size = known_size(x.size)
    count = f" ({x.size if size is None else size} elements)"
    kept = known_size(product(x.shape[1:]))
    remedy = "The numbers of elements must be equal."
    if x.ndim > 1 and kept is not None:
        factors = " * ".join(str(known_size(d)) for d in x.shape[1:])
        equals = f" = {kept}" if x.ndim > 2 else ""
        remedy = (
            f"(-1, {kept}) fits and keeps the first axis: each of its entries has "
            f"{factors}{equals} elements."
        )
    return ShapeError(
        f"cannot reshape {x.dtype}[{_counted(x.shape)}]{count} into {shape_text(shape)}: {why}",
        remedy=remedy,
    )


def reshaped(x: TensorType, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Return ``shape`` with its -1 resolved for an operand of type ``x``.

    Raises
    ------
    ShapeError
        When the numbers of elements differ; names a shape that fits.
    """
    x = x.with_shape([resolve(d) for d in x.shape])
    free = [axis for axis, d in enumerate(shape) if d == -1]
    if len(free) > 1 or any(isinstance(d, int) and d < -1 for d in shape):
        raise _misfit(x, shape, "at most one size may be -1, the others are 0 or more")
    rest = product(d for d in shape if d != -1)
    if free:
        filled = _quotient(x, shape, rest)
        return tuple(filled if axis == free[0] else d for axis, d in enumerate(shape))
    if unify(x.size, rest) is None:
        size = known_size(rest)
        raise _misfit(x, shape, f"that is {rest if size is None else size} elements")
    return shape


def _quotient(x: TensorType, shape: tuple[Dim, ...], rest: Dim) -> Dim:
    """Return the size that -1 stands for."""
    if rest == 0:
        raise _misfit(x, shape, "-1 beside a size of 0 could be any size")
    if x.size % rest == 0:
        return x.size // rest
    size, other = known_size(x.size), known_size(rest)
    if size is None or other is None or other == 0 or size % other:
        raise _misfit(x, shape, f"{x.size if size is None else size} is no multiple of {rest}")
    # It divides for the sizes of this call only, so the program holds for these sizes only.
    fix(x.size)
    fix(rest)
    return size // other


def _groups(
    source: list[int], target: list[int], a: Sequence[Dim], b: Sequence[Dim]
) -> Iterator[tuple[list[int], list[int]]]:
    """Split axes into the smallest runs with equal numbers of elements."""
    source = [axis for axis in source if a[axis] != 1]
    target = [axis for axis in target if b[axis] != 1]
    while source and target and a[source[-1]] == b[target[-1]]:
        yield [source.pop()], [target.pop()]
    while source and target:
        pairs = ((i, n - i) for n in range(2, len(source) + len(target)) for i in range(1, n))
        for i, j in pairs:
            sizes = product(a[s] for s in source[:i]), product(b[t] for t in target[:j])
            if i <= len(source) and j <= len(target) and sizes[0] == sizes[1]:
                break
        else:
            i, j = len(source), len(target)
        yield source[:i], target[:j]
        source, target = source[i:], target[j:]


def flat_index(index: Sequence[Expr], shape: Sequence[Dim]) -> Expr:
    """Return the row-major element number of ``index`` in ``shape``."""
    flat: Expr = E.index(0)
    for position, stride in zip(index, E.row_major(shape), strict=True):
        flat = flat + position * stride
    return flat


def unravel(index: Sequence[Expr], shape: Sequence[Dim], onto: Sequence[Dim]) -> list[Expr]:
    """Return the index into ``onto`` of the same row-major element as ``index`` of ``shape``."""
    found: list[Expr] = [E.index(0)] * len(onto)
    axes = list(range(len(onto))), list(range(len(shape)))
    for source, target in _groups(*axes, onto, shape):
        flat = flat_index([index[t] for t in target], [shape[t] for t in target])
        sizes = [onto[s] for s in source]
        for place, (axis, stride) in enumerate(zip(source, E.row_major(sizes), strict=True)):
            digit = flat if stride == 1 else flat // stride
            found[axis] = digit if place == 0 else digit % onto[axis]
    return found


class Reshape(Movement):
    """The same elements in row-major order under another shape."""

    name = "reshape"
    samples = (
        sample((2, 6), shape=(3, 4)),
        sample((2, 3, 4), shape=(6, 4)),
        sample((6, 4), shape=(3, 2, 2, 2)),
        sample((2, 1, 3), shape=(3, 1, 2, 1)),
        sample((4, 3, 2), shape=(4, 6)),
        sample((1,), shape=()),
        sample((), shape=(1, 1)),
        sample((0, 3), shape=(3, 0, 2)),
    )

    def __call__(self, x: Any, shape: Any) -> Any:
        """Return the elements of ``x`` in row-major order under another shape.

        Parameters
        ----------
        x : operand
        shape : int or sequence of int
            One size may be -1: it is what the others leave.

        Raises
        ------
        ShapeError
            When the numbers of elements differ; names a shape that fits.
        """
        target, kind = as_shape(shape), type_of(x)
        if kind is not None:
            target = attempt(self.name, (x,), reshaped, kind, target)
        return apply(self, (x,), {"shape": target})

    def infer(self, x: TensorType, *, shape: tuple[Dim, ...]) -> TensorType:
        """Return ``x`` under the shape."""
        return x.with_shape(reshaped(x, shape))

    def vjp(self, g: Any, y: Any, x: Any, *, shape: tuple[Dim, ...]) -> tuple[Any, ...]:
        """Reshape the gradient back."""
        return (reshape(g, shape_of(x)),)

    def lower(self, k: Any, x: Any, *, shape: tuple[Dim, ...]) -> Any:
        """Read the element with the same row-major number."""
        return x.at(*unravel(k.index, k.shape, x.shape))

    def reference(self, x: np.ndarray, *, shape: tuple[int, ...]) -> Any:
        """Reshape with NumPy."""
        return np.reshape(x, shape)


class Transpose(Movement):
    """The axes in another order."""

    name = "transpose"
    samples = (
        sample((2, 3), axes=(1, 0)),
        sample((2, 3, 4), axes=(2, 0, 1)),
        sample((2, 1, 3, 2), axes=(0, 2, 3, 1)),
        sample((3, 0), axes=(1, 0)),
        sample((), axes=()),
    )

    def __call__(self, x: Any, axes: Sequence[int] | None = None) -> Any:
        """Return ``x`` with its axes in the order ``axes``, reversed where None is given."""
        shape = known_shape(x)
        order = None if axes is None else tuple(int(a) for a in axes)
        if shape is not None:
            order = attempt(self.name, (x,), self._order, order, len(shape))
        return apply(self, (x,), {"axes": order})

    @staticmethod
    def _order(axes: tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
        if axes is None:
            return tuple(reversed(range(ndim)))
        order = tuple(normalize_axis(a, ndim) for a in axes)
        if sorted(order) != list(range(ndim)):
            raise ShapeError(
                f"axes {axes} do not put {ndim} axes in order",
                remedy=f"Name each of 0 to {ndim - 1} once." if ndim else "Pass no axes.",
            )
        return order

    def infer(self, x: TensorType, *, axes: tuple[int, ...] | None) -> TensorType:
        """Return the permuted shape."""
        return x.with_shape([x.shape[a] for a in self._order(axes, x.ndim)])

    def vjp(self, g: Any, y: Any, x: Any, *, axes: tuple[int, ...] | None) -> tuple[Any, ...]:
        """Put the gradient's axes back."""
        order = self._order(axes, x.ndim)
        return (transpose(g, tuple(order.index(a) for a in range(len(order)))),)

    def lower(self, k: Any, x: Any, *, axes: tuple[int, ...] | None) -> Any:
        """Read at the permuted index."""
        order = self._order(axes, x.ndim)
        return x.at(*(k.index[order.index(a)] for a in range(x.ndim)))

    def reference(self, x: np.ndarray, *, axes: tuple[int, ...] | None) -> Any:
        """Transpose with NumPy."""
        return np.transpose(x, axes)


def _as_axes(axis: Any, ndim: int | None) -> Any:
    if axis is None or ndim is None:
        return tuple(axis) if isinstance(axis, (tuple, list)) else axis
    return normalize_axes(axis, ndim)


def _axis_count(axis: Any) -> int:
    return len(axis) if isinstance(axis, (tuple, list)) else 1


class ExpandDims(Movement):
    """New axes of size 1."""

    name = "expand_dims"
    samples = (
        sample((2, 3), axis=(1,)),
        sample((2, 3), axis=(0, 3)),
        sample((), axis=(0,)),
        sample((0,), axis=(1,)),
    )

    def __call__(self, x: Any, axis: int | Sequence[int]) -> Any:
        """Insert axes of size 1 at the places ``axis`` of the result."""
        shape = known_shape(x)
        ndim = None if shape is None else len(shape) + _axis_count(axis)
        return apply(self, (x,), {"axis": attempt(self.name, (x,), _as_axes, axis, ndim)})

    def infer(self, x: TensorType, *, axis: Any) -> TensorType:
        """Return the shape with 1 at each new axis."""
        shape = list(x.shape)
        for place in normalize_axes(axis, x.ndim + _axis_count(axis)):
            shape.insert(place, 1)
        return x.with_shape(shape)

    def vjp(self, g: Any, y: Any, x: Any, *, axis: Any) -> tuple[Any, ...]:
        """Drop the axes from the gradient."""
        return (squeeze(g, axis),)

    def lower(self, k: Any, x: Any, *, axis: Any) -> Any:
        """Read without the new axes."""
        new = normalize_axes(axis, len(k.shape))
        return x.at(*(i for place, i in enumerate(k.index) if place not in new))

    def reference(self, x: np.ndarray, *, axis: Any) -> Any:
        """Expand with NumPy."""
        return np.expand_dims(x, axis)


class Squeeze(Movement):
    """Axes of size 1 dropped."""

    name = "squeeze"
    samples = (
        sample((2, 1, 3), axis=(1,)),
        sample((1, 2, 1), axis=(0, 2)),
        sample((1, 1), axis=None),
        sample((1, 0), axis=(0,)),
    )

    def __call__(self, x: Any, axis: int | Sequence[int] | None = None) -> Any:
        """Drop the axes ``axis``, which have size 1; all axes of size 1 where it is None."""
        shape = known_shape(x)
        if shape is not None:
            axis = attempt(self.name, (x,), self._dropped, shape, axis)
        return apply(self, (x,), {"axis": _as_axes(axis, None)})

    @staticmethod
    def _dropped(shape: Sequence[Dim], axis: Any) -> tuple[int, ...]:
        if axis is None:
            return tuple(a for a, d in enumerate(shape) if known_size(d) == 1 and fix(d) == 1)
        axes = normalize_axes(axis, len(shape))
        for a in axes:
            if unify(shape[a], 1) is None:
                size = known_size(shape[a])
                raise ShapeError(
                    f"cannot squeeze axis {a} of size {shape[a] if size is None else size}",
                    remedy="Only axes of size 1 can be dropped.",
                )
        return axes

    def infer(self, x: TensorType, *, axis: Any) -> TensorType:
        """Return the shape without the axes."""
        dropped = self._dropped(x.shape, axis)
        return x.with_shape([d for a, d in enumerate(x.shape) if a not in dropped])

    def vjp(self, g: Any, y: Any, x: Any, *, axis: Any) -> tuple[Any, ...]:
        """Bring the axes back."""
        return (reshape(g, shape_of(x)),)

    def lower(self, k: Any, x: Any, *, axis: Any) -> Any:
        """Read with 0 at the dropped axes."""
        ones = tuple(a for a, d in enumerate(x.shape) if d == 1)
        dropped = ones if axis is None else normalize_axes(axis, x.ndim)
        rest = iter(k.index)
        return x.at(*(0 if a in dropped else next(rest) for a in range(x.ndim)))

    def reference(self, x: np.ndarray, *, axis: Any) -> Any:
        """Squeeze with NumPy."""
        return np.squeeze(x, axis)


class BroadcastTo(OpDef):
    """The elements repeated along axes of size 1 and new leading axes.

    A pointwise op: the element at an index is the operand's at that broadcast index, and the
    gradient is summed as for every operand that was broadcast.
    """

    name, kind, dtypes = "broadcast_to", Kind.POINTWISE, EVERY
    samples = (
        sample((1, 3), shape=(2, 3)),
        sample((3,), shape=(2, 1, 3)),
        sample((), shape=(2, 2)),
        sample((2, 1), shape=(2, 0)),
        sample((2, 3), shape=(2, 3)),
    )

    def __call__(self, x: Any, shape: Any) -> Any:
        """Return ``x`` repeated to ``shape`` by NumPy's rule.

        Raises
        ------
        ShapeError
            When a size of ``x`` is neither 1 nor that of ``shape``.
        """
        return apply(self, (x,), {"shape": as_shape(shape)})

    def infer(self, x: TensorType, *, shape: tuple[Dim, ...]) -> TensorType:
        """Return the shape, if ``x`` broadcasts to it."""
        sizes_of(*shape)
        if x.ndim > len(shape) or not same_shape(broadcast_shapes(x.shape, shape), shape):
            raise ShapeError(
                f"shape {shape_text(x.shape)} does not broadcast to {shape_text(shape)}",
                remedy="Each size of the operand must be 1 or the one asked for.",
            )
        return x.with_shape(shape)

    def vjp(self, g: Any, y: Any, x: Any, *, shape: tuple[Dim, ...]) -> tuple[Any, ...]:
        """Return the gradient, which is summed over broadcast axes elsewhere."""
        return (g,)

    def lower(self, k: Any, x: Any, *, shape: tuple[Dim, ...]) -> Any:
        """Return the element at the broadcast index."""
        return x

    def reference(self, x: np.ndarray, *, shape: tuple[int, ...]) -> Any:
        """Broadcast with NumPy."""
        return np.broadcast_to(x, shape)


reshape = register(Reshape())
transpose = register(Transpose())
expand_dims = register(ExpandDims())
squeeze = register(Squeeze())
broadcast_to = register(BroadcastTo())

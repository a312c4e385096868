"""Reading at several indices at once, scattering back, and indexing by integer arrays.

The scatters are deterministic: equal indices add up in the order of the updates, whatever the
number of threads, because what runs in parallel never meets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_min, product, symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.loop import Bind, For, Let, Stmt, Store
from graphc.ir.op import NUMBERS, Kind, OpDef, Spec, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.basic import cast
from graphc.ir.ops.composite import as_shape, attempt, composite, shape_of
from graphc.ir.ops.indexing import (
    check_index,
    check_indices,
    check_mode,
    checked,
    take,
    whole_index,
    whole_indices,
)
from graphc.ir.ops.movement import Movement, broadcast_to, transpose
from graphc.ir.ops.rearrange import expanded_key, getitem, is_whole, stack
from graphc.ir.sizes import fix, known_size
from graphc.ir.types import (
    TensorType,
    broadcast_shapes,
    float32,
    int32,
    int64,
    normalize_axis,
    same_shape,
    shape_text,
)

COLUMNS = 64
"""Elements of a row that one parallel step owns: whole cache lines, and enough steps."""

Shape = tuple[Dim, ...]


Scattered = tuple[tuple[Dim, Dim, Dim, Dim], Callable[[Expr], Expr]]
"""Sizes of p, of the rows, of m and of q in ``out[p, row(m), q] += updates[p, m, q]``, and row."""
Places = Callable[..., Scattered]


def _scatter(
    k: Any, out: Buffer, updates: Buffer, sizes: tuple[Dim, Dim, Dim, Dim], row: Callable[..., Expr]
) -> tuple[Stmt, ...]:
    """Return the loops of ``out[p, row(m), q] += updates[p, m, q]`` over zeros.

    ``sizes`` are those of p, of the rows, of m and of q; p and blocks of q run in parallel.
    """
    outer, rows, count, width = sizes
    blocks = ceil_div(width, COLUMNS)
    step, clear, blank, turn, column, chosen = (k.axis_names() for _ in range(6))
    block, number = symbol(step), symbol(turn)
    p, first = block // blocks if blocks != 0 else 0, block % blocks if blocks != 0 else 0
    start = E.index(first * COLUMNS)
    stop = E.index(dim_min(first * COLUMNS + COLUMNS, width))
    q = symbol(column)
    base = row(E.index(number))
    target = (E.use(chosen, base) + p * rows) * E.index(width) + E.index(q)
    cleared = E.index((p * rows + symbol(clear)) * width + symbol(blank))
    added = E.load(updates, E.index((p * count + number) * width + q))
    zero = Store(out, cleared, E.const(0, out.dtype))
    add = Store(out, target, E.load(out, target) + added)
    clearing = For(clear, E.index(0), E.index(rows), (For(blank, start, stop, (zero,)),))
    adding = (Let(chosen, base), For(column, start, stop, (add,)))
    body = (clearing, For(turn, E.index(0), E.index(count), adding))
    return (For(step, E.index(0), E.index(outer * blocks), body, bind=Bind.PARALLEL),)


class ScatterAdd(OpDef):
    """Zeros with updates added at given indices along an axis: the transpose of ``take``."""

    name, kind, dtypes = "scatter_add", Kind.SCATTER, NUMBERS
    samples = (
        sample(Spec((6,), -2, 7, int64), (6, 3), shape=(5, 3), axis=0, mode="clip"),
        sample(Spec((2, 2), -6, 6, int32), (2, 2, 2, 3), shape=(2, 4, 3), axis=1, mode="wrap"),
        sample(Spec((5,), 0, 3.9, float32), (5,), shape=(4,), axis=0, mode="clip"),
        sample(Spec((0,), 0, 3, int64), (2, 0), shape=(2, 3), axis=1, mode="clip"),
        sample(Spec((), 0, 3, int64), (70,), shape=(3, 70), axis=0, mode="clip"),
    )

    def __call__(
        self, indices: Any, updates: Any, shape: Any, axis: int = 0, mode: str = "clip"
    ) -> Any:
        """Return zeros of ``shape`` with ``updates`` added at ``indices`` along ``axis``.

        Parameters
        ----------
        indices : operand
            Integers or floats.
        updates : operand
            ``shape`` with ``axis`` replaced by the axes of ``indices``.
        shape : sequence of Dim
        axis : int
        mode : {"clip", "wrap", "raise"}
            What becomes of an index that is out of range.
        """
        target = as_shape(shape)
        place = attempt(self.name, (indices, updates), normalize_axis, axis, len(target))
        indices, mode = checked(indices, target[place], mode)
        return apply(self, (indices, updates), {"shape": target, "axis": place, "mode": mode})

    def infer(
        self, indices: TensorType, updates: TensorType, *, shape: Shape, axis: int, mode: str
    ) -> TensorType:
        """Return the updates' type with ``shape``."""
        check_mode(mode)
        check_indices(indices)
        expected = (*shape[:axis], *indices.shape, *shape[axis + 1 :])
        if not same_shape(updates.shape, expected):
            raise ShapeError(
                f"updates of shape {shape_text(updates.shape)} do not scatter into "
                f"{shape_text(shape)} along axis {axis}",
                remedy=f"Their shape must be {shape_text(expected)}.",
            )
        return updates.with_shape(shape)

    def vjp(self, g: Any, y: Any, indices: Any, updates: Any, **attrs: Any) -> tuple[Any, ...]:
        """Take from the gradient."""
        return None, take(g, indices, attrs["axis"], attrs["mode"])

    def nest(self, k: Any, outputs: Any, *operands: Buffer, **attrs: Any) -> tuple[Stmt, ...]:
        """Add row after row; columns in blocks side by side."""
        (out,), (indices, updates) = outputs, operands
        return _scatter(k, out, updates, *self.places(k, out, indices, updates, **attrs))

    def places(
        self, k: Any, out: Buffer, indices: Buffer, updates: Buffer, *, axis: int, mode: str,
        shape: Shape,
    ) -> Scattered:  # fmt: skip
        """Return what is added where."""
        rows = out.shape[axis]
        sizes = (
            product(out.shape[:axis]), rows, product(indices.shape),
            product(out.shape[axis + 1 :]),
        )  # fmt: skip
        return sizes, lambda m: whole_index(k, E.load(indices, m), rows, mode)

    def reference(
        self, indices: np.ndarray, updates: np.ndarray, *, shape: Any, axis: int, mode: str
    ) -> Any:
        """Add with NumPy, in order."""
        out = np.zeros(shape, updates.dtype)
        chosen = whole_indices(indices, shape[axis], mode)
        rows: Any = (slice(None),) * axis + (chosen,)
        np.add.at(out, rows, updates)
        return out


# -- several axes at once ----------------------------------------------------------------------


def _check_nd(shape: Sequence[Dim], indices: TensorType) -> int:
    """Return how many axes of ``shape`` the first axis of the indices stands for."""
    check_indices(indices)
    count = fix(indices.shape[0]) if indices.ndim else None
    if count is None or count > len(shape):
        raise ShapeError(
            f"indices {indices} do not index an operand of shape {shape_text(shape)}",
            remedy="Their first axis has one entry for each axis that is indexed.",
        )
    return count


def _row(k: Any, parts: Sequence[Expr], shape: Sequence[Dim], mode: str) -> list[Expr]:
    return [whole_index(k, part, d, mode) for part, d in zip(parts, shape)]


class GatherND(Movement):
    """Elements or sub-arrays at index tuples: ``x[indices[0], indices[1], ...]``."""

    name = "gather_nd"
    samples = (
        sample((3, 4), Spec((2, 5), -2, 6, int64), mode="clip"),
        sample((3, 4, 2), Spec((2, 2, 2), -5, 5, int32), mode="wrap"),
        sample((3, 4), Spec((1, 3), 0, 3, int64), mode="clip"),
        sample((3, 4), Spec((2,), 0, 2.9, float32), mode="clip"),
    )

    def __call__(self, x: Any, indices: Any, mode: str = "clip") -> Any:
        """Return ``x[indices[0], indices[1], ...]``.

        Parameters
        ----------
        x : operand
        indices : operand, shape (n, ...)
            One entry of the first axis for each of the first ``n`` axes of ``x``.
        mode : {"clip", "wrap"}
            What becomes of an index that is out of range.
        """
        return apply(self, (x, indices), {"mode": mode})

    def infer(self, x: TensorType, indices: TensorType, *, mode: str) -> TensorType:
        """Return the shape of one entry of the indices, then the axes not indexed."""
        check_mode(mode)
        count = _check_nd(x.shape, indices)
        if any(d == 0 for d in x.shape[:count]) and known_size(product(indices.shape)) != 0:
            raise ShapeError(f"{x} is empty: there is nothing to gather")
        return x.with_shape((*indices.shape[1:], *x.shape[count:]))

    def vjp(self, g: Any, y: Any, x: Any, indices: Any, *, mode: str) -> tuple[Any, ...]:
        """Add the gradient up where it was gathered from."""
        return scatter_nd(indices, g, shape_of(x), mode), None

    def lower(self, k: Any, x: Any, indices: Any, *, mode: str) -> Any:
        """Read at the index tuple."""
        end = indices.ndim - 1
        count = x.ndim - (len(k.shape) - end)
        parts = [indices.at(n, *k.index[:end]) for n in range(count)]
        return x.at(*_row(k, parts, x.shape, mode), *k.index[end:])

    def reference(self, x: np.ndarray, indices: np.ndarray, *, mode: str) -> Any:
        """Index with NumPy."""
        return x[tuple(whole_indices(part, d, mode) for part, d in zip(indices, x.shape))]


class ScatterND(OpDef):
    """Zeros with updates added at index tuples: the transpose of ``gather_nd``."""

    name, kind, dtypes = "scatter_nd", Kind.SCATTER, NUMBERS
    samples = (
        sample(Spec((2, 5), -2, 6, int64), (5,), shape=(3, 4), mode="clip"),
        sample(Spec((2, 2, 2), -5, 5, int32), (2, 2, 2), shape=(3, 4, 2), mode="wrap"),
        sample(Spec((1, 6), 0, 3, int64), (6, 4), shape=(3, 4), mode="clip"),
    )

    def __call__(self, indices: Any, updates: Any, shape: Any, mode: str = "clip") -> Any:
        """Return zeros of ``shape`` with ``updates`` added at ``indices``, as `gather_nd` reads."""
        return apply(self, (indices, updates), {"shape": as_shape(shape), "mode": mode})

    def infer(
        self, indices: TensorType, updates: TensorType, *, shape: Shape, mode: str
    ) -> TensorType:
        """Return the updates' type with ``shape``."""
        check_mode(mode)
        count = _check_nd(shape, indices)
        expected = (*indices.shape[1:], *shape[count:])
        if not same_shape(updates.shape, expected):
            raise ShapeError(
                f"updates of shape {shape_text(updates.shape)} do not scatter into "
                f"{shape_text(shape)}",
                remedy=f"Their shape must be {shape_text(expected)}.",
            )
        return updates.with_shape(shape)

    def vjp(self, g: Any, y: Any, indices: Any, updates: Any, **attrs: Any) -> tuple[Any, ...]:
        """Gather from the gradient."""
        return None, gather_nd(g, indices, attrs["mode"])

    def nest(self, k: Any, outputs: Any, *operands: Buffer, **attrs: Any) -> tuple[Stmt, ...]:
        """Add row after row; columns in blocks side by side."""
        (out,), (indices, updates) = outputs, operands
        return _scatter(k, out, updates, *self.places(k, out, indices, updates, **attrs))

    def places(
        self, k: Any, out: Buffer, indices: Buffer, updates: Buffer, *, mode: str, shape: Shape
    ) -> Scattered:
        """Return what is added where."""
        count = len(out.shape) - (len(updates.shape) - (len(indices.shape) - 1))
        indexed = out.shape[:count]
        turns = product(indices.shape[1:])

        def row(m: Expr) -> Expr:
            parts = [E.load(indices, m + E.index(n * turns)) for n in range(count)]
            flat: Expr = E.index(0)
            for part, d in zip(_row(k, parts, indexed, mode), indexed):
                flat = flat * E.index(d) + part
            return flat

        return (1, product(indexed), turns, product(out.shape[count:])), row

    def reference(
        self, indices: np.ndarray, updates: np.ndarray, *, shape: Any, mode: str
    ) -> Any:
        """Add with NumPy, in order."""
        out = np.zeros(shape, updates.dtype)
        chosen = tuple(whole_indices(part, d, mode) for part, d in zip(indices, shape))
        np.add.at(out, chosen, updates)
        return out


scatter_add = register(ScatterAdd())
gather_nd = register(GatherND())
scatter_nd = register(ScatterND())


# -- x[i, j] with integer arrays ---------------------------------------------------------------


def is_index_array(item: Any) -> bool:
    """Return whether one item of an index is an array, so that the index is not a basic one."""
    return isinstance(item, (list, np.ndarray)) or hasattr(item, "__graphc_apply__")


def getitem_advanced(x: Any, key: Any, mode: str = "raise") -> Any:
    """Return ``x[key]`` where some items of ``key`` are integer arrays, by NumPy's rules.

    Parameters
    ----------
    x : operand
    key : index array, or tuple of index arrays, integers, slices, None and ``...``
        Index arrays broadcast against each other. Their axes come where the arrays stand, or first
        where slices part them.
    mode : {"raise", "clip", "wrap"}
        What becomes of an index that is out of range; ``"raise"`` counts negative ones from the
        end.

    Raises
    ------
    IndexRangeError
        With ``mode="raise"``, for an index out of range.
    """
    return attempt("getitem", (x,), _advanced, x, key, mode)


def _advanced(x: Any, key: Any, mode: str) -> Any:
    items = list(expanded_key(key if isinstance(key, tuple) else (key,), len(shape_of(x))))
    places = [n for n, item in enumerate(items) if is_index_array(item) or is_whole(item)]
    together = places == list(range(places[0], places[-1] + 1))
    arrays = {n: items[n] for n in places if is_index_array(items[n])}
    basic = tuple(slice(None) if n in arrays else item for n, item in enumerate(items))
    part = getitem(x, basic)
    kept = [n for n, item in enumerate(items) if not is_whole(item)]
    axes = [kept.index(n) for n in arrays]
    first = sum(1 for n in kept if n < places[0]) if together else 0
    return _gathered(part, axes, list(arrays.values()), first, mode)


def _gathered(x: Any, axes: list[int], arrays: list[Any], first: int, mode: str) -> Any:
    """Index ``axes`` of ``x`` by arrays; the axes of the result start at ``first``."""
    arrays = [np.asarray(a) if isinstance(a, list) else a for a in arrays]
    if len(axes) == 1:
        found = take(x, arrays[0], axes[0], mode)
        return _moved(found, axes[0], len(shape_of(arrays[0])), first)
    shape = broadcast_shapes(*map(shape_of, arrays))
    whole = []
    for axis, array in zip(axes, arrays, strict=True):
        index, resolved = checked(cast(array, int64), shape_of(x)[axis], mode, f"axis {axis} index")
        whole.append(broadcast_to(index, shape))
    rest = [a for a in range(len(shape_of(x))) if a not in axes]
    found = gather_nd(transpose(x, [*axes, *rest]), stack(whole), resolved)
    return _moved(found, 0, len(shape), first)


def _moved(x: Any, start: int, count: int, first: int) -> Any:
    """Move ``count`` axes from ``start`` to ``first``."""
    if start == first or count == 0:
        return x
    block = list(range(start, start + count))
    order = [a for a in range(len(shape_of(x))) if a not in block]
    return transpose(x, [*order[:first], *block, *order[first:]])


@composite(
    lambda indices, weight: weight[whole_indices(indices, len(weight), "clip")],
    operands=2,
    samples=(
        sample(Spec((2, 3), 0, 4, int64), (4, 5)),
        sample(Spec((3,), 0, 4, float32), (4, 2)),
    ),
    dtypes=NUMBERS,
)
def embedding(indices: Any, weight: Any) -> Any:
    """Return the rows of ``weight`` that ``indices`` name.

    Parameters
    ----------
    indices : operand
        Integers or floats in ``0 .. rows - 1``, any shape.
    weight : operand, shape (rows, width)

    Returns
    -------
    operand, shape indices.shape + (width,)

    Raises
    ------
    IndexRangeError
        Names the row that does not exist, its position and the number of rows.
    """
    shape = shape_of(weight)
    if len(shape) != 2:
        raise ShapeError(f"embedding needs a weight of 2 axes, got shape {shape_text(shape)}")
    rows = attempt("embedding", (indices, weight), check_index, indices, shape[0], "row")
    return take(weight, rows, 0, "clip")

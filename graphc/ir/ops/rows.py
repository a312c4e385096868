"""Changing rows of tables in place: those that indices name, each once.

The gradient of an embedding is zero but for the rows of a batch. Where such a gradient is only
used to update its table, neither it nor the rest of the table is touched: `sort_rows` brings equal
indices together, and `update_rows` sums the gradients of a row in the order in which
`scatter_add` sums them, and writes the row's new values. `graphc.passes.row_updates` puts the two
where they fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_min, product, symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.loop import Alloc, Assign, Bind, Declare, For, If, Let, Stmt, Store
from graphc.ir.op import Kind, OpDef, Spec, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.indexing import check_indices, check_mode, whole_index, whole_indices
from graphc.ir.types import TensorType, float32, int32, int64, same_shape, shape_text

DIGIT_BITS = 8
DIGITS = 1 << DIGIT_BITS
PAIRS = 4
"""Passes of the sort go by twos, each of which orders by two digits; four cover any i64 index."""
ROWS = 16
"""Sorted places that one parallel step owns."""
LANES = 16
"""Elements of a row that are computed at once."""

Body = tuple[Stmt, ...]
Shape = tuple[Dim, ...]


def _loop(k: Any, stop: Expr, body: Callable[[Expr], Body], start: Expr | None = None) -> For:
    """Return a loop over a fresh variable."""
    name = k.axis_names()
    return For(name, start or E.index(0), stop, body(E.index(symbol(name))))


def _let(k: Any, value: Expr) -> tuple[Stmt, Expr]:
    """Return a statement that names a value, and the use of it."""
    name = k.axis_names()
    return Let(name, value), E.use(name, value)


class SortRows(OpDef):
    """Indices in ascending order, equal ones in the order they come: a radix sort.

    Returns three i64 arrays of the indices' shape, to be read as flat ones: the place each sorted
    index had, the index itself, and where in the sorted order the run of indices equal to it ends.
    """

    name, kind, dtypes, gradient = "sort_rows", Kind.OPAQUE, (int64, int32, float32), False
    tolerance = {}
    samples = (
        sample(Spec((7,), -2, 7), rows=5, mode="clip"),
        sample(Spec((3, 40), -400, 800), rows=700, mode="wrap"),
        sample(Spec((50,), 0, 200_000), rows=200_000, mode="clip"),
        sample(Spec((), 0, 3), rows=3, mode="clip"),
        sample(Spec((0,), 0, 3), rows=3, mode="clip"),
    )

    def __call__(self, indices: Any, rows: Dim, mode: str = "clip") -> Any:
        """Return places, rows and ends of the indices in order.

        Parameters
        ----------
        indices : operand
            Integers or floats, any shape.
        rows : Dim
            How many rows they choose from.
        mode : {"clip", "wrap"}
            What becomes of an index that is out of range.
        """
        return apply(self, (indices,), {"rows": rows, "mode": mode})

    def infer(self, indices: TensorType, *, rows: Dim, mode: str) -> tuple[TensorType, ...]:
        """Return three times the indices' shape."""
        check_mode(mode)
        check_indices(indices)
        return (TensorType(int64, indices.shape),) * 3

    def nest(self, k: Any, outputs: Any, *operands: Buffer, **attrs: Any) -> Body:
        """Sort by two digits at a time, back and forth between two outputs."""
        (order, sorted_rows, ends), (indices,) = outputs, operands
        count, rows = E.index(product(indices.shape)), k.sizes(attrs["rows"])
        counts = Buffer("counts", int64, (DIGITS,), "stack")

        def row(place: Expr) -> Expr:
            return whole_index(k, E.load(indices, place), rows, attrs["mode"])

        def pair(number: Expr) -> Body:
            low = number * (2 * DIGIT_BITS)
            passes = (
                *_ordered(k, counts, count, order, sorted_rows, row, low),
                *_ordered(k, counts, count, sorted_rows, order, row, low + DIGIT_BITS),
            )
            return (If((E.index(rows) - 1 >> low) > 0, passes),)

        return (
            Alloc(counts),
            _loop(k, count, lambda n: (Store(order, n, n),)),
            _loop(k, E.index(PAIRS), pair),
            _loop(k, count, lambda n: (Store(sorted_rows, n, row(E.load(order, n))),)),
            _loop(k, count, lambda n: _run_end(k, sorted_rows, ends, count - 1 - n, count)),
        )

    def reference(
        self, indices: np.ndarray, *, rows: int, mode: str
    ) -> tuple[np.ndarray, ...]:
        """Sort with NumPy."""
        chosen = whole_indices(indices, rows, mode).reshape(-1)
        order = np.argsort(chosen, kind="stable")
        ends = np.searchsorted(chosen[order], chosen[order], side="right")
        return tuple(part.reshape(indices.shape) for part in (order, chosen[order], ends))


def _ordered(
    k: Any, counts: Buffer, count: Expr, source: Buffer, target: Buffer,
    row: Callable[[Expr], Expr], shift: Expr,
) -> Body:  # fmt: skip
    """Return the loops that order places by one digit of their rows: a counting sort."""

    def placed(n: Expr) -> tuple[Body, Expr, Expr]:
        named, place = _let(k, E.load(source, n))
        digit_named, digit = _let(k, (row(place) >> shift) & (DIGITS - 1))
        return (named, digit_named), place, digit

    def counted(n: Expr) -> Body:
        body, _, digit = placed(n)
        return (*body, Store(counts, digit, E.load(counts, digit) + 1))

    def moved(n: Expr) -> Body:
        body, place, digit = placed(n)
        named, at = _let(k, E.load(counts, digit))
        return (*body, named, Store(target, at, place), Store(counts, digit, at + 1))

    name = k.axis_names()
    total = E.use(name, E.index(0))

    def starts(digit: Expr) -> Body:
        named, own = _let(k, E.load(counts, digit))
        return named, Store(counts, digit, total), Assign(name, total + own)

    return (
        _loop(k, E.index(DIGITS), lambda digit: (Store(counts, digit, E.index(0)),)),
        _loop(k, count, counted),
        Declare(name, E.index(0)),
        _loop(k, E.index(DIGITS), starts),
        _loop(k, count, moved),
    )


def _run_end(k: Any, rows: Buffer, ends: Buffer, place: Expr, count: Expr) -> Body:
    """Return the statements that find the end of a run from that of the place behind."""
    behind, after = _let(k, E.apply("min", place + 1, count - 1))
    last = (place + 1).eq(count) | E.load(rows, after).ne(E.load(rows, place))
    return behind, Store(ends, place, E.select(last, place + 1, E.load(ends, after)))


def element_graph(
    inputs: Sequence[tuple[str, TensorType]], make: Callable[..., Sequence[Value]]
) -> Graph:
    """Return the graph of the new elements of `update_rows`, over 0-d inputs.

    Parameters
    ----------
    inputs : sequence of (str, TensorType)
    make : callable
        Gets their values and returns those of the new elements.
    """
    values = tuple(
        placeholder(name, TensorType(kind.dtype, ())) for name, kind in inputs
    )
    return Graph("element", values, tuple(make(*values)))


class UpdateRows(OpDef):
    """Tables with new values in the rows that sorted indices name; the other rows stay.

    Operands are the three results of `sort_rows`, the gradients of the rows, the tables, and 0-d
    operands. Gradients have the shape of the indices, or 1 in places, then that of a row; those of
    one row are summed first. ``element`` computes the new elements of the tables from that sum, the
    old elements and the 0-d operands. With ``nonzero`` rows whose sums are all zero stay as well.
    """

    name, kind, dtypes, gradient = "update_rows", Kind.SCATTER, (float32,), False
    overwrites = 4
    samples = (
        sample(
            Spec((1,), 0, 1, int64), Spec((1,), 2, 3, int64), Spec((1,), 1, 2, int64),
            (1, 5), (4, 5), Spec(()), nonzero=False,
            element=element_graph(
                [(name, TensorType(float32, ())) for name in ("g", "w", "rate")],
                lambda g, w, rate: (w - rate * g,),
            ),
        ),
        sample(
            Spec((2, 3), 0, 1, int64), Spec((2, 3), 1, 2, int64), Spec((2, 3), 6, 7, int64),
            (2, 3, 20), (4, 20), (4, 20), nonzero=True,
            element=element_graph(
                [(name, TensorType(float32, ())) for name in ("g", "w", "m")],
                lambda g, w, m: (w - 0.5 * g / (m * m + 1.0), m + g),
            ),
        ),
    )  # fmt: skip

    def __call__(self, order: Any, rows: Any, ends: Any, updates: Any, *others: Any,
                 element: Graph, nonzero: bool = False) -> Any:  # fmt: skip
        """Return the new tables.

        Parameters
        ----------
        order, rows, ends : operand
            As `sort_rows` returns them.
        updates : operand
            Gradients of the rows that the indices name.
        *others : operand
            Tables of one shape, as many as ``element`` has outputs, then 0-d operands.
        element : Graph
            From the sum of a row's gradients, the tables' old elements and the 0-d operands to
            the tables' new elements, all 0-d.
        nonzero : bool
            Leave rows whose gradients sum to zero as they are.
        """
        attrs = {"element": element, "nonzero": nonzero}
        return apply(self, (order, rows, ends, updates, *others), attrs)

    def infer(
        self, *types: TensorType, element: Graph, nonzero: bool
    ) -> tuple[TensorType, ...]:
        """Return the tables' types."""
        order, updates, tables = types[0], types[3], types[4 : 4 + len(element.outputs)]
        lead = updates.shape[: order.ndim]
        whole = tuple(own if own == 1 else d for own, d in zip(lead, order.shape))
        others = (*((t, order.shape) for t in types[1:3]), *((t, tables[0].shape) for t in tables))
        pairs = ((updates, (*whole, *tables[0].shape[1:])), *others)
        if len(lead) < order.ndim or not all(same_shape(t.shape, shape) for t, shape in pairs):
            raise ShapeError(
                f"updates of shape {shape_text(updates.shape)} are none of rows of "
                f"{shape_text(tables[0].shape)} at indices of shape {shape_text(order.shape)}",
                remedy="Give each index, or all along an axis, a row.",
            )
        return tuple(tables)

    def nest(self, k: Any, outputs: Any, *operands: Buffer, **attrs: Any) -> Body:
        """Let each step own a few sorted places, and the runs that start there."""
        order, rows, ends = operands[:3]
        count = product(order.shape)
        element = Element(k, attrs["element"], operands[4 + len(outputs) :])
        gradients = _Gradients(k, order, operands[3], product(outputs[0].shape[1:]))
        block = k.axis_names()
        start = symbol(block) * ROWS

        def run(place: Expr) -> Body:
            before = E.load(rows, E.apply("max", place - 1, 0))
            row_named, row = _let(k, E.load(rows, place))
            end_named, end = _let(k, E.load(ends, place))
            body = _new_row(k, element, gradients.of_run(place, end), row, outputs)
            if attrs["nonzero"]:
                body = gradients.if_nonzero(place, end, body)
            return row_named, If(place.eq(0) | before.ne(row), (end_named, *body))

        stop = E.index(dim_min(start + ROWS, count))
        places = _loop(k, stop, run, start=E.index(start))
        blocks = E.index(ceil_div(count, ROWS))
        return (For(block, E.index(0), blocks, (*element.ahead, places), bind=Bind.PARALLEL),)

    def reference(
        self, *arrays: np.ndarray, element: Graph, nonzero: bool
    ) -> tuple[np.ndarray, ...]:
        """Update row after row with NumPy."""
        order, rows, ends, updates, *others = arrays
        tables = [table.copy() for table in others[: len(element.outputs)]]
        scalars = others[len(tables) :]
        shape = (*order.shape, *tables[0].shape[1:])
        whole = np.broadcast_to(updates, shape).reshape((-1, *tables[0].shape[1:]))
        flat_order, flat_rows, flat_ends = (a.reshape(-1) for a in (order, rows, ends))
        for place in np.flatnonzero(np.diff(flat_rows, prepend=-1)):
            row = flat_rows[place]
            total = np.zeros_like(whole[0])
            for number in flat_order[place : flat_ends[place]]:
                total = total + whole[number]
            if nonzero and not total.any():
                continue
            found = _evaluated(element, [total, *(t[row] for t in tables), *scalars])
            for table, new in zip(tables, found, strict=True):
                table[row] = new
        return tuple(tables)


def _evaluated(element: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Compute new elements from arrays of old ones."""
    known: dict[Value, Any] = dict(zip(element.inputs, arrays, strict=True))
    for node in element.nodes:
        known[node.outputs[0]] = node.op.reference(*map(known.get, node.inputs), **node.attrs)
    return [known[value] for value in element.outputs]


class Element:
    """The expressions of new elements; what 0-d operands alone decide is computed ahead."""

    def __init__(self, k: Any, graph: Graph, scalars: Sequence[Buffer]) -> None:
        self.k, self.graph = k, graph
        self.ahead: list[Stmt] = []
        self.known: dict[Value, Expr] = {}
        first = len(graph.inputs) - len(scalars)
        for value, buffer in zip(graph.inputs[first:], scalars, strict=True):
            self.known[value] = E.load(buffer, E.index(0))
        for node in graph.nodes:
            if all(v in self.known for v in node.inputs):
                named, self.known[node.outputs[0]] = _let(k, self._computed(node, self.known))
                self.ahead.append(named)

    def _computed(self, node: Any, known: dict[Value, Expr]) -> Expr:
        own = replace(self.k, types=node.types)
        found: Expr = node.op.lower(own, *(known[v] for v in node.inputs), **node.attrs)
        return found

    def __call__(self, *old: Expr) -> list[Expr]:
        """Return the new elements from the gradient's and the tables' old ones."""
        known = dict(self.known)
        known.update(zip(self.graph.inputs, old))
        for node in self.graph.nodes:
            if node.outputs[0] not in known:
                known[node.outputs[0]] = self._computed(node, known)
        return [known[value] for value in self.graph.outputs]


Sum = Callable[[Expr, "Expr | None"], tuple[Body, Expr]]
"""``(column, mask)`` -> the statements that sum a row's gradients there, and the sum."""


class _Gradients:
    """Sums of the gradients of one row, a vector at a time."""

    def __init__(self, k: Any, order: Buffer, updates: Buffer, width: Dim) -> None:
        self.k, self.order, self.updates, self.width = k, order, updates, width

    def _place(self, n: Expr) -> tuple[Stmt, Expr]:
        place = E.load(self.order, n)
        return _let(self.k, place_of(place, self.order.shape, self.updates.shape))

    def of_run(self, start: Expr, end: Expr) -> tuple[Body, Sum]:
        """Return what sums a run of sorted places, behind statements that go first."""
        named, first = self._place(start)

        def read(number: Expr, q: Expr, mask: Expr | None) -> Expr:
            place = number * E.index(self.width) + q
            return E.load(self.updates, place, (LANES,), (1,), mask)

        def total(q: Expr, mask: Expr | None) -> tuple[Body, Expr]:
            # What scatter_add begins with, so that a sum of -0.0 alone is 0.0 here too.
            zeros = E.splat(E.const(0, self.updates.dtype), (LANES,))
            begin = zeros + read(first, q, mask)
            register = self.k.axis_names()
            found = E.use(register, begin)

            def added(n: Expr) -> Body:
                named, place = self._place(n)
                return named, Assign(register, found + read(place, q, mask))

            return (Declare(register, begin), _loop(self.k, end, added, start=start + 1)), found

        return (named,), total

    def if_nonzero(self, start: Expr, end: Expr, body: Body) -> Body:
        """Return ``body`` for a run whose sums are not all zero."""
        ahead, total = self.of_run(start, end)
        flag = self.k.axis_names()
        found = E.use(flag, E.const(0, int32))

        def tested(q: Expr, mask: Expr | None) -> Body:
            summed, value = total(q, mask)
            here = E.fold("max", E.cast(value.ne(0), int32))
            return *summed, Assign(flag, E.apply("max", found, here))

        none = Declare(flag, E.const(0, int32))
        return *ahead, none, *_vectors(self.k, self.width, tested), If(found > 0, body)


def _new_row(
    k: Any, element: Element, gradients: tuple[Body, Sum], row: Expr, tables: Sequence[Buffer]
) -> Body:
    """Return the loops over a row: the sum of its gradients, then its new elements."""
    width = product(tables[0].shape[1:])
    ahead, total = gradients

    def vector(q: Expr, mask: Expr | None) -> Body:
        summed, gradient = total(q, mask)
        place = row * E.index(width) + q
        lets, old = zip(*(_let(k, E.load(t, place, (LANES,), (1,), mask)) for t in tables))
        names, new = zip(*(_let(k, value) for value in element(gradient, *old)))
        pairs = zip(tables, new, strict=True)
        stores = (Store(table, place, value, (1,), mask) for table, value in pairs)
        return *summed, *lets, *names, *stores

    return *ahead, *_vectors(k, width, vector)


def _vectors(k: Any, width: Dim, vector: Callable[[Expr, Expr | None], Body]) -> Body:
    """Return the loops over a row's whole vectors, and over what is left of it."""
    column = k.axis_names()
    q, whole = symbol(column), width // LANES * LANES
    mask = E.iota(LANES) < E.index(width - q)
    bounds = ((E.index(0), E.index(whole), None), (E.index(whole), E.index(width), mask))
    return tuple(
        For(column, start, stop, vector(E.index(q), own), step=LANES) for start, stop, own in bounds
    )


def place_of(place: Expr, shape: Shape, own: Shape) -> Expr:
    """Return the place among rows that repeat along axes of a place among the indices."""
    if own[: len(shape)] == shape:
        return place
    found: Expr = E.index(0)
    for axis, (d, whole) in enumerate(zip(own, shape)):
        if d != 1:
            behind = product(shape[axis + 1 :])
            ahead = place if behind == 1 else place // E.index(behind)
            found = found * E.index(d) + (ahead % E.index(whole) if axis else ahead)
    return found


sort_rows = register(SortRows())
update_rows = register(UpdateRows())

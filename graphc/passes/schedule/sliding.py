"""Windows that slide over planes: depthwise convolutions, each channel with weights of its own.

Such a sum has no operand to share between rows and columns of a product, so nothing is packed: a
vector of neighbouring outputs reads its taps where they lie. Which of its lanes fall on padding
depends on the column only and is settled once for a whole plane, ahead of the loop down the rows;
a few rows at once share what they read. Only rows that meet padding above or below test for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product as places

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_min, linear, product, substitute, symbol, symbols
from graphc.ir.expr import Apply, Axis, Expr, Index, Load, Reduce
from graphc.ir.loop import For, If, Kernel, Let, Store
from graphc.ir.target import Target
from graphc.passes.schedule.loops import Body, flat_loop, operations, settled, values_first
from graphc.passes.schedule.nest import (
    Nest,
    free_names,
    moved,
    over_sums,
    reductions,
    substituted,
)
from graphc.passes.schedule.packing import conjuncts, run_lanes
from graphc.passes.schedule.vectorize import vector_store, vectorize

TAPS = 32
"""Windows of up to this many elements are written out."""
ROWS = 4
"""Rows of the output that share reads."""


@dataclass(frozen=True, slots=True)
class Window:
    """A kernel as sums over windows of a plane.

    Attributes
    ----------
    reduce : Reduce
        The sum of ``data * weight`` over static taps.
    data : Load
        What the window lies on.
    weight : Expr
        The same for a whole plane.
    outer : tuple of Axis
        Axes that number the planes.
    rows : Axis or None
        The plane's rows; None where a plane is one row.
    columns : Axis
        The stores' innermost axis.
    """

    reduce: Reduce
    data: Load
    weight: Expr
    outer: tuple[Axis, ...]
    rows: Axis | None
    columns: Axis

    @property
    def plane(self) -> tuple[Axis, ...]:
        """Axes of the plane."""
        return (self.columns,) if self.rows is None else (self.rows, self.columns)

    def taps(self) -> Iterator[dict[str, Dim]]:
        """Yield the values of the tap axes, in row-major order."""
        axes = self.reduce.axes
        for place in places(*(range(a.extent) for a in axes if isinstance(a.extent, int))):
            yield {axis.name: at for axis, at in zip(axes, place, strict=True)}


def match(items: Sequence[Nest]) -> Window | None:
    """Read a plain kernel as sums over windows of a plane; None where it is more than that."""
    found, axes = reductions(items), items[0].axes
    if len(found) != 1 or not axes or any(n.axes != axes or n.store.mask for n in items):
        return None
    if not all(isinstance(item.store.offset, Index) for item in items):
        return None
    (reduce,) = found
    count = product(a.extent for a in reduce.axes)
    body = reduce.body
    if not (isinstance(count, int) and 1 < count <= TAPS and reduce.combine == "add"):
        return None
    if not (isinstance(body, Apply) and body.op == "mul" and body.dtype.floating):
        return None
    for data, weight in (body.args, body.args[::-1]):
        if isinstance(data, Load) and axes[-1].name not in free_names(weight):
            return _classify(reduce, data, weight, axes)
    return None


def _classify(
    reduce: Reduce, data: Load, weight: Expr, axes: Sequence[Axis]
) -> Window | None:
    *outer, columns = axes
    if not isinstance(data.offset, Index) or not _moves(data.offset.dim, columns):
        return None
    rows = outer[-1] if outer else None
    if rows and (rows.name in free_names(weight) or not _moves(data.offset.dim, rows)):
        rows = None
    return Window(reduce, data, weight, tuple(outer[:-1] if rows else outer), rows, columns)


def _moves(offset: Dim, axis: Axis) -> bool:
    """Return whether neighbours on an axis read at a constant distance of each other."""
    found = linear(offset, axis.name)
    return found is not None and axis.name not in symbols(found[0]) and found[0] != 0


def schedule(kernel: Kernel, items: Sequence[Nest], window: Window, target: Target) -> Kernel:
    """Return the kernel with planes on the parallel axis and vectors of columns inside.

    Parameters
    ----------
    kernel : Kernel
        The plain kernel.
    items : sequence of Nest
        Its stores.
    window : Window
        What `match` found in ``items``.
    target : Target
    """
    lanes = run_lanes(window.columns.extent, target.lanes(window.reduce.dtype))
    emit = _Emitter(window, items, lanes)
    body = (*emit.ahead(), emit.over_columns())
    height = window.rows.extent if window.rows else 1
    cost = len(emit.weights) + operations(item.store.value for item in items)
    work = 16 + height * ceil_div(window.columns.extent, lanes) * cost // 4
    if not window.outer:
        return replace(kernel, body=body, extent=1, work=work)
    extent = product(a.extent for a in window.outer)
    return replace(kernel, body=(flat_loop(window.outer, body),), extent=extent, work=work)


class _Emitter:
    """Writes the loops over one plane."""

    def __init__(self, window: Window, items: Sequence[Nest], lanes: int) -> None:
        self.window, self.lanes = window, lanes
        self.fixed: dict[Expr, Let] = {}
        self.weights = [
            self._fix(substituted(window.weight, tap, {}), "weight") for tap in window.taps()
        ]
        self.reads = [self._read(tap) for tap in window.taps()]
        self.masks: dict[Expr, Let] = {}
        rest = E.iota(lanes) < E.index(window.columns.extent - symbol(window.columns.name))
        self.rest = E.use("rest", rest)
        self.settled: list[Let] = [Let("rest", rest)]
        self.masked = [self._settle(read) for read in self.reads]
        self.sum = E.use("sum", window.reduce)
        stores = [
            replace(store, offset=self._from_plane(store.offset, store.offset))
            for store in over_sums(items, window.reduce, self.sum)
        ]
        moving = {self.sum.name, *(axis.name for axis in window.plane)}
        self.shared, self.stores = settled(stores, moving, "shared")

    def ahead(self) -> Body:
        """Return statements for what is the same for a whole plane."""
        return (*self.fixed.values(), *self.shared)

    def over_columns(self) -> For:
        """Return the loop over vectors of columns."""
        columns, rows = self.window.columns, self.window.rows
        if rows is None:
            body = self._rows(1, {}, True)
        else:
            row: dict[str, Dim] = {rows.name: symbol("row")}
            end = dim_min(symbol(rows.name) + ROWS, rows.extent)
            single = For("row", E.index(symbol(rows.name)), E.index(end), self._rows(1, row, True))
            several = If(self._clear(rows), self._rows(ROWS, {}, False), (single,))
            body = (For(rows.name, E.index(0), E.index(rows.extent), (several,), step=ROWS),)
        stop = E.index(columns.extent)
        return For(columns.name, E.index(0), stop, (*self.settled, *body), step=self.lanes)

    # -- what is settled ahead of loops ------------------------------------------------------

    def _fix(self, value: Expr, name: str) -> E.Use:
        """Name a value that a whole plane shares."""
        let = self.fixed.setdefault(value, Let(f"{name}{len(self.fixed)}", value))
        return E.use(let.name, value)

    def _read(self, tap: Mapping[str, Dim]) -> Load:
        read = substituted(self.window.data, dict(tap), {})
        assert isinstance(read, Load)
        return replace(read, offset=self._from_plane(read.offset, self.window.data.offset))

    def _from_plane(self, offset: Expr, like: Expr) -> Expr:
        """Return an offset as a distance from where the plane begins, which has a name.

        ``like`` is an offset in the same plane, at any place and tap.
        """
        assert isinstance(offset, Index) and isinstance(like, Index)
        moving = (*self.window.reduce.axes, *self.window.plane)
        start = substitute(like.dim, {axis.name: 0 for axis in moving})
        plane = self._fix(E.index(start), "plane")
        return E.index(offset.dim - start + symbol(plane.name))

    def _settle(self, read: Load) -> Expr:
        """Return the mask of the lanes that a read has in its columns."""
        name = self.window.columns.name
        mask: Expr = self.rest
        for part in conjuncts(read.mask):
            if name in free_names(part):
                mask = mask & vectorize(part, name, self.lanes, None, {})
        if mask is self.rest:
            return mask
        if mask not in self.masks:
            self.masks[mask] = Let(f"inside{len(self.masks)}", mask)
            self.settled.append(self.masks[mask])
        return E.use(self.masks[mask].name, mask)

    def _clear(self, rows: Axis) -> Expr:
        """Return whether no tap of `ROWS` rows from this one on meets padding above or below.

        Places are linear in row and tap, so those of the first and last row and tap tell for all.
        """
        condition = E.index(symbol(rows.name) + ROWS) <= E.index(rows.extent)
        corners = [{0, axis.extent - 1} for axis in self.window.reduce.axes]
        names = [axis.name for axis in self.window.reduce.axes]
        for part in conjuncts(self.window.data.mask):
            if self._column_or_row(part) != "row":
                continue
            tests = {
                substituted(part, {rows.name: symbol(rows.name) + row, **dict(zip(names, at))}, {})
                for row in (0, ROWS - 1)
                for at in places(*corners)
            }
            for test in sorted(tests, key=repr):
                condition = condition & test
        return condition

    def _column_or_row(self, part: Expr) -> str:
        """Return which axis of the plane a condition asks about, if any."""
        names = free_names(part)
        if self.window.columns.name in names:
            return "column"
        return "row" if self.window.rows and self.window.rows.name in names else ""

    # -- sums and stores ---------------------------------------------------------------------

    def _rows(self, count: int, start: dict[str, Dim], guarded: bool) -> Body:
        """Return the sums and stores of ``count`` rows; ``guarded`` where they may meet padding."""
        lets: list[Let] = []
        stores: list[Store] = []
        for row in range(count):
            steps = dict(start)
            if self.window.rows and count > 1:
                steps[self.window.rows.name] = symbol(self.window.rows.name) + row
            name = f"sum{row}" if count > 1 else "one_sum"
            lets.append(Let(name, self._total(steps, guarded)))
            known: dict[Expr, Expr] = {self.sum: E.use(name, lets[-1].value)}
            stores.extend(self._store(s, steps, known) for s in self.stores)
        return (*lets, *values_first(stores))

    def _total(self, steps: dict[str, Dim], guarded: bool) -> Expr:
        total: Expr | None = None
        for read, mask, weight in zip(self.reads, self.masked, self.weights, strict=True):
            for part in conjuncts(read.mask):
                which = self._column_or_row(part)
                if not which or (guarded and which == "row"):
                    mask = mask & E.splat(substituted(part, steps, {}), (self.lanes,))
            data = self._vector(read, mask, steps)
            total = data * weight if total is None else E.apply("fma", data, weight, total)
        assert total is not None
        return total

    def _vector(self, read: Load, mask: Expr, steps: dict[str, Dim]) -> Expr:
        assert isinstance(read.offset, Index)
        found = linear(read.offset.dim, self.window.columns.name)
        assert found is not None
        place = substituted(read.offset, steps, {})
        return E.load(read.buffer, place, (self.lanes,), (found[0],), mask, read.fill)

    def _store(self, store: Store, steps: dict[str, Dim], known: dict[Expr, Expr]) -> Store:
        one = moved(store, steps, {})
        return vector_store(one, self.window.columns.name, self.lanes, self.rest, known)

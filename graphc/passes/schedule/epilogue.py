"""What the stores of a contraction apply to the sums of a block: bias, activation, update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, linear, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Index, Load
from graphc.ir.loop import For, Prefetch, Store
from graphc.passes.schedule.contraction_match import Match, merged
from graphc.passes.schedule.loops import LINE_BYTES, Body, operations, values_first, vector_loop
from graphc.passes.schedule.nest import Nest
from graphc.passes.schedule.packing import Names, Stretch, over, over_runs, touched
from graphc.passes.schedule.vectorize import vector_store


@dataclass(frozen=True, slots=True)
class Sums:
    """Scratch with sums, and the start and count of their rows and columns in the output.

    The first of them lies at element ``origin``.
    """

    buffer: Buffer
    rows: tuple[Dim, Dim]
    columns: tuple[Dim, Dim]
    origin: Dim = 0


def epilogue(matched: Match, items: Sequence[Nest], sums: Sums, lanes: int, names: Names) -> Body:
    """Return loops that compute the stores from sums."""
    holder = E.use("sum", matched.reduce)
    rows, columns, stores = _merged_stores(matched, items, holder)
    name, cost = columns[-1].name, operations(s.value for s in stores)
    pitch = sums.buffer.shape[1]

    def row(position: Dim) -> Body:
        def run(base: Dim, start: Dim, stop: Dim) -> Body:
            across = base - sums.columns[0] + symbol(name)
            place = sums.origin + (position - sums.rows[0]) * pitch + across

            def step(lanes: int, mask: Expr | None) -> Body:
                value = E.load(sums.buffer, E.index(place), (lanes,), (1,))
                known: dict[Expr, Expr] = {holder: value}
                return values_first([vector_store(s, name, lanes, mask, known) for s in stores])

            return vector_loop(name, start, stop, lanes, step, cost=cost)

        return over_runs(runs, names, run)

    before, down = touched(Stretch(rows, *sums.rows), names)
    more, runs = touched(Stretch(columns, *sums.columns), names)
    return (*before, *more, *over(down, names, row))


def lines_ahead(
    matched: Match, items: Sequence[Nest], rows: tuple[Dim, Dim], columns: tuple[Dim, Dim]
) -> Body:
    """Return loops that ask for what the stores touch at their own place: results, a residual.

    Stores that walk their rows or columns as several axes get none.
    """
    down, across, stores = _merged_stores(matched, items, E.use("sum", matched.reduce))
    if len(down) > 1 or len(across) > 1:
        return ()
    row, column = down[0].name, across[0].name
    loads = [e for s in stores for e in E.walk(s.value) if isinstance(e, Load) and e.mask is None]
    places = [(e.buffer, e.offset) for e in loads] + [(s.buffer, s.offset) for s in stores]
    found = {buffer: offset for buffer, offset in places if _is_own(offset, row, column)}
    asks = tuple(
        For(
            column, E.index(columns[0]), E.index(columns[0] + columns[1]),
            (Prefetch(buffer, offset, level=2),), step=LINE_BYTES // buffer.dtype.item_bytes,
        )
        for buffer, offset in found.items()
    )  # fmt: skip
    return (For(row, E.index(rows[0]), E.index(rows[0] + rows[1]), asks),) if asks else ()


def _is_own(offset: Expr, row: str, column: str) -> bool:
    """Return whether a place differs from row to row, and neighbours lie along columns."""
    if not isinstance(offset, Index):
        return False
    along, across = linear(offset.dim, row), linear(offset.dim, column)
    return along is not None and along[0] != 0 and across is not None and across[0] == 1


def is_plain(matched: Match, items: Sequence[Nest]) -> bool:
    """Return whether the stores walk all rows as one axis, and all columns as one."""
    rows, columns, _ = _merged_stores(matched, items, E.use("sum", matched.reduce))
    return len(rows) == len(columns) == 1


def _merged_stores(
    matched: Match, items: Sequence[Nest], holder: Expr
) -> tuple[tuple[Axis, ...], tuple[Axis, ...], list[Store]]:
    """Return the stores over the sums, with axes that they walk as one merged."""
    memo: dict[Expr, Expr] = {matched.reduce: holder}
    values = [E.rebuild(item.store.value, lambda e: None, memo) for item in items]
    exprs = values + [item.store.offset for item in items]
    rows, exprs = merged(matched.rows, exprs)
    columns, exprs = merged(matched.columns, exprs)
    stores = [
        replace(item.store, value=value, offset=offset)
        for item, value, offset in zip(items, exprs, exprs[len(items) :])
    ]
    return rows, columns, stores


def turn(block: Buffer, strip: Buffer, rows: Dim, column: Dim, lanes: int) -> Body:
    """Copy ``lanes`` columns of a block, from ``column`` on, into the rows of a strip."""
    row, (pitch, across) = symbol("square"), (block.shape[1], strip.shape[1])
    square = E.load(block, E.index(row * pitch + column), (lanes, lanes), (1, pitch))
    copy = Store(strip, E.index(row), square, (across, 1))
    return (For("square", E.index(0), E.index(rows), (copy,), step=lanes),)

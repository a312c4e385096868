"""What the stores of a contraction apply to the sums of a block: bias, activation, update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, linear, symbol, symbols
from graphc.ir.expr import Axis, Buffer, Expr, Index, Load
from graphc.ir.loop import For, Prefetch, Store
from graphc.passes.schedule.contraction_match import Match, merged
from graphc.passes.schedule.loops import LINE_BYTES, Body, operations, values_first, vector_loop
from graphc.passes.schedule.nest import Nest, over_sums, stride, substituted
from graphc.passes.schedule.packing import SQUARE, Names, Stretch, over, over_runs, touched
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


Finished = Callable[[Dim, Dim, Expr], Body]
"""``finished(row, column, sums)`` stores what a register tile of sums gives, from there on."""


def from_registers(matched: Match, items: Sequence[Nest]) -> Finished | None:
    """Return what applies the stores to whole register tiles, rows by vectors by lanes, or None.

    That takes operands that are read by rows and columns as tiles are: a bias, a residual.
    """
    holder = E.use("sum", matched.reduce)
    down, across, stores = _merged_stores(matched, items, holder)
    if len(down) > 1 or len(across) > 1:
        return None
    row, column = down[0].name, across[0].name
    if not all(_by_tiles(store, {row, column}) for store in stores):
        return None

    def finished(first: Dim, left: Dim, sums: Expr) -> Body:
        place, memo = {row: first, column: left}, dict[Expr, Expr]()
        found = []
        for store in stores:
            steps = {id(e): _steps(e, row, column) for e in _accesses(store)}

            def visit(node: Expr, steps: dict[int, tuple[Dim, Dim]] = steps) -> Expr | None:
                return _tile_load(node, steps[id(node)], sums.tile) if id(node) in steps else None

            value = E.rebuild(store.value, visit, {holder: sums})
            by_row, by_column = steps[id(store)]
            strides = (by_row, by_column * sums.tile[2], by_column)
            value, offset = (substituted(e, place, memo) for e in (value, store.offset))
            found.append(Store(store.buffer, offset, value, strides))
        return values_first(found)

    return finished


def _accesses(store: Store) -> list[Load | Store]:
    return [*(e for e in E.walk(store.value) if isinstance(e, Load)), store]


def _by_tiles(store: Store, names: set[str]) -> bool:
    """Return whether loop variables are in offsets only, each a constant step there."""
    accesses = _accesses(store)
    if any(e.mask is not None or not isinstance(e.offset, Index) for e in accesses):
        return False
    offsets = {id(e.offset) for e in accesses}
    for expr in E.walk(store.value):
        if isinstance(expr, Index) and id(expr) not in offsets and names & symbols(expr.dim):
            return False
    found = [stride(e, name) for e in accesses for name in names]
    return all(step is not None and not names & symbols(step) for step in found)


def _steps(access: Load | Store, row: str, column: str) -> tuple[Dim, Dim]:
    steps = stride(access, row), stride(access, column)
    assert steps[0] is not None and steps[1] is not None  # `_by_tiles` looked
    return steps[0], steps[1]


def _tile_load(load: Expr, steps: tuple[Dim, Dim], tile: tuple[int, ...]) -> Expr:
    """Return a load of what a tile of the output reads."""
    assert isinstance(load, Load)
    (by_row, by_column), (rows, vectors, lanes) = steps, tile
    if by_row == 0 and by_column == 0:
        return load
    across = (1, 1) if by_column == 0 else (vectors, lanes)
    shape = (1 if by_row == 0 else rows, *across)
    return E.load(load.buffer, load.offset, shape, (by_row, by_column * lanes, by_column))


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
    # What is written comes first: the same memory may be read as another buffer.
    asks = [Prefetch(s.buffer, s.offset, level=2, write=True) for s in stores]
    asks += [Prefetch(e.buffer, e.offset, level=2) for e in loads]
    found = {ask.buffer: ask for ask in asks if _is_own(ask.offset, row, column)}
    loops = tuple(
        For(
            column, E.index(columns[0]), E.index(columns[0] + columns[1]), (ask,),
            step=LINE_BYTES // buffer.dtype.item_bytes,
        )
        for buffer, ask in found.items()
    )  # fmt: skip
    return (For(row, E.index(rows[0]), E.index(rows[0] + rows[1]), loops),) if loops else ()


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
    own = over_sums(items, matched.reduce, holder)
    exprs = [store.value for store in own] + [store.offset for store in own]
    rows, exprs = merged(matched.rows, exprs)
    columns, exprs = merged(matched.columns, exprs)
    stores = [
        replace(store, value=value, offset=offset)
        for store, value, offset in zip(own, exprs, exprs[len(own) :])
    ]
    return rows, columns, stores


def turn(block: Buffer, strip: Buffer, rows: Dim, column: Dim, lanes: int) -> Body:
    """Copy ``lanes`` columns of a block, from ``column`` on, into the rows of a strip."""
    row, part, side = symbol("square"), symbol("part"), min(lanes, SQUARE)
    pitch, across = block.shape[1], strip.shape[1]
    square = E.load(block, E.index(row * pitch + column + part), (side, side), (1, pitch))
    copy = Store(strip, E.index(part * across + row), square, (across, 1))
    down = For("square", E.index(0), E.index(rows), (copy,), step=side)
    return (For("part", E.index(0), E.index(lanes), (down,), step=side),)

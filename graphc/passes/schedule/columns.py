"""Reductions along columns: whole rows are read one after another, sums wait in scratch.

One vector of columns at a time would jump a whole row from read to read. A block of columns reads
stretches of neighbouring memory instead; several rows at once, so that a sum is loaded and stored
once for all of them. Each column is still combined row by row, first to last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Reduce
from graphc.ir.loop import For, Stmt, Store
from graphc.ir.operations import IDENTITY
from graphc.passes.schedule.loops import Body, over_axes, vector_loop

COLUMNS = 2048
"""Most columns of a block: prefetchers start anew with each row, so runs of memory are long."""
LINE = 64
"""Blocks have a multiple of so many columns, for vectors and lines of any type."""
ROWS = 8
"""Rows that are combined between a sum's load and its store."""

Step = Callable[[Sequence[Expr], tuple[str, int], Expr | None], tuple[Body, list[Expr]]]


def fit(groups: Sequence[Sequence[Reduce]]) -> bool:
    """Return whether reductions run over rows, not over windows of a few elements."""
    extents = [product(a.extent for a in group[0].axes) for group in groups]
    return bool(extents) and not any(isinstance(e, int) for e in extents)


def width(vector: Axis, outer: Sequence[Axis], cores: int) -> Dim:
    """Return the columns of a block, whole lines of memory.

    Parameters
    ----------
    vector : Axis
        The columns.
    outer : sequence of Axis
        What is kept beside them.
    cores : int
        How many blocks are to run at once; which ones they are changes no result.
    """
    others = dim_max(product(a.extent for a in outer), 1)
    whole = ceil_div(dim_max(vector.extent, 1) * others, COLUMNS * cores) * cores
    blocks = ceil_div(whole, others)
    return dim_max(ceil_div(vector.extent, blocks * LINE), 1) * LINE


def scratch(reduce: Reduce, position: int) -> Buffer:
    """Return the memory of one reduction's results for a block of columns."""
    return Buffer(f"sums{position}", reduce.dtype, (COLUMNS,), "stack")


def combined_rows(
    group: Sequence[Reduce],
    sums: Sequence[Buffer],
    columns: tuple[str, Dim, Dim],
    lanes: int,
    step: Step,
    heavy: bool,
) -> Body:
    """Return the loops that leave the results of a group of reductions in ``sums``.

    Parameters
    ----------
    group : sequence of Reduce
        Over equal extents.
    sums : sequence of Buffer
        As of `scratch`, one for each reduction.
    columns : (str, Dim, Dim)
        Loop variable, first column of the block, and the one behind its last.
    lanes : int
    step : callable
        ``step(totals, row, mask)`` returns what is stored of a row, and the totals that include
        it; ``row`` is the innermost reduction axis of the group, and how many rows to add to it.
    heavy : bool
        Whether a row computes so much that sums may be loaded and stored for each.
    """
    name, start, stop = columns
    *outer, last = group[0].axes
    place = E.index(symbol(name) - start)

    def begin(lanes: int, _: Expr | None) -> Body:
        return tuple(
            Store(buffer, place, E.splat(_identity(reduce), (lanes,)), (1,))
            for reduce, buffer in zip(group, sums, strict=True)
        )

    def pass_over(rows: int) -> Body:
        def body(lanes: int, mask: Expr | None) -> Body:
            totals = [E.load(buffer, place, (lanes,), (1,)) for buffer in sums]
            stores: list[Stmt] = []
            for row in range(rows):
                found, totals = step(totals, (last.name, row), mask)
                stores.extend(found)
            stores += [
                Store(buffer, place, total, (1,))
                for buffer, total in zip(sums, totals, strict=True)
            ]
            return tuple(stores)

        return vector_loop(name, start, stop, lanes, body)

    begun = vector_loop(name, start, stop, lanes, begin)
    if heavy:
        single = For(last.name, E.index(0), E.index(last.extent), pass_over(1))
        return (*begun, *over_axes(outer, (single,)))
    whole = last.extent // ROWS * ROWS
    loops = (
        For(last.name, E.index(0), E.index(whole), pass_over(ROWS), ROWS),
        For(last.name, E.index(whole), E.index(last.extent), pass_over(1)),
    )
    return (*begun, *over_axes(outer, loops))


def _identity(reduce: Reduce) -> Expr:
    return E.const(IDENTITY[reduce.combine](reduce.dtype), reduce.dtype)

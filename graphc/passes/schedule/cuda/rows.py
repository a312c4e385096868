"""Rows that indices name, on CUDA: sorting them, and adding to them.

Sums are taken in the order of the indices, as on the CPU, without atomic operations: a block owns
some rows and columns of the result, and looks at every index.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_min, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr
from graphc.ir.loop import Assign, Declare, For, If, Let, Stmt, Store
from graphc.ir.ops.gather import Places, scatter_add, scatter_nd
from graphc.ir.ops.indexing import whole_index
from graphc.ir.target import Target
from graphc.ir.types import int64
from graphc.passes.lower import OwnNest
from graphc.passes.schedule.cuda.grid import BLOCK, THREAD, THREADS, below, over_blocks, placed
from graphc.passes.schedule.loops import Body

ROWS = 32
"""Rows of the result that a block owns."""


def sorting(target: Target) -> OwnNest:
    """Return the loops of ``sort_rows``."""
    return OwnNest(_sorted)


def adding(target: Target) -> OwnNest:
    """Return the loops of ``scatter_add``."""
    return OwnNest(partial(_added, scatter_add.places))


def adding_nd(target: Target) -> OwnNest:
    """Return the loops of ``scatter_nd``."""
    return OwnNest(partial(_added, scatter_nd.places))


def _sorted(k: Any, outputs: Sequence[Buffer], *operands: Buffer, **attrs: Any) -> Body:
    """Return loops in which each thread counts the indices in front of its own.

    The square of their number in comparisons, shared by all threads: a batch of an embedding has
    thousands, and no step waits for another.
    """
    (order, rows, ends), (indices,) = outputs, operands
    count, size = product(indices.shape), k.sizes(attrs["rows"])
    place, other = symbol(BLOCK) * THREADS + symbol(THREAD), symbol("other")

    def row(number: Dim) -> Expr:
        return whole_index(k, E.load(indices, E.index(number)), size, attrs["mode"])

    own, theirs = E.use("own", row(place)), E.use("theirs", row(other))
    before, upto = (E.use(name, E.index(0)) for name in ("before", "upto"))
    equal = theirs.eq(own)
    earlier = (theirs < own) | (equal & (E.index(other) < E.index(place)))
    counting: Body = (
        Let("theirs", row(other)),
        Assign("before", before + E.cast(earlier, int64)),
        Assign("upto", upto + E.cast((theirs < own) | equal, int64)),
    )
    body = (
        Let("own", row(place)),
        Declare("before", E.index(0)),
        Declare("upto", E.index(0)),
        For("other", E.index(0), E.index(count), counting),
        Store(order, before, E.index(place)),
        Store(rows, before, own),
        Store(ends, before, upto),
    )
    return over_blocks(ceil_div(count, THREADS), (), below(place, count, body))


def _added(
    places: Places, k: Any, outputs: Sequence[Buffer], *operands: Buffer, **attrs: Any
) -> Body:
    """Return loops in which each thread adds up one column of a block's rows."""
    (out,), (indices, updates) = outputs, operands
    (outer, rows, count, width), row = places(k, out, indices, updates, **attrs)
    sums = Buffer("sums", out.dtype, (ROWS, THREADS), "shared")
    axes = (
        Axis("outer", outer),
        Axis("row_block", ceil_div(rows, ROWS)),
        Axis("column_block", ceil_div(width, THREADS)),
    )
    first, column = symbol("row_block") * ROWS, symbol("column_block") * THREADS + symbol(THREAD)
    thread, own = E.index(symbol(THREAD)), E.use("own", E.index(0))
    number, kept = symbol("number"), symbol("kept")
    update = E.load(updates, E.index((symbol("outer") * count + number) * width + column))
    place = own * THREADS + thread
    add = Store(sums, place, E.load(sums, place) + update)
    adding: Body = (
        Let("own", row(E.index(number)) - E.index(first)),
        If((own >= 0) & (own < ROWS), (add,)),
    )
    held = E.index(kept * THREADS + symbol(THREAD))
    result = E.index((symbol("outer") * rows + first + kept) * width + column)
    leaving: Body = (Store(out, result, E.load(sums, held)),)
    mine: list[Stmt] = [
        For("kept", E.index(0), E.index(ROWS), (Store(sums, held, E.const(0, out.dtype)),)),
        For("number", E.index(0), E.index(count), adding),
        For("kept", E.index(0), E.index(dim_min(rows - first, ROWS)), leaving),
    ]
    body = (*placed(axes, symbol(BLOCK)), *below(column, width, tuple(mine)))
    return over_blocks(product(axis.extent for axis in axes), (sums,), body)

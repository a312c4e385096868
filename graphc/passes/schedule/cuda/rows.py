"""Rows that indices name, on CUDA: sorting them, adding to them, and writing new ones.

Sums are taken in the order of the indices, as on the CPU, without atomic operations: where indices
are not sorted, a block owns some rows and columns of the result, and looks at every index; where
they are, a warp has a place of theirs, and sums the run of equal ones that starts there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr
from graphc.ir.intrinsics import WARP
from graphc.ir.loop import TURN, Assign, Barrier, Declare, For, If, Intrinsic, Let, Stmt, Store
from graphc.ir.ops.gather import Places, scatter_add, scatter_nd
from graphc.ir.ops.indexing import whole_index
from graphc.ir.ops.rows import Element, place_of
from graphc.ir.target import Target
from graphc.ir.types import int32, int64
from graphc.passes.lower import OwnNest
from graphc.passes.schedule.cuda.grid import (
    BLOCK,
    THREAD,
    THREADS,
    below,
    over_blocks,
    over_turns,
    placed,
)
from graphc.passes.schedule.loops import Body

ROWS = 32
"""Rows of the result that a block owns."""
CHUNK = 2 * THREADS
"""Indices that a block sorts."""
SEARCHING = 4
"""Blocks of a multiprocessor that search: each step of a search waits for memory."""
_KEYS = Buffer("keys", int64, (CHUNK,), "shared")
_LAST = E.apply("shl", E.index(1), E.index(62))
"""What is larger than all of them: no `Index`, as those may have 32 bits."""
COLUMNS = 4
"""Columns of a row that a thread of a warp sums at once, each in registers of its own."""
AHEAD = 4
"""Gradients of a row that are read before the first of them is added."""


def sorting(target: Target) -> OwnNest:
    """Return the loops of ``sort_rows``."""
    return OwnNest(_sorted)


def adding(target: Target) -> OwnNest:
    """Return the loops of ``scatter_add``."""
    return OwnNest(partial(_added, scatter_add.places))


def adding_nd(target: Target) -> OwnNest:
    """Return the loops of ``scatter_nd``."""
    return OwnNest(partial(_added, scatter_nd.places))


def updating(target: Target) -> OwnNest:
    """Return the loops of ``update_rows``."""
    return OwnNest(_updated)


def _sorted(k: Any, outputs: Sequence[Buffer], *operands: Buffer, **attrs: Any) -> Body:
    """Return loops of three turns: sorted chunks, everything's place in the whole, the rows.

    What is sorted are numbers made of the row and of the place of an index, so no two are equal.
    The place of one in the whole is the sum of its places in all chunks, which are searched.
    """
    (order, rows, ends), (indices,) = outputs, operands
    count, size = product(indices.shape), k.sizes(attrs["rows"])

    def row(place: Expr) -> Expr:
        return whole_index(k, E.load(indices, place), size, attrs["mode"])

    own = [symbol(BLOCK) * CHUNK + symbol(THREAD) + n * THREADS for n in range(CHUNK // THREADS)]
    turns = (
        _chunk(count, own, row, rows),
        _each(own, count, lambda place: _merged(count, rows, place, order, ends)),
        _each(own, count, lambda place: (
            Store(rows, E.index(place), row(E.load(order, E.index(place)))),
        )),
    )  # fmt: skip
    first, second, third = turns
    later = If(E.index(symbol(TURN)).eq(1), second, third)
    body = If(E.index(symbol(TURN)).eq(0), first, (later,))
    blocks = over_blocks(ceil_div(count, CHUNK), (_KEYS,), (body,), at_once=SEARCHING)
    return over_turns(len(turns), blocks)


def _each(own: Sequence[Dim], count: Dim, do: Callable[[Dim], Body]) -> Body:
    """Return what is done for each of a thread's places that exist."""
    return tuple(stmt for place in own for stmt in below(place, count, do(place)))


def _chunk(
    count: Dim, own: Sequence[Dim], row: Callable[[Expr], Expr], target: Buffer
) -> Body:
    """Return what sorts a block's chunk: each thread counts the smaller ones of its own two."""
    lanes = 2
    keys, smaller, body, adds = [], [], [], []
    for number, place in enumerate(own):
        here = E.index(dim_min(place, count - 1))
        exists = E.index(place) < E.index(count)
        key = E.select(exists, row(here) * E.index(count) + E.index(place), _LAST)
        keys.append(E.use(f"key{number}", key))
        smaller.append(E.use(f"smaller{number}", E.index(0)))
        body += [
            Let(f"key{number}", key),
            Store(_KEYS, E.index(symbol(THREAD) + number * THREADS), keys[-1]),
            Declare(f"smaller{number}", E.index(0)),
        ]
    others = E.load(_KEYS, E.index(symbol("pair") * lanes), (lanes,), (1,))
    for number, (key, total) in enumerate(zip(keys, smaller)):
        less = E.cast(E.use("others", others) < key, int64)
        adds.append(Assign(f"smaller{number}", total + E.fold("add", less)))
    loop = For("pair", E.index(0), E.index(CHUNK // lanes), (Let("others", others), *adds))
    stores = [
        Store(target, E.index(symbol(BLOCK) * CHUNK) + total, key)
        for key, total in zip(keys, smaller)
    ]
    kept = [If(E.index(place) < E.index(count), (s,)) for place, s in zip(own, stores)]
    return (*body, Barrier(), loop, *kept)


def _merged(count: Dim, keys: Buffer, place: Dim, order: Buffer, ends: Buffer) -> Body:
    """Return what finds the place of a key, and the end of its run, by a search in each chunk."""
    key, row = (E.use(name, E.index(0)) for name in ("key", "key_row"))
    wanted = {"before": key, "upto": E.use("key_limit", E.index(0))}
    first = symbol("chunk") * CHUNK
    length = dim_min(count - first, CHUNK)
    body: list[Stmt] = []
    for name, bound in wanted.items():
        found: Expr = E.index(0)
        step, number = CHUNK, 0
        while step:
            inside = found + step <= E.index(length)
            other = E.load(keys, E.index(first + step - 1) + found, mask=inside)
            found = E.select(inside & (other < bound), found + step, found)
            body.append(Let(f"{name}_found{number}", found))
            found = E.use(f"{name}_found{number}", found)
            step, number = step // 2, number + 1
        total = E.use(name, E.index(0))
        body.append(Assign(name, total + found))
    before, upto = (E.use(name, E.index(0)) for name in wanted)
    return (
        Let("key", E.load(keys, E.index(place))),
        Let("key_row", key // E.index(count)),
        Let("key_limit", (row + 1) * E.index(count)),
        *(Declare(name, E.index(0)) for name in wanted),
        For("chunk", E.index(0), E.index(ceil_div(count, CHUNK)), tuple(body)),
        Store(order, before, key - row * E.index(count)),
        Store(ends, before, upto),
    )


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


def _updated(k: Any, outputs: Sequence[Buffer], *operands: Buffer, **attrs: Any) -> Body:
    """Return loops in which a warp writes the row of a sorted place, if a run starts there."""
    order, rows, ends, updates = operands[:4]
    element = Element(k, attrs["element"], operands[4 + len(outputs) :])
    count = product(order.shape)
    place = symbol(BLOCK) * (THREADS // WARP) + symbol(THREAD) // WARP
    run = _Run(order, updates, product(outputs[0].shape[1:]), place)
    row, before, end = (E.use(name, E.index(0)) for name in ("row", "before", "end"))
    written = run.over_columns(lambda total: _written(element, outputs, run, row, total))
    if attrs["nonzero"]:
        written = run.if_nonzero(written)
    starts = E.index(place).eq(0) | before.ne(row)
    body = (
        Let("row", E.load(rows, E.index(place))),
        Let("before", E.load(rows, E.index(dim_max(place - 1, 0)))),
        If(starts, (Let("end", E.load(ends, E.index(place))), *run.named(), *written)),
    )
    inside = below(place, count, (*element.ahead, *body))
    return over_blocks(ceil_div(count, THREADS // WARP), (), inside)


def _written(
    element: Element, tables: Sequence[Buffer], run: _Run, row: Expr, total: Expr
) -> Body:
    """Return the stores of new elements, from the sum of a row's gradients and the old ones."""
    place = row * E.index(run.width) + E.index(run.column)
    loads = [E.load(t, place, (COLUMNS,), (WARP,), run.mask) for t in tables]
    names = [f"old{number}" for number in range(len(tables))]
    old = [E.use(name, value) for name, value in zip(names, loads, strict=True)]
    new = element(total, *old)
    kept = [f"new{number}" for number in range(len(tables))]
    return (
        *map(Let, names, loads),
        *map(Let, kept, new),
        *(
            Store(table, place, E.use(name, value), (WARP,), run.mask)
            for table, name, value in zip(tables, kept, new, strict=True)
        ),
    )


class _Run:
    """The gradients of the row of a sorted place, as a warp sums them: ``end`` is behind them."""

    def __init__(self, order: Buffer, updates: Buffer, width: Dim, place: Dim) -> None:
        self.order, self.updates, self.width, self.place = order, updates, width, place
        self.end = E.use("end", E.index(0))
        self.column = symbol("column") + symbol(THREAD) % WARP
        self.mask = E.iota(COLUMNS) * WARP < E.index(width - self.column)

    def _number(self, place: Expr) -> Expr:
        return place_of(place, self.order.shape, self.updates.shape)

    def named(self) -> Body:
        """Return the statement that names the first gradient."""
        return (Let("first", self._number(E.load(self.order, E.index(self.place)))),)

    def _read(self, number: Expr, exists: Expr | None = None) -> Expr:
        place = number * E.index(self.width) + E.index(self.column)
        mask = self.mask if exists is None else self.mask & exists
        return E.load(self.updates, place, (COLUMNS,), (WARP,), mask)

    def over_columns(self, use: Callable[[Expr], Body]) -> Body:
        """Return the loop over columns that sums gradients and does what is done with the sum."""
        # What scatter_add begins with, so that a sum of -0.0 alone is 0.0 here too.
        zeros = E.splat(E.const(0, self.updates.dtype), (COLUMNS,))
        total = E.use("total", zeros)
        place, body = symbol("next"), []
        values: list[Expr] = []
        for ahead in range(AHEAD):
            here, exists = E.index(place + ahead), E.index(place + ahead) < self.end
            number = self._number(E.load(self.order, here, mask=exists))
            body.append(Let(f"number{ahead}", number))
            value = self._read(E.use(f"number{ahead}", number), exists)
            body.append(Let(f"gradient{ahead}", value))
            values.append(E.use(f"gradient{ahead}", value))
        adds = [Assign(total.name, total + value) for value in values]
        more = For("next", E.index(self.place + 1), self.end, (*body, *adds), step=AHEAD)
        first = Declare(total.name, zeros + self._read(E.use("first", E.index(0))))
        columns = (first, more, *use(total))
        step = COLUMNS * WARP
        return (For("column", E.index(0), E.index(self.width), columns, step=step),)

    def if_nonzero(self, body: Body) -> Body:
        """Return ``body`` for a run whose sums are not all zero."""
        found = E.use("found", E.const(0, int32))

        def tested(total: Expr) -> Body:
            here = E.fold("max", E.cast(total.ne(0), int32))
            return (Assign(found.name, E.apply("max", found, here)),)

        sums = Declare(found.name, E.const(0, int32)), *self.over_columns(tested)
        value: Expr = found
        across: list[Stmt] = []
        distance = WARP // 2
        while distance:
            far, near = f"far{distance}", f"near{distance}"
            across.append(Intrinsic(far, "shuffle_xor", (value, E.index(distance))))
            both = E.apply("max", value, E.use(far, value))
            across.append(Let(near, both))
            value = E.use(near, both)
            distance //= 2
        return (*sums, *across, If(value > 0, body))

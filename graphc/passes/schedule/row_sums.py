"""Sums over rows beside what is computed of each row: partial sums of chunks of rows, then theirs.

A thread takes a chunk of rows and adds what it would have stored of each to a row of partial sums,
which stays in its cache; a second grid adds up the rows of partial sums. How many rows a chunk has
depends on sizes alone, and so do the sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, linear, product, substitute, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Index, Load, Reduce
from graphc.ir.loop import BEGIN, END, For, Grid, Kernel, Series, Stmt, Store, alone
from graphc.ir.statements import expressions, mapped, statements
from graphc.ir.target import Target
from graphc.passes.schedule import cpu
from graphc.passes.schedule.loops import Body, vector_loop
from graphc.passes.schedule.nest import Nest, collapse_reductions, nests
from graphc.passes.schedule.series import CHUNK, CHUNKS, taking, written

MOST = 64
"""Chunks at most: partial sums are to be few beside the rows."""
LEAST = 16
"""Rows of a chunk at least."""


def schedule(kernel: Kernel, target: Target) -> Series:
    """Return what the CPU runs for a plain kernel: one grid, or two where columns are summed.

    A schedule of rows that are not one loop stores what is summed, for the second grid to read.
    """
    items = () if kernel.ordered else nests(kernel)
    between = [n.store.buffer for n in items if n.store.buffer not in kernel.params]
    if not between:
        return alone(cpu.schedule(kernel, target), kernel)
    sums = [n for n in items if any(_reads(n, buffer) for buffer in between)]
    rows = taking(replace(kernel, name="rows", body=written(n for n in items if n not in sums)))
    found = cpu.schedule(rows, target)
    count = product(between[0].shape[:-1])
    parts = {b: Buffer(f"parts_{b.name}", b.dtype, (symbol(CHUNKS), b.shape[-1])) for b in between}
    chunked = _in_chunks(found, count, parts, target)
    if chunked is None:
        last = taking(replace(kernel, name="sums", body=written(sums)))
        return Series((Grid(found, rows), Grid(cpu.schedule(last, target), last)))
    body = written(_of_parts(n, parts) for n in sums)
    last = taking(replace(kernel, name="sums", body=body, sizes=chunked.sizes))
    plain = replace(rows, params=chunked.params)
    grids = Grid(chunked, plain), Grid(cpu.schedule(last, target), last)
    return Series(grids, ((CHUNKS, ceil_div(count, chunk_size(count))),))


def chunk_size(rows: Dim) -> Dim:
    """Return the rows of a chunk."""
    return dim_max(ceil_div(rows, MOST), LEAST)


def _reads(item: Nest, buffer: Buffer) -> bool:
    return any(isinstance(e, Load) and e.buffer == buffer for e in E.walk(item.store.value))


def _of_parts(item: Nest, parts: Mapping[Buffer, Buffer]) -> Nest:
    """Return the sum over the rows of partial sums in place of one over all rows."""
    (item,) = collapse_reductions((item,))
    reduce = item.store.value
    assert isinstance(reduce, Reduce) and isinstance(reduce.body, Load)
    load = reduce.body
    (axis,) = reduce.axes
    body = E.load(parts[load.buffer], load.offset)
    value = E.reduce(reduce.combine, (Axis(axis.name, symbol(CHUNKS)),), body)
    return replace(item, store=replace(item.store, value=value))


def _in_chunks(
    kernel: Kernel, count: Dim, parts: Mapping[Buffer, Buffer], target: Target
) -> Kernel | None:
    """Return a scheduled kernel of ``count`` rows in chunks of them; None if it has other loops."""
    begin, end = E.index(symbol(BEGIN)), E.index(symbol(END))
    loop = kernel.body[-1] if kernel.body else None
    if not isinstance(loop, For) or (loop.start, loop.stop) != (begin, end):
        return None
    if kernel.extent != count or not _only_stores(loop, list(parts)):
        return None

    def change(stmt: Stmt) -> tuple[Stmt, ...]:
        if isinstance(stmt, Store) and stmt.buffer in parts:
            return (_added(stmt, parts[stmt.buffer], loop.name),)
        return (stmt,)

    size, chunk = chunk_size(count), symbol(CHUNK)
    first, last = E.index(chunk * size), E.index(dim_min(count, (chunk + 1) * size))
    rows = replace(loop, start=first, stop=last, body=mapped(loop.body, change))
    cleared = (stmt for buffer in parts.values() for stmt in _cleared(buffer, target))
    return replace(
        kernel,
        params=tuple(parts.get(buffer, buffer) for buffer in kernel.params),
        sizes=(*kernel.sizes, CHUNKS),
        body=(*kernel.body[:-1], For(CHUNK, begin, end, (*cleared, rows))),
        extent=ceil_div(count, size),
        work=kernel.work * size,
    )


def _only_stores(loop: For, between: Sequence[Buffer]) -> bool:
    """Return whether a loop over rows stores each of what is summed, and reads nothing of it."""
    for stmt in statements(loop.body):
        if isinstance(stmt, Store) and stmt.buffer in between and not _is_of_row(stmt, loop.name):
            return False
        read = (e for root in expressions(stmt) for e in E.walk(root) if isinstance(e, Load))
        if any(load.buffer in between for load in read):
            return False
    return True


def _is_of_row(store: Store, row: str) -> bool:
    """Return whether a loop variable numbers the rows of what is stored."""
    found = linear(store.offset.dim, row) if isinstance(store.offset, Index) else None
    return found is not None and found[0] == store.buffer.shape[-1]


def _added(store: Store, parts: Buffer, row: str) -> Store:
    """Return what adds to the partial sums of the chunk at hand in place of a store of a row."""
    assert isinstance(store.offset, Index)
    place = E.index(substitute(store.offset.dim, {row: symbol(CHUNK)}))
    before = E.load(parts, place, store.value.tile, store.strides, store.mask)
    return replace(store, buffer=parts, offset=place, value=before + store.value, streaming=False)


def _cleared(parts: Buffer, target: Target) -> Body:
    """Return the loop that fills the partial sums of the chunk at hand with zeros."""
    lanes = target.lanes(parts.dtype)
    place = E.index(symbol(CHUNK) * parts.shape[1] + symbol("column"))

    def step(lanes: int, mask: Expr | None) -> Body:
        zeros = E.splat(E.const(0, parts.dtype), (lanes,))
        return (Store(parts, place, zeros, (1,), mask),)

    return vector_loop("column", 0, parts.shape[1], lanes, step)

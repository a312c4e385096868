"""Kernels that read along another axis than they write: transposition in squares of registers.

A vector along the output's last axis would gather its lanes from as many rows of the operand. A
square of both axes is read along one of them, exchanged by shuffles and stored along the other.

Results larger than the caches are stored past them, a whole line at once. Squares then follow each
other along what is read, in runs long enough for the prefetchers; which lines are written does not
matter. Other results go by the caches, in blocks of both axes: of a line that a square used in part
the rest is soon used too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, product, symbol, symbols
from graphc.ir.expr import Axis, Expr, Index, Load
from graphc.ir.loop import For, If, Kernel, Store
from graphc.ir.target import Target
from graphc.passes.schedule import streaming
from graphc.passes.schedule.loops import (
    LINE_BYTES,
    Body,
    flat_loop,
    operations,
    values_first,
    vector_loop,
)
from graphc.passes.schedule.nest import Nest, all_expressions, stride

BLOCK = 256
"""Rows and columns of a block, which one iteration of the parallel axis writes."""
NARROW = 4
"""Columns that fill no square are taken by as many as a square has, divided by this."""
NEAR = 64
"""Columns that are read before the next rows where results go by the caches: their lines, used in
part, are still there for the next square.
"""


def find_axis(items: Sequence[Nest], vector: Axis, lanes: int) -> Axis | None:
    """Return the axis along which operands are read while ``vector`` is stored, or None.

    Parameters
    ----------
    items : sequence of Nest
        Without reductions.
    vector : Axis
        The innermost axis of the stores.
    lanes : int
        Side of a square.
    """
    axes = items[0].axes
    if any(n.axes != axes for n in items) or _short(vector, lanes):
        return None
    loads = _loads(items)
    for axis in reversed(axes):
        if axis == vector or _short(axis, lanes):
            continue
        turned = [e for e in loads if stride(e, axis.name) == 1 and stride(e, vector.name) != 0]
        if turned and _all_linear(items, loads, (axis, vector)):
            return axis if all(_fills(n, (axis, vector)) for n in items) else None
    return None


def _loads(items: Sequence[Nest]) -> list[Load]:
    return [e for e in all_expressions(items) if isinstance(e, Load)]


def _fills(item: Nest, axes: tuple[Axis, Axis]) -> bool:
    """Return whether a value differs along both axes, as a whole square does."""
    return any(all(stride(e, a.name) != 0 for a in axes) for e in _loads([item]))


def _short(axis: Axis, lanes: int) -> bool:
    return isinstance(axis.extent, int) and axis.extent < lanes


def _all_linear(items: Sequence[Nest], loads: Sequence[Load], axes: tuple[Axis, Axis]) -> bool:
    """Return whether the loop variables are in offsets only, and each a constant step there."""
    if any(e.mask is not None for e in loads) or any(n.store.mask is not None for n in items):
        return False
    accesses: list[Load | Store] = [*loads, *(n.store for n in items)]
    if any(stride(access, a.name) is None for access in accesses for a in axes):
        return False
    offsets = {id(access.offset) for access in accesses}
    names = {a.name for a in axes}
    free = (e for e in all_expressions(items) if isinstance(e, Index) and id(e) not in offsets)
    return not any(names & symbols(e.dim) for e in free)


def schedule(
    kernel: Kernel,
    items: Sequence[Nest],
    across: Axis,
    vector: Axis,
    target: Target,
    emit: Callable[[int, Expr | None], Body],
) -> Kernel:
    """Turn a kernel into blocks that read along ``across`` and store along ``vector``.

    Parameters
    ----------
    kernel : Kernel
        The plain kernel.
    items : sequence of Nest
    across, vector : Axis
        As of `find_axis`.
    target : Target
    emit : callable
        ``emit(lanes, mask)`` writes a vector of one row: what the squares leave over.
    """
    lanes = side(target)
    start, first = symbol("turned") * BLOCK, symbol("run") * BLOCK
    stop, last = dim_min(vector.extent, start + BLOCK), dim_min(across.extent, first + BLOCK)
    columns = start + (stop - start) // lanes * lanes
    rows = first + (last - first) // lanes * lanes
    within = (Axis(across.name, rows), first), (Axis(vector.name, columns), start)
    narrow = max(lanes // NARROW, 1)
    left = columns + (stop - columns) // narrow * narrow
    rest = E.iota(lanes) < E.index(vector.extent - symbol(vector.name))
    margin = _loop(vector.name, left, stop, emit(lanes, rest), lanes)
    beside = (Axis(across.name, rows), first), (Axis(vector.name, left), columns)
    body = (
        *_squares(kernel, items, within, target),
        *_strips(items, beside, lanes),
        _loop(across.name, first, rows, (margin,)),
        _loop(across.name, rows, last, vector_loop(vector.name, start, stop, lanes, emit)),
    )
    turned = Axis("turned", ceil_div(vector.extent, BLOCK))
    run = Axis("run", dim_max(ceil_div(across.extent, BLOCK), 1))  # indices are divided by it
    axes = [*(a for a in items[0].axes if a not in (across, vector)), turned, run]
    elements = dim_min(across.extent, BLOCK) * dim_min(vector.extent, BLOCK)
    cost = operations(item.store.value for item in items)
    return replace(
        kernel,
        body=(flat_loop(axes, body),),
        extent=product(a.extent for a in axes),
        work=16 + elements * (2 + cost) // 8,
    )


def _strips(
    items: Sequence[Nest], within: tuple[tuple[Axis, Dim], tuple[Axis, Dim]], lanes: int
) -> Body:
    """Return the loops over a few columns at once of those that fill no square."""
    (row, first), (column, start) = within
    narrow = max(lanes // NARROW, 1)
    body = values_first([_square(n.store, row.name, column.name, (lanes, narrow)) for n in items])
    along = _loop(row.name, first, row.extent, body, lanes)
    return (_loop(column.name, start, column.extent, (along,), narrow),)


def side(target: Target) -> int:
    """Return the rows and columns of a square."""
    return target.vector_bytes // 4


def _squares(
    kernel: Kernel,
    items: Sequence[Nest],
    within: tuple[tuple[Axis, Dim], tuple[Axis, Dim]],
    target: Target,
) -> Body:
    """Return the loops over the whole squares of a block: of axes up to their ends."""
    lanes = side(target)
    (row, first), (column, start) = within
    stores = [_square(n.store, row.name, column.name, (lanes, lanes)) for n in items]
    left, right = symbol("left"), dim_min(row.extent, symbol("left") + NEAR)
    body = values_first(stores)
    near: Body = (_loop(row.name, left, right, body, lanes),)
    near = (_loop(column.name, start, column.extent, near, lanes),)
    near = (_loop("left", first, row.extent, near, NEAR),)
    # A streaming store of less than a line would be read back and completed by memory.
    lines = all(lanes * n.store.buffer.dtype.item_bytes >= LINE_BYTES for n in items)
    places = [(item, column.name) for item in items] if lines else []
    streams = streaming.condition(kernel, places, lanes, target)
    if streams is None:
        return near
    body = values_first([replace(store, streaming=True) for store in stores])
    far = _loop(row.name, first, row.extent, body, lanes)
    return (If(streams, (_loop(column.name, start, column.extent, (far,), lanes),), near),)


def _loop(name: str, start: Dim, stop: Dim, body: Body, step: int = 1) -> For:
    return For(name, E.index(start), E.index(stop), body, step)


def _square(store: Store, row: str, column: str, size: tuple[int, int]) -> Store:
    """Return the store of some rows and columns, ``row`` and ``column`` the first ones."""

    def visit(node: Expr) -> Expr | None:
        if not isinstance(node, Load):
            return None
        by_row, by_column = _steps(node, row, column)
        tile = (1 if by_row == 0 else size[0], 1 if by_column == 0 else size[1])
        if tile == (1, 1):
            return node
        return E.load(node.buffer, node.offset, tile, (by_row, by_column))

    value = E.rebuild(store.value, visit, {})
    return Store(store.buffer, store.offset, value, _steps(store, row, column))


def _steps(access: Load | Store, row: str, column: str) -> tuple[Dim, Dim]:
    steps = stride(access, row), stride(access, column)
    assert steps[0] is not None and steps[1] is not None  # `_all_linear` looked
    return steps[0], steps[1]

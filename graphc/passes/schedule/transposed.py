"""Kernels that read along another axis than they write: transposition in squares of registers.

A vector along the output's last axis would gather its lanes from as many rows of the operand. A
square of both axes is read along one of them, exchanged by shuffles and stored along the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_min, product, symbol, symbols
from graphc.ir.expr import Axis, Expr, Index, Load
from graphc.ir.loop import For, Kernel, Store
from graphc.passes.schedule.loops import (
    Body,
    flat_loop,
    operations,
    values_first,
    vector_loop,
)
from graphc.passes.schedule.nest import Nest, all_expressions, stride

BLOCK = 64
"""Rows and columns of a block: cache lines that a square used in part are still near for the next.
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
    lanes: int,
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
    lanes : int
        Side of a square.
    emit : callable
        ``emit(lanes, mask)`` writes a vector of one row: what the squares leave over.
    """
    body = _block(items, across, vector, lanes, emit)
    blocks = Axis("block", ceil_div(across.extent, BLOCK))
    axes = [blocks if a == across else a for a in items[0].axes if a != vector]
    rows = dim_min(across.extent, BLOCK)
    cost = operations(item.store.value for item in items)
    return replace(
        kernel,
        body=(flat_loop(axes, body),),
        extent=product(a.extent for a in axes),
        work=16 + rows * vector.extent * (2 + cost) // 8,
    )


def _block(
    items: Sequence[Nest],
    across: Axis,
    vector: Axis,
    lanes: int,
    emit: Callable[[int, Expr | None], Body],
) -> Body:
    """Return the loops over one block of rows along ``across``, whose number is ``block``."""
    start = symbol("block") * BLOCK
    stop = dim_min(across.extent, start + BLOCK)
    rows = start + (stop - start) // lanes * lanes
    columns = vector.extent // lanes * lanes
    square = values_first([_square(n.store, across.name, vector.name, lanes) for n in items])
    loop = partial(_loop, body=square, step=lanes)
    left, right = symbol("left"), dim_min(columns, symbol("left") + BLOCK)
    body: Body = (loop(across.name, start, rows),)
    squares = _loop("left", 0, columns, (_loop(vector.name, left, right, body, lanes),), BLOCK)
    rest = E.iota(lanes) < E.index(vector.extent - symbol(vector.name))
    margin = _loop(vector.name, columns, vector.extent, emit(lanes, rest), lanes)
    last = vector_loop(vector.name, 0, vector.extent, lanes, emit)
    return (
        squares,
        _loop(across.name, start, rows, (margin,)),
        _loop(across.name, rows, stop, last),
    )


def _loop(name: str, start: Dim, stop: Dim, body: Body, step: int = 1) -> For:
    return For(name, E.index(start), E.index(stop), body, step)


def _square(store: Store, row: str, column: str, lanes: int) -> Store:
    """Return the store of a square, ``row`` and ``column`` its first ones."""

    def visit(node: Expr) -> Expr | None:
        if not isinstance(node, Load):
            return None
        by_row, by_column = _steps(node, row, column)
        tile = (1 if by_row == 0 else lanes, 1 if by_column == 0 else lanes)
        if tile == (1, 1):
            return node
        return E.load(node.buffer, node.offset, tile, (by_row, by_column))

    value = E.rebuild(store.value, visit, {})
    return Store(store.buffer, store.offset, value, _steps(store, row, column))


def _steps(access: Load | Store, row: str, column: str) -> tuple[Dim, Dim]:
    steps = stride(access, row), stride(access, column)
    assert steps[0] is not None and steps[1] is not None  # `_all_linear` looked
    return steps[0], steps[1]

"""What a kernel computes and moves, read off its plain loop nest: the least that any schedule does.

Counted are floating-point operations (one each, transcendental functions too; a multiply-add is
two) and the bytes of operands and results, each element once however often it is used; of a call of
Python the bytes alone. Both
branches of a condition count, and so do multiplications by padding. Explicit loops may work on
tiles: each element counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_min, product, substitute, symbols
from graphc.ir.expr import Apply, Axis, Buffer, Expr, Index, Load, Reduce
from graphc.ir.loop import Assign, Declare, Fail, For, If, Kernel, Let, Python, Stmt, Store
from graphc.ir.plan import Cost
from graphc.passes.schedule.nest import free_names

_FREE = frozenset({"cast", "bitcast", "select"})
"""Operations that compute nothing."""


def cost(kernel: Kernel) -> Cost:
    """Return the cost of a plain kernel, over the kernel's sizes.

    Parameters
    ----------
    kernel : Kernel
        As `graphc.passes.lower` makes it: nothing is scheduled yet.
    """
    flops: Dim = 0
    counted = {product(buffer.shape): None for buffer in kernel.params}
    accesses: dict[Buffer, list[Dim]] = {}
    for times, node in _evaluated(_statements(kernel.body, (), 1)):
        if isinstance(node, Store | Load):
            accesses.setdefault(node.buffer, []).append(times * _elements_of(node))
            continue
        if isinstance(node, Reduce):
            counted[_count(node.axes)] = None
        if node.dtype.floating and (isinstance(node, Reduce) or node.op not in _FREE):
            flops = flops + times * _elements_of(node) * _operations(node)
    for statement in kernel.body:
        if isinstance(statement, Python):
            accesses |= {buffer: [product(buffer.shape)] for buffer in statement.buffers}
    moved: Dim = 0
    for buffer in kernel.params:
        moved = moved + _elements(buffer, accesses.get(buffer, [])) * buffer.dtype.item_bytes
    found = flops, moved, *counted
    fixed: dict[str, Dim] = dict.fromkeys(set().union(*map(symbols, found)) - {*kernel.sizes}, 0)
    flops, moved, *counts = (substitute(dim, fixed) for dim in found)
    return Cost(flops, moved, _distinct(counts))


def _distinct(counts: Sequence[Dim]) -> tuple[Dim, ...]:
    """Return counts that differ; of those that are known the largest alone."""
    known = [count for count in counts if isinstance(count, int)]
    sized = dict.fromkeys(count for count in counts if not isinstance(count, int))
    return (*sized, max(known)) if known else (*sized,)


def _elements_of(node: Store | Load | Apply | Reduce) -> int:
    return math.prod(node.value.tile if isinstance(node, Store) else node.tile)


def _operations(node: Apply | Reduce) -> int:
    return 2 if isinstance(node, Apply) and node.op == "fma" else 1


def _statements(
    body: Iterable[Stmt], axes: tuple[Axis, ...], times: Dim
) -> Iterator[tuple[tuple[Axis, ...], Dim, Stmt]]:
    """Yield every statement with the loops around it, and how often it is done.

    Where an extent depends on the iteration of a loop around, the first one is taken for all.
    """
    for statement in body:
        yield axes, times, statement
        if isinstance(statement, For):
            axis = Axis(statement.name, _extent(statement))
            yield from _statements(statement.body, (*axes, axis), times * axis.extent)
        elif isinstance(statement, If):
            yield from _statements((*statement.body, *statement.otherwise), axes, times)


def _extent(loop: For) -> Dim:
    """Return the iterations of a loop; 1 where they are only known when it runs."""
    if isinstance(loop.start, Index) and isinstance(loop.stop, Index):
        return ceil_div(loop.stop.dim - loop.start.dim, loop.step)
    return 1


def _evaluated(
    statements: Iterable[tuple[tuple[Axis, ...], Dim, Stmt]],
) -> Iterator[tuple[Dim, Store | Load | Apply | Reduce]]:
    """Yield stores, loads, operations and reductions with how often each is done.

    What several statements of the same loops share is computed once.
    """
    seen: set[tuple[int, Dim]] = set()
    for axes, times, statement in statements:
        if isinstance(statement, Store):
            yield times, statement
        for expr in _expressions(statement):
            yield from _nodes(expr, axes, times, seen)


def _count(axes: Iterable[Axis]) -> Dim:
    return product(axis.extent for axis in axes)


def _expressions(statement: Stmt) -> tuple[Expr, ...]:
    match statement:
        case Let() | Declare() | Assign():
            return (statement.value,)
        case Store():
            return (statement.value, statement.offset)
        case If():
            return (statement.condition,)
        case Fail():
            return statement.details
    return ()


def _nodes(
    expr: Expr, axes: tuple[Axis, ...], times: Dim, seen: set[tuple[int, Dim]]
) -> Iterator[tuple[Dim, Load | Apply | Reduce]]:
    """Yield the parts of what is computed at each index of loops and reductions around it."""
    if isinstance(expr, Reduce):
        # It is done ahead of the loops whose index it does not depend on.
        needed = free_names(expr)
        axes = (*(axis for axis in axes if axis.name in needed), *expr.axes)
        times = _count(axes)
    if (id(expr), times) in seen:
        return
    seen.add((id(expr), times))
    for child in E.children(expr):
        yield from _nodes(child, axes, times, seen)
    if isinstance(expr, Load | Apply | Reduce):
        yield times, expr


def _elements(buffer: Buffer, accesses: Iterable[Dim]) -> Dim:
    """Return how many elements of a buffer are moved: all of them, or as many as are asked for."""
    size, asked = product(buffer.shape), sum(accesses, 0)
    return size if asked == size else dim_min(size, asked)

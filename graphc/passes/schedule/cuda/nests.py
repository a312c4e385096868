"""Explicit nests of ops on CUDA.

What the target wrote itself is in blocks of threads already, with a loop around them where the grid
is launched more than once. Else a nest computes scalars: its outermost loop is parallel or its
iterations are independent, and each is a thread's, or it is run by one block.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, linear, symbol, symbols
from graphc.ir.expr import Buffer, Expr, Index, Load
from graphc.ir.loop import (
    Alloc,
    Barrier,
    Bind,
    Fail,
    For,
    If,
    Kernel,
    Let,
    Stmt,
    Store,
)
from graphc.ir.statements import expressions, statements
from graphc.ir.target import Target
from graphc.passes.schedule.cuda.grid import (
    THREAD,
    THREADS,
    capped,
    in_blocks,
    in_turns,
    most_blocks,
    over_grid,
)
from graphc.passes.schedule.loops import Body


def schedule(kernel: Kernel, target: Target) -> Kernel:
    """Return an explicit nest in blocks of threads.

    Raises
    ------
    CompileError
        If it computes vectors and is not in blocks already.
    """
    only = _only(kernel.body)
    inner = _only(only.body) if isinstance(only, For) else None
    if isinstance(only, For) and isinstance(inner, For) and inner.bind is Bind.BLOCK:
        return over_grid(kernel, _extent(inner), inner, _extent(only))
    if isinstance(only, For) and only.bind is Bind.BLOCK:
        return over_grid(kernel, _extent(only), only)
    roots = (root for stmt in statements(kernel.body) for root in expressions(stmt))
    if any(e.tile for root in roots for e in E.walk(root)):
        raise CompileError("explicit loops that compute vectors have no CUDA schedule")
    if isinstance(only, For) and (only.bind is Bind.PARALLEL or independent(only)):
        return _by_threads(kernel, only, target)
    return _by_one_block(kernel)


def _only(body: Body) -> Stmt | None:
    return body[0] if len(body) == 1 else None


def _extent(loop: For) -> Dim:
    if not (isinstance(loop.start, Index) and isinstance(loop.stop, Index)) or loop.start.dim != 0:
        raise CompileError(f"the loop over {loop.name} does not start at 0")
    return loop.stop.dim


def _by_threads(kernel: Kernel, loop: For, target: Target) -> Kernel:
    """Give each iteration a thread."""
    extent = _extent(loop)
    most = most_blocks(target, loop.body)
    body = in_turns(loop.name, extent, most, loop.body)
    return in_blocks(kernel, capped(ceil_div(extent, THREADS), most), body)


def _by_one_block(kernel: Kernel) -> Kernel:
    """Let the threads of one block share each independent loop, and one of them run the others."""
    body: list[Stmt] = []
    scratch = {stmt.buffer for stmt in kernel.body if isinstance(stmt, Alloc)}
    for stmt in kernel.body:
        if isinstance(stmt, Alloc):
            continue
        if isinstance(stmt, For) and independent(stmt):
            body.append(replace(stmt, start=E.index(symbol(THREAD)), step=THREADS))
        else:
            body.append(If(E.index(symbol(THREAD)).eq(0), (stmt,)))
        body.append(Barrier())
    return in_blocks(kernel, 1, tuple(body[:-1]), [replace(b, space="shared") for b in scratch])


def independent(loop: For) -> bool:
    """Return whether each iteration of a loop writes an element of its own and reads no others."""
    if loop.step != 1 or loop.start != E.index(0):
        return False
    stored: dict[Buffer, Expr] = {}
    for stmt in statements(loop.body):
        if isinstance(stmt, Store):
            if stored.setdefault(stmt.buffer, stmt.offset) != stmt.offset:
                return False
        elif not isinstance(stmt, Let | If | Fail):
            return False
    loads = {e for stmt in statements(loop.body) for root in expressions(stmt) for e in E.walk(root)
             if isinstance(e, Load)}  # fmt: skip
    own = all(_own_place(offset, loop.name) for offset in stored.values())
    return own and all(stored.get(load.buffer, load.offset) == load.offset for load in loads)


def _own_place(offset: Expr, name: str) -> bool:
    """Return whether an offset is another one in each iteration."""
    if not isinstance(offset, Index) or symbols(offset.dim) != {name}:
        return False
    found = linear(offset.dim, name)
    return found is not None and found[0] != 0

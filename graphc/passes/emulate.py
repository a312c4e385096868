"""CUDA kernels on the CPU: blocks and threads become loops, cut where threads meet.

What the threads of a block do between two barriers becomes one loop over them, and what the threads
of a warp do between two intrinsics becomes one over its lanes, inside a loop over warps. A loop or
a branch around a barrier (around an intrinsic) is one that all threads of the block (of the warp)
take alike, and moves outside. Registers that are used behind such a cut lie in memory, one for each
thread; index arithmetic is computed again. So each thread computes what it does on a GPU, and where
kernels have no races the results are those of one.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.loop import BEGIN, END, TURN, Alloc, Bind, For, If, Kernel, Let, Stmt, Store
from graphc.ir.plan import Plan
from graphc.ir.statements import statements
from graphc.passes.emulate_threads import ThreadLoops, thread_count, with_memory

Body = tuple[Stmt, ...]


def emulated(plan: Plan) -> Plan:
    """Return the plan of a CUDA program as one that the CPU runs; see `emulate`."""
    launches = (replace(x, kernel=_in_turns(emulate(x.kernel))) for x in plan.launches)
    return replace(plan, launches=tuple(launches))


def _in_turns(kernel: Kernel) -> Kernel:
    """Return an emulated kernel that does in one launch what one of CUDA does in several."""
    if kernel.turns == 1:
        return kernel
    blocks = tuple(
        replace(s, start=E.index(0), stop=E.index(kernel.extent)) if isinstance(s, For) else s
        for s in kernel.body
    )
    loop = For(TURN, E.index(0), E.index(kernel.turns), blocks)
    return replace(kernel, body=(loop,), extent=1, turns=1, sizes=kernel.sizes[:-1])


def emulate(kernel: Kernel) -> Kernel:
    """Return a scheduled and expanded CUDA kernel as one of the CPU target.

    Its parallel axis are the blocks still. A `Fail` ends the whole call: the other threads do not
    go on, as their results do not matter.

    Parameters
    ----------
    kernel : Kernel

    Raises
    ------
    CompileError
        If index arithmetic tells that threads of a block take different ways around a barrier, or
        threads of a warp around an intrinsic. Where it cannot tell, the kernel fails with `APART`
        when it runs.
    """
    stored = frozenset(s.buffer.name for s in statements(kernel.body) if isinstance(s, Store))
    common = frozenset((*kernel.sizes, BEGIN, END))
    return replace(kernel, body=_outside(kernel, kernel.body, common, stored), work=_work(kernel))


def _work(kernel: Kernel) -> int:
    """Return the threads of a block, as a nanosecond is what each takes at least."""
    loops = (s for s in statements(kernel.body) if isinstance(s, For) and s.bind is Bind.THREAD)
    return max((thread_count(loop) for loop in loops), default=1)


def _outside(
    kernel: Kernel, body: Body, common: frozenset[str], stored: frozenset[str]
) -> Body:
    """Return statements around blocks with those of blocks as loops."""
    found: list[Stmt] = []
    for stmt in body:
        match stmt:
            case For() if stmt.bind is Bind.BLOCK:
                inside = _in_block(kernel, stmt.body, common | {stmt.name}, stored)
                stmt = replace(stmt, body=inside, bind=Bind.SERIAL)
            case For():
                common |= {stmt.name}
                stmt = replace(stmt, body=_outside(kernel, stmt.body, common, stored))
            case If():
                yes, no = (_outside(kernel, b, common, stored) for b in (stmt.body, stmt.otherwise))
                stmt = If(stmt.condition, yes, no)
            case Let():
                common |= {stmt.name}
        found.append(stmt)
    return tuple(found)


def _in_block(
    kernel: Kernel, body: Body, common: frozenset[str], stored: frozenset[str]
) -> Body:
    """Return the body of the loop over blocks with those over threads as loops."""
    shared = [s.buffer for s in body if isinstance(s, Alloc)]
    moves = {buffer: (replace(buffer, space="stack"), 0) for buffer in shared}
    found: list[Stmt] = [Alloc(buffer) for buffer, _ in moves.values()]
    for stmt in with_memory(body, moves):
        if isinstance(stmt, For) and stmt.bind is Bind.THREAD:
            found += ThreadLoops(kernel, stmt, stored).loops(common)
            continue
        if isinstance(stmt, Let):
            common |= {stmt.name}
        found.append(stmt)
    return tuple(found)

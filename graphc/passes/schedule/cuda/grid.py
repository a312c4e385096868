"""Blocks of threads: the loops around a kernel's body, and indices from a thread's number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, symbol
from graphc.ir.expr import Axis, Buffer
from graphc.ir.loop import BEGIN, END, Alloc, Bind, For, If, Kernel, Let
from graphc.passes.schedule.loops import Body

THREADS = 256
"""Threads of a block, where nothing asks for another number."""
BLOCK, THREAD = "block", "thread"
"""Names of the loop variables of blocks and of threads."""


def in_blocks(
    kernel: Kernel, extent: Dim, body: Body, shared: Sequence[Buffer] = (), threads: int = THREADS
) -> Kernel:
    """Return a kernel of ``extent`` blocks, each thread of which runs ``body``."""
    inner = For(THREAD, E.index(0), E.index(threads), body, bind=Bind.THREAD)
    made = (*map(Alloc, shared), inner)
    begin, end = (E.index(symbol(name)) for name in (BEGIN, END))
    return replace(
        kernel, body=(For(BLOCK, begin, end, made, bind=Bind.BLOCK),), extent=extent, work=1
    )


def placed(axes: Sequence[Axis], position: Dim) -> Body:
    """Return statements that name the index on each axis of a row-major position."""
    found = indices(axes, position)
    return tuple(Let(axis.name, E.index(found[axis.name])) for axis in reversed(axes))


def below(position: Dim, extent: Dim, body: Body) -> Body:
    """Return ``body`` for positions below an extent."""
    return (If(E.index(position) < E.index(extent), body),)


def lone(extent: Dim) -> str | None:
    """Return the name of a size that is one variable; None for another one.

    Where a multiple of vectors is put for it, index arithmetic shows that rows are aligned.
    """
    text = str(extent)
    return text if not isinstance(extent, int) and extent == symbol(text) else None


def indices(axes: Sequence[Axis], position: Dim) -> dict[str, Dim]:
    """Return the index on each axis of a row-major position."""
    found: dict[str, Dim] = {}
    for axis in reversed(axes[1:]):
        found[axis.name] = position % axis.extent
        position = position // axis.extent
    return found | {axis.name: position for axis in axes[:1]}

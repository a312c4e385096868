"""What kernels of several grids share: names, and plain kernels of a part of what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.expr import Buffer, Load
from graphc.ir.loop import Kernel, Store
from graphc.ir.statements import expressions, statements
from graphc.passes.schedule.loops import Body, over_axes
from graphc.passes.schedule.nest import Nest

CHUNK, CHUNKS = "chunk", "chunks"
"""Names of a chunk's number, and of the size that says how many there are."""


def written(items: Iterable[Nest]) -> Body:
    """Return nests as the statements of a plain kernel."""
    return tuple(stmt for item in items for stmt in over_axes(item.axes, (item.store,)))


def taking(kernel: Kernel) -> Kernel:
    """Return a kernel whose parameters are what it reads, and then what it writes."""
    reads: dict[Buffer, None] = {}
    writes: dict[Buffer, None] = {}
    for stmt in statements(kernel.body):
        if isinstance(stmt, Store):
            writes[stmt.buffer] = None
        for root in expressions(stmt):
            reads |= {e.buffer: None for e in E.walk(root) if isinstance(e, Load)}
    own = [_in_order(kernel.params, found) for found in (reads, writes)]
    return replace(kernel, params=(*own[0], *own[1]), outputs=len(own[1]))


def _in_order(params: Sequence[Buffer], found: Iterable[Buffer]) -> list[Buffer]:
    """Return the global memory among buffers: parameters as they come, then scratch memory."""
    there = [buffer for buffer in found if buffer.space == "global"]
    return [b for b in params if b in there] + [b for b in there if b not in params]

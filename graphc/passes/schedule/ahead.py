"""Rows that several loops read are asked for ahead of their first one.

Between the first loop over a row and the first over the next the processor reads nothing from
memory and what it would read next it cannot know: a page ends there. So the busiest of the other
loops asks for the row that follows.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import expr as E
from graphc.ir.dim import Dim, linear, substitute, symbol
from graphc.ir.expr import Axis, Buffer, Index, Load, Reduce
from graphc.ir.loop import Prefetch
from graphc.passes.schedule.loops import LINE_BYTES
from graphc.passes.schedule.nest import Nest

_PLACE = "place"

Row = tuple[Buffer, Dim]
"""Memory that rows read, and the offset of an element of the next row, `_PLACE` its number."""


def next_rows(items: Sequence[Nest], kept: Sequence[Axis], known: Sequence[Reduce]) -> list[Row]:
    """Return what the loops of a row read that lies elsewhere for the next one.

    Parameters
    ----------
    items : sequence of Nest
    kept : sequence of Axis
        The axes outside rows, the last one from row to row.
    known : sequence of Reduce
        All reductions of the items.
    """
    inside = [(r.axes[-1].name, r.body) for r in known if len(r.axes) == 1]
    for item in items:
        axes = [a for a in item.axes if a not in kept]
        inside += [(axes[0].name, item.store.value)] if len(axes) == 1 else []
    outer = kept[-1]
    found: dict[Row, None] = {}
    for name, value in inside:
        for node in E.walk(value):
            if isinstance(node, Load) and node.mask is None and isinstance(node.offset, Index):
                along, across = linear(node.offset.dim, name), linear(node.offset.dim, outer.name)
                if along is not None and along[0] == 1 and across is not None and across[0] != 0:
                    place = {name: symbol(_PLACE), outer.name: symbol(outer.name) + 1}
                    found[node.buffer, substitute(node.offset.dim, place)] = None
    return list(found)


def requests(rows: Sequence[Row], name: str, lanes: int) -> list[Prefetch]:
    """Return what a step of a loop asks for, ``lanes`` elements from its variable on."""
    found = []
    for buffer, dim in rows:
        for first in range(0, lanes, LINE_BYTES // buffer.dtype.item_bytes):
            place = substitute(dim, {_PLACE: symbol(name) + first})
            found.append(Prefetch(buffer, E.index(place)))
    return found

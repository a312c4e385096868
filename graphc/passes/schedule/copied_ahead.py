"""What the next step of a product copies into scratch is asked for beside the products of this one.

Copies wait for memory: a row of an operand is a few lines, and the next one lies on another page.
Multiply-adds wait for nothing, so each register tile asks for its share of the lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir import expr as E
from graphc.ir.dim import Dim, linear, symbol
from graphc.ir.expr import Expr, Index, Load
from graphc.ir.loop import For, Let, Prefetch
from graphc.passes.schedule.loops import LINE_BYTES, Body
from graphc.passes.schedule.packing import Stretch


@dataclass(frozen=True, slots=True)
class Matrix:
    """A plain matrix, contiguous along ``inner``, of which a part is copied later."""

    load: Load
    outer: Stretch
    inner: Stretch


def matrix(value: Expr, first: Stretch, second: Stretch) -> Matrix | None:
    """Return what a copy of ``value`` over two stretches reads, if that is a plain matrix."""
    if not isinstance(value, Load) or value.mask is not None or not isinstance(value.offset, Index):
        return None
    if len(first.axes) != 1 or len(second.axes) != 1:
        return None
    for outer, inner in ((first, second), (second, first)):
        along = linear(value.offset.dim, inner.axes[0].name)
        across = linear(value.offset.dim, outer.axes[0].name)
        if along is not None and along[0] == 1 and across is not None:
            return Matrix(value, outer, inner)
    return None


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests for all lines of some matrices, in equal shares.

    Inside `beside`, ``row`` counts a tile's ``rows`` parts.
    """

    matrices: Sequence[Matrix]

    def shares(self, number: Dim, count: Dim) -> Body:
        """Return statements that name the share of tile ``number`` of ``count``."""
        lets = []
        for place, read in enumerate(self.matrices):
            first, last = (n * read.outer.count // count for n in (number, number + 1))
            sizes = {
                f"asked{place}": read.outer.start + first,
                f"asks{place}": last - first,
                f"ask_from{place}": read.inner.start,
                f"ask_to{place}": read.inner.start + read.inner.count,
            }
            lets += [Let(name, E.index(size)) for name, size in sizes.items()]
        return tuple(lets)

    def beside(self, row: Dim, rows: int) -> Body:
        """Return the requests of one part of a tile."""
        return tuple(_lines(m, k, row, rows) for k, m in enumerate(self.matrices))


def _lines(read: Matrix, place: int, row: Dim, rows: int) -> For:
    """Return the requests for part ``row`` of ``rows`` of a tile's share."""
    first, count = symbol(f"asked{place}"), symbol(f"asks{place}")
    start, stop = (E.index(first + part * count // rows) for part in (row, row + 1))
    ask = Prefetch(read.load.buffer, read.load.offset, level=2)
    step = LINE_BYTES // read.load.dtype.item_bytes
    left, right = (E.index(symbol(f"{name}{place}")) for name in ("ask_from", "ask_to"))
    along = For(read.inner.axes[0].name, left, right, (ask,), step=step)
    return For(read.outer.axes[0].name, start, stop, (along,))

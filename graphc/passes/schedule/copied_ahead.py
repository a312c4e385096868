"""What the next step of a product copies into scratch is asked for beside the products of this one.

Copies wait for memory: a row of an operand is a few lines, and the next one lies on another page.
Multiply-adds wait for nothing, so each register tile asks for its share of the lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir import expr as E
from graphc.ir.dim import Dim, linear
from graphc.ir.expr import Expr, Index, Load
from graphc.ir.loop import For, Prefetch
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
    """Requests for all lines of some matrices, in equal shares."""

    matrices: Sequence[Matrix]

    def share(self, number: Dim, count: Dim) -> Body:
        """Return the requests of tile ``number`` of ``count``."""
        return tuple(_lines(read, number, count) for read in self.matrices)


def _lines(read: Matrix, number: Dim, count: Dim) -> For:
    outer, inner = read.outer, read.inner
    start, stop = (E.index(outer.start + n * outer.count // count) for n in (number, number + 1))
    ask = Prefetch(read.load.buffer, read.load.offset, level=2)
    left, right = E.index(inner.start), E.index(inner.start + inner.count)
    step = LINE_BYTES // read.load.dtype.item_bytes
    along = For(inner.axes[0].name, left, right, (ask,), step=step)
    return For(outer.axes[0].name, start, stop, (along,))

"""Weights that lie in panels, so that register tiles read them where they are.

A panel is a few columns of a matrix, row after row: the next row of a tile's vectors is the next
stretch of memory, whatever the number of columns. Weights that are kept from call to call can lie
so, and need no copy. At a batch of one they are used a few times only and come from memory, so
while the tiles of one strip of columns are multiplied, the next strip is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir import expr as E
from graphc.ir.dim import Dim, linear, substitute, symbol, symbols
from graphc.ir.expr import Axis, Buffer, Expr, Index, Load
from graphc.ir.loop import Let, Prefetch, Stmt
from graphc.ir.ops.channels_last import PANEL


@dataclass(frozen=True, slots=True)
class Panels:
    """Where the factors of columns lie: column ``j`` at depth ``k`` of the block at hand.

    That is element ``origin + j // 16 * apart + k * depth_step`` of ``buffer``, for ``j`` in whole
    panels; ``j`` counts from column 0 of the matrix.
    """

    buffer: Buffer
    origin: Dim
    apart: Dim
    depth_step: Dim
    lanes: int

    def place(self, column: Dim, following: Dim, depth: Dim) -> tuple[Stmt, ...]:
        """Return statements that name where the tile at hand, and its request, begin."""
        first = self.origin + (symbol("column0") + column) // PANEL * self.apart
        later = self.origin + (symbol("column0") + following) // PANEL * self.apart
        return (
            Let("panel_step", E.index(self.depth_step)),
            Let("apart", E.index(self.apart if self.lanes == PANEL else self.lanes)),
            Let("panel", E.index(first)),
            Let("later", E.index(later + depth * self.depth_step)),
        )

    def load(self, vectors: int, piece: Dim) -> Expr:
        """Return the factors of ``vectors`` of the tile at hand, ``piece`` columns on, at ``k``."""
        place = symbol("panel") + symbol("k") * symbol("panel_step")
        place = place + piece // PANEL * symbol("apart")
        tile = (1, vectors, self.lanes)
        return E.load(self.buffer, E.index(place), tile, (0, symbol("apart"), 1))

    def ahead(self) -> Prefetch:
        """Return the request for what a tile of the next strip reads."""
        place = symbol("later") + symbol("k") * symbol("panel_step")
        return Prefetch(self.buffer, E.index(place), level=2)


def panels(
    value: Expr, columns: Sequence[Axis], depth: Sequence[Axis], lanes: int, tile_columns: int
) -> Panels | None:
    """Return how a factor lies in panels, or None.

    A tile's vectors are whole panels, or the parts of one.
    """
    if lanes != PANEL and tile_columns != PANEL:
        return None
    if not isinstance(value, Load) or value.mask is not None or len(columns) + len(depth) != 2:
        return None
    if not isinstance(value.offset, Index):
        return None
    (column,), (inner,) = columns, depth
    offset, axis = value.offset.dim, symbol(column.name)
    first = substitute(offset, {column.name: 0})
    found = linear(substitute(offset, {column.name: symbol("panel") * PANEL}), "panel")
    along = linear(first, inner.name)
    if found is None or along is None or symbols(along[0]) & {column.name, inner.name}:
        return None
    apart = found[0]
    if apart == PANEL:  # panels side by side are a plain matrix, whose last one may be a part
        return None
    if offset != first + axis // PANEL * apart + axis % PANEL or inner.name in symbols(apart):
        return None
    origin = substitute(first, {inner.name: symbol("depth0")})
    return Panels(value.buffer, origin, apart, along[0], lanes)

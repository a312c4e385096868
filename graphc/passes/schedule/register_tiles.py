"""The innermost loops of a matrix product: register tiles over the depth of a block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, linear, substitute, symbol, symbols
from graphc.ir.expr import Buffer, Expr, Index, Load
from graphc.ir.loop import Assign, Declare, For, If, Let, Store
from graphc.passes.schedule.blocking import Blocking
from graphc.passes.schedule.copied_ahead import Requests
from graphc.passes.schedule.loops import Body
from graphc.passes.schedule.packing import Stretch
from graphc.passes.schedule.panels import Panels


@dataclass(frozen=True, slots=True)
class Factor:
    """Where the factors of a block's rows lie: row ``i`` at depth ``k`` of the block.

    That is element ``origin + i * row_step + k * depth_step`` of ``buffer``.
    """

    buffer: Buffer
    origin: Dim
    row_step: Dim
    depth_step: Dim

    def load(self, rows: int) -> Expr:
        """Return the load of ``rows`` factors from row ``i`` on at depth ``k``."""
        place = self.origin + symbol("i") * self.row_step + symbol("k") * self.depth_step
        return E.load(self.buffer, E.index(place), (rows, 1, 1), (self.row_step, 0, 0))


def in_place(value: Expr, rows: Stretch, depth: Stretch) -> Factor | None:
    """Return where tiles can read an operand without a copy, or None.

    That takes a plain matrix whose rows are contiguous: reading along its columns would touch a
    page for each term of a sum.
    """
    if not isinstance(value, Load) or value.mask is not None:
        return None
    if not isinstance(value.offset, Index) or len(rows.axes) != 1 or len(depth.axes) != 1:
        return None
    names = rows.axes[0].name, depth.axes[0].name
    found = [linear(value.offset.dim, name) for name in names]
    steps = [pair[0] for pair in found if pair is not None]
    if len(steps) < 2 or steps[1] != 1 or symbols(steps[0]) & set(names):
        return None
    origin = substitute(value.offset.dim, {names[0]: rows.start, names[1]: depth.start})
    return Factor(value.buffer, origin, *steps)


Finish = Callable[[Dim, Dim], Body]
"""``finish(start, count)`` returns what follows the sums of rows of the columns at hand."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Loops over the register tiles of a block, which has ``rows`` by ``columns``.

    Inside them ``i`` and ``j`` are where the tile at hand starts, ``wide`` its columns.

    Attributes
    ----------
    blocks : Blocking
    b : Buffer or Panels
        Scratch that holds the factors of the columns, ``depth`` by ``columns``, or where they lie.
    sums : Buffer
        Scratch for the sums, which go on from what it holds where ``depth_block`` is not 0.
    main : Factor
        The factors of the rows.
    rest : Factor
        Those of the rows from ``whole_rows`` on, if they lie elsewhere. What tiles read there
        behind the last row is zero.
    whole_rows : Dim
        Rows that tiles of full height cover.
    copied : Requests
        For what is copied next; each tile asks for its share.
    finish : callable, optional
        What to do with sums that are whole. A tile's are finished row by row between stretches of
        the next one's depth, so that divisions and waits for memory run beside multiply-adds.
    ahead : callable, optional
        ``ahead(start, count)`` returns what asks for the memory that the stores will read for these
        rows of the columns at hand, beside the last products of a tile.
    finished : callable, optional
        ``finished(row, column, tile)`` stores what the whole sums of a tile of full height give,
        straight from its registers; ``sums`` gets none of them.
    """

    blocks: Blocking
    b: Buffer | Panels
    sums: Buffer
    main: Factor
    rest: Factor
    whole_rows: Dim
    copied: Requests
    finish: Finish | None = None
    ahead: Finish | None = None
    finished: Callable[[Dim, Dim, Expr], Body] | None = None

    def loops(self) -> Body:
        """Return the loops: columns in strips, down each strip from tile to tile."""
        rows, columns, tile = symbol("rows"), symbol("columns"), symbol("tile")
        full, small = self.blocks.tile_rows, self.blocks.tile_rows // 2
        wides, strips = strip_counts(columns, self.blocks.tile_vectors, self.blocks.lanes)
        j, wide = strip_place(columns, self.blocks.tile_vectors, self.blocks.lanes)
        many = self.whole_rows // full
        place = dim_min(tile, many) * full + dim_max(tile - many, 0) * small
        whole = E.index(tile) < E.index(many)
        count: Dim = many + ceil_div(rows - many * full, small)
        sizes = {"wides": wides, "tiles": count, "strips": strips}
        if self.finish is not None or self.ahead is not None or self.finished is not None:
            sizes["last"] = dim_max(symbol("depth_block") + 2 - symbol("depth_blocks"), 0)
        body: Body = (*self._tile(place), *self._products(whole))
        if self.finish is not None:
            body = self._pipelined(place, whole, self.finish)
            count = count + 1
        down = For("tile", E.index(0), E.index(count), body)
        strip = (Let("j", E.index(j)), Let("wide", E.index(wide)), *self._next(strips), down)
        lets = tuple(Let(name, E.index(size)) for name, size in sizes.items())
        return (*lets, For("strip", E.index(0), E.index(symbol("strips")), strip))

    def _tile(self, place: Dim) -> Body:
        """Return statements that name where the tile at hand lies, reads and asks."""
        number = symbol("strip") * symbol("tiles") + symbol("tile")
        asks = self.copied.share(number, symbol("strips") * symbol("tiles"))
        return (Let("i", E.index(place)), *self._panel(), *asks)

    def _pipelined(self, place: Dim, whole: Expr, finish: Finish) -> Body:
        """Return the step that multiplies one tile and finishes the tile before."""
        tile, before = symbol("tile"), symbol("before")
        earlier = dim_max(substitute(place, {"tile": tile - 1}), 0)
        pending = (dim_min(symbol("i"), symbol("rows")) - before) * symbol("last")
        beside = whole & self._wider(self.blocks.tile_vectors - 1)
        return (
            *self._tile(place),
            Let("before", E.index(earlier)),
            Let("pending", E.index(pending)),
            If(beside, (), finish(before, symbol("pending"))),
            If(E.index(tile) < E.index(symbol("tiles")), self._products(whole)),
        )

    def _products(self, whole: Expr) -> Body:
        """Return the sums of the tile at hand, by its height and width."""
        high = self._multiply(self.blocks.tile_rows, 1, self.main)
        for vectors in range(2, self.blocks.tile_vectors + 1):
            products = self._multiply(
                self.blocks.tile_rows, vectors, self.main, beside=self._beside(vectors)
            )
            high = (If(self._wider(vectors - 1), products, high),)
        return (If(whole, high, (self._low(),)),)

    def _low(self) -> For:
        """Return the sums of the tile at hand, of half the height, by two vectors at a time."""
        piece, lanes, rows = symbol("piece"), self.blocks.lanes, self.blocks.tile_rows // 2
        two, one = (self._multiply(rows, count, self.rest, piece) for count in (2, 1))
        body = (If(E.index(symbol("wide") - piece) > E.index(lanes), two, one),)
        return For("piece", E.index(0), E.index(symbol("wide")), body, step=2 * lanes)

    def _beside(self, vectors: int) -> Body:
        """Return what goes on beside a full tile's products, once for each ``row``."""
        row = symbol("row")
        body: Body = ()
        if self.finish is not None and vectors == self.blocks.tile_vectors:
            one = dim_min(dim_max(symbol("pending") - row, 0), 1)
            body += self.finish(symbol("before") + row, one)
        if self.ahead is not None:
            body += self.ahead(symbol("i") + row, symbol("last"))
        return body

    def _wider(self, vectors: int) -> Expr:
        return E.index(symbol("wide")) > E.index(vectors * self.blocks.lanes)

    def _multiply(
        self, rows: int, vectors: int, a: Factor, piece: Dim = 0, beside: Body = ()
    ) -> Body:
        """Return the sums of one register tile over the block's depth, ``piece`` columns on.

        Statements of ``beside`` follow each of ``rows`` stretches of the depth.
        """
        lanes, sums = self.blocks.lanes, self.sums
        tile, register = (rows, vectors, lanes), f"sum{rows}x{vectors}"
        i, j, depth = symbol("i"), symbol("j") + piece, symbol("depth")
        start = E.splat(E.const(0, sums.dtype), tile)
        holder = E.use(register, start)
        strip = self._strip(vectors, piece)
        place, strides = E.index(i * sums.shape[1] + j), (sums.shape[1], lanes, 1)
        before = E.load(sums, place, tile, strides)
        term = Assign(register, E.apply("fma", a.load(rows), strip, holder))
        full = rows == self.blocks.tile_rows
        ask = (self.b.ahead(),) if full and isinstance(self.b, Panels) else ()
        loop = For("k", E.index(0), E.index(depth), (*ask, term))
        if beside:
            row = symbol("row")
            first, behind = E.index(row * depth // rows), E.index((row + 1) * depth // rows)
            stretch = For("k", first, behind, (*ask, term))
            loop = For("row", E.index(0), E.index(rows), (stretch, *beside))
        return (
            Declare(register, start),
            If(E.index(symbol("depth_block")) > 0, (Assign(register, before),)),
            loop,
            *self._kept(Store(sums, place, holder, strides), full),
        )

    def _kept(self, store: Store, full: bool) -> Body:
        """Return what becomes of a tile's sums."""
        if self.finished is None or not full:
            return (store,)
        row, column = symbol("row0") + symbol("i"), symbol("column0") + symbol("j")
        last = E.index(symbol("last")) > E.index(0)
        return (If(last, self.finished(row, column, store.value), (store,)),)

    def _next(self, strips: Dim) -> Body:
        """Return statements that find the strip behind the one at hand, of this block's depth.

        Behind the last one it is the first strip of the next stretch of depth.
        """
        if not isinstance(self.b, Panels):
            return ()
        last = dim_max(symbol("strip") + 2 - strips, 0)
        start, _ = strip_place(symbol("columns"), self.blocks.tile_vectors, self.blocks.lanes)
        following = substitute(start, {"strip": symbol("strip") + 1})
        return (
            Let("at_end", E.index(last)),
            Let("next_j", E.index(following * (1 - symbol("at_end")))),
            Let("next_depth", E.index(symbol("depth") * symbol("at_end"))),
        )

    def _panel(self) -> Body:
        """Return statements that name where the tile at hand reads, and what it asks for."""
        if not isinstance(self.b, Panels):
            return ()
        vector = dim_min(symbol("tile"), self.blocks.tile_vectors - 1) * self.blocks.lanes
        return self.b.place(symbol("j"), symbol("next_j") + vector, symbol("next_depth"))

    def _strip(self, vectors: int, piece: Dim) -> Expr:
        """Return the factors of a tile's columns at depth ``k``."""
        if isinstance(self.b, Panels):
            return self.b.load(vectors, piece)
        place = symbol("k") * self.b.shape[1] + symbol("j") + piece
        tile = (1, vectors, self.blocks.lanes)
        return E.load(self.b, E.index(place), tile, (0, self.blocks.lanes, 1))


def strip_counts(columns: Dim, most: int, lanes: int) -> tuple[Dim, Dim]:
    """Return how many strips of columns are ``most`` vectors wide, and how many there are.

    The others have two. A tile of one vector waits for loads, so four vectors are two and two, not
    three and one; one vector alone is what is left for narrow blocks.
    """
    assert most in (2, 3), "tiles are two or three vectors wide"
    vectors = ceil_div(columns, lanes)
    odd = vectors * 2 % 3 * 2 if most == 3 else vectors % 2
    wides = dim_max(vectors - odd, 0) // most
    return wides, wides + ceil_div(vectors - wides * most, 2)


def strip_place(columns: Dim, most: int, lanes: int) -> tuple[Dim, Dim]:
    """Return where strip number ``strip`` starts, and how many columns it has."""
    strip, wides = symbol("strip"), symbol("wides")
    start = (dim_min(strip, wides) * most + dim_max(strip - wides, 0) * 2) * lanes
    vectors = dim_min(dim_max(wides - strip, 0) + 2, most)
    return start, dim_min(columns - start, vectors * lanes)

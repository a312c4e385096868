"""The innermost loops of a matrix product: register tiles over the depth of a block."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, linear, substitute, symbol, symbols
from graphc.ir.expr import Buffer, Expr, Index, Load
from graphc.ir.loop import Assign, Declare, For, If, Store
from graphc.passes.schedule.blocking import Blocking
from graphc.passes.schedule.loops import Body
from graphc.passes.schedule.packing import Stretch


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


def tiles(
    blocks: Blocking,
    b: Buffer,
    sums: Buffer,
    main: Factor,
    rest: Factor | None = None,
    whole_rows: Dim | None = None,
) -> Body:
    """Return loops over the register tiles of a block, which has ``rows`` by ``columns``.

    Parameters
    ----------
    blocks : Blocking
    b : Buffer
        Scratch that holds the factors of the columns, ``depth`` by ``columns``.
    sums : Buffer
        Scratch for the sums, which go on from what it holds where ``depth_block`` is not 0.
    main : Factor
        The factors of the rows.
    rest : Factor, optional
        Those of the rows from ``whole_rows`` on, if they lie elsewhere. What tiles read there
        behind the last row is zero.
    whole_rows : Dim, optional
    """
    lanes, full = blocks.lanes, blocks.tile_rows
    small = full // 2
    rows = symbol("rows")
    many = (rows + small - 1) // full * full if whole_rows is None else whole_rows

    def over_rows(vectors: int) -> Body:
        """Return the loops over whole tiles, and over smaller ones in the rows behind them."""
        whole = _multiply((full, vectors, lanes), main, b, sums)
        part = _multiply((small, vectors, lanes), rest or main, b, sums)
        return (
            For("i", E.index(0), E.index(many), whole, step=full),
            For("i", E.index(many), E.index(rows), part, step=small),
        )

    return tuple(
        For("j", E.index(start), E.index(stop), over_rows(vectors), step=vectors * lanes)
        for vectors, start, stop in strips(symbol("columns"), blocks.tile_vectors, lanes)
    )


def strips(columns: Dim, vectors: int, lanes: int) -> tuple[tuple[int, Dim, Dim], ...]:
    """Return which columns get tiles of how many vectors: their width, and from where to where.

    A tile of one vector waits for loads, so beside tiles of three there are those of two: four
    vectors are two twos. One vector alone is what is left for narrow blocks.
    """
    count = ceil_div(columns, lanes)
    if vectors == 2:
        even = count // 2 * 2 * lanes
        return (2, 0, even), (1, even, columns)
    assert vectors == 3, "tiles are two or three vectors wide"
    threes = dim_max(count - count * 2 % 3 * 2, 0) * lanes
    alone = count * dim_min(count - 1, 1) * lanes
    return (3, 0, threes), (2, threes, columns - lanes), (1, alone, columns)


def _multiply(tile: tuple[int, int, int], a: Factor, b: Buffer, sums: Buffer) -> Body:
    """Return the sums of one register tile over the block's depth."""
    rows, vectors, lanes = tile
    register = f"sum{rows}x{vectors}"
    i, j, k = symbol("i"), symbol("j"), symbol("k")
    start = E.splat(E.const(0, sums.dtype), tile)
    holder = E.use(register, start)
    strip = E.load(b, E.index(k * b.shape[1] + j), (1, vectors, lanes), (0, lanes, 1))
    place, strides = E.index(i * sums.shape[1] + j), (sums.shape[1], lanes, 1)
    before = E.load(sums, place, tile, strides)
    term = Assign(register, E.apply("fma", a.load(rows), strip, holder))
    return (
        Declare(register, start),
        If(E.index(symbol("depth_block")) > 0, (Assign(register, before),)),
        For("k", E.index(0), E.index(symbol("depth")), (term,)),
        Store(sums, place, holder, strides),
    )

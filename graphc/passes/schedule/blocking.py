"""Sizes of blocks and tiles of matrix products, by the caches and registers of the target."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.target import Target
from graphc.ir.types import DType

BLOCKS_PER_CORE = 2
"""Blocks of columns get narrower until there are so many for each core."""
SCRATCH_BYTES = 512 << 10
"""Upper limit of one thread's scratch, which lies on its stack."""
STRIP_BYTES = 36 << 10
"""Size up to which strips of ``b`` may be larger than three quarters of L1."""
TILES_IN_PLACE, TILES_PACKED = 48, 16
"""Register tiles in the rows of a block, where ``a`` is read in place and where it is copied."""


@dataclass(frozen=True, slots=True)
class Blocking:
    """Sizes of tiles and blocks, in elements.

    A register tile is ``tile_rows`` by ``tile_vectors * lanes``. Blocks have up to ``rows`` by
    ``columns`` elements of the output and take ``depth`` terms of the sums at a time. Columns, and
    rows where those are few, are cut further until there are ``count`` blocks, which changes no
    sum.
    """

    lanes: int
    tile_rows: int
    tile_vectors: int
    rows: int
    columns: int
    depth: int
    count: int

    @property
    def tile_columns(self) -> int:
        """Columns of a register tile."""
        return self.tile_vectors * self.lanes


def blocking(target: Target, dtype: DType, in_place: bool = False) -> Blocking:
    """Choose tiles by the registers, the depth by the L1 cache, rows and columns by the L2 cache.

    A tile takes 24 of 32 registers, or 12 of 16. A tile's strip of ``b`` (depth by tile columns)
    stays in L1 while the tiles of one block of columns are computed; what a block reads and sums
    stays in L2. An ``a`` that is read in place takes no scratch, which leaves room for more rows;
    there strips may be a little larger than a small L1, since L2 delivers them in order and fewer
    sums are read and written again.
    """
    lanes = target.lanes(dtype)
    tile_rows, tile_vectors = (8, 3) if target.registers >= 32 else (6, 2)
    tile_columns = tile_vectors * lanes
    item_bytes = dtype.item_bytes
    strip_bytes = target.l1_bytes * 3 // 4
    if in_place:
        strip_bytes = max(strip_bytes, min(target.l1_bytes * 9 // 8, STRIP_BYTES))
    depth = strip_bytes // (tile_columns * item_bytes) // 16 * 16
    depth = min(max(depth, 64), 256)
    most = TILES_IN_PLACE if in_place else TILES_PACKED
    rows = tile_rows * min(max(target.l2_bytes * most >> 20, 8), most)
    a = rows * depth + max(rows, depth) * lanes
    own = tile_rows * (depth + lanes) if in_place else a
    free = min(SCRATCH_BYTES // item_bytes - own, target.l2_bytes // item_bytes - a)
    columns = (free // (rows + depth) - lanes) // tile_columns * tile_columns
    columns, count = max(columns, tile_columns), BLOCKS_PER_CORE * target.cores
    return Blocking(lanes, tile_rows, tile_vectors, rows, columns, depth, count)

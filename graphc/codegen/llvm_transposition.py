"""Transposition of a tile in registers, by shuffles that machines have an instruction for.

Vectors consist of lanes of 128 bits. Rows zipped with rows, as often as halving them allows, are
transposed within each lane: that is one instruction a pair. Then lanes change places as a whole:
rows whose even lanes come first and whose odd ones follow, as often as halving allows, have
exchanged rows and lanes. Shuffles of no such form cost a mask in memory, and LLVM many attempts.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.llvm_builder import Builder
from graphc.codegen.llvm_values import Row

LANE_BYTES = 16


def transposed(builder: Builder, rows: Sequence[Row], width: int, item_bytes: int) -> list[Row]:
    """Return ``width`` columns of rows that have as many elements; all sizes are powers of two."""
    lane = min(len(rows), width, LANE_BYTES // item_bytes)
    parts = [_zipped(builder, rows[k : k + lane], width) for k in range(0, len(rows), lane)]
    columns = [_lanes_turned(builder, part, width, lane) for part in zip(*parts, strict=True)]
    return [column for part in zip(*columns, strict=True) for column in part]


def _zipped(builder: Builder, rows: Sequence[Row], width: int) -> list[Row]:
    """Return rows transposed within each stretch of as many elements as there are rows."""
    found, count = list(rows), len(rows)
    low = [k // count * count + k % count // 2 + k % 2 * width for k in range(width)]
    high = [k + count // 2 for k in low]
    for _ in range(count.bit_length() - 1):
        pairs = zip(found[: count // 2], found[count // 2 :], strict=True)
        found = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in (low, high)]
    return found


def _lanes_turned(builder: Builder, rows: Sequence[Row], width: int, lane: int) -> list[Row]:
    """Return rows with their lanes exchanged: one for each lane, of the lanes of all rows."""
    size = min(len(rows), width // lane) * lane
    found = [
        _parted(builder, [_cut(builder, row, first, size, width) for row in square], size, lane)
        for square in (rows[k : k + size // lane] for k in range(0, len(rows), size // lane))
        for first in range(0, width, size)
    ]
    if size < width:
        return [row for square in found for row in square]
    return [_joined(builder, parts) for parts in zip(*found, strict=True)]


def _parted(builder: Builder, rows: list[Row], width: int, lane: int) -> list[Row]:
    """Return as many rows as each has lanes with rows and lanes exchanged."""
    even = [k // lane * 2 * lane + k % lane for k in range(width)]
    odd = [k + lane for k in even]
    for _ in range(len(rows).bit_length() - 1):
        pairs = list(zip(rows[::2], rows[1::2], strict=True))
        rows = [builder.shuffle_vector(a, b, half) for half in (even, odd) for a, b in pairs]
    return rows


def _cut(builder: Builder, row: Row, first: int, count: int, width: int) -> Row:
    if count == width:
        return row
    return builder.shuffle_vector(row, row, list(range(first, first + count)))


def _joined(builder: Builder, rows: Sequence[Row]) -> Row:
    while len(rows) > 1:
        every = list(range(2 * rows[0].type.count))
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [builder.shuffle_vector(a, b, every) for a, b in pairs]
    return rows[0]

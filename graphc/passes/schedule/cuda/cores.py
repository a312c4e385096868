"""What multiplies on CUDA: fused multiply-adds, or tensor cores in a precision that was asked for.

Each says how large a block's tile is, what of the factors lies in shared memory, which sums a
thread holds, and where in the tile they belong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from graphc.ir import expr as E
from graphc.ir.dim import Dim, symbol
from graphc.ir.expr import Expr
from graphc.ir.intrinsics import WARP
from graphc.ir.loop import Assign, Declare, For, Intrinsic, Stmt
from graphc.ir.types import DType, float32, uint32
from graphc.passes.schedule.cuda.factors import Factor, Unit, named
from graphc.passes.schedule.cuda.grid import THREAD, THREADS
from graphc.passes.schedule.loops import Body

ACROSS = 16
"""Threads along each side of a tile that fused multiply-adds compute."""
LANE = "lane"
"""Name of the number of a register's lane."""
UNROLLED = 4
"""Units that are written out in the loop over a turn."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A register of sums, and where they belong.

    Attributes
    ----------
    register : Use
    stage : int
        Results leave a tile in stages, a part of the rows at once.
    slot, column : Dim
        Row among those of the stage, and column, by the variable `LANE`.
    """

    register: E.Use
    stage: int
    slot: Dim
    column: Dim


class Cores(Protocol):
    """What a product's schedule must know of what multiplies.

    Attributes
    ----------
    side : int
        Rows, and columns, of a tile.
    padding : int
        Unused units behind each row of shared memory: fewer of a warp's accesses meet.
    unit : Unit
    units : int
        Units of the depth that a turn copies and multiplies.
    stages : int
        How many stages results leave a tile in.
    """

    side: int
    padding: int
    unit: Unit
    units: int
    stages: int

    def row(self, stage: int, slot: Dim) -> Dim:
        """Return which row of the tile a row of a stage is."""

    def sums(self) -> Iterator[Sum]:
        """Yield the registers of a thread."""

    def products(self, left: Factor, right: Factor) -> For:
        """Return the loop that adds the products of a stretch to the sums."""


def cleared(cores: Cores) -> Body:
    """Return the statements that begin all sums at zero."""
    uses = [found.register for found in cores.sums()]
    return tuple(Declare(u.name, E.splat(E.const(0, u.dtype), u.tile)) for u in uses)


class MultiplyAdd:
    """Fused multiply-adds of vectors.

    A thread's rows and columns lie in chunks of one vector, so that shared memory is read 128 bits
    at a time. The order of additions is that of the depth.
    """

    padding = 4

    def __init__(self, dtype: DType, lanes: int, chunks: int) -> None:
        self.dtype, self.lanes, self.chunks = dtype, lanes, chunks
        self.stages, self.units = chunks, 16 // chunks
        self.side = ACROSS * lanes * chunks
        self.unit = Unit(dtype, 1, lambda values: values[0])

    def row(self, stage: int, slot: Dim) -> Dim:
        """Return which row of the tile a row of a stage is: a chunk's rows leave together."""
        return stage * ACROSS * self.lanes + slot

    def sums(self) -> Iterator[Sum]:
        """Yield the vectors of a thread, row by row."""
        like = E.splat(E.const(0, self.dtype), (self.lanes,))
        down, right = symbol(THREAD) // ACROSS, symbol(THREAD) % ACROSS
        for row in range(self.lanes * self.chunks):
            chunk, lane = divmod(row, self.lanes)
            for column in range(self.chunks):
                yield Sum(
                    E.use(f"sum{row}_{column}", like),
                    chunk,
                    down * self.lanes + lane,
                    (column * ACROSS + right) * self.lanes + symbol(LANE),
                )

    def products(self, left: Factor, right: Factor) -> For:
        """Return the loop that adds the products of a stretch to the sums."""
        body: list[Stmt] = []
        for step in range(UNROLLED):
            unit = symbol("unit") + step
            a = self._vectors(left, unit, symbol(THREAD) // ACROSS, f"a{step}", body)
            b = self._vectors(right, unit, symbol(THREAD) % ACROSS, f"b{step}", body)
            for number, total in enumerate(self.sums()):
                row, column = divmod(number, self.chunks)
                chunk, lane = divmod(row, self.lanes)
                spread = E.repeat(a[chunk], self.lanes, self.lanes, lane * self.lanes)
                value = E.apply("fma", spread, b[column], total.register)
                body.append(Assign(total.register.name, value))
        return For("unit", E.index(0), E.index(self.units), tuple(body), step=UNROLLED)

    def _vectors(
        self, factor: Factor, unit: Dim, thread: Dim, name: str, body: list[Stmt]
    ) -> list[Expr]:
        """Name the vectors of one unit that a thread multiplies."""
        first = factor.stretch() + unit * factor.width + thread * self.lanes
        step = ACROSS * self.lanes
        loads = (
            E.load(factor.memory, E.index(first + chunk * step), (self.lanes,), (1,))
            for chunk in range(self.chunks)
        )
        return [named(f"{name}_{chunk}", load, body) for chunk, load in enumerate(loads)]


DOWN, RIGHT = 2, THREADS // WARP // 2
"""Warps along the sides of a tile that tensor cores compute."""
ROWS, COLUMNS, UNITS = 16, 8, 8
"""Rows and columns of what one instruction of a tensor core adds to, and the units it takes."""


class Tensor:
    """Tensor cores: factors rounded to ``precision``, sums in float32.

    Where a lane's numbers lie in a matrix is in `graphc.ir.intrinsics`.
    """

    padding, units, stages = 8, 16, 2

    def __init__(self, precision: str, side: int) -> None:
        self.side, (self.operation, self.unit) = side, _TENSOR[precision]
        self.down, self.right = side // DOWN // ROWS, side // RIGHT // COLUMNS

    def row(self, stage: int, slot: Dim) -> Dim:
        """Return which row of the tile a row of a stage is: a part of each warp's rows leaves."""
        own = self.side // DOWN // self.stages
        return slot // own * (self.side // DOWN) + stage * own + slot % own

    def _warp(self) -> tuple[Dim, Dim]:
        """Return which warp of those above, and beside, each other a thread is in."""
        warp = symbol(THREAD) // WARP
        return warp % DOWN, warp // DOWN

    def _lane(self) -> tuple[Dim, Dim]:
        """Return a lane's group of four, and its number in it."""
        lane = symbol(THREAD) % WARP
        return lane // 4, lane % 4

    def sums(self) -> Iterator[Sum]:
        """Yield the registers of a thread: two rows of two columns each."""
        like = E.splat(E.const(0, float32), (4,))
        (above, beside), (group, within) = self._warp(), self._lane()
        each = self.down // self.stages
        for i in range(self.down):
            for j in range(self.right):
                slot = (above * each + i % each) * ROWS + group
                column = beside * (self.side // RIGHT) + COLUMNS * j + 2 * within
                yield Sum(
                    E.use(f"sum{i}_{j}", like),
                    i // each,
                    slot + symbol(LANE) // 2 * (ROWS // 2),
                    column + symbol(LANE) % 2,
                )

    def products(self, left: Factor, right: Factor) -> For:
        """Return the loop that adds the products of a stretch to the sums."""
        (above, beside), (group, within) = self._warp(), self._lane()
        row, column = above * (self.side // DOWN), beside * (self.side // RIGHT)
        body: list[Stmt] = []
        unit = symbol("unit") + within
        four = E.iota(4) // 2 * (4 * left.width) + E.iota(4) % 2 * 8
        first = left.stretch() + unit * left.width + row + group
        a = [
            named(f"a{i}", E.load(left.memory, E.index(first + ROWS * i) + four), body)
            for i in range(self.down)
        ]
        first = right.stretch() + unit * right.width + column + group
        b = [
            named(f"b{j}", _pair(right, first + COLUMNS * j), body) for j in range(self.right)
        ]
        for number, total in enumerate(self.sums()):
            i, j = divmod(number, self.right)
            name = f"new{i}_{j}"
            body.append(Intrinsic(name, self.operation, (a[i], b[j], total.register)))
            body.append(Assign(total.register.name, E.use(name, total.register)))
        return For("unit", E.index(0), E.index(self.units), tuple(body), step=UNITS)


def _pair(factor: Factor, first: Dim) -> Expr:
    return E.load(factor.memory, E.index(first), (2,), (4 * factor.width,))


# -- rounding to fewer bits ------------------------------------------------------------------


def _nan_kept(x: Expr, rounded: Expr, nan: int) -> Expr:
    return E.select(x.ne(x), E.const(nan, uint32), rounded)


def tf32(x: Expr) -> Expr:
    """Return a float32 rounded to the 10 explicit bits of TF32, ties away from zero."""
    bits = E.bitcast(x, uint32)
    rounded = (bits + 0x1000) & 0xFFFFE000
    return E.bitcast(_nan_kept(x, rounded, 0x7FFFE000), float32)


def bfloat16(x: Expr) -> Expr:
    """Return the bits of a float32 as bfloat16 in a u32, rounded to nearest even."""
    bits = E.bitcast(x, uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return _nan_kept(x, rounded, 0x7FC0)


def float16(x: Expr) -> Expr:
    """Return the bits of a float32 as float16 in a u32, rounded to nearest even.

    Below the smallest normal number the sum with 0.5, whose last bit is float16's, rounds.
    """
    whole = E.bitcast(x, uint32)
    sign, bits = (whole >> 16) & 0x8000, whole & 0x7FFFFFFF
    normal = (bits + 0x0FFF + ((bits >> 13) & 1) - 0x38000000) >> 13
    small = E.bitcast(E.bitcast(bits, float32) + 0.5, uint32) - 0x3F000000
    found = E.select(bits < 0x38800000, small, normal)
    found = E.select(bits >= 0x477FF000, E.const(0x7C00, uint32), found)
    return _nan_kept(x, found | sign, 0x7E00)


def _halves(values: Sequence[Expr]) -> Expr:
    low, high = values
    return low | (high << 16)


_TENSOR = {
    "tf32": ("mma_tf32", Unit(float32, 1, lambda v: tf32(v[0]))),
    "bfloat16": ("mma_bf16", Unit(uint32, 2, lambda v: _halves([bfloat16(x) for x in v]))),
    "float16": ("mma_f16", Unit(uint32, 2, lambda v: _halves([float16(x) for x in v]))),
}
"""Precision -> the intrinsic, and what of the factors lies in shared memory."""

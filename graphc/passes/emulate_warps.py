"""What the lanes of a warp compute together, as what each does before and after they meet."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.dim import symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.intrinsics import WARP
from graphc.ir.loop import Assign, Declare, For, Intrinsic, Kernel, Let, Stmt, Store
from graphc.ir.types import DType, float32, uint32

WARP_OF_BLOCK, LANE = "emulated.warp", "emulated.lane"
"""Names of the loop variables of the warps of a block, and of the threads of a warp."""
DEPTH = "emulated.k"


class Exchange:
    """An intrinsic: each lane's statements in front of the cut and behind it.

    Parameters
    ----------
    kernel : Kernel
        It is named in errors.
    stmt : Intrinsic
    lanes : int
        Threads of a warp: fewer than 32 where a block has fewer.
    count : int
        Threads of a block.
    memory : callable
        Makes scratch memory, from a name, a type and a shape.

    Attributes
    ----------
    before, after : list of Stmt
    """

    def __init__(
        self, kernel: Kernel, stmt: Intrinsic, lanes: int, count: int,
        memory: Callable[[str, DType, tuple[int, ...]], Buffer],
    ) -> None:  # fmt: skip
        self.stmt, self.lanes, self.memory = stmt, lanes, memory
        self.before: list[Stmt] = []
        self.after: list[Stmt] = []
        if count % WARP and count > WARP:
            raise CompileError(f"{kernel.name}: {count} threads are no whole number of warps")
        if stmt.operation == "shuffle_xor":
            self.shuffle(*stmt.args)
        elif stmt.operation in _UNPACK and lanes == WARP:
            self.product(*stmt.args)
        else:
            raise CompileError(f"{kernel.name}: {stmt.operation} of {lanes} lanes is not emulated")

    def shuffle(self, value: Expr, distance: Expr) -> None:
        """Read the value of another lane; its own where there is no such lane."""
        name, tile = self.stmt.name, value.tile
        size, strides = prod(tile), E.row_major(tile)
        buffer = self.memory(name, value.dtype, (self.lanes, *tile))
        lane = E.index(symbol(LANE))
        self.before.append(Store(buffer, lane * size, value, strides))
        partner = lane ^ distance
        if self.lanes < WARP:
            partner = E.select(partner < self.lanes, partner, lane)
        self.after.append(Let(name, E.load(buffer, partner * size, tile, strides)))

    def product(self, a: Expr, b: Expr, c: Expr) -> None:
        """Write the factors as matrices, and sum products in the order of their depth."""
        unpack, each = _UNPACK[self.stmt.operation]
        depth = 8 * each
        name = self.stmt.name
        left = self.memory(name, float32, (16, depth))
        right = self.memory(name, float32, (depth, 8))
        group, member, k = symbol(LANE) // 4, symbol(LANE) % 4, symbol(DEPTH)
        register = E.iota(4)
        upper, second = register & 1, register >> 1
        for within in range(each):
            first = member * each + within
            place = E.index(group * depth + first) + upper * (8 * depth) + second * (4 * each)
            self.before += [
                Store(left, place, unpack(a, within)),
                Store(right, E.index(first * 8 + group), unpack(b, within), (32 * each,)),
            ]
        self.before.append(Let(f"{name}.c", c))
        total = E.use(name, c)
        of_left = E.load(left, E.index(group * depth + k) + second * (8 * depth))
        of_right = E.load(right, E.index(k * 8 + 2 * member) + upper)
        added = Assign(name, total + of_left * of_right)
        self.after += [
            Declare(name, E.use(f"{name}.c", c)),
            For(DEPTH, E.index(0), E.index(depth), (added,)),
        ]


def _from_bfloat16(packed: Expr, within: int) -> Expr:
    bits = packed & 0xFFFF0000 if within else packed << 16
    return E.bitcast(bits, float32)


def _from_float16(packed: Expr, within: int) -> Expr:
    """Return numbers of 16 bits in float32: scaled by a power of two, subnormal ones too."""
    half = packed >> 16 if within else packed & 0xFFFF
    scaled = E.bitcast((half & 0x7FFF) << 13, float32) * 2.0**112
    special = scaled >= 65536.0  # infinity or NaN
    bits = E.bitcast(scaled, uint32)
    bits = E.select(special, bits | 0x7F800000, bits)
    return E.bitcast(bits | (half & 0x8000) << 16, float32)


_UNPACK: dict[str, tuple[Callable[[Expr, int], Expr], int]] = {
    "mma_tf32": (lambda value, within: value, 1),
    "mma_bf16": (_from_bfloat16, 2),
    "mma_f16": (_from_float16, 2),
}
"""Product -> how the numbers of a register become float32, and how many it holds."""

"""Scheduled CUDA kernels written by hand: every way in which threads meet."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, symbol
from graphc.ir.expr import Buffer, Const, Expr, index
from graphc.ir.loop import (
    Alloc,
    Assign,
    Barrier,
    Declare,
    Fail,
    For,
    If,
    Intrinsic,
    Kernel,
    Let,
    Stmt,
    Store,
)
from graphc.ir.types import DType, bool_, float32, int64
from graphc.passes.schedule.cuda.grid import BLOCK, THREAD, over_blocks, over_grid

M, N = symbol("m"), symbol("n")
THREADS, BLOCKS = symbol(THREAD), symbol(BLOCK)


def cuda_kernel(
    name: str,
    inputs: Sequence[Buffer],
    output: Buffer,
    body: Sequence[Stmt],
    extent: Dim = 1,
    threads: int = 64,
    shared: Sequence[Buffer] = (),
) -> Kernel:
    """Return a kernel of ``extent`` blocks, over the sizes m and n."""
    plain = Kernel(name, (*inputs, output), 1, ("m", "n"), ())
    (blocks,) = over_blocks(extent, shared, tuple(body), threads)
    return over_grid(plain, extent, blocks)


def double_buffered_sums(threads: int = 64) -> Kernel:
    """Sums of the rows of (m, n): tiles in two buffers, read reversed, then a tree in memory."""
    p0, o0 = Buffer("p0", float32, (M, N)), Buffer("o0", float32, (M,))
    tiles = Buffer("tiles", float32, (2, threads), "shared")
    parts = Buffer("parts", float32, (threads,), "shared")
    total, step, level = E.Use("total", float32), symbol("step"), symbol("level")
    column = symbol("column")
    here = step % 2 * threads
    load = E.load(p0, index(BLOCKS * N + column), mask=index(column) < index(N))
    far = E.load(parts, index(THREADS) + (index(threads // 2) >> index(level)))
    body = (
        Declare("total", E.const(0.0, float32)),
        For("step", index(0), index(ceil_div(N, threads)), (
            Let("column", index(step * threads + THREADS)),
            Store(tiles, index(here + THREADS), load),
            Barrier(),
            Assign("total", total + E.load(tiles, index(here + threads - 1 - THREADS))),
        )),
        Store(parts, index(THREADS), total),
        For("level", index(0), index(threads.bit_length() - 1), (
            Barrier(),
            If(index(THREADS) < (index(threads // 2) >> index(level)), (
                Store(parts, index(THREADS), E.load(parts, index(THREADS)) + far),
            )),
        )),
        If(index(THREADS).eq(0), (Store(o0, index(BLOCKS), E.load(parts, index(0))),)),
    )  # fmt: skip
    return cuda_kernel("sums", (p0,), o0, body, M, threads, (tiles, parts))


def butterfly(dtype: DType = float32, tile: tuple[int, ...] = (), threads: int = 64) -> Kernel:
    """Sums over the lanes of each warp, for m blocks of threads that hold a tile each."""
    lanes, size = min(threads, 32), 4 if tile else 1
    p0, o0 = (Buffer(n, dtype, (M * threads * size,)) for n in ("p0", "o0"))
    place = index((BLOCKS * threads + THREADS) * size)
    strides = (1,) if tile else ()
    found: Expr = E.load(p0, place, tile, strides)
    body: list[Stmt] = []
    distance = lanes // 2
    while distance:
        body += [
            Let(f"own{distance}", found),
            Intrinsic(f"far{distance}", "shuffle_xor",
                      (E.use(f"own{distance}", found), index(distance))),
        ]  # fmt: skip
        op = "or" if dtype is bool_ else "add"
        found = E.apply(op, E.use(f"own{distance}", found), E.use(f"far{distance}", found))
        distance //= 2
    body.append(Store(o0, place, found, strides))
    return cuda_kernel("butterfly", (p0,), o0, body, M, threads)


def far_lanes(threads: int) -> Kernel:
    """The value of the lane 16 away, of blocks with fewer lanes than that, or with more."""
    p0, o0 = (Buffer(n, float32, (threads,)) for n in ("p0", "o0"))
    own = E.load(p0, index(THREADS))
    body = (
        Intrinsic("far", "shuffle_xor", (own, index(16))),
        Store(o0, index(THREADS), E.use("far", own)),
    )
    return cuda_kernel("far", (p0,), o0, body, 1, threads)


def fragments(operation: str, dtype: DType, warps: int = 2) -> Kernel:
    """``a @ b + a @ b + c`` of registers that lie in memory thread by thread."""
    a, b = (Buffer(n, dtype, (warps * 32, k)) for n, k in (("a", 4), ("b", 2)))
    c, o0 = (Buffer(n, float32, (warps * 32, 4)) for n in ("c", "o0"))
    of_a, of_b, of_c = (
        E.load(x, index(THREADS * k), (k,), (1,)) for x, k in ((a, 4), (b, 2), (c, 4))
    )
    once = E.use("once", of_c)
    body = (
        Let("left", of_a),
        Intrinsic("once", operation, (E.use("left", of_a), of_b, of_c)),
        Intrinsic("twice", operation, (E.use("left", of_a), of_b, once)),
        Store(o0, index(THREADS * 4), E.use("twice", of_c), (1,)),
    )
    return cuda_kernel("fragments", (a, b, c), o0, body, 1, warps * 32)


def kept_registers(threads: int = 32) -> Kernel:
    """Values of all kinds that live through barriers."""
    p0, o0 = (Buffer(n, float32, (M * threads, 2, 4)) for n in ("p0", "o0"))
    own = Buffer("own", float32, (2, 4), "stack")
    place = symbol("place")
    tile = E.load(p0, index(place * 8), (2, 4), (4, 1))
    acc = E.Use("acc", float32, (2, 4))
    even, first = E.Use("even", bool_), symbol("first")
    body = (
        Alloc(own),
        Let("place", index(BLOCKS * threads + THREADS)),
        Let("unused", tile),
        Declare("acc", Const(1.0, float32, (2, 4))),
        Let("even", index(THREADS % 2).eq(0)),
        Let("first", E.select(even, index(0), index(1))),
        Store(own, index(0), tile, (4, 1)),
        Barrier(),
        For("k", index(0), index(3), (
            If(even, (Assign("acc", acc + tile),), (Assign("acc", acc * 2.0),)),
            Barrier(),
            Assign("acc", acc - 0.5),
        )),
        Barrier(),
        For("k", index(first), index(2), (
            Store(o0, index(place * 8), acc + E.load(own, index(0), (2, 4), (4, 1)), (4, 1)),
        )),
    )  # fmt: skip
    return cuda_kernel("kept", (p0,), o0, body, M, threads)


def warp_rows(threads: int = 64) -> Kernel:
    """Sums of the rows of (m, n), a warp for each; warps behind the last row do nothing."""
    p0, o0 = Buffer("p0", float32, (M, N)), Buffer("o0", float32, (M,))
    warps = threads // 32
    row, lane, turn = symbol("row"), symbol("lane"), symbol("turn")
    total = E.Use("total", float32)
    meet = [
        s for d in (16, 8, 4, 2, 1) for s in (
            Intrinsic(f"far{d}", "shuffle_xor", (total, index(d))),
            Assign("total", total + E.Use(f"far{d}", float32)),
        )
    ]  # fmt: skip
    body = (
        Let("row", index(BLOCKS * warps + THREADS // 32)),
        Let("lane", index(THREADS % 32)),
        If(index(row) < index(M), (
            Declare("total", E.const(0.0, float32)),
            For("turn", index(lane), index(N), (
                Assign("total", total + E.load(p0, index(row * N + turn))),
            ), 32),
            *meet,
            If(index(lane).eq(0), (Store(o0, index(row), total),)),
        )),
    )  # fmt: skip
    return cuda_kernel("warp_rows", (p0,), o0, body, ceil_div(M, warps), threads)


def first_warp(threads: int = 128) -> Kernel:
    """Sums of blocks of threads: by each warp, and then, through memory, by the first warp."""
    p0, o0 = Buffer("p0", float32, (M, threads)), Buffer("o0", float32, (M,))
    parts = Buffer("parts", float32, (32,), "shared")

    def meet(name: str) -> list[Stmt]:
        own = E.Use(name, float32)
        return [
            s for d in (16, 8, 4, 2, 1) for s in (
                Intrinsic(f"{name}{d}", "shuffle_xor", (own, index(d))),
                Assign(name, own + E.Use(f"{name}{d}", float32)),
            )
        ]  # fmt: skip

    warps = threads // 32
    body = (
        Declare("own", E.load(p0, index(BLOCKS * threads + THREADS))),
        *meet("own"),
        If(index(THREADS % 32).eq(0), (
            Store(parts, index(THREADS // 32), E.Use("own", float32)),
        )),
        Barrier(),
        If(index(THREADS) < index(32), (
            Declare("all", E.load(parts, index(THREADS), mask=index(THREADS) < index(warps))),
            *meet("all"),
            If(index(THREADS).eq(0), (Store(o0, index(BLOCKS), E.Use("all", float32)),)),
        )),
    )  # fmt: skip
    return cuda_kernel("first_warp", (p0,), o0, body, M, threads, (parts,))


def chosen(condition: Expr, threads: int = 64, named: bool = True) -> Kernel:
    """The block's elements reversed through shared memory where a condition holds."""
    flags = Buffer("flags", float32, (M,))
    p0, o0 = (Buffer(n, float32, (M, threads)) for n in ("p0", "o0"))
    tile = Buffer("tile", float32, (threads,), "shared")
    place = index(BLOCKS * threads + THREADS)
    body = (
        Let("odd", index(THREADS % 2)),
        Let("choice", condition),
        If(E.use("choice", condition) if named else condition, (
            Store(tile, index(THREADS), E.load(p0, place)),
            Barrier(),
            Store(o0, place, E.load(tile, index(threads - 1 - THREADS))),
        ), (
            Store(o0, place, E.load(p0, place)),
        )),
    )  # fmt: skip
    return cuda_kernel("chosen", (flags, p0), o0, body, M, threads, (tile,))


def failing(threads: int = 64) -> Kernel:
    """The element that an index names, from shared memory; fails where there is none."""
    ids = Buffer("ids", int64, (M, threads))
    o0 = Buffer("o0", int64, (M, threads))
    tile = Buffer("tile", int64, (threads,), "shared")
    place = index(BLOCKS * threads + THREADS)
    at = E.use("at", index(THREADS))
    body = (
        Store(tile, index(THREADS), E.load(ids, place) * 2),
        Let("at", E.load(ids, place)),
        Barrier(),
        If((at < 0) | (at >= threads), (Fail(7, (at, index(BLOCKS), index(THREADS))),)),
        Store(o0, place, E.load(tile, at)),
    )
    return cuda_kernel("failing", (ids,), o0, body, M, threads, (tile,))

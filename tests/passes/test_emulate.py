"""CUDA kernels as loops of the CPU: what threads do between the places where they meet."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from codegen.scheduled_kernels import run_both, run_native
from cuda_kernels import (
    BLOCKS,
    THREADS,
    M,
    N,
    butterfly,
    chosen,
    cuda_kernel,
    double_buffered_sums,
    failing,
    far_lanes,
    first_warp,
    fragments,
    kept_registers,
    warp_rows,
)

from graphc import config
from graphc.codegen.compiler import ENGINES
from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.dim import evaluate
from graphc.ir.expr import Buffer, index
from graphc.ir.intrinsics import INTRINSICS
from graphc.ir.loop import Alloc, Barrier, Bind, Declare, For, If, Intrinsic, Kernel, Let, Store
from graphc.ir.statements import statements
from graphc.ir.types import DType, bool_, float32, float64, int32, uint32
from graphc.ir.verify import verify_kernel
from graphc.passes.emulate import emulate
from graphc.passes.emulate_threads import APART


def run(kernel: Kernel, arrays: list[np.ndarray], m: int = 1, n: int = 1) -> np.ndarray:
    """Run a CUDA kernel on the CPU, compiled and as Python."""
    loops = emulate(kernel)
    verify_kernel(loops)
    sizes = {"m": m, "n": n}
    output = loops.params[-1]
    shape = [evaluate(d, sizes) for d in output.shape]
    result = np.full(shape, 77, output.dtype.numpy)
    blocks = evaluate(loops.extent, sizes)
    (found,) = run_both(loops, [*arrays, result], [m, n], 0, blocks)
    return found


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("threads", [8, 64])
@pytest.mark.parametrize("n", [1, 64, 200])
def test_double_buffered_tiles(threads: int, n: int) -> None:
    x = normal(3, n)
    found = run(double_buffered_sums(threads), [x], 3, n)
    np.testing.assert_allclose(found, x.sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree(engine: str) -> None:
    with config.options(engine=engine):
        run(double_buffered_sums(16), [normal(3, 100)], 3, 100)
        run(kept_registers(), [normal(2 * 32, 2, 4)], 2)
        run(fragments("mma_f16", uint32), [halves(64, 4), halves(64, 2), normal(64, 4)])


@pytest.mark.parametrize("dtype", [float32, float64, int32, bool_], ids=str)
@pytest.mark.parametrize("threads", [4, 32, 64])
def test_butterfly(dtype: DType, threads: int) -> None:
    x = (normal(2 * threads) * 4).astype(dtype.numpy)
    found = run(butterfly(dtype, (), threads), [x], 2)
    lanes = x.reshape(-1, min(threads, 32))
    expected = lanes.any(1) if dtype is bool_ else lanes.sum(1)
    expected = np.repeat(expected, lanes.shape[1])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_butterfly_of_vectors() -> None:
    x = normal(2 * 64 * 4)
    found = run(butterfly(float32, (4,)), [x], 2).reshape(4, 32, 4)
    expected = x.reshape(4, 32, 4).sum(1, keepdims=True)
    np.testing.assert_allclose(found, np.broadcast_to(expected, (4, 32, 4)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [8, 24, 32])
def test_lanes_that_do_not_exist_are_not_read(threads: int) -> None:
    x = normal(threads)
    lane = np.arange(threads)
    partner = np.where(lane ^ 16 < threads, lane ^ 16, lane)
    np.testing.assert_array_equal(run(far_lanes(threads), [x]), x[partner])


def halves(*shape: int) -> np.ndarray:
    """Pairs of 16-bit numbers: finite ones as halves and as bfloat16, subnormal ones too."""
    bits = np.random.default_rng(sum(shape)).integers(0, 1 << 16, (*shape, 2), np.uint32)
    bits &= 0xBBFF
    bits[0, 0] = 0x0001, 0x83FF
    return bits[..., 0] | bits[..., 1] << 16


@pytest.mark.parametrize("operation", ["mma_tf32", "mma_bf16", "mma_f16"])
def test_products_are_those_of_the_references(operation: str) -> None:
    wide = operation == "mma_tf32"
    a, b = (normal(64, k) if wide else halves(64, k) for k in (4, 2))
    c = normal(64, 4)
    found = run(fragments(operation, float32 if wide else uint32), [a, b, c])
    reference = INTRINSICS[operation].reference
    for warp in (slice(0, 32), slice(32, 64)):
        once = reference(a[warp], b[warp], c[warp])
        np.testing.assert_array_equal(found[warp], reference(a[warp], b[warp], once))


def test_halves_may_be_infinite() -> None:
    a, b, c = halves(32, 4), np.full((32, 2), 0x3C003C00, np.uint32), normal(32, 4)
    a[0, 0], a[4, 0] = 0x7C00, 0x7E00
    found = run(fragments("mma_f16", uint32, warps=1), [a, b, c])
    reference = INTRINSICS["mma_f16"].reference
    np.testing.assert_array_equal(found, reference(a, b, reference(a, b, c)))


def test_registers_live_through_barriers() -> None:
    x = normal(2 * 32, 2, 4)
    found = run(kept_registers(), [x], 2)
    even = (np.arange(64) % 2 == 0)[:, None, None]
    acc = np.ones_like(x)
    for _ in range(3):
        acc = np.where(even, acc + x, acc * 2) - np.float32(0.5)
    np.testing.assert_array_equal(found, acc + x)


def test_only_what_is_used_behind_a_cut_is_kept() -> None:
    made = [s.buffer for s in statements(emulate(kept_registers()).body) if isinstance(s, Alloc)]
    shapes = {re.sub(r"\.\d+", "", b.name): b.shape for b in made}
    assert shapes == {"own": (32, 2, 4), "acc": (32, 2, 4), "even": (32,), "first": (32,)}


@pytest.mark.parametrize("m", [1, 2, 5])
def test_warps_take_branches_of_their_own(m: int) -> None:
    x = normal(m, 45)
    np.testing.assert_allclose(run(warp_rows(), [x], m, 45), x.sum(1), rtol=1e-4, atol=1e-4)


def test_the_first_warp_meets_by_itself() -> None:
    x = normal(3, 128)
    np.testing.assert_allclose(run(first_warp(), [x], 3), x.sum(1), rtol=1e-4, atol=1e-5)


FLAGS = E.load(Buffer("flags", float32, (M,)), index(BLOCKS))


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (index(N) > index(1), lambda block, n, flags: n > 1),
        (index((BLOCKS + N) % 2).eq(0), lambda block, n, flags: (block + n) % 2 == 0),
        (FLAGS > 0.0, lambda block, n, flags: flags[block] > 0),
    ],
    ids=["size", "block", "input"],
)
@pytest.mark.parametrize("n", [1, 2])
def test_all_threads_take_a_branch_alike(
    condition: E.Expr, holds: Callable[..., bool], n: int
) -> None:
    flags, x = normal(4), normal(4, 64)
    found = run(chosen(condition), [flags, x], 4, n)
    for block in range(4):
        expected = x[block, ::-1] if holds(block, n, flags) else x[block]
        np.testing.assert_array_equal(found[block], expected)


@pytest.mark.parametrize(
    "condition",
    [
        index(THREADS) < index(32),
        E.use("odd", index(0)).eq(0),
        E.load(Buffer("flags", float32, (M,)), index(THREADS)) > 0.0,
    ],
    ids=["thread", "register", "input"],
)
def test_a_barrier_under_a_branch_of_some_threads_is_an_error(condition: E.Expr) -> None:
    with pytest.raises(CompileError, match="chosen has a barrier in a branch that threads of one"):
        emulate(chosen(condition, named=False))


@pytest.mark.parametrize("apart", [False, True])
def test_a_branch_that_index_arithmetic_does_not_decide(apart: bool) -> None:
    flags, x = np.array([1, -1], np.float32), normal(2, 64)
    place = index(THREADS % 2) if apart else index(BLOCKS)
    value = E.load(Buffer("flags", float32, (M,)), place)
    plain = chosen(E.use("own", value) > 0.0)
    body = (Declare("own", value), *_threads(plain).body)
    shared = [s.buffer for s in statements(plain.body) if isinstance(s, Alloc)]
    kernel = cuda_kernel("k", plain.params[:-1], plain.params[-1], body, M, 64, shared)
    if not apart:
        np.testing.assert_array_equal(run(kernel, [flags, x], 2), [x[0, ::-1], x[1]])
        return
    error: list[int] = []
    assert run_native(emulate(kernel), [flags, x, x.copy()], [2, 1], 0, 2, error) == 1
    assert error[:2] == [APART, 1]


def test_an_intrinsic_in_a_loop_of_some_lanes_is_an_error() -> None:
    p0, o0 = (Buffer(n, float32, (64,)) for n in ("p0", "o0"))
    own = E.load(p0, index(THREADS))
    loop = For("k", index(0), index(THREADS), (Intrinsic("far", "shuffle_xor", (own, index(1))),))
    with pytest.raises(CompileError, match="odd has an intrinsic in a loop that threads of one"):
        emulate(cuda_kernel("odd", (p0,), o0, (loop,)))


def test_products_need_whole_warps() -> None:
    kernel = fragments("mma_tf32", float32, warps=1)
    few = cuda_kernel("few", kernel.params[:-1], kernel.params[-1], _threads(kernel).body, 1, 16)
    with pytest.raises(CompileError, match="few: mma_tf32 of 16 lanes"):
        emulate(few)


def _threads(kernel: Kernel) -> For:
    (found,) = (s for s in statements(kernel.body) if getattr(s, "bind", None) is Bind.THREAD)
    return found


def test_a_failure_is_that_of_a_thread() -> None:
    ids = np.random.default_rng(0).integers(0, 64, (3, 64))
    expected = np.take_along_axis(ids * 2, ids, 1)
    np.testing.assert_array_equal(run(failing(), [ids], 3), expected)
    ids[1, 5] = 64
    error: list[int] = []
    loops = emulate(failing())
    assert run_native(loops, [ids, np.zeros_like(ids)], [3, 1], 0, 3, error) == 1
    assert error[:4] == [7, 64, 1, 5]


def test_no_axis_is_left() -> None:
    for kernel in (first_warp(), kept_registers(), butterfly()):
        for stmt in statements(emulate(kernel).body):
            assert not isinstance(stmt, Barrier | Intrinsic)
            assert getattr(stmt, "bind", Bind.SERIAL) is Bind.SERIAL


def test_branches_around_blocks_and_names_in_front_stay() -> None:
    p0, o0 = (Buffer(n, float32, (M, 64)) for n in ("p0", "o0"))
    place = index(BLOCKS * 64 + THREADS)
    scale = E.load(p0, index(0))
    inner = cuda_kernel("x", (p0,), o0, (
        Let("part", E.load(p0, place)),
        Barrier(),
        Store(o0, place, E.use("part", scale) * E.use("scale", scale)),
    ), M)  # fmt: skip
    body = (Let("scale", scale), If(index(N) > index(1), inner.body, inner.body))
    kernel = Kernel("x", inner.params, 1, ("m", "n"), body, M)
    x = normal(2, 64)
    np.testing.assert_array_equal(run(kernel, [x], 2), x * x[0, 0])

"""Threads in step: the results of CUDA kernels written by hand, and each fault that is found."""

from __future__ import annotations

import re

import numpy as np
import pytest
from cuda_kernels import (
    BLOCKS,
    THREADS,
    M,
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

from graphc.errors import IndexRangeError, VerifyError
from graphc.ir import expr as E
from graphc.ir.dim import evaluate
from graphc.ir.expr import Buffer, Expr, index
from graphc.ir.lockstep import Failure, run_in_step
from graphc.ir.loop import (
    Alloc,
    Assign,
    Barrier,
    Declare,
    For,
    If,
    Intrinsic,
    Kernel,
    Let,
    Stmt,
    Store,
)
from graphc.ir.types import bool_, float32, int64, uint32

P0, O0 = (Buffer(name, float32, (M, 64)) for name in ("p0", "o0"))
TILE = Buffer("tile", float32, (64,), "shared")
HERE = index(BLOCKS * 64 + THREADS)


def run(kernel: Kernel, arrays: list[np.ndarray], m: int = 1, n: int = 1) -> np.ndarray:
    output = kernel.params[-1]
    shape = [evaluate(d, {"m": m, "n": n}) for d in output.shape]
    result = np.full(shape, 77, output.dtype.numpy)
    assert run_in_step(kernel, [*arrays, result], [m, n]) is None
    return result


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# -- kernels without faults --------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 64, 200])
def test_double_buffered_tiles(n: int) -> None:
    x = normal(3, n)
    close(run(double_buffered_sums(), [x], 3, n), x.sum(1))


def test_more_blocks_than_run_at_once() -> None:
    x = normal(700, 20)
    close(run(double_buffered_sums(16), [x], 700, 20), x.sum(1))


def test_warps() -> None:
    x = normal(5, 45)
    close(run(warp_rows(), [x], 5, 45), x.sum(1))
    x = normal(3, 128)
    close(run(first_warp(), [x], 3), x.sum(1))
    x = normal(2 * 64)
    close(run(butterfly(), [x], 2).reshape(-1, 32)[:, 0], x.reshape(-1, 32).sum(1))
    x = normal(2 * 64 * 4)
    expected = np.repeat(x.reshape(4, 32, 4).sum(1), 32, 0)
    close(run(butterfly(float32, (4,)), [x], 2).reshape(-1, 4), expected)
    assert run(butterfly(bool_), [x[:128] > 3], 2).any()
    np.testing.assert_array_equal(run(far_lanes(8), [x[:8]]), x[:8])


@pytest.mark.parametrize("operation", ["mma_tf32", "mma_f16"])
def test_products(operation: str) -> None:
    wide = operation == "mma_tf32"
    a, b = (normal(64, k) if wide else np.full((64, k), 0x3C004000, np.uint32) for k in (4, 2))
    found = run(fragments(operation, float32 if wide else uint32), [a, b, normal(64, 4)])
    assert np.isfinite(found).all()


def test_registers_of_branches_and_loops() -> None:
    x = normal(2 * 32, 2, 4)
    even = (np.arange(64) % 2 == 0)[:, None, None]
    acc = np.ones_like(x)
    for _ in range(3):
        acc = np.where(even, acc + x, acc * 2) - np.float32(0.5)
    found = run(kept_registers(), [x], 2)
    close(found[1::2], (acc + x)[1::2])
    close(found[0::2], (acc + x)[0::2])


def test_a_failure_is_that_of_a_thread() -> None:
    ids = np.random.default_rng(0).integers(0, 64, (3, 64))
    np.testing.assert_array_equal(run(failing(), [ids], 3), np.take_along_axis(ids * 2, ids, 1))
    ids[1, 5] = 64
    failure = run_in_step(failing(), [ids, np.zeros_like(ids)], [3, 1])
    assert failure == Failure(7, (64, 1, 5))


# -- faults --------------------------------------------------------------------------------------


def fault(
    body: tuple[Stmt, ...], shared: tuple[Buffer, ...] = (TILE,), m: int = 2, inplace: bool = False
) -> str:
    """Return what is wrong with a kernel of ``m`` blocks of 64 threads."""
    kernel = cuda_kernel("k", (P0,), O0, body, M, 64, shared)
    x = normal(m, 64)
    with pytest.raises((VerifyError, IndexRangeError)) as caught:
        run_in_step(kernel, [x, x if inplace else x.copy()], [m, 1])
    return re.sub(r"\n.*", "", str(caught.value))


OWN = E.load(P0, HERE)
BACK = E.load(TILE, index(63 - THREADS))


def test_a_missing_barrier() -> None:
    body = (Store(TILE, index(THREADS), OWN), Store(O0, HERE, BACK))
    assert fault(body) == (
        "k: a race at shared tile[63]: thread 0 of block 0 reads what thread 63 of block 0 writes"
    )


def test_a_missing_barrier_before_the_next_turn() -> None:
    turns = For("t", index(0), index(2), (
        Store(TILE, index(THREADS), OWN), Barrier(), Store(O0, HERE, BACK),
    ))  # fmt: skip
    assert fault((turns,)) == (
        "k: a race at shared tile[0]: thread 0 of block 0 writes what thread 63 of block 0 reads"
    )


def test_two_threads_of_a_block_write_one_element() -> None:
    body = (Store(TILE, index(THREADS // 2), OWN),)
    assert "a race at shared tile[0]: thread 0 of block 0 writes what thread 1" in fault(body)
    body = (Store(O0, index(BLOCKS * 64 + THREADS % 32), OWN),)
    assert "a race at o0[0]: thread 0 of block 0 writes what thread 32" in fault(body)


def test_one_writes_what_several_have_read() -> None:
    everyone = E.load(TILE, index(0), (64,), (1,))
    body = (
        Store(TILE, index(THREADS), OWN),
        Barrier(),
        Let("sum", E.fold("add", everyone)),
        If(index(THREADS).eq(63), (Store(TILE, index(63), E.use("sum", OWN)),)),
    )
    assert "thread 63 of block 0 writes what thread 63" in fault(body)


def test_blocks_overlap() -> None:
    body = (Store(O0, index(BLOCKS * 32 + THREADS), OWN),)
    assert fault(body) == (
        "k: a race at o0[32]: thread 32 of block 0 writes what thread 0 of block 1 writes"
    )
    body = (Barrier(), Store(O0, index(THREADS), OWN))
    assert "thread 0 of block 0 writes what thread 0 of block 1 writes" in fault(body)


def test_blocks_that_do_not_run_at_once_overlap() -> None:
    body = (Store(O0, index(BLOCKS % 200 * 64 + THREADS), OWN),)
    assert "thread 0 of block 200 writes what thread 0 of block 0" in fault(body, m=201)


def test_a_block_reads_what_another_one_writes() -> None:
    far = E.load(O0, index((1 - BLOCKS) * 64 + THREADS))
    body = (If(index(BLOCKS).eq(0), (Store(O0, HERE, OWN),)), Barrier(), Let("far", far))
    assert fault(body) == (
        "k: a race at o0[0]: thread 0 of block 1 reads what thread 0 of block 0 writes"
    )


def test_a_result_in_the_place_of_an_operand() -> None:
    body = (Store(O0, HERE, E.load(P0, index(BLOCKS * 64 + 63 - THREADS))),)
    assert "writes what thread 63 of block 0 reads" in fault(body, inplace=True)
    kernel = cuda_kernel("k", (P0,), O0, (Store(O0, HERE, OWN * 2.0),), M)
    x = normal(2, 64)
    expected = x * 2
    assert run_in_step(kernel, [x, x], [2, 1]) is None
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(
    ("stmt", "message"),
    [
        (Store(O0, index(BLOCKS * 64 + THREADS + 1), OWN),
         "thread 63 of block 1 writes o0[128], which has 128 elements"),
        (Store(O0, HERE, E.load(P0, index(BLOCKS * 64 + THREADS - 1))),
         "thread 0 of block 0 reads p0[-1], which has 128 elements"),
        (Store(TILE, index(THREADS * 2), OWN),
         "thread 32 of block 0 writes tile[64], which has 64 elements"),
        (Store(O0, index(BLOCKS * 64), E.load(P0, index(THREADS * 2), (4,), (1,)), (1,)),
         "thread 63 of block 0 reads p0[128], which has 128 elements"),
        (Store(O0, index(0), OWN, mask=index(THREADS) < index(-1)), ""),
        (Store(O0, index(THREADS + 100) + E.iota(2), OWN, mask=index(THREADS) < index(28)),
         "thread 27 of block 0 writes o0[128], which has 128 elements"),
    ],
    ids=["store", "load", "shared", "vector", "masked", "scatter"],
)  # fmt: skip
def test_out_of_bounds(stmt: Stmt, message: str) -> None:
    kernel = cuda_kernel("k", (P0,), O0, (stmt,), M, 64, (TILE,))
    x = normal(2, 64)
    if not message:
        assert run_in_step(kernel, [x, x.copy()], [2, 1]) is None
        return
    with pytest.raises(IndexRangeError, match=re.escape(f"k: {message}")):
        run_in_step(kernel, [x, x.copy()], [2, 1])


def test_scratch_of_a_thread_has_bounds() -> None:
    own = Buffer("own", float32, (4,), "stack")
    body = (Alloc(own), Store(own, index(THREADS // 8), OWN))
    assert fault(body) == "k: thread 32 of block 0 writes own[4], which has 4 elements"


def test_shared_memory_that_is_not_written() -> None:
    body = (
        If(index(THREADS) < index(60), (Store(TILE, index(THREADS), OWN),)),
        Barrier(),
        Store(O0, HERE, BACK),
    )
    assert fault(body) == "k: shared tile[63] is read by thread 0 of block 0, but not written"


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (index(THREADS) < index(40), "40 of 64 threads of block 0 come to a barrier"),
        (index(BLOCKS * 64 + THREADS) < index(70), "6 of 64 threads of block 1 come to a barrier"),
    ],
    ids=["every block", "the last block"],
)
def test_a_barrier_that_some_threads_miss(condition: Expr, message: str) -> None:
    assert fault((If(condition, (Barrier(),)),)) == f"k: {message}"


def test_a_loop_that_some_threads_leave_before_a_barrier() -> None:
    body = (For("t", index(0), index(1 + THREADS // 63), (Barrier(),)),)
    assert fault(body) == "k: 1 of 64 threads of block 0 come to a barrier"


def test_an_intrinsic_that_some_lanes_miss() -> None:
    meet = Intrinsic("far", "shuffle_xor", (OWN, index(1)))
    half = If(index(THREADS) < index(48), (meet,))
    assert fault((half,)) == "k: 16 of 32 threads of a warp of block 0 come to shuffle_xor"
    kernel = cuda_kernel("k", (P0,), O0, (If(index(THREADS) < index(32), (meet,)),), M)
    assert run_in_step(kernel, [normal(2, 64), normal(2, 64)], [2, 1]) is None


def test_a_branch_that_only_values_make_uniform() -> None:
    flags = np.array([1, -1, 2], np.float32)
    x = normal(3, 64)
    choice = E.load(Buffer("flags", float32, (M,)), index(BLOCKS)) > 0.0
    found = run(chosen(choice), [flags, x], 3)
    close(found, np.where(flags[:, None] > 0, x[:, ::-1], x))


def test_registers_keep_their_values_when_others_change() -> None:
    acc, copy = E.Use("acc", int64), E.Use("copy", int64)
    out = Buffer("o0", int64, (M, 64))
    body = (
        Declare("acc", index(THREADS * 2)),
        Let("copy", acc),
        If(index(THREADS).eq(0), (Assign("acc", acc + 10),)),
        Store(out, HERE, acc * 100 + copy),
    )
    found = run(cuda_kernel("k", (), out, body, M), [])
    np.testing.assert_array_equal(found[0, :2], [1000, 202])

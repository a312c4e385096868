"""Reductions of few results on CUDA: chunks of the terms in one grid, folded in the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from cuda_checks import run_plan_in_step
from test_cuda_ptx import MODELS
from test_cuda_sizes import PRODUCTS, ROWS, K, M, N, draw, graph, races, without_barrier

from graphc import config
from graphc.codegen.cuda import cuda_target
from graphc.ir.dim import evaluate, symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.loop import Barrier
from graphc.ir.operand import REGISTRY as R
from graphc.ir.plan import LaunchSpec, Plan
from graphc.ir.statements import statements
from graphc.ir.types import TensorType, float32
from graphc.passes.emulate import emulated
from graphc.passes.manager import compile_graph
from graphc.passes.schedule.cuda import chunks
from graphc.runtime.program import Program

TARGET = cuda_target("sm_90")
B, H = symbol("B"), symbol("H")


def statistics() -> Graph:
    """Return sums that belong together, over batch and image."""
    x = placeholder("x", TensorType(float32, (B, 5, H, H)))
    mean = R["mean"](x, axis=(0, 2, 3), keepdims=True)
    off = x - mean
    return Graph("statistics", (x,), (mean, off * R["rsqrt"](R["mean"](off * off, axis=(0, 2, 3),
                 keepdims=True) + 1e-5)))  # fmt: skip


def two_sums() -> Graph:
    """Return two independent sums of one array."""
    x, y = (placeholder(name, TensorType(float32, (M, N))) for name in "xy")
    return Graph("two", (x, y), (R["sum"](x * y, axis=1), R["sum"](x, axis=1)))


GRAPHS = {
    "matmul": (PRODUCTS["matmul"][0], [{"M": 0, "K": 3, "N": 2}, {"M": 2, "K": 0, "N": 3},
               {"M": 1, "K": 1, "N": 1}, {"M": 70, "K": 601, "N": 67},
               {"M": 3, "K": 640, "N": 68}]),
    "conv": (PRODUCTS["conv"][0], [{"B": 1, "H": 5}, {"B": 3, "H": 14}]),
    "transposed": (PRODUCTS["transposed"][0], [{"M": 12, "K": 512, "N": 3}]),
    "softmax": (ROWS["softmax"][0], [{"M": m, "N": n} for m, n in ((1, 1), (3, 7), (2, 1300))]),
    "layer_norm": (ROWS["layer_norm"][0], [{"M": 1, "N": 8}, {"M": 3, "N": 1028}]),
    "columns": (ROWS["columns"][0], [{"M": m, "N": n} for m, n in ((0, 3), (1, 1), (200, 70))]),
    "all": (ROWS["all"][0], [{"M": 1, "N": 1}, {"M": 3, "N": 1001}, {"M": 70, "N": 128}]),
    "middle": (ROWS["middle"][0], [{"B": 3, "M": 40, "N": 5}]),
    "statistics": (statistics(), [{"B": 1, "H": 1}, {"B": 3, "H": 9}]),
    "two": (two_sums(), [{"M": 2, "N": 1}, {"M": 3, "N": 500}]),
}  # fmt: skip


def chunked(whole: Graph, count: int, patch: pytest.MonkeyPatch) -> Plan:
    """Return the program of a graph with so many chunks in each reduction."""
    patch.setattr(chunks, "chunk_count", lambda *given: count)
    return compile_graph(whole, TARGET)


@pytest.mark.parametrize("count", [3, 20])
@pytest.mark.parametrize("name", GRAPHS)
def test_chunks_of_all_sizes(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes = GRAPHS[name]
    plan = chunked(whole, count, monkeypatch)
    assert {launch.part for launch in plan.launches} >= {"fold"}
    program = Program(emulated(plan))
    for bound in sizes:
        arrays = draw(whole, bound)
        found = run_plan_in_step(plan, arrays)
        assert isinstance(found, list)
        expected = interpret(whole, arrays, bound)
        for one, other, wanted in zip(program(arrays), found, expected, strict=True):
            limit = 1e-5 * float(np.abs(wanted).max(initial=1.0))
            for result in one, other:
                np.testing.assert_allclose(result, wanted, rtol=0, atol=limit, err_msg=str(bound))


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_chunks_on_tensor_cores(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "chunk_count", lambda *given: 4)
    whole = PRODUCTS["matmul"][0]
    with config.options(matmul_precision=precision):
        plan = compile_graph(whole, cuda_target("sm_90"))
    assert [launch.part for launch in plan.launches] == ["parts", "fold"]
    arrays = draw(whole, {"M": 70, "K": 301, "N": 67})
    (found,) = Program(emulated(plan))(arrays)
    np.testing.assert_allclose(found, arrays[0] @ arrays[1], rtol=0, atol=0.5)
    run_plan_in_step(plan, arrays)


@pytest.mark.parametrize(("name", "count"), [("matmul", 20), ("softmax", 3), ("columns", 20)])
def test_every_barrier_is_needed(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes = GRAPHS[name]
    plan = chunked(whole, count, monkeypatch)
    for number, launch in enumerate(plan.launches):
        barriers = sum(isinstance(s, Barrier) for s in statements(launch.kernel.body))
        for barrier in range(barriers):
            changed = list(plan.launches)
            changed[number] = replace(launch, kernel=without_barrier(launch.kernel, barrier))
            faulty = replace(plan, launches=tuple(changed))
            assert any(races(faulty, draw(whole, bound)) for bound in sizes)


def test_results_do_not_depend_on_the_order_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes = GRAPHS["layer_norm"]
    program = Program(emulated(chunked(whole, 20, monkeypatch)))
    arrays = draw(whole, sizes[-1])
    found = []
    for threads in 1, 2, 2:
        with config.options(threads=threads):
            found.append(program(arrays)[0])
    assert all(np.array_equal(found[0], other) for other in found[1:])


# -- how many chunks there are ---------------------------------------------------------------


def running(plan: Plan, sizes: dict[str, int]) -> Iterator[tuple[LaunchSpec, int]]:
    """Yield the launches of a program at these sizes, and their blocks."""
    for launch in plan.launches:
        own = zip(launch.kernel.sizes, launch.sizes, strict=True)
        blocks = evaluate(launch.kernel.extent, {name: evaluate(d, sizes) for name, d in own})
        if blocks:
            yield launch, blocks


def blocks_of(whole: Graph, sizes: dict[str, int]) -> list[tuple[str, int]]:
    """Return part and blocks of each launch of a program at these sizes."""
    plan = compile_graph(whole, TARGET)
    return [(launch.part, blocks) for launch, blocks in running(plan, sizes)]


def test_a_large_sum_is_shared_by_all_multiprocessors() -> None:
    ((parts, blocks), (fold, last)) = blocks_of(ROWS["all"][0], {"M": 1000, "N": 2000})
    assert (parts, fold) == ("parts", "fold") and blocks == 2 * TARGET.cores and last == 1


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("matmul", {"M": 20, "K": 200_000, "N": 30}),
        ("transposed", {"M": 128, "K": 65_536, "N": 128}),
        ("columns", {"M": 40_000, "N": 64}),
        ("statistics", {"B": 64, "H": 56}),
    ],
)  # fmt: skip
def test_few_results_of_many_terms_keep_multiprocessors_busy(
    name: str, sizes: dict[str, int]
) -> None:
    *parts, (last, _) = blocks_of(GRAPHS[name][0], sizes)
    assert last == "fold" and parts
    assert all(TARGET.cores <= blocks <= 2 * TARGET.cores for _, blocks in parts)


def test_weight_gradients_of_lenet() -> None:
    plan = compile_graph(MODELS["lenet"](), TARGET)
    found = [
        (launch.part, blocks)
        for launch, blocks in running(plan, {"B": 100})
        if "conv_weight_grad" in launch.label
    ]
    assert [part for part, _ in found] == ["parts", "fold"] * 2
    assert all(blocks >= TARGET.cores for part, blocks in found if part == "parts")


def test_one_chunk_is_one_grid() -> None:
    for name, sizes in ("matmul", {"M": 1000, "K": 4096, "N": 1000}), ("all", {"M": 9, "N": 99}):
        whole = GRAPHS[name][0]
        assert [part for part, _ in blocks_of(whole, sizes)] == [""]
        (before,) = compile_graph(whole, TARGET).launches[:1]
        assert before.part == ""


def test_sizes_that_are_known_leave_no_choice() -> None:
    small = graph(lambda x: R["softmax"](x, axis=-1), (M, 1000))
    assert len(compile_graph(small, TARGET).launches) == 1
    large = graph(lambda x: R["sum"](x), (100_000,))
    assert [launch.part for launch in compile_graph(large, TARGET).launches] == ["parts", "fold"]


def test_partial_results_live_from_one_grid_to_the_next() -> None:
    whole = graph(lambda a, b: R["matmul"](a, b), (M, K), (K, N))
    plan = compile_graph(whole, TARGET)
    assert [launch.part for launch in plan.launches] == ["", "parts", "fold"]
    (life,) = plan.lives
    assert (life.first, life.last) == (1, 2)
    for depth, count in ((300, 0), (5120, 20)):
        memory = plan.memory({"M": 7, "K": depth, "N": 5})
        assert memory.slots[0].n_bytes == max(count * 7 * 5, 1) * 4

"""Grids of CUDA kernels whose blocks do little: of a size at most, each block taking several turns.

The processor of these tests has one multiprocessor, so a grid has `BLOCKS_EACH` blocks at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from cuda_checks import run_plan_in_step
from sample_graphs import graph

from graphc.codegen.cuda import PROCESSORS, cuda_target
from graphc.errors import VerifyError
from graphc.ir.dim import evaluate, symbol
from graphc.ir.graph import Graph, Value
from graphc.ir.interp import interpret
from graphc.ir.kernel_printer import print_kernel
from graphc.ir.lockstep import Failure
from graphc.ir.loop import For, Kernel, Stmt
from graphc.ir.operand import REGISTRY as R
from graphc.ir.plan import Plan
from graphc.ir.statements import mapped, statements
from graphc.ir.types import float64, int64
from graphc.passes.emulate import emulated
from graphc.passes.manager import compile_graph
from graphc.passes.schedule.cuda.grid import BLOCKS_EACH, PLACES, THREADS
from graphc.runtime.device_program import MOST_COUNTED
from graphc.runtime.program import Program

SMALL = replace(cuda_target("sm_90"), cores=1)
B, N = symbol("B"), symbol("N")


def parts(x: Value, y: Value) -> tuple[Value, ...]:
    """Return results over axes of different sizes that one kernel stores."""
    both = x * y
    return both, y * 2.0, both + 1.0


GRAPHS: dict[str, tuple[Graph, list[dict[str, int]]]] = {
    # a turn has 32 * 1024 elements here
    "vectors": (graph(lambda x: R["tanh"](x) * x, (N,)), [{"N": n} for n in (98_307, 32_768, 1)]),
    "doubles": (graph(lambda x: x * 3.0, (N,), dtype=float64), [{"N": 50_001}]),
    # by rows of whole vectors, and where rows are none, one by one
    "rows": (
        graph(lambda x, y: x * y, (B, N), (N,)),
        [{"B": 70, "N": 1000}, {"B": 70, "N": 1001}, {"B": 3, "N": 7}],
    ),
    "parts": (graph(parts, (B, N), (N,)), [{"B": 3, "N": 33_001}, {"B": 5, "N": 8}]),
    # a thread has one of 32 * 256 elements here
    "transposed": (
        graph(lambda x: R["transpose"](x, axes=(1, 0)) * 2.0, (B, N)),
        [{"B": 131, "N": 140}],
    ),
    "alone": (graph(lambda x: R["sum"](x, axis=1), (N, 3)), [{"N": 20_001}, {"N": 9}]),
    "nest": (
        graph(lambda x: R["check_index"](x, 50), (N,), dtype=int64),
        [{"N": 20_001}, {"N": 8192}],
    ),
}
"""Graphs, and sizes of arrays: the first are of several turns."""


def draw(whole: Graph, sizes: dict[str, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(sum(sizes.values()))
    arrays = []
    for value in whole.inputs:
        shape = [evaluate(d, sizes) for d in value.type.shape]
        found = generator.integers(0, 50, shape)
        arrays.append((found if value.dtype is int64 else found / 16 - 1).astype(value.dtype.numpy))
    return arrays


def grids(plan: Plan, sizes: dict[str, int]) -> list[int]:
    """Return how many blocks each launch has."""
    known = ((x.kernel, dict(zip(x.kernel.sizes, x.sizes, strict=True))) for x in plan.launches)
    return [
        evaluate(kernel.extent, {name: evaluate(dim, sizes) for name, dim in own.items()})
        for kernel, own in known
    ]


@pytest.mark.parametrize("name", GRAPHS)
def test_blocks_take_turns(name: str) -> None:
    whole, each = GRAPHS[name]
    plan = compile_graph(whole, SMALL)
    program = Program(emulated(plan))
    assert max(grids(plan, each[0])) == BLOCKS_EACH
    for sizes in each:
        arrays = draw(whole, sizes)
        in_step = run_plan_in_step(plan, arrays)
        assert not isinstance(in_step, Failure)
        for expected, *found in zip(interpret(whole, arrays), in_step, program(arrays)):
            for one in found:
                np.testing.assert_allclose(one, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["vectors", "rows", "transposed", "alone", "nest"])
def test_elements_of_two_turns_are_a_race(name: str) -> None:
    whole, (sizes, *_) = GRAPHS[name]
    plan = compile_graph(whole, SMALL)
    launches = [replace(x, kernel=with_shorter_steps(x.kernel)) for x in plan.launches]
    with pytest.raises(VerifyError, match=r"a race at .* writes what thread .* writes"):
        run_plan_in_step(replace(plan, launches=tuple(launches)), draw(whole, sizes))


def with_shorter_steps(kernel: Kernel) -> Kernel:
    """Return a kernel whose blocks come to what others have."""

    def shorter(stmt: Stmt) -> tuple[Stmt, ...]:
        far = isinstance(stmt, For) and stmt.step >= THREADS * BLOCKS_EACH
        return (replace(stmt, step=stmt.step // 2),) if far else (stmt,)

    return replace(kernel, body=mapped(kernel.body, shorter))


def test_a_kernel_as_text(golden: Callable[[str, str], None]) -> None:
    whole = graph(lambda x, y: R["relu"](x + y), (B, N), (N,))
    (launch,) = compile_graph(whole, cuda_target("sm_90")).launches
    kernel = replace(launch.kernel, where=None)
    golden(print_kernel(kernel, launch.label), "cuda/rows_kernel.txt")


def loops(kernel: Kernel) -> list[For]:
    """Return a kernel's loops whose step is not 1."""
    return [s for s in statements(kernel.body) if isinstance(s, For) and s.step > 1]


def test_a_grid_follows_the_work_up_to_its_size() -> None:
    target = cuda_target("sm_90")
    plan = compile_graph(graph(lambda x: x + 1.0, (N,)), target)
    counts = [*grids(plan, {"N": 0}), *grids(plan, {"N": 1025}), *grids(plan, {"N": 10**8})]
    assert counts == [0, 2, 132 * BLOCKS_EACH]
    assert [loop.step for loop in loops(plan.launches[0].kernel)] == [132 * BLOCKS_EACH * THREADS]


def test_few_elements_take_no_loop() -> None:
    plan = compile_graph(graph(lambda x: x + 1.0, (5,)), SMALL)
    assert not loops(plan.launches[0].kernel) and grids(plan, {}) == [1]


def test_threads_that_read_from_many_places_take_one_turn() -> None:
    for count, turns in (PLACES - 1, 1), (PLACES, 0):
        shapes = [(N,)] * count
        plan = compile_graph(graph(lambda *x: sum(x[1:], x[0]), *shapes), SMALL)
        assert len(loops(plan.launches[0].kernel)) == turns
        assert grids(plan, {"N": 102_400}) == [BLOCKS_EACH if turns else 100]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_step_behind_the_last_element_has_32_bits(processor: str) -> None:
    target = cuda_target(processor)
    elements = THREADS * target.vector_bytes // 4
    assert MOST_COUNTED + target.cores * BLOCKS_EACH * elements < 2**31

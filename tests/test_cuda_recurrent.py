"""Recurrent layers on the CUDA target, without a GPU: tiles, launches, races, resources."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cuda_checks import run_plan_in_step
from ptxas import resources

from graphc.codegen.cuda import cuda_target
from graphc.errors import VerifyError
from graphc.ir.dim import evaluate, symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.kernel_printer import print_kernel
from graphc.ir.loop import Barrier, Stmt
from graphc.ir.ops.recurrent import TOLERANCE, recurrent
from graphc.ir.ops.recurrent_cells import GATES
from graphc.ir.plan import LaunchSpec, Plan
from graphc.ir.statements import mapped
from graphc.ir.table import table_data, table_from, table_of
from graphc.ir.types import DType, TensorType, float32, float64
from graphc.passes.differentiate import gradients
from graphc.passes.emulate import emulated
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program

WIDE = cuda_target("sm_90")
NARROW = replace(WIDE, cores=2)
"""A device of so few processors that tiles are large for small batches, too."""


def training(mode: str, units: int, dtype: DType = float32, reverse: bool = False) -> Graph:
    """Return the graph of a layer with its gradients, over any batch and length."""
    steps, batch = symbol("T"), symbol("B")
    width = GATES[mode] * units
    shapes = {
        "x": (steps, batch, width), "w": (width, units), "b": (width,), "h": (batch, units),
        "c": (batch, units),
    }  # fmt: skip
    names = list(shapes)[: 5 if mode == "lstm" else 4]
    operands = [placeholder(name, TensorType(dtype, shapes[name])) for name in names]
    found = recurrent(*operands, mode=mode, reverse=reverse)
    slopes = gradients([found[0]], [found[0] * 0.5], operands)
    assert all(slope is not None for slope in slopes)
    return Graph("layer", tuple(operands), (found[0], *slopes))  # type: ignore[arg-type]


def draw(graph: Graph, sizes: dict[str, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(sum(sizes.values()))
    shapes = [[evaluate(d, sizes) for d in v.shape] for v in graph.inputs]
    values = zip(shapes, graph.inputs, strict=True)
    return [generator.normal(0, 0.5, shape).astype(v.dtype.numpy) for shape, v in values]


def steps_of(plan: Plan) -> list[LaunchSpec]:
    """Return the launches of the layer's steps, forward and backward."""
    return [launch for launch in plan.launches if launch.kernel.turns != 1]


@pytest.mark.parametrize("target", [WIDE, NARROW], ids=["8 sequences", "16 sequences"])
@pytest.mark.parametrize(
    ("mode", "units", "reverse"),
    [("lstm", 20, False), ("gru", 18, True), ("gru", 36, False), ("rnn_tanh", 7, True)],
)
def test_sizes(mode: str, units: int, reverse: bool, target: object) -> None:
    graph = training(mode, units, reverse=reverse)
    plan = compile_graph(graph, target)  # type: ignore[arg-type]
    assert len(steps_of(plan)) == 2
    program = Program(emulated(plan))
    for sizes in {"T": 1, "B": 1}, {"T": 3, "B": 17}, {"T": 2, "B": 40}, {"T": 0, "B": 3}:
        arrays = draw(graph, sizes)
        rtol, atol = TOLERANCE[float32]
        expected = interpret(graph, arrays, sizes)
        for run in program(arrays), run_plan_in_step(plan, arrays):
            for found, wanted in zip(run, expected, strict=True):
                np.testing.assert_allclose(found, wanted, rtol=rtol, atol=4 * atol)


@pytest.mark.parametrize("target", [WIDE, NARROW], ids=["8 sequences", "16 sequences"])
@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_barriers_are_needed(mode: str, target: object) -> None:
    graph = training(mode, 20)
    plan = compile_graph(graph, target)  # type: ignore[arg-type]
    arrays = draw(graph, {"T": 2, "B": 5})

    def change(stmt: Stmt) -> tuple[Stmt, ...]:
        return () if isinstance(stmt, Barrier) else (stmt,)

    for launch in steps_of(plan):
        kernel = replace(launch.kernel, body=mapped(launch.kernel.body, change))
        faulty = replace(launch, kernel=kernel)
        launches = tuple(faulty if each is launch else each for each in plan.launches)
        with pytest.raises(VerifyError, match="race|not written"):
            run_plan_in_step(replace(plan, launches=launches), arrays)


def test_a_grid_is_launched_once_for_every_step_and_one_more() -> None:
    plan = compile_graph(training("lstm", 20), WIDE)
    for launch in steps_of(plan):
        kernel = launch.kernel
        assert kernel.sizes[-1] == "turn"
        assert evaluate(kernel.turns, {name: 7 for name in kernel.sizes}) == 8
        assert "  # launched for turn in 0.." in print_kernel(kernel)
    table = table_of(plan, [str(number) for number in range(len(plan.launches))])
    assert table_from(table_data(table)) == table
    assert [row.turns != 1 for row in table.launches].count(True) == 2


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["sm_80", "sm_89", "sm_90"])
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("units", [64, 250, 512])
@pytest.mark.parametrize("mode", list(GATES))
def test_resources(mode: str, units: int, dtype: DType, processor: str) -> None:
    target = cuda_target(processor)
    plan = compile_graph(training(mode, units, dtype), target)
    for taken in resources([launch.kernel for launch in steps_of(plan)], target):
        assert taken.spill_bytes == 0 and taken.registers <= 255
        assert taken.shared_bytes <= target.shared_bytes

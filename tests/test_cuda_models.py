"""Training steps on the CUDA target, without a GPU: as loops of the CPU, and in step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from cuda_checks import run_plan_in_step
from sample_graphs import lenet_step, mlp_step
from test_cuda_ptx import MODELS

from graphc.codegen.cpu import host_target
from graphc.codegen.cuda import cuda_target
from graphc.ir.dim import evaluate
from graphc.ir.graph import Graph
from graphc.ir.interp import interpret
from graphc.passes.emulate import emulated
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program


def draw(graph: Graph, sizes: Mapping[str, int]) -> list[np.ndarray]:
    """Return small positive numbers, as variances are among them, and few integers."""
    generator = np.random.default_rng(sum(sizes.values()))
    shapes = [[evaluate(d, sizes) for d in v.shape] for v in graph.inputs]
    return [
        np.asarray(generator.uniform(0.01, 0.2, shape), v.dtype.numpy)
        if v.dtype.floating
        else generator.integers(0, 10, shape, v.dtype.numpy)
        for v, shape in zip(graph.inputs, shapes, strict=True)
    ]


def results(graph: Graph, program: Program, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Return outputs, and new values of what is updated."""
    own = [a.copy() for a in arrays]
    outputs = program(own)
    return [*outputs, *(own[graph.inputs.index(target)] for target, _ in graph.updates)]


@pytest.mark.parametrize("model", [mlp_step, lenet_step])
def test_training_steps(model: Callable[[], Graph]) -> None:
    graph = model()
    plan = compile_graph(graph, cuda_target("sm_90"))
    program = Program(emulated(plan))
    for sizes in {"B": 1}, {"B": 7}:
        arrays = draw(graph, sizes)
        run_plan_in_step(plan, arrays)
        expected = interpret(graph, arrays, sizes)
        for found, wanted in zip(results(graph, program, arrays), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


SIZES = {
    "gpt": {"B": 2, "C": 5},
    "lstm": {"B": 2, "C": 3},
    "lenet": {"B": 3},
    "resnet18": {"B": 2, "H": 8, "W": 8},
}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_steps_of_networks_with_adam(model: str) -> None:
    graph = MODELS[model]()
    plan = compile_graph(graph, cuda_target("sm_90"))
    names = sorted({str(d) for v in graph.inputs for d in v.shape if not isinstance(d, int)})
    arrays = draw(graph, dict(zip(names, SIZES[model].values(), strict=True)))
    run_plan_in_step(plan, arrays)
    found = results(graph, Program(emulated(plan)), arrays)
    expected = results(graph, Program(compile_graph(graph, host_target())), arrays)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)

"""Training steps on the CUDA target, without a GPU: as loops of the CPU, and in step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cuda_checks import run_plan_in_step
from sample_graphs import lenet_step, mlp_step

from graphc.codegen.cuda import cuda_target
from graphc.ir.dim import evaluate
from graphc.ir.graph import Graph
from graphc.ir.interp import interpret
from graphc.ir.types import float32
from graphc.passes.emulate import emulated
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program


@pytest.mark.parametrize("model", [mlp_step, lenet_step])
def test_training_steps(model: Callable[[], Graph]) -> None:
    graph = model()
    plan = compile_graph(graph, cuda_target("sm_90"))
    program = Program(emulated(plan))
    for batch in (1, 7):
        generator = np.random.default_rng(batch)
        shapes = [[evaluate(d, {"B": batch}) for d in v.shape] for v in graph.inputs]
        arrays = [
            np.asarray(generator.standard_normal(shape) / 8, np.float32)
            if v.dtype is float32
            else generator.integers(0, 10, shape, v.dtype.numpy)
            for v, shape in zip(graph.inputs, shapes, strict=True)
        ]
        expected = interpret(graph, arrays, {"B": batch})
        run_plan_in_step(plan, arrays)
        own = [a.copy() for a in arrays]
        outputs = program(own)
        updated = [own[graph.inputs.index(target)] for target, _ in graph.updates]
        for found, wanted in zip([*outputs, *updated], expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)

"""Rows of tables that sorted indices name, on the CUDA target without a GPU: the CPU's own bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_checks import run_plan_in_step

from graphc.codegen.cpu import host_target
from graphc.codegen.cuda import cuda_target
from graphc.frontend.trace import trace
from graphc.ir.graph import Graph
from graphc.ir.ops.rows import element_graph, sort_rows, update_rows
from graphc.ir.types import TensorType, as_dtype, float32
from graphc.passes.emulate import emulated
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program

Arrays = list[np.ndarray]
ELEMENT = element_graph(
    [(name, TensorType(float32, ())) for name in ("g", "w", "m", "rate")],
    lambda g, w, m, rate: (w - rate * g / (m * m + 1.0), m + g),
)


def operands(count: int, rows: int, width: int) -> Arrays:
    """Return indices, their gradients, of which some are zero, two tables and a rate."""
    generator = np.random.default_rng(count)
    indices = generator.integers(-1, rows + 1, count)
    updates = generator.normal(size=(count, width)).astype(np.float32)
    updates[: count // 3] = 0
    tables = generator.normal(size=(2, rows, width)).astype(np.float32)
    return [indices, updates, *tables, np.asarray(0.5, np.float32)]


def graph_of(arrays: Arrays, rows: int, nonzero: bool) -> Graph:
    def updated(indices: Any, updates: Any, *others: Any) -> Any:
        places = sort_rows(indices, rows)
        return update_rows(*places, updates, *others, element=ELEMENT, nonzero=nonzero)

    return trace(updated, [TensorType(as_dtype(a.dtype), a.shape) for a in arrays], "rows")


@pytest.mark.parametrize("nonzero", [False, True])
@pytest.mark.parametrize(
    ("count", "rows", "width"),
    [(1, 3, 1), (40, 9, 5), (257, 50, 130), (1500, 3, 4), (0, 5, 4), (3, 7, 0)],
)
def test_rows_agree_with_the_cpu(count: int, rows: int, width: int, nonzero: bool) -> None:
    arrays = operands(count, rows, width)
    graph = graph_of(arrays, rows, nonzero)
    plan = compile_graph(graph, cuda_target("sm_90"))
    wanted = Program(compile_graph(graph, host_target()))([a.copy() for a in arrays])
    for one, other in zip(Program(emulated(plan))([a.copy() for a in arrays]), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    found = run_plan_in_step(plan, arrays)
    for one, other in zip(found, wanted, strict=True):  # two roundings where machines fuse
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)

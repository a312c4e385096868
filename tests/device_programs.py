"""Programs for ``gpu(0)`` from functions of traced values, numbers for them, and a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphc.ir.ops  # noqa: F401
from graphc.frontend.build import build_program
from graphc.frontend.context import Context
from graphc.frontend.trace import trace
from graphc.ir.graph import Graph
from graphc.ir.operand import REGISTRY
from graphc.ir.types import TensorType, as_dtype
from graphc.runtime.device_program import DeviceProgram

R = REGISTRY
GPU = Context("gpu", 0)


def graph_of(function: Callable[..., Any], *kinds: tuple[str, tuple[int, ...]]) -> Graph:
    return trace(function, [TensorType(as_dtype(d), s) for d, s in kinds], "model")


def compiled(function: Callable[..., Any], *kinds: tuple[str, tuple[int, ...]]) -> DeviceProgram:
    return build_program(graph_of(function, *kinds), GPU)


def updating(function: Callable[..., Any], pairs: Sequence[tuple[int, int]], *kinds: Any) -> Any:
    """Compile a function whose result ``j`` replaces input ``i`` for pairs of ``(i, j)``."""
    graph = graph_of(function, *kinds)
    new = {j for _, j in pairs}
    outputs = tuple(v for j, v in enumerate(graph.outputs) if j not in new)
    updates = tuple((graph.inputs[i], graph.outputs[j]) for i, j in pairs)
    changed = Graph(graph.name, graph.inputs, outputs, updates, graph.constraints)
    return build_program(changed, GPU)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def agree(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-4, atol=2e-5, err_msg=name)

"""Random differentiable graphs: gradients compiled, interpreted, and cut in two halves."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from checks import compare, other_sizes
from drafts import Reject, arguments
from steps import random_draft

from graphc.codegen.cpu import host_target
from graphc.errors import GraphcError
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import interpret
from graphc.passes.differentiate import gradients
from graphc.passes.manager import compile_graph
from graphc.passes.partition import Split, split
from graphc.runtime.program import Program


def random_gradient_graph(
    seed: int, least: int = 3, most: int = 10
) -> tuple[Graph, dict[str, int]]:
    """Return a graph with floating results, and the sizes it was drafted with."""
    draft = random_draft(seed, least, most, floating=True)
    graph = draft.graph(random.Random(seed + 1).randint(1, 2), 0)
    results = tuple(v for v in graph.outputs if v.dtype.floating)
    if not results:
        raise Reject
    return graph.with_results(results) if len(results) == len(graph.outputs) else Graph(
        graph.name, graph.inputs, results, (), graph.constraints
    ), draft.solver.hints  # fmt: skip


def _joint(graph: Graph, wrt: Sequence[int]) -> tuple[Graph, list[Value]]:
    """Return the graph of outputs and gradients, over inputs and cotangents."""
    given = [placeholder(f"grad{i}", v.type) for i, v in enumerate(graph.outputs)]
    found = gradients(graph.outputs, given, [graph.inputs[i] for i in wrt])
    results = (*graph.outputs, *(g for g in found if g is not None))
    return Graph(graph.name, (*graph.inputs, *given), results, (), graph.constraints), given


def check_gradient(graph: Graph, sizes: dict[str, int], seed: int) -> None:
    """Assert that joint and halved programs agree with the interpreted gradient."""
    rng = random.Random(seed)
    wrt = [i for i, v in enumerate(graph.inputs) if v.dtype.floating]
    joint, _ = _joint(graph, wrt)
    program = Program(compile_graph(joint, host_target()))
    cut = split(graph, wrt, [True] * len(graph.outputs))
    forward = Program(compile_graph(cut.forward, host_target()))
    backward = Program(compile_graph(cut.backward, host_target()))
    for attempt in range(2):
        chosen = sizes if attempt == 0 else other_sizes(sizes, rng)
        try:
            arrays = arguments(joint, chosen, rng)
            with np.errstate(all="ignore"):
                expected = interpret(joint, arrays)
        except (Reject, GraphcError, ValueError, IndexError):
            if attempt == 0:
                raise
            continue
        if any(np.any(~(np.abs(e) < 1e4)) for e in expected):
            continue
        compare(joint, program(arrays), expected)
        compare(joint, _in_halves(graph, cut, forward, backward, arrays), expected)


def _in_halves(
    graph: Graph, cut: Split, forward: Program, backward: Program, arrays: list[np.ndarray]
) -> list[np.ndarray]:
    own, cotangents = arrays[: len(graph.inputs)], arrays[len(graph.inputs) :]
    results = forward(own)
    count = len(graph.outputs)
    outputs, saved = results[:count], results[count:]
    reads = [own[i] if kind == "input" else saved[i] for kind, i in cut.reads]
    return [*outputs, *backward([*reads, *cotangents])]

"""Comparing a compiled graph with the interpreter, and making a graph that fails smaller."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from cuda_checks import run_plan_in_step
from drafts import Reject, arguments, text

from graphc import config
from graphc.codegen import counters
from graphc.codegen.cpu import host_target
from graphc.codegen.cuda import cuda_target
from graphc.errors import GraphcError
from graphc.ir.dim import symbols
from graphc.ir.graph import Graph, Node, Value, placeholder, rewrite_values, topological
from graphc.ir.interp import interpret
from graphc.passes.emulate import emulated
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program

TOLERANCE = {"float32": 3e-4, "float64": 1e-9}
"""Of the largest element; graphs amplify what their ops round."""


def tolerance(value: Value) -> float:
    """Return how far a result may be off, relative to its largest element."""
    if not value.dtype.floating:
        return 0.0
    names = {v.dtype.name for n in topological([value]) for v in n.outputs}
    return TOLERANCE["float32" if "float32" in names else "float64"]


def compare(graph: Graph, found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Assert that results agree in type, shape and value."""
    for value, a, b in zip(graph.results, found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, (value.type, a.dtype, a.shape, b.shape)
        limit = tolerance(value)
        if limit == 0.0 or b.size == 0:
            np.testing.assert_array_equal(a, b)
            continue
        finite = np.abs(b[np.isfinite(b)])
        largest = max(1.0, float(finite.max(initial=0.0)))
        np.testing.assert_allclose(a, b, rtol=limit, atol=limit * largest, equal_nan=True)


def run(graph: Graph, program: Program, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return outputs and new values of updates; the given arrays stay as they are."""
    own = [a.copy() for a in arrays]
    outputs = program(own)
    positions = [graph.inputs.index(target) for target, _ in graph.updates]
    untouched = [i for i in range(len(own)) if i not in positions]
    for i in untouched:
        np.testing.assert_array_equal(own[i], arrays[i])
    return [*outputs, *(own[i] for i in positions)]


def attempts(
    graph: Graph, sizes: dict[str, int], rng: random.Random
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Yield arguments and what the interpreter makes of them: other sizes and values, too."""
    special = () if any(map(_truncates, graph.nodes)) else ("special",)
    for attempt in ("drafted", "other", "other", *special):
        chosen = other_sizes(sizes, rng) if attempt == "other" else sizes
        try:
            arrays = arguments(graph, chosen, rng)
            if attempt == "special":
                arrays = [with_special_values(a, rng) for a in arrays]
            with np.errstate(all="ignore"):
                expected = interpret(graph, arrays)
        except (Reject, GraphcError, ValueError, IndexError):
            if attempt == "drafted":
                raise
            continue  # these sizes do not fit the graph: an empty maximum, too small an image
        if attempt != "other" or _tame(graph, expected):
            yield arrays, expected


def check(graph: Graph, sizes: dict[str, int], seed: int) -> None:
    """Assert that a compiled graph agrees with the interpreter: sizes, threads, special values."""
    program = Program(compile_graph(graph, host_target()))
    compiled = counters.stats()["kernels_compiled"]
    for arrays, expected in attempts(graph, sizes, random.Random(seed)):
        with config.options(threads=1):
            first = run(graph, program, arrays)
        compare(graph, first, expected)
        with config.options(threads=2):
            for _ in range(2):
                for a, b in zip(first, run(graph, program, arrays), strict=True):
                    np.testing.assert_array_equal(a, b)
    assert counters.stats()["kernels_compiled"] == compiled, "other sizes compiled a kernel"


def check_cuda(graph: Graph, sizes: dict[str, int], seed: int) -> None:
    """Assert that a graph's CUDA kernels agree with the interpreter, and have no faults."""
    plan = compile_graph(graph, cuda_target("sm_90"))
    program = Program(emulated(plan))
    for arrays, expected in attempts(graph, sizes, random.Random(seed)):
        compare(graph, run(graph, program, arrays), expected)
        run_plan_in_step(plan, arrays)


def _truncates(node: Node) -> bool:
    """Return whether a node makes integers of floats: of nan NumPy makes what the machine does."""
    if node.op.name != "cast":
        return False
    return node.inputs[0].dtype.floating and node.types[0].dtype.kind in "iu"


def _tame(graph: Graph, expected: Sequence[np.ndarray]) -> bool:
    return all(np.all(np.abs(b) < 1e6) for b in expected if b.dtype.kind == "f")


def other_sizes(sizes: dict[str, int], rng: random.Random) -> dict[str, int]:
    """Return other values for size variables; now and then an axis is empty."""
    return {
        name: 0 if rng.random() < 0.15 else max(1, size + rng.choice([-1, 0, 1, 2, 16]))
        for name, size in sizes.items()
    }


def with_special_values(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """Return a copy of which about a tenth is nan, infinite or a zero of either sign."""
    changed = array.copy()
    if array.dtype.kind == "f":
        for place in rng.sample(range(array.size), -(-array.size // 10)):
            changed.flat[place] = rng.choice([np.nan, np.inf, -np.inf, -0.0, 0.0])
    return changed


# -- making a failing graph smaller ------------------------------------------------------------


Fails = Callable[[Graph], bool]


def fails_by(check_graph: Callable[[Graph], Any]) -> Fails:
    """Return a predicate: whether a graph fails in the way the first one asked about does."""
    first: list[type[Exception]] = []

    def fails(graph: Graph) -> bool:
        try:
            check_graph(graph)
        except Exception as error:
            first.append(type(error))
            return first[0] is first[-1]
        return False

    return fails


def shrink(graph: Graph, fails: Fails, rounds: int = 60) -> Graph:
    """Return a smaller graph that fails: fewer results, then nodes cut off, as new inputs."""
    for _ in range(rounds):
        smaller = next((g for g in _smaller(graph) if fails(g)), None)
        if smaller is None:
            return graph
        graph = smaller
    return graph


def _smaller(graph: Graph) -> Iterator[Graph]:
    for i in range(len(graph.updates)):
        yield _trimmed(graph, graph.outputs, graph.updates[:i] + graph.updates[i + 1 :])
    for i in range(len(graph.outputs)):
        if len(graph.results) > 1:
            rest = graph.outputs[:i] + graph.outputs[i + 1 :]
            yield _trimmed(graph, rest, graph.updates)
    for i, value in enumerate(graph.outputs):
        for operand in value.node.inputs:
            if operand.op_name not in ("input", "constant"):
                rest = (*graph.outputs[:i], operand, *graph.outputs[i + 1 :])
                yield _trimmed(graph, rest, graph.updates)
    for node in reversed(graph.nodes):
        if node.inputs:
            yield _cut(graph, node.outputs)


def _trimmed(graph: Graph, outputs: Sequence[Value], updates: Any) -> Graph:
    """Return the graph of some results with the inputs it still needs."""
    changed = Graph(graph.name, graph.inputs, tuple(outputs), tuple(updates), graph.constraints)
    needed = {id(n) for n in topological(changed.results)} | {id(t.node) for t, _ in updates}
    bound = {name for v in graph.inputs if id(v.node) in needed for d in v.shape
             for name in symbols(d)}  # fmt: skip
    used = {name for n in changed.nodes for t in n.types for d in t.shape for name in symbols(d)}
    if used <= bound:
        inputs = tuple(v for v in graph.inputs if id(v.node) in needed)
        return Graph(graph.name, inputs, changed.outputs, changed.updates, graph.constraints)
    return changed


def _cut(graph: Graph, values: Sequence[Value]) -> Graph:
    """Return the graph with the results of one node as inputs."""
    names = {str(v.node.attrs["name"]) for v in graph.inputs}
    free = (f"c{i}" for i in range(1000) if f"c{i}" not in names)
    fresh = {v: placeholder(next(free), v.type) for v in values}
    results = rewrite_values(graph.results, lambda node, inputs: None, dict(fresh))
    count = len(graph.outputs)
    updates = tuple(
        (old, new) for (old, _), new in zip(graph.updates, results[count:], strict=True)
    )
    wider = Graph(graph.name, (*graph.inputs, *fresh.values()), tuple(results[:count]), updates)
    return _trimmed(wider, wider.outputs, wider.updates)


def report(graph: Graph, sizes: dict[str, int], seed: int, check_graph: Any) -> str:
    """Return what a person needs of a failure: the seed, and the smallest graph that shows it."""
    fails = fails_by(lambda g: check_graph(g, sizes, seed))
    smallest = shrink(graph, fails) if fails(graph) else graph
    return f"seed {seed}, sizes {sizes}; the smallest graph that fails:\n{text(smallest)}"

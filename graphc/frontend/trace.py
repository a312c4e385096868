"""Tracing a function of graph values, with symbolic sizes; and choosing a trace for a call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from graphc.codegen import counters
from graphc.ir.graph import Graph, Value, placeholder, substitute_sizes
from graphc.ir.sizes import SizeSolver, bind_sizes, satisfied, solving
from graphc.ir.types import TensorType

P = TypeVar("P")


def symbolic_input(solver: SizeSolver, name: str, kind: TensorType) -> Value:
    """Return a graph input each of whose axes starts as a fresh size variable."""
    shape = tuple(
        solver.fresh("B" if axis == 0 else f"{'BCHWDEFG'[min(axis, 7)]}", int(size))
        for axis, size in enumerate(kind.shape)  # type: ignore[call-overload]
    )
    return placeholder(name, TensorType(kind.dtype, shape))


def finish(graph: Graph, solver: SizeSolver) -> Graph:
    """Return a traced graph with everything put in that was learnt of its sizes."""
    known = {name: solver.resolve(value) for name, value in solver.solution.items()}
    settled = substitute_sizes(graph, known)
    return Graph(
        settled.name,
        settled.inputs,
        settled.outputs,
        settled.updates,
        solver.facts(),
    )


def trace(function: Callable[..., Any], types: Sequence[TensorType], name: str) -> Graph:
    """Return the graph of a function of graph values.

    Parameters
    ----------
    function : callable
        Takes a Value for each type and returns a Value or a tuple of them.
    types : sequence of TensorType
        With the sizes of the call that is being traced.
    name : str

    Returns
    -------
    Graph
    """
    started = time.perf_counter()
    solver = SizeSolver()
    with solving(solver):
        inputs = tuple(symbolic_input(solver, f"x{i}", t) for i, t in enumerate(types))
        result = function(*inputs)
        outputs = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    graph = finish(Graph(name, inputs, outputs), solver)
    counters.add("programs_traced", 1)
    counters.add("trace_s", time.perf_counter() - started)
    return graph


class Specializations(Generic[P]):
    """Traces of one function, each good for the sizes that its inputs leave open."""

    def __init__(self) -> None:
        self._entries: list[tuple[Graph, P]] = []
        self._by_shapes: dict[tuple[tuple[int, ...], ...], P] = {}

    def __iter__(self) -> Iterator[tuple[Graph, P]]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, shapes: Sequence[tuple[int, ...]]) -> P | None:
        """Return what was compiled for a trace that these input shapes fit, or None."""
        key = tuple(shapes)
        found = self._by_shapes.get(key)
        if found is None:
            for graph, payload in self._entries:
                sizes = bind_sizes([v.shape for v in graph.inputs], key)
                if sizes is not None and satisfied(graph.constraints, sizes):
                    self._by_shapes[key] = found = payload
                    break
        return found

    def add(self, graph: Graph, payload: P) -> P:
        """Keep a trace and what was made of it."""
        self._entries.append((graph, payload))
        return payload

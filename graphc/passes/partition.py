"""Cut a joint forward-backward graph in two: what the forward part saves is a minimum cut.

Source: the program's inputs, which are there anyway. Sink: what the backward part reads. The
capacity of a value is its bytes at nominal sizes; sums of products, windows and other expensive
results are never computed twice, cheap ones are when that saves memory traffic.

The formulation follows rematerialisation by min-cut as known from joint-graph partitioners
(He and Yu, "Transcending Runtime-Memory Tradeoffs in Checkpointing by being Fusion Aware",
MLSys 2023).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graphc import lazy
from graphc.ir.dim import Dim, SizeExpr, evaluate, symbol, symbols
from graphc.ir.graph import (
    Graph,
    Node,
    Value,
    placeholder,
    rewrite_values,
    topological,
    unique_name,
)
from graphc.ir.op import Kind
from graphc.passes.canonicalize import canonicalize
from graphc.passes.differentiate import cotangent_inputs, gradients
from graphc.passes.winograd_training import winograd

NOMINAL_SIZE = 64
"""What a symbolic size counts as when values are weighed."""
RECOMPUTED = (Kind.POINTWISE, Kind.MOVEMENT)
"""Kinds of ops that the backward part may compute again."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The two halves of a program that is differentiated.

    Attributes
    ----------
    forward : Graph
        The outputs of the original, then the saved values.
    backward : Graph
        Inputs: ``reads`` in order, then the cotangents that were asked for.
    reads : tuple of ("input" | "saved", int)
        What the backward part takes: an input of the original, or a saved value.
    wrt : tuple of int
        The inputs whose gradients the backward part returns, in order.
    """

    forward: Graph
    backward: Graph
    reads: tuple[tuple[str, int], ...]
    wrt: tuple[int, ...]


def split(graph: Graph, wrt: Sequence[int], heads: Sequence[bool]) -> Split:
    """Differentiate a graph and cut it.

    Parameters
    ----------
    graph : Graph
    wrt : sequence of int
        Positions of the inputs to differentiate by.
    heads : sequence of bool
        Which outputs will have a cotangent.

    Returns
    -------
    Split
        Inputs that the outputs do not depend on are not in its ``wrt``.
    """
    cotangents = cotangent_inputs(graph, heads)
    given = tuple(c for c in cotangents if c is not None)
    found = gradients(graph.outputs, cotangents, [graph.inputs[i] for i in wrt])
    chosen = tuple(i for i, g in zip(wrt, found, strict=True) if g is not None)
    joint = winograd(
        canonicalize(
            Graph(
                graph.name,
                graph.inputs + given,
                graph.outputs + tuple(g for g in found if g is not None),
                graph.updates,
                graph.constraints,
            )
        )
    )
    count = len(graph.outputs)
    outputs, grads = joint.outputs[:count], joint.outputs[count:]
    volatile = {target for target, _ in joint.updates}
    saved = _saved(grads, given, (*outputs, *(new for _, new in joint.updates)), volatile)
    forward = Graph(
        graph.name, graph.inputs, outputs + saved, joint.updates, graph.constraints
    )
    backward, reads = _backward(graph, grads, given, saved)
    return Split(forward, backward, reads, chosen)


def _backward(
    graph: Graph, grads: Sequence[Value], given: tuple[Value, ...], saved: tuple[Value, ...]
) -> tuple[Graph, tuple[tuple[str, int], ...]]:
    names = graph.input_names()
    seeds: dict[Value, Value] = {
        v: placeholder(unique_name(f"saved{i}", names), v.type) for i, v in enumerate(saved)
    }
    results = rewrite_values(grads, lambda node, inputs: None, dict(seeds))
    needed = {v for n in topological(results) for v in n.outputs if n.op.name == "input"}
    needed |= _binding_sizes(graph, (*results, *given), {*given, *needed})
    reads: list[tuple[str, int]] = []
    inputs: list[Value] = []
    for i, value in enumerate(graph.inputs):
        if value in needed:
            reads.append(("input", i))
            inputs.append(value)
    for i, value in enumerate(saved):
        if seeds[value] in needed:
            reads.append(("saved", i))
            inputs.append(seeds[value])
    name = f"{graph.name}_backward"
    return Graph(name, (*inputs, *given), tuple(results), (), graph.constraints), tuple(reads)


def _binding_sizes(
    graph: Graph, results: Sequence[Value], present: set[Value]
) -> set[Value]:
    """Return inputs of the original whose shapes give the sizes that those present leave open."""
    used = {
        name
        for node in topological(results)
        for shape in (*(t.shape for t in node.types), *_sizes_in(tuple(node.attrs.values())))
        for dim in shape
        for name in symbols(dim)
    }
    bound = _lone_sizes(present)
    chosen: set[Value] = set()
    for name in sorted(used):
        if name in bound:
            continue
        holders = [v for v in graph.inputs if name in _lone_sizes((v,))]
        # What is left has no input of its own: the solver gets everything that mentions it.
        found = holders[:1] or [v for v in graph.inputs if name in _mentioned(v)]
        chosen |= {*found} - present
        bound |= _lone_sizes(found)
    return chosen


def _sizes_in(item: Any) -> Iterator[tuple[Dim, ...]]:
    """Yield the sizes among attributes."""
    if isinstance(item, SizeExpr):
        yield (item,)
    elif isinstance(item, tuple):
        for part in item:
            yield from _sizes_in(part)


def _mentioned(value: Value) -> set[str]:
    return {name for dim in value.shape for name in symbols(dim)}


def _lone_sizes(values: Iterable[Value]) -> set[str]:
    """Return the size variables that are an axis of one of the values."""
    return {
        name
        for value in values
        for dim in value.shape
        for name in symbols(dim)
        if dim == symbol(name)
    }


def _saved(
    grads: Sequence[Value],
    given: Sequence[Value],
    results: Sequence[Value],
    volatile: set[Value],
) -> tuple[Value, ...]:
    """Return the forward values that the backward part takes, by a minimum cut.

    Inputs are there anyway, but for the ``volatile`` ones, which the forward part overwrites.
    """
    later = {id(v.node) for v in given}
    order = list(topological(grads))
    for node in order:
        if any(id(v.node) in later for v in node.inputs):
            later.add(id(node))
    boundary = [
        v for node in order if id(node) in later for v in node.inputs if id(v.node) not in later
    ]
    boundary += [v for v in grads if id(v.node) not in later]
    early = [n for n in order if id(n) not in later]
    if not boundary or not early:
        return ()
    forward = {id(n) for n in topological(results)}
    network = _network(early, boundary, forward, volatile)
    _, (near, _) = lazy.networkx().minimum_cut(network, "source", "sink")
    cut = [
        v
        for node in early
        for v in node.outputs
        if (v, "in") in network and (v, "in") in near and (v, "out") not in near
    ]
    return tuple(v for v in cut if v.op_name != "input" or v in volatile)


def _network(
    early: Sequence[Node], boundary: Sequence[Value], forward: set[int], volatile: set[Value]
) -> Any:
    """Return the flow network: each value an edge of its bytes, each use an edge without bound."""
    network = lazy.networkx().DiGraph()
    network.add_nodes_from(("source", "sink"))
    for node in early:
        is_input = node.op.name == "input"
        for value in node.outputs:
            free = is_input and value not in volatile
            capacity = 0 if free else _nominal_bytes(value)
            # A constant is never worth saving: its edge has no bound, and no flow reaches it.
            bound = {} if node.op.name == "constant" else {"capacity": capacity}
            network.add_edge((value, "in"), (value, "out"), **bound)
            if is_input or node.op.kind not in RECOMPUTED and id(node) in forward:
                network.add_edge("source", (value, "in"))
            for operand in node.inputs:
                network.add_edge((operand, "out"), (value, "in"))
    for value in boundary:
        network.add_edge((value, "out"), "sink")
    return network


def _nominal_bytes(value: Value) -> int:
    sizes = {name: NOMINAL_SIZE for d in value.shape for name in symbols(d)}
    return max(evaluate(value.type.size, sizes), 1) * value.dtype.item_bytes

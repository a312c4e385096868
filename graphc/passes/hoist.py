"""Cut what depends on parameters alone into a program of its own.

Its results, the *prepared* values, are kept from call to call until a parameter is written: folded
batch normalisation, converted or transposed weights. What only names memory anew, or repeats it,
stays in the main program: keeping it would take memory and save nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.graph import Graph, Value, placeholder, rewrite_values, topological, unique_name
from graphc.passes.canonicalize import canonicalize
from graphc.passes.fold import Settled, fold
from graphc.passes.layout import layout
from graphc.passes.winograd import winograd_prepared

FREE = ("reshape", "broadcast_to")
"""Ops that compute nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Hoisted:
    """A graph cut in two.

    Attributes
    ----------
    prepare : Graph
        From parameters to the prepared values.
    main : Graph
        From the prepared values, then other inputs, to the results of the original.
    given, rest : tuple of int
        Which inputs of the original ``prepare`` takes, and ``main`` behind the prepared values.
    """

    prepare: Graph
    main: Graph
    given: tuple[int, ...]
    rest: tuple[int, ...]

    def notes(self) -> list[str]:
        """Return a line for each prepared value."""
        return [
            f"computed once, until a parameter is written: {v.op_name}: {v.type}"
            + (f"  # {v.node.where}" if v.node.where else "")
            for v in self.prepare.outputs
        ]


def hoist(graph: Graph, fixed: Sequence[int]) -> Hoisted | None:
    """Cut a traced graph in two; None where nothing is computed from parameters alone.

    Parameters
    ----------
    graph : Graph
    fixed : sequence of int
        Positions of the inputs that are parameters. Those that the graph updates do not count.
    """
    volatile = {target for target, _ in graph.updates}
    parameters = [graph.inputs[i] for i in fixed if graph.inputs[i] not in volatile]
    if not parameters:
        return None
    settled = Settled(parameters)
    plain = winograd_prepared(layout(fold(canonicalize(graph), parameters), settled), settled)
    prepared = prepared_values(plain, settled)
    return _cut(plain, prepared, set(parameters)) if prepared else None


def prepared_values(graph: Graph, settled: Settled) -> tuple[Value, ...]:
    """Return the values to keep: computed from parameters, and read by what is not."""
    borders = [v for n in graph.nodes if not all(map(settled, n.outputs)) for v in n.inputs]
    found: dict[Value, None] = {}
    for value in (*borders, *graph.results):
        while value.op_name in FREE:
            value = value.node.inputs[0]
        if settled(value) and value.op_name != "input" and _reads_input(value):
            found[value] = None
    return tuple(found)


def _reads_input(value: Value) -> bool:
    return any(node.op.name == "input" for node in topological((value,)))


def _cut(graph: Graph, prepared: tuple[Value, ...], parameters: set[Value]) -> Hoisted:
    names = graph.input_names()
    seeds = {
        v: placeholder(unique_name(f"prepared{i}", names), v.type, v.node.where)
        for i, v in enumerate(prepared)
    }
    results = rewrite_values(graph.results, lambda node, inputs: None, dict(seeds))
    read = {v for n in topological(results) for v in n.outputs if n.op.name == "input"}
    used = {v for n in topological(prepared) for v in n.outputs if n.op.name == "input"}
    places = list(enumerate(graph.inputs))
    given = tuple(i for i, v in places if v in used)
    rest = tuple(i for i, v in places if v in read or v not in parameters)
    inputs = (*seeds.values(), *(graph.inputs[i] for i in rest))
    return Hoisted(
        Graph(f"{graph.name}_prepare", tuple(graph.inputs[i] for i in given), prepared),
        graph.with_results(results, inputs=inputs),
        given,
        rest,
    )

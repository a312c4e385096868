"""The pipelines: tuples of passes, read top to bottom."""

from __future__ import annotations

from collections.abc import Callable

from graphc import config
from graphc.errors import GraphcError
from graphc.ir.graph import Graph, Node
from graphc.ir.plan import LaunchSpec, Plan
from graphc.ir.target import Target
from graphc.ir.verify import verify, verify_kernel
from graphc.passes.canonicalize import canonicalize
from graphc.passes.expand import expand
from graphc.passes.fuse import fuse
from graphc.passes.lower import lower
from graphc.passes.memory import lifetimes, storage
from graphc.passes.schedule import cpu
from graphc.passes.winograd import winograd

GraphPass = Callable[[Graph], Graph]

GRAPH_PASSES: tuple[GraphPass, ...] = (
    canonicalize,
    winograd,
    fuse,
)
"""Graph to Graph, in order; differentiation happens while the graph is built."""

SCHEDULES = {"cpu": cpu.schedule}
"""The schedule of each target, by the target's name."""


def run_graph_passes(graph: Graph, passes: tuple[GraphPass, ...] = GRAPH_PASSES) -> Graph:
    """Apply passes in order; with the option ``verify`` the graph is checked after each."""
    for step in passes:
        graph = step(graph)
        if config.current().verify:
            verify(graph)
    return graph


def compile_graph(graph: Graph, target: Target) -> Plan:
    """Return the program of a graph as data: fused, lowered, scheduled, memory-planned.

    Parameters
    ----------
    graph : Graph
    target : Target

    Returns
    -------
    Plan
    """
    fused = run_graph_passes(graph)
    layout = storage(fused)
    launches = tuple(launch(node, f"k{i}", target) for i, node in enumerate(layout.launches))
    return Plan(layout.graph, launches, layout.root, lifetimes(layout))


def launch(node: Node, name: str, target: Target) -> LaunchSpec:
    """Lower, schedule and expand one `fused` node."""
    try:
        lowered = lower(node.attrs["body"], name)
        kernel = expand(SCHEDULES[target.name](lowered.kernel, target))
    except GraphcError as error:
        raise error.attach(where=node.where) from None
    if config.current().verify:
        verify_kernel(kernel)
    return LaunchSpec(node, kernel, lowered.sizes)

"""The pipelines: tuples of passes, read top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphc import config
from graphc.errors import GraphcError
from graphc.ir.graph import Graph, Node
from graphc.ir.loop import Kernel
from graphc.ir.plan import Cost, LaunchSpec, Plan
from graphc.ir.target import Target
from graphc.ir.verify import verify, verify_kernel
from graphc.passes.canonicalize import canonicalize
from graphc.passes.expand import expand
from graphc.passes.fuse import fuse
from graphc.passes.lower import lower
from graphc.passes.memory import lifetimes, storage
from graphc.passes.row_updates import row_updates
from graphc.passes.schedule import cpu
from graphc.passes.schedule.cost import cost
from graphc.passes.winograd_training import winograd

GraphPass = Callable[[Graph], Graph]

GRAPH_PASSES: tuple[GraphPass, ...] = (
    canonicalize,
    row_updates,
    winograd,
    fuse,
)
"""Graph to Graph, in order; differentiation happens while the graph is built."""

Made = tuple[Kernel, Cost]
"""A plain kernel scheduled and expanded, and what it costs."""

SCHEDULES = {"cpu": cpu.schedule}
"""The schedule of each target, by the target's name."""


def run_graph_passes(graph: Graph, passes: tuple[GraphPass, ...] = GRAPH_PASSES) -> Graph:
    """Apply passes in order; with the option ``verify`` the graph is checked after each."""
    for step in passes:
        graph = step(graph)
        if config.current().verify:
            verify(graph)
    return graph


def compile_graph(
    graph: Graph, target: Target, started: Callable[[Kernel], object] = lambda kernel: None
) -> Plan:
    """Return the program of a graph as data: fused, lowered, scheduled, memory-planned.

    Parameters
    ----------
    graph : Graph
    target : Target
    started : callable
        Told each kernel as soon as it is scheduled, in the order of the launches.

    Returns
    -------
    Plan
    """
    fused = run_graph_passes(graph)
    layout = storage(fused)
    made: dict[Kernel, Made] = {}
    launches = []
    for i, node in enumerate(layout.launches):
        launches.append(launch(node, f"k{i}", target, made))
        started(launches[-1].kernel)
    return Plan(layout.graph, tuple(launches), layout.root, lifetimes(layout))


def launch(node: Node, name: str, target: Target, made: dict[Kernel, Made]) -> LaunchSpec:
    """Lower, schedule and expand one `fused` node.

    ``made`` remembers what became of plain kernels: layers of one kind lower to the same loops.
    """
    try:
        lowered = lower(node.attrs["body"], "")
        plain = lowered.kernel
        if plain not in made:
            made[plain] = expand(SCHEDULES[target.name](plain, target)), cost(plain)
    except GraphcError as error:
        raise error.attach(where=node.where) from None
    kernel, effort = made[plain]
    if config.current().verify:
        verify_kernel(kernel)
    own = replace(kernel, name=name, where=plain.where)
    return LaunchSpec(node, own, lowered.sizes, effort)

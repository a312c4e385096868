"""The pipelines: tuples of passes, read top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from graphc import config
from graphc.errors import CompileError, GraphcError
from graphc.ir.dim import Dim, substitute
from graphc.ir.expr import Buffer
from graphc.ir.graph import Graph, Node, Value, placeholder
from graphc.ir.loop import TURN, Kernel, Series
from graphc.ir.plan import Cost, LaunchSpec, Plan
from graphc.ir.target import Target
from graphc.ir.types import TensorType
from graphc.ir.verify import verify, verify_kernel
from graphc.passes.canonicalize import canonicalize
from graphc.passes.column_sums import column_sums
from graphc.passes.expand import expand
from graphc.passes.fuse import fuse
from graphc.passes.likeness import Arguments, likeness
from graphc.passes.lower import Lowered, Nests, OwnNest, constants, lower
from graphc.passes.memory import lifetimes, storage
from graphc.passes.pooled_gradients import pooled_gradients
from graphc.passes.row_updates import row_updates
from graphc.passes.schedule import row_sums
from graphc.passes.schedule.cost import cost
from graphc.passes.schedule.cuda import attention, attention_backward, recurrent, rows
from graphc.passes.schedule.cuda import schedule as cuda
from graphc.passes.winograd_training import winograd

GraphPass = Callable[[Graph], Graph]

GRAPH_PASSES: dict[str, tuple[GraphPass, ...]] = {
    "cpu": (
        canonicalize,
        row_updates,
        pooled_gradients,
        winograd,
        fuse,
        column_sums,
    ),
    "cuda": (
        canonicalize,
        row_updates,
        fuse,
    ),
}
"""By the target's name, Graph to Graph in order; graphs are differentiated while they are built."""


@dataclass(slots=True)
class Made:
    """What became of groups and of plain kernels so far: layers of one kind share both.

    Attributes
    ----------
    lowered : dict
        Key of a group's likeness -> its kernel, and the kernel's size arguments.
    scheduled : dict
        Plain kernel -> its grids scheduled and expanded; what each costs.
    """

    lowered: dict[Hashable, tuple[Kernel, Arguments]] = field(default_factory=dict)
    scheduled: dict[Kernel, tuple[Series, list[Cost]]] = field(default_factory=dict)


SCHEDULES: dict[str, Callable[[Kernel, Target], Series]] = {
    "cpu": row_sums.schedule,
    "cuda": cuda.schedule,
}
"""The schedule of each target, by the target's name."""

NESTS: dict[str, dict[str, Callable[[Target], OwnNest]]] = {
    "cpu": {},
    "cuda": {
        "attention": attention.forward,
        "attention_backward": attention_backward.backward,
        "recurrent_backward": recurrent.backward,
        "recurrent_steps": recurrent.forward,
        "scatter_add": rows.adding,
        "scatter_nd": rows.adding_nd,
        "sort_rows": rows.sorting,
        "update_rows": rows.updating,
    },
}
"""By the target's name, and the op's, loops that a target has of its own for explicit nests."""


def nests_of(target: Target) -> Nests:
    """Return the loops that a target has of its own, by the op's name."""
    return {name: own(target) for name, own in NESTS[target.name].items()}


def run_graph_passes(graph: Graph, passes: tuple[GraphPass, ...] = GRAPH_PASSES["cpu"]) -> Graph:
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
    fused = run_graph_passes(graph, GRAPH_PASSES[target.name])
    layout = storage(fused)
    made = Made()
    launches: list[LaunchSpec] = []
    for i, node in enumerate(layout.launches):
        for spec in launched(node, f"k{i}", target, made):
            launches.append(spec)
            started(spec.kernel)
    scratch = {v: v for spec in launches for v in spec.writes if v not in layout.root}
    lives = lifetimes(layout, [(spec.reads, spec.writes) for spec in launches])
    return Plan(layout.graph, tuple(launches), layout.root | scratch, lives)


def launched(node: Node, name: str, target: Target, made: Made) -> Iterator[LaunchSpec]:
    """Lower, schedule and expand one `fused` node, or find what became of one like it.

    Grids that have no block whatever the graph's sizes are left out.
    """
    try:
        lowered = _lowered(node.attrs["body"], nests_of(target), made)
        plain = lowered.kernel
        if plain not in made.scheduled:
            made.scheduled[plain] = _scheduled(plain, target)
    except GraphcError as error:
        raise error.attach(where=node.where) from None
    series, efforts = made.scheduled[plain]
    known = dict(zip(plain.sizes, lowered.sizes, strict=True))
    known |= {size: substitute(dim, known) for size, dim in series.sizes}
    values = dict(zip(plain.params, (*node.inputs, *node.outputs), strict=True))
    kernels = list(zip((grid.kernel for grid in series.grids), efforts, strict=True))
    runs = [pair for pair in kernels if substitute(pair[0].extent, known) != 0]
    for kernel, effort in runs or kernels[:1]:
        if config.current().verify:
            verify_kernel(kernel)
        yield _spec(node, name, kernel, effort, known, values)


def _spec(
    node: Node, name: str, kernel: Kernel, effort: Cost, known: Mapping[str, Dim],
    values: dict[Buffer, Value],
) -> LaunchSpec:  # fmt: skip
    """Return the launch of one kernel of a group.

    Parameters
    ----------
    known : mapping of str to Dim
        The kernel's sizes in those of the graph.
    values : dict of Buffer to Value
        What its parameters stand for; scratch memory is added where it is first met.
    """
    for buffer in kernel.params:
        if buffer not in values:
            shape = tuple(substitute(dim, known) for dim in buffer.shape)
            values[buffer] = placeholder(f"{name}_{buffer.name}", TensorType(buffer.dtype, shape))
    first = len(kernel.params) - kernel.outputs
    own = replace(kernel, name=name, where=node.attrs["body"].outputs[0].node.where)
    return LaunchSpec(
        node,
        own,
        tuple(values[buffer] for buffer in kernel.params[:first]),
        tuple(values[buffer] for buffer in kernel.params[first:]),
        tuple(known[size] for size in kernel.sizes if size != TURN),
        effort,
        kernel.name,
    )


def _scheduled(plain: Kernel, target: Target) -> tuple[Series, list[Cost]]:
    """Return what a target runs for a plain kernel, and what each of its grids costs."""
    series = SCHEDULES[target.name](plain, target)
    grids = tuple(replace(grid, kernel=expand(grid.kernel)) for grid in series.grids)
    return replace(series, grids=grids), [cost(grid.plain) for grid in grids]


def _lowered(body: Graph, nests: Nests, made: Made) -> Lowered:
    """Lower a group's body, or return the kernel of one like it with the sizes of this one."""
    like = likeness(body, constants(body, nests))
    known = None if like is None else made.lowered.get(like.key)
    if like is not None and known is not None and not config.current().verify:
        kernel, arguments = known
        return Lowered(kernel, like.sizes_of(arguments))
    lowered = lower(body, "", nests)
    if like is not None:
        found = lowered.kernel, like.arguments(lowered.sizes)
        if known not in (None, found):
            raise CompileError(f"groups that are alike lower to {known} and {found}")
        made.lowered[like.key] = found
    return lowered

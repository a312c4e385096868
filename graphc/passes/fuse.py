"""Fusion: put nodes into groups that become one kernel each.

A group has a *space*, the shape its widest values have, and may have *reduced* axes of it. Each
value of a group either has the space's shape or 1 along the reduced axes, so that the whole group
is one set of loops: over the kept axes, and inside over the reduced ones. What a group never does
is compute a value more than once for each place.

Nodes are taken in topological order; each joins the groups of its operands where the rules in
`_refusal` allow it, and the reason is recorded where they do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from graphc.ir.dim import Dim
from graphc.ir.graph import Graph, Node, Value, build, placeholder, rewrite_values
from graphc.ir.op import Kind
from graphc.ir.operand import REGISTRY

ALIASES = ("reshape",)
"""Ops that only name the same memory anew; they separate groups and cost nothing."""
CHEAP = ("constant", "size", "iota", "full")
"""Ops that every group computes for itself rather than read."""
SCALAR_OPS = 32
"""0-d arithmetic of up to this many ops is also computed by every group for itself."""
LABEL_OPS = 4
WINDOW = 16
"""Windows of up to this many elements are written out, so that a reduction may contain them."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the operand ``producer`` of ``user`` is not computed in the same kernel."""

    producer: Node
    user: Node
    reason: str

    def __str__(self) -> str:
        producer, user = self.producer, self.user
        place = f"  # {user.where}" if user.where else ""
        return f"{producer.op.name} stays out of {user.op.name}: {self.reason}{place}"


@dataclass(slots=True)
class Group:
    """Nodes that become one kernel."""

    space: tuple[Dim, ...]
    nodes: list[Node]
    reduced: frozenset[int] = frozenset()
    contracts: bool = False
    closed: str = ""
    members: int = 0


@dataclass(frozen=True, slots=True)
class Fusion:
    """A fused graph, and the reason for every edge that was not fused."""

    graph: Graph
    refusals: tuple[Refusal, ...] = field(default=())


def fuse(graph: Graph) -> Graph:
    """Return the graph of `fused` nodes, aliases and inputs."""
    return fuse_with_reasons(graph).graph


def fuse_with_reasons(graph: Graph) -> Fusion:
    """Return the fused graph and why what stayed apart did."""
    planner = _Planner(graph)
    for node in graph.nodes:
        planner.place(node)
    return Fusion(_Rebuilder(graph, planner).graph_of_groups(), tuple(planner.refusals))


class _Planner:
    """Assigns nodes to groups."""

    def __init__(self, graph: Graph) -> None:
        self.users = graph.users()
        self.results = set(graph.results)
        self.cheap = _cheap_nodes(graph)
        self.bit = {id(n): 1 << i for i, n in enumerate(graph.nodes)}
        self.ancestors: dict[int, int] = {}
        self.group_of: dict[int, Group] = {}
        self.refusals: list[Refusal] = []

    def place(self, node: Node) -> None:
        """Put a node into the groups of its operands, or into one of its own."""
        self.ancestors[id(node)] = self._before(node)
        if node.op.name in ALIASES or id(node) in self.cheap:
            return
        home: Group | None = None
        for producer in self._producers(node):
            group = self.group_of[id(producer)]
            if group is home:
                continue
            reason = self._refusal(node, group, home)
            if reason:
                self.refusals.append(Refusal(producer, node, reason))
                continue
            home = group if home is None else self._merge(home, group)
        home = home or self._sibling(node)
        if home is None:
            self._open(node)
        else:
            self._join(node, home)

    def _sibling(self, node: Node) -> Group | None:
        """Return the group of a movement that reads the same operand for the same places."""
        if node.op.kind is not Kind.MOVEMENT or node.op.nests:
            return None
        for user in self.users.get(node.inputs[0], ()) if node.inputs else ():
            group = self.group_of.get(id(user))
            if user.op.kind is not Kind.MOVEMENT or group is None or group.closed:
                continue
            if group.space != _space(node) or self.ancestors[id(node)] & group.members:
                continue
            if not self._path_outside(node, [group]):
                return group
        return None

    def _before(self, node: Node) -> int:
        bits = 0
        for value in node.inputs:
            bits |= self.ancestors.get(id(value.node), 0) | self.bit.get(id(value.node), 0)
        return bits

    def _producers(self, node: Node) -> Iterator[Node]:
        """Yield the grouped nodes read here: contractions first, then reductions, then the rest."""
        found = [v.node for v in node.inputs if id(v.node) in self.group_of]
        unique = list({id(n): n for n in found}.values())
        order = {True: 0, False: 1}
        unique.sort(
            key=lambda n: (
                order[self.group_of[id(n)].contracts],
                order[bool(self.group_of[id(n)].reduced)],
            )
        )
        yield from unique

    def _open(self, node: Node) -> None:
        kind = node.op.kind
        group = Group(_space(node), [])
        group.contracts = kind is Kind.CONTRACT
        if kind in (Kind.SCATTER, Kind.SCAN, Kind.OPAQUE) or node.op.nests:
            group.closed = f"{node.op.name} is a kernel of its own"
        self._join(node, group)

    def _join(self, node: Node, group: Group) -> None:
        if node.op.kind is Kind.REDUCE:
            group.reduced = group.reduced | reduced_axes(node)
        group.nodes.append(node)
        group.members |= self.bit[id(node)]
        self.group_of[id(node)] = group
        self._close(group)

    def _merge(self, home: Group, other: Group) -> Group:
        home.nodes = sorted(home.nodes + other.nodes, key=lambda n: self.bit[id(n)])
        home.members |= other.members
        home.reduced |= other.reduced
        home.contracts |= other.contracts
        for node in other.nodes:
            self.group_of[id(node)] = home
        self._close(home)
        return home

    def _close(self, group: Group) -> None:
        """Let what depends on one node of a group depend on all of them: they run as one kernel.

        Else two groups could each read what the other one computes.
        """
        if len(group.nodes) < 2:
            return
        before = group.members
        for member in group.nodes:
            before |= self.ancestors[id(member)]
        if self._read_outside(group):
            for key, bits in self.ancestors.items():
                if bits & group.members:
                    self.ancestors[key] = bits | before
        for member in group.nodes:
            self.ancestors[id(member)] |= before & ~group.members

    def _read_outside(self, group: Group) -> bool:
        """Return whether a node that has its place already reads a group from outside."""
        inside = {id(n) for n in group.nodes}
        return any(
            id(user) in self.ancestors and id(user) not in inside
            for member in group.nodes
            for value in member.outputs
            for user in self.users.get(value, ())
        )

    # -- rules -------------------------------------------------------------------------------

    def _refusal(self, node: Node, group: Group, home: Group | None) -> str:
        """Return why ``node`` (already in ``home``, if any) cannot join ``group``, or ''."""
        if group.closed:
            return group.closed
        reason = _does_not_fit(node, group)
        if reason:
            return reason
        if _serial(node, group) and not self._only_feeds(group, node):
            return "a full reduction would make the kernel serial"
        groups = [group]
        if home is not None:
            if home.space != group.space:
                return f"other operands run over {_text(home.space)}, this one {_text(group.space)}"
            if home.contracts and group.contracts:
                return "one contraction to a kernel"
            if home.reduced and group.reduced and home.reduced != group.reduced:
                return "its other operands reduce other axes"
            if (home.contracts and group.reduced) or (group.contracts and home.reduced):
                return "a contraction's kernel does not reduce its result"
            if self._kept_apart(home, group):
                return "the kernel of another operand reads it at other places"
            groups.append(home)
        if self._path_outside(node, groups):
            return "another kernel would have to run in the middle"
        return ""

    def _kept_apart(self, a: Group, b: Group) -> bool:
        """Return whether an edge between two groups was refused: one kernel would compute again
        what the other keeps.
        """
        return any(
            {id(self.group_of[id(r.producer)]), id(self.group_of.get(id(r.user)))} == {id(a), id(b)}
            for r in self.refusals
        )

    def _only_feeds(self, group: Group, node: Node) -> bool:
        """Return whether nothing but ``node`` and the group itself reads the group's values."""
        inside = {id(n) for n in group.nodes} | {id(node)}
        for member in group.nodes:
            for value in member.outputs:
                if value in self.results:
                    return False
                if any(id(user) not in inside for user in self.users.get(value, ())):
                    return False
        return True

    def _path_outside(self, node: Node, groups: Sequence[Group]) -> bool:
        """Return whether a node outside depends on the groups and is read by one of them."""
        members = 0
        for group in groups:
            members |= group.members
        for reader in (node, *(n for g in groups for n in g.nodes)):
            for value in reader.inputs:
                bit = self.bit.get(id(value.node), 0)
                if not bit & members and self.ancestors.get(id(value.node), 0) & members:
                    return True
        return False


def _does_not_fit(node: Node, group: Group) -> str:
    """Return why a node's own loops are not the group's, or ''."""
    kind = node.op.kind
    if kind is Kind.POINTWISE:
        shape = node.types[0].shape
        if shape == group.space or shape == _kept_shape(group):
            return ""
        return f"its result is {_text(shape)}, the kernel runs over {_text(group.space)}"
    if kind is Kind.REDUCE:
        if group.contracts:
            return "a contraction's kernel does not reduce its result"
        source = node.inputs[0].shape
        axes = reduced_axes(node)
        if source != group.space:
            return "it reduces a value that is already reduced"
        if group.reduced and group.reduced != axes:
            return "the kernel reduces other axes"
        scattered = next((n for n in group.nodes if n.op.scattered), None)
        if scattered is not None:
            return f"a reduction would read through {scattered.op.name}, which jumps in memory"
        if any(map(_sums_windows, group.nodes)):
            return "the sum of a large window is not summed again in one kernel"
        return ""
    if kind is Kind.MOVEMENT:
        return f"{node.op.name} reads its operand at other places"
    return f"{node.op.name} starts a kernel of its own"


def _sums_windows(node: Node) -> bool:
    """Return whether a node reduces windows too large to be written out term by term."""
    return bool(math.prod(node.attrs.get("kernel", ())) > WINDOW)


def _serial(node: Node, group: Group) -> bool:
    """Return whether ``node`` would put loops over the whole space into a full reduction."""
    everything = frozenset(a for a, d in enumerate(group.space) if d != 1)
    if node.op.kind is Kind.REDUCE:
        return everything <= reduced_axes(node)
    whole = node.types[0].shape == group.space
    return bool(group.reduced) and everything <= group.reduced and whole


def _cheap_nodes(graph: Graph) -> frozenset[int]:
    """Return ids of the nodes that every group computes for itself.

    A kernel with its own loops computes nothing beside: what it reads lies in memory.
    """
    counts: dict[int, int] = {}
    read_by_nests = {id(v.node) for node in graph.nodes if node.op.nests for v in node.inputs}
    for node in graph.nodes:
        if id(node) in read_by_nests:
            continue
        scalar = node.op.kind is Kind.POINTWISE and all(t.shape == () for t in node.types)
        if not scalar and node.op.name not in CHEAP:
            continue
        count = 1
        for value in node.inputs:
            count += 0 if value.op_name == "input" else counts.get(id(value.node), SCALAR_OPS)
        if count <= SCALAR_OPS:
            counts[id(node)] = count
    return frozenset(counts)


def reduced_axes(node: Node) -> frozenset[int]:
    """Return the axes a reduction with kept axes makes 1."""
    before, after = node.inputs[0].shape, node.types[0].shape
    axis = node.attrs.get("axis")
    if axis is None:
        return frozenset(range(len(before)))
    chosen = (axis,) if isinstance(axis, int) else axis
    return frozenset(a % len(after) for a in chosen)


def _kept_shape(group: Group) -> tuple[Dim, ...]:
    return tuple(1 if a in group.reduced else d for a, d in enumerate(group.space))


def _space(node: Node) -> tuple[Dim, ...]:
    return node.inputs[0].shape if node.op.kind is Kind.REDUCE else node.types[0].shape


def _text(shape: Sequence[Dim]) -> str:
    return f"[{', '.join(map(str, shape))}]"


# -- building the fused graph ----------------------------------------------------------------


class _Rebuilder:
    """Builds the graph with a `fused` node in place of each group."""

    def __init__(self, graph: Graph, planner: _Planner) -> None:
        self.graph, self.planner = graph, planner
        self.wanted = _read_elsewhere(graph, planner)
        self.replaced: dict[Value, Value] = {v: v for v in graph.inputs}

    def graph_of_groups(self) -> Graph:
        """Return the fused graph."""
        for node in self.graph.nodes:
            if id(node) in self.planner.group_of or node.op.name in ALIASES:
                for value in node.outputs:
                    if value in self.wanted:
                        self.available(value)
        return self.graph.with_results([self.available(v) for v in self.graph.results])

    def available(self, value: Value) -> Value:
        """Return what holds a value of the graph in the fused one."""
        if value not in self.replaced:
            self._compute(value)
        return self.replaced[value]

    def _compute(self, value: Value) -> None:
        node = value.node
        if node.op.name in ALIASES:
            inputs = tuple(map(self.available, node.inputs))
            self.replaced[value] = build(node.op, inputs, node.attrs, node.where)[value.index]
            return
        group = self.planner.group_of.get(id(node))
        nodes = [node] if group is None else group.nodes
        outputs = [
            v for n in nodes for v in n.outputs if v in self.wanted or v == value or n.op.nests
        ]  # explicit loops write all of their results
        body, sources = self._body(nodes, outputs)
        names = [n.op.label(**n.attrs) for n in nodes if n.op.name != "cast"]
        label = "_".join(names[:LABEL_OPS]) or "cast"
        inputs = tuple(map(self.available, sources))
        attrs = {"body": body, "label": label}
        made = build(REGISTRY["fused"], inputs, attrs, nodes[0].where)
        self.replaced.update(zip(outputs, made, strict=True))

    def _body(
        self, nodes: Sequence[Node], outputs: Sequence[Value]
    ) -> tuple[Graph, tuple[Value, ...]]:
        """Return a group's body, with cheap operands copied in, and the values it reads."""
        inside = {id(n) for n in nodes}
        replaced: dict[Value, Value] = {}
        sources: list[Value] = []
        copied: list[Value] = [v for n in nodes for v in n.inputs]
        while copied:
            value = copied.pop(0)
            if id(value.node) in inside or value in replaced:
                continue
            if id(value.node) in self.planner.cheap:
                inside.add(id(value.node))
                copied.extend(value.node.inputs)
                continue
            replaced[value] = placeholder(f"x{len(sources)}", value.type)
            sources.append(value)
        results = rewrite_values(outputs, lambda node, inputs: None, replaced)
        inputs = tuple(replaced[v] for v in sources)
        return Graph("body", inputs, tuple(results)), tuple(sources)


def _read_elsewhere(graph: Graph, planner: _Planner) -> set[Value]:
    """Return the values that are results or are read outside their group."""
    wanted = set(graph.results)
    for node in graph.nodes:
        home = planner.group_of.get(id(node))
        for value in node.inputs:
            source = planner.group_of.get(id(value.node))
            inside = id(value.node) in planner.cheap if source is None else source is home
            if not inside:
                wanted.add(value)
    return wanted

"""Let kernels of rows sum columns, too: what they have at hand is not read again for it.

Normalization, softmax and their gradients reduce rows; the gradients of their parameters are sums
over all rows. In a kernel of its own such a sum reads what the kernel of rows has just written, or
what it has read. `graphc.passes.schedule.row_sums` keeps partial sums beside the rows instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphc.ir.dim import Dim
from graphc.ir.graph import Graph, Node, Value, build, remake
from graphc.ir.op import Kind
from graphc.ir.operand import REGISTRY
from graphc.passes.fuse import reduced_axes
from graphc.passes.lower import is_constant


def column_sums(graph: Graph) -> Graph:
    """Return a fused graph in which kernels of rows compute sums over rows that suit them."""
    found = _Choice(graph).found
    return _Rebuilder(graph, found).graph_of_kernels() if found else graph


@dataclass(slots=True)
class _Taken:
    """What a kernel of rows takes over.

    Attributes
    ----------
    sums : list of (Node, Value)
        Kernels that it replaces, and the value in its body that each sums.
    dropped : set of int
        Numbers of its outputs that nothing else reads.
    """

    sums: list[tuple[Node, Value]] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)


class _Choice:
    """Finds for each sum over rows the kernel that takes it over, if there is one."""

    def __init__(self, graph: Graph) -> None:
        self.users, self.results = graph.users(), set(graph.results)
        self.bit = {id(n): 1 << i for i, n in enumerate(graph.nodes)}
        self.before: dict[int, int] = {}
        for node in graph.nodes:
            self.before[id(node)] = 0
            for value in node.inputs:
                own = self.bit.get(id(value.node), 0)
                self.before[id(node)] |= own | self.before.get(id(value.node), 0)
        self.rows = {id(n): shape for n in graph.nodes if (shape := _rows(n)) is not None}
        self.found: dict[Node, _Taken] = {}
        for node in graph.nodes:
            if _is_sum(node):
                self._place(node)
        self._drop()

    def _place(self, node: Node) -> None:
        (value,) = node.inputs
        homes = [value.node] if value.node.inputs else []
        for home in (*homes, *self.users[value]):
            if self.rows.get(id(home)) == value.shape and self._may_wait(node, home):
                inside = _inside(home, value)
                self.found.setdefault(home, _Taken()).sums.append((node, inside))
                self._join(node, home)
                return

    def _may_wait(self, node: Node, home: Node) -> bool:
        """Return whether a kernel needs nothing that comes from a sum."""
        return not self.before[id(home)] & self.bit[id(node)]

    def _join(self, node: Node, home: Node) -> None:
        """Let what depends on a sum depend on all that its new home needs."""
        more = self.before[id(home)] | self.bit[id(home)]
        for key, bits in self.before.items():
            if bits & self.bit[id(node)]:
                self.before[key] = bits | more

    def _drop(self) -> None:
        taken = {id(node) for found in self.found.values() for node, _ in found.sums}
        for home, found in self.found.items():
            for number, value in enumerate(home.outputs):
                readers = self.users.get(value, ())
                if value not in self.results and readers and all(id(r) in taken for r in readers):
                    found.dropped.add(number)


def _rows(node: Node) -> tuple[Dim, ...] | None:
    """Return the shape that a kernel of rows runs over; None for any other kernel."""
    if node.op.name != "fused":
        return None
    body = node.attrs["body"]
    reduces = [n for n in body.nodes if n.op.kind is Kind.REDUCE]
    others = [n for n in body.nodes if n.op.kind not in (Kind.REDUCE, Kind.POINTWISE)]
    if not reduces or any(n.inputs for n in others):
        return None
    shape: tuple[Dim, ...] = reduces[0].inputs[0].shape
    last = frozenset({len(shape) - 1})
    alike = all(n.inputs[0].shape == shape and reduced_axes(n) == last for n in reduces)
    # Lanes run over rows of a few elements, so nothing is at hand row by row.
    return shape if alike and len(shape) > 1 and not is_constant(shape[-1], frozenset()) else None


def _is_sum(node: Node) -> bool:
    """Return whether a kernel is the sum of an array over all axes but the last."""
    if node.op.name != "fused" or len(node.inputs) != 1:
        return False
    body = node.attrs["body"]
    if [n.op.name for n in body.nodes] != ["sum"] or body.nodes[0].inputs != body.inputs:
        return False
    (found,) = body.nodes
    (source,) = found.inputs
    outer = frozenset(range(len(source.shape) - 1))
    plain = source.dtype.floating and found.types[0].dtype is source.dtype
    return bool(outer) and plain and reduced_axes(found) == outer


def _inside(home: Node, value: Value) -> Value:
    """Return what a value that a kernel reads or writes is called in its body."""
    body: Graph = home.attrs["body"]
    if value.node is home:
        return body.outputs[value.index]
    return body.inputs[home.inputs.index(value)]


class _Rebuilder:
    """Builds the graph with kernels that have taken over sums."""

    def __init__(self, graph: Graph, found: Mapping[Node, _Taken]) -> None:
        self.graph, self.found = graph, found
        self.homes = {id(node): home for home, t in found.items() for node, _ in t.sums}
        self.replaced: dict[Value, Value] = {v: v for v in graph.inputs}
        self.made: set[int] = set()

    def graph_of_kernels(self) -> Graph:
        """Return the new graph."""
        for node in self.graph.nodes:
            if id(node) not in self.homes:
                self._make(node)
        return self.graph.with_results([self.replaced[v] for v in self.graph.results])

    def _make(self, node: Node) -> None:
        """Put a kernel into the new graph, behind those that it needs."""
        if id(node) in self.made:
            return
        self.made.add(id(node))
        for value in node.inputs:
            if value not in self.replaced:
                self._make(self.homes.get(id(value.node), value.node))
        inputs = tuple(self.replaced[v] for v in node.inputs)
        taken = self.found.get(node)
        if taken is not None:
            self.replaced |= _with_sums(node, inputs, taken)
            return
        outputs = node.outputs if inputs == node.inputs else remake(node, inputs).outputs
        self.replaced |= dict(zip(node.outputs, outputs, strict=True))


def _with_sums(
    node: Node, inputs: tuple[Value, ...], taken: _Taken
) -> dict[Value, Value]:
    """Make the kernel that has taken over sums; returns what takes the place of which value."""
    body: Graph = node.attrs["body"]
    kept = [n for n in range(len(node.outputs)) if n not in taken.dropped]
    sums: list[Value] = []
    for old, inside in taken.sums:
        (own,) = old.attrs["body"].nodes
        sums += build(REGISTRY["sum"], (inside,), own.attrs, own.where)
    outputs = (*(body.outputs[n] for n in kept), *sums)
    attrs = {**node.attrs, "body": Graph(body.name, body.inputs, outputs)}
    replaced = [*(node.outputs[n] for n in kept), *(old.outputs[0] for old, _ in taken.sums)]
    return dict(zip(replaced, build(node.op, inputs, attrs, node.where), strict=True))

"""Memory: the order of launches, what shares memory, and where in the arena each value lives.

Liveness plus offsets. A value's memory is free again after the launch that reads it last; a kernel
that reads an operand only at the place it writes may write over it. Updates write into the memory
of the input they replace where every other reader has run before; else through a copy at the end.
An op that changes an operand in part (``overwrites``) writes where that lies, and a copy of it goes
first where the old value is still needed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphc.ir.dim import product
from graphc.ir.graph import Graph, Node, Value, build, placeholder, remake, rewrite
from graphc.ir.op import Kind
from graphc.ir.operand import REGISTRY
from graphc.ir.plan import Life
from graphc.passes.fuse import ALIASES, WINDOW


@dataclass(frozen=True, slots=True)
class Storage:
    """What does not depend on sizes: launch order and sharing.

    Attributes
    ----------
    graph : Graph
        The fused graph, with copies where a result cannot be written where it belongs.
    launches : tuple of Node
        The `fused` nodes in the order they run.
    root : dict of Value to Value
        The value whose memory another one names: through aliases, and the updated input for new
        values written in place.
    over : dict of Value to Value
        A value that may take over the memory of one that dies in the same launch.
    """

    graph: Graph
    launches: tuple[Node, ...]
    root: dict[Value, Value]
    over: dict[Value, Value]


def storage(graph: Graph) -> Storage:
    """Order the launches of a fused graph and decide what shares memory."""
    graph = _changed_copies(graph)
    graph = _own_results(graph, everything=False)
    ordered = _ordered(graph)
    if ordered is None:
        # A reader of an old value also needs the new one: all updates go through copies.
        graph = _own_results(graph, everything=True)
        ordered = _ordered(graph)
        assert ordered is not None
    root = _alias_roots(graph)
    for target, new in graph.updates:
        root[root[new]] = target
    root |= {new: root[old] for new, old in _changes(graph).items()}
    root = {v: _find(root, v) for v in root}
    return Storage(graph, tuple(ordered), root, _takeovers(graph, ordered, root))


def _own_results(graph: Graph, everything: bool) -> Graph:
    """Give every result memory of its own, by copies where it names another one's.

    Outputs that are inputs or one value twice are copied, and updates (``everything``: all of
    them) whose new value cannot be written over the input it replaces.
    """
    root = _alias_roots(graph)
    changes = _changes(graph)
    taken = set(graph.inputs)
    results = []
    for value in graph.outputs:
        results.append(_copy(value) if root[value] in taken else value)
        taken.add(root[value])
    for target, new in graph.updates:
        source = root[new]
        fits = source not in taken and _writes_over(source.node, source.index, target, root)
        stays = source in changes or not everything
        results.append(new if fits and stays else _copy(new))
        taken.add(source)
    return graph.with_results(results)


def _changes(graph: Graph) -> dict[Value, Value]:
    """Map what an op writes over an operand, changing it in part, to that operand."""
    return {
        value: old
        for node in graph.nodes
        if node.op.name == "fused"
        for value in node.outputs
        if (old := _changed(value)) is not None
    }


def _changed(value: Value) -> Value | None:
    """Return the operand of a launch that one of its results is written over by its op."""
    launch = value.node
    body: Graph = launch.attrs["body"]
    made = body.outputs[value.index]
    first = made.node.op.overwrites
    if first is None:
        return None
    return launch.inputs[body.inputs.index(made.node.inputs[first + made.index])]


def _changed_copies(graph: Graph) -> Graph:
    """Copy what an op changes in part, where its old value is still needed."""
    changes, users = _changes(graph), graph.users()
    replaced = dict(graph.updates)

    def kept(new: Value, old: Value) -> bool:
        alone = users[old] == [new.node] and old.op_name == "fused" and old not in graph.results
        read_on = new in users or new in graph.outputs or new.node.inputs.count(old) > 1
        return not alone and (replaced.get(old) != new or read_on)

    copied = {new for new, old in changes.items() if kept(new, old)}

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        old = [changes[value] for value in node.outputs if value in copied]
        if not old:
            return None
        fresh = tuple(_copy(v) if own in old else v for own, v in zip(node.inputs, inputs))
        return remake(node, fresh).outputs

    return rewrite(graph, visit) if copied else graph


def _copy(value: Value) -> Value:
    inside = placeholder("x0", value.type)
    body = Graph("body", (inside,), build(REGISTRY["copy"], (inside,), {}, value.node.where))
    attrs = {"body": body, "label": "copy"}
    return build(REGISTRY["fused"], (value,), attrs, value.node.where)[0]


def _writes_over(node: Node, output: int, target: Value, root: Mapping[Value, Value]) -> bool:
    """Return whether a launch may write an output over an input it may also read.

    One that checks may not: it would have written a part of it when it fails.
    """
    return node.op.name == "fused" and not _guards(node) and all(
        _reads_in_place(node, i, output) for i, v in enumerate(node.inputs) if root[v] == target
    )


def _written_out(node: Node) -> bool:
    """Return whether a reduction is so small that each element computes it for itself."""
    source, result = node.inputs[0].type, node.types[0]
    ratio = [b for b, a in zip(source.shape, result.shape) if a == 1]
    size = product(ratio)
    return node.op.kind is Kind.REDUCE and isinstance(size, int) and size <= WINDOW


def _find(root: Mapping[Value, Value], value: Value) -> Value:
    while root.get(value, value) != value:
        value = root[value]
    return value


def _alias_roots(graph: Graph) -> dict[Value, Value]:
    root: dict[Value, Value] = {v: v for v in graph.inputs}
    for node in graph.nodes:
        for value in node.outputs:
            alias = node.op.name in ALIASES
            root[value] = root[node.inputs[0]] if alias else value
    return root


def _reads_in_place(node: Node, position: int, output: int) -> bool:
    """Return whether a kernel reads an operand only at the place where it writes an output."""
    if _changed(node.outputs[output]) == node.inputs[position]:
        return True
    body: Graph = node.attrs["body"]
    operand, result = body.inputs[position], body.outputs[output]
    if operand.shape != result.shape or operand.dtype.item_bytes != result.dtype.item_bytes:
        return False
    kinds = {n.op.kind for n in body.nodes}
    touched = {operand}
    for inner in body.nodes:
        if any(v in touched for v in inner.inputs):
            if inner.op.kind not in (Kind.POINTWISE, Kind.REDUCE) or _written_out(inner):
                return False
            touched.update(inner.outputs)
    # Kernels compute all values of one place before they store the first. Those that reduce may
    # store some outputs in a later loop.
    others = [v for i, v in enumerate(body.outputs) if i != output and v in touched]
    at_once = kinds <= {Kind.POINTWISE, Kind.CONTRACT}
    return not others or (at_once and all(v.shape == result.shape for v in others))


def _ordered(graph: Graph) -> list[Node] | None:
    """Return the launches in a topological order: guards first, updates after other readers.

    None when an update would have to wait for a launch that needs it.
    """
    root = _alias_roots(graph)
    launches = [n for n in graph.nodes if n.op.name not in ALIASES]
    index = {id(n): i for i, n in enumerate(launches)}
    reads = [{root[v] for v in node.inputs} for node in launches]
    before = [{index[id(v.node)] for v in values if id(v.node) in index} for values in reads]
    for target, new in graph.updates:
        writer = index[id(root[new].node)]
        before[writer] |= {i for i, values in enumerate(reads) if target in values} - {writer}
    return _kahn(launches, before)


def _kahn(launches: Sequence[Node], before: Sequence[set[int]]) -> list[Node] | None:
    after: list[list[int]] = [[] for _ in launches]
    missing = [len(b) for b in before]
    for i, earlier in enumerate(before):
        for j in earlier:
            after[j].append(i)
    ready = [(not _guards(launches[i]), i) for i, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    order: list[Node] = []
    while ready:
        _, i = heapq.heappop(ready)
        order.append(launches[i])
        for j in after[i]:
            missing[j] -= 1
            if missing[j] == 0:
                heapq.heappush(ready, (not _guards(launches[j]), j))
    return order if len(order) == len(launches) else None


def _guards(node: Node) -> bool:
    """Return whether a launch checks its operands and may fail."""
    return any(n.op.name.startswith("check_") for n in node.attrs["body"].nodes)


def _takeovers(
    graph: Graph, launches: Sequence[Node], root: Mapping[Value, Value]
) -> dict[Value, Value]:
    """Map outputs to operands of the same launch whose memory they may take over."""
    keep = {root[v] for v in (*graph.results, *graph.inputs)}
    last = {root[v]: i for i, n in enumerate(launches) for v in n.inputs}
    found: dict[Value, Value] = {}
    for i, node in enumerate(launches):
        taken: set[Value] = set()
        for value in node.outputs:
            if root[value] != value or value in keep:
                continue
            for operand in node.inputs:
                source = root[operand]
                if source in keep or source in taken or last[source] != i:
                    continue
                if _writes_over(node, value.index, source, root):
                    found[value] = source
                    taken.add(source)
                    break
    return found


def lifetimes(
    layout: Storage, launches: Iterable[tuple[Sequence[Value], Sequence[Value]]]
) -> tuple[Life, ...]:
    """Return first and last launch of every value that lives in the arena.

    Parameters
    ----------
    layout : Storage
    launches : iterable of (values, values)
        What each launch reads and writes; scratch memory may be among it.
    """
    graph, root = layout.graph, layout.root
    outside = {root[v] for v in (*graph.outputs, *graph.inputs)}
    spans: dict[Value, list[int]] = {}
    for i, (reads, writes) in enumerate(launches):
        for value in writes:
            if root.get(value, value) == value and value not in outside:
                spans.setdefault(value, [i, i])[1] = i
        for value in reads:
            source = root.get(value, value)
            if source in spans:
                spans[source][1] = i
    heads = _shared_heads(layout)
    return tuple(
        Life(v, heads.get(v, v), v.type.size, v.dtype.item_bytes, first, last)
        for v, (first, last) in spans.items()
    )


def _shared_heads(layout: Storage) -> dict[Value, Value]:
    """Map each value that takes over memory to the first owner of that memory."""
    heads: dict[Value, Value] = {}
    for node in layout.launches:
        for value in node.outputs:
            if value in layout.over:
                owner = layout.over[value]
                heads[value] = heads.get(owner, owner)
    return heads

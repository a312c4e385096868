"""The typed graph: Value, Node, Graph. SSA, immutable; passes return new graphs.

A Node holds its inputs, so a Graph is only its ends: inputs, outputs and updates. Its nodes are
what is reached from them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.errors import DTypeError, GraphcError, Location, VerifyError, located, user_location
from graphc.ir.dim import Dim
from graphc.ir.operand import REGISTRY, Operators, apply, is_scalar
from graphc.ir.sizes import Constraint, substituted
from graphc.ir.types import DType, TensorType, as_dtype, weak_dtype


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation: its record, inputs, static attributes, result types and the user's line."""

    op: Any
    inputs: tuple[Value, ...]
    attrs: Mapping[str, Any]
    types: tuple[TensorType, ...]
    where: Location | None = None

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The values this node computes."""
        if len(self.types) == 1:
            return (Value(self),)
        return tuple([Value(self, index) for index in range(len(self.types))])


@dataclass(slots=True, eq=False)
class Value(Operators):
    """One result of a Node; an operand of every op. Never changed, not frozen: passes make many."""

    node: Node
    index: int = 0

    __graphc_priority__ = 10

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        same = isinstance(other, Value) and self.node is other.node
        return same and self.index == other.index  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self.node) + self.index

    @property
    def type(self) -> TensorType:
        """Element type and shape."""
        return self.node.types[self.index]

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Size of each axis."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.type.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.type.shape)

    @property
    def op_name(self) -> str:
        """Name of the op that computes this value."""
        return str(self.node.op.name)

    @staticmethod
    def __graphc_apply__(op: Any, operands: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        where = user_location()
        values = lift(op, operands)
        outputs = build(op, values, attrs, where)
        return outputs[0] if len(outputs) == 1 else outputs


def lift(op: Any, operands: Sequence[Any]) -> tuple[Value, ...]:
    """Return operands as Values: scalars become constants of the type they take weakly."""
    peer = op.peer([o.dtype if isinstance(o, Value) else None for o in operands])
    lifted = []
    for operand in operands:
        if isinstance(operand, Value):
            lifted.append(operand)
        elif is_scalar(operand):
            lifted.append(constant(operand, weak_dtype(_plain(operand), peer or as_dtype("int64"))))
        else:
            raise DTypeError(
                f"{op.name} cannot take a {type(operand).__name__} beside a traced value",
                remedy="Pass an array, a scalar or another traced value.",
                where=user_location(),
            )
    return tuple(lifted)


def _plain(scalar: Any) -> Any:
    return scalar.item() if isinstance(scalar, np.generic) else scalar


def build(
    op: Any, inputs: tuple[Value, ...], attrs: Mapping[str, Any], where: Location | None
) -> tuple[Value, ...]:
    """Make a node, with casts where the op promotes its operands, and return its outputs."""
    try:
        dtypes = op.operand_dtypes(tuple(v.type for v in inputs))
        if dtypes is not None:
            inputs = tuple(cast(v, d) for v, d in zip(inputs, dtypes, strict=True))
        types = op.infer(*(v.type for v in inputs), **attrs)
    except GraphcError as error:
        raise error.attach(where=where, op=op.name, operands=[v.type for v in inputs]) from None
    if isinstance(types, TensorType):
        types = (types,)
    return Node(op, inputs, dict(attrs), tuple(types), where).outputs


def cast(value: Value, dtype: DType) -> Value:
    """Return ``value`` with another element type; itself when it has it already."""
    if value.dtype is dtype:
        return value
    truncates = value.dtype.floating and dtype.integer  # and saturates, which `constant` does not
    if value.op_name == "constant" and not truncates:
        return constant(value.node.attrs["value"], dtype)
    converted: Value = apply(REGISTRY["cast"], (value,), {"dtype": dtype})
    return converted


def constant(scalar: Any, dtype: object) -> Value:
    """Return a 0-d constant."""
    kind = as_dtype(dtype)
    with np.errstate(all="ignore"):
        item = np.asarray(scalar).astype(kind.numpy).item()
    return build(REGISTRY["constant"], (), {"value": item, "dtype": kind}, user_location())[0]


def unique_name(name: str, taken: Container[str]) -> str:
    """Return ``name``, with a number behind it if it is taken."""
    found, count = name, 1
    while found in taken:
        found, count = f"{name}_{count}", count + 1
    return found


def placeholder(name: str, kind: TensorType, where: Location | None = None) -> Value:
    """Return a fresh graph input."""
    return Node(REGISTRY["input"], (), {"name": name, "type": kind}, (kind,), where).outputs[0]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A program: named inputs, outputs, and which inputs are replaced by which new values.

    Attributes
    ----------
    name : str
    inputs : tuple of Value
        Placeholders.
    outputs : tuple of Value
    updates : tuple of (Value, Value)
        Pairs of an input and the value that replaces it when the program has run.
    constraints : tuple of Constraint
        What tracing fixed or unified of the sizes.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    updates: tuple[tuple[Value, Value], ...] = ()
    constraints: tuple[Constraint, ...] = ()
    _order: list[Node] = field(default_factory=list, repr=False)

    @property
    def results(self) -> tuple[Value, ...]:
        """Outputs, then the new values of the updates."""
        return self.outputs + tuple(new for _, new in self.updates)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node reached from the results, inputs excluded, in topological order."""
        if not self._order:
            self._order.extend(
                n for n in topological(self.results) if n.op.name != "input"
            )
        return tuple(self._order)

    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs in order."""
        return tuple(input_name(v) for v in self.inputs)

    def users(self) -> dict[Value, list[Node]]:
        """Map each value to the nodes that read it, one entry for each reading operand."""
        readers: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                readers.setdefault(value, []).append(node)
        return readers

    def with_results(self, results: Sequence[Value], **changes: Any) -> Graph:
        """Return this graph computing other values at its outputs and updates."""
        count = len(self.outputs)
        old = [target for target, _ in self.updates]
        return Graph(
            changes.get("name", self.name),
            changes.get("inputs", self.inputs),
            tuple(results[:count]),
            tuple(zip(old, results[count:], strict=True)),
            changes.get("constraints", self.constraints),
        )


def input_name(value: Value) -> str:
    """Return the name of a graph input."""
    return str(value.node.attrs["name"])


def topological(results: Iterable[Value], stop: Iterable[Value] = ()) -> Iterator[Node]:
    """Yield each node that ``results`` need, operands before users, in a stable order.

    Nodes of the values ``stop``, and what only they need, are left out.
    """
    done = {id(value.node) for value in stop}
    for root in results:
        stack: list[tuple[Node, int]] = [(root.node, 0)]
        while stack:
            node, position = stack.pop()
            if id(node) in done:
                continue
            while position < len(node.inputs) and id(node.inputs[position].node) in done:
                position += 1
            if position < len(node.inputs):
                stack.append((node, position + 1))
                stack.append((node.inputs[position].node, 0))
            else:
                done.add(id(node))
                yield node


Visit = Callable[[Node, tuple[Value, ...]], "Sequence[Value] | None"]


def rewrite(graph: Graph, visit: Visit) -> Graph:
    """Rebuild a graph bottom-up.

    Parameters
    ----------
    graph : Graph
    visit : callable
        ``visit(node, inputs)`` gets each node with its already rewritten inputs and returns the
        values that replace its outputs, or None to keep the node over those inputs. Values made
        inside get the node's own line.
    """
    return graph.with_results(rewrite_values(graph.results, visit))


def rewrite_values(
    results: Sequence[Value], visit: Visit, replaced: dict[Value, Value] | None = None
) -> list[Value]:
    """Rebuild the values ``results`` bottom-up; ``replaced`` seeds and collects replacements."""
    replaced = {} if replaced is None else replaced
    for node in topological(results, tuple(replaced)):
        inputs = tuple([replaced.get(v, v) for v in node.inputs])
        with located(node.where):
            new = visit(node, inputs) if node.op.name != "input" else None
        outputs = node.outputs
        if new is None:
            new = outputs if inputs == node.inputs else remake(node, inputs).outputs
        for old, value in zip(outputs, new, strict=True):
            replaced[old] = value
    return [replaced.get(v, v) for v in results]


def remake(node: Node, inputs: tuple[Value, ...]) -> Node:
    """Return the same operation over other inputs, with types inferred anew."""
    return build(node.op, inputs, node.attrs, node.where)[0].node


def substitute_sizes(graph: Graph, mapping: Mapping[str, Dim]) -> Graph:
    """Return the graph with size variables replaced everywhere: types, attributes, bodies."""
    if not mapping:
        return graph
    inputs: dict[Value, Value] = {}
    for value in graph.inputs:
        kind = TensorType(value.dtype, substituted(value.shape, mapping))
        inputs[value] = placeholder(input_name(value), kind, value.node.where)

    def visit(node: Node, operands: tuple[Value, ...]) -> Sequence[Value]:
        attrs = {key: _substitute_attr(item, mapping) for key, item in node.attrs.items()}
        return build(node.op, operands, attrs, node.where)

    results = rewrite_values(graph.results, visit, dict(inputs))
    count = len(graph.outputs)
    updates = tuple(
        (inputs[old], new)
        for (old, _), new in zip(graph.updates, results[count:], strict=True)
    )
    return Graph(
        graph.name, tuple(inputs[v] for v in graph.inputs), tuple(results[:count]), updates,
        graph.constraints,
    )  # fmt: skip


def _substitute_attr(item: Any, mapping: Mapping[str, Dim]) -> Any:
    if isinstance(item, tuple):
        return tuple(_substitute_attr(part, mapping) for part in item)
    if isinstance(item, TensorType):
        return item.with_shape(substituted(item.shape, mapping))
    if isinstance(item, Graph):
        return substitute_sizes(item, mapping)
    return substituted((item,), mapping)[0]


def inline(graph: Graph, arguments: Sequence[Value]) -> list[Value]:
    """Return the outputs of ``graph`` computed over other values than its inputs."""
    if len(arguments) != len(graph.inputs):
        raise VerifyError(f"{graph.name} takes {len(graph.inputs)} inputs, got {len(arguments)}")
    seeds = dict(zip(graph.inputs, arguments, strict=True))
    return rewrite_values(graph.outputs, lambda node, inputs: None, seeds)

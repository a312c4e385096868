"""The untyped graph behind Symbols: nodes that keep calls, and their evaluation on operands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.errors import ArgumentError, GraphcError, Location, located
from graphc.frontend.ops.operator import OPERATORS, at_least_1d
from graphc.frontend.tracer import Tracer, current_trace
from graphc.ir.operand import REGISTRY, apply
from graphc.ir.ops.composite import Composite, known_shape

VARIABLE, OPERATOR, RECORD, SOURCE = "variable", "operator", "record", "source"

SOURCES: dict[str, Callable[..., Any]] = {}
"""Functions without array operands that a node may keep a call of, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One call that is kept until its operands are known; or a variable.

    Attributes
    ----------
    kind : {"variable", "operator", "record", "source"}
        What ``op`` names: nothing, an `Operator`, an op record, a function of `SOURCES`.
    op : str
    name : str
    inputs : tuple of (Node, int)
        Which output of which node each operand is.
    places : tuple of str or int
        The parameter, or the position among the operands, that each input is given for.
    params : dict of str to object
        The other arguments; for a variable its ``shape``, ``dtype`` and ``init``.
    scalars : dict of int to number
        Numbers among the operands of a record, by position.
    outputs : tuple of str
        What the name of each output ends in.
    attributes : dict of str to str
        What the user keeps at the node.
    where : Location or None
        The line that made the node.
    """

    kind: str
    op: str
    name: str
    inputs: tuple[Entry, ...] = ()
    places: tuple[str | int, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("output",)
    attributes: dict[str, str] = field(default_factory=dict)
    where: Location | None = None
    scalars: Mapping[int, Any] = field(default_factory=dict)

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Names of the parameters whose arrays the call updates."""
        return OPERATORS[self.op].aux if self.kind == OPERATOR else ()

    @property
    def input_labels(self) -> tuple[str, ...]:
        """What each input is called: the parameter's name, or a number."""
        return tuple(p if isinstance(p, str) else f"operand {p}" for p in self.places)

    def output_name(self, index: int) -> str:
        """Return the full name of an output."""
        return self.name if self.kind == VARIABLE else f"{self.name}_{self.outputs[index]}"


Entry = tuple[Node, int]
"""An output of a node."""


def topological(heads: Iterable[Entry]) -> Iterator[Node]:
    """Yield every node that the heads need, operands before users, depth first."""
    done: set[int] = set()
    for root, _ in heads:
        stack: list[tuple[Node, int]] = [(root, 0)]
        while stack:
            node, position = stack.pop()
            if id(node) in done:
                continue
            while position < len(node.inputs) and id(node.inputs[position][0]) in done:
                position += 1
            if position < len(node.inputs):
                stack.append((node, position + 1))
                stack.append((node.inputs[position][0], 0))
            else:
                done.add(id(node))
                yield node


def variables(heads: Sequence[Entry]) -> tuple[list[Node], list[Node]]:
    """Return the variables: the arguments, and the auxiliary states, which operators update."""
    order = list(topological(heads))
    updated = {
        id(entry[0])
        for node in order
        for entry, place in zip(node.inputs, node.places, strict=True)
        if place in node.auxiliary
    }
    found = [node for node in order if node.kind == VARIABLE]
    return [n for n in found if id(n) not in updated], [n for n in found if id(n) in updated]


def run(node: Node, operands: Sequence[Any]) -> tuple[Any, ...]:
    """Return the outputs of a node's call on arrays or traced values.

    Raises
    ------
    GraphcError
        What the call raises; its place is the line and the name of the node.
    """
    place = node.where and Location(node.where.file, node.where.line, node.name)
    try:
        with located(place):
            result = _called(node, operands)
    except GraphcError as error:
        error.message = f"{node.name}: {error.message}"
        raise
    outputs = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    if len(outputs) != len(node.outputs):
        raise ArgumentError(
            f"{node.name}: {node.op} has {len(outputs)} results, as a Symbol it can have "
            f"{len(node.outputs)}",
            remedy="Use the function of graphc.sym that has the same meaning.",
            where=place,
        )
    return outputs


def _called(node: Node, operands: Sequence[Any]) -> Any:
    if node.kind == SOURCE:
        return SOURCES[node.op](**node.params)
    if node.kind == OPERATOR:
        record = OPERATORS[node.op]
        if record.variadic:
            return record.function(*operands, **node.params)
        given = dict(zip(map(str, node.places), operands, strict=True))
        return record.function(**given, **node.params)
    lying: dict[Any, Any] = dict(zip(node.places, operands, strict=True))
    lying |= node.scalars
    ordered = tuple(lying[i] for i in range(len(lying)))
    result = apply_record(REGISTRY[node.op], ordered, dict(node.params))
    if isinstance(result, (tuple, list)):
        return result
    return at_least_1d(result) if known_shape(result) == () else result


def apply_record(op: Any, operands: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
    """Apply an op record; a composition runs as its parts."""
    composition = isinstance(op, Composite)
    return op.decompose(*operands, **attrs) if composition else apply(op, operands, attrs)


def evaluate(heads: Sequence[Entry], values: Mapping[str, Any]) -> list[Any]:
    """Return the heads computed on operands.

    Parameters
    ----------
    heads : sequence of (Node, int)
    values : mapping of str to operand
        Arrays or traced values of the variables by name.
    """
    results: dict[int, tuple[Any, ...]] = {}
    for node in topological(heads):
        if node.kind == VARIABLE:
            results[id(node)] = (values[node.name],)
            continue
        operands = [results[id(source)][index] for source, index in node.inputs]
        for i, place in enumerate(node.places):
            if place in node.auxiliary:
                operands[i] = _latest(operands[i])
        results[id(node)] = run(node, operands)
    return [results[id(node)][index] for node, index in heads]


def _latest(state: Any) -> Any:
    """Return what a state holds after the updates that the trace already made of it."""
    trace = current_trace()
    if trace is None or not isinstance(state, Tracer):
        return state
    return type(state).wrap(trace.updates.get(state._value, state._value))

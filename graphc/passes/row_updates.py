"""Update only the rows of a table that a batch touched.

The gradient of an embedding is `scatter_add` of the rows of a batch: zeros elsewhere. Where it is
only used to update the embedding and the optimizer's state, and where that update leaves
everything as it is when a gradient is zero (plain SGD and AdaGrad, both without weight decay), or
is asked to leave rows of zeros alone (lazy updates), the rows named by no index need not be
touched: `sort_rows` and `update_rows` take the place of the gradient and the update. Each row gets
the same bits as before, for finite numbers: what is zero times a rate, or divided by one, is taken
to be zero.

A gradient that is needed as a table is computed in the same way, over zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from graphc.ir.graph import (
    Graph,
    Node,
    Value,
    build,
    placeholder,
    rewrite,
    rewrite_values,
    topological,
)
from graphc.ir.op import Kind
from graphc.ir.operand import REGISTRY
from graphc.ir.pattern import Capture, Pattern, match
from graphc.ir.types import TensorType

Update = tuple[Value, Value]
"""An input of the graph, and what replaces it."""


def row_updates(graph: Graph) -> Graph:
    """Return the graph with updates of the touched rows in place of updates of whole tables."""
    replaced: dict[Value, Value] = {}
    for node in graph.nodes:
        if node.op.name == "scatter_add" and node.attrs["axis"] == 0:
            replaced |= _replaced(graph, node)
    if replaced:
        graph = graph.with_results([replaced.get(v, v) for v in graph.results])
    return rewrite(graph, _over_zeros)


def _over_zeros(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """Return the rows of a table, summed and written side by side over zeros."""
    shape = node.attrs.get("shape", ())
    if node.op.name != "scatter_add" or node.attrs["axis"] != 0 or len(shape) < 2:
        return None
    gradient = node.outputs[0]
    zero = gradient.dtype.numpy.type(0).item()
    filled = {"shape": shape, "value": zero, "dtype": gradient.dtype}
    (zeros,) = build(REGISTRY["full"], (), filled, node.where)
    element = _element((gradient, zeros), (gradient,))
    assert element is not None
    return _rows_updated(node, inputs, (zeros,), element, nonzero=False)


def _replaced(graph: Graph, scatter: Node) -> dict[Value, Value]:
    """Return what the new values that a gradient serves become; empty where they stay."""
    gradient = scatter.outputs[0]
    updates = _updates_by(graph, gradient)
    plain = [(target, _lazy(gradient, target, new)) for target, new in updates]
    lazy = all(new is not None for _, new in plain)
    asked = [(target, new) for target, new in (plain if lazy else updates) if new is not None]
    exact = all(_stays(gradient, *update) for update in asked)
    if not asked or not (lazy or exact):
        return {}
    targets, results = zip(*asked)
    element = _element((gradient, *targets), results)
    if element is None:
        return {}
    made = _rows_updated(scatter, scatter.inputs, targets, element, nonzero=not exact)
    return dict(zip((new for _, new in updates), made, strict=True))


def _updates_by(graph: Graph, gradient: Value) -> list[Update]:
    """Return the updates that a gradient serves, element by element; none if it serves more."""
    served = {gradient}
    for node in graph.nodes:
        if any(v in served for v in node.inputs):
            alike = node.op.kind is Kind.POINTWISE and node.types[0].shape == gradient.shape
            if not alike and not _tests_rows(node.outputs[0], gradient):
                return []
            served.update(node.outputs)
    if any(v in served for v in graph.outputs):
        return []
    return [(target, new) for target, new in graph.updates if new in served]


GRADIENT, NEW, OLD = map(Capture, ("gradient", "new", "old"))
NONZERO = Pattern("any", (Pattern("not_equal", (GRADIENT, Capture("zero", lambda c: c == 0))),))
LAZY = Pattern("where", (NONZERO, NEW, OLD))
"""New values in rows whose gradient is not zero, old ones in the others."""


def _tests_rows(value: Value, gradient: Value) -> bool:
    """Return whether a value says which rows of a gradient are not zero."""
    found: dict[str, Value] = {}
    return (
        match(NONZERO, value, found)
        and found["gradient"] == gradient
        and value.shape == (gradient.shape[0], *(1,) * (gradient.ndim - 1))
    )


def _lazy(gradient: Value, target: Value, new: Value) -> Value | None:
    """Return the new value in rows whose gradient is not zero, where the others are to stay."""
    found: dict[str, Value] = {}
    if not match(LAZY, new, found) or not _tests_rows(new.node.inputs[0], gradient):
        return None
    return found["new"] if found["old"] == target and found["new"].type == target.type else None


# -- where the gradient is zero --------------------------------------------------------------


def _of_any(node: Node, zero: Sequence[bool]) -> bool:
    return any(zero)


def _of_all(node: Node, zero: Sequence[bool]) -> bool:
    return all(zero)


def _of_first(node: Node, zero: Sequence[bool]) -> bool:
    return zero[0]


def _of_clipped(node: Node, zero: Sequence[bool]) -> bool:
    low, high = node.attrs["low"], node.attrs["high"]
    return zero[0] and (low is None or low <= 0) and (high is None or high >= 0)


ZERO_IF: dict[str, Callable[[Node, Sequence[bool]], bool]] = {
    "multiply": _of_any,
    "divide": _of_first,
    **dict.fromkeys(("add", "subtract", "minimum", "maximum"), _of_all),
    **dict.fromkeys(("cast", "negative", "abs", "sign", "sqrt"), _of_first),
    "clip": _of_clipped,
}
"""When the result of an op is zero, by which operands are."""

_KEEPS = {"add": (0, 1), "subtract": (0,)}
"""Operands that a sum or a difference returns as they are when the other one is zero."""


def _stays(gradient: Value, target: Value, new: Value) -> bool:
    """Return whether an update changes nothing where its gradient is zero."""
    zero: dict[Value, bool] = {gradient: True}
    same: dict[Value, Value] = {}
    for node in topological((new,), (gradient,)):
        value = node.outputs[0]
        operands = [zero.get(v, False) for v in node.inputs]
        rule = ZERO_IF.get(node.op.name)
        if node.op.name == "constant":
            zero[value] = node.attrs["value"] == 0
        elif rule is not None:
            zero[value] = rule(node, operands)
            for place in _KEEPS.get(node.op.name, ()):
                kept = node.inputs[place]
                if operands[1 - place] and kept.type == value.type:
                    same[value] = same.get(kept, kept)
    return same.get(new, new) == target


# -- the same by rows ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Element:
    """One element of an update: a graph of 0-d values, and the 0-d operands it also reads."""

    graph: Graph
    scalars: tuple[Value, ...]


def _rows_updated(
    scatter: Node, operands: Sequence[Value], tables: Sequence[Value], element: _Element,
    nonzero: bool,
) -> tuple[Value, ...]:  # fmt: skip
    """Return tables with new values in the rows that a `scatter_add` of ``operands`` adds to."""
    indices, rows = operands
    attrs = {"rows": scatter.attrs["shape"][0], "mode": scatter.attrs["mode"]}
    sorted_rows = build(REGISTRY["sort_rows"], (indices,), attrs, scatter.where)
    operands = (*sorted_rows, _narrow(rows, indices.ndim), *tables, *element.scalars)
    own = {"element": element.graph, "nonzero": nonzero}
    return build(REGISTRY["update_rows"], operands, own, scatter.where)


def _narrow(rows: Value, lead: int) -> Value:
    """Return rows without repetition along the axes of the indices."""
    if rows.op_name == "broadcast_to":
        source = rows.node.inputs[0]
        if source.ndim == rows.ndim and source.shape[lead:] == rows.shape[lead:]:
            return source
    return rows


def _element(tables: Sequence[Value], results: Sequence[Value]) -> _Element | None:
    """Return the graph of one element of ``results``; None where it reads another table.

    The first of ``tables`` is the gradient.
    """
    scalars = list(dict.fromkeys(_scalars(tables, results)))
    if any(v.shape != () for v in scalars):
        return None
    names = ("grad", *(f"x{i}" for i in range(len(tables) - 1 + len(scalars))))
    inputs = {
        value: placeholder(name, TensorType(value.dtype, ()))
        for name, value in zip(names, (*tables, *scalars), strict=True)
    }
    found = rewrite_values(results, lambda node, operands: None, dict(inputs))
    return _Element(Graph("element", tuple(inputs.values()), tuple(found)), tuple(scalars))


def _scalars(tables: Sequence[Value], results: Sequence[Value]) -> Iterator[Value]:
    """Yield what an update reads besides the tables; arithmetic of 0-d values is done again."""
    waiting, seen = list(results), set(tables)
    while waiting:
        value = waiting.pop(0)
        if value in seen:
            continue
        seen.add(value)
        if value.op_name == "constant" or _computed(value):
            waiting.extend(value.node.inputs)
        else:
            yield value


def _computed(value: Value) -> bool:
    return value.node.op.kind is Kind.POINTWISE and value.op_name != "size"

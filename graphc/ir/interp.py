"""The oracle: runs a Graph node by node with the ops' NumPy references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import BindError
from graphc.ir.dim import SizeExpr, evaluate
from graphc.ir.graph import Graph, Node, Value, input_name
from graphc.ir.sizes import bind_sizes
from graphc.ir.types import TensorType


def interpret(
    graph: Graph, arguments: Sequence[np.ndarray], bindings: Mapping[str, int] | None = None
) -> list[np.ndarray]:
    """Compute the outputs, then the new values of the updates.

    Parameters
    ----------
    graph : Graph
    arguments : sequence of numpy.ndarray
        One for each input.
    bindings : mapping of str to int, optional
        Values of size variables; by default the shapes of the arguments bind them.

    Returns
    -------
    list of numpy.ndarray

    Raises
    ------
    BindError
        When an argument does not fit its input.
    """
    arrays = [np.asarray(argument) for argument in arguments]
    if bindings is None:
        bindings = bind_sizes([v.shape for v in graph.inputs], [a.shape for a in arrays])
    if bindings is None:
        pairs = zip(graph.inputs, arrays, strict=True)
        given = "; ".join(f"{input_name(v)!r} is {v.type}, got {a.shape}" for v, a in pairs)
        raise BindError(f"the arguments of {graph.name} do not fit its inputs: {given}")
    known: dict[Value, np.ndarray] = {
        v: a.astype(v.dtype.numpy, copy=False) for v, a in zip(graph.inputs, arrays, strict=True)
    }
    for node in graph.nodes:
        for value, array in zip(node.outputs, evaluate_node(node, known, bindings), strict=True):
            known[value] = array
    return [known[value] for value in graph.results]


def evaluate_node(
    node: Node, known: Mapping[Value, np.ndarray], bindings: Mapping[str, int]
) -> Sequence[np.ndarray]:
    """Compute one node's outputs from its operands' arrays."""
    operands = [known[v] for v in node.inputs]
    body = node.attrs.get("body")
    if isinstance(body, Graph):
        return interpret(body, operands, bindings)
    attrs = {key: concrete(item, bindings) for key, item in node.attrs.items()}
    with np.errstate(all="ignore"):
        result = node.op.reference(*operands, **attrs)
    results = result if isinstance(result, tuple) else (result,)
    return [
        np.asarray(r).astype(t.dtype.numpy, copy=False)
        for r, t in zip(results, node.types, strict=True)
    ]


def concrete(item: Any, bindings: Mapping[str, int]) -> Any:
    """Return an attribute with symbolic sizes replaced by integers."""
    if isinstance(item, SizeExpr):
        return evaluate(item, bindings)
    if isinstance(item, tuple):
        return tuple(concrete(part, bindings) for part in item)
    if isinstance(item, TensorType):
        return item.with_shape(concrete(item.shape, bindings))
    return item

"""Element types of a Symbol's variables and outputs, which need no shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.frontend.ndarray import NDTracer
from graphc.frontend.ops import elementwise
from graphc.frontend.ops.operator import OPERATORS
from graphc.frontend.symbol.compose import defaults
from graphc.frontend.symbol.node import (
    OPERATOR,
    RECORD,
    SOURCE,
    VARIABLE,
    Entry,
    Node,
    run,
    topological,
)
from graphc.frontend.tracer import Trace, tracing
from graphc.ir.graph import placeholder
from graphc.ir.op import Pointwise
from graphc.ir.operand import REGISTRY
from graphc.ir.types import DType, TensorType, as_dtype, float32, promote

Key = tuple[int, int]
_TYPED_BY_DATA = (
    "take", "batch_take", "pick", "gather_nd", "scatter_nd", "SequenceMask", "SequenceLast",
    "SequenceReverse", "reshape_like", "slice_like", "broadcast_like", "softmax_cross_entropy",
)  # fmt: skip
"""Operators whose result has the type of their first input, whatever the others have."""
_ANY_SHAPE = (2,) * 8
"""Has any axis that an operator which keeps shapes may be told."""
_FLOAT32 = ("argmax", "argmin", "argmax_channel")
_SUMS = ("sum", "prod", "nansum", "nanprod")
_KEEPS_SHAPE = ("Activation", "Dropout", "BlockGrad", "MakeLoss", "identity", "softmax",
                "log_softmax", "softmin", "smooth_l1")  # fmt: skip


def keeps_shape(node: Node) -> bool:
    """Return whether a node's operands and outputs are equal in shape, broadcasting aside."""
    if node.kind == RECORD:
        return isinstance(REGISTRY[node.op], Pointwise)
    if node.kind != OPERATOR:
        return False
    function = OPERATORS[node.op].function
    return node.op in _KEEPS_SHAPE or function.__module__ == elementwise.__name__


def infer_dtypes(heads: Sequence[Entry], given: Mapping[str, DType]) -> dict[Key, DType]:
    """Return the type of every output that the heads need.

    Parameters
    ----------
    heads : sequence of (Node, int)
    given : mapping of str to DType
        Of variables by name; others have the one they were made with, that of the floating
        operands beside them, or float32.
    """
    found: dict[Key, DType] = {}
    for node in topological(heads):
        if node.kind == VARIABLE:
            asked = given.get(node.name) or node.params.get("dtype")
            if asked is not None:
                found[id(node), 0] = as_dtype(asked)
            continue
        _fill_inputs(node, found)
        types = [found[id(source), index] for source, index in node.inputs]
        for index, dtype in enumerate(_results(node, types)):
            found[id(node), index] = dtype
    for node, _ in heads:
        if node.kind == VARIABLE:
            found.setdefault((id(node), 0), float32)
    return found


def _fill_inputs(node: Node, found: dict[Key, DType]) -> None:
    known = [found.get((id(source), index)) for source, index in node.inputs]
    floats = [t for t in known if t is not None and t.floating]
    chosen = floats[0] if floats else float32
    if node.op == "Embedding":
        chosen = as_dtype(node.params.get("dtype", "float32"))
    for source, index in node.inputs:
        found.setdefault((id(source), index), chosen)


def _results(node: Node, types: list[DType]) -> list[DType]:
    if keeps_shape(node):
        return _by_running(node, types)
    return [_result(node, types)] * len(node.outputs)


def check_arguments(node: Node) -> None:
    """Raise at once where arguments of a call are wrong for operands of every shape."""
    if node.params and keeps_shape(node):
        _by_running(node, [float32] * len(node.inputs))


def _by_running(node: Node, types: list[DType]) -> list[DType]:
    with tracing(Trace()):
        operands = [
            NDTracer.wrap(placeholder(f"x{i}", TensorType(t, _ANY_SHAPE)))
            for i, t in enumerate(types)
        ]
        return [as_dtype(r.dtype) for r in run(node, operands)]


def _result(node: Node, types: list[DType]) -> DType:
    if node.kind == SOURCE:
        return as_dtype(node.params.get("dtype") or "float32")
    params: dict[Any, Any] = dict(node.params)
    if node.kind == OPERATOR:
        params = {**defaults(node.op), **params}
    if node.op in _FLOAT32:
        return float32
    if node.op == "Embedding":
        return types[1]
    if params.get("dtype") is not None:
        return as_dtype(params["dtype"])
    if node.op in _TYPED_BY_DATA:
        return types[0]
    if node.op == "where":
        types = types[1:]
    return _summed(joined(types)) if node.op in _SUMS else joined(types)


def joined(types: Sequence[DType]) -> DType:
    """Return the type of a result: that of the floating operands, if there are any."""
    floats = [t for t in types if t.floating]
    return promote(*(floats or types))


def _summed(dtype: DType) -> DType:
    if dtype.floating or dtype.item_bytes == 8:
        return dtype
    return as_dtype("int32")

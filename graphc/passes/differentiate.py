"""Reverse-mode differentiation: vjps of the records, composed from the outputs back.

The result is graph values like any others, so gradients of gradients need nothing more. The sum
that undoes broadcasting is added here, once, never in a vjp.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import AutogradError, located
from graphc.ir.graph import Graph, Node, Value, placeholder, topological, unique_name
from graphc.ir.op import Kind, OpDef
from graphc.ir.ops.contraction import sum_to_shape


def gradients(
    outputs: Sequence[Value], cotangents: Sequence[Value | None], wrt: Sequence[Value]
) -> list[Value | None]:
    """Return the gradient of ``sum(output * cotangent)`` with respect to each of ``wrt``.

    Parameters
    ----------
    outputs : sequence of Value
    cotangents : sequence of Value or None
        One for each output, of its type; None contributes nothing.
    wrt : sequence of Value

    Returns
    -------
    list of Value or None
        None where the outputs do not depend on the value.
    """
    needed = _dependents(outputs, wrt)
    found: dict[Value, Value] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is not None:
            _add(found, output, cotangent)
    targets = set(wrt)
    for node in reversed(list(topological(outputs))):
        if id(node) not in needed or all(v in targets for v in node.outputs):
            continue
        arriving = [found.get(v) for v in node.outputs]
        if all(g is None for g in arriving):
            continue
        with located(node.where):
            for operand, gradient in zip(node.inputs, vjp(node, arriving), strict=True):
                reached = operand.dtype.floating and id(operand.node) in needed
                if gradient is not None and reached:
                    _add(found, operand, gradient)
    return [found.get(v) for v in wrt]


def cotangent_inputs(graph: Graph, heads: Sequence[bool]) -> list[Value | None]:
    """Return new inputs for the cotangents of the outputs that ``heads`` chooses."""
    names = graph.input_names()
    return [
        placeholder(unique_name(f"grad{i}", names), value.type) if wanted else None
        for i, (value, wanted) in enumerate(zip(graph.outputs, heads, strict=True))
    ]


def vjp(node: Node, arriving: Sequence[Value | None]) -> Sequence[Value | None]:
    """Return the gradient of each operand of a node, summed over what was broadcast."""
    op = node.op
    if type(op).vjp is OpDef.vjp and op.decomposes:
        parts = op.decompose(*node.inputs, **node.attrs)
        parts = parts if isinstance(parts, tuple) else (parts,)
        return gradients(parts, arriving, node.inputs)
    single = len(node.types) == 1
    g = arriving[0] if single else tuple(arriving)
    y = node.outputs[0] if single else node.outputs
    result = op.vjp(g, y, *node.inputs, **node.attrs)
    if len(result) != len(node.inputs):
        raise AutogradError(f"the vjp of {op.name} returned {len(result)} gradients", op=op.name)
    if op.kind is not Kind.POINTWISE:
        return tuple(result)
    return [
        None if part is None else sum_to_shape(part, operand.shape)
        for part, operand in zip(result, node.inputs, strict=True)
    ]


def _dependents(outputs: Sequence[Value], wrt: Sequence[Value]) -> set[int]:
    """Return ids of the nodes that depend on ``wrt``, their own nodes included."""
    needed = {id(v.node) for v in wrt}
    for node in topological(outputs):
        if node.op.gradient and any(id(v.node) in needed for v in node.inputs):
            needed.add(id(node))
    return needed


def _add(found: dict[Value, Value], target: Value, gradient: Value) -> None:
    found[target] = found[target] + gradient if target in found else gradient

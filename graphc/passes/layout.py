"""Give images their channels last inside a program, where convolutions by kept weights repay it.

At its door a program has ``(N, C, H, W)``. Inside, with ``(N, H, W, C)``, channels are what vectors
run along: a 1x1 convolution is a plain product of a matrix by weights, columns of which fill whole
vectors also where images are 7 wide, depthwise convolutions and pools read whole vectors, and
Winograd's transforms need no shuffles.

Every op that can work on the other layout becomes one that does, between a transpose of its
operand and one of its result; two that meet are none. The convolution of an image with a few
channels reads them first and leaves its own last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.dim import Dim
from graphc.ir.graph import Graph, Node, Value, build, rewrite
from graphc.ir.op import Kind
from graphc.ir.operand import REGISTRY
from graphc.ir.ops.channels_last import PANEL
from graphc.ir.types import float32
from graphc.passes.winograd import convolved_last, pays_prepared

FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""Axes that put channels first, and last."""
MULTIPLE = 8
"""Of the channels that a 1x1 convolution makes: others leave too many lanes idle."""
REPAY = 2
"""Convolutions to each transpose that stays, at least."""
FEW = 16
"""Data with fewer channels is read where it lies, padded ahead."""

Settled = Callable[[Value], bool]


def layout(graph: Graph, settled: Settled) -> Graph:
    """Return the graph with channels last where that pays, else the graph as it is.

    Parameters
    ----------
    graph : Graph
        In plain form.
    settled : callable
        Tells which values depend on parameters alone.
    """
    count = sum(_fits(node, settled) for node in graph.nodes)
    if not count:
        return graph

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        found = _turned(node, inputs, settled)
        return None if found is None else (found,)

    made = rewrite(graph, visit)
    turns = sum(
        n.op.name == "transpose" and n.attrs["axes"] in (FIRST, LAST) and not settled(n.outputs[0])
        for n in made.nodes
    )
    return made if count >= REPAY * turns else graph


def _fits(node: Node, settled: Settled) -> bool:
    """Return whether a convolution gains from channels last."""
    if node.op.name != "conv" or node.types[0].dtype is not float32:
        return False
    x, weights = node.inputs
    out, own, *window = weights.shape
    if len(window) != 2 or node.attrs["dilate"] != (1, 1) or not settled(weights):
        return False
    if not isinstance(out, int):
        return False
    if node.attrs["groups"] > 1:
        return own == 1 and x.shape[1] == out
    return out % (MULTIPLE if _is_product(node) else PANEL) == 0


def _is_product(node: Node) -> bool:
    """Return whether a convolution is a product of a matrix by its weights."""
    plain = node.attrs["stride"] == (1, 1) and node.attrs["pad"] == (0, 0)
    return plain and node.inputs[1].shape[2:] == (1, 1)


def _turned(node: Node, inputs: tuple[Value, ...], settled: Settled) -> Value | None:
    """Return a node's result by way of channels last, None where it stays as it is."""
    if node.op.name == "conv":
        return _first(_convolved(node, inputs, settled)) if _fits(node, settled) else None
    if not any(map(_is_turned, inputs)):
        return None
    if node.op.kind is Kind.POINTWISE:
        operands = [found for v in inputs if (found := _aligned(v)) is not None]
        if node.types[0].ndim != 4 or len(operands) < len(inputs):
            return None
        return _first(build(node.op, tuple(operands), node.attrs, node.where)[0])
    if node.op.kind is Kind.REDUCE:
        return _reduced(node, inputs)
    if node.op.name == "max_pool" and not node.attrs["ceil_mode"]:
        attrs = {k: v for k, v in node.attrs.items() if k != "ceil_mode"}
        return _first(REGISTRY["max_pool_last"](_last(inputs[0]), **attrs))
    return _moved(node, inputs)


def _is_turned(value: Value) -> bool:
    return value.op_name == "transpose" and value.node.attrs["axes"] == FIRST


def _last(value: Value) -> Value:
    """Return a value with its channels last."""
    return value.node.inputs[0] if _is_turned(value) else _transposed(value, LAST)


def _first(value: Value) -> Value:
    return _transposed(value, FIRST)


def _transposed(value: Value, axes: tuple[int, ...]) -> Value:
    """Return a value in the other layout; images of one element each are the same memory."""
    shape = tuple(value.shape[axis] for axis in axes)
    found: Value
    if sum(size != 1 for size in shape[1:]) < 2:
        found = REGISTRY["reshape"](value, shape)
        return found
    found = REGISTRY["transpose"](value, axes)
    return found


def _aligned(value: Value) -> Value | None:
    """Return an operand as it broadcasts against data with channels last."""
    shape = (*(1,) * (4 - value.ndim), *value.shape)
    if shape[2:] == (1, 1):
        if shape[:2] == (1, 1):
            return value
        flat: Value = REGISTRY["reshape"](value, (shape[0], 1, 1, shape[1]))
        return flat
    return _last(value) if value.ndim == 4 else None


def _permuted(items: Sequence[Dim]) -> tuple[Dim, ...]:
    """Return what belongs to the axes ``(N, C, H, W)`` in the order of channels last."""
    return tuple(items[axis] for axis in LAST)


def _reduced(node: Node, inputs: tuple[Value, ...]) -> Value | None:
    axis = node.attrs.get("axis")
    if not isinstance(axis, tuple) or not node.attrs.get("keepdims"):
        return None
    axes = tuple(sorted(LAST.index(a % 4) for a in axis))
    return _first(
        build(node.op, tuple(map(_last, inputs)), {**node.attrs, "axis": axes}, node.where)[0]
    )


def _moved(node: Node, inputs: tuple[Value, ...]) -> Value | None:
    """Return a movement with what it says of axes in the other order."""
    if node.op.name == "concat":
        attrs = {**node.attrs, "axis": LAST.index(node.attrs["axis"] % 4)}
    elif node.op.name in ("slice", "unslice"):
        attrs = {name: _permuted(items) for name, items in node.attrs.items()}
    else:
        return None
    return _first(build(node.op, tuple(map(_last, inputs)), attrs, node.where)[0])


def _convolved(node: Node, inputs: tuple[Value, ...], settled: Settled) -> Value:
    """Return a convolution's result with channels last."""
    (x, weights), attrs = inputs, node.attrs
    data, window = _last(x), weights.shape[2:]
    stride, pad = attrs["stride"], attrs["pad"]
    if pays_prepared(node, settled):
        return convolved_last(data, weights, pad, node.types[0].shape[2:])
    found: Value
    if attrs["groups"] > 1:
        own = REGISTRY["reshape"](weights, (weights.shape[0], *window))
        turned = REGISTRY["transpose"](own, (1, 2, 0))
        found = REGISTRY["depthwise_last"](data, turned, window, stride, pad)
        return found
    if _is_product(node):
        return _product(data, weights)
    if isinstance(x.shape[1], int) and x.shape[1] < FEW and not _is_turned(x):
        return _turning(x, weights, stride, pad)
    found = REGISTRY["conv_last"](data, _panels(weights), stride, pad)
    return found


def _turning(x: Value, weights: Value, stride: Sequence[int], pad: Sequence[int]) -> Value:
    """Return a convolution that takes channels first and leaves them last."""
    if any(pad):
        batch, channels, high, wide = x.shape
        shape = (batch, channels, high + 2 * pad[0], wide + 2 * pad[1])
        x = REGISTRY["unslice"](x, (0, 0, *pad), shape, (1, 1, 1, 1))
    found: Value = REGISTRY["conv_turning"](x, _panels(weights), stride, (0, 0))
    return found


def _product(data: Value, weights: Value) -> Value:
    """Return a 1x1 convolution."""
    out, own, *_ = weights.shape
    found: Value
    if out % PANEL:
        matrix = REGISTRY["transpose"](REGISTRY["reshape"](weights, (out, own)), (1, 0))
        found = REGISTRY["matmul"](data, matrix)
        return found
    panels = _panels(weights)
    found = REGISTRY["panel_matmul"](data, REGISTRY["reshape"](panels, (out // PANEL, own, PANEL)))
    return found


def _panels(weights: Value) -> Value:
    """Return weights ``(O, C, *window)`` as ``(O // 16, *window, C, 16)``."""
    out, own, *window = weights.shape
    split = REGISTRY["reshape"](weights, (out // PANEL, PANEL, own, *window))
    found: Value = REGISTRY["transpose"](split, (0, *range(3, 3 + len(window)), 2, 1))
    return found

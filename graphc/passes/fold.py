"""Move factors and offsets that depend on parameters alone into the weights of a product.

In predict mode batch normalisation is a factor and an offset for each channel, both computed from
parameters. Behind a convolution, or a product with a matrix, the factor goes into the weights and
the offset joins the bias: what is left of the layer is one addition. The new weights depend on
parameters alone, so `hoist` computes them once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from graphc.ir.dim import symbols
from graphc.ir.graph import Graph, Node, Value, build, remake, rewrite
from graphc.ir.operand import REGISTRY, apply
from graphc.ir.pattern import Capture, Pattern, Rule, match
from graphc.ir.types import TensorType

A, B, F, Y = map(Capture, "abfy")
PRODUCTS = ("conv", "matmul")
"""Ops whose second operand holds weights."""


class Settled:
    """Tells which values depend on fixed inputs alone, whatever the program is called with.

    Parameters
    ----------
    fixed : collection of Value
        Inputs that stay as they are from one call to the next.
    """

    def __init__(self, fixed: Collection[Value]) -> None:
        self.fixed = set(fixed)
        self._known: dict[int, tuple[Node, bool]] = {}

    def __call__(self, value: Value) -> bool:
        """Return whether a value is settled; constants are."""
        if value.op_name == "input":
            return value in self.fixed
        node = value.node
        if id(node) not in self._known:
            static = all(map(_static, node.types)) and node.op.name != "size"
            self._known[id(node)] = (node, static and all(map(self, node.inputs)))
        return self._known[id(node)][1]


def _static(kind: TensorType) -> bool:
    return not any(symbols(dim) for dim in kind.shape)


def fold(graph: Graph, fixed: Collection[Value]) -> Graph:
    """Return a graph in plain form with the rules of `RULES` applied.

    Parameters
    ----------
    graph : Graph
    fixed : collection of Value
        The inputs that are parameters.
    """
    settled, users = Settled(fixed), graph.users()
    shared = {v for v in graph.results} | {v for v, readers in users.items() if len(readers) > 1}
    kept: set[Value] = set()

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        kept.update(new for old, new in zip(node.inputs, inputs, strict=True) if old in shared)
        made = node if inputs == node.inputs else remake(node, inputs)
        return [_folded(value, settled, kept) for value in made.outputs]

    return rewrite(graph, visit)


def _folded(value: Value, settled: Settled, kept: Collection[Value]) -> Value:
    """Return what the first rule that applies makes of a value."""
    for rule in RULES.get(value.op_name, ()):
        found: dict[str, Value] = {}
        if match(rule.pattern, value, found) and _allowed(found, settled, kept):
            replacement = rule.replace(found)
            if replacement is not None and replacement.type == value.type:
                return replacement
    return value


def _allowed(found: Mapping[str, Value], settled: Settled, kept: Collection[Value]) -> bool:
    """Return whether offsets, factor and weights are settled, and nothing else reads the product.

    Else the product would be computed twice.
    """
    product = found["y"]
    if product.op_name not in PRODUCTS or not product.dtype.floating:
        return False
    operands = [v for name, v in found.items() if name in "abf"]
    own = product, found.get("sum", product)
    return all(map(settled, (*operands, product.node.inputs[1]))) and not any(
        v in kept for v in own
    )


# -- rules -----------------------------------------------------------------------------------


def _scaled(product: Value, factor: Value) -> Value | None:
    """Return a product with a factor of its channels in the weights, None for other factors."""
    node, (x, weights) = product.node, product.node.inputs
    if node.op.name == "matmul" and weights.ndim != 2:
        return None
    if node.op.name == "conv":
        channel, own = 1, 0
    else:
        channel, own = product.ndim - 1, 0 if node.attrs["transpose_b"] else 1
    shape = (1,) * (product.ndim - factor.ndim) + factor.shape
    if any(size != 1 for axis, size in enumerate(shape) if axis != channel):
        return None
    spread = tuple(shape[channel] if axis == own else 1 for axis in range(weights.ndim))
    turned: Value = apply(REGISTRY["reshape"], (factor,), {"shape": spread})
    return build(node.op, (x, weights * turned), node.attrs, node.where)[0]


def _product_scaled(c: Mapping[str, Value]) -> Value | None:
    return _scaled(c["y"], c["f"])


def _sum_scaled(sign: int, c: Mapping[str, Value]) -> Value | None:
    product = _scaled(c["y"], c["f"])
    offset = c["a"] * c["f"]
    return None if product is None else product + (offset if sign > 0 else -offset)


def _sums_joined(first: int, second: int, c: Mapping[str, Value]) -> Value | None:
    a = c["a"] if first > 0 else -c["a"]
    joined: Value = c["y"] + (a + c["b"] if second > 0 else a - c["b"])
    return joined


def _either(op: str, one: Pattern | Capture, other: Capture) -> tuple[Pattern, Pattern]:
    """Return both orders of an op's operands; a capture takes anything, so each is tried."""
    return Pattern(op, (one, other)), Pattern(op, (other, one))


def _sums(y: Pattern | Capture, a: Capture) -> tuple[tuple[Pattern, int], ...]:
    """Return the forms of a sum of a value and an offset, with the offset's sign."""
    return *((p, 1) for p in _either("add", y, a)), (Pattern("subtract", (y, a)), -1)


def _named(pattern: Pattern) -> Pattern:
    return Pattern(pattern.op, pattern.operands, name="sum")


_RULES = (
    *(Rule("y * f", p, _product_scaled) for p in _either("multiply", Y, F)),
    *(
        Rule("(y + a) * f", p, partial(_sum_scaled, sign))
        for inner, sign in _sums(Y, A)
        for p in _either("multiply", _named(inner), F)
    ),
    *(
        Rule("(y + a) + b", p, partial(_sums_joined, first, second))
        for inner, first in _sums(Y, A)
        for p, second in _sums(_named(inner), B)
    ),
)
RULES: dict[str, tuple[Rule, ...]] = {
    op: tuple(r for r in _RULES if r.pattern.op == op) for op in ("multiply", "add", "subtract")
}
"""The rules by the op they start at: ``y`` is a product, the rest depends on parameters alone."""

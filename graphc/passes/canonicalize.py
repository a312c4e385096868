"""Bring a graph to its plain form: compositions expanded, constants folded, duplicates merged.

After this pass there are only ops with a lowering of their own, every reduction keeps its axes
(with a reshape behind it where they are dropped), equal nodes are one node, and the algebraic
rules of `RULES` have nothing left to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.ir.dim import Dim
from graphc.ir.graph import Graph, Node, Value, build, cast, constant, rewrite
from graphc.ir.op import Kind
from graphc.ir.operand import REGISTRY, apply
from graphc.ir.pattern import Capture, Pattern, Rule, match
from graphc.ir.types import DType, broadcast_shapes, int64, uint64

X, Y = Capture("x"), Capture("y")
ONE = Capture("one", lambda c: c == 1 and not isinstance(c, bool))
ZERO = Capture("zero", lambda c: c == 0 and not isinstance(c, bool) and np.signbit(c) == 0)
REDUCTIONS = ("sum", "prod", "max", "min")
"""Reductions that return a single element as it is."""
RESHAPING = ("cast", "reshape", "broadcast_to", "transpose")
"""Ops under which one constant everywhere stays one constant everywhere."""


def canonicalize(graph: Graph) -> Graph:
    """Return the graph in plain form; see the module's text."""
    return simplify(decompose(graph))


def decompose(graph: Graph) -> Graph:
    """Replace every op that is a composition of others, all the way down."""

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if not node.op.decomposes:
            return None
        parts = node.op.decompose(*inputs, **node.attrs)
        return parts if isinstance(parts, tuple) else (parts,)

    while any(node.op.decomposes for node in graph.nodes):
        graph = rewrite(graph, visit)
    return graph


def simplify(graph: Graph) -> Graph:
    """Fold, apply the rules and merge equal nodes, in one walk from the operands up."""
    unique = _Unique()

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        fresh = node.outputs if inputs == node.inputs else _remake(node, inputs)
        if len(fresh) == 1:
            fresh = (_simplest(fresh[0]),)
        return [unique(value) for value in fresh]

    return rewrite(graph, visit)


def _simplest(value: Value) -> Value:
    """Return what is left of a value when no rule applies any more."""
    while (changed := _rewritten(value) or _keep_axes(value)) is not None:
        value = changed
    return value


class _Unique:
    """Maps each value to the first one computed the same way."""

    def __init__(self) -> None:
        self.by_key: dict[Any, Node] = {}
        self.by_node: dict[int, tuple[Node, Node]] = {}

    def __call__(self, value: Value) -> Value:
        node = value.node
        if id(node) not in self.by_node:
            self.by_node[id(node)] = (node, self._first(node))
        return Value(self.by_node[id(node)][1], value.index)

    def _first(self, node: Node) -> Node:
        if node.op.name == "input":
            return node
        operands = tuple([self(v) for v in node.inputs])
        if operands != node.inputs:
            node = _remake(node, operands)[0].node
        key = (node.op.name, operands, _attr_key(node.attrs))
        return self.by_key.setdefault(key, node)


def _remake(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
    return build(node.op, inputs, node.attrs, node.where)


def _attr_key(attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    # repr tells 1 from 1.0 and True, and -0.0 from 0.0, which == would not.
    return tuple((name, repr(attrs[name])) for name in sorted(attrs))


def _keep_axes(value: Value) -> Value | None:
    """Turn a reduction that drops its axes into one that keeps them and a reshape."""
    node = value.node
    if node.op.kind is not Kind.REDUCE or node.attrs.get("keepdims", True):
        return None
    kept = build(node.op, node.inputs, {**node.attrs, "keepdims": True}, node.where)[0]
    return _reshape(kept, value)


def _reshape(value: Value, like: Value) -> Value:
    if value.shape == like.shape:
        return value
    reshaped: Value = apply(REGISTRY["reshape"], (value,), {"shape": like.shape})
    return reshaped


def _rewritten(value: Value) -> Value | None:
    """Return what folding and the first rule that matches make of a value, or None."""
    changed = _apply_rules(value)
    if changed is None and value.node.op.kind is Kind.POINTWISE:
        changed = _folded(value) or _without_broadcasts(value) or _reshaped_after(value)
    return changed


def _without_broadcasts(value: Value) -> Value | None:
    """Let a pointwise op broadcast its operands itself where the others give it its shape."""
    node = value.node
    for position, operand in enumerate(node.inputs):
        plain = _narrow(operand)
        if plain is None:
            continue
        operands = (*node.inputs[:position], plain, *node.inputs[position + 1 :])
        if broadcast_shapes(*(v.shape for v in operands)) == value.shape:
            return _remake(node, operands)[value.index]
    return None


def _narrow(value: Value) -> Value | None:
    """Return what a value repeats, or None."""
    if value.op_name == "full":
        return constant(value.node.attrs["value"], value.dtype)
    if value.op_name == "broadcast_to" or _is_spread(value):
        return value.node.inputs[0]
    return None


def _is_spread(value: Value) -> bool:
    """Return whether a value is a 0-d one with axes added."""
    return value.op_name == "reshape" and value.node.inputs[0].shape == ()


def _reshaped_after(value: Value) -> Value | None:
    """Compute on a reduction as it is, and reshape behind it: in one kernel, then.

    ``sum(x) / n`` divides a reshape of the sum that keeps its axes; the kernel of the sum can
    do so too.
    """
    node = value.node
    sources = [_reduced(v) if v.shape == value.shape else None for v in node.inputs]
    shapes = {v.shape for v in sources if v is not None}
    if len(shapes) != 1 or any(
        source is None and v.shape != ()
        for source, v in zip(sources, node.inputs, strict=True)
    ):
        return None
    operands = tuple(source or v for source, v in zip(sources, node.inputs, strict=True))
    return _reshape(_simplest(_remake(node, operands)[0]), value)


def _reduced(value: Value) -> Value | None:
    """Return the operand of a reshape if it is computed from a reduction's result."""
    if value.op_name != "reshape":
        return None
    source = origin = value.node.inputs[0]
    while origin.node.op.kind is Kind.POINTWISE:
        wide = [v for v in origin.node.inputs if v.shape == source.shape]
        if not wide:
            return None
        origin = wide[0]
    return source if origin.node.op.kind is Kind.REDUCE else None


def _apply_rules(value: Value) -> Value | None:
    """Return what the first rule that matches makes of a value, or None."""
    for rule in RULES.get(value.op_name, ()):
        captures: dict[str, Value] = {"self": value}
        if match(rule.pattern, value, captures):
            replacement = rule.replace(captures)
            if replacement is not None:
                return replacement
    return None


def _folded(value: Value) -> Value | None:
    """Compute a pointwise op of 0-d constants."""
    node = value.node
    if not node.inputs or value.shape != ():
        return None
    if any(v.op_name != "constant" for v in node.inputs):
        return None
    arrays = [np.asarray(v.node.attrs["value"], v.dtype.numpy) for v in node.inputs]
    with np.errstate(all="ignore"):
        result = np.asarray(node.op.reference(*arrays, **node.attrs))
    return constant(result.item(), value.dtype)


# -- rules -----------------------------------------------------------------------------------


def _as_self(c: Mapping[str, Value]) -> Value | None:
    """Return the captured operand where it has the result's type and shape."""
    x, whole = c["x"], c["self"]
    return x if x.type == whole.type else None


def _as_reshape(c: Mapping[str, Value]) -> Value | None:
    return _reshape(c["x"], c["self"])


def _reduced_nothing(c: Mapping[str, Value]) -> Value | None:
    """Return the operand of a sum, or of the like, over axes of size 1."""
    x, whole = c["x"], c["self"]
    same = x.type.size == whole.type.size and x.dtype is whole.dtype
    return _reshape(x, whole) if same else None


def _as_full(c: Mapping[str, Value]) -> Value | None:
    """Return one constant in the result's shape, if it is the operand."""
    x, whole = c["x"], c["self"]
    if x.op_name not in ("constant", "full"):
        return None
    scalar = constant(x.node.attrs["value"], whole.dtype)
    if whole.shape == ():
        return scalar
    attrs = {**scalar.node.attrs, "shape": whole.shape}
    return build(REGISTRY["full"], (), attrs, whole.node.where)[0]


def _spread(c: Mapping[str, Value]) -> Value | None:
    """Return a 0-d value in the result's shape, if the inner one adds axes to it."""
    x, whole = c["x"], c["self"]
    if x.shape != ():
        return None
    spread: Value = apply(REGISTRY["broadcast_to"], (x,), {"shape": whole.shape})
    return spread


def _merge_transposes(c: Mapping[str, Value]) -> Value | None:
    first, second = c["inner"].node.attrs["axes"], c["self"].node.attrs["axes"]
    axes = tuple(first[a] for a in second)
    if axes == tuple(range(len(axes))):
        return c["x"]
    merged: Value = apply(REGISTRY["transpose"], (c["x"],), {"axes": axes})
    return merged


def _drop_transpose(c: Mapping[str, Value]) -> Value | None:
    axes = c["self"].node.attrs["axes"]
    return c["x"] if axes == tuple(range(len(axes))) else None


def _widening_back(c: Mapping[str, Value]) -> Value | None:
    """Drop a cast to a type that holds every value of the source, and back."""
    x, inner = c["x"], c["inner"]
    return cast(x, c["self"].dtype) if _holds(inner.dtype, x.dtype) else None


def _holds(wide: DType, narrow: DType) -> bool:
    """Return whether a type holds every value of another, 64-bit integers in floats apart."""
    exact = not wide.floating or narrow not in (int64, uint64)
    return exact and np.can_cast(narrow.numpy, wide.numpy, "safe")


def _square(c: Mapping[str, Value]) -> Value | None:
    return c["x"] * c["x"] if c["x"].type == c["self"].type else None


def _matmul_transpose(side: int) -> Any:
    """Move a transposition of the last two axes of an operand into the product's flags."""

    def replace(c: Mapping[str, Value]) -> Value | None:
        node, inner = c["self"].node, c["inner"]
        axes = inner.node.attrs["axes"]
        ndim = len(axes)
        if axes != (*range(ndim - 2), ndim - 1, ndim - 2):
            return None
        flag = ("transpose_a", "transpose_b")[side]
        attrs = {**node.attrs, flag: not node.attrs[flag]}
        operands = list(node.inputs)
        operands[side] = c["x"]
        return build(node.op, tuple(operands), attrs, node.where)[0]

    return replace


def _strided_points(operand: int) -> Any:
    """Read every ``stride``-th element first where a convolution's window is a single element."""

    def replace(c: Mapping[str, Value]) -> Value | None:
        node = c["self"].node
        stride, window = node.attrs["stride"], node.attrs.get("window", c["y"].shape[2:])
        if all(s == 1 for s in stride) or any(node.attrs["pad"]) or any(w != 1 for w in window):
            return None
        x, like = node.inputs[operand], c["self" if operand == 0 else "x"]
        attrs = {
            "begin": (0,) * x.ndim,
            "size": (*x.shape[:2], *like.shape[2:]),
            "step": (1, 1, *stride),
        }
        operands = list(node.inputs)
        operands[operand] = apply(REGISTRY["slice"], (x,), attrs)
        plain = {**node.attrs, "stride": (1,) * len(stride)}
        return build(node.op, tuple(operands), plain, node.where)[0]

    return replace


def _spread_points(c: Mapping[str, Value]) -> Value | None:
    """Put the gradient of strided points between zeros once it is computed."""
    node = c["self"].node
    g, weights = node.inputs
    stride, whole = node.attrs["stride"], c["self"].shape
    if all(s == 1 for s in stride) or any(node.attrs["pad"]) or any(
        w != 1 for w in weights.shape[2:]
    ):
        return None
    plain = {**node.attrs, "stride": (1,) * len(stride), "spatial": g.shape[2:]}
    points = build(node.op, node.inputs, plain, node.where)[0]
    attrs = {"begin": (0,) * len(whole), "shape": whole, "step": (1, 1, *stride)}
    spread: Value = apply(REGISTRY["unslice"], (points,), attrs)
    return spread


def _joined_scatters(c: Mapping[str, Value]) -> Value | None:
    """Scatter the rows of both terms at once: one table of gradients, not two and their sum."""
    one, other = c["one"], c["other"]
    attrs = one.node.attrs
    if attrs != other.node.attrs or attrs["axis"] != 0 or c["i"].dtype is not c["j"].dtype:
        return None

    def joined(parts: Sequence[Value], row: Sequence[Dim]) -> Value:
        flat = [
            v if i.ndim == 1 else apply(REGISTRY["reshape"], (v,), {"shape": (i.type.size, *row)})
            for v, i in zip(parts, (c["i"], c["j"]), strict=True)
        ]
        return build(REGISTRY["concat"], tuple(flat), {"axis": 0}, None)[0]

    operands = joined((c["i"], c["j"]), ()), joined((c["x"], c["y"]), one.shape[1:])
    return build(one.node.op, operands, attrs, one.node.where)[0]


def _masked_in_windows(c: Mapping[str, Value]) -> Value | None:
    """Mask the gradients of a pool's windows, rather than of the elements that they go to.

    What an element is compared by is the largest of its window, where the gradient arrives.
    """
    index, spread, mask = c["index"].node, c["spread"].node, c["mask"].node
    if c["spread"].shape != c["self"].shape or c["mask"].shape != c["self"].shape:
        return None
    largest = build(REGISTRY["max_pool"], index.inputs, index.attrs, index.where)[0]
    kept = build(mask.op, (largest, c["limit"]), mask.attrs, mask.where)[0]
    masked = build(c["self"].node.op, (kept, c["x"], c["zero"]), {}, c["self"].node.where)[0]
    return build(spread.op, (masked, c["index"]), spread.attrs, spread.where)[0]


def _sum_of_windows(c: Mapping[str, Value]) -> Value | None:
    """Sum the gradients of a pool's windows before they are spread: each lands somewhere."""
    node, spread = c["self"].node, c["spread"].node
    spatial = range(2, c["spread"].ndim)
    if not set(spatial) <= {a % c["spread"].ndim for a in node.attrs["axis"]}:
        return None
    return build(node.op, (spread.inputs[0],), node.attrs, node.where)[0]


def _scatter(name: str, indices: str, rows: Capture) -> Pattern:
    return Pattern("scatter_add", (Capture(indices), rows), name=name)


def _inner(op: str) -> Pattern:
    return Pattern(op, (X,), name="inner")


_MASK = Pattern("greater", (Y, Capture("limit", lambda c: True)), name="mask")
_INDEX = Pattern("max_pool_index", (Y,), name="index")
_SPREAD = Pattern("max_pool_grad", (X, _INDEX), name="spread")

_RULES = (
    Rule("x * 1", Pattern("multiply", (X, ONE), commutes=True), _as_self),
    Rule("x / 1", Pattern("divide", (X, ONE)), _as_self),
    Rule("x - 0", Pattern("subtract", (X, ZERO)), _as_self),
    Rule("x ** 1", Pattern("power", (X, ONE)), _as_self),
    Rule("x ** 2", Pattern("power", (X, Capture("two", lambda c: c == 2))), _square),
    Rule("--x", Pattern("negative", (_inner("negative"),)), _as_self),
    Rule("cast of cast", Pattern("cast", (_inner("cast"),)), _widening_back),
    Rule("cast to itself", Pattern("cast", (X,)), _as_self),
    Rule("x as constant", Pattern("stop_gradient", (X,)), _as_self),
    Rule("x in memory of its own", Pattern("copy", (X,)), _as_self),
    *(Rule(f"{op} of one", Pattern(op, (X,)), _reduced_nothing) for op in REDUCTIONS),
    *(Rule(f"{op} of a constant", Pattern(op, (X,)), _as_full) for op in RESHAPING),
    Rule("broadcast of 0-d, reshaped", Pattern("reshape", (_inner("broadcast_to"),)), _spread),
    Rule("0-d with axes, broadcast", Pattern("broadcast_to", (_inner("reshape"),)), _spread),
    Rule("expand_dims as reshape", Pattern("expand_dims", (X,)), _as_reshape),
    Rule("squeeze as reshape", Pattern("squeeze", (X,)), _as_reshape),
    Rule("reshape of reshape", Pattern("reshape", (_inner("reshape"),)), _as_reshape),
    Rule("reshape to itself", Pattern("reshape", (X,)), _as_self),
    Rule("transpose of transpose", Pattern("transpose", (_inner("transpose"),)), _merge_transposes),
    Rule("transpose by nothing", Pattern("transpose", (X,)), _drop_transpose),
    Rule("broadcast to itself", Pattern("broadcast_to", (X,)), _as_self),
    Rule("matmul of A'", Pattern("matmul", (_inner("transpose"), Y)), _matmul_transpose(0)),
    Rule("matmul of B'", Pattern("matmul", (Y, _inner("transpose"))), _matmul_transpose(1)),
    Rule("scatters added", Pattern("add", (_scatter("one", "i", X), _scatter("other", "j", Y))),
         _joined_scatters),
    Rule("mask of a pool's gradient", Pattern("where", (_MASK, _SPREAD, ZERO)),
         _masked_in_windows),
    Rule("sum of a pool's gradient", Pattern("sum", (_SPREAD,)), _sum_of_windows),
    Rule("conv of points", Pattern("conv", (X, Y)), _strided_points(0)),
    Rule("conv_data_grad of points", Pattern("conv_data_grad", (X, Y)), _spread_points),
    Rule("conv_weight_grad of points", Pattern("conv_weight_grad", (X, Y)), _strided_points(1)),
)
RULES: dict[str, tuple[Rule, ...]] = {
    op: tuple(r for r in _RULES if r.pattern.op == op) for op in {r.pattern.op for r in _RULES}
}
"""The algebraic rules by the op they start at; the first that applies is taken."""

"""Fusion: what becomes one kernel, what does not and why, and that no two wait for each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sample_graphs import lenet_step, mlp_step, node, op, random_graph

from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import interpret
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, float32, tensor_type
from graphc.ir.verify import verify
from graphc.passes.canonicalize import canonicalize
from graphc.passes.fuse import ALIASES, fuse, fuse_with_reasons

B = symbol("B")
X = placeholder("x", TensorType(float32, (B, 8)))
Y = placeholder("y", TensorType(float32, (B, 8)))
W = placeholder("w", tensor_type("float32", (8, 8)))
V = placeholder("v", tensor_type("float32", (8,)))
INPUTS = (X, Y, W, V)


def fused(*values: Value) -> Graph:
    return fuse(canonicalize(Graph("g", INPUTS, values)))


def labels(*values: Value) -> list[str]:
    return [n.attrs["label"] for n in fused(*values).nodes if n.op.name == "fused"]


def reasons(*values: Value) -> list[str]:
    found = fuse_with_reasons(canonicalize(Graph("g", INPUTS, values)))
    return [f"{r.producer.op.name} -> {r.user.op.name}: {r.reason}" for r in found.refusals]


def total(x: Value, axis: int) -> Value:
    return node("sum", x, axis=(axis,), dtype=None, keepdims=True)[0]


ONE_KERNEL = {
    "a pointwise chain": op("tanh", op("exp", X * 2.0) + Y),
    "broadcast operands": X * V + 1.0,
    "a reduction with what it reads": total(op("exp", X - Y), 1),
    "a reduction with what reads it": X / total(X, 1),
    "reductions over the same axes": op("exp", X - node("max", X, axis=(1,), keepdims=True)[0])
    / total(op("exp", X), 1),
    "softmax": op("softmax", X),
    "layer norm": op("layer_norm", X, V, V),
    "an epilogue of a product": op("relu", op("matmul", X, W) + V),
    "a constant of every kernel": X + node("full", shape=(B, 8), value=2.0, dtype=float32)[0],
}


@pytest.mark.parametrize("name", ONE_KERNEL)
def test_one_kernel(name: str) -> None:
    assert len(labels(ONE_KERNEL[name])) == 1
    assert reasons(ONE_KERNEL[name]) == []


SEPARATE = {
    "two products": (op("matmul", op("matmul", X, W), W), "matmul starts a kernel of its own"),
    "a prologue of a product": (op("matmul", op("exp", X), W), "matmul starts a kernel of its own"),
    "a reduced product": (total(op("matmul", X, W), 1), "a contraction's kernel does not reduce"),
    "other axes": (total(op("exp", X), 0) + total(op("exp", X), 1), "the kernel reduces other"),
    "moved elements": (
        op("transpose", op("exp", X), axes=(1, 0)),
        "transpose reads its operand at other places",
    ),
    "products of two": (
        op("matmul", X, W) + op("matmul", Y, W),
        "one contraction to a kernel",
    ),
    "a sum of sums": (total(total(X, 1) * 2.0, 0), "already reduced"),
    "what a product reads, added to it": (
        op("exp", X) + op("matmul", op("exp", X), W),
        "the kernel of another operand reads it at other places",
    ),
    "what is moved, added to it": (
        op("exp", W) + op("transpose", op("exp", W), axes=(1, 0)),
        "transpose reads its operand at other places",
    ),
}


@pytest.mark.parametrize("name", SEPARATE)
def test_separate_kernels_and_the_reason(name: str) -> None:
    value, reason = SEPARATE[name]
    assert len(labels(value)) > 1
    assert any(reason in text for text in reasons(value)), reasons(value)


def test_a_full_reduction_does_not_make_what_others_read_serial() -> None:
    wave = op("exp", X)
    everything = node("sum", wave, axis=(0, 1), dtype=None, keepdims=True)[0]
    assert labels(everything) == ["exp_sum"]
    assert labels(everything, wave) == ["exp", "sum"]
    assert "a full reduction would make the kernel serial" in reasons(everything, wave)[0]


def test_a_kernel_in_the_middle_keeps_two_apart() -> None:
    # exp and subtract in one kernel would wait for the product, which waits for exp.
    wave = op("exp", X)
    product = op("matmul", wave, W)
    values = (wave - total(product, 1), product)
    assert any("in the middle" in text for text in reasons(*values)), reasons(*values)
    check_order(fused(*values))


def test_bodies_hold_everything_and_nothing_twice() -> None:
    graph = canonicalize(mlp_step())
    kinds: dict[str, int] = {}
    for n in graph.nodes:
        kinds[n.op.name] = kinds.get(n.op.name, 0) + 1
    found: dict[str, int] = {}
    for n in fuse(graph).nodes:
        inner = n.attrs["body"].nodes if n.op.name == "fused" else (n,)
        for each in inner:
            found[each.op.name] = found.get(each.op.name, 0) + 1
    cheap = ("constant", "iota", "full", "size")
    assert {k: v for k, v in found.items() if k not in cheap} == {
        k: v for k, v in kinds.items() if k not in cheap
    }


def check_order(graph: Graph) -> None:
    """Every node stands behind what it reads, so no two kernels wait for each other."""
    known = set(graph.inputs)
    for n in graph.nodes:
        assert all(v in known for v in n.inputs)
        assert n.op.name == "fused" or n.op.name in ALIASES
        known.update(n.outputs)


@pytest.mark.parametrize("seed", range(60))
def test_no_two_kernels_wait_for_each_other(seed: int) -> None:
    graph = canonicalize(random_graph(seed, nodes=40))
    found = fuse(graph)
    verify(found)
    check_order(found)


@pytest.mark.parametrize("make", [mlp_step, lenet_step])
def test_fused_models(make: Callable[[], Graph]) -> None:
    found = fuse(canonicalize(make()))
    verify(found)
    check_order(found)


def test_long_scalar_arithmetic_is_one_kernel() -> None:
    """What every kernel computes for itself is bounded, and counting it takes no time."""
    scalar = placeholder("s", tensor_type("float32", ()))
    few, many = scalar, scalar
    for _ in range(3):
        few = op("exp", few)
    for _ in range(60):
        many = many * many
    graph = Graph("g", (X, scalar), (X * few, op("exp", X * many)))
    kernels = [n for n in fuse(graph).nodes if n.op.name == "fused"]
    assert sorted(n.attrs["label"] for n in kernels) == [
        "multiply",
        "multiply_exp",
        "multiply_multiply_multiply_multiply",
    ]


@pytest.mark.parametrize("seed", range(15))
def test_fused_graphs_compute_the_same(seed: int) -> None:
    graph = canonicalize(random_graph(seed, nodes=12))
    rng = np.random.default_rng(seed)
    arrays = [
        rng.uniform(-0.5, 0.5, [5 if not isinstance(d, int) else d for d in v.shape])
        for v in graph.inputs
    ]
    with np.errstate(all="ignore"):
        before, after = interpret(graph, arrays), interpret(fuse(graph), arrays)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_golden(golden: Callable[[str, str], None]) -> None:
    fusion = fuse_with_reasons(canonicalize(mlp_step()))
    text = print_graph(fusion.graph)
    bare = "\n".join(line.split("  # ")[0].rstrip() for line in text.splitlines())
    notes = [f"{r.producer.op.name} -> {r.user.op.name}: {r.reason}" for r in fusion.refusals]
    golden("\n".join([bare, *notes]), "passes/fuse_mlp_step.txt")

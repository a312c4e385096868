"""Forward and backward part of a differentiated program: they agree with the whole."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sample_graphs import op, random_graph

from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import interpret
from graphc.ir.types import TensorType, float64, tensor_type
from graphc.ir.verify import verify
from graphc.passes.differentiate import gradients
from graphc.passes.partition import Split, split

B = symbol("B")
X = placeholder("x", TensorType(float64, (B, 6)))
W = placeholder("w", tensor_type("float64", (6, 6)))
V = placeholder("v", tensor_type("float64", (6,)))


def whole(graph: Graph, wrt: tuple[int, ...]) -> Graph:
    """Return outputs and gradients as one graph."""
    given = [placeholder(f"grad{i}", v.type) for i, v in enumerate(graph.outputs)]
    found = gradients(graph.outputs, given, [graph.inputs[i] for i in wrt])
    results = tuple(g for g in found if g is not None)
    return Graph("whole", (*graph.inputs, *given), graph.outputs + results, graph.updates)


def run_split(cut: Split, arrays: list[np.ndarray], cotangents: list[np.ndarray], outputs: int):
    forward = interpret(cut.forward, arrays)
    saved = forward[outputs : len(cut.forward.outputs)]
    reads = [arrays[i] if kind == "input" else saved[i] for kind, i in cut.reads]
    return forward[:outputs], interpret(cut.backward, [*reads, *cotangents])


def arrays_of(graph: Graph, rng: np.random.Generator) -> list[np.ndarray]:
    return [
        rng.uniform(-0.5, 0.5, [5 if not isinstance(d, int) else d for d in v.shape])
        for v in graph.inputs
    ]


CASES = {
    "dense": lambda: Graph("dense", (X, W, V), (op("relu", op("matmul", X, W) + V),)),
    "softmax": lambda: Graph("softmax", (X, W), (op("softmax", op("matmul", X, W)),)),
    "chain": lambda: Graph("chain", (X,), (op("tanh", op("exp", op("sin", X))),)),
    "norm": lambda: Graph("norm", (X, V), (op("layer_norm", X, V, V),)),
    "two": lambda: Graph("two", (X, W), (op("exp", X), op("matmul", op("exp", X), W))),
    "update": lambda: Graph("update", (X, W), (op("matmul", X, W),), ((W, W * 0.5),)),
    **{f"random{s}": partial(random_graph, s, 12) for s in range(12)},
}


@pytest.mark.parametrize("name", CASES)
def test_two_halves_are_the_whole(name: str) -> None:
    graph = CASES[name]()
    rng = np.random.default_rng(0)
    wrt = tuple(range(len(graph.inputs)))
    cut = split(graph, wrt, [True] * len(graph.outputs))
    verify(cut.forward)
    verify(cut.backward)
    arrays = arrays_of(graph, rng)
    cotangents = [
        rng.normal(size=[5 if not isinstance(d, int) else d for d in v.shape])
        for v in graph.outputs
    ]
    outputs, grads = run_split(cut, arrays, cotangents, len(graph.outputs))
    expected = interpret(whole(graph, cut.wrt), [*arrays, *cotangents])
    count = len(graph.outputs)
    for a, b in zip([*outputs, *grads], expected[: count + len(grads)], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def saved(graph: Graph, wrt: tuple[int, ...] = (0,)) -> list[Value]:
    cut = split(graph, wrt, [True] * len(graph.outputs))
    return list(cut.forward.outputs[len(graph.outputs) :])


def test_what_is_cheap_is_computed_again() -> None:
    chain = X
    for _ in range(5):
        chain = op("sin", chain)
    # The input is there anyway, so nothing at all needs to be saved.
    assert saved(Graph("chain", (X,), (chain,))) == []


def test_products_are_saved_not_computed_again() -> None:
    hidden = op("matmul", X, W)
    graph = Graph("g", (X, W), (op("tanh", hidden) * 2.0,))
    kept = saved(graph, (0, 1))
    assert len(kept) == 1 and kept[0].shape == (B, 6)


def test_the_smaller_value_is_saved() -> None:
    # The mask of 0 and 1 bytes is enough for the gradient of relu behind a product.
    hidden = op("relu", op("matmul", X, W))
    (kept,) = saved(Graph("g", (X, W), (hidden.node.outputs[0] * 1.0,)), (1,))
    assert kept.dtype.item_bytes == 1


def test_an_input_that_is_updated_is_saved() -> None:
    graph = Graph("g", (X, W), (op("matmul", X, W),), ((W, W * 0.5),))
    cut = split(graph, (0,), [True])
    kinds = dict.fromkeys(kind for kind, _ in cut.reads)
    assert "saved" in kinds, "the backward part would read the new weights"


def test_inputs_without_influence_have_no_gradient() -> None:
    graph = Graph("g", (X, W), (op("exp", X),))
    cut = split(graph, (0, 1), [True])
    assert cut.wrt == (0,) and len(cut.backward.outputs) == 1


def test_outputs_without_cotangent_are_left_out() -> None:
    graph = Graph("g", (X, W), (op("exp", X), op("matmul", X, W)))
    cut = split(graph, (0, 1), [True, False])
    assert cut.wrt == (0,)
    assert len(cut.backward.inputs) == len(cut.reads) + 1

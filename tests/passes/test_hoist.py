"""What depends on parameters alone: factors folded into weights, programs cut in two."""

from __future__ import annotations

import numpy as np
import pytest
from sample_graphs import op

from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Value, input_name, placeholder
from graphc.ir.interp import interpret
from graphc.ir.types import TensorType, float64, tensor_type
from graphc.ir.verify import verify
from graphc.passes.canonicalize import canonicalize
from graphc.passes.fold import fold
from graphc.passes.hoist import Hoisted, hoist

B = symbol("B")
X = placeholder("x", TensorType(float64, (B, 3, 5, 5)))
V = placeholder("v", TensorType(float64, (B, 6)))
W = placeholder("w", tensor_type("float64", (4, 3, 3, 3)))
P, Q, R = (placeholder(name, tensor_type("float64", (1, 4, 1, 1))) for name in "pqr")
S = placeholder("s", tensor_type("float64", ()))
M = placeholder("m", tensor_type("float64", (6, 4)))
T = placeholder("t", tensor_type("float64", (4, 6)))
F, G = (placeholder(name, tensor_type("float64", (4,))) for name in "fg")
E = placeholder("e", tensor_type("float64", (5,)))
INPUTS = (X, V, W, P, Q, R, S, M, T, F, G, E)
FIXED = tuple(range(2, len(INPUTS)))


def conv() -> Value:
    return op("conv", X, W, pad=1)


def dense() -> Value:
    return op("matmul", V, M)


def read_twice(product: Value) -> Value:
    return product * P + op("relu", product)


# A value, and the ops that are left between its product and the result once it is folded.
FOLDED: dict[str, tuple[Value, list[str]]] = {
    "factor": (conv() * P, []),
    "factor before": (P * conv(), []),
    "one factor for all": (conv() * S, []),
    "offset and factor": ((conv() - P) * Q, ["add"]),
    "bias, offset, factor and shift": (((conv() + P) - Q) * R + P, ["add"]),
    "everything before": (P + (Q * (R + conv())), ["add"]),
    "two differences": ((conv() - P) - Q, ["add"]),
    "dense": (dense() * F + G, ["add"]),
    "dense, transposed": ((op("matmul", V, T, transpose_b=True) - G) * F, ["add"]),
}
LEFT: dict[str, Value] = {
    "a factor that depends on data": dense() * op("sum", V, axis=(1,), keepdims=True),
    "another reader": read_twice(conv()),
    "another reader of the difference": read_twice(conv() - Q),
    "a factor of each column": conv() * E,
}


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal([2 if d == B else d for d in v.shape]) for v in INPUTS]


def folded(value: Value) -> Graph:
    graph = fold(canonicalize(Graph("g", INPUTS, (value,))), INPUTS[2:])
    verify(graph)
    return graph


@pytest.mark.parametrize("name", FOLDED)
def test_factors_and_offsets_go_into_the_weights(name: str) -> None:
    value, left = FOLDED[name]
    graph = folded(value)
    result = graph.outputs[0]
    for expected in reversed(left):
        assert result.op_name == expected
        result = result.node.inputs[0]
    assert result.op_name in ("conv", "matmul")
    (got,), (wanted,) = (interpret(g, arrays()) for g in (graph, Graph("plain", INPUTS, (value,))))
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_folded(name: str) -> None:
    graph = canonicalize(Graph("g", INPUTS, (LEFT[name],)))
    assert [n.op.name for n in folded(LEFT[name]).nodes] == [n.op.name for n in graph.nodes]


def run(cut: Hoisted) -> list[np.ndarray]:
    given = arrays()
    prepared = interpret(cut.prepare, [given[i] for i in cut.given])
    return interpret(cut.main, [*prepared, *(given[i] for i in cut.rest)])


def cut_of(*outputs: Value, updates: tuple[tuple[Value, Value], ...] = ()) -> Hoisted | None:
    cut = hoist(Graph("g", INPUTS, outputs, updates), FIXED)
    if cut is not None:
        verify(cut.prepare)
        verify(cut.main)
    return cut


@pytest.mark.parametrize(
    "value", [*(v for v, _ in FOLDED.values()), *LEFT.values(), op("exp", F) * 2.0]
)  # fmt: skip
def test_the_two_programs_compute_what_the_whole_one_does(value: Value) -> None:
    outputs = (value, op("exp", V) * op("sum", M), G)
    cut = cut_of(*outputs)
    assert cut is not None
    for got, wanted in zip(run(cut), interpret(Graph("g", INPUTS, outputs), arrays()), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def test_the_first_program_reads_parameters_only_and_the_second_no_used_up_one() -> None:
    cut = cut_of((conv() - P) * Q)
    assert cut is not None
    assert [INPUTS[i] for i in cut.given] == [W, P, Q]
    assert [INPUTS[i] for i in cut.rest] == [X, V]
    assert [n.op.name for n in cut.main.nodes] == ["conv", "add"]
    assert len(cut.prepare.outputs) == 2


@pytest.mark.parametrize(
    "value",
    [
        op("matmul", V, op("reshape", T, shape=(6, 4))),
        dense() + F,
        conv() + op("broadcast_to", P, shape=(B, 4, 5, 5)),
        op("exp", V),
        V + 1.0,
    ],
)
def test_nothing_is_kept_that_costs_nothing(value: Value) -> None:
    assert cut_of(value) is None


def test_what_an_updated_parameter_decides_is_computed_each_time() -> None:
    value = dense() + op("exp", F) + op("exp", G)
    cut = cut_of(value, updates=((F, F * 0.5),))
    assert cut is not None
    assert [input_name(v) for v in cut.prepare.inputs] == ["g"]
    assert "f" in cut.main.input_names()
    assert cut_of(dense() + op("exp", F), updates=((F, F * 0.5),)) is None


def test_sizes_are_not_parameters() -> None:
    assert cut_of(op("sum", op("broadcast_to", F, shape=(B, 4)), axis=(0,)) + G) is None

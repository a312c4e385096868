"""Canonical form: each rule, folding, merging, kept axes; the same results as before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sample_graphs import RECORDS, lenet_step, mlp_step, node, op, random_graph, record_graphs

from graphc.errors import Location
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Node, Value, constant, placeholder
from graphc.ir.interp import interpret
from graphc.ir.op import Kind, Sample
from graphc.ir.operand import REGISTRY
from graphc.ir.parser import parse_graph
from graphc.ir.printer import print_graph
from graphc.ir.types import DType, TensorType, float32, float64, int32, int64, tensor_type
from graphc.ir.verify import verify
from graphc.passes.canonicalize import _RULES, REDUCTIONS, canonicalize, simplify

X = placeholder("x", TensorType(float32, (symbol("B"), 4)))
N = placeholder("n", TensorType(int32, (symbol("B"), 4)))
A = placeholder("a", tensor_type("float32", (4, 4)))
S = placeholder("s", tensor_type("float32", ()))
L = placeholder("l", tensor_type("int64", (4,)))
IMAGES = placeholder("images", TensorType(float32, (symbol("N"), 3, symbol("H"), 7)))
POINTS = placeholder("points", tensor_type("float32", (5, 3, 1, 1)))
OUTPUT = placeholder("output", op("conv", IMAGES, POINTS, stride=2).type)
PLACES = placeholder("places", tensor_type("int64", (4,)))
INPUTS = (X, N, A, S, L, IMAGES, POINTS, OUTPUT, PLACES)


def c(value: float, dtype: str = "float32") -> Value:
    return constant(value, dtype)


def canonical(*values: Value) -> tuple[Value, ...]:
    return canonicalize(Graph("g", INPUTS, values)).outputs


def turned(x: Value, *axes: int) -> Value:
    return op("transpose", x, axes=axes)


def wide(x: Value) -> Value:
    return node("cast", x, dtype=float64)[0]


def ones(*shape: int) -> Value:
    return node("full", shape=shape, value=1.0, dtype=float32)[0]


def spread(x: Value, *shape: int) -> Value:
    return node("broadcast_to", x, shape=shape)[0]


def pool_gradient() -> Value:
    """Return the gradient of a pool over the images, given a one for each window."""
    settings = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0)}
    index = op("max_pool_index", IMAGES, *settings.values())
    arriving = node("full", shape=index.shape, value=1.0, dtype=float32)[0]
    return node("max_pool_grad", arriving, index, spatial=IMAGES.shape[2:], **settings)[0]


# Name of the rule, what it rewrites, and what comes out: a value, or names of the ops.
CASES: list[tuple[str, Value, object]] = [
    ("x * 1", X * 1.0, X),
    ("x * 1", c(1.0) * X, X),
    ("x / 1", X / 1.0, X),
    ("x - 0", X - 0.0, X),
    ("x ** 1", X**1.0, X),
    ("x ** 2", X**2.0, ["multiply"]),
    ("--x", op("negative", op("negative", X)), X),
    ("cast of cast", node("cast", wide(X), dtype=float32)[0], X),
    ("cast to itself", node("cast", X, dtype=float32)[0], X),
    ("x as constant", op("stop_gradient", X), X),
    ("x in memory of its own", node("copy", X)[0], X),
    *(
        (f"{name} of one", op(name, op("reshape", A, shape=(16, 1)), axis=1), ["reshape"])
        for name in REDUCTIONS
    ),
    ("cast of a constant", node("cast", ones(2, 3), dtype=int32)[0], ["full"]),
    ("reshape of a constant", op("reshape", ones(2, 3), shape=(6,)), ["full"]),
    ("broadcast_to of a constant", node("broadcast_to", c(2.0), shape=(3,))[0], ["full"]),
    ("transpose of a constant", turned(ones(2, 3), 1, 0), ["full"]),
    ("broadcast of 0-d, reshaped", op("reshape", spread(S, 6), shape=(2, 3)), ["broadcast_to"]),
    ("0-d with axes, broadcast", spread(op("reshape", S, shape=(1, 1)), 2, 3), ["broadcast_to"]),
    ("expand_dims as reshape", node("expand_dims", X, axis=(0,))[0], ["reshape"]),
    (
        "squeeze as reshape",
        node("squeeze", op("reshape", A, shape=(1, 16)), axis=(0,))[0],
        ["reshape"],
    ),
    (
        "reshape of reshape",
        op("reshape", op("reshape", A, shape=(16,)), shape=(2, 8)),
        ["reshape"],
    ),
    ("reshape to itself", node("reshape", X, shape=X.shape)[0], X),
    ("transpose of transpose", turned(turned(A, 1, 0), 1, 0), A),
    ("transpose by nothing", node("transpose", X, axes=(0, 1))[0], X),
    ("broadcast to itself", node("broadcast_to", X, shape=X.shape)[0], X),
    ("matmul of A'", op("matmul", turned(A, 1, 0), A), ["matmul"]),
    ("matmul of B'", op("matmul", A, turned(A, 1, 0)), ["matmul"]),
    ("conv of points", op("conv", IMAGES, POINTS, stride=(2, 1)), ["slice", "conv"]),
    (
        "conv_data_grad of points",
        op("conv_data_grad", OUTPUT, POINTS, spatial=IMAGES.shape[2:], stride=2),
        ["conv_data_grad", "unslice"],
    ),
    (
        "conv_weight_grad of points",
        op("conv_weight_grad", OUTPUT, IMAGES, window=(1, 1), stride=2),
        ["slice", "conv_weight_grad"],
    ),
    (
        "mask of a pool's gradient",
        op("where", op("greater", IMAGES, c(0.0)), pool_gradient(), c(0.0)),
        ["max_pool", "constant", "greater", "full", "where", "max_pool_index", "max_pool_grad"],
    ),
    (
        "sum of a pool's gradient",
        node("sum", pool_gradient(), axis=(0, 2, 3), keepdims=True, dtype=None)[0],
        ["full", "sum"],
    ),
    (
        "scatters added",
        op("scatter_add", PLACES, A, (9, 4)) + op("scatter_add", PLACES, A * A, (9, 4)),
        ["concat", "multiply", "concat", "scatter_add"],
    ),
]


@pytest.mark.parametrize(("rule", "value", "expected"), CASES, ids=[c[0] for c in CASES])
def test_rule(rule: str, value: Value, expected: object) -> None:
    (found,) = canonical(value)
    assert found.type == value.type
    if isinstance(expected, list):
        assert [n.op.name for n in Graph("g", INPUTS, (found,)).nodes] == expected
    else:
        assert found == expected


def test_every_rule_has_a_case() -> None:
    assert {rule.name for rule in _RULES} == {name for name, *_ in CASES}


@pytest.mark.parametrize(
    "value",
    [
        X + 0.0,  # -0.0 + 0.0 is 0.0
        X * 0.0,  # nan and inf times 0 are nan
        X - c(-0.0),
        X * 2.0,
        op("where", op("greater", IMAGES + IMAGES, S), pool_gradient(), c(0.0)),
        op("where", op("greater", IMAGES, c(0.0)), pool_gradient(), c(1.0)),
        node("sum", pool_gradient(), axis=(0, 3), keepdims=True, dtype=None)[0],
        op("matmul", A, A),
        node("cast", node("cast", X, dtype=int32)[0], dtype=float32)[0],
        node("cast", node("cast", L, dtype=float64)[0], dtype=int64)[0],  # of 2 ** 53 + 1
        turned(op("reshape", A, shape=(2, 8)), 1, 0),
        N * N,
        op("scatter_add", PLACES, A, (9, 4)) + op("scatter_add", PLACES, A, (9, 4), mode="wrap"),
        op("scatter_add", PLACES, A, (4, 9), 1) + op("scatter_add", PLACES, A * A, (4, 9), 1),
    ],
)
def test_what_only_looks_alike_stays(value: Value) -> None:
    (found,) = canonical(value)
    before = [n.op.name for n in Graph("g", INPUTS, (value,)).nodes]
    assert [n.op.name for n in Graph("g", INPUTS, (found,)).nodes] == before


def test_constants_fold_in_their_own_type() -> None:
    (found,) = canonical(X * (c(1.0) / c(3.0) + c(2.0)))
    factor = found.node.inputs[1]
    assert factor.node.attrs["value"] == float(np.float32(1) / np.float32(3) + np.float32(2))


def test_equal_nodes_are_one_node() -> None:
    first, second = canonical(op("exp", X + 1.0), op("exp", X + 1.0))
    assert first == second
    # 1 and True, 0.0 and -0.0 are equal in Python and not here.
    plus, minus = canonical(X * c(0.0), X * c(-0.0))
    assert plus != minus


def test_reductions_keep_their_axes() -> None:
    (found,) = canonical(node("sum", X, axis=(1,), dtype=None, keepdims=False)[0])
    assert found.op_name == "reshape"
    assert found.node.inputs[0].node.attrs["keepdims"] is True


def test_a_pointwise_op_broadcasts_by_itself() -> None:
    row = placeholder("row", tensor_type("float32", (4,)))
    spread = node("broadcast_to", row, shape=X.shape)[0]
    graph = canonicalize(Graph("g", (X, row), (X + spread,)))
    assert [n.op.name for n in graph.nodes] == ["add"]
    # Where no other operand has the whole shape, the broadcast has a purpose.
    alone = canonicalize(Graph("g", (X, row), (spread * 2.0,)))
    assert "broadcast_to" in [n.op.name for n in alone.nodes]


def names(*values: Value) -> list[str]:
    return [n.op.name for n in Graph("g", INPUTS, canonical(*values)).nodes]


def test_a_constant_everywhere_is_one_constant() -> None:
    assert canonical(A * ones(4, 4)) == (A,)
    assert names(op("exp", op("reshape", ones(1), shape=()))) == ["constant"]


def test_the_mask_of_dropout_is_not_one_constant() -> None:
    seeds = [c(1, "uint64"), c(0, "uint64")]
    dropped = node("dropout", ones(4), *seeds, p=0.5, axes=())[0]
    assert names(dropped)[-1] == "dropout"


def test_what_reads_a_reduction_reads_it_before_its_axes_are_dropped() -> None:
    total = node("sum", X, axis=(1,), dtype=None, keepdims=False)[0]
    mean = op("sqrt", total / node("size", dim=symbol("B"), dtype=float32)[0])
    assert names(mean) == ["sum", "size", "divide", "sqrt", "reshape"]
    assert names(total * total - total) == ["sum", "multiply", "subtract", "reshape"]
    assert names(op("reshape", A, shape=(16,)) * 2.0)[0] == "reshape"


def test_dead_code_is_gone() -> None:
    a, b = node("cast", X, dtype=float64)[0], op("exp", X)
    assert a != b
    assert len(canonicalize(Graph("g", (X,), (b,))).nodes) == 1


def test_lines_are_kept() -> None:
    plain = op("log_softmax", X)
    where = Location("model.py", 3, "net")
    record = plain.node
    marked = Node(record.op, record.inputs, record.attrs, record.types, where).outputs[0]
    for n in canonicalize(Graph("g", (X,), (marked,))).nodes:
        assert n.where == where, n.op.name


def test_the_form_is_final() -> None:
    for graph in (mlp_step(), lenet_step(), *map(random_graph, range(10))):
        once = canonicalize(graph)
        verify(once)
        assert print_graph(simplify(once)) == print_graph(once)
        for n in once.nodes:
            assert not n.op.decomposes, n.op.name
            assert n.op.kind is not Kind.REDUCE or n.attrs.get("keepdims", True)


def every_case(name: str) -> list[tuple[Sample, DType]]:
    """Return sample and type of each graph of `record_graphs`."""
    record = REGISTRY[name]
    return [(sample, dtype) for sample in record.samples for dtype in record.dtypes]


@pytest.mark.parametrize("name", RECORDS)
def test_canonical_records_compute_the_same(name: str) -> None:
    rng = np.random.default_rng(0)
    for graph, (sample, dtype) in zip(record_graphs(name), every_case(name), strict=True):
        after = canonicalize(graph)
        verify(after)
        arrays = [spec.draw(rng, dtype) for spec in sample.specs]
        with np.errstate(all="ignore"):
            found, expected = interpret(after, arrays), interpret(graph, arrays)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("seed", range(15))
def test_canonical_graphs_compute_the_same(seed: int) -> None:
    graph = random_graph(seed, nodes=12)
    rng = np.random.default_rng(seed)
    arrays = [
        rng.uniform(-0.5, 0.5, [5 if not isinstance(d, int) else d for d in v.shape])
        for v in graph.inputs
    ]
    with np.errstate(all="ignore"):
        before, after = interpret(graph, arrays), interpret(canonicalize(graph), arrays)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_golden(golden: Callable[[str, str], None]) -> None:
    text = print_graph(canonicalize(parse_graph(print_graph(mlp_step()))))
    # Lines of this test's own files would change with every edit.
    bare = "\n".join(line.split("  # ")[0].rstrip() for line in text.splitlines())
    golden(bare, "passes/canonical_mlp_step.graph")

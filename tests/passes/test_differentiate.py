"""Gradients as graphs: against central differences, to second order, with broadcasting."""

from __future__ import annotations

import numpy as np
import pytest
from sample_graphs import RECORDS, mlp_step, node, op

from graphc.errors import Location
from graphc.ir.graph import Graph, Node, Value, placeholder
from graphc.ir.interp import interpret
from graphc.ir.op import Sample
from graphc.ir.operand import REGISTRY
from graphc.ir.types import TensorType, float64, tensor_type
from graphc.ir.verify import verify
from graphc.passes.differentiate import gradients

STEP = 1e-5
# Records whose gradient exists and can be measured at the samples' own points.
SMOOTH = tuple(
    name
    for name in RECORDS
    # cast to float32 rounds away a difference of float64s
    if name != "cast"
    and REGISTRY[name].gradient
    and REGISTRY[name].orders
    and float64 in REGISTRY[name].dtypes
    and any(spec.dtype is None for sample in REGISTRY[name].samples for spec in sample.specs)
)


def sizes_of(array: np.ndarray) -> TensorType:
    return tensor_type(str(array.dtype), array.shape)


def differentiated(
    name: str, sample: Sample, arrays: list[np.ndarray]
) -> tuple[Graph, list[np.ndarray], list[int]] | None:
    """Return the gradient graph of sum(weight * output), its arrays, and of which inputs."""
    record = REGISTRY[name]
    values = tuple(placeholder(f"x{i}", sizes_of(a)) for i, a in enumerate(arrays))
    outputs = Graph("f", values, node(name, *values, **sample.attrs)).outputs
    heads = [v for v in outputs if v.dtype.floating]
    wrt = [i for i, v in enumerate(values) if v.dtype.floating]
    if not heads or not wrt:
        return None
    rng = np.random.default_rng(1)
    shapes = [[d for d in v.shape if isinstance(d, int)] for v in heads]
    weights = [rng.uniform(0.5, 1.5, shape) for shape in shapes]
    inner = [placeholder(f"g{i}", v.type) for i, v in enumerate(heads)]
    found = gradients(heads, inner, [values[i] for i in wrt])
    total: Value | None = None
    for head, weight in zip(heads, inner, strict=True):
        part = node("sum", head * weight, axis=None, dtype=None, keepdims=False)[0]
        total = part if total is None else total + part
    assert total is not None
    known = [i for i, g in zip(wrt, found, strict=True) if g is not None]
    grads = tuple(g for g in found if g is not None)
    assert record.name == name
    return Graph("grad", (*values, *inner), (total, *grads)), [*arrays, *weights], known


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_central_differences(name: str) -> None:
    rng = np.random.default_rng(0)
    for sample in REGISTRY[name].samples[:3]:
        arrays = [spec.draw(rng, float64) for spec in sample.specs]
        made = differentiated(name, sample, arrays)
        if made is None or any(a.size == 0 for a in arrays):
            continue
        graph, given, wrt = made
        verify(graph)
        with np.errstate(all="ignore"):
            found = interpret(graph, given)[1:]
        for position, gradient in zip(wrt, found, strict=True):
            check_direction(graph, given, position, gradient)


def check_direction(
    graph: Graph, given: list[np.ndarray], position: int, gradient: np.ndarray
) -> None:
    """Compare a gradient with the difference along one random direction."""
    direction = np.random.default_rng(2).choice([-1.0, 1.0], given[position].shape)
    ends = []
    for sign in (1.0, -1.0):
        moved = list(given)
        moved[position] = given[position] + sign * STEP * direction
        with np.errstate(all="ignore"):
            ends.append(float(interpret(graph, moved)[0]))
    measured = (ends[0] - ends[1]) / (2 * STEP)
    if np.isfinite(measured):
        scale = max(1.0, abs(measured), float(np.abs(gradient * direction).sum()))
        assert abs(float((gradient * direction).sum()) - measured) < 2e-4 * scale


X = placeholder("x", tensor_type("float64", (3, 4)))
ROW = placeholder("row", tensor_type("float64", (4,)))
ONE = placeholder("one", tensor_type("float64", (3, 1)))


def gradient_of(output: Value, *wrt: Value) -> list[Value | None]:
    ones = node("full", shape=output.shape, value=1.0, dtype=output.dtype)[0]
    return gradients([output], [ones], wrt)


def test_broadcasting_is_undone() -> None:
    found = gradient_of(X * ROW + ONE, X, ROW, ONE)
    shapes = [None if g is None else g.shape for g in found]
    assert shapes == [(3, 4), (4,), (3, 1)]
    rng = np.random.default_rng(0)
    x, row, one = rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=(3, 1))
    graph = Graph("g", (X, ROW, ONE), tuple(g for g in found if g is not None))
    by_x, by_row, by_one = interpret(graph, [x, row, one])
    np.testing.assert_allclose(by_x, np.broadcast_to(row, (3, 4)))
    np.testing.assert_allclose(by_row, x.sum(0))
    np.testing.assert_allclose(by_one, np.full((3, 1), 4.0))


def test_what_does_not_matter_has_no_gradient() -> None:
    assert gradient_of(op("exp", X), ROW) == [None]
    assert gradient_of(op("stop_gradient", X) * 1.0, X) == [None]
    assert gradient_of(op("floor", X), X) == [None]


def test_uses_add_up() -> None:
    (found,) = gradient_of(X * X + X * 3.0, X)
    assert found is not None
    x = np.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(interpret(Graph("g", (X,), (found,)), [x])[0], 2 * x + 3)


def test_a_missing_cotangent_contributes_nothing() -> None:
    first, second = X * 2.0, X * 5.0
    ones = node("full", shape=X.shape, value=1.0, dtype=X.dtype)[0]
    (found,) = gradients([first, second], [ones, None], [X])
    assert found is not None
    np.testing.assert_array_equal(
        interpret(Graph("g", (X,), (found,)), [np.zeros((3, 4))])[0], np.full((3, 4), 2.0)
    )


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("exp", np.exp, np.exp),
        ("sin", np.cos, lambda x: -np.sin(x)),
        ("tanh", lambda x: 1 - np.tanh(x) ** 2, lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2)),
        ("square", lambda x: 2 * x, lambda x: np.full_like(x, 2.0)),
    ],
)
def test_gradients_of_gradients(name: str, first: object, second: object) -> None:
    assert callable(first) and callable(second)
    (once,) = gradient_of(op(name, X), X)
    assert once is not None
    (twice,) = gradient_of(once, X)
    assert twice is not None
    x = np.linspace(-1.5, 1.5, 12).reshape(3, 4)
    found = interpret(Graph("g", (X,), (once, twice)), [x])
    np.testing.assert_allclose(found[0], first(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found[1], second(x), rtol=1e-12, atol=1e-12)


def test_gradients_keep_the_line() -> None:
    where = Location("model.py", 3, "net")
    plain = op("tanh", X).node
    marked = Node(plain.op, plain.inputs, plain.attrs, plain.types, where).outputs[0]
    (found,) = gradient_of(marked, X)
    assert found is not None
    lines = [n.where for n in Graph("g", (X,), (found,)).nodes]
    assert where in lines and None not in lines[1:]


def test_a_training_step_learns() -> None:
    graph = mlp_step()
    rng = np.random.default_rng(0)
    state = {n: np.zeros(()) for n in graph.input_names()}
    for value, name in zip(graph.inputs, graph.input_names(), strict=True):
        shape = [20 if not isinstance(d, int) else d for d in value.shape]
        state[name] = rng.normal(size=shape) * 0.1
    state["label"] = rng.integers(0, 10, 20)
    state["rate"] = np.asarray(0.05)
    losses = []
    for _ in range(15):
        loss, *new = interpret(graph, list(state.values()))
        losses.append(float(loss.mean()))
        names = [str(target.node.attrs["name"]) for target, _ in graph.updates]
        state.update(zip(names, new, strict=True))
    assert losses[-1] < 0.5 * losses[0]

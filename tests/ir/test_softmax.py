"""Softmax and cross entropies beyond what every record is tested for."""

from __future__ import annotations

import numpy as np
import pytest

import graphc.ir.ops.arithmetic  # noqa: F401 - what the operators of values mean
from graphc.errors import DTypeError, ShapeError
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.reduction import sum as sum_
from graphc.ir.ops.softmax import (
    log_softmax,
    sigmoid_binary_cross_entropy,
    softmax,
    softmax_cross_entropy,
)
from graphc.ir.ops.statistics import logsumexp
from graphc.ir.sizes import SizeSolver, solving
from graphc.ir.types import TensorType, as_dtype, float32, int32
from graphc.passes.differentiate import gradients

INFINITY = float("inf")


def inputs(*arrays):
    return tuple(
        placeholder(f"x{n}", TensorType(as_dtype(a.dtype), a.shape)) for n, a in enumerate(arrays)
    )


def composed(function, *arrays):
    """Return a record's decomposition, computed: what the compiled program does."""
    values = inputs(*arrays)
    node = function(*values).node
    return interpret(Graph("t", values, (node.op.decompose(*values, **node.attrs),)), arrays)[0]


def with_gradient(function, *arrays):
    """Return the result, and the gradient of its sum in the first operand."""
    values = inputs(*arrays)
    result = function(*values)
    total = sum_(result)
    found = gradients([total], [total * 0.0 + 1.0], values)
    return interpret(Graph("t", values, (result, found[0])), arrays)


@pytest.mark.parametrize("op", [softmax, log_softmax])
def test_extreme_logits(op):
    x = np.array([[1e30, 0, -1e30], [-INFINITY, 1, 1], [-3e4, -3e4, -3e4]], np.float32)
    found = composed(op, x)
    p = np.array([[1, 0, 0], [0, 0.5, 0.5], [1 / 3] * 3])
    with np.errstate(divide="ignore"):
        expected = p if op is softmax else np.log(p)
    if op is log_softmax:
        expected[0] = [0, -1e30, -2e30]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(op.reference(x, axis=-1), expected, rtol=1e-6)


def test_nan_and_rows_without_a_class_are_nan():
    x = np.array([[np.nan, 1, 2], [-INFINITY] * 3])
    assert np.isnan(composed(softmax, x)).all()
    assert np.isnan(softmax.reference(x, axis=-1)).all()


def test_temperature_divides_the_logits():
    x = np.array([[1.0, 2.0, 4.0]])
    value = inputs(x)[0]
    found = interpret(Graph("t", (value,), (softmax(value, temperature=2.0),)), [x])[0]
    np.testing.assert_allclose(found, softmax.reference(x / 2, axis=-1))


# -- cross entropy ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [True, False])
def test_cross_entropy_of_extreme_logits(sparse):
    x = np.array([[1e4, 1e4 + 1, 0], [-INFINITY, 0, 0], [0, 1e30, 0]], np.float32)
    labels = np.array([0, 1, 1], np.int32)
    dense = labels if sparse else np.eye(3, dtype=np.float32)[labels]
    expected = [np.log1p(np.e), np.log(2), 0]
    loss = lambda a, b: softmax_cross_entropy(a, b, sparse=sparse)  # noqa: E731
    np.testing.assert_allclose(composed(loss, x, dense), expected, rtol=1e-6)
    found, gradient = with_gradient(loss, x, dense)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    p = softmax.reference(x, axis=-1)
    np.testing.assert_allclose(gradient, p - np.eye(3)[labels], rtol=1e-6, atol=1e-7)


def test_a_ruled_out_label_costs_infinity():
    x, labels = np.array([[-INFINITY, 0.0]]), np.array([0])
    assert composed(softmax_cross_entropy, x, labels).tolist() == [INFINITY]


def test_labels_may_be_bytes_however_many_classes_there_are():
    x = np.random.default_rng(0).normal(size=(2, 300))
    labels = np.array([3, 255], np.uint8)
    found, gradient = with_gradient(softmax_cross_entropy, x, labels)
    np.testing.assert_allclose(composed(softmax_cross_entropy, x, labels), found)
    expected = softmax.reference(x, axis=-1)
    expected[[0, 1], labels] -= 1
    np.testing.assert_allclose(gradient, expected)


def test_the_class_axis_may_be_any():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    labels = np.random.default_rng(1).integers(0, 5, (2, 3))
    inner = lambda a, b: softmax_cross_entropy(a, b, axis=1)  # noqa: E731
    found, gradient = with_gradient(inner, x, labels)
    last, last_gradient = with_gradient(softmax_cross_entropy, np.moveaxis(x, 1, -1), labels)
    np.testing.assert_allclose(found, last)
    np.testing.assert_allclose(gradient, np.moveaxis(last_gradient, -1, 1))


def test_a_label_out_of_range_hits_no_class():
    x, labels = np.zeros((2, 4)), np.array([-1, 4])
    np.testing.assert_allclose(composed(softmax_cross_entropy, x, labels), np.log(4))
    found, gradient = with_gradient(softmax_cross_entropy, x, labels)
    np.testing.assert_allclose(found, np.log(4))
    np.testing.assert_allclose(gradient, 0.25)


def test_the_gradient_needs_no_one_hot_tensor():
    x, labels = inputs(np.zeros((3, 4), np.float32), np.zeros(3, np.int32))
    loss = softmax_cross_entropy(x, labels)
    found = gradients([loss], [loss], [x])[0]
    names = {node.op.name for node in Graph("g", (x, labels), (found,)).nodes}
    assert "one_hot" not in names
    assert {"iota", "equal"} <= names


def test_the_batch_stays_symbolic():
    solver = SizeSolver()
    n, m = solver.fresh("N", 100), solver.fresh("M", 100)
    x = placeholder("x", TensorType(float32, (n, 10)))
    labels = placeholder("y", TensorType(int32, (m,)))
    with solving(solver):
        loss = softmax_cross_entropy(x, labels)
        gradient = gradients([loss], [loss], [x])[0]
        assert [solver.resolve(d) for d in loss.shape] == [solver.resolve(n)]
        assert gradient.shape[1] == 10
    assert len(solver.constraints) == 1


def test_label_errors():
    logits, numbers, weights, real = inputs(
        np.zeros((100, 10), np.float32),
        np.zeros(100, np.int32),
        np.zeros((100, 10), np.float32),
        np.zeros(100, np.float32),
    )
    with pytest.raises(ShapeError, match="pass sparse=False"):
        softmax_cross_entropy(logits, weights)
    with pytest.raises(ShapeError, match="pass sparse=True"):
        softmax_cross_entropy(logits, numbers, sparse=False)
    with pytest.raises(ShapeError, match=r"labels' shape must be \(10,\)"):
        softmax_cross_entropy(logits, numbers, axis=0)
    with pytest.raises(DTypeError, match="must be integers, got float32") as caught:
        softmax_cross_entropy(logits, real)
    assert '.astype("int32")' in str(caught.value)
    with pytest.raises(ShapeError, match="axis 2 does not exist"):
        softmax_cross_entropy(logits, numbers, axis=2)


def test_binary_cross_entropy_at_the_ends():
    x = np.array([0.0, 40.0, -40.0, 1e4, -1e4])
    z = np.array([0.25, 1.0, 0.0, 1.0, 0.0])
    found, gradient = with_gradient(sigmoid_binary_cross_entropy, x, z)
    np.testing.assert_allclose(found, [np.log(2), np.exp(-40), np.exp(-40), 0, 0], rtol=1e-9)
    np.testing.assert_allclose(gradient, [0.25, 0, 0, 0, 0], atol=1e-12)


def test_an_axis_without_classes_is_an_error():
    logits, labels = inputs(np.zeros((2, 0), np.float32), np.zeros(2, np.int32))
    for call in (softmax, log_softmax, lambda x: softmax_cross_entropy(x, labels)):
        with pytest.raises(ShapeError, match="over axis 1, which has no elements"):
            call(logits)


def test_logsumexp_gradient_at_infinities():
    x = np.array([[-INFINITY, -INFINITY], [INFINITY, 1.0], [np.nan, 1.0], [-INFINITY, 2.0]])
    values = inputs(x, np.ones(4))
    found = gradients([logsumexp(values[0], axis=1)], [values[1]], [values[0]])
    (gradient,) = interpret(Graph("t", values, tuple(found)), (x, np.ones(4)))
    expected = [[0, 0], [np.nan, 0], [np.nan, np.nan], [0, 1]]
    np.testing.assert_array_equal(gradient, expected)

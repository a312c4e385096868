"""Normalisation beyond what every record is tested for."""

from __future__ import annotations

import numpy as np
import pytest

import graphc.ir.ops.arithmetic  # noqa: F401 - what the operators of values mean
from graphc.errors import ShapeError
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.normalization import (
    batch_norm,
    batch_norm_inference,
    group_norm,
    instance_norm,
    layer_norm,
)
from graphc.ir.ops.reduction import sum as sum_
from graphc.ir.sizes import SizeSolver, solving
from graphc.ir.types import TensorType, as_dtype, float32, float64
from graphc.passes.differentiate import gradients


def inputs(*arrays):
    return tuple(
        placeholder(f"x{n}", TensorType(as_dtype(a.dtype), a.shape)) for n, a in enumerate(arrays)
    )


def run(function, *arrays):
    values = inputs(*arrays)
    found = function(*values)
    return interpret(Graph("t", values, found if isinstance(found, tuple) else (found,)), arrays)


def drawn(*shapes, dtype=np.float64):
    generator = np.random.default_rng(3)
    return [generator.normal(1.0, 2.0, shape).astype(dtype) for shape in shapes]


def normalized(x, axes, eps):
    middle, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - middle) / np.sqrt(variance + eps)


def test_batch_norm_by_numpy():
    x, gamma, beta = drawn((5, 3, 4), (3,), (3,))
    y, mean, var = run(lambda *v: batch_norm(*v, eps=1e-3), x, gamma, beta)
    expected = normalized(x, (0, 2), 1e-3) * gamma[:, None] + beta[:, None]
    np.testing.assert_allclose(y, expected)
    np.testing.assert_allclose(mean, x.mean((0, 2)))
    np.testing.assert_allclose(var, x.var((0, 2)))


def test_inference_with_the_statistics_of_the_batch_is_training():
    arrays = drawn((4, 3, 2, 2), (3,), (3,))
    y, mean, var = run(batch_norm, *arrays)
    found = run(lambda *v: batch_norm_inference(*v), *arrays, mean, var)[0]
    np.testing.assert_allclose(found, y)
    plain = run(lambda x, m, v: batch_norm_inference(x, None, None, m, v), arrays[0], mean, var)[0]
    np.testing.assert_allclose(plain, normalized(arrays[0], (0, 2, 3), 1e-5))


def test_layer_instance_and_group_norm_by_numpy():
    x, gamma, beta = drawn((2, 4, 3, 5), (4,), (4,))
    each = (slice(None), None, None)
    found = run(lambda v: layer_norm(v, axis=(1, -1)), x)[0]
    np.testing.assert_allclose(found, normalized(x, (1, 3), 1e-5))
    found = run(instance_norm, x, gamma, beta)[0]
    expected = normalized(x, (2, 3), 1e-5) * gamma[each] + beta[each]
    np.testing.assert_allclose(found, expected)
    found = run(lambda x, a, b: group_norm(x, 2, a, b), x, gamma, beta)[0]
    grouped = normalized(x.reshape(2, 2, -1), (2,), 1e-5).reshape(x.shape)
    np.testing.assert_allclose(found, grouped * gamma[each] + beta[each])


def test_a_large_mean_costs_no_accuracy():
    x = (drawn((4, 64))[0] + 1e4).astype(np.float32)
    found = run(layer_norm, x)[0]
    expected = normalized(x.astype(np.float64), (1,), 1e-5)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("norm", [layer_norm, batch_norm])
def test_the_closed_form_is_the_gradient_of_the_composition(norm, scale):
    width = 4 if norm is layer_norm else 3
    arrays = drawn((5, 3, 4), (width,)) if scale else drawn((5, 3, 4))
    values = inputs(*arrays)
    outputs = norm(*values)
    node = (outputs if norm is layer_norm else outputs[0]).node
    weights = [placeholder(f"w{n}", v.type) for n, v in enumerate(node.outputs)]
    parts = norm.decompose(*values, **node.attrs)
    closed = gradients(node.outputs, weights, values)
    composed = gradients(parts, weights, values)
    graph = Graph("t", (*values, *weights), (*closed, *composed))
    found = interpret(graph, [*arrays, *drawn(*(v.shape for v in weights))])
    assert len(closed) == len(composed) == len(arrays)
    for a, b in zip(found[: len(arrays)], found[len(arrays) :], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_gradients_that_reach_the_statistics_only():
    x = drawn((4, 3))[0]
    value = inputs(x)[0]
    total = sum_(batch_norm(value)[1])
    found = gradients([total], [total * 0.0 + 1.0], [value])[0]
    assert found.type == value.type
    np.testing.assert_allclose(interpret(Graph("t", (value,), (found,)), [x])[0], 0.25)


def test_a_constant_channel_has_finite_gradients():
    x = np.full((4, 3), 7.0)
    value = inputs(x)[0]
    y = batch_norm(value)[0]
    found = gradients([y], [value], [value])[0]
    assert np.isfinite(interpret(Graph("t", (value,), (found,)), [x])[0]).all()


# -- types and errors ------------------------------------------------------------------------------


def test_the_batch_stays_symbolic():
    solver = SizeSolver()
    n = solver.fresh("N", 100)
    x = TensorType(float32, (n, 20, solver.fresh("H", 12), 12))
    with solving(solver):
        y, mean, _ = batch_norm(placeholder("x", x))
        gradient = gradients([y], [y], [y.node.inputs[0]])[0]
    assert y.type == gradient.type == x
    assert mean.shape == (20,)
    assert not solver.constraints


def test_integers_are_normalised_in_floating_point():
    y = layer_norm(placeholder("x", TensorType(as_dtype("int64"), (2, 3))))
    assert y.dtype is float64


def test_errors():
    x, gamma = inputs(*drawn((2, 20, 4), (3,)))
    with pytest.raises(ShapeError, match=r"gamma of batch_norm has shape \(3,\).*\(20,\)"):
        batch_norm(x, gamma)
    with pytest.raises(ShapeError, match=r"beta of layer_norm has shape \(3,\).*\(4,\)"):
        layer_norm(x, None, gamma)
    with pytest.raises(ShapeError, match="axis 3 does not exist"):
        batch_norm(x, axis=3)
    with pytest.raises(ShapeError, match="20 channels do not divide into 3 groups"):
        group_norm(x, 3)

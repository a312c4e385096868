"""Matmul, tensordot and einsum beyond what every record is tested for."""

from __future__ import annotations

import numpy as np
import pytest

import graphc.ir.ops.arithmetic  # noqa: F401 - what the operators of values mean
from graphc.errors import ArgumentError, ShapeError
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, placeholder, topological
from graphc.ir.interp import interpret
from graphc.ir.ops.contraction import dot, matmul, sum_to_shape, tensordot
from graphc.ir.ops.einsum import einsum
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
    return interpret(Graph("test", values, (function(*values),)), arrays)[0]


def ones(*shape):
    return np.ones(shape, np.float32)


def drawn(*shapes):
    generator = np.random.default_rng(3)
    return [generator.normal(size=shape) for shape in shapes]


# -- errors ----------------------------------------------------------------------------------------


def test_different_inner_sizes_are_named():
    with pytest.raises(ShapeError, match="inner sizes differ: 784 and 800") as caught:
        run(matmul, ones(10, 784), ones(800, 5))
    assert "matmul(f32[10, 784], f32[800, 5])" in str(caught.value)
    assert "test_contraction.py" in str(caught.value)


def test_a_fitting_transposition_is_proposed():
    with pytest.raises(ShapeError, match="transpose_b=True"):
        run(matmul, ones(10, 784), ones(5, 784))
    with pytest.raises(ShapeError, match="transpose_b=False"):
        run(lambda a, b: matmul(a, b, transpose_b=True), ones(10, 784), ones(784, 5))


def test_scalars_are_not_multiplied_by_matmul():
    with pytest.raises(ShapeError, match=r"got \(\) and \(3,\)") as caught:
        run(matmul, np.float32(1) * np.ones(()), ones(3))
    assert "Use *" in str(caught.value)


def test_batch_axes_that_do_not_broadcast():
    with pytest.raises(ShapeError, match="do not broadcast"):
        run(matmul, ones(2, 3, 4), ones(3, 4, 5))


def test_tensordot_names_the_axes():
    with pytest.raises(ShapeError, match=r"4 \(axis 1 of the first operand\) and 3 \(axis 0"):
        run(lambda a, b: tensordot(a, b, 1), ones(2, 4), ones(3, 2))
    # The products of the sizes agree here, the sizes do not.
    with pytest.raises(ShapeError, match="inner sizes differ: 2"):
        run(lambda a, b: tensordot(a, b, ((0, 1), (0, 1))), ones(2, 3), ones(3, 2))
    with pytest.raises(ShapeError, match="pairs 2 axes with 1"):
        run(lambda a, b: tensordot(a, b, ((0, 1), (0,))), ones(2, 3), ones(2, 3))
    with pytest.raises(ShapeError, match="axis 2 does not exist"):
        run(lambda a, b: tensordot(a, b, (2, 0)), ones(2, 3), ones(2, 3))


@pytest.mark.parametrize(
    ("subscripts", "shapes", "error", "message"),
    [
        ("ij,jk->ik", [(2, 3)], ArgumentError, "is for 2 operands, got 1"),
        ("ij,jk->iz", [(2, 3), (3, 4)], ArgumentError, "no operand has the output's 'z'"),
        ("ii->i", [(2, 2)], ArgumentError, "repeats a letter within 'ii'"),
        ("i1->i", [(2, 2)], ArgumentError, "has '1' where letters belong"),
        ("ijk->i", [(2, 2)], ShapeError, "'ijk' does not fit"),
        ("ij->i", [(2, 2, 2)], ShapeError, "'ij' does not fit"),
        ("ij,jk->ik", [(2, 3), (4, 5)], ShapeError, "axis 'j' has sizes 3 and 4"),
        ("ij,ij->", [(2, 3), (3, 2)], ShapeError, "axis 'i' has sizes 2 and 3"),
    ],
)
def test_einsum_errors(subscripts, shapes, error, message):
    with pytest.raises(error, match=message):
        run(lambda *x: einsum(subscripts, *x), *(ones(*s) for s in shapes))


# -- types -----------------------------------------------------------------------------------------


def test_the_batch_stays_symbolic():
    solver = SizeSolver()
    x = placeholder("x", TensorType(float32, (solver.fresh("N", 100), solver.fresh("K", 784))))
    w = placeholder("w", TensorType(float32, (10, 784)))
    with solving(solver):
        y = matmul(x, w, transpose_b=True)
    assert y.shape == (symbol("N"), 10)
    assert [str(c.left) for c in solver.constraints] == ["K"]
    assert solver.resolve(symbol("K")) == 784


def test_symbolic_batches_unify():
    solver = SizeSolver()
    shapes = [(solver.fresh(n, 4), 2, 3) for n in ("A", "B")]
    a, b = (placeholder("x", TensorType(float32, s)) for s in shapes)
    with solving(solver):
        y = matmul(a, b, transpose_b=True)
        assert [solver.resolve(d) for d in y.shape] == [symbol("B"), 2, 2]


def test_integers_wrap_as_in_numpy():
    a = np.full((1, 3), 200, np.uint8)
    assert run(matmul, a, a.T).tolist() == [[(3 * 200 * 200) % 256]]


# -- gradients -------------------------------------------------------------------------------------


def gradient_of_sum(function, *arrays):
    values = inputs(*arrays)
    total = sum_(function(*values))
    found = gradients([total], [total * 0.0 + 1.0], values)
    return found, interpret(Graph("gradient", values, tuple(found)), arrays)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (dot, [(2, 3), (4, 3, 2)]),
        (lambda a, b: tensordot(a, b, ((0,), (1,))), [(3, 2), (4, 3)]),
        (lambda a, b: einsum("bij,kj->bk", a, b), [(2, 3, 4), (5, 4)]),
        (lambda a, b: einsum("...ij,...jk->...ik", a, b), [(2, 1, 3, 4), (3, 4, 2)]),
    ],
)
def test_gradients_of_compositions(function, shapes):
    arrays = drawn(*shapes)
    values = inputs(*arrays)
    weighted = lambda *x: function(*x) * function(*x)  # noqa: E731
    total = sum_(weighted(*values))
    found = gradients([total], [total * 0.0 + 1.0], values)
    computed = interpret(Graph("gradient", values, tuple(found)), arrays)
    graph = Graph("total", values, (total,))
    for position, gradient in enumerate(computed):
        along = np.random.default_rng(1).normal(size=gradient.shape)
        ahead, behind = (
            interpret(graph, [a + s * along if n == position else a for n, a in enumerate(arrays)])
            for s in (1e-5, -1e-5)
        )
        assert (gradient * along).sum() == pytest.approx((ahead[0] - behind[0]) / 2e-5, rel=1e-6)


def test_the_gradient_of_a_shared_weight_is_one_product():
    found, (_, dw) = gradient_of_sum(matmul, *drawn((4, 5, 3), (3, 2)))
    products = [n for n in topological([found[1]]) if n.op is matmul and n.types[0].ndim > 2]
    # The only product with batch axes is the forward one.
    assert len(products) <= 1
    assert dw.shape == (3, 2)


def test_sum_to_shape():
    g = np.arange(24.0).reshape(2, 3, 4)
    for shape in [(2, 3, 4), (3, 4), (3, 1), (1, 3, 1), (), (1,), (4,)]:
        found = run(lambda v, s=shape: sum_to_shape(v, s), g)
        expected = np.add.reduce(g, tuple(range(3 - len(shape))))
        kept = tuple(a for a, n in enumerate(shape) if n == 1)
        np.testing.assert_array_equal(found, expected.sum(axis=kept, keepdims=True))


def test_the_gradient_of_a_product_has_the_operands_type():
    a, b = (placeholder(n, TensorType(float64, (symbol("N"), 3))) for n in "ab")
    y = matmul(a, b, transpose_a=True)
    found = gradients([y], [y], [a, b])
    assert [v.type for v in found] == [a.type, b.type]

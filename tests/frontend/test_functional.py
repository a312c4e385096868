"""graphc.grad and value_and_grad, composed with each other and with compile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nd
from graphc.errors import ArgumentError, ShapeError

X = nd.array([0.5, -1.0, 2.0])


def cube(x: Any) -> Any:
    return (x * x * x).sum()


def test_first_second_and_third_order() -> None:
    x = X.asnumpy()
    first = graphc.grad(cube)
    second = graphc.grad(lambda x: first(x).sum())
    third = graphc.grad(lambda x: second(x).sum())
    np.testing.assert_allclose(first(X).asnumpy(), 3 * x**2, rtol=1e-6)
    np.testing.assert_allclose(second(X).asnumpy(), 6 * x, rtol=1e-6)
    np.testing.assert_allclose(third(X).asnumpy(), np.full(3, 6.0), rtol=1e-6)


@pytest.mark.parametrize("order", ["grad of compile", "compile of grad", "both"])
def test_with_compile(order: str) -> None:
    function = cube if order == "compile of grad" else graphc.compile(cube)
    first = graphc.grad(function)
    slope = first if order == "grad of compile" else graphc.compile(first)
    np.testing.assert_allclose(slope(X).asnumpy(), 3 * X.asnumpy() ** 2, rtol=1e-6)
    second = graphc.grad(lambda x: (slope(x) * slope(x)).sum())
    # The derivative of 9 x**4 is 36 x**3.
    np.testing.assert_allclose(second(X).asnumpy(), 36 * X.asnumpy() ** 3, rtol=1e-5)


def test_structures() -> None:
    def loss(parameters: dict[str, Any], x: Any, scale: float) -> Any:
        w, (b,) = parameters["w"], parameters["rest"]
        return ((w * x + b) * scale).sum()

    parameters = {"w": nd.ones((3,)), "rest": (nd.zeros((1,)),)}
    value, found = graphc.value_and_grad(loss)(parameters, X, 2.0)
    assert float(value) == pytest.approx(2 * 1.5)
    np.testing.assert_allclose(found["w"].asnumpy(), 2 * X.asnumpy())
    np.testing.assert_allclose(found["rest"][0].asnumpy(), [6.0])


def test_several_arguments_and_aux() -> None:
    def f(a: Any, b: Any) -> Any:
        return (a * a * b).sum(), {"twice": a * 2}

    (value, aux), (da, db) = graphc.value_and_grad(f, argnums=(0, 1), has_aux=True)(X, X)
    x = X.asnumpy()
    assert float(value) == pytest.approx(float((x**3).sum()))
    np.testing.assert_allclose(da.asnumpy(), 2 * x * x, rtol=1e-6)
    np.testing.assert_allclose(db.asnumpy(), x * x, rtol=1e-6)
    np.testing.assert_allclose(aux["twice"].asnumpy(), 2 * x)


@pytest.mark.parametrize("compiled", [False, True])
def test_only_the_argument_counts_not_what_it_was_made_from(compiled: bool) -> None:
    def outer(x: Any) -> Any:
        return (x * graphc.grad(lambda y: (x * y * y).sum())(x)).sum()  # x * 2 x y at y = x

    slope = graphc.grad(outer)
    slope = graphc.compile(slope) if compiled else slope
    # outer(x) = 2 x**3.
    np.testing.assert_allclose(slope(X).asnumpy(), 6 * X.asnumpy() ** 2, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_what_does_not_matter_has_gradient_zero(compiled: bool) -> None:
    found = graphc.grad(lambda a, b: b.sum(), argnums=0)
    found = graphc.compile(found) if compiled else found
    np.testing.assert_array_equal(found(X, X).asnumpy(), np.zeros(3))


def test_leaves_attached_gradients_alone() -> None:
    x = nd.array([3.0])
    x.attach_grad()
    graphc.grad(cube)(x)
    assert x.grad.asnumpy()[0] == 0


def test_mistakes() -> None:
    with pytest.raises(ShapeError, match=r"one number.*\(3,\)"):
        graphc.grad(lambda x: x * x)(X)
    with pytest.raises(ArgumentError, match="argnums 1"):
        graphc.grad(cube, argnums=1)(X)
    with pytest.raises(ArgumentError, match="no arrays"):
        graphc.grad(lambda n, x: (x * n).sum())(3, X)

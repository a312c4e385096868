"""autograd.Function: gradients of your own, their gradients, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, nd, sym
from graphc.errors import ArgumentError, AutogradError, TraceError
from graphc.gluon import nn

POINT = np.array([0.5, -1.0, 2.0])


def leaf(value: object) -> nd.NDArray:
    x = nd.array(value, dtype="float64")
    x.attach_grad()
    return x


def second(function: autograd.Function) -> np.ndarray:
    """Return the gradient of the gradient of the function's sum at POINT."""
    x = leaf(POINT)
    with autograd.record():
        first = autograd.grad(function(x), x, create_graph=True)
    first.backward()
    return x.grad.asnumpy()


class Sigmoid(autograd.Function):
    def forward(self, x: nd.NDArray) -> nd.NDArray:
        y = 1 / (1 + nd.exp(-x))
        self.save_for_backward(y)
        assert not autograd.is_recording()
        return y

    def backward(self, dy: nd.NDArray) -> nd.NDArray:
        (y,) = self.saved_tensors
        return dy * y * (1 - y)


class SigmoidOfAttribute(autograd.Function):
    def forward(self, x: nd.NDArray) -> nd.NDArray:
        self.y = 1 / (1 + nd.exp(-x))
        return self.y

    def backward(self, dy: nd.NDArray) -> nd.NDArray:
        return dy * self.y * (1 - self.y)


class Cube(autograd.Function):
    """Its gradient is twice that of x ** 3, so that it is told apart from what nd would find."""

    def forward(self, x: nd.NDArray) -> nd.NDArray:
        self.save_for_backward(x)
        return x**3

    def backward(self, dy: nd.NDArray) -> nd.NDArray:
        (x,) = self.saved_tensors
        return dy * 6 * x * x


class Rectifier(autograd.Function):
    def forward(self, x: nd.NDArray) -> nd.NDArray:
        self.mask = x > 0
        return x * self.mask

    def backward(self, dy: nd.NDArray) -> nd.NDArray:
        return dy * self.mask


class Both(autograd.Function):
    def forward(self, a: nd.NDArray, b: nd.NDArray) -> tuple[nd.NDArray, nd.NDArray]:
        return a + b, a

    def backward(self, d_sum: nd.NDArray, d_a: nd.NDArray) -> tuple[nd.NDArray, nd.NDArray]:
        return 100 * d_sum + d_a, 7 * d_sum


class Backward(autograd.Function):
    """A function of two operands whose backward is given."""

    def __init__(self, backward: Any) -> None:
        self.backward = backward

    def forward(self, a: nd.NDArray, b: nd.NDArray) -> nd.NDArray:
        return a + b


# -- first order -------------------------------------------------------------------------------


def test_the_gradient_is_the_functions_own() -> None:
    x = leaf(POINT)
    with autograd.record():
        y = Sigmoid()(x) * 2
    y.backward()
    s = 1 / (1 + np.exp(-POINT))
    np.testing.assert_allclose(x.grad.asnumpy(), 2 * s * (1 - s))


def test_several_inputs_and_outputs() -> None:
    a, b = leaf([1.0]), leaf([2.0])
    with autograd.record():
        total, handed_on = Both()(a, b)
        y = total * 2 + handed_on * 3
    y.backward()
    assert (float(a.grad), float(b.grad)) == (203.0, 14.0)


def test_an_output_that_nothing_uses_has_a_gradient_of_zeros() -> None:
    a, b = leaf([1.0]), leaf([2.0])
    with autograd.record():
        y = Both()(a, b)[0] * 2
    y.backward()
    assert (float(a.grad), float(b.grad)) == (200.0, 14.0)


def test_one_function_called_twice_keeps_what_each_call_saved() -> None:
    x, y, cube = leaf([2.0]), leaf([5.0]), Cube()
    with autograd.record():
        total = cube(x) + cube(y)
    total.backward()
    assert (float(x.grad), float(y.grad)) == (24.0, 150.0)


def test_a_gradient_may_be_none() -> None:
    a, b = leaf([1.0]), leaf([2.0])
    with autograd.record():
        y = Backward(lambda g: (g * 3, None))(a, b)
    y.backward()
    assert (float(a.grad), float(b.grad)) == (3.0, 0.0)


# -- second order ------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [Sigmoid, SigmoidOfAttribute])
def test_second_gradient_through_an_output(function: type[autograd.Function]) -> None:
    s = 1 / (1 + np.exp(-POINT))
    np.testing.assert_allclose(second(function()), s * (1 - s) * (1 - 2 * s))


def test_second_gradient_through_an_input() -> None:
    np.testing.assert_allclose(second(Cube()), 12 * POINT)


def test_a_mask_is_a_constant_of_the_second_gradient() -> None:
    x = leaf(POINT)
    with autograd.record():
        first = autograd.grad(Rectifier()(x * x * x), x, create_graph=True)
    first.backward()
    np.testing.assert_allclose(x.grad.asnumpy(), 6 * POINT * (POINT > 0))


def test_a_kept_intermediate_has_no_second_gradient() -> None:
    class Square(autograd.Function):
        def forward(self, x: nd.NDArray) -> nd.NDArray:
            self.twice = 2 * x
            return x * x

        def backward(self, dy: nd.NDArray) -> nd.NDArray:
            return dy * self.twice

    x = leaf(POINT)
    with autograd.record():
        y = Square()(x)
    y.backward(retain_graph=True)
    np.testing.assert_allclose(x.grad.asnumpy(), 2 * POINT)
    message = r"Square.forward kept an array of shape \(3,\) that is neither an input nor an"
    with pytest.raises(AutogradError, match=message):
        autograd.grad(y, x, create_graph=True)


def test_a_gradient_computed_in_numpy_has_no_second_one() -> None:
    class Square(Cube):
        def backward(self, dy: nd.NDArray) -> nd.NDArray:
            (x,) = self.saved_tensors
            return nd.array(2 * x.asnumpy() * dy.asnumpy(), dtype="float64")

    with pytest.raises(AutogradError, match="Square.backward computed a gradient outside of nd"):
        second(Square())


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backward", "message"),
    [
        (lambda g: g, "returned 1 gradients for 2 inputs"),
        (lambda g: (g, g.asnumpy()), r"returned a ndarray for an input of shape \(3,\)"),
        (lambda g: (g, g.sum()), r"returned shape \(1,\) for an input of shape \(3,\)"),
    ],
)
def test_wrong_gradients(backward: Any, message: str) -> None:
    a = leaf(POINT)
    with autograd.record():
        y = Backward(backward)(a, a)
    with pytest.raises(AutogradError, match=f"Backward.backward {message}"):
        y.backward()


@pytest.mark.parametrize("wrong", [2.0, POINT, sym.var("x")])
def test_inputs_are_arrays(wrong: object) -> None:
    with pytest.raises(ArgumentError, match="Both takes NDArrays, got a "):
        Both()(leaf(POINT), wrong)


def test_outputs_are_arrays() -> None:
    class Plain(Sigmoid):
        def forward(self, x: nd.NDArray) -> Any:
            return x.asnumpy()

    with pytest.raises(ArgumentError, match="Plain.forward returns NDArrays, got a ndarray"):
        Plain()(leaf(POINT))


def test_a_function_cannot_be_compiled() -> None:
    net = nn.HybridLambda(lambda F, x: Sigmoid()(x))
    net.hybridize()
    captured = leaf(POINT)
    message = r"Sigmoid is an autograd.Function, .*cannot be compiled  \[test_autograd_function"
    with pytest.raises(TraceError, match=message):
        net(leaf(POINT))
    with pytest.raises(TraceError, match=message):
        graphc.compile(lambda x: x + Sigmoid()(captured))(leaf(POINT))

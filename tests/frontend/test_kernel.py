"""``graphc.kernel``: whole kernels in Python, in every mode, with gradients, and their errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, gluon, nd, sym
from graphc.codegen.cpu import host_target
from graphc.errors import (
    ArgumentError,
    AutogradError,
    CompileError,
    DTypeError,
    GraphcError,
    ShapeError,
)
from graphc.ir.kernel_printer import print_kernel
from graphc.passes.manager import compile_graph

SCALE = 0.5


def damped(value, step):
    return math.exp(-step * SCALE) * value


@graphc.kernel("x: f32[n, k] -> y: f32[n, k], last: f32[n]")
def damped_sum(x, y, last):
    for row in range(x.shape[0]):
        total = np.float32(0.0)
        for column in range(x.shape[1]):
            total = np.float32(damped(total, 1.0)) + x[row, column]
            y[row, column] = total
        last[row] = total


@graphc.kernel("x: f32[n, k] -> y: f32[n, k]", vjp=lambda g, x: back_sum(g))
def running_sum(x, y):
    for row in range(x.shape[0]):
        total = np.float32(0.0)
        for column in range(x.shape[1]):
            total += x[row, column]
            y[row, column] = total


@graphc.kernel("g: f32[n, k] -> d: f32[n, k]")
def back_sum(g, d):
    for row in range(g.shape[0]):
        total = np.float32(0.0)
        for column in range(g.shape[1] - 1, -1, -1):
            total += g[row, column]
            d[row, column] = total


def expected_damped(x: np.ndarray) -> np.ndarray:
    y = np.zeros_like(x)
    total = np.zeros(len(x), np.float32)
    for column in range(x.shape[1]):
        total = (math.exp(-0.5) * total).astype(np.float32) + x[:, column]
        y[:, column] = total
    return y


def matrix(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, columns), np.float32)


def test_every_mode_computes_what_the_function_does() -> None:
    x = matrix(5, 7)
    y, last = damped_sum(nd.array(x))
    traced_y, traced_last = graphc.compile(lambda a: damped_sum(a))(nd.array(x))
    plain_y, plain_last = np.empty_like(x), np.empty(5, np.float32)
    damped_sum.python(x, plain_y, plain_last)
    for found in (y, traced_y):
        np.testing.assert_allclose(found.asnumpy(), expected_damped(x), rtol=1e-6)
        np.testing.assert_allclose(found.asnumpy(), plain_y, rtol=1e-6)
    for found in (last, traced_last):
        np.testing.assert_allclose(found.asnumpy(), plain_last, rtol=1e-6)
    bound = running_sum(sym.Variable("x")).bind(graphc.cpu(), {"x": nd.array(x)})
    np.testing.assert_allclose(
        bound.forward()[0].asnumpy(), np.cumsum(x, axis=1), rtol=1e-5, atol=1e-6
    )


def test_one_program_serves_every_size() -> None:
    jit = graphc.compile(lambda a: running_sum(a * 2.0) + 1.0)
    for rows, columns in ((3, 4), (6, 1), (0, 5), (100, 70)):
        x = matrix(rows, columns)
        np.testing.assert_allclose(
            jit(nd.array(x)).asnumpy(), np.cumsum(x * 2.0, axis=1) + 1.0, rtol=1e-4, atol=1e-5
        )
    assert len(jit.traces) <= 2


def test_gradients_come_from_the_given_vjp() -> None:
    x = nd.array(matrix(4, 6))
    weight = nd.array(matrix(4, 6))
    expected = np.cumsum(weight.asnumpy()[:, ::-1], axis=1)[:, ::-1]
    x.attach_grad()
    with autograd.record():
        total = (running_sum(x) * weight).sum()
    total.backward()
    compiled = graphc.compile(graphc.grad(lambda a: (running_sum(a) * weight).sum()))
    for found in (x.grad, compiled(x)):
        np.testing.assert_allclose(found.asnumpy(), expected, rtol=1e-5, atol=1e-6)


def losses_of(last: Any) -> list[float]:
    class Net(gluon.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.dense = gluon.nn.Dense(6)

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return last(self.dense(x))

    graphc.random.seed(0)
    net = Net()
    net.initialize()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.05})
    step = gluon.TrainStep(net, gluon.loss.L2Loss(), trainer)
    x, y = nd.array(matrix(8, 3)), nd.array(matrix(8, 6))
    return [float(step(x, y).asnumpy().mean()) for _ in range(10)]


def test_a_layer_trains_with_it() -> None:
    upper = nd.array(np.triu(np.ones((6, 6))))
    found, expected = losses_of(running_sum), losses_of(lambda x: nd.dot(x, upper))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[-1] < found[0]


def test_the_dump_shows_its_text() -> None:
    jit = graphc.compile(lambda a: running_sum(a))
    jit(nd.ones((2, 3)))
    plan = compile_graph(jit.traces[0].compiled.graph, host_target())
    text = print_kernel(plan.launches[0].kernel)
    assert plan.launches[0].label == "running_sum"
    assert "python running_sum(p0, o0)" in text
    assert "| def running_sum(x, y):" in text


def test_types_that_do_not_fit_are_refused() -> None:
    @graphc.kernel("a: f32[n, k], b: f32[k, 2 * n] -> c: f32[n]")
    def fill(a, b, c):
        for i in range(c.shape[0]):
            c[i] = a[i, 0] + b[0, i]

    a, b = nd.ones((2, 3)), nd.ones((3, 4))
    np.testing.assert_array_equal(fill(a, b).asnumpy(), [2, 2])
    with pytest.raises(ShapeError, match=r"b of fill is declared f32\[k, n\*2\]"):
        fill(a, nd.ones((3, 5)))
    with pytest.raises(ShapeError, match="a of fill is declared"):
        fill(nd.ones((2,)), b)
    with pytest.raises(DTypeError, match=r"a of fill is declared f32.*(\n.*)*astype"):
        fill(nd.ones((2, 3), dtype="float64"), b)
    with pytest.raises(ArgumentError, match="fill takes a, b; got 1 arrays"):
        fill(a)


def test_signatures_that_do_not_fit_are_refused() -> None:
    def fill(x, y):
        y[0] = x[0]

    with pytest.raises(ArgumentError, match="types of kernel fill cannot be read"):
        graphc.kernel("x: f32[n] y: f32[n]")(fill)
    with pytest.raises(ArgumentError, match="declared over x, z, and takes x, y"):
        graphc.kernel("x: f32[n] -> z: f32[n]")(fill)
    with pytest.raises(ArgumentError, match="declared twice"):
        graphc.kernel("x: f32[n] -> x: f32[n]")(fill)
    with pytest.raises(ArgumentError, match="no dtype 'f16'"):
        graphc.kernel("x: f16[n] -> y: f32[n]")(fill)


TABLE = {"a": 1}


def test_what_it_may_not_use_is_refused_with_the_line() -> None:
    def fill(x, y):
        y[0] = x[0]
        y[0] += TABLE["a"]

    with pytest.raises(ArgumentError, match=r"kernel fill uses TABLE, which is a dict") as caught:
        graphc.kernel("x: f32[n] -> y: f32[n]")(fill)
    assert f"test_kernel.py:{fill.__code__.co_firstlineno + 2}" in str(caught.value)


def test_what_numba_cannot_compile_is_a_compile_error() -> None:
    @graphc.kernel("x: f32[n] -> y: f32[n]")
    def wrong(x, y):
        y[0] = x[0].upper()

    with pytest.raises(CompileError, match="Numba cannot compile"):
        graphc.compile(lambda a: wrong(a))(nd.ones((2,)))


def test_allocations_are_refused() -> None:
    @graphc.kernel("x: f32[n] -> y: f32[n]")
    def allocates(x, y):
        scratch = np.zeros(x.shape[0])
        for i in range(x.shape[0]):
            scratch[i] = x[i]
        y[0] = scratch.sum()

    with pytest.raises(CompileError, match="which only Python has"):
        graphc.compile(lambda a: allocates(a))(nd.ones((5,)))


def test_an_exception_is_an_error_that_names_the_kernel() -> None:
    @graphc.kernel("x: f32[n] -> y: f32[n]")
    def positive(x, y):
        for i in range(x.shape[0]):
            if x[i] < 0:
                raise ValueError("negative")
            y[i] = x[i]

    jit = graphc.compile(lambda a: positive(a))
    np.testing.assert_array_equal(jit(nd.ones((3,))).asnumpy(), np.ones(3))
    with pytest.raises(GraphcError, match="kernel positive raised an exception"):
        jit(nd.array([1.0, -1.0, 2.0]))


def test_a_vjp_with_the_wrong_number_of_gradients_is_refused() -> None:
    @graphc.kernel("a: f32[n], b: f32[n] -> c: f32[n]", vjp=lambda g, a, b: (g,))
    def add(a, b, c):
        for i in range(c.shape[0]):
            c[i] = a[i] + b[i]

    with pytest.raises(ArgumentError, match="returned 1 gradients for 2 inputs"):
        graphc.grad(lambda a: add(a, a).sum())(nd.ones((2,)))


def test_a_gradient_that_nobody_gave_is_an_error() -> None:
    with pytest.raises(AutogradError, match="kernel back_sum has no gradient"):
        graphc.grad(lambda a: back_sum(a).sum())(nd.ones((2, 2)))

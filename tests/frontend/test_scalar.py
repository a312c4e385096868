"""``graphc.scalar``: what Python it reads, what it computes everywhere, and its derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, nd, sym
from graphc.codegen.cpu import host_target
from graphc.errors import ArgumentError
from graphc.frontend import scalar_source
from graphc.ir.operand import REGISTRY
from graphc.ir.scalar_text import elementwise
from graphc.passes.manager import compile_graph

FACTOR, COUNT = 2.5, 3
POINTS = np.array([-3.0, -1.0, -0.5, 0.25, 0.5, 1.0, 4.0])


@graphc.scalar
def soft_clip(x, a):
    return x / (1 + abs(x) ** a) ** (1 / a)


@graphc.scalar
def statements(x, low=0.5):
    """Everything a function may be made of."""
    y: float = math.sqrt(2.0) * x
    total = 0
    for i in range(1, COUNT):
        total += x**i / (i + 1)
    y += total
    if x > low and not x > 3:
        y = y * FACTOR
        extra = y - 1
    else:
        extra = -y
        pass
    if -2 < x < -0.75:
        return extra
    elif x == 4.0:
        return min(extra, y, x) if y != 0 else +x
    return max(y, extra) + soft_clip(x, 2.0) + math.pi


def plain_statements(x: float, low: float = 0.5) -> float:
    y = math.sqrt(2.0) * x + x / 2 + x * x / 3
    if x > low and not x > 3:
        y = y * FACTOR
        extra = y - 1
    else:
        extra = -y
    if -2 < x < -0.75:
        return extra
    if x == 4.0:
        return min(extra, y, x) if y != 0 else +x
    return max(y, extra) + x / (1 + abs(x) ** 2.0) ** 0.5 + math.pi


def everywhere(function: Any, *arrays: np.ndarray) -> list[np.ndarray]:
    """Return what a function gives in every mode."""
    operands = [nd.array(a, dtype=a.dtype) for a in arrays]
    eager = function(*operands)
    compiled = graphc.compile(lambda *xs: function(*xs))(*operands)
    names = [f"x{n}" for n in range(len(arrays))]
    symbol = function(*map(sym.Variable, names))
    bound = symbol.bind(graphc.cpu(), dict(zip(names, operands, strict=True)))
    return [eager.asnumpy(), compiled.asnumpy(), bound.forward()[0].asnumpy()]


def test_statements_compute_what_python_does_in_every_mode() -> None:
    expected = [plain_statements(x) for x in POINTS]
    for found in everywhere(statements, POINTS.astype(np.float32)):
        np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_operands_broadcast_and_numbers_take_part() -> None:
    x, a = nd.array(POINTS), nd.array([[2.0], [4.0]])
    expected = POINTS / (1 + np.abs(POINTS) ** [[2.0], [4.0]]) ** (1 / np.array([[2.0], [4.0]]))
    np.testing.assert_allclose(soft_clip(x, a).asnumpy(), expected, rtol=2e-6)
    np.testing.assert_array_equal(soft_clip(a=2.0, x=x).asnumpy(), soft_clip(x, a).asnumpy()[0])
    np.testing.assert_allclose(soft_clip(POINTS, 4).asnumpy(), expected[1], rtol=1e-12)
    assert soft_clip(3.0, 2) == 3.0 / math.sqrt(10.0)


def test_it_is_one_node_and_fuses_with_its_neighbours() -> None:
    jit = graphc.compile(lambda x: (soft_clip(x * 2.0, 2.0) + 1.0).sum())
    jit(nd.ones((5, 7)))
    graph = jit.traces[0].compiled.graph
    (node,) = (node for node in graph.nodes if node.op.name == "scalar")
    assert node.attrs["body"] == soft_clip.text
    assert len(compile_graph(graph, host_target()).launches) == 1


@graphc.scalar
def ramp(x):
    return math.sqrt(x) if x > 0 else 0.0


@graphc.scalar
def root(x):
    if x <= 0:
        return 0.0 * x
    return x**1.5


@pytest.mark.parametrize("function", [ramp, root])
def test_derivatives_of_what_is_not_chosen_play_no_part(function: Any) -> None:
    x = nd.array([-1.0, 0.0, 4.0])
    x.attach_grad()
    with autograd.record():
        y = function(x)
    y.backward()
    slope = graphc.grad(lambda t: function(t).sum())
    second = graphc.grad(lambda t: slope(t).sum())(x).asnumpy()
    first = {ramp: 0.25, root: 3.0}[function]
    np.testing.assert_allclose(x.grad.asnumpy(), [0, 0, first])
    np.testing.assert_allclose(slope(x).asnumpy(), [0, 0, first])
    np.testing.assert_allclose(second, [0, 0, {ramp: -1 / 32, root: 0.375}[function]])


def backward_of_step(g, x):
    return g * 0.5 / (1 + abs(x)) if abs(x) < 2 else 0.0


@graphc.scalar(vjp=backward_of_step)
def step(x):
    return 1.0 if x > 0 else 0.0


def test_a_given_vjp_is_used() -> None:
    x = nd.array(POINTS.astype(np.float32))
    expected = np.where(abs(POINTS) < 2, 0.5 / (1 + abs(POINTS)), 0.0)
    x.attach_grad()
    with autograd.record():
        y = step(x)
    y.backward()
    np.testing.assert_allclose(x.grad.asnumpy(), expected, rtol=1e-6)
    assert y.dtype == np.float32
    compiled = graphc.compile(graphc.grad(lambda t: step(t).sum()))
    np.testing.assert_allclose(compiled(x).asnumpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(set(scalar_source.FUNCTIONS.values())))
def test_every_function_has_a_derivative_of_second_order(name: str) -> None:
    """Or none at all, as rounding has; none of them needs more than the ops that can be read."""
    assert elementwise(name)
    count = scalar_source.operands(name)
    operands = ["x > 0.3", "x", "x * x"] if name == "where" else ["x", "x * x"][:count]
    text = f"def f(x): return {name}({', '.join(operands)})"
    x = nd.array([0.25, 0.5], dtype="float64")
    record = REGISTRY["scalar"]

    def apply(t: Any) -> Any:
        y = record(t, body=text, pullback="")
        return (y * 1.0).sum()

    second = graphc.grad(lambda t: (graphc.grad(apply)(t) * 1.0).sum())(x)
    assert second.shape == (2,)


def test_integers_and_bools() -> None:
    @graphc.scalar
    def half(n):
        return n // 2 if n % 2 == 0 else 3 * n + 1

    n = nd.array([1, 2, 3, 10], dtype="int32")
    for found in everywhere(half, np.array([1, 2, 3, 10], np.int32)):
        np.testing.assert_array_equal(found, [4, 1, 10, 5])
        assert found.dtype == np.int32
    assert half(n).dtype == np.int32


# -- what cannot be read --------------------------------------------------------------------------

ARRAY = nd.ones((2,))


def with_while(x):
    while x > 1:
        x = x / 2
    return x


def with_index(x):
    return x[0]


def with_array(x):
    return x + ARRAY


def with_print(x):
    print(x)
    return x


def with_call(x):
    return math.gcd(x, 2)


def without_return(x):
    if x > 0:
        return x


def with_one_side(x):
    if x > 0:
        y = x
    return y


def with_long_loop(x):
    for i in range(x):
        x = x + i
    return x


def with_keyword(x):
    return max(x, 0, key=abs)


def with_undefined(x):
    return x + nowhere  # noqa: F821


def with_string(x, unit="m"):
    return x


def with_stars(*x):
    return x[0]


def with_pair(x):
    return x, x


def with_division_by_nothing(x):
    return x + 1 / 0


def returning_early(x):
    for i in range(3):
        if x > i:
            return x
    return x


def with_attribute(x):
    x.y = 3
    return x


def with_steps(x):
    for _ in range(2000):
        x = x * 1.5
    return x


def with_bits(x):
    return ~x


def with_count(x):
    return math.exp(x, x)


def with_nothing(x):
    return


def with_inner_vjp(x):
    return step(x)


def with_inner_count(x):
    return ramp(x, x)


@pytest.mark.parametrize(
    ("function", "message", "line"),
    [
        (with_while, "while", 1),
        (with_index, "x[0]", 1),
        (with_array, "ARRAY, which is no number but NDArray", 1),
        (with_print, "expr", 1),
        (with_call, "math.gcd, no function of numbers", 1),
        (without_return, "does not return a number on every path", 0),
        (with_one_side, "y, which only one side of an if has set", 3),
        (with_long_loop, "a range of constants", 1),
        (with_keyword, "by keyword", 1),
        (with_undefined, "nowhere, which is not defined", 1),
        (with_string, "unit='m', which is no number", 0),
        (with_stars, "by position", 0),
        (with_pair, "returns 2 numbers, 1 are expected", 0),
        (with_division_by_nothing, "division by zero", 1),
        (returning_early, "returns from inside a loop", 1),
        (with_attribute, "x.y", 1),
        (with_steps, "1024 steps", 2),
        (with_bits, "an operator that numbers have not", 1),
        (with_count, "with 2 arguments", 1),
        (with_nothing, "returns nothing", 1),
        (with_inner_vjp, "whose own vjp would be lost", 1),
        (with_inner_count, "ramp with 2 arguments, it takes 1", 1),
    ],
)
def test_what_cannot_be_read_names_the_line(
    function: Callable[..., Any], message: str, line: int
) -> None:
    with pytest.raises(ArgumentError) as caught:
        graphc.scalar(function)
    assert message in str(caught.value)
    assert f"test_scalar.py:{function.__code__.co_firstlineno + line}" in str(caught.value)


def test_functions_without_source_and_wrong_vjps_are_refused() -> None:
    with pytest.raises(ArgumentError, match="source of sin cannot be read"):
        graphc.scalar(math.sin)
    with pytest.raises(ArgumentError, match="not a function defined with def"):
        graphc.scalar(lambda x: x)
    with pytest.raises(ArgumentError, match=r"Write it|def backward_of_step\(g, x, a\)|returns"):
        graphc.scalar(vjp=backward_of_step)(soft_clip.__wrapped__)


def test_wrong_calls_name_the_parameters() -> None:
    with pytest.raises(ArgumentError, match=r"soft_clip takes x, a"):
        soft_clip(nd.ones(2))
    with pytest.raises(ArgumentError, match=r"soft_clip takes x, a"):
        soft_clip(nd.ones(2), 1.0, 2.0)
    with pytest.raises(ArgumentError, match=r"soft_clip takes x, a"):
        soft_clip(nd.ones(2), 1.0, b=2.0)

"""NumPy's functions on NDArrays, traced values and Symbols; NumPy operands on the left."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, nd, sym
from graphc.errors import ArgumentError

LEFT = np.array([1.0, -2.0, 3.0], np.float32)
RIGHT = np.array([3.0, 2.0, 5.0], np.float32)
OPERATORS = (
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
    operator.pow, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
)  # fmt: skip


@pytest.mark.parametrize("left", [LEFT, np.float32(2), np.float64(2), np.int64(2)])
@pytest.mark.parametrize("combine", OPERATORS)
def test_numpy_on_the_left_of_an_operator(combine: Callable[..., Any], left: Any) -> None:
    found = combine(left, nd.array(RIGHT))
    assert isinstance(found, nd.NDArray)
    assert found.dtype is np.float32
    np.testing.assert_allclose(found.asnumpy(), combine(left, RIGHT), rtol=1e-6)


def test_matmul_with_numpy_on_the_left_is_not_0d() -> None:
    found = LEFT @ nd.array(RIGHT)
    assert isinstance(found, nd.NDArray)
    assert (found.shape, found.asscalar()) == ((1,), LEFT @ RIGHT)


def test_an_operator_with_numpy_on_the_left_is_recorded() -> None:
    x = nd.array(RIGHT)
    x.attach_grad()
    with autograd.record():
        y = LEFT * x
    y.backward()
    np.testing.assert_array_equal(x.grad.asnumpy(), LEFT)


@pytest.mark.parametrize(
    "function",
    [
        np.sum, np.mean, np.max, np.argmax, np.std, np.transpose, np.round, np.unique, np.shape,
        np.linalg.norm, lambda x: np.sum(x, dtype="float64"), lambda x: np.concatenate([x, x]),
        lambda x: np.stack((x, x), axis=1), lambda x: np.clip(x, 0, a_max=x),
        lambda x: np.where(np.asarray(x) > 0, x, -1), lambda x: np.allclose(x, x),
    ],
)  # fmt: skip
def test_functions_of_whole_arrays_return_numpy(function: Callable[..., Any]) -> None:
    found, expected = function(nd.array(LEFT)), function(LEFT)
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found, expected)


def test_a_numpy_array_takes_what_is_added_to_it() -> None:
    total = np.ones(3, np.float64)
    same = total
    total += nd.array(LEFT)
    assert total is same
    np.testing.assert_array_equal(total, 1 + LEFT)
    np.exp(nd.zeros((3,)), out=total)
    np.testing.assert_array_equal(total, 1)


@pytest.mark.parametrize(
    ("function", "called", "remedy"),
    [
        (np.exp, "np.exp", "Use nd.exp, or np.exp on x.asnumpy()"),
        (np.abs, "np.absolute", "Use nd.abs, "),
        (lambda x: np.maximum(0, x), "np.maximum", "Use nd.maximum, "),
        (np.logaddexp.reduce, "np.logaddexp.reduce", "Use the functions of graphc.nd, "),
        (lambda x: np.add(x, x, where=[True]), "np.add", "Use nd.add, "),
        (lambda x: np.exp(1.0, out=x), "np.exp", "Use nd.exp, "),
    ],
)
def test_element_wise_functions_name_the_one_of_graphc(
    function: Callable[..., Any], called: str, remedy: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        function(nd.array(LEFT))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{called}() does not take an NDArray  [test_numpy_calls.py:")
    assert second.strip().startswith(remedy)


@pytest.mark.parametrize(
    ("function", "name"), [(np.exp, "exp"), (np.sum, "sum"), (lambda x: np.stack([x, x]), "stack")]
)
def test_traced_values_and_symbols_name_it_too(function: Callable[..., Any], name: str) -> None:
    with pytest.raises(ArgumentError, match=rf"does not take a traced value(.|\n)*nd\.{name}\."):
        graphc.compile(lambda x: function(x))(nd.array(LEFT))
    with pytest.raises(ArgumentError, match=rf"does not take a Symbol(.|\n)*sym\.{name}\."):
        function(sym.var("x"))

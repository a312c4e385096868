"""Outputs written to arrays that are there, and only where that changes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.ir.ops  # noqa: F401
from graphc import autograd, nd
from graphc.codegen.cpu import host_target
from graphc.errors import GraphcError
from graphc.frontend.trace import trace
from graphc.ir.operand import REGISTRY
from graphc.ir.types import TensorType, as_dtype
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def compiled(function: Callable[..., Any], *kinds: tuple[str, tuple[int, ...]]) -> Program:
    types = [TensorType(as_dtype(dtype), shape) for dtype, shape in kinds]
    return Program(compile_graph(trace(function, types, "model"), host_target()))


@pytest.fixture(scope="module")
def two() -> Program:
    return compiled(lambda x: (x * 2.0, x + 1.0), ("float32", (3, 4)))


def test_results_lie_in_the_arrays_given(two):
    place = np.zeros((3, 4), np.float32)
    doubled, more = two([X], [place, None])
    assert doubled is place
    np.testing.assert_array_equal(place, X * 2)
    np.testing.assert_array_equal(more, X + 1)


@pytest.mark.parametrize("place", [
    np.zeros((4, 3), np.float32), np.zeros((3, 4)), np.zeros((3, 8), np.float32)[:, ::2],
    np.ma.zeros((3, 4), np.float32),
])  # fmt: skip
def test_what_does_not_fit_is_left_alone(two, place):
    before = np.array(place)
    doubled, _ = two([X], [place, None])
    np.testing.assert_array_equal(doubled, X * 2)
    np.testing.assert_array_equal(place, before)


def test_read_only_array_is_left_alone(two):
    place = np.zeros((3, 4), np.float32)
    place.flags.writeable = False
    assert two([X], [place, None])[0] is not place


def test_nothing_is_written_over_an_argument_or_another_result(two):
    x = X.copy()
    doubled, _ = two([x], [x, None])
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(doubled, X * 2)
    place = np.zeros((3, 4), np.float32)
    doubled, more = two([X], [place, place])
    np.testing.assert_array_equal(doubled, X * 2)
    np.testing.assert_array_equal(more, X + 1)


def test_program_that_may_fail_writes_to_new_arrays_only():
    def rows(table, i):
        i = REGISTRY["check_index"](i, table.shape[0], "row")
        return REGISTRY["take"](table, i, axis=0, mode="clip")

    program = compiled(rows, ("float32", (3, 4)), ("int64", (2,)))
    place = np.full((2, 4), 7, np.float32)
    assert program([X, np.array([0, 2])], [place])[0] is not place
    with pytest.raises(GraphcError):
        program([X, np.array([0, 9])], [place])
    assert (place == 7).all()


def recorded(function: Callable[..., Any], *arrays: nd.NDArray) -> nd.NDArray:
    for array in arrays:
        array.attach_grad()
    with autograd.record():
        return function(*arrays)


def test_backward_of_a_compiled_function_writes_to_the_grad_arrays():
    x, w = nd.array(X), nd.array(X + 1)
    y = recorded(graphc.compile(lambda x, w: x * w), x, w)
    x.grad[:] = 5  # what was there is not added to
    places = [a.grad._array.ctypes.data for a in (x, w)]
    y.backward()
    assert [a.grad._array.ctypes.data for a in (x, w)] == places
    np.testing.assert_array_equal(x.grad.asnumpy(), X + 1)
    np.testing.assert_array_equal(w.grad.asnumpy(), X)


def test_backward_given_a_grad_array_reads_it_before_it_is_written():
    x = nd.array(X)
    y = recorded(graphc.compile(lambda x: x * x), x)
    x.grad[:] = 3
    y.backward(x.grad)
    np.testing.assert_array_equal(x.grad.asnumpy(), 6 * X)


def test_gradients_of_several_uses_are_added():
    x = nd.array(X)
    square = graphc.compile(lambda x, y: x * y)
    recorded(lambda x: square(x, x), x).backward()
    np.testing.assert_array_equal(x.grad.asnumpy(), 2 * X)
    recorded(lambda x: square(x, x * 2) + x, x).backward()
    np.testing.assert_array_equal(x.grad.asnumpy(), 4 * X + 1)


def test_grad_req_add_adds():
    x = nd.array(X)
    x.attach_grad("add")
    for _ in range(2):
        with autograd.record():
            y = graphc.compile(lambda x: x * 3.0)(x)
        y.backward()
    np.testing.assert_array_equal(x.grad.asnumpy(), np.full_like(X, 6))

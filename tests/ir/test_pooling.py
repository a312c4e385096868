"""Pooling beyond what every record is tested for: loops, ties, NaN, errors, symbolic sizes."""

from __future__ import annotations

import numpy as np
import pytest

import graphc.ir.ops.arithmetic  # noqa: F401 - what the operators of values mean
from graphc.errors import ArgumentError, ShapeError
from graphc.ir.dim import symbol
from graphc.ir.evaluate import lower_and_evaluate
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.average_pooling import avg_pool, avg_pool_grad, global_avg_pool, global_max_pool
from graphc.ir.ops.pooling import max_pool, max_pool_grad, max_pool_index
from graphc.ir.sizes import SizeSolver, solving
from graphc.ir.types import TensorType, as_dtype, float32, float64, int32
from graphc.passes.differentiate import gradients

PLAIN = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0), "ceil_mode": False}
SETTINGS = [
    PLAIN,
    {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 0), "ceil_mode": False},
    {"kernel": (3, 2), "stride": (2, 3), "pad": (1, 1), "ceil_mode": True},
    {"kernel": (2, 3), "stride": (3, 4), "pad": (1, 0), "ceil_mode": True},
]


def value(*shape, dtype=np.float32):
    return placeholder("x", TensorType(as_dtype(dtype), shape))


def windows_by_loops(shape, kernel, stride, pad, ceil_mode):
    """Yield each window's number and the positions of it that lie on the data."""
    counts = []
    for n, k, s, p in zip(shape, kernel, stride, pad):
        starts = [a for a in range(-p, n + p, s) if a < n and (ceil_mode or a + k <= n + p)]
        # A window that would be complete is one, one that is not must reach past the padding once.
        whole = [a for a in starts if a + k <= n + p]
        rest = [a for a in starts if a + k > n + p]
        counts.append(whole + rest[:1])
    for index in np.ndindex(*map(len, counts)):
        begin = [starts[i] for starts, i in zip(counts, index)]
        cells = [tuple(b + o for b, o in zip(begin, offset)) for offset in np.ndindex(*kernel)]
        yield index, [c for c in cells if all(0 <= i < n for i, n in zip(c, shape))], begin


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("size", [(5, 6), (7, 7), (4, 9)])
def test_pools_by_loops(settings, size):
    x = np.random.default_rng(0).normal(size=(1, 1, *size))
    found = list(windows_by_loops(size, **settings))
    counts = tuple(max(index[axis] for index, _, _ in found) + 1 for axis in range(2))
    largest, average, padded = (np.zeros(counts) for _ in range(3))
    for index, cells, begin in found:
        elements = [x[(0, 0, *c)] for c in cells]
        largest[index], average[index] = max(elements), sum(elements) / len(elements)
        ends = zip(begin, settings["kernel"], size, settings["pad"])
        clipped = [min(b + k, n + p) - b for b, k, n, p in ends]
        padded[index] = sum(elements) / np.prod(clipped)
    np.testing.assert_array_equal(max_pool.reference(x, **settings)[0, 0], largest)
    without = avg_pool.reference(x, count_include_pad=False, **settings)
    np.testing.assert_allclose(without[0, 0], average)
    within = avg_pool.reference(x, count_include_pad=True, **settings)
    np.testing.assert_allclose(within[0, 0], padded)


def pool_gradient(x, **settings):
    v = placeholder("x", TensorType(as_dtype(x.dtype), x.shape))
    y = max_pool(v, **settings)
    ones = placeholder("g", y.type)
    gradient = gradients([y], [ones], [v])[0]
    return interpret(Graph("g", (v, ones), (gradient,)), [x, np.ones(y.shape)])[0]


def test_the_first_of_equal_elements_gets_the_gradient():
    x = np.zeros((1, 1, 4, 4))
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(pool_gradient(x, kernel=2)[0, 0], expected)
    x[0, 0, 0, 1] = x[0, 0, 1, 0] = 5
    expected[0, 0], expected[0, 1] = 0, 1
    np.testing.assert_array_equal(pool_gradient(x, kernel=2)[0, 0], expected)


def test_the_gradient_at_minus_infinity_stays_on_the_data():
    x = np.full((1, 1, 2, 2), -np.inf)
    gradient = pool_gradient(x + 0.0, kernel=3, stride=1, pad=1)
    assert gradient.sum() == 4
    index = max_pool_index.reference(x, kernel=(3, 3), stride=(1, 1), pad=(1, 1), ceil_mode=False)
    assert index[0, 0].tolist() == [[4, 3], [1, 0]]


@pytest.mark.parametrize("op", [max_pool, max_pool_index])
def test_nan_is_the_largest(op):
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    x[0, 0, 0, 1] = x[0, 0, 1, 0] = np.nan
    expected = op.reference(x, **PLAIN)
    if op is max_pool:
        assert np.isnan(expected[0, 0, 0, 0])
        assert expected[0, 0].ravel()[1:].tolist() == [7, 13, 15]
    else:
        assert expected[0, 0].tolist() == [[1, 3], [3, 3]]
    np.testing.assert_array_equal(lower_and_evaluate(op, [x], PLAIN)[0], expected)


def test_windows_side_by_side_need_no_reduction_in_the_gradient():
    reduced = []

    class Counting:
        index = ()

        def reduce(self, combine, extents, body):
            reduced.append(list(extents))
            raise StopIteration

    k = Counting()
    k.index = (0, 0, 0, 0)
    operand = type("Operand", (), {"shape": (1, 1, 2, 2), "dtype": float32})()
    for stride, expected in (((2, 2), []), ((1, 2), [2]), ((1, 1), [2, 2])):
        with pytest.raises(StopIteration):
            max_pool_grad.lower(
                k, operand, operand, spatial=(4, 4), kernel=(2, 2), stride=stride, pad=(0, 0)
            )
        assert reduced.pop() == expected


def test_bytes_are_pooled_as_bytes():
    x = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    v = value(1, 1, 4, 4, dtype=np.uint8)
    pooled, averaged = max_pool(v, 2), avg_pool(v, 2)
    found = interpret(Graph("g", (v,), (pooled, averaged)), [x])
    assert found[0].dtype == np.uint8
    assert found[0].ravel().tolist() == [5, 7, 13, 15]
    assert averaged.dtype is float32
    assert found[1].ravel().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_gradients_of_any_order_stay_in_the_family():
    x = value(1, 2, 6, 6, dtype=np.float64)
    for pool in (max_pool, avg_pool):
        found = [pool(x, 3, 2, 1)]
        for _ in range(3):
            found = gradients(found, [v * v for v in found], [x])
            assert found[0].type == x.type


def test_global_pools():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    v = value(*x.shape, dtype=np.float64)
    largest, average = interpret(Graph("g", (v,), (global_max_pool(v), global_avg_pool(v))), [x])
    np.testing.assert_array_equal(largest, x.max((2, 3), keepdims=True))
    np.testing.assert_allclose(average, x.mean((2, 3), keepdims=True))


# -- types and errors ------------------------------------------------------------------------------


def test_sizes_stay_symbolic():
    solver = SizeSolver()
    n, h = solver.fresh("N", 100), solver.fresh("H", 28)
    x = placeholder("x", TensorType(float64, (n, 3, h)))
    with solving(solver):
        y = max_pool(x, 2)
        assert y.shape == (n, 3, (h - 2) // 2 + 1)
        assert max_pool_index(x, 2).type == TensorType(int32, y.shape)
        gradient = gradients([y], [y], [x])[0]
    assert gradient.type == x.type
    assert not solver.constraints
    for size in (7, 8):
        for ceil_mode in (False, True):
            graph = Graph("g", (x,), (avg_pool(x, 2, ceil_mode=ceil_mode),))
            found = interpret(graph, [np.ones((2, 3, size))])[0]
            assert found.shape == (2, 3, -(-size // 2) if ceil_mode else size // 2)


def test_errors():
    with pytest.raises(ShapeError, match="2, is larger than spatial axis 1 of the input: 1"):
        max_pool(value(100, 20, 28, 1), 2)
    with pytest.raises(ShapeError, match=r"max_pool expects \(N, C, H, W\), got \(28, 28\)"):
        max_pool(value(28, 28), (2, 2))
    with pytest.raises(ShapeError, match="has no elements"):
        max_pool(value(1, 1, 0, 4), 2, pad=1)
    with pytest.raises(ArgumentError, match="pad 2 must be smaller than the window 2"):
        avg_pool(value(1, 1, 4, 4), 2, pad=2)
    with pytest.raises(ArgumentError, match="kernel must be at least 1"):
        avg_pool(value(1, 1, 4, 4), 0)
    with pytest.raises(ShapeError, match="shapes of avg_pool_grad differ"):
        avg_pool_grad(value(1, 1, 3, 3), (4, 4), count_include_pad=True, **PLAIN)
    assert max_pool(value(symbol("N"), 1, 4, 4), 2).shape[0] == symbol("N")

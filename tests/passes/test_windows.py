"""Small static reductions: written out, computed once for all elements that read them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from group_kernels import GroupKernel

from graphc.codegen.python_text import source
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.arithmetic import maximum
from graphc.ir.ops.reduction import mean
from graphc.ir.ops.reduction import sum as sum_over
from graphc.ir.ops.softmax import log_softmax, softmax
from graphc.ir.types import TensorType, float32
from graphc.passes.canonicalize import canonicalize
from graphc.passes.lower import lower
from graphc.passes.schedule.nest import nests
from graphc.passes.schedule.windows import write_out_windows

N = symbol("N")
ROWS = (1, 5, 16, 33, 2049)


def kernel(build: Callable[[Value], Value | tuple[Value, ...]], *shape: object) -> GroupKernel:
    x = placeholder("x", TensorType(float32, shape))
    built = build(x)
    outputs = built if isinstance(built, tuple) else (built,)
    return GroupKernel(canonicalize(Graph("case", (x,), outputs)))


def two_results(x: Value) -> tuple[Value, ...]:
    total = sum_over(x * x, (-1,), True)
    return total, x / total, maximum(x, 0.0)


CASES = {
    "softmax": (lambda x: softmax(x, axis=-1), (N, 5)),
    "one class": (lambda x: softmax(x, axis=-1), (N, 1)),
    "classes in the middle": (lambda x: log_softmax(x, axis=1), (N, 3, 7)),
    "axes before": (lambda x: softmax(x, axis=-1), (N, 3, 4)),
    "two axes": (lambda x: x - mean(x, (1, 2), True), (N, 2, 8)),
    "rows and results": (two_results, (N, 6)),
    "one row": (lambda x: softmax(x, axis=-1), (5,)),
}


@pytest.mark.parametrize("name", CASES)
def test_small_rows(name: str) -> None:
    build, shape = CASES[name]
    case = kernel(build, *shape)
    for rows in ROWS:
        x = np.random.default_rng(rows).standard_normal([rows if d is N else d for d in shape])
        x = x.astype(np.float32)
        expected = interpret(case.graph, [x])
        compiled, python = case.run([x], N=rows), case.run_as_python([x], N=rows)
        for want, a, b in zip(expected, compiled, python, strict=True):
            np.testing.assert_allclose(a, want, rtol=2e-6, atol=1e-6)
            np.testing.assert_array_equal(a, b)


def test_a_row_of_special_values_does_not_touch_its_neighbours() -> None:
    case = kernel(lambda x: softmax(x, axis=-1), N, 5)
    x = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    plain = case.run([x.copy()], N=40)[0]
    x[3, 1], x[17, 4], x[18] = np.nan, np.inf, -np.inf
    (found,) = case.run([x], N=40)
    hurt = [3, 17, 18]
    assert np.isnan(found[hurt]).all()
    np.testing.assert_array_equal(np.delete(found, hurt, 0), np.delete(plain, hurt, 0))


def test_a_row_is_reduced_once() -> None:
    """Five exponentials to a row of five, each of a vector of rows."""
    text = source(kernel(lambda x: softmax(x, axis=-1), N, 5).kernel)
    assert text.count("load") == text.count("scatter") + text.count("store") == 5
    assert text.count(" / ") == 1


@pytest.mark.parametrize(
    ("build", "shape", "stores"),
    [
        (lambda x: softmax(x, axis=-1), (N, 8), 8),
        (lambda x: softmax(x, axis=-1), (N, 9), 1),
        (lambda x: sum_over(x, (-1,), True), (N, 5), 1),
        (lambda x: x - mean(x, (1, 2), True), (N, 2, 8), 16),
        (lambda x: x - mean(x, (1, 2), True), (N, 4, 8), 1),
        (lambda x: x - mean(x, (2,), True), (N, 3, 5), 5),
    ],
    ids=["row", "long row", "sum only", "two axes", "large", "one axis of two"],
)
def test_stores_that_are_written_out(build, shape, stores) -> None:
    x = placeholder("x", TensorType(float32, shape))
    body = canonicalize(Graph("case", (x,), (build(x),)))
    assert len(write_out_windows(nests(lower(body, "case").kernel))) == stores

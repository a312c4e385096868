"""Reductions along columns read whole rows, and combine each column row by row."""

from __future__ import annotations

import numpy as np
import pytest
from group_kernels import GroupKernel

import graphc
from graphc.codegen.python_text import source
from graphc.ir.dim import symbol
from graphc.ir.expr import Axis
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.indexing import take
from graphc.ir.ops.reduction import max as max_over
from graphc.ir.ops.reduction import min as min_over
from graphc.ir.ops.reduction import sum as sum_over
from graphc.ir.types import DType, TensorType, float32, float64, int64
from graphc.passes.schedule import columns

SIZES = [(0, 5), (1, 1), (7, 16), (8, 17), (20, 511), (23, 513), (9, 1100), (40, 0)]


def matrix() -> tuple:
    """Return a placeholder with rows and columns of any number."""
    return placeholder("x", TensorType(float32, (symbol("m"), symbol("n"))))


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_sums_have_the_bits_of_adding_row_by_row(shape: tuple[int, int]) -> None:
    x = matrix()
    case = GroupKernel(Graph("case", (x,), (sum_over(x, (0,), True),)))
    assert "sums0" in source(case.kernel)
    rows = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = np.zeros((1, shape[1]), np.float32)
    for row in rows:
        expected += row
    bindings = dict(zip("mn", shape, strict=True))
    for found in (
        case.run([rows], **bindings),
        case.run([rows], alone=True, **bindings),
        case.run_as_python([rows], **bindings),
    ):
        np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize("shape", SIZES[1:-1], ids=str)
def test_reductions_that_read_others(shape: tuple[int, int]) -> None:
    x = matrix()
    peak = max_over(x, (0,), True)
    below = x - peak
    case = GroupKernel(
        Graph("case", (x,), (sum_over(below * below, (0,), True) + peak, sum_over(x, (0,), True)))
    )
    rows = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    bindings = dict(zip("mn", shape, strict=True))
    expected = interpret(case.graph, [rows], bindings)
    for found in (case.run([rows], **bindings), case.run_as_python([rows], **bindings)):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_small_windows_keep_their_registers() -> None:
    x = placeholder("x", TensorType(float32, (5, symbol("n"))))
    case = GroupKernel(Graph("case", (x,), (sum_over(x, (0,), True),)))
    assert "sums0" not in source(case.kernel)


@pytest.mark.parametrize("count", [0, 1, 8, 13])
@pytest.mark.parametrize("width", [1, 16, 37])
def test_rows_that_indices_name_are_read_as_vectors(count: int, width: int) -> None:
    """Their mean is one kernel, which adds row by row and makes no array of the rows."""
    table, m = placeholder("t", TensorType(float32, (symbol("v"), symbol("n")))), symbol("m")
    indices = placeholder("i", TensorType(int64, (2, m)))
    case = GroupKernel(
        Graph("case", (table, indices), (sum_over(take(table, indices, 0), (1,), True),))
    )
    assert "gather" not in source(case.kernel) and "sums0" in source(case.kernel)
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((9, width)).astype(np.float32)
    chosen = generator.integers(0, 9, (2, count))
    expected = np.zeros((2, 1, width), np.float32)
    for place in range(count):
        expected[:, 0] += rows[chosen[:, place]]
    bindings = {"v": 9, "n": width, "m": count}
    for found in (
        case.run([rows, chosen], **bindings), case.run_as_python([rows, chosen], **bindings)
    ):  # fmt: skip
        np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize("count", [1, 511, 2049, 4096, 5000, 100_000])
@pytest.mark.parametrize("others", [1, 3, 40])
@pytest.mark.parametrize("cores", [1, 2, 16])
def test_blocks_are_whole_lines_and_enough(count: int, others: int, cores: int) -> None:
    width = columns.width(Axis("i1", count), (Axis("i0", others),), cores)
    assert isinstance(width, int) and width % columns.LINE == 0 and width <= columns.COLUMNS
    blocks = others * -(-count // width)
    assert 2 * blocks >= min(cores, others * (count // columns.LINE))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("engine", ["llvm", "numba"])
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 19])
@pytest.mark.parametrize("axis", [0, 1])
def test_extremes_of_special_values(engine: str, dtype: DType, rows: int, axis: int) -> None:
    """NaN wins over everything, and -0 is less than +0."""
    x = placeholder("x", TensorType(dtype, (symbol("m"), symbol("n"))))
    values = np.random.default_rng(3).choice(
        [0.0, -0.0, NAN, -NAN, INF, -INF, 1.0, -1.0], (rows, 200),
        p=[0.35, 0.35, 0.01, 0.01, 0.02, 0.02, 0.12, 0.12],
    ).astype(dtype.numpy)  # fmt: skip
    values = values if axis == 0 else np.ascontiguousarray(values.T)
    m, n = values.shape
    positive = ((values == 0) & ~np.signbit(values)).any(axis, keepdims=True)
    negative = ((values == 0) & np.signbit(values)).any(axis, keepdims=True)
    for reduce, name, minus in ((max_over, "max", ~positive), (min_over, "min", negative)):
        case = GroupKernel(Graph("case", (x,), (reduce(x, (axis,), True),)))
        with graphc.options(engine=engine):
            (found,) = case.run([values], m=m, n=n)
        expected = getattr(np, name)(values, axis, keepdims=True)
        np.testing.assert_array_equal(found, expected)
        zero = expected == 0
        np.testing.assert_array_equal(np.signbit(found)[zero], minus[zero])

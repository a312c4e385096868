"""What is read along another axis than it is stored goes through squares of registers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from group_kernels import TARGET, GroupKernel

from graphc.codegen.python_text import source
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.movement import transpose
from graphc.ir.ops.transcendental import exp
from graphc.ir.target import Target
from graphc.ir.types import DType, TensorType, bool_, float32, float64, int8
from graphc.passes.schedule import transposed

SIZES = (0, 1, 15, 16, 17, 64, 70, 97)
SQUARE = str((TARGET.vector_bytes // 4,) * 2)
"""Tile of a square in the text of a kernel."""


def turned(dtype: DType = float32, target: Target = TARGET) -> GroupKernel:
    """Return the kernel that transposes matrices."""
    x = placeholder("x", TensorType(dtype, (symbol("m"), symbol("n"))))
    return GroupKernel(Graph("case", (x,), (transpose(x, (1, 0)),)), target)


@pytest.mark.parametrize("dtype", [float32, float64, int8, bool_], ids=str)
def test_every_remainder_of_rows_and_columns(dtype: DType) -> None:
    case = turned(dtype)
    rng = np.random.default_rng(0)
    for m, n in itertools.product(SIZES, SIZES):
        x = rng.integers(-99, 99, (m, n)).astype(dtype.numpy)
        for run in (case.run, case.run_as_python) if m * n < 2000 else (case.run,):
            (found,) = run([x], m=m, n=n)
            np.testing.assert_array_equal(found, x.T)


def test_full_squares_gather_nothing() -> None:
    assert SQUARE in source(turned().kernel)


def test_blocks_run_alone() -> None:
    x = np.random.default_rng(0).standard_normal((83, 150)).astype(np.float32)
    (found,) = turned().run([x], alone=True, m=83, n=150)
    np.testing.assert_array_equal(found, x.T)


SMALL = replace(TARGET, l3_bytes=64 << 10)
"""A machine with a last cache that the tests' matrices fill."""


def test_results_larger_than_the_caches_are_streamed_where_lines_are_whole() -> None:
    if TARGET.vector_bytes < transposed.LINE_BYTES:
        pytest.skip("a row of a square is less than a line")
    case, fits = turned(target=SMALL), turned(int8, SMALL)
    assert "stream(" in source(case.kernel) and "stream(" not in source(fits.kernel)
    rng = np.random.default_rng(0)
    for m, n in itertools.product((97, 128, 144), (70, 1100)):
        x = rng.standard_normal((m, n)).astype(np.float32)
        for start in (0, 1):  # an output of the user's begins anywhere
            buffers, sizes, extent, _ = case.arguments([x], m=m, n=n)
            memory = np.empty(m * n + 32, np.float32)
            first = start - memory.ctypes.data // 4 % -16
            buffers[-1] = memory[first : first + m * n].reshape(n, m)
            case.call(buffers, sizes, 0, extent)
            np.testing.assert_array_equal(buffers[-1], x.T)


def test_neighbours_along_one_axis_and_both() -> None:
    b, m, n = symbol("b"), symbol("m"), symbol("n")
    x = placeholder("x", TensorType(float32, (b, m, n)))
    y = placeholder("y", TensorType(float32, (b, n, m)))
    row, column = (placeholder(k, TensorType(float32, s)) for k, s in (("r", (n, 1)), ("c", (m,))))
    straight = transpose(x, (0, 2, 1))
    outputs = (exp(straight * row + column) - y, straight * 2.0)
    case = GroupKernel(Graph("case", (x, y, row, column), outputs))
    assert SQUARE in source(case.kernel)
    rng = np.random.default_rng(1)
    sizes = {"b": 2, "m": 35, "n": 50}
    arrays = [
        rng.standard_normal([sizes[str(d)] if d != 1 else 1 for d in v.type.shape]).astype("f4")
        for v in case.graph.inputs
    ]
    expected = interpret(case.graph, arrays, sizes)
    for found in (case.run(arrays, **sizes), case.run_as_python(arrays, **sizes)):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)

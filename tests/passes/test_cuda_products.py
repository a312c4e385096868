"""Products on CUDA: tiles of every kind, and precisions of tensor cores, run on the CPU."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from cuda_checks import run_plan_in_step

import graphc
from graphc.codegen.cuda import cuda_target
from graphc.errors import ArgumentError
from graphc.frontend.trace import trace
from graphc.ir import expr as E
from graphc.ir.evaluate import evaluate_expr
from graphc.ir.graph import Graph
from graphc.ir.ops.contraction import matmul
from graphc.ir.types import TensorType, as_dtype, float32
from graphc.passes.emulate import emulated
from graphc.passes.manager import compile_graph
from graphc.passes.schedule.cuda import cores
from graphc.runtime.program import Program

UNIT = {"tf32": 2.0**-11, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Precision -> the largest relative error of rounding a factor."""
SPECIAL = [
    0.0, -0.0, 1.0, -1.5, 1e-8, 6e-8, 5.96e-8, 2.0**-14, 65504.0, 65519.9, 65520.0, 1e6, 3e38,
    np.inf, -np.inf, np.nan, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8, 1e-40,
]  # fmt: skip


def product(shapes: tuple[tuple[int, ...], ...], **attrs: bool) -> Graph:
    types = [TensorType(float32, shape) for shape in shapes]
    return trace(functools.partial(matmul, **attrs), types, "product")


def numbers(*shapes: tuple[int, ...], dtype: type = np.float32) -> list[np.ndarray]:
    generator = np.random.default_rng(7)
    return [generator.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize(
    ("rows", "columns", "depth"),
    [
        (1, 1, 1),
        (3, 5, 2),
        (64, 64, 16),
        (65, 67, 33),
        (130, 4, 7),
        (4, 200, 9),
        (0, 3, 4),
        (2, 2, 0),
    ],
)
@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)])
def test_sizes(rows: int, columns: int, depth: int, turned: tuple[bool, bool]) -> None:
    a, b = numbers((rows, depth), (depth, columns))
    arrays = [np.ascontiguousarray(x.T if t else x) for x, t in zip((a, b), turned, strict=True)]
    shapes = tuple(array.shape for array in arrays)
    graph = product(shapes, transpose_a=turned[0], transpose_b=turned[1])
    plan = compile_graph(graph, cuda_target("sm_90"))
    (found,) = Program(emulated(plan))(arrays)
    np.testing.assert_allclose(found, a @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("processors", [1, 132])
@pytest.mark.parametrize("precision", ["float32", *UNIT])
def test_large_and_small_tiles_have_no_faults(processors: int, precision: str) -> None:
    arrays = numbers((131, 9), (9, 131))
    with graphc.options(matmul_precision=precision):
        target = replace(cuda_target("sm_90"), cores=processors)  # with one, tiles are large
    run_plan_in_step(compile_graph(product(tuple(a.shape for a in arrays)), target), arrays)


@pytest.mark.parametrize("precision", UNIT)
@pytest.mark.parametrize("shapes", [((70, 40), (40, 90)), ((3, 130, 20), (3, 20, 9))])
def test_precisions(precision: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    a, b = numbers(*shapes)
    with graphc.options(matmul_precision=precision):
        plan = compile_graph(product(shapes), cuda_target("sm_90"))
    (found,) = Program(emulated(plan))([a, b])
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = 2.1 * UNIT[precision] * (np.abs(a).astype(np.float64) @ np.abs(b)) + 1e-5
    assert np.all(np.abs(found - exact) <= bound)
    assert np.abs(found - exact).max() > 1e-5, "factors were not rounded at all"


def rounded(function: str) -> np.ndarray:
    x = E.use("x", E.const(0.0, float32))
    found = evaluate_expr(getattr(cores, function)(x), {"x": np.array(SPECIAL, np.float32)})
    return np.asarray(found)


def test_rounding_to_float16() -> None:
    with np.errstate(over="ignore"):
        wanted = np.array(SPECIAL, np.float32).astype(np.float16)
    found = rounded("float16").astype(np.uint16).view(np.float16)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))


def test_rounding_to_bfloat16() -> None:
    x = np.array(SPECIAL, np.float32)
    found = (rounded("bfloat16").astype(np.uint32) << 16).view(np.float32)
    finite = np.isfinite(x) & (np.abs(x) > 1e-30)
    assert np.all(np.abs(found[finite] - x[finite]) <= 2.0**-8 * np.abs(x[finite]))
    np.testing.assert_array_equal(found[np.isnan(x) | np.isinf(x)], x[np.isnan(x) | np.isinf(x)])
    assert found[SPECIAL.index(1 + 2.0**-8)] == 1.0  # a tie goes to even


def test_rounding_to_tf32() -> None:
    x = np.array(SPECIAL, np.float32)
    found = rounded("tf32")
    np.testing.assert_array_equal(found.view(np.uint32) & 0x1FFF, 0)
    finite = np.isfinite(x) & (np.abs(x) > 1e-30)
    assert np.all(np.abs(found[finite] - x[finite]) <= 2.0**-11 * np.abs(x[finite]))
    np.testing.assert_array_equal(found[np.isnan(x) | np.isinf(x)], x[np.isnan(x) | np.isinf(x)])


def test_an_unknown_precision() -> None:
    with pytest.raises(ArgumentError, match="matmul_precision cannot be 'tf23'.*'tf32'"):
        graphc.configure(matmul_precision="tf23")


def test_products_of_other_types_ignore_the_precision() -> None:
    a, b = numbers((5, 6), (6, 7), dtype=np.float64)
    types = [TensorType(as_dtype(x.dtype), x.shape) for x in (a, b)]
    with graphc.options(matmul_precision="bfloat16"):
        plan = compile_graph(trace(matmul, types, "product"), cuda_target("sm_90"))
    (found,) = Program(emulated(plan))([a, b])
    np.testing.assert_allclose(found, a @ b, rtol=1e-12)

"""Weights in panels: read where they lie, the next ones asked for, the same products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from group_kernels import TARGET, GroupKernel

from graphc.ir.dim import Dim, symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.kernel_printer import print_kernel
from graphc.ir.operand import REGISTRY
from graphc.ir.target import Target
from graphc.ir.types import DType, TensorType, float32, float64
from graphc.ir.verify import verify_kernel

M, K, P = map(symbol, "MKP")
NARROW = [replace(TARGET, vector_bytes=width, registers=16) for width in (32, 16)]
SIZES = [(1, 5, 1), (3, 300, 2), (49, 130, 9), (65, 64, 4), (400, 33, 14)]


def product(target: Target = TARGET, dtype: DType = float32, residual: bool = False) -> GroupKernel:
    shapes: list[tuple[Dim, ...]] = [(M, K), (P, K, 16), (M, 16 * P)]
    a, b, r = (placeholder(n, TensorType(dtype, s)) for n, s in zip("abr", shapes, strict=True))
    found = REGISTRY["panel_matmul"](a, b)
    if residual:
        return GroupKernel(Graph("g", (a, b, r), (found + r,)), target)
    return GroupKernel(Graph("g", (a, b), (found,)), target)


def check(case: GroupKernel, shapes: list[tuple[int, ...]], dtype: DType, **sizes: int) -> None:
    verify_kernel(case.kernel)
    arrays = [np.random.standard_normal(shape).astype(dtype.numpy) for shape in shapes]
    (expected,) = interpret(case.graph, arrays)
    (found,) = case.run(arrays, **sizes)
    (apart,) = case.run(arrays, alone=True, **sizes)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found, apart)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_products(dtype: DType, residual: bool) -> None:
    case = product(dtype=dtype, residual=residual)
    for m, k, p in SIZES:
        shapes: list[tuple[int, ...]] = [(m, k), (p, k, 16)]
        check(case, shapes + [(m, 16 * p)] * residual, dtype, M=m, K=k, P=p)


@pytest.mark.parametrize("target", [TARGET, *NARROW], ids=["own", "256 bits", "128 bits"])
def test_stores_of_whole_tiles_come_from_registers(target: Target) -> None:
    shapes: dict[str, tuple[Dim, ...]] = {"a": (M, K), "b": (P, K, 16), "c": (16 * P,), "s": ()}
    a, b, c, s = (placeholder(n, TensorType(float32, shape)) for n, shape in shapes.items())
    sums = REGISTRY["panel_matmul"](a, b) * s + c
    results = REGISTRY["clip"](sums, low=0.0, high=6.0), sums
    case = GroupKernel(Graph("g", (a, b, c, s), results), target)
    for m, k, p in SIZES:
        arrays = [
            np.random.standard_normal(shape).astype(np.float32)
            for shape in ((m, k), (p, k, 16), (16 * p,), ())
        ]
        found = case.run(arrays, M=m, K=k, P=p)
        apart = case.run(arrays, alone=True, M=m, K=k, P=p)
        for want, one, other in zip(interpret(case.graph, arrays), found, apart, strict=True):
            np.testing.assert_allclose(one, want, rtol=1e-4, atol=1e-3)
            np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(TARGET.vector_bytes == 16, reason="no wider than the narrowest")
@pytest.mark.parametrize("target", NARROW, ids=["256 bits", "128 bits"])
def test_narrower_vectors(target: Target) -> None:
    case = product(target)
    for m, k, p in SIZES:
        check(case, [(m, k), (p, k, 16)], float32, M=m, K=k, P=p)


@pytest.mark.skipif(TARGET.vector_bytes != 64, reason="tiles of other vectors")
def test_what_lies_in_panels_is_not_copied() -> None:
    text = print_kernel(product().kernel)
    assert "b_block" not in text
    assert text.count("o0[") > 1  # by tiles, and for the last rows from scratch
    assert "prefetch p1[" in text
    copied = print_kernel(product(dtype=float64).kernel)
    assert "b_block" in copied
    assert "prefetch p1" not in copied

"""Attention's own loops on the CUDA target, without a GPU: edges of squares, masks, resources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from cuda_checks import run_plan_in_step
from ptxas import resources

import graphc.ir.ops  # noqa: F401
from graphc.codegen.cuda import cuda_target
from graphc.frontend.trace import trace
from graphc.ir.graph import Graph, build, lift
from graphc.ir.kernel_printer import print_kernel
from graphc.ir.operand import REGISTRY
from graphc.ir.ops.attention import TOLERANCE
from graphc.ir.types import DType, TensorType, as_dtype, float32, float64
from graphc.passes.emulate import emulated
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program

TARGET = cuda_target("sm_90")
Arrays = list[np.ndarray]


def operands(
    name: str, dtype: DType, sizes: Sequence[int], heads_first: bool, mask: Sequence[int] | None
) -> Arrays:
    """Return operands of attention or of its gradient.

    Parameters
    ----------
    sizes : sequence of int
        Batch, heads, queries, keys, channels of queries and of values.
    mask : sequence of int, optional
        0 where the mask has the axis, 1 where it broadcasts.
    """
    batch, heads, queries, keys, width, depth = sizes
    generator = np.random.default_rng(1)

    def draw(length: int, *channels: int) -> np.ndarray:
        middle = (heads, length) if heads_first else (length, heads)
        return generator.normal(size=(batch, *middle, *channels)).astype(dtype.numpy)

    found = [draw(queries, width), draw(keys, width), draw(keys, depth)]
    masks = []
    if mask is not None:
        whole = (batch, heads, queries, keys)
        shape = [1 if once else size for once, size in zip(mask, whole, strict=True)]
        masks = [generator.random(shape) < 0.4]
    if name == "attention":
        return found + masks
    return [draw(queries, depth), *found, draw(queries) + 4, draw(queries), *masks]


def graph_of(name: str, arrays: Arrays, attrs: dict[str, Any]) -> Graph:
    """Return the graph of an op, as users trace it."""
    op = REGISTRY[name]
    types = [TensorType(as_dtype(a.dtype), a.shape) for a in arrays]
    return trace(lambda *values: build(op, lift(op, values), attrs, None), types, name)


def check(name: str, dtype: DType, arrays: Arrays, attrs: dict[str, Any]) -> None:
    """Check races, and results against the reference."""
    plan = compile_graph(graph_of(name, arrays, attrs), TARGET)
    run = partial(run_plan_in_step, plan), Program(emulated(plan))
    expected = REGISTRY[name].reference(*arrays, **attrs)
    rtol, atol = TOLERANCE[dtype]
    for each in run:
        for found, wanted in zip(each(arrays), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=rtol, atol=4 * atol)


NAMES = ("attention",)
SQUARES = [
    (1, 64, 33, 1), (63, 65, 64, 64), (64, 63, 1, 33), (65, 1, 64, 130), (65, 130, 16, 40),
]  # fmt: skip
"""Queries, keys, channels of queries and of values."""


@pytest.mark.parametrize("heads_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SQUARES)
@pytest.mark.parametrize("name", NAMES)
def test_edges_of_squares(
    name: str, sizes: Sequence[int], causal: bool, heads_first: bool
) -> None:
    attrs = {"scale": 0.3, "causal": causal, "heads_first": heads_first}
    check(name, float32, operands(name, float32, (2, 2, *sizes), heads_first, None), attrs)


@pytest.mark.parametrize("mask", [(0, 0, 0, 0), (1, 1, 1, 0), (0, 1, 0, 1), (1, 0, 1, 1)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_masks(name: str, causal: bool, mask: Sequence[int]) -> None:
    attrs = {"scale": 0.3, "causal": causal, "heads_first": False}
    for queries, keys in ((70, 35), (20, 80)):
        sizes = (2, 2, queries, keys, 8, 12)
        check(name, float64, operands(name, float64, sizes, False, mask), attrs)


@pytest.mark.parametrize(("queries", "keys"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("name", NAMES)
def test_empty_sequences(name: str, queries: int, keys: int) -> None:
    attrs = {"scale": 0.3, "causal": True, "heads_first": True}
    sizes = (1, 2, queries, keys, 8, 8)
    check(name, float32, operands(name, float32, sizes, True, None), attrs)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [float32, float64])
@pytest.mark.parametrize("width", [32, 128, 130, 255, 256])
@pytest.mark.parametrize("name", NAMES)
def test_wide_heads(name: str, width: int, dtype: DType) -> None:
    attrs = {"scale": 0.1, "causal": False, "heads_first": False}
    check(name, dtype, operands(name, dtype, (1, 2, 40, 70, width, width), False, None), attrs)


@pytest.mark.parametrize("name", NAMES)
def test_width_is_a_constant_and_lengths_are_not(name: str) -> None:
    attrs = {"scale": 0.1, "causal": False, "heads_first": True}

    def text(sizes: Sequence[int], width: int) -> str:
        arrays = operands(name, float32, (*sizes, width, width), True, None)
        (launch,) = compile_graph(graph_of(name, arrays, attrs), TARGET).launches
        return print_kernel(launch.kernel, launch.label)

    assert text((2, 9, 10, 11), 64) == text((3, 12, 64, 64), 64)
    assert text((2, 9, 10, 11), 64) != text((2, 9, 10, 11), 32)


WIDTHS = [(float32, 32), (float32, 64), (float32, 128), (float32, 256), (float64, 64)]
Golden = Callable[[str, str], None]


@pytest.mark.parametrize("processor", ["sm_80", "sm_89", "sm_90"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_spilled(name: str, processor: str) -> None:
    target, kernels = cuda_target(processor), []
    for dtype, width in WIDTHS:
        for causal, mask in ((True, None), (False, (0, 1, 0, 0))):
            attrs = {"scale": 0.1, "causal": causal, "heads_first": False}
            arrays = operands(name, dtype, (2, 3, 9, 9, width, width), False, mask)
            plan = compile_graph(graph_of(name, arrays, attrs), target)
            kernels += [launch.kernel for launch in plan.launches]
    for taken in resources(kernels, target):
        assert taken.spill_bytes == 0 and taken.registers <= 255
        assert taken.shared_bytes <= target.shared_bytes

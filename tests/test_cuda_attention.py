"""Attention's own loops on the CUDA target, without a GPU: edges of squares, masks, resources."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from cuda_checks import run_plan_in_step
from ptxas import ptx, resources

import graphc.ir.ops  # noqa: F401
from graphc.codegen.cuda import cuda_target
from graphc.errors import CompileError
from graphc.frontend.trace import trace
from graphc.ir.graph import Graph, build, lift
from graphc.ir.kernel_printer import print_kernel
from graphc.ir.loop import Kernel
from graphc.ir.operand import REGISTRY
from graphc.ir.ops.attention import TOLERANCE
from graphc.ir.target import Target
from graphc.ir.types import DType, TensorType, as_dtype, float32, float64
from graphc.passes.emulate import emulated
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program

TARGET = cuda_target("sm_90")
Arrays = list[np.ndarray]


def attributes(causal: bool = False, heads_first: bool = False) -> dict[str, Any]:
    """Return attributes of attention."""
    return {"scale": 0.2, "causal": causal, "heads_first": heads_first}


def operands(
    name: str, dtype: DType, sizes: Sequence[int], attrs: dict[str, Any],
    mask: Sequence[int] | None = None,
) -> Arrays:  # fmt: skip
    """Return operands of attention or of its gradient.

    Parameters
    ----------
    name : str
    dtype : DType
    sizes : sequence of int
        Batch, heads, queries, keys, channels of queries and of values.
    attrs : dict
    mask : sequence of int, optional
        0 where the mask has the axis, 1 where it broadcasts.
    """
    batch, heads, queries, keys, width, depth = sizes
    heads_first = attrs["heads_first"]
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
    logs = REGISTRY["attention"].reference(*found, *masks, **attrs)[1]
    logs = np.where(np.isfinite(logs), logs, dtype.numpy.type(4))
    return [draw(queries, depth), *found, logs, draw(queries), *masks]


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


NAMES = ("attention", "attention_backward")
SQUARES = [
    (1, 64, 33, 1), (63, 65, 64, 64), (64, 63, 1, 33), (65, 1, 64, 130), (65, 130, 16, 40),
]  # fmt: skip
"""Queries, keys, channels of queries and of values."""


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SQUARES)
@pytest.mark.parametrize("name", NAMES)
def test_edges_of_squares(name: str, sizes: Sequence[int], causal: bool) -> None:
    attrs = attributes(causal, heads_first=causal == (sizes[0] == 64))
    check(name, float32, operands(name, float32, (2, 2, *sizes), attrs), attrs)


@pytest.mark.parametrize("mask", [(0, 0, 0, 0), (1, 1, 1, 0), (0, 1, 0, 1), (1, 0, 1, 1)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_masks(name: str, causal: bool, mask: Sequence[int]) -> None:
    attrs = attributes(causal)
    for queries, keys in ((70, 35), (20, 80)):
        sizes = (2, 2, queries, keys, 8, 12)
        check(name, float64, operands(name, float64, sizes, attrs, mask), attrs)


@pytest.mark.parametrize(("queries", "keys"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("name", NAMES)
def test_empty_sequences(name: str, queries: int, keys: int) -> None:
    attrs = attributes(causal=True, heads_first=True)
    check(name, float32, operands(name, float32, (1, 2, queries, keys, 8, 8), attrs), attrs)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [float32, float64])
@pytest.mark.parametrize("width", [32, 128, 130, 255, 256])
@pytest.mark.parametrize("name", NAMES)
def test_wide_heads(name: str, width: int, dtype: DType) -> None:
    attrs = attributes()
    check(name, dtype, operands(name, dtype, (1, 2, 40, 70, width, width), attrs), attrs)


def test_queries_keys_and_values_may_be_one() -> None:
    attrs = attributes(causal=True)
    (x,) = operands("attention", float32, (2, 2, 70, 70, 8, 8), attrs)[:1]
    logs = REGISTRY["attention"].reference(x, x, x, **attrs)[1]
    op = REGISTRY["attention_backward"]
    types = [TensorType(float32, a.shape) for a in (x, logs)]
    graph = trace(lambda v, log: build(op, (v, v, v, v, log, log), attrs, None), types, "one")
    found = run_plan_in_step(compile_graph(graph, TARGET), [x, logs])
    for one, wanted in zip(found, op.reference(x, x, x, x, logs, logs, **attrs), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_width_is_a_constant_and_lengths_are_not(name: str) -> None:
    attrs = attributes()

    def text(sizes: Sequence[int], width: int) -> str:
        arrays = operands(name, float32, (*sizes, width, width), attrs)
        (launch,) = compile_graph(graph_of(name, arrays, attrs), TARGET).launches
        return print_kernel(launch.kernel, launch.label)

    assert text((2, 9, 10, 11), 64) == text((3, 12, 64, 64), 64)
    assert text((2, 9, 10, 11), 64) != text((2, 9, 10, 11), 32)


def kernels(name: str, dtype: DType, width: int, target: Target) -> list[Kernel]:
    """Return kernels of one width, causal ones and one with a mask."""
    found = []
    for causal, heads_first, mask in (
        (True, False, None), (True, True, None), (False, False, (0, 1, 0, 0)),
    ):  # fmt: skip
        attrs = attributes(causal, heads_first)
        arrays = operands(name, dtype, (2, 3, 9, 9, width, width), attrs, mask)
        plan = compile_graph(graph_of(name, arrays, attrs), target)
        found += [launch.kernel for launch in plan.launches]
    return found


@pytest.mark.parametrize("processor", ["sm_90", pytest.param("sm_80", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_spilled(name: str, processor: str) -> None:
    target = cuda_target(processor)
    widths = [(float32, 32), (float32, 64), (float32, 128), (float32, 256), (float64, 64)]
    every = [kernel for case in widths for kernel in kernels(name, *case, target)]
    for taken in resources(every, target):
        assert taken.spill_bytes == 0 and taken.registers <= 255
        assert taken.shared_bytes <= target.shared_bytes


@pytest.mark.parametrize("name", NAMES)
def test_whole_rows_are_moved_as_vectors(name: str) -> None:
    causal, *_ = kernels(name, float32, 64, TARGET)
    text = ptx(causal, TARGET)
    assert "ld.shared.v4" in text and "ld.shared.b32" not in text
    assert "ld.global.v4" in text and ".minnctapersm 2" in text


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["sm_80", "sm_89", "sm_90"])
@pytest.mark.parametrize("name", NAMES)
def test_no_width_is_spilled(name: str, processor: str) -> None:
    target = cuda_target(processor)
    widths = [(float32, w) for w in (1, 16, 33, 80, 96, 100, 130, 160, 192, 250, 255)]
    widths += [(float64, w) for w in (33, 80, 128)]
    every = [kernel for case in widths for kernel in kernels(name, *case, target)]
    for taken in resources(every, target):
        assert taken.spill_bytes == 0 and taken.registers <= 255
        assert taken.shared_bytes <= target.shared_bytes


def test_too_wide_for_a_processor() -> None:
    with pytest.raises(CompileError, match="sm_89"):
        kernels("attention_backward", float64, 256, cuda_target("sm_89"))

"""Large results pass the caches by, rows are asked for ahead: neither changes a bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from group_kernels import TARGET, GroupKernel

from graphc.codegen.python_text import source
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.loop import Prefetch, Store
from graphc.ir.ops.reduction import max as max_over
from graphc.ir.ops.reduction import sum as sum_over
from graphc.ir.ops.transcendental import exp
from graphc.ir.statements import statements
from graphc.ir.types import TensorType, float32

SMALL = replace(TARGET, l3_bytes=256)
FORMS = ("pointwise", "row", "two outputs")


def group(form: str) -> Graph:
    x = placeholder("x", TensorType(float32, (symbol("m"), symbol("n"))))
    powers = exp(x - max_over(x, (1,), True))
    total = sum_over(powers, (1,), True)
    outputs = {"pointwise": (x * 2.0 + x,), "row": (powers / total,), "two outputs": (
        powers / total, x - sum_over(x, (1,), True) / total)}[form]  # fmt: skip
    return Graph("case", (x,), outputs)


def kernels(form: str) -> tuple[GroupKernel, GroupKernel]:
    """Return the kernel for caches that hold everything, and for such that hold nothing."""
    large = replace(TARGET, l3_bytes=1 << 40)
    return GroupKernel(group(form), large), GroupKernel(group(form), SMALL)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [5, 16, 64, 80, 83, 208])
def test_streamed_results_are_the_same(form: str, width: int) -> None:
    ordinary, streaming = kernels(form)
    x = np.random.default_rng(width).standard_normal((7, width)).astype(np.float32)
    expected = ordinary.run([x], m=7, n=width)
    for run in (streaming.run, streaming.run_as_python):
        for ours, theirs in zip(run([x], m=7, n=width), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("offset", [0, 1, 4, 16])
def test_results_may_begin_anywhere(form: str, offset: int) -> None:
    ordinary, streaming = kernels(form)
    x = np.random.default_rng(offset).standard_normal((6, 64)).astype(np.float32)
    expected = ordinary.run([x], m=6, n=64)
    buffers, sizes, extent, outputs = streaming.arguments([x], m=6, n=64)
    memory = [np.full(y.size + offset, np.nan, np.float32)[offset:] for y in outputs]
    streaming.call([*buffers[: -len(memory)], *memory], sizes, 0, extent)
    for ours, theirs in zip(memory, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.ravel())


@pytest.mark.parametrize("form", FORMS)
def test_results_are_streamed(form: str) -> None:
    _, streaming = kernels(form)
    stores = [s for s in statements(streaming.kernel.body) if isinstance(s, Store)]
    assert any(s.streaming for s in stores)
    assert all(s.mask is None for s in stores if s.streaming)


def test_what_is_kept_stays_out_of_the_results_place() -> None:
    _, streaming = kernels("row")
    text = source(streaming.kernel)
    assert "store(kept, " in text and "load(kept, " in text


def test_rows_that_are_read_several_times_are_asked_for() -> None:
    asked = [s for s in statements(kernels("row")[0].kernel.body) if isinstance(s, Prefetch)]
    assert {s.buffer.name for s in asked} == {"p0"}
    once = GroupKernel(Graph("once", (x := group("row").inputs[0],), (sum_over(x, (1,), True),)))
    assert not any(isinstance(s, Prefetch) for s in statements(once.kernel.body))

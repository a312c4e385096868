"""Reads at ``i // c`` are short contiguous reads, and compute what the oracle does."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from graphc.codegen.compiler import compile_kernels
from graphc.codegen.cpu import host_target
from graphc.codegen.dispatch_layout import Error
from graphc.codegen.python_engine import run_python
from graphc.codegen.python_text import source
from graphc.ir.dim import evaluate, symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.pooling import max_pool_grad
from graphc.ir.ops.reduction import sum as sum_over
from graphc.ir.types import TensorType, float32, int32
from graphc.passes.expand import expand
from graphc.passes.lower import lower
from graphc.passes.schedule import cpu

TARGET = host_target()
_NATIVE = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
    ctypes.c_void_p,
)  # fmt: skip
# kernel, stride, pad of one axis, and whether a read can be one short vector
WINDOWS = {
    "side by side": (2, 2, 0, True),
    "four wide": (4, 4, 0, True),
    "overlapping": (3, 2, 1, True),
    "gaps": (1, 2, 0, True),
    "shifted": (4, 4, 3, True),
    "shifted gaps": (3, 4, 1, True),
    "no power of two": (3, 3, 1, False),
}


def spread(window: tuple[int, int, int], also_sum: bool):
    """Return the graph of a pool's gradient over rows, and its kernel."""
    size, stride, pad = window
    rows, places, width = symbol("rows"), symbol("places"), symbol("width")
    g = placeholder("g", TensorType(float32, (rows, 1, places)))
    index = placeholder("index", TensorType(int32, (rows, 1, places)))
    found = max_pool_grad(g, index, (width,), (size,), (stride,), (pad,))
    outputs = (found, sum_over(found, (2,), True)) if also_sum else (found,)
    graph = Graph("case", (g, index), outputs)
    lowered = lower(graph, "case")
    return graph, lowered, expand(cpu.schedule(lowered.kernel, TARGET))


def run(graph, lowered, kernel, arrays, bindings):
    """Return the outputs of compiled code and of the text as Python."""
    sizes = [evaluate(d, bindings) for d in lowered.sizes]
    names = dict(zip(kernel.sizes, sizes, strict=True))
    shapes = [[evaluate(d, names) for d in b.shape] for b in kernel.params[-kernel.outputs :]]
    extent = evaluate(kernel.extent, names)
    native = [*arrays, *(np.full(s, np.nan, np.float32) for s in shapes)]
    python = [*arrays, *(np.full(s, np.nan, np.float32) for s in shapes)]
    (compiled,) = compile_kernels([kernel], TARGET)
    pointers = (ctypes.c_void_p * len(native))(*(b.ctypes.data for b in native))
    numbers = (ctypes.c_int64 * len(sizes))(*sizes)
    assert _NATIVE(compiled.address)(pointers, numbers, 0, extent, ctypes.byref(Error())) == 0
    assert run_python(kernel, python, sizes, 0, extent) == 0  # which checks every address
    return native[len(arrays) :], python[len(arrays) :]


@pytest.mark.parametrize("also_sum", [False, True], ids=["alone", "with sums"])
@pytest.mark.parametrize("name", WINDOWS)
def test_gradient_of_windows(name: str, also_sum: bool) -> None:
    size, stride, pad, grouped = WINDOWS[name]
    graph, lowered, kernel = spread((size, stride, pad), also_sum)
    text = source(kernel)
    assert ("repeat(" in text and "gather" not in text) == grouped
    for width in (1, 2, 7, 14, 16, 28, 31, 33, 64, 97, 130):
        places = (width + 2 * pad - size) // stride + 1
        if places < 1:
            continue
        rng = np.random.default_rng(width)
        g = rng.standard_normal((3, 1, places)).astype(np.float32)
        index = rng.integers(0, size, (3, 1, places)).astype(np.int32)
        bindings = {"rows": 3, "places": places, "width": width}
        expected = interpret(graph, [g, index], bindings)
        for found in run(graph, lowered, kernel, [g, index], bindings):
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

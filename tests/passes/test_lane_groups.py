"""Reads at ``i // c`` are short contiguous reads, and compute what the oracle does."""

from __future__ import annotations

import numpy as np
import pytest
from group_kernels import GroupKernel

from graphc.codegen.python_text import source
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.pooling import max_pool_grad
from graphc.ir.ops.reduction import sum as sum_over
from graphc.ir.types import TensorType, float32, int32

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


def spread(window: tuple[int, int, int], also_sum: bool) -> GroupKernel:
    """Return the kernel of a pool's gradient over rows."""
    size, stride, pad = window
    rows, places, width = symbol("rows"), symbol("places"), symbol("width")
    g = placeholder("g", TensorType(float32, (rows, 1, places)))
    index = placeholder("index", TensorType(int32, (rows, 1, places)))
    found = max_pool_grad(g, index, (width,), (size,), (stride,), (pad,))
    outputs = (found, sum_over(found, (2,), True)) if also_sum else (found,)
    return GroupKernel(Graph("case", (g, index), outputs))


@pytest.mark.parametrize("also_sum", [False, True], ids=["alone", "with sums"])
@pytest.mark.parametrize("name", WINDOWS)
def test_gradient_of_windows(name: str, also_sum: bool) -> None:
    size, stride, pad, grouped = WINDOWS[name]
    case = spread((size, stride, pad), also_sum)
    text = source(case.kernel)
    assert ("repeat(" in text and "gather" not in text) == grouped
    for width in (1, 2, 7, 14, 16, 28, 31, 33, 64, 97, 130):
        places = (width + 2 * pad - size) // stride + 1
        if places < 1:
            continue
        rng = np.random.default_rng(width)
        g = rng.standard_normal((3, 1, places)).astype(np.float32)
        index = rng.integers(0, size, (3, 1, places)).astype(np.int32)
        bindings = {"rows": 3, "places": places, "width": width}
        expected = interpret(case.graph, [g, index], bindings)
        for run in (case.run, case.run_as_python):
            found = run([g, index], **bindings)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

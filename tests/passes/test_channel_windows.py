"""Sums over windows of images with channels last: depthwise convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from group_kernels import GroupKernel

from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.arithmetic import maximum
from graphc.ir.ops.channels_last import depthwise_last
from graphc.ir.types import TensorType, float32
from graphc.passes.schedule import channel_windows
from graphc.passes.schedule.nest import nests

N, H, W, C = map(symbol, "NHWC")
# height, width, channels, window, stride, padding
CASES: dict[str, tuple[Any, ...]] = {
    "3x3": (9, 12, 32, (3, 3), (1, 1), (1, 1)),
    "channels that fill no vector": (6, 9, 21, (3, 3), (1, 1), (1, 1)),
    "few rows, parts of the channels": (3, 7, 644, (3, 3), (1, 1), (1, 1)),
    "an odd number of rows": (7, 7, 16, (3, 3), (1, 1), (1, 1)),
    "by 2": (14, 15, 48, (3, 3), (2, 2), (1, 1)),
    "by 3 down, by 1 across": (14, 15, 16, (3, 3), (3, 1), (1, 1)),
    "unpadded": (8, 11, 16, (3, 3), (1, 1), (0, 0)),
    "5x5": (11, 9, 16, (5, 5), (1, 1), (2, 2)),
    "padded above only": (6, 10, 16, (3, 2), (1, 1), (1, 0)),
    "more padding than image": (2, 3, 16, (3, 3), (1, 1), (4, 4)),
    "sizes known late": (H, W, 16, (3, 3), (1, 1), (1, 1)),
    "channels known late": (6, 9, C, (3, 3), (2, 2), (1, 1)),
}
SIZES = {"H": 7, "W": 11, "C": 20}


def depthwise(
    high: Any, wide: Any, channels: Any, kernel: Any, stride: Any, pad: Any
) -> GroupKernel:
    x = placeholder("x", TensorType(float32, (N, high, wide, channels)))
    w = placeholder("w", TensorType(float32, (*kernel, channels)))
    scale = placeholder("scale", TensorType(float32, (channels,)))
    y = depthwise_last(x, w, kernel, stride, pad)
    return GroupKernel(Graph("case", (x, w, scale), (maximum(y * scale, 0.0), y)))


@pytest.mark.parametrize("name", CASES)
def test_depthwise(name: str) -> None:
    """As the oracle, iterations one by one alike, and compiled code as Python."""
    case = depthwise(*CASES[name])
    assert channel_windows.match(nests(case.lowered.kernel)) is not None
    draw = np.random.default_rng(0).standard_normal
    for batch in (1, 3):
        sizes = {"N": batch, **SIZES}
        shapes = [[sizes.get(str(d), d) for d in v.type.shape] for v in case.graph.inputs]
        arrays = [draw(shape).astype(np.float32) for shape in shapes]
        expected = interpret(case.graph, arrays)
        shaped = {str(d) for v in case.graph.inputs for d in v.type.shape}
        used = {name: size for name, size in sizes.items() if name in shaped}
        compiled = case.run([a.copy() for a in arrays], **used)
        alone = case.run([a.copy() for a in arrays], alone=True, **used)
        python = case.run_as_python([a.copy() for a in arrays], **used)
        for want, a, b, c in zip(expected, compiled, alone, python, strict=True):
            np.testing.assert_allclose(a, want, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)


def test_windows_farther_apart_than_looked_for_are_none() -> None:
    case = depthwise(20, 20, 16, (3, 3), (5, 5), (1, 1))
    assert channel_windows.match(nests(case.lowered.kernel)) is None

"""Convolutions of images with few channels, channels first to channels last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from group_kernels import TARGET, GroupKernel

from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.arithmetic import maximum
from graphc.ir.ops.channels_last import PANEL, conv_last, conv_turning
from graphc.ir.types import TensorType, float32
from graphc.passes.schedule import contraction, direct
from graphc.passes.schedule.nest import collapse, collapse_reductions, nests
from graphc.passes.schedule.windows import write_out_windows

N, W = symbol("N"), symbol("W")
# channels, spatial sizes, panels, window, stride, padding
CASES: dict[str, tuple[Any, ...]] = {
    "3x3 by 2": (3, (9, 41), 2, (3, 3), (2, 2), (0, 0)),
    "7x7, four panels": (3, (9, 30), 4, (7, 7), (2, 2), (0, 0)),
    "an odd number of panels": (2, (6, 20), 3, (3, 3), (1, 1), (0, 0)),
    "one panel": (2, (8, 16), 1, (5, 5), (1, 1), (0, 0)),
    "one channel": (1, (9, 21), 2, (7, 7), (1, 1), (0, 0)),
    "one axis": (3, (60,), 2, (15,), (2,), (0,)),
    "width known late": (3, (7, W), 2, (3, 3), (1, 2), (0, 0)),
}


def convolution(
    op: Any, x_shape: Any, panels: int, channels: Any, window: Any, **attrs: Any
) -> GroupKernel:
    x = placeholder("x", TensorType(float32, (N, *x_shape)))
    w = placeholder("w", TensorType(float32, (panels, *window, channels, PANEL)))
    bias = placeholder("bias", TensorType(float32, (panels * PANEL,)))
    y = op(x, w, **attrs)
    return GroupKernel(Graph("case", (x, w, bias), (maximum(y + bias, 0.0), y)))


def matched(case: GroupKernel) -> direct.Direct | None:
    items = collapse(collapse_reductions(write_out_windows(nests(case.lowered.kernel))))
    found = contraction.match(items)
    return None if found is None else direct.match(found, TARGET)


@pytest.mark.parametrize("name", CASES)
def test_convolutions(name: str) -> None:
    """As the oracle, iterations one by one alike, and compiled code as Python."""
    channels, spatial, panels, window, stride, pad = CASES[name]
    case = convolution(
        conv_turning, (channels, *spatial), panels, channels, window, stride=stride, pad=pad
    )
    assert matched(case) is not None
    draw = np.random.default_rng(0).standard_normal
    for batch in (1, 3):
        sizes = {"N": batch, **({"W": 23} if W in spatial else {})}
        shapes = [[sizes.get(str(d), d) for d in v.type.shape] for v in case.graph.inputs]
        arrays = [draw(shape).astype(np.float32) for shape in shapes]
        expected = interpret(case.graph, arrays)
        compiled = case.run([a.copy() for a in arrays], **sizes)
        alone = case.run([a.copy() for a in arrays], alone=True, **sizes)
        python = case.run_as_python([a.copy() for a in arrays], **sizes)
        for want, a, b, c in zip(expected, compiled, alone, python, strict=True):
            np.testing.assert_allclose(a, want, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)


def test_data_with_padding_or_channels_last_is_none() -> None:
    attrs: dict[str, Any] = {"stride": (1, 1), "pad": (1, 1)}
    padded = convolution(conv_turning, (3, 9, 9), 2, 3, (3, 3), **attrs)
    assert matched(padded) is None
    attrs["pad"] = (0, 0)
    last = convolution(conv_last, (9, 9, symbol("C")), 2, symbol("C"), (3, 3), **attrs)
    assert matched(last) is None

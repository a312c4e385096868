"""Sums over windows that slide over planes: depthwise convolutions and their data gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from group_kernels import GroupKernel

from graphc.codegen.python_text import source
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.arithmetic import maximum
from graphc.ir.ops.convolution import conv, conv_data_grad
from graphc.ir.types import TensorType, float32
from graphc.passes.schedule import sliding
from graphc.passes.schedule.nest import nests

N = symbol("N")
# spatial sizes, window, settings
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3x3": ((9, 40), (3, 3), {"pad": 1}),
    "every row meets padding": ((3, 7), (3, 3), {"pad": 1}),
    "rows a multiple of four and one more": ((5, 16), (3, 3), {"pad": 1}),
    "by 2": ((14, 35), (3, 3), {"pad": 1, "stride": 2}),
    "unpadded": ((13, 33), (3, 3), {}),
    "5x5": ((11, 20), (5, 5), {"pad": 2}),
    "apart": ((12, 19), (3, 2), {"pad": (2, 0), "dilate": 2}),
    "more padding than image": ((2, 3), (3, 3), {"pad": 4}),
    "one axis": ((37,), (3,), {"pad": 1}),
    "three axes": ((4, 6, 18), (2, 3, 3), {"pad": 1}),
}


def depthwise(spatial: tuple[int, ...], window: tuple[int, ...], **settings: Any) -> GroupKernel:
    x = placeholder("x", TensorType(float32, (N, 10, *spatial)))
    w = placeholder("w", TensorType(float32, (10, 1, *window)))
    scale = placeholder("scale", TensorType(float32, (10, *(1 for _ in spatial))))
    y = conv(x, w, groups=10, **settings)
    return GroupKernel(Graph("case", (x, w, scale), (maximum(y * scale, 0.0), y)))


def check(case: GroupKernel) -> None:
    """Compare with the oracle, one call with single iterations, and compiled code with Python."""
    draw = np.random.default_rng(0).standard_normal
    for batch in (1, 3):
        arrays = [
            draw([batch if d is N else d for d in v.type.shape]).astype(np.float32)
            for v in case.graph.inputs
        ]
        expected = interpret(case.graph, arrays)
        compiled = case.run([a.copy() for a in arrays], N=batch)
        alone = case.run([a.copy() for a in arrays], alone=True, N=batch)
        python = case.run_as_python([a.copy() for a in arrays], N=batch)
        for want, a, b, c in zip(expected, compiled, alone, python, strict=True):
            np.testing.assert_allclose(a, want, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("name", CASES)
def test_depthwise(name: str) -> None:
    spatial, window, settings = CASES[name]
    case = depthwise(spatial, window, **settings)
    assert sliding.match(nests(case.lowered.kernel)) is not None
    check(case)


@pytest.mark.parametrize("pad", [0, 1])
def test_data_gradient(pad: int) -> None:
    g = placeholder("g", TensorType(float32, (N, 10, 11, 21)))
    w = placeholder("w", TensorType(float32, (10, 1, 3, 3)))
    spatial = (13 - 2 * pad, 23 - 2 * pad)
    y = conv_data_grad(g, w, spatial, pad=pad, groups=10)
    case = GroupKernel(Graph("case", (g, w), (y,)))
    assert sliding.match(nests(case.lowered.kernel)) is not None
    check(case)


def test_channels_are_not_divided() -> None:
    """The group of a depthwise channel is the channel itself."""
    assert "// 10" not in source(depthwise((9, 40), (3, 3)).kernel)


def test_sums_over_channels_too_are_none() -> None:
    x = placeholder("x", TensorType(float32, (N, 9, 8, 8)))
    w = placeholder("w", TensorType(float32, (9, 9, 3, 3)))
    case = GroupKernel(Graph("case", (x, w), (conv(x, w, pad=1),)))
    assert sliding.match(nests(case.lowered.kernel)) is None

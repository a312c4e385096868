"""Gradients of convolution weights: data read in place or copied with its padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from group_kernels import GroupKernel

from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.convolution import conv_weight_grad
from graphc.ir.types import TensorType, float32
from graphc.passes.schedule import contraction, weight_gradient
from graphc.passes.schedule.nest import collapse_reductions, nests

N = symbol("N")
# output channels, input channels, spatial sizes, window, settings
CASES: dict[str, tuple[int, int, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "padded": (20, 5, (9, 12), (3, 3), {"pad": 1}),
    "unpadded": (50, 3, (12, 12), (5, 5), {}),
    "one channel": (7, 1, (10, 10), (5, 5), {"pad": 2}),
    "by 2": (33, 4, (15, 11), (3, 3), {"pad": 1, "stride": 2}),
    "apart": (17, 3, (12, 13), (3, 3), {"pad": 2, "dilate": 2}),
    "several strips of channels": (150, 2, (6, 7), (3, 3), {"pad": 1}),
    "several blocks of rows": (3, 70, (6, 6), (8, 8), {"pad": 4}),
    "lines longer than a stretch": (5, 2, (700,), (3,), {"pad": 1}),
    "three axes": (9, 2, (4, 5, 6), (2, 3, 3), {"pad": 1}),
}


def gradient(
    out: int, channels: int, spatial: tuple[int, ...], window: tuple[int, ...], **settings: Any
) -> GroupKernel:
    def count(size: int, width: int) -> int:
        reach = settings.get("dilate", 1) * (width - 1) + 1
        return (size + 2 * settings.get("pad", 0) - reach) // settings.get("stride", 1) + 1

    counts = [count(size, width) for size, width in zip(spatial, window, strict=True)]
    g = placeholder("g", TensorType(float32, (N, out, *counts)))
    x = placeholder("x", TensorType(float32, (N, channels, *spatial)))
    w = placeholder("w", TensorType(float32, (out, channels, *window)))
    step = conv_weight_grad(g, x, window, **settings)
    return GroupKernel(Graph("case", (g, x, w), (w - step * 0.1, step)))


@pytest.mark.parametrize("name", CASES)
def test_gradient(name: str) -> None:
    out, channels, spatial, window, settings = CASES[name]
    case = gradient(out, channels, spatial, window, **settings)
    items = collapse_reductions(nests(case.lowered.kernel))
    matched = contraction.match(items)
    assert matched is not None and weight_gradient.match(matched) is not None
    draw = np.random.default_rng(0).standard_normal
    for batch in (1, 5):
        arrays = [
            draw([batch if d is N else d for d in v.type.shape]).astype(np.float32)
            for v in case.graph.inputs
        ]
        expected = interpret(case.graph, arrays)
        compiled = case.run([a.copy() for a in arrays], N=batch)
        alone = case.run([a.copy() for a in arrays], alone=True, N=batch)
        for want, a, b in zip(expected, compiled, alone, strict=True):
            np.testing.assert_allclose(a, want, rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(a, b)
    if np.prod(spatial) < 100:
        (found, _) = case.run_as_python([a.copy() for a in arrays], N=batch)
        np.testing.assert_array_equal(found, compiled[0])


@pytest.mark.parametrize(("size", "settings"), [(13, {"dilate": 2, "stride": 2}), (4, {})])
def test_others_are_left_to_the_contraction(size: int, settings: dict[str, Any]) -> None:
    case = gradient(17, 3, (12, size), (3, 3), pad=1, **settings)
    matched = contraction.match(collapse_reductions(nests(case.lowered.kernel)))
    assert matched is not None and weight_gradient.match(matched) is None

"""Gradients of data on small planes: products, then sums where windows overlap."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from group_kernels import TARGET, GroupKernel

from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.arithmetic import maximum
from graphc.ir.ops.convolution import conv_data_grad
from graphc.ir.types import TensorType, float32
from graphc.passes.schedule import contraction, overlaps
from graphc.passes.schedule.nest import collapse, collapse_reductions, nests
from graphc.passes.schedule.windows import write_out_windows

N = symbol("N")
# images, channels out and in, rows and columns of the gradient, rows and columns of the window
CASES = {
    "5x5 over 8x8": (N, 9, 10, 8, 8, 5, 5, 0),
    "3x3 over 4x4": (N, 20, 3, 4, 4, 3, 3, 0),
    "a row of windows": (N, 9, 12, 2, 8, 4, 3, 0),
    "padded a little": (N, 9, 4, 3, 3, 5, 5, 1),
    "one image": (1, 9, 10, 3, 5, 3, 3, 0),
    "one channel": (N, 9, 1, 4, 4, 5, 5, 0),
}


def gradient(
    images: object, out: int, own: int, rows: int, columns: int, height: int, width: int, pad: int
) -> GroupKernel:
    g = placeholder("g", TensorType(float32, (images, out, rows, columns)))
    w = placeholder("w", TensorType(float32, (out, own, height, width)))
    spatial = (rows + height - 1 - 2 * pad, columns + width - 1 - 2 * pad)
    y = conv_data_grad(g, w, spatial, pad=pad)
    return GroupKernel(Graph("case", (g, w), (maximum(y, 0.0), y)))


def found(case: GroupKernel, registers: int = TARGET.registers) -> overlaps.Overlaps | None:
    items = collapse(collapse_reductions(write_out_windows(nests(case.lowered.kernel))))
    matched = contraction.match(items)
    target = dataclasses.replace(TARGET, registers=registers)
    return None if matched is None else overlaps.match(matched, target)


@pytest.mark.parametrize("name", CASES)
def test_gradient(name: str) -> None:
    case = gradient(*CASES[name])
    if name != "one channel":
        assert found(case) is not None
    draw = np.random.default_rng(0).standard_normal
    for batch in (1, 19):
        arrays = [
            draw([batch if d is N else d for d in v.type.shape]).astype(np.float32)
            for v in case.graph.inputs
        ]
        expected = interpret(case.graph, arrays)
        compiled = case.run([a.copy() for a in arrays], N=batch)
        alone = case.run([a.copy() for a in arrays], alone=True, N=batch)
        for want, a, b in zip(expected, compiled, alone, strict=True):
            np.testing.assert_allclose(a, want, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(a, b)
        if batch == 1:
            python = case.run_as_python([a.copy() for a in arrays], N=batch)
            np.testing.assert_array_equal(python[1], compiled[1])


def test_other_planes_and_few_registers_are_left_to_the_contraction() -> None:
    assert found(gradient(N, 9, 10, 9, 9, 5, 5, 0)) is None
    assert found(gradient(N, 9, 10, 7, 7, 5, 5, 0)) is None
    assert found(gradient(N, 9, 10, 8, 8, 3, 3, 1)) is None
    assert found(gradient(N, 9, 10, 8, 8, 5, 5, 0), registers=16) is None

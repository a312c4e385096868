"""Gradients of strided convolutions, one phase of the output after the other."""

from __future__ import annotations

import numpy as np
import pytest
from group_kernels import GroupKernel

from graphc.ir import expr as E
from graphc.ir.dim import evaluate, symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.arithmetic import maximum
from graphc.ir.ops.convolution import conv_data_grad
from graphc.ir.types import TensorType, float32
from graphc.passes.schedule import phases
from graphc.passes.schedule.nest import all_expressions, collapse_reductions, nests, reductions

N = symbol("N")
# height, width, window, stride, pad: windows that cover every phase, some of them, or one.
CASES = {
    "3x3 by 2": (8, 9, 3, 2, 1),
    "unpadded": (10, 9, 3, 2, 0),
    "1x1 by 2": (7, 8, 1, 2, 0),
    "2x2 by 3": (9, 10, 2, 3, 0),
    "padding beyond the stride": (12, 11, 5, 3, 4),
    "large window": (15, 17, 11, 4, 2),
    "one row": (1, 33, 3, 2, 1),
}


def gradient(height: int, width: int, window: int, stride: int, pad: int) -> GroupKernel:
    rows, columns = ((n + 2 * pad - window) // stride + 1 for n in (height, width))
    g = placeholder("g", TensorType(float32, (N, 5, rows, columns)))
    w = placeholder("w", TensorType(float32, (5, 3, window, window)))
    y = conv_data_grad(g, w, (height, width), stride=stride, pad=pad)
    return GroupKernel(Graph("case", (g, w), (maximum(y, 0.0), y)))


@pytest.mark.parametrize("name", CASES)
def test_every_phase(name: str) -> None:
    case = gradient(*CASES[name])
    draw = np.random.default_rng(0).standard_normal
    for batch in (1, 3):
        arrays = [
            draw([batch if d is N else d for d in v.type.shape]).astype(np.float32)
            for v in case.graph.inputs
        ]
        expected = interpret(case.graph, arrays)
        compiled = case.run([a.copy() for a in arrays], N=batch)
        ways = [case.run([a.copy() for a in arrays], alone=True, N=batch)]
        if batch == 1:  # Python takes seconds
            ways.append(case.run_as_python([a.copy() for a in arrays], N=batch))
        for number, want in enumerate(expected):
            np.testing.assert_allclose(compiled[number], want, rtol=1e-5, atol=1e-5)
            for way in ways:
                np.testing.assert_array_equal(compiled[number], way[number])


def test_phases_share_the_multiplications_out() -> None:
    """A test for divisibility is left nowhere, and the taps of all phases are the window's."""
    case = gradient(8, 9, 3, 2, 1)
    items = collapse_reductions(nests(case.lowered.kernel))
    found = phases.find(items)
    assert [(p.stride, p.pad) for p in found] == [(2, 1), (2, 1)]
    split = phases.split(items, found)
    tests = [e for e in all_expressions(split) if isinstance(e, E.Apply) and e.op == "eq"]
    assert not tests
    (total,) = reductions(split)
    taps = [a.extent for a in total.axes[:2]]
    names = [f"{p.axis.name}_phase" for p in found]
    sizes = [
        [evaluate(t, dict(zip(names, at, strict=True))) for t in taps] for at in np.ndindex(2, 2)
    ]
    assert sorted(a * b for a, b in sizes) == [1, 2, 2, 4]


def test_other_reductions_have_none() -> None:
    g = placeholder("g", TensorType(float32, (N, 5, 8, 8)))
    w = placeholder("w", TensorType(float32, (5, 3, 3, 3)))
    case = GroupKernel(Graph("case", (g, w), (conv_data_grad(g, w, (8, 8), pad=1),)))
    assert phases.find(nests(case.lowered.kernel)) == ()

"""Exponentials that a row sums are kept in the output, not computed again."""

from __future__ import annotations

import numpy as np
import pytest
from group_kernels import GroupKernel

from graphc.codegen.python_text import source
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.ops.reduction import max as max_over
from graphc.ir.ops.reduction import sum as sum_over
from graphc.ir.ops.transcendental import exp
from graphc.ir.types import TensorType, float32


def rows(form: str) -> GroupKernel:
    """Return a kernel over rows that sums exponentials and needs them again."""
    x = placeholder("x", TensorType(float32, (symbol("m"), symbol("n"))))
    powers = exp(x - max_over(x, (1,), True))
    total = sum_over(powers, (1,), True)
    outputs = {
        "scaled": (powers / total,),
        "beside the operand": (powers / total + x,),
        "two outputs": (powers / total, powers * total),
    }[form]
    return GroupKernel(Graph("case", (x,), outputs))


def reads_output(case: GroupKernel) -> bool:
    """Return whether the kernel reads what it stored."""
    return any("load" in line and "o0" in line for line in source(case.kernel).splitlines())


@pytest.mark.parametrize("form", ["scaled", "beside the operand", "two outputs"])
@pytest.mark.parametrize("width", [1, 5, 16, 64, 83, 200])
def test_rows(form: str, width: int) -> None:
    case = rows(form)
    x = np.random.default_rng(width).standard_normal((3, width)).astype(np.float32)
    expected = interpret(case.graph, [x], {"m": 3, "n": width})
    for run in (case.run, case.run_as_python):
        for ours, theirs in zip(run([x], m=3, n=width), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def test_only_where_the_operand_is_not_read_after() -> None:
    assert reads_output(rows("scaled"))
    assert not reads_output(rows("beside the operand"))
    assert not reads_output(rows("two outputs"))


def test_over_the_operand_itself() -> None:
    case = rows("scaled")
    x = np.random.default_rng(0).standard_normal((4, 77)).astype(np.float32)
    (expected,) = case.run([x], m=4, n=77)
    buffers, sizes, extent, _ = case.arguments([x], m=4, n=77)
    case.call([x, x], sizes, 0, extent)
    np.testing.assert_array_equal(x, expected)

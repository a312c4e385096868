"""Kernels of rows that sum columns, too."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from sample_graphs import graph

from graphc import config
from graphc.codegen.cpu import host_target
from graphc.ir.dim import evaluate, symbol
from graphc.ir.graph import Graph, Value
from graphc.ir.interp import interpret
from graphc.ir.operand import REGISTRY as R
from graphc.ir.printer import print_graph
from graphc.ir.types import float64
from graphc.passes.canonicalize import canonicalize
from graphc.passes.column_sums import column_sums
from graphc.passes.fuse import fuse
from graphc.passes.manager import compile_graph
from graphc.passes.schedule import row_sums
from graphc.runtime.program import Program

B, T, C = symbol("B"), symbol("T"), symbol("C")


def over_rows(x: Value) -> Value:
    found: Value = R["sum"](x, axis=tuple(range(len(x.shape) - 1)), keepdims=True)
    return found


def shifted(x: Value, y: Value) -> Value:
    """Return ``x`` and the sum of the other's rows, which is a kernel of its own."""
    found: Value = x + R["reshape"](over_rows(y), y.shape[-1:])
    return found


def softmax(x: Value) -> Value:
    e = R["exp"](x - R["max"](x, axis=-1, keepdims=True))
    found: Value = e / R["sum"](e, axis=-1, keepdims=True)
    return found


def gradient(x: Value, gamma: Value, dy: Value) -> list[Value]:
    """Return the gradients of a normalization of rows, by the data, the scale and the shift."""
    h = x * R["rsqrt"](R["mean"](x * x, axis=-1, keepdims=True) + 1e-5)
    own = dy * gamma
    return [own - h * R["mean"](own * h, axis=-1, keepdims=True), over_rows(dy * h), over_rows(dy)]


def kernels(whole: Graph) -> list[str]:
    """Return what each kernel computes last."""
    fused = column_sums(fuse(canonicalize(whole)))
    made = [node.attrs["body"] for node in fused.nodes if node.op.name == "fused"]
    return [" ".join(value.op_name for value in body.outputs) for body in made]


def check(whole: Graph, **sizes: int) -> None:
    """Compare a program with the oracle, by one thread and by two."""
    draw = np.random.default_rng(sum(sizes.values())).standard_normal
    arrays = [
        np.asarray(draw([evaluate(d, sizes) for d in v.type.shape]), v.dtype.numpy)
        for v in whole.inputs
    ]
    expected = interpret(whole, arrays)
    program = Program(compile_graph(whole, host_target()))
    found = []
    for threads in (1, 2):
        with config.options(threads=threads):
            found.append(program([a.copy() for a in arrays]))
    for want, one, two in zip(expected, *found, strict=True):
        np.testing.assert_allclose(one, want, rtol=2e-5, atol=2e-4)
        np.testing.assert_array_equal(one, two)


GRADIENT = graph(gradient, (B, C), (C,), (B, C))


def test_a_normalization_keeps_nothing_for_its_sums(golden: Callable[[str, str], None]) -> None:
    """Neither ``dy * h`` nor another reading of ``dy`` is left."""
    assert kernels(GRADIENT) == ["subtract sum sum"]
    text = print_graph(column_sums(fuse(canonicalize(GRADIENT))))
    golden(re.sub(r" +#.*", "", text), "passes/column_sums.txt")


@pytest.mark.parametrize(
    "sizes", [(0, 5), (1, 9), (15, 16), (17, 40), (65, 33), (1030, 7), (2100, 130)]
)
def test_results_are_the_oracle_s(sizes: tuple[int, int]) -> None:
    check(GRADIENT, B=sizes[0], C=sizes[1])


@pytest.mark.parametrize("engine", ["llvm", "numba"])
def test_engines_and_types(engine: str) -> None:
    with config.options(engine=engine):
        check(graph(gradient, (B, C), (C,), (B, C), dtype=float64), B=70, C=21)


def test_rows_over_several_axes() -> None:
    whole = graph(gradient, (B, T, C), (C,), (B, T, C))
    assert kernels(whole) == ["subtract sum sum"]
    check(whole, B=5, T=11, C=19)


def test_short_rows_are_left_to_fusion() -> None:
    """Lanes run over rows of a few elements."""
    assert len(kernels(graph(gradient, (B, 3), (3,), (B, 3)))) == 3


def test_rows_that_are_no_loop_store_what_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_sums, "_in_chunks", lambda *args: None)
    first, second = compile_graph(GRADIENT, host_target()).launches
    assert first.kernel.sizes == second.kernel.sizes == ("n0", "n1")
    check(GRADIENT, B=70, C=21)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_few_known_rows(rows: int) -> None:
    check(graph(gradient, (rows, C), (C,), (rows, C)), C=21)


def test_rows_that_read_what_they_stored_keep_it() -> None:
    """Exponentials lie where the softmax will, so that they are not computed again."""
    whole = graph(lambda x: over_rows(softmax(x)), (B, C))
    assert kernels(whole) == ["sum"]
    for sizes in (3, 40), (130, 70):
        check(whole, B=sizes[0], C=sizes[1])


def test_what_others_read_is_stored_as_well() -> None:
    def function(x: Value) -> list[Value]:
        y = softmax(x)
        return [y, over_rows(y)]

    whole = graph(function, (B, C))
    assert kernels(whole) == ["divide sum"]
    check(whole, B=40, C=12)


def test_a_kernel_that_needs_the_sum_does_not_compute_it() -> None:
    whole = graph(lambda x: softmax(shifted(x, x)), (B, C))
    assert kernels(whole) == ["sum", "divide"]
    check(whole, B=40, C=12)


def test_two_kernels_do_not_wait_for_each_other() -> None:
    def function(x: Value, y: Value) -> list[Value]:
        return [softmax(shifted(x, y)), softmax(shifted(y, x))]

    whole = graph(function, (B, C), (B, C))
    assert sorted(kernels(whole)) == ["divide", "divide sum", "sum"]
    check(whole, B=33, C=12)


def test_other_sums_stay() -> None:
    def function(x: Value) -> list[Value]:
        y = softmax(x)
        return [y, R["sum"](y, axis=(0, 2), keepdims=True)]

    assert kernels(graph(function, (B, T, C))) == ["divide", "sum"]

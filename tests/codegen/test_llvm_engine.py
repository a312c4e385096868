"""The LLVM engine: golden LLVM IR, what it writes once, where control meets, and its builder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scheduled_kernels import TARGET, pointwise, row_sums, run_both, scratch, take_rows

from graphc import lazy
from graphc.codegen import llvm_engine
from graphc.codegen.llvm_builder import Builder, Constant, Function, Module, filled
from graphc.codegen.llvm_types import FLOAT, I1, I32, I64, POINTER, vector
from graphc.ir import expr as E
from graphc.ir.dim import symbol
from graphc.ir.expr import Buffer, index
from graphc.ir.loop import Assign, Declare, For, If, Kernel, Let, Store
from graphc.ir.types import float32

NOMINAL = replace(
    TARGET, triple="x86_64-unknown-linux-gnu", cpu="x86-64-v4", features="", vector_bytes=64
)
KERNELS = {"pointwise": pointwise, "row_sums": row_sums, "scratch": scratch, "take": take_rows}
X, Y = Buffer("x", float32, (symbol("n"),)), Buffer("y", float32, (symbol("n"),))


def kernel(*body: object) -> Kernel:
    return Kernel("k", (X, Y), 1, ("n",), body)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KERNELS)
def test_llvm_ir_is_golden(name: str, golden: Callable[[str, str], None]) -> None:
    golden(llvm_engine.source(KERNELS[name](), NOMINAL), f"codegen/{name}.ll")


def test_a_value_is_computed_once_until_what_it_reads_changes() -> None:
    first = E.load(X, index(0))
    twice = E.apply("mul", first, first)
    stores = (
        Store(Y, index(0), twice),
        Store(Y, index(1), twice),  # y is written, x is not
        Store(X, index(0), E.const(3.0, float32)),
        Store(Y, index(2), twice),
    )
    text = llvm_engine.source(kernel(*stores), NOMINAL)
    assert text.count("fmul float") == 2
    x, y = np.array([2, 0, 0], np.float32), np.zeros(3, np.float32)
    run_both(kernel(*stores), [x, y], [3], 0, 1)
    np.testing.assert_array_equal(y, [4, 4, 9])


def test_registers_meet_behind_branches_and_loops() -> None:
    """Assigned in one way only, in both, in a loop that may not run, in a loop inside a branch."""
    total = E.use("total", E.const(0.0, float32))
    i = index(symbol("i"))
    odd = E.apply("mod", i, index(2)).eq(index(1))
    add = (Assign("total", total + E.load(X, i)),)
    body = (
        Declare("total", E.const(0.0, float32)),
        For("i", index(0), index(symbol("n")), (
            If(odd, add, (Assign("total", total * 2.0),)),
            If(E.apply("gt", i, index(2)), (For("j", index(0), i, (
                Assign("total", total + 1.0),)),)),
        )),
        For("i", index(5), index(symbol("n")), add),
        Store(Y, index(0), total),
    )  # fmt: skip
    for n in (0, 1, 4, 7):
        x, y = np.arange(1, n + 2, dtype=np.float32), np.zeros(n + 1, np.float32)
        run_both(kernel(*body), [x, y], [n], 0, 1)
        expected = 0.0
        for k in range(n):
            expected = expected + x[k] if k % 2 else expected * 2
            expected += k if k > 2 else 0
        expected += x[5:n].sum()
        assert y[0] == expected


@pytest.mark.parametrize("bits", [32, 64])
def test_loops_count_in_the_bits_of_indices(bits: int) -> None:
    i = index(symbol("i"))
    loop = For("i", index(1), index(symbol("n")), (Store(Y, i, E.load(X, i)),), 3)
    text = llvm_engine.source(kernel(loop), replace(NOMINAL, index_bits=bits))
    assert text.count("phi ") == text.count(f"phi i{bits} ") == 1
    assert f"phi i{bits} [ 1, " in text


def test_what_a_branch_computed_is_not_known_behind_it() -> None:
    value = E.apply("mul", E.load(X, index(0)), 3.0)
    condition = E.apply("gt", E.load(X, index(1)), 0.0)
    body = (If(condition, (Store(Y, index(0), value),)), Store(Y, index(1), value))
    for flag in (-1.0, 1.0):
        x, y = np.array([2, flag], np.float32), np.zeros(2, np.float32)
        run_both(kernel(*body), [x, y], [2], 0, 1)
        np.testing.assert_array_equal(y, [6 * (flag > 0), 6])


def test_a_name_may_be_bound_again() -> None:
    i, scaled = symbol("i"), E.use("scaled", E.const(0.0, float32))
    loop = (Let("scaled", E.load(X, index(i)) * 2.0), Store(Y, index(i), scaled))
    body = [For("i", index(first), index(first + 2), loop) for first in (0, 2)]
    x, y = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
    run_both(kernel(*body), [x, y], [4], 0, 1)
    np.testing.assert_array_equal(y, 2 * x)


# -- the builder -----------------------------------------------------------------------------


def function() -> tuple[Module, Builder]:
    module = Module(TARGET.triple)
    made = module.define(Function("f", FLOAT, [FLOAT, POINTER, I64]))
    return module, Builder(made, made.block("entry"))


def test_equal_instructions_are_written_once_in_a_scope() -> None:
    module, builder = function()
    x, pointer, _ = builder.function.arguments
    one = builder.fadd(x, x)
    assert builder.fadd(x, x) is one
    assert builder.load(pointer, FLOAT) is not builder.load(pointer, FLOAT)
    with builder.if_then(builder.fcmp_ordered("<", x, one)):
        inner = builder.fmul(x, x)
        assert builder.fadd(x, x) is one and builder.fmul(x, x) is inner
    assert builder.fmul(x, x) is not inner
    builder.forget()
    assert builder.fadd(x, x) is not one
    builder.ret(one)
    lazy.llvmlite_binding().parse_assembly(str(module)).verify()


@pytest.mark.parametrize(
    ("constant", "text"),
    [
        (Constant(I32, -7), "i32 -7"),
        (Constant(I1, True), "i1 1"),
        (Constant(FLOAT, 0.1), "float 0x3FB99999A0000000"),
        (Constant(FLOAT, -0.0), "float 0x8000000000000000"),
        (Constant(FLOAT, float("inf")), "float 0x7FF0000000000000"),
        (filled(vector(FLOAT, 4), 1.5), "<4 x float> splat (float 0x3FF8000000000000)"),
        (Constant(vector(I64, 2), [0, 1]), "<2 x i64> <i64 0, i64 1>"),
    ],
)
def test_constants(constant: Constant, text: str) -> None:
    assert constant.typed == text
    definition = f"define {constant.type.text} @f() {{\n  ret {constant.typed}\n}}\n"
    lazy.llvmlite_binding().parse_assembly(definition).verify()

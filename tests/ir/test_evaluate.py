"""The evaluator of loop-IR expressions: exact types, exact arithmetic, errors for what is wrong."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from graphc.errors import IndexRangeError, VerifyError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, symbol
from graphc.ir.evaluate import evaluate_expr, fold_tile, lower_and_evaluate
from graphc.ir.expr import Axis, Buffer, Expr
from graphc.ir.op import Kind, OpDef
from graphc.ir.operations import OPERATIONS
from graphc.ir.ops.basic import cast
from graphc.ir.ops.reduction import argmax, sum
from graphc.ir.scalar_math import REFERENCES, fma
from graphc.ir.types import (
    DType,
    TensorType,
    bool_,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
)


def register(name: str, dtype: DType, tile: tuple[int, ...] = ()) -> Expr:
    return E.Use(name, dtype, tile)


def test_float32_stays_float32() -> None:
    x = register("x", float32)
    got = evaluate_expr(x * 0.1 + 3, {"x": np.float32([1, 2])})
    assert got.dtype == np.float32
    assert (got == np.float32([1, 2]) * np.float32(0.1) + np.float32(3)).all()


def test_integers_wrap() -> None:
    x = register("x", uint8)
    assert evaluate_expr(x + 200, {"x": np.uint8([100])}).tolist() == [44]


def test_index_polynomials_broadcast_over_loop_variables() -> None:
    i, j, n = symbol("i"), symbol("j"), symbol("n")
    dim: Dim = i * n + j // 2 + j % 2
    names = {"i": np.arange(3).reshape(3, 1), "j": np.arange(4).reshape(1, 4), "n": 10}
    expected = [[10 * a + b // 2 + b % 2 for b in range(4)] for a in range(3)]
    assert evaluate_expr(E.index(dim), names).tolist() == expected


def test_a_name_without_value_is_an_error() -> None:
    with pytest.raises(VerifyError, match="'i' has no value"):
        evaluate_expr(E.index(symbol("i")))


def test_masked_load_reads_nothing_outside() -> None:
    buffer = Buffer("p", float32, (3,))
    i = E.index(symbol("i"))
    inside = (i >= 0) & (i < 3)
    names = {"i": np.arange(-2, 5)}
    memory = {"p": np.float32([5, 6, 7])}
    got = evaluate_expr(E.load(buffer, i, mask=inside, fill=-1.0), names, memory)
    assert got.tolist() == [-1, -1, 5, 6, 7, -1, -1]
    with pytest.raises(IndexRangeError, match="'p' of 3 elements is accessed at -2"):
        evaluate_expr(E.load(buffer, i), names, memory)


def test_masked_load_of_an_empty_buffer_gives_the_fill() -> None:
    buffer = Buffer("p", float32, (0,))
    i = E.index(symbol("i"))
    expr = E.load(buffer, i, mask=i < 0, fill=2.0)
    assert evaluate_expr(expr, {"i": np.arange(2)}, {"p": np.zeros(0, "f4")}).tolist() == [2, 2]


def test_strided_load_of_a_tile_at_every_batch_index() -> None:
    buffer = Buffer("p", int32, (4, 6))
    memory = {"p": np.arange(24, dtype=np.int32).reshape(4, 6)}
    offset = E.index(symbol("i") * 12)
    expr = E.load(buffer, offset, tile=(2, 3), strides=(6, 1))
    got = evaluate_expr(expr, {"i": np.arange(2)}, memory)
    assert got.shape == (2, 2, 3)
    assert (got == memory["p"].reshape(2, 2, 6)[:, :, :3]).all()


def test_gather_through_an_iota() -> None:
    buffer = Buffer("p", float32, (8,))
    expr = E.load(buffer, E.iota(4) * 2 + 1)
    assert evaluate_expr(expr, {}, {"p": np.arange(8, dtype="f4")}).tolist() == [1, 3, 5, 7]


def test_scalars_broadcast_against_tiles_behind_the_batch() -> None:
    x, lanes = register("x", float32), register("v", float32, (4,))
    names = {"x": np.float32([10, 20]), "v": np.arange(4, dtype="f4")}
    got = evaluate_expr(x + lanes, names)
    assert got.tolist() == [[10, 11, 12, 13], [20, 21, 22, 23]]


def test_reduction_counts_indices_the_body_ignores() -> None:
    axes = (Axis("r", 3), Axis("s", 4))
    expr = E.reduce("add", axes, E.cast(E.index(symbol("i") * symbol("r")), float64))
    assert evaluate_expr(expr, {"i": np.arange(3)}).tolist() == [0, 12, 24]


def test_reduction_over_an_extent_that_varies() -> None:
    i, r = symbol("i"), symbol("r")
    expr = E.reduce("add", (Axis("r", i + 1),), E.index(r))
    assert evaluate_expr(expr, {"i": np.arange(4)}).tolist() == [0, 1, 3, 6]


@pytest.mark.parametrize(
    ("combine", "dtype", "expected"),
    [("add", float32, 0.0), ("mul", int64, 1), ("max", float32, -math.inf), ("and", bool_, True)],
)
def test_reduction_of_nothing_is_the_identity(combine: str, dtype: DType, expected: object) -> None:
    buffer = Buffer("p", dtype, (symbol("n"),))
    expr = E.reduce(combine, (Axis("r", symbol("n")),), E.load(buffer, E.index(symbol("r"))))
    got = evaluate_expr(expr, {"n": 0}, {"p": np.zeros(0, dtype.numpy)})
    assert got.item() == expected


def test_fold_is_the_documented_tree() -> None:
    big = np.float32(2**24)
    lanes = np.float32([big, 1, -big, 1])
    # Halves: (big - big) and (1 + 1), then their sum; from left to right it would be 1.
    assert fold_tile("add", lanes, 1) == 2
    assert fold_tile("add", np.float32([1, 2, 4]), 1) == 7
    expr = E.fold("add", register("v", float32, (2, 4)))
    names = {"v": np.stack([lanes, lanes])}
    assert evaluate_expr(expr, names) == 4


def test_casts_to_integers_truncate_and_saturate() -> None:
    x = np.array([1.9, -1.9, 1e30, -1e30, math.nan, math.inf, 2.0**31, 2.0**63])
    to_int32 = evaluate_expr(E.cast(register("x", float64), int32), {"x": x})
    top, bottom = 2**31 - 1, -(2**31)
    assert to_int32.tolist() == [1, -1, top, bottom, 0, top, top, top]
    to_int64 = evaluate_expr(E.cast(register("x", float64), int64), {"x": x})
    assert to_int64[-1] == 2**63 - 1 and to_int64[3] == -(2**63)
    to_uint8 = evaluate_expr(E.cast(register("x", float64), uint8), {"x": x})
    assert to_uint8.tolist()[:3] == [1, 0, 255]


def test_bitcast_keeps_the_bits() -> None:
    expr = E.bitcast(register("x", float32), uint32)
    assert evaluate_expr(expr, {"x": np.float32([1.0, -0.0])}).tolist() == [0x3F800000, 0x80000000]


@pytest.mark.parametrize("op", ["floordiv", "mod", "rem"])
def test_unguarded_integer_division_is_an_error(op: str) -> None:
    expr = E.apply(op, register("x", int32), register("y", int32))
    with pytest.raises(VerifyError, match="by zero"):
        evaluate_expr(expr, {"x": np.int32([1]), "y": np.int32([0])})
    with pytest.raises(VerifyError, match="overflows"):
        evaluate_expr(expr, {"x": np.int32([-(2**31)]), "y": np.int32([-1])})


# -- fma ---------------------------------------------------------------------------------------


def exact_fma(a: float, b: float, c: float, dtype: type) -> float:
    """Return the exact result rounded to the nearest float of a type, ties to even."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    guess = dtype(float(exact))
    around = [np.nextafter(guess, dtype(-np.inf)), guess, np.nextafter(guess, dtype(np.inf))]
    bits = np.int32 if dtype is np.float32 else np.int64
    return min(around, key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(bits)) & 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0, -70, -520], ids=["normal", "small", "tiny"])
def test_fma_rounds_once(dtype: type, scale: int) -> None:
    if dtype is np.float32 and scale == -520:
        scale = -68
    generator = np.random.default_rng(3)
    factor = dtype(2.0**scale)
    a, b = (generator.standard_normal((2, 3000)) * factor).astype(dtype)
    near = 1 + generator.integers(-4, 5, 3000) * 2.0 ** (-25 if dtype is np.float32 else -53)
    c = (-np.float64(a) * np.float64(b) * near).astype(dtype)
    got = fma(a, b, c)
    assert got.dtype == dtype
    expected = [exact_fma(*map(float, t), dtype) for t in zip(a, b, c, strict=True)]
    assert (got == np.array(expected, dtype)).all()


def test_fma_at_special_values() -> None:
    inf, nan = math.inf, math.nan
    a, b, c = np.array(
        [(inf, 0, 1), (inf, 1, -inf), (inf, 2, 1), (0.0, 1, -0.0), (-0.0, 1, -0.0), (1e308, 10, 0)]
    ).T
    expected = [nan, nan, inf, 0.0, -0.0, inf]
    np.testing.assert_array_equal(fma(a, b, c), expected)
    assert np.signbit(fma(a, b, c)[4])
    huge = np.array([2.0**600])
    assert fma(huge, huge, -huge)[0] == inf
    assert fma(np.array([2.0**512]), np.array([2.0**512]), np.array([-(2.0**1023)]))[0] == 2.0**1023


def test_sigmoid_and_erf_references() -> None:
    x = np.float32([-100, -2, 0, 2, 100])
    expected = [1 / (1 + math.exp(-v)) for v in x.tolist()]
    np.testing.assert_allclose(REFERENCES["sigmoid"](x), expected, rtol=1e-6, atol=1e-44)
    assert REFERENCES["erf"](x).dtype == np.float32
    np.testing.assert_allclose(REFERENCES["erf"](x), [math.erf(v) for v in x.tolist()], rtol=1e-6)


# -- a record's lowering -----------------------------------------------------------------------


@pytest.mark.parametrize("symbolic", [False, True])
def test_lowering_of_a_record_over_a_column(symbolic: bool) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3)).astype("f4")
    attrs = {"axis": 0, "keepdims": True}
    (got,) = lower_and_evaluate(argmax, (x,), attrs, symbolic=symbolic)
    assert (got == x.argmax(axis=0, keepdims=True)).all()
    (got,) = lower_and_evaluate(sum, (np.zeros((0, 3)),), {"axis": 0}, symbolic=symbolic)
    assert got.tolist() == [0, 0, 0]


class WrongType(OpDef):
    """A record whose lowering forgets the conversion."""

    name, kind = "wrong_type", Kind.POINTWISE

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_dtype(float64)

    def lower(self, k: object, *operands: Expr) -> Expr:
        return operands[0]


def test_a_lowering_of_another_type_is_an_error() -> None:
    with pytest.raises(VerifyError, match="lower returned f32 for an output of type f64"):
        lower_and_evaluate(WrongType(), (np.float32([1]),), {})
    assert lower_and_evaluate(cast, (np.float32([1]),), {"dtype": float64})[0].dtype == np.float64


def test_every_operation_has_a_reference() -> None:
    assert REFERENCES.keys() == OPERATIONS.keys()

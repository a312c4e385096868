"""Mathematical functions as arithmetic: distance from the rounded result, and special values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.evaluate import evaluate_expr
from graphc.ir.expr import Apply, Buffer, Expr
from graphc.ir.loop import Assign, Declare, Fail, For, If, Kernel, Let, Store
from graphc.ir.operations import OPERATIONS
from graphc.ir.scalar_math import REFERENCES
from graphc.ir.types import DType, as_dtype, float32, float64, int32
from graphc.passes.elementary import FORMATS
from graphc.passes.expand import FUNCTIONS, expand, expand_expr

Array = np.ndarray[Any, Any]
FUNCTION_NAMES = [name for name, op in OPERATIONS.items() if not op.machine]
UNARY = [name for name in FUNCTION_NAMES if name != "pow"]
DTYPES = pytest.mark.parametrize("dtype", [float32, float64], ids=str)


def wide(name: str) -> Callable[[Array], Array]:
    """Return a function in more precision than its operand has, to round its results from."""
    function = REFERENCES[name]

    def compute(*args: Array) -> Array:
        kind = np.float64 if args[0].dtype == np.float32 else np.longdouble
        with np.errstate(all="ignore"):
            return np.asarray(function(*(a.astype(kind) for a in args))).astype(args[0].dtype)

    return compute


def run(name: str, *args: Array) -> Array:
    registers = [E.Use(f"x{n}", as_dtype(a.dtype)) for n, a in enumerate(args)]
    expr = expand_expr(E.apply(name, *registers))
    return evaluate_expr(expr, {f"x{n}": a for n, a in enumerate(args)})


def steps(a: Array, b: Array) -> Array:
    """Return how many floats lie between two arrays of them; 0 between NaNs."""
    bits = np.int32 if a.dtype == np.float32 else np.int64
    ordered = []
    for values in (a, b):
        raw = values.view(bits).astype(object)
        lowest = int(np.iinfo(bits).min)
        ordered.append(np.where(raw < 0, lowest - raw, raw))
    apart = np.abs(ordered[0] - ordered[1])
    apart = np.where(np.isnan(a) & np.isnan(b), 0, apart)
    return np.where(np.isnan(a) != np.isnan(b), 2**62, apart)


def assert_within(name: str, limit: int, *args: Array) -> None:
    got, expected = run(name, *args), wide(name)(*args)
    assert got.dtype == args[0].dtype
    apart = steps(got, expected)
    worst = int(np.argmax(apart))
    where = ", ".join(repr(a.ravel()[worst]) for a in args)
    assert apart.max() <= limit, (
        f"{name}({where}) is {got.ravel()[worst]!r}, not {expected.ravel()[worst]!r}"
    )


INTERVALS: dict[str, tuple[float, float]] = {
    "exp": (-104.0, 88.7),
    "expm1": (-20.0, 88.7),
    "log": (1e-6, 40.0),
    "log1p": (-0.999999, 40.0),
    "tanh": (-10.0, 10.0),
    "erf": (-4.2, 4.2),
    "sigmoid": (-104.0, 90.0),
    "sin": (-1e4, 1e4),
    "cos": (-1e4, 1e4),
    "tan": (-1e4, 1e4),
    "asin": (-1.0, 1.0),
    "acos": (-1.0, 1.0),
    "atan": (-30.0, 30.0),
    "sinh": (-89.0, 89.0),
    "cosh": (-89.0, 89.0),
    "asinh": (-50.0, 50.0),
    "acosh": (1.0, 50.0),
    "atanh": (-1.0, 1.0),
}
GROWS_WITH_THE_TYPE = ("exp", "expm1", "sigmoid", "sinh", "cosh")


def points(name: str, dtype: DType, count: int) -> Array:
    """Return operands over an interval, near zero, and at every magnitude."""
    generator = np.random.default_rng(11)
    low, high = INTERVALS[name]
    if dtype is float64 and name in GROWS_WITH_THE_TYPE:
        low, high = low * 7.1, high * 7.9
    even = generator.uniform(low, high, count)
    near = generator.uniform(max(low, -2.0), min(high, 2.0), count)
    magnitudes = np.exp(generator.uniform(-80, math.log(max(-low, high)), count))
    drawn = np.concatenate([even, near, magnitudes, -magnitudes]).astype(dtype.numpy)
    return drawn[(drawn >= low) & (drawn <= high)]


@DTYPES
@pytest.mark.parametrize("name", UNARY)
def test_results_are_close_to_the_rounded_ones(name: str, dtype: DType) -> None:
    limit = 3 if name == "tan" or (name == "erf" and dtype is float64) else 2
    assert_within(name, limit, points(name, dtype, 20000 if dtype is float32 else 4000))


def special_values(dtype: DType) -> Array:
    limits = np.finfo(dtype.name)
    tiny, least, top = limits.tiny, limits.smallest_subnormal, limits.max
    positive = [
        0.0, math.inf, 1.0, 0.5, 2.0, tiny, least, 5 * least, tiny / 2, top, top / 2, 1e-8, 1e-5,
        3.0, 20.0, 86.0, 87.5, 88.7, 88.72, 88.73, 89.4, 89.42, 100.0, 103.9, 103.97, 104.0, 708.0,
        709.7, 709.79, 710.4, 710.48, 745.1, 745.2, 1e5, 1e10, 1e30,
    ]  # fmt: skip
    found = np.array([*positive, *(-v for v in positive), math.nan], dtype.name)
    ends = [np.nextafter(found, dtype.numpy.type(side)) for side in (-9.0, 9.0)]
    return np.concatenate([found, *ends])


@DTYPES
@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str, dtype: DType) -> None:
    x = special_values(dtype)
    if name in ("sin", "cos", "tan"):
        x = x[~(np.abs(x) > FORMATS[dtype].trigonometric) | np.isinf(x)]
    got, expected = run(name, x), wide(name)(x)
    assert (np.isnan(got) == np.isnan(expected)).all()
    assert (np.isinf(got) == np.isinf(expected)).all()
    zero = expected == 0
    assert (got[zero] == 0).all()
    assert (np.signbit(got[zero]) == np.signbit(expected[zero])).all()
    assert steps(got, expected).max() <= 3


@DTYPES
def test_angles_without_an_exact_reduction_give_nan(dtype: DType) -> None:
    limit = FORMATS[dtype].trigonometric
    x = np.array([limit, np.nextafter(limit, np.inf, dtype=dtype.name)], dtype.name)
    for name in ("sin", "cos", "tan"):
        assert np.isnan(run(name, x)).tolist() == [False, True]
        assert_within(name, 8, x[:1])


@DTYPES
def test_powers(dtype: DType) -> None:
    generator = np.random.default_rng(2)
    count = 20000 if dtype is float32 else 4000
    for spread, exponent in ((8, 12), (0.1, 800), (80, 1)):
        a = np.exp(generator.uniform(-spread, spread, count)).astype(dtype.name)
        y = generator.uniform(-exponent, exponent, count).astype(dtype.name)
        assert_within("pow", 2, a, y)


@DTYPES
def test_powers_of_special_values(dtype: DType) -> None:
    limits = np.finfo(dtype.name)
    positive = [
        0.0, math.inf, 1.0, 2.0, 3.0, 0.5, 1.5, 1e10, 2.0**24 - 1, 33.0, 149.0, 1000.0, 1074.0,
        0.9999, 1.0001, limits.max, limits.smallest_subnormal,
    ]  # fmt: skip
    values = np.array([*positive, *(-v for v in positive), math.nan], dtype.name)
    a, y = (m.ravel() for m in np.meshgrid(values, values))
    got, expected = run("pow", a, y), wide("pow")(a, y)
    assert steps(got, expected).max() <= 2
    zero = expected == 0
    assert (np.signbit(got[zero]) == np.signbit(expected[zero])).all()


@DTYPES
def test_whole_powers_of_small_whole_numbers_are_exact(dtype: DType) -> None:
    a, y = (m.ravel().astype(dtype.name) for m in np.meshgrid(np.arange(1, 9), np.arange(7)))
    assert (run("pow", a, y) == a**y).all()


# -- the pass ----------------------------------------------------------------------------------


def remaining(expr: Expr) -> set[str]:
    return {e.op for e in E.walk(expr) if isinstance(e, Apply) and not OPERATIONS[e.op].machine}


def test_every_function_has_an_expansion() -> None:
    assert sorted(FUNCTIONS) == sorted(FUNCTION_NAMES)


@DTYPES
@pytest.mark.parametrize("name", FUNCTION_NAMES)
def test_expansions_work_on_tiles_of_any_shape(name: str, dtype: DType) -> None:
    operands = [E.Use(f"x{n}", dtype, (2, 4)) for n in range(OPERATIONS[name].arity)]
    expr = expand_expr(E.apply(name, *operands))
    assert expr.tile == (2, 4) and expr.dtype is dtype
    assert not remaining(expr)


def test_hot_functions_take_few_operations() -> None:
    limits = {"exp": 22, "log": 26, "tanh": 30, "sigmoid": 22, "erf": 36, "sin": 23}
    for name, limit in limits.items():
        expr = expand_expr(E.apply(name, E.Use("x", float32)))
        count = sum(isinstance(e, Apply) and e.op != "bitcast" for e in E.walk(expr))
        assert count <= limit, f"{name} takes {count} operations"


def test_functions_inside_functions_are_expanded() -> None:
    x = E.Use("x", float32)
    expr = E.apply("log", E.apply("exp", x) + 1.0) * E.apply("tanh", x)
    values = np.float32([-3, 0, 0.5, 10])
    got = evaluate_expr(expand_expr(expr), {"x": values})
    wanted = np.log(np.exp(values.astype("f8")) + 1) * np.tanh(values.astype("f8"))
    assert not remaining(expand_expr(expr))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_functions_of_integers_are_refused() -> None:
    with pytest.raises(CompileError, match="exp of int32"):
        expand_expr(E.apply("exp", E.Use("x", int32)))


def test_every_statement_is_expanded() -> None:
    x = E.apply("exp", E.Use("x", float32))
    small = x < 1.0
    out = Buffer("o", float32, (4,))
    zero, four = E.index(0), E.index(4)
    offset = E.cast(x, as_dtype("int64"))
    store = Store(out, offset, x, mask=small)
    inner = (Let("a", x), Declare("b", x), Assign("b", x), store, Fail(1, (offset,)))
    body = (For("i", zero, four, (If(small, inner, inner),)), For("j", offset, offset, ()))
    kernel = Kernel("k", (out,), 1, (), body)
    text = repr(expand(kernel))
    assert "'exp'" in repr(kernel)
    assert "'exp'" not in text and "'fma'" in text

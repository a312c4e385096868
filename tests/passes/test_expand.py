"""Mathematical functions as arithmetic: largest errors, special values, equal bits everywhere.

Errors are strict: |computed - true| over the unit in the last place of the true value. The dense
tests run compiled kernels, so that they can afford a million operands.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from graphc.codegen.compiler import CompiledKernel, compile_kernels
from graphc.codegen.cpu import host_target
from graphc.codegen.dispatch_layout import Error
from graphc.codegen.python_engine import run_python
from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.dim import symbol
from graphc.ir.evaluate import evaluate_expr
from graphc.ir.expr import Apply, Axis, Buffer, Expr
from graphc.ir.loop import Assign, Declare, Fail, For, If, Kernel, Let, Prefetch, Stmt, Store
from graphc.ir.operations import OPERATIONS
from graphc.ir.scalar_math import REFERENCES
from graphc.ir.types import DType, as_dtype, bool_, float32, float64, int32
from graphc.passes.expand import FUNCTIONS, expand, expand_expr
from graphc.passes.polynomials import TWO_OVER_PI

Array = np.ndarray[Any, Any]
FUNCTION_NAMES = [name for name, op in OPERATIONS.items() if not op.machine]
UNARY = [name for name in FUNCTION_NAMES if name != "pow"]
TRIGONOMETRIC = ("sin", "cos", "tan")
DTYPES = pytest.mark.parametrize("dtype", [float32, float64], ids=str)
TARGET = host_target()

# Where long double is no wider than double, the reference itself may be off by a unit.
LIMIT = {float32: 2.0, float64: 2.0 if np.finfo(np.longdouble).nmant > 52 else 3.0}


# -- references ------------------------------------------------------------------------------------


def wide_sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


def wide_erf(x: Array) -> Array:
    """``2/sqrt(pi) * exp(-a**2) * (a + a * (2a**2)/3 + a * (2a**2)**2/(3*5) + ...)``."""
    a = np.fmin(np.abs(x), 7)  # an operand of 7 gives 1, and so must NaN, for now
    square = 2 * a * a
    term = total = a
    for k in range(1, 240):
        term = term * square / (2 * k + 1)
        total = total + term
    ahead = 2 / np.sqrt(4 * np.arctan(np.ones((), x.dtype)))
    return np.where(np.isnan(x), x, np.copysign(ahead * np.exp(-a * a) * total, x))


def exact(name: str, *args: Array) -> Array:
    """Return a function's values in more precision than its operands have."""
    own: dict[str, Callable[..., Array]] = {"erf": wide_erf, "sigmoid": wide_sigmoid}
    function = own.get(name) or REFERENCES[name]
    kind = np.float64 if args[0].dtype == np.float32 else np.longdouble
    with np.errstate(all="ignore"):
        return np.asarray(function(*(a.astype(kind) for a in args)))


def errors(got: Array, true: Array) -> Array:
    """Return errors in units in the last place of the true value; inf where the kind is wrong.

    An infinity counts as the power of two after the largest number.
    """
    limits = np.finfo(got.dtype)
    top, kind = limits.maxexp, true.dtype.type
    with np.errstate(all="ignore"):
        computed = got.astype(kind)
        if limits.maxexp < np.finfo(kind).maxexp:
            after = np.ldexp(kind(1), top)
            computed = np.where(np.isinf(computed), np.copysign(after, computed), computed)
            true = np.clip(true, -after, after)
        exponent = np.clip(np.frexp(true)[1], limits.minexp + 1, top) - 1
        off = np.abs(computed - true) / np.ldexp(kind(1), exponent - limits.nmant)
    nan = np.isnan(true)
    off = np.where(nan | (computed == true), 0.0, off)
    signs = (true == 0) & (got == 0) & (np.signbit(true) != np.signbit(got))
    return np.where((nan != np.isnan(got)) | signs, np.inf, off).astype(np.float64)


def assert_within(name: str, got: Array, *args: Array) -> None:
    true = exact(name, *args)
    off = errors(got, true)
    worst = int(np.argmax(off))
    where = ", ".join(repr(a[worst]) for a in args)
    assert off[worst] <= LIMIT[as_dtype(got.dtype)], (
        f"{name}({where}) is {got[worst]!r}, {off[worst]:.2f} units off {true[worst]!r}"
    )


# -- ways to run -----------------------------------------------------------------------------------


def vector_kernel(name: str, dtype: DType) -> Kernel:
    """Return ``o[i] = name(x0[i], ...)``: whole vectors, then a masked tail; expanded."""
    lanes, count, i = 64 // dtype.item_bytes, symbol("N"), symbol("i")
    inputs = [Buffer(f"x{n}", dtype, (count,)) for n in range(OPERATIONS[name].arity)]
    out = Buffer("o", dtype, (count,))

    def body(mask: Expr | None) -> tuple[Let | Store, ...]:
        loads = [E.load(b, E.index(i), (lanes,), (1,), mask) for b in inputs]
        value = E.apply(name, *(E.use(b.name + "_at", v) for b, v in zip(inputs, loads)))
        lets = [Let(b.name + "_at", v) for b, v in zip(inputs, loads)]
        return (*lets, Store(out, E.index(i), value, (1,), mask))

    begin, end = symbol("begin"), symbol("end")
    whole = end - (end - begin) % lanes
    tail = body(E.iota(lanes) < E.index(end - i))
    loops = (
        For("i", E.index(begin), E.index(whole), body(None), lanes),
        For("i", E.index(whole), E.index(end), tail, lanes),
    )
    return expand(Kernel(f"{name}_kernel", (*inputs, out), 1, ("N",), loops))


@cache
def compiled(name: str, dtype: DType) -> CompiledKernel:
    (kernel,) = compile_kernels([vector_kernel(name, dtype)], TARGET)
    return kernel


_NATIVE = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
    ctypes.c_void_p,
)  # fmt: skip


def run(name: str, *args: Array) -> Array:
    """Compute a function by a compiled kernel."""
    out = np.empty_like(args[0])
    buffers = [np.ascontiguousarray(a) for a in args] + [out]
    pointers = (ctypes.c_void_p * len(buffers))(*(b.ctypes.data for b in buffers))
    sizes, error = (ctypes.c_int64 * 1)(out.size), Error()
    function = _NATIVE(compiled(name, as_dtype(out.dtype)).address)
    assert function(pointers, sizes, 0, out.size, ctypes.byref(error)) == 0
    return out


def run_expression(name: str, *args: Array) -> Array:
    """Compute a function by its branch-free expression and the oracle."""
    registers = [E.Use(f"x{n}", as_dtype(a.dtype)) for n, a in enumerate(args)]
    expr = expand_expr(E.apply(name, *registers))
    return evaluate_expr(expr, {f"x{n}": a for n, a in enumerate(args)})


# -- operands --------------------------------------------------------------------------------------

INTERVALS: dict[str, tuple[float, float]] = {
    "exp": (-104.0, 88.8),
    "expm1": (-20.0, 88.8),
    "log": (1e-6, 40.0),
    "log1p": (-0.999999, 40.0),
    "tanh": (-10.0, 10.0),
    "erf": (-4.2, 4.2),
    "sigmoid": (-104.0, 90.0),
    "asin": (-1.0, 1.0),
    "acos": (-1.0, 1.0),
    "atan": (-30.0, 30.0),
    "sinh": (-90.0, 90.0),
    "cosh": (-90.0, 90.0),
    "asinh": (-50.0, 50.0),
    "acosh": (1.0, 50.0),
    "atanh": (-1.0, 1.0),
}
GROWS_WITH_THE_TYPE = ("exp", "expm1", "sigmoid", "sinh", "cosh")


def points(name: str, dtype: DType, count: int) -> Array:
    """Return operands over an interval, near 0 and 1, at every magnitude, and of every kind."""
    generator = np.random.default_rng(11)
    low, high = INTERVALS.get(name, (-1e4, 1e4))
    if dtype is float64 and name in GROWS_WITH_THE_TYPE:
        low, high = low * 7.2, high * 8.0
    even = generator.uniform(low, high, count)
    near = generator.uniform(max(low, -2.0), min(high, 2.0), count)
    magnitudes = np.exp(generator.uniform(-80, math.log(max(-low, high)), count))
    ones = 1 + np.exp(generator.uniform(-36, 0, count)) * generator.choice([-1, 1], count)
    parts = [even, near, magnitudes, -magnitudes, ones]
    if name in TRIGONOMETRIC:
        parts.append(generator.integers(0, 2**36, count) * (math.pi / 4))
    unsigned = np.dtype(f"u{dtype.item_bytes}")
    bits = generator.integers(0, np.iinfo(unsigned).max, 2 * count, unsigned, endpoint=True)
    return np.concatenate([*(p.astype(dtype.name) for p in parts), bits.view(dtype.name)])


def special_values(dtype: DType) -> Array:
    limits = np.finfo(dtype.name)
    tiny, least, top = limits.tiny, limits.smallest_subnormal, limits.max
    positive = [
        0.0, math.inf, 1.0, 0.5, 2.0, tiny, least, 5 * least, tiny / 2, top, top / 2, 1e-8, 1e-5,
        0.55, 1 / 3, 3.0, 20.0, 36.0, 86.0, 87.5, 88.7, 88.72, 88.73, 89.4, 89.42, 100.0, 103.9,
        103.97, 104.0, 708.0, 709.7, 709.79, 710.4, 710.48, 745.1, 745.2, 1e5, 1e10, 1e30,
        2.0**17, 2.0**22, 2.0**46, 2.0**50, 2.0**64, 2.0**100,
    ]  # fmt: skip
    found = np.array([*positive, *(-v for v in positive), math.nan], dtype.name)
    ends = [np.nextafter(found, dtype.numpy.type(side)) for side in (-9.0, 9.0)]
    return np.concatenate([found, *ends])


# -- errors ----------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("name", UNARY)
def test_errors_are_below_two_units(name: str, dtype: DType) -> None:
    count = {float32: 100000, float64: 6000 if name == "erf" else 40000}[dtype]
    x = points(name, dtype, count)
    assert_within(name, run(name, x), x)


@DTYPES
@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str, dtype: DType) -> None:
    x = special_values(dtype)
    got, true = run(name, x), exact(name, x)
    assert_within(name, got, x)
    with np.errstate(over="ignore"):
        assert (np.isinf(got) == np.isinf(true.astype(dtype.name))).all()


@DTYPES
@pytest.mark.parametrize("name", FUNCTION_NAMES)
def test_kernels_and_expressions_agree_bit_for_bit(name: str, dtype: DType) -> None:
    x = np.concatenate([special_values(dtype), points(name, dtype, 20)])
    args = [x, x[::-1].copy()][: OPERATIONS[name].arity]
    native, text = run(name, *args), np.empty_like(x)
    assert run_python(vector_kernel(name, dtype), [*args, text], [x.size], 0, x.size) == 0
    for other in (text, run_expression(name, *args)):
        np.testing.assert_array_equal(native, other)
        assert (np.signbit(native) == np.signbit(other))[~np.isnan(native)].all()


# The numbers of each type that are nearest to a multiple of pi/2 (J.-M. Muller, *Elementary
# Functions*, table 11.1): all digits of the integer part cancel, and 29 or 60 more.
NEAREST_TO_A_ZERO = [
    (float32, 16367173 * 2.0**72, -1.6147697e-09),
    (float64, 6381956970095103 * 2.0**797, -4.6871659242546277e-19),
]


@pytest.mark.parametrize(("dtype", "x", "expected"), NEAREST_TO_A_ZERO, ids=str)
def test_angles_next_to_a_zero_of_the_cosine(dtype: DType, x: float, expected: float) -> None:
    angle = np.array([x, -x], dtype.name)
    got, steep = run("cos", angle), run("tan", angle)
    epsilon = np.finfo(dtype.name).eps
    np.testing.assert_allclose(got, expected, rtol=2 * epsilon)
    np.testing.assert_allclose(steep * got, run("sin", angle), rtol=4 * epsilon)
    assert (np.abs(run("sin", angle)) == 1).all()


def test_digits_of_two_over_pi() -> None:
    bits = 64 * len(TWO_OVER_PI) + 64

    def arctan_inverse(n: int) -> int:
        """``atan(1/n) * 2**bits`` by its series."""
        power, total, k = (1 << bits) // n, 0, 0
        while power:
            total += (-1) ** k * (power // (2 * k + 1))
            power, k = power // (n * n), k + 1
        return total

    pi = 4 * (4 * arctan_inverse(5) - arctan_inverse(239))  # Machin
    digits = (2 << (2 * bits - 72)) // pi
    assert digits == sum(w << 64 * k for k, w in enumerate(reversed(TWO_OVER_PI)))


@DTYPES
def test_powers(dtype: DType) -> None:
    generator = np.random.default_rng(2)
    count = 100000 if dtype is float32 else 20000
    for spread, exponent in ((8, 12), (0.1, 800), (80, 1), (1e-5, 1e6)):
        a = np.exp(generator.uniform(-spread, spread, count)).astype(dtype.name)
        y = generator.uniform(-exponent, exponent, count).astype(dtype.name)
        assert_within("pow", run("pow", a, y), a, y)


@DTYPES
def test_powers_of_special_values(dtype: DType) -> None:
    limits = np.finfo(dtype.name)
    positive = [
        0.0, math.inf, 1.0, 2.0, 3.0, 0.5, 1.5, 1e10, 2.0**24 - 1, 33.0, 149.0, 1000.0, 1074.0,
        0.9999, 1.0001, limits.max, limits.smallest_subnormal,
    ]  # fmt: skip
    values = np.array([*positive, *(-v for v in positive), math.nan], dtype.name)
    a, y = (m.ravel() for m in np.meshgrid(values, values))
    assert_within("pow", run("pow", a, y), a, y)


@DTYPES
def test_whole_powers_of_small_whole_numbers_are_exact(dtype: DType) -> None:
    a, y = (m.ravel().astype(dtype.name) for m in np.meshgrid(np.arange(1, 9), np.arange(7)))
    assert (run("pow", a, y) == a**y).all()


# -- operations ------------------------------------------------------------------------------------


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


def straight_operations(body: tuple[Stmt, ...]) -> int:
    """Count the operations of a body that no branch avoids."""
    roots = [getattr(s, "condition", None) or getattr(s, "value", None) for s in body]
    seen: set[int] = set()
    found = [e for root in roots if root is not None for e in E.walk(root, seen)]
    return sum(isinstance(e, Apply) and e.op != "bitcast" for e in found)


def test_hot_functions_take_few_operations() -> None:
    limits = {"exp": 22, "log": 26, "tanh": 30, "sigmoid": 23, "erf": 36, "sin": 24, "cos": 25}
    for name, limit in limits.items():
        (loop, _) = vector_kernel(name, float32).body
        assert isinstance(loop, For)
        count = straight_operations(loop.body)
        assert count <= limit, f"{name} takes {count} operations"


# -- angles in statements --------------------------------------------------------------------------

IN, OUT = Buffer("x", float32, (4,)), Buffer("o", float32, (2, 4))
PLACE = E.index(symbol("i"))


def expand_rows(*body: Stmt) -> Kernel:
    """Return a kernel over the 4 elements of IN, one at a time, expanded."""
    loop = For("i", E.index(symbol("begin")), E.index(symbol("end")), body)
    return expand(Kernel("rows", (IN, OUT), 1, (), (loop,)))


def branches(kernel: Kernel) -> int:
    (loop,) = kernel.body
    assert isinstance(loop, For)
    return sum(isinstance(statement, If) for statement in loop.body)


def check_rows(kernel: Kernel, first: Callable[..., Array], second: Callable[..., Array]) -> None:
    x = np.float32([0.5, -3, 1e30, 7e5])
    out = np.zeros((2, 4), np.float32)
    assert run_python(kernel, [x, out], [], 0, 4) == 0
    wide = x.astype(np.float64)
    np.testing.assert_allclose(out, [first(wide), second(wide)], rtol=3e-7)


def test_functions_of_one_angle_reduce_it_once() -> None:
    x = E.load(IN, PLACE)
    kernel = expand_rows(
        Let("s", E.apply("sin", x)),
        Let("c", E.apply("cos", x)),
        Store(OUT, PLACE, E.Use("s", float32)),
        Store(OUT, PLACE + 4, E.Use("c", float32)),
    )
    assert branches(kernel) == 1
    check_rows(kernel, np.sin, np.cos)


def test_an_angle_that_changed_is_reduced_again() -> None:
    register = E.Use("r", float32)
    kernel = expand_rows(
        Declare("r", E.load(IN, PLACE)),
        Store(OUT, PLACE, E.apply("sin", register)),
        Assign("r", register * 2.0),
        Store(OUT, PLACE + 4, E.apply("sin", register)),
    )
    assert branches(kernel) == 2
    check_rows(kernel, np.sin, lambda x: np.sin(2 * x))


def test_an_angle_of_an_inner_body_is_not_used_behind_it() -> None:
    x = E.load(IN, PLACE)
    always = E.const(True, bool_)
    kernel = expand_rows(
        If(always, (Let("s", E.apply("sin", x)), Store(OUT, PLACE, E.Use("s", float32)))),
        Let("t", E.apply("sin", x)),
        Store(OUT, PLACE + 4, E.Use("t", float32)),
    )
    assert branches(kernel) == 2  # the given one, and that of the second sine
    check_rows(kernel, np.sin, np.sin)


def test_angles_of_angles() -> None:
    x = E.load(IN, PLACE)
    kernel = expand_rows(
        Store(OUT, PLACE, E.apply("cos", E.apply("sin", x) * 3.0)),
        Store(OUT, PLACE + 4, E.apply("tan", x)),
    )
    assert branches(kernel) == 3
    check_rows(kernel, lambda x: np.cos(3 * np.sin(x)), np.tan)


def test_angles_in_a_reduction_stay_in_it() -> None:
    axis = Axis("k", 4)
    total = E.reduce("add", (axis,), E.apply("sin", E.load(IN, E.index(symbol("k")))))
    kernel = expand_rows(Store(OUT, PLACE, total))
    assert branches(kernel) == 0
    (loop,) = kernel.body
    assert isinstance(loop, For)
    (store,) = loop.body
    assert isinstance(store, Store)
    x = np.float32([0.5, -3, 1e30, 7e5])
    got = evaluate_expr(store.value, {"i": 0}, {"x": x})
    assert not remaining(store.value)
    np.testing.assert_allclose(got, np.sin(x.astype("f8")).sum(), rtol=1e-6)


# -- the pass itself -------------------------------------------------------------------------------


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
    store, ahead = Store(out, offset, x, mask=small), Prefetch(out, offset)
    inner = (Let("a", x), Declare("b", x), Assign("b", x), store, ahead, Fail(1, (offset,)))
    body = (For("i", zero, four, (If(small, inner, inner),)), For("j", offset, offset, ()))
    kernel = Kernel("k", (out,), 1, (), body)
    text = repr(expand(kernel))
    assert "'exp'" in repr(kernel)
    assert "'exp'" not in text and "'fma'" in text

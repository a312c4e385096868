"""Exponentials, logarithms, trigonometry, powers and rounding; integers become floating first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.ir.expr import Const, Expr, Index
from graphc.ir.op import NUMBERS, Binary, Sample, Spec, Unary, sample
from graphc.ir.ops.arithmetic import NumberBinary, NumberUnary, copy_sign, sqrt, square
from graphc.ir.ops.comparison import (
    binary_samples,
    equal,
    greater_equal,
    logical_and,
    unary_samples,
    where,
)
from graphc.ir.scalar_math import REFERENCES
from graphc.ir.scalar_math import erf as erf_reference
from graphc.ir.types import DType, float64, int32, int64

_INFINITY = float("inf")
_PI, _PI_REST = math.pi, 1.2246467991473532e-16  # their sum is pi to 106 bits


def _applied(operation: str) -> Any:
    return lambda k, x: k.apply(operation, x)


def _elementary(
    name: str,
    doc: str,
    vjp: Any,
    *,
    lower: Any = None,
    reference: Any = None,
    samples: tuple[Sample, ...] = (),
) -> Unary:
    return Unary(
        name,
        doc,
        lower=lower or _applied(name),
        reference=reference or getattr(np, name),
        vjp=vjp,
        floating=True,
        samples=samples or unary_samples(),
    )


# -- exponentials and logarithms ---------------------------------------------------------------

exp = _elementary("exp", "Return ``e**x``.", lambda g, y, x: (g * y,))
exp2 = _elementary(
    "exp2",
    "Return ``2**x``.",
    lambda g, y, x: (g * y * math.log(2.0),),
    lower=lambda k, x: k.apply("pow", k.const(2, x.dtype), x),
)
expm1 = _elementary(
    "expm1", "Return ``e**x - 1``, accurate near 0.", lambda g, y, x: (g * (y + 1.0),)
)
_POSITIVE = unary_samples(0.3, 4.0)
log = _elementary(
    "log", "Return the natural logarithm.", lambda g, y, x: (g / x,), samples=_POSITIVE
)
log2 = _elementary(
    "log2",
    "Return the logarithm to base 2.",
    lambda g, y, x: (g / (x * math.log(2.0)),),
    lower=lambda k, x: k.log(x) * (1.0 / math.log(2.0)),
    samples=_POSITIVE,
)
log10 = _elementary(
    "log10",
    "Return the logarithm to base 10.",
    lambda g, y, x: (g / (x * math.log(10.0)),),
    lower=lambda k, x: k.log(x) * (1.0 / math.log(10.0)),
    samples=_POSITIVE,
)
log1p = _elementary(
    "log1p",
    "Return ``log(1 + x)``, accurate near 0.",
    lambda g, y, x: (g / (x + 1.0),),
    samples=unary_samples(-0.6, 3.0),
)


# -- trigonometry ------------------------------------------------------------------------------

sin: Unary = _elementary(
    "sin", "Return the sine of an angle in radians.", lambda g, y, x: (g * cos(x),)
)
cos: Unary = _elementary(
    "cos", "Return the cosine of an angle in radians.", lambda g, y, x: (-g * sin(x),)
)
tan = _elementary(
    "tan",
    "Return the tangent of an angle in radians.",
    lambda g, y, x: (g * (square(y) + 1.0),),
    samples=unary_samples(-1.2, 1.2),
)
_INSIDE = unary_samples(-0.8, 0.8)
arcsin = _elementary(
    "arcsin",
    "Return the angle in -pi/2 .. pi/2 whose sine is ``x``.",
    lambda g, y, x: (g / sqrt((1.0 - x) * (1.0 + x)),),
    lower=_applied("asin"),
    samples=_INSIDE,
)
arccos = _elementary(
    "arccos",
    "Return the angle in 0 .. pi whose cosine is ``x``.",
    lambda g, y, x: (-g / sqrt((1.0 - x) * (1.0 + x)),),
    lower=_applied("acos"),
    samples=_INSIDE,
)
arctan = _elementary(
    "arctan",
    "Return the angle in -pi/2 .. pi/2 whose tangent is ``x``.",
    lambda g, y, x: (g / (square(x) + 1.0),),
    lower=_applied("atan"),
)


def _arctan2(k: Any, y: Expr, x: Expr) -> Any:
    tall, wide = k.apply("abs", y), k.apply("abs", x)
    longer, shorter = k.maximum(tall, wide), k.minimum(tall, wide)
    one = k.const(1, x.dtype)
    ratio = shorter / k.select(longer.eq(0), one, longer)
    ratio = k.select(shorter.eq(_INFINITY), one, ratio)
    angle = k.apply("atan", ratio)
    angle = k.select(tall > wide, (_PI_REST / 2 - angle) + _PI / 2, angle)
    backwards = copy_sign(one, x) < 0
    rest = _pi_rest(x.dtype)
    return copy_sign(k.select(backwards, (rest - angle) + _PI, angle), y)


def _pi_rest(dtype: DType) -> float:
    """Return what the type's own pi lacks of pi."""
    return _PI_REST if dtype is float64 else math.pi - float(np.float32(math.pi))


arctan2 = Binary(
    "arctan2",
    "Return the angle in -pi .. pi of the point ``(b, a)``: ``arctan(a / b)`` in its quadrant.",
    lower=_arctan2,
    reference=np.arctan2,
    vjp=lambda g, y, a, b: (
        g * b / (square(a) + square(b)),
        -g * a / (square(a) + square(b)),
    ),
    floating=True,
    samples=binary_samples(),
)
degrees = _elementary(
    "degrees",
    "Return an angle given in radians in degrees.",
    lambda g, y, x: (g * (180.0 / math.pi),),
    lower=lambda k, x: x * (180.0 / math.pi),
)
radians = _elementary(
    "radians",
    "Return an angle given in degrees in radians.",
    lambda g, y, x: (g * (math.pi / 180.0),),
    lower=lambda k, x: x * (math.pi / 180.0),
)


# -- hyperbolic functions and their like ---------------------------------------------------------

sinh: Unary = _elementary("sinh", "Return the hyperbolic sine.", lambda g, y, x: (g * cosh(x),))
cosh: Unary = _elementary("cosh", "Return the hyperbolic cosine.", lambda g, y, x: (g * sinh(x),))
tanh = _elementary("tanh", "Return the hyperbolic tangent.", lambda g, y, x: (g * (1.0 - y * y),))
arcsinh = _elementary(
    "arcsinh",
    "Return the inverse hyperbolic sine.",
    lambda g, y, x: (g / sqrt(square(x) + 1.0),),
    lower=_applied("asinh"),
)
arccosh = _elementary(
    "arccosh",
    "Return the inverse hyperbolic cosine; NaN below 1.",
    lambda g, y, x: (g / sqrt((x - 1.0) * (x + 1.0)),),
    lower=_applied("acosh"),
    samples=unary_samples(1.2, 4.0),
)
arctanh = _elementary(
    "arctanh",
    "Return the inverse hyperbolic tangent; infinite at -1 and 1, NaN beyond.",
    lambda g, y, x: (g / ((1.0 - x) * (1.0 + x)),),
    lower=_applied("atanh"),
    samples=_INSIDE,
)
erf = _elementary(
    "erf",
    "Return the error function, ``2 / sqrt(pi)`` times the integral of ``exp(-t*t)`` from 0.",
    lambda g, y, x: (g * exp(-square(x)) * (2.0 / math.sqrt(math.pi)),),
    reference=erf_reference,
)
sigmoid = _elementary(
    "sigmoid",
    "Return ``1 / (1 + exp(-x))``.",
    lambda g, y, x: (g * (y * (1.0 - y)),),
    reference=REFERENCES["sigmoid"],
)


def _softplus(k: Any, x: Expr) -> Any:
    return k.maximum(x, 0) + k.apply("log1p", k.exp(-k.apply("abs", x)))


softplus = _elementary(
    "softplus",
    "Return ``log(1 + exp(x))`` without overflow.",
    lambda g, y, x: (g * sigmoid(x),),
    lower=_softplus,
    reference=lambda x: np.logaddexp(x.dtype.type(0), x),
)
log_sigmoid = _elementary(
    "log_sigmoid",
    "Return ``log(sigmoid(x))`` without overflow.",
    lambda g, y, x: (g * sigmoid(-x),),
    lower=lambda k, x: -_softplus(k, -x),
    reference=lambda x: -np.logaddexp(x.dtype.type(0), -x),
)


# -- powers --------------------------------------------------------------------------------------


def _constant(scalar: Expr) -> Any:
    """Return the number that a scalar is in every kernel, or None."""
    if isinstance(scalar, Const):
        return scalar.value
    return scalar.dim if isinstance(scalar, Index) and isinstance(scalar.dim, int) else None


def _power(k: Any, a: Expr, b: Expr) -> Any:
    exponent = _constant(b)
    if a.dtype.floating:
        small = exponent is not None and exponent in (-2, -1, 0, 1, 2, 3)
        return _float_power(k, a, int(exponent)) if small else k.apply("pow", a, b)
    if exponent is not None and exponent >= 0:
        return _square_and_multiply(k, a, exponent)
    return _integer_power(k, a, b)


def _float_power(k: Any, a: Expr, exponent: int) -> Any:
    one = k.const(1, a.dtype)
    raised = _square_and_multiply(k, a, exponent if exponent > 0 else -exponent)
    return one / raised if exponent < 0 else raised


def _square_and_multiply(k: Any, base: Expr, exponent: int) -> Any:
    result = None
    while exponent:
        if exponent & 1:
            result = base if result is None else result * base
        exponent >>= 1
        base = base * base if exponent else base
    return k.const(1, base.dtype) if result is None else result


def _integer_power(k: Any, base: Expr, exponent: Expr) -> Any:
    """Square and multiply over every bit of the exponent: a kernel has no loop to cut short."""
    dtype, one = base.dtype, k.const(1, base.dtype)
    bits = 8 * dtype.item_bytes - (dtype.kind == "i")
    result, factor, rest = one, base, exponent
    for bit in range(bits):
        result = k.select((rest & 1).ne(0), result * factor, result)
        if bit + 1 < bits:
            factor, rest = factor * factor, rest >> 1
    if dtype.kind == "u":
        return result
    unit = k.select(base.eq(1) | (base.eq(-1) & (exponent & 1).eq(0)), one, k.const(0, dtype))
    unit = k.select(base.eq(-1) & (exponent & 1).ne(0), k.const(-1, dtype), unit)
    return k.select(exponent < 0, unit, result)


def _power_reference(a: np.ndarray, b: np.ndarray) -> Any:
    if a.dtype.kind != "i":
        return np.power(a, b)
    odd = (b & 1) != 0
    unit = np.where(a == -1, np.where(odd, -1, 1), a == 1)
    return np.where(b < 0, unit, np.power(a, np.maximum(b, 0))).astype(a.dtype)


def _power_vjp(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, ...]:
    # 0**0 is 1 whatever the base does: its exponent must not reach -1, where 0 * inf is NaN.
    flat = logical_and(equal(a, 0.0), equal(b, 0.0))
    by_base = g * b * power(a, where(flat, 1.0, b) - 1.0)
    # At a base of 0 and an exponent of at least 0 the power stays as the exponent changes.
    held = logical_and(equal(a, 0.0), greater_equal(b, 0.0))
    by_exponent = where(held, 0.0, g * y * log(where(held, 1.0, a)))
    return (by_base, by_exponent)


power = NumberBinary(
    "power",
    "Return ``a**b``. An integer to a negative power is 0 (1 or -1 of a unit), which NumPy refuses."
    " The gradient at ``0**0`` is 0, as is that of the exponent where the base is 0.",
    lower=_power,
    reference=_power_reference,
    vjp=_power_vjp,
    dtypes=NUMBERS,
    samples=(
        *binary_samples((0.3, 4.0), (-2.0, 3.0)),
        sample(Spec((20,), -4, 4, dtype=int32), Spec((20,), -2, 9, dtype=int32)),
        sample(Spec((20,), -4, 4, dtype=int64), Spec((), 3, 4, dtype=int64)),
    ),
)


# -- rounding ------------------------------------------------------------------------------------


def _rounding(name: str, doc: str, reference: Any) -> NumberUnary:
    return NumberUnary(
        name,
        f"Return ``x`` rounded {doc}; integers stay. No gradient flows through.",
        lower=lambda k, x: k.apply(name, x) if x.dtype.floating else x,
        reference=lambda x: reference(x) if x.dtype.kind == "f" else x,
        dtypes=NUMBERS,
        samples=(*unary_samples(-9.0, 9.0), sample(Spec((9,), -3, 3))),
    )


floor = _rounding("floor", "down", np.floor)
ceil = _rounding("ceil", "up", np.ceil)
trunc = _rounding("trunc", "towards 0", np.trunc)
round = _rounding("round", "to the nearest whole number, halves to the even one", np.rint)

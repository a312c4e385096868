"""Exponentials, logarithms, powers and erf as arithmetic, for float32 and float64.

Each function takes register tiles of any shape and returns an expression of machine operations
without branches: what other code would branch on is selected. All are right at infinities, NaN,
zeros of both signs, denormal operands and denormal results. Errors are below two units in the last
place of the true value; `docs/numerics.md` has the largest of each function.

Polynomials are in `graphc.passes.polynomials`. Arguments are reduced by Cody and Waite's method
with fused multiply-adds (W. J. Cody and W. Waite, *Software Manual for the Elementary Functions*,
1980).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir import expr as E
from graphc.ir.expr import Expr
from graphc.ir.types import DType, float32, float64, int32, int64
from graphc.passes import polynomials

INFINITY = math.inf
NAN = math.nan
LOG2_E = 1.0 / math.log(2.0)


@dataclass(frozen=True, slots=True)
class Format:
    """What the functions must know of a floating type.

    Attributes
    ----------
    dtype, bits : DType
        The type, and the signed integer type of its size.
    fraction : int
        Number of explicit fraction bits.
    exp_low, exp_high : float
        Where ``exp`` has surely underflowed to 0 or overflowed.
    expm1_low, tanh_high, erf_high : float
        Where ``expm1`` is -1, and ``tanh`` and ``erf`` are 1, after rounding; ``sigmoid`` is 1 from
        ``-expm1_low`` on.
    ln2, half_pi : tuple of float
        Parts whose sum is the constant to two or three times the type's precision.
    ln2_head : tuple of float
        The same in two parts; any exponent times the first is exact.
    two_thirds : tuple of float
        As ``ln2``.
    far_angle : float
        Greatest magnitude that three parts of pi/2 reduce.
    """

    dtype: DType
    bits: DType
    fraction: int
    exp_low: float
    exp_high: float
    expm1_low: float
    tanh_high: float
    erf_high: float
    ln2: tuple[float, float]
    ln2_head: tuple[float, float]
    half_pi: tuple[float, float, float]
    two_thirds: tuple[float, float]
    far_angle: float

    @property
    def one(self) -> int:
        """Bits of 1.0."""
        return ((1 << (8 * self.dtype.item_bytes - self.fraction - 2)) - 1) << self.fraction

    @property
    def sign(self) -> int:
        """Bits of -0.0, as a signed integer."""
        return -(1 << (8 * self.dtype.item_bytes - 1))

    @property
    def magic(self) -> float:
        """A number so large that adding it rounds to integers, which its low bits then hold."""
        return 1.5 * 2.0**self.fraction

    @property
    def smallest_normal(self) -> float:
        """Smallest number of full precision."""
        return 2.0**-126 if self.dtype is float32 else 2.0**-1022


FORMATS = {
    float32: Format(
        float32, int32, 23, -104.5, 89.5, -18.0, 10.0, 3.95,
        (0.6931471824645996, -1.904654e-09),
        (0.693145751953125, 1.4286068e-06),
        (1.5707963, 7.5497894e-08, 5.3903025e-15),
        (0.6666667, -1.9868216e-08),
        2.0**17,
    ),
    float64: Format(
        float64, int64, 52, -746.0, 710.6, -38.0, 20.0, 5.95,
        (0.6931471805599453, 2.3190468138462996e-17),
        (0.6931471805598903, 5.497923018708371e-14),
        (1.5707963267948966, 6.123233995736765e-17, 1.0828566739219139e-32),
        (0.6666666666666666, 3.700743415417188e-17),
        2.0**46,
    ),
}  # fmt: skip


def format_of(x: Expr) -> Format:
    """Return the format of an expression's type."""
    return FORMATS[x.dtype]


# -- building blocks -------------------------------------------------------------------------------


def fma(a: E.Scalar, b: E.Scalar, c: E.Scalar) -> Expr:
    """Return ``a * b + c``, rounded once."""
    return E.apply("fma", a, b, c)


def magnitude(x: Expr) -> Expr:
    """Return ``|x|``."""
    return E.apply("abs", x)


def number(value: float, like: Expr) -> Expr:
    """Return a constant of an expression's type."""
    return E.const(value, like.dtype)


def polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Return ``c[0] + c[1] * x + ...`` by Horner's rule."""
    total = number(coefficients[-1], x)
    for coefficient in reversed(coefficients[:-1]):
        total = fma(total, x, coefficient)
    return total


def table(name: polynomials.Table, x: Expr) -> tuple[float, ...]:
    """Return the coefficients for an expression's type."""
    return name[x.dtype]


# A comparison with NaN fails, so both of these let NaN through; on most machines they are one
# instruction, where "min" and "max" of the IR are several.


def at_least(x: Expr, low: float) -> Expr:
    """Return the larger of ``x`` and a constant; NaN stays."""
    return E.select(x < low, low, x)


def at_most(x: Expr, high: float) -> Expr:
    """Return the smaller of ``x`` and a constant; NaN stays."""
    return E.select(x > high, high, x)


def with_sign(positive: Expr, x: Expr) -> Expr:
    """Return a number that is not negative with the sign of ``x``."""
    form = format_of(x)
    sign = E.bitcast(x, form.bits) & form.sign
    return E.bitcast(E.bitcast(positive, form.bits) | sign, form.dtype)


def fast_two_sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Return the rounded sum and its exact error, for ``|a| >= |b|`` or ``a == 0`` (Dekker)."""
    total = a + b
    return total, b - (total - a)


def two_sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Return the rounded sum and its exact error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


# -- exponentials ----------------------------------------------------------------------------------


def reduce_exponent(x: Expr, scale: float = 1.0) -> tuple[Expr, Expr]:
    """Return ``(t, r)`` with ``scale * x == n*ln(2) + r``, |r| <= ln(2)/2; ``n`` in the bits of t.

    ``scale`` is a power of two, of either sign.
    """
    form = format_of(x)
    t = fma(x, LOG2_E * scale, form.magic)
    n = t - form.magic
    r = fma(n, -form.ln2[0], x if scale == 1.0 else x * scale)
    return E.bitcast(t, form.bits), fma(n, -form.ln2[1], r)


def power_of_two(t: Expr, form: Format, shift: int = 0) -> Expr:
    """Return ``2**(n + shift)`` for the integer ``n`` in the low bits of ``t``; normal results."""
    one = form.one + (shift << form.fraction)
    return E.bitcast((t << form.fraction) + one, form.dtype)


def scaled(p: Expr, t: Expr) -> Expr:
    """Return ``p * 2**n``, where the power alone may overflow or underflow."""
    form = format_of(p)
    return E.apply("scale", p, E.bitcast(t, form.dtype) - form.magic)


def exp_kernel(r: Expr) -> Expr:
    """Return ``e**r`` for a reduced ``r``."""
    return fma(fma(polynomial(r, table(polynomials.EXP, r)), r, 1.0), r, 1.0)


def exp(x: Expr) -> Expr:
    """Return ``e**x``."""
    form = format_of(x)
    t, r = reduce_exponent(at_most(at_least(x, form.exp_low), form.exp_high))
    return scaled(exp_kernel(r), t)


def expm1(x: Expr) -> Expr:
    """Return ``e**x - 1``: ``(2**n - 1 + 2**n * r) + 2**n * r**2 * P(r)``, in quarters.

    A quarter of ``2**n`` does not overflow before the result does.
    """
    form = format_of(x)
    t, r = reduce_exponent(at_most(at_least(x, form.expm1_low), form.exp_high))
    quarter = power_of_two(t, form, -2)
    first = fma(quarter, r, quarter - 0.25)
    total = fma(quarter * (r * r), polynomial(r, table(polynomials.EXPM1, r)), first)
    tiny = magnitude(x) < 2.0 ** -(form.fraction + 2)
    return E.select(tiny, x, total * 4.0)


def quarter_exp(a: Expr) -> Expr:
    """Return ``e**a / 4`` for ``a >= 0``, which does not overflow before ``sinh(a)`` does."""
    form = format_of(a)
    t, r = reduce_exponent(at_most(a, form.exp_high))
    return exp_kernel(r) * power_of_two(t, form, -2)


def sinh(x: Expr) -> Expr:
    """Return the hyperbolic sine: ``x + x**3 * P(x**2)`` up to 1, then from exp(|x|)."""
    a, z = magnitude(x), x * x
    near = fma(a * z, polynomial(z, table(polynomials.SINH, x)), a)
    quarter = quarter_exp(a)
    far = fma(quarter, 2.0, number(-0.125, x) / quarter)
    return with_sign(E.select(a < 1.0, near, far), x)


def cosh(x: Expr) -> Expr:
    """Return the hyperbolic cosine, ``(exp(|x|) + exp(-|x|)) / 2``."""
    quarter = quarter_exp(magnitude(x))
    return fma(quarter, 2.0, number(0.125, x) / quarter)


def tanh(x: Expr) -> Expr:
    """Return the hyperbolic tangent, ``e / (e + 2)`` with ``e = expm1(2 * |x|)``.

    Next to 0 it is that of ``-|x|``: there the divisor is just below a power of two, where it is
    rounded most finely.
    """
    form = format_of(x)
    a = magnitude(x)
    y = E.select(a < 0.173, -a, at_most(a, form.tanh_high))
    t = fma(y, 2.0 * LOG2_E, form.magic)
    n = t - form.magic
    r = fma(n, -form.ln2[0], y * 2.0)
    power = power_of_two(E.bitcast(t, form.bits), form)
    tail = fma(r * r, polynomial(r, table(polynomials.EXPM1_FINE, x)), n * -form.ln2[1])
    e = fma(power, tail, fma(power, r, power - 1.0))
    return with_sign(magnitude(e / (e + 2.0)), x)


def sigmoid(x: Expr) -> Expr:
    """Return ``1 / (1 + exp(-x))``, also where that is denormal.

    The denominator, ``1 + 2**n + 2**n * expm1(r)``, is rounded once. Both sides of the division
    are scaled so far down that nothing overflows.
    """
    form = format_of(x)
    shift = -64 if form.dtype is float32 else -512
    t, r = reduce_exponent(at_least(at_most(x, -form.expm1_low), form.exp_low), -1.0)
    power = power_of_two(t, form, shift)
    rest = fma(r * r, polynomial(r, table(polynomials.EXPM1, r)), r)
    total = power + 2.0**shift
    lost = number(2.0**shift, x) - (total - power)
    return number(2.0**shift, x) / (total + fma(power, rest, lost))


# -- logarithms ------------------------------------------------------------------------------------


def split_exponent(x: Expr, lowest: float) -> tuple[Expr, Expr]:
    """Return ``(e, m)`` with ``x == 2**n * m``, ``lowest <= m < 2 * lowest``; e holds n's bits.

    ``e`` is ``n`` shifted to the place of the exponent. ``x`` is positive and normal.
    """
    form = format_of(x)
    low = int(lowest * 2**form.fraction * 2) - 2**form.fraction
    bits = E.bitcast(x, form.bits)
    start = form.one - (1 << form.fraction) + low
    e = (bits - start) & -(1 << form.fraction)
    return e, E.bitcast(bits - e, form.dtype)


def log_kernel(f: Expr) -> Expr:
    """Return ``log(1 + f)`` for ``|f| <= 1/3``."""
    return fma(f * f, polynomial(f, table(polynomials.LOG, f)), f)


def normalized(x: Expr) -> tuple[Expr, Expr]:
    """Return ``(y, n)`` with ``x == 2**n * y`` and ``y`` normal; ``n`` floating."""
    form = format_of(x)
    denormal = x < form.smallest_normal
    y = E.select(denormal, x * 2.0**form.fraction, x)
    return y, E.select(denormal, number(-form.fraction, x), number(0.0, x))


def log_domain(result: Expr, x: Expr, zero: float) -> Expr:
    """Return the logarithm with its values at ``zero``, below it, at infinity and NaN."""
    outside = E.select(x.eq(zero), number(-INFINITY, x), number(NAN, x))
    return E.select(x > zero, E.select(x < INFINITY, result, x), outside)


def log(x: Expr) -> Expr:
    """Return the natural logarithm."""
    form = format_of(x)
    y, shift = normalized(x)
    e, m = split_exponent(y, 2.0 / 3.0)
    n = fma(E.cast(e, x.dtype), 2.0**-form.fraction, shift)
    return log_domain(fma(n, form.ln2[0], log_kernel(m - 1.0)), x, 0.0)


def log1p(x: Expr, low: Expr | None = None) -> Expr:
    """Return ``log(1 + x + low)``, with a ``low`` that rounding lost from ``x``; none is 0.

    What rounding ``1 + x`` loses goes the same way: into the reduced argument and its own rest.
    """
    form = format_of(x)
    one = number(1.0, x)
    u, lost = two_sum(one, x)
    lost = lost if low is None else lost + low
    e, m = split_exponent(u, 2.0 / 3.0)
    shrink = E.bitcast(E.apply("max", E.const(form.one, form.bits) - e, 0), x.dtype)
    n = E.cast(e, x.dtype) * 2.0**-form.fraction
    f, rest = fast_two_sum(m - 1.0, lost * shrink)
    rest = fma(n, form.ln2[1], rest)
    tail = fma(f * f, polynomial(f, table(polynomials.LOG, f)), rest)
    result = fma(n, form.ln2[0], f + tail)
    return E.select(x.eq(0.0), x, log_domain(result, x, -1.0))


def asinh(x: Expr) -> Expr:
    """Return the inverse hyperbolic sine: ``log1p(a + a**2 / (1 + sqrt(a**2 + 1)))``."""
    a = magnitude(x)
    large = a > 2.0 ** (format_of(x).fraction // 2 + 2)
    safe = E.select(large, number(1.0, x), a)
    square = safe * safe
    root = E.apply("sqrt", square + 1.0)
    inner, low = fast_two_sum(safe, square / (root + 1.0))
    more = E.select(large, number(math.log(2.0), x), number(0.0, x))
    return with_sign(log1p(E.select(large, a - 1.0, inner), low) + more, x)


def acosh(x: Expr) -> Expr:
    """Return the inverse hyperbolic cosine: ``log1p(t + sqrt(2t + t**2))``, ``t = x - 1``."""
    t = E.select(x < 1.0, number(NAN, x), x - 1.0)
    large = t > 2.0 ** (format_of(x).fraction // 2 + 2)
    safe = E.select(large, number(1.0, x), t)
    inner, low = fast_two_sum(E.apply("sqrt", fma(safe, safe, safe * 2.0)), safe)
    more = E.select(large, number(math.log(2.0), x), number(0.0, x))
    return log1p(E.select(large, t, inner), low) + more


def atanh(x: Expr) -> Expr:
    """Return the inverse hyperbolic tangent: ``log1p(2a / (1 - a)) / 2``.

    Up to 1/2 what rounding lost from the divisor and the quotient is recovered; beyond, the divisor
    is exact and the logarithm large. ``1 / (1 - a)`` is ``1 + q/2`` for the quotient ``q``.
    """
    a = magnitude(x)
    one = number(1.0, x)
    divisor, divisor_low = fast_two_sum(one, -a)
    q = (a + a) / divisor
    rest = fma(-q, divisor_low, fma(-q, divisor, a + a))
    low = E.select(a < 0.5, rest * fma(q, 0.5, 1.0), number(0.0, x))
    tiny = a < 2.0 ** -(format_of(x).fraction // 2 + 2)
    return E.select(tiny, x, with_sign(log1p(q, low) * 0.5, x))


# -- powers ----------------------------------------------------------------------------------------


def log_in_two(x: Expr) -> tuple[Expr, Expr]:
    """Return the logarithm of a positive finite number as a rounded value and a correction.

    ``log(m) = 2s + s**3 * (2/3 + s**2 * P(s**2))`` with ``s = (m - 1) / (m + 1)``; the first two
    terms are computed in twice the precision.
    """
    form = format_of(x)
    y, shift = normalized(x)
    e, m = split_exponent(y, math.sqrt(0.5))
    f, sum_ = m - 1.0, m + 1.0
    sum_low = f - (sum_ - 2.0)
    s = f / sum_
    s_low = fma(-s, sum_low, fma(-s, sum_, f)) / sum_
    z = s * s
    z_low = fma(s + s, s_low, fma(s, s, -z))
    tail = z * polynomial(z, table(polynomials.LOG_TAIL, x))
    q, q_low = fast_two_sum(number(form.two_thirds[0], x), tail)
    q_low = q_low + form.two_thirds[1]
    cube = s * z
    cube_low = fma(s_low, z, fma(s, z_low, fma(s, z, -cube)))
    u = cube * q
    u_low = fma(cube_low, q, fma(cube, q_low, fma(cube, q, -u)))
    high, low = fast_two_sum(s + s, u)
    low = low + fma(s_low, 2.0, u_low)
    n = fma(E.cast(e, x.dtype), 2.0**-form.fraction, shift)
    total, rest = fast_two_sum(n * form.ln2_head[0], high)
    return fast_two_sum(total, rest + fma(n, form.ln2_head[1], low))


def power_of_positive(a: Expr, y: Expr) -> Expr:
    """Return ``a**y`` for ``a >= 0``; NaN for 0 and infinity times each other in the exponent."""
    form = format_of(a)
    high, low = log_in_two(a)
    high = E.select(a.eq(0.0), number(-INFINITY, a), E.select(a < INFINITY, high, a))
    product = y * high
    # Far beyond the range of exp nothing is lost by clamping, and infinities stay out of the fma.
    inside = magnitude(product) < 2.0 * -form.exp_low
    correction = fma(y, low, fma(y, high, -product))
    clamped = at_most(at_least(product, form.exp_low), form.exp_high)
    t, r = reduce_exponent(clamped)
    return scaled(exp_kernel(E.select(inside, r + correction, r)), t)


def pow(x: Expr, y: Expr) -> Expr:
    """Return ``x**y`` with the special values of C's ``pow``."""
    a, one = magnitude(x), number(1.0, x)
    result = E.select(a.eq(1.0) & y.eq(y), one, power_of_positive(a, y))
    whole = E.apply("floor", y).eq(y)
    half = y * 0.5
    odd = whole & E.apply("floor", half).ne(half) & (magnitude(y) < INFINITY)
    result = E.select(odd, with_sign(result, x), result)
    invalid = (x < 0.0) & (x > -INFINITY) & ~whole
    result = E.select(invalid, number(NAN, x), result)
    return E.select(y.eq(0.0) | x.eq(1.0), one, result)


# -- error function --------------------------------------------------------------------------------


def erf(x: Expr) -> Expr:
    """Return the error function: ``x + x * P(x**2)`` up to 1, then ``1 - exp(-Q(x))``."""
    form = format_of(x)
    a = magnitude(x)
    near = fma(x, polynomial(x * x, table(polynomials.ERF_SMALL, x)), x)
    q = polynomial(at_most(a, form.erf_high), table(polynomials.ERF_LARGE, x))
    t, r = reduce_exponent(-q)
    far = number(1.0, x) - exp_kernel(r) * power_of_two(t, form)
    return E.select(a < 1.0, near, with_sign(far, x))

"""Trigonometric functions and their inverses as arithmetic, for float32 and float64.

As in `graphc.passes.elementary`, results are at most two steps of the type away from the correctly
rounded ones, those of ``tan`` three (measured: errors below 2.5 units in the last place, of ``tan``
below 3.5).
"""

from __future__ import annotations

import math

from graphc.ir import expr as E
from graphc.ir.expr import Expr
from graphc.passes import polynomials
from graphc.passes.elementary import (
    NAN,
    fma,
    format_of,
    magnitude,
    number,
    polynomial,
    table,
    with_sign,
)


def reduce_angle(x: Expr) -> tuple[Expr, Expr]:
    """Return ``(t, r)`` with ``x == q*pi/2 + r``, |r| <= pi/4; ``q`` in the low bits of ``t``.

    ``r`` is NaN where |x| is beyond 2**22 (float32) or 2**50 (float64): there three parts of pi/2
    no longer give the angle, and no number would be right. Beyond 2**17 (float32) or 2**46 the
    quotient may be off by a little, ``r`` a little beyond pi/4, and errors twice as large.
    """
    form = format_of(x)
    t = fma(x, 2.0 / math.pi, form.magic)
    q = t - form.magic
    r = x
    for part in form.half_pi:
        r = fma(q, -part, r)
    inside = magnitude(x) <= form.trigonometric
    return E.bitcast(t, form.bits), E.select(inside, r, number(NAN, x))


def sin_and_cos(r: Expr) -> tuple[Expr, Expr]:
    """Return sine and cosine of a reduced angle."""
    z = r * r
    sine = r * fma(z, polynomial(z, table(polynomials.SIN, r)), 1.0)
    inner = fma(z, polynomial(z, table(polynomials.COS, r)), -0.5)
    return sine, fma(z, inner, 1.0)


def quadrant_of(sine: Expr, cosine: Expr, q: Expr) -> Expr:
    """Return the sine of ``q*pi/2 + r`` from sine and cosine of ``r``."""
    form = format_of(sine)
    chosen = E.select((q & 1).ne(0), cosine, sine)
    flip = (q & 2) << (8 * form.dtype.item_bytes - 2)
    return E.bitcast(E.bitcast(chosen, form.bits) ^ flip, form.dtype)


def sin(x: Expr) -> Expr:
    """Return the sine; NaN beyond 2**22 (float32) and 2**50 (float64)."""
    q, r = reduce_angle(x)
    return quadrant_of(*sin_and_cos(r), q)


def cos(x: Expr) -> Expr:
    """Return the cosine; NaN beyond 2**22 (float32) and 2**50 (float64)."""
    q, r = reduce_angle(x)
    return quadrant_of(*sin_and_cos(r), q + 1)


def tan(x: Expr) -> Expr:
    """Return the tangent; NaN beyond 2**22 (float32) and 2**50 (float64)."""
    q, r = reduce_angle(x)
    sine, cosine = sin_and_cos(r)
    odd = (q & 1).ne(0)
    return E.select(odd, -cosine, sine) / E.select(odd, sine, cosine)


def asin_parts(x: Expr) -> tuple[Expr, Expr, Expr]:
    """Return ``(near, s, rest)``: ``s + rest`` is ``asin(|x|)`` where |x| <= 1/2 (``near``).

    Elsewhere it is half of ``acos(|x|)``.
    """
    a = magnitude(x)
    near = a <= 0.5
    z = E.select(near, a * a, fma(a, -0.5, 0.5))
    s = E.select(near, a, E.apply("sqrt", z))
    return near, s, s * z * polynomial(z, table(polynomials.ASIN, x))


def asin(x: Expr) -> Expr:
    """Return the angle in -pi/2 .. pi/2 whose sine is ``x``; NaN beyond 1."""
    high, low, _ = format_of(x).half_pi
    near, s, rest = asin_parts(x)
    first = fma(s, -2.0, high)
    lost = fma(s, -2.0, number(high, x) - first)
    far = first + (fma(rest, -2.0, low) + lost)
    return with_sign(E.select(near, s + rest, far), x)


def acos(x: Expr) -> Expr:
    """Return the angle in 0 .. pi whose cosine is ``x``; NaN beyond 1."""
    high, low, _ = format_of(x).half_pi
    near, s, rest = asin_parts(x)
    p = s + rest
    side = with_sign(p, x)
    far = E.select(x < 0.0, fma(p, -2.0, 2.0 * low) + 2.0 * high, p + p)
    return E.select(near, (number(low, x) - side) + high, far)


def atan(x: Expr) -> Expr:
    """Return the angle in -pi/2 .. pi/2 whose tangent is ``x``."""
    high, low, _ = format_of(x).half_pi
    a, one, zero = magnitude(x), number(1.0, x), number(0.0, x)
    middle, steep = a > math.tan(math.pi / 8), a > math.tan(3 * math.pi / 8)
    top = E.select(steep, -one, E.select(middle, a - one, a))
    bottom = E.select(steep, a, E.select(middle, a + one, one))
    t = top / bottom
    z = t * t
    low = E.select(steep, number(low, x), E.select(middle, number(low / 2, x), zero))
    high = E.select(steep, number(high, x), E.select(middle, number(high / 2, x), zero))
    rest = fma(t * z, polynomial(z, table(polynomials.ATAN, x)), low)
    return with_sign((high + t) + rest, x)

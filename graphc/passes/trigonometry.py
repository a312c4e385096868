"""Trigonometric functions and their inverses as arithmetic, for float32 and float64.

As in `graphc.passes.elementary`, errors are below two units in the last place. An angle is first
reduced to ``q*pi/2 + r`` with |r| <= pi/4. Near 0 that is `near_angle`, a few multiply-adds. Far
away it is `far_angle`, exact over the whole range of the type, and ten times the work: `expand`
puts it behind a branch, which is taken where any element of a tile is far.

The far reduction is that of M. H. Payne and R. N. Hanek, *Radian reduction for trigonometric
functions*, 1983, doi:10.1145/1057600.1057602: of the product of an angle and 2/pi only the digits
around the point are computed, since the integer part matters modulo 4 alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc.ir import expr as E
from graphc.ir.expr import Expr
from graphc.ir.types import float32, float64, int64, uint32, uint64
from graphc.passes import polynomials
from graphc.passes.elementary import (
    INFINITY,
    NAN,
    fast_two_sum,
    fma,
    format_of,
    magnitude,
    number,
    polynomial,
    table,
    two_sum,
    with_sign,
)


class Angle(NamedTuple):
    """The angle ``q*pi/2 + r + low``, |r| <= pi/4.

    Attributes
    ----------
    q : Expr
        Signed integers of the type's size; only the last two bits have a meaning.
    r, low : Expr
        The rest and what rounding lost from it.
    """

    q: Expr
    r: Expr
    low: Expr


def near_angle(x: Expr) -> Angle:
    """Reduce an angle that is not `is_far`, with three parts of pi/2 (Cody and Waite).

    At the limit the quotient may be off by 1/256, and |r| that much beyond pi/4.
    """
    form = format_of(x)
    first, second, third = form.half_pi
    t = fma(x, 2.0 / math.pi, form.magic)
    q = t - form.magic
    start = fma(q, -first, x)  # exact
    middle = fma(q, -second, start)
    r = fma(q, -third, middle)
    step, step_low = two_sum(start, -r)
    low = fma(q, -third, fma(q, -second, step) + step_low)
    return Angle(E.bitcast(t, form.bits), r, low)


def is_far(x: Expr) -> Expr:
    """Whether an angle needs `far_angle`; infinities do, NaN does not."""
    return magnitude(x) > format_of(x).far_angle


def far_angle(x: Expr) -> Angle:
    """Reduce an angle that `is_far`, whatever its magnitude; NaN for infinities."""
    form = format_of(x)
    bits, exponent, levels, words = _FAR[form.dtype]
    whole = E.cast(E.bitcast(magnitude(x), bits), uint64)
    # The least digit of x has a place of its own among those of 2/pi: no digit before it matters.
    place = (whole >> form.fraction) - exponent
    digits = (whole & (1 << form.fraction) - 1) | 1 << form.fraction
    limbs = halves(window(place, levels, words))
    reduced = single_angle if form.dtype is float32 else double_angle
    q, r, low = reduced(digits, limbs)
    q, negative = E.cast(q, form.bits), x < 0.0
    r = E.select(magnitude(x) < INFINITY, r, NAN)
    return Angle(*(E.select(negative, -part, part) for part in (q, r, low)))


_FAR = {float32: (uint32, 127 + 17, 1, 2), float64: (uint64, 1023 + 46, 4, 3)}
"""Unsigned type, the exponent of ``far_angle`` as stored, and what `window` takes."""

_LOW = (1 << 32) - 1


def window(place: Expr, levels: int, count: int) -> list[Expr]:
    """Return ``count`` words of the digits of 2/pi from a place below ``64 * 2**levels`` on."""
    words = [E.const(word, uint64) for word in polynomials.TWO_OVER_PI[: count + 2**levels]]
    for level in reversed(range(levels)):
        skip = (place & (64 << level)).ne(0)
        pairs = zip(words, words[1 << level :])
        words = [E.select(skip, later, word) for word, later in pairs]
    shift = place & 63
    back = E.const(63, uint64) - shift
    return [a << shift | b >> 1 >> back for a, b in zip(words, words[1:], strict=False)]


def halves(words: Sequence[Expr]) -> list[Expr]:
    """Return the upper and the lower 32 bits of each word."""
    return [half for word in words for half in (word >> 32, word & _LOW)]


def nearest_quadrant(fixed: Expr) -> tuple[Expr, Expr]:
    """Split quadrants with 62 bits of fraction into the nearest integer and a signed rest."""
    q = (fixed + (1 << 61)) >> 62
    return q, E.bitcast(fixed - (q << 62), int64)


def single_angle(digits: Expr, limbs: Sequence[Expr]) -> Angle:
    """Multiply 24 digits by 96 of 2/pi, modulo 4: float32."""
    fixed = (digits * limbs[0] << 32) + digits * limbs[1] + (digits * limbs[2] >> 32)
    q, rest = nearest_quadrant(fixed)
    wide = E.cast(rest, float64) * (math.pi * 2.0**-63)
    r = E.cast(wide, float32)
    return Angle(q, r, E.cast(wide - E.cast(r, float64), float32))


def double_angle(digits: Expr, limbs: Sequence[Expr]) -> Angle:
    """Multiply 53 digits by 192 of 2/pi, modulo 4: float64."""
    upper, lower = digits >> 32, digits & _LOW
    # Sums of products by the weight of their lowest bit, each below 2**55 with what it carries.
    column = E.const(0, uint64)
    columns = []
    for k in reversed(range(5)):
        carried = (lower * limbs[k + 1] >> 32) + (column >> 32)
        column = (lower * limbs[k] & _LOW) + upper * limbs[k + 1] + carried
        columns.append(column & _LOW)
    _, fourth, third, second, first = columns
    q, top = nearest_quadrant(first << 32 | second)
    head = E.cast(top >> 32, float64) * 2.0**-30
    middle = E.cast(E.bitcast(top, uint64) & _LOW, float64) * 2.0**-62
    tail = E.cast(third << 32 | fourth, float64) * 2.0**-126
    high, low = fast_two_sum(head, middle)
    high, low = fast_two_sum(high, low + tail)
    half_pi, half_pi_low, _ = format_of(high).half_pi
    r = high * half_pi
    rest = fma(high, half_pi, -r) + fma(high, half_pi_low, low * half_pi)
    return Angle(q, *fast_two_sum(r, rest))


def whole_angle(x: Expr) -> Angle:
    """Reduce any angle: both ways, and a selection."""
    far = is_far(x)
    return Angle(*(E.select(far, a, b) for a, b in zip(far_angle(x), near_angle(x), strict=True)))


# -- functions of a reduced angle ------------------------------------------------------------------


def sine_of_rest(r: Expr) -> Expr:
    """Return the sine of a reduced angle; of -0.0 too."""
    z = r * r
    sine = fma(r * z, polynomial(z, table(polynomials.SIN, r)), r)
    return E.select(r.eq(0.0), r, sine)


def cosine_of_rest(r: Expr) -> Expr:
    """Return the cosine of a reduced angle."""
    z = r * r
    inner = fma(z, polynomial(z, table(polynomials.COS, r)), -0.5)
    return fma(z, inner, 1.0)


def sine_of(q: Expr, r: Expr) -> Expr:
    """Return the sine of ``q*pi/2 + r``."""
    form = format_of(r)
    chosen = E.select((q & 1).ne(0), cosine_of_rest(r), sine_of_rest(r))
    flip = (q & 2) << (8 * form.dtype.item_bytes - 2)
    return E.bitcast(E.bitcast(chosen, form.bits) ^ flip, form.dtype)


def cosine_of(q: Expr, r: Expr) -> Expr:
    """Return the cosine of ``q*pi/2 + r``."""
    return sine_of(q + 1, r)


def tangent_of(q: Expr, r: Expr, low: Expr) -> Expr:
    """Return the tangent of ``q*pi/2 + r + low``: ``r + r**3 * P(r**2)``, or -1 over that.

    Of the quotient what rounding lost from divisor and division is made good.
    """
    z = r * r
    cube = fma(r * z, polynomial(z, table(polynomials.TAN, r)), fma(low, z, low))
    total, rest = fast_two_sum(r, cube)
    inverse = number(-1.0, r) / total
    error = fma(rest, inverse, fma(total, inverse, 1.0))
    steep = fma(inverse, error, inverse)
    return E.select((q & 1).ne(0), steep, E.select(r.eq(0.0), r, total))


OF_ANGLE: dict[str, tuple[int, Callable[..., Expr]]] = {
    "sin": (2, sine_of),
    "cos": (2, cosine_of),
    "tan": (3, tangent_of),
}
"""Functions of an `Angle`, and of how many of its parts."""


def sin(x: Expr) -> Expr:
    """Return the sine."""
    return sine_of(*whole_angle(x)[:2])


def cos(x: Expr) -> Expr:
    """Return the cosine."""
    return cosine_of(*whole_angle(x)[:2])


def tan(x: Expr) -> Expr:
    """Return the tangent."""
    return tangent_of(*whole_angle(x))


# -- inverse functions -----------------------------------------------------------------------------


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
    start = E.select(steep, number(high, x), E.select(middle, number(high / 2, x), zero))
    start_low = E.select(steep, number(low, x), E.select(middle, number(low / 2, x), zero))
    rest = fma(t * z, polynomial(z, table(polynomials.ATAN, x)), start_low)
    return with_sign((start + t) + rest, x)

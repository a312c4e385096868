"""Integer polynomials over atoms, as dicts from monomials to coefficients that are never zero."""

from __future__ import annotations

import math


class Atom(str):
    """An indivisible factor of a size, which is its canonical text: equal texts, equal atoms.

    Polynomials look atoms up at every step, and strings are what Python finds fastest.
    Built by `symbol` and by the operators of `SizeExpr`, which canonicalise first.

    Attributes
    ----------
    names : frozenset of str
        The variables in it.
    """

    __slots__ = ("names",)

    names: frozenset[str]


Monomial = tuple[tuple[Atom, int], ...]
Polynomial = dict[Monomial, int]


def accumulate(poly: Polynomial, mono: Monomial, coef: int) -> None:
    """Add ``coef * mono`` to ``poly`` in place."""
    total = poly.get(mono, 0) + coef
    if total:
        poly[mono] = total
    else:
        poly.pop(mono, None)


def multiply(a: Polynomial, b: Polynomial) -> Polynomial:
    """Return the product of two polynomials."""
    if len(a) == len(b) == 1:
        ((mono, coef),), ((other, factor),) = a.items(), b.items()
        return {_join(mono, other): coef * factor}
    result: Polynomial = {}
    for mono, coef in a.items():
        for other, factor in b.items():
            accumulate(result, _join(mono, other), coef * factor)
    return result


def _join(a: Monomial, b: Monomial) -> Monomial:
    if not a or not b:
        return a or b
    if len(a) == len(b) == 1 and a[0][0] != b[0][0]:
        return (*a, *b) if a[0][0] < b[0][0] else (*b, *a)
    powers = dict(a)
    for atom, power in b:
        powers[atom] = powers.get(atom, 0) + power
    return _monomial(powers)


def _cancel(mono: Monomial, divisor: Monomial) -> Monomial | None:
    """Return ``mono / divisor``, None where it is not a monomial."""
    if not divisor:
        return mono
    powers = dict(mono)
    for atom, power in divisor:
        left = powers.pop(atom, 0) - power
        if left < 0:
            return None
        if left:
            powers[atom] = left
    return _monomial(powers)


def _monomial(powers: dict[Atom, int]) -> Monomial:
    if len(powers) < 2:
        return tuple(powers.items())
    return tuple(sorted(powers.items()))


def order_key(mono: Monomial) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Sort key of the graded lexicographic order, greatest first, which division relies on."""
    if len(mono) == 1:
        ((atom, power),) = mono
        return -power, ((atom, -power),)
    return -sum([p for _, p in mono]), tuple([(a, -p) for a, p in mono])


def divide(poly: Polynomial, divisor: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Return ``(quotient, remainder)`` of long division over the integers."""
    lead = next(iter(divisor)) if len(divisor) == 1 else min(divisor, key=order_key)
    tail = [(m, c) for m, c in divisor.items() if m != lead]
    pending = dict(poly)
    quotient: Polynomial = {}
    remainder: Polynomial = {}
    while pending:
        mono = min(pending, key=order_key) if tail else next(iter(pending))
        coef = pending.pop(mono)
        factor = None if coef % divisor[lead] else _cancel(mono, lead)
        if factor is None:
            remainder[mono] = coef
            continue
        quotient[factor] = scale = coef // divisor[lead]
        for other, weight in tail:
            accumulate(pending, _join(other, factor), -weight * scale)
    return quotient, remainder


def content(items: list[tuple[Monomial, int]]) -> tuple[int, Monomial]:
    """Return the greatest integer and the greatest monomial that divide every term."""
    scale = math.gcd(*(coef for _, coef in items))
    common = dict(items[0][0])
    for mono, _ in items[1:]:
        if not common:
            break
        powers = dict(mono)
        common = {a: min(p, powers[a]) for a, p in common.items() if a in powers}
    return scale, _monomial(common)

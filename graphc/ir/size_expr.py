"""Size expressions: canonical polynomials over named sizes, ``//``, ``%``, ``min`` and ``max``.

A `Dim` is a plain ``int`` or a `SizeExpr`. Import these names from `graphc.ir.dim`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar, NoReturn

from graphc.ir.polynomial import (
    Atom,
    Monomial,
    Polynomial,
    accumulate,
    content,
    divide,
    multiply,
    order_key,
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


class Var(Atom):
    """A named size variable or loop axis, ``>= 0``."""

    __slots__ = ("name",)
    __match_args__ = ("name",)

    name: str

    def __new__(cls, name: str) -> Var:
        """Return the variable of a name."""
        made = super().__new__(cls, name)
        made.name, made.names = name, frozenset((name,))
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name,)


class PairAtom(Atom):
    """An operation on two sizes that no polynomial can say."""

    __slots__ = ("a", "b")
    __match_args__ = ("a", "b")

    sign: ClassVar[str]
    a: Dim
    b: Dim

    def __new__(cls, a: Dim, b: Dim) -> PairAtom:
        """Return the operation on two sizes."""
        made = super().__new__(cls, cls.written(a, b))
        made.a, made.b, made.names = a, b, symbols(a) | symbols(b)
        return made

    @classmethod
    def written(cls, a: Dim, b: Dim) -> str:
        """Return the canonical text."""
        return f"{_operand(a)}{cls.sign}{_operand(b)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.a, self.b)


class FloorDiv(PairAtom):
    """``a // b``, rounded towards minus infinity."""

    __slots__ = ()
    sign = "//"


class Modulo(PairAtom):
    """``a % b``, in ``[0, b)`` for positive ``b``."""

    __slots__ = ()
    sign = "%"


class Extreme(PairAtom):
    """One of two sizes; longer lists nest in ``a``."""

    __slots__ = ()

    @classmethod
    def written(cls, a: Dim, b: Dim) -> str:
        """Return a call."""
        nested = lone_atom(a)
        first = nested[4:-1] if nested is not None and type(nested) is cls else str(a)
        return f"{cls.sign}({first}, {b})"


class Minimum(Extreme):
    """The smaller of ``a`` and ``b``."""

    __slots__ = ()
    sign = "min"


class Maximum(Extreme):
    """The larger of ``a`` and ``b``."""

    __slots__ = ()
    sign = "max"


_KINDS: dict[type[Atom], int] = {FloorDiv: 1, Modulo: 2}
_BOTH = 3
"""Bits of what a polynomial may hold; a quotient and a remainder may join."""


class SizeExpr:
    """A canonical, immutable, non-constant polynomial with integer coefficients over atoms.

    Made by `symbol` and arithmetic. Equality is structural; ordering and truth are undefined.
    """

    __slots__ = ("_hash", "_interval", "_kinds", "_poly", "_symbols", "_terms", "_text")
    # numpy scalars then leave mixed arithmetic to this class.
    __array_ufunc__ = None

    _poly: Polynomial
    _kinds: int  # `_KINDS` of its factors, or more
    _hash: int | None
    _symbols: frozenset[str] | None
    _terms: tuple[tuple[int, Monomial], ...] | None
    _text: str | None
    _interval: tuple[int | None, int | None] | None  # of `bounds` for variables without any

    def __init__(self) -> None:
        raise TypeError("SizeExpr is built by symbol(name) and arithmetic, not by its constructor")

    def __add__(self, other: Dim) -> Dim:
        result = dict(self._poly)
        if isinstance(other, SizeExpr):
            for mono, coef in other._poly.items():
                result[mono] = result.get(mono, 0) + coef
                if not result[mono]:
                    del result[mono]
            return _joined(result, self._kinds | other._kinds)
        if (number := _as_int(other)) is None:
            return NotImplemented
        accumulate(result, (), number)
        return _wrap(result, self._kinds)

    __radd__ = __add__

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, SizeExpr):
            return _joined(multiply(self._poly, other._poly), self._kinds | other._kinds)
        if (number := _as_int(other)) is None:
            return NotImplemented
        return _expr({m: c * number for m, c in self._poly.items()}, self._kinds) if number else 0

    __rmul__ = __mul__

    def __neg__(self) -> Dim:
        return _expr({m: -c for m, c in self._poly.items()}, self._kinds)

    def __pos__(self) -> Dim:
        return self

    def __sub__(self, other: Dim) -> Dim:
        if not isinstance(other, SizeExpr) and _as_int(other) is None:
            return NotImplemented
        return self + -other

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __floordiv__(self, other: Dim) -> Dim:
        return _binary(floor_div, self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return _binary(floor_div, other, self)

    def __mod__(self, other: Dim) -> Dim:
        return _binary(modulo, self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return _binary(modulo, other, self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, SizeExpr) and self._poly == other._poly

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._poly.items()))
        return self._hash

    def __str__(self) -> str:
        if self._text is None:
            self._text = _sum_text(terms(self))
        return self._text

    def __repr__(self) -> str:
        return f"SizeExpr({self})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the slots: a cached hash of strings holds in one process only.
        return _from_terms, (terms(self),)

    def _undefined(self, other: object) -> NoReturn:
        raise TypeError(
            f"ordering of symbolic sizes is undefined: {self} against {other}; "
            "use dim_min, dim_max or bounds, or evaluate both first"
        )

    __lt__ = __le__ = __gt__ = __ge__ = _undefined

    def __bool__(self) -> NoReturn:
        raise TypeError(f"symbolic size {self} has no truth value; evaluate it first")

    def __index__(self) -> NoReturn:
        raise TypeError(f"symbolic size {self} is not an integer; bind its variables with evaluate")

    __int__ = __index__


Dim = int | SizeExpr


@lru_cache(maxsize=4096)
def symbol(name: str) -> SizeExpr:
    """Return the size variable ``name``.

    Raises
    ------
    ValueError
        If ``name`` does not match ``[A-Za-z_][A-Za-z0-9_.]*`` or is ``min`` or ``max``.
    """
    if not _NAME.fullmatch(name) or name in ("min", "max"):
        raise ValueError(
            f"invalid size variable {name!r}: use letters, digits, '_' and '.', "
            "starting with a letter or '_', other than 'min' and 'max'"
        )
    return from_atom(Var(name))


def floor_div(a: Dim, b: Dim) -> Dim:
    """Return ``a // b``; terms of ``a`` that ``b`` divides leave the quotient's numerator.

    Raises
    ------
    ZeroDivisionError
        If ``b`` is 0; a symbolic ``b`` is assumed positive.
    """
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    q, r, d, _ = reduce_division(a, b)
    if isinstance(r, int):
        if isinstance(d, int):
            return q + r // d
        return q if r == 0 else q + from_atom(FloorDiv(r, d))
    inner = lone_atom(r)
    if isinstance(inner, FloorDiv):
        return q + floor_div(inner.a, inner.b * d)
    if isinstance(inner, Modulo) and (ratio := exact_quotient(inner.b, d)) is not None:
        return q + modulo(floor_div(inner.a, d), ratio)
    return q + from_atom(FloorDiv(r, d))


def modulo(a: Dim, b: Dim) -> Dim:
    """Return ``a % b``; terms of ``a`` that ``b`` divides drop out.

    Raises
    ------
    ZeroDivisionError
        If ``b`` is 0; a symbolic ``b`` is assumed positive.
    """
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    _, r, d, g = reduce_division(a, b)
    if isinstance(r, int):
        if isinstance(d, int):
            return g * (r % d)
        return 0 if r == 0 else g * from_atom(Modulo(r, d))
    if isinstance(lone_atom(r), FloorDiv) and floor_div(r, d) == 0:
        return g * r
    for mono, coef in r._poly.items():
        atom = mono[0][0] if len(mono) == 1 and mono[0][1] == 1 else None
        if isinstance(atom, Modulo) and exact_quotient(atom.b, d) is not None:
            others = finish({m: c for m, c in r._poly.items() if m != mono})
            return g * modulo(others + coef * atom.a, d)
    return g * from_atom(Modulo(r, d))


def terms(dim: Dim) -> tuple[tuple[int, Monomial], ...]:
    """Return ``(coefficient, ((atom, power), ...))`` pairs, highest degree first, constant last."""
    if isinstance(dim, int):
        return ((dim, ()),) if dim else ()
    if dim._terms is None:
        order = dim._poly if len(dim._poly) == 1 else sorted(dim._poly, key=order_key)
        dim._terms = tuple([(dim._poly[m], m) for m in order])
    return dim._terms


def symbols(dim: Dim) -> frozenset[str]:
    """Return the names of the variables in ``dim``, those inside atoms included."""
    if isinstance(dim, int):
        return frozenset()
    if dim._symbols is None:
        dim._symbols = frozenset().union(*[a.names for mono in dim._poly for a, _ in mono])
    return dim._symbols


def atom_symbols(atom: Atom) -> frozenset[str]:
    """Return the names of the variables in one atom."""
    return atom.names


def from_atom(atom: Atom) -> SizeExpr:
    """Return the size that consists of one atom."""
    return _expr({((atom, 1),): 1}, _KINDS.get(type(atom), 0))


def lone_atom(dim: Dim) -> Atom | None:
    """Return the atom that is all of ``dim``, or None."""
    if isinstance(dim, SizeExpr) and len(dim._poly) == 1:
        ((mono, coef),) = dim._poly.items()
        if coef == 1 and len(mono) == 1 and mono[0][1] == 1:
            return mono[0][0]
    return None


# Polynomials. A dict is never changed once a SizeExpr holds it.


def polynomial(dim: Dim) -> Polynomial:
    """Return the coefficients of ``dim`` by monomial, to read only."""
    if isinstance(dim, int):
        return {(): int(dim)} if dim else {}
    return dim._poly


def _expr(poly: Polynomial, kinds: int) -> SizeExpr:
    expr = SizeExpr.__new__(SizeExpr)
    expr._poly, expr._kinds = poly, kinds
    expr._hash = expr._symbols = expr._terms = expr._text = expr._interval = None
    return expr


def _from_terms(pairs: tuple[tuple[int, Monomial], ...]) -> SizeExpr:
    return _expr({mono: coef for coef, mono in pairs}, _BOTH)


def _wrap(poly: Polynomial, kinds: int) -> Dim:
    if not poly:
        return 0
    if len(poly) == 1 and () in poly:
        return poly[()]
    return _expr(poly, kinds)


def _joined(poly: Polynomial, kinds: int) -> Dim:
    return finish(poly) if kinds == _BOTH else _wrap(poly, kinds)


def finish(poly: Polynomial) -> Dim:
    """Return the Dim of ``poly`` after joining ``(x//c)*c + x%c`` into ``x``; takes the dict."""
    kinds = 0
    for mono in poly:
        for atom, _ in mono:
            kinds |= _KINDS.get(type(atom), 0)
    if kinds == _BOTH:
        while _join_remainder(poly):
            pass
    return _wrap(poly, kinds)


def _join_remainder(poly: Polynomial) -> bool:
    for mono in sorted(poly, key=order_key):
        for pair in mono:
            atom = pair[0]
            if not isinstance(atom, Modulo) or pair[1] != 1:
                continue
            scale = {tuple(p for p in mono if p is not pair): poly[mono]}
            multiple = multiply(scale, polynomial(atom.b * floor_div(atom.a, atom.b)))
            if all(poly.get(m) == c for m, c in multiple.items()):
                for m, c in [*multiple.items(), (mono, poly[mono])]:
                    accumulate(poly, m, -c)
                for m, c in multiply(scale, polynomial(atom.a)).items():
                    accumulate(poly, m, c)
                return True
    return False


def _as_int(value: object) -> int | None:
    if isinstance(value, int):
        return int(value)
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _binary(function: Callable[[Dim, Dim], Dim], a: Dim, b: Dim) -> Dim:
    left = a if isinstance(a, SizeExpr) else _as_int(a)
    right = b if isinstance(b, SizeExpr) else _as_int(b)
    return NotImplemented if left is None or right is None else function(left, right)


def exact_quotient(a: Dim, b: Dim) -> Dim | None:
    """Return ``a / b`` where ``b`` divides ``a`` as a polynomial, else None."""
    if isinstance(b, int) and isinstance(a, int):
        return a // b if b and a % b == 0 else None
    if isinstance(b, int) and b == 0:
        return None
    quotient, remainder = divide(polynomial(a), polynomial(b))
    return None if remainder else finish(quotient)


def reduce_division(a: Dim, b: Dim) -> tuple[Dim, Dim, Dim, Dim]:
    """Return ``(q, r, d, g)`` with ``a == b*q + g*r`` and ``b == g*d``.

    So ``a//b == q + r//d`` and ``a%b == g*(r%d)``; ``r`` and ``d`` share no factor.
    """
    if isinstance(b, int):
        return _reduce_by_int(a, b)
    quotient, remainder = divide(polynomial(a), b._poly)
    if len(remainder) >= len(polynomial(a)):
        # A quotient that shortens nothing would only trade one numerator for another.
        quotient, remainder = {}, dict(polynomial(a))
    if not remainder:
        return finish(quotient), 0, b, 1
    scale, common = content([*remainder.items(), *b._poly.items()])
    if scale == 1 and not common:
        r = finish(dict(remainder))
        if polynomial(r) == remainder:
            return finish(quotient), r, b, 1
        # Terms joined into one that may divide again.
        q, r, d, g = reduce_division(r, b)
        return finish(quotient) + q, r, d, g
    factor = {common: scale}
    numerator = finish(divide(remainder, factor)[0])
    q, r, d, g = reduce_division(numerator, finish(divide(b._poly, factor)[0]))
    return finish(quotient) + q, r, d, g * finish(factor)


def _reduce_by_int(a: Dim, b: int) -> tuple[Dim, Dim, Dim, Dim]:
    if b == 0:
        raise ZeroDivisionError(f"size {a} is divided by zero")
    if b < 0:
        q, r, d, g = _reduce_by_int(-a, -b)
        return q, r, d, -g
    scale = b
    quotient: Polynomial = {}
    remainder: Polynomial = {}
    for mono, coef in polynomial(a).items():
        if coef % b:
            remainder[mono] = coef
            scale = math.gcd(scale, coef)
        else:
            quotient[mono] = coef // b
    if not quotient and scale == 1:
        return 0, a, b, 1
    # Part of a polynomial, scaled, has nothing to join that the whole had not.
    kinds = a._kinds if isinstance(a, SizeExpr) else 0
    r = _wrap({m: c // scale for m, c in remainder.items()} if scale > 1 else remainder, kinds)
    return _wrap(quotient, kinds), r, b // scale, scale


# Text.


def _operand(dim: Dim) -> str:
    if isinstance(dim, int):
        return str(dim) if dim >= 0 else f"({dim})"
    atom = lone_atom(dim)
    return str(atom) if isinstance(atom, (Var, Minimum, Maximum)) else f"({dim})"


def _sum_text(ordered: tuple[tuple[int, Monomial], ...]) -> str:
    first = next((item for item in ordered if item[0] > 0), ordered[0])
    text = _term_text(*first) if first[0] > 0 else "-" + _term_text(*first, bare=False)
    for item in ordered:
        if item is not first:
            text += (" - " if item[0] < 0 else " + ") + _term_text(*item)
    return text


def _term_text(coef: int, mono: Monomial, bare: bool = True) -> str:
    magnitude = abs(coef)
    bare = bare and magnitude == 1 and len(mono) == 1 and mono[0][1] == 1
    factors = [
        atom if bare or not isinstance(atom, (FloorDiv, Modulo)) else f"({atom})"
        for atom, power in mono
        for _ in range(power)
    ]
    if magnitude != 1 or not mono:
        factors.append(str(magnitude))
    return "*".join(factors)

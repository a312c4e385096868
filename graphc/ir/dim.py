"""Symbolic sizes: integers and canonical polynomials over named, non-negative size variables.

A `Dim` is a plain ``int`` or a `SizeExpr`. Variables stand for integers ``>= 0`` and divisors are
assumed positive. Building an expression canonicalises it, so two sizes that compare equal are
equal for every binding; the converse holds for polynomials and for the rules of `floor_div`,
`modulo`, `dim_min` and `dim_max`, not for every identity of integer arithmetic.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn, TypeVar

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_TOKEN = re.compile(r"\s*(?:([0-9]+)|([A-Za-z_][A-Za-z0-9_.]*)|(//|[-+*%(),]))")
_CALLS = ("min", "max")


class UnboundSizeError(KeyError):
    """A size variable has no value in the given bindings."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True, eq=False)
class Atom:
    """An indivisible factor of a size; equal atoms have equal canonical ``text``.

    Built by `symbol` and by the operators of `SizeExpr`, which canonicalise first.
    """

    text: str = field(init=False, repr=False)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return self.__class__ is other.__class__ and self.text == other.text  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, f.name) for f in fields(self) if f.init)


@dataclass(frozen=True, slots=True, eq=False)
class Var(Atom):
    """A named size variable or loop axis, ``>= 0``."""

    name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.name)


@dataclass(frozen=True, slots=True, eq=False)
class FloorDiv(Atom):
    """``a // b``, rounded towards minus infinity."""

    a: Dim
    b: Dim

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{_operand(self.a)}//{_operand(self.b)}")


@dataclass(frozen=True, slots=True, eq=False)
class Modulo(Atom):
    """``a % b``, in ``[0, b)`` for positive ``b``."""

    a: Dim
    b: Dim

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{_operand(self.a)}%{_operand(self.b)}")


@dataclass(frozen=True, slots=True, eq=False)
class Minimum(Atom):
    """The smaller of ``a`` and ``b``; longer lists nest in ``a``."""

    a: Dim
    b: Dim

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"min({_arguments(self, Minimum)})")


@dataclass(frozen=True, slots=True, eq=False)
class Maximum(Atom):
    """The larger of ``a`` and ``b``; longer lists nest in ``a``."""

    a: Dim
    b: Dim

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"max({_arguments(self, Maximum)})")


Monomial = tuple[tuple[Atom, int], ...]
Polynomial = dict[Monomial, int]
AtomT = TypeVar("AtomT", bound=Atom)


class SizeExpr:
    """A canonical, immutable, non-constant polynomial with integer coefficients over atoms.

    Made by `symbol` and arithmetic. Equality is structural; ordering and truth are undefined.
    """

    __slots__ = ("_hash", "_poly", "_symbols", "_terms", "_text")
    # numpy scalars then leave mixed arithmetic to this class.
    __array_ufunc__ = None

    _poly: Polynomial
    _hash: int | None
    _symbols: frozenset[str] | None
    _terms: tuple[tuple[int, Monomial], ...] | None
    _text: str | None

    def __init__(self) -> None:
        raise TypeError("SizeExpr is built by symbol(name) and arithmetic, not by its constructor")

    def __add__(self, other: Dim) -> Dim:
        poly = dict(self._poly)
        if other.__class__ is SizeExpr:
            for mono, coef in other._poly.items():
                _accumulate(poly, mono, coef)
            return _finish(poly)
        if (number := _as_int(other)) is None:
            return NotImplemented
        _accumulate(poly, (), number)
        return _wrap(poly)

    __radd__ = __add__

    def __mul__(self, other: Dim) -> Dim:
        if other.__class__ is SizeExpr:
            return _finish(_multiply(self._poly, other._poly))
        if (number := _as_int(other)) is None:
            return NotImplemented
        return _wrap({m: c * number for m, c in self._poly.items()}) if number else 0

    __rmul__ = __mul__

    def __neg__(self) -> Dim:
        return _wrap({m: -c for m, c in self._poly.items()})

    def __pos__(self) -> Dim:
        return self

    def __sub__(self, other: Dim) -> Dim:
        if other.__class__ is not SizeExpr and _as_int(other) is None:
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
        if not isinstance(other, SizeExpr):
            return False
        return self._poly == other._poly

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
        return parse_dim, (str(self),)

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


def symbol(name: str) -> SizeExpr:
    """Return the size variable ``name``.

    Raises
    ------
    ValueError
        If ``name`` does not match ``[A-Za-z_][A-Za-z0-9_.]*`` or is ``min`` or ``max``.
    """
    if not _NAME.fullmatch(name) or name in _CALLS:
        raise ValueError(
            f"invalid size variable {name!r}: use letters, digits, '_' and '.', "
            "starting with a letter or '_', other than 'min' and 'max'"
        )
    return _expr({((Var(name), 1),): 1})


def floor_div(a: Dim, b: Dim) -> Dim:
    """Return ``a // b``; terms of ``a`` that ``b`` divides leave the quotient's numerator."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    q, r, d, _ = _reduce(a, b)
    if isinstance(r, int) and (r == 0 or isinstance(d, int)):
        return q + (r // d if isinstance(d, int) else 0)
    inner = _lone(r, FloorDiv)
    if inner is not None:
        return q + floor_div(inner.a, inner.b * d)
    wrapped = _lone(r, Modulo)
    if wrapped is not None and (ratio := _exact(wrapped.b, d)) is not None:
        return q + modulo(floor_div(wrapped.a, d), ratio)
    return q + _from_atom(FloorDiv(r, d))


def modulo(a: Dim, b: Dim) -> Dim:
    """Return ``a % b``; terms of ``a`` that ``b`` divides drop out."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    _, r, d, g = _reduce(a, b)
    if isinstance(r, int) and (r == 0 or isinstance(d, int)):
        return g * (r % d) if isinstance(d, int) else 0
    if isinstance(r, SizeExpr):
        for mono, coef in r._poly.items():
            atom = mono[0][0] if len(mono) == 1 and mono[0][1] == 1 else None
            if isinstance(atom, Modulo) and _exact(atom.b, d) is not None:
                return g * modulo(r + coef * (atom.a - _from_atom(atom)), d)
    return g * _from_atom(Modulo(r, d))


def ceil_div(a: Dim, b: Dim) -> Dim:
    """Return ``a / b`` rounded up, as ``(a + b - 1) // b``."""
    return floor_div(a + b - 1, b)


def dim_min(a: Dim, b: Dim) -> Dim:
    """Return the smaller of two sizes, decided where non-negative variables decide it."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else _extremum(a, b, Minimum, {})


def dim_max(a: Dim, b: Dim) -> Dim:
    """Return the larger of two sizes, decided where non-negative variables decide it."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else _extremum(a, b, Maximum, {})


def product(dims: Iterable[Dim]) -> Dim:
    """Return the product of ``dims``, 1 where there are none."""
    result: Dim = 1
    for dim in dims:
        result = result * dim
    return result


def terms(dim: Dim) -> tuple[tuple[int, Monomial], ...]:
    """Return ``(coefficient, ((atom, power), ...))`` pairs, highest degree first, constant last."""
    if isinstance(dim, int):
        return ((dim, ()),) if dim else ()
    if dim._terms is None:
        dim._terms = tuple((dim._poly[m], m) for m in sorted(dim._poly, key=_order))
    return dim._terms


def symbols(dim: Dim) -> frozenset[str]:
    """Return the names of the variables in ``dim``, those inside atoms included."""
    if isinstance(dim, int):
        return frozenset()
    if dim._symbols is None:
        atoms = {atom for mono in dim._poly for atom, _ in mono}
        dim._symbols = frozenset().union(*map(_atom_symbols, atoms))
    return dim._symbols


def evaluate(dim: Dim, bindings: Mapping[str, int]) -> int:
    """Return the integer value of ``dim``.

    Raises
    ------
    UnboundSizeError
        (a KeyError) if a variable is missing from ``bindings``.
    ZeroDivisionError
        If a divisor is zero under ``bindings``.
    """
    if isinstance(dim, int):
        return dim
    total = 0
    for mono, value in dim._poly.items():
        for atom, power in mono:
            value *= _atom_value(atom, bindings) ** power
        total += value
    return total


def substitute(dim: Dim, mapping: Mapping[str, Dim]) -> Dim:
    """Return ``dim`` with variables replaced at once by sizes, canonicalised again."""
    if isinstance(dim, int) or symbols(dim).isdisjoint(mapping):
        return dim
    return _rebuild(dim, lambda atom: _substitute_atom(atom, mapping))


def linear(dim: Dim, name: str) -> tuple[Dim, Dim] | None:
    """Return ``(coefficient, rest)`` with ``dim == coefficient*name + rest``.

    Neither part contains ``name``; None where ``dim`` is not affine in it.
    """
    if name not in symbols(dim) or isinstance(dim, int):
        return 0, dim
    variable = Var(name)
    coefficient: Polynomial = {}
    rest: Polynomial = {}
    for mono, coef in dim._poly.items():
        others = tuple(pair for pair in mono if pair != (variable, 1))
        if any(name in _atom_symbols(atom) for atom, _ in others):
            return None
        (rest if len(others) == len(mono) else coefficient)[others] = coef
    return _finish(coefficient), _finish(rest)


def solve(a: Dim, b: Dim) -> tuple[str, Dim] | None:
    """Solve ``a == b`` for one variable and return ``(name, value)``.

    A side that is a lone variable is preferred (``a`` before ``b``), then the first name with
    coefficient 1 or -1, then an integer coefficient, then a symbolic one, taken as nonzero. None
    where no variable is affine with a coefficient that divides exactly, or the value is negative.
    """
    difference = a - b
    found: list[tuple[int, str, Dim]] = []
    for name in symbols(difference):
        affine = linear(difference, name)
        value = None if affine is None else _exact(-affine[1], affine[0])
        if affine is None or value is None:
            continue
        highest = bounds(value, {})[1]
        if highest is None or highest >= 0:
            found.append((_solve_rank(name, affine[0], a, b), name, value))
    best = min(found, key=lambda item: item[:2], default=None)
    return None if best is None else best[1:]


def bounds(dim: Dim, upper: Mapping[str, Dim]) -> tuple[int | None, int | None]:
    """Return inclusive integer bounds of ``dim`` by interval arithmetic, None where unknown.

    Parameters
    ----------
    dim : Dim
    upper : mapping of str to Dim
        Exclusive upper bounds of variables; every variable is ``>= 0``.
    """
    if isinstance(dim, int):
        return dim, dim
    low: int | None = 0
    high: int | None = 0
    for mono, coef in dim._poly.items():
        term: _Interval = (coef, coef)
        for atom, power in mono:
            interval = _atom_bounds(atom, upper)
            for _ in range(power):
                term = _interval_product(term, interval)
        low = None if low is None or term[0] is None else low + term[0]
        high = None if high is None or term[1] is None else high + term[1]
    return low, high


def simplify(dim: Dim, upper: Mapping[str, Dim]) -> Dim:
    """Return ``dim`` simplified for ``0 <= name < upper[name]``, inside atoms too.

    Divisions and remainders of row-major indices are undone, ``min`` and ``max`` decided, axes of
    extent 1 dropped, and constants under ``//`` brought into ``[0, divisor)``. The result agrees
    with ``dim`` wherever the bounds hold (so every bound is at least 1), nowhere else.
    """
    if isinstance(dim, int):
        return dim
    return _rebuild(dim, lambda atom: _simplify_atom(atom, upper))


def parse_dim(text: str) -> Dim:
    """Return the size written in ``text``, the inverse of ``str``.

    Raises
    ------
    ValueError
        If ``text`` is not a size; the message names the position.
    """
    return _Parser(text).parse()


# Polynomials. A dict is never changed once a SizeExpr holds it.


def _expr(poly: Polynomial) -> SizeExpr:
    expr = SizeExpr.__new__(SizeExpr)
    expr._poly = poly
    expr._hash = expr._symbols = expr._terms = expr._text = None
    return expr


def _wrap(poly: Polynomial) -> Dim:
    if not poly:
        return 0
    if len(poly) == 1 and () in poly:
        return poly[()]
    return _expr(poly)


def _finish(poly: Polynomial) -> Dim:
    """Return the Dim of ``poly`` after joining ``(x//c)*c + x%c`` into ``x``."""
    has_modulo = has_division = False
    for mono in poly:
        for atom, _ in mono:
            kind = atom.__class__
            has_modulo = has_modulo or kind is Modulo
            has_division = has_division or kind is FloorDiv
    if has_modulo and has_division:
        while _join_remainder(poly):
            pass
    return _wrap(poly)


def _join_remainder(poly: Polynomial) -> bool:
    for mono in sorted(poly, key=_order):
        for pair in mono:
            atom = pair[0]
            if not isinstance(atom, Modulo) or pair[1] != 1:
                continue
            scale = {tuple(p for p in mono if p is not pair): poly[mono]}
            multiple = _multiply(scale, _poly(atom.b * floor_div(atom.a, atom.b)))
            if all(poly.get(m) == c for m, c in multiple.items()):
                for m, c in [*multiple.items(), (mono, poly[mono])]:
                    _accumulate(poly, m, -c)
                for m, c in _multiply(scale, _poly(atom.a)).items():
                    _accumulate(poly, m, c)
                return True
    return False


def _poly(dim: Dim) -> Polynomial:
    if isinstance(dim, int):
        return {(): dim} if dim else {}
    return dim._poly


def _from_atom(atom: Atom) -> SizeExpr:
    return _expr({((atom, 1),): 1})


def _as_int(value: object) -> int | None:
    if isinstance(value, int):
        return value
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _binary(function: Callable[[Dim, Dim], Dim], a: Dim, b: Dim) -> Dim:
    left = a if isinstance(a, SizeExpr) else _as_int(a)
    right = b if isinstance(b, SizeExpr) else _as_int(b)
    return NotImplemented if left is None or right is None else function(left, right)


def _accumulate(poly: Polynomial, mono: Monomial, coef: int) -> None:
    total = poly.get(mono, 0) + coef
    if total:
        poly[mono] = total
    else:
        poly.pop(mono, None)


def _multiply(a: Polynomial, b: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for mono, coef in a.items():
        for other, factor in b.items():
            _accumulate(result, _join(mono, other), coef * factor)
    return result


def _join(a: Monomial, b: Monomial) -> Monomial:
    if not a or not b:
        return a or b
    powers = dict(a)
    for atom, power in b:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=_pair_text))


def _pair_text(pair: tuple[Atom, int]) -> str:
    return pair[0].text


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
    return tuple(sorted(powers.items(), key=_pair_text))


def _order(mono: Monomial) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Sort key of the graded lexicographic order, greatest first, which division relies on."""
    return -sum(p for _, p in mono), tuple((a.text, -p) for a, p in mono)


def _divide(poly: Polynomial, divisor: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Return ``(quotient, remainder)`` of long division over the integers."""
    lead = min(divisor, key=_order)
    tail = [(m, c) for m, c in divisor.items() if m != lead]
    pending = dict(poly)
    quotient: Polynomial = {}
    remainder: Polynomial = {}
    while pending:
        mono = min(pending, key=_order) if tail else next(iter(pending))
        coef = pending.pop(mono)
        factor = None if coef % divisor[lead] else _cancel(mono, lead)
        if factor is None:
            remainder[mono] = coef
            continue
        quotient[factor] = scale = coef // divisor[lead]
        for other, weight in tail:
            _accumulate(pending, _join(other, factor), -weight * scale)
    return quotient, remainder


def _exact(a: Dim, b: Dim) -> Dim | None:
    """Return ``a / b`` where ``b`` divides ``a`` as a polynomial, else None."""
    if b == 0:
        return None
    quotient, remainder = _divide(_poly(a), _poly(b))
    return None if remainder else _finish(quotient)


def _reduce(a: Dim, b: Dim) -> tuple[Dim, Dim, Dim, Dim]:
    """Return ``(q, r, d, g)`` with ``a == b*q + g*r`` and ``b == g*d``, so a//b == q + r//d."""
    if isinstance(b, int):
        if b == 0:
            raise ZeroDivisionError(f"size {a} is divided by zero")
        if b < 0:
            q, r, d, g = _reduce(-a, -b)
            return q, r, d, -g
    quotient, remainder = _divide(_poly(a), _poly(b))
    if len(remainder) >= len(_poly(a)):
        # A quotient that shortens nothing would only trade one numerator for another.
        quotient, remainder = {}, dict(_poly(a))
    scale, common = _content([*remainder.items(), *_poly(b).items()])
    if not remainder or (not quotient and scale == 1 and not common):
        return _finish(quotient), _finish(remainder), b, 1
    factor = {common: scale}
    numerator = _finish(_divide(remainder, factor)[0])
    q, r, d, g = _reduce(numerator, _finish(_divide(_poly(b), factor)[0]))
    return _finish(quotient) + q, r, d, g * _finish(factor)


def _content(items: list[tuple[Monomial, int]]) -> tuple[int, Monomial]:
    """Return the greatest integer and the greatest monomial that divide every term."""
    scale = math.gcd(*(coef for _, coef in items))
    common = dict(items[0][0])
    for mono, _ in items[1:]:
        if not common:
            break
        powers = dict(mono)
        common = {a: min(p, powers[a]) for a, p in common.items() if a in powers}
    return scale, tuple(sorted(common.items(), key=_pair_text))


def _lone(dim: Dim, kind: type[AtomT]) -> AtomT | None:
    """Return the atom that ``dim`` consists of where it is of ``kind``."""
    if isinstance(dim, SizeExpr) and len(dim._poly) == 1:
        ((mono, coef),) = dim._poly.items()
        if coef == 1 and len(mono) == 1 and mono[0][1] == 1 and isinstance(mono[0][0], kind):
            return mono[0][0]
    return None


# Atoms.


def _atom_symbols(atom: Atom) -> frozenset[str]:
    if isinstance(atom, Var):
        return frozenset((atom.name,))
    assert isinstance(atom, FloorDiv | Modulo | Minimum | Maximum)
    return symbols(atom.a) | symbols(atom.b)


_REBUILD: dict[type[Atom], Callable[[Dim, Dim], Dim]] = {
    FloorDiv: floor_div,
    Modulo: modulo,
    Minimum: dim_min,
    Maximum: dim_max,
}


def _atom_value(atom: Atom, bindings: Mapping[str, int]) -> int:
    if isinstance(atom, Var):
        if atom.name not in bindings:
            known = ", ".join(sorted(bindings)) or "none"
            raise UnboundSizeError(f"size variable {atom.name} has no value; bound are: {known}")
        return bindings[atom.name]
    assert isinstance(atom, FloorDiv | Modulo | Minimum | Maximum)
    a, b = evaluate(atom.a, bindings), evaluate(atom.b, bindings)
    if b == 0 and isinstance(atom, FloorDiv | Modulo):
        raise ZeroDivisionError(f"{atom} divides by zero: {atom.b} is 0")
    value = _REBUILD[type(atom)](a, b)
    assert isinstance(value, int)
    return value


def _rebuild(dim: SizeExpr, replace: Callable[[Atom], Dim]) -> Dim:
    total: Dim = 0
    for coef, mono in terms(dim):
        term: Dim = coef
        for atom, power in mono:
            value = replace(atom)
            for _ in range(power):
                term = term * value
        total = total + term
    return total


def _substitute_atom(atom: Atom, mapping: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, Var):
        return mapping.get(atom.name, _from_atom(atom))
    assert isinstance(atom, FloorDiv | Modulo | Minimum | Maximum)
    return _REBUILD[type(atom)](substitute(atom.a, mapping), substitute(atom.b, mapping))


def _solve_rank(name: str, coefficient: Dim, a: Dim, b: Dim) -> int:
    for rank, side in enumerate((a, b)):
        if (variable := _lone(side, Var)) is not None and variable.name == name:
            return rank
    if isinstance(coefficient, int):
        return 2 if abs(coefficient) == 1 else 3
    return 4


def _extremum(
    a: Dim, b: Dim, kind: type[Minimum] | type[Maximum], upper: Mapping[str, Dim]
) -> Dim:
    kept: list[Dim] = []
    for candidate in [*_flatten(a, kind), *_flatten(b, kind)]:
        if any(_dominates(other, candidate, kind, upper) for other in kept):
            continue
        kept = [other for other in kept if not _dominates(candidate, other, kind, upper)]
        kept.append(candidate)
    kept.sort(key=lambda dim: (isinstance(dim, int), str(dim)))
    result = kept[0]
    for dim in kept[1:]:
        result = _from_atom(kind(result, dim))
    return result


def _flatten(dim: Dim, kind: type[Minimum] | type[Maximum]) -> list[Dim]:
    atom = _lone(dim, kind)
    return [dim] if atom is None else [*_flatten(atom.a, kind), *_flatten(atom.b, kind)]


def _dominates(
    a: Dim, b: Dim, kind: type[Minimum] | type[Maximum], upper: Mapping[str, Dim]
) -> bool:
    return _nonnegative(b - a if kind is Minimum else a - b, upper)


# Bounds.

_Interval = tuple[int | None, int | None]


def _interval_product(a: _Interval, b: _Interval) -> _Interval:
    low: int | None = None
    high: int | None = None
    infinite = math.inf
    edges = [
        x * y if x and y else 0
        for x in (-infinite if a[0] is None else a[0], infinite if a[1] is None else a[1])
        for y in (-infinite if b[0] is None else b[0], infinite if b[1] is None else b[1])
    ]
    low = None if min(edges) == -infinite else int(min(edges))
    high = None if max(edges) == infinite else int(max(edges))
    return low, high


def _atom_bounds(atom: Atom, upper: Mapping[str, Dim]) -> _Interval:
    if isinstance(atom, Var):
        limit = upper.get(atom.name)
        if limit is None:
            return 0, None
        others = {name: bound for name, bound in upper.items() if name != atom.name}
        high = bounds(limit, others)[1]
        return 0, None if high is None else max(high - 1, 0)
    assert isinstance(atom, FloorDiv | Modulo | Minimum | Maximum)
    a, b = bounds(atom.a, upper), bounds(atom.b, upper)
    if isinstance(atom, FloorDiv):
        return _quotient_bounds(a, b)
    if isinstance(atom, Modulo):
        high = None if b[1] is None else max(b[1] - 1, 0)
        return 0, high if a[0] is None or a[0] < 0 else _least(a[1], high)
    if isinstance(atom, Minimum):
        return None if a[0] is None or b[0] is None else min(a[0], b[0]), _least(a[1], b[1])
    low = b[0] if a[0] is None else a[0] if b[0] is None else max(a[0], b[0])
    return low, None if a[1] is None or b[1] is None else max(a[1], b[1])


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def _quotient_bounds(a: _Interval, b: _Interval) -> _Interval:
    smallest = max(b[0] or 1, 1)
    low = high = None
    if a[0] is not None:
        low = a[0] // smallest if a[0] < 0 else 0 if b[1] is None else a[0] // max(b[1], 1)
    if a[1] is not None:
        high = a[1] // smallest if a[1] >= 0 else -1 if b[1] is None else a[1] // max(b[1], 1)
    return low, high


def _nonnegative(dim: Dim, upper: Mapping[str, Dim]) -> bool:
    """Whether ``dim >= 0`` is proved: each axis is put at the end where ``dim`` is least."""
    low = bounds(dim, upper)[0]
    if low is not None and low >= 0:
        return True
    # Inner axes come last in a mapping and may be bounded by outer ones.
    for name in reversed(list(upper)):
        affine = linear(dim, name)
        if affine is None or affine[0] == 0:
            continue
        coefficient, rest = affine
        if _surely_positive_part(coefficient, upper):
            dim = rest
        elif _surely_positive_part(-coefficient, upper):
            dim = rest + coefficient * (upper[name] - 1)
    low = bounds(dim, upper)[0]
    return low is not None and low >= 0


def _surely_positive_part(dim: Dim, upper: Mapping[str, Dim]) -> bool:
    """Whether ``dim >= 0``, also as a multiple of an extent, which is positive in its loop."""
    low = bounds(dim, upper)[0]
    if low is not None and low >= 0:
        return True
    for extent in upper.values():
        ratio = None if isinstance(extent, int) else _exact(dim, extent)
        if ratio is not None and _surely_positive_part(ratio, upper):
            return True
    return False


# Simplification under bounds.


def _simplify_atom(atom: Atom, upper: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, Var):
        return 0 if upper.get(atom.name) == 1 else _from_atom(atom)
    assert isinstance(atom, FloorDiv | Modulo | Minimum | Maximum)
    a, b = simplify(atom.a, upper), simplify(atom.b, upper)
    if isinstance(atom, Minimum | Maximum):
        return _extremum(a, b, type(atom), upper)
    return _divmod_within(a, b, upper)[isinstance(atom, Modulo)]


def _divmod_within(a: Dim, b: Dim, upper: Mapping[str, Dim]) -> tuple[Dim, Dim]:
    q, r, d, g = _reduce(a, b)
    if isinstance(d, int):
        constant = _poly(r).get((), 0) // d
        q, r = q + constant, r - constant * d
    whole = _whole_quotient(r, d, upper)
    if whole is not None:
        return q + whole, g * (r - whole * d)
    for factor in _factors(r, d):
        high, low = (_finish(part) for part in _divide(_poly(r), _poly(factor)))
        ratio = _exact(d, factor)
        if ratio is not None and _whole_quotient(low, factor, upper) == 0:
            quotient, rest = _divmod_within(high, ratio, upper)
            return q + quotient, g * (factor * rest + low)
    return q + floor_div(r, d), g * modulo(r, d)


def _whole_quotient(r: Dim, d: Dim, upper: Mapping[str, Dim]) -> int | None:
    """Return ``r // d`` where the bounds decide it."""
    if _nonnegative(r, upper) and _nonnegative(d - 1 - r, upper):
        return 0
    low, high = bounds(r, upper)
    if isinstance(d, int) and low is not None and high is not None and low // d == high // d:
        return low // d
    return None


def _factors(r: Dim, d: Dim) -> list[Dim]:
    """Return divisors of ``d``, above 1, that some term of ``r`` shares."""
    if len(_poly(d)) != 1:
        return []
    (whole,) = _poly(d).items()
    shared = {_content([item, whole]) for item in _poly(r).items()}
    ordered = sorted(shared - {(1, ())}, key=lambda item: (_order(item[1]), -item[0]))
    return [_finish({mono: scale}) for scale, mono in ordered]


# Text.


def _operand(dim: Dim) -> str:
    text = str(dim)
    bare = (isinstance(dim, int) and dim >= 0) or _lone(dim, Var) is not None
    return text if bare or _lone(dim, Minimum) or _lone(dim, Maximum) else f"({text})"


def _arguments(atom: Minimum | Maximum, kind: type[Minimum] | type[Maximum]) -> str:
    first = str(atom.a)
    return f"{first[4:-1] if _lone(atom.a, kind) else first}, {atom.b}"


def _sum_text(ordered: tuple[tuple[int, Monomial], ...]) -> str:
    first = next((item for item in ordered if item[0] > 0), ordered[0])
    text = ("-" if first[0] < 0 else "") + _term_text(*first, bare=first[0] > 0)
    for item in ordered:
        if item is not first:
            text += (" - " if item[0] < 0 else " + ") + _term_text(*item, bare=True)
    return text


def _term_text(coef: int, mono: Monomial, bare: bool) -> str:
    magnitude = abs(coef)
    bare = bare and magnitude == 1 and sum(power for _, power in mono) == 1
    factors = [
        atom.text if bare or not isinstance(atom, FloorDiv | Modulo) else f"({atom.text})"
        for atom, power in mono
        for _ in range(power)
    ]
    if magnitude != 1 or not mono:
        factors.append(str(magnitude))
    return "*".join(factors)


class _Parser:
    """Recursive descent over ``+ -``, then ``* // %``, then unary minus, as Python binds them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.token, self.kind = "", 0
        self.start = 0
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            self.start = self.position + len(self.text[self.position :]) - len(
                self.text[self.position :].lstrip()
            )
            if self.start < len(self.text):
                self.fail("a number, a name or an operator")
            self.token, self.kind = "", 0
            return
        assert match.lastindex is not None
        self.kind = match.lastindex
        self.token, self.start = match[self.kind], match.start(self.kind)
        self.position = match.end()

    def fail(self, expected: str) -> NoReturn:
        found = repr(self.text[self.start :][:12]) if self.start < len(self.text) else "the end"
        raise ValueError(
            f"size {self.text!r}: expected {expected} at position {self.start}, found {found}"
        )

    def take(self, *tokens: str) -> str:
        token = self.token
        if token not in tokens:
            return ""
        self.advance()
        return token

    def expect(self, token: str) -> None:
        if not self.take(token):
            self.fail(repr(token))

    def parse(self) -> Dim:
        dim = self.sum()
        if self.token:
            self.fail("an operator or the end")
        return dim

    def sum(self) -> Dim:
        total = self.term()
        while sign := self.take("+", "-"):
            total = total + self.term() if sign == "+" else total - self.term()
        return total

    def term(self) -> Dim:
        value = self.factor()
        while sign := self.take("*", "//", "%"):
            start, right = self.start, self.factor()
            if sign != "*" and right == 0:
                self.start = start
                self.fail("a nonzero divisor")
            combine = {"*": operator.mul, "//": floor_div, "%": modulo}[sign]
            value = combine(value, right)
        return value

    def factor(self) -> Dim:
        if self.take("-"):
            return -self.factor()
        token, kind = self.token, self.kind
        if self.take("("):
            dim = self.sum()
            self.expect(")")
            return dim
        if kind not in (1, 2):
            self.fail("a size")
        start = self.start
        self.advance()
        if kind == 1:
            return int(token)
        if token in _CALLS:
            return self.call(dim_min if token == "min" else dim_max)
        self.start, start = start, self.start
        variable = symbol(token)
        self.start = start
        return variable

    def call(self, function: Callable[[Dim, Dim], Dim]) -> Dim:
        self.expect("(")
        value = self.sum()
        self.expect(",")
        value = function(value, self.sum())
        while self.take(","):
            value = function(value, self.sum())
        self.expect(")")
        return value

"""What bounds on variables say about sizes: intervals, ``min`` and ``max``, simplification.

Bounds are exclusive upper ones, ``0 <= name < upper[name]``; a variable without one is ``>= 0``.
Import the public names from `graphc.ir.dim`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphc.ir.polynomial import Atom, Polynomial, content, divide, order_key
from graphc.ir.size_expr import (
    Dim,
    FloorDiv,
    Maximum,
    Minimum,
    Modulo,
    PairAtom,
    SizeExpr,
    Var,
    atom_symbols,
    exact_quotient,
    finish,
    floor_div,
    from_atom,
    lone_atom,
    modulo,
    polynomial,
    reduce_division,
    symbols,
    terms,
)

Bounds = Mapping[str, Dim]
Interval = tuple[int | None, int | None]
Extremum = type[Minimum] | type[Maximum]


def rebuild(dim: SizeExpr, replace: Callable[[Atom], Dim]) -> Dim:
    """Return ``dim`` with each atom replaced, canonicalised again."""
    total: Dim = 0
    for coef, mono in terms(dim):
        term: Dim = coef
        for atom, power in mono:
            value = replace(atom)
            for _ in range(power):
                term = term * value
        total = total + term
    return total


def linear(dim: Dim, name: str) -> tuple[Dim, Dim] | None:
    """Return ``(coefficient, rest)`` with ``dim == coefficient*name + rest``.

    Neither part contains ``name``; None where ``dim`` is not affine in it.
    """
    if isinstance(dim, int) or name not in symbols(dim):
        return 0, dim
    variable = Var(name)
    coefficient: Polynomial = {}
    rest: Polynomial = {}
    for mono, coef in polynomial(dim).items():
        others = tuple(pair for pair in mono if pair != (variable, 1))
        if any(name in atom_symbols(atom) for atom, _ in others):
            return None
        (rest if len(others) == len(mono) else coefficient)[others] = coef
    return finish(coefficient), finish(rest)


# Intervals.


def bounds(dim: Dim, upper: Bounds) -> Interval:
    """Return the least and greatest value of ``dim`` that interval arithmetic gives.

    Parameters
    ----------
    dim : Dim
    upper : mapping of str to Dim
        Exclusive upper bounds of variables; every variable is ``>= 0``.

    Returns
    -------
    tuple of (int or None, int or None)
        Inclusive; None where there is no bound.
    """
    if isinstance(dim, int):
        return dim, dim
    if upper:
        return _sum_bounds(dim, upper)
    if dim._interval is None:
        dim._interval = _sum_bounds(dim, upper)
    return dim._interval


def _sum_bounds(dim: SizeExpr, upper: Bounds) -> Interval:
    low: int | None = 0
    high: int | None = 0
    for mono, coef in polynomial(dim).items():
        term: Interval = (coef, coef)
        for atom, power in mono:
            interval = _atom_bounds(atom, upper)
            for _ in range(power):
                term = _interval_product(term, interval)
        low = None if low is None or term[0] is None else low + term[0]
        high = None if high is None or term[1] is None else high + term[1]
    return low, high


def _interval_product(a: Interval, b: Interval) -> Interval:
    if a[0] is not None and a[0] == a[1]:
        low, high = (_times(a[0], end) for end in b)
        return (high, low) if a[0] < 0 else (low, high)
    if a[0] is not None and b[0] is not None and a[0] >= 0 and b[0] >= 0:
        zero = a[1] == 0 or b[1] == 0
        return a[0] * b[0], 0 if zero else _times_or_none(a[1], b[1])
    if None in a or None in b:
        return None, None
    products = [x * y for x in a for y in b if x is not None and y is not None]
    return min(products), max(products)


def _times(factor: int, end: int | None) -> int | None:
    return 0 if factor == 0 else None if end is None else factor * end


def _times_or_none(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a * b


def _atom_bounds(atom: Atom, upper: Bounds) -> Interval:
    if isinstance(atom, Var):
        return 0, _greatest(atom.name, upper)
    assert isinstance(atom, PairAtom)
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


def _greatest(name: str, upper: Bounds) -> int | None:
    limit = upper.get(name)
    if isinstance(limit, SizeExpr):
        # Without its own bound, so that bounds which name each other end.
        limit = bounds(limit, {n: bound for n, bound in upper.items() if n != name})[1]
    return None if limit is None else max(limit - 1, 0)


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def _quotient_bounds(a: Interval, b: Interval) -> Interval:
    smallest = max(b[0] or 1, 1)
    low = high = None
    if a[0] is not None:
        low = a[0] // smallest if a[0] < 0 else 0 if b[1] is None else a[0] // max(b[1], 1)
    if a[1] is not None:
        high = a[1] // smallest if a[1] >= 0 else -1 if b[1] is None else a[1] // max(b[1], 1)
    return low, high


def nonnegative(dim: Dim, upper: Bounds) -> bool:
    """Whether ``dim >= 0`` is proved: each axis is put at the end where ``dim`` is least."""
    low, high = bounds(dim, upper)
    if low is not None and low >= 0:
        return True
    if high is not None and high < 0:
        return False
    for coef, mono in terms(dim):
        atom, power = mono[0] if len(mono) == 1 else (None, 0)
        if isinstance(atom, (Minimum, Maximum)) and power == 1:
            return _nonnegative_by_case(dim, coef, atom, upper)
    if all(isinstance(u, int) for u in upper.values()):
        return False
    # Inner axes come last in a mapping and may be bounded by outer ones.
    for name in reversed(list(upper)):
        affine = linear(dim, name)
        if affine is None or affine[0] == 0:
            continue
        coefficient, rest = affine
        if _nonnegative_factor(coefficient, upper):
            dim = rest
        elif _nonnegative_factor(-coefficient, upper):
            dim = rest + coefficient * (upper[name] - 1)
    low = bounds(dim, upper)[0]
    return low is not None and low >= 0


def _nonnegative_by_case(dim: Dim, coef: int, atom: Minimum | Maximum, upper: Bounds) -> bool:
    others = dim - coef * from_atom(atom)
    cases = (nonnegative(others + coef * side, upper) for side in (atom.a, atom.b))
    # `-max(a, b)` is the smaller of two terms, as `min` is: both must pass.
    return all(cases) if isinstance(atom, Minimum) == (coef > 0) else any(cases)


def _nonnegative_factor(dim: Dim, upper: Bounds) -> bool:
    """Whether ``dim >= 0``, also as a multiple of an extent, which is positive in its loop."""
    low = bounds(dim, upper)[0]
    if low is not None and low >= 0:
        return True
    if isinstance(dim, int):
        return False
    for extent in upper.values():
        ratio = None if isinstance(extent, int) else exact_quotient(dim, extent)
        if ratio is not None and _nonnegative_factor(ratio, upper):
            return True
    return False


# Minimum and maximum.


def dim_min(a: Dim, b: Dim) -> Dim:
    """Return the smaller of two sizes, decided where non-negative variables decide it."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else _extremum(a, b, Minimum, {})


def dim_max(a: Dim, b: Dim) -> Dim:
    """Return the larger of two sizes, decided where non-negative variables decide it."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else _extremum(a, b, Maximum, {})


def _extremum(a: Dim, b: Dim, kind: Extremum, upper: Bounds) -> Dim:
    kept: list[Dim] = []
    for candidate in [*_flatten(a, kind), *_flatten(b, kind)]:
        if any(_dominates(other, candidate, kind, upper) for other in kept):
            continue
        kept = [other for other in kept if not _dominates(candidate, other, kind, upper)]
        kept.append(candidate)
    kept.sort(key=lambda dim: (isinstance(dim, int), str(dim)))
    result = kept[0]
    for dim in kept[1:]:
        result = from_atom(kind(result, dim))
    return result


def _flatten(dim: Dim, kind: Extremum) -> list[Dim]:
    atom = lone_atom(dim)
    if not isinstance(atom, (Minimum, Maximum)) or type(atom) is not kind:
        return [dim]
    return [*_flatten(atom.a, kind), *_flatten(atom.b, kind)]


def _dominates(a: Dim, b: Dim, kind: Extremum, upper: Bounds) -> bool:
    return nonnegative(b - a if kind is Minimum else a - b, upper)


# Simplification.


def simplify(dim: Dim, upper: Bounds) -> Dim:
    """Return ``dim`` simplified for ``0 <= name < upper[name]``, inside atoms too.

    Divisions and remainders of row-major indices are undone, ``min`` and ``max`` decided, axes of
    extent 1 dropped; constants added to an axis under ``//`` end in ``[0, divisor)``. The result
    equals ``dim`` where the bounds hold (so each is at least 1) and divisors are positive.
    """
    if isinstance(dim, int):
        return dim
    return rebuild(dim, lambda atom: _simplify_atom(atom, upper))


def provably_equal(a: Dim, b: Dim) -> bool:
    """Whether ``a == b`` for every binding, also where they are not written alike.

    Sees through constants under ``//``, as in ``(H - 1)//2 + 1 == (H + 1)//2``, and through ``%``.
    """
    if _is_plain(a) and _is_plain(b):
        return a == b
    return _shift(a - b) == 0


def _is_plain(dim: Dim) -> bool:
    """Whether a size is a polynomial in variables, so that there is one way to write it."""
    return all([type(atom) is Var for mono in polynomial(dim) for atom, _ in mono])


def _shift(dim: Dim) -> Dim:
    """Return ``dim`` without ``%`` and with coefficients under ``//`` in ``[0, divisor)``."""
    return dim if isinstance(dim, int) or _is_plain(dim) else rebuild(dim, _shift_atom)


def _shift_atom(atom: Atom) -> Dim:
    if isinstance(atom, Var):
        return from_atom(atom)
    assert isinstance(atom, PairAtom)
    a, b = _shift(atom.a), _shift(atom.b)
    if isinstance(atom, (Minimum, Maximum)):
        return _extremum(a, b, type(atom), {})
    q, r, d, _ = reduce_division(a, b)
    if isinstance(d, int):
        whole = finish({m: c // d for m, c in polynomial(r).items() if c // d})
        q, r = q + whole, r - whole * d
    quotient = q + floor_div(r, d)
    return a - quotient * b if isinstance(atom, Modulo) else quotient


def _simplify_atom(atom: Atom, upper: Bounds) -> Dim:
    if isinstance(atom, Var):
        return 0 if upper.get(atom.name) == 1 else from_atom(atom)
    assert isinstance(atom, PairAtom)
    a, b = simplify(atom.a, upper), simplify(atom.b, upper)
    if isinstance(atom, (Minimum, Maximum)):
        return _extremum(a, b, type(atom), upper)
    return _divmod_within(a, b, upper)[isinstance(atom, Modulo)]


def _divmod_within(a: Dim, b: Dim, upper: Bounds) -> tuple[Dim, Dim]:
    q, r, d, g = reduce_division(a, b)
    if isinstance(d, int) and not symbols(r).isdisjoint(upper):
        # Not for sizes: `(H - 5)//2 + 1` is how people write them.
        constant = polynomial(r).get((), 0) // d
        q, r = q + constant, r - constant * d
    whole = _whole_quotient(r, d, upper)
    if whole is not None:
        return q + whole, g * (r - whole * d)
    for factor in _factors(r, d):
        high, low = (finish(part) for part in divide(polynomial(r), polynomial(factor)))
        ratio = exact_quotient(d, factor)
        if ratio is not None and _whole_quotient(low, factor, upper) == 0:
            quotient, rest = _divmod_within(high, ratio, upper)
            return q + quotient, g * (factor * rest + low)
    return q + floor_div(r, d), g * modulo(r, d)


def _whole_quotient(r: Dim, d: Dim, upper: Bounds) -> int | None:
    """Return ``r // d`` where the bounds decide it."""
    low, high = bounds(r, upper)
    if isinstance(d, int) and low is not None and high is not None and low // d == high // d:
        return low // d
    if nonnegative(r, upper) and nonnegative(d - 1 - r, upper):
        return 0
    return None


def _factors(r: Dim, d: Dim) -> list[Dim]:
    """Return divisors of ``d``, above 1, that some term of ``r`` shares."""
    if len(polynomial(d)) != 1:
        return []
    (whole,) = polynomial(d).items()
    shared = {content([item, whole]) for item in polynomial(r).items()}
    ordered = sorted(shared - {(1, ())}, key=lambda item: (order_key(item[1]), -item[0]))
    return [finish({mono: scale}) for scale, mono in ordered]

"""Symbolic sizes: integers and canonical polynomials over named, non-negative size variables.

A `Dim` is a plain ``int`` or a `SizeExpr`. Variables stand for integers ``>= 0`` and divisors are
assumed positive. Building an expression canonicalises it, so two sizes that compare equal are
equal for every binding; sizes that are equal may still differ in form (see `provably_equal`).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

from graphc.ir.polynomial import Atom
from graphc.ir.size_bounds import (
    bounds,
    dim_max,
    dim_min,
    linear,
    provably_equal,
    rebuild,
    simplify,
)
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
    floor_div,
    from_atom,
    lone_atom,
    modulo,
    polynomial,
    symbol,
    symbols,
    terms,
)

__all__ = [
    "Atom",
    "Dim",
    "FloorDiv",
    "Maximum",
    "Minimum",
    "Modulo",
    "PairAtom",
    "SizeExpr",
    "UnboundSizeError",
    "Var",
    "atom_symbols",
    "bounds",
    "ceil_div",
    "dim_max",
    "dim_min",
    "evaluate",
    "floor_div",
    "linear",
    "modulo",
    "parse_dim",
    "product",
    "provably_equal",
    "simplify",
    "solve",
    "substitute",
    "symbol",
    "symbols",
    "terms",
]


class UnboundSizeError(KeyError):
    """A size variable has no value in the given bindings."""

    def __str__(self) -> str:
        return str(self.args[0])


def ceil_div(a: Dim, b: Dim) -> Dim:
    """Return ``a / b`` rounded up, as ``(a + b - 1) // b``."""
    return floor_div(a + b - 1, b)


def product(dims: Iterable[Dim]) -> Dim:
    """Return the product of ``dims``, 1 where there are none."""
    result: Dim = 1
    for dim in dims:
        result = result * dim
    return result


# Binding.

_OPERATIONS: dict[type[Atom], Callable[[Dim, Dim], Dim]] = {
    FloorDiv: floor_div,
    Modulo: modulo,
    Minimum: dim_min,
    Maximum: dim_max,
}


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
    for mono, value in polynomial(dim).items():
        for atom, power in mono:
            value *= _atom_value(atom, bindings) ** power
        total += value
    return total


def _atom_value(atom: Atom, bindings: Mapping[str, int]) -> int:
    if isinstance(atom, Var):
        if atom.name not in bindings:
            known = ", ".join(sorted(bindings)) or "none"
            raise UnboundSizeError(f"size variable {atom.name} has no value; bound are: {known}")
        return bindings[atom.name]
    assert isinstance(atom, PairAtom)
    a, b = evaluate(atom.a, bindings), evaluate(atom.b, bindings)
    if b == 0 and isinstance(atom, (FloorDiv, Modulo)):
        raise ZeroDivisionError(f"{atom} divides by zero: {atom.b} is 0")
    value = _OPERATIONS[type(atom)](a, b)
    assert isinstance(value, int)
    return value


def substitute(dim: Dim, mapping: Mapping[str, Dim]) -> Dim:
    """Return ``dim`` with variables replaced at once by sizes, canonicalised again."""
    if isinstance(dim, int) or symbols(dim).isdisjoint(mapping):
        return dim
    return rebuild(dim, lambda atom: _substitute_atom(atom, mapping))


def _substitute_atom(atom: Atom, mapping: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, Var):
        return mapping[atom.name] if atom.name in mapping else from_atom(atom)
    assert isinstance(atom, PairAtom)
    return _OPERATIONS[type(atom)](substitute(atom.a, mapping), substitute(atom.b, mapping))


# Solving.


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
        value = None if affine is None else exact_quotient(-affine[1], affine[0])
        if affine is None or value is None:
            continue
        if value == 0 and not isinstance(affine[0], int):
            # A product that is zero: the other factor may be the one that vanishes.
            continue
        highest = bounds(value, {})[1]
        if highest is None or highest >= 0:
            found.append((_solve_rank(name, affine[0], a, b), name, value))
    best = min(found, key=lambda item: item[:2], default=None)
    return None if best is None else best[1:]


def _solve_rank(name: str, coefficient: Dim, a: Dim, b: Dim) -> int:
    for rank, side in enumerate((a, b)):
        if lone_atom(side) == Var(name):
            return rank
    if isinstance(coefficient, int):
        return 2 if abs(coefficient) == 1 else 3
    return 4


# Parsing.

_TOKEN = re.compile(r"\s*(?:([0-9]+)|([A-Za-z_][A-Za-z0-9_.]*)|(//|[-+*%(),])|(\Z))")
_NUMBER, _NAME, _END = 1, 2, 4
_MAX_DEPTH = 100


def parse_dim(text: str) -> Dim:
    """Return the size written in ``text``, the inverse of ``str``.

    Raises
    ------
    ValueError
        If ``text`` is not a size; the message names the position, counted from 0.
    """
    return _Parser(text).parse()


class _Parser:
    """Recursive descent over ``+ -``, then ``* // %``, then unary minus, as Python binds them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.end = self.start = self.depth = 0
        self.advance()

    def parse(self) -> Dim:
        dim = self.sum()
        if self.kind != _END:
            self.fail("expected an operator or the end")
        return dim

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.end)
        if match is None or match.lastindex is None:
            rest = self.text[self.end :]
            self.fail("expected a size or an operator", self.end + len(rest) - len(rest.lstrip()))
        self.kind = match.lastindex
        self.token, self.start, self.end = match[self.kind], match.start(self.kind), match.end()

    def fail(self, problem: str, position: int | None = None) -> NoReturn:
        position = self.start if position is None else position
        found = self.text[position : position + 12]
        raise ValueError(
            f"cannot parse size {self.text!r}: {problem} at position {position}, "
            f"found {repr(found) if found else 'the end'}"
        )

    def take(self, *tokens: str) -> str:
        token = self.token
        if not token or token not in tokens:
            return ""
        self.advance()
        return token

    def expect(self, token: str) -> None:
        if not self.take(token):
            self.fail(f"expected {token!r}")

    def sum(self) -> Dim:
        total = self.term()
        while sign := self.take("+", "-"):
            total = total + self.term() if sign == "+" else total - self.term()
        return total

    def term(self) -> Dim:
        value = self.factor()
        while sign := self.take("*", "//", "%"):
            start = self.start
            right = self.factor()
            if sign != "*" and right == 0:
                self.fail("division by zero", start)
            value = {"*": operator.mul, "//": floor_div, "%": modulo}[sign](value, right)
        return value

    def factor(self) -> Dim:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"nested deeper than {_MAX_DEPTH}")
        value = -self.factor() if self.take("-") else self.primary()
        self.depth -= 1
        return value

    def primary(self) -> Dim:
        if self.take("("):
            dim = self.sum()
            self.expect(")")
            return dim
        token, kind = self.token, self.kind
        if kind not in (_NUMBER, _NAME):
            self.fail("expected a size")
        self.advance()
        if kind == _NUMBER:
            return int(token)
        if token in ("min", "max"):
            return self.call(dim_min if token == "min" else dim_max)
        return symbol(token)

    def call(self, function: Callable[[Dim, Dim], Dim]) -> Dim:
        self.expect("(")
        value = self.sum()
        self.expect(",")
        value = function(value, self.sum())
        while self.take(","):
            value = function(value, self.sum())
        self.expect(")")
        return value

"""Sizes in exported libraries: Dims as native arithmetic that notices what it cannot hold.

A library is handed shapes by a caller it cannot trust. Each sum and product is checked for
overflow and each divisor for 0, so that memory is never planned from a number that went round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.llvm_builder import FLAGGED, Constant, Row
from graphc.codegen.llvm_types import I1, I64
from graphc.codegen.native.function import NativeFunction
from graphc.ir.dim import (
    Atom,
    Dim,
    FloorDiv,
    Maximum,
    Minimum,
    Modulo,
    PairAtom,
    SizeExpr,
    Var,
    floor_div,
    linear,
    symbol,
    symbols,
    terms,
)


class SizeWriter:
    """Writes the values of Dims, where control goes straight on.

    Parameters
    ----------
    body : NativeFunction
    sizes : mapping of str to Row
        Values of the size variables.

    Attributes
    ----------
    fault : Row
        Whether anything so far could not be computed.
    """

    def __init__(self, body: NativeFunction, sizes: Mapping[str, Row]):
        self._body, self._builder = body, body.builder
        self._sizes = sizes
        self._known: dict[Dim, Row] = {}
        self.fault: Row = Constant(I1, 0)

    def value(self, dim: Dim) -> Row:
        """Return the value of a Dim."""
        if not isinstance(dim, SizeExpr):
            return self._body.constant(dim)
        if dim not in self._known:
            self._known[dim] = self._polynomial(dim)
        return self._known[dim]

    def note(self, wrong: Row) -> None:
        """Note a fault where a condition holds."""
        self.fault = self._builder.or_(self.fault, wrong)

    def checked(self, operation: str, a: Row, b: Row) -> Row:
        """Return a sum (``"add"``) or product (``"mul"``); it is a fault where it does not fit."""
        name = f"llvm.s{operation}.with.overflow.i64"
        function = self._body.module.declare(name, FLAGGED, [I64, I64])
        pair = self._builder.call(function, [a, b], pure=True)
        self.note(self._builder.part(pair, 1))
        return self._builder.part(pair, 0)

    def larger(self, a: Row, b: Row) -> Row:
        """Return the larger of two numbers."""
        return self._builder.select(self._builder.icmp_signed(">", a, b), a, b)

    def quotient(self, a: Row, b: Row) -> Row:
        """Return ``a // b`` for a divisor of which it is known that it is positive."""
        return self._divided(a, b)[0]

    def _polynomial(self, dim: SizeExpr) -> Row:
        total: Row | None = None
        for coefficient, factors in terms(dim):
            term: Row | None = None if coefficient == 1 else self._body.constant(coefficient)
            for atom, power in factors:
                for _ in range(power):
                    value = self._atom(atom)
                    term = value if term is None else self.checked("mul", term, value)
            term = self._body.constant(1) if term is None else term
            total = term if total is None else self.checked("add", total, term)
        assert total is not None  # 0 is an int
        return total

    def _atom(self, atom: Atom) -> Row:
        if isinstance(atom, Var):
            return self._sizes[atom.name]
        assert isinstance(atom, PairAtom)
        a, b = self.value(atom.a), self.value(atom.b)
        if isinstance(atom, Maximum):
            return self.larger(a, b)
        if isinstance(atom, Minimum):
            return self._builder.select(self._builder.icmp_signed("<", a, b), a, b)
        assert isinstance(atom, FloorDiv | Modulo)
        wrong = self._builder.icmp_signed("<=", b, self._body.constant(0))
        self.note(wrong)
        divisor = self._builder.select(wrong, self._body.constant(1), b)
        return self._divided(a, divisor)[isinstance(atom, Modulo)]

    def _divided(self, a: Row, b: Row) -> tuple[Row, Row]:
        """Return quotient, rounded down, and remainder; ``b`` is positive."""
        builder, zero = self._builder, self._body.constant(0)
        quotient, rest = builder.sdiv(a, b), builder.srem(a, b)
        below = builder.icmp_signed("<", rest, zero)
        lower = builder.sub(quotient, self._body.constant(1))
        return (
            builder.select(below, lower, quotient),
            builder.select(below, builder.add(rest, b), rest),
        )


@dataclass(frozen=True, slots=True)
class Solution:
    """How the size of an axis gives a size variable.

    Attributes
    ----------
    name : str
        The variable.
    axis : int
        Which axis of all arguments gives it.
    value : Dim
        Its value, over the axis's size `AXIS` and variables that were found before.
    """

    name: str
    axis: int
    value: Dim


AXIS = "axis_size"
"""The variable that stands for the size of an axis in a `Solution`."""


def solutions(dims: Sequence[Dim]) -> list[Solution]:
    """Find how the sizes of arguments give the size variables, in an order that can be computed.

    Parameters
    ----------
    dims : sequence of Dim
        Declared sizes of all axes of all arguments.
    """
    found: dict[str, Solution] = {}
    # Lone variables first: most sizes are, and the others are usually built from them.
    axes = sorted(range(len(dims)), key=lambda axis: not str(dims[axis]).isidentifier())
    for _ in dims:  # each round finds a variable or is the last
        before = len(found)
        for axis in axes:
            unknown = symbols(dims[axis]) - found.keys()
            if len(unknown) == 1:
                (name,) = unknown
                value = _solved(dims[axis], name)
                if value is not None:
                    found[name] = Solution(name, axis, value)
        if len(found) == before:
            break
    return list(found.values())


def _solved(dim: Dim, name: str) -> Dim | None:
    """Return a variable of a size over `AXIS`; what a division leaves over is not looked at."""
    affine = linear(dim, name)
    if affine is None or affine[0] == 0:
        return None
    factor, rest = affine
    if isinstance(factor, int) and factor < 0:
        return floor_div(rest - symbol(AXIS), -factor)
    return floor_div(symbol(AXIS) - rest, factor)

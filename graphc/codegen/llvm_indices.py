"""Index arithmetic in LLVM IR, written so that LLVM has little to find out about it.

Sizes and divisors are what `graphc.ir.dim` says: variables are never negative, divisors positive.
What that proves decides how a division is written, so that no code handles signs that never come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.codegen.llvm_builder import Ahead, Block, Constant, Phi, Row
from graphc.codegen.llvm_types import I64, integer
from graphc.codegen.llvm_values import Value, whole
from graphc.errors import CompileError
from graphc.ir.dim import (
    Atom,
    Dim,
    FloorDiv,
    Maximum,
    Minimum,
    Modulo,
    PairAtom,
    Var,
    atom_symbols,
    bounds,
    symbols,
    terms,
)

Term = tuple[int, Sequence[tuple[Atom, int]]]

_ZERO = whole(0)
_EXPECT = "llvm.expect.i64"


@dataclass(slots=True)
class Innermost:
    """The innermost loop that is being written.

    Attributes
    ----------
    name : str
    clock : int
        What changed later than this changes in the loop.
    ahead : Ahead
    body : Block
        Where it begins, with as many ``phis``.
    counter, start : Row
    step : int
    multiples : dict
        Text of a factor -> phi, value and factor of a multiple of the counter.
    """

    name: str
    clock: int
    ahead: Ahead
    body: Block
    phis: int
    counter: Row
    start: Row
    step: int
    multiples: dict[str, tuple[Phi, Row, Row]] = field(default_factory=dict)


class Indices:
    """Writes sizes and indices as values of 64 bits.

    Attributes
    ----------
    emit : KernelEmitter or CudaEmitter
    names : dict
        What each size, loop variable and register is at this point.
    positive : set of str
        Names that are known to be 1 or more.
    innermost : Innermost or None
    """

    def __init__(self, emit: Any, bits: int = 64):
        self.emit, self.word, self.wraps = emit, integer(bits), bits == 64
        self.names: dict[str, Value] = {}
        self.positive: set[str] = set()
        self.innermost: Innermost | None = None

    def stamp(self, names: frozenset[str]) -> int:
        """Return when the last of some names changed."""
        raise NotImplementedError

    def opaque(self, value: Value) -> Value:
        """Return a scalar index that LLVM takes for a value of its own.

        Loop strength reduction would write each address in loops anew, as a sum over all that the
        index was made of; half of a product's time in LLVM went there, and the code got no faster.
        """
        (row,) = value.rows
        if isinstance(row, Constant):
            return value
        self._expected(row)
        expect = self.emit.module.functions[_EXPECT]
        return self.emit.scalar(self.emit.builder.call(expect, [row, _ZERO], pure=True))

    def _expected(self, row: Row) -> str:
        self.emit.module.declare(_EXPECT, I64, [I64, I64])
        return f"call i64 @{_EXPECT}({row.typed}, {_ZERO.typed})"

    def split(self, dim: Dim) -> tuple[Row | None, Row]:
        """Return an offset as what an innermost loop does not change, and the rest."""
        loop, known = self.innermost, terms(dim)
        if loop is None:
            return None, self.row(dim)
        fixed = [term for term in known if term[1] and self.depth(term) <= loop.clock]
        rest = [term for term in known if term not in fixed]
        return (self.sum(fixed) if fixed else None), self.sum(rest)

    def whole(self, number: int) -> Constant:
        """Return a constant index."""
        return Constant(self.word, number % (1 << self.word.width))

    def index(self, dim: Dim) -> Value:
        """Return a Dim as a number of 64 bits, which a constant may need."""
        if isinstance(dim, int):
            return self.emit.scalar(whole(dim))
        row = self.row(dim)
        if isinstance(row, Constant):
            return self.emit.scalar(whole(_signed(row)))
        return self.emit.scalar(self.emit.builder.sext(row, I64))

    def narrowed(self, value: Value) -> Row:
        """Return a number of 64 bits with as many as indices have.

        They are enough for a loop's counter, and that one step beyond: a program whose indices have
        32 bits refuses to count further than 2**31 - 2**24.
        """
        (row,) = value.rows
        if isinstance(row, Constant):
            return self.whole(_signed(row))
        return self.emit.builder.trunc(row, self.word)

    def row(self, dim: Dim) -> Row:
        """Return a Dim; terms of inner loops are added last, so that the rest can be moved out."""
        return self.whole(dim) if isinstance(dim, int) else self.sum(terms(dim))

    def sum(self, parts: Sequence[Term]) -> Row:
        """Return a sum of terms."""
        builder = self.emit.builder
        total: Row | None = None
        for coefficient, factors in sorted(parts, key=lambda term: (self.depth(term), term[0] < 0)):
            term = self.term(abs(coefficient) if total else coefficient, factors)
            if total is None:
                total = term
            else:
                write = builder.add if coefficient > 0 else builder.sub
                total = write(total, term, self.wraps)
        return self.whole(0) if total is None else total

    def term(self, coefficient: int, factors: Sequence[tuple[Atom, int]]) -> Row:
        """Return a product of atoms."""
        builder, loop = self.emit.builder, self.innermost
        found: Row = self.whole(coefficient)
        counted = False
        for atom, power in factors:
            if loop is not None and power == 1 and isinstance(atom, Var) and atom.name == loop.name:
                counted = True
                continue
            for _ in range(power):
                found = builder.mul(self.atom(atom), found, self.wraps)
        return self.counted(loop, found) if counted and loop is not None else found

    def counted(self, loop: Innermost, factor: Row) -> Row:
        """Return the counter of a loop times a factor; additions advance it beside the counter."""
        if isinstance(factor, Constant) and factor.constant in (1, 2):
            return self.emit.builder.mul(loop.counter, factor)
        if not loop.ahead.has(factor):
            return self.emit.builder.mul(loop.counter, factor)
        found = loop.multiples.get(factor.text)
        if found is None:
            phi = Phi(I64, self.emit.function.fresh())
            row = Row(I64, self.emit.function.fresh())
            loop.body.lines.insert(0, phi)
            loop.phis += 1
            loop.body.lines.insert(loop.phis, f"  {row.text} = {self._expected(phi)}")
            found = loop.multiples[factor.text] = phi, row, factor
        return found[1]

    def advance(self, loop: Innermost, before: Block) -> None:
        """Advance the multiples of a loop's counter at the end of its body."""
        builder = self.emit.builder
        for phi, _, factor in loop.multiples.values():
            step = builder.mul(factor, whole(loop.step))
            phi.add_incoming(builder.mul(factor, loop.start), before)
            phi.add_incoming(builder.advance(phi, step), builder.block)

    def depth(self, term: Term) -> int:
        """Return when the last of a term's names was bound."""
        return max((self.stamp(atom_symbols(atom)) for atom, _ in term[1]), default=0)

    def atom(self, atom: Atom) -> Row:
        """Return a variable, a quotient, a remainder or an extreme."""
        if isinstance(atom, Var):
            return self.narrowed(self.names[atom.name])
        if not isinstance(atom, PairAtom):
            raise CompileError(f"{type(atom).__name__} is no index arithmetic")
        a, b = self.row(atom.a), self.row(atom.b)
        if isinstance(a, Constant) and isinstance(b, Constant):
            return self.whole(_folded(atom, _signed(a), _signed(b)))
        match atom:
            case FloorDiv():
                return self.quotient(atom, a, b)
            case Modulo():
                return self.remainder(atom, a, b)
            case Minimum():
                return self.emit.intrinsic("llvm.smin", a, b)
            case Maximum():
                return self.emit.intrinsic("llvm.smax", a, b)
        raise CompileError(f"{type(atom).__name__} is no index arithmetic")

    def quotient(self, atom: FloorDiv, a: Row, b: Row) -> Row:
        """Return ``a // b``, rounded down."""
        builder, power = self.emit.builder, _power(b)
        if power is not None:
            return builder.ashr(a, self.whole(power)) if power else a
        least, b = bounds(atom.a, {})[0], self.divisor(atom.b, b)
        if least is not None and least >= 0:
            return builder.udiv(a, b)
        if least == -1:  # as in (n - 1)//b + 1
            return builder.add(builder.udiv(builder.add(a, b), b), self.whole(-1))
        below = builder.ashr(builder.srem(a, b), self.whole(self.word.width - 1))
        return builder.add(builder.sdiv(a, b), below)

    def remainder(self, atom: Modulo, a: Row, b: Row) -> Row:
        """Return ``a % b``, never negative."""
        builder, power = self.emit.builder, _power(b)
        if power is not None:
            return builder.and_(a, self.whole((1 << power) - 1))
        least, b = bounds(atom.a, {})[0], self.divisor(atom.b, b)
        if least is not None and least >= 0:
            return builder.urem(a, b)
        rest = builder.srem(a, b)
        sign = builder.ashr(rest, self.whole(self.word.width - 1))
        return builder.add(rest, builder.and_(sign, b))

    def divisor(self, dim: Dim, row: Row) -> Row:
        """Return a divisor that is not 0 either where an empty loop leaves the quotient unused."""
        if isinstance(row, Constant) or self.is_positive(dim):
            return row
        return self.emit.intrinsic("llvm.umax", row, self.whole(1))

    def is_positive(self, dim: Dim) -> bool:
        """Return whether a size is known to be 1 or more."""
        least = bounds(dim, {})[0]
        if least is not None and least > 0:
            return True
        return len(terms(dim)) == 1 and symbols(dim) <= self.positive and terms(dim)[0][0] > 0


def _signed(row: Constant) -> int:
    """Return the number of a constant index."""
    width = row.type.width
    number: int = row.constant
    return number - (number >> (width - 1) << width)


def _folded(atom: PairAtom, x: int, y: int) -> int:
    """Return an atom of two constants."""
    match atom:
        case FloorDiv():
            return x // max(y, 1)
        case Modulo():
            return x % max(y, 1)
        case Minimum():
            return min(x, y)
    return max(x, y)


def _power(row: Row) -> int | None:
    """Return the exponent of a constant power of two, or None."""
    known = row.constant if isinstance(row, Constant) else 0
    return known.bit_length() - 1 if known > 0 and known & (known - 1) == 0 else None

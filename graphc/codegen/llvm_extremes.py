"""Minimum and maximum of vectors of floats, for processors that have neither's rules.

NaN if either operand is NaN, and -0 is less than +0: an instruction of x86-64 returns its second
operand in both cases. What mends that costs four more. In a chain, such as the maximum of the rows
of a matrix, it is put off to the end: beside the extreme itself each link only notes whether an
operand was NaN, and the signs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.codegen.llvm_builder import Builder, Row, filled
from graphc.codegen.llvm_types import FLOAT, I32, I64, VectorType, vector

_SIGNS = {"max": (">", "and_"), "min": ("<", "or_")}
"""Which of two operands is taken, and how signs combine: those of zeros decide between them."""


@dataclass(frozen=True, slots=True)
class _Link:
    """The extreme of some operands as the instruction finds it, and what mends it."""

    op: str
    found: Row
    unordered: Row
    bits: Row


class Extremes:
    """Writes minima and maxima; of a chain only the last link's mending is used by anything.

    LLVM drops what nothing uses. A result that is NaN is always the same one, so that it does not
    matter to the bits what is seen as a chain.
    """

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}

    def write(self, builder: Builder, op: str, a: Row, b: Row) -> Row:
        """Return ``min`` or ``max`` of two vectors of floats.

        Parameters
        ----------
        builder : Builder
        op : str
        a, b : Row
            Vectors of one type.
        """
        chained = {a.text, b.text} & self._links.keys()
        left, right = self._link(builder, op, a), self._link(builder, op, b)
        link = _Link(
            op,
            _taken(builder, op, left.found, right.found),
            builder.or_(left.unordered, right.unordered),
            getattr(builder, _SIGNS[op][1])(left.bits, right.bits),
        )
        ordered = _by_signs(builder, link) if chained else _both_ways(builder, op, a, b)
        mended = builder.select(link.unordered, filled(a.type, math.nan), ordered)
        self._links[mended.text] = link
        return mended

    def _link(self, builder: Builder, op: str, row: Row) -> _Link:
        known = self._links.get(row.text)
        if known is not None and known.op == op:
            return known
        unordered = builder.fcmp_unordered("!=", row, row)
        return _Link(op, row, unordered, builder.bitcast(row, _integers(row.type)))


def _taken(builder: Builder, op: str, a: Row, b: Row) -> Row:
    """Return what the instruction does: ``b`` where neither is before the other."""
    return builder.select(builder.fcmp_ordered(_SIGNS[op][0], a, b), a, b)


def _both_ways(builder: Builder, op: str, a: Row, b: Row) -> Row:
    """Return the extreme of two that are not NaN: of two zeros each is taken once."""
    kind = _integers(a.type)
    taken = [builder.bitcast(_taken(builder, op, *pair), kind) for pair in ((a, b), (b, a))]
    return builder.bitcast(getattr(builder, _SIGNS[op][1])(*taken), a.type)


def _by_signs(builder: Builder, link: _Link) -> Row:
    """Return the extreme of operands of which none is NaN: a zero has the sign that is due."""
    kind, bits = link.found.type, link.bits.type
    zero = builder.fcmp_ordered("==", link.found, filled(kind, 0.0))
    lowest = filled(bits, -(1 << (bits.element.width - 1)))
    signed = builder.bitcast(builder.and_(link.bits, lowest), kind)
    return builder.select(zero, signed, link.found)


def _integers(kind: VectorType) -> VectorType:
    return vector(I32 if kind.element is FLOAT else I64, kind.count)

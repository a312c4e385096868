"""Types of LLVM IR and how their constants are written."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any


class Type:
    """A type by its text; equal types are one object."""

    __slots__ = ("text",)

    def __init__(self, text: str):
        self.text = text

    def __str__(self) -> str:
        return self.text


class IntegerType(Type):
    """``i1`` to ``i64``; ``width`` in bits."""

    __slots__ = ("width",)

    def __init__(self, width: int):
        super().__init__(f"i{width}")
        self.width = width


class VectorType(Type):
    """``<count x element>``."""

    __slots__ = ("count", "element")

    def __init__(self, element: Any, count: int):
        super().__init__(f"<{count} x {element.text}>")
        self.element, self.count = element, count


FLOAT, DOUBLE, POINTER, VOID = Type("float"), Type("double"), Type("ptr"), Type("void")
integer = cache(IntegerType)
vector = cache(VectorType)
I1, I8, I32, I64 = (integer(width) for width in (1, 8, 32, 64))


@cache
def array(element: Type, count: int) -> Type:
    """Return the type of ``count`` elements in memory."""
    return Type(f"[{count} x {element.text}]")


def literal(type: Any, number: Any) -> str:
    """Return a constant of a type as text; a list has the number of each lane."""
    if isinstance(type, VectorType):
        integers = isinstance(type.element, IntegerType)
        return _integers(type, tuple(number)) if integers else _lanes(type, number)
    if type is FLOAT or type is DOUBLE:
        return _float_literal(float(number), type is FLOAT)
    return str(int(number))


def _lanes(type: VectorType, numbers: Sequence[Any]) -> str:
    first, *rest = numbers
    if all(item is first for item in rest):
        return f"splat ({type.element.text} {literal(type.element, first)})"
    items = [literal(type.element, item) for item in numbers]
    return "<" + ", ".join([f"{type.element.text} {item}" for item in items]) + ">"


@cache
def _integers(type: VectorType, numbers: tuple[int, ...]) -> str:
    """Return lanes of integers; the same few shuffles are written again and again."""
    same = len(set(numbers)) == 1
    return _lanes(type, numbers[:1] * len(numbers) if same else numbers)


def _float_literal(number: float, single: bool) -> str:
    if single:  # the double of equal value; LLVM refuses digits that float32 has not
        (number,) = struct.unpack("<f", struct.pack("<f", number))
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"

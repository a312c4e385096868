"""Types in text, ``f32[n, 4]``, and signatures of them, ``x: f32[n, k] -> y: f32[n]``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from graphc.errors import nearest
from graphc.ir.dim import Dim
from graphc.ir.scanner import Scanner, shown
from graphc.ir.types import DTYPES, TensorType

DTYPE_OF = {dtype.short: dtype for dtype in DTYPES}
"""Types of elements by their short names."""

Declared = tuple[tuple[str, TensorType], ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """Names and types of arrays that go in and come out; sizes of one name are equal."""

    inputs: Declared
    outputs: Declared


@cache
def parse_signature(text: str) -> Signature:
    """Return what a text declares.

    Raises
    ------
    ParseError
        With the column of the first fault.
    """
    scan = Scanner(text, "")
    inputs = _declared(scan)
    scan.take("->", "'->' and the arrays that are written")
    outputs = _declared(scan)
    scan.skip()
    if not scan.at_end():
        raise scan.expected("the end of the signature")
    names = [name for name, _ in (*inputs, *outputs)]
    if len({*names}) < len(names):
        raise scan.error("an array is declared twice")
    return Signature(inputs, outputs)


def _declared(scan: Scanner) -> Declared:
    found = []
    while True:
        scan.skip()
        name = scan.identifier("the name of an array")
        scan.take(":", "':' and a type such as f32[n, 4]")
        found.append((name, scan_type(scan)))
        if not scan.accept(","):
            return tuple(found)


def scan_type(scan: Scanner) -> TensorType:
    """Read a type of an array."""
    scan.skip()
    start = scan.position
    name = scan.identifier("a type such as f32[2, 3]")
    if name not in DTYPE_OF:
        raise scan.error(f"there is no dtype {shown(name)}.{nearest(name, DTYPE_OF)}", start)
    return TensorType(DTYPE_OF[name], scan_shape(scan))


def scan_shape(scan: Scanner) -> tuple[Dim, ...]:
    """Read sizes in brackets."""
    scan.take("[")
    sizes: list[Dim] = []
    while not scan.looking_at("]"):
        scan.skip()
        start = scan.position
        size = scan.dim(",]")
        if isinstance(size, int) and size < 0:
            raise scan.error("a size is not negative", start)
        sizes.append(size)
        if not scan.accept(","):
            break
    scan.take("]", "',' or ']'")
    return tuple(sizes)

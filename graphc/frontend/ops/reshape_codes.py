"""MXNet's special sizes of ``reshape``: 0, -1, -2, -3 and -4."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import ShapeError
from graphc.ir.dim import Dim, SizeExpr, product
from graphc.ir.types import shape_text

KEEP, INFER, REST, JOIN, SPLIT = 0, -1, -2, -3, -4
Code = Dim | tuple[Dim, Dim]


def coded_shape(shape: Sequence[Dim], codes: Sequence[Dim], reverse: bool) -> tuple[Dim, ...]:
    """Return the shape that codes mean for an array, with at most one -1 left in it.

    Parameters
    ----------
    shape : sequence of Dim
        Of the array.
    codes : sequence of Dim
    reverse : bool
        Match codes and sizes from the last on.

    Raises
    ------
    ShapeError
        When a code needs sizes that are not there.
    """
    if all(isinstance(c, SizeExpr) or c > 0 or c == INFER for c in codes):
        return tuple(codes)
    items = _grouped(codes)
    own = list(shape)
    if reverse:
        own.reverse()
        items = [c[::-1] if isinstance(c, tuple) else c for c in reversed(items)]
    found = _matched(own, items, codes)
    return tuple(reversed(found)) if reverse else tuple(found)


def _grouped(codes: Sequence[Dim]) -> list[Code]:
    """Return codes with each -4 and the two sizes after it as a pair."""
    items: list[Code] = []
    rest = list(codes)
    while rest:
        code = rest.pop(0)
        if code == SPLIT:
            if len(rest) < 2:
                raise ShapeError(f"-4 in {shape_text(codes)} needs the two sizes after it")
            items.append((rest.pop(0), rest.pop(0)))
        elif not isinstance(code, SizeExpr) and code < SPLIT:
            raise ShapeError(
                f"{code} in {shape_text(codes)} is no size",
                remedy="Sizes are above 0, or one of the codes 0, -1, -2, -3 and -4.",
            )
        else:
            items.append(code)
    return items


def _matched(own: list[Dim], items: list[Code], codes: Sequence[Dim]) -> list[Dim]:
    """Return the sizes that codes mean, taken from the front of ``own``."""
    found: list[Dim] = []
    position = 0

    def take(count: int) -> list[Dim]:
        nonlocal position
        taken = own[position : position + count]
        position += count
        if len(taken) < count:
            raise ShapeError(
                f"shape {shape_text(codes)} keeps, joins or splits more axes than {len(own)}"
            )
        return taken

    for item in items:
        if isinstance(item, tuple):
            found += _split(take(1)[0], item)
        elif item == KEEP:
            found += take(1)
        elif item == REST:
            found += take(max(len(own) - position, 0))
        elif item == JOIN:
            found.append(product(take(2)))
        else:
            # A size or -1 stands for one axis, if there is still one.
            position += 1
            found.append(item)
    return found


def _split(size: Dim, parts: tuple[Dim, Dim]) -> list[Dim]:
    first, second = parts
    if first == INFER:
        return [size // second, second]
    if second == INFER:
        return [first, size // first]
    return [first, second]

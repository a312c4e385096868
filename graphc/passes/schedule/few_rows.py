"""Products with one or two rows: each element of the large operand is used once or twice.

Copying that operand into scratch would cost more than the product, so these sums read it where it
lies: along the columns, or along the depth with partial sums in the lanes.
"""

from __future__ import annotations

import math

from graphc.ir import expr as E
from graphc.ir.dim import Dim, symbol
from graphc.ir.expr import Axis, Buffer, Expr
from graphc.ir.loop import Assign, Declare, For, Let, Store
from graphc.passes.schedule.loops import Body
from graphc.passes.schedule.nest import substituted
from graphc.passes.schedule.packing import (
    Names,
    Stretch,
    over,
    tiled,
    touched,
    unit_loads,
)
from graphc.passes.schedule.vectorize import vectorize

FEW = 2
"""So many rows at most."""
_VECTORS = 4  # independent sums in flight, to cover the latency of a multiply-add


def few_rows(
    sums: Buffer, rows: Stretch, columns: Stretch, depth: Axis, a: Expr, b: Expr, lanes: int,
    names: Names,
) -> Body:  # fmt: skip
    """Return loops that leave ``sum over depth of a * b`` in ``sums[row, column]``.

    Parameters
    ----------
    sums : Buffer
        Scratch, with rows at least ``4 * lanes`` elements apart from its end.
    rows, columns : Stretch
        The block; columns have one axis.
    depth : Axis
    a, b : Expr
        The factors; ``a`` depends on rows, ``b`` on columns.
    lanes : int
        Elements of a vector register.
    names : Names
    """
    (column,) = columns.axes
    wide = lanes * _VECTORS
    along_depth = unit_loads(b, depth) > unit_loads(b, column)

    def row(position: Dim) -> Body:
        place = (position - rows.start) * sums.shape[1] + symbol(column.name) - columns.start
        if along_depth:
            body = _dot(sums, place, depth, a, b, lanes)
            step = 1
        else:
            rest = E.iota(wide) < E.index(columns.start + columns.count - symbol(column.name))
            vector = vectorize(b, column.name, wide, E.use("rest", rest), {})
            body = (Let("rest", rest), *_line(sums, place, depth, a, vector))
            step = wide
        stop = E.index(columns.start + columns.count)
        return (For(column.name, E.index(columns.start), stop, body, step=step),)

    before, rows = touched(rows, names)
    return (*before, *over(rows, names, row))


def _dot(sums: Buffer, place: Dim, depth: Axis, a: Expr, b: Expr, lanes: int) -> Body:
    """Sum along the depth; lanes hold partial sums, of whole steps and of the rest."""
    name, count = depth.name, depth.extent
    zero = E.splat(E.const(0, a.dtype), (lanes,))
    wide = [_several(e, name, lanes) for e in (a, b)]
    several = all(e is not None for e in wide)
    tile = (_VECTORS, lanes) if several else (lanes,)
    factors = wide if several else [vectorize(e, name, lanes, None, {}) for e in (a, b)]
    start = E.splat(E.const(0, a.dtype), tile)
    whole = count // math.prod(tile) * math.prod(tile)
    partial, rest = E.use("partial", start), E.use("rest", zero)
    mask = E.iota(lanes) < E.index(count - symbol(name))
    x, y = (vectorize(e, name, lanes, mask, {}) for e in (a, b))
    step = Assign("partial", E.apply("fma", *factors, partial))
    last = Assign("rest", rest + E.select(mask, x * y, zero))
    return (
        Declare("partial", start),
        For(name, E.index(0), E.index(whole), (step,), step=math.prod(tile)),
        Declare("rest", zero),
        For(name, E.index(whole), E.index(count), (last,), step=lanes),
        Store(sums, E.index(place), E.fold("add", partial) + E.fold("add", rest)),
    )


def _several(value: Expr, name: str, lanes: int) -> Expr | None:
    """Return several vectors of a value in a tile, if loads are all that it reads."""
    place = symbol(name) + symbol("part") * lanes
    found = tiled(substituted(value, {name: place}, {}), (("part", _VECTORS), (name, lanes)))
    return None if found is None else substituted(found, {"part": 0}, {})


def _line(sums: Buffer, place: Dim, depth: Axis, a: Expr, b: Expr) -> Body:
    """Sum a vector of columns."""
    zero = E.splat(E.const(0, a.dtype), b.tile)
    holder = E.use("line", zero)
    term = Assign("line", E.apply("fma", a, b, holder))
    return (
        Declare("line", zero),
        For(depth.name, E.index(0), E.index(depth.extent), (term,)),
        Store(sums, E.index(place), holder, (1,)),
    )

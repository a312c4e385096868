"""Loops over stretches of flattened axes, and operands copied into scratch for the registers.

Several axes in row-major order are one flat axis. A stretch of it is walked by nested loops over
the axes themselves, so that no position is divided back into indices inside a loop; the innermost
axis comes as *runs*, which vectors walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from graphc.ir import expr as E
from graphc.ir.dim import Dim, dim_max, dim_min, linear, symbol, symbols
from graphc.ir.expr import Apply, Axis, Buffer, Expr, Index, Load
from graphc.ir.loop import For, If, Let, Stmt, Store
from graphc.ir.types import DType
from graphc.passes.schedule.loops import HEAVY, Body, vector_loop
from graphc.passes.schedule.nest import free_names, stride
from graphc.passes.schedule.vectorize import vectorize

SQUARE = 8
"""Rows and columns of a square that is transposed in registers: few streams from memory, and half
the machine code of larger ones.
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """``count`` positions from ``start`` on of the flat axis that ``axes`` make.

    ``outer`` is what they touch of the axes but the innermost; `touched` settles it.
    """

    axes: tuple[Axis, ...]
    start: Dim
    count: Dim
    outer: Stretch | None = None


class Names:
    """Fresh names for the bounds of runs."""

    def __init__(self) -> None:
        self._numbers = count()

    def bounds(self, start: Dim, stop: Dim) -> tuple[Body, Dim, Dim]:
        """Name the two ends of a run; returns the statements and the names' symbols."""
        number = next(self._numbers)
        names = f"from{number}", f"to{number}"
        lets = tuple(Let(n, E.index(d)) for n, d in zip(names, (start, stop), strict=True))
        return lets, symbol(names[0]), symbol(names[1])


def scratch(name: str, dtype: DType, shape: tuple[int, int], lanes: int) -> Buffer:
    """Return scratch of a block.

    Its rows are longer by a vector: `pack` spills so much behind them, and they stay off each
    other's cache sets.
    """
    return Buffer(name, dtype, (shape[0], shape[1] + lanes), "stack")


def touched(stretch: Stretch, names: Names) -> tuple[Body, Stretch]:
    """Divide a stretch's ends by the axes' extents, once, ahead of all loops.

    Returns the statements that do so, and the stretch for `over` and `over_runs`.
    """
    if len(stretch.axes) == 1:
        return (), stretch
    width = stretch.axes[-1].extent
    first = stretch.start // width
    last = (stretch.start + stretch.count - 1) // width
    lets, start, stop = names.bounds(first, last + 1)
    more, outer = touched(Stretch(stretch.axes[:-1], start, stop - start), names)
    return (*lets, *more), replace(stretch, outer=outer)


def over_runs(stretch: Stretch, names: Names, emit: Callable[[Dim, Dim, Dim], Body]) -> Body:
    """Return loops over a stretch with the innermost axis left to ``emit``.

    ``emit(base, start, stop)`` returns the statements for one run: the innermost axis goes from
    ``start`` to ``stop``, and its index 0 is at flat position ``base``.
    """
    if stretch.outer is None:
        assert len(stretch.axes) == 1, "a stretch of several axes needs touched()"
        return emit(0, stretch.start, stretch.start + stretch.count)
    width = stretch.axes[-1].extent

    def run(position: Dim) -> Body:
        base = position * width
        lets, start, stop = names.bounds(
            dim_max(stretch.start - base, 0),
            dim_min(stretch.start + stretch.count - base, width),
        )
        return (*lets, *emit(base, start, stop))

    return over(stretch.outer, names, run)


def over(stretch: Stretch, names: Names, emit: Callable[[Dim], Body]) -> Body:
    """Return loops over a stretch; ``emit(position)`` returns the statements at one position."""
    name = stretch.axes[-1].name

    def run(base: Dim, start: Dim, stop: Dim) -> Body:
        return (For(name, E.index(start), E.index(stop), emit(base + symbol(name))),)

    return over_runs(stretch, names, run)


def pack(
    scratch: Buffer, rows: Stretch, columns: Stretch, value: Expr, lanes: int, names: Names,
    rare: bool = False,
) -> Body:  # fmt: skip
    """Copy ``value`` into ``scratch[row, column]``, vectors running along the columns.

    The last vector of a run spills over what the next run writes after it, so runs go upwards and
    scratch rows are ``lanes`` longer than a stretch. What stays of the spill is zero, or a value of
    the operand's own: never old memory, whose numbers might be slow ones. A ``rare`` copy has half
    the code: all its vectors are masked.
    """
    before, rows = touched(rows, names)
    more, columns = touched(columns, names)
    cost = HEAVY + 1 if rare else 0
    copies = over(rows, names, _row(scratch, rows, columns, value, lanes, names, cost))
    return (*before, *more, *copies)


def _row(
    scratch: Buffer, rows: Stretch, columns: Stretch, value: Expr, lanes: int, names: Names,
    cost: int,
) -> Callable[[Dim], Body]:  # fmt: skip
    """Return what copies the row at a position of ``rows``, for `pack`."""
    pitch = scratch.shape[1]
    name = columns.axes[-1].name
    zeros = E.splat(E.const(0, value.dtype), (lanes,))

    def row(position: Dim) -> Body:
        offset = (position - rows.start) * pitch

        def run(base: Dim, start: Dim, stop: Dim) -> Body:
            place = E.index(offset + base - columns.start + symbol(name))

            def step(lanes: int, mask: Expr | None) -> Body:
                vector = vectorize(value, name, lanes, mask, {})
                vector = vector if vector.tile else E.splat(vector, (lanes,))
                return (Store(scratch, place, vector, (1,)),)

            return vector_loop(name, start, stop, lanes, step, cost=cost)

        clear = Store(scratch, E.index(offset + columns.count), zeros, (1,))
        return (clear, *over_runs(columns, names, run))

    return row


def pack_window(
    scratch: Buffer, rows: Stretch, outer: Stretch, inner: Stretch, value: Expr, lanes: int,
    names: Names,
) -> Body:  # fmt: skip
    """Copy ``value`` into ``scratch[row, (outer, inner)]`` with the inner axis in whole runs.

    All runs are equally long here, so a vector's place in its run is settled outside the loop over
    runs, and with it which lanes lie on padding. Vectors go from the end of the runs to their
    start: what the last one spills into the next run is overwritten, as in `pack`.
    """
    before, rows = touched(rows, names)
    more, outer = touched(outer, names)
    pitch, (axis,) = scratch.shape[1], inner.axes
    lanes = run_lanes(axis.extent, lanes)
    zeros = E.splat(E.const(0, value.dtype), (lanes,))
    place = symbol(axis.name)
    rest = E.iota(lanes) < E.index(inner.start + inner.count - place)
    lets, vector = window_vector(value, axis.name, lanes, rest, outer)

    def row(position: Dim) -> Body:
        offset = (position - rows.start) * pitch

        def run(at: Dim) -> Body:
            column = (at - outer.start) * inner.count + place - inner.start
            return (Store(scratch, E.index(offset + column), vector, (1,)),)

        last = (inner.count - 1) // lanes * lanes
        vectors = (
            Let(axis.name, E.index(inner.start + last - symbol("back"))),
            *lets,
            *over(outer, names, run),
        )
        return (
            Store(scratch, E.index(offset + outer.count * inner.count), zeros, (1,)),
            For("back", E.index(0), E.index(inner.count), vectors, step=lanes),
        )

    return (*before, *more, *over(rows, names, row))


def window_vector(
    value: Expr, name: str, lanes: int, rest: Expr, outer: Stretch
) -> tuple[Body, Expr]:
    """Return a vector of ``value``, and statements for what its masks have fixed over ``outer``."""
    moving = {axis.name for axis in outer.axes}
    lets: list[Stmt] = []

    def visit(node: Expr) -> Expr | None:
        if isinstance(node, Index):
            return vectorize(node, name, lanes, None, {})
        if not isinstance(node, Load):
            return None
        fixed, varying = rest, None
        for part in conjuncts(node.mask):
            if free_names(part) & moving:
                varying = part if varying is None else varying & part
            else:
                fixed = fixed & vectorize(part, name, lanes, None, {})
        let = Let(f"inside{len(lets)}", fixed)
        lets.append(let)
        bare = E.load(node.buffer, node.offset, mask=varying, fill=node.fill)
        return vectorize(bare, name, lanes, E.use(let.name, fixed), {})

    vector = E.rebuild(value, visit, {})
    return tuple(lets), vector if vector.tile else E.splat(vector, (lanes,))


def conjuncts(mask: Expr | None) -> Iterator[Expr]:
    """Yield conditions that hold together exactly where ``mask`` does."""
    if isinstance(mask, Apply) and mask.op == "and":
        for part in mask.args:
            yield from conjuncts(part)
    elif mask is not None:
        yield mask


def run_lanes(extent: Dim, lanes: int) -> int:
    """Return the width of vectors for runs: of short static ones no more than they need."""
    if isinstance(extent, int):
        while lanes > 2 and lanes // 2 >= extent:
            lanes //= 2
    return lanes


def pack_turned(
    scratch: Buffer, rows: Stretch, columns: Stretch, value: Expr, lanes: int, names: Names
) -> Body | None:
    """Copy an operand that is contiguous along the rows, by transposing small tiles.

    The last tile on each axis reaches back over the one before. Runs of rows shorter than a tile,
    and blocks with fewer columns, are copied one by one. None where the operand is more than
    arithmetic over plain loads.
    """
    if len(columns.axes) > 1:
        return None
    name, column = rows.axes[-1].name, columns.axes[0].name
    side = min(lanes, SQUARE)
    tile = tiled(value, ((name, side), (column, side)))
    if tile is None:
        return None
    before, rows = touched(rows, names)
    pitch = scratch.shape[1]
    zeros = E.splat(E.const(0, value.dtype), (lanes,))

    def reach(axis: str, start: Dim, count: Dim, step: int) -> Stmt:
        return Let(axis, E.index(start + dim_min(symbol(f"{axis}_tile"), count - step)))

    def run(base: Dim, start: Dim, stop: Dim) -> Body:
        row = base + symbol(name) - rows.start
        place = E.index(row * pitch + symbol(column) - columns.start)
        first, last = E.index(columns.start), E.index(columns.start + columns.count)
        one_by_one = For(column, first, last, (Store(scratch, place, value),))
        copy = (reach(name, start, stop - start, side), Store(scratch, place, tile, (pitch, 1)))
        along = For(f"{name}_tile", E.index(0), E.index(stop - start), copy, step=side)
        across = (reach(column, columns.start, columns.count, side), along)
        end = E.index(row * pitch + columns.count)
        clear = For(name, E.index(start), E.index(stop), (Store(scratch, end, zeros, (1,)),))
        tiles = For(f"{column}_tile", E.index(0), E.index(columns.count), across, step=side)
        fits = (E.index(stop - start) >= side) & (E.index(columns.count) >= side)
        rest = For(name, E.index(start), E.index(stop), (one_by_one,))
        return (clear, If(fits, (tiles,), (rest,)))

    return (*before, *over_runs(rows, names, run))


def tiled(value: Expr, axes: Sequence[tuple[str, int]]) -> Expr | None:
    """Return ``value`` over a tile of several loop variables at once, if loads are all it reads."""
    names = [name for name, _ in axes]
    shape = tuple(lanes for _, lanes in axes)
    possible = True

    def visit(node: Expr) -> Expr | None:
        nonlocal possible
        if isinstance(node, Load):
            found = [linear(node.offset.dim, n) for n in names] if isinstance(
                node.offset, Index
            ) and node.mask is None else [None]  # fmt: skip
            steps = tuple(f[0] for f in found if f is not None)
            if len(steps) == len(names) and not any(symbols(d) & set(names) for d in steps):
                return E.load(node.buffer, node.offset, shape, steps)
            possible = False
        elif isinstance(node, Index) and symbols(node.dim) & set(names):
            possible = False
        return None

    tile = E.rebuild(value, visit, {})
    return tile if possible and tile.tile == shape else None


def clear_rows(scratch: Buffer, start: Dim, stop: Dim, lanes: int) -> Body:
    """Fill rows ``start`` to ``stop`` of scratch with zeros."""
    zeros = E.splat(E.const(0, scratch.dtype), (lanes,))
    first, last = (E.index(row * scratch.shape[1]) for row in (start, stop))
    step = Store(scratch, E.index(symbol("clear")), zeros, (1,))
    return (For("clear", first, last, (step,), step=lanes),)


def unit_loads(value: Expr, axis: Axis) -> int:
    """Return how many loads of an operand are contiguous along an axis."""
    return sum(isinstance(e, Load) and stride(e, axis.name) == 1 for e in E.walk(value))


def runs_along(value: Expr, this: Axis, other: Axis) -> bool:
    """Return whether reads of an operand are nearer each other along ``this`` axis."""
    unit = unit_loads(value, this), unit_loads(value, other)
    if unit != (0, 0):
        return unit[0] >= unit[1]
    steps = {stride(e, other.name) for e in E.walk(value) if isinstance(e, Load)}
    return not all(isinstance(step, int) for step in steps)


def has_masks(value: Expr) -> bool:
    """Return whether some reads of an operand are guarded, as those of padded patches are."""
    return any(isinstance(e, Load) and e.mask is not None for e in E.walk(value))

"""The CPU schedule of contractions: blocks that fit the caches, tiles that fit the registers.

A contraction is a matrix product over flattened axes (`Match`). One iteration of the parallel axis
computes a block of rows by columns over the whole depth: it copies a stretch of the columns'
operand into scratch (convolutions read their patches there, padding included), and one of the rows'
operand unless tiles can read that in place, multiplies register tile by register tile, and last
applies the rest of the stores (bias, activation, update) to the sums. The order of additions
depends on sizes only, never on how iterations are spread over threads.

Where both operands are contiguous along the depth, the product is computed turned: see
`_is_turned`.

The blocking follows Goto and van de Geijn, *Anatomy of High-Performance Matrix Multiplication*
(2008), doi:10.1145/1356052.1356053.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, product, symbol
from graphc.ir.expr import Buffer, Load
from graphc.ir.loop import (
    BEGIN,
    END,
    Alloc,
    For,
    If,
    Kernel,
    Let,
    Stmt,
)
from graphc.ir.ops.channels_last import PANEL
from graphc.ir.target import Target
from graphc.passes.schedule.blocking import blocking
from graphc.passes.schedule.contraction_match import Match, match, merged
from graphc.passes.schedule.copied_ahead import Requests, matrix
from graphc.passes.schedule.epilogue import (
    Finished,
    Sums,
    epilogue,
    from_registers,
    is_plain,
    lines_ahead,
    turn,
)
from graphc.passes.schedule.few_rows import FEW, few_rows
from graphc.passes.schedule.loops import Body
from graphc.passes.schedule.nest import Nest
from graphc.passes.schedule.packing import (
    Names,
    Stretch,
    clear_rows,
    has_masks,
    pack,
    pack_turned,
    pack_window,
    runs_along,
    scratch,
    unit_loads,
)
from graphc.passes.schedule.panels import panels
from graphc.passes.schedule.register_tiles import Factor, Finish, Tiles, in_place

__all__ = ["Match", "match", "schedule"]

DEEP = 4096
"""Sums of so many terms (gradients of weights) are shared out in pieces of one vector."""


def schedule(kernel: Kernel, items: tuple[Nest, ...], matched: Match, target: Target) -> Kernel:
    """Turn a contraction into blocked loops over register tiles.

    Parameters
    ----------
    kernel : Kernel
        The plain kernel.
    items : tuple of Nest
        Its stores.
    matched : Match
        What `match` found in ``items``.
    target : Target

    Returns
    -------
    Kernel
        Iterations are the blocks of every matrix of the batch.
    """
    plan = Plan(matched, target)
    names = Names()
    allocs = tuple(map(Alloc, plan.buffers))
    sizes = tuple(Let(name, E.index(value)) for name, value in plan.sizes().items())
    block = (*plan.place(), *_block(plan, items, names))
    loop = For("p", E.index(symbol(BEGIN)), E.index(symbol(END)), block)
    return replace(kernel, body=(*allocs, *sizes, loop), extent=plan.extent(), work=plan.work())


class Plan:
    """What the schedule decided: operands over merged axes, scratch, block sizes.

    Inside the kernel ``row0``, ``column0`` and ``depth0`` are where the block at hand starts, on
    the flat axes, and ``rows``, ``columns`` and ``depth`` how far it goes.
    """

    def __init__(self, matched: Match, target: Target) -> None:
        self.original = matched
        turned = _is_turned(matched)
        if turned:
            matched = replace(
                matched, a=matched.b, b=matched.a, rows=matched.columns, columns=matched.rows
            )
        self.matched = matched
        self.b_columns, (b,) = merged(matched.columns, [matched.b])
        self.b_depth, (self.b,) = merged(matched.depth, [b])
        a_rows, (a,) = merged(matched.rows, [matched.a])
        self.a_depth, (self.a,) = merged(matched.depth, [a])
        rows = self.row_stretch = Stretch(a_rows, symbol("row0"), symbol("rows"))
        depth = self.depth_stretch = Stretch(self.a_depth, symbol("depth0"), symbol("depth"))
        self.in_place = in_place(self.a, rows, depth)
        dtype = matched.reduce.dtype
        self.blocks = blocking(target, dtype, self.in_place is not None)
        lanes, wide = self.blocks.lanes, self.blocks.tile_columns
        self.panels = panels(self.b, self.b_columns, self.b_depth, lanes, wide)
        self.a_by_depth = runs_along(self.a, self.a_depth[-1], a_rows[-1])
        self._scratch(turned)

    def _scratch(self, turned: bool) -> None:
        dtype, b = self.matched.reduce.dtype, self.blocks
        a_rows = b.tile_rows if self.in_place else b.rows
        a_shape = (a_rows, b.depth) if self.a_by_depth else (b.depth, a_rows)
        c_rows = -(-b.rows // b.lanes) * b.lanes
        self.a_scratch = scratch("a_block", dtype, a_shape, b.lanes)
        self.b_scratch = scratch("b_block", dtype, (b.depth, b.columns), b.lanes)
        self.c_scratch = scratch("c_block", dtype, (c_rows, b.columns), b.lanes)
        self.strip = scratch("turned_block", dtype, (b.lanes, c_rows), b.lanes) if turned else None

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """All scratch."""
        copied = (self.a_scratch,) if self.panels else (self.a_scratch, self.b_scratch)
        found = (*copied, self.c_scratch)
        return found if self.strip is None else (*found, self.strip)

    @property
    def output_rows(self) -> Dim:
        """Rows of the output, along which it is not contiguous."""
        return product(a.extent for a in self.original.rows)

    @property
    def whole_rows(self) -> Dim:
        """Rows of a block that whole register tiles cover."""
        return symbol("rows") // self.blocks.tile_rows * self.blocks.tile_rows

    def sizes(self, named: bool = True) -> dict[str, Dim]:
        """Return block sizes and counts, over kernel sizes and, if ``named``, the ones before."""
        b, columns = self.blocks, self.b_columns
        row_count, column_count, depth_count = (
            product(a.extent for a in axes)
            for axes in (self.matched.rows, columns, self.matched.depth)
        )
        outer, width = product(a.extent for a in columns[:-1]), columns[-1].extent
        matrices = product(a.extent for a in self.matched.batch)
        found: dict[str, Dim] = {}

        def name(text: str, value: Dim) -> Dim:
            found[text] = value
            return symbol(text) if named else value

        # So many blocks of columns there can be; where they are few, rows are cut as well.
        strips = dim_max(ceil_div(column_count, b.tile_columns) * matrices, 1)
        wanted = name("wanted", ceil_div(b.count, strips))
        tall = ceil_div(row_count, b.tile_rows * wanted) * b.tile_rows
        row_limit = name("row_limit", dim_min(dim_max(tall, b.tile_rows), b.rows))
        row_blocks = name("row_blocks", ceil_div(row_count, row_limit))
        name("row_step", _balanced(row_count, row_blocks, b.tile_rows))
        depth_blocks = name("depth_blocks", dim_max(ceil_div(depth_count, b.depth), 1))
        name("depth_step", ceil_div(depth_count, depth_blocks))
        # 0 for shallow sums, 1 for deep ones, which repay narrower pieces.
        deep = name("deep", dim_min(depth_count // DEEP, 1))
        least = b.tile_columns - deep * (b.tile_columns - b.lanes)
        # A whole number of rounds of `count` blocks, since the cores wait for the last one.
        share = name("share", ceil_div(column_count * row_blocks * matrices, b.lanes * b.count))
        rounds = dim_max(ceil_div(share, b.columns // b.lanes), 1)
        limit = name("column_limit", dim_max(ceil_div(share, rounds) * b.lanes, least))
        width_blocks = name("width_blocks", ceil_div(width, limit))
        aligned = (PANEL if self.panels else b.lanes) if len(columns) == 1 else 1
        width_step = name("width_step", _balanced(width, width_blocks, aligned))
        if len(columns) > 1:
            fitting = dim_max(limit // dim_max(width_step, 1), 1)
            outer_blocks = name("outer_blocks", ceil_div(outer, fitting))
            name("outer_step", ceil_div(outer, dim_max(outer_blocks, 1)))
        name("by_rows", self._by_rows(row_count, column_count))
        return found

    def _by_rows(self, rows: Dim, columns: Dim) -> Dim:
        """Return 1 where a core takes some rows and all columns, 0 where the other way round.

        What a core reads again should be what it wrote. The rows of a layer's weights are those of
        their gradient, which is no factor in place, and where they are more than the inputs it is
        they that are shared out.
        """
        if self.in_place is None:
            return 1
        return dim_min(rows // dim_max(columns, 1), 1) if self.strip else 0

    def extent(self) -> Dim:
        """Return the number of blocks of all matrices."""
        sizes = self.sizes(named=False)
        blocks = [sizes.get(f"{name}_blocks", 1) for name in ("outer", "width", "row")]
        return product((*blocks, *(a.extent for a in self.matched.batch)))

    def work(self) -> Dim:
        """Return about the nanoseconds of one block, at 4 elements of a vector per nanosecond."""
        rows, columns, depth, matrices = (
            product(a.extent for a in axes)
            for axes in (self.matched.rows, self.b_columns, self.matched.depth, self.matched.batch)
        )
        b = self.blocks
        share = columns * matrices // b.count + b.tile_columns
        terms = dim_min(rows, b.rows) * dim_min(columns, dim_min(share, b.columns)) * (depth + 4)
        return 200 + terms // (4 * b.lanes)

    def place(self) -> Body:
        """Return statements that find the block of iteration ``p``."""
        lets: list[Stmt] = []

        def bind(name: str, value: Dim) -> Dim:
            lets.append(Let(name, E.index(value)))
            return symbol(name)

        *above, last = self.b_columns
        p, by_rows, rows, widths = map(symbol, ("p", "by_rows", "row_blocks", "width_blocks"))
        outers = symbol("outer_blocks") if above else 1
        # From a block to the next one below it, and to the next one beside it.
        down = bind("down", 1 + by_rows * (widths * outers - 1))
        beside = bind("beside", 1 + (1 - by_rows) * (rows - 1))
        row_count = product(a.extent for a in self.matched.rows)
        row0 = bind("row0", bind("row_block", p // down % rows) * symbol("row_step"))
        bind("rows", dim_min(row_count - row0, symbol("row_step")))
        first, count = ("width0", "width") if above else ("column0", "columns")
        width0 = bind(first, bind("width_block", p // beside % widths) * symbol("width_step"))
        width = bind(count, dim_min(last.extent - width0, symbol("width_step")))
        if above:
            outer_block = bind("outer_block", p // (beside * widths) % outers)
            outer0 = bind("outer0", outer_block * symbol("outer_step"))
            left = product(a.extent for a in above) - outer0
            outer = bind("outer", dim_min(left, symbol("outer_step")))
            bind("column0", outer0 * last.extent + width0)
            bind("columns", outer * width)
        rest = p // (rows * widths * outers)
        for axis in reversed(self.matched.batch):
            bind(axis.name, rest % axis.extent)
            rest = rest // axis.extent
        return tuple(lets)


def _is_turned(matched: Match) -> bool:
    """Return whether to compute a product turned, its columns as the rows of blocks.

    Where both factors are contiguous along the depth, one is read in place and the other copied.
    The latter should be the smaller one; a layer's inputs are, next to its weights. Products of a
    batch have no such side, and get shallow.
    """
    if matched.batch:
        return False
    for factor, axes in ((matched.a, matched.rows), (matched.b, matched.columns)):
        merged_axes, (factor,) = merged(axes, [factor])
        depth, (factor,) = merged(matched.depth, [factor])
        if in_place(factor, Stretch(merged_axes, 0, 0), Stretch(depth, 0, 0)) is None:
            return False
    return True


def _balanced(extent: Dim, blocks: Dim, multiple: Dim) -> Dim:
    """Return the size of ``blocks`` blocks of about equal size, a multiple of ``multiple``.

    With ``blocks`` as few as blocks of some larger multiple need, none of them is empty.
    """
    return ceil_div(ceil_div(extent, dim_max(blocks, 1)), multiple) * multiple


# -- sums of products ------------------------------------------------------------------------


def _block(plan: Plan, items: Sequence[Nest], names: Names) -> Body:
    """Return a block's sums and what its stores make of them: at the end, or beside the sums.

    The latter repays its code where one store reads an operand of the output's shape: the update
    of a weight. Several stores need more addresses than there are registers, and gain nothing.
    """
    ahead, rows = _ahead(plan, items), plan.output_rows
    if plan.panels and plan.in_place and not _is_update(items):
        finished = from_registers(plan.original, items)
        if finished is not None:
            sums = _sums(plan, names, ahead, finished=finished)
            return (*sums, *_results(plan, items, names, plan.whole_rows))
    parts = (*_either(plan, names, ahead), *_results(plan, items, names))
    few = isinstance(rows, int) and rows <= FEW
    if few or plan.strip is not None or not _is_update(items) or not is_plain(plan.original, items):
        return parts
    beside = _sums(plan, names, ahead, finish=_finish(plan, items, names))
    return beside if isinstance(rows, int) else (If(E.index(rows) <= FEW, parts, beside),)


def _is_update(items: Sequence[Nest]) -> bool:
    store = items[0].store
    reads = (e for e in E.walk(store.value) if isinstance(e, Load))
    return len(items) == 1 and any(e.offset == store.offset for e in reads)


def _finish(plan: Plan, items: Sequence[Nest], names: Names) -> Finish:
    """Return what applies the stores to some rows of a strip of columns."""
    c = plan.c_scratch

    def finish(start: Dim, count: Dim) -> Body:
        sums = Sums(c, *_in_output(start, count), start * c.shape[1] + symbol("j"))
        return epilogue(plan.original, items, sums, plan.blocks.lanes, names)

    return finish


def _ahead(plan: Plan, items: Sequence[Nest]) -> Finish | None:
    """Return what asks for the memory that the stores touch at some rows of a strip."""

    def ahead(start: Dim, count: Dim) -> Body:
        return lines_ahead(plan.original, items, *_in_output(start, count))

    return ahead if plan.strip is None and ahead(0, 1) else None


def _in_output(start: Dim, count: Dim) -> tuple[tuple[Dim, Dim], tuple[Dim, Dim]]:
    """Return start and count, in the output, of rows of a block and the columns at hand."""
    return (symbol("row0") + start, count), (symbol("column0") + symbol("j"), symbol("wide"))


def _either(plan: Plan, names: Names, ahead: Finish | None) -> Body:
    """Return the sums of a block; a size decides between many rows of the output and few."""
    count = plan.output_rows
    simple = len(plan.a_depth) == len(plan.b_depth) == len(plan.b_columns) == 1
    if not simple or plan.panels or (isinstance(count, int) and count > FEW):
        return _sums(plan, names, ahead)
    columns = Stretch(plan.b_columns, symbol("column0"), symbol("columns"))
    sides = [(plan.row_stretch, plan.a), (columns, plan.b)]
    (rows, a), (columns, b) = sides if plan.strip is None else reversed(sides)
    few = few_rows(
        plan.strip or plan.c_scratch, rows, columns, plan.b_depth[0], a, b, plan.blocks.lanes, names
    )
    if isinstance(count, int):
        return few
    return (If(E.index(count) <= FEW, few, _sums(plan, names, ahead)),)


def _sums(
    plan: Plan, names: Names, ahead: Finish | None, finish: Finish | None = None,
    finished: Finished | None = None,
) -> Body:  # fmt: skip
    """Return the loop over depth that leaves a block's sums in scratch, or finishes them."""
    step, total = symbol("depth_step"), product(a.extent for a in plan.matched.depth)
    body = (
        Let("depth0", E.index(symbol("depth_block") * step)),
        Let("depth", E.index(dim_min(total - symbol("depth_block") * step, step))),
        *_pack_a(plan, names),
        *(() if plan.panels else _pack_b(plan, names)),
        *_tiles(plan, ahead, finish, finished),
    )
    return (For("depth_block", E.index(0), E.index(symbol("depth_blocks")), body),)


def _pack_a(plan: Plan, names: Names) -> Body:
    """Copy the factors of the rows; of an operand that is read in place the last few."""
    b, small = plan.blocks, plan.blocks.tile_rows // 2
    rows, first = plan.row_stretch, 0 if plan.in_place is None else plan.whole_rows
    rows = replace(rows, start=rows.start + first, count=rows.count - first)
    order = (rows, plan.depth_stretch) if plan.a_by_depth else (plan.depth_stretch, rows)
    rare = plan.in_place is not None
    copies = pack(plan.a_scratch, *order, plan.a, b.lanes, names, rare)
    if not plan.a_by_depth:
        return copies
    stop = ceil_div(rows.count, small) * small
    return (*copies, *clear_rows(plan.a_scratch, rows.count, stop, b.lanes))


def _pack_b(plan: Plan, names: Names) -> Body:
    lanes, scratch = plan.blocks.lanes, plan.b_scratch
    depth = Stretch(plan.b_depth, symbol("depth0"), symbol("depth"))
    columns = Stretch(plan.b_columns, symbol("column0"), symbol("columns"))
    along = unit_loads(plan.b, plan.b_depth[-1]), unit_loads(plan.b, plan.b_columns[-1])
    if len(plan.b_columns) > 1 and (has_masks(plan.b) or along[1] >= along[0]):
        outer = Stretch(plan.b_columns[:-1], symbol("outer0"), symbol("outer"))
        inner = Stretch(plan.b_columns[-1:], symbol("width0"), symbol("width"))
        return pack_window(scratch, depth, outer, inner, plan.b, lanes, names)
    turned = None
    if along[0] > along[1]:
        turned = pack_turned(scratch, depth, columns, plan.b, lanes, names)
    return turned or pack(scratch, depth, columns, plan.b, lanes, names)


def _tiles(
    plan: Plan, ahead: Finish | None, finish: Finish | None, finished: Finished | None
) -> Body:
    """Return loops over the register tiles of a block."""
    blocks, a_pitch = plan.blocks, plan.a_scratch.shape[1]
    steps = (a_pitch, 1) if plan.a_by_depth else (1, a_pitch)
    main = rest = Factor(plan.a_scratch, 0, *steps)
    whole = (symbol("rows") + blocks.tile_rows // 2 - 1) // blocks.tile_rows * blocks.tile_rows
    if plan.in_place is not None:
        main, whole = plan.in_place, plan.whole_rows
        rest = replace(rest, origin=-whole * steps[0])
    b = plan.panels or plan.b_scratch
    copied = _copied_next(plan)
    c = plan.c_scratch
    return Tiles(blocks, b, c, main, rest, whole, copied, finish, ahead, finished).loops()


def _copied_next(plan: Plan) -> Requests:
    """Return the requests for what the next stretch of the depth copies."""
    step, total = symbol("depth_step"), product(a.extent for a in plan.matched.depth)
    start = symbol("depth0") + step
    count = dim_max(dim_min(total - start, step), 0)
    columns = Stretch(plan.b_columns, symbol("column0"), symbol("columns"))
    found = []
    if plan.panels is None:
        found.append(matrix(plan.b, Stretch(plan.b_depth, start, count), columns))
    if plan.in_place is None:
        found.append(matrix(plan.a, Stretch(plan.a_depth, start, count), plan.row_stretch))
    return Requests([m for m in found if m is not None])


def _results(plan: Plan, items: Sequence[Nest], names: Names, done: Dim = 0) -> Body:
    """Return loops that apply the stores to the sums of a block, turned back if they lie turned.

    The first ``done`` rows have been stored.
    """
    rows = symbol("row0") + done, symbol("rows") - done
    columns = symbol("column0"), symbol("columns")
    lanes, c = plan.blocks.lanes, plan.c_scratch
    if plan.strip is None:
        sums = Sums(c, rows, columns, done * c.shape[1])
        return epilogue(plan.original, items, sums, lanes, names)
    strip = symbol("strip")
    down = columns[0] + strip, dim_min(columns[1] - strip, lanes)
    loops = epilogue(plan.original, items, Sums(plan.strip, down, rows), lanes, names)
    turned = turn(plan.c_scratch, plan.strip, symbol("rows"), strip, lanes)
    body = (*_unless_few(plan.output_rows, turned), *loops)
    return (For("strip", E.index(0), E.index(columns[1]), body, step=lanes),)


def _unless_few(count: Dim, body: Body) -> Body:
    return body if isinstance(count, int) else (If(E.index(count) > FEW, body),)

"""The CPU schedule of contractions: blocks that fit the caches, tiles that fit the registers.

A contraction is a matrix product over flattened axes (`Match`). One iteration of the parallel axis
computes a block of rows by columns over the whole depth: it copies stretches of both operands into
scratch (convolutions read their patches there, padding included), multiplies register tile by
register tile, and last applies the rest of the stores (bias, activation, update) to the sums. The
order of additions depends on sizes only, never on how iterations are spread over threads.

The blocking follows Goto and van de Geijn, *Anatomy of High-Performance Matrix Multiplication*
(2008), doi:10.1145/1356052.1356053.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Load
from graphc.ir.loop import (
    BEGIN,
    END,
    Alloc,
    Assign,
    Declare,
    For,
    If,
    Kernel,
    Let,
    Stmt,
    Store,
)
from graphc.ir.target import Target
from graphc.ir.types import DType
from graphc.passes.schedule.contraction_match import Match, match, merged
from graphc.passes.schedule.few_rows import FEW, few_rows
from graphc.passes.schedule.loops import Body, operations, values_first, vector_loop
from graphc.passes.schedule.nest import Nest, stride
from graphc.passes.schedule.packing import (
    Names,
    Stretch,
    clear_rows,
    has_masks,
    over,
    over_runs,
    pack,
    pack_turned,
    pack_window,
    touched,
    unit_loads,
)
from graphc.passes.schedule.vectorize import vector_store

__all__ = ["Match", "match", "schedule"]

BLOCKS_PER_CORE = 2
"""Blocks of columns get narrower until there are so many for each core."""
DEEP = 4096
"""Sums of so many terms (gradients of weights) are shared out in pieces of one vector."""
SCRATCH_BYTES = 512 << 10
"""Upper limit of one thread's scratch, which lies on its stack."""


@dataclass(frozen=True, slots=True)
class Blocking:
    """Sizes of tiles and blocks, in elements.

    A register tile is ``tile_rows`` by ``tile_vectors * lanes``. Blocks have up to ``rows`` by
    ``columns`` elements of the output and take ``depth`` terms of the sums at a time. Columns
    are cut further until there are ``count`` blocks, which changes no sum.
    """

    lanes: int
    tile_rows: int
    tile_vectors: int
    rows: int
    columns: int
    depth: int
    count: int

    @property
    def tile_columns(self) -> int:
        """Columns of a register tile."""
        return self.tile_vectors * self.lanes


def blocking(target: Target, dtype: DType) -> Blocking:
    """Choose tiles by the registers, the depth by the L1 cache, columns by the L2 cache.

    A tile takes 24 of 32 registers, or 12 of 16. A tile's strip of ``b`` (depth by tile columns)
    stays in L1 while the tiles of one block of columns are computed; all scratch stays in L2.
    """
    lanes = target.lanes(dtype)
    tile_rows, tile_vectors = (8, 3) if target.registers >= 32 else (6, 2)
    tile_columns = tile_vectors * lanes
    item_bytes = dtype.item_bytes
    depth = target.l1_bytes * 3 // 4 // (tile_columns * item_bytes) // 16 * 16
    depth = min(max(depth, 64), 256)
    rows = 16 * tile_rows if target.l2_bytes >= SCRATCH_BYTES else 8 * tile_rows
    free = min(SCRATCH_BYTES, target.l2_bytes) // item_bytes - rows * (depth + 2 * lanes)
    columns = (free // (rows + depth) - 2 * lanes) // tile_columns * tile_columns
    columns, count = max(columns, tile_columns), BLOCKS_PER_CORE * target.cores
    return Blocking(lanes, tile_rows, tile_vectors, rows, columns, depth, count)


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
        Iterations are the blocks of every matrix of the batch, row blocks innermost.
    """
    plan = Plan(matched, blocking(target, matched.reduce.dtype))
    names = Names()
    scratch = tuple(map(Alloc, (plan.a_scratch, plan.b_scratch, plan.c_scratch)))
    sizes = tuple(Let(name, E.index(value)) for name, value in plan.sizes().items())
    block = (*plan.place(), *_either(plan, names), *_epilogue(plan, items, names))
    loop = For("p", E.index(symbol(BEGIN)), E.index(symbol(END)), block)
    return replace(kernel, body=(*scratch, *sizes, loop), extent=plan.extent(), work=plan.work())


class Plan:
    """What the schedule decided: operands over merged axes, scratch, block sizes.

    Inside the kernel ``row0``, ``column0`` and ``depth0`` are where the block at hand starts, on
    the flat axes, and ``rows``, ``columns`` and ``depth`` how far it goes.
    """

    def __init__(self, matched: Match, blocks: Blocking) -> None:
        self.matched, self.blocks = matched, blocks
        self.b_columns, (b,) = merged(matched.columns, [matched.b])
        self.b_depth, (self.b,) = merged(matched.depth, [b])
        a_rows, (a,) = merged(matched.rows, [matched.a])
        self.a_depth, (self.a,) = merged(matched.depth, [a])
        rows = self.row_stretch = Stretch(a_rows, symbol("row0"), symbol("rows"))
        depth = Stretch(self.a_depth, symbol("depth0"), symbol("depth"))
        self.a_by_depth = _runs_along(self.a, self.a_depth[-1], a_rows[-1])
        self.a_stretches = (rows, depth) if self.a_by_depth else (depth, rows)
        self._scratch()

    def _scratch(self) -> None:
        dtype, b = self.matched.reduce.dtype, self.blocks
        # A row more than needed in lanes keeps rows off each other's cache sets.
        a_shape = (b.rows, b.depth) if self.a_by_depth else (b.depth, b.rows)
        shapes = {"a": a_shape, "b": (b.depth, b.columns), "c": (b.rows, b.columns)}
        self.a_scratch, self.b_scratch, self.c_scratch = (
            Buffer(f"{name}_block", dtype, (rows, columns + b.lanes), "stack")
            for name, (rows, columns) in shapes.items()
        )

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

        row_blocks = name("row_blocks", ceil_div(row_count, b.rows))
        name("row_step", _balanced(row_count, row_blocks, b.tile_rows))
        depth_blocks = name("depth_blocks", dim_max(ceil_div(depth_count, b.depth), 1))
        name("depth_step", ceil_div(depth_count, depth_blocks))
        # 0 for shallow sums, 1 for deep ones, which repay narrower pieces.
        deep = name("deep", dim_min(depth_count // DEEP, 1))
        piece = name("piece", b.tile_columns - deep * (b.tile_columns - b.lanes))
        share = ceil_div(column_count * row_blocks * matrices, piece * b.count)
        limit = name("column_limit", dim_min(dim_max(share, 1) * piece, b.columns))
        width_blocks = name("width_blocks", ceil_div(width, limit))
        aligned = piece if len(columns) == 1 else 1
        width_step = name("width_step", _balanced(width, width_blocks, aligned))
        fitting = dim_max(limit // dim_max(width_step, 1), 1)
        outer_blocks = name("outer_blocks", ceil_div(outer, fitting))
        name("outer_step", ceil_div(outer, dim_max(outer_blocks, 1)))
        return found

    def extent(self) -> Dim:
        """Return the number of blocks of all matrices."""
        sizes = self.sizes(named=False)
        blocks = [sizes[name] for name in ("outer_blocks", "width_blocks", "row_blocks")]
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
        rest: Dim = symbol("p")

        def split(name: str, extent: Dim) -> Dim:
            nonlocal rest
            lets.append(Let(name, E.index(rest % extent)))
            rest = rest // extent
            return symbol(name)

        def bind(name: str, value: Dim) -> Dim:
            lets.append(Let(name, E.index(value)))
            return symbol(name)

        row0 = bind("row0", split("row_block", symbol("row_blocks")) * symbol("row_step"))
        row_count = product(a.extent for a in self.matched.rows)
        bind("rows", dim_min(row_count - row0, symbol("row_step")))
        outer, width = product(a.extent for a in self.b_columns[:-1]), self.b_columns[-1].extent
        width0 = bind("width0", split("width_block", symbol("width_blocks")) * symbol("width_step"))
        outer0 = bind("outer0", split("outer_block", symbol("outer_blocks")) * symbol("outer_step"))
        wide = bind("width", dim_min(width - width0, symbol("width_step")))
        high = bind("outer", dim_min(outer - outer0, symbol("outer_step")))
        bind("column0", outer0 * width + width0)
        bind("columns", high * wide)
        for axis in reversed(self.matched.batch):
            split(axis.name, axis.extent)
        return tuple(lets)


def _runs_along(value: Expr, this: Axis, other: Axis) -> bool:
    """Return whether reads of an operand are nearer each other along ``this`` axis."""
    unit = unit_loads(value, this), unit_loads(value, other)
    if unit != (0, 0):
        return unit[0] >= unit[1]
    steps = {stride(e, other.name) for e in E.walk(value) if isinstance(e, Load)}
    return not all(isinstance(step, int) for step in steps)


def _balanced(extent: Dim, blocks: Dim, multiple: Dim) -> Dim:
    """Return the size of ``blocks`` blocks of about equal size, a multiple of ``multiple``.

    With ``blocks`` as few as blocks of some larger multiple need, none of them is empty.
    """
    return ceil_div(ceil_div(extent, dim_max(blocks, 1)), multiple) * multiple


# -- sums of products ------------------------------------------------------------------------


def _either(plan: Plan, names: Names) -> Body:
    """Return the sums of a block; a size decides between many rows and few."""
    row_count = product(a.extent for a in plan.matched.rows)
    simple = len(plan.a_depth) == len(plan.b_depth) == len(plan.b_columns) == 1
    if not simple or (isinstance(row_count, int) and row_count > FEW):
        return _sums(plan, names)
    columns = Stretch(plan.b_columns, symbol("column0"), symbol("columns"))
    few = few_rows(
        plan.c_scratch, plan.row_stretch, columns, plan.b_depth[0], plan.a, plan.b,
        plan.blocks.lanes, names,
    )  # fmt: skip
    if isinstance(row_count, int):
        return few
    return (If(E.index(row_count) <= FEW, few, _sums(plan, names)),)


def _sums(plan: Plan, names: Names) -> Body:
    """Return the loop over depth that leaves a block's sums in scratch."""
    step, total = symbol("depth_step"), product(a.extent for a in plan.matched.depth)
    body = (
        Let("depth0", E.index(symbol("depth_block") * step)),
        Let("depth", E.index(dim_min(total - symbol("depth_block") * step, step))),
        *_pack_a(plan, names),
        *_pack_b(plan, names),
        *_tiles(plan),
    )
    return (For("depth_block", E.index(0), E.index(symbol("depth_blocks")), body),)


def _pack_a(plan: Plan, names: Names) -> Body:
    b = plan.blocks
    copies = pack(plan.a_scratch, *plan.a_stretches, plan.a, b.lanes, names)
    if not plan.a_by_depth:
        return copies
    stop = ceil_div(symbol("rows"), b.tile_rows) * b.tile_rows
    return (*copies, *clear_rows(plan.a_scratch, symbol("rows"), stop, symbol("depth"), b.lanes))


def _pack_b(plan: Plan, names: Names) -> Body:
    lanes, scratch = plan.blocks.lanes, plan.b_scratch
    depth = Stretch(plan.b_depth, symbol("depth0"), symbol("depth"))
    columns = Stretch(plan.b_columns, symbol("column0"), symbol("columns"))
    if len(plan.b_columns) > 1 and has_masks(plan.b):
        outer = Stretch(plan.b_columns[:-1], symbol("outer0"), symbol("outer"))
        inner = Stretch(plan.b_columns[-1:], symbol("width0"), symbol("width"))
        return pack_window(scratch, depth, outer, inner, plan.b, lanes, names)
    along = unit_loads(plan.b, plan.b_depth[-1]), unit_loads(plan.b, plan.b_columns[-1])
    turned = None
    if along[0] > along[1]:
        turned = pack_turned(scratch, depth, columns, plan.b, lanes, names)
    return turned or pack(scratch, depth, columns, plan.b, lanes, names)


def _tiles(plan: Plan) -> Body:
    """Return loops over the register tiles of a block; tails get smaller tiles."""
    b = plan.blocks
    small = b.tile_rows // 2
    rows, columns = symbol("rows"), symbol("columns")

    def in_rows(vectors: int, position: int) -> Body:
        return _main_and_tail(
            "i", rows, b.tile_rows, small,
            lambda count, tail: _multiply(plan, count, vectors, position + tail),
        )  # fmt: skip

    return _main_and_tail(
        "j", columns, b.tile_columns, b.lanes,
        lambda count, tail: in_rows(count // b.lanes, 2 * tail),
    )  # fmt: skip


def _main_and_tail(
    name: str, extent: Dim, step: int, small: int, emit: Callable[[int, int], Body]
) -> Body:
    """Return a loop in large steps, and one in small steps over less than a large one."""
    whole = (extent + small - 1) // step * step
    return (
        For(name, E.index(0), E.index(whole), emit(step, 0), step=step),
        For(name, E.index(whole), E.index(extent), emit(small, 1), step=small),
    )


def _multiply(plan: Plan, rows: int, vectors: int, number: int) -> Body:
    """Return the sums of one register tile over the block's depth."""
    lanes, register = plan.blocks.lanes, f"sum{number}"
    i, j, k = symbol("i"), symbol("j"), symbol("k")
    a_pitch, b_pitch, c_pitch = (
        s.shape[1] for s in (plan.a_scratch, plan.b_scratch, plan.c_scratch)
    )
    tile = (rows, vectors, lanes)
    start = E.splat(E.const(0, plan.matched.reduce.dtype), tile)
    holder = E.use(register, start)
    place = i * a_pitch + k if plan.a_by_depth else k * a_pitch + i
    a_strides = (a_pitch if plan.a_by_depth else 1, 0, 0)
    a = E.load(plan.a_scratch, E.index(place), (rows, 1, 1), a_strides)
    b = E.load(plan.b_scratch, E.index(k * b_pitch + j), (1, vectors, lanes), (0, lanes, 1))
    c_place, c_strides = E.index(i * c_pitch + j), (c_pitch, lanes, 1)
    before = E.load(plan.c_scratch, c_place, tile, c_strides)
    return (
        Declare(register, start),
        If(E.index(symbol("depth_block")) > 0, (Assign(register, before),)),
        For("k", E.index(0), E.index(symbol("depth")),
            (Assign(register, E.apply("fma", a, b, holder)),)),
        Store(plan.c_scratch, c_place, holder, c_strides),
    )  # fmt: skip


# -- what the stores apply to the sums -------------------------------------------------------


def _epilogue(plan: Plan, items: Sequence[Nest], names: Names) -> Body:
    """Return loops that compute the stores of a block from the sums in scratch."""
    lanes, pitch = plan.blocks.lanes, plan.c_scratch.shape[1]
    holder = E.use("sum", plan.matched.reduce)
    rows, columns, stores = _merged_stores(plan.matched, items, holder)
    name = columns[-1].name
    cost = operations(s.value for s in stores)

    def row(position: Dim) -> Body:
        def run(base: Dim, start: Dim, stop: Dim) -> Body:
            place = (position - symbol("row0")) * pitch + base - symbol("column0") + symbol(name)

            def step(lanes: int, mask: Expr | None) -> Body:
                sums = E.load(plan.c_scratch, E.index(place), (lanes,), (1,))
                known: dict[Expr, Expr] = {holder: sums}
                return values_first([vector_store(s, name, lanes, mask, known) for s in stores])

            return vector_loop(name, start, stop, lanes, step, cost=cost)

        return over_runs(across, names, run)

    before, down = touched(Stretch(rows, symbol("row0"), symbol("rows")), names)
    more, across = touched(Stretch(columns, symbol("column0"), symbol("columns")), names)
    return (*before, *more, *over(down, names, row))


def _merged_stores(
    matched: Match, items: Sequence[Nest], holder: Expr
) -> tuple[tuple[Axis, ...], tuple[Axis, ...], list[Store]]:
    """Return the stores over the sums, with axes that they walk as one merged."""
    memo: dict[Expr, Expr] = {matched.reduce: holder}
    values = [E.rebuild(item.store.value, lambda e: None, memo) for item in items]
    exprs = values + [item.store.offset for item in items]
    rows, exprs = merged(matched.rows, exprs)
    columns, exprs = merged(matched.columns, exprs)
    stores = [
        replace(item.store, value=value, offset=offset)
        for item, value, offset in zip(items, exprs, exprs[len(items) :])
    ]
    return rows, columns, stores

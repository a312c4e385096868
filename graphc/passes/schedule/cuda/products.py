"""Contractions on CUDA: a block computes a tile of the result, each thread a few registers of it.

In turns along the depth, the threads of a block copy a stretch of both factors to shared memory
(convolutions read their patches there, padding included) and multiply what the turn before copied:
two stretches take turns, so that one barrier a turn is enough and loads are under way during the
products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, linear, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr
from graphc.ir.loop import Barrier, For, If, Kernel, Let, Stmt, Store
from graphc.ir.target import Target
from graphc.ir.types import DType, float32
from graphc.passes.schedule.contraction_match import Match, merged
from graphc.passes.schedule.cuda.cores import LANE, Cores, MultiplyAdd, Sum, Tensor, cleared
from graphc.passes.schedule.cuda.factors import HALF, Factor, Unit, Vectors, vectors
from graphc.passes.schedule.cuda.grid import (
    BLOCK,
    THREAD,
    THREADS,
    Whole,
    exists,
    in_blocks,
    placed,
    whole,
)
from graphc.passes.schedule.loops import Body, values_first
from graphc.passes.schedule.nest import Nest, moved, over_sums, substituted
from graphc.passes.schedule.series import CHUNK
from graphc.passes.schedule.vectorize import vector_store, vectorize


def schedule(kernel: Kernel, items: tuple[Nest, ...], matched: Match, target: Target) -> Kernel:
    """Return a contraction in blocks: large tiles where there are enough to keep all cores busy."""
    cores = _cores(matched, target)
    dtype, lanes = matched.reduce.dtype, target.vector_bytes // matched.reduce.dtype.item_bytes
    memory = _memory(cores, dtype)
    single, small, large = (
        _Tile(matched, items, each, memory, lanes, in_vectors)
        for each, in_vectors in ((cores[1], False), (cores[1], True), (cores[0], True))
    )
    enough = large.whole * _worthwhile(large.blocks, small.blocks, target)
    extent = enough * large.blocks + (1 - enough) * small.blocks
    choice = If(E.index(enough).ne(0), large.body(), _in_vectors_if_whole(small, single))
    return in_blocks(kernel, extent, (choice,), memory)


def in_chunks(
    kernel: Kernel, items: tuple[Nest, ...], matched: Match, target: Target, chunks: Dim
) -> Kernel:
    """Return a contraction in small tiles, with a block for each chunk of the depth.

    The stores depend on the variable `CHUNK`.
    """
    (_, cores), dtype = _cores(matched, target), matched.reduce.dtype
    lanes, memory = target.vector_bytes // dtype.item_bytes, _memory((cores,), dtype)
    single, small = (
        _Tile(matched, items, cores, memory, lanes, in_vectors, chunks)
        for in_vectors in (False, True)
    )
    body = _in_vectors_if_whole(small, single)
    return in_blocks(kernel, small.blocks, body, memory)


def small_blocks(matched: Match, target: Target) -> Dim:
    """Return how many blocks a contraction has in small tiles."""
    rows, columns = _tile_counts(matched, _cores(matched, target)[1])
    return product(axis.extent for axis in matched.batch) * rows * columns


def _tile_counts(matched: Match, cores: Cores) -> tuple[Dim, Dim]:
    """Return how many tiles lie below, and beside, each other."""
    sides = (product(a.extent for a in axes) for axes in (matched.rows, matched.columns))
    rows, columns = (ceil_div(extent, cores.side) for extent in sides)
    return rows, columns


def _in_vectors_if_whole(vectors: _Tile, elements: _Tile) -> Body:
    """Return what copies factors in vectors where they are made of whole ones."""
    if vectors.whole == 1:
        return vectors.body()
    return (If(E.index(vectors.whole).ne(0), vectors.body(), elements.body()),)


def _worthwhile(large: Dim, small: Dim, target: Target) -> Dim:
    """Return 1 for large tiles that keep all cores busy, and are not a quarter empty; else 0."""
    return dim_min(large // target.cores, 1) * dim_min(5 * small // (16 * dim_max(large, 1)), 1)


def _memory(cores: Sequence[Cores], dtype: DType) -> tuple[Buffer, Buffer, Buffer]:
    """Return shared memory that is enough for any of the tiles."""
    widths = [each.side + each.padding for each in cores]
    units = max(each.units * width for each, width in zip(cores, widths, strict=True))
    stage = max(each.side // each.stages for each in cores), max(widths)
    unit = cores[0].unit.dtype
    left, right = (Buffer(name, unit, (2 * units,), "shared") for name in ("left", "right"))
    return left, right, Buffer("stage", dtype, stage, "shared")


def _cores(matched: Match, target: Target) -> tuple[Cores, Cores]:
    """Return what multiplies in large tiles and in small ones."""
    dtype = matched.reduce.dtype
    if dtype is float32 and target.products != float32.name:
        return Tensor(target.products, 128), Tensor(target.products, 64)
    lanes = target.vector_bytes // dtype.item_bytes
    return MultiplyAdd(dtype, lanes, 2), MultiplyAdd(dtype, lanes, 1)


class _Tile:
    """One block's tile of the result, or of what a chunk of the depth adds to it."""

    def __init__(
        self, matched: Match, items: Sequence[Nest], cores: Cores, memory: Sequence[Buffer],
        lanes: int, in_vectors: bool, chunks: Dim = 1,
    ) -> None:  # fmt: skip
        self.matched, self.items, self.cores, self.lanes = matched, items, cores, lanes
        self.in_vectors, self.chunks = in_vectors, chunks
        self.row_blocks, self.column_blocks = _tile_counts(matched, cores)
        self.batch = product(axis.extent for axis in matched.batch)
        self.left = self._factor("a", matched.a, matched.rows, memory[0])
        self.right = self._factor("b", matched.b, matched.columns, memory[1])
        self.sums = memory[2]

    def _factor(self, name: str, value: Expr, axes: tuple[Axis, ...], memory: Buffer) -> Factor:
        own, (value,) = merged(axes, [value])
        depth, (value,) = merged(self.matched.depth, [value])
        block = symbol(f"{name}_number")
        factor = Factor(name, value, own, depth, block, *_shape(self.cores), memory)
        return vectors(factor, self.lanes) if self.in_vectors else factor

    @property
    def whole(self) -> Dim:
        """1 where the factors are made of the vectors that they are copied in, else 0."""
        found: Dim = 1
        for factor in (self.left, self.right):
            found = found * factor.whole.holds if isinstance(factor, Vectors) else found
        return found

    @property
    def blocks(self) -> Dim:
        """Blocks of the whole product."""
        return self.chunks * self.batch * self.row_blocks * self.column_blocks

    def body(self) -> Body:
        """Return what a thread does."""
        factors, turn = (self.left, self.right), symbol("turn")
        grid = (Axis("b_number", self.column_blocks), Axis("a_number", self.row_blocks))
        chunk = () if self.chunks == 1 else (Axis(CHUNK, self.chunks),)
        share, first, last = self._share()
        return (
            *(stmt for factor in factors for stmt in factor.assumed()),
            *placed((*chunk, *self.matched.batch, *grid), symbol(BLOCK)),
            *share,
            *(stmt for factor in factors for stmt in factor.ahead()),
            *(stmt for factor in factors for stmt in factor.loads(first)),
            Let(HALF, E.index(first % 2)),
            *(stmt for factor in factors for stmt in factor.stores()),
            Barrier(),
            *cleared(self.cores),
            For("turn", E.index(first), E.index(last), (
                Let(HALF, E.index(turn % 2)),
                *(stmt for factor in factors for stmt in factor.loads(turn + 1)),
                self.cores.products(*factors),
                *(stmt for factor in factors for stmt in factor.stores(other=True)),
                Barrier(),
            )),
            *self._finished(),
        )  # fmt: skip

    def _share(self) -> tuple[Body, Dim, Dim]:
        """Return the first turn and the one behind the last: those of a chunk, or all."""
        turns = self.left.turns
        if self.chunks == 1:
            return (), 0, turns
        each, low = ceil_div(turns, self.chunks), symbol("low")
        first, last = symbol(CHUNK) * each, dim_min(low + each, turns)
        return (Let("low", E.index(first)), Let("high", E.index(last))), low, symbol("high")

    # -- results -----------------------------------------------------------------------------

    def _finished(self) -> Body:
        """Return the stores of all results: stage by stage, through shared memory, in rows."""
        body: list[Stmt] = []
        for stage in range(self.cores.stages):
            kept = [self._kept(total) for total in self.cores.sums() if total.stage == stage]
            body += [*([Barrier()] if stage else []), *kept, Barrier(), *self._leaving(stage)]
        return tuple(body)

    def _kept(self, total: Sum) -> Store:
        """Return the store of a register of sums to shared memory."""
        place = total.slot * self.sums.shape[1] + total.column
        lanes, along = total.register.tile[0], linear(place, LANE)
        if along is not None:
            return Store(self.sums, E.index(along[1]), total.register, (along[0],))
        offset = vectorize(E.index(place), LANE, lanes, None, {})
        return Store(self.sums, substituted(offset, {LANE: 0}, {}), total.register)

    def _leaving(self, stage: int) -> Body:
        """Return what stores the results of a stage: in vectors, where rows are made of them."""
        elements = self._beside(stage, 1, self.matched.columns, self._element)
        *outer, last = self.matched.columns
        rows = whole(last.extent, self.lanes)
        if rows is None:
            return elements
        axes = (*outer, Axis("vector", rows.vectors))
        return (rows.either(self._beside(stage, self.lanes, axes, partial(self._vector, rows)),
                            elements),)  # fmt: skip

    def _beside(
        self, stage: int, width: int, axes: Sequence[Axis], write: Callable[[Expr], Body]
    ) -> Body:
        """Return the stores of a thread, which keeps to its ``width`` columns from row to row."""
        side, each = self.cores.side, self.cores.side // width
        within, tile = symbol(THREAD) % each, (width,) if width > 1 else ()
        place = E.index(symbol("slot") * self.sums.shape[1] + within * width)
        value = E.load(self.sums, place, tile, (1,) if tile else ())
        row = self.left.block * side + self.cores.row(stage, symbol("slot"))
        stored = (Let("sums", value), *placed(self.matched.rows, row), *write(E.use("sums", value)))
        count, step = side // self.cores.stages, THREADS // each
        body = (If(exists(row, self.matched.rows), stored),)
        loop = For("slot", E.index(symbol(THREAD) // each), E.index(count), body, step=step)
        column = self.right.block * each + within
        return (If(exists(column, axes), (*placed(axes, column), loop)),)

    def _vector(self, rows: Whole, total: Expr) -> Body:
        """Return the stores of neighbours on the last axis."""
        last = self.matched.columns[-1]
        place = rows.sizes | {last.name: symbol("vector") * rows.lanes}
        return values_first([
            moved(vector_store(store, last.name, rows.lanes, None, {}), place, {})
            for store in over_sums(self.items, self.matched.reduce, total)
        ])  # fmt: skip

    def _element(self, total: Expr) -> Body:
        """Return the stores of one result."""
        return values_first(over_sums(self.items, self.matched.reduce, total))


def _shape(cores: Cores) -> tuple[int, int, Unit, int]:
    """Return what cores say of the memory of a factor."""
    return cores.side, cores.padding, cores.unit, cores.units

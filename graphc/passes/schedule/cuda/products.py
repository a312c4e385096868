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
from graphc.ir.dim import Dim, ceil_div, dim_min, linear, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr
from graphc.ir.loop import Barrier, For, If, Kernel, Let, Stmt, Store
from graphc.ir.target import Target
from graphc.ir.types import DType, float32
from graphc.passes.schedule.contraction_match import Match, merged
from graphc.passes.schedule.cuda.cores import LANE, Cores, MultiplyAdd, Sum, Tensor, cleared
from graphc.passes.schedule.cuda.factors import THREADS, Factor, Unit
from graphc.passes.schedule.cuda.grid import (
    BLOCK,
    CHUNK,
    THREAD,
    Whole,
    in_blocks,
    indices,
    placed,
    whole,
)
from graphc.passes.schedule.loops import Body, values_first
from graphc.passes.schedule.nest import Nest, moved, over_sums, substituted
from graphc.passes.schedule.vectorize import vector_store, vectorize


def schedule(kernel: Kernel, items: tuple[Nest, ...], matched: Match, target: Target) -> Kernel:
    """Return a contraction in blocks: large tiles where there are enough to keep all cores busy."""
    large, small = _tiles(items, matched, target)
    memory = large.memory
    enough = dim_min(large.blocks // target.cores, 1)
    extent = enough * large.blocks + (1 - enough) * small.blocks
    choice = If(E.index(enough).ne(0), large.body(), small.body())
    return in_blocks(kernel, extent, (choice,), memory, threads=THREADS)


def small_blocks(items: tuple[Nest, ...], matched: Match, target: Target) -> Dim:
    """Return how many blocks a contraction has in small tiles."""
    return _tiles(items, matched, target)[1].blocks


def in_chunks(
    kernel: Kernel, items: tuple[Nest, ...], matched: Match, target: Target, chunks: Dim
) -> Kernel:
    """Return a contraction in small tiles, with a block for each chunk of the depth.

    The stores depend on the variable `CHUNK`.
    """
    cores = _cores(matched, target)[1]
    dtype = matched.reduce.dtype
    lanes = target.vector_bytes // dtype.item_bytes
    tile = _Tile(matched, items, cores, _memory(cores, dtype), lanes, chunks)
    return in_blocks(kernel, tile.blocks, tile.body(), tile.memory, threads=THREADS)


def _tiles(items: tuple[Nest, ...], matched: Match, target: Target) -> tuple[_Tile, _Tile]:
    """Return large tiles and small ones, in the same memory."""
    cores, dtype = _cores(matched, target), matched.reduce.dtype
    lanes = target.vector_bytes // dtype.item_bytes
    memory = _memory(cores[0], dtype)
    large, small = (_Tile(matched, items, each, memory, lanes) for each in cores)
    return large, small


def _memory(cores: Cores, dtype: DType) -> tuple[Buffer, Buffer, Buffer]:
    """Return shared memory of the largest tile, of which smaller ones use a part."""
    width = cores.side + cores.padding
    stretches, stage = (2, cores.units, width), (cores.side // cores.stages, width)
    unit = cores.unit.dtype
    left, right = (Buffer(name, unit, stretches, "shared") for name in ("left", "right"))
    return left, right, Buffer("stage", dtype, stage, "shared")


def _cores(matched: Match, target: Target) -> tuple[Cores, Cores]:
    """Return what multiplies in large tiles and in small ones."""
    dtype = matched.reduce.dtype
    if dtype is float32 and target.products != float32.name:
        return Tensor(target.products, 128), Tensor(target.products, 64)
    lanes = target.vector_bytes // dtype.item_bytes
    return MultiplyAdd(dtype, lanes, 2), MultiplyAdd(dtype, lanes, 1)


class _Tile:
    """One block's tile of the result, or of a chunk of the depth."""

    def __init__(
        self, matched: Match, items: Sequence[Nest], cores: Cores, memory: Sequence[Buffer],
        lanes: int, chunks: Dim = 1,
    ) -> None:  # fmt: skip
        self.matched, self.items, self.cores, self.lanes = matched, items, cores, lanes
        self.chunks = chunks
        self.row_blocks, self.column_blocks = (
            ceil_div(product(a.extent for a in axes), cores.side)
            for axes in (matched.rows, matched.columns)
        )
        self.batch = product(axis.extent for axis in matched.batch)
        self.left = self._factor("a", matched.a, matched.rows, memory[0])
        self.right = self._factor("b", matched.b, matched.columns, memory[1])
        self.memory, self.sums = memory, memory[2]

    def _factor(self, name: str, value: Expr, axes: tuple[Axis, ...], memory: Buffer) -> Factor:
        own, (value,) = merged(axes, [value])
        depth, (value,) = merged(self.matched.depth, [value])
        block = symbol(f"{name}_number")
        return Factor(name, value, own, depth, block, *_shape(self.cores), memory)

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
            *placed((*chunk, *self.matched.batch, *grid), symbol(BLOCK)),
            *share,
            *(stmt for factor in factors for stmt in factor.ahead()),
            *(stmt for factor in factors for stmt in factor.loads(first)),
            *(stmt for factor in factors for stmt in factor.stores(first)),
            Barrier(),
            *cleared(self.cores),
            For("turn", E.index(first), E.index(last), (
                *(stmt for factor in factors for stmt in factor.loads(turn + 1)),
                self.cores.products(*factors, turn),
                *(stmt for factor in factors for stmt in factor.stores(turn + 1)),
                Barrier(),
            )),
            *self._finished(),
        )  # fmt: skip

    def _share(self) -> tuple[Body, Dim, Dim]:
        """Return the first turn and the one behind the last: those of a chunk, or all."""
        turns = self.left.turns
        if self.chunks == 1:
            return (), 0, turns
        each = ceil_div(turns, self.chunks)
        low, high = symbol("low"), symbol("high")
        named = (
            Let("low", E.index(symbol(CHUNK) * each)),
            Let("high", E.index(dim_min(low + each, turns))),
        )
        return named, low, high

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
        """Return the loops in which threads store the vectors of a stage."""
        elements = self._loop(stage, self._elements)
        rows = whole(self.matched.columns[-1].extent, self.lanes)
        if rows is None:
            return (elements,)
        return (rows.either((self._loop(stage, partial(self._vector, rows)),), (elements,)),)

    def _loop(self, stage: int, write: Callable[[Dim, Expr], Body]) -> For:
        """Return a loop over a thread's share of the vectors of a stage."""
        side, each = self.cores.side, self.cores.side // self.lanes
        slot, vector = symbol("task") // each, symbol("task") % each
        place = E.index(slot * self.sums.shape[1] + vector * self.lanes)
        value = E.load(self.sums, place, (self.lanes,), (1,))
        row = self.left.block * side + self.cores.row(stage, slot)
        stored = (
            Let("sums", value),
            *placed(self.matched.rows, row),
            *write(self.right.block * each + vector, E.use("sums", value)),
        )
        count = side // self.cores.stages * each
        body = (If(_below(row, self.matched.rows), stored),)
        return For("task", E.index(symbol(THREAD)), E.index(count), body, step=THREADS)

    def _vector(self, rows: Whole, vector: Dim, total: Expr) -> Body:
        """Return the stores of the ``vector``-th neighbours on the last axis."""
        *outer, last = self.matched.columns
        axes = (*outer, Axis("vector", rows.vectors))
        place = rows.sizes | {last.name: symbol("vector") * rows.lanes}
        stores = [
            moved(vector_store(store, last.name, rows.lanes, None, {}), place, {})
            for store in over_sums(self.items, self.matched.reduce, total)
        ]
        return (If(_below(vector, axes), (*placed(axes, vector), *values_first(stores))),)

    def _elements(self, vector: Dim, total: Expr) -> Body:
        """Return the stores of neighbouring columns, each wherever it belongs."""
        column = vector * self.lanes + symbol(LANE)
        inside = _below(column, self.matched.columns)
        mask = substituted(vectorize(inside, LANE, self.lanes, None, {}), {LANE: 0}, {})
        place = indices(self.matched.columns, column)
        stores = [
            vector_store(moved(store, place, {}), LANE, self.lanes, mask, {})
            for store in over_sums(self.items, self.matched.reduce, total)
        ]
        return values_first([moved(store, {LANE: 0}, {}) for store in stores])


def _shape(cores: Cores) -> tuple[int, int, Unit, int]:
    """Return what cores say of the memory of a factor."""
    return cores.side, cores.padding, cores.unit, cores.units


def _below(position: Dim, axes: Sequence[Axis]) -> Expr:
    """Return whether a row-major position over axes exists."""
    return E.index(position) < E.index(product(axis.extent for axis in axes))

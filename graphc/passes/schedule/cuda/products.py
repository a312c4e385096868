"""Contractions on CUDA: a block computes a tile of the result, each thread a few registers of it.

In turns along the depth, the threads of a block copy a stretch of both factors to shared memory
(convolutions read their patches there, padding included) and multiply what the turn before copied:
two stretches take turns, so that one barrier a turn is enough and loads are under way during the
products.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_min, product, substitute, symbol
from graphc.ir.expr import Axis, Buffer, Expr
from graphc.ir.loop import Barrier, For, If, Kernel, Store
from graphc.ir.target import Target
from graphc.ir.types import float32
from graphc.passes.schedule.contraction_match import Match, merged
from graphc.passes.schedule.cuda.cores import LANE, Cores, MultiplyAdd, Sum, Tensor, cleared
from graphc.passes.schedule.cuda.factors import DEPTH, THREADS, Factor
from graphc.passes.schedule.cuda.grid import BLOCK, Whole, in_blocks, indices, placed, whole
from graphc.passes.schedule.loops import Body, values_first
from graphc.passes.schedule.nest import Nest, moved, over_sums, substituted
from graphc.passes.schedule.vectorize import vector_store, vectorize


def schedule(kernel: Kernel, items: tuple[Nest, ...], matched: Match, target: Target) -> Kernel:
    """Return a contraction in blocks: large tiles where there are enough to keep all cores busy."""
    cores = _cores(matched, target)
    memory = [_memory(name, cores[0]) for name in ("a_block", "b_block")]
    large, small = (_Tile(matched, items, each, memory) for each in cores)
    enough = dim_min(large.blocks // target.cores, 1)
    extent = enough * large.blocks + (1 - enough) * small.blocks
    choice = If(E.index(enough).ne(0), large.body(), small.body())
    return in_blocks(kernel, extent, (choice,), memory, threads=THREADS)


def _memory(name: str, cores: Cores) -> Buffer:
    """Return shared memory of the largest tile; smaller ones use a part."""
    return Buffer(name, cores.unit.dtype, (2, DEPTH, cores.side + cores.padding), "shared")


def _cores(matched: Match, target: Target) -> tuple[Cores, Cores]:
    """Return what multiplies in large tiles and in small ones."""
    dtype = matched.reduce.dtype
    if dtype is float32 and target.products != float32.name:
        return Tensor(target.products, 128), Tensor(target.products, 64)
    lanes = target.vector_bytes // dtype.item_bytes
    return MultiplyAdd(dtype, lanes, 2), MultiplyAdd(dtype, lanes, 1)


class _Tile:
    """One block's tile of the result."""

    def __init__(
        self, matched: Match, items: Sequence[Nest], cores: Cores, memory: Sequence[Buffer]
    ) -> None:
        self.matched, self.items, self.cores = matched, items, cores
        self.row_blocks, self.column_blocks = (
            ceil_div(product(a.extent for a in axes), cores.side)
            for axes in (matched.rows, matched.columns)
        )
        self.batch = product(axis.extent for axis in matched.batch)
        self.left = self._factor("a", matched.a, matched.rows, memory[0])
        self.right = self._factor("b", matched.b, matched.columns, memory[1])

    def _factor(self, name: str, value: Expr, axes: tuple[Axis, ...], memory: Buffer) -> Factor:
        own, (value,) = merged(axes, [value])
        depth, (value,) = merged(self.matched.depth, [value])
        block, cores = symbol(f"{name}_number"), self.cores
        return Factor(name, value, own, depth, block, cores.side, cores.padding, cores.unit, memory)

    @property
    def blocks(self) -> Dim:
        """Blocks of the whole product."""
        return self.batch * self.row_blocks * self.column_blocks

    def body(self) -> Body:
        """Return what a thread does."""
        factors, turn = (self.left, self.right), symbol("turn")
        grid = (Axis("b_number", self.column_blocks), Axis("a_number", self.row_blocks))
        return (
            *placed((*self.matched.batch, *grid), symbol(BLOCK)),
            *(stmt for factor in factors for stmt in factor.ahead()),
            *(stmt for factor in factors for stmt in factor.loads(0)),
            *(stmt for factor in factors for stmt in factor.stores(0)),
            Barrier(),
            *cleared(self.cores),
            For("turn", E.index(0), E.index(self.left.turns), (
                *(stmt for factor in factors for stmt in factor.loads(turn + 1)),
                self.cores.products(*factors, turn),
                *(stmt for factor in factors for stmt in factor.stores(turn + 1)),
                Barrier(),
            )),
            *self._finished(),
        )  # fmt: skip

    # -- results -----------------------------------------------------------------------------

    def _finished(self) -> Body:
        """Return the stores of a thread's sums, by whole vectors where rows are made of them."""
        sums = tuple(self.cores.sums())
        (lanes,) = sums[0].register.tile
        elements = tuple(stmt for total in sums for stmt in self._scattered(total, lanes))
        rows = whole(self.matched.columns[-1].extent, lanes) if self.cores.in_rows else None
        if rows is None:
            return elements
        return (rows.either(tuple(self._vector(total, rows) for total in sums), elements),)

    def _place(self, total: Sum) -> tuple[Dim, Dim]:
        """Return row and column of a register's lanes in the whole product."""
        side = self.cores.side
        return self.left.block * side + total.row, self.right.block * side + total.column

    def _vector(self, total: Sum, rows: Whole) -> If:
        """Return the stores of a register whose lanes are neighbours on the last axis."""
        *outer, last = self.matched.columns
        row, column = self._place(total)
        axes = (*outer, Axis("vector", rows.vectors))
        vector = substitute(column, {LANE: 0}) // rows.lanes
        place = rows.sizes | {last.name: symbol("vector") * rows.lanes}
        stores = [
            moved(vector_store(store, last.name, rows.lanes, None, {}), place, {})
            for store in self._stores(total)
        ]
        inside = _below(row, self.matched.rows) & _below(vector, axes)
        body = (*placed(self.matched.rows, row), *placed(axes, vector), *values_first(stores))
        return If(inside, body)

    def _scattered(self, total: Sum, lanes: int) -> Body:
        """Return the stores of a register's lanes, each wherever it belongs."""
        row, column = self._place(total)
        inside = _below(row, self.matched.rows) & _below(column, self.matched.columns)
        mask = substituted(vectorize(inside, LANE, lanes, None, {}), {LANE: 0}, {})
        place = indices(self.matched.rows, row) | indices(self.matched.columns, column)
        stores = [
            vector_store(moved(store, place, {}), LANE, lanes, mask, {})
            for store in self._stores(total)
        ]
        return values_first([moved(store, {LANE: 0}, {}) for store in stores])

    def _stores(self, total: Sum) -> list[Store]:
        """Return the kernel's stores with the sum of products in a register."""
        return over_sums(self.items, self.matched.reduce, total.register)


def _below(position: Dim, axes: Sequence[Axis]) -> Expr:
    """Return whether a row-major position over axes exists."""
    return E.index(position) < E.index(product(axis.extent for axis in axes))

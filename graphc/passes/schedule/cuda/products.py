"""Contractions on CUDA cores: a block computes a tile of the result, each thread a few vectors.

In turns along the depth, the threads of a block copy a stretch of both factors to shared memory
(convolutions read their patches there, padding included) and multiply what the turn before copied:
two stretches take turns, so that one barrier a turn is enough and loads are under way during the
products. The order of additions is that of the depth. A thread's rows and columns lie in chunks of
one vector, so that shared memory is read 128 bits at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_min, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr
from graphc.ir.loop import Assign, Barrier, Declare, For, If, Kernel, Let, Stmt, Store
from graphc.ir.target import Target
from graphc.ir.types import DType
from graphc.passes.schedule.contraction_match import Match, merged
from graphc.passes.schedule.cuda.grid import (
    BLOCK,
    THREAD,
    Whole,
    in_blocks,
    indices,
    placed,
    whole,
)
from graphc.passes.schedule.lane_groups import runs_along
from graphc.passes.schedule.loops import Body, values_first
from graphc.passes.schedule.nest import Nest, moved, substituted
from graphc.passes.schedule.vectorize import vector_store

ACROSS = 16
"""Threads along each side of a block's tile."""
THREADS = ACROSS * ACROSS
DEPTH = 16
"""Terms of the sum that a turn copies and multiplies."""
UNROLLED = 4
"""Terms that are written out in the loop over a turn."""
PADDING = 4
"""Unused elements behind each row of shared memory: copies that cross rows meet fewer conflicts."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How large a block's tile is.

    Attributes
    ----------
    lanes : int
        Elements of a vector.
    chunks : int
        Vectors that a thread has along each side.
    """

    lanes: int
    chunks: int

    @property
    def side(self) -> int:
        """Rows, and columns, of a tile."""
        return ACROSS * self.lanes * self.chunks


def schedule(kernel: Kernel, items: tuple[Nest, ...], matched: Match, target: Target) -> Kernel:
    """Return a contraction in blocks: large tiles where there are enough to keep all cores busy."""
    lanes = target.vector_bytes // matched.reduce.dtype.item_bytes
    large, small = (_Tile(matched, items, Tiling(lanes, chunks)) for chunks in (2, 1))
    enough = dim_min(large.blocks // target.cores, 1)
    extent = enough * large.blocks + (1 - enough) * small.blocks
    choice = If(E.index(enough).ne(0), large.body(), small.body())
    shared = max(large.shared, small.shared, key=lambda buffers: len(buffers) and buffers[0].shape)
    return in_blocks(kernel, extent, (choice,), shared, threads=THREADS)


@dataclass(frozen=True, slots=True)
class _Factor:
    """A factor of the product: its value over merged axes, and how a block copies it.

    Attributes
    ----------
    name : str
        Prefix of what belongs to it.
    value : Expr
    axes, depth : tuple of Axis
        Those of its side of the result, and those of the sum.
    block : Dim
        Number of the block along its side.
    tiling : Tiling
    memory : Buffer
        Two stretches, element ``k`` of row ``m`` of each at ``k * (side + PADDING) + m``.
    """

    name: str
    value: Expr
    axes: tuple[Axis, ...]
    depth: tuple[Axis, ...]
    block: Dim
    tiling: Tiling
    memory: Buffer

    @property
    def width(self) -> int:
        """Elements between two terms of the sum in shared memory."""
        return self.tiling.side + PADDING

    def stretch(self, turn: Dim) -> Dim:
        """Return where the stretch of a turn lies."""
        return turn % 2 * (DEPTH * self.width)

    @property
    def copies(self) -> int:
        """Elements that each thread copies in a turn."""
        return self.tiling.side * DEPTH // THREADS

    def place(self, number: int) -> tuple[Dim, Dim]:
        """Return row and term of the element that a thread copies as its ``number``-th.

        Neighbours in memory are neighbouring threads': along the depth or along the rows.
        """
        thread, side = symbol(THREAD), self.tiling.side
        if runs_along_depth(self):
            return thread // DEPTH + number * (THREADS // DEPTH), thread % DEPTH
        return thread % side, thread // side + number * (THREADS // side)

    def ahead(self) -> Body:
        """Return statements that name the indices of a thread's rows, which stay the same."""
        body: Body = ()
        for number in range(self.copies):
            row = self.block * self.tiling.side + self.place(number)[0]
            body += placed([_numbered(axis, number) for axis in self.axes], row)
        return body

    def loads(self, turn: Dim) -> Body:
        """Return the reads of a stretch into registers, zeros outside of the factor."""
        rows, terms = (product(a.extent for a in axes) for axes in (self.axes, self.depth))
        body: list[Stmt] = []
        for number in range(self.copies):
            row, term = self.place(number)
            row, term = self.block * self.tiling.side + row, turn * DEPTH + term
            inside = (E.index(row) < E.index(rows)) & (E.index(term) < E.index(terms))
            names: dict[str, Dim] = {
                axis.name: symbol(_numbered(axis, number).name) for axis in self.axes
            }
            depth = [Axis(f"{self.name}_{axis.name}", axis.extent) for axis in self.depth]
            names |= {
                old.name: symbol(new.name) for old, new in zip(self.depth, depth, strict=True)
            }
            value = substituted(self.value, names, {})
            zero = E.const(0, value.dtype)
            register = self.register(number)
            body.append(Declare(register, zero))
            body.append(If(inside, (*placed(depth, term), Assign(register, value))))
        return tuple(body)

    def register(self, number: int) -> str:
        """Return the name of an element on its way to shared memory."""
        return f"{self.name}_next{number}"

    def stores(self, turn: Dim) -> Body:
        """Return the writes of a stretch to shared memory."""
        body = []
        for number in range(self.copies):
            row, term = self.place(number)
            place = E.index(self.stretch(turn) + term * self.width + row)
            value = E.use(self.register(number), self.value)
            body.append(Store(self.memory, place, value))
        return tuple(body)

    def vectors(self, turn: Dim, term: Dim, thread: Dim) -> list[Expr]:
        """Return the vectors of one term that a thread multiplies."""
        lanes = self.tiling.lanes
        first = self.stretch(turn) + term * self.width + thread * lanes
        return [
            E.load(self.memory, E.index(first + chunk * ACROSS * lanes), (lanes,), (1,))
            for chunk in range(self.tiling.chunks)
        ]


def runs_along_depth(factor: _Factor) -> bool:
    """Return whether neighbouring terms of a factor lie side by side, rather than its rows."""
    last = factor.depth[-1].name
    loads = [e for e in E.walk(factor.value) if isinstance(e, E.Load)]
    return any(runs_along(load, last, 4) for load in loads)


def _numbered(axis: Axis, number: int) -> Axis:
    return Axis(f"{axis.name}_{number}", axis.extent)


def _memory(name: str, dtype: DType, tiling: Tiling) -> Buffer:
    return Buffer(name, dtype, (2, DEPTH, tiling.side + PADDING), "shared")


class _Tile:
    """One block's tile of the result."""

    def __init__(self, matched: Match, items: Sequence[Nest], tiling: Tiling) -> None:
        self.matched, self.items, self.tiling = matched, items, tiling
        self.row_blocks, self.column_blocks = (
            ceil_div(product(a.extent for a in axes), tiling.side)
            for axes in (matched.rows, matched.columns)
        )
        self.batch = product(axis.extent for axis in matched.batch)
        self.left = self._factor("a", matched.a, matched.rows, symbol("row_block"))
        self.right = self._factor("b", matched.b, matched.columns, symbol("column_block"))

    def _factor(self, name: str, value: Expr, axes: tuple[Axis, ...], block: Dim) -> _Factor:
        own, (value,) = merged(axes, [value])
        depth, (value,) = merged(self.matched.depth, [value])
        memory = _memory(f"{name}_block", value.dtype, self.tiling)
        return _Factor(name, value, own, depth, block, self.tiling, memory)

    @property
    def blocks(self) -> Dim:
        """Blocks of the whole product."""
        return self.batch * self.row_blocks * self.column_blocks

    @property
    def shared(self) -> tuple[Buffer, ...]:
        """Shared memory of a block."""
        return self.left.memory, self.right.memory

    def body(self) -> Body:
        """Return what a thread does."""
        factors = (self.left, self.right)
        turns = ceil_div(product(axis.extent for axis in self.matched.depth), DEPTH)
        turn = symbol("turn")
        grid = (Axis("column_block", self.column_blocks), Axis("row_block", self.row_blocks))
        return (
            *placed((*self.matched.batch, *grid), symbol(BLOCK)),
            *(stmt for factor in factors for stmt in factor.ahead()),
            *(stmt for factor in factors for stmt in factor.loads(0)),
            *(stmt for factor in factors for stmt in factor.stores(0)),
            Barrier(),
            *self._cleared(),
            For("turn", E.index(0), E.index(turns), (
                *(stmt for factor in factors for stmt in factor.loads(turn + 1)),
                self._products(turn),
                *(stmt for factor in factors for stmt in factor.stores(turn + 1)),
                Barrier(),
            )),
            *self._finished(),
        )  # fmt: skip

    # -- sums --------------------------------------------------------------------------------

    def _sums(self) -> list[tuple[int, int, E.Use]]:
        """Return the registers of a thread: row in its chunks, chunk of columns, vector."""
        lanes, dtype = self.tiling.lanes, self.matched.reduce.dtype
        like = E.splat(E.const(0, dtype), (lanes,))
        return [
            (row, chunk, E.use(f"sum{row}_{chunk}", like))
            for row in range(lanes * self.tiling.chunks)
            for chunk in range(self.tiling.chunks)
        ]

    def _cleared(self) -> Body:
        zero = E.const(0, self.matched.reduce.dtype)
        return tuple(Declare(s.name, E.splat(zero, s.tile)) for _, _, s in self._sums())

    def _products(self, turn: Dim) -> For:
        """Return the loop that adds the products of a stretch to the sums."""
        lanes, body = self.tiling.lanes, list[Stmt]()
        for step in range(UNROLLED):
            term = symbol("term") + step
            down = self.left.vectors(turn, term, symbol(THREAD) // ACROSS)
            right = self.right.vectors(turn, term, symbol(THREAD) % ACROSS)
            a, b = (
                [_named(f"{name}{step}_{k}", v, body) for k, v in enumerate(vectors)]
                for name, vectors in (("a", down), ("b", right))
            )
            for row, chunk, total in self._sums():
                left = E.repeat(a[row // lanes], lanes, lanes, row % lanes * lanes)
                body.append(Assign(total.name, E.apply("fma", left, b[chunk], total)))
        return For("term", E.index(0), E.index(DEPTH), tuple(body), step=UNROLLED)

    # -- results -----------------------------------------------------------------------------

    def _finished(self) -> Body:
        """Return the stores of a thread's sums, by whole vectors where rows are made of them."""
        elements = self._stored(self._by_elements)
        rows = whole(self.matched.columns[-1].extent, self.tiling.lanes)
        if rows is None:
            return elements
        return (rows.either(self._stored(partial(self._by_vectors, rows)), elements),)

    def _stored(self, write: Callable[[Dim, E.Use], Body]) -> Body:
        """Return all stores; ``write`` gets the place of a vector among all columns, and it."""
        lanes, side = self.tiling.lanes, self.tiling.side
        rows = product(axis.extent for axis in self.matched.rows)
        body: list[Stmt] = []
        down, right = symbol(THREAD) // ACROSS, symbol(THREAD) % ACROSS
        for number in range(lanes * self.tiling.chunks):
            chunk, lane = divmod(number, lanes)
            row = self.left.block * side + (chunk * ACROSS + down) * lanes + lane
            inside: list[Stmt] = list(placed(self.matched.rows, row))
            for own, column_chunk, total in self._sums():
                if own == number:
                    vector = self.right.block * (side // lanes) + column_chunk * ACROSS + right
                    inside += write(vector, total)
            body.append(If(E.index(row) < E.index(rows), tuple(inside)))
        return tuple(body)

    def _by_vectors(self, rows: Whole, vector: Dim, total: E.Use) -> Body:
        """Return the stores of a vector of neighbours on the last axis."""
        *outer, last = self.matched.columns
        lanes = self.tiling.lanes
        axes = (*outer, Axis("vector", rows.vectors))
        place = rows.sizes | {last.name: symbol("vector") * lanes}
        stores = []
        for item in self.items:
            store = _with(item.store, self.matched.reduce, total)
            stores.append(moved(vector_store(store, last.name, lanes, None, {}), place, {}))
        count = product(axis.extent for axis in axes)
        inside = (*placed(axes, vector), *values_first(stores))
        return (If(E.index(vector) < E.index(count), inside),)

    def _by_elements(self, vector: Dim, total: E.Use) -> Body:
        """Return the stores of neighbouring columns that may lie anywhere."""
        lanes, columns = self.tiling.lanes, self.matched.columns
        count = product(axis.extent for axis in columns)
        first = vector * lanes
        mask = E.iota(lanes) < E.index(count - first)
        place = indices(columns, first + symbol("lane"))
        stores = []
        for item in self.items:
            store = moved(_with(item.store, self.matched.reduce, total), place, {})
            stores.append(moved(vector_store(store, "lane", lanes, mask, {}), {"lane": 0}, {}))
        return values_first(stores)


def _named(name: str, value: Expr, body: list[Stmt]) -> Expr:
    body.append(Let(name, value))
    return E.use(name, value)


def _with(store: Store, reduce: E.Reduce, total: Expr) -> Store:
    """Return a store with the sum of products in a register."""
    value = E.rebuild(store.value, lambda e: None, {reduce: total})
    return Store(store.buffer, store.offset, value, store.strides, store.mask)

"""Places and products of attention: a block of queries against a block of keys.

A vector's lanes are queries, so that maxima and sums over keys need no folds: queries lie turned in
scratch, keys and values are read where they are, an element at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.loop import Assign, Bind, Declare, For, If, Let, Stmt, Store
from graphc.ir.types import DType, float32, float64

LANES = 16
"""Queries of a vector."""
VECTORS = 2
QUERIES = VECTORS * LANES
"""Queries of a block: those that a causal mask hides are computed for a part of one block only."""
KEYS = 128
"""Keys of a block: their scores for a block of queries take half of a first-level cache."""
WIDEST = 256
"""Channels that scratch has room for."""
ROWS = {float32: (8, 1), float64: (4, 1)}
"""Rows of register tiles; with two vectors eight rows of float32 take 16 registers."""

Body = tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """How heads lie in memory, and which scores count."""

    scale: float
    causal: bool
    heads_first: bool


class Places:
    """Sizes of heads, and where rows of head ``h`` of sequence ``n`` are."""

    def __init__(
        self, query: Buffer, value: Buffer, mask: Buffer | None, options: Options, n: Dim, h: Dim
    ) -> None:
        self.options, self.mask, self.n, self.h = options, mask, n, h
        self.dtype, self.key_width, self.value_width = query.dtype, query.shape[3], value.shape[3]
        first, second = query.shape[1:3]
        self.heads, self.queries = (first, second) if options.heads_first else (second, first)
        self.batch, self.keys = query.shape[0], value.shape[2 if options.heads_first else 1]

    def pitch(self, width: Dim) -> Dim:
        """Return how far neighbouring positions of a head are apart."""
        return width if self.options.heads_first else self.heads * width

    def place(self, length: Dim, position: Dim, width: Dim) -> Dim:
        """Return where a position of the head starts, of ``length``, with ``width`` channels."""
        if self.options.heads_first:
            return ((self.n * self.heads + self.h) * length + position) * width
        return ((self.n * length + position) * self.heads + self.h) * width

    def in_mask(self, query: Dim, key: Dim) -> tuple[Dim, tuple[Dim, ...]]:
        """Return where the mask has a query and a key, and its steps along each axis."""
        assert self.mask is not None
        steps = tuple(
            0 if size == 1 else step
            for size, step in zip(self.mask.shape, E.row_major(self.mask.shape))
        )
        at = self.n * steps[0] + self.h * steps[1] + query * steps[2] + key * steps[3]
        return at, steps


class Heads(Places):
    """The loops that both directions share."""

    def __init__(
        self, k: Any, query: Buffer, value: Buffer, mask: Buffer | None, options: Options
    ) -> None:
        self.names = k.axis_names
        n, h, self.first = (symbol(self.names()) for _ in range(3))
        super().__init__(query, value, mask, options, n, h)
        self.count = dim_min(self.queries - self.first, QUERIES)

    # -- places ------------------------------------------------------------------------------

    def inside(self, vector: int) -> Expr:
        """Return the mask of the queries of a vector that exist."""
        return E.iota(LANES) < E.index(self.count - vector * LANES)

    def of_queries(self, buffer: Buffer) -> list[Expr]:
        """Return vectors of what a buffer holds for each query of the block."""
        return [
            E.load(
                buffer, E.index(self.place(self.queries, self.first + v * LANES, 1)), (LANES,),
                (self.pitch(1),), self.inside(v),
            )
            for v in range(VECTORS)
        ]  # fmt: skip

    def store_of_queries(self, buffer: Buffer, vector: int, value: Expr) -> Store:
        """Return the store of a number for each query of a vector."""
        at = self.place(self.queries, self.first + vector * LANES, 1)
        return Store(buffer, E.index(at), value, (self.pitch(1),), self.inside(vector))

    # -- loops -------------------------------------------------------------------------------

    def loop(self, start: Dim, stop: Dim, body: Callable[[Dim], Body], step: int = 1) -> For:
        """Return a loop over a fresh variable."""
        name = self.names()
        return For(name, E.index(start), E.index(stop), body(symbol(name)), step=step)

    def side_by_side(self, body: Body, in_blocks: bool) -> Body:
        """Return the parallel loop over each head of each sequence, and its blocks of queries."""
        place = symbol(self.names())
        blocks = dim_max(ceil_div(self.queries, QUERIES), 1) if in_blocks else 1
        heads = dim_max(self.heads, 1)
        total = self.batch * self.heads * blocks
        lets = (
            Let(str(self.n), E.index(place // (heads * blocks))),
            Let(str(self.h), E.index(place // blocks % heads)),
        )
        first = Let(str(self.first), E.index(place % blocks * QUERIES))
        named = (*lets, first) if in_blocks else lets
        loop = For(
            str(place), E.index(0), E.index(total), (*named, *body), bind=Bind.PARALLEL
        )
        return (loop,)

    def over_keys(self, body: Callable[[Dim, Dim], Body]) -> For:
        """Return the loop over blocks of keys that queries of the block see."""
        stop = self.keys
        if self.options.causal:
            stop = dim_min(stop, self.first + self.count)
        return self.loop(0, stop, lambda key: body(key, dim_min(stop - key, KEYS)), KEYS)

    def tiles(self, stop: Dim, body: Callable[[Dim, int], Body]) -> Body:
        """Return loops over tiles of rows, each as high as the rows left allow."""
        high, low = ROWS[self.dtype]
        whole = stop // high * high
        return (
            self.loop(0, whole, lambda row: body(row, high), high),
            self.loop(whole, stop, lambda row: body(row, low), low),
        )

    def vectors(self, width: Dim, body: Callable[[Dim, int, Expr | None], Body]) -> Body:
        """Return loops over channels by ``VECTORS`` vectors, then by one that may be a part."""
        wide = VECTORS * LANES
        whole = width // wide * wide
        return (
            self.loop(0, whole, lambda c: body(c, VECTORS, None), wide),
            self.loop(whole, width, lambda c: body(c, 1, E.iota(LANES) < E.index(width - c)),
                      LANES),
        )  # fmt: skip

    def product(
        self, count: int, vectors: int, depth: Dim, left: Callable[[Dim], Expr],
        right: Callable[[Dim, int], Expr], finish: Callable[[int, Expr], Stmt],
        start: Callable[[int], Expr] | None = None,
    ) -> Body:  # fmt: skip
        """Return a register tile of ``count`` rows: sums of left times right over the depth."""
        zero = E.splat(E.const(0, self.dtype), (count, LANES))
        starts = [zero if start is None else start(v) for v in range(vectors)]
        sums = [E.use(self.names(), value) for value in starts]

        def term(depth: Dim) -> Body:
            factor = left(depth)
            return tuple(
                Assign(held.name, E.apply("fma", factor, right(depth, v), held))
                for v, held in enumerate(sums)
            )

        return (
            *(Declare(held.name, value) for held, value in zip(sums, starts)),
            self.loop(0, depth, term),
            *(finish(v, held) for v, held in enumerate(sums)),
        )

    # -- turning -----------------------------------------------------------------------------

    def _squares(
        self, width: Dim, square: Callable[[Dim, int], Stmt], one: Callable[[Dim, int], Stmt]
    ) -> Body:
        """Return what turns a block of queries: squares of a vector's side, then channels alone."""
        whole, parts = width // LANES * LANES, []
        for v in range(VECTORS):
            alone = self.loop(0, width, lambda c, v=v: (one(c, v),))  # type: ignore[misc]
            rest = self.loop(whole, width, lambda c, v=v: (one(c, v),))  # type: ignore[misc]
            full = self.loop(0, whole, lambda c, v=v: (square(c, v),), LANES)  # type: ignore[misc]
            filled = E.index(self.count) >= E.index((v + 1) * LANES)
            parts.append(If(filled, (full, rest), (alone,)))
        return tuple(parts)

    def turned_in(
        self, source: Buffer, width: Dim, target: Buffer, scale: float | None = None
    ) -> Body:
        """Return loops that lay the block's queries in scratch, channel by channel."""
        pitch = self.pitch(width)

        def scaled(value: Expr) -> Expr:
            return value if scale is None else value * scale

        def at(c: Dim, v: int) -> Expr:
            return E.index(self.place(self.queries, self.first + v * LANES, width) + c)

        def square(c: Dim, v: int) -> Stmt:
            value = E.load(source, at(c, v), (LANES, LANES), (1, pitch))
            return Store(target, in_scratch(c, v), scaled(value), (QUERIES, 1))

        def one(c: Dim, v: int) -> Stmt:
            value = E.load(source, at(c, v), (LANES,), (pitch,), self.inside(v))
            return Store(target, in_scratch(c, v), scaled(value), (1,))

        return self._squares(width, square, one)

    def turned_out(
        self, source: Buffer, target: Buffer, width: Dim, factors: Sequence[Expr]
    ) -> Body:
        """Return loops that write scratch to the block's queries, times a factor for each."""
        pitch = self.pitch(width)

        def at(c: Dim, v: int) -> Expr:
            return E.index(self.place(self.queries, self.first + v * LANES, width) + c)

        def square(c: Dim, v: int) -> Stmt:
            value = E.load(source, in_scratch(c, v), (LANES, LANES), (QUERIES, 1))
            return Store(target, at(c, v), value * factors[v], (1, pitch))

        def one(c: Dim, v: int) -> Stmt:
            value = E.load(source, in_scratch(c, v), (LANES,), (1,))
            return Store(target, at(c, v), value * factors[v], (pitch,), self.inside(v))

        return self._squares(width, square, one)

    # -- scores ------------------------------------------------------------------------------

    def scores(
        self, rows: Buffer, width: Dim, key: Dim, count: Dim, turned: Buffer, target: Buffer
    ) -> Body:
        """Return products of the rows from ``key`` on with turned queries, left in scratch."""
        step = self.pitch(width)

        def tile(row: Dim, high: int) -> Body:
            origin = self.place(self.keys, key + row, width)
            return self.product(
                high, VECTORS, width,
                lambda c: E.load(rows, E.index(origin + c), (high, 1), (step, 0)),
                lambda c, v: E.load(turned, in_scratch(c, v), (1, LANES), (0, 1)),
                lambda v, held: Store(target, in_scratch(row, v), held, (QUERIES, 1)),
            )  # fmt: skip

        return self.tiles(count, tile)

    def summed(
        self, rows: Buffer, width: Dim, key: Dim, count: Dim, weights: Buffer, target: Buffer,
        factors: Sequence[Expr] | None = None,
    ) -> Body:  # fmt: skip
        """Return what adds rows from ``key`` on, weighted for each query, to turned sums.

        What was summed before is multiplied by ``factors``.
        """
        step = self.pitch(width)

        def tile(c: Dim, high: int) -> Body:
            def start(v: int) -> Expr:
                value = E.load(target, in_scratch(c, v), (high, LANES), (QUERIES, 1))
                return value if factors is None else value * factors[v]

            origin = self.place(self.keys, key, width) + c
            return self.product(
                high, VECTORS, count,
                lambda row: E.load(rows, E.index(origin + row * step), (high, 1), (1, 0)),
                lambda row, v: E.load(weights, in_scratch(row, v), (1, LANES), (0, 1)),
                lambda v, held: Store(target, in_scratch(c, v), held, (QUERIES, 1)),
                start,
            )  # fmt: skip

        return self.tiles(width, tile)

    def added_to_keys(
        self, weights: Buffer, key: Dim, count: Dim, queries: Buffer, target: Buffer, width: Dim,
        scale: float | None = None,
    ) -> Body:  # fmt: skip
        """Return what adds the block's queries, weighted for each key, to rows from ``key`` on."""
        step = self.pitch(width)

        def tile(row: Dim, high: int) -> Body:
            def strip(c: Dim, vectors: int, mask: Expr | None) -> Body:
                source = self.place(self.queries, self.first, width) + c
                place = self.place(self.keys, key + row, width) + c

                def finish(v: int, held: Expr) -> Stmt:
                    at = E.index(place + v * LANES)
                    before = E.load(target, at, (high, LANES), (step, 1), mask)
                    value = (
                        held + before if scale is None
                        else E.apply("fma", held, E.const(scale, self.dtype), before)
                    )  # fmt: skip
                    return Store(target, at, value, (step, 1), mask)

                return self.product(
                    high, vectors, self.count,
                    lambda q: E.load(weights, E.index(row * QUERIES + q), (high, 1), (QUERIES, 0)),
                    lambda q, v: E.load(
                        queries, E.index(source + q * step + v * LANES), (1, LANES), (0, 1), mask
                    ),
                    finish,
                )  # fmt: skip

            return self.vectors(width, strip)

        return self.tiles(count, tile)

    def seen(self, key: Dim, vector: int) -> Expr | None:
        """Return the mask of the queries of a vector that see a key; None where all do."""
        found: Expr | None = None
        query = self.first + vector * LANES
        if self.options.causal:
            found = E.iota(LANES) >= E.index(key - query)
        if self.mask is not None:
            at, steps = self.in_mask(query, key)
            inside = None if steps[2] == 0 else self.inside(vector)
            given = E.load(self.mask, E.index(at), (LANES,), (steps[2],), inside, False)
            found = given if found is None else found & given
        return found


def in_scratch(row: Dim, vector: int) -> Expr:
    """Return the place of a vector of queries in a row of scratch."""
    return E.index(row * QUERIES + vector * LANES)


def scratch(name: str, rows: int, dtype: DType) -> Buffer:
    """Return scratch for so many numbers of each query of a block."""
    return Buffer(name, dtype, (rows, QUERIES), "stack")


def lowest_score(dtype: DType) -> float:
    """Return a score below all others; the difference of two is a number."""
    return -float(np.finfo(dtype.name).max) / 4

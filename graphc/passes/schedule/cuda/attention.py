"""Attention on CUDA: a block takes a square of queries past all keys that they see.

The loops of `graphc.ir.ops.attention_nests` for threads: scores of a square of queries and keys
are in registers, and their exponentials in shared memory (Milakov and Gimelshein 2018,
arXiv:1805.02867; Dao 2023, arXiv:2307.08691). Queries are scaled and turned in shared memory once;
keys and values take turns in one place there, each read from memory while the other is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, product, symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.loop import Assign, Barrier, Declare, For, If, Let, Stmt, Store
from graphc.ir.ops.attention_tiles import Options, Places, lowest_score
from graphc.ir.target import Target
from graphc.ir.types import DType
from graphc.passes.lower import OwnNest
from graphc.passes.schedule.cuda.grid import BLOCK, over_blocks
from graphc.passes.schedule.cuda.matrices import (
    MEMBER,
    Rows,
    Square,
    Weighted,
    over_team,
    padded,
    turned,
    turned_pitch,
    vector,
)
from graphc.passes.schedule.loops import Body

SEQUENCE, HEAD, FIRST, TURN = "sequence", "head", "first", "turn"
"""Names of a block's sequence and head, of the first of its rows, and of the others at hand."""
LIGHT = {32, 64}
"""Channels of heads for which 128 registers a thread are enough, as ptxas finds, without a mask."""
MOST_BYTES = 163 << 10
"""Shared memory that a block asks for at most: more would take more registers than there are."""


def forward(target: Target) -> OwnNest:
    """Return the loops of attention."""
    return OwnNest(partial(_forward_nest, target), ((0, 3), (2, 3)))


def _forward_nest(
    target: Target, k: Any, outputs: Sequence[Buffer], *operands: Buffer, **attrs: Any
) -> Body:
    return _Forward(target, outputs, operands, Options(**attrs)).nest()


def lanes_for(
    target: Target, dtype: DType, turned_widths: Sequence[int], row_widths: Sequence[int]
) -> int:
    """Return the largest side of a square, in lanes, with which all fits in shared memory.

    Parameters
    ----------
    target : Target
    dtype : DType
    turned_widths, row_widths : sequence of int
        Channels of the turned matrices, and room for those of each place for rows.

    Raises
    ------
    CompileError
        If the smallest does not fit.
    """
    pad, most_bytes = vector(dtype), min(target.shared_bytes, MOST_BYTES)
    for lanes in (4, 2, 1):
        side = Square("", dtype, lanes).side
        rows = sum(side * (padded(width) + pad) for width in row_widths)
        own = (sum(turned_widths) + side) * turned_pitch(side, dtype)
        if lanes <= pad and (rows + own) * dtype.item_bytes <= most_bytes:
            return lanes
    raise CompileError(
        f"attention of {dtype} with heads of {max(row_widths)} channels needs more shared memory "
        f"than the {most_bytes >> 10} KiB that {target.cpu} has",
        remedy="Use more heads, or float32.",
    )


def shared(name: str, dtype: DType, rows: int, pitch: int) -> Buffer:
    """Return memory that the threads of a block share."""
    return Buffer(name, dtype, (rows, pitch), "shared")


def blocks_at_once(target: Target, places: Places, memory: Sequence[Buffer]) -> int:
    """Return how many blocks are to share a multiprocessor: their threads its registers."""
    own_bytes = sum(b.dtype.item_bytes * int(product(b.shape)) for b in memory)
    light = places.mask is None and {places.key_width, places.value_width} <= LIGHT
    return 2 if light and 2 * own_bytes <= target.shared_bytes else 1


def placed(places: Places, number: Dim, length: Dim, side: int) -> Body:
    """Return statements that name sequence, head and first row of the ``number``-th block."""
    heads, blocks = dim_max(places.heads, 1), dim_max(ceil_div(length, side), 1)
    return (
        Let(SEQUENCE, E.index(number // (heads * blocks))),
        Let(HEAD, E.index(number // blocks % heads)),
        Let(FIRST, E.index(number % blocks * side)),
    )


def place_of(places: Places, length: Dim, width: Dim, position: Dim) -> Dim:
    """Return where a position of the head starts."""
    return places.place(length, position, width)


def seen(places: Places, query: Dim, key: Dim, lanes: int, of_queries: bool) -> Expr:
    """Return which scores count, of a vector of queries and one key or the other way round.

    The one, which the vector is not ``of``, may lie behind the last; none of its scores counts.
    """
    lane, options = E.iota(lanes), places.options
    own, last = (query, places.queries) if of_queries else (key, places.keys)
    exists = (
        E.index(key) < E.index(places.keys) if of_queries
        else E.index(query) < E.index(places.queries)
    )  # fmt: skip
    found = exists
    if options.causal:
        earlier = lane >= E.index(key - query) if of_queries else lane <= E.index(query - key)
        found = found & earlier
    if places.mask is not None:
        at, steps = places.in_mask(query, key)
        step = steps[2] if of_queries else steps[3]
        if step == 0:
            given = E.load(places.mask, E.index(at), mask=exists, fill=False)
        else:
            inside = exists & (lane < E.index(last - own))
            given = E.load(places.mask, E.index(at), (lanes,), (step,), inside, False)
        found = found & given
    return found


class _Forward:
    """The loops of a block."""

    def __init__(
        self, target: Target, outputs: Sequence[Buffer], operands: Sequence[Buffer],
        options: Options,
    ) -> None:  # fmt: skip
        self.target = target
        query, key, value, *masks = operands
        n, h, self.first = (symbol(name) for name in (SEQUENCE, HEAD, FIRST))
        self.places = places = Places(query, value, masks[0] if masks else None, options, n, h)
        self.result, self.logs = outputs
        dtype, width, depth = query.dtype, query.shape[3], value.shape[3]
        assert isinstance(width, int) and isinstance(depth, int)
        wide = max(width, depth)
        self.square = square = Square("score", dtype, lanes_for(target, dtype, [width], [wide]))
        side = square.side
        self.own = shared("queries", dtype, width, turned_pitch(side, dtype))
        self.weights = shared("weights", dtype, side, square.pitch)
        rows = shared("rows", dtype, side, padded(wide) + vector(dtype))
        of_queries, of_keys = (
            partial(place_of, places, length) for length in (places.queries, places.keys)
        )
        self.queries = Rows(
            "query", query, partial(of_queries, width), width, side, self.own,
            E.const(options.scale, dtype),
        )  # fmt: skip
        self.keys = Rows("key", key, partial(of_keys, width), width, side, rows)
        self.values = Rows("value", value, partial(of_keys, depth), depth, side, rows)
        self.sums = Weighted("sum", square, depth)
        self.memory = self.own, rows, self.weights
        zero = square.splat(0)
        self.peak, self.total = E.use("peak", zero), E.use("total", zero)

    def nest(self) -> Body:
        """Return the loops of all blocks."""
        places, side, turn = self.places, self.square.side, symbol(TURN)
        stop = places.keys
        if places.options.causal:
            stop = dim_min(stop, self.first + side)
        loop = For(TURN, E.index(0), E.index(stop), (
            *self.keys.stores(turn, places.keys),
            *self.values.loads(turn, places.keys),
            Barrier(),
            *self.square.product(self.keys, self.own),
            *self._softened(),
            Barrier(),
            *self.values.stores(turn, places.keys),
            *self.keys.loads(turn + side, places.keys),
            Barrier(),
            *self.sums.scaled(E.use("shrunk", self.peak)),
            *self.sums.added(self.weights, self.values),
            Barrier(),
        ), step=side)  # fmt: skip
        lowest = self.square.splat(lowest_score(self.square.dtype))
        body = (
            *placed(places, symbol(BLOCK), places.queries, side),
            *turned(self.queries, self.first, places.queries),
            *self.keys.declared(),
            *self.values.declared(),
            If(E.index(0) < E.index(places.keys), self.keys.loads(0, places.keys)),
            Declare(self.peak.name, lowest),
            Declare(self.total.name, self.square.splat(0)),
            *self.sums.declared(),
            loop,
            *self._results(),
        )
        extent = places.batch * places.heads * ceil_div(places.queries, side)
        at_once = blocks_at_once(self.target, places, self.memory)
        return over_blocks(extent, self.memory, body, at_once=at_once)

    def _softened(self) -> Body:
        """Return what leaves exponentials of the scores in shared memory.

        Sums of exponentials are each thread's own until the end.
        """
        square, dtype = self.square, self.square.dtype
        lowest = square.splat(lowest_score(dtype))
        body: list[Stmt] = []
        top: Expr = square.uses[0]
        for number, score in enumerate(square.uses):
            query, key = self.first + square.column, symbol(TURN) + square.row(number)
            counts = seen(self.places, query, key, square.lanes, of_queries=True)
            body.append(Assign(score.name, E.select(counts, score, lowest)))
            top = E.apply("max", top, score) if number else score
        body.append(Let("own_top", top))
        across, top = over_team("top", "max", E.use("own_top", top))
        body += [*across, Let("top", E.apply("max", self.peak, top))]
        top = E.use("top", top)
        body += [Let("shrunk", E.apply("exp", self.peak - top)), Assign(self.peak.name, top)]
        total: Expr = self.total * E.use("shrunk", top)
        for number, score in enumerate(square.uses):
            value = E.apply("exp", score - top)
            if self.places.mask is not None:
                # Where a query has seen no key, the top is the lowest, too.
                value = E.select(score > lowest, value, square.splat(0))
            name = f"weight{number}"
            body.append(Let(name, value))
            held = E.use(name, value)
            body.append(square.kept(self.weights, number, held))
            total = total + held
        return (*body, Assign(self.total.name, total))

    def _results(self) -> Body:
        """Return the stores of results and logarithms."""
        places, square = self.places, self.square
        zero, query = square.splat(0), self.first + square.column
        across, total = over_team("all", "add", self.total)
        # A query that sees no key gets zeros.
        inverse = E.select(total > 0.0, 1.0 / total, zero)
        at = E.index(places.place(places.queries, query, 1))
        inside = E.iota(square.lanes) < E.index(places.queries - query)
        log = self.peak + E.apply("log", total)
        store = Store(self.logs, at, log, (places.pitch(1),), inside)
        of_queries = partial(place_of, places, places.queries, self.sums.width)
        return (
            *across,
            Let("inverse", inverse),
            If(E.index(MEMBER).eq(0), (store,)),
            *self.sums.results(
                self.result, of_queries, self.first, places.queries, E.use("inverse", zero)
            ),
        )

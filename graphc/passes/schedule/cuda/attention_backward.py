"""The gradient of attention on CUDA: in one launch, without sums across blocks.

The first blocks take a square of keys past all queries that see them, for the gradients of keys
and values; the others a square of queries past all keys, for those of queries. Both compute the
scores of a turn again, and hold their own rows turned and those of the turn as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_min, symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.loop import Assign, Barrier, For, If, Let, Stmt
from graphc.ir.ops.attention_tiles import Options, Places
from graphc.ir.target import Target
from graphc.passes.lower import OwnNest
from graphc.passes.schedule.cuda.attention import (
    FIRST,
    HEAD,
    SEQUENCE,
    TURN,
    blocks_at_once,
    lanes_for,
    place_of,
    placed,
    seen,
    shared,
)
from graphc.passes.schedule.cuda.grid import BLOCK, over_blocks
from graphc.passes.schedule.cuda.matrices import (
    Rows,
    Square,
    Weighted,
    padded,
    turned,
    turned_pitch,
    vector,
)
from graphc.passes.schedule.loops import Body


def backward(target: Target) -> OwnNest:
    """Return the loops of attention's gradient."""
    return OwnNest(partial(_backward_nest, target), ((1, 3), (3, 3)))


def _backward_nest(
    target: Target, k: Any, outputs: Sequence[Buffer], *operands: Buffer, **attrs: Any
) -> Body:
    of_keys, of_queries = (
        _Part(target, outputs, operands, Options(**attrs), side) for side in (False, True)
    )
    first = symbol(BLOCK) - of_keys.blocks
    choice = If(
        E.index(first) < E.index(0), of_keys.body(symbol(BLOCK)), of_queries.body(first)
    )
    extent = of_keys.blocks + of_queries.blocks
    at_once = blocks_at_once(target, of_keys.places, of_keys.memory)
    return over_blocks(extent, of_keys.memory, (choice,), at_once=at_once)


class _Part:
    """What one block does: for its queries, or for its keys.

    Its own rows are the columns of the squares of scores, rows of those are what it goes past.
    """

    def __init__(
        self, target: Target, outputs: Sequence[Buffer], operands: Sequence[Buffer],
        options: Options, of_queries: bool,
    ) -> None:  # fmt: skip
        slope, query, key, value, self.logs, self.shares, *masks = operands
        n, h, self.first = (symbol(name) for name in (SEQUENCE, HEAD, FIRST))
        self.places = places = Places(query, value, masks[0] if masks else None, options, n, h)
        self.outputs, self.of_queries = outputs, of_queries
        width, depth = query.shape[3], value.shape[3]
        assert isinstance(width, int) and isinstance(depth, int)
        dtype = query.dtype
        lanes = lanes_for(target, dtype, [width, depth], [width, depth])
        self.scores, self.slopes = (Square(name, dtype, lanes) for name in ("score", "slope"))
        side = self.scores.side
        pitch, pad = turned_pitch(side, dtype), vector(dtype)
        self.memory = (
            shared("own_scored", dtype, width, pitch),
            shared("own_valued", dtype, depth, pitch),
            shared("scored", dtype, side, padded(width) + pad),
            shared("valued", dtype, side, padded(depth) + pad),
            shared("weights", dtype, side, self.scores.pitch),
        )
        self.weights = self.memory[-1]
        lengths = places.queries, places.keys
        self.length, self.others = lengths if of_queries else lengths[::-1]
        scale = E.const(options.scale, dtype)
        of = (query, width, scale), (slope, depth, None)
        others = (key, width, None), (value, depth, None)
        own, past = (of, others) if of_queries else (others, of)
        self.own = [
            Rows(f"own{n}", source, partial(place_of, places, self.length, channels), channels,
                 side, self.memory[n], factor)
            for n, (source, channels, factor) in enumerate(own)
        ]
        self.past = [
            Rows(f"past{n}", source, partial(place_of, places, self.others, channels), channels,
                 side, self.memory[2 + n], factor)
            for n, (source, channels, factor) in enumerate(past)
        ]
        self.by_scored = Weighted("by_scored", self.scores, width)
        self.by_valued = Weighted("by_valued", self.scores, depth)

    @property
    def blocks(self) -> Dim:
        """How many blocks there are of the kind."""
        places = self.places
        return places.batch * places.heads * ceil_div(self.length, self.scores.side)

    def body(self, number: Dim) -> Body:
        """Return what a thread of the ``number``-th block does."""
        start: Dim = 0
        side, stop = self.scores.side, self.others
        if self.places.options.causal and self.of_queries:
            stop = dim_min(stop, self.first + side)
        elif self.places.options.causal:
            start = self.first
        sums = (self.by_scored,) if self.of_queries else (self.by_scored, self.by_valued)
        return (
            *placed(self.places, number, self.length, side),
            *(s for own in self.own for s in turned(own, self.first, self.length)),
            *(s for past in self.past for s in past.declared()),
            If(E.index(start) < E.index(stop), self._loads(start)),
            *(s for held in sums for s in held.declared()),
            *(self._known() if self.of_queries else ()),
            For(TURN, E.index(start), E.index(stop), self._turn(), step=side),
            *self._results(),
        )

    def _loads(self, first: Dim) -> Body:
        return tuple(s for past in self.past for s in past.loads(first, self.others))

    def _turn(self) -> Body:
        turn, side = symbol(TURN), self.scores.side
        scored, valued = self.past
        changes: Body = tuple(
            self.scores.kept(self.weights, number, slope)
            for number, slope in enumerate(self.slopes.uses)
        )
        weights: Body = ()
        if not self.of_queries:
            weights = tuple(
                self.scores.kept(self.weights, number, score)
                for number, score in enumerate(self.scores.uses)
            )
            added = self.by_valued.added(self.weights, valued)
            changes = (Barrier(), *added, Barrier(), *changes)
        return (
            *(s for past in self.past for s in past.stores(turn, self.others)),
            *(() if self.of_queries else self._known()),
            Barrier(),
            *self.scores.product(scored, self.own[0].memory),
            *self._probabilities(),
            *weights,
            *self.slopes.product(valued, self.own[1].memory),
            *self._changes(),
            *changes,
            Barrier(),
            *self._loads(turn + side),
            *self.by_scored.added(self.weights, scored),
            Barrier(),
        )

    # -- scores ------------------------------------------------------------------------------

    def _known(self) -> Body:
        """Return statements that name what is known of queries: of columns, or of each row."""
        square, places = self.scores, self.places
        body: list[Stmt] = []
        for name, buffer in (("log", self.logs), ("share", self.shares)):
            if self.of_queries:
                query = self.first + square.column
                at, inside = places.place(places.queries, query, 1), places.queries - query
                mask = E.iota(square.lanes) < E.index(inside)
                step = (places.pitch(1),)
                body.append(Let(name, E.load(buffer, E.index(at), (square.lanes,), step, mask)))
                continue
            for number in range(square.lanes):
                query = symbol(TURN) + square.row(number)
                at, exists = places.place(places.queries, query, 1), places.queries - query
                mask = E.index(0) < E.index(exists)
                body.append(Let(f"{name}{number}", E.load(buffer, E.index(at), mask=mask)))
        return tuple(body)

    def _known_of(self, name: str, number: int) -> Expr:
        """Return what `_known` names, for the ``number``-th row."""
        if self.of_queries:
            return E.use(name, self.scores.splat(0))
        return E.use(f"{name}{number}", E.const(0, self.scores.dtype))

    def _probabilities(self) -> Body:
        """Return what makes scores probabilities."""
        square = self.scores
        body: list[Stmt] = []
        for number, score in enumerate(square.uses):
            own, past = self.first + square.column, symbol(TURN) + square.row(number)
            query, key = (own, past) if self.of_queries else (past, own)
            counts = seen(self.places, query, key, square.lanes, self.of_queries)
            value = E.apply("exp", score - self._known_of("log", number))
            body.append(Assign(score.name, E.select(counts, value, square.splat(0))))
        return tuple(body)

    def _changes(self) -> Body:
        """Return what makes slopes of the probabilities those of the scores."""
        return tuple(
            Assign(slope.name, score * (slope - self._known_of("share", number)))
            for number, (score, slope) in enumerate(zip(self.scores.uses, self.slopes.uses))
        )

    def _results(self) -> Body:
        by_query, by_key, by_value = self.outputs
        own, places = self.own, self.places
        if self.of_queries:
            factors = self.scores.splat(places.options.scale)
            return self.by_scored.results(
                by_query, own[0].place, self.first, self.length, factors
            )
        return (
            *self.by_scored.results(by_key, own[0].place, self.first, self.length),
            *self.by_valued.results(by_value, own[1].place, self.first, self.length),
        )

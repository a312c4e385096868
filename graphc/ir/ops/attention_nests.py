"""Loops of attention: scores are computed block by block, and never in memory as a whole.

Forward keeps the largest score and the sum of exponentials of each query up to the block at hand,
and rescales what is summed (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
arXiv:2205.14135). Backward computes probabilities again from the logarithms of those sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.ir import expr as E
from graphc.ir.dim import Dim
from graphc.ir.expr import Buffer, Expr
from graphc.ir.loop import Alloc, Assign, Declare, Let, Stmt, Store
from graphc.ir.ops.attention_tiles import (
    KEYS,
    LANES,
    QUERIES,
    VECTORS,
    WIDEST,
    Body,
    Heads,
    Options,
    in_scratch,
    lowest_score,
    scratch,
)
from graphc.ir.types import DType

# -- forward ---------------------------------------------------------------------------------


def forward_nest(
    k: Any, outputs: Sequence[Buffer], operands: Sequence[Buffer], options: Options
) -> Body:
    """Return the loops over blocks of queries, each against all keys that it sees."""
    query, key, value, *masks = operands
    heads = Heads(k, query, value, masks[0] if masks else None, options)
    result, logs = outputs
    dtype = query.dtype
    turned, sums = scratch("turned", WIDEST, dtype), scratch("sums", WIDEST, dtype)
    scores = scratch("scores", KEYS, dtype)
    peaks = [E.use(heads.names(), _splat(0.0, dtype)) for _ in range(VECTORS)]
    totals = [E.use(heads.names(), _splat(0.0, dtype)) for _ in range(VECTORS)]

    def block(first: Dim, count: Dim) -> Body:
        return (
            *heads.scores(key, heads.key_width, first, count, turned, scores),
            *_softened(heads, first, count, scores, peaks, totals, lambda factors: heads.summed(
                value, heads.value_width, first, count, scores, sums, factors
            )),
        )  # fmt: skip

    inverses = [heads.names() for _ in range(VECTORS)]
    zero = _splat(0.0, dtype)
    ends: list[Stmt] = []
    for v, (name, peak, total) in enumerate(zip(inverses, peaks, totals)):
        # A query that sees no key gets zeros.
        ends.append(Let(name, E.select(total > 0.0, 1.0 / total, zero)))
        ends.append(heads.store_of_queries(logs, v, peak + E.apply("log", total)))
    body = (
        *map(Alloc, (turned, sums, scores)),
        *heads.turned_in(query, heads.key_width, turned, options.scale),
        _cleared(heads, sums, heads.value_width),
        *(Declare(peak.name, _splat(lowest_score(dtype), dtype)) for peak in peaks),
        *(Declare(total.name, zero) for total in totals),
        heads.over_keys(block),
        *ends,
        *heads.turned_out(
            sums, result, heads.value_width, [E.use(name, zero) for name in inverses]
        ),
    )
    return heads.side_by_side(body, in_blocks=True)


def _splat(number: float, dtype: DType) -> Expr:
    return E.splat(E.const(number, dtype), (LANES,))


def _cleared(heads: Heads, target: Buffer, width: Dim) -> Stmt:
    zero = _splat(0.0, target.dtype)
    return heads.loop(
        0, width, lambda c: tuple(Store(target, in_scratch(c, v), zero, (1,))
                                  for v in range(VECTORS))
    )  # fmt: skip


def _softened(
    heads: Heads, first: Dim, count: Dim, scores: Buffer, peaks: Sequence[E.Use],
    totals: Sequence[E.Use], sums: Callable[[Sequence[Expr]], Body],
) -> Body:  # fmt: skip
    """Return what makes scores of a block exponentials, and what is summed before smaller."""
    dtype = scores.dtype
    lowest, zero = _splat(lowest_score(dtype), dtype), _splat(0.0, dtype)
    tops = [E.use(heads.names(), peak) for peak in peaks]

    def read(row: Dim, v: int) -> Expr:
        return E.load(scores, in_scratch(row, v), (LANES,), (1,))

    def highest(row: Dim) -> Body:
        body: list[Stmt] = []
        for v, top in enumerate(tops):
            score, seen = read(row, v), heads.seen(first + row, v)
            if seen is not None:
                name = heads.names()
                body.append(Let(name, E.select(seen, score, lowest)))
                score = E.use(name, score)
                body.append(Store(scores, in_scratch(row, v), score, (1,)))
            body.append(Assign(top.name, E.apply("max", top, score)))
        return tuple(body)

    def exponentials(row: Dim) -> Body:
        body: list[Stmt] = []
        for v, (top, total) in enumerate(zip(tops, totals)):
            name, score = heads.names(), read(row, v)
            value = E.apply("exp", score - top)
            if heads.mask is not None:  # where a query has seen no key, the top is the lowest, too
                value = E.select(score > lowest, value, zero)
            body.append(Let(name, value))
            held = E.use(name, value)
            body.append(Store(scores, in_scratch(row, v), held, (1,)))
            body.append(Assign(total.name, total + held))
        return tuple(body)

    factors = [E.use(heads.names(), peak) for peak in peaks]
    shrunk = [
        Let(factor.name, E.apply("exp", peak - top))
        for factor, peak, top in zip(factors, peaks, tops)
    ]
    return (
        *(Declare(top.name, peak) for top, peak in zip(tops, peaks)),
        heads.loop(0, count, highest),
        *shrunk,
        *(Assign(total.name, total * factor) for total, factor in zip(totals, factors)),
        heads.loop(0, count, exponentials),
        *sums(factors),
        *(Assign(peak.name, top) for peak, top in zip(peaks, tops)),
    )


# -- backward --------------------------------------------------------------------------------


def backward_nest(
    k: Any, outputs: Sequence[Buffer], operands: Sequence[Buffer], options: Options
) -> Body:
    """Return the loops over heads; a head's blocks of queries come one after another.

    Each adds to the gradients of the keys and values that it sees.
    """
    slope, query, key, value, logs, shares, *masks = operands
    heads = Heads(k, query, value, masks[0] if masks else None, options)
    by_query, by_key, by_value = outputs
    dtype, width, depth = query.dtype, heads.key_width, heads.value_width
    turned, slopes, sums = (scratch(n, WIDEST, dtype) for n in ("turned", "slopes", "sums"))
    weights, changes = scratch("weights", KEYS, dtype), scratch("changes", KEYS, dtype)
    own_logs, own_shares = heads.of_queries(logs), heads.of_queries(shares)
    known = [[E.use(heads.names(), e) for e in own] for own in (own_logs, own_shares)]
    lets = [
        Let(held.name, e)
        for own, holders in zip((own_logs, own_shares), known)
        for e, held in zip(own, holders)
    ]

    def block(first: Dim, count: Dim) -> Body:
        return (
            *heads.scores(key, width, first, count, turned, weights),
            *heads.scores(value, depth, first, count, slopes, changes),
            heads.loop(0, count, lambda row: _slope(
                heads, first + row, row, weights, changes, *known
            )),
            *heads.added_to_keys(weights, first, count, slope, by_value, depth),
            *heads.added_to_keys(changes, first, count, query, by_key, width, options.scale),
            *heads.summed(key, width, first, count, changes, sums),
        )  # fmt: skip

    def queries(first: Dim) -> Body:
        return (
            Let(str(heads.first), E.index(first)),
            *lets,
            *heads.turned_in(query, width, turned, options.scale),
            *heads.turned_in(slope, depth, slopes),
            _cleared(heads, sums, width),
            heads.over_keys(block),
            *heads.turned_out(sums, by_query, width, [_splat(options.scale, dtype)] * VECTORS),
        )

    body = (
        *map(Alloc, (turned, slopes, sums, weights, changes)),
        *_zeros(heads, by_key, width),
        *_zeros(heads, by_value, depth),
        heads.loop(0, heads.queries, queries, QUERIES),
    )
    return heads.side_by_side(body, in_blocks=False)


def _zeros(heads: Heads, target: Buffer, width: Dim) -> Body:
    """Return the loops that clear a head's rows."""
    zero = _splat(0.0, target.dtype)

    def row(position: Dim) -> Body:
        place = heads.place(heads.keys, position, width)
        return (heads.loop(0, width, lambda c: (
            Store(target, E.index(place + c), zero, (1,), E.iota(LANES) < E.index(width - c)),
        ), LANES),)  # fmt: skip

    return (heads.loop(0, heads.keys, row),)


def _slope(
    heads: Heads, key: Dim, row: Dim, weights: Buffer, changes: Buffer,
    logs: Sequence[Expr], shares: Sequence[Expr],
) -> Body:  # fmt: skip
    """Return what makes scores of a key probabilities, and their slopes those of the scores."""
    body: list[Stmt] = []
    for v, (log, share) in enumerate(zip(logs, shares)):
        at, name = in_scratch(row, v), heads.names()
        value = E.apply("exp", E.load(weights, at, (LANES,), (1,)) - log)
        seen = heads.seen(key, v)
        if seen is not None:
            value = E.select(seen, value, _splat(0.0, weights.dtype))
        held = E.use(name, value)
        body += [
            Let(name, value),
            Store(weights, at, held, (1,)),
            Store(changes, at, held * (E.load(changes, at, (LANES,), (1,)) - share), (1,)),
        ]
    return tuple(body)

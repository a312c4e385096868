"""Reductions in two levels: where results are few and terms many, several blocks share a result.

A first grid reduces the terms chunk by chunk and leaves partial results in memory; the end of a
grid is where blocks meet. The next one folds the chunks of each place in a fixed order and goes on:
with reductions that need these results, chunk by chunk again, or with the stores. How many chunks
there are depends on sizes and target, and is an argument of these kernels. Where one is enough, all
is done in one grid, and the others are not launched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, floor_div, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Load, Reduce
from graphc.ir.loop import Grid, Kernel, Series, Store, alone
from graphc.ir.statements import expressions
from graphc.ir.target import Target
from graphc.passes.schedule.contraction_match import Match
from graphc.passes.schedule.cuda import products, sums
from graphc.passes.schedule.cuda.grid import PART
from graphc.passes.schedule.cuda.sums import COLUMNS, WHOLE_BLOCK, Team
from graphc.passes.schedule.nest import Nest
from graphc.passes.schedule.plan import Plan, plan_of
from graphc.passes.schedule.series import CHUNK, CHUNKS, written

AT_ONCE = 2
"""Blocks that chunks are to give each multiprocessor: while one waits for memory, another computes.
"""
ROW, COLUMN, DEPTH = 4096, 128, 256
"""Terms that are worth a chunk: along rows, down columns, and of products."""

Stage = tuple[Kernel, tuple[Nest, ...]]
"""A kernel, and what it stores as if there were one chunk."""


def of_sums(kernel: Kernel, items: tuple[Nest, ...], target: Target) -> Series:
    """Return the grids of a kernel with reductions."""
    whole, plan = sums.schedule(kernel, items, target), plan_of(items, target)
    team, least = (WHOLE_BLOCK, ROW) if plan.vector is None else (COLUMNS, COLUMN)
    blocks = ceil_div(product(axis.extent for axis in plan.kept), team.count)
    count = chunk_count(blocks, sums.terms_of(plan), least, target)
    return _series(kernel, whole, count, _stages(_sized(kernel), plan, team, target))


def of_product(
    kernel: Kernel, items: tuple[Nest, ...], matched: Match, target: Target
) -> Series:
    """Return the grids of a contraction."""
    whole = products.schedule(kernel, items, matched, target)
    terms = product(axis.extent for axis in matched.depth)
    blocks = products.small_blocks(matched, target)
    count = chunk_count(blocks, terms, DEPTH, target)
    return _series(kernel, whole, count, _of_depth(_sized(kernel), items, matched, target))


def chunk_count(blocks: Dim, terms: Dim, least: int, target: Target) -> Dim:
    """Return how many chunks a reduction has, if there are ``blocks`` with one chunk.

    Parameters
    ----------
    blocks, terms : Dim
    least : int
        Terms of a chunk.
    target : Target
    """
    room = floor_div(AT_ONCE * target.cores, dim_max(blocks, 1))
    return dim_max(dim_min(room, terms // least), 1)


def _sized(kernel: Kernel) -> Kernel:
    return replace(kernel, sizes=(*kernel.sizes, CHUNKS))


def _series(kernel: Kernel, whole: Kernel, count: Dim, stages: Iterable[Stage]) -> Series:
    """Return the grid for one chunk, and those for several."""
    if count == 1:
        return alone(whole, kernel)
    grids = [Grid(replace(whole, extent=whole.extent * dim_max(2 - count, 0)), kernel)]
    *parts, last = stages
    names = [f"parts{number}" if len(parts) > 1 else "parts" for number in range(len(parts))]
    for name, (found, items) in zip((*names, "fold"), (*parts, last), strict=True):
        own = replace(found, name=name, extent=found.extent * _several())
        scratch = (b for item in items for b in _buffers(item.store) if b not in kernel.params)
        params = (*kernel.params, *dict.fromkeys(scratch))
        grids.append(Grid(own, replace(found, params=params, body=written(items))))
    return Series(tuple(grids), ((CHUNKS, count),))


def _several() -> Dim:
    """Return 1 where there are several chunks, else 0."""
    return dim_min(symbol(CHUNKS) - 1, 1)


def _buffers(store: Store) -> Iterator[Buffer]:
    yield store.buffer
    for root in expressions(store):
        yield from (e.buffer for e in E.walk(root) if isinstance(e, Load))


# -- stages ----------------------------------------------------------------------------------


def _of_depth(
    kernel: Kernel, items: tuple[Nest, ...], matched: Match, target: Target
) -> Iterator[Stage]:
    """Yield a contraction of chunks of the depth, and what folds them."""
    axes = items[0].axes
    store, fold = _kept(matched.reduce, "partial0", axes, columns=True)
    nests = (Nest(axes, store),)
    yield products.in_chunks(kernel, nests, matched, target, symbol(CHUNKS)), nests
    rest = _with(items, {matched.reduce: fold})
    yield sums.folding(kernel, rest, target), rest


def _stages(kernel: Kernel, plan: Plan, team: Team, target: Target) -> Iterator[Stage]:
    """Yield the reductions of chunks, those that read others' results behind these, and the rest.

    Each stage folds the chunks of results that it needs.
    """
    chunk, folds = Axis(CHUNK, symbol(CHUNKS)), dict[Expr, Expr]()

    def stage(items: tuple[Nest, ...], own: tuple[Reduce, ...] = ()) -> Kernel:
        needed = tuple(f for f in folds.values() if isinstance(f, Reduce) and _has(items, f))
        along = tuple(
            Nest((chunk, *n.axes), n.store) if own or _is_along_rows(n, plan) else n for n in items
        )
        groups = tuple(group for group in (needed, own) if group)
        new = replace(plan, items=along, kept=(chunk, *plan.kept), groups=groups)
        places = product(axis.extent for axis in new.kept)
        return sums.by_teams(kernel, new, team, places)

    for group in plan.groups:
        own = tuple(_over_folds(reduce, folds) for reduce in group)
        pairs = [
            _kept(reduce, f"partial{len(folds) + k}", plan.kept, not team.side_by_side)
            for k, reduce in enumerate(own)
        ]
        items = tuple(Nest(plan.kept, store) for store, _ in pairs)
        yield stage(items, own), items
        folds |= dict(zip(group, (fold for _, fold in pairs), strict=True))
    rest = _with(plan.items, folds)
    if any(_is_along_rows(item, plan) for item in rest):
        yield stage(rest), rest
    else:
        yield sums.folding(kernel, rest, target), rest


def _is_along_rows(item: Nest, plan: Plan) -> bool:
    return any(axis not in plan.kept for axis in item.axes)


def _over_folds(reduce: Reduce, folds: Mapping[Expr, Expr]) -> Reduce:
    """Return a reduction with folds in place of those that it reads."""
    found = E.rebuild(reduce, lambda e: None, dict(folds))
    assert isinstance(found, Reduce)
    return found


def _kept(
    reduce: Reduce, name: str, axes: Sequence[Axis], columns: bool
) -> tuple[Store, Expr]:
    """Return the store of a chunk's result of a reduction, and what folds those of a place.

    Neighbours in memory are neighbouring places where these are ``columns``, else chunks.
    """
    places, chunks = product(axis.extent for axis in axes), symbol(CHUNKS)
    strides = E.row_major(tuple(axis.extent for axis in axes))
    place = sum((symbol(a.name) * s for a, s in zip(axes, strides, strict=True)), start=0)
    several = chunks * _several()  # one chunk takes no memory
    shape, (by_place, by_chunk) = (
        ((several, places), (1, places)) if columns else ((places, several), (chunks, 1))
    )
    buffer = Buffer(name, reduce.dtype, shape)

    def at(chunk: str) -> Expr:
        return E.index(place * by_place + symbol(chunk) * by_chunk)

    fold = E.reduce(reduce.combine, (Axis(PART, chunks),), E.load(buffer, at(PART)))
    return Store(buffer, at(CHUNK), reduce), fold


def _with(items: Sequence[Nest], folds: Mapping[Expr, Expr]) -> tuple[Nest, ...]:
    """Return stores with folds in place of reductions."""
    memo = dict(folds)
    return tuple(
        Nest(n.axes, replace(n.store, value=E.rebuild(n.store.value, lambda e: None, memo)))
        for n in items
    )


def _has(items: Sequence[Nest], fold: Expr) -> bool:
    return any(e is fold for n in items for e in E.walk(n.store.value))

"""Kernels without reductions: every thread computes a few elements, neighbours side by side.

A block covers `THREADS` vectors of 128 bits in a turn. Where a row is no whole number of vectors,
and at the end of an array, elements are computed one at a time, so that neighbouring threads still
read and write neighbouring elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, product, symbol
from graphc.ir.expr import Axis, Load
from graphc.ir.loop import For, If, Kernel, Let, Store
from graphc.ir.target import Target
from graphc.passes.schedule.cuda.grid import (
    BLOCK,
    THREAD,
    THREADS,
    Whole,
    adjacent,
    below,
    capped,
    in_blocks,
    in_turns,
    most_blocks,
    placed,
    whole,
)
from graphc.passes.schedule.loops import Body, values_first
from graphc.passes.schedule.nest import Nest, expressions, moved, stride
from graphc.passes.schedule.vectorize import vector_store

AT, FIRST, STEP = "at", "first", "step"
"""Names of a place, of the first one that a thread takes in a turn, and of the loop from there."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Stores over the same axes; ``width`` elements make a vector."""

    axes: tuple[Axis, ...]
    stores: tuple[Store, ...]
    width: int

    @property
    def count(self) -> Dim:
        """Elements of each store."""
        return product(axis.extent for axis in self.axes)

    @property
    def blocks(self) -> Dim:
        """Blocks that cover all elements."""
        return ceil_div(self.count, THREADS * self.width)


def schedule(kernel: Kernel, items: Sequence[Nest], target: Target) -> Kernel:
    """Return a kernel without reductions in blocks of threads."""
    parts = list(_parts(items, target))
    blocks: Dim = parts[0].blocks
    for part in parts[1:]:
        blocks = dim_max(blocks, part.blocks)
    most = most_blocks(target, [item.store for item in items])
    body = tuple(s for part in parts for s in _stores(part, most))
    return in_blocks(kernel, capped(blocks, most), body)


def _parts(items: Sequence[Nest], target: Target) -> Iterator[_Part]:
    """Put stores that run over the same axes together."""
    found: dict[tuple[Axis, ...], list[Store]] = {}
    for item in items:
        found.setdefault(item.axes, []).append(item.store)
    for axes, stores in found.items():
        yield _Part(axes, tuple(stores), _width(axes, stores, target))


def _width(axes: Sequence[Axis], stores: Sequence[Store], target: Target) -> int:
    """Return how many neighbours on the last axis make a vector; 1 where they are not adjacent."""
    if not axes or isinstance(axes[-1].extent, int):
        return 1
    name, widest = axes[-1].name, 1
    for store in stores:
        roots = expressions(store)
        side_by_side = stride(store, name) == 1 and store.mask is None
        if not side_by_side or not all(adjacent(root, name) for root in roots):
            return 1
        loads = (e for root in roots for e in E.walk(root) if isinstance(e, Load))
        buffers = (store.buffer, *(load.buffer for load in loads))
        widest = max(widest, *(buffer.dtype.item_bytes for buffer in buffers))
    return target.vector_bytes // max(widest, 4)


def _stores(part: _Part, most: int | None) -> Body:
    """Return what a thread does for one part."""
    if not part.axes:
        place = symbol(BLOCK) * THREADS + symbol(THREAD)
        return below(place, 1, values_first(part.stores))
    if part.width == 1:
        return _one_by_one(part, most)
    if len(part.axes) == 1:
        return _flat(part, most)
    rows = whole(part.axes[-1].extent, part.width)
    return _one_by_one(part, most) if rows is None else (_by_rows(part, rows, most),)


def _flat(part: _Part, most: int | None) -> Body:
    """Return the vectors of one axis, and the elements behind the last vector."""
    (axis,) = part.axes
    vectors = part.count // part.width
    found = in_turns(AT, vectors, most, _vectors(part, {axis.name: symbol(AT) * part.width}))
    if vectors * part.width == part.count:
        return found
    place = vectors * part.width + symbol(BLOCK) * THREADS + symbol(THREAD)
    rest = (*placed(part.axes, place), *values_first(part.stores))
    return (*found, *below(place, part.count, rest))


def _by_rows(part: _Part, rows: Whole, most: int | None) -> If:
    """Return whole vectors of each row, if rows are made of whole vectors."""
    *outer, last = part.axes
    axes = (*outer, Axis("task", rows.vectors))
    place = rows.sizes | {last.name: symbol("task") * part.width}
    inside = (*placed(axes, symbol(AT)), *_vectors(part, place))
    vectors = in_turns(AT, product(a.extent for a in axes), most, inside)
    return rows.either(vectors, _one_by_one(part, most))


def _vectors(part: _Part, place: dict[str, Dim]) -> Body:
    name = part.axes[-1].name
    stores = [vector_store(store, name, part.width, None, {}) for store in part.stores]
    memo: dict[E.Expr, E.Expr] = {}
    return values_first([moved(store, place, memo) for store in stores])


def _one_by_one(part: _Part, most: int | None) -> Body:
    """Return as many elements as a vector has, a block of threads apart."""
    inside = (*placed(part.axes, symbol(AT)), *values_first(part.stores))
    if part.width == 1:
        return in_turns(AT, part.count, most, inside)
    place = symbol(FIRST) + symbol(STEP) * THREADS
    body = (Let(AT, E.index(place)), *below(symbol(AT), part.count, inside))
    steps = For(STEP, E.index(0), E.index(part.width), body)
    return in_turns(FIRST, part.count, most, (steps,), each=THREADS * part.width)

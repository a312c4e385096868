"""Kernels without reductions: every thread computes a few elements, neighbours side by side.

A block covers `THREADS` vectors of 128 bits. Where a row is no whole number of vectors, and at the
end of an array, the same elements are computed one at a time, so that neighbouring threads still
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
    in_blocks,
    placed,
    whole,
)
from graphc.passes.schedule.loops import Body, values_first
from graphc.passes.schedule.nest import Nest, expressions, moved, stride
from graphc.passes.schedule.vectorize import vector_store

STEP = "step"
"""Name of a loop over elements."""


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
    return in_blocks(kernel, blocks, tuple(s for part in parts for s in _stores(part)))


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


def _stores(part: _Part) -> Body:
    """Return what a thread does for one part."""
    if not part.axes:
        place = symbol(BLOCK) * THREADS + symbol(THREAD)
        return below(place, 1, values_first(part.stores))
    if part.width == 1:
        return _one_by_one(part)
    chunk = THREADS * part.width
    if len(part.axes) == 1:
        full = E.index((symbol(BLOCK) + 1) * chunk) <= E.index(part.count)
        place = symbol(BLOCK) * chunk + symbol(THREAD) * part.width
        return (If(full, _vectors(part, {part.axes[0].name: place}), _one_by_one(part)),)
    rows = whole(part.axes[-1].extent, part.width)
    return _one_by_one(part) if rows is None else (_by_rows(part, rows),)


def _by_rows(part: _Part, rows: Whole) -> If:
    """Return whole vectors of each row, if rows are made of whole vectors."""
    *outer, last = part.axes
    axes = (*outer, Axis("task", rows.vectors))
    task = symbol(BLOCK) * THREADS + symbol(THREAD)
    place = rows.sizes | {last.name: symbol("task") * part.width}
    inside = (*placed(axes, task), *_vectors(part, place))
    vectors = below(task, product(a.extent for a in axes), inside)
    return rows.either(vectors, _one_by_one(part))


def _vectors(part: _Part, place: dict[str, Dim]) -> Body:
    name = part.axes[-1].name
    stores = [vector_store(store, name, part.width, None, {}) for store in part.stores]
    memo: dict[E.Expr, E.Expr] = {}
    return values_first([moved(store, place, memo) for store in stores])


def _one_by_one(part: _Part) -> Body:
    """Return as many elements as a vector has, a block of threads apart."""
    first = symbol(BLOCK) * (THREADS * part.width) + symbol(STEP) * THREADS + symbol(THREAD)
    inside = (*placed(part.axes, symbol("at")), *values_first(part.stores))
    body = (Let("at", E.index(first)), *below(symbol("at"), part.count, inside))
    return (For(STEP, E.index(0), E.index(part.width), body),)

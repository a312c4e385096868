"""Reductions over small windows, written out as chains of their terms.

What such a reduction does not depend on would compute it again: a softmax over five classes the
sum of its row for each of them. So the loop over those classes is written out too, and a row's
stores share one chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.dim import product
from graphc.ir.expr import Axis, Expr, Reduce
from graphc.ir.operations import IDENTITY
from graphc.passes.fuse import WINDOW
from graphc.passes.schedule.nest import Nest, free_names, reductions, substituted


def write_out_windows(items: Sequence[Nest]) -> list[Nest]:
    """Replace each reduction over a small window by a chain of its terms."""
    memo: dict[Expr, Expr] = {}

    def visit(node: Expr) -> Expr | None:
        if not isinstance(node, Reduce):
            return None
        body = E.rebuild(node.body, visit, memo)
        return (_chain if _is_window(node) else E.reduce)(node.combine, node.axes, body)

    repeated = _repeated_axes(items)
    return [
        replace(n, store=replace(n.store, value=E.rebuild(n.store.value, visit, memo)))
        for item in items
        for n in _unrolled(item, [a for a in item.axes if a in repeated])
    ]


def _is_window(reduce: Reduce) -> bool:
    size = product(a.extent for a in reduce.axes)
    return isinstance(size, int) and size <= WINDOW


def _chain(combine: str, axes: Sequence[Axis], body: Expr) -> Expr:
    """Return a small reduction of ``body`` as a chain of its terms, first to last."""
    terms = list(_over(body, axes))
    if not terms:
        return E.const(IDENTITY[combine](body.dtype), body.dtype)
    total = terms[0]
    for term in terms[1:]:
        total = E.apply(combine, total, term)
    return total


def _over(expr: Expr, axes: Sequence[Axis]) -> Iterator[Expr]:
    """Yield an expression at each place of static axes, in row-major order."""
    if not axes:
        yield expr
        return
    outer, *inner = axes
    assert isinstance(outer.extent, int)
    for position in range(outer.extent):
        yield from _over(substituted(expr, {outer.name: position}, {}), inner)


# -- loops that would repeat a chain ---------------------------------------------------------


def _repeated_axes(items: Sequence[Nest]) -> set[Axis]:
    """Return small axes of the stores along which a window's chain is the same."""
    if not all(map(_is_window, reductions(items))):
        return set()
    found: set[Axis] = set()
    for item in items:
        for reduce in reductions([item]):
            names = free_names(reduce)
            found |= {a for a in item.axes if a.name not in names and isinstance(a.extent, int)}
    size = product(a.extent for a in found)
    return found if isinstance(size, int) and size <= WINDOW else set()


def _unrolled(item: Nest, axes: Sequence[Axis]) -> Iterator[Nest]:
    """Yield the nest at each place of ``axes``."""
    kept = tuple(a for a in item.axes if a not in axes)
    values, offsets = _over(item.store.value, axes), _over(item.store.offset, axes)
    for value, offset in zip(values, offsets, strict=True):
        yield Nest(kept, replace(item.store, value=value, offset=offset))

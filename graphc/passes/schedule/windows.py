"""Reductions over small windows, written out as chains of their terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.dim import product
from graphc.ir.expr import Expr, Reduce
from graphc.ir.operations import IDENTITY
from graphc.passes.fuse import WINDOW
from graphc.passes.schedule.nest import Nest, substituted


def write_out_windows(items: Sequence[Nest]) -> list[Nest]:
    """Replace each reduction over a small window by a chain of its terms."""
    memo: dict[Expr, Expr] = {}

    def visit(node: Expr) -> Expr | None:
        if not isinstance(node, Reduce):
            return None
        size = product(a.extent for a in node.axes)
        body = E.rebuild(node.body, visit, memo)
        if isinstance(size, int) and size <= WINDOW:
            return _written_out(node, body)
        return E.reduce(node.combine, node.axes, body)

    return [
        replace(n, store=replace(n.store, value=E.rebuild(n.store.value, visit, memo)))
        for n in items
    ]


def _written_out(reduce: Reduce, body: Expr) -> Expr:
    """Return a small reduction of ``body`` as a chain of its terms, first to last."""
    terms: list[Expr] = [body]
    for axis in reduce.axes:
        assert isinstance(axis.extent, int)
        terms = [
            substituted(term, {axis.name: position}, {})
            for term in terms
            for position in range(axis.extent)
        ]
    if not terms:
        return E.const(IDENTITY[reduce.combine](reduce.dtype), reduce.dtype)
    total = terms[0]
    for term in terms[1:]:
        total = E.apply(reduce.combine, total, term)
    return total

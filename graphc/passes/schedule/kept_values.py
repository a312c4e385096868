"""Costly values that a row's reduction computes and its result needs again: kept in the output.

A softmax sums exponentials and divides each of them by the sum. The loop that sums stores them
where the result will be, and the last loop reads them back from the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, symbol
from graphc.ir.expr import Apply, Axis, Expr, Load, Reduce
from graphc.ir.loop import Store
from graphc.passes.schedule.loops import operations
from graphc.passes.schedule.nest import free_names, substituted

COSTLY = 16
"""Operations from which on a value is read back rather than computed again."""


def keep(
    store: Store, inner: Sequence[Axis], group: Sequence[Reduce], terms: Sequence[Expr]
) -> tuple[Store, Store] | None:
    """Split a store of a row into one that a reduction's loop runs, and one that completes it.

    Parameters
    ----------
    store : Store
        Over ``inner``; it runs after every reduction.
    inner : sequence of Axis
    group : sequence of Reduce
        The reductions of the last loop before it, over as many elements.
    terms : sequence of Expr
        What they reduce, over the axes of the first.

    Returns
    -------
    tuple of Store or None
        The first over the axes of ``group``, the second over ``inner``; None where the store
        needs nothing costly that the loop computes, or reads other memory of the row, which the
        first might be written over.
    """
    axes = group[0].axes
    if [a.extent for a in axes] != [a.extent for a in inner]:
        return None
    back: dict[str, Dim] = {b.name: symbol(a.name) for a, b in zip(inner, axes, strict=True)}
    memo: dict[Expr, Expr] = {}
    computed = {substituted(e, back, memo): e for term in terms for e in E.walk(term)}
    shared = [
        e
        for e in E.walk(store.value)
        if isinstance(e, Apply)
        and e in computed
        and e.dtype is store.buffer.dtype
        and operations([e]) >= COSTLY
    ]
    if not shared or not isinstance(store.offset, E.Index):
        return None
    value = shared[-1]
    rest = E.rebuild(store.value, lambda e: None, {value: E.load(store.buffer, store.offset)})
    if _reads_row(rest, store, inner):
        return None
    forth: dict[str, Dim] = {a.name: symbol(b.name) for a, b in zip(inner, axes, strict=True)}
    offset = substituted(store.offset, forth, {})
    return replace(store, value=computed[value], offset=offset), replace(store, value=rest)


def _reads_row(value: Expr, store: Store, inner: Sequence[Axis]) -> bool:
    """Return whether anything but the kept value is read at each element of the row."""
    names = {a.name for a in inner}
    pending, seen = [value], set()
    while pending:
        expr = pending.pop()
        if isinstance(expr, Reduce) or id(expr) in seen:
            continue
        seen.add(id(expr))
        if isinstance(expr, Load) and expr.buffer != store.buffer and names & free_names(expr):
            return True
        pending.extend(E.children(expr))
    return False

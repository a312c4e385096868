"""Recognising contractions: sums of products whose operands own different output axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir import expr as E
from graphc.ir.expr import Apply, Axis, Expr, Index, Reduce
from graphc.passes.schedule.nest import Nest, contiguous, free_names, reductions, substituted
from graphc.passes.schedule.packing import has_masks


@dataclass(frozen=True, slots=True)
class Match:
    """A kernel as a matrix product: ``sum over depth of a * b``, then whatever the stores apply.

    Attributes
    ----------
    reduce : Reduce
        The sum of products inside the stores' values.
    a, b : Expr
        The factors. ``a`` varies along ``rows``, ``b`` along ``columns``.
    batch, rows, columns : tuple of Axis
        Output axes that both factors, only ``a``, and only ``b`` depend on. The stores' innermost
        axis is among the columns. Where ``a`` depends on none, ``rows`` is an axis of extent 1.
    depth : tuple of Axis
        Axes of the sum.
    """

    reduce: Reduce
    a: Expr
    b: Expr
    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]

    @property
    def depth(self) -> tuple[Axis, ...]:
        """Axes of the sum."""
        return self.reduce.axes


def match(items: tuple[Nest, ...]) -> Match | None:
    """Read a plain kernel as a contraction.

    Parameters
    ----------
    items : tuple of Nest
        Every store of the kernel.

    Returns
    -------
    Match or None
        None unless all stores run over the same axes, hold one sum of floating products between
        them, and each factor has an output axis of its own (or one reads patches with padding).
    """
    axes = items[0].axes
    found = reductions(items)
    if len(found) != 1 or any(item.axes != axes for item in items):
        return None
    product = found[0].body
    if not (isinstance(product, Apply) and product.op == "mul" and product.dtype.floating):
        return None
    if found[0].combine != "add" or not all(map(_is_plain, items)):
        return None
    return _classify(found[0], product, axes)


def _is_plain(item: Nest) -> bool:
    """Whether the store is unconditional and the sum has no part in where it goes."""
    in_offset = any(isinstance(e, Reduce) for e in E.walk(item.store.offset))
    return item.store.mask is None and not in_offset


def _classify(reduce: Reduce, product: Apply, axes: Sequence[Axis]) -> Match | None:
    a, b = product.args
    of_a, of_b = free_names(a), free_names(b)
    if not axes or (axes[-1].name in of_a) == (axes[-1].name in of_b):
        return None
    if axes[-1].name in of_a:
        a, b, of_a, of_b = b, a, of_b, of_a
    both = tuple(x for x in axes if x.name in of_a and x.name in of_b)
    rows = tuple(x for x in axes if x.name in of_a and x.name not in of_b)
    columns = tuple(x for x in axes if x.name in of_b and x.name not in of_a)
    if len(both) + len(rows) + len(columns) < len(axes):
        return None
    if not rows:
        # One channel of a padded convolution: a row of its own, since reading patches is costly.
        if both or not has_masks(b):
            return None
        rows = (Axis("only_row", 1),)
    return Match(reduce, a, b, both, rows, columns)


def merged(axes: Sequence[Axis], exprs: Sequence[Expr]) -> tuple[tuple[Axis, ...], list[Expr]]:
    """Merge neighbouring axes that all of ``exprs`` walk as one; row-major order stays."""
    kept, current = list(axes), list(exprs)
    position = 0
    while position + 1 < len(kept):
        outer, inner = kept[position], kept[position + 1]
        seen: set[int] = set()
        indices = [e for x in current for e in E.walk(x, seen) if isinstance(e, Index)]
        if contiguous(indices, outer, inner):
            memo: dict[Expr, Expr] = {}
            current = [substituted(x, {outer.name: 0}, memo) for x in current]
            kept[position : position + 2] = [Axis(inner.name, outer.extent * inner.extent)]
            position = max(position - 1, 0)
        else:
            position += 1
    return tuple(kept), current

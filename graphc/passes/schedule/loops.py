"""Loops that several schedules write: nests over axes, vectors with a rest, the parallel axis."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, symbol
from graphc.ir.expr import Apply, Axis, Const, Expr, Index, Reduce
from graphc.ir.loop import BEGIN, END, For, Let, Stmt, Store
from graphc.ir.operations import OPERATIONS
from graphc.passes.schedule.nest import Nest, free_names, reductions

Body = tuple[Stmt, ...]
LINE_BYTES = 64
"""Bytes that memory and caches move at once."""
HEAVY = 48
"""Bodies of more operations than this get one masked loop instead of a main loop and a tail."""


def operations(exprs: Iterable[Expr], known: Iterable[int] = ()) -> int:
    """Return how many operations expressions apply, mathematical ones counted as many.

    Those with an id in ``known`` are computed already.
    """
    seen = set(known)
    return sum(
        (1 if OPERATIONS[e.op].machine else 16)
        for expr in exprs
        for e in E.walk(expr, seen)
        if isinstance(e, Apply)
    )


def values_first(stores: Sequence[Store]) -> Body:
    """Return stores of one place that compute all values before the first is stored.

    So an output may take the memory of an operand that another one reads as well.
    """
    if len(stores) == 1:
        return tuple(stores)
    lets = [Let(f"v{position}", store.value) for position, store in enumerate(stores)]
    writes = [
        replace(store, value=E.use(let.name, let.value))
        for store, let in zip(stores, lets, strict=True)
    ]
    return (*lets, *writes)


def hoisted(items: tuple[Nest, ...]) -> tuple[Body, tuple[Nest, ...]]:
    """Name what is the same for all elements, to compute it once, ahead of all loops.

    An optimizer's step size, with its powers, is one such value: it costs as much as many
    elements, and the compiler cannot see that no store changes what it is made of.

    Returns
    -------
    tuple of Stmt, tuple of Nest
        The statements to put first, and the nests that use their values.
    """
    moving = {axis.name for item in items for axis in item.axes}
    if not moving:
        return (), items
    moving |= {axis.name for reduce in reductions(items) for axis in reduce.axes}
    lets, stores = settled([item.store for item in items], moving, "same")
    return lets, tuple(Nest(item.axes, store) for item, store in zip(items, stores, strict=True))


def settled(
    stores: Sequence[Store], moving: Collection[str], prefix: str
) -> tuple[Body, list[Store]]:
    """Name what the stores compute from nothing that is moving.

    Parameters
    ----------
    stores : sequence of Store
    moving : collection of str
        The names that change in the loops around the stores.
    prefix : str
        Of the names that are given.

    Returns
    -------
    tuple of Stmt, list of Store
        The statements to put ahead of these loops, and the stores that use their values.
    """
    lets: list[Let] = []

    def visit(node: Expr) -> Expr | None:
        if isinstance(node, (Const, Index)) or not free_names(node).isdisjoint(moving):
            return None
        if any(isinstance(e, Reduce) for e in E.walk(node)):
            return None
        lets.append(Let(f"{prefix}{len(lets)}", node))
        return E.use(lets[-1].name, node)

    memo: dict[Expr, Expr] = {}
    kept = [replace(store, value=E.rebuild(store.value, visit, memo)) for store in stores]
    return tuple(lets), kept


def over_axes(axes: Sequence[Axis], body: Body) -> Body:
    """Return a body inside loops over axes, the first one outermost."""
    for axis in reversed(axes):
        body = (For(axis.name, E.index(0), E.index(axis.extent), body),)
    return body


def vector_loop(
    name: str,
    start: Dim,
    stop: Dim,
    lanes: int,
    emit: Callable[[int, Expr | None], Body],
    rest_lanes: int | None = None,
    cost: int = 0,
) -> Body:
    """Return a loop over vectors, and masked vectors for the rest.

    Parameters
    ----------
    name : str
        The loop variable.
    start, stop : Dim
    lanes : int
        Elements of a step.
    emit : callable
        ``emit(lanes, mask)`` writes one step; the mask is None where all lanes exist.
    rest_lanes : int, optional
        Elements of a masked step; as many as of the others if not given.
    cost : int
        Operations of a step: of `HEAVY` ones all are masked, which is half the code.
    """
    one = rest_lanes or lanes
    rest = E.iota(one) < E.index(stop - symbol(name))
    if cost > HEAVY:
        return (For(name, E.index(start), E.index(stop), emit(one, rest), step=one),)
    whole = start + (stop - start) // lanes * lanes
    main = For(name, E.index(start), E.index(whole), emit(lanes, None), step=lanes)
    if whole == stop:
        return (main,)
    return (main, For(name, E.index(whole), E.index(stop), emit(one, rest), step=one))


def flat_loop(axes: Sequence[Axis], body: Body) -> For:
    """Return the loop over iterations ``begin`` to ``end`` of all axes together.

    The innermost axis is a loop of its own, so that indices are divided only once in its extent.
    """
    *outer, last = axes
    begin, end = symbol(BEGIN), symbol(END)
    if not outer:
        return For(last.name, E.index(begin), E.index(end), body)
    decoded, variable = _decode(outer)
    before = symbol(variable) * last.extent
    start, stop = dim_max(begin - before, 0), dim_min(last.extent, end - before)
    inner = For(last.name, E.index(start), E.index(stop), body)
    first, behind = begin // last.extent, ceil_div(end, last.extent)
    return For(variable, E.index(first), E.index(behind), (*decoded, inner))


def _decode(axes: Sequence[Axis]) -> tuple[list[Stmt], str]:
    """Return statements that give each axis its index in the flat parallel one."""
    if len(axes) == 1:
        return [], axes[0].name
    lets: list[Stmt] = []
    rest: Dim = symbol("p")
    for axis in reversed(axes[1:]):
        lets.append(Let(axis.name, E.index(rest % axis.extent)))
        rest = rest // axis.extent
    lets.append(Let(axes[0].name, E.index(rest)))
    return lets, "p"

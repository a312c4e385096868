"""Schedules for the CPU: what runs in parallel, what is a vector, where reductions accumulate.

Every kernel's outer axes become one parallel axis. The vector axis is either the innermost output
axis (each lane one output element: pointwise kernels, column reductions, windows) or the innermost
reduction axis (lanes are partial results, folded by a fixed tree: row reductions). Which one
depends on which the memory accesses follow, so on the graph only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Reduce
from graphc.ir.loop import (
    BEGIN,
    END,
    Alloc,
    Assign,
    Bind,
    Declare,
    For,
    Kernel,
    Let,
    Stmt,
    Store,
)
from graphc.ir.operations import IDENTITY
from graphc.ir.target import Target
from graphc.passes.schedule import columns, planes, streaming, sums_of_products, transposed
from graphc.passes.schedule.cost import cost
from graphc.passes.schedule.loops import (
    HEAVY,
    Body,
    flat_loop,
    hoisted,
    operations,
    over_axes,
    vector_loop,
)
from graphc.passes.schedule.nest import (
    Nest,
    collapse,
    collapse_reductions,
    moved,
    nests,
    substituted,
)
from graphc.passes.schedule.plan import (
    Plan,
    accumulate,
    body_over,
    element_cost,
    plan_of,
    work,
)
from graphc.passes.schedule.rows import by_reduction, shared_stores, stored_along, with_inner_axes
from graphc.passes.schedule.vectorize import vector_store, vectorize
from graphc.passes.schedule.windows import write_out_windows


def schedule(kernel: Kernel, target: Target) -> Kernel:
    """Bind a plain kernel's loops to threads and vectors.

    Parameters
    ----------
    kernel : Kernel
        As `graphc.passes.lower.lower` returns it.
    target : Target

    Returns
    -------
    Kernel
        Runs iterations ``begin`` to ``end`` of its parallel axis.
    """
    if kernel.ordered:
        return _as_written(kernel)
    present = [n for n in nests(kernel) if all(a.extent != 0 for a in n.axes)]
    if not present:
        return replace(kernel, body=(), extent=0)
    items = collapse(collapse_reductions(write_out_windows(present)))
    ahead, items = hoisted(items)
    found = _bound(kernel, present, items, target)
    return replace(found, body=(*ahead, *found.body))


def _bound(
    kernel: Kernel, present: Sequence[Nest], items: tuple[Nest, ...], target: Target
) -> Kernel:
    """Choose the schedule that fits what is stored; ``items`` are ``present``, collapsed."""
    found = sums_of_products.schedule(kernel, present, items, target)
    if found is not None:
        return found
    apart = planes.find(items)
    if apart is not None:
        return planes.schedule(kernel, apart, target.vector_bytes // 4)
    plan = plan_of(items, target)
    if plan.vector is not None and not plan.groups:
        across = transposed.find_axis(items, plan.vector, plan.one)
        if across is not None:
            emit = partial(_lanes, plan)
            return transposed.schedule(kernel, items, across, plan.vector, target, emit)
    holds = streaming.condition(kernel, _streamable(plan), plan.one, target)
    if plan.vector is None:
        return _in_parallel(kernel, plan, *by_reduction(plan, holds))
    first = () if holds is None else (streaming.decided(holds),)
    return _in_parallel(kernel, plan, first, _by_outputs(plan, holds is not None))


def _streamable(plan: Plan) -> list[tuple[Nest, str]]:
    """Return the results that are stored vector by vector, and the axes that vectors run along."""
    if plan.vector is not None:
        whole = [item for item in plan.items if plan.vector in item.axes and not plan.groups]
        return [(item, plan.vector.name) for item in whole]
    return [(n, n.axes[-1].name) for n in plan.items if n.axes and n.axes[-1] not in plan.kept]


def _as_written(kernel: Kernel) -> Kernel:
    """Give an explicit nest its parallel axis, if its outermost loop is marked as one."""
    if len(kernel.body) == 1:
        loop = kernel.body[0]
        if isinstance(loop, For) and loop.bind is Bind.PARALLEL:
            assert isinstance(loop.stop, E.Index)
            bounded = replace(
                loop, start=E.index(symbol(BEGIN)), stop=E.index(symbol(END)), bind=Bind.SERIAL
            )
            steps = loop.stop.dim
            work = 1000 + cost(kernel).flops // (FLOPS_PER_NS * dim_max(steps, 1))
            return replace(kernel, body=(bounded,), extent=steps, work=work)
    return kernel


FLOPS_PER_NS = 32
"""Rate by which the time of explicit loops is estimated."""


# -- lanes are output elements ---------------------------------------------------------------


def _by_outputs(plan: Plan, streams: bool) -> tuple[Stmt, ...]:
    """Return the loop over the vector axis; each lane computes one output element."""
    vector = plan.vector
    assert vector is not None
    block = symbol("block")
    if columns.fit(plan.groups):
        left, width = symbol("left"), symbol("width")
        lets = (
            Let("width", E.index(plan.block)),
            Let("left", E.index(block * width)),
            Let("right", E.index(dim_min(vector.extent, left + width))),
        )
        return (*lets, *_by_columns(plan, vector.name, left, symbol("right")))
    start = block * plan.block
    stop = dim_min(vector.extent, start + plan.block)
    emit = partial(_lanes, plan, streams=streams)
    return vector_loop(vector.name, start, stop, plan.lanes, emit, plan.one, element_cost(plan))


def _lanes(
    plan: Plan, lanes: int, mask: Expr | None, streams: bool = False
) -> tuple[Stmt, ...]:
    assert plan.vector is not None
    name = plan.vector.name
    known: dict[Expr, Expr] = {}
    statements: list[Stmt] = []
    for group in plan.groups:
        axes = group[0].axes
        steps: list[Stmt] = []
        for reduce in group:
            register = f"{'acc' if mask is None else 'rest'}{len(known)}"
            start = E.splat(E.const(IDENTITY[reduce.combine](reduce.dtype), reduce.dtype), (lanes,))
            statements.append(Declare(register, start))
            holder = E.use(register, start)
            term = body_over(reduce, axes)
            steps.append(
                Assign(
                    register,
                    accumulate(
                        reduce.combine, holder, term,
                        lambda e: vectorize(e, name, lanes, mask, known, aligned=True),
                    ),
                )
            )  # fmt: skip
            known[reduce] = holder
        statements.extend(over_axes(axes, tuple(steps)))
    statements.extend(_lane_stores(plan, lanes, mask, known, streams))
    return tuple(statements)


def _by_columns(plan: Plan, name: str, start: Dim, stop: Dim) -> tuple[Stmt, ...]:
    """Return the loops over a block of columns, whose reductions wait in scratch."""
    known: dict[Expr, Expr] = {}
    sums: list[Buffer] = []
    body: list[Stmt] = []
    waiting = with_inner_axes(plan)
    for group in plan.groups:
        along, waiting = stored_along(group, waiting, known)
        buffers = [columns.scratch(r, len(sums) + k) for k, r in enumerate(group)]
        sums.extend(buffers)
        heavy = operations([*(r.body for r in group), *(s.value for s in along)]) > HEAVY
        step = partial(_column_step, group, along, (name, plan.one), known)
        body.extend(
            columns.combined_rows(group, buffers, (name, start, stop), plan.one, step, heavy)
        )
        place = E.index(symbol(name) - start)
        for reduce, buffer in zip(group, buffers, strict=True):
            known[reduce] = E.load(buffer, place, (plan.one,), (1,))
    left = replace(plan, items=tuple(item for item, _ in waiting))

    def emit(lanes: int, mask: Expr | None) -> Body:
        return tuple(_lane_stores(left, lanes, mask, dict(known)))

    if waiting:
        body.extend(vector_loop(name, start, stop, plan.one, emit, cost=element_cost(left)))
    return (*map(Alloc, sums), *body)


def _column_step(
    group: Sequence[Reduce],
    along: Sequence[Store],
    vector: tuple[str, int],
    known: Mapping[Expr, Expr],
    totals: Sequence[Expr],
    row: tuple[str, int],
    mask: Expr | None,
) -> tuple[Body, list[Expr]]:
    """Return the stores of one row, as far as a group's loop makes them, and the next totals.

    ``row`` is the loop variable of the rows, and how many rows behind it this one lies.
    """
    (name, lanes), (variable, ahead) = vector, row
    place: dict[str, Dim] = {variable: symbol(variable) + ahead}
    local, memo = dict(known), dict[Expr, Expr]()
    own = [moved(store, place, memo) for store in along]
    lets, stores = shared_stores(own, name, lanes, mask, local, f"row{ahead}_")

    def convert(e: Expr) -> Expr:
        return vectorize(e, name, lanes, mask, local, aligned=True)

    terms = [substituted(body_over(reduce, group[0].axes), place, memo) for reduce in group]
    found = [
        accumulate(reduce.combine, total, term, convert)
        for reduce, total, term in zip(group, totals, terms, strict=True)
    ]
    return (*lets, *stores), found


def _lane_stores(
    plan: Plan, lanes: int, mask: Expr | None, known: dict[Expr, Expr], streams: bool = False
) -> list[Stmt]:
    """Return the stores of one vector; all values are computed before the first is stored."""
    assert plan.vector is not None
    name = plan.vector.name
    values: list[Stmt] = []
    stores: list[Stmt] = []
    whole: list[Store] = []
    for item in plan.items:
        store = vector_store(item.store, name, lanes, mask, known, aligned=True)
        inner = tuple(a for a in item.axes if a not in plan.kept)
        if not inner and (streams or len(plan.items) > 1):
            register = f"v{len(values)}"
            values.append(Let(register, store.value))
            known[item.store.value] = E.use(register, store.value)
            store = replace(store, value=known[item.store.value])
        if streams and mask is None and plan.vector in item.axes:
            whole.append(store)
        else:
            stores.extend(over_axes(inner, (store,)))
    return [*values, *stores, *([streaming.streamed(whole)] if whole else [])]


# -- the parallel axis ---------------------------------------------------------------------


def _in_parallel(kernel: Kernel, plan: Plan, first: Body, body: Body) -> Kernel:
    """Put the outer axes (and the blocks of the vector axis) on one parallel axis."""
    axes = list(plan.outer)
    vector = plan.vector
    if vector is not None:
        # Short rows of one block follow each other in the inner loop; so do a column's vectors.
        place = len(axes) if plan.groups else max(len(axes) - 1, 0)
        axes.insert(place, Axis("block", ceil_div(vector.extent, plan.block)))
    extent = product(a.extent for a in axes)
    loops = (flat_loop(axes, body),) if axes else body
    loops = (*first, *loops)
    return replace(kernel, body=loops, extent=extent if axes else 1, work=work(plan))

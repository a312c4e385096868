"""Schedules for the CPU: what runs in parallel, what is a vector, where reductions accumulate.

Every kernel's outer axes become one parallel axis. The vector axis is either the innermost output
axis (each lane one output element: pointwise kernels, column reductions, windows) or the innermost
reduction axis (lanes are partial results, folded by a fixed tree: row reductions). Which one
depends on which the memory accesses follow, so on the graph only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, product, symbol
from graphc.ir.expr import Apply, Axis, Buffer, Expr, Load, Reduce
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
from graphc.passes.schedule import columns, kept_values, planes, sums_of_products, transposed
from graphc.passes.schedule.cost import cost
from graphc.passes.schedule.lane_groups import runs_along
from graphc.passes.schedule.loops import (
    Body,
    flat_loop,
    hoisted,
    operations,
    over_axes,
    values_first,
    vector_loop,
)
from graphc.passes.schedule.nest import (
    Nest,
    collapse,
    collapse_reductions,
    free_names,
    nests,
    reductions,
    substituted,
)
from graphc.passes.schedule.vectorize import vector_store, vectorize
from graphc.passes.schedule.windows import write_out_windows

BLOCK = 2048
"""Elements of the vector axis that one iteration of the parallel axis covers."""
LIGHT = 16
"""Reductions of terms of at most this many operations keep four vectors of partial results."""


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
    plan = _plan(items, target)
    if plan.vector is not None and not plan.groups:
        across = transposed.find_axis(items, plan.vector, plan.one)
        if across is not None:
            emit = partial(_lanes, plan)
            return transposed.schedule(kernel, items, across, plan.vector, target, emit)
    body = _by_outputs(plan) if plan.vector is not None else _by_reduction(plan)
    return _in_parallel(kernel, plan, body)


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


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the schedule decided: kept axes, the vector axis among them (or None), the lanes.

    A step of the vector loop has ``lanes``; what is left at its end is done ``one`` vector at once.
    """

    items: tuple[Nest, ...]
    kept: tuple[Axis, ...]
    vector: Axis | None
    lanes: int
    one: int
    groups: tuple[tuple[Reduce, ...], ...]
    cores: int

    @property
    def outer(self) -> tuple[Axis, ...]:
        """Kept axes that run in parallel as they are."""
        return tuple(a for a in self.kept if a != self.vector)

    @property
    def block(self) -> Dim:
        """Elements of the vector axis in one iteration of the parallel axis."""
        if not self.groups:
            return BLOCK
        if self.vector is None or not columns.fit(self.groups):
            return self.lanes
        return columns.width(self.vector, self.outer, self.cores)


def _plan(items: tuple[Nest, ...], target: Target) -> _Plan:
    axes = {a.name: a for n in items for a in n.axes}
    ordered = sorted(axes.values(), key=lambda a: int(a.name[1:]))
    found = reductions(items)
    names = frozenset().union(*(free_names(r) for r in found)) if found else frozenset(axes)
    kept = tuple(a for a in ordered if a.name in names)
    lanes = one = target.vector_bytes // 4
    vector = kept[-1] if kept and not _follow_reduction(found, kept[-1], lanes) else None
    if found and max(operations([r.body]) for r in found) <= LIGHT:
        lanes *= 4
    return _Plan(items, kept, vector, lanes, one, _group(found), target.cores)


def _follow_reduction(found: Sequence[Reduce], last: Axis, lanes: int) -> bool:
    """Return whether the reads run along the reduction axes rather than the output's last."""
    along_reduction = along_output = 0
    for reduce in found:
        for node in E.walk(reduce.body):
            if isinstance(node, Load):
                along_reduction += runs_along(node, reduce.axes[-1].name, lanes)
                along_output += runs_along(node, last.name, lanes)
    return along_reduction > along_output


def _group(found: Sequence[Reduce]) -> tuple[tuple[Reduce, ...], ...]:
    """Put reductions over equal extents that do not read each other into one loop."""
    groups: list[list[Reduce]] = []
    for reduce in found:
        extents = [a.extent for a in reduce.axes]
        inside = {id(e) for e in E.walk(reduce.body)}
        last = groups[-1] if groups else []
        if (
            last
            and [a.extent for a in last[0].axes] == extents
            and not any(id(r) in inside for r in last)
        ):
            last.append(reduce)
        else:
            groups.append([reduce])
    return tuple(map(tuple, groups))


def _body_over(reduce: Reduce, axes: Sequence[Axis]) -> Expr:
    """Return the body of a reduction over the loop variables of another."""
    renamed: dict[str, Dim] = {
        a.name: symbol(b.name) for a, b in zip(reduce.axes, axes, strict=True) if a != b
    }
    return substituted(reduce.body, renamed, {}) if renamed else reduce.body


# -- lanes are output elements ---------------------------------------------------------------


def _by_outputs(plan: _Plan) -> tuple[Stmt, ...]:
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
    emit = partial(_lanes, plan)
    return vector_loop(vector.name, start, stop, plan.lanes, emit, plan.one, _cost(plan))


def _lanes(plan: _Plan, lanes: int, mask: Expr | None) -> tuple[Stmt, ...]:
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
            term = _body_over(reduce, axes)
            steps.append(
                Assign(
                    register,
                    _accumulate(
                        reduce.combine, holder, term,
                        lambda e: vectorize(e, name, lanes, mask, known, aligned=True),
                    ),
                )
            )  # fmt: skip
            known[reduce] = holder
        statements.extend(over_axes(axes, tuple(steps)))
    statements.extend(_lane_stores(plan, lanes, mask, known))
    return tuple(statements)


def _by_columns(plan: _Plan, name: str, start: Dim, stop: Dim) -> tuple[Stmt, ...]:
    """Return the loops over a block of columns, whose reductions wait in scratch."""
    known: dict[Expr, Expr] = {}
    sums: list[Buffer] = []
    body: list[Stmt] = []

    def combine(
        axes: Sequence[Axis],
        reduce: Reduce,
        holder: Expr,
        row: Mapping[str, Dim],
        mask: Expr | None,
    ) -> Expr:
        term = substituted(_body_over(reduce, axes), dict(row), {})
        return _accumulate(
            reduce.combine, holder, term,
            lambda e: vectorize(e, name, plan.one, mask, known, aligned=True),
        )  # fmt: skip

    for group in plan.groups:
        buffers = [columns.scratch(r, len(sums) + k) for k, r in enumerate(group)]
        sums.extend(buffers)
        over = partial(combine, group[0].axes)
        body.extend(columns.combined_rows(group, buffers, (name, start, stop), plan.one, over))
        place = E.index(symbol(name) - start)
        for reduce, buffer in zip(group, buffers, strict=True):
            known[reduce] = E.load(buffer, place, (plan.one,), (1,))

    def emit(lanes: int, mask: Expr | None) -> Body:
        return tuple(_lane_stores(plan, lanes, mask, dict(known)))

    stores = vector_loop(name, start, stop, plan.one, emit, cost=_cost(plan))
    return (*map(Alloc, sums), *body, *stores)


def _lane_stores(
    plan: _Plan, lanes: int, mask: Expr | None, known: dict[Expr, Expr]
) -> list[Stmt]:
    """Return the stores of one vector; all values are computed before the first is stored."""
    assert plan.vector is not None
    name = plan.vector.name
    values: list[Stmt] = []
    stores: list[Stmt] = []
    for item in plan.items:
        store = vector_store(item.store, name, lanes, mask, known, aligned=True)
        inner = tuple(a for a in item.axes if a not in plan.kept)
        if not inner and len(plan.items) > 1:
            register = f"v{len(values)}"
            values.append(Let(register, store.value))
            known[item.store.value] = E.use(register, store.value)
            store = replace(store, value=known[item.store.value])
        stores.extend(over_axes(inner, (store,)))
    return [*values, *stores]


def _accumulate(
    combine: str, holder: Expr, term: Expr, convert: Callable[[Expr], Expr]
) -> Expr:
    """Return the accumulator's next value; a sum of products is a fused multiply-add."""
    if (
        combine == "add"
        and isinstance(term, Apply)
        and term.op == "mul"
        and term.dtype.floating
    ):
        return E.apply("fma", convert(term.args[0]), convert(term.args[1]), holder)
    return E.apply(combine, holder, convert(term))


# -- lanes are partial results ---------------------------------------------------------------


def _by_reduction(plan: _Plan) -> tuple[Stmt, ...]:
    """Return the body for one kept index; lanes accumulate partial results and are folded."""
    known: dict[Expr, Expr] = {}
    statements: list[Stmt] = []
    waiting = [(item, [a for a in item.axes if a not in plan.kept]) for item in plan.items]
    for group in plan.groups:
        # What needs no reduction still to come is stored by the loop that computes it anyway.
        along = [
            (item, inner)
            for item, inner in waiting
            if [a.extent for a in inner] == [a.extent for a in group[0].axes]
            and all(r in known for r in reductions([item]))
        ]
        waiting = [pair for pair in waiting if pair not in along]
        stores = [_store_over(item.store, inner, group[0].axes) for item, inner in along]
        if group == plan.groups[-1] and len(waiting) == 1:
            (item, inner) = waiting[0]
            terms = [_body_over(reduce, group[0].axes) for reduce in group]
            parts = kept_values.keep(item.store, inner, group, terms)
            if parts is not None:
                stores.append(parts[0])
                waiting = [(replace(item, store=parts[1]), inner)]
        statements.extend(_reduce_rows(group, stores, _steps(plan, group), known))
    statements.extend(_scalar_stores([item.store for item, inner in waiting if not inner], known))
    for item, inner in waiting:
        if not inner:
            continue
        last = inner[-1]
        emit = partial(_stored, item.store, last.name, known)
        cost = operations([E.rebuild(item.store.value, lambda e: None, dict(known))])
        lanes = plan.one * 4 if cost <= LIGHT else plan.one
        loop = vector_loop(last.name, 0, last.extent, lanes, emit, plan.one, cost)
        statements.extend(over_axes(inner[:-1], loop))
    return tuple(statements)


def _steps(plan: _Plan, group: Sequence[Reduce]) -> tuple[int, int]:
    """Return the elements of a step of a group's loop, and of the steps at its end."""
    light = all(operations([r.body]) <= LIGHT for r in group)
    return (plan.one * 4 if light else plan.one), plan.one


def _scalar_stores(stores: Sequence[Store], known: dict[Expr, Expr]) -> Body:
    """Return stores of single elements; all are computed before the first is stored."""
    memo = dict(known)
    values = [E.rebuild(store.value, lambda e: None, memo) for store in stores]
    return values_first([replace(s, value=v) for s, v in zip(stores, values, strict=True)])


def _stored(
    store: Store, name: str, known: dict[Expr, Expr], lanes: int, mask: Expr | None
) -> tuple[Stmt, ...]:
    return (vector_store(store, name, lanes, mask, known, aligned=True),)


def _store_over(store: Store, own: Sequence[Axis], axes: Sequence[Axis]) -> Store:
    """Return a store over the loop variables of a reduction."""
    renamed: dict[str, Dim] = {
        a.name: symbol(b.name) for a, b in zip(own, axes, strict=True) if a.name != b.name
    }
    memo: dict[Expr, Expr] = {}
    return replace(
        store,
        value=substituted(store.value, renamed, memo),
        offset=substituted(store.offset, renamed, memo),
    )


def _reduce_rows(
    group: Sequence[Reduce],
    stores: Sequence[Store],
    sizes: tuple[int, int],
    known: dict[Expr, Expr],
) -> list[Stmt]:
    """Return the loop of a group of reductions, with stores of values that it has at hand.

    Steps of each of the ``sizes`` have accumulators of their own.
    """
    axes = group[0].axes
    last = axes[-1]
    starts: list[Stmt] = []
    finals: list[Let] = []
    registers: dict[int, list[tuple[str, Expr, Expr]]] = {lanes: [] for lanes in sizes}
    cost = max(operations([r.body]) for r in group)
    for position, reduce in enumerate(group, start=len(known)):
        identity = E.const(IDENTITY[reduce.combine](reduce.dtype), reduce.dtype)
        folded: list[Expr] = []
        for lanes, name in zip(registers, ("acc", "rest")):
            start = E.splat(identity, (lanes,))
            holder = E.use(f"{name}{position}", start)
            starts.append(Declare(holder.name, start))
            registers[lanes].append((holder.name, holder, identity))
            folded.append(E.fold(reduce.combine, holder))
        total = folded[0] if len(folded) == 1 else E.apply(reduce.combine, *folded)
        finals.append(Let(f"red{position}", total))

    def step(lanes: int, mask: Expr | None) -> tuple[Stmt, ...]:
        local = dict(known)
        before, after = _shared_stores(stores, last.name, lanes, mask, local)

        def convert(e: Expr) -> Expr:
            return vectorize(e, last.name, lanes, mask, local, aligned=True)

        steps: list[Stmt] = []
        for reduce, (register, holder, identity) in zip(group, registers[lanes], strict=True):
            term = _body_over(reduce, axes)
            if mask is None:
                steps.append(Assign(register, _accumulate(reduce.combine, holder, term, convert)))
            else:
                kept = E.select(mask, convert(term), identity)
                steps.append(Assign(register, E.apply(reduce.combine, holder, kept)))
        return (*before, *steps, *after)

    loop = vector_loop(last.name, 0, last.extent, sizes[0], step, sizes[1], cost)
    for reduce, final in zip(group, finals, strict=True):
        known[reduce] = E.use(final.name, final.value)
    return [*starts, *over_axes(axes[:-1], loop), *finals]


def _shared_stores(
    stores: Sequence[Store], name: str, lanes: int, mask: Expr | None, known: dict[Expr, Expr]
) -> tuple[list[Stmt], list[Stmt]]:
    """Return registers for the values of stores, which ``known`` learns, and the stores."""
    values: list[Stmt] = []
    writes: list[Stmt] = []
    for position, store in enumerate(stores):
        write = vector_store(store, name, lanes, mask, known, aligned=True)
        register = f"v{position}"
        values.append(Let(register, write.value))
        known[store.value] = E.use(register, write.value)
        writes.append(replace(write, value=known[store.value]))
    return values, writes


# -- the parallel axis ---------------------------------------------------------------------


def _in_parallel(kernel: Kernel, plan: _Plan, body: tuple[Stmt, ...]) -> Kernel:
    """Put the outer axes (and the blocks of the vector axis) on one parallel axis."""
    axes = list(plan.outer)
    vector = plan.vector
    if vector is not None:
        # Short rows of one block follow each other in the inner loop; so do a column's vectors.
        place = len(axes) if plan.groups else max(len(axes) - 1, 0)
        axes.insert(place, Axis("block", ceil_div(vector.extent, plan.block)))
    extent = product(a.extent for a in axes)
    work = _work(plan)
    if not axes:
        return replace(kernel, body=body, extent=1, work=work)
    return replace(kernel, body=(flat_loop(axes, body),), extent=extent, work=work)


def _cost(plan: _Plan) -> int:
    """Return how many operations the stores of a plan apply to one element."""
    return operations(item.store.value for item in plan.items)


def _work(plan: _Plan) -> Dim:
    """Return the estimated nanoseconds of one iteration of the parallel axis."""
    total: Dim = 16
    per_element = 2 + _cost(plan)
    for item in plan.items:
        inner = product(a.extent for a in item.axes if a not in plan.kept)
        total = total + inner * per_element // 16
    for group in plan.groups:
        total = total + product(a.extent for a in group[0].axes) * per_element // 16
    if plan.vector is not None:
        total = total * dim_min(plan.vector.extent, plan.block) // (1 if plan.groups else 16)
    return total

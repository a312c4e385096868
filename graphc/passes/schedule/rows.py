"""Schedules of rows: lanes are partial results of a reduction, folded by a fixed tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Reduce
from graphc.ir.loop import Alloc, Assign, Declare, Let, Stmt, Store
from graphc.ir.operations import IDENTITY
from graphc.passes.schedule import kept_values, streaming
from graphc.passes.schedule.ahead import next_rows, requests
from graphc.passes.schedule.loops import Body, operations, over_axes, values_first, vector_loop
from graphc.passes.schedule.nest import Nest, moved, reductions
from graphc.passes.schedule.plan import LIGHT, Plan, accumulate, body_over
from graphc.passes.schedule.vectorize import vector_store, vectorize

KEPT = 1 << 14
"""Elements of a row that are kept on the stack while its results are streamed."""


def by_reduction(plan: Plan, holds: Expr | None) -> tuple[Body, Body]:
    """Return the statements ahead of all rows, and those of one row.

    Lanes are partial results to be folded. Results are streamed where ``holds``, if that is given.
    """
    row = _Row(plan, holds)
    for group in plan.groups:
        row.reduce(group)
    row.finish()
    first = () if row.holds is None else (streaming.decided(row.holds),)
    return (*first, *map(Alloc, row.scratch)), tuple(row.statements)


Extra = Callable[[int, Expr | None, dict[Expr, Expr]], tuple[Body, Body]]
Waiting = tuple[Nest, list[Axis]]
"""A result not stored yet, and its axes inside the row."""


class _Row:
    """Writes the loops of one row.

    Attributes
    ----------
    holds : Expr or None
        Where results are streamed.
    known : dict
        Registers of the reductions that are done.
    waiting : list of Waiting
    scratch : list of Buffer
        Memory of a kept value, while results are streamed: the last loop must not find its place
        in the caches.
    asking : object
        The loop that asks for the row that follows: a group of reductions or a store.
    ahead : list of Row
        What it asks for.
    """

    def __init__(self, plan: Plan, holds: Expr | None):
        self.plan, self.holds = plan, holds
        self.known: dict[Expr, Expr] = {}
        self.statements: list[Stmt] = []
        self.scratch: list[Buffer] = []
        self.kept: Store | None = None
        self.waiting = with_inner_axes(plan)
        found = [reduce for group in plan.groups for reduce in group]
        self.asking = self._busiest(found)
        last = self.asking is not None and plan.kept
        self.ahead = next_rows(plan.items, plan.kept, found) if last else []

    def _busiest(self, found: Sequence[Reduce]) -> object:
        """Return the loop behind the first that computes most, or None."""
        known = {id(reduce) for reduce in found}
        loops: list[tuple[object, list[Expr]]] = [
            (group, [r.body for r in group]) for group in self.plan.groups[1:]
        ] or [(item.store, [item.store.value]) for item, inner in self.waiting if inner]
        return max(loops, key=lambda loop: operations(loop[1], known), default=(None,))[0]

    def reduce(self, group: Sequence[Reduce]) -> None:
        """Write the loop of a group, with the stores of what it has at hand."""
        axes = group[0].axes
        stores, self.waiting = stored_along(group, self.waiting, self.known)
        kept = self.keep(group) if group == self.plan.groups[-1] else None
        ahead = self.ahead if self.asking is group else ()

        def extra(lanes: int, mask: Expr | None, known: dict[Expr, Expr]) -> tuple[Body, Body]:
            asked = requests(ahead, axes[-1].name, lanes)
            whole = [*stores, *([] if kept is None else [kept])]
            values, writes = shared_stores(whole, axes[-1].name, lanes, mask, known)
            return (*asked, *values), self.written(writes, kept is not None, mask, axes[-1].name)

        sizes = _steps(self.plan, group)
        self.statements += _reduce_rows(group, extra, sizes, self.known)

    def written(self, writes: list[Store], kept: bool, mask: Expr | None, name: str) -> Body:
        """Return the stores of a step of reductions; the last one is of the ``kept`` value."""
        if self.holds is None:
            return tuple(writes)
        results = writes[:-1] if kept else writes
        found: list[Stmt] = [*results]
        if results and mask is None:
            found = [streaming.streamed(results)]
        if kept:
            place = E.index(symbol(name))
            aside = replace(writes[-1], buffer=self.scratch[0], offset=place)
            found.append(streaming.if_streamed([aside], writes[-1:]))
        return tuple(found)

    def keep(self, group: Sequence[Reduce]) -> Store | None:
        """Let the last group's loop store a value that a result needs again."""
        rows = [pair for pair in self.waiting if pair[1]]
        if len(rows) != 1:
            return None
        ((item, inner),) = rows
        terms = [body_over(reduce, group[0].axes) for reduce in group]
        parts = kept_values.keep(item.store, inner, group, terms)
        if parts is None:
            return None
        self.waiting[self.waiting.index((item, inner))] = replace(item, store=parts[1]), inner
        if self.holds is not None:
            self.scratch = [Buffer("kept", item.store.buffer.dtype, (KEPT,), "stack")]
            self.holds = self.holds & (E.index(inner[-1].extent) <= E.index(KEPT))
            self.kept = parts[1]
        return parts[0]

    def finish(self) -> None:
        """Write the stores that need all reductions."""
        scalars = [item.store for item, inner in self.waiting if not inner]
        self.statements += _scalar_stores(scalars, self.known)
        for item, inner in self.waiting:
            if inner:
                self.statements += self.stored(item.store, inner)

    def stored(self, store: Store, inner: Sequence[Axis]) -> Body:
        """Return the loops that store one result."""
        name, one = inner[-1].name, self.plan.one
        ahead = self.ahead if store is self.asking else ()
        read: dict[Expr, Expr] = {}
        if store is self.kept:
            (buffer,) = self.scratch
            read[E.load(store.buffer, store.offset)] = E.load(buffer, E.index(symbol(name)))

        def emit(lanes: int, mask: Expr | None) -> Body:
            asked = requests(ahead, name, lanes)
            write = vector_store(store, name, lanes, mask, self.known, aligned=True)
            if self.holds is None or (mask is not None and not read):
                return (*asked, write)
            aside = replace(store, value=E.rebuild(store.value, lambda e: None, dict(read)))
            past = vector_store(aside, name, lanes, mask, self.known, aligned=True)
            past = replace(past, streaming=mask is None)
            return (*asked, streaming.if_streamed([past], [write]))

        cost = operations([E.rebuild(store.value, lambda e: None, dict(self.known))])
        lanes = one * 4 if cost <= LIGHT else one
        loop = vector_loop(name, 0, inner[-1].extent, lanes, emit, one, cost)
        return over_axes(inner[:-1], loop)


def with_inner_axes(plan: Plan) -> list[Waiting]:
    """Return the results of a plan with their axes inside a row."""
    return [(item, [a for a in item.axes if a not in plan.kept]) for item in plan.items]


def stored_along(
    group: Sequence[Reduce], waiting: Sequence[Waiting], known: Mapping[Expr, Expr]
) -> tuple[list[Store], list[Waiting]]:
    """Return the stores that a group's loop makes, over its variables, and what waits still.

    What needs no reduction still to come is stored by the loop that computes it anyway.
    """
    axes = group[0].axes
    along = [
        (item, inner)
        for item, inner in waiting
        if [a.extent for a in inner] == [a.extent for a in axes]
        and all(r in known for r in reductions([item]))
    ]
    stores = [_store_over(item.store, inner, axes) for item, inner in along]
    return stores, [pair for pair in waiting if pair not in along]


def _steps(plan: Plan, group: Sequence[Reduce]) -> tuple[int, int]:
    """Return the elements of a step of a group's loop, and of the steps at its end."""
    light = all(operations([r.body]) <= LIGHT for r in group)
    return (plan.one * 4 if light else plan.one), plan.one


def _scalar_stores(stores: Sequence[Store], known: dict[Expr, Expr]) -> Body:
    """Return stores of single elements; all are computed before the first is stored."""
    memo = dict(known)
    values = [E.rebuild(store.value, lambda e: None, memo) for store in stores]
    return values_first([replace(s, value=v) for s, v in zip(stores, values, strict=True)])


def _store_over(store: Store, own: Sequence[Axis], axes: Sequence[Axis]) -> Store:
    """Return a store over the loop variables of a reduction."""
    renamed: dict[str, Dim] = {
        a.name: symbol(b.name) for a, b in zip(own, axes, strict=True) if a.name != b.name
    }
    return moved(store, renamed, {})


def _reduce_rows(
    group: Sequence[Reduce], extra: Extra, sizes: tuple[int, int], known: dict[Expr, Expr]
) -> list[Stmt]:
    """Return the loop of a group of reductions.

    Steps of each of the ``sizes`` have accumulators of their own. ``extra(lanes, mask, known)``
    returns what else stands in a step, ahead and behind; ``known`` learns registers ahead.
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
        before, after = extra(lanes, mask, local)

        def convert(e: Expr) -> Expr:
            return vectorize(e, last.name, lanes, mask, local, aligned=True)

        steps: list[Stmt] = []
        for reduce, (register, holder, identity) in zip(group, registers[lanes], strict=True):
            term = body_over(reduce, axes)
            if mask is None:
                steps.append(Assign(register, accumulate(reduce.combine, holder, term, convert)))
            else:
                existing = E.select(mask, convert(term), identity)
                steps.append(Assign(register, E.apply(reduce.combine, holder, existing)))
        return (*before, *steps, *after)

    loop = vector_loop(last.name, 0, last.extent, sizes[0], step, sizes[1], cost)
    for reduce, final in zip(group, finals, strict=True):
        known[reduce] = E.use(final.name, final.value)
    return [*starts, *over_axes(axes[:-1], loop), *finals]


def shared_stores(
    stores: Sequence[Store],
    name: str,
    lanes: int,
    mask: Expr | None,
    known: dict[Expr, Expr],
    prefix: str = "v",
) -> tuple[list[Stmt], list[Store]]:
    """Return registers for the values of stores, which ``known`` learns, and the stores."""
    values: list[Stmt] = []
    writes: list[Store] = []
    for position, store in enumerate(stores):
        write = vector_store(store, name, lanes, mask, known, aligned=True)
        register = f"{prefix}{position}"
        values.append(Let(register, write.value))
        known[store.value] = E.use(register, write.value)
        writes.append(replace(write, value=known[store.value]))
    return values, writes



"""Kernels with reductions: a team of threads for each place that keeps its reductions' results.

How large a team is, and which threads are neighbours, follows what is read side by side: along the
reduction (a warp for a short row, a block for a long one), along the places (columns, eight threads
each), or by one thread where a reduction has few terms. Threads of a team take terms in turn, fold
their partial results by a fixed tree, and share what is stored along a row. Several teams may share
a place, a chunk of its terms each (`chunks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Reduce
from graphc.ir.intrinsics import WARP
from graphc.ir.loop import Assign, Barrier, Declare, For, If, Intrinsic, Kernel, Let, Stmt, Store
from graphc.ir.operations import IDENTITY
from graphc.ir.target import Target
from graphc.passes.schedule.cuda.grid import (
    BLOCK,
    PART,
    THREAD,
    THREADS,
    Whole,
    adjacent,
    capped,
    in_blocks,
    in_turns,
    indices,
    most_blocks,
    placed,
    whole,
)
from graphc.passes.schedule.loops import Body, over_axes, values_first
from graphc.passes.schedule.nest import Nest, free_names, moved, stride, substituted
from graphc.passes.schedule.plan import Plan, accumulate, body_over, plan_of
from graphc.passes.schedule.series import CHUNK, CHUNKS
from graphc.passes.schedule.vectorize import vector_store, vectorize

SHORT = 1024
"""Rows of at most this many terms are a warp's; longer ones a block's."""
FEW = 64
"""Reductions of at most this many terms, known when compiling, are one thread's."""
LANES = 4
"""Terms that a thread takes at once."""
ACROSS = 8
"""Threads that share a column, where columns are neighbours."""
AT, WORKER, FIRST = "at", "worker", "first"
"""Names of a thread's place, of its number in its team, and of its first turn."""
NEVER = 1 << 30
"""The first turn of a thread that has none: more than a row has, for each turn is of 8 threads."""
SIDE_BY_SIDE = 32
"""Elements of a row that chunks have multiples of, so that each begins at a line of memory."""


@dataclass(frozen=True, slots=True)
class Team:
    """Who computes one place.

    Attributes
    ----------
    size : int
        Threads of a team.
    count : int
        Teams of a block.
    side_by_side : bool
        Whether threads of one team are neighbours; else neighbours are of neighbouring places.
    """

    size: int
    count: int
    side_by_side: bool = True


WARPS, WHOLE_BLOCK = Team(WARP, THREADS // WARP), Team(THREADS, 1)
COLUMNS = Team(ACROSS, THREADS // ACROSS, side_by_side=False)
FEW_CHUNKS = 2 * ACROSS
"""Partial results of so many chunks are folded by one thread each."""


def schedule(kernel: Kernel, items: tuple[Nest, ...], target: Target) -> Kernel:
    """Return a kernel with reductions in blocks of threads."""
    plan = plan_of(items, target)
    check_apart(plan)
    places, terms = product(axis.extent for axis in plan.kept), terms_of(plan)
    if isinstance(terms, int) and terms <= FEW:
        most = most_blocks(target, [item.store for item in items])
        blocks = capped(ceil_div(places, THREADS), most)
        return in_blocks(kernel, blocks, _alone(plan, places, most))
    if plan.vector is not None:
        return by_teams(kernel, plan, COLUMNS, places)
    return _in_rows(kernel, plan, places, terms)


def folding(kernel: Kernel, items: tuple[Nest, ...], target: Target) -> Kernel:
    """Return a kernel that folds the partial results of chunks and stores what follows from them.

    Where chunks are few, places are many, and each is one thread's.
    """
    plan = plan_of(items, target)
    places = product(axis.extent for axis in plan.kept)
    if plan.vector is None:
        return by_teams(kernel, plan, WARPS, places)
    if any(item.axes != plan.kept for item in items):
        return by_teams(kernel, plan, COLUMNS, places)
    writer = Writer(plan, COLUMNS, places)
    chunks = symbol(CHUNKS)
    few = dim_max(dim_min(FEW_CHUNKS + 1 - chunks, 1), 0)
    extent = few * ceil_div(places, THREADS) + (1 - few) * ceil_div(places, COLUMNS.count)
    alone = _alone(plan, places, None)  # there are chunks only where places are few
    choice = If(E.index(chunks) <= FEW_CHUNKS, alone, writer.body())
    return in_blocks(kernel, extent, (choice,), writer.shared)


def by_teams(kernel: Kernel, plan: Plan, team: Team, places: Dim) -> Kernel:
    """Return a kernel in which each place is a team's."""
    writer = Writer(plan, team, places)
    return in_blocks(kernel, ceil_div(places, team.count), writer.body(), writer.shared)


def terms_of(plan: Plan) -> Dim:
    """Return the terms of the longest reduction."""
    terms: Dim = 0
    for group in plan.groups:
        terms = dim_max(terms, product(axis.extent for axis in group[0].axes))
    return terms


def check_apart(plan: Plan) -> None:
    """Raise CompileError where a reduction depends on the index of another one."""
    inside = {axis.name for group in plan.groups for reduce in group for axis in reduce.axes}
    for group in plan.groups:
        for reduce in group:
            if free_names(reduce) & inside:
                raise CompileError("a reduction in the terms of another one has no CUDA schedule")


def _alone(plan: Plan, places: Dim, most: int | None) -> Body:
    """Return what a thread does that computes places by itself."""
    known: dict[Expr, Expr] = {}
    body: list[Stmt] = []
    for group in plan.groups:
        steps: list[Stmt] = []
        for reduce in group:
            declared, holder = _holder(reduce, f"own{len(known)}", ())
            body.append(declared)
            term = body_over(reduce, group[0].axes)
            convert = partial(_known, known=dict(known))
            steps.append(Assign(holder.name, accumulate(reduce.combine, holder, term, convert)))
            known[reduce] = holder
        body.extend(over_axes(group[0].axes, tuple(steps)))
    stores: dict[tuple[Axis, ...], list[Store]] = {}
    for item in plan.items:
        inner = tuple(a for a in item.axes if a not in plan.kept)
        stores.setdefault(inner, []).append(_known_store(item.store, known))
    for inner, found in stores.items():
        body.extend(over_axes(inner, values_first(found)))
    return in_turns(AT, places, most, (*placed(plan.kept, symbol(AT)), *body))


def _known(expr: Expr, known: dict[Expr, Expr]) -> Expr:
    return E.rebuild(expr, lambda e: None, known)


def _known_store(store: Store, known: dict[Expr, Expr]) -> Store:
    return replace(store, value=_known(store.value, dict(known)))


def _holder(reduce: Reduce, name: str, tile: tuple[int, ...]) -> tuple[Declare, E.Use]:
    """Return the register of a reduction's partial results, and its use."""
    start = E.splat(E.const(IDENTITY[reduce.combine](reduce.dtype), reduce.dtype), tile)
    return Declare(name, start), E.use(name, start)


def _in_rows(kernel: Kernel, plan: Plan, places: Dim, terms: Dim) -> Kernel:
    """Let a warp or a block compute a row, whichever its length asks for."""
    short = 1 + (WARPS.count - 1) * dim_min(SHORT // dim_max(terms, 1), 1)
    by_warp, by_block = Writer(plan, WARPS, places), Writer(plan, WHOLE_BLOCK, places)
    choice = If(E.index(terms) <= E.index(SHORT), by_warp.body(), by_block.body())
    shared = (*by_warp.shared, *by_block.shared)
    return in_blocks(kernel, ceil_div(places, short), (choice,), shared)


class Writer:
    """Writes what the threads of a team do.

    Where chunks are among the kept axes, a team has the terms of its chunk, and the elements of a
    row that lie there.

    Attributes
    ----------
    shared : list of Buffer
        Memory through which they exchange partial results.
    """

    def __init__(self, plan: Plan, team: Team, places: Dim) -> None:
        self.plan, self.team, self.places = plan, team, places
        self.chunked = any(axis.name == CHUNK for axis in plan.kept)
        self.shares = 0
        self.shared: list[Buffer] = []

    def body(self) -> Body:
        """Return the statements of a thread.

        Teams behind the last place take no turns, but come to every exchange like all others.
        """
        team, thread = self.team, symbol(THREAD)
        worker = thread % team.size if team.side_by_side else thread // team.count
        stores, column = self._exists(), self._column()
        head = (
            Let(WORKER, E.index(worker)),
            Let(FIRST, E.select(stores, E.index(worker), E.index(NEVER))),
            *placed(self.plan.kept, column),
        )
        rows, elements = self._rows(), self._ways(stores, None)
        if rows is None:
            return (*head, *elements)
        return (*head, rows.either(self._ways(stores, rows), elements))

    def _column(self) -> Dim:
        """Return which place is a team's."""
        team, thread = self.team, symbol(THREAD)
        own = thread // team.size if team.side_by_side else thread % team.count
        return symbol(BLOCK) * team.count + own

    def _exists(self) -> Expr:
        """Return whether it is a place."""
        return E.index(self._column()) < E.index(self.places)

    def _rows(self) -> Whole | None:
        """Return how all rows can be whole vectors, if they can be walked by such."""
        along = [*self._reduced(), *(self._inner(item) for item in self.plan.items)]
        lengths = {axis.extent for axes in along for axis in axes}
        single = all(len(axes) <= 1 for axes in along)
        if len(lengths) != 1 or not single or not self.team.side_by_side or not self._adjacent():
            return None
        (length,) = lengths
        return whole(length, LANES)

    def _reduced(self) -> Iterator[tuple[Axis, ...]]:
        """Yield the axes of reductions over elements, rather than over chunks."""
        for group in self.plan.groups:
            if not over_chunks(group):
                yield from (reduce.axes for reduce in group)

    def _adjacent(self) -> bool:
        """Return whether everything along rows is read and written side by side."""
        for group in self.plan.groups:
            for reduce in group:
                if not over_chunks(group) and not adjacent(reduce.body, reduce.axes[0].name):
                    return False
        for item in self.plan.items:
            for axis in self._inner(item):
                if stride(item.store, axis.name) != 1 or item.store.mask is not None:
                    return False
                if not adjacent(item.store.value, axis.name):
                    return False
        return True

    def _inner(self, item: Nest) -> tuple[Axis, ...]:
        return tuple(a for a in item.axes if a not in self.plan.kept)

    # -- reductions --------------------------------------------------------------------------

    def _ways(self, stores: Expr, rows: Whole | None) -> Body:
        """Return reductions and stores, by whole vectors of rows of a length or by elements."""
        known: dict[Expr, Expr] = {}
        body: list[Stmt] = []
        for group in self.plan.groups:
            declared, holders, steps = self._partial(group, known, rows)
            body += [*declared, *steps]
            for reduce, holder in zip(group, holders, strict=True):
                exchange, found = self._exchanged(reduce, holder, f"_{len(known)}")
                body += exchange
                known[reduce] = found
        body.append(If(stores, self._stores(known, rows)))
        return tuple(body)

    def _partial(
        self, group: Sequence[Reduce], known: dict[Expr, Expr], rows: Whole | None
    ) -> tuple[list[Stmt], list[E.Use], Body]:
        """Return registers, and the loop in which a thread takes its terms of a group."""
        axes = group[0].axes
        rows = None if over_chunks(group) else rows
        declared, holders = zip(
            *(
                _holder(reduce, f"acc{len(known) + k}", (LANES,))
                for k, reduce in enumerate(group)
            )
        )

        def step(walk: _Walk) -> Body:
            def convert(e: Expr) -> Expr:
                return walk.vector(_known(e, dict(known)))

            body = []
            for reduce, holder in zip(group, holders, strict=True):
                found = accumulate(reduce.combine, holder, body_over(reduce, axes), convert)
                body.append(Assign(holder.name, walk.where_inside(found, holder)))
            return tuple(body)

        return list(declared), list(holders), self._turns(axes, rows, step)

    def _turns(
        self, axes: Sequence[Axis], rows: Whole | None, step: Callable[[_Walk], Body]
    ) -> Body:
        """Return the loops over a thread's share of a row's elements, `LANES` in each turn."""
        size, turn = self.team.size, symbol("turn")
        if rows is not None:
            named, low, high, own = self._share(axes, rows.vectors, SIDE_BY_SIDE // LANES)
            walk = _Walk(axes[0].name, rows.sizes, {axes[0].name: turn * LANES}, None)
            first = E.index(low + symbol(own))
            return (*named, For("turn", first, E.index(high), step(walk), step=size))
        count = product(axis.extent for axis in axes)
        line = SIDE_BY_SIDE if self.team.side_by_side else 1
        named, low, high, own = self._share(axes, count, line)
        places = indices(axes, turn + size * symbol("lane"))
        even = low + (high - low) // (size * LANES) * (size * LANES)
        inside = E.iota(LANES) < E.index(ceil_div(high - turn, size))
        loops: list[Stmt] = [*named]
        for start, stop, mask in ((low, even, None), (even, high, inside)):
            body = step(_Walk("lane", places, {"lane": 0}, mask))
            first = E.index(start + symbol(own))
            loops.append(For("turn", first, E.index(stop), body, step=size * LANES))
        return tuple(loops)

    def _share(self, axes: Sequence[Axis], count: Dim, each: int) -> tuple[Body, Dim, Dim, str]:
        """Return where a team's share of ``count`` elements begins and ends: a chunk, or all.

        The name is that of a thread's first turn from there. Chunks have multiples of ``each``,
        those at the end fewer, or none; so have teams behind the last place.
        """
        if not self.chunked or axes[0].name == PART:
            return (), 0, count, FIRST
        low, high = f"low{self.shares}", f"high{self.shares}"
        self.shares += 1
        size = ceil_div(count, symbol(CHUNKS) * each) * each
        first = dim_min(symbol(CHUNK) * size, count)
        last = E.index(dim_min(symbol(low) + size, count))
        named = (
            Let(low, E.index(first)),
            Let(high, E.select(self._exists(), last, E.index(symbol(low)))),
        )
        return named, symbol(low), symbol(high), WORKER

    def _exchanged(self, reduce: Reduce, holder: E.Use, suffix: str) -> tuple[list[Stmt], Expr]:
        """Return what folds the partial results of a team, and the result that all have."""
        own = E.fold(reduce.combine, holder)
        if not self.team.side_by_side:
            return self._through_memory(reduce, own, suffix)
        body: list[Stmt] = [Let(f"part{suffix}", own)]
        found: Expr = E.use(f"part{suffix}", own)
        distance = min(self.team.size, WARP) // 2
        while distance:
            name = f"far{suffix}_{distance}"
            body.append(Intrinsic(name, "shuffle_xor", (found, E.index(distance))))
            both = E.apply(reduce.combine, found, E.use(name, found))
            body.append(Let(f"near{suffix}_{distance}", both))
            found = E.use(f"near{suffix}_{distance}", both)
            distance //= 2
        if self.team.size == WARP:
            return body, found
        warps = self.team.size // WARP
        buffer = self._memory(reduce, warps)
        first = E.index(symbol(WORKER) % WARP).eq(0)
        body += [If(first, (Store(buffer, E.index(symbol(WORKER) // WARP), found),)), Barrier()]
        total = E.fold(reduce.combine, E.load(buffer, E.index(0), (warps,), (1,)))
        body.append(Let(f"total{suffix}", total))
        return body, E.use(f"total{suffix}", total)

    def _through_memory(
        self, reduce: Reduce, own: Expr, suffix: str
    ) -> tuple[list[Stmt], Expr]:
        """Fold what threads far from each other have."""
        assert isinstance(self.team.count, int)
        buffer = self._memory(reduce, THREADS)
        place = symbol(THREAD) % self.team.count
        parts = E.load(buffer, E.index(place), (self.team.size,), (self.team.count,))
        total = E.fold(reduce.combine, parts)
        body = [
            Store(buffer, E.index(symbol(THREAD)), own), Barrier(), Let(f"total{suffix}", total),
        ]  # fmt: skip
        return body, E.use(f"total{suffix}", total)

    def _memory(self, reduce: Reduce, count: int) -> Buffer:
        buffer = Buffer(f"parts{len(self.shared)}", reduce.dtype, (count,), "shared")
        self.shared.append(buffer)
        return buffer

    # -- stores ------------------------------------------------------------------------------

    def _stores(self, known: dict[Expr, Expr], rows: Whole | None) -> Body:
        """Return the stores of a place, first those along its row, by turns."""
        along: dict[tuple[tuple[Axis, ...], Expr | None], list[Store]] = {}
        for item in self.plan.items:
            store = _known_store(item.store, known)
            along.setdefault((self._inner(item), self._once(item)), []).append(store)
        body: Body = ()
        for (axes, once), stores in along.items():
            if axes:
                found = self._turns(axes, rows, partial(_row, stores))
            else:
                found = (If(E.index(symbol(WORKER)).eq(0), values_first(stores)),)
            body += found if once is None else (If(once, found),)
        return body

    def _once(self, item: Nest) -> Expr | None:
        """Return where a store that does not depend on all kept axes happens, else None."""
        found: Expr | None = None
        for axis in self.plan.kept:
            if axis not in item.axes:
                first = E.index(symbol(axis.name)).eq(0)
                found = first if found is None else found & first
        return found


def over_chunks(group: Sequence[Reduce]) -> bool:
    """Return whether reductions fold the partial results of chunks."""
    return group[0].axes[0].name == PART


def _row(stores: Sequence[Store], walk: _Walk) -> Body:
    return values_first([walk.stored(store) for store in stores])


@dataclass(frozen=True, slots=True)
class _Walk:
    """How one turn takes elements: along which variable, and what is put for which before and
    after it becomes lanes; ``mask`` says which of these exist.
    """

    name: str
    before: dict[str, Dim]
    after: dict[str, Dim]
    mask: Expr | None

    def vector(self, expr: Expr) -> Expr:
        """Return an expression at the elements of a turn."""
        found = vectorize(substituted(expr, self.before, {}), self.name, LANES, self.mask, {})
        return substituted(found, self.after, {})

    def stored(self, store: Store) -> Store:
        """Return a store of the elements of a turn."""
        found = vector_store(moved(store, self.before, {}), self.name, LANES, self.mask, {})
        return moved(found, self.after, {})

    def where_inside(self, found: Expr, otherwise: Expr) -> Expr:
        """Return ``found`` for the elements that exist."""
        if self.mask is None:
            return found
        return E.select(substituted(self.mask, self.after, {}), found, otherwise)

"""Vectors of an explicit nest as threads: each lane of every vector is computed by a thread.

Scalars are computed by all threads alike, and stored by the first. Scratch is shared by the threads
of a block; a barrier stands wherever a thread may read or write what another one wrote or read, as
far as places do not show that each lane keeps to its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.dim import symbol, terms
from graphc.ir.expr import Apply, Buffer, Expr, Fold, Index, Iota, Load, Splat, Tile, Use
from graphc.ir.loop import (
    Alloc,
    Barrier,
    For,
    If,
    Intrinsic,
    Let,
    Prefetch,
    Stmt,
    Store,
)
from graphc.ir.statements import expressions, statements, with_expressions
from graphc.passes.schedule.cuda.grid import THREAD
from graphc.passes.schedule.loops import Body


def lanes_of(body: Sequence[Stmt]) -> int:
    """Return the length of the vectors of a nest; 1 where it has none.

    Raises
    ------
    CompileError
        If they are of several lengths.
    """
    found: set[int] = set()
    seen: set[int] = set()
    for stmt in statements(body):
        for root in expressions(stmt):
            found |= {e.tile[-1] for e in E.walk(root, seen) if e.tile}
    found.discard(1)
    if len(found) > 1:
        raise CompileError(f"a nest with vectors of {sorted(found)} lanes has no CUDA schedule")
    return found.pop() if found else 1


def spread(body: Body, lanes: int) -> tuple[Body, list[Buffer]]:
    """Return what each thread does, and the scratch that all share.

    Parameters
    ----------
    body : tuple of Stmt
        Of vectors of ``lanes``.
    lanes : int
    """
    scratch = [stmt.buffer for stmt in statements(body) if isinstance(stmt, Alloc)]
    shared = {buffer: _shared(buffer, number) for number, buffer in enumerate(scratch)}
    spreader = _Spreader(lanes, shared, _private(body, lanes))
    return spreader.body(body), list(shared.values())


def _shared(buffer: Buffer, number: int) -> Buffer:
    return Buffer(f"{buffer.name}_{number}", buffer.dtype, buffer.shape, "shared")


def _private(body: Body, lanes: int) -> set[Buffer]:
    """Return the buffers of which each lane reads and writes its own elements only."""
    apart: dict[Buffer, bool] = {}
    seen: set[int] = set()
    for stmt in statements(body):
        accesses: list[tuple[Load | Store, Tile]] = []
        if isinstance(stmt, Store):
            accesses.append((stmt, stmt.value.tile))
        for root in expressions(stmt):
            accesses += [(e, e.tile) for e in E.walk(root, seen) if isinstance(e, Load)]
        for access, tile in accesses:
            own = _own_lane(access, tile, lanes)
            apart[access.buffer] = apart.get(access.buffer, True) and own
    return {buffer for buffer, own in apart.items() if own}


def _own_lane(access: Load | Store, tile: Tile, lanes: int) -> bool:
    """Return whether lane ``k`` of an access has elements of remainder ``k`` by the lanes only."""
    if not tile or tile[-1] != lanes or not access.strides or access.strides[-1] != 1:
        return False
    if not isinstance(access.offset, Index):
        return False
    dims = (access.offset.dim, *access.strides[:-1])
    return math.gcd(*(c for dim in dims for c, _ in terms(dim))) % lanes == 0


class _Spreader:
    """Rewrites statements; ``reads`` and ``writes`` are buffers touched since the last barrier."""

    def __init__(self, lanes: int, shared: dict[Buffer, Buffer], private: set[Buffer]) -> None:
        self.lanes, self.shared, self.private = lanes, shared, private
        self.lane = E.index(symbol(THREAD))
        self.reads: set[Buffer] = set()
        self.writes: set[Buffer] = set()
        self.before: list[Stmt] = []
        self.count = 0

    # -- statements --------------------------------------------------------------------------

    def body(self, body: Body) -> Body:
        """Return statements behind the barriers they need."""
        found: list[Stmt] = []
        for stmt in body:
            if not isinstance(stmt, Alloc | Prefetch):
                found += self.statement(stmt)
        return tuple(found)

    def statement(self, stmt: Stmt) -> Body:
        """Return a statement, behind a barrier and the exchanges between lanes it needs."""
        ahead = self.wait(stmt)
        self.before = []
        if isinstance(stmt, For):
            made: Stmt = self.loop(stmt)
        elif isinstance(stmt, If):
            made = self.branch(stmt)
        elif isinstance(stmt, Store):
            made = self.store(stmt)
        else:
            made = with_expressions(stmt, self.value)
        return (*ahead, *self.before, made)

    def wait(self, stmt: Stmt) -> Body:
        """Return the barrier that the expressions and the store of a statement need, if one."""
        reads = {
            e.buffer for root in expressions(stmt) for e in E.walk(root)
            if isinstance(e, Load) and e.buffer not in self.private
        }  # fmt: skip
        writes = {stmt.buffer} - self.private if isinstance(stmt, Store) else set()
        meets = reads & self.writes or writes & (self.reads | self.writes)
        if meets:
            self.reads, self.writes = set(), set()
        self.reads |= reads
        self.writes |= writes
        return (Barrier(),) if meets else ()

    def loop(self, loop: For) -> For:
        """Return a loop, whose body begins as the end of its body may leave off."""
        while True:
            reads, writes, before = set(self.reads), set(self.writes), self.before
            start, stop = self.value(loop.start), self.value(loop.stop)
            found = replace(loop, start=start, stop=stop, body=self.body(loop.body))
            self.before = before
            if self.reads <= reads and self.writes <= writes:
                self.reads, self.writes = reads, writes
                return found
            self.reads |= reads
            self.writes |= writes

    def branch(self, branch: If) -> If:
        """Return a branch; behind it stands what either way leaves."""
        condition, before = self.value(branch.condition), self.before
        reads, writes = set(self.reads), set(self.writes)
        body = self.body(branch.body)
        after = self.reads, self.writes
        self.reads, self.writes = reads, writes
        otherwise = self.body(branch.otherwise)
        self.reads, self.writes, self.before = self.reads | after[0], self.writes | after[1], before
        return If(condition, body, otherwise)

    def store(self, store: Store) -> Stmt:
        """Return a store of each thread's own elements, or by the first of what all have."""
        buffer = self.shared.get(store.buffer, store.buffer)
        offset, value = self.value(store.offset), self.value(store.value)
        mask = None if store.mask is None else self.value(store.mask)
        tile = store.value.tile
        if store.strides:
            if tile[-1] == self.lanes:
                offset = offset + self.lane * E.index(store.strides[-1])
            found = Store(buffer, offset, value, store.strides[:-1], mask)
        else:
            found = Store(buffer, offset, value, (), mask)
        if tile and tile[-1] == self.lanes:
            return found
        return If(self.lane.eq(0), (found,))

    # -- expressions -------------------------------------------------------------------------

    def value(self, expr: Expr) -> Expr:
        """Return what a thread computes of an expression."""
        # Folds are values of the statement at hand, so nothing is remembered between statements.
        return E.rebuild(expr, self.visit, {})

    def visit(self, node: Expr) -> Expr | None:
        """Return a node without the axis of lanes; None where its operands decide."""
        match node:
            case Use() if node.tile:
                return E.use(node.name, E.splat(E.const(0, node.dtype), node.tile[:-1]))
            case Iota():
                return self.lane
            case Splat():
                return E.splat(self.value(node.arg), node.tile[:-1])
            case Load():
                return self.load(node)
            case Fold():
                return self.folded(node)
            case Apply() if node.tile:
                return E.apply(node.op, *map(self.value, node.args), dtype=node.dtype)
        return None

    def load(self, node: Load) -> Expr:
        buffer = self.shared.get(node.buffer, node.buffer)
        offset = self.value(node.offset)
        mask = None if node.mask is None else self.value(node.mask)
        if not node.strides:
            return E.load(buffer, offset, mask=mask, fill=node.fill)
        if node.tile[-1] == self.lanes:
            offset = offset + self.lane * E.index(node.strides[-1])
        return E.load(buffer, offset, node.tile[:-1], node.strides[:-1], mask, node.fill)

    def folded(self, node: Fold) -> Expr:
        """Return a fold of all lanes, exchanged by halves: each thread gets the whole."""
        found = E.fold(node.combine, self.value(node.arg))
        distance = self.lanes // 2
        while distance:
            self.count += 1
            own, far = f"own{self.count}", f"far{self.count}"
            self.before.append(Let(own, found))
            found = E.use(own, found)
            self.before.append(Intrinsic(far, "shuffle_xor", (found, E.index(distance))))
            found = E.apply(node.combine, found, E.use(far, found))
            distance //= 2
        return found

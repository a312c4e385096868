"""The loop over a block's threads as loops of the CPU; see `emulate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, linear, simplify, substitute, symbol, symbols, terms
from graphc.ir.expr import Apply, Buffer, Expr, Index, Load
from graphc.ir.intrinsics import WARP
from graphc.ir.loop import (
    Alloc,
    Assign,
    Barrier,
    Bind,
    Declare,
    Fail,
    For,
    If,
    Intrinsic,
    Kernel,
    Let,
    Prefetch,
    Stmt,
    Store,
)
from graphc.ir.statements import (
    expressions,
    mapped,
    names_in,
    register_tiles,
    statements,
    with_expressions,
)
from graphc.ir.types import DType, int64
from graphc.passes.emulate_warps import LANE, WARP_OF_BLOCK, Exchange

Body = tuple[Stmt, ...]
APART = -1
"""The code of a failure where threads come to a barrier on different ways."""


def thread_count(loop: For) -> int:
    """Return how many threads a block has, from the loop over them."""
    assert isinstance(loop.stop, Index) and isinstance(loop.stop.dim, int)
    return loop.stop.dim


def with_memory(body: Body, moves: Mapping[Buffer, tuple[Buffer, Dim]]) -> Body:
    """Return statements with scratch memory replaced by parts of other that begin at an offset.

    That other memory is for the caller to make.
    """
    memo: dict[Expr, Expr] = {}

    def visit(expr: Expr) -> Expr | None:
        if not isinstance(expr, Load) or expr.buffer not in moves:
            return None
        buffer, first = moves[expr.buffer]
        mask = None if expr.mask is None else change(expr.mask)
        offset = change(expr.offset) + E.index(first)
        return E.load(buffer, offset, expr.tile, expr.strides, mask, expr.fill)

    def change(expr: Expr) -> Expr:
        return E.rebuild(expr, visit, memo)

    def moved(stmt: Stmt) -> Body:
        stmt = with_expressions(stmt, change)
        if not isinstance(stmt, Store | Prefetch | Alloc) or stmt.buffer not in moves:
            return (stmt,)
        if isinstance(stmt, Alloc):
            return ()
        buffer, first = moves[stmt.buffer]
        return (replace(stmt, buffer=buffer, offset=stmt.offset + E.index(first)),)

    return mapped(body, moved)


@dataclass(frozen=True, slots=True)
class _Register:
    """A thread's value that may be used behind a cut; a ``declared`` one may be assigned there."""

    name: str
    dtype: DType
    tile: tuple[int, ...]
    declared: bool

    @property
    def use(self) -> Expr:
        return E.use(self.name, E.splat(E.const(0, self.dtype), self.tile))

    @property
    def kind(self) -> tuple[str, DType, tuple[int, ...]]:
        return self.name, self.dtype, self.tile


@dataclass(slots=True)
class _Scope:
    """What the names of statements stand for.

    Attributes
    ----------
    common : set of str
        Names of values that are the same for all threads of the block (of the warp, within it).
    places : dict of str to Dim
        Index arithmetic over common names and the number of the thread.
    registers : dict of str to _Register
        Everything else that threads have named.
    """

    common: set[str]
    places: dict[str, Dim] = field(default_factory=dict)
    registers: dict[str, _Register] = field(default_factory=dict)

    def inner(self, *names: str) -> _Scope:
        """Return a scope inside this one in which more names are common."""
        found = _Scope(set(self.common), dict(self.places), dict(self.registers))
        for name in names:
            found.forget(name)
            found.common.add(name)
        return found

    def forget(self, name: str) -> None:
        """Let a name stand for nothing, as it is given anew."""
        self.common.discard(name)
        self.places.pop(name, None)
        self.registers.pop(name, None)


@dataclass(frozen=True, slots=True)
class _Run:
    """What a thread does between two cuts.

    Attributes
    ----------
    body : tuple of Stmt
    in_warp : bool
        Whether it stands in the loop over warps.
    places : dict of str to Dim
        Index arithmetic to compute again.
    reads, writes : tuple of _Register
        Values that it needs from others, and that others may need from it.
    """

    body: Body
    in_warp: bool
    places: dict[str, Dim]
    reads: tuple[_Register, ...]
    writes: tuple[_Register, ...]


@dataclass(frozen=True, slots=True)
class _Around:
    """A loop or a branch around pieces."""

    stmt: For | If
    body: tuple[_Piece, ...]
    otherwise: tuple[_Piece, ...] = ()


_Piece = _Run | _Around | Let


class ThreadLoops:
    """The loop over the threads of a block as loops of the CPU.

    Attributes
    ----------
    scratch : list of Buffer
        Memory for all threads of a block.
    kept : dict
        The memory of each register that is used behind a cut.
    """

    def __init__(self, kernel: Kernel, loop: For, stored: frozenset[str]) -> None:
        self.kernel, self.loop, self.stored = kernel, loop, stored
        self.count = thread_count(loop)
        self.lanes = min(WARP, self.count)
        self.thread = symbol(loop.name)
        self.tiles = register_tiles(loop.body)
        self.scratch: list[Buffer] = []
        self.kept: dict[tuple[str, DType, tuple[int, ...]], Buffer] = {}

    def loops(self, common: Iterable[str]) -> Body:
        """Return memory and loops; ``common`` are the names known outside."""
        if not _meets(self.loop, Barrier, Intrinsic):
            return (replace(self.loop, bind=Bind.SERIAL),)
        pieces = self.split(self._own_stacks(), _Scope(set(common)), in_warp=False)
        written = tuple(self.written(pieces))
        return (*map(Alloc, self.scratch), *written)

    def _own_stacks(self) -> Body:
        """Return the body with each thread's scratch memory a part of one for all threads."""
        moves: dict[Buffer, tuple[Buffer, Dim]] = {}
        for stmt in statements(self.loop.body):
            if isinstance(stmt, Alloc) and stmt.buffer not in moves:
                shape = (self.count, *stmt.buffer.shape)
                size = prod(d for d in stmt.buffer.shape if isinstance(d, int))
                whole = replace(stmt.buffer, shape=shape)
                moves[stmt.buffer] = whole, self.thread * size
                self.scratch.append(whole)
        return with_memory(self.loop.body, moves)

    def memory(self, name: str, dtype: DType, shape: tuple[int, ...]) -> Buffer:
        """Return new scratch memory of a block."""
        buffer = Buffer(f"{name}.{len(self.scratch)}", dtype, shape, "stack")
        self.scratch.append(buffer)
        return buffer

    # -- cutting -----------------------------------------------------------------------------

    def split(self, body: Body, scope: _Scope, in_warp: bool) -> tuple[_Piece, ...]:
        """Cut statements that all threads of the block (of the warp) reach together."""
        pieces: list[_Piece] = []
        run: list[Stmt] = []
        cuts = (Intrinsic,) if in_warp else (Barrier,)

        def cut(following: Sequence[Stmt] = ()) -> None:
            if run:
                pieces.append(self.run(tuple(run), scope, in_warp))
            run[:] = following

        for stmt in body:
            match stmt:
                case Barrier():
                    cut()
                case Intrinsic() if in_warp:
                    exchange = Exchange(self.kernel, stmt, self.lanes, self.count, self.memory)
                    run += exchange.before
                    cut(exchange.after)
                case For() | If() if _meets(stmt, *cuts):
                    cut()
                    pieces.append(self.around(stmt, scope, in_warp, pieces))
                case Let() if not in_warp and not isinstance(stmt.value, Index):
                    value = self.common(stmt.value, scope, in_warp)
                    if value is None:
                        run.append(stmt)
                        continue
                    cut()
                    scope.forget(stmt.name)
                    scope.common.add(stmt.name)
                    pieces.append(Let(stmt.name, value))
                case _:
                    run.append(stmt)
        cut()
        return tuple(pieces)

    def around(
        self, stmt: For | If, scope: _Scope, in_warp: bool, before: list[_Piece]
    ) -> _Piece:
        """Return a loop or a branch with its body cut; what it depends on goes ``before``."""
        found = []
        for expr in expressions(stmt):
            common = self.common(expr, scope, in_warp)
            found.append(common or self.agreed(stmt, expr, scope, in_warp, before))
        if isinstance(stmt, For):
            outer = replace(stmt, start=found[0], stop=found[1], body=())
            return _Around(outer, self.split(stmt.body, scope.inner(stmt.name), in_warp))
        ways = (self.split(way, scope.inner(), in_warp) for way in (stmt.body, stmt.otherwise))
        return _Around(replace(stmt, condition=found[0]), *ways)

    def agreed(
        self, stmt: Stmt, expr: Expr, scope: _Scope, in_warp: bool, before: list[_Piece]
    ) -> Expr:
        """Return the value that all threads compute; the kernel fails where one has another."""
        number = symbol(LANE) if in_warp else self.thread
        if number in map(symbol, self.varying(expr, scope, in_warp)):
            what = "a loop" if isinstance(stmt, For) else "a branch"
            unit, meeting = ("warp", "an intrinsic") if in_warp else ("block", "a barrier")
            raise CompileError(
                f"{self.kernel.name or 'a kernel'} has {meeting} in {what} that threads of one "
                f"{unit} take differently"
            )
        buffer = self.memory("agreed", int64, (self.lanes if in_warp else self.count,))
        own, first = (E.load(buffer, E.index(place)) for place in (number, 0))
        wrong = Fail(APART, (E.index(self.thread),))
        parts = Store(buffer, E.index(number), E.cast(expr, int64)), If(own.ne(first), (wrong,))
        before += [self.run((part,), scope, in_warp) for part in parts]
        before.append(Let(buffer.name, first))
        found = E.use(buffer.name, first)
        return found if expr.dtype is int64 else found.ne(0)

    def common(self, expr: Expr, scope: _Scope, in_warp: bool) -> Expr | None:
        """Return an expression by values that all threads of the block (of the warp) have."""
        found = self.outside(expr, scope, in_warp)
        loads = (node.buffer for node in E.walk(found) if isinstance(node, Load))
        fixed = all(b.space == "global" and b.name not in self.stored for b in loads)
        return None if self.varying(found, scope, in_warp) or not fixed else found

    def varying(self, expr: Expr, scope: _Scope, in_warp: bool) -> set[str]:
        """Return the names in an expression that threads of the block (of the warp) differ in."""
        names = scope.common | ({WARP_OF_BLOCK} if in_warp else set())
        found: set[str] = set()
        for node in E.walk(self.outside(expr, scope, in_warp)):
            found |= set(names_in(node)) - names
            if isinstance(node, Load):
                found.discard(node.buffer.name)
        return found

    def outside(self, expr: Expr, scope: _Scope, in_warp: bool) -> Expr:
        """Return an expression with index arithmetic written out, by warps and lanes in a warp."""

        def visit(node: Expr) -> Expr | None:
            if isinstance(node, E.Use) and node.name in scope.places:
                node = E.index(symbol(node.name))
            if not isinstance(node, Index):
                return None
            dim = substitute(node.dim, scope.places)
            return E.index(self.in_lanes(dim) if in_warp else dim)

        return _of_whole_warps(E.rebuild(expr, visit, {}))

    def in_lanes(self, dim: Dim) -> Dim:
        """Return index arithmetic over warps and lanes in place of threads."""
        number = symbol(WARP_OF_BLOCK) * WARP + symbol(LANE)
        return simplify(substitute(dim, {self.loop.name: number}), {LANE: self.lanes})

    def run(self, body: Body, scope: _Scope, in_warp: bool) -> _Piece:
        """Return statements between two cuts, and note in the scope what they name."""
        if not in_warp and any(_meets(stmt, Intrinsic) for stmt in body):
            warps = For(WARP_OF_BLOCK, E.index(0), E.index(-(-self.count // WARP)), ())
            return _Around(warps, self.split(body, scope, in_warp=True))
        mentioned = dict.fromkeys(_names(body))
        reads = [scope.registers[name] for name in mentioned if name in scope.registers]
        places = {name: scope.places[name] for name in mentioned if name in scope.places}
        for register in reads:
            if register.kind not in self.kept:
                shape = (self.count, *register.tile)
                self.kept[register.kind] = self.memory(register.name, register.dtype, shape)
        assigned = {s.name for s in statements(body) if isinstance(s, Assign)}
        writes = [register for register in reads if register.name in assigned]
        writes += [self.named(s, scope) for s in body if isinstance(s, Let | Declare)]
        return _Run(body, in_warp, places, tuple(reads), tuple(writes))

    def named(self, stmt: Let | Declare, scope: _Scope) -> _Register:
        """Note what a thread names; return the register."""
        name, value = stmt.name, stmt.value
        declared = isinstance(stmt, Declare)
        tile = self.tiles.get(name, value.tile) if declared else value.tile
        register = _Register(name, value.dtype, tile, declared)
        scope.forget(name)
        if isinstance(value, Index) and not declared:
            dim = substitute(value.dim, scope.places)
            if symbols(dim) <= scope.common | {self.loop.name}:
                scope.places[name] = dim
                return register
        scope.registers[name] = register
        return register

    # -- writing -----------------------------------------------------------------------------

    def written(self, pieces: Sequence[_Piece]) -> list[Stmt]:
        """Return the statements of pieces, now that it is known which registers are kept."""
        found: list[Stmt] = []
        for piece in pieces:
            match piece:
                case _Run():
                    found.append(self.written_run(piece))
                case _Around():
                    body, otherwise = map(tuple, map(self.written, (piece.body, piece.otherwise)))
                    if isinstance(piece.stmt, For):
                        found.append(replace(piece.stmt, body=body))
                    else:
                        found.append(replace(piece.stmt, body=body, otherwise=otherwise))
                case Let():
                    found.append(piece)
        return found

    def written_run(self, run: _Run) -> For:
        """Return the loop over threads, or lanes, that do what a run says."""
        before: list[Stmt] = [Let(name, E.index(dim)) for name, dim in run.places.items()]
        for register in run.reads:
            buffer, place, strides = self.place(register)
            value = E.load(buffer, place, register.tile, strides)
            make = Declare if register.declared else Let
            before.append(make(register.name, value))
        after: list[Stmt] = []
        for register in dict.fromkeys(run.writes):
            if register.kind in self.kept:
                buffer, place, strides = self.place(register)
                after.append(Store(buffer, place, register.use, strides))
        body = (*before, *run.body, *after)
        if not run.in_warp:
            return replace(self.loop, body=body, bind=Bind.SERIAL)
        number = E.index(symbol(WARP_OF_BLOCK) * WARP + symbol(LANE))
        return For(LANE, E.index(0), E.index(self.lanes), (Let(self.loop.name, number), *body))

    def place(self, register: _Register) -> tuple[Buffer, Expr, tuple[Dim, ...]]:
        """Return where a thread keeps a register."""
        place = E.index(self.thread * prod(register.tile))
        return self.kept[register.kind], place, E.row_major(register.tile)


def _meets(stmt: Stmt, *kinds: type[Stmt]) -> bool:
    return any(isinstance(s, kinds) for s in statements((stmt,)))


def _names(body: Body) -> Iterable[str]:
    """Yield what statements read or assign by name, in order."""
    seen: set[int] = set()
    for stmt in statements(body):
        match stmt:
            case Assign():
                yield stmt.name
            case Store():
                for stride in stmt.strides:
                    yield from sorted(symbols(stride))
        for root in expressions(stmt):
            for expr in E.walk(root, seen):
                yield from sorted(names_in(expr))


def _of_whole_warps(expr: Expr) -> Expr:
    """Return an expression in which no lane is compared with what whole warps lie below."""

    def visit(node: Expr) -> Expr | None:
        if not isinstance(node, Apply) or node.op not in ("lt", "ge"):
            return None
        a, b = node.args
        if not (isinstance(a, Index) and isinstance(b, Index)):
            return None
        found = linear(a.dim - b.dim, LANE)
        if found is None or found[0] != 1 or any(c % WARP for c, _ in terms(found[1])):
            return None
        return E.apply(node.op, E.index(found[1]), E.index(0))

    return E.rebuild(expr, visit, {})

"""The LLVM engine: scheduled loop IR straight to LLVM IR, in one walk.

Registers are LLVM's own values: a loop or a branch that assigns one writes the phi where control
meets, so nothing is left for LLVM to lift out of memory. An expression is computed once for as
long as nothing it reads changes. Every operation is emitted by the code that the Numba engine uses
too, so the two agree bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from graphc.codegen.llvm_builder import Ahead, Block, Constant, Phi
from graphc.codegen.llvm_cuda import CudaEmitter
from graphc.codegen.llvm_indices import Indices, Innermost
from graphc.codegen.llvm_kernel import KernelEmitter
from graphc.codegen.llvm_memory import Memory, Pointer
from graphc.codegen.llvm_types import I64
from graphc.codegen.llvm_values import Value, Weak
from graphc.codegen.sharing import static_size, used_names
from graphc.errors import CompileError
from graphc.ir.dim import Dim, terms
from graphc.ir.expr import (
    Apply,
    Buffer,
    Const,
    Expr,
    Fold,
    Index,
    Iota,
    Load,
    Repeat,
    Splat,
    Use,
    children,
)
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
from graphc.ir.operations import OPERATIONS
from graphc.ir.statements import names_in, register_tiles, statements
from graphc.ir.target import Target
from graphc.ir.types import int64

EMITTERS: dict[str, Callable[[Kernel, Target], Memory]] = {
    "cpu": lambda kernel, target: KernelEmitter(target),
    "cuda": CudaEmitter,
}
"""What writes a kernel's function, by the name of the target."""

NAME = "llvm"
FILES = ("cuda.py", "cuda_code.py", "llvm_cuda.py", "llvm_engine.py", "llvm_indices.py")
"""What code depends on beside the emitters that engines share."""
PACKAGES: tuple[str, ...] = ()
"""Packages that code depends on, beside llvmlite."""

PASSES = ("simplify_cfg",)
TARGET_PASSES = {"cuda": ("instruction_combine", "simplify_cfg")}
"""Passes of targets whose code generator takes addresses apart in its own way."""


def source(kernel: Kernel, target: Target) -> str:
    """Return the LLVM IR of a scheduled, machine-level kernel, not yet optimized.

    The text holds neither the kernel's name nor its location: kernels of equal text are equal.

    Raises
    ------
    CompileError
        If the body holds what is gone after scheduling and expansion: a Reduce, or an operation
        that no machine has.
    """
    return _Walk(kernel, target).text()


def llvm_text(text: str, target: Target) -> str:
    """Return the LLVM IR of what `source` returned: that itself."""
    return text


class _Walk(Indices):
    """Writes one kernel.

    ``names`` holds what each size, loop variable and register is at this point; ``changes`` the
    time at which each name last changed, a buffer's name by a store; ``known`` the values of
    expressions with the time of the last change to what they read.
    """

    def __init__(self, kernel: Kernel, target: Target):
        self.kernel = kernel
        super().__init__(EMITTERS[target.name](kernel, target), target.index_bits)
        self.names |= self.emit.bounds
        self.pointers: dict[str, Pointer] = {}
        self.changes: dict[str, int] = {}
        self.clock = 0
        self.known: dict[Expr, tuple[int, Value]] = {}
        self.added: list[Expr] = []
        self.reads: dict[Expr, frozenset[str]] = {}
        self.tiles = register_tiles(kernel.body)
        stores = [s for s in statements(kernel.body) if isinstance(s, Store)]
        self.streams = any(store.streaming for store in stores)
        self.stored = dict.fromkeys(store.buffer.name for store in stores)
        self.known_effects: dict[int, tuple[dict[str, None], dict[str, None]]] = {}
        self.nests: set[int] = set()
        _find_nests(kernel.body, self.nests)
        self.settles = target.name not in TARGET_PASSES and target.index_bits == 64

    def text(self) -> str:
        used = used_names(self.kernel)
        for position, buffer in enumerate(self.kernel.params):
            if buffer.name in used:
                self.pointers[buffer.name] = self.emit.buffer(position, buffer.dtype)
        for position, size in enumerate(self.kernel.sizes):
            if size in used:
                self.names[size] = self.emit.size(position)
        self.body(self.kernel.body)
        self.leave(0)
        return self.emit.finish()

    def leave(self, status: int) -> None:
        if self.streams:
            self.emit.stream_fence()
        self.emit.leave(status)

    # -- what is known -----------------------------------------------------------------------

    def change(self, name: str) -> None:
        self.clock += 1
        self.changes[name] = self.clock

    @contextmanager
    def inside(self, block: Block) -> Iterator[None]:
        """Write into a block that not every path comes through; forget afterwards what it knew."""
        names, mark = dict(self.names), len(self.added)
        self.emit.builder.block = block
        with self.emit.builder.scope():
            yield
        for key in self.added[mark:]:
            self.known.pop(key, None)
        del self.added[mark:]
        self.names = names

    def changed(self, *bodies: Sequence[Stmt]) -> list[str]:
        """Note that these bodies may have run; return the registers they assign."""
        assigned: dict[str, None] = {}
        self.clock += 1
        for body in bodies:
            own, changed = self.effects(body)
            assigned |= own
            self.changes |= dict.fromkeys(changed, self.clock)
        return [name for name in assigned if name in self.names]

    def effects(self, body: Sequence[Stmt]) -> tuple[dict[str, None], dict[str, None]]:
        """Return the registers that a body assigns, and all that it changes; found once."""
        found = self.known_effects.get(id(body))
        if found is not None:
            return found
        assigned: dict[str, None] = {}
        changed: dict[str, None] = {}
        for stmt in body:
            match stmt:
                case Assign():
                    assigned[stmt.name] = None
                case Store():
                    changed[stmt.buffer.name] = None
                case Barrier():
                    changed |= self.stored
                case For() | If():
                    for inner in (stmt.body, stmt.otherwise if isinstance(stmt, If) else ()):
                        own, all_ = self.effects(inner)
                        assigned |= own
                        changed |= all_
        self.known_effects[id(body)] = assigned, changed | assigned
        return self.known_effects[id(body)]

    def remember(self, key: Expr, stamp: int, value: Value) -> Value:
        self.known[key] = stamp, value
        self.added.append(key)
        return value

    def stamp(self, names: frozenset[str]) -> int:
        last = 0
        for name in names:
            last = max(last, self.changes.get(name, 0))
        return last

    def names_read(self, expr: Expr) -> frozenset[str]:
        found = self.reads.get(expr)
        if found is None:
            found = frozenset(names_in(expr)).union(*map(self.names_read, children(expr)))
            self.reads[expr] = found
        return found

    # -- statements --------------------------------------------------------------------------

    def body(self, stmts: Sequence[Stmt]) -> None:
        for stmt in stmts:
            self.statement(stmt)

    def statement(self, stmt: Stmt) -> None:
        match stmt:
            case For() if stmt.bind in (Bind.BLOCK, Bind.THREAD):
                self.define(stmt.name, self.emit.position(stmt.bind))
                self.body(stmt.body)
            case For():
                self.loop(stmt)
            case If():
                self.branch(stmt)
            case Let():
                self.let(stmt)
            case Declare() | Assign():
                value = self.value(stmt.value)
                self.define(stmt.name, self.emit.spread(value, self.tiles[stmt.name]))
            case Store():
                self.store(stmt)
            case Prefetch():
                self.emit.prefetch(*self.place(stmt.buffer, stmt.offset), stmt.level, stmt.write)
            case Alloc():
                make = self.emit.shared if stmt.buffer.space == "shared" else self.emit.alloc
                self.pointers[stmt.buffer.name] = make(stmt.buffer.dtype, static_size(stmt.buffer))
            case Barrier():
                self.emit.barrier()
                for name in self.stored:
                    self.change(name)
            case Intrinsic():
                args = [self.value(arg) for arg in stmt.args]
                self.define(stmt.name, self.emit.collective(stmt.operation, args))
            case Fail():
                self.emit.fail(stmt.code, [self.value(d) for d in stmt.details])
                self.leave(1)
            case _:
                raise CompileError(f"{type(stmt).__name__} is no statement of a scheduled kernel")

    def let(self, stmt: Let) -> None:
        value, scalar = self.value(stmt.value), stmt.value.dtype is int64 and not stmt.value.tile
        if isinstance(stmt.value, Index) and self.is_positive(stmt.value.dim):
            self.positive.add(stmt.name)
        opaque = scalar and self.settles and self.innermost is None
        self.define(stmt.name, self.opaque(value) if opaque else value)

    def define(self, name: str, value: Value) -> None:
        self.names[name] = value
        self.change(name)

    def store(self, stmt: Store) -> None:
        pointer, offset = self.place(stmt.buffer, stmt.offset)
        value = self.value(stmt.value)
        mask = None if stmt.mask is None else self.value(stmt.mask)
        if offset.tile:
            self.emit.scatter(pointer, offset, value, mask)
        else:
            strides = [self.stride(d) for d in stmt.strides] or None
            multiple = self.multiple(stmt)
            self.emit.store(pointer, offset, value, strides, mask, stmt.streaming, multiple)
        self.change(stmt.buffer.name)

    def branch(self, stmt: If) -> None:
        emit, builder = self.emit, self.emit.builder
        (condition,) = self.value(stmt.condition).rows
        yes, no, after = (emit.function.block() for _ in range(3))
        builder.cbranch(condition, yes, no)
        assigned = self.changed(stmt.body, stmt.otherwise)
        ends = []
        for block, body in ((yes, stmt.body), (no, stmt.otherwise)):
            with self.inside(block):
                self.body(body)
                if not builder.block.terminated:
                    ends.append((builder.block, {name: self.names[name] for name in assigned}))
                    builder.branch(after)
        builder.block = after
        self.changed(stmt.body, stmt.otherwise)
        self.names |= {name: self.met(name, ends) for name in assigned if ends}

    def met(self, name: str, ends: Sequence[tuple[Block, Mapping[str, Value]]]) -> Value:
        """Return a register where the ways from several blocks meet."""
        if len(ends) == 1:
            return ends[0][1][name]
        first = ends[0][1][name]
        phis = self.phis(first)
        for block, names in ends:
            _arrive(phis, names[name], block)
        return Value(first.dtype, first.tile, list(phis))

    def phis(self, like: Value) -> list[Phi]:
        return [self.emit.builder.phi(row.type) for row in like.rows]

    def loop(self, loop: For) -> None:
        builder, function = self.emit.builder, self.emit.function
        start, stop = (self.narrowed(self.value(end)) for end in (loop.start, loop.stop))
        before, clock, last = builder.block, self.clock, function.count
        innermost = self.settles and id(loop) not in self.nests
        ahead = function.block() if innermost else before
        body, after = function.block(), function.block()
        entrance = ahead if innermost else body
        known = isinstance(start, Constant) and isinstance(stop, Constant)
        runs = known and start.constant < stop.constant  # type: ignore[attr-defined]
        if runs:
            builder.branch(entrance)
        else:
            builder.cbranch(builder.icmp_signed("<", start, stop), entrance, after)
        assigned = self.changed(loop.body)
        initial = {name: self.names[name] for name in assigned}
        ends = [] if runs else [(before, initial)]
        with self.inside(body):
            counter = builder.phi(self.word)
            phis = {name: self.phis(value) for name, value in initial.items()}
            for name, value in initial.items():
                self.names[name] = Value(value.dtype, value.tile, list(phis[name]))
            count = len(body.lines)
            place = self.emit.scalar(builder.sext(counter, I64))
            place = self.opaque(place) if self.settles else place
            inner = Innermost(
                loop.name, clock, Ahead(ahead, last), body, count, place.rows[0], start, loop.step
            )
            with self.written(inner if innermost else None):
                self.define(loop.name, place)
                self.body(loop.body)
                if not builder.block.terminated:
                    self.advance(inner, ahead)
            if not builder.block.terminated:
                following = builder.advance(counter, self.whole(loop.step))
                final = {name: self.names[name] for name in assigned}
                ways = (ahead, start, initial), (builder.block, following, final)
                for block, row, names in ways:
                    counter.add_incoming(row, block)
                    for name in assigned:
                        _arrive(phis[name], names[name], block)
                ends.append((builder.block, final))
                builder.cbranch(builder.icmp_signed("<", following, stop), body, after)
        if innermost:
            _leave(ahead, body)
        builder.block = after
        self.changed(loop.body)
        self.names |= {name: self.met(name, ends) for name in assigned}

    @contextmanager
    def written(self, inner: Innermost | None) -> Iterator[None]:
        """Write the body of a loop, an innermost one or another."""
        self.innermost = inner
        self.emit.builder.ahead = None if inner is None else inner.ahead
        yield
        self.innermost = self.emit.builder.ahead = None

    # -- expressions -------------------------------------------------------------------------

    def value(self, expr: Expr) -> Value:
        stamp = self.stamp(self.names_read(expr))
        found = self.known.get(expr)
        if found is not None and found[0] == stamp:
            return found[1]
        return self.remember(expr, stamp, self.fresh(expr))

    def fresh(self, expr: Expr) -> Value:
        emit = self.emit
        match expr:
            case Const():
                return emit.value(expr.value, expr.dtype, expr.tile)
            case Use():
                return self.names[expr.name]
            case Index():
                return self.index(expr.dim)
            case Iota():
                if len(expr.tile) != 1:
                    raise CompileError("an Iota has one axis")
                return emit.iota(expr.tile[0])
            case Apply():
                return self.application(expr)
            case Load():
                return self.load(expr)
            case Splat():
                return emit.spread(self.value(expr.arg), expr.tile)
            case Repeat():
                return emit.repeat(self.value(expr.arg), expr.tile[0], expr.count, expr.first)
            case Fold():
                return emit.fold(expr.combine, self.value(expr.arg))
        raise CompileError(
            f"{type(expr).__name__} is no expression of a scheduled kernel",
            remedy="passes/schedule turns reductions into loops.",
        )

    def application(self, expr: Apply) -> Value:
        args = [self.value(arg) for arg in expr.args]
        if expr.op == "cast":
            return self.emit.cast(args[0], expr.dtype)
        if expr.op == "bitcast":
            return self.emit.bitcast(args[0], expr.dtype)
        if not OPERATIONS[expr.op].machine:
            raise CompileError(
                f"{expr.op} is no machine operation", remedy="passes/expand replaces it."
            )
        return self.emit.apply(expr.op, *args)

    def load(self, expr: Load) -> Value:
        pointer, offset = self.place(expr.buffer, expr.offset)
        mask = None if expr.mask is None else self.value(expr.mask)
        if offset.tile and not expr.strides:
            return self.emit.gather(pointer, offset, mask, expr.fill)
        strides = [self.stride(d) for d in expr.strides]
        multiple = self.multiple(expr)
        return self.emit.load(pointer, offset, expr.tile, strides, mask, expr.fill, multiple)

    def multiple(self, access: Load | Store) -> int:
        """Return what the rows of an access begin at multiples of, by their index arithmetic."""
        if not self.emit.aligned or not isinstance(access.offset, Index):
            return 1
        dims = (access.offset.dim, *access.strides[:-1])
        return math.gcd(*(coefficient for dim in dims for coefficient, _ in terms(dim)))

    # -- index arithmetic --------------------------------------------------------------------

    def place(self, buffer: Buffer, offset: Expr) -> tuple[Pointer, Value]:
        """Return memory and where in it: what an innermost loop does not change is added ahead."""
        pointer = self.pointers[buffer.name]
        if self.innermost is None or not isinstance(offset, Index):
            return pointer, self.value(offset)
        fixed, rest = self.split(offset.dim)
        if fixed is not None:
            kind = self.emit.memory_type(buffer.dtype)
            address = self.emit.builder.gep(pointer.address, fixed, kind)
            pointer = Pointer(buffer.dtype, address, pointer.address)
        return pointer, self.emit.scalar(rest)

    def stride(self, dim: Dim) -> Value | Weak:
        return dim if isinstance(dim, int) else self.index(dim)


def _find_nests(stmts: Sequence[Stmt], nests: set[int]) -> bool:
    """Add the loops that hold loops, by `id`; return whether there is a loop."""
    found = False
    for stmt in stmts:
        if isinstance(stmt, If):
            inside = [_find_nests(body, nests) for body in (stmt.body, stmt.otherwise)]
            found = any(inside) or found
        elif isinstance(stmt, For):
            found = True
            if _find_nests(stmt.body, nests):
                nests.add(id(stmt))
    return found


def _leave(block: Block, after: Block) -> None:
    block.lines.append(f"  br label %{after.name}")
    block.terminated = True


def _arrive(phis: Sequence[Phi], value: Value, block: Block) -> None:
    for phi, row in zip(phis, value.rows, strict=True):
        phi.add_incoming(row, block)

"""The dispatcher's structures and its LLVM IR: a walker of launch tables and a worker's loop.

How a parallel step runs. The caller writes the step into the pool and then publishes a *ticket*,
one 64-bit word: the number of the step in the upper 40 bits, the chunks nobody has claimed yet in
the lower 24. A thread claims a chunk by a compare-and-swap that takes one from the ticket. The
word holds the step's number, so a thread that was preempted between reading the ticket and
claiming can never take a chunk of another step. Who holds a claim *pins* the step: the caller
leaves it only when the chunks run by workers (reported once per worker and step in ``finished``)
and its own add up to all of them. Hence

- a worker touches table, buffers and errors only between a claim and its report, so when
  ``graphc_run`` returns, nothing of the program is in use;
- the caller never waits for a worker that sleeps, was preempted before its claim, or left;
- what a worker wrote in one step is seen by all in the next: report (release) -> caller
  (acquire) -> next ticket (release) -> claim (acquire).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from graphc import lazy
from graphc.codegen.dispatch_layout import Error, Failure, Launch, PoolState

TICKET_CHUNK_BITS = 24
"""Bits of a ticket that count unclaimed chunks; a step of more chunks is run by its caller."""

_SPINS_BEFORE_YIELD = 1024
_SPINS_PER_YIELD = 16
_SPINS_PER_CLOCK = 64
_NO_CHUNK = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Platform:
    """What the IR must know of a machine and its C library.

    Attributes
    ----------
    triple : str
        LLVM's name of the target.
    clock : int
        Number of ``CLOCK_MONOTONIC``, the clock of worker idling and of profiles.
    """

    triple: str
    clock: int

    @property
    def pause(self) -> tuple[str, tuple[int, ...]] | None:
        """LLVM intrinsic, and its arguments, that tells the core a thread is spinning."""
        machine = self.triple.partition("-")[0]
        if machine == "x86_64":
            return "llvm.x86.sse2.pause", ()
        if machine in ("aarch64", "arm64"):
            return "llvm.aarch64.hint", (1,)  # yield
        return None


class _Body:
    """One function being written: its builder, and native fields by name."""

    def __init__(self, module: Any, name: str, result: str, arguments: str, internal: bool = True):
        ir = self.ir = lazy.llvmlite_ir()
        types = {"v": ir.VoidType(), "i": ir.IntType(32), "q": ir.IntType(64)}
        types["p"] = ir.PointerType()
        signature = ir.FunctionType(types[result], [types[letter] for letter in arguments])
        self.function = ir.Function(module, signature, name)
        self.function.attributes.add("nounwind")
        if internal:
            self.function.linkage = "internal"
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.i32, self.i64, self.pointer = types["i"], types["q"], types["p"]

    @property
    def arguments(self) -> tuple[Any, ...]:
        return tuple(self.function.args)

    def constant(self, value: int) -> Any:
        return self.ir.Constant(self.i64, value)

    def at(self, base: Any, struct: type[ctypes.Structure], field: str) -> tuple[Any, Any]:
        """Return address and type of a field."""
        offset = self.constant(getattr(struct, field).offset)
        types = dict(item[:2] for item in struct._fields_)
        type_ = self.pointer if types[field] is ctypes.c_void_p else self.i64
        byte = self.ir.IntType(8)
        return self.builder.gep(base, [offset], inbounds=True, source_etype=byte), type_

    def load(self, base: Any, struct: type[ctypes.Structure], field: str) -> Any:
        address, type_ = self.at(base, struct, field)
        return self.builder.load(address, typ=type_, align=8)

    def store(self, value: Any, base: Any, struct: type[ctypes.Structure], field: str) -> None:
        self.builder.store(value, self.at(base, struct, field)[0], align=8)

    def load_atomic(self, base: Any, field: str, ordering: str = "monotonic") -> Any:
        address, type_ = self.at(base, PoolState, field)
        return self.builder.load_atomic(address, ordering, 8, typ=type_)

    def publish(self, value: Any, address: Any, ordering: str) -> None:
        """Store a 64-bit word atomically."""
        word = self.retype(address, self.i64.as_pointer())
        self.builder.store_atomic(value, word, ordering, 8)

    def store_atomic(self, value: Any, base: Any, field: str, ordering: str) -> None:
        self.publish(value, self.at(base, PoolState, field)[0], ordering)

    def add_atomic(self, base: Any, field: str, amount: Any, ordering: str) -> None:
        self.builder.atomic_rmw("add", self.at(base, PoolState, field)[0], amount, ordering)

    def swap(self, address: Any, old: Any, new: Any, ordering: str) -> Any:
        """Compare and swap a 64-bit word; return whether it held ``old``."""
        pair = self.builder.cmpxchg(address, old, new, ordering, "monotonic")
        return self.builder.extract_value(pair, 1)

    def retype(self, pointer: Any, type_: Any) -> Any:
        """Change llvmlite's idea of what a pointer points to.

        LLVM's pointers have no element type, but ``alloca`` returns a typed one, ``store`` checks
        it and ``store_atomic`` insists on it; no cast but a load converts between the two.
        """
        return self.builder.load(self.variable(pointer), typ=type_)

    def stack(self, struct: type[ctypes.Structure]) -> Any:
        """Reserve a structure on the stack."""
        words = self.ir.ArrayType(self.i64, ctypes.sizeof(struct) // 8)
        with self.builder.goto_entry_block():
            memory = self.builder.alloca(words)
        return self.retype(memory, self.pointer)

    def variable(self, value: Any) -> Any:
        """Reserve a local variable; LLVM turns it into a register."""
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(value.type)
        self.builder.store(value, slot)
        return slot

    def get(self, slot: Any) -> Any:
        return self.builder.load(slot, typ=self.i64)

    def increase(self, slot: Any, amount: Any = None) -> None:
        amount = self.constant(1) if amount is None else amount
        self.builder.store(self.builder.add(self.get(slot), amount), slot)

    @contextmanager
    def loop(self) -> Iterator[tuple[Any, Any]]:
        """Repeat the body for ever; yields the blocks to branch to for the next round and out."""
        again = self.function.append_basic_block("again")
        leave = self.function.append_basic_block("leave")
        self.builder.branch(again)
        self.builder.position_at_end(again)
        yield again, leave
        if not self.builder.block.is_terminated:
            self.builder.branch(again)
        self.builder.position_at_end(leave)

    def go_if(self, condition: Any, block: Any) -> None:
        """Branch to ``block`` where the condition holds, and carry on in a new block otherwise."""
        rest = self.function.append_basic_block("rest")
        self.builder.cbranch(condition, block, rest)
        self.builder.position_at_end(rest)


def _declare(module: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    ir = lazy.llvmlite_ir()
    return ir.Function(module, ir.FunctionType(result, arguments), name)


def _now(module: Any, platform: Platform) -> Any:
    """``i64 now()``: nanoseconds of the monotonic clock."""
    body = _Body(module, "graphc_now", "q", "")
    builder = body.builder
    gettime = _declare(module, "clock_gettime", body.i32, [body.i32, body.pointer])
    # struct timespec holds two C longs, 64-bit wherever LLVM's 64-bit POSIX targets run
    time = builder.alloca(body.ir.ArrayType(body.i64, 2))
    builder.call(gettime, [body.ir.Constant(body.i32, platform.clock), time])
    seconds = builder.load(time, typ=body.i64)
    fraction = builder.gep(time, [body.constant(1)], source_etype=body.i64)
    nanoseconds = builder.load(fraction, typ=body.i64)
    builder.ret(builder.add(builder.mul(seconds, body.constant(10**9)), nanoseconds))
    return body.function


def _backoff(module: Any, platform: Platform) -> Any:
    """``void backoff(i64 spins)``: pause the core; after many spins, now and then the thread.

    The other thread may be waiting for this very core, so spinning must give it up.
    """
    body = _Body(module, "graphc_backoff", "v", "q")
    builder, (spins,) = body.builder, body.arguments
    if platform.pause is not None:
        name, values = platform.pause
        hint = _declare(module, name, body.ir.VoidType(), [body.i32 for _ in values])
        builder.call(hint, [body.ir.Constant(body.i32, value) for value in values])
    sched_yield = _declare(module, "sched_yield", body.i32, [])
    patient = builder.icmp_unsigned(">=", spins, body.constant(_SPINS_BEFORE_YIELD))
    phase = builder.and_(spins, body.constant(_SPINS_PER_YIELD - 1))
    turn = builder.icmp_unsigned("==", phase, body.constant(0))
    with builder.if_then(builder.and_(patient, turn)):
        builder.call(sched_yield, [])
    builder.ret_void()
    return body.function


def _fail(module: Any, backoff: Any) -> Any:
    """``void fail(Failure *, i64 chunk, i64 status, Error *raised)``: keep an error.

    The error of the lowest chunk is kept, so that it does not depend on who ran first.
    """
    body = _Body(module, "graphc_fail", "v", "pqqp")
    builder, (failure, chunk, status, raised) = body.builder, body.arguments
    body.function.attributes.add("noinline")
    lock, _ = body.at(failure, Failure, "lock")
    spins = body.variable(body.constant(0))
    with body.loop() as (_, locked):
        body.go_if(body.swap(lock, body.constant(0), body.constant(1), "acquire"), locked)
        builder.call(backoff, [body.get(spins)])
        body.increase(spins)
    first = builder.icmp_signed("<", chunk, body.load(failure, Failure, "chunk"))
    with builder.if_then(first):
        body.store(chunk, failure, Failure, "chunk")
        body.store(status, failure, Failure, "status")
        body.store(body.load(failure, Failure, "row"), raised, Error, "launch")
        code = body.load(raised, Error, "code")
        silent = builder.icmp_signed("==", code, body.constant(0))
        body.store(builder.select(silent, status, code), raised, Error, "code")
        words = body.ir.ArrayType(body.i64, ctypes.sizeof(Error) // 8)
        target = body.load(failure, Failure, "error")
        builder.store(builder.load(raised, typ=words, align=8), target, align=8)
    body.publish(body.constant(0), lock, "release")
    builder.ret_void()
    return body.function


def _size(body: _Body, launch: Any) -> Any:
    """Iterations of one chunk: the launch's own, or the whole extent."""
    builder = body.builder
    extent, chunk = body.load(launch, Launch, "extent"), body.load(launch, Launch, "chunk")
    positive = builder.icmp_signed(">", chunk, body.constant(0))
    smaller = builder.icmp_signed("<", chunk, extent)
    return builder.select(builder.and_(positive, smaller), chunk, extent)


def _chunk(module: Any, fail: Any) -> Any:
    """``void chunk(const Launch *, Failure *, i64 chunk)``: call the kernel on one chunk."""
    body = _Body(module, "graphc_chunk", "v", "ppq")
    builder, (launch, failure, chunk) = body.builder, body.arguments
    size = _size(body, launch)
    begin = builder.mul(chunk, size)
    rest = builder.sub(body.load(launch, Launch, "extent"), begin)
    last = builder.icmp_signed("<", rest, size)
    end = builder.add(begin, builder.select(last, rest, size))
    # each call gets an Error of its own: chunks that fail at the same time must not mix theirs
    raised = body.stack(Error)
    words = body.ir.ArrayType(body.i64, ctypes.sizeof(Error) // 8)
    builder.store(body.ir.Constant(words, None), raised, align=8)
    parameters = [body.pointer, body.pointer, body.i64, body.i64, body.pointer]
    kernel_type = body.ir.FunctionType(body.i32, parameters).as_pointer()
    kernel = builder.load(body.at(launch, Launch, "kernel")[0], typ=kernel_type, align=8)
    buffers, sizes = body.load(launch, Launch, "buffers"), body.load(launch, Launch, "sizes")
    status = builder.sext(builder.call(kernel, [buffers, sizes, begin, end, raised]), body.i64)
    with builder.if_then(builder.icmp_signed("!=", status, body.constant(0)), likely=False):
        builder.call(fail, [failure, chunk, status, raised])
    builder.ret_void()
    return body.function


def _work(module: Any, chunk: Any) -> Any:
    """``i64 work(Pool *)``: claim and run chunks until none is left; return how many it ran.

    All of them belong to one step: the first claim pins it until the caller of this function
    has reported them.
    """
    body = _Body(module, "graphc_work", "q", "p")
    builder, (pool,) = body.builder, body.arguments
    ran = body.variable(body.constant(0))
    word, _ = body.at(pool, PoolState, "ticket")
    with body.loop() as (again, leave):
        ticket = body.load_atomic(pool, "ticket", "acquire")
        left = builder.and_(ticket, body.constant(2**TICKET_CHUNK_BITS - 1))
        body.go_if(builder.icmp_unsigned("==", left, body.constant(0)), leave)
        taken = body.swap(word, ticket, builder.sub(ticket, body.constant(1)), "acquire")
        body.go_if(builder.not_(taken), again)
        number = builder.sub(body.load(pool, PoolState, "chunks"), left)
        launch, failure = (body.load(pool, PoolState, name) for name in ("launch", "failure"))
        builder.call(chunk, [launch, failure, number])
        body.increase(ran)
    builder.ret(body.get(ran))
    return body.function


def _share(module: Any, work: Any, backoff: Any) -> Any:
    """``void share(Pool *, const Launch *, Failure *, i64 chunks)``: run one step with workers."""
    body = _Body(module, "graphc_share", "v", "pppq")
    builder, (pool, launch, failure, chunks) = body.builder, body.arguments
    body.store(launch, pool, PoolState, "launch")
    body.store(failure, pool, PoolState, "failure")
    body.store(chunks, pool, PoolState, "chunks")
    reported = body.load_atomic(pool, "finished")
    bits = body.constant(TICKET_CHUNK_BITS)
    step = builder.add(builder.lshr(body.load_atomic(pool, "ticket"), bits), body.constant(1))
    body.store_atomic(builder.or_(builder.shl(step, bits), chunks), pool, "ticket", "release")
    ran = builder.call(work, [pool])
    expected = builder.add(reported, builder.sub(chunks, ran))
    spins = body.variable(body.constant(0))
    with body.loop() as (_, leave):
        finished = body.load_atomic(pool, "finished", "acquire")
        body.go_if(builder.icmp_signed("==", finished, expected), leave)
        builder.call(backoff, [body.get(spins)])
        body.increase(spins)
    builder.ret_void()
    return body.function


def _step(module: Any, chunk: Any, share: Any) -> Any:
    """``void step(Pool *, const Launch *, Failure *, i64 shared)``: run one row of the table."""
    body = _Body(module, "graphc_step", "v", "pppq")
    builder, (pool, launch, failure, shared) = body.builder, body.arguments
    extent, size = body.load(launch, Launch, "extent"), _size(body, launch)
    number = body.variable(body.constant(0))
    done = body.function.append_basic_block("done")
    alone = body.function.append_basic_block("alone")
    single = body.function.append_basic_block("single")
    body.go_if(builder.icmp_signed("<=", extent, body.constant(0)), done)
    body.go_if(builder.icmp_signed("==", extent, size), single)
    count = builder.udiv(builder.sub(extent, body.constant(1)), size)
    chunks = builder.add(count, body.constant(1))
    body.go_if(builder.icmp_signed("==", shared, body.constant(0)), alone)
    awake = body.load_atomic(pool, "awake")
    body.go_if(builder.icmp_signed("<=", awake, body.constant(0)), alone)
    limit = body.constant(2**TICKET_CHUNK_BITS)
    body.go_if(builder.icmp_signed(">=", chunks, limit), alone)
    builder.call(share, [pool, launch, failure, chunks])
    builder.branch(done)
    builder.position_at_end(single)
    builder.call(chunk, [launch, failure, body.constant(0)])
    builder.branch(done)
    builder.position_at_end(alone)
    with body.loop() as (_, leave):
        body.go_if(builder.icmp_signed(">=", body.get(number), chunks), leave)
        builder.call(chunk, [launch, failure, body.get(number)])
        body.increase(number)
    builder.branch(done)
    builder.position_at_end(done)
    builder.ret_void()
    return body.function


def _enter(body: _Body, pool: Any, threads: Any) -> Any:
    """Take the pool for a program of several threads; return 1, or 0 where it is busy."""
    builder = body.builder
    shared = body.variable(body.constant(0))
    with builder.if_then(builder.icmp_signed(">", threads, body.constant(1))):
        busy, _ = body.at(pool, PoolState, "busy")
        taken = body.swap(busy, body.constant(0), body.constant(1), "acquire")
        builder.store(builder.zext(taken, body.i64), shared)
        with builder.if_then(taken):
            body.store_atomic(threads, pool, "width", "monotonic")
    return body.get(shared)


def _run(module: Any, step: Any, now: Any) -> None:
    """``i32 graphc_run(Pool *, const Launch *, i64 count, i64 threads, Error *, u64 *)``."""
    body = _Body(module, "graphc_run", "i", "ppqqpp", internal=False)
    builder, (pool, table, count, threads, error, profile) = body.builder, body.arguments
    null = body.ir.Constant(body.pointer, None)
    failure, unread = body.stack(Failure), body.stack(Error)
    target = builder.select(builder.icmp_unsigned("==", error, null), unread, error)
    for field, value in (("lock", 0), ("status", 0), ("chunk", _NO_CHUNK)):
        body.store(body.constant(value), failure, Failure, field)
    body.store(target, failure, Failure, "error")
    shared = _enter(body, pool, threads)
    row, times = body.variable(body.constant(0)), builder.icmp_unsigned("!=", profile, null)

    def note(place: Any) -> None:
        with builder.if_then(times, likely=False):
            slot = builder.gep(profile, [place], source_etype=body.i64)
            builder.store(builder.call(now, []), slot, align=8)

    with body.loop() as (_, leave):
        index = body.get(row)
        body.go_if(builder.icmp_signed(">=", index, count), leave)
        offset = builder.mul(index, body.constant(ctypes.sizeof(Launch)))
        launch = builder.gep(table, [offset], source_etype=body.ir.IntType(8))
        body.store(index, failure, Failure, "row")
        start = builder.mul(index, body.constant(2))
        note(start)
        builder.call(step, [pool, launch, failure, shared])
        note(builder.add(start, body.constant(1)))
        body.increase(row)
        status = body.load(failure, Failure, "status")
        body.go_if(builder.icmp_signed("!=", status, body.constant(0)), leave)
    with builder.if_then(builder.icmp_signed("!=", shared, body.constant(0))):
        body.store_atomic(body.constant(0), pool, "busy", "release")
    builder.ret(builder.trunc(body.load(failure, Failure, "status"), body.i32))


def _is_stopping(body: _Body, pool: Any) -> Any:
    stopping = body.load_atomic(pool, "stopping")
    return body.builder.icmp_signed("!=", stopping, body.constant(0))


def _is_idle(body: _Body, pool: Any, now: Any, idle_ns: Any, since: Any, index: Any) -> Any:
    """Look at the clock; return whether the worker has been idle for long enough to leave.

    The time that a program spends between its parallel steps is no idleness of its workers:
    nothing could wake one that left before the next step.
    """
    builder, time = body.builder, body.builder.call(now, [])
    busy = builder.icmp_signed("!=", body.load_atomic(pool, "busy"), body.constant(0))
    unknown = builder.icmp_signed("==", body.get(since), body.constant(0))
    invited = builder.icmp_signed("<", index, body.load_atomic(pool, "width"))
    fresh = builder.or_(builder.and_(busy, invited), unknown)
    start = builder.select(fresh, time, body.get(since))
    builder.store(start, since)
    idle = builder.icmp_signed(">=", builder.sub(time, start), idle_ns)
    return builder.or_(builder.and_(idle, builder.not_(fresh)), _is_stopping(body, pool))


def _worker(module: Any, work: Any, now: Any, backoff: Any) -> None:
    """``void graphc_worker(Pool *, i64 idle_ns, i64 index)``."""
    body = _Body(module, "graphc_worker", "v", "pqq", internal=False)
    builder, (pool, idle_ns, index) = body.builder, body.arguments
    zero, one = body.constant(0), body.constant(1)
    since, spins = body.variable(zero), body.variable(zero)
    body.add_atomic(pool, "awake", one, "acq_rel")
    idle = body.function.append_basic_block("idle")
    mask = body.constant(2**TICKET_CHUNK_BITS - 1)
    with body.loop() as (again, leave):
        left = builder.and_(body.load_atomic(pool, "ticket"), mask)
        body.go_if(builder.icmp_unsigned("==", left, zero), idle)
        # a width just out of date lets in one thread too many or too few, which does no harm
        invited = builder.icmp_signed("<", index, body.load_atomic(pool, "width"))
        body.go_if(builder.not_(invited), idle)
        ran = builder.call(work, [pool])
        body.go_if(builder.icmp_signed("==", ran, zero), idle)
        body.add_atomic(pool, "finished", ran, "release")
        builder.store(zero, since)
        builder.store(zero, spins)
        builder.cbranch(_is_stopping(body, pool), leave, again)
        builder.position_at_end(idle)
        builder.call(backoff, [body.get(spins)])
        body.increase(spins)
        phase = builder.and_(body.get(spins), body.constant(_SPINS_PER_CLOCK - 1))
        body.go_if(builder.icmp_unsigned("!=", phase, zero), again)
        body.go_if(_is_idle(body, pool, now, idle_ns, since, index), leave)
    body.add_atomic(pool, "awake", body.constant(-1), "acq_rel")
    builder.ret_void()


def build_module(platform: Platform) -> Any:
    """Write the dispatcher as an LLVM module.

    Parameters
    ----------
    platform : Platform
        The machine it is for: a 64-bit POSIX system.

    Returns
    -------
    llvmlite.ir.Module
        Defines ``graphc_run`` and ``graphc_worker``; needs ``clock_gettime`` and
        ``sched_yield`` of the C library and nothing else.
    """
    module = lazy.llvmlite_ir().Module("graphc_dispatch")
    module.triple = platform.triple
    now, backoff = _now(module, platform), _backoff(module, platform)
    chunk = _chunk(module, _fail(module, backoff))
    work = _work(module, chunk)
    _run(module, _step(module, chunk, _share(module, work, backoff)), now)
    _worker(module, work, now, backoff)
    return module

"""The dispatcher's structures and its LLVM IR: a walker of launch tables and a worker's loop.

How a parallel step runs. The caller writes the step into the pool and then publishes a *ticket*,
one 64-bit word: the number of the step in the upper 40 bits, below it the first chunk that nobody
has claimed yet and how many there are. A thread claims a chunk by a compare-and-swap of the ticket:
the caller the first, the next thread the last, so that in program after program each works on the
same end, which its caches have. The word holds the step's number, so a thread that was preempted
between reading it and claiming can never take a chunk of another step. Who holds a claim *pins* the
step: the caller leaves it only when the chunks run by workers (reported once per worker and step in
``finished``) and its own add up to all of them. Hence

- a worker touches table, buffers and errors only between a claim and its report, so when
  ``graphc_run`` returns, nothing of the program is in use;
- the caller never waits for a worker that sleeps, was preempted before its claim, or left;
- what a worker wrote in one step is seen by all in the next: report (release) -> caller
  (acquire) -> next ticket (release) -> claim (acquire).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from graphc.codegen.dispatch_layout import Call, Error, Failure, Launch, PoolState
from graphc.codegen.llvm_builder import Builder, Constant, Function, Module, Row, zeroed
from graphc.codegen.llvm_types import I1, I8, I32, I64, POINTER, VOID, array
from graphc.codegen.native.function import NativeFunction, words

TICKET_CHUNK_BITS = 12
"""Bits of a ticket that count chunks, twice; a step of more chunks is run by its caller."""

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


def _now(module: Module, platform: Platform) -> Function:
    """``i64 now()``: nanoseconds of the monotonic clock."""
    body = NativeFunction(module, "graphc_now", "q", "")
    builder = body.builder
    gettime = module.declare("clock_gettime", I32, [I32, POINTER])
    # struct timespec holds two C longs, 64-bit wherever LLVM's 64-bit POSIX targets run
    time = builder.alloca(array(I64, 2))
    builder.call(gettime, [Constant(I32, platform.clock), time])
    seconds = builder.load(time, I64)
    nanoseconds = builder.load(builder.gep(time, body.constant(1), I64), I64)
    return body.returns(builder.add(builder.mul(seconds, body.constant(10**9)), nanoseconds))


def _backoff(module: Module, platform: Platform) -> Function:
    """``void backoff(i64 spins)``: pause the core; after many spins, now and then the thread.

    The other thread may be waiting for this very core, so spinning must give it up.
    """
    body = NativeFunction(module, "graphc_backoff", "v", "q")
    builder, (spins,) = body.builder, body.arguments
    if platform.pause is not None:
        name, values = platform.pause
        hint = module.declare(name, VOID, [I32 for _ in values])
        builder.call(hint, [Constant(I32, value) for value in values])
    sched_yield = module.declare("sched_yield", I32, [])
    patient = builder.icmp_unsigned(">=", spins, body.constant(_SPINS_BEFORE_YIELD))
    phase = builder.and_(spins, body.constant(_SPINS_PER_YIELD - 1))
    turn = builder.icmp_unsigned("==", phase, body.constant(0))
    with builder.if_then(builder.and_(patient, turn)):
        builder.call(sched_yield, [])
    return body.returns()


def _fail(module: Module, backoff: Function) -> Function:
    """``void fail(Failure *, i64 chunk, i64 status, Error *raised)``: keep an error.

    The error of the lowest chunk is kept, so that it does not depend on who ran first.
    """
    body = NativeFunction(module, "graphc_fail", "v", "pqqp")
    builder, (failure, chunk, status, raised) = body.builder, body.arguments
    body.function.attributes += " noinline"
    lock, _ = body.at(failure, Failure, "lock")
    spins = body.variable(body.constant(0))
    with body.loop() as (_, locked):
        taken = builder.compare_and_swap(lock, body.constant(0), body.constant(1), "acquire")
        body.go_if(taken, locked)
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
        target = body.load(failure, Failure, "error")
        builder.store(builder.load(raised, words(Error), 8), target, 8)
    builder.store_atomic(body.constant(0), lock, "release")
    return body.returns()


def _not(builder: Builder, condition: Row) -> Row:
    return builder.xor(condition, Constant(I1, 1))


def _size(body: NativeFunction, launch: Row) -> Row:
    """Iterations of one chunk: the launch's own, or the whole extent."""
    builder = body.builder
    extent, chunk = body.load(launch, Launch, "extent"), body.load(launch, Launch, "chunk")
    positive = builder.icmp_signed(">", chunk, body.constant(0))
    smaller = builder.icmp_signed("<", chunk, extent)
    return builder.select(builder.and_(positive, smaller), chunk, extent)


def _chunk(module: Module, fail: Function) -> Function:
    """``void chunk(const Launch *, Failure *, i64 chunk)``: call the kernel on one chunk."""
    body = NativeFunction(module, "graphc_chunk", "v", "ppq")
    builder, (launch, failure, chunk) = body.builder, body.arguments
    size = _size(body, launch)
    begin = builder.mul(chunk, size)
    rest = builder.sub(body.load(launch, Launch, "extent"), begin)
    last = builder.icmp_signed("<", rest, size)
    end = builder.add(begin, builder.select(last, rest, size))
    # each call gets an Error of its own: chunks that fail at the same time must not mix theirs
    raised = body.stack(Error)
    builder.store(zeroed(words(Error)), raised, 8)
    kernel = builder.load(body.at(launch, Launch, "kernel")[0], POINTER, 8)
    buffers, sizes = body.load(launch, Launch, "buffers"), body.load(launch, Launch, "sizes")
    status = builder.call_address(kernel, I32, [buffers, sizes, begin, end, raised])
    status = builder.sext(status, I64)
    with builder.if_then(builder.icmp_signed("!=", status, body.constant(0))):
        builder.call(fail, [failure, chunk, status, raised])
    return body.returns()


def _work(module: Module, chunk: Function) -> Function:
    """``i64 work(Pool *, i64 last)``: run chunks from one end till none is left; return how many.

    All of them belong to one step: the first claim pins it until the caller of this function
    has reported them.
    """
    body = NativeFunction(module, "graphc_work", "q", "pq")
    builder, (pool, last) = body.builder, body.arguments
    ran, zero, one = body.variable(body.constant(0)), body.constant(0), body.constant(1)
    word, _ = body.at(pool, PoolState, "ticket")
    bits, mask = body.constant(TICKET_CHUNK_BITS), body.constant(2**TICKET_CHUNK_BITS - 1)
    from_front = builder.icmp_signed("==", last, zero)
    moved = builder.select(from_front, body.constant(2**TICKET_CHUNK_BITS), zero)
    with body.loop() as (again, leave):
        ticket = body.load_atomic(pool, "ticket", "acquire")
        left = builder.and_(ticket, mask)
        body.go_if(builder.icmp_unsigned("==", left, zero), leave)
        fewer = builder.sub(builder.add(ticket, moved), one)
        taken = builder.compare_and_swap(word, ticket, fewer, "acquire")
        body.go_if(_not(builder, taken), again)
        first = builder.and_(builder.lshr(ticket, bits), mask)
        ahead = builder.select(from_front, zero, builder.sub(left, one))
        launch, failure = (body.load(pool, PoolState, name) for name in ("launch", "failure"))
        builder.call(chunk, [launch, failure, builder.add(first, ahead)])
        body.increase(ran)
    return body.returns(body.get(ran))


def _share(module: Module, work: Function, backoff: Function) -> Function:
    """``void share(Pool *, const Launch *, Failure *, i64 chunks)``: run one step with workers."""
    body = NativeFunction(module, "graphc_share", "v", "pppq")
    builder, (pool, launch, failure, chunks) = body.builder, body.arguments
    body.store(launch, pool, PoolState, "launch")
    body.store(failure, pool, PoolState, "failure")
    reported = body.load_atomic(pool, "finished")
    bits = body.constant(2 * TICKET_CHUNK_BITS)
    step = builder.add(builder.lshr(body.load_atomic(pool, "ticket"), bits), body.constant(1))
    body.store_atomic(builder.or_(builder.shl(step, bits), chunks), pool, "ticket", "release")
    ran = builder.call(work, [pool, body.constant(0)])
    expected = builder.add(reported, builder.sub(chunks, ran))
    spins = body.variable(body.constant(0))
    with body.loop() as (_, leave):
        finished = body.load_atomic(pool, "finished", "acquire")
        body.go_if(builder.icmp_signed("==", finished, expected), leave)
        builder.call(backoff, [body.get(spins)])
        body.increase(spins)
    return body.returns()


def _step(module: Module, chunk: Function, share: Function) -> Function:
    """``void step(Pool *, const Launch *, Failure *, i64 shared)``: run one row of the table."""
    body = NativeFunction(module, "graphc_step", "v", "pppq")
    builder, (pool, launch, failure, shared) = body.builder, body.arguments
    extent, size = body.load(launch, Launch, "extent"), _size(body, launch)
    number = body.variable(body.constant(0))
    done = body.block("done")
    alone = body.block("alone")
    single = body.block("single")
    body.go_if(builder.icmp_signed("<=", extent, body.constant(0)), done)
    body.go_if(builder.icmp_signed("==", extent, size), single)
    count = builder.udiv(builder.sub(extent, body.constant(1)), size)
    chunks = builder.add(count, body.constant(1))
    body.go_if(builder.icmp_signed("==", shared, body.constant(0)), alone)
    limit = body.constant(2**TICKET_CHUNK_BITS)
    body.go_if(builder.icmp_signed(">=", chunks, limit), alone)
    builder.call(share, [pool, launch, failure, chunks])
    builder.branch(done)
    body.go_on(single)
    builder.call(chunk, [launch, failure, body.constant(0)])
    builder.branch(done)
    body.go_on(alone)
    with body.loop() as (_, leave):
        body.go_if(builder.icmp_signed(">=", body.get(number), chunks), leave)
        builder.call(chunk, [launch, failure, body.get(number)])
        body.increase(number)
    builder.branch(done)
    body.go_on(done)
    return body.returns()


def _enter(body: NativeFunction, pool: Row, threads: Row) -> Row:
    """Take the pool for a program of several threads; return 1, or 0 where it is busy."""
    builder = body.builder
    shared = body.variable(body.constant(0))
    with builder.if_then(builder.icmp_signed(">", threads, body.constant(1))):
        busy, _ = body.at(pool, PoolState, "busy")
        taken = builder.compare_and_swap(busy, body.constant(0), body.constant(1), "acquire")
        builder.store(builder.zext(taken, I64), shared)
        with builder.if_then(taken):
            body.store_atomic(threads, pool, "width", "monotonic")
    return body.get(shared)


def _run(module: Module, step: Function, now: Function) -> Function:
    """``i32 graphc_run(const Call *)``."""
    body = NativeFunction(module, "graphc_run", "i", "p", internal=False)
    builder, (call,) = body.builder, body.arguments
    pool, table, count, threads, error, profile = (
        body.load(call, Call, name)
        for name in ("pool", "table", "count", "threads", "error", "profile")
    )
    null = Row(POINTER, "null")
    failure, unread = body.stack(Failure), body.stack(Error)
    target = builder.select(builder.icmp_unsigned("==", error, null), unread, error)
    for field, value in (("lock", 0), ("status", 0), ("chunk", _NO_CHUNK)):
        body.store(body.constant(value), failure, Failure, field)
    body.store(target, failure, Failure, "error")
    shared = _enter(body, pool, threads)
    row, times = body.variable(body.constant(0)), builder.icmp_unsigned("!=", profile, null)

    def note(place: Row) -> None:
        with builder.if_then(times):
            builder.store(builder.call(now, []), builder.gep(profile, place, I64), 8)

    with body.loop() as (_, leave):
        index = body.get(row)
        body.go_if(builder.icmp_signed(">=", index, count), leave)
        offset = builder.mul(index, body.constant(ctypes.sizeof(Launch)))
        launch = builder.gep(table, offset, I8)
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
    return body.returns(builder.trunc(body.load(failure, Failure, "status"), I32))


def _is_stopping(body: NativeFunction, pool: Row) -> Row:
    stopping = body.load_atomic(pool, "stopping")
    return body.builder.icmp_signed("!=", stopping, body.constant(0))


def _is_idle(
    body: NativeFunction, pool: Row, now: Function, idle_ns: Row, since: Row, index: Row
) -> Row:
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
    return builder.or_(builder.and_(idle, _not(builder, fresh)), _is_stopping(body, pool))


def _worker(module: Module, work: Function, now: Function, backoff: Function) -> None:
    """``void graphc_worker(Pool *, i64 idle_ns, i64 index)``."""
    body = NativeFunction(module, "graphc_worker", "v", "pqq", internal=False)
    builder, (pool, idle_ns, index) = body.builder, body.arguments
    zero, one = body.constant(0), body.constant(1)
    since, spins = body.variable(zero), body.variable(zero)
    body.add_atomic(pool, "awake", one, "acq_rel")
    idle = body.block("idle")
    mask = body.constant(2**TICKET_CHUNK_BITS - 1)
    with body.loop() as (again, leave):
        left = builder.and_(body.load_atomic(pool, "ticket"), mask)
        body.go_if(builder.icmp_unsigned("==", left, zero), idle)
        # a width just out of date lets in one thread too many or too few, which does no harm
        invited = builder.icmp_signed("<", index, body.load_atomic(pool, "width"))
        body.go_if(_not(builder, invited), idle)
        ran = builder.call(work, [pool, builder.and_(index, one)])
        body.go_if(builder.icmp_signed("==", ran, zero), idle)
        body.add_atomic(pool, "finished", ran, "release")
        builder.store(zero, since)
        builder.store(zero, spins)
        builder.cbranch(_is_stopping(body, pool), leave, again)
        body.go_on(idle)
        builder.call(backoff, [body.get(spins)])
        body.increase(spins)
        phase = builder.and_(body.get(spins), body.constant(_SPINS_PER_CLOCK - 1))
        body.go_if(builder.icmp_unsigned("!=", phase, zero), again)
        body.go_if(_is_idle(body, pool, now, idle_ns, since, index), leave)
    body.add_atomic(pool, "awake", body.constant(-1), "acq_rel")
    body.returns()


def write(module: Module, platform: Platform) -> Function:
    """Define the dispatcher's functions in a module; return ``graphc_run``."""
    now, backoff = _now(module, platform), _backoff(module, platform)
    chunk = _chunk(module, _fail(module, backoff))
    work = _work(module, chunk)
    _worker(module, work, now, backoff)
    return _run(module, _step(module, chunk, _share(module, work, backoff)), now)

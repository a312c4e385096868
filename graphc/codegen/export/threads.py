"""The threads of exported libraries: started when they first pay, asleep when idle, joined at last.

They do what `graphc.runtime.threads` does in Python. A forked child has none of its parent's: it
knows by its process number, and starts its own.
"""

from __future__ import annotations

import ctypes

from graphc.codegen.dispatch_layout import IDLE_NS, LINE_BYTES, STACK_BYTES, PoolState
from graphc.codegen.llvm_builder import Constant, Function, Row
from graphc.codegen.llvm_types import I1, I32, I64, POINTER
from graphc.codegen.native.function import NativeFunction
from graphc.codegen.native.module import NativeModule

MOST_THREADS = 256
"""Threads that a library uses, its caller included."""

_NULL = Row(POINTER, "null")
# At least what a mutex, a condition, a thread's attributes and a set of signals take anywhere.
_OPAQUE_BYTES = 256
_AFFINITY_BYTES = 128
_LINUX_SET_MASK, _MAC_SET_MASK = 2, 3
_MAC_ONLINE_PROCESSORS = 58


class Threads:
    """Writes the functions that start, wake and stop threads.

    Parameters
    ----------
    module : NativeModule
        Defines ``graphc_worker``.

    Attributes
    ----------
    pool : Row
        Address of the PoolState.
    wanted, wake, stop : Function
        ``i64 wanted()``: threads of a call; ``i64 wake(i64 threads)``: wake or start what is
        missing, return how many threads the call may use; ``void stop()``.
    """

    def __init__(self, module: NativeModule) -> None:
        self._module = module
        self._mac = "darwin" in module.triple or "macos" in module.triple
        self.pool = module.memory("pool", ctypes.sizeof(PoolState), LINE_BYTES)
        self.limit = module.memory("pool_threads", 8)
        self._started, self._owner, self._waking, self._gate = (
            module.memory(f"pool_{name}", 8) for name in ("started", "owner", "waking", "gate")
        )
        self._mutex, self._condition = (
            module.memory(f"pool_{name}", _OPAQUE_BYTES, 64) for name in ("mutex", "condition")
        )
        self._handles = module.memory("pool_handles", 8 * MOST_THREADS)
        self._open = self._opened()
        self._start = self._starts(self._serve())
        self.wanted = self._wanted(self._available())
        self.wake = self._wakes(self._fresh())
        self.stop = self._stops()

    def _available(self) -> Function:
        """``i64 available()``: processors that this process may use."""
        body = NativeFunction(self._module, "pool_available", "q", "")
        builder = body.builder
        if self._mac:
            number = Constant(I32, _MAC_ONLINE_PROCESSORS)
            return body.returns(body.library("sysconf", "qi", number))
        mask = body.stack_words(_AFFINITY_BYTES // 8)
        for index in range(_AFFINITY_BYTES // 8):
            body.put_word(body.constant(0), mask, index)
        size, this = body.constant(_AFFINITY_BYTES), Constant(I32, 0)
        body.library("sched_getaffinity", "iiqp", this, size, mask)
        count = self._module.declare("llvm.ctpop.i64", I64, [I64])
        total = body.constant(0)
        for index in range(_AFFINITY_BYTES // 8):
            bits = builder.call(count, [body.get_word(mask, index)])
            total = builder.add(total, bits)
        return body.returns(total)

    def _wanted(self, available: Function) -> Function:
        """``i64 wanted()``: the number that was set, or all processors."""
        body = NativeFunction(self._module, "pool_wanted", "q", "")
        builder = body.builder
        chosen = builder.load_atomic(self.limit, "monotonic")
        body.leave_if(body.is_set(chosen), chosen)
        found = builder.call(available, [])
        least, most = body.constant(1), body.constant(MOST_THREADS)
        found = builder.select(builder.icmp_signed("<", found, least), least, found)
        found = builder.select(builder.icmp_signed(">", found, most), most, found)
        builder.store_atomic(found, self.limit, "monotonic")
        return body.returns(found)

    def _opened(self) -> Function:
        """``void open()``: let every thread that sleeps, or is about to, go on."""
        body = NativeFunction(self._module, "pool_open", "v", "")
        builder = body.builder
        body.library("pthread_mutex_lock", "ip", self._mutex)
        builder.store(builder.add(body.get(self._gate), body.constant(1)), self._gate)
        body.library("pthread_cond_broadcast", "ip", self._condition)
        body.library("pthread_mutex_unlock", "ip", self._mutex)
        return body.returns()

    def _serve(self) -> Function:
        """``void *serve(void *index)``: a thread: sleep, help until idle, sleep again."""
        body = NativeFunction(self._module, "pool_serve", "p", "p")
        builder, (argument,) = body.builder, body.arguments
        index, seen = builder.ptrtoint(argument, I64), body.variable(body.constant(0))
        worker = self._module.functions["graphc_worker"]
        end = body.block("end")
        with body.loop():
            body.library("pthread_mutex_lock", "ip", self._mutex)
            with body.loop() as (_, leave):
                same = builder.icmp_signed("==", body.get(self._gate), body.get(seen))
                body.go_if(builder.xor(same, Constant(I1, 1)), leave)
                body.go_if(body.is_set(body.load_atomic(self.pool, "stopping")), leave)
                body.library("pthread_cond_wait", "ipp", self._condition, self._mutex)
            builder.store(body.get(self._gate), seen)
            body.library("pthread_mutex_unlock", "ip", self._mutex)
            body.go_if(body.is_set(body.load_atomic(self.pool, "stopping")), end)
            builder.call(worker, [self.pool, body.constant(IDLE_NS), index])
        builder.branch(end)
        body.go_on(end)
        return body.returns(_NULL)

    def _starts(self, serve: Function) -> Function:
        """``void start(i64 helpers)``: start threads up to this number, or as many as there can be.

        They take no signals: these are the caller's.
        """
        body = NativeFunction(self._module, "pool_start", "v", "q")
        builder, (helpers,) = body.builder, body.arguments
        attributes, every, before = (body.stack_words(_OPAQUE_BYTES // 8) for _ in range(3))
        mask = Constant(I32, _MAC_SET_MASK if self._mac else _LINUX_SET_MASK)
        stack = body.constant(STACK_BYTES)
        body.library("pthread_attr_init", "ip", attributes)
        body.library("pthread_attr_setstacksize", "ipq", attributes, stack)
        body.library("sigfillset", "ip", every)
        body.library("pthread_sigmask", "iipp", mask, every, before)
        with body.loop() as (_, leave):
            count = body.get(self._started)
            body.go_if(builder.icmp_signed(">=", count, helpers), leave)
            index = builder.add(count, body.constant(1))
            made = body.library(
                "pthread_create", "ipppp", body.word(self._handles, count), attributes,
                self._module.address(serve), builder.inttoptr(index, POINTER),
            )  # fmt: skip
            body.go_if(body.is_set(made), leave)
            builder.store(index, self._started)
        body.library("pthread_sigmask", "iipp", mask, before, _NULL)
        body.library("pthread_attr_destroy", "ip", attributes)
        return body.returns()

    def _process(self, body: NativeFunction) -> Row:
        return body.builder.sext(body.library("getpid", "i"), I64)

    def _fresh(self) -> Function:
        """``void fresh(i64 process)``: begin with no threads, in a process that never had any."""
        body = NativeFunction(self._module, "pool_fresh", "v", "q")
        builder, (process,) = body.builder, body.arguments
        for index in range(ctypes.sizeof(PoolState) // 8):
            body.put_word(body.constant(0), self.pool, index)
        builder.store(body.constant(0), self._started)
        builder.store(body.constant(0), self._gate)
        body.library("pthread_mutex_init", "ipp", self._mutex, _NULL)
        body.library("pthread_cond_init", "ipp", self._condition, _NULL)
        builder.store_atomic(process, self._owner, "release")
        return body.returns()

    def _wakes(self, fresh: Function) -> Function:
        body = NativeFunction(self._module, "pool_wake", "q", "q")
        builder, (threads,) = body.builder, body.arguments
        zero, one = body.constant(0), body.constant(1)
        process, helpers = self._process(body), builder.sub(threads, one)
        owner = builder.load_atomic(self._owner, "acquire")
        mine = builder.icmp_signed("==", owner, process)
        enough = builder.icmp_signed(">=", body.load_atomic(self.pool, "awake"), helpers)
        body.leave_if(builder.and_(mine, enough), threads)
        # Who holds the flag is waking them already; a pool that is not ready is left alone.
        taken = builder.compare_and_swap(self._waking, zero, one, "acquire")
        free = builder.xor(taken, Constant(I1, 1))
        body.leave_if(free, builder.select(mine, threads, one))
        owner = builder.load_atomic(self._owner, "acquire")  # as it is with the flag held
        with builder.if_then(builder.icmp_signed("!=", owner, process)):
            builder.call(fresh, [process])
        builder.call(self._start, [helpers])
        builder.call(self._open, [])
        builder.store_atomic(zero, self._waking, "release")
        return body.returns(threads)

    def _stops(self) -> Function:
        body = NativeFunction(self._module, "pool_stop", "v", "")
        builder, zero, one = body.builder, body.constant(0), body.constant(1)
        owner = builder.load_atomic(self._owner, "acquire")
        none = builder.icmp_signed("!=", owner, self._process(body))
        with builder.if_then(none):
            builder.ret()
        body.store_atomic(one, self.pool, "stopping", "release")
        builder.call(self._open, [])
        with body.count(body.get(self._started)) as index:
            handle = body.get_word(self._handles, index)
            body.library("pthread_join", "iqp", handle, _NULL)
        builder.store(zero, self._started)
        body.store_atomic(zero, self.pool, "stopping", "release")
        return body.returns()



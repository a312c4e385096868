"""The life of the thread pool: lazy start, parking, change of size, exit and fork."""

from __future__ import annotations

import _thread
import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from graphc import config
from graphc.codegen.dispatch import Call, allocate_pool, dispatcher
from graphc.codegen.dispatch_layout import IDLE_NS, STACK_BYTES, PoolState
from graphc.errors import ArgumentError

_JOIN_S = 5.0
_Help = Callable[[int, int, int], None]


class _Worker:
    """One thread and the gate it waits at while parked; a locked gate is a closed one."""

    def __init__(self, help_programs: _Help, state: PoolState, index: int) -> None:
        self.gate = _thread.allocate_lock()  # open: a new worker starts out awake
        arguments = (help_programs, state, self.gate, index)
        self.thread = threading.Thread(
            target=_serve, args=arguments, name=f"graphc-worker-{index}", daemon=True
        )
        usual = threading.stack_size(STACK_BYTES)
        try:
            self.thread.start()
        finally:
            threading.stack_size(usual)

    def wake(self) -> None:
        """Open the gate; an open one stays so, and the worker's next wait is over at once."""
        with suppress(RuntimeError):  # already open, maybe by another caller just now
            self.gate.release()


def _serve(help_programs: _Help, state: PoolState, gate: _thread.LockType, index: int) -> None:
    """Park, help until idle, park again; ends when the pool is stopping."""
    address = ctypes.addressof(state)
    while True:
        gate.acquire()
        if state.stopping:
            return
        help_programs(address, IDLE_NS, index)


def _end(state: PoolState, workers: list[_Worker]) -> None:
    """Make the workers leave and wait for them; a chunk in progress is run to its end."""
    state.stopping = 1
    for worker in workers:
        worker.wake()
    for worker in workers:
        # the garbage collector may call this on a worker's own thread
        if worker.thread is not threading.current_thread():
            worker.thread.join(_JOIN_S)
    workers.clear()


class Pool:
    """Threads that run the parallel steps of programs together with the calling thread.

    Worker threads start at the first ``wake`` that finds too few, park when no program ran for a
    millisecond, and end with the pool, at exit at the latest. A forked child starts with none.
    One program at a time uses the workers; another caller's runs on its own thread meanwhile.

    Parameters
    ----------
    threads : int, optional
        Threads of a program, its caller included; by default the option ``threads``, which is
        the number of processors this process may use.

    Attributes
    ----------
    address : int
        Address of the native PoolState, for ``dispatcher().run``; never changes.

    Raises
    ------
    ArgumentError
        If ``threads`` is not a positive integer.

    Examples
    --------
    >>> pool = Pool(2)
    >>> pool.threads, pool.parked
    (2, True)
    >>> pool.stop()
    """

    def __init__(self, threads: int | None = None) -> None:
        self._state = allocate_pool()
        self.address = ctypes.addressof(self._state)
        self._lock = _thread.allocate_lock()
        self._workers: list[_Worker] = []
        self.threads = config.current().threads if threads is None else threads
        # finalize also runs at exit, before the interpreter takes its threads down
        self._finalizer = weakref.finalize(self, _end, self._state, self._workers)
        _pools.add(self)

    @property
    def threads(self) -> int:
        """Threads of a program; a change takes effect at the next ``wake``."""
        return self._helpers + 1

    @threads.setter
    def threads(self, threads: int) -> None:
        if not isinstance(threads, int) or threads < 1:
            raise ArgumentError(f"threads must be a positive integer, got {threads!r}")
        self._helpers = threads - 1

    @property
    def parked(self) -> bool:
        """Whether no worker is spinning or running."""
        return int(self._state.awake) == 0

    def wake(self) -> None:
        """Wake the workers, without waiting for them; cheap where they are awake.

        To be called before a program with parallel steps. A worker that wakes late joins in
        where the program is by then, and a system that grants no thread leaves the work to the
        caller: results are the same.
        """
        if self._state.awake < self._helpers:
            self._wake_parked()

    def run(self, call: Call) -> int:
        """Wake the workers and walk a launch table; see ``Dispatcher.run``.

        Parameters
        ----------
        call : Call
            Its pool and threads are set here.

        Returns
        -------
        int
            0, or the status of the kernel that failed.
        """
        self.lend(call)
        return dispatcher().run(ctypes.addressof(call))

    def lend(self, call: Call) -> None:
        """Wake the workers for a launch table that is walked next; see ``run``."""
        self.wake()
        call.pool, call.threads = self.address, self.threads

    def stop(self) -> None:
        """End the workers for good; programs run on their caller's thread from now on."""
        self._finalizer()

    def _wake_parked(self) -> None:
        # whoever holds the lock is waking them already
        if not self._finalizer.alive or not self._lock.acquire(blocking=False):
            return
        try:
            self._start_missing()
            for worker in self._workers[: self._helpers]:
                worker.wake()
        finally:
            self._lock.release()

    def _start_missing(self) -> None:
        # compiled here, not on a new thread, whose failure nobody would see
        help_programs = dispatcher().worker
        # RuntimeError: no more threads, because of the system's limit or since the interpreter is
        # on its way out. The caller does the absent workers' part, so there is nothing to report.
        with suppress(RuntimeError):
            while len(self._workers) < self._helpers:
                index = len(self._workers) + 1
                self._workers.append(_Worker(help_programs, self._state, index))

    def _restart(self) -> None:
        """Forget, in a forked child, the threads and locks that stayed with the parent."""
        ctypes.memset(self.address, 0, ctypes.sizeof(PoolState))
        self._workers.clear()
        self._lock = _thread.allocate_lock()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_default: dict[str, Pool] = {}


def default_pool() -> Pool:
    """Return the process's pool, made at the first call with ``config.current().threads``."""
    found = _default.get("pool")
    return found or _default.setdefault("pool", Pool())


def _restart_pools() -> None:
    for pool in list(_pools):
        pool._restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_pools)

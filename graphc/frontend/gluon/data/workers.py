"""Worker processes of a DataLoader.

Each worker has one socket to its parent. Batch ``n`` goes to worker ``n % count`` and is
received in that order. In the worker two daemon threads keep the socket moving: one takes tasks,
and ends the process when the parent's side closes, the other sends results, so computing never
waits for the parent. Whatever happens to a worker, the parent sees the socket close.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import random
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from graphc import lazy
from graphc.errors import ArgumentError, DataLoaderError, nearest, user_location
from graphc.frontend.gluon.data.channel import encode, read_blocking, receive, send
from graphc.frontend.gluon.data.fetch import Fetcher, shorten
from graphc.runtime import random as graphc_random

# How often a silent worker is checked for life while its batch is awaited.
_POLL_S = 0.5
_GRACE_S = 2.0
# The parent's ends of all live sockets: a forked child closes its copies, so that a socket's
# closing is seen by the one worker it belongs to.
_parent_ends: weakref.WeakSet[socket.socket] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class _Task:
    position: int
    indices: list[Any]


@dataclass(frozen=True, slots=True)
class _Failure:
    headline: str
    traceback_text: str


@dataclass(frozen=True, slots=True)
class _Worker:
    process: Any
    channel: socket.socket


class WorkerPool:
    """Worker processes that fetch batches.

    Parameters
    ----------
    fetcher : Fetcher
        Dataset and batchify function.
    count : int
        Number of processes.
    seed : int
        Batch ``n`` of the epoch is fetched with Python's, NumPy's and graphc's generators seeded
        from (seed, n), so random transforms do not depend on the number of workers.
    timeout_s : float
        How long a batch may take to arrive.
    start_method : {"fork", "spawn", "forkserver"}, optional
        Fork where the system has it by default.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        count: int,
        seed: int,
        timeout_s: float,
        start_method: str | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._timeout_s = timeout_s
        self._tasks: dict[int, _Task] = {}
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _shut_down, self._workers, os.getpid())
        method = check_start_method(start_method)
        payload = fetcher if method == "fork" else lazy.cloudpickle().dumps(fetcher, protocol=5)
        try:
            for number in range(count):
                self._workers.append(_start(method, payload, seed, number))
        except BaseException:
            self.close()
            raise

    def submit(self, position: int, indices: Sequence[Any]) -> None:
        """Let batch ``position`` be fetched."""
        task = _Task(position, list(indices))
        self._tasks[position] = task
        worker = self._worker(position)
        worker.channel.settimeout(self._timeout_s)
        try:
            send(worker.channel, encode(task))
        except TimeoutError:
            self._fail_late(task)
        except OSError:
            self._fail_dead(task, worker)

    def receive(self, position: int) -> Any:
        """Return batch ``position``, the oldest one submitted and not received.

        Raises
        ------
        DataLoaderError
            The worker raised, died or took too long; the pool is closed then.
        """
        task = self._tasks.pop(position)
        worker = self._worker(position)
        deadline_s = time.monotonic() + self._timeout_s
        result = receive(lambda memory: self._read_into(memory, task, worker, deadline_s))
        if isinstance(result, _Failure):
            self.close()
            raise DataLoaderError(
                f"a DataLoader worker failed: {result.headline}\n\n"
                f"Traceback of the worker:\n{result.traceback_text.rstrip()}",
                remedy="num_workers=0 runs the same code in this process, for a debugger.",
                where=user_location(),
            )
        return result

    def close(self) -> None:
        """End the workers; harmless when they have ended."""
        self._finalizer()

    def _worker(self, position: int) -> _Worker:
        if not self._workers:
            raise DataLoaderError("the DataLoader's workers have been closed")
        return self._workers[position % len(self._workers)]

    def _read_into(
        self, memory: memoryview, task: _Task, worker: _Worker, deadline_s: float
    ) -> None:
        while memory.nbytes:
            left_s = deadline_s - time.monotonic()
            worker.channel.settimeout(max(0.001, min(_POLL_S, left_s)))
            try:
                count = worker.channel.recv_into(memory)
            except TimeoutError:
                if not worker.process.is_alive():
                    self._fail_dead(task, worker)
                if left_s <= 0:
                    self._fail_late(task)
                continue
            except OSError:
                count = 0
            if count == 0:
                self._fail_dead(task, worker)
            memory = memory[count:]

    def _fail_dead(self, task: _Task, worker: _Worker) -> NoReturn:
        worker.process.join(_GRACE_S)
        code = worker.process.exitcode
        given = [task, *(t for t in self._tasks.values() if self._worker(t.position) is worker)]
        lost = _shown({t.position: t for t in given}.values(), self._fetcher.describe())
        self.close()
        raise DataLoaderError(
            f"a DataLoader worker died ({_ending(code)}) and did not deliver {lost}",
            remedy="Killed: memory may have run out; use fewer workers or smaller batches. Ended "
            "by itself: its message is on standard error, and num_workers=0 shows the cause here; "
            "a script that spawns workers needs `if __name__ == '__main__':`.",
            where=user_location(),
        )

    def _fail_late(self, task: _Task) -> NoReturn:
        self.close()
        late = _shown([task], self._fetcher.describe())
        raise DataLoaderError(
            f"a DataLoader worker did not deliver {late} within {self._timeout_s:g} s",
            remedy="Raise timeout= if items take that long; num_workers=0 shows where they hang.",
            where=user_location(),
        )


def check_start_method(name: str | None) -> str:
    """Return how worker processes start, or raise an ArgumentError for an unknown name."""
    available = multiprocessing.get_all_start_methods()
    if name is None:
        return "fork" if "fork" in available else "spawn"
    if name not in available:
        hint = nearest(str(name), available)
        raise ArgumentError(
            f"start_method must be one of {', '.join(available)}, not {name!r}.{hint}",
            where=user_location(),
        )
    return name


def _start(method: str, payload: Any, seed: int, number: int) -> _Worker:
    """Start one process; return it with the parent's end of its socket."""
    parent_end, child_end = socket.socketpair()
    _parent_ends.add(parent_end)
    process = multiprocessing.get_context(method).Process(  # type: ignore[attr-defined]
        target=_work,
        args=(child_end, payload, seed),
        name=f"graphc-data-{number}",
        daemon=True,
    )
    try:
        with warnings.catch_warnings():
            # Python warns of forking beside threads; the child uses none of the parent's.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    except BaseException:
        parent_end.close()
        raise
    finally:
        child_end.close()
    return _Worker(process, parent_end)


def _shut_down(workers: list[_Worker], owner: int) -> None:
    """Close the sockets, which ends the workers, and reap them; kill those that stay."""
    if os.getpid() != owner:
        return  # a forked copy of the pool: the workers belong to the parent
    for worker in workers:
        worker.channel.close()
    deadline_s = time.monotonic() + _GRACE_S
    for worker in workers:
        worker.process.join(max(0.0, deadline_s - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()
    workers.clear()


def _shown(tasks: Iterable[_Task], dataset: str) -> str:
    """Return what errors call the batches of ``dataset``."""
    batches = [f"batch {task.position} (items {shorten(task.indices)})" for task in tasks]
    more = f" and {len(batches) - 3} more" if len(batches) > 3 else ""
    return f"{', '.join(batches[:3])}{more} of {dataset}"


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


# --- in the worker ------------------------------------------------------------------------


def _work(channel: socket.socket, payload: Any, seed: int) -> None:
    """Run in the child: fetch batch after batch until the parent closes the socket."""
    _detach_from_parent()
    tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
    results: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
    for target, box in ((_take_tasks, tasks), (_send_results, results)):
        threading.Thread(target=target, args=(channel, box), daemon=True).start()
    fetcher, broken = _unpack(payload)
    while True:
        task = tasks.get()
        results.put(_attempt(fetcher, task, seed) if broken is None else encode(broken))


def _detach_from_parent() -> None:
    # Ctrl-C reaches the whole group; the parent's iterator decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for inherited in list(_parent_ends):
        inherited.close()


def _unpack(payload: Any) -> tuple[Any, _Failure | None]:
    """Return the fetcher of a forked or spawned worker, or why it cannot be rebuilt."""
    if not isinstance(payload, bytes):
        return payload, None
    try:
        return pickle.loads(payload), None
    except Exception as error:
        return None, _failure(error, "while rebuilding the dataset in a spawned worker")


def _attempt(fetcher: Fetcher, task: _Task, seed: int) -> list[Any]:
    try:
        _seed_everything(seed, task.position)
        return encode(fetcher.fetch(task.indices))
    # SystemExit from a transform must not look like a death.
    except BaseException as error:
        note = f"while loading items {shorten(task.indices)} of {fetcher.describe()}"
        return encode(_failure(error, note))


def _failure(error: BaseException, default_note: str) -> _Failure:
    note = getattr(error, "__notes__", [default_note])[0]
    text = "".join(traceback.format_exception(error))
    return _Failure(f"{type(error).__name__}: {error} ({note})", text)


def _seed_everything(seed: int, position: int) -> None:
    first, second = np.random.SeedSequence([seed, position]).generate_state(2).tolist()
    random.seed(first)
    np.random.seed(second)
    graphc_random.seed(first << 31 | second >> 1)


def _take_tasks(channel: socket.socket, tasks: queue.SimpleQueue[_Task]) -> None:
    read_into = read_blocking(channel)
    try:
        while True:
            tasks.put(receive(read_into))
    except (EOFError, OSError):
        _leave()


def _send_results(channel: socket.socket, results: queue.SimpleQueue[list[Any]]) -> None:
    try:
        while True:
            send(channel, results.get())
    except OSError:
        _leave()


def _leave() -> NoReturn:
    """End the process at once, whatever its main thread is doing; the parent is not listening."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(0)

"""Compiling several kernels at once: this process, and worker processes that help.

The caller takes kernels from the front of the list, workers from the back. Whatever a worker has
not answered in time, because it was killed, hangs, or never started, the caller compiles itself:
nothing waits for a worker. Processes, because Numba's front end holds the interpreter's lock and
llvmlite has one of its own; started afresh, because forking a process with threads is unsafe.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphc.codegen.worker_main import receive, send
from graphc.ir.target import Target

KERNELS_PER_WORKER = 12
"""A worker starts in the time that this many kernels take to compile."""

PATIENCE_S = 0.5
"""How long the caller waits for a worker's last kernel before it compiles that one itself."""

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from graphc.codegen import worker_main; worker_main.main()"
)

Compile = Callable[[str, Target], bytes]


class _Worker:
    """One process; `answer` blocks until it has compiled a text."""

    def __init__(self) -> None:
        path = [str(Path(__file__).resolve().parents[2]), *sys.path]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def answer(self, text: str, target: Target) -> bytes | None:
        send(self.process.stdin, (text, target))  # type: ignore[arg-type]
        return receive(self.process.stdout)  # type: ignore[arg-type,no-any-return]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # it is gone already
                stream.close()  # type: ignore[union-attr]
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _Batch:
    """The kernels of one call: what is still to do, and what is done."""

    def __init__(self, texts: Sequence[str], target: Target):
        self.texts = texts
        self.target = target
        self.waiting = list(range(len(texts)))
        self.codes: dict[int, bytes] = {}
        self.changed = threading.Condition()

    def take(self, from_end: bool) -> int | None:
        with self.changed:
            if not self.waiting:
                return None
            return self.waiting.pop(-1 if from_end else 0)

    def done(self, position: int, code: bytes | None) -> None:
        with self.changed:
            if code is not None:
                self.codes.setdefault(position, code)
            self.changed.notify_all()

    def unanswered(self, wait_s: float) -> list[int]:
        """Return what is not done yet, after waiting for it as long as it keeps coming."""
        with self.changed:
            while len(self.codes) < len(self.texts):
                before = len(self.codes)
                self.changed.wait(wait_s)
                if len(self.codes) == before:
                    break
            return [k for k in range(len(self.texts)) if k not in self.codes]


def compile_texts(
    texts: Sequence[str], target: Target, compile_here: Compile, workers: int
) -> list[bytes]:
    """Return the object code of each text.

    Parameters
    ----------
    texts : sequence of str
        Kernel texts, `python_text.source`.
    target : Target
    compile_here : callable
        ``compile_here(text, target) -> bytes``; what it raises is raised here.
    workers : int
        Most processes to use, this one included; fewer where there is too little to do.
    """
    batch = _Batch(texts, target)
    for worker in _hire(min(workers - 1, len(texts) // KERNELS_PER_WORKER)):
        threading.Thread(target=_serve, args=(worker, batch), daemon=True).start()
    while (position := batch.take(from_end=False)) is not None:
        batch.done(position, compile_here(texts[position], target))
    for position in batch.unanswered(PATIENCE_S):
        batch.done(position, compile_here(texts[position], target))
    return [batch.codes[k] for k in range(len(texts))]


_idle: list[_Worker] = []
_lock = threading.Lock()


def _hire(count: int) -> list[_Worker]:
    """Return up to ``count`` workers, idle ones first."""
    hired: list[_Worker] = []
    with _lock:
        while _idle and len(hired) < count:
            worker = _idle.pop()
            if worker.alive:
                hired.append(worker)
    with contextlib.suppress(OSError):  # no more processes: the caller does the work
        while len(hired) < count and not getattr(sys, "frozen", False) and sys.executable:
            hired.append(_Worker())
    return hired


def _serve(worker: _Worker, batch: _Batch) -> None:
    """Feed a worker until nothing is left; then it waits for the next batch."""
    position: int | None
    while (position := batch.take(from_end=True)) is not None:
        try:
            code = worker.answer(batch.texts[position], batch.target)
        except Exception:  # killed, or its answer is no message: the caller compiles it
            batch.done(position, None)
            worker.process.kill()
            worker.end()
            return
        batch.done(position, code)
    with _lock:
        _idle.append(worker)


def shut_down() -> None:
    """End every idle worker."""
    with _lock:
        workers, _idle[:] = list(_idle), []
    for worker in workers:
        worker.end()


def idle_processes() -> list[int]:
    """Return the process ids of workers that wait for work."""
    with _lock:
        return [worker.process.pid for worker in _idle if worker.alive]


def _forget() -> None:
    """Leave the workers to the parent process: close this child's ends of their pipes."""
    global _lock
    _lock = threading.Lock()
    for worker in _idle:
        for stream in (worker.process.stdin, worker.process.stdout):
            os.close(stream.fileno())  # type: ignore[union-attr]
        worker.process.returncode = 0  # so that nobody here waits for it
    _abandoned.extend(_idle)
    _idle.clear()


# Their file objects would close descriptor numbers that may belong to others by then.
_abandoned: list[Any] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(shut_down)

"""Locks on buffers that programs update: calls that share one wait for each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from graphc.ir.plan import ALIGNMENT

MOST_SETS = 64
"""Sets of buffers whose locks are remembered."""


class BufferLocks:
    """Locks that calls hold on the buffers they update; few for all buffers, by address."""

    def __init__(self, count: int = 64) -> None:
        self.count = count
        self.restart()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.restart)

    def restart(self) -> None:
        """Make new locks: those that other threads held would stay locked in a forked child."""
        self._locks = [threading.Lock() for _ in range(self.count)]
        self._chosen: dict[tuple[int, ...], list[threading.Lock]] = {}

    def of(self, addresses: Sequence[int]) -> list[threading.Lock]:
        """Return the locks of buffers, in the order in which every call has to take them."""
        key = tuple(addresses)
        found = self._chosen.get(key)
        if found is None:
            numbers = {place // ALIGNMENT % self.count for place in key}
            found = [self._locks[i] for i in sorted(numbers)]
            if len(self._chosen) >= MOST_SETS:
                self._chosen.clear()
            self._chosen[key] = found
        return found


_updating = BufferLocks()


class alone:  # noqa: N801  # a function to its users
    """A context in which no other call updates the buffers at some addresses."""

    __slots__ = ("_held", "_locks")

    def __init__(self, addresses: Sequence[int]) -> None:
        self._locks = _updating.of(addresses)
        self._held: list[threading.Lock] = []

    def __enter__(self) -> None:
        try:
            for lock in self._locks:
                lock.acquire()
                self._held.append(lock)
        except BaseException:  # interrupted while waiting
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for lock in self._held:
            lock.release()

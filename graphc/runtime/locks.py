"""Locks on buffers that programs update: calls that share one wait for each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from graphc.ir.plan import ALIGNMENT

_COUNT = 64
"""Locks for all buffers, by address; the bits of a number say which of them a call takes."""


def locks_of(addresses: Iterable[int]) -> int:
    """Return the locks of buffers as the bits of a number."""
    found = 0
    for place in addresses:
        found |= 1 << place // ALIGNMENT % _COUNT
    return found


class Locks:
    """Locks that are taken together: which are taken now, and who waits for some."""

    def __init__(self) -> None:
        self.restart()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.restart)

    def restart(self) -> None:
        """Begin anew: locks that other threads held would stay so in a forked child."""
        self.taken = self.waiting = 0
        self.gate = threading.Lock()
        self.freed = threading.Condition(self.gate)


_locks = Locks()


class alone:  # noqa: N801  # a function to its users
    """A context in which no other call updates buffers with some of these locks.

    Parameters
    ----------
    wanted : int
        As `locks_of` returns it.
    """

    __slots__ = ("_held", "_wanted")

    def __init__(self, wanted: int) -> None:
        self._wanted, self._held = wanted, 0

    def __enter__(self) -> None:
        wanted = self._wanted
        try:
            with _locks.gate:
                if _locks.taken & wanted:
                    self._wait()
                # An interrupt comes before or behind both.
                _locks.taken |= wanted
                self._held = wanted
        except BaseException:
            self.__exit__()
            raise

    def _wait(self) -> None:
        _locks.waiting += 1
        try:
            while _locks.taken & self._wanted:
                _locks.freed.wait()
        finally:
            _locks.waiting -= 1

    def __exit__(self, *_: object) -> None:
        with _locks.gate:
            _locks.taken &= ~self._held
            if _locks.waiting:
                _locks.freed.notify_all()

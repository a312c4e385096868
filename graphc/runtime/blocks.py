"""Memory of large outputs, kept when an array is gone and lent to the next of its size.

Memory fresh from the system is mapped page by page as a kernel first writes to it, which for tens
of megabytes takes longer than the kernel. The C library reuses what it gave to small arrays; what
is large it returns to the system at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

Allocate = Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray]

PAGE_BYTES = 4096
"""What arrays begin at a multiple of. Processors take a read for one of memory stored just now
while 12 bits of their addresses agree; of what begins alike, reads never run into stores behind.
"""
LEAST_BYTES = 1 << 20
"""Smaller arrays get their memory from NumPy."""
MOST_BYTES = 256 << 20
"""Memory that is kept for arrays to come; what was given back first is returned first."""

# Each step on this dict is atomic, so threads need no lock. One could deadlock: the garbage
# collector may run `_Lent.__del__` at any point of `_kept`, even while the dict is read.
_free: dict[int, np.ndarray] = {}


class _Lent:
    """What the memory of one output belongs to, for as long as any view of it lives."""

    __slots__ = ("__array_interface__", "memory")

    def __init__(self, memory: np.ndarray, n_bytes: int) -> None:
        start = memory.__array_interface__["data"][0]
        aligned = -(-start // PAGE_BYTES) * PAGE_BYTES
        self.memory = memory
        self.__array_interface__ = {
            "version": 3, "shape": (n_bytes,), "typestr": "|u1", "data": (aligned, False),
        }  # fmt: skip

    def __del__(self) -> None:
        _give_back(self.memory)


def allocator(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Allocate:
    """Return what makes arrays of this shape: `numpy.empty` for small ones, else `empty`."""
    small = math.prod(shape) * dtype.itemsize < LEAST_BYTES
    return np.empty if small else empty


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Return an array with arbitrary elements in memory that was given back, or else is fresh.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy.dtype

    Returns
    -------
    numpy.ndarray
        It begins at a multiple of `PAGE_BYTES` bytes; nothing else uses its memory while a view of
        it lives.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = _kept(n_bytes + PAGE_BYTES)
    if memory is None:
        memory = np.empty(n_bytes + PAGE_BYTES, np.uint8)
    return np.ndarray(shape, dtype, np.asarray(_Lent(memory, n_bytes)))


def kept_bytes() -> int:
    """Return how much memory waits for arrays to come."""
    return sum(memory.nbytes for memory in _waiting())


def forget() -> None:
    """Give all of it back to the system."""
    _free.clear()


def _waiting() -> list[np.ndarray]:
    """Return what was given back, the oldest first."""
    while True:
        with suppress(RuntimeError):  # memory was given back while the dict was read
            return list(_free.values())


def _kept(n_bytes: int) -> np.ndarray | None:
    """Take memory of this size that was given back."""
    for memory in reversed(_waiting()):
        # Another thread may have taken it meanwhile.
        if memory.nbytes == n_bytes and _free.pop(id(memory), None) is not None:
            return memory
    return None


def _give_back(memory: np.ndarray) -> None:
    """Keep memory that nothing uses any more, and return what is over `MOST_BYTES`."""
    if memory.nbytes > MOST_BYTES:
        return
    _free[id(memory)] = memory
    waiting = _waiting()
    excess = sum(one.nbytes for one in waiting) - MOST_BYTES
    for oldest in waiting:
        if excess <= 0:
            break
        _free.pop(id(oldest), None)
        excess -= oldest.nbytes

"""Page-locked host memory: copies between it and a device run while the host goes on."""

from __future__ import annotations

import ctypes
from collections import deque
from typing import Any

import numpy as np

from graphc import lazy

PIECE_BYTES = 16 << 20
"""The most that is copied at once."""
LEAST_BYTES = 1 << 12
MOST_BYTES = 256 << 20
"""Page-locked memory of a device: copies wait for earlier ones rather than take more."""


class Staging:
    """Pieces of page-locked memory, each lent to one copy after the other."""

    def __init__(self) -> None:
        self._resource = lazy.cuda_core().LegacyPinnedMemoryResource()
        self._free: dict[int, list[Any]] = {}
        self._busy: deque[tuple[Any, Any]] = deque()
        self.total_bytes = 0

    def take(self, n_bytes: int) -> Any:
        """Return a buffer of at least so many bytes, up to `PIECE_BYTES`, that no copy uses."""
        size = max(LEAST_BYTES, 1 << (n_bytes - 1).bit_length())
        while self._busy and self._busy[0][0].is_done:
            self._collect()
        while not self._free.get(size):
            if self.total_bytes + size <= MOST_BYTES or not self._busy:
                self.total_bytes += size
                return self._resource.allocate(size)
            self._busy[0][0].sync()
            self._collect()
        return self._free[size].pop()

    def give_back(self, buffer: Any, event: Any = None) -> None:
        """Take a buffer back: it is free at once, or when an event has happened."""
        if event is None:
            self._free.setdefault(buffer.size, []).append(buffer)
        else:
            self._busy.append((event, buffer))

    def _collect(self) -> None:
        _, buffer = self._busy.popleft()
        self.give_back(buffer)


def view(buffer: Any, n_bytes: int) -> np.ndarray:
    """Return the first bytes of a buffer in host memory."""
    memory: Any = (ctypes.c_ubyte * n_bytes).from_address(int(buffer.handle))
    return np.frombuffer(memory, np.uint8)


def as_bytes(array: np.ndarray) -> np.ndarray:
    """Return the bytes of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8)

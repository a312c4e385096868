"""What a program computes from parameters alone, kept until one of them is written."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from graphc.frontend.array import Array, Storage
from graphc.frontend.build import Parts


class Prepared:
    """A program cut in two, with the results of its first part.

    Calls may come from several threads: a set of results is replaced as a whole, and a call that
    runs with an older one keeps it alive.

    Parameters
    ----------
    parts : Parts
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._lock = threading.Lock()
        self._kept: tuple[list[tuple[Storage, int]], list[np.ndarray]] | None = None

    def __call__(self, operands: Sequence[Array], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run on the inputs of the whole program: handles, and their arrays."""
        values = self.values(operands, arrays)
        return self.parts.main([*values, *[arrays[place] for place in self.parts.rest]])

    def values(self, operands: Sequence[Array], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the prepared values, computed anew where a parameter was written since."""
        sources = [operands[place]._storage for place in self.parts.given]
        kept = self._kept
        if kept is not None and _fresh(kept[0], sources):
            return kept[1]
        with self._lock:
            kept = self._kept
            if kept is not None and _fresh(kept[0], sources):
                return kept[1]
            # Versions are read first: what is written meanwhile is seen by the next call.
            stamps = [(source, source.version) for source in sources]
            self._kept = None
            values = self.parts.prepare([arrays[place] for place in self.parts.given])
            self._kept = stamps, values
        return values


def _fresh(stamps: Sequence[tuple[Storage, int]], sources: Sequence[Storage]) -> bool:
    """Return whether storages are those of the stamps, not written since, and not by others."""
    for (storage, version), source in zip(stamps, sources):
        if storage is not source or storage.version != version or storage.exposed:
            return False
    return True

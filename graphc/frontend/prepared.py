"""What a program computes from parameters alone, kept until one of them is written."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.frontend.array import Array, Storage
from graphc.frontend.build import Parts


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Kept:
    """Prepared values, with the versions of what they were computed from."""

    stamps: tuple[tuple[Storage, int], ...]
    values: tuple[np.ndarray, ...]

    def fresh(self) -> bool:
        """Return whether nothing was written since, and nobody else can write."""
        for storage, version in self.stamps:
            if storage.version != version or storage.exposed:
                return False
        return True


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
        self.kept: Kept | None = None

    def __call__(self, operands: Sequence[Array], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run on the inputs of the whole program: handles, and their arrays."""
        values = self.values(operands, arrays)
        return self.parts.main([*values, *[arrays[place] for place in self.parts.rest]])

    def values(
        self, operands: Sequence[Array], arrays: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, ...]:
        """Return the prepared values, computed anew where a parameter was written since."""
        sources = [operands[place]._storage for place in self.parts.given]
        with self._lock:
            kept = self.kept
            if kept is None or not _of(kept, sources) or not kept.fresh():
                # Versions are read first: what is written meanwhile is seen by the next call.
                stamps = tuple((source, source.watch()) for source in sources)
                self.kept = None
                values = self.parts.prepare([arrays[place] for place in self.parts.given])
                self.kept = kept = Kept(stamps, tuple(values))
        return kept.values


def _of(kept: Kept, sources: Sequence[Storage]) -> bool:
    """Return whether values were computed from these arrays."""
    return all(one is other for (one, _), other in zip(kept.stamps, sources, strict=True))

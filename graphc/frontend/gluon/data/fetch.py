"""Makes one batch of a dataset; the same code runs in the caller, in a thread and in a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.frontend.context import HOST
from graphc.frontend.gluon.data.batchify import (
    Batchify,
    default_batchify_fn,
    ship,
    unship,
    wrap_batch,
)
from graphc.frontend.gluon.data.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Fetcher:
    """A dataset and how its items become a batch.

    Attributes
    ----------
    dataset : Dataset or sequence
        Where the items come from.
    batchify_fn : callable
        One of graphc's, or a user's, which sees the items that indexing the dataset gives.
    """

    dataset: Any
    batchify_fn: Callable[[list[Any]], Any]

    def fetch(self, indices: Sequence[Any]) -> Any:
        """Return the batch of the items ``indices``, ready to travel between processes.

        Items are made on the CPU whatever the current context is: workers that were forked cannot
        use a GPU. An exception gets a note that names the dataset and the item.
        """
        with HOST:
            return self._fetch(indices)

    def _fetch(self, indices: Sequence[Any]) -> Any:
        if not isinstance(self.batchify_fn, Batchify):
            return ship(self._batchify(self.batchify_fn, self._items(indices, numpy=False)))
        batch = self._cut(indices) if self.batchify_fn is default_batchify_fn else None
        if batch is None:
            return self._batchify(self.batchify_fn.collate, self._items(indices, numpy=True))
        return list(batch) if isinstance(batch, tuple) else batch

    def finish(self, batch: Any) -> Any:
        """Return what :meth:`fetch` gave as the user's batch of nd arrays."""
        return wrap_batch(batch) if isinstance(self.batchify_fn, Batchify) else unship(batch)

    def describe(self) -> str:
        """Return what errors call the dataset."""
        if isinstance(self.dataset, Dataset):
            return self.dataset.describe()
        return type(self.dataset).__name__

    def _cut(self, indices: Sequence[Any]) -> Any:
        """Return the batch cut out of arrays at once, or None."""
        if not isinstance(self.dataset, Dataset):
            return None
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            return None
        with _noted(f"while loading items {shorten(indices)} of {self.describe()}"):
            return self.dataset.numpy_batch(chosen)

    def _items(self, indices: Sequence[Any], *, numpy: bool) -> list[Any]:
        get = self.dataset.__getitem__
        if numpy and isinstance(self.dataset, Dataset):
            get = self.dataset.numpy_item
        items = []
        for index in indices:
            with _noted(f"while loading item {index!r} of {self.describe()}"):
                items.append(get(index))
        return items

    def _batchify(self, function: Callable[[list[Any]], Any], items: list[Any]) -> Any:
        with _noted(f"while batching {len(items)} items of {self.describe()}"):
            return function(items)


def shorten(indices: Sequence[Any]) -> str:
    """Return the first indices as text."""
    shown = ", ".join(repr(index)[:40] for index in list(indices)[:4])
    return f"{shown}, ..." if len(indices) > 4 else shown


@contextmanager
def _noted(note: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise

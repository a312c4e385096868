"""Datasets: anything with a length and items, and views of it.

Indexing a dataset gives what MXNet gives, nd arrays where the data are arrays. The loader asks
for the same values through two other doors that make no nd array per item: ``numpy_item`` and,
where a whole batch can be cut out at once, ``numpy_batch``. A user's own function always sees
what indexing gives; only graphc's transforms are handed NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError, user_location
from graphc.frontend.gluon.data.batchify import is_nd, to_nd
from graphc.frontend.gluon.data.sampler import Sampler


class Dataset:
    """Base of the datasets; a subclass defines ``__getitem__`` and ``__len__``."""

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not define __len__")

    def numpy_item(self, index: int) -> Any:
        """Return item ``index`` with NumPy arrays where that is cheaper than nd arrays."""
        return self[index]

    def numpy_batch(self, indices: np.ndarray) -> Any:
        """Return the stacked items ``indices`` at once, or None where that cannot be done.

        Parameters
        ----------
        indices : ndarray of int, shape (n,)
            Which items.

        Returns
        -------
        ndarray, tuple of ndarray, or None
            What stacking ``numpy_item`` over the indices would give, component by component.
        """
        return None

    def describe(self) -> str:
        """Return what errors call this dataset."""
        return type(self).__name__

    def transform(self, fn: Callable[..., Any], lazy: bool = True) -> Dataset:
        """Apply ``fn`` to each item; the components of a tuple are its arguments.

        Parameters
        ----------
        fn : callable
            Returns the new item.
        lazy : bool
            Whether it runs at each access, or once for all items now.
        """
        transformed = _TransformedDataset(self, fn)
        return transformed if lazy else _materialize(transformed)

    def transform_first(self, fn: Callable[[Any], Any], lazy: bool = True) -> Dataset:
        """Apply ``fn`` to the first component of each item, usually the data of (data, label).

        Parameters
        ----------
        fn : callable
            Returns the new first component.
        lazy : bool
            Whether it runs at each access, or once for all items now.
        """
        return self.transform(_TransformFirst(fn), lazy)

    def filter(self, fn: Callable[[Any], bool]) -> Dataset:
        """Keep the items (tuples are passed whole) for which ``fn`` is true; runs now."""
        return _SelectedDataset(self, [i for i in range(len(self)) if fn(self[i])])

    def shard(self, num_shards: int, index: int) -> Dataset:
        """Return part ``index`` of ``num_shards`` consecutive parts, of equal lengths or one more.

        Parameters
        ----------
        num_shards : int
            Number of parts.
        index : int
            Which one, from 0.
        """
        if num_shards < 1 or not 0 <= index < num_shards:
            raise ArgumentError(
                f"shard {index} of {num_shards} does not exist",
                remedy="index must be in 0..num_shards - 1.",
                where=user_location(),
            )
        length, longer = divmod(len(self), num_shards)
        start = index * length + min(index, longer)
        return _SelectedDataset(self, range(start, start + length + (index < longer)))

    def take(self, count: int | None) -> Dataset:
        """Return the first ``count`` items; all of them for None or a larger number."""
        if count is not None and count < 0:
            raise ArgumentError(f"count must be 0 or more, not {count}", where=user_location())
        length = len(self) if count is None else min(count, len(self))
        return _SelectedDataset(self, range(length))

    def sample(self, sampler: Sampler) -> Dataset:
        """Return the items in the order of one pass of ``sampler``, drawn now."""
        if not isinstance(sampler, Sampler):
            raise ArgumentError(
                f"sample takes a gluon.data.Sampler, not {type(sampler).__name__}",
                where=user_location(),
            )
        return _SelectedDataset(self, list(sampler))


class SimpleDataset(Dataset):
    """Items of a list, array or any other sequence.

    Parameters
    ----------
    data : sequence
        Held by reference.
    """

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: Any) -> Any:
        return self._data[index]

    def numpy_batch(self, indices: np.ndarray) -> Any:
        """Return the stacked items where they are the rows of a NumPy array."""
        return self._data[indices] if isinstance(self._data, np.ndarray) else None


class ArrayDataset(Dataset):
    """Items made of the rows of several arrays or sequences of equal lengths.

    Item ``i`` is ``(args[0][i], args[1][i], ...)``, or ``args[0][i]`` of a single one. An nd array
    gives nd arrays as rows, a 1-D one NumPy scalars; its values are taken over now. NumPy arrays
    and other sequences are held by reference.

    Parameters
    ----------
    *args : nd array, ndarray, Dataset or sequence
        The columns.

    Raises
    ------
    ShapeError
        The lengths differ.
    """

    def __init__(self, *args: Any) -> None:
        if not args:
            raise ArgumentError("ArrayDataset needs at least one array", where=user_location())
        lengths = [len(column) for column in args]
        if len(set(lengths)) > 1:
            raise ShapeError(
                f"the arrays of an ArrayDataset differ in length: {lengths}",
                remedy="Each needs one row per item.",
                where=user_location(),
            )
        self._gives_nd = tuple(is_nd(column) and len(column.shape) > 1 for column in args)
        self._columns = tuple(c.asnumpy() if is_nd(c) else c for c in args)

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: Any) -> Any:
        rows = [column[index] for column in self._columns]
        pairs = zip(rows, self._gives_nd, strict=True)
        return _join([to_nd(row) if gives_nd else row for row, gives_nd in pairs])

    def numpy_item(self, index: int) -> Any:
        """Return item ``index`` with NumPy arrays in place of nd arrays."""
        columns = self._columns
        return _join([c.numpy_item(index) if isinstance(c, Dataset) else c[index] for c in columns])

    def numpy_batch(self, indices: np.ndarray) -> Any:
        """Return the stacked items where all columns are arrays."""
        if not all(isinstance(column, np.ndarray) for column in self._columns):
            return None
        return _join([column[indices] for column in self._columns])


class _SelectedDataset(Dataset):
    """Some items of another dataset, in a given order."""

    def __init__(self, base: Dataset, indices: Sequence[int]) -> None:
        self._base = base
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        return self._base[self._indices[index]]

    def numpy_item(self, index: int) -> Any:
        return self._base.numpy_item(self._indices[index])

    def numpy_batch(self, indices: np.ndarray) -> Any:
        chosen = np.asarray([self._indices[index] for index in indices.tolist()])
        return self._base.numpy_batch(chosen) if chosen.dtype.kind in "iu" else None

    def describe(self) -> str:
        return f"{len(self)} items of {self._base.describe()}"


class _TransformFirst:
    """Applies a function to the first of its arguments; a class, so that it can be pickled."""

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self.fn = fn

    def __call__(self, first: Any, *rest: Any) -> Any:
        return (self.fn(first), *rest) if rest else self.fn(first)


class _TransformedDataset(Dataset):
    """Another dataset with a function applied to each item at its access."""

    def __init__(self, base: Dataset, fn: Callable[..., Any]) -> None:
        self._base = base
        self._fn = fn
        self._of_first = isinstance(fn, _TransformFirst)
        self._function = fn.fn if isinstance(fn, _TransformFirst) else fn
        # graphc's transforms take NumPy arrays and whole batches; they have this method.
        self._apply_batch = getattr(self._function, "apply_batch", None)

    def __len__(self) -> int:
        return len(self._base)

    def __getitem__(self, index: Any) -> Any:
        return self._transformed(self._base[index])

    def numpy_item(self, index: int) -> Any:
        if self._apply_batch is None:
            return self[index]
        return self._transformed(self._base.numpy_item(index))

    def numpy_batch(self, indices: np.ndarray) -> Any:
        batch = None if self._apply_batch is None else self._base.numpy_batch(indices)
        if batch is None or self._apply_batch is None:
            return None
        if not isinstance(batch, tuple):
            return self._apply_batch(batch)
        return (self._apply_batch(batch[0]), *batch[1:]) if self._of_first else None

    def describe(self) -> str:
        name = getattr(self._function, "__name__", type(self._function).__name__)
        return f"{self._base.describe()} with {name}"

    def _transformed(self, item: Any) -> Any:
        return self._fn(*item) if isinstance(item, tuple) else self._fn(item)


def _materialize(dataset: Dataset) -> Dataset:
    """Return a dataset whose items are those of ``dataset``, computed now."""
    batch = dataset.numpy_batch(np.arange(len(dataset))) if len(dataset) else None
    if batch is None:
        return SimpleDataset([dataset[index] for index in range(len(dataset))])
    columns = batch if isinstance(batch, tuple) else (batch,)
    sample = dataset[0] if isinstance(batch, tuple) else (dataset[0],)
    pairs = zip(columns, sample, strict=True)
    return ArrayDataset(*[to_nd(column) if is_nd(item) else column for column, item in pairs])


def _join(parts: list[Any]) -> Any:
    return tuple(parts) if len(parts) > 1 else parts[0]

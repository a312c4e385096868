"""From the items of a dataset to one batch.

Every batchify function has two doors: calling it gives nd arrays, ``collate`` gives NumPy
arrays. Workers collate, so that what travels between processes is plain memory, and the parent
wraps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend.creation import array
from graphc.frontend.ndarray import NDArray


def is_nd(value: object) -> bool:
    """Return whether ``value`` is an nd array."""
    return isinstance(value, NDArray)


def to_nd(values: np.ndarray) -> NDArray:
    """Return an nd array of the same dtype."""
    return array(values, dtype=values.dtype)


def to_numpy(value: Any) -> np.ndarray:
    """Return an nd array, NumPy array or number as NumPy array."""
    return value.asnumpy() if isinstance(value, NDArray) else np.asarray(value)


def wrap_batch(batch: Any) -> Any:
    """Return a collated batch with its NumPy arrays as nd arrays."""
    if isinstance(batch, np.ndarray):
        return to_nd(batch)
    if isinstance(batch, (list, tuple)):
        return [wrap_batch(part) for part in batch]
    return batch


@dataclass(frozen=True, slots=True)
class ShippedArray:
    """An nd array on its way between processes."""

    values: np.ndarray


def ship(batch: Any) -> Any:
    """Return what a user's batchify function made with its nd arrays ready to travel."""
    if isinstance(batch, NDArray):
        return ShippedArray(batch.asnumpy())
    return _map_parts(ship, batch)


def unship(batch: Any) -> Any:
    """Undo :func:`ship`."""
    if isinstance(batch, ShippedArray):
        return to_nd(batch.values)
    return _map_parts(unship, batch)


def _map_parts(function: Callable[[Any], Any], batch: Any) -> Any:
    if type(batch) in (list, tuple):
        return type(batch)(function(part) for part in batch)
    if type(batch) is dict:
        return {key: function(part) for key, part in batch.items()}
    return batch


class Batchify:
    """Base of the batchify functions; a subclass defines ``collate``."""

    def collate(self, data: Sequence[Any]) -> Any:
        """Return the batch of the items ``data`` as NumPy arrays, nested in lists."""
        raise NotImplementedError(f"{type(self).__name__} does not define collate")

    def __call__(self, data: Sequence[Any]) -> Any:
        """Return the batch of the items ``data`` as nd arrays, nested in lists."""
        return wrap_batch(self.collate(data))


class Stack(Batchify):
    """Stack arrays of equal shapes, or numbers, along a new first axis; the dtype is kept.

    Raises
    ------
    ShapeError
        The items differ in shape.
    DTypeError
        The items are no arrays of numbers.
    """

    def collate(self, data: Sequence[Any]) -> np.ndarray:
        """Return an array of shape (len(data), ...)."""
        if isinstance(data[0], (int, float, np.number, np.bool_)):
            return _check_numeric(_stack_numbers(data), data)
        arrays = [_check_numeric(to_numpy(item), data) for item in data]
        _check_shapes(arrays)
        return np.stack(arrays)


class Pad(Batchify):
    """Pad arrays at the end of every axis to the largest item, then stack.

    Parameters
    ----------
    val : number
        What is put into the padding.
    dtype : dtype, optional
        Of the batch; the items' by default.
    round_to : int, optional
        Padded sizes are rounded up to a multiple of this.
    """

    def __init__(self, val: float = 0, dtype: Any = None, round_to: int | None = None) -> None:
        if round_to is not None and round_to < 1:
            raise ArgumentError(f"round_to must be 1 or more, not {round_to}")
        self.val = val
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.round_to = round_to or 1

    def collate(self, data: Sequence[Any]) -> np.ndarray:
        """Return an array of shape (len(data), ...)."""
        arrays = [_check_numeric(to_numpy(item), data) for item in data]
        if len({item.ndim for item in arrays}) > 1:
            raise ShapeError(f"Pad needs items with equally many axes, not {_shapes(arrays)}")
        largest = np.max([item.shape for item in arrays], axis=0).astype(int)
        sizes = tuple((-(-largest // self.round_to) * self.round_to).tolist())
        dtype = self.dtype or np.result_type(*arrays)
        batch = np.full((len(arrays), *sizes), self.val, dtype)
        for position, item in enumerate(arrays):
            corner: tuple[Any, ...] = (position, *map(slice, item.shape))
            batch[corner] = item
        return batch


class Append(Batchify):
    """Keep the items apart: a list with one array per item.

    Parameters
    ----------
    expand : bool
        Give every array a batch axis of size 1.
    batch_axis : int
        Where that axis goes.
    """

    def __init__(self, expand: bool = True, batch_axis: int = 0) -> None:
        self.expand = expand
        self.batch_axis = batch_axis

    def collate(self, data: Sequence[Any]) -> list[np.ndarray]:
        """Return one array per item."""
        arrays = [_check_numeric(to_numpy(item), data) for item in data]
        return [np.expand_dims(a, self.batch_axis) if self.expand else a for a in arrays]


class AsList(Batchify):
    """Keep the items, such as strings, as a list; arrays become nd arrays."""

    def collate(self, data: Sequence[Any]) -> list[Any]:
        """Return the items as a list."""
        return [to_numpy(item) if isinstance(item, NDArray) else item for item in data]


class Group(Batchify):
    """Batchify each component of tuple items with its own function; also called ``Tuple``.

    Parameters
    ----------
    fn : Batchify or list of Batchify
        One per component.
    *args : Batchify
        The rest of them where ``fn`` is no list.
    """

    def __init__(self, fn: Any, *args: Any) -> None:
        functions = (*fn, *args) if isinstance(fn, (list, tuple)) else (fn, *args)
        for function in functions:
            if not isinstance(function, Batchify):
                raise ArgumentError(
                    f"Group takes batchify functions such as Stack() and Pad(), not {function!r}"
                )
        self.functions = functions

    def collate(self, data: Sequence[Any]) -> list[Any]:
        """Return one batch per component."""
        if len(data[0]) != len(self.functions):
            raise ArgumentError(
                f"Group has {len(self.functions)} functions for items of {len(data[0])} components"
            )
        columns = zip(*data, strict=True)
        return [fn.collate(column) for fn, column in zip(self.functions, columns, strict=True)]


Tuple = Group


class DefaultBatchify(Batchify):
    """Stack arrays and numbers; a tuple of them gives a list, component by component."""

    def collate(self, data: Sequence[Any]) -> Any:
        """Return the batch as NumPy arrays, nested in lists like the items."""
        if not isinstance(data[0], tuple):
            return Stack().collate(data)
        if any(len(item) != len(data[0]) for item in data):
            raise ShapeError("the items of one batch have different numbers of components")
        return [self.collate(column) for column in zip(*data, strict=True)]


default_batchify_fn = DefaultBatchify()


def _stack_numbers(data: Sequence[Any]) -> np.ndarray:
    """Return numbers as a vector; where they are not all numbers, say so as shapes."""
    try:
        return np.asarray(data)
    except ValueError:
        _check_shapes([to_numpy(item) for item in data])
        raise


def _check_numeric(values: np.ndarray, data: Sequence[Any]) -> np.ndarray:
    if values.dtype.kind not in "biufc":
        raise DTypeError(
            f"items of type {type(data[0]).__name__} cannot be put into a batch",
            remedy="Return arrays, numbers or tuples of them, or pass your own batchify_fn.",
        )
    return values


def _check_shapes(arrays: Sequence[np.ndarray]) -> None:
    for position, item in enumerate(arrays):
        if item.shape != arrays[0].shape:
            raise ShapeError(
                f"the items of one batch differ in shape: {arrays[0].shape} at position 0, "
                f"{item.shape} at position {position}",
                remedy="Resize them in a transform, or pass batchify_fn=batchify.Pad().",
            )


def _shapes(arrays: Sequence[np.ndarray]) -> str:
    return ", ".join(str(item.shape) for item in arrays[:8])

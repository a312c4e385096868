"""In which order the items of a dataset are visited."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

from graphc.errors import ArgumentError, nearest, user_location
from graphc.runtime.random import host_generator

LAST_BATCH = ("keep", "discard", "rollover")


class Sampler:
    """Base of the samplers: an iterable of indices with a length."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} does not define __iter__")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not define __len__")


class SequentialSampler(Sampler):
    """``start, start + 1, ..., start + length - 1``.

    Parameters
    ----------
    length : int
        Number of indices.
    start : int
        The first one.
    """

    def __init__(self, length: int, start: int = 0) -> None:
        self._length = whole("length", length, 0)
        self._start = start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._start, self._start + self._length))

    def __len__(self) -> int:
        return self._length


class RandomSampler(Sampler):
    """``0 ... length - 1`` in an order that is drawn anew for every pass.

    The draws are those of ``graphc.random.seed``.

    Parameters
    ----------
    length : int
        Number of indices.
    """

    def __init__(self, length: int) -> None:
        self._length = whole("length", length, 0)

    def __iter__(self) -> Iterator[int]:
        return iter(host_generator().permutation(self._length).tolist())

    def __len__(self) -> int:
        return self._length


class FilterSampler(Sampler):
    """The indices of the items for which a function is true.

    Parameters
    ----------
    fn : callable
        ``fn(dataset[index]) -> bool``.
    dataset : Dataset
        What is filtered; read once, here.
    """

    def __init__(self, fn: Callable[[Any], bool], dataset: Any) -> None:
        self._indices = [index for index in range(len(dataset)) if fn(dataset[index])]

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


class IntervalSampler(Sampler):
    """Every ``interval``-th index; with ``rollover`` then again from 1, 2, and so on.

    Parameters
    ----------
    length : int
        Number of items.
    interval : int
        Distance of two indices, at most ``length``.
    rollover : bool
        Whether the skipped indices follow, so that each is visited once.
    """

    def __init__(self, length: int, interval: int, rollover: bool = True) -> None:
        self._length = whole("length", length, 0)
        self._interval = whole("interval", interval, 1)
        if interval > length:
            raise ArgumentError(
                f"interval must be at most the length, {length}, not {interval}",
                where=user_location(),
            )
        self._starts = interval if rollover else 1

    def __iter__(self) -> Iterator[int]:
        for start in range(self._starts):
            yield from range(start, self._length, self._interval)

    def __len__(self) -> int:
        return sum(len(range(s, self._length, self._interval)) for s in range(self._starts))


class BatchSampler(Sampler):
    """Groups the indices of another sampler into lists of ``batch_size``.

    Parameters
    ----------
    sampler : Sampler
        Where the indices come from.
    batch_size : int
        Indices per list.
    last_batch : {"keep", "discard", "rollover"}
        What happens to the rest that does not fill a batch: it is a shorter batch, it is left out,
        or it begins the first batch of the next pass.
    """

    def __init__(self, sampler: Any, batch_size: int, last_batch: str = "keep") -> None:
        batch_size = whole("batch_size", batch_size, 1)
        if last_batch not in LAST_BATCH:
            raise ArgumentError(
                f"last_batch must be one of {', '.join(LAST_BATCH)}, not {last_batch!r}."
                + nearest(str(last_batch), LAST_BATCH),
                where=user_location(),
            )
        self._sampler = sampler
        self._batch_size = batch_size
        self._last_batch = last_batch
        self._left_over: list[Any] = []

    def __iter__(self) -> Iterator[list[Any]]:
        batch, self._left_over = self._left_over, []
        for index in self._sampler:
            batch.append(index)
            if len(batch) == self._batch_size:
                yield batch
                batch = []
        if batch and self._last_batch == "keep":
            yield batch
        elif batch and self._last_batch == "rollover":
            self._left_over = batch

    def __len__(self) -> int:
        total = len(self._sampler)
        if self._last_batch == "keep":
            return -(-total // self._batch_size)
        if self._last_batch == "rollover":
            total += len(self._left_over)
        return total // self._batch_size


EXAMPLES = {"batch_size": 32, "length": 100, "num_workers": 2}
"""Usual values of arguments, for remedies."""


def whole(name: str, value: Any, least: int) -> int:
    """Return an integer argument; raise ArgumentError unless it is ``least`` or more."""
    if not hasattr(value, "__index__") or operator.index(value) < least:
        raise ArgumentError(
            f"{name} must be an integer of {least} or more, not {value!r:.80}",
            remedy=f"Pass a whole number, as in {name}={max(least, EXAMPLES.get(name, 1))}.",
            where=user_location(),
        )
    return operator.index(value)

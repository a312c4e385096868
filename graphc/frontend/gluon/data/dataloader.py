"""Iterates over a dataset in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from graphc.errors import ArgumentError, DataLoaderError, GraphcError, user_location
from graphc.frontend.context import usable
from graphc.frontend.gluon.data.ahead import delivered
from graphc.frontend.gluon.data.batchify import default_batchify_fn
from graphc.frontend.gluon.data.fetch import Fetcher, shorten
from graphc.frontend.gluon.data.sampler import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    whole,
)
from graphc.frontend.gluon.data.workers import WorkerPool, check_start_method
from graphc.frontend.numeric import number
from graphc.runtime.random import host_generator


class DataLoader:
    """Batches of a dataset, in this process, in threads or in worker processes.

    The batches, and their order, are the same in all three. Each pass starts its own workers,
    which end with it, also when it is left early.

    Parameters
    ----------
    dataset : Dataset or sequence
        What has a length and items.
    batch_size : int
        Items per batch; required unless ``batch_sampler`` is given.
    shuffle : bool
        Draw a new order for each pass, from ``graphc.random.seed``.
    sampler : Sampler, optional
        The order, in place of ``shuffle``.
    last_batch : {"keep", "discard", "rollover"}, optional
        What happens to a rest that does not fill a batch; kept by default.
    batch_sampler : Sampler, optional
        Gives lists of indices; in place of ``batch_size, shuffle, sampler, last_batch``.
    batchify_fn : callable, optional
        Makes a batch of a list of items; stacks them by default, tuples component by component.
    num_workers : int
        Number of processes, or threads, that load batches ahead; 0 loads them here when asked for.
    pin_memory, pin_device_id
        As in MXNet; batches are delivered in ordinary memory, and what goes to a GPU goes by way
        of page-locked memory in any case.
    prefetch : int, optional
        Batches loaded ahead; twice ``num_workers`` by default.
    thread_pool : bool
        Threads in place of processes.
    timeout : float
        Seconds that a batch may take to arrive from a worker.
    start_method : {"fork", "spawn", "forkserver"}, optional
        How processes start; they are forked where the system can. Where they are not, lambdas
        and functions of ``__main__`` work all the same.
    ctx : Context, optional
        Where batches are delivered. To a GPU each is copied while the one before is computed with.

    Raises
    ------
    ArgumentError
        Arguments that contradict each other or are out of range.
    DataLoaderError
        While iterating: a worker raised (its traceback is in the message), died, or was too late.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = None,
        shuffle: bool = False,
        sampler: Any = None,
        last_batch: str | None = None,
        batch_sampler: Any = None,
        batchify_fn: Callable[[list[Any]], Any] | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        pin_device_id: int = 0,
        prefetch: int | None = None,
        thread_pool: bool = False,
        timeout: float = 120,
        start_method: str | None = None,
        ctx: Any = None,
    ) -> None:
        num_workers = whole("num_workers", num_workers, 0)
        prefetch = 2 * num_workers if prefetch is None else whole("prefetch", prefetch, 0)
        timeout = number("DataLoader", "timeout", timeout)
        if timeout <= 0:
            raise _invalid(f"timeout must be above 0 seconds, not {timeout:g}")
        counted = hasattr(dataset, "__len__") or sampler is not None or batch_sampler is not None
        if not counted or not hasattr(dataset, "__getitem__"):
            raise ArgumentError(
                f"a dataset has a length and items, a {type(dataset).__name__} has not",
                remedy="Make a list of it, or a gluon.data.Dataset with __len__ and __getitem__.",
                where=user_location(),
            )
        if batchify_fn is not None and not callable(batchify_fn):
            raise ArgumentError(
                f"batchify_fn must be a function of a list of items, got {batchify_fn!r}",
                remedy="Leave it out to stack items, or pass batchify.Pad() or your own.",
                where=user_location(),
            )
        if start_method is not None:
            check_start_method(start_method)
        if batch_sampler is None:
            batch_sampler = _batches(dataset, batch_size, shuffle, sampler, last_batch)
        elif batch_size is not None or shuffle or sampler is not None or last_batch is not None:
            raise _invalid(
                "batch_sampler already decides batch_size, shuffle, sampler and last_batch"
            )
        self._batch_sampler = batch_sampler
        self._fetcher = Fetcher(dataset, batchify_fn or default_batchify_fn)
        self._num_workers = num_workers
        self._prefetch = max(1, prefetch)
        self._thread_pool = thread_pool
        self._timeout_s = timeout
        self._start_method = start_method
        self._context = None if ctx is None else usable(ctx)

    def __len__(self) -> int:
        return len(self._batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        # Drawn in every mode, so that the number of workers does not change the next shuffle.
        seed = int(host_generator().integers(2**63))
        batches = self._loaded(seed)
        return batches if self._context is None else delivered(batches, self._context)

    def _loaded(self, seed: int) -> Iterator[Any]:
        if self._num_workers == 0:
            return _in_this_process(self._fetcher, self._batch_sampler)
        if self._thread_pool:
            return self._in_threads()
        return self._in_processes(seed)

    def _in_threads(self) -> Iterator[Any]:
        fetcher = self._fetcher
        waiting: deque[tuple[list[Any], Future[Any]]] = deque()
        batches = iter(self._batch_sampler)
        pool = ThreadPoolExecutor(self._num_workers, "graphc-data")
        try:
            while True:
                for indices in islice(batches, self._prefetch - len(waiting)):
                    waiting.append((indices, pool.submit(fetcher.fetch, indices)))
                if not waiting:
                    return
                indices, future = waiting.popleft()
                yield fetcher.finish(self._result(indices, future))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _result(self, indices: list[Any], future: Future[Any]) -> Any:
        try:
            return future.result(self._timeout_s)
        except TimeoutError:
            if future.done():
                raise  # the transform's own
            raise DataLoaderError(
                f"a DataLoader thread did not deliver items {shorten(indices)} of "
                f"{self._fetcher.describe()} within {self._timeout_s:g} s",
                remedy="Raise timeout= if the items take that long.",
                where=user_location(),
            ) from None

    def _in_processes(self, seed: int) -> Iterator[Any]:
        batches = enumerate(self._batch_sampler)
        pool = WorkerPool(
            self._fetcher, self._num_workers, seed, self._timeout_s, self._start_method
        )
        submitted = received = 0
        try:
            while True:
                for position, indices in islice(batches, self._prefetch - (submitted - received)):
                    pool.submit(position, indices)
                    submitted += 1
                if submitted == received:
                    return
                batch = pool.receive(received)
                received += 1
                yield self._fetcher.finish(batch)
        finally:
            pool.close()


def _in_this_process(fetcher: Fetcher, batches: Iterable[list[Any]]) -> Iterator[Any]:
    for indices in batches:
        try:
            batch = fetcher.finish(fetcher.fetch(indices))
        except GraphcError as error:
            raise error.attach(where=user_location())  # noqa: B904
        yield batch


def _batches(
    dataset: Any, batch_size: int | None, shuffle: bool, sampler: Any, last_batch: str | None
) -> BatchSampler:
    if batch_size is None:
        raise _invalid("DataLoader needs batch_size (32 for example), or a batch_sampler")
    if sampler is not None and shuffle:
        raise _invalid("shuffle=True contradicts a sampler: the sampler decides the order")
    if sampler is None:
        sampler = (RandomSampler if shuffle else SequentialSampler)(len(dataset))
    return BatchSampler(sampler, batch_size, last_batch or "keep")


def _invalid(message: str) -> ArgumentError:
    return ArgumentError(message, where=user_location())

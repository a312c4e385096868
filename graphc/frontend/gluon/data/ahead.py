"""Batches on a device: each is copied there while the one before is computed with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from graphc.frontend.array import Storage
from graphc.frontend.context import Context
from graphc.frontend.memory import on_host
from graphc.frontend.ndarray import NDArray
from graphc.runtime.cuda import CudaDevice


def delivered(batches: Iterable[Any], context: Context) -> Iterator[Any]:
    """Yield batches with their arrays on a device.

    To a GPU the next batch goes while kernels run on the last one, from page-locked memory and on
    a stream of its own.
    """
    device = context.accelerator
    if device is None:
        for batch in batches:
            yield _mapped(batch, lambda array: array.as_in_context(context))
        return
    before: tuple[Any, list[Any]] | None = None
    for batch in batches:
        following = _sent(batch, context, device)
        if before is not None:
            yield _joined(before, device)
        before = following
    if before is not None:
        yield _joined(before, device)


def _sent(batch: Any, context: Context, device: CudaDevice) -> tuple[Any, list[Any]]:
    """Return a batch that is on its way, and what tells that its arrays have arrived."""
    arrivals: list[Any] = []

    def send(array: NDArray) -> NDArray:
        memory, arrival = device.put_ahead(on_host(array._array))
        arrivals.append(arrival)
        return NDArray(memory, Storage.on(context))  # type: ignore[arg-type]

    return _mapped(batch, send), arrivals


def _joined(sent: tuple[Any, list[Any]], device: CudaDevice) -> Any:
    batch, arrivals = sent
    if arrivals:
        device.join(arrivals[-1])  # copies arrive in their order
    return batch


def _mapped(batch: Any, function: Any) -> Any:
    """Return a batch with a function applied to its arrays."""
    if isinstance(batch, NDArray):
        return function(batch)
    if isinstance(batch, (list, tuple)):
        return type(batch)(_mapped(part, function) for part in batch)
    if isinstance(batch, dict):
        return {key: _mapped(part, function) for key, part in batch.items()}
    return batch

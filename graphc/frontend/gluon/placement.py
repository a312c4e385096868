"""On which devices a Parameter has an array, and its arrays by device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphc.errors import (
    ArgumentError,
    DeferredInitializationError,
    DeviceError,
    UninitializedError,
    user_location,
)
from graphc.frontend.array import Storage
from graphc.frontend.context import Context, usable
from graphc.frontend.memory import copied, on_host
from graphc.frontend.ndarray import NDArray


def devices_of(ctx: Any) -> tuple[Context, ...]:
    """Return the devices of a ``ctx=`` argument, which may be a list; None is the current one.

    Raises
    ------
    ArgumentError
        For a device that is named twice.
    DeviceError
        For a GPU that is not there.
    """
    given = list(ctx) if isinstance(ctx, (list, tuple)) else [ctx]
    found = tuple(map(usable, given or [None]))
    if len(set(found)) < len(found):
        raise ArgumentError(
            f"there can be one array on a device, got {', '.join(map(str, given))}",
            remedy="Name each device once: ctx=[graphc.gpu(0), graphc.gpu(1)].",
            where=user_location(),
        )
    return found


def shown(devices: Iterable[Context]) -> str:
    """Return devices as text."""
    return ", ".join(map(str, devices))


def spread(array: NDArray, devices: Iterable[Context]) -> dict[Context, NDArray]:
    """Return an array for each device: itself where it is, copies elsewhere."""
    own = array._storage.context
    return {
        there: array
        if there is own
        else NDArray(copied(array._array, there), Storage.on(there))
        for there in devices
    }


def gathered(arrays: Mapping[Context, NDArray]) -> np.ndarray:
    """Return the values that a file gets: those of the first device, means where others differ.

    The arrays that a Trainer updates are equal everywhere; running statistics are not.
    """
    found = [on_host(array._array) for array in arrays.values()]
    if all(np.array_equal(found[0], other, equal_nan=True) for other in found[1:]):
        return found[0]
    mean: np.ndarray = np.mean(found, axis=0, dtype=np.float64).astype(found[0].dtype)
    return mean


def not_there(name: str, device: Context, devices: Iterable[Context]) -> DeviceError:
    """Return the error of a Parameter that has no array on a device."""
    return DeviceError(
        f"parameter {name} has no array on {device}, it is on {shown(devices)}",
        remedy="Name all devices in initialize(ctx=[...]), or move the Parameters with "
        "net.reset_ctx([...]).",
        where=user_location(),
    )


def unreadable(
    name: str, shape: Any, deferred: bool
) -> DeferredInitializationError | UninitializedError:
    """Return the error of a Parameter that has no array yet."""
    if deferred:
        return DeferredInitializationError(
            f"parameter {name} has no values yet: its shape {shape} becomes known when the network "
            "first sees data",
            remedy="Call the network on a batch first, or give the layer its input size "
            "(in_units, in_channels).",
            where=user_location(),
        )
    return UninitializedError(
        f"parameter {name} has not been initialized",
        remedy="Call net.initialize() (or collect_params().initialize()) before the network is "
        "used, once all layers are there.",
        where=user_location(),
    )


@dataclass(frozen=True, slots=True)
class Place:
    """A Parameter on one device, as an implicit input of a program: its array may be replaced."""

    parameter: Any
    device: Context
    notes_moves: ClassVar[bool] = True

    def current_array(self) -> NDArray:
        """Return the array there."""
        found: NDArray | None = self.parameter._arrays.get(self.device)
        return self.parameter.current_array(self.device) if found is None else found

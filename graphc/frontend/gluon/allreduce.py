"""What several devices do together in a step of training: sum gradients, get the new values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DeviceError, nearest, user_location
from graphc.frontend.array import Array
from graphc.frontend.context import Context
from graphc.frontend.gluon.parameter import Parameter
from graphc.frontend.gluon.placement import shown
from graphc.frontend.memory import accumulate, on_host, overwrite

STORES = ("local", "device", "nccl", "local_allreduce_cpu", "local_allreduce_device")
"""MXNet's ways to sum over the devices of one machine; here they all are the same one."""


def check_store(kvstore: Any) -> None:
    """Raise ArgumentError for a way to sum gradients that there is not."""
    if not isinstance(kvstore, str) or kvstore in STORES:
        return
    if kvstore.startswith("dist"):
        raise ArgumentError(
            f"kvstore={kvstore!r} sums over several machines, which graphc does not",
            remedy="One machine trains on all its devices with kvstore='device'.",
            where=user_location(),
        )
    raise ArgumentError(
        f"there is no kvstore {kvstore!r}.{nearest(kvstore, STORES)}",
        remedy=f"It is None or one of {', '.join(STORES)}.",
        where=user_location(),
    )


def same_devices(parameters: Sequence[Parameter]) -> tuple[Context, ...]:
    """Return the devices that Parameters are on, all of them on the same ones.

    Raises
    ------
    DeviceError
        Names two that are not.
    """
    first = parameters[0].devices if parameters else ()
    for parameter in parameters:
        if parameter.devices != first:
            raise DeviceError(
                f"parameters on different devices: {parameters[0].name} is on {shown(first)}, "
                f"{parameter.name} on {shown(parameter.devices)}",
                remedy="A Trainer updates Parameters that are on the same devices: "
                "net.reset_ctx([...]), or a Trainer for each group.",
                where=user_location(),
            )
    return first


def sum_gradients(parameter: Parameter) -> None:
    """Set the gradient on each device to the sum over those that `backward` has written.

    It is computed on the first of them in the order of the devices: it has the same bits every
    time.
    """
    devices = parameter.fresh_grads()
    if not devices:
        return
    first = parameter.grad(devices[0])
    for device in devices[1:]:
        accumulate(first._array, parameter.grad(device)._array)
    first._storage.touch()
    for gradient in parameter.list_grad():
        if gradient._array is not first._array:
            _write(gradient, first._array)


def summed(parameter: Parameter) -> bool:
    """Return whether the gradient is the same on each device."""
    first, *others = [on_host(gradient._array) for gradient in parameter.list_grad()]
    return all(np.array_equal(first, other, equal_nan=True) for other in others)


def share_first(parameter: Parameter) -> None:
    """Give every device the values of the first, which was updated."""
    first, *others = parameter.list_data()
    for other in others:
        _write(other, first._array)


def _write(array: Array, values: Any) -> None:
    overwrite(array._array, values)
    array._storage.touch()

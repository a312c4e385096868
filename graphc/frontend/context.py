"""Devices as MXNet names them: ``cpu(0)``, ``gpu(0)``."""

from __future__ import annotations

import threading
from typing import Any

from graphc.errors import ArgumentError, DeviceError, nearest, user_location
from graphc.runtime import blocks, cuda
from graphc.runtime.cuda import CudaDevice

KINDS = {"cpu": 1, "gpu": 2, "cpu_pinned": 3, "cpu_shared": 5}
"""Names of device types, with the numbers that MXNet's files give them."""


class _Scopes(threading.local):
    """The ``with ctx:`` blocks this thread is in, innermost last."""

    def __init__(self) -> None:
        self.entered: list[Context] = []


_scopes = _Scopes()


class Context:
    """A device: a type and a number. There is one object for each, so that ``is`` compares them.

    Parameters
    ----------
    device_type : {"cpu", "gpu", "cpu_pinned", "cpu_shared"} or Context
    device_id : int
        Every number of the CPU is the same memory and the same cores; arrays on two of them are
        kept apart as those on two GPUs are.

    Examples
    --------
    >>> Context("cpu", 0)
    cpu(0)
    """

    __slots__ = ("device_id", "device_type")
    device_type: str
    device_id: int

    def __new__(cls, device_type: str | Context, device_id: int = 0) -> Context:
        if isinstance(device_type, Context):
            return device_type
        known = _made.get((device_type, device_id))
        if known is not None:
            return known
        if device_type not in KINDS:
            raise ArgumentError(
                f"there is no device type {device_type!r}.{nearest(str(device_type), KINDS)}",
                remedy="Use graphc.cpu() or graphc.gpu(i). A shape is one tuple: nd.ones((2, 3)).",
                where=user_location(),
            )
        new = super().__new__(cls)
        new.device_type, new.device_id = device_type, int(device_id)
        return _made.setdefault((device_type, new.device_id), new)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Context, (self.device_type, self.device_id))

    @property
    def device_typeid(self) -> int:
        """MXNet's number of the device type."""
        return KINDS[self.device_type]

    @property
    def processor(self) -> Context:
        """The device whose programs run there: all numbers of the CPU share ``cpu(0)``'s."""
        return self if self.device_type == "gpu" else HOST

    def __repr__(self) -> str:
        return f"{self.device_type}({self.device_id})"

    def __enter__(self) -> Context:
        _scopes.entered.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        _scopes.entered.pop()

    @property
    def accelerator(self) -> CudaDevice | None:
        """What arrays and programs on a GPU go through; None for the CPU.

        Raises
        ------
        DeviceError
            For a GPU that is not there; says what is missing.
        """
        return cuda.device(self.device_id) if self.device_type == "gpu" else None

    def empty_cache(self) -> None:
        """Give memory that waits for arrays to come back to the system."""
        device = self.accelerator
        if device is None:
            blocks.forget()
        else:
            device.empty_cache()


_made: dict[tuple[str, int], Context] = {}
HOST = Context("cpu", 0)
"""Where arrays are that nobody put anywhere else."""


def cpu(device_id: int = 0) -> Context:
    """Return the CPU as a Context."""
    return Context("cpu", device_id)


def cpu_pinned(device_id: int = 0) -> Context:
    """Return the CPU, with memory that a GPU reads fast, as a Context."""
    return Context("cpu_pinned", device_id)


def gpu(device_id: int = 0) -> Context:
    """Return a GPU as a Context; that it is there is checked when an array is put on it."""
    return Context("gpu", device_id)


def num_gpus() -> int:
    """Return how many GPUs arrays can be put on: 0 without ``graphc[cuda]``, driver or device."""
    return cuda.num_gpus()


def current_context() -> Context:
    """Return the Context of the innermost ``with ctx:`` block, by default ``cpu(0)``."""
    return _scopes.entered[-1] if _scopes.entered else HOST


def memory_of(context: Context | str | None) -> Context:
    """Return the device whose memory a context names, the current one for None.

    Memory that a GPU or another process reads fast is memory of ``cpu(0)``.
    """
    chosen = current_context() if context is None else Context(context)
    return chosen if chosen.device_type in ("cpu", "gpu") else HOST


def usable(context: Context | str | None) -> Context:
    """Return the device an array is put on, the current one for None.

    Raises
    ------
    DeviceError
        For a GPU that is not there; says what is missing.
    """
    chosen = memory_of(context)
    if chosen.device_type == "gpu":
        try:
            cuda.device(chosen.device_id)
        except DeviceError as error:
            raise error.attach(where=user_location()) from None
    return chosen

"""Contexts of work on a device: every call of a program enters one, so they are plain classes."""

from __future__ import annotations

import threading
from typing import Any, Protocol

from graphc import lazy
from graphc.errors import DeviceError


class Owner(Protocol):
    """A device, as far as it matters here."""

    lock: threading.RLock  # type: ignore[valid-type]

    def current(self) -> Any:
        """Make the device the one of this thread."""

    def failed(self, error: Exception) -> DeviceError:
        """Return the error for one of the driver."""


class Errors:
    """A context on a thread whose device this is; what the driver refuses is a DeviceError."""

    __slots__ = ("_device",)

    def __init__(self, device: Owner) -> None:
        self._device = device

    def __enter__(self) -> None:
        try:
            self._device.current()
        except lazy.cuda_error() as error:
            raise self._device.failed(error) from None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None and isinstance(error, lazy.cuda_error()):
            raise self._device.failed(error) from None


class Used(Errors):
    """The same, with the device to oneself."""

    __slots__ = ()

    def __enter__(self) -> None:
        self._device.lock.acquire()
        try:
            super().__enter__()
        except BaseException:
            self._device.lock.release()
            raise

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            self._device.lock.release()

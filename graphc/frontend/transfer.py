"""Copies from one device to another, which gradients take the other way."""

from __future__ import annotations

from typing import Any

from graphc.frontend.array import Array, Storage, mode, record
from graphc.frontend.context import Context
from graphc.frontend.memory import copied
from graphc.ir.op import Kind, OpDef


class _Transfer(OpDef):
    """The tape's op for a copy onto another device."""

    name, kind = "copyto", Kind.OPAQUE

    def vjp(self, g: Any, y: Any, x: Any) -> tuple[Any, ...]:
        """Return the gradient on the device that the array was copied from."""
        return (transfer(g, x._storage.context),)


_TRANSFER = _Transfer()


def transfer(array: Array, context: Context | None) -> Any:
    """Return a copy of an array on another device, recorded where a gradient flows."""
    found = type(array)(copied(array._array, context), Storage.on(context))
    if mode.recording:
        record(_TRANSFER, {}, (array,), (found,))
    return found

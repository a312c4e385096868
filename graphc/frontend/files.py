"""Arrays in files: ``nd.save`` and ``nd.load``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, user_location
from graphc.frontend.array import Array, Storage
from graphc.frontend.context import usable
from graphc.frontend.formats import load_arrays, save_arrays
from graphc.frontend.memory import copied, on_host
from graphc.frontend.ndarray import NDArray


def save(fname: str | os.PathLike[str], data: Any) -> None:
    """Write arrays to a file; the old file stays whole until the new one is complete.

    Parameters
    ----------
    fname : path-like
        ``.safetensors`` gives that format, any other name MXNet's ``.params``.
    data : NDArray, list of NDArray, or dict of str to NDArray
    """
    if isinstance(data, Array):
        data = [data]
    if isinstance(data, dict):
        save_arrays(fname, {str(name): _plain(array, repr(name)) for name, array in data.items()})
    elif isinstance(data, Sequence):
        save_arrays(fname, [_plain(array, f"item {n}") for n, array in enumerate(data)])
    else:
        raise _refusal(data, "data")


def load(fname: str | os.PathLike[str]) -> list[NDArray] | dict[str, NDArray]:
    """Read arrays that MXNet, graphc or a safetensors writer saved, onto the current device.

    Raises
    ------
    FileFormatError
        When the file is of another format, truncated or damaged.
    """
    found = load_arrays(fname)
    if isinstance(found, dict):
        return {name: _handle(array) for name, array in found.items()}
    return [_handle(array) for array in found]


def _handle(array: np.ndarray) -> NDArray:
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    context = usable(None)
    return NDArray(copied(array, context), Storage.on(context))


def _plain(array: Any, name: Any) -> np.ndarray:
    if not isinstance(array, Array):
        raise _refusal(array, name)
    return on_host(array._array)


def _refusal(data: Any, name: Any) -> ArgumentError:
    return ArgumentError(
        f"save() takes an NDArray, a list or a dict of them; {name} is a {type(data).__name__}",
        where=user_location(),
    )

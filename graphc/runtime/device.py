"""Arrays in the memory of a device, which the host cannot read: handles of addresses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from graphc.ir.target import Target

ALIGNMENT = 16
"""Kernels load whole vectors of 128 bits: what begins elsewhere is copied for them."""


DLPACK_CUDA = 2
"""DLPack's number of the kind of device."""


class Device(Protocol):
    """A device as the frontend sees it; see `graphc.runtime.cuda.CudaDevice`."""

    number: int

    @property
    def name(self) -> str:
        """Name of the context: ``"gpu(0)"``."""

    @property
    def target(self) -> Target:
        """What kernels are compiled for."""

    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """Return an array with arbitrary elements."""

    def put(self, array: np.ndarray) -> DeviceArray:
        """Return a copy of a NumPy array; it may be overwritten when this returns."""

    def get(self, array: DeviceArray) -> np.ndarray:
        """Return a copy of an array when what computes it is done."""

    def write(self, array: np.ndarray, target: DeviceArray) -> None:
        """Copy a NumPy array of the same bytes into an array."""

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        """Copy the elements of one array into another of the same bytes."""

    def clear(self, array: DeviceArray) -> None:
        """Set all bytes of an array to zero."""

    def shared(self, array: DeviceArray) -> Any:
        """Return what tells other libraries of an array by DLPack, when it is computed."""

    @property
    def checking(self) -> bool:
        """Whether checks may be under way: what is there must not be changed but by programs."""

    def settle(self) -> None:
        """Wait for checks, before something is changed by other means."""

    def synchronize(self) -> None:
        """Wait until everything that was asked for is done."""


class DeviceArray:
    """A C-contiguous array in a device's memory.

    Work on a device is asynchronous: an array may be passed on before it is computed. Its memory
    goes back to the pool when the last array in it is gone.

    Attributes
    ----------
    device : Device
    memory : object
        What owns the memory.
    address : int
        Of the first element.
    shape : tuple of int
    dtype : numpy.dtype
    size : int
        Number of elements.
    """

    __slots__ = ("__weakref__", "address", "device", "dtype", "memory", "shape", "size")

    def __init__(
        self, device: Device, memory: Any, address: int, shape: Sequence[int], dtype: Any
    ) -> None:
        self.device, self.memory, self.address = device, memory, address
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.size = math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * self.dtype.itemsize

    def reshape(self, *shape: Any) -> DeviceArray:
        """Return the same memory in another shape, in which one size may be -1.

        Raises
        ------
        ValueError
            If that has another number of elements.
        """
        sizes = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        wanted = self._outline().reshape(sizes).shape
        return DeviceArray(self.device, self.memory, self.address, wanted, self.dtype)

    def part(self, key: Any) -> DeviceArray | None:
        """Return the elements at a basic index as an array in the same memory.

        Parameters
        ----------
        key : tuple
            Of integers, slices, ``None`` and ``...``.

        Returns
        -------
        DeviceArray or None
            None where they do not lie side by side.

        Raises
        ------
        IndexError
            If an integer is out of range, or the index has too many axes.
        """
        # NumPy knows where a slice begins; an element it would read, so that is a slice first.
        single = tuple(slice(k, k + 1 or None) if _whole(k) else k for k in key)
        outline = self._outline()
        found = outline[(*single, ...)] if Ellipsis not in single else outline[single]
        if any(_whole(k) for k in key):
            found = _without(found, key, self.shape)
        if not found.flags.c_contiguous:
            return None
        start = found.__array_interface__["data"][0] if found.size else self.address
        return DeviceArray(self.device, self.memory, start, found.shape, self.dtype)

    def layout(self, key: Any) -> tuple[tuple[int, ...], list[int]]:
        """Return the shape of the elements at a basic index; the first place, then the steps.

        Places and steps count elements, and are those of axes with more than one element that do
        not go on from another: the shape is theirs.

        Raises
        ------
        IndexError
            If there is no such part.
        """
        part = self._outline()[key]
        begin = part.__array_interface__["data"][0] - self.address if part.size else 0
        axes: list[tuple[int, int]] = []
        for size, stride in zip(part.shape, part.strides, strict=True):
            if axes and axes[-1][1] == size * stride:
                axes[-1] = axes[-1][0] * size, stride
            elif size != 1:
                axes.append((size, stride))
        item = self.dtype.itemsize
        return tuple(n for n, _ in axes), [begin // item, *(s // item for _, s in axes)]

    def copy(self) -> DeviceArray:
        """Return a copy on the same device."""
        found = self.device.empty(self.shape, self.dtype)
        self.device.copy(self, found)
        return found

    def get(self) -> np.ndarray:
        """Return a copy as a NumPy array."""
        return self.device.get(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"an array on {self.device.name} is not in memory that NumPy can read")
        found = self.device.get(self)
        return found if dtype is None else found.astype(dtype)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.device.shared(self).__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return DLPACK_CUDA, self.device.number

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray({self.device.name}, {self.dtype}{list(self.shape)})"

    def _outline(self) -> np.ndarray:
        """Return an array of NumPy's at this address, never to be read or written."""
        return np.asarray(_Interface(self.address, self.shape, self.dtype))


class _Interface:
    """Tells NumPy of memory that it must not touch."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (address, True),
        }  # fmt: skip


def _whole(key: Any) -> bool:
    return isinstance(key, (int, np.integer)) and not isinstance(key, (bool, np.bool_))


def _without(part: np.ndarray, key: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Drop the axes of a part, in an array of this shape, that have been integers in the key."""
    axis, place, dropped = 0, 0, []
    named = sum(1 for k in key if k is not None and k is not Ellipsis)
    for k in key:
        if k is Ellipsis:
            axis, place = axis + len(shape) - named, place + len(shape) - named
            continue
        if _whole(k):
            if not -shape[axis] <= k < shape[axis]:
                raise IndexError(
                    f"index {k} is out of bounds for axis {axis} with size {shape[axis]}"
                )
            dropped.append(place)
        axis, place = axis + (k is not None), place + 1
    return part.squeeze(tuple(dropped))


def is_aligned(array: DeviceArray) -> bool:
    """Return whether kernels take an array as it is."""
    return array.address % ALIGNMENT == 0

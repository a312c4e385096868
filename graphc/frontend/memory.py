"""What is done to the memory of arrays beside computing: made, copied, overwritten, read.

Arrays on the CPU, whichever number it has, are NumPy's; those on a GPU are DeviceArrays. All that
is particular to a device is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.frontend.context import Context
from graphc.frontend.execute import one_op_program
from graphc.ir.operand import REGISTRY
from graphc.ir.types import as_dtype
from graphc.runtime.cuda import CudaDevice
from graphc.runtime.device import DeviceArray


def _accelerator(context: Context | None) -> CudaDevice | None:
    return None if context is None else context.accelerator


def filled(shape: Sequence[int], value: Any, dtype: Any, context: Context | None) -> Any:
    """Return new memory on a device in which every element has one value."""
    device = _accelerator(context)
    if device is None:
        if value == 0 and not np.signbit(value):
            return np.zeros(tuple(shape), dtype)  # takes no memory until something is written
        return np.full(tuple(shape), value, dtype)
    found = device.empty(shape, dtype)
    overwrite(found, value)
    return found


def placed(memory: np.ndarray, context: Context | None) -> Any:
    """Return what new memory of NumPy's holds on a device: that memory itself on the CPU."""
    device = _accelerator(context)
    return memory if device is None else device.put(memory)


def copied(memory: Any, context: Context | None) -> Any:
    """Return a C-contiguous copy on a device of what another one, or NumPy, has."""
    device = _accelerator(context)
    if device is None:
        return memory.get() if isinstance(memory, DeviceArray) else np.array(memory, order="C")
    if not isinstance(memory, DeviceArray):
        return device.put(np.asarray(memory))
    found = device.empty(memory.shape, memory.dtype)
    device.copy(memory, found)
    return found


def on_host(memory: Any) -> np.ndarray:
    """Return the elements as NumPy has them: the memory itself where that is the CPU's."""
    found: np.ndarray = memory.get() if isinstance(memory, DeviceArray) else memory
    return found


def converted(memory: Any, dtype: np.dtype[Any]) -> Any:
    """Return new memory on the same device with the elements in another type."""
    if isinstance(memory, DeviceArray):
        return _computed("cast", [memory], {"dtype": as_dtype(dtype)})
    with np.errstate(all="ignore"):
        return memory.astype(dtype)


def overwrite(memory: Any, source: Any) -> None:
    """Replace every element by those of an array of any device, or by a number.

    Raises
    ------
    ValueError
        If the source does not broadcast to the memory's shape.
    """
    if not isinstance(memory, DeviceArray):
        memory[...] = on_host(source)
    elif not isinstance(source, DeviceArray):
        _write(memory, source)
    else:
        if source.device is not memory.device:
            source = memory.device.put(source.get())
        if source.dtype != memory.dtype:
            source = converted(source, memory.dtype)
        if source.shape != memory.shape:
            if np.broadcast_shapes(source.shape, memory.shape) != memory.shape:
                raise ValueError(f"cannot broadcast {source.shape} to {memory.shape}")
            source = _computed("broadcast_to", [source], {"shape": memory.shape})
        memory.device.copy(source, memory)


def _write(memory: DeviceArray, source: Any) -> None:
    """Copy what NumPy or Python has over memory of a device."""
    with np.errstate(all="ignore"):
        values = np.asarray(source).astype(memory.dtype, copy=False)
    if values.ndim == 0 and not values:
        memory.device.clear(memory)
    else:
        memory.device.write(np.ascontiguousarray(np.broadcast_to(values, memory.shape)), memory)


def overwrite_part(memory: Any, key: Any, source: Any) -> None:
    """Replace the elements at an index of NumPy's.

    Where they do not lie side by side on a GPU, all elements go to the CPU and back.

    Raises
    ------
    ValueError
        If the source does not broadcast to the part's shape.
    IndexError
        If there is no such part.
    """
    if not isinstance(memory, DeviceArray):
        memory[key] = on_host(source)
        return
    key = key if isinstance(key, tuple) else (key,)
    basic = all(k is None or k is Ellipsis or isinstance(k, (int, slice, np.integer)) for k in key)
    part = memory.part(key) if basic else None
    if part is not None:
        overwrite(part, source)
        return
    whole = memory.get()
    whole[key] = on_host(source)
    memory.device.write(whole, memory)


def accumulate(memory: Any, source: Any) -> None:
    """Add an array on the same device to every element."""
    if isinstance(memory, DeviceArray):
        memory.device.copy(_computed("add", [memory, source], {}), memory)
    else:
        memory[...] += source


def scale(memory: Any, factor: float) -> None:
    """Multiply every element by a number."""
    number = memory.dtype.type(factor)
    if isinstance(memory, DeviceArray):
        memory.device.copy(_computed("multiply", [memory, np.array(number)], {}), memory)
    else:
        memory[...] *= number


def part_of(memory: Any, key: tuple[Any, ...]) -> Any:
    """Return the elements at a basic index in the same memory; None where they lie apart.

    Raises
    ------
    IndexError
        If there is no such part.
    """
    if isinstance(memory, DeviceArray):
        return memory.part(key)
    part = memory[key]
    if not isinstance(part, np.ndarray):
        # NumPy copied one element: look at its memory through a slice instead.
        part = memory[(*key[:-1], slice(key[-1], key[-1] + 1 or None))]
    return part if part.flags.c_contiguous else None


def wait_for(memory: Any) -> None:
    """Wait until an array is computed."""
    if isinstance(memory, DeviceArray):
        memory.device.synchronize()


def _computed(name: str, arrays: Sequence[Any], attrs: dict[str, Any]) -> DeviceArray:
    """Return the result of an op on the device of its first operand."""
    context = Context("gpu", arrays[0].device.number)
    (found,) = one_op_program(REGISTRY[name], arrays, attrs, context)(arrays)
    result: DeviceArray = found
    return result

"""What is done to the memory of arrays beside computing: made, copied, overwritten, read.

Arrays on the CPU, whichever number it has, are NumPy's; those on a GPU are DeviceArrays. All that
is particular to a device is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import user_location
from graphc.frontend.context import Context
from graphc.frontend.execute import one_op_program, program_of
from graphc.ir.graph import build
from graphc.ir.operand import REGISTRY
from graphc.ir.ops.comparison import equal, where
from graphc.ir.ops.gather import getitem_advanced
from graphc.ir.ops.movement import reshape
from graphc.ir.ops.rearrange import ravel
from graphc.ir.ops.reduction import positions_along
from graphc.ir.ops.rows import sort_rows
from graphc.ir.types import as_dtype, int64
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
        alike = source.dtype == memory.dtype and source.shape == memory.shape
        if alike and not memory.device.checking:
            memory.device.copy(source, memory)
            return
        source = _here(memory.device, source)
        if source.shape != memory.shape:
            if np.broadcast_shapes(source.shape, memory.shape) != memory.shape:
                raise ValueError(f"cannot broadcast {source.shape} to {memory.shape}")
            if source.dtype != memory.dtype:
                source = converted(source, memory.dtype)
            _compute_into(memory, "broadcast_to", source, {"shape": memory.shape})
        elif source.dtype != memory.dtype:
            _compute_into(memory, "cast", source, {"dtype": as_dtype(memory.dtype)})
        else:
            _compute_into(memory, "copy", source, {})


def _compute_into(
    memory: DeviceArray, name: str, source: DeviceArray, attrs: dict[str, Any]
) -> None:
    """Replace every element by the result of an op, which is not written if a check has failed."""
    found = _computed(name, [source], attrs, memory)
    if found is not memory:  # which does not begin where kernels write
        memory.device.settle()
        memory.device.copy(found, memory)


def undo_if_failed(context: Context | None, action: Callable[[], object]) -> None:
    """Have the host's counts set back if a check on a device fails that is under way."""
    device = _accelerator(context)
    if device is not None:
        device.checks.undo(action)


def _write(memory: DeviceArray, source: Any) -> None:
    """Copy what NumPy or Python has over memory of a device."""
    with np.errstate(all="ignore"):
        values = np.asarray(source).astype(memory.dtype, copy=False)
    if memory.device.checking:
        overwrite(memory, memory.device.put(values))
    elif values.ndim == 0 and not values:
        memory.device.clear(memory)
    else:
        memory.device.write(np.ascontiguousarray(np.broadcast_to(values, memory.shape)), memory)


def overwrite_part(memory: Any, key: Any, source: Any) -> None:
    """Replace the elements at an index of NumPy's.

    On a GPU those that do not lie side by side are written by a program.

    Raises
    ------
    ValueError
        If the source does not broadcast to the part's shape.
    IndexError
        If there is no such part.
    """
    key = key if isinstance(key, tuple) else (key,)
    if not isinstance(memory, DeviceArray):
        memory[tuple(map(_index_here, key))] = on_host(source)
        return
    shape = part_shape(memory.shape, key)
    if any(isinstance(k, DeviceArray) for k in key):
        _overwrite_there(memory, key, _values(memory, source, shape))
        return
    if not all(k is None or k is Ellipsis or isinstance(k, (int, slice, np.integer)) for k in key):
        places = memory.device.put(_once(_places(memory.shape, key)))
        values = _values(memory, source, shape)
        _change(memory.reshape(-1), "assign_at", places, values.reshape(-1))
        return
    part = memory.part(key)
    if part is not None:
        overwrite(part, _shortened(source, part.ndim))
        return
    sizes, layout = memory.layout(key)
    values = _values(memory, source, shape)
    _change(
        memory.reshape(-1), "assign_strided", np.array(layout, np.int64), values.reshape(sizes)
    )


def part_shape(shape: tuple[int, ...], key: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the shape of the elements at an index; those of arrays on a GPU are not looked at.

    Raises
    ------
    IndexError
        If there is no such part.
    """
    likes = [np.zeros(k.shape, np.int64) if isinstance(k, DeviceArray) else k for k in key]
    return np.broadcast_to(np.empty((), bool), shape)[tuple(likes)].shape


def _index_here(part: Any) -> Any:
    """Return a part of an index as NumPy takes it."""
    return on_host(part).astype(np.int64) if isinstance(part, DeviceArray) else part


def _overwrite_there(memory: DeviceArray, key: tuple[Any, ...], values: DeviceArray) -> None:
    """Replace the elements at an index with arrays that the host does not know."""
    if not values.size:
        return
    device = memory.device
    is_array = [isinstance(k, (DeviceArray, np.ndarray)) for k in key]
    indices = [_here(device, k) for k, array in zip(key, is_array, strict=True) if array]
    fixed = tuple(None if array else k for k, array in zip(key, is_array, strict=True))
    context = Context("gpu", device.number)
    program = program_of(
        lambda *traced: _last_writes(memory.shape, fixed, is_array, traced),
        ("setitem", repr((memory.shape, fixed, is_array))), indices, context,
    )  # fmt: skip
    places, order = program(indices)
    flat = [values.reshape(-1), order]
    take = one_op_program(REGISTRY["take"], flat, {"axis": 0, "mode": "clip"}, context)
    _change(memory.reshape(-1), "assign_at", places, *take(flat))


def _last_writes(
    shape: tuple[int, ...], fixed: Sequence[Any], is_array: Sequence[bool], indices: Sequence[Any]
) -> tuple[Any, Any]:
    """Return row-major places in ascending order, and which value belongs to each.

    Of a place that comes again only the last is there, in NumPy's order; the others are -1.
    """
    given = iter(indices)
    key = tuple(next(given) if array else k for k, array in zip(fixed, is_array, strict=True))
    size = math.prod(shape)
    count = {"length": size, "dtype": int64, "start": 0, "step": 1}
    (numbers,) = build(REGISTRY["iota"], (), count, user_location())
    places = ravel(getitem_advanced(reshape(numbers, shape), key))
    order, sorted_places, ends = sort_rows(places, size)
    behind = positions_along(places, 0, int64) + 1
    return where(equal(behind, ends), sorted_places, -1), order


def _places(shape: tuple[int, ...], key: tuple[Any, ...]) -> np.ndarray:
    """Return the row-major places of the elements at an index with arrays."""
    found: Any = 0
    for axis, size in enumerate(shape):
        along = np.arange(size).reshape((size,) + (1,) * (len(shape) - axis - 1))
        found = found * size + np.broadcast_to(along, shape)[key]
    return np.asarray(found, np.int64)


def _once(places: np.ndarray) -> np.ndarray:
    """Return places as one axis, with -1 for one that comes again: the last value is kept."""
    flat = places.reshape(-1)
    unique, last = np.unique(flat[::-1], return_index=True)
    if unique.size == flat.size:
        return flat
    kept = np.full(flat.size, -1)
    kept[flat.size - 1 - last] = unique
    return kept


def _values(memory: DeviceArray, source: Any, shape: tuple[int, ...]) -> DeviceArray:
    """Return a source in the type of memory, in a shape it broadcasts to, on the same device."""
    if not isinstance(source, DeviceArray):
        with np.errstate(all="ignore"):
            source = np.asarray(source).astype(memory.dtype, copy=False)
    source = _shortened(source, len(shape))
    if np.broadcast_shapes(source.shape, shape) != shape:
        raise ValueError(f"cannot broadcast {source.shape} to {shape}")
    source = _here(memory.device, source)
    if source.dtype != memory.dtype:
        source = converted(source, memory.dtype)
    return source if source.shape == shape else _spread(source, shape)


def _shortened(source: Any, ndim: int) -> Any:
    """Return a source without the axes in front that NumPy drops, as they have one element."""
    extra = source.ndim - ndim
    return source.reshape(source.shape[extra:]) if extra > 0 else source


def _here(device: Any, source: Any) -> DeviceArray:
    """Return an array of NumPy's or of any device as one on a device."""
    found: DeviceArray
    if isinstance(source, DeviceArray):
        if source.device is device:
            return source
        found = device.empty(source.shape, source.dtype)
        device.copy(source, found)
    else:
        found = device.put(source)
    return found


def _spread(source: DeviceArray, shape: tuple[int, ...]) -> DeviceArray:
    return _computed("broadcast_to", [source], {"shape": shape})


def _change(memory: DeviceArray, name: str, *others: Any) -> None:
    """Update memory to what an op makes of it and other operands."""
    arrays, context = [memory, *others], Context("gpu", memory.device.number)
    one_op_program(REGISTRY[name], arrays, {}, context, changing=True)(arrays)


def accumulate(memory: Any, source: Any) -> None:
    """Add an array of any device to every element."""
    if isinstance(memory, DeviceArray):
        _change(memory, "add", _here(memory.device, source))
    else:
        memory[...] += on_host(source)


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


def _computed(
    name: str, arrays: Sequence[Any], attrs: dict[str, Any], into: DeviceArray | None = None
) -> DeviceArray:
    """Return the result of an op on the device of its first operand, if possible in an array."""
    context = Context("gpu", arrays[0].device.number)
    (found,) = one_op_program(REGISTRY[name], arrays, attrs, context)(arrays, [into])
    result: DeviceArray = found
    return result

"""Writing into arrays: in place at once, as an update of the program in a trace."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import (
    AutogradError,
    DTypeError,
    GraphcError,
    IndexRangeError,
    ShapeError,
    TraceError,
    user_location,
)
from graphc.frontend.array import Array, mode
from graphc.frontend.memory import overwrite_part, part_shape
from graphc.frontend.tracer import Trace, Tracer, current_trace
from graphc.frontend.transfer import transfer
from graphc.ir.graph import Value, constant
from graphc.ir.ops import basic, movement
from graphc.ir.types import same_shape


def assign(target: Any, value: Any) -> None:
    """Replace every element of an array.

    Parameters
    ----------
    target : Array, or a Tracer of an array
        In a trace the program gets an update of it.
    value : array, number or sequence
        Cast to the type of ``target``; its shape broadcasts.

    Raises
    ------
    AutogradError
        Under ``record``, for an array that a gradient flows through.
    """
    trace = current_trace()
    if trace is not None:
        _update(trace, target, value)
        return
    source = value if isinstance(value, Array) else None
    _write(target, ..., value)
    if source is not None and source.on_tape and mode.recording:
        recorded: Any = source
        there = target._storage.context
        if source._storage.context is not there:
            recorded = transfer(source, there)
        if source.shape != target.shape:
            recorded = movement.broadcast_to(recorded, target.shape)
        if recorded.type.dtype is not target.type.dtype or recorded._entry is None:
            recorded = basic.cast(recorded, target.type.dtype)
        target._entry, target._index = recorded._entry, recorded._index


def assign_part(target: Any, key: tuple[Any, ...], value: Any) -> None:
    """Replace the elements of an array at an index."""
    if current_trace() is not None:
        raise TraceError(
            "writing into a part of an array cannot be compiled",
            remedy="Build the whole array, with where, concat or one_hot.",
            where=user_location(),
        )
    if isinstance(value, Array) and value.on_tape and mode.recording:
        raise AutogradError(
            "writing into a part of an array under autograd.record() would lose the gradient",
            remedy="Build the whole array, with nd.concat, nd.stack or nd.where.",
            where=user_location(),
        )
    _write(target, key, value)


def _write(target: Array, key: Any, value: Any) -> None:
    if mode.recording and target.on_tape:
        raise AutogradError(
            "in-place writes (x += y, x[...] = y) under autograd.record() would change what the "
            "gradient needs",
            remedy="Write x = x + y, or leave the record scope (autograd.pause()).",
            where=user_location(),
        )
    source = _elements(value)
    with np.errstate(all="ignore"):
        try:
            overwrite_part(target._array, key, source)
        except GraphcError:
            raise
        except ValueError:
            shape = part_shape(target.shape, key if isinstance(key, tuple) else (key,))
            raise ShapeError(
                f"cannot write an array of shape {source.shape} into a part of shape {shape}",
                remedy="The shapes must be equal or broadcast.",
                where=user_location(),
            ) from None
        except IndexError as error:
            raise IndexRangeError(
                f"cannot write into an array of shape {target.shape}: {error}",
                where=user_location(),
            ) from None
    target._storage.touch()


def _elements(value: Any) -> Any:
    """Return what is written, as NumPy or a device has it; one element fits a part of any shape."""
    found = value._array if isinstance(value, Array) else np.asarray(value)
    if found.dtype.kind not in "biuf":
        raise DTypeError(
            f"cannot write a {type(value).__name__} into an array", where=user_location()
        )
    return found.reshape(()) if found.size == 1 else found


def _update(trace: Trace, target: Any, value: Any) -> None:
    """Let the program replace what an array, or the input a tracer stands for, holds."""
    place = _input_of(trace, target)
    if isinstance(value, Array):
        value = value.tracer_class.wrap(trace.current(value))
    elif not isinstance(value, Tracer):
        value = Tracer(constant(_elements(value).item(), place.dtype))
    new = basic.cast(value, place.dtype)
    if not same_shape(new.type.shape, place.shape):
        new = movement.broadcast_to(new, place.shape)
    trace.updates[place] = new._value


def _input_of(trace: Trace, target: Any) -> Value:
    if isinstance(target, Array):
        return trace.capture(target)
    found = target._value
    for value, _ in trace.inputs:
        if value is found or trace.updates.get(value) is found:
            return value
    raise TraceError(
        "only arrays from outside can be written to while a function is compiled",
        remedy="Assign the result to a new name instead.",
        where=user_location(),
    )

"""A kernel's text as plain Python over NumPy: the text that is compiled, to step through.

Registers are NumPy scalars and arrays of the tile's shape, memory is flat arrays, and every
operation gives the bits that compiled code gives. An access out of bounds is an IndexError.
"""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from graphc.codegen.python_text import DTYPE_NAMES, FOLDS, source
from graphc.ir import scalar_math
from graphc.ir.dim import evaluate
from graphc.ir.loop import Kernel, Python, python_of
from graphc.ir.ops.python_kernel import python_function
from graphc.ir.types import DType

Array = Any
"""A NumPy scalar or array, or a Python number beside one."""


def run_python(
    kernel: Kernel,
    buffers: list[np.ndarray],
    sizes: list[int],
    begin: int,
    end: int,
    error: list[int] | None = None,
) -> int:
    """Run a scheduled kernel as Python.

    Parameters
    ----------
    kernel : Kernel
    buffers : list of ndarray
        One C-contiguous array for each of ``kernel.params``; outputs are written in place.
    sizes : list of int
        Values of ``kernel.sizes``.
    begin, end : int
        Iterations of the parallel axis.
    error : list of int, optional
        Gets the code and details of a `Fail`.

    Returns
    -------
    int
        0, or what a `Fail` returned.

    Raises
    ------
    IndexError
        If the kernel reads or writes outside a buffer.
    ValueError
        If a buffer is not C-contiguous or has another dtype than its parameter.
    """
    call = python_of(kernel)
    if call is not None:
        return _run_call(kernel, call, buffers, sizes)
    return run_source(source(kernel), buffers, sizes, begin, end, error)


def _run_call(
    kernel: Kernel, call: Python, buffers: Sequence[np.ndarray], sizes: Sequence[int]
) -> int:
    """Run a kernel that is Python already."""
    known = dict(zip(kernel.sizes, sizes, strict=True))
    arrays = {
        parameter.name: buffer.reshape([evaluate(d, known) for d in parameter.shape])
        for parameter, buffer in zip(kernel.params, buffers, strict=True)
    }
    run = python_function(call.source, call.function)
    run(*(arrays[buffer.name] for buffer in call.buffers))
    return 0


def run_source(
    text: str,
    buffers: Sequence[np.ndarray],
    sizes: Sequence[int],
    begin: int,
    end: int,
    error: list[int] | None = None,
) -> int:
    """Run a kernel's text; see `run_python`."""
    name = f"<kernel {abs(hash(text)):x}>"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name  # for debuggers
    scope = dict(_names())
    exec(compile(text, name, "exec"), scope)
    with np.errstate(all="ignore"):
        return int(scope["kernel"](buffers, sizes, begin, end, [] if error is None else error))


# -- types ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Type:
    """A type's name in the text: converts values and types constants."""

    dtype: DType

    def __call__(self, value: Array) -> Array:
        return scalar_math.convert(np.asarray(value), self.dtype)[()]


def _typed(*operands: Array) -> list[np.ndarray]:
    """Give Python numbers the type of the operands beside them."""
    kinds = [o.dtype for o in operands if isinstance(o, np.generic | np.ndarray)]
    kind = kinds[0] if kinds else np.dtype("int64")
    return [np.asarray(o, kind) for o in operands]


# -- operations ----------------------------------------------------------------------------------


def _extremum(larger: bool) -> Callable[[Array, Array], Array]:
    ufunc = np.maximum if larger else np.minimum

    def extremum(a: Array, b: Array) -> Array:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b) if larger else min(a, b)
        a, b = _typed(a, b)
        result = ufunc(a, b)
        if a.dtype.kind == "f":  # -0.0 is less than 0.0
            zero = np.where(np.signbit(a) & np.signbit(b) if larger
                            else np.signbit(a) | np.signbit(b), -0.0, 0.0)  # fmt: skip
            result = np.where((a == 0) & (b == 0), zero.astype(a.dtype), result)
        return result[()]

    return extremum


def _fma(a: Array, b: Array, c: Array) -> Array:
    return scalar_math.fma(*_typed(a, b, c))[()]


def _select(condition: Array, a: Array, b: Array) -> Array:
    return np.where(condition, *_typed(a, b))[()]


def _invert(a: Array) -> Array:
    return (not a) if isinstance(a, bool) else ~a


def _mulhi(a: Array, b: Array) -> Array:
    return scalar_math.multiply_high(*_typed(a, b))[()]


def _scale(a: Array, n: Array) -> Array:
    return scalar_math.times_power(*_typed(a, n))[()]


def _on_floats(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda a: function(a)[()] if np.asarray(a).dtype.kind == "f" else a


_COMBINE: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "mul": np.multiply, "max": _extremum(True), "min": _extremum(False),
    "and": np.bitwise_and, "or": np.bitwise_or,
}  # fmt: skip


def _fold(op: str) -> Callable[[np.ndarray], Array]:
    """Return the fixed tree of `ir.expr.Fold` for one operation."""
    combine = _COMBINE[op]

    def fold(tile: np.ndarray) -> Array:
        for _ in range(np.ndim(tile)):
            while len(tile) > 1:
                half = (len(tile) + 1) // 2
                upper = len(tile) - half
                tile = np.concatenate([combine(tile[:upper], tile[half:]), tile[upper:half]])
            tile = tile[0]
        return np.asarray(tile)[()]

    return fold


# -- memory --------------------------------------------------------------------------------------


def _buffer(buffers: Sequence[np.ndarray], position: int, dtype: _Type) -> np.ndarray:
    array = buffers[position]
    if array.dtype != dtype.dtype.numpy or not array.flags.c_contiguous:
        raise ValueError(
            f"buffer {position} must be C-contiguous {dtype.dtype}, got {array.dtype} "
            f"with strides {array.strides}"
        )
    return array.reshape(-1)


def _alloc(dtype: _Type, count: int) -> np.ndarray:
    # Filled, so that reading what was never written shows.
    return np.full(count, 0xAB, np.uint8).repeat(dtype.dtype.item_bytes).view(dtype.dtype.numpy)


def _places(offset: Array, tile: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    places = np.asarray(offset, np.int64)
    for axis, (size, stride) in enumerate(zip(tile, strides, strict=True)):
        shape = [1] * len(tile)
        shape[axis] = size
        places = places + (np.arange(size) * stride).reshape(shape)
    return places


def _checked(memory: np.ndarray, places: np.ndarray) -> np.ndarray:
    outside = (places < 0) | (places >= memory.size)
    if np.any(outside):
        first = np.asarray(places)[outside].flat[0]
        raise IndexError(f"offset {first} is outside a buffer of {memory.size} elements")
    return places


def _spread(value: Array, *tile: int) -> np.ndarray:
    # A comparison of Python integers is a Python bool, which must not become an i64.
    return np.broadcast_to(value if isinstance(value, bool) else _typed(value)[0], tile)


def _gather(memory: np.ndarray, places: Array) -> Array:
    return memory[_checked(memory, np.asarray(places))][()]


def _gather_where(mask: Array, fill: Array, memory: np.ndarray, places: Array) -> Array:
    places, mask = np.asarray(places), np.broadcast_to(mask, np.shape(places))
    result = np.full(places.shape, fill, memory.dtype)
    result[mask] = memory[_checked(memory, places[mask])]
    return result[()]


def _load(memory: np.ndarray, offset: Array, tile: Any = (), strides: Any = (1,)) -> Array:
    shape = (tile,) if isinstance(tile, int) else tile
    return _gather(memory, _places(offset, shape, strides if shape else ()))


def _load_where(
    mask: Array, fill: Array, memory: np.ndarray, offset: Array, tile: Any = (), strides: Any = (1,)
) -> Array:
    shape = (tile,) if isinstance(tile, int) else tile
    return _gather_where(mask, fill, memory, _places(offset, shape, strides if shape else ()))


def _scatter(memory: np.ndarray, places: Array, value: Array) -> None:
    memory[_checked(memory, np.asarray(places))] = value


def _scatter_where(mask: Array, memory: np.ndarray, places: Array, value: Array) -> None:
    places, mask = np.asarray(places), np.broadcast_to(mask, np.shape(places))
    memory[_checked(memory, places[mask])] = np.broadcast_to(value, places.shape)[mask]


def _store(memory: np.ndarray, offset: Array, value: Array, strides: Any = None) -> None:
    shape = np.shape(value)
    places = _places(offset, shape, [1] * len(shape) if strides is None else strides)
    _scatter(memory, places, value)


def _store_where(
    mask: Array, memory: np.ndarray, offset: Array, value: Array, strides: Any = None
) -> None:
    shape = np.shape(value)
    places = _places(offset, shape, [1] * len(shape) if strides is None else strides)
    _scatter_where(mask, memory, places, value)


def _fail(error: list[int], code: int, *details: Array) -> int:
    error[:] = [code, *map(int, details)]
    return 1


@cache
def _names() -> dict[str, Any]:
    names: dict[str, Any] = {
        "inf": math.inf, "nan": math.nan, "range": range,
        "buffer": _buffer, "size": lambda sizes, position: int(sizes[position]), "alloc": _alloc,
        "load": _load, "load_where": _load_where, "gather": _gather,
        "gather_where": _gather_where, "store": _store, "store_where": _store_where,
        "stream": _store, "stream_where": _store_where, "stream_fence": lambda: None,
        "prefetch": lambda memory, offset, level=1: None,
        "prefetch_to_write": lambda memory, offset, level=1: None,
        "scatter": _scatter, "scatter_where": _scatter_where, "fail": _fail,
        "full": lambda dtype, value, *tile: np.full(tile, value, dtype.dtype.numpy),
        "spread": _spread,
        "repeat": lambda a, lanes, count, first: a[(np.arange(lanes) + first) // count],
        "iota": np.arange,
        "bitcast": lambda value, dtype: scalar_math.reinterpret(value, dtype.dtype)[()],
        "minimum": _extremum(False), "maximum": _extremum(True), "absolute": np.abs,
        "invert": _invert, "rem": lambda a, b: np.fmod(*_typed(a, b))[()], "mulhi": _mulhi,
        "scale": _scale,
        "fma": _fma, "select": _select, "sqrt": np.sqrt, "floor": _on_floats(np.floor),
        "ceil": _on_floats(np.ceil), "trunc": _on_floats(np.trunc), "rint": _on_floats(np.rint),
    }  # fmt: skip
    names |= {name: _fold(op) for name, op in FOLDS.items()}
    return names | {name: _Type(dtype) for name, dtype in DTYPE_NAMES.items()}

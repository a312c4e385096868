"""Arrays made from nothing, from Python and from NumPy: float32 unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError, user_location
from graphc.frontend.array import Array, Storage
from graphc.frontend.context import Context, usable
from graphc.frontend.memory import filled, on_host, placed
from graphc.frontend.ndarray import NDArray, NDTracer
from graphc.frontend.ops.operator import element_type
from graphc.frontend.ops.shape import as_tuple
from graphc.frontend.tracer import Tracer, plain_sizes
from graphc.ir.dim import SizeExpr
from graphc.ir.graph import Value
from graphc.ir.ops import basic
from graphc.ir.ops import creation as core
from graphc.ir.types import DType, as_dtype
from graphc.runtime.blocks import allocator
from graphc.runtime.cuda import synchronize_all
from graphc.runtime.device import DLPACK_CUDA, DeviceArray

Shape = int | Sequence[int]


def wrapped(result: Any, context: Context | None) -> Any:
    """Return what an op record without array operands gave as a handle of `nd` on a device.

    Without one, it goes with arrays of any.
    """
    if isinstance(result, Value):
        return NDTracer.wrap(result)
    if not isinstance(result, Array):
        return result
    drawn = result._array
    there = drawn if isinstance(drawn, DeviceArray) else placed(drawn, context)
    return NDArray(there, Storage.on(context))


def array(source_array: Any, ctx: Any = None, dtype: Any = None) -> Any:
    """Return an array of what Python or NumPy holds.

    Parameters
    ----------
    source_array : NDArray, numpy.ndarray, number or nested sequence
    ctx : Context, optional
        By default the current one.
    dtype : optional
        That of an NDArray by default, for anything else float32.
    """
    context = usable(ctx)
    if isinstance(source_array, Tracer):
        return source_array if dtype is None else basic.cast(source_array, element_type(dtype))
    if isinstance(source_array, Array):
        source_array, dtype = on_host(source_array._array), dtype or source_array._array.dtype
    found = _from_python(source_array, element_type(dtype or "float32").numpy)
    found = found.reshape(1) if found.ndim == 0 else found
    return NDArray(placed(found, context), Storage.on(context))


def _from_python(source: Any, dtype: np.dtype[Any]) -> np.ndarray:
    if isinstance(source, (list, tuple)) and any(isinstance(part, Array) for part in source):
        source = [np.asarray(part) for part in source]
    try:
        if source is None:  # which NumPy takes for NaN
            raise TypeError
        with np.errstate(all="ignore"):
            if isinstance(source, np.ndarray) and source.dtype.kind in "biuf":
                found = allocator(source.shape, dtype)(source.shape, dtype)
                np.copyto(found, source, casting="unsafe")
                return found
            return np.array(source, dtype=dtype, order="C", copy=True)
    except (ValueError, TypeError):
        raise DTypeError(
            f"cannot make an array of {dtype.name} of this {type(source).__name__}",
            remedy="Rows must have equal lengths, and elements must be numbers.",
            where=user_location(),
        ) from None


def _float(dtype: Any) -> DType:
    """Return an element type, by default float32."""
    return element_type("float32" if dtype is None else dtype)


def full(shape: Shape, val: float, ctx: Any = None, dtype: Any = "float32", out: Any = None) -> Any:
    """Return an array of one value."""
    context = usable(ctx)
    sizes = as_tuple(shape)
    kind = _float(dtype)
    if any(isinstance(d, SizeExpr) for d in sizes):
        return wrapped(core.full(sizes, val, kind), context)
    if any(not isinstance(d, (int, np.integer)) or d < 0 for d in sizes):
        raise ShapeError(
            f"sizes must be whole numbers, 0 or more, got {sizes}", where=user_location()
        )
    found = NDArray(filled(sizes or (1,), val, kind.numpy, context), Storage.on(context))
    if out is None:
        return found
    out[:] = found
    return out


def zeros(shape: Shape, ctx: Any = None, dtype: Any = "float32", stype: str | None = None) -> Any:
    """Return an array of zeros."""
    return full(shape, 0, ctx, dtype)


def ones(shape: Shape, ctx: Any = None, dtype: Any = "float32") -> Any:
    """Return an array of ones."""
    return full(shape, 1, ctx, dtype)


def empty(shape: Shape, ctx: Any = None, dtype: Any = "float32") -> Any:
    """Return an array whose elements are not set; here they are zeros."""
    return full(shape, 0, ctx, dtype)


def arange(
    start: float, stop: float | None = None, step: float = 1.0, repeat: int = 1,
    infer_range: bool = False, ctx: Any = None, dtype: Any = "float32",
) -> Any:  # fmt: skip
    """Return the numbers ``start, start + step, ...`` before ``stop``, each ``repeat`` times."""
    context = usable(ctx)
    bounds = [plain_sizes(b) for b in (start, stop, step)]
    if any(isinstance(b, SizeExpr) for b in bounds):
        step = int(step)
    found = wrapped(core.arange(bounds[0], bounds[1], step, _float(dtype)), context)
    return found if repeat == 1 else found.repeat(repeat)


def linspace(
    start: float, stop: float, num: int, endpoint: bool = True, ctx: Any = None,
    dtype: Any = "float32",
) -> Any:  # fmt: skip
    """Return ``num`` evenly spaced numbers from ``start`` to ``stop``."""
    context = usable(ctx)
    return wrapped(core.linspace(start, stop, num, endpoint, _float(dtype)), context)


def eye(N: int, M: int = 0, k: int = 0, ctx: Any = None, dtype: Any = "float32") -> Any:
    """Return an ``(N, M)`` matrix with ones on the ``k``-th diagonal; ``M`` 0 is ``N``."""
    context = usable(ctx)
    return wrapped(core.eye(plain_sizes(N), plain_sizes(M) or None, k, _float(dtype)), context)


def from_numpy(ndarray: np.ndarray, zero_copy: bool = True) -> NDArray:
    """Return a handle of a NumPy array's memory, which must be C-contiguous; or of a copy."""
    as_dtype(ndarray.dtype)
    if zero_copy and not ndarray.flags.c_contiguous:
        raise ShapeError(
            "from_numpy shares memory only with C-contiguous arrays",
            remedy="Pass zero_copy=False, or numpy.ascontiguousarray(x).",
            where=user_location(),
        )
    return NDArray(ndarray if zero_copy else ndarray.copy())


def from_dlpack(dlpack: Any) -> NDArray:
    """Return a handle of memory that another library shares through DLPack, where it is."""
    kind, number = dlpack.__dlpack_device__()
    if kind == DLPACK_CUDA:
        return _on_gpu(dlpack, number)
    return NDArray(np.ascontiguousarray(np.from_dlpack(dlpack)))


def _on_gpu(dlpack: Any, number: int) -> NDArray:
    """Return a handle of another library's memory on a GPU."""
    context = usable(Context("gpu", number))
    device = context.accelerator
    assert device is not None
    memory = device.adopt(dlpack)
    if memory is None:
        raise ShapeError(
            "from_dlpack shares memory on a GPU only with arrays in row-major order",
            remedy="Make a contiguous copy there first.",
            where=user_location(),
        )
    return NDArray(memory, Storage.on(context))  # type: ignore[arg-type]


def waitall() -> None:
    """Wait until everything is computed; on the CPU it is when a call returns.

    Raises
    ------
    DeviceError
        For what failed on a device since the last wait.
    """
    synchronize_all()

"""Graph inputs, constants, sizes as values, ranges and casts."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import user_location
from graphc.ir.dim import Dim, evaluate, symbols
from graphc.ir.graph import build
from graphc.ir.op import EVERY, Kind, OpDef, Spec, register, sample
from graphc.ir.operand import apply
from graphc.ir.scalar_math import convert
from graphc.ir.types import DType, TensorType, as_dtype, float32, int64


class Input(OpDef):
    """A graph input; its type is an attribute."""

    name, kind, dtypes = "input", Kind.OPAQUE, ()

    def infer(self, *types: TensorType, name: str, type: TensorType) -> TensorType:
        """Return the declared type."""
        return type


class Constant(OpDef):
    """A 0-d constant."""

    name, kind, gradient = "constant", Kind.POINTWISE, False
    dtypes = ()

    def infer(self, *types: TensorType, value: Any, dtype: DType) -> TensorType:
        """Return a 0-d type."""
        return TensorType(dtype, ())

    def lower(self, k: Any, *, value: Any, dtype: DType) -> Any:
        """Return the constant."""
        return k.const(value, dtype)

    def reference(self, *arrays: np.ndarray, value: Any, dtype: DType) -> Any:
        """Return a 0-d array."""
        return np.asarray(value, dtype.numpy)


class SizeOf(OpDef):
    """A symbolic size as a 0-d value: the divisor of a mean, the bound of a range."""

    name, kind, gradient = "size", Kind.POINTWISE, False
    dtypes = ()

    def infer(self, *types: TensorType, dim: Dim, dtype: DType) -> TensorType:
        """Return a 0-d type."""
        return TensorType(dtype, ())

    def lower(self, k: Any, *, dim: Dim, dtype: DType) -> Any:
        """Return the size."""
        return k.size(dim, dtype)

    def reference(self, *arrays: np.ndarray, dim: Dim, dtype: DType) -> Any:
        """Return a 0-d array; the interpreter has put the sizes in."""
        return np.asarray(evaluate(dim, {}), dtype.numpy)


class Cast(OpDef):
    """Conversion to another type; to bool ``x != 0``; floats truncate and saturate to integers.

    NaN becomes 0; integers wrap.
    """

    name, kind, dtypes = "cast", Kind.POINTWISE, EVERY
    samples = (
        sample((3, 4), dtype=float32),
        sample((5,), dtype=as_dtype("float64")),
        sample((2, 3), dtype=as_dtype("int32")),
        sample(Spec((6,), 0, 100), dtype=as_dtype("uint8")),
        sample(Spec((9,), -900, 900), dtype=as_dtype("uint8")),
        sample((4,), dtype=as_dtype("bool")),
        sample((0, 3), dtype=int64),
    )

    def __call__(self, x: Any, dtype: Any) -> Any:
        """Convert ``x`` to ``dtype`` (a name, a NumPy dtype or a DType)."""
        return apply(self, (x,), {"dtype": as_dtype(dtype)})

    def infer(self, *types: TensorType, dtype: DType) -> TensorType:
        """Return the same shape with the new type."""
        return types[0].with_dtype(dtype)

    def vjp(self, g: Any, y: Any, *inputs: Any, dtype: DType) -> tuple[Any, ...]:
        """Convert the gradient back; integer and bool conversions have none."""
        x = inputs[0]
        if not (as_dtype(x.dtype).floating and dtype.floating):
            return (None,)
        return (cast(g, as_dtype(x.dtype)),)

    def lower(self, k: Any, *operands: Any, dtype: DType) -> Any:
        """Convert one element."""
        return k.cast(operands[0], dtype)

    def reference(self, *arrays: np.ndarray, dtype: DType) -> Any:
        """Convert with NumPy."""
        with np.errstate(all="ignore"):
            return convert(arrays[0], dtype)


class Iota(OpDef):
    """The range ``start + step * i`` of a given length, along one axis."""

    name, kind, gradient = "iota", Kind.POINTWISE, False
    dtypes = ()

    def infer(
        self, *types: TensorType, length: Dim, dtype: DType, start: Any = 0, step: Any = 1
    ) -> TensorType:
        """Return a 1-d type."""
        return TensorType(dtype, (length,))

    def lower(
        self, k: Any, *, length: Dim, dtype: DType, start: Any = 0, step: Any = 1
    ) -> Any:
        """Return one element of the range."""
        return k.cast(k.index[0], dtype) * step + start

    def reference(
        self, *arrays: np.ndarray, length: Dim, dtype: DType, start: Any = 0, step: Any = 1
    ) -> Any:
        """Compute with NumPy."""
        scalar = dtype.numpy.type
        places = np.arange(evaluate(length, {})).astype(dtype.numpy)
        return places * scalar(step) + scalar(start)


class StopGradient(OpDef):
    """The operand itself, through which no gradient flows."""

    name, kind, dtypes, gradient = "stop_gradient", Kind.POINTWISE, EVERY, False
    samples = (sample((3, 2)),)

    def __call__(self, x: Any) -> Any:
        """Return ``x`` as a constant for differentiation."""
        return apply(self, (x,), {})

    def infer(self, *types: TensorType) -> TensorType:
        """Return the operand's type."""
        return types[0]

    def lower(self, k: Any, *operands: Any) -> Any:
        """Return the element."""
        return operands[0]

    def reference(self, *arrays: np.ndarray) -> Any:
        """Return the array."""
        return arrays[0]


class Copy(StopGradient):
    """The operand in memory of its own; compiled programs return it for an input."""

    name, gradient = "copy", True

    def vjp(self, g: Any, y: Any, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """Pass the gradient on."""
        return (g,)


input_ = register(Input())
constant = register(Constant())
size_of = register(SizeOf())
cast = register(Cast())
iota = register(Iota())
stop_gradient = register(StopGradient())
copy = register(Copy())


def size_value(dim: Dim, dtype: DType) -> Any:
    """Return a size as a number where it is known, else as a traced 0-d value."""
    if not symbols(dim):
        return evaluate(dim, {})
    return build(size_of, (), {"dim": dim, "dtype": dtype}, user_location())[0]

"""Variance, norms and the logarithm of summed exponentials, over any axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.ir.dim import dim_max, product
from graphc.ir.op import FLOATS, Sample, Spec, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops import reduction
from graphc.ir.ops.arithmetic import abs, sqrt, square
from graphc.ir.ops.basic import size_value
from graphc.ir.ops.comparison import equal, where
from graphc.ir.ops.reduction import (
    FULL_SAMPLES,
    SAMPLES,
    Axes,
    Reduction,
    as_axes,
    extents,
    mean,
    reducer,
    refuse_empty,
    restored,
)
from graphc.ir.ops.transcendental import exp, power
from graphc.ir.types import DType, TensorType, as_dtype, float64, normalize_axes


class FloatReduction(Reduction):
    """A reduction of floating values; integers become float64 first."""

    dtypes = FLOATS

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...]:
        """Make integers and bools float64."""
        return tuple(t.dtype if t.dtype.floating else float64 for t in types)


class Variance(FloatReduction):
    """Mean squared distance from the mean, ``sum((x - mean(x))**2) / (n - ddof)``."""

    name = "var"
    samples: tuple[Sample, ...] = (
        *SAMPLES,
        sample((3, 4), axis=1, ddof=1),
        sample((3, 1), axis=1, ddof=1),
    )

    def __call__(
        self, x: Any, axis: Any = None, ddof: int = 0, keepdims: bool = False
    ) -> Any:
        """Compute the variance over axes.

        Parameters
        ----------
        x : operand
            Integers become float64.
        axis : int, tuple of int or None
        ddof : int
            Subtracted from the number of elements in the divisor; 1 estimates without bias.
        keepdims : bool
        """
        attrs = {"axis": as_axes(axis), "ddof": int(ddof), "keepdims": bool(keepdims)}
        return apply(self, (x,), attrs)

    def infer(
        self, *types: TensorType, axis: Axes = None, keepdims: bool = False, ddof: int = 0
    ) -> TensorType:
        """Drop the reduced axes, or leave them with size 1."""
        return super().infer(*types, axis=axis, keepdims=keepdims)

    def decompose(
        self, *inputs: Any, axis: Axes = None, keepdims: bool = False, ddof: int = 0
    ) -> Any:
        """Sum the squared distances from the mean."""
        x = inputs[0]
        total = reduction.sum(square(x - mean(x, axis, keepdims=True)), axis, keepdims)
        count = dim_max(product(extents(x, axis)) - ddof, 0)
        return total / size_value(count, as_dtype(x.dtype))

    def reference(
        self, *arrays: np.ndarray, axis: Axes = None, keepdims: bool = False, ddof: int = 0
    ) -> Any:
        """Compute with NumPy, warnings off."""
        x = arrays[0]
        with np.errstate(all="ignore"):
            distance = x - mean.reference(x, axis=axis, keepdims=True)
            total = np.sum(distance * distance, axis=axis, keepdims=keepdims)
            count = max(math.prod(extents(x, axis)) - ddof, 0)
            return np.asarray(total / x.dtype.type(count))


class StandardDeviation(Variance):
    """Square root of the variance."""

    name = "std"
    samples = (*SAMPLES[:5], *SAMPLES[8:], sample((3, 4), axis=1, ddof=1))

    def decompose(
        self, *inputs: Any, axis: Axes = None, keepdims: bool = False, ddof: int = 0
    ) -> Any:
        """Take the root of the variance."""
        return sqrt(var(inputs[0], axis, ddof, keepdims))

    def reference(
        self, *arrays: np.ndarray, axis: Axes = None, keepdims: bool = False, ddof: int = 0
    ) -> Any:
        """Compute with NumPy."""
        return np.sqrt(var.reference(*arrays, axis=axis, keepdims=keepdims, ddof=ddof))


class LogSumExp(FloatReduction):
    """Logarithm of summed exponentials, ``log(sum_i exp(x_i))``, stable for large ``x``."""

    name = "logsumexp"
    samples = (*SAMPLES, sample(Spec((2, 3), 500.0, 900.0), axis=1, keepdims=False))

    def vjp(self, g: Any, y: Any, *inputs: Any, axis: Axes, keepdims: bool) -> tuple[Any, ...]:
        """Give each element its softmax share."""
        x = inputs[0]
        y, g = (restored(v, x, axis, keepdims) for v in (y, g))
        # Where all elements are -inf their shares are 0, not the NaN of -inf - -inf.
        return (g * exp(x - where(equal(y, -math.inf), 0.0, y)),)

    def lower(self, k: Any, *operands: Any, axis: Axes, keepdims: bool) -> Any:
        """Subtract the peak before the exponential."""
        x = operands[0]
        read, sizes = reducer(k, x, axis, keepdims), extents(x, axis)
        peak = k.reduce("max", sizes, read)
        peak = k.select(k.apply("abs", peak) < math.inf, peak, k.const(0, x.dtype))
        return k.log(k.reduce("add", sizes, lambda *r: k.exp(read(*r) - peak))) + peak

    def reference(self, *arrays: np.ndarray, axis: Axes, keepdims: bool) -> Any:
        """Compute with NumPy."""
        x = arrays[0]
        with np.errstate(all="ignore"):
            peak = np.max(x, axis=axis, keepdims=True, initial=-np.inf).astype(x.dtype)
            peak = np.where(np.isfinite(peak), peak, x.dtype.type(0))
            total = np.sum(np.exp(x - peak), axis=axis, keepdims=True)
            result = np.log(total) + peak
        return result if keepdims else result.reshape(np.sum(x, axis=axis).shape)


class Norm(FloatReduction):
    """Vector norm, ``sum(|x|**ord) ** (1 / ord)``; its gradient is 0 where the norm is 0."""

    name = "norm"
    samples = tuple(
        sample(*s.specs, ord=ord, **s.attrs) for ord in (1.0, 2.0, 3.0) for s in SAMPLES
    ) + tuple(sample(*s.specs, ord=math.inf, **s.attrs) for s in FULL_SAMPLES)

    def __call__(
        self, x: Any, ord: float = 2, axis: Any = None, keepdims: bool = False
    ) -> Any:
        """Compute the norm of the vectors along axes.

        Parameters
        ----------
        x : operand
        ord : float
            Order above 0; ``inf`` for the largest magnitude.
        axis : int, tuple of int or None
            Several axes count as one long vector.
        keepdims : bool

        Raises
        ------
        ArgumentError
            When ``ord`` is not above 0.
        """
        attrs = {"ord": float(ord), "axis": as_axes(axis), "keepdims": bool(keepdims)}
        return apply(self, (x,), attrs)

    def infer(
        self, *types: TensorType, ord: float = 2.0, axis: Axes = None, keepdims: bool = False
    ) -> TensorType:
        """Drop the reduced axes, or leave them with size 1."""
        if not ord > 0:
            raise ArgumentError(
                f"norm of order {ord}: the order must be above 0",
                remedy="Use ord=1, ord=2 (the default) or ord=inf.",
            )
        if ord == math.inf:
            refuse_empty(self.name, types[0], normalize_axes(axis, types[0].ndim))
        return super().infer(*types, axis=axis, keepdims=keepdims)

    def decompose(
        self, *inputs: Any, ord: float = 2.0, axis: Axes = None, keepdims: bool = False
    ) -> Any:
        """Sum powers of the magnitudes and take the root."""
        x = inputs[0]
        if ord == math.inf:
            return reduction.max(abs(x), axis, keepdims)
        if ord == 1.0:
            return reduction.sum(abs(x), axis, keepdims)
        total = reduction.sum(square(x) if ord == 2.0 else power(abs(x), ord), axis, keepdims)
        # The slope of a root at 0 is infinite; there it must meet no factor of 0.
        nothing = equal(total, 0.0)
        safe = where(nothing, 1.0, total)
        return where(nothing, 0.0, sqrt(safe) if ord == 2.0 else power(safe, 1.0 / ord))

    def reference(
        self, *arrays: np.ndarray, ord: float = 2.0, axis: Axes = None, keepdims: bool = False
    ) -> Any:
        """Compute with NumPy."""
        x = arrays[0]
        if axis == ():
            return np.abs(x)
        return np.linalg.vector_norm(
            x, axis=axis, keepdims=keepdims, ord=ord  # type: ignore[arg-type]
        ).astype(x.dtype)


var = register(Variance())
std = register(StandardDeviation())
logsumexp = register(LogSumExp())
norm = register(Norm())

"""Sums, products, extrema and what is made of them, over any axes.

``axis`` is an axis, a tuple of axes or None for all of them; ``keepdims`` leaves each reduced axis
with size 1. The records carry NumPy's names, so some of Python's are hidden in this file.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError, user_location
from graphc.ir.dim import Dim, product
from graphc.ir.expr import Expr
from graphc.ir.graph import Value, build
from graphc.ir.op import EVERY, Kind, OpDef, Sample, Spec, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.basic import cast, iota, size_value
from graphc.ir.ops.comparison import equal, where
from graphc.ir.ops.composite import create
from graphc.ir.ops.movement import broadcast_to, expand_dims
from graphc.ir.sizes import known_size
from graphc.ir.types import (
    DType,
    TensorType,
    as_dtype,
    bool_,
    float64,
    int64,
    normalize_axes,
    uint64,
)

Axes = int | tuple[int, ...] | None

# Not symmetric: magnitudes must not tie where a gradient is taken.
_RANGE = (-2.9, 3.05)
# The last ones reduce an empty axis, which sums and products have and extrema do not.
FULL_SAMPLES = (
    sample(Spec((3, 5, 4), *_RANGE, distinct=True), axis=1, keepdims=False),
    sample(Spec((7,), *_RANGE, distinct=True), axis=-1, keepdims=True),
    sample(Spec((2, 3, 4), *_RANGE, distinct=True), axis=(0, -1), keepdims=False),
    sample(Spec((3, 4), *_RANGE, distinct=True), axis=None, keepdims=False),
    sample(Spec((3, 4), *_RANGE, distinct=True), axis=None, keepdims=True),
    sample((), axis=None, keepdims=False),
    sample((1, 3), axis=0, keepdims=False),
    sample((2, 3), axis=(), keepdims=False),
    sample((2, 0), axis=0, keepdims=False),
)
SAMPLES = (
    *FULL_SAMPLES,
    sample((2, 0), axis=1, keepdims=False),
    sample((0, 3), axis=(0, 1), keepdims=True),
)


def as_axes(axis: Any) -> Axes:
    """Return an ``axis`` argument as a hashable attribute.

    Raises
    ------
    ShapeError
        When it is no integer, sequence of integers or None.
    """
    try:
        if axis is None:
            return None
        return tuple(map(_as_axis, axis)) if isinstance(axis, Iterable) else _as_axis(axis)
    except TypeError:
        raise ShapeError(
            f"axis must be an integer, a tuple of integers or None, got {axis!r}",
            where=user_location(),
        ) from None


def _as_axis(axis: Any) -> int:
    if isinstance(axis, (bool, np.bool_)):
        raise TypeError("a bool is no axis")
    return operator.index(axis)


def reduced_shape(shape: Sequence[Dim], axes: Sequence[int], keepdims: bool) -> tuple[Dim, ...]:
    """Return the shape that is left when ``axes`` (normalised) are reduced."""
    kept = ((axis, 1 if axis in axes else dim) for axis, dim in enumerate(shape))
    return tuple(dim for axis, dim in kept if keepdims or axis not in axes)


def reducer(k: Any, x: Any, axis: Axes, keepdims: bool) -> Callable[..., Expr]:
    """Return ``read(*positions)``: the operand's element at positions on its reduced axes."""
    axes = normalize_axes(axis, x.ndim)

    def read(*positions: Expr) -> Expr:
        inner, outer = iter(positions), iter(k.index)
        index = []
        for place in range(x.ndim):
            if place in axes:
                index.append(next(inner))
                if keepdims:
                    next(outer)
            else:
                index.append(next(outer))
        return x.at(*index)  # type: ignore[no-any-return]

    return read


def extents(x: Any, axis: Axes) -> tuple[Dim, ...]:
    """Return the sizes of the reduced axes."""
    return tuple(x.shape[a] for a in normalize_axes(axis, len(x.shape)))


def restored(y: Any, x: Any, axis: Axes, keepdims: bool) -> Any:
    """Return a reduced value with its axes back as size 1, ready to broadcast against ``x``."""
    axes = normalize_axes(axis, len(x.shape))
    return y if keepdims or not axes else expand_dims(y, axes)


class Reduction(OpDef):
    """Base of the records here: ``axis`` and ``keepdims``, and a result of the operand's type."""

    kind = Kind.REDUCE
    dtypes: tuple[DType, ...] = EVERY
    samples: tuple[Sample, ...] = SAMPLES

    def __call__(self, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        """Reduce ``x`` over ``axis`` (an axis, a tuple of axes, or None for all of them)."""
        return apply(self, (x,), {"axis": as_axes(axis), "keepdims": bool(keepdims)})

    def result_dtype(self, dtype: DType) -> DType:
        """Return the type of the result for an operand's type."""
        return dtype

    def infer(self, *types: TensorType, axis: Axes = None, keepdims: bool = False) -> TensorType:
        """Drop the reduced axes, or leave them with size 1."""
        x = types[0]
        shape = reduced_shape(x.shape, normalize_axes(axis, x.ndim), keepdims)
        return TensorType(self.result_dtype(x.dtype), shape)


# -- sums and products -----------------------------------------------------------------------------


def _accumulator(dtype: DType) -> DType:
    """Return the type NumPy sums in: integers and bools at 64 bits."""
    if dtype.floating:
        return dtype
    return uint64 if dtype.kind == "u" else int64


class Accumulation(Reduction):
    """A sum or product: integers are accumulated at 64 bits, or in ``dtype``."""

    combine: str
    numpy: Callable[..., Any]

    def __call__(
        self, x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None
    ) -> Any:
        """Accumulate over axes.

        Parameters
        ----------
        x : operand
        axis : int, tuple of int or None
        keepdims : bool
        dtype : dtype, optional
            Type to accumulate in; by default that of ``x``, for integers and bools int64 or uint64.
        """
        kind = None if dtype is None else as_dtype(dtype)
        attrs = {"axis": as_axes(axis), "keepdims": bool(keepdims), "dtype": kind}
        return apply(self, (x,), attrs)

    def infer(
        self,
        *types: TensorType,
        axis: Axes = None,
        keepdims: bool = False,
        dtype: DType | None = None,
    ) -> TensorType:
        """Drop the reduced axes, or leave them with size 1; NumPy's type."""
        kind = dtype or _accumulator(types[0].dtype)
        return super().infer(*types, axis=axis, keepdims=keepdims).with_dtype(kind)

    def lower(
        self, k: Any, *operands: Any, axis: Axes, keepdims: bool = False, dtype: Any = None
    ) -> Any:
        """Combine the elements, converted to the result's type."""
        x = operands[0]
        read = reducer(k, x, axis, keepdims)
        return k.reduce(self.combine, extents(x, axis), lambda *r: k.cast(read(*r), k.dtype))

    def reference(
        self, *arrays: np.ndarray, axis: Axes, keepdims: bool = False, dtype: Any = None
    ) -> Any:
        """Accumulate with NumPy."""
        kind = None if dtype is None else dtype.numpy
        return self.numpy(arrays[0], axis=axis, keepdims=keepdims, dtype=kind)


class Sum(Accumulation):
    """Sum over axes; 0 over an empty one."""

    name, combine, numpy = "sum", "add", staticmethod(np.sum)
    samples = (*SAMPLES, sample((2, 3), axis=1, keepdims=False, dtype=float64))

    def vjp(self, g: Any, y: Any, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """Give every element the gradient of its sum."""
        x = inputs[0]
        if not as_dtype(y.dtype).floating:
            return (None,)
        spread = broadcast_to(restored(g, x, attrs["axis"], attrs["keepdims"]), x.shape)
        return (_like(spread, x),)


def _like(g: Any, x: Any) -> Any:
    """Return a gradient in the operand's type."""
    wanted = as_dtype(x.dtype)
    return g if as_dtype(g.dtype) is wanted else cast(g, wanted)


class Prod(Accumulation):
    """Product over axes; 1 over an empty one.

    The gradient of one factor is the product of all the others, each computed as such: no division,
    so it is right where factors are 0, to any order, at a cost quadratic in the size of an axis.
    """

    name, combine, numpy = "prod", "mul", staticmethod(np.prod)
    samples = (
        *SAMPLES,
        sample((2, 3), axis=1, keepdims=False, dtype=float64),
        sample(Spec((3, 4), 0.0, 1e-30), axis=1, keepdims=False),
    )

    def vjp(self, g: Any, y: Any, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """Multiply the gradient by all other factors, axis after axis."""
        x = inputs[0]
        if not as_dtype(y.dtype).floating:
            return (None,)
        stages = [_like(x, y)]
        axes = normalize_axes(attrs["axis"], len(x.shape))
        for axis in axes:
            stages.append(prod(stages[-1], axis, keepdims=True))
        g = restored(g, x, attrs["axis"], attrs["keepdims"])
        for axis, factors in zip(reversed(axes), reversed(stages[:-1])):
            g = g * _others(factors, axis)
        return (_like(g, x),)


def positions_along(x: Any, axis: int, dtype: DType) -> Any:
    """Return ``0, 1, ...`` along an axis of ``x``, traced where ``x`` is."""
    attrs = {"length": x.shape[axis], "dtype": dtype, "start": 0, "step": 1}
    traced = isinstance(x, Value)
    return build(iota, (), attrs, x.node.where)[0] if traced else create(iota, attrs)


def _others(x: Any, axis: int) -> Any:
    """Return the product of all other elements along an axis, for each element."""
    trailing = len(x.shape) - 1 - axis
    positions = positions_along(x, axis, int64)
    own, other = range(1, trailing + 2), (0, *range(2, trailing + 2))
    same = equal(expand_dims(positions, tuple(own)), expand_dims(positions, other))
    return prod(where(same, 1.0, expand_dims(x, axis)), axis + 1)


class Mean(Reduction):
    """Mean over axes, of integers in float64; NaN over an empty one."""

    name = "mean"

    def result_dtype(self, dtype: DType) -> DType:
        """Return the type of the result: floating."""
        return dtype if dtype.floating else float64

    def decompose(self, *inputs: Any, axis: Axes = None, keepdims: bool = False) -> Any:
        """Divide the sum by the number of elements."""
        x = inputs[0]
        dtype = self.result_dtype(as_dtype(x.dtype))
        total = sum(x, axis, keepdims, dtype=dtype)
        return total / size_value(product(extents(x, axis)), dtype)

    def reference(self, *arrays: np.ndarray, axis: Axes = None, keepdims: bool = False) -> Any:
        """Average with NumPy; of nothing NaN, without a warning."""
        x = arrays[0]
        dtype = self.result_dtype(as_dtype(x.dtype)).numpy
        total = np.sum(x, axis=axis, keepdims=keepdims, dtype=dtype)
        with np.errstate(all="ignore"):
            return np.asarray(total / dtype.type(math.prod(extents(x, axis))))


# -- extrema ---------------------------------------------------------------------------------------


def refuse_empty(op: str, x: TensorType, axes: Sequence[int]) -> None:
    """Raise ShapeError when a reduced axis has no elements: there is no extremum to return."""
    for axis in axes:
        if known_size(x.shape[axis]) == 0:
            raise ShapeError(
                f"{op} over axis {axis}, which has no elements, has no value",
                remedy="Reduce an axis that has elements, or handle the empty operand before.",
            )


class Extremum(Reduction):
    """Largest or smallest element; NaN if there is one. Equal ones share the gradient equally."""

    samples = FULL_SAMPLES

    def __init__(self, name: str, doc: str, on_bool: str, reference: Any) -> None:
        self.name, self.__doc__ = name, doc
        self.on_bool, self._reference = on_bool, reference

    def infer(self, *types: TensorType, axis: Axes = None, keepdims: bool = False) -> TensorType:
        """Drop the reduced axes, none of which may be empty."""
        refuse_empty(self.name, types[0], normalize_axes(axis, types[0].ndim))
        return super().infer(*types, axis=axis, keepdims=keepdims)

    def vjp(self, g: Any, y: Any, *inputs: Any, axis: Axes, keepdims: bool) -> tuple[Any, ...]:
        """Divide the gradient among the elements that are equal to the result."""
        x = inputs[0]
        if not as_dtype(y.dtype).floating:
            return (None,)
        y, g = (restored(v, x, axis, keepdims) for v in (y, g))
        chosen = cast(equal(x, y), as_dtype(x.dtype))
        return (chosen * (g / sum(chosen, axis, keepdims=True)),)

    def lower(self, k: Any, *operands: Any, axis: Axes, keepdims: bool) -> Any:
        """Combine the elements."""
        x = operands[0]
        combine = self.on_bool if x.dtype is bool_ else self.name
        return k.reduce(combine, extents(x, axis), reducer(k, x, axis, keepdims))

    def reference(self, *arrays: np.ndarray, axis: Axes, keepdims: bool) -> Any:
        """Compute with NumPy."""
        return self._reference(arrays[0], axis=axis, keepdims=keepdims)


class ArgExtremum(Reduction):
    """Position (int64) of the first largest or smallest element, or of the first NaN."""

    gradient = False
    samples = (
        sample((3, 5, 4), axis=1, keepdims=False),
        sample(Spec((3, 9), 0, 3), axis=-1, keepdims=True),
        sample((3, 4), axis=None, keepdims=False),
        sample((3, 4), axis=None, keepdims=True),
        sample((), axis=None, keepdims=False),
        sample((0, 2), axis=1, keepdims=False),
    )

    def __init__(self, name: str, doc: str, combine: str, on_bool: str, reference: Any) -> None:
        self.name, self.__doc__ = name, doc
        self.combine, self.on_bool, self._reference = combine, on_bool, reference

    def __call__(self, x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
        """Return positions along ``axis``, or in the flattened operand where it is None."""
        return super().__call__(x, axis, keepdims)

    def infer(self, *types: TensorType, axis: Axes = None, keepdims: bool = False) -> TensorType:
        """Drop the reduced axis, which may not be empty; int64."""
        if isinstance(axis, tuple):
            raise ShapeError(f"{self.name} takes one axis or None, got {axis}")
        axes = normalize_axes(axis, types[0].ndim)
        refuse_empty(self.name, types[0], axes)
        return super().infer(*types, axis=axis, keepdims=keepdims).with_dtype(int64)

    def lower(self, k: Any, *operands: Any, axis: Axes, keepdims: bool) -> Any:
        """Find the extremum, then the first position that has it."""
        x = operands[0]
        sizes, read = extents(x, axis), reducer(k, x, axis, keepdims)
        combine = self.on_bool if x.dtype is bool_ else self.combine
        peak = k.reduce(combine, sizes, read)

        def candidate(*positions: Expr) -> Expr:
            item = read(*positions)
            found = item.eq(peak)
            if x.dtype.floating:
                found = found | item.ne(item)
            flat = k.const(0, int64)
            for position, size in zip(positions, sizes, strict=True):
                flat = flat * k.size(size) + position
            return k.select(found, flat, k.size(product(sizes)))  # type: ignore[no-any-return]

        return k.reduce("min", sizes, candidate)

    def reference(self, *arrays: np.ndarray, axis: Axes, keepdims: bool) -> Any:
        """Compute with NumPy."""
        return self._reference(arrays[0], axis=axis, keepdims=keepdims)


# -- logic -----------------------------------------------------------------------------------------


class Truth(Reduction):
    """Whether any or all elements are true (not 0); bool."""

    gradient = False

    def __init__(self, name: str, doc: str, combine: str, reference: Any) -> None:
        self.name, self.__doc__ = name, doc
        self.combine, self._reference = combine, reference

    def result_dtype(self, dtype: DType) -> DType:
        """Return bool."""
        return bool_

    def lower(self, k: Any, *operands: Any, axis: Axes, keepdims: bool) -> Any:
        """Combine the truth of the elements."""
        x = operands[0]
        read = reducer(k, x, axis, keepdims)
        return k.reduce(self.combine, extents(x, axis), lambda *r: k.cast(read(*r), bool_))

    def reference(self, *arrays: np.ndarray, axis: Axes, keepdims: bool) -> Any:
        """Compute with NumPy."""
        return self._reference(arrays[0], axis=axis, keepdims=keepdims)


sum = register(Sum())
prod = register(Prod())
mean = register(Mean())
max = register(Extremum("max", "Largest element over axes; NaN if there is one.", "or", np.max))
min = register(Extremum("min", "Smallest element over axes; NaN if there is one.", "and", np.min))
argmax = register(
    ArgExtremum(
        "argmax", "Position of the first largest element, or NaN.", "max", "or", np.argmax
    )
)
argmin = register(
    ArgExtremum(
        "argmin", "Position of the first smallest element, or NaN.", "min", "and", np.argmin
    )
)
any = register(Truth("any", "Whether any element is true; no for an empty axis.", "or", np.any))
all = register(Truth("all", "Whether all elements are true; yes for an empty axis.", "and", np.all))

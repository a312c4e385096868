"""Arrays made from nothing: constants, ranges, the identity, and triangles of a matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError, user_location
from graphc.ir import expr as E
from graphc.ir.dim import Dim, SizeExpr, dim_max
from graphc.ir.expr import Expr
from graphc.ir.graph import Value, build
from graphc.ir.op import EVERY, Kind, OpDef, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.basic import iota
from graphc.ir.ops.composite import as_shape, create, type_of
from graphc.ir.ops.movement import Movement
from graphc.ir.types import DType, TensorType, as_dtype, float32, float64, int32, int64, sizes_of

Shape = tuple[Dim, ...]


class Creation(OpDef):
    """Base of ops without operands."""

    kind, gradient, dtypes = Kind.POINTWISE, False, (float32,)


class Full(Creation):
    """One value everywhere."""

    name = "full"
    samples = (
        sample(shape=(2, 3), value=1.5, dtype=float32),
        sample(shape=(), value=-2, dtype=int32),
        sample(shape=(0, 2), value=0.0, dtype=float64),
        sample(shape=(3,), value=True, dtype=as_dtype("bool")),
    )

    def __call__(self, shape: Any, value: Any, dtype: Any = None) -> Any:
        """Return an array of ``value``; ``dtype`` None takes the value's own NumPy type."""
        kind = as_dtype(np.asarray(value).dtype if dtype is None else dtype)
        return create(self, {"shape": as_shape(shape), "value": plain(value, kind), "dtype": kind})

    def infer(self, *, shape: Shape, value: Any, dtype: DType) -> TensorType:
        """Return the declared type."""
        return TensorType(dtype, sizes_of(*shape))

    def lower(self, k: Any, *, shape: Shape, value: Any, dtype: DType) -> Any:
        """Return the constant."""
        return k.const(value, dtype)

    def reference(self, *, shape: Any, value: Any, dtype: DType) -> Any:
        """Fill with NumPy."""
        return np.full(shape, value, dtype.numpy)


def plain(value: Any, dtype: DType) -> int | float | bool:
    """Return a scalar as the Python number it is in ``dtype``."""
    with np.errstate(all="ignore"):
        return np.asarray(value).astype(dtype.numpy).item()  # type: ignore[no-any-return]


class FullLike(OpDef):
    """One value everywhere, in the shape of the operand, whose elements are not read."""

    name, kind, gradient, dtypes = "full_like", Kind.POINTWISE, False, EVERY
    samples = (
        sample((2, 3), value=1, dtype=float32),
        sample((), value=0, dtype=int64),
        sample((0, 2), value=1.0, dtype=float64),
    )

    def __call__(self, x: Any, value: Any, dtype: Any = None) -> Any:
        """Return ``value`` in the shape of ``x``, and in its type where ``dtype`` is None.

        A traced operand gives only its shape; nothing then depends on its elements.
        """
        own = type_of(x)
        if own is None:
            return apply(self, (x,), {"value": value, "dtype": dtype and as_dtype(dtype)})
        kind = own.dtype if dtype is None else as_dtype(dtype)
        if isinstance(x, Value):
            attrs = {"shape": x.shape, "value": plain(value, kind), "dtype": kind}
            return build_full(attrs)
        return apply(self, (x,), {"value": plain(value, kind), "dtype": kind})

    def infer(self, x: TensorType, *, value: Any, dtype: DType | None) -> TensorType:
        """Return the operand's shape."""
        return x.with_dtype(dtype or x.dtype)

    def lower(self, k: Any, x: Any, *, value: Any, dtype: DType | None) -> Any:
        """Return the constant."""
        return k.const(value, k.dtype)

    def reference(self, x: np.ndarray, *, value: Any, dtype: DType | None) -> Any:
        """Fill with NumPy."""
        return np.full_like(x, value, dtype=None if dtype is None else dtype.numpy)


class Eye(Creation):
    """Ones on a diagonal, zeros elsewhere."""

    name = "eye"
    samples = (
        sample(rows=3, columns=3, k=0, dtype=float32),
        sample(rows=2, columns=4, k=1, dtype=int32),
        sample(rows=4, columns=2, k=-1, dtype=float64),
        sample(rows=0, columns=2, k=0, dtype=float32),
    )

    def __call__(self, n: Dim, m: Dim | None = None, k: int = 0, dtype: Any = float32) -> Any:
        """Return an ``(n, m)`` matrix with ones where ``column - row == k``."""
        attrs = {"rows": n, "columns": n if m is None else m, "k": int(k), "dtype": as_dtype(dtype)}
        return create(self, attrs)

    # The attribute k shadows the builder's usual name, hence `builder`.
    def infer(self, *, rows: Dim, columns: Dim, k: int, dtype: DType) -> TensorType:
        """Return a 2-d type."""
        return TensorType(dtype, sizes_of(rows, columns))

    def lower(self, builder: Any, *, rows: Dim, columns: Dim, k: int, dtype: DType) -> Any:
        """Compare the indices."""
        i, j = builder.index
        return builder.cast((j - i).eq(k), dtype)

    def reference(self, *, rows: Any, columns: Any, k: int, dtype: DType) -> Any:
        """Compute with NumPy."""
        return np.eye(rows, columns, k, dtype.numpy)


class Linspace(Creation):
    """Evenly spaced numbers, both ends included where ``endpoint`` says so."""

    name = "linspace"
    samples = (
        sample(start=0.0, stop=1.0, num=7, endpoint=True, dtype=float32),
        sample(start=2.0, stop=-3.0, num=4, endpoint=False, dtype=float64),
        sample(start=0.0, stop=10.0, num=4, endpoint=True, dtype=int32),
        sample(start=5.0, stop=6.0, num=1, endpoint=True, dtype=float32),
        sample(start=5.0, stop=6.0, num=0, endpoint=True, dtype=float32),
    )

    def __call__(
        self, start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: Any = float32
    ) -> Any:
        """Return ``num`` evenly spaced numbers from ``start`` to ``stop``."""
        attrs = {
            "start": float(start), "stop": float(stop), "num": int(num),
            "endpoint": bool(endpoint), "dtype": as_dtype(dtype),
        }  # fmt: skip
        return create(self, attrs)

    def infer(self, *, num: int, dtype: DType, **ends: Any) -> TensorType:
        """Return a 1-d type."""
        return TensorType(dtype, sizes_of(num))

    def lower(
        self, k: Any, *, start: float, stop: float, num: int, endpoint: bool, dtype: DType
    ) -> Any:
        """Return ``i * step + start`` in float64; the last is ``stop`` itself."""
        gaps = max(num - 1 if endpoint else num, 1)
        i = k.index[0]
        value = k.cast(i, float64) * ((stop - start) / gaps) + start
        if endpoint and num > 1:
            value = k.select(i.eq(E.index(k.shape[0]) - 1), stop, value)
        return k.cast(k.apply("floor", value) if dtype.integer else value, dtype)

    def reference(self, *, dtype: DType, **attrs: Any) -> Any:
        """Compute with NumPy."""
        return np.linspace(**attrs, dtype=dtype.numpy)


class Triangle(Movement):
    """The part of each matrix on one side of a diagonal, zeros elsewhere."""

    def __init__(self, name: str, doc: str, lower: bool) -> None:
        self.name, self.__doc__, self.below = name, doc, lower
        self.samples = (
            sample((3, 3), k=0),
            sample((2, 3, 4), k=1),
            sample((4, 2), k=-1),
            sample((0, 2), k=0),
        )

    def __call__(self, x: Any, k: int = 0) -> Any:
        """Keep the elements of the last two axes on this side of the ``k``-th diagonal."""
        return apply(self, (x,), {"k": int(k)})

    def infer(self, x: TensorType, *, k: int) -> TensorType:
        """Return the operand's type."""
        if x.ndim < 2:
            raise ShapeError(f"{self.name} needs at least 2 axes, got {x}")
        return x

    def vjp(self, g: Any, y: Any, x: Any, *, k: int) -> tuple[Any, ...]:
        """Keep the same part of the gradient."""
        return (self(g, k),)

    def lower(self, builder: Any, x: Any, *, k: int) -> Any:
        """Read on this side, else return 0."""
        distance: Expr = builder.index[-1] - builder.index[-2]
        return x.at_where(distance <= k if self.below else distance >= k, 0, *builder.index)

    def reference(self, x: np.ndarray, *, k: int) -> Any:
        """Compute with NumPy."""
        return (np.tril if self.below else np.triu)(x, k)


full = register(Full())
full_like = register(FullLike())
eye = register(Eye())
linspace = register(Linspace())
tril = register(Triangle("tril", "The lower triangle of matrices, zeros above.", True))
triu = register(Triangle("triu", "The upper triangle of matrices, zeros below.", False))


def build_full(attrs: dict[str, Any]) -> Any:
    """Return a traced constant."""
    return build(full, (), attrs, user_location())[0]


def zeros(shape: Any, dtype: Any = float32) -> Any:
    """Return an array of zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: Any = float32) -> Any:
    """Return an array of ones."""
    return full(shape, 1, dtype)


def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Return zeros in the shape of ``x``."""
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: Any = None) -> Any:
    """Return ones in the shape of ``x``."""
    return full_like(x, 1, dtype)


def _steps(first: float, end: float, step: float) -> int:
    return max(math.ceil((end - first) / step), 0)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    """Return the numbers ``start, start + step, ...`` before ``stop``.

    Parameters
    ----------
    start, stop : int, float or Dim
        One bound alone is ``stop``. Sizes of a trace may be bounds, with an integer step.
    step : int or float
        Not 0.
    dtype : optional
        int64 where all are integers, else float64, as in NumPy.
    """
    given = (0, start, step) if stop is None else (start, stop, step)
    # NumPy's small integers would wrap in the difference.
    bounds = [b.item() if isinstance(b, np.generic) else b for b in given]
    first, end, step = bounds
    if step == 0:
        raise ArgumentError("arange needs a step other than 0")
    whole = all(isinstance(b, (int, SizeExpr)) for b in bounds)
    kind = as_dtype(dtype) if dtype is not None else int64 if whole else float64
    if any(isinstance(b, SizeExpr) for b in bounds):
        if not whole or isinstance(first, SizeExpr) or isinstance(step, SizeExpr):
            raise ArgumentError("arange over sizes takes an integer start and step")
    elif not all(map(math.isfinite, bounds)):
        raise ArgumentError(f"arange needs finite bounds and step, got {tuple(bounds)}")
    length = dim_max(-((first - end) // step), 0) if whole else _steps(first, end, step)
    lanes = {"start": plain(first, kind), "step": plain(step, kind)}
    return create(iota, {"length": length, "dtype": kind, **lanes})

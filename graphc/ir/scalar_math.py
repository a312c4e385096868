"""Exact NumPy references of the operations of loop-IR expressions.

Arithmetic is IEEE 754 in the operands' own type. ``fma`` is rounded once. Conversions saturate.
Mathematical functions of float32 are computed in float64 and rounded, those of float64 by NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from graphc.ir.types import DType

Array = np.ndarray[Any, Any]

_SPLITTER = 134217729.0  # 2**27 + 1


def fma(a: Array, b: Array, c: Array) -> Array:
    """Return ``a * b + c`` with one rounding, to nearest even, in float32 or float64."""
    a, b, c = np.broadcast_arrays(a, b, c)
    with np.errstate(all="ignore"):
        return _fma32(a, b, c) if a.dtype == np.float32 else _fma64(a, b, c)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the rounded sum and its exact error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _round_to_odd(total: Array, error: Array) -> Array:
    """Return ``total + error`` rounded to odd: a later rounding then is as if done at once."""
    even = (total.view(np.int64) & 1) == 0
    target = np.where(error > 0, np.inf, -np.inf)
    return np.where(even & (error != 0) & np.isfinite(total), np.nextafter(total, target), total)


def _fma32(a: Array, b: Array, c: Array) -> Array:
    product = a.astype(np.float64) * b.astype(np.float64)  # exact: 48 of 53 bits
    total, error = _two_sum(product, c.astype(np.float64))
    return np.asarray(_round_to_odd(np.asarray(total), error).astype(np.float32))


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the rounded product and its exact error (Veltkamp, Dekker)."""
    product = a * b
    a_high, b_high = (x * _SPLITTER - (x * _SPLITTER - x) for x in (a, b))
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def _fma64(a: Array, b: Array, c: Array) -> Array:
    """Boldo and Melquiond, doi:10.1109/TC.2007.70819; rationals near overflow and underflow."""
    product, error = _two_product(a, b)
    high, low = _two_sum(c, error)
    total, rest = _two_sum(product, high)
    result = np.asarray(total + _round_to_odd(*_two_sum(rest, low)))
    magnitude = np.abs(product)
    special = ~np.isfinite(product) | ~np.isfinite(c) | (a == 0) | (b == 0)
    safe = (magnitude > 2.0**-900) & (magnitude < 2.0**1000) & (np.abs(c) < 2.0**1000)
    safe &= (np.abs(a) < 2.0**990) & (np.abs(b) < 2.0**990)
    exact_special = special & ~(np.isfinite(a) & np.isfinite(b) & (a != 0) & (b != 0))
    result = np.where(exact_special, product + c, result)
    for at in np.argwhere(~safe & ~exact_special):
        place = tuple(at)
        result[place] = _fma_exact(float(a[place]), float(b[place]), float(c[place]))
    return result


def _fma_exact(a: float, b: float, c: float) -> float:
    if not math.isfinite(c):
        return c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(exact) if exact else a * b + c
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def convert(x: Array, dtype: DType) -> Array:
    """Convert between element types; from float to integer truncates and saturates, NaN is 0."""
    if dtype.kind == "b":
        return np.asarray(x != 0)
    if not (dtype.integer and x.dtype.kind == "f"):
        return x.astype(dtype.numpy)
    limits = np.iinfo(dtype.name)
    whole = np.trunc(x.astype(np.float64))
    above, below = whole >= float(limits.max) + 1.0, whole < float(limits.min)
    inside = np.where(above | below | np.isnan(whole), 0.0, whole).astype(dtype.numpy)
    return np.where(above, limits.max, np.where(below, limits.min, inside)).astype(dtype.numpy)


def reinterpret(x: Array, dtype: DType) -> Array:
    """Return the same bits as another type of the same size."""
    return np.ascontiguousarray(x).view(dtype.numpy).reshape(np.shape(x))


def multiply_high(a: Array, b: Array) -> Array:
    """Return the upper 32 bits of the product of two u32."""
    return ((a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(32)).astype(np.uint32)


def times_power(a: Array, n: Array) -> Array:
    """Return ``a * 2**n``, rounded once, for whole numbers ``n``; NaN if ``a`` is."""
    power = np.where(np.isnan(a), 0, n).astype(np.int32)
    return np.asarray(np.ldexp(a, power))


def erf(x: Array) -> Array:
    """Return the error function."""
    values = [math.erf(v) for v in np.asarray(x, np.float64).ravel()]
    return np.asarray(values, np.float64).reshape(np.shape(x)).astype(np.asarray(x).dtype)


def sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + exp(-x))`` without loss for large ``-x``."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, small, 1.0).astype(x.dtype) / (1 + small))


def _in_double(function: Callable[..., Any]) -> Callable[..., Any]:
    def compute(*args: Array) -> Any:
        dtype = np.asarray(args[0]).dtype
        if dtype != np.float32:
            return function(*args)
        return np.asarray(function(*(np.asarray(a, np.float64) for a in args))).astype(dtype)

    return compute


_MACHINE: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "fma": fma,
    "floordiv": np.floor_divide, "mod": np.remainder, "rem": np.fmod,
    "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt,
    "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint,
    "min": np.minimum, "max": np.maximum, "select": np.where,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "eq": np.equal, "ne": np.not_equal,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "shl": np.left_shift, "shr": np.right_shift, "mulhi": multiply_high,
    "scale": times_power,
    "cast": convert, "bitcast": reinterpret,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "pow": np.power,
    "erf": erf, "sigmoid": sigmoid, "tanh": np.tanh,
    "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
}  # fmt: skip
REFERENCES: dict[str, Callable[..., Any]] = _MACHINE | {
    name: _in_double(function) for name, function in _FUNCTIONS.items()
}
"""What every name in `OPERATIONS` computes; ``cast`` and ``bitcast`` also take the DType."""

"""The operations an expression may apply, and the identities of reductions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.types import DType, bool_


@dataclass(frozen=True, slots=True)
class Operation:
    """Arity, result type rule (``same``, ``bool``, ``cast``) and NumPy reference of an op."""

    arity: int
    reference: Callable[..., Any]
    result: str = "same"
    machine: bool = True


def _div(a: Any, b: Any) -> Any:
    return np.true_divide(a, b).astype(np.asarray(a).dtype)


def _fma(a: Any, b: Any, c: Any) -> Any:
    kind = np.asarray(a).dtype
    wide = np.longdouble if kind == np.float64 else np.float64
    return (np.asarray(a, wide) * np.asarray(b, wide) + np.asarray(c, wide)).astype(kind)


OPERATIONS: dict[str, Operation] = {
    "add": Operation(2, np.add),
    "sub": Operation(2, np.subtract),
    "mul": Operation(2, np.multiply),
    "div": Operation(2, _div),
    "floordiv": Operation(2, np.floor_divide),
    "mod": Operation(2, np.remainder),
    "rem": Operation(2, np.fmod),
    "min": Operation(2, np.minimum),
    "max": Operation(2, np.maximum),
    "and": Operation(2, np.bitwise_and),
    "or": Operation(2, np.bitwise_or),
    "xor": Operation(2, np.bitwise_xor),
    "shl": Operation(2, np.left_shift),
    "shr": Operation(2, np.right_shift),
    "mulhi": Operation(2, lambda a, b: ((a.astype("u8") * b.astype("u8")) >> 32).astype("u4")),
    "neg": Operation(1, np.negative),
    "abs": Operation(1, np.abs),
    "not": Operation(1, np.invert),
    "sqrt": Operation(1, np.sqrt),
    "floor": Operation(1, np.floor),
    "ceil": Operation(1, np.ceil),
    "trunc": Operation(1, np.trunc),
    "round": Operation(1, np.rint),
    "fma": Operation(3, _fma),
    "select": Operation(3, np.where),
    "lt": Operation(2, np.less, "bool"),
    "le": Operation(2, np.less_equal, "bool"),
    "gt": Operation(2, np.greater, "bool"),
    "ge": Operation(2, np.greater_equal, "bool"),
    "eq": Operation(2, np.equal, "bool"),
    "ne": Operation(2, np.not_equal, "bool"),
    "cast": Operation(1, lambda a: a, "cast"),
    "bitcast": Operation(1, lambda a: a, "cast"),
    "exp": Operation(1, np.exp, machine=False),
    "expm1": Operation(1, np.expm1, machine=False),
    "log": Operation(1, np.log, machine=False),
    "log1p": Operation(1, np.log1p, machine=False),
    "tanh": Operation(1, np.tanh, machine=False),
    "erf": Operation(1, lambda a: a, machine=False),
    "sigmoid": Operation(1, lambda a: 1 / (1 + np.exp(-a)), machine=False),
    "sin": Operation(1, np.sin, machine=False),
    "cos": Operation(1, np.cos, machine=False),
    "tan": Operation(1, np.tan, machine=False),
    "asin": Operation(1, np.arcsin, machine=False),
    "acos": Operation(1, np.arccos, machine=False),
    "atan": Operation(1, np.arctan, machine=False),
    "sinh": Operation(1, np.sinh, machine=False),
    "cosh": Operation(1, np.cosh, machine=False),
    "asinh": Operation(1, np.arcsinh, machine=False),
    "acosh": Operation(1, np.arccosh, machine=False),
    "atanh": Operation(1, np.arctanh, machine=False),
    "pow": Operation(2, np.power, machine=False),
}
"""Operations an expression may apply; those that are not ``machine`` are gone after `expand`.

``floordiv``, ``mod``: Python's rule; a zero divisor is the record's business. ``mod`` on floats is
not a machine operation; ``rem`` is C's fmod on floats. ``min``, ``max``: NaN if either is NaN.
``cast`` from float to integer truncates and saturates. ``shr`` is logical on unsigned types.
``mulhi``: the upper half of a u32 product.
"""

IDENTITY: dict[str, Callable[[DType], int | float | bool]] = {
    "add": lambda d: 0,
    "mul": lambda d: 1,
    "max": lambda d: lowest(d),
    "min": lambda d: highest(d),
    "and": lambda d: True if d is bool_ else -1,
    "or": lambda d: False if d is bool_ else 0,
}
"""Identity element of each combine operation of a `Reduce`."""


def lowest(dtype: DType) -> int | float | bool:
    """Return the smallest value of a type; minus infinity for floats."""
    if dtype is bool_:
        return False
    return float("-inf") if dtype.floating else int(np.iinfo(dtype.name).min)


def highest(dtype: DType) -> int | float | bool:
    """Return the largest value of a type; infinity for floats."""
    if dtype is bool_:
        return True
    return float("inf") if dtype.floating else int(np.iinfo(dtype.name).max)

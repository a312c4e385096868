"""The operations an expression may apply, and the identities of reductions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphc.ir.types import DType, bool_


@dataclass(frozen=True, slots=True)
class Operation:
    """Arity, result type rule (``same``, ``bool``, ``cast``), and whether machines have it.

    What an operation computes is `graphc.ir.scalar_math.REFERENCES`.
    """

    arity: int
    result: str = "same"
    machine: bool = True


def _named(names: str, operation: Operation) -> dict[str, Operation]:
    return dict.fromkeys(names.split(), operation)


OPERATIONS: dict[str, Operation] = {
    **_named("neg abs not sqrt floor ceil trunc round", Operation(1)),
    **_named("add sub mul div floordiv mod rem min max", Operation(2)),
    **_named("and or xor shl shr mulhi scale", Operation(2)),
    **_named("fma select", Operation(3)),
    **_named("lt le gt ge eq ne", Operation(2, "bool")),
    **_named("cast bitcast", Operation(1, "cast")),
    **_named("exp expm1 log log1p tanh erf sigmoid", Operation(1, machine=False)),
    **_named("sin cos tan asin acos atan", Operation(1, machine=False)),
    **_named("sinh cosh asinh acosh atanh", Operation(1, machine=False)),
    **_named("pow", Operation(2, machine=False)),
}
"""Operations an expression may apply; those that are not ``machine`` are gone after `expand`.

``floordiv``, ``mod``: Python's rule; a zero divisor is the record's business. ``mod`` on floats is
not a machine operation; ``rem`` is C's fmod on floats. ``min``, ``max``: NaN if either is NaN.
``cast`` from float to integer truncates and saturates. ``shr`` is logical on unsigned types.
``mulhi``: the upper half of a u32 product. ``scale``: a float times two to a whole power, rounded
once; the power is a float, of at most twice the exponents of the type, and NaN only beside NaN.
"""


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


IDENTITY: dict[str, Callable[[DType], int | float | bool]] = {
    "add": lambda d: 0,
    "mul": lambda d: 1,
    "max": lowest,
    "min": highest,
    "and": lambda d: True if d is bool_ else -1,
    "or": lambda d: False if d is bool_ else 0,
}
"""Identity element of each combine operation of a `Reduce`."""

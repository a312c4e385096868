"""The operand protocol: one public function per op serves arrays, traced values and Symbols.

Calling an op asks its operands who computes: the operand type with the highest
``__graphc_priority__`` has its ``__graphc_apply__(op, operands, attrs)`` called. Arrays compute,
values of a graph add a node, Symbols compose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.errors import ArgumentError

REGISTRY: dict[str, Any] = {}
"""Every op record by name; filled by `graphc.ir.op.register`."""

_fallback: list[Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]] = []


def apply(op: Any, operands: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
    """Apply an op record to operands by the protocol.

    Parameters
    ----------
    op : OpDef
    operands : tuple
        Arrays, values or Symbols; Python and NumPy scalars take part weakly.
    attrs : dict
        Static attributes.

    Returns
    -------
    operand or tuple of operands
        Of the kind of the operand that computed.
    """
    chosen = None
    priority = -1
    for operand in operands:
        rank = getattr(operand, "__graphc_priority__", -1)
        if rank > priority:
            chosen, priority = operand, rank
    if chosen is not None:
        return type(chosen).__graphc_apply__(op, operands, attrs)
    if _fallback:
        return _fallback[-1](op, operands, attrs)
    raise ArgumentError(f"{op.name} got no array, traced value or Symbol to work on")


def set_fallback(compute: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]) -> None:
    """Name the function that computes when no operand claims the call (NumPy arrays, lists)."""
    _fallback.append(compute)


def is_scalar(operand: object) -> bool:
    """Return whether an operand is a Python or NumPy scalar, which promotes weakly."""
    return isinstance(operand, (bool, int, float, np.generic))


class Operators:
    """Python operators of everything that is an operand, by the ops of the same meaning."""

    __slots__ = ()
    __array_ufunc__: Any = None  # NumPy scalars and arrays on the left defer to us.

    def _binary(self, name: str, other: Any, swapped: bool = False) -> Any:
        if not (hasattr(other, "__graphc_apply__") or is_scalar(other) or _is_array(other)):
            return NotImplemented
        operands = (other, self) if swapped else (self, other)
        return apply(REGISTRY[name], operands, {})

    def _unary(self, name: str) -> Any:
        return apply(REGISTRY[name], (self,), {})

    def __add__(self, other: Any) -> Any:
        return self._binary("add", other)

    def __radd__(self, other: Any) -> Any:
        return self._binary("add", other, swapped=True)

    def __sub__(self, other: Any) -> Any:
        return self._binary("subtract", other)

    def __rsub__(self, other: Any) -> Any:
        return self._binary("subtract", other, swapped=True)

    def __mul__(self, other: Any) -> Any:
        return self._binary("multiply", other)

    def __rmul__(self, other: Any) -> Any:
        return self._binary("multiply", other, swapped=True)

    def __truediv__(self, other: Any) -> Any:
        return self._binary("divide", other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._binary("divide", other, swapped=True)

    def __floordiv__(self, other: Any) -> Any:
        return self._binary("floor_divide", other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._binary("floor_divide", other, swapped=True)

    def __mod__(self, other: Any) -> Any:
        return self._binary("mod", other)

    def __rmod__(self, other: Any) -> Any:
        return self._binary("mod", other, swapped=True)

    def __pow__(self, other: Any) -> Any:
        return self._binary("power", other)

    def __rpow__(self, other: Any) -> Any:
        return self._binary("power", other, swapped=True)

    def __matmul__(self, other: Any) -> Any:
        return self._binary("matmul", other)

    def __rmatmul__(self, other: Any) -> Any:
        return self._binary("matmul", other, swapped=True)

    def __lt__(self, other: Any) -> Any:
        return self._binary("less", other)

    def __le__(self, other: Any) -> Any:
        return self._binary("less_equal", other)

    def __gt__(self, other: Any) -> Any:
        return self._binary("greater", other)

    def __ge__(self, other: Any) -> Any:
        return self._binary("greater_equal", other)

    def __neg__(self) -> Any:
        return self._unary("negative")

    def __abs__(self) -> Any:
        return self._unary("abs")


def _is_array(operand: object) -> bool:
    return isinstance(operand, np.ndarray)

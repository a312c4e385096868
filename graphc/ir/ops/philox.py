"""The counter-based generator Philox4x32-10, the same code over scalars of a kernel and arrays.

A block of four 32-bit words is a function of a 128-bit counter and a 64-bit key: ten rounds of two
32-by-32-bit products. Element ``e`` of random operation ``counter`` under ``seed`` has the block
of counter words ``(e low, e high, counter low, counter high)`` and key ``(seed low, seed high)``,
so its value depends on nothing else. Ten rounds are the authors' standard with a margin; seven are
the fewest that pass BigCrush.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw: Parallel random numbers: as easy as 1, 2, 3.
SC 2011, doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ir import expr as E
from graphc.ir.expr import Expr
from graphc.ir.types import DType, float32, float64, int32, uint32, uint64

ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
Words = tuple[Any, Any, Any, Any]


def philox(counter: Words, key: tuple[Any, Any], ops: Arithmetic, rounds: int = ROUNDS) -> Words:
    """Return a block of four words.

    Parameters
    ----------
    counter : tuple of four u32 values
    key : tuple of two u32 values
    ops : Arithmetic
        How values are computed with: `KERNEL` or `ARRAYS`.
    rounds : int
    """
    a, b, c, d = counter
    m0, m1 = (ops.word(m) for m in _MULTIPLIERS)
    for number in range(rounds):
        k0, k1 = (
            part + ops.word(number * weyl & _MASK)
            for part, weyl in zip(key, _WEYL, strict=True)
        )
        (high0, low0), (high1, low1) = ops.product(m0, a), ops.product(m1, c)
        a, b, c, d = high1 ^ b ^ k0, low1, high0 ^ d ^ k1, low0
    return a, b, c, d


class Arithmetic:
    """What `philox` and the conversions of its words need beyond operators.

    Parameters
    ----------
    product : callable
        Upper and lower half of the product of two u32 values.
    cast : callable
        ``cast(value, dtype)``, wrapping.
    constant : callable
        ``constant(number, dtype)``.
    """

    def __init__(
        self,
        product: Callable[[Any, Any], tuple[Any, Any]],
        cast: Callable[[Any, DType], Any],
        constant: Callable[[Any, DType], Any],
    ) -> None:
        self.product, self.cast, self.constant = product, cast, constant

    def word(self, number: int) -> Any:
        """Return a u32 constant."""
        return self.constant(number, uint32)

    def block(self, seed: Any, counter: Any, element: Any) -> Words:
        """Return the words of an element, from i64 values."""
        parts = [
            self.cast(half, uint32)
            for whole in (element, counter, seed)
            for half in (whole, whole >> 32)
        ]
        return philox((parts[0], parts[1], parts[2], parts[3]), (parts[4], parts[5]), self)

    def uniform(self, high: Any, low: Any, dtype: DType) -> Any:
        """Return a float in [0, 1): 24 bits of one word, or 53 bits of two in float64."""
        if dtype is float32:
            return self.cast(self.cast(high >> 8, int32), dtype) * self.constant(2.0**-24, dtype)
        return self.mantissa(high, low) * self.constant(2.0**-53, dtype)

    def mantissa(self, high: Any, low: Any) -> Any:
        """Return 53 bits of two words as a float64 integer."""
        upper = self.cast(high >> 5, float64) * self.constant(2.0**26, float64)
        return upper + self.cast(low >> 6, float64)

    def positive_uniform(self, high: Any, low: Any, dtype: DType) -> Any:
        """Return a float in (0, 1], whose logarithm is finite; all 32 bits of a word in float32."""
        half = self.constant(0.5, dtype)
        if dtype is float32:
            return (self.cast(high, dtype) + half) * self.constant(2.0**-32, dtype)
        return (self.mantissa(high, low) + half) * self.constant(2.0**-53, dtype)

    def below(self, high: Any, low: Any, bound: Any) -> Any:
        """Return a u64 in ``0 .. bound - 1``: the upper half of the 64-bit draw times the bound.

        ``bound`` is an int, or a u64 value up to 2**32. Each result is as likely as any other
        within ``bound / 2**64``.
        """
        x, y = self.cast(high, uint64), self.cast(low, uint64)
        shift = self.constant(32, uint64)
        if not isinstance(bound, int) or bound <= 1 << 32:
            n = self.constant(bound, uint64) if isinstance(bound, int) else bound
            return (x * n + ((y * n) >> shift)) >> shift
        mask = self.constant(_MASK, uint64)
        upper, lower = self.constant(bound >> 32, uint64), self.constant(bound & _MASK, uint64)
        cross, other = y * upper, x * lower
        middle = ((y * lower) >> shift) + (cross & mask) + (other & mask)
        return x * upper + (cross >> shift) + (other >> shift) + (middle >> shift)


def _array_cast(value: Any, dtype: DType) -> Any:
    return np.asarray(value).astype(dtype.numpy)


def _array_product(a: Any, b: Any) -> tuple[Any, Any]:
    whole = a.astype(np.uint64) * b
    return (whole >> np.uint64(32)).astype(np.uint32), whole.astype(np.uint32)


def _kernel_product(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    return E.apply("mulhi", a, b), a * b


KERNEL = Arithmetic(_kernel_product, E.cast, E.const)
"""Over scalars of the loop IR."""
ARRAYS = Arithmetic(_array_product, _array_cast, _array_cast)
"""Over NumPy arrays."""

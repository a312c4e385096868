"""What the 32 threads of a warp compute together: types, and NumPy references.

A value that each thread holds is, for a whole warp, an array with an axis of 32 lanes in front of
its tile. Fragments of matrices lie in lanes and registers as PTX's ``mma`` has them (PTX ISA,
"Matrix Fragments for mma").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

WARP = 32
"""Threads that run in step and exchange registers."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class IntrinsicRule:
    """One operation of a warp.

    Attributes
    ----------
    like : int
        The argument that the result has the type and the tile of.
    reference : callable
        Whole warps' arguments, one array each with an axis of lanes in front, to the result.
    """

    like: int
    reference: Callable[..., Array]


def _shuffle_xor(value: Array, distance: Array) -> Array:
    found: Array = value[np.arange(WARP) ^ int(distance.reshape(-1)[0])]
    return found


def _matrix(fragments: Array, rows: Array, columns: Array, shape: tuple[int, int]) -> Array:
    """Return the matrix whose elements at ``rows`` and ``columns`` are a warp's registers."""
    whole = np.zeros(shape, fragments.dtype)
    whole[rows, columns] = fragments
    return whole


def _halves(packed: Array, unpack: Callable[[Array], Array]) -> Array:
    """Return registers of two 16-bit numbers each as float32, the lower half first."""
    bits = packed.view(np.uint32)
    both = np.stack([bits & 0xFFFF, bits >> 16], axis=-1)
    return unpack(both.astype(np.uint16)).reshape(*packed.shape[:-1], -1)


def _from_bfloat16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _from_float16(bits: Array) -> Array:
    return bits.view(np.float16).astype(np.float32)


_LANE = np.arange(WARP)[:, None]
_GROUP, _IN_GROUP = _LANE >> 2, _LANE & 3


def fragment_a(width: int) -> tuple[Array, Array]:
    """Return rows and columns of a warp's registers of a left factor of 16 x ``4 * width``.

    Each register holds ``width // 2`` neighbours of a row.
    """
    each = width // 2
    k = np.arange(4 * each)
    part, within = k // each, k % each
    return _GROUP + 8 * (part & 1), _IN_GROUP * each + within + 4 * each * (part >> 1)


def fragment_b(width: int) -> tuple[Array, Array]:
    """Return rows and columns of a warp's registers of a right factor of ``4 * width`` x 8."""
    each = width // 2
    k = np.arange(2 * each)
    part, within = k // each, k % each
    rows = _IN_GROUP * each + within + 4 * each * part
    return rows, np.broadcast_to(_GROUP, rows.shape)


def fragment_c() -> tuple[Array, Array]:
    """Return rows and columns of a warp's registers of a result of 16 x 8."""
    k = np.arange(4)
    return _GROUP + 8 * (k >> 1), 2 * _IN_GROUP + (k & 1)


def _product(width: int, unpack: Callable[[Array], Array]) -> Callable[..., Array]:
    """Return the reference of ``a @ b + c`` over a depth of ``4 * width``, summed in float32."""
    of_a, of_b, of_c = fragment_a(width), fragment_b(width), fragment_c()

    def reference(a: Array, b: Array, c: Array) -> Array:
        left = _matrix(unpack(a), *of_a, (16, 4 * width))
        right = _matrix(unpack(b), *of_b, (4 * width, 8))
        total = _matrix(c, *of_c, (16, 8))
        for k in range(4 * width):
            total = total + left[:, k, None] * right[k]
        found: Array = total[of_c]
        return found

    return reference


INTRINSICS: dict[str, IntrinsicRule] = {
    "shuffle_xor": IntrinsicRule(0, _shuffle_xor),
    "mma_tf32": IntrinsicRule(2, _product(2, lambda a: a)),
    "mma_bf16": IntrinsicRule(2, _product(4, lambda a: _halves(a, _from_bfloat16))),
    "mma_f16": IntrinsicRule(2, _product(4, lambda a: _halves(a, _from_float16))),
}
"""``shuffle_xor(value, distance)``: the value of the lane whose number differs by these bits, a
constant. ``mma_*(a, b, c)``: ``a @ b + c`` of 16 x 8 float32 sums, over a depth of 8 for TF32
(float32 values of 10 explicit bits) and of 16 for numbers of 16 bits, two in a u32.
"""

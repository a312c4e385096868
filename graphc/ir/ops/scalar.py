"""The op of a user's scalar function, applied element by element."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from graphc.ir.graph import Value, cast, constant, placeholder
from graphc.ir.op import FLOATS, Kind, OpDef, Spec, register, sample
from graphc.ir.operand import apply, is_scalar
from graphc.ir.ops.movement import broadcast_to
from graphc.ir.scalar_slope import slope
from graphc.ir.scalar_text import parse_scalar
from graphc.ir.types import (
    DType,
    TensorType,
    as_dtype,
    broadcast_shapes,
    promote,
    weak_dtype,
)

_SOFT_CLIP = "def soft_clip(x, a): t = 1 + abs(x) ** a; return x / t ** (1 / a)"
_RAMP = "def ramp(x): return where(x > 0, sqrt(x), 0.0)"
_BACK = "def back(g, x): return where(x > 0, g * 0.5 / sqrt(x), 0.0)"


class Scalar(OpDef):
    """A scalar function, given as `graphc.ir.scalar_text` text, on operands that broadcast.

    ``pullback`` is the text of another one, which computes the gradients of all operands from that
    of the result and the operands, or is empty. Without it the derivatives are found from the text:
    where that chooses between two values, the derivative of the other one plays no part, even if
    it is infinite or NaN.
    """

    name, kind, compiled, dtypes = "scalar", Kind.POINTWISE, True, FLOATS
    samples = (
        sample((3, 4), Spec((4,), 1.0, 3.0), body=_SOFT_CLIP, pullback=""),
        sample((2, 1, 3), Spec((4, 1), 1.0, 3.0), body=_SOFT_CLIP, pullback=""),
        sample((7,), body=_RAMP, pullback=""),
        sample((), body=_RAMP, pullback=_BACK),
        sample((0, 2), body=_RAMP, pullback=""),
    )

    def infer(self, *types: TensorType, **attrs: Any) -> TensorType:
        """Return the type that the text's ops give, in the broadcast shape."""
        values = [placeholder(f"x{n}", TensorType(kind.dtype, ())) for n, kind in enumerate(types)]
        result = self.decompose(*values, **attrs)
        return TensorType(result.dtype, broadcast_shapes(*(t.shape for t in types)))

    def decompose(self, *inputs: Any, body: str, pullback: str) -> Any:
        """Apply the text's ops, one after the other."""
        own = promote(*(x.dtype for x in inputs))
        (result,) = parse_scalar(body)(inputs, partial(applied, own))
        result = constant(result, weak_dtype(result, own)) if is_scalar(result) else result
        shape = broadcast_shapes(*(x.shape for x in inputs))
        return result if result.shape == shape else broadcast_to(result, shape)

    def vjp(self, g: Any, y: Any, *inputs: Any, body: str, pullback: str) -> tuple[Any, ...]:
        """Return the gradients, not yet summed over broadcast axes."""
        if not as_dtype(y.dtype).floating:
            return (None,) * len(inputs)
        if pullback:
            parts = (parse_scalar(pullback).only(k) for k in range(len(inputs)))
            return tuple(self(g, *inputs, body=part, pullback="") for part in parts)
        dtypes = tuple(as_dtype(x.dtype) for x in inputs)
        slopes = (_slope(body, dtypes, position) for position in range(len(inputs)))
        return tuple(
            None if text is None else g * self(*inputs, body=text, pullback="") for text in slopes
        )

    def reference(self, *arrays: np.ndarray, body: str, pullback: str) -> Any:
        """Compute with the NumPy references of the text's ops."""
        own = promote(*(as_dtype(a.dtype) for a in arrays))
        (result,) = parse_scalar(body)(arrays, partial(_referred, own))
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        dtype = weak_dtype(result, own).numpy if is_scalar(result) else result.dtype
        return np.broadcast_to(np.asarray(result, dtype), shape)


def applied(own: DType, op: Any, operands: Sequence[Any]) -> Value:
    """Apply an op to values of a graph and numbers; operands are promoted.

    ``own`` is the type of all the function's operands together, see `_lifted`.
    """
    dtypes = _lifted(own, op, operands)
    values = [
        constant(x, dtype) if is_scalar(x) else cast(x, dtype)
        for x, dtype in zip(operands, dtypes, strict=True)
    ]
    result: Value = apply(op, tuple(values), {})
    return result


def _referred(own: DType, op: Any, operands: Sequence[Any]) -> np.ndarray:
    """Apply the NumPy reference of an op to arrays and numbers; operands are promoted."""
    dtypes = _lifted(own, op, operands)
    arrays = [np.asarray(x).astype(d.numpy) for x, d in zip(operands, dtypes, strict=True)]
    return np.asarray(op.reference(*arrays))


def _lifted(own: DType, op: Any, operands: Sequence[Any]) -> Sequence[DType]:
    """Return the types that an op takes operands in; beside bools alone numbers are ``own``."""
    given = [None if is_scalar(x) else as_dtype(x.dtype) for x in operands]
    peer = op.peer(given)
    beside = own if peer is None or peer.kind == "b" else peer
    dtypes = [weak_dtype(x, beside) if d is None else d for x, d in zip(operands, given)]
    shapes = [TensorType(dtype, ()) for dtype in dtypes]
    return op.operand_dtypes(shapes) or dtypes


@cache
def _slope(body: str, dtypes: tuple[DType, ...], position: int) -> str | None:
    """Return the text of the derivative by an operand; None where there is none."""
    if not dtypes[position].floating:
        return None
    values = [placeholder(f"x{n}", TensorType(dtype, ())) for n, dtype in enumerate(dtypes)]
    return slope(parse_scalar(body), values, position, partial(applied, promote(*dtypes)))


scalar = register(Scalar())

"""Products of matrices."""

from __future__ import annotations

from typing import Any

from graphc.errors import ShapeError, user_location
from graphc.frontend.ops.operator import at_least_1d, dims, operator
from graphc.ir.dim import product
from graphc.ir.ops import contraction, movement
from graphc.ir.types import shape_text


@operator("dot", inputs=("lhs", "rhs"))
def dot(lhs: Any, rhs: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    """Sum products over the last axis of ``lhs`` and the first of ``rhs``.

    Parameters
    ----------
    lhs, rhs : array
        A product of two vectors has shape (1,).
    transpose_a : bool
        Sum over the first axis of ``lhs`` instead.
    transpose_b : bool
        Sum over the last axis of ``rhs`` instead.
    """
    a, b = dims(lhs), dims(rhs)
    kept_a = a[1:] if transpose_a else a[:-1]
    kept_b = b[:-1] if transpose_b else b[1:]
    left = _matrix(lhs, transpose_a)
    right = _matrix(rhs, not transpose_b)
    flip_a, flip_b = transpose_a and len(a) > 1, transpose_b and len(b) > 1
    found = contraction.matmul(left, right, transpose_a=flip_a, transpose_b=flip_b)
    if len(a) > 2 or len(b) > 2:
        found = movement.reshape(found, (*kept_a, *kept_b))
    return at_least_1d(found)


def _matrix(x: Any, first: bool) -> Any:
    """Join the axes of an array but the one summed over, the first or the last."""
    shape = dims(x)
    if len(shape) <= 2:
        return x
    pair = (shape[0], product(shape[1:])) if first else (product(shape[:-1]), shape[-1])
    return movement.reshape(x, pair)


@operator("batch_dot", inputs=("lhs", "rhs"))
def batch_dot(lhs: Any, rhs: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    """Multiply the matrices of two batches, ``(N, ..., M, K)`` by ``(N, ..., K, L)``."""
    if len(dims(lhs)) < 3 or len(dims(lhs)) != len(dims(rhs)):
        raise ShapeError(
            f"batch_dot needs two batches of matrices, got shapes {shape_text(dims(lhs))} and "
            f"{shape_text(dims(rhs))}",
            remedy="Both need the same number of axes, 3 or more; dot multiplies two matrices.",
            where=user_location(),
        )
    return contraction.matmul(lhs, rhs, transpose_a=transpose_a, transpose_b=transpose_b)


@operator("linalg_gemm2", "_linalg_gemm2", inputs=("A", "B"))
def linalg_gemm2(
    A: Any, B: Any, transpose_a: bool = False, transpose_b: bool = False, alpha: float = 1.0,
    axis: int = -2,
) -> Any:  # fmt: skip
    """Return ``alpha * A B`` of the matrices in the last two axes.

    Parameters
    ----------
    A, B : array
    transpose_a, transpose_b : bool
    alpha : float
    axis : int
        The axis of rows; -2 is the one that is supported.
    """
    _only_last_axes(axis)
    found = contraction.matmul(A, B, transpose_a=transpose_a, transpose_b=transpose_b)
    return found if alpha == 1.0 else found * alpha


@operator("linalg_gemm", "_linalg_gemm", inputs=("A", "B", "C"))
def linalg_gemm(
    A: Any, B: Any, C: Any, transpose_a: bool = False, transpose_b: bool = False,
    alpha: float = 1.0, beta: float = 1.0, axis: int = -2,
) -> Any:  # fmt: skip
    """Return ``alpha * A B + beta * C`` of the matrices in the last two axes."""
    return linalg_gemm2(A, B, transpose_a, transpose_b, alpha, axis) + C * beta


@operator("linalg_syrk", "_linalg_syrk", inputs=("A",))
def linalg_syrk(A: Any, transpose: bool = False, alpha: float = 1.0) -> Any:
    """Return ``alpha * A A^T``, with ``transpose`` ``alpha * A^T A``."""
    return linalg_gemm2(A, A, transpose, not transpose, alpha)


def _only_last_axes(axis: int) -> None:
    if axis != -2:
        raise ShapeError(
            f"matrices must lie in the last two axes, got axis={axis}",
            remedy="Transpose first.",
            where=user_location(),
        )


gemm2, gemm, syrk = linalg_gemm2, linalg_gemm, linalg_syrk

"""Sums of products: matmul, and dot, inner, outer, tensordot and einsum made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.dim import Dim, product
from graphc.ir.expr import Expr
from graphc.ir.op import EVERY, Kind, OpDef, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.composite import attempt, composite, shape_of
from graphc.ir.ops.movement import expand_dims, reshape, squeeze, transpose
from graphc.ir.ops.reduction import sum as sum_
from graphc.ir.sizes import resolve, unify
from graphc.ir.types import (
    DType,
    TensorType,
    bool_,
    broadcast_shapes,
    float32,
    float64,
    normalize_axis,
    promote,
    shape_text,
)


def sum_to_shape(g: Any, shape: Sequence[Dim]) -> Any:
    """Return ``g`` summed over the axes that broadcasting ``shape`` to its shape added or repeated.

    Parameters
    ----------
    g : operand
        A gradient of the broadcast shape.
    shape : tuple of Dim
        Shape before broadcasting.
    """
    extra = g.ndim - len(shape)
    kept = zip(g.shape[extra:], shape)
    repeated = [extra + axis for axis, (n, own) in enumerate(kept) if own == 1 and n != 1]
    if repeated:
        g = sum_(g, axis=tuple(repeated), keepdims=True)
    return sum_(g, axis=tuple(range(extra))) if extra else g


def _matrix(shape: Sequence[Dim], transposed: bool, second: bool) -> tuple[Dim | None, Dim]:
    """Return the outer size (None for a vector) and the inner size of an operand."""
    if len(shape) == 1:
        return None, shape[0]
    rows, columns = shape[-2:]
    return (rows, columns) if transposed == second else (columns, rows)


def _at(operand: Any, batch: Sequence[Expr], row: Expr | None, column: Expr, flip: bool) -> Expr:
    """Read a matrix element; axes of size 1 are repeated along the batch."""
    if row is None:
        return operand.at(column)  # type: ignore[no-any-return]
    own = batch[len(batch) - (operand.ndim - 2) :] if operand.ndim > 2 else ()
    index = [0 if size == 1 else i for size, i in zip(operand.shape, own)]
    found = operand.at(*index, column, row) if flip else operand.at(*index, row, column)
    return found  # type: ignore[no-any-return]


class Matmul(OpDef):
    """Matrix product over the last two axes, with broadcasting batch axes before them.

    A 1-d operand is a vector, and its axis is not in the result. Bool is or over and.
    """

    name, kind, dtypes = "matmul", Kind.CONTRACT, EVERY
    tolerance = {float32: (1e-4, 2e-5), float64: (1e-11, 1e-12)}
    samples = (
        sample((3, 4), (4, 5)),
        sample((4, 3), (4, 5), transpose_a=True),
        sample((3, 4), (5, 4), transpose_b=True),
        sample((4, 3), (5, 4), transpose_a=True, transpose_b=True),
        sample((2, 3, 4), (4, 5)),
        sample((2, 3, 4), (5, 4), transpose_b=True),
        sample((2, 1, 3, 4), (3, 4, 2)),
        sample((3, 4), (2, 4, 2)),
        sample((1, 4, 3), (2, 4, 5), transpose_a=True),
        sample((4,), (4,)),
        sample((4,), (2, 4, 3)),
        sample((2, 3, 4), (4,)),
        sample((3, 0), (0, 2)),
        sample((0, 3), (3, 2)),
        sample((1, 1), (1, 1)),
    )

    def __call__(
        self, a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False
    ) -> Any:
        """Multiply matrices.

        Parameters
        ----------
        a : operand, shape (*batch, M, K) or (K,)
        b : operand, shape (*batch, K, N) or (K,)
        transpose_a, transpose_b : bool
            The last two axes of the operand are exchanged; a vector has none to exchange.

        Returns
        -------
        operand, shape (*batch, M, N)

        Raises
        ------
        ShapeError
            When the inner sizes differ or the batch axes do not broadcast.
        """
        flags = {"transpose_a": bool(transpose_a), "transpose_b": bool(transpose_b)}
        return apply(self, (a, b), flags)

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Promote the operands to one type."""
        return (promote(*(t.dtype for t in types)),) * 2

    def infer(
        self, a: TensorType, b: TensorType, *, transpose_a: bool = False, transpose_b: bool = False
    ) -> TensorType:
        """Return ``(*batch, M, N)``."""
        if a.ndim == 0 or b.ndim == 0:
            raise ShapeError(
                f"matmul needs operands with axes, got {shape_text(a.shape)} and "
                f"{shape_text(b.shape)}",
                remedy="Use * to multiply by a scalar.",
            )
        rows, inner = _matrix(a.shape, transpose_a, False)
        columns, other = _matrix(b.shape, transpose_b, True)
        if unify(inner, other) is None:
            raise ShapeError(
                f"cannot multiply shapes {shape_text(a.shape)} and {shape_text(b.shape)}: inner "
                f"sizes differ: {resolve(inner)} and {resolve(other)}",
                remedy=_inner_remedy(inner, columns, transpose_b),
            )
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return a.with_shape((*batch, *(d for d in (rows, columns) if d is not None)))

    def vjp(
        self, g: Any, y: Any, a: Any, b: Any, *, transpose_a: bool = False,
        transpose_b: bool = False,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Return products of ``g`` with the other operand, summed over repeated batch axes."""
        shapes = tuple(a.shape), tuple(b.shape)
        if b.ndim == 1:
            g, b, transpose_b = expand_dims(g, -1), expand_dims(b, 1), False
        if a.ndim == 1:
            g, a, transpose_a = expand_dims(g, -2), expand_dims(a, 0), False
        if b.ndim == 2 and a.ndim > 2 and not transpose_a:
            # One product over all rows; batch axis by batch axis it would be a sum of products.
            a, g = _rows(a), _rows(g)
        da, db = _matrix_gradients(g, a, b, transpose_a, transpose_b)
        return _fitted(da, shapes[0], -2), _fitted(db, shapes[1], -1)

    def lower(
        self, k: Any, a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False
    ) -> Any:
        """Sum products over the inner axis."""
        index = list(k.index)
        column = index.pop() if b.ndim > 1 else None
        row = index.pop() if a.ndim > 1 else None
        combine = "or" if a.dtype is bool_ else "add"

        def term(r: Expr) -> Expr:
            left = _at(a, index, row, r, transpose_a)
            right = _at(b, index, column, r, not transpose_b)
            return left & right if a.dtype is bool_ else left * right

        return k.reduce(combine, [_matrix(a.shape, transpose_a, False)[1]], term)

    def reference(
        self, a: np.ndarray, b: np.ndarray, *, transpose_a: bool = False, transpose_b: bool = False
    ) -> Any:
        """Multiply with NumPy."""
        left = np.swapaxes(a, -1, -2) if transpose_a and a.ndim > 1 else a
        right = np.swapaxes(b, -1, -2) if transpose_b and b.ndim > 1 else b
        with np.errstate(all="ignore"):
            return np.matmul(left, right)


def _inner_remedy(inner: Dim, columns: Dim | None, transpose_b: bool) -> str:
    if columns is not None and resolve(columns) == resolve(inner):
        flag = not transpose_b
        return f"The other axis of the second operand fits: pass transpose_b={flag}."
    return (
        "The last axis of the first operand must have the size of the second operand's last axis "
        "but one (transpose flags applied)."
    )


def _rows(x: Any) -> Any:
    """Join all axes but the last into one."""
    return reshape(x, (product(x.shape[:-1]), x.shape[-1]))


def _matrix_gradients(g: Any, a: Any, b: Any, flip_a: bool, flip_b: bool) -> tuple[Any, Any]:
    da = matmul(b, g, flip_b, True) if flip_a else matmul(g, b, False, not flip_b)
    db = matmul(g, a, True, flip_a) if flip_b else matmul(a, g, not flip_a, False)
    return da, db


def _fitted(gradient: Any, shape: tuple[Dim, ...], added: int) -> Any:
    """Take out the axis that a vector was given, and sum over repeated batch axes."""
    if len(shape) == 1:
        gradient = squeeze(gradient, added)
    if gradient.ndim < len(shape):
        return reshape(gradient, shape)
    return sum_to_shape(gradient, shape)


matmul = register(Matmul())


# -- compositions ------------------------------------------------------------------------------


def _is_scalar_product(a: Any, b: Any) -> bool:
    return not (len(shape_of(a)) and len(shape_of(b)))


@composite(
    np.dot, operands=2,
    samples=(
        sample((2, 3), (3, 4)), sample((3,), (3,)), sample((), (2, 3)), sample((2, 3), (3,)),
        sample((2, 3), (4, 3, 2)),
    ),
)  # fmt: skip
def dot(a: Any, b: Any) -> Any:
    """Return NumPy's ``dot``: sums over the last axis of ``a`` and the last but one of ``b``.

    Raises
    ------
    ShapeError
        When those axes differ in size.
    """
    if _is_scalar_product(a, b):
        return a * b
    if len(shape_of(b)) <= 2:
        return matmul(a, b)
    return tensordot(a, b, ((-1,), (-2,)))


@composite(
    np.inner, operands=2,
    samples=(sample((2, 3), (4, 3)), sample((3,), (3,)), sample((), (2,)), sample((2, 3), (3,))),
)  # fmt: skip
def inner(a: Any, b: Any) -> Any:
    """Return sums of products over the last axes of both operands."""
    return a * b if _is_scalar_product(a, b) else tensordot(a, b, ((-1,), (-1,)))


@composite(
    np.outer, operands=2,
    samples=(sample((2,), (3,)), sample((2, 2), (3,)), sample((), (2,)), sample((0,), (2,))),
)  # fmt: skip
def outer(a: Any, b: Any) -> Any:
    """Return every product of an element of ``a`` (rows) with one of ``b`` (columns)."""
    rows = reshape(a, (product(shape_of(a)), 1))
    return rows * reshape(b, (1, product(shape_of(b))))


def _pairs(axes: Any, a: Sequence[Dim], b: Sequence[Dim]) -> tuple[list[int], list[int]]:
    """Return the axes of each operand that are summed over."""
    if isinstance(axes, (int, np.integer)):
        if not 0 <= axes <= min(len(a), len(b)):
            raise ShapeError(f"tensordot over {axes} axes of {shape_text(a)} and {shape_text(b)}")
        left, right = list(range(len(a) - int(axes), len(a))), list(range(int(axes)))
    else:
        given = ([s] if isinstance(s, (int, np.integer)) else list(s) for s in axes)
        left, right = ([normalize_axis(int(s), len(t)) for s in g] for g, t in zip(given, (a, b)))
    if len(left) != len(right):
        raise ShapeError(f"tensordot pairs {len(left)} axes with {len(right)}")
    for i, j in zip(left, right):
        if unify(a[i], b[j]) is None:
            raise ShapeError(
                f"inner sizes differ: {resolve(a[i])} (axis {i} of the first operand) and "
                f"{resolve(b[j])} (axis {j} of the second)"
            )
    return left, right


def _tensordot_reference(a: np.ndarray, b: np.ndarray, axes: Any) -> Any:
    return np.tensordot(a, b, axes)


@composite(
    _tensordot_reference, operands=2,
    samples=(
        sample((2, 3, 4), (3, 4, 5), axes=2),
        sample((2, 3), (4,), axes=0),
        sample((3, 2, 4), (2, 3), axes=((0, 1), (1, 0))),
        sample((2, 3), (3,), axes=(1, 0)),
        sample((2, 3), (2, 3), axes=((-2, -1), (0, 1))),
    ),
)  # fmt: skip
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """Return sums of products over pairs of axes.

    Parameters
    ----------
    a, b : operand
    axes : int or pair of axes
        A number: the last axes of ``a`` with the first of ``b``. Two axes, or two lists of axes:
        those of ``a`` with those of ``b``.

    Returns
    -------
    operand
        The other axes of ``a``, then those of ``b``.
    """
    shape_a, shape_b = shape_of(a), shape_of(b)
    left, right = attempt("tensordot", (a, b), _pairs, axes, shape_a, shape_b)
    rows = [axis for axis in range(len(shape_a)) if axis not in left]
    columns = [axis for axis in range(len(shape_b)) if axis not in right]
    size_a, size_b = product(shape_a[i] for i in left), product(shape_b[i] for i in right)
    kept_a, kept_b = [shape_a[i] for i in rows], [shape_b[i] for i in columns]
    matrix_a = reshape(transpose(a, rows + left), (product(kept_a), size_a))
    matrix_b = reshape(transpose(b, right + columns), (size_b, product(kept_b)))
    return reshape(matmul(matrix_a, matrix_b), (*kept_a, *kept_b))

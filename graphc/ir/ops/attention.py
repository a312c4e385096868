"""Attention: values averaged by the softmax of scaled products of queries and keys.

Vaswani et al. 2017, arXiv:1706.03762. The scores of a head are never in memory as a whole; see
`graphc.ir.ops.attention_nests`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import AutogradError, DTypeError, ShapeError
from graphc.ir.dim import Dim
from graphc.ir.op import Kind, OpDef, Spec, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.attention_nests import backward_nest, forward_nest
from graphc.ir.ops.attention_tiles import WIDEST, Options
from graphc.ir.ops.reduction import sum as sum_
from graphc.ir.sizes import broadcast_dims, fix, resolve
from graphc.ir.types import TensorType, bool_, float32, float64, same_shape, shape_text

TOLERANCE = {float32: (1e-4, 1e-5), float64: (1e-10, 1e-11)}


class Attention(OpDef):
    """``softmax(query @ key.T * scale) @ value`` for each head, and the logarithms of its sums.

    Axes are batch, position, head, channel; with ``heads_first`` batch, head, position, channel.
    The second result, without channels, is ``log(sum_j exp(score_j))`` of each query.
    """

    name, kind, orders = "attention", Kind.OPAQUE, 1
    compiled = True
    tolerance = TOLERANCE
    samples = (
        sample((2, 5, 3, 4), (2, 7, 3, 4), (2, 7, 3, 6),
               scale=0.5, causal=False, heads_first=False),
        sample((1, 2, 35, 20), (1, 2, 35, 20), (1, 2, 35, 33),
               scale=0.3, causal=True, heads_first=True),
        sample((2, 3, 18, 2), (2, 3, 5, 2), (2, 3, 5, 3), Spec((2, 1, 18, 5), dtype=bool_),
               scale=1.0, causal=True, heads_first=True),
        sample((1, 17, 1, 16), (1, 140, 1, 16), (1, 140, 1, 16), Spec((1, 1, 1, 140), dtype=bool_),
               scale=0.25, causal=False, heads_first=False),
        sample((2, 0, 1, 4), (2, 3, 1, 4), (2, 3, 1, 4),
               scale=0.5, causal=False, heads_first=False),
        sample((1, 2, 1, 4), (1, 0, 1, 4), (1, 0, 1, 4),
               scale=0.5, causal=False, heads_first=False),
    )  # fmt: skip

    def __call__(
        self, query: Any, key: Any, value: Any, mask: Any = None, *, scale: float,
        causal: bool = False, heads_first: bool = False,
    ) -> Any:  # fmt: skip
        """Attend to values.

        Parameters
        ----------
        query : operand, shape (N, T, H, C)
            H heads of C channels at T positions; with ``heads_first`` (N, H, T, C).
        key, value : operand, shapes (N, S, H, C) and (N, S, H, D)
            With ``heads_first`` (N, H, S, C) and (N, H, S, D).
        mask : operand of bool, optional
            Which keys a query sees, shape (N, H, T, S); axes of size 1 broadcast. A query that
            sees none gets zeros.
        scale : float
            Factor of the scores.
        causal : bool
            Query ``t`` sees keys up to ``t``.
        heads_first : bool

        Returns
        -------
        result : operand, shape (N, T, H, D)
            With ``heads_first`` (N, H, T, D).
        logs : operand, shape (N, T, H)
            Logarithms of the sums of exponentials; with ``heads_first`` (N, H, T).
        """
        operands = (query, key, value, *(() if mask is None else (mask,)))
        attrs = {
            "scale": float(scale), "causal": bool(causal), "heads_first": bool(heads_first),
        }  # fmt: skip
        return apply(self, operands, attrs)

    def infer(
        self, query: TensorType, key: TensorType, value: TensorType, mask: TensorType | None = None,
        *, scale: float, causal: bool, heads_first: bool,
    ) -> tuple[TensorType, ...]:  # fmt: skip
        """Check the operands against each other."""
        _check(query, key, value, mask, heads_first)
        return query.with_shape((*query.shape[:3], value.shape[3])), query.with_shape(
            query.shape[:3]
        )

    def vjp(
        self, g: Any, y: Any, query: Any, key: Any, value: Any, *masks: Any, **attrs: Any
    ) -> tuple[Any, ...]:
        """Compute the scores again, block by block."""
        (slope, log_slope), (result, logs) = g, y
        if slope is None:
            slope = result * 0.0
        shares = sum_(slope * result, axis=-1)
        if log_slope is not None:
            shares = shares - log_slope
        found = apply(BACKWARD, (slope, query, key, value, logs, shares, *masks), attrs)
        return (*found, *(None for _ in masks))

    def nest(self, k: Any, outputs: Any, *operands: Any, **attrs: Any) -> Any:
        """Take a block of queries past all keys."""
        return forward_nest(k, outputs, operands, Options(**attrs))

    def reference(
        self, query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: np.ndarray | None = None,
        *, scale: float, causal: bool, heads_first: bool,
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        """Compute all scores at once."""
        query, key, value = _by_head((query, key, value), heads_first)
        scores = _scores(query, key, mask, scale, causal)
        peak = np.max(scores, axis=-1, keepdims=True, initial=-np.finfo(scores.dtype).max)
        parts = np.exp(scores - peak)
        total = np.sum(parts, axis=-1, keepdims=True)
        with np.errstate(divide="ignore"):
            logs = (peak + np.log(total))[..., 0].astype(scores.dtype)
        shares = parts / np.where(total > 0, total, 1)
        result, logs = _by_head((shares @ value, logs), heads_first)
        return result, logs


def _check(
    query: TensorType, key: TensorType, value: TensorType, mask: TensorType | None,
    heads_first: bool,
) -> None:  # fmt: skip
    texts = ", ".join(shape_text(t.shape) for t in (query, key, value))
    if not query.ndim == key.ndim == value.ndim == 4:
        order = "batch, head, position" if heads_first else "batch, position, head"
        raise ShapeError(
            f"attention takes queries, keys and values of 4 axes, got shapes {texts}",
            remedy=f"Axes are {order}, channel.",
        )
    if not query.dtype.floating or len({query.dtype, key.dtype, value.dtype}) > 1:
        raise DTypeError(
            f"attention takes queries, keys and values of one floating type, got {query.dtype}, "
            f"{key.dtype} and {value.dtype}",
            remedy="Cast them.",
        )
    head, position = (1, 2) if heads_first else (2, 1)
    for kind, other, axes, what in (
        (key, query, (0, head, 3), "batches, heads and channels of queries and keys"),
        (value, key, (0, head, position), "batches, heads and positions of keys and values"),
    ):
        if not same_shape([kind.shape[a] for a in axes], [other.shape[a] for a in axes]):
            raise ShapeError(
                f"{what} differ in attention: shapes {texts}",
                remedy="Each query is multiplied by each key, and each key has a value.",
            )
    for width in map(fix, (query.shape[3], value.shape[3])):
        if width is None or width > WIDEST:
            raise ShapeError(
                f"attention has heads of at most {WIDEST} channels, got {width}",
                remedy="Use more heads, or softmax between two products.",
            )
    if mask is not None:
        sizes = (query.shape[0], query.shape[head], query.shape[position], key.shape[position])
        _check_mask(mask, sizes)


def _check_mask(mask: TensorType, sizes: tuple[Dim, ...]) -> None:
    if mask.dtype is not bool_:
        raise DTypeError(
            f"attention's mask has dtype {mask.dtype}",
            remedy="It says which keys a query sees: compare, or cast to bool.",
        )
    fits = mask.ndim == 4 and all(
        broadcast_dims(own, size) == resolve(size) for own, size in zip(mask.shape, sizes)
    )
    if not fits:
        raise ShapeError(
            f"attention's mask has shape {shape_text(mask.shape)}",
            remedy=f"It must be {shape_text(sizes)}; axes of size 1 broadcast.",
        )


def _by_head(arrays: Any, heads_first: bool) -> tuple[np.ndarray, ...]:
    """Exchange the axes of positions and heads, unless heads come first."""
    return tuple(a if heads_first else np.swapaxes(a, 1, 2) for a in arrays)


def _scores(
    query: np.ndarray, key: np.ndarray, mask: np.ndarray | None, scale: float, causal: bool
) -> np.ndarray:
    scores = np.asarray(query @ np.swapaxes(key, -1, -2) * query.dtype.type(scale))
    hidden = np.zeros(scores.shape, bool)
    if causal:
        hidden |= np.arange(scores.shape[-1]) > np.arange(scores.shape[-2])[:, None]
    if mask is not None:
        hidden |= ~mask
    return np.where(hidden, scores.dtype.type(-np.inf), scores)


class Backward(OpDef):
    """The gradient of `Attention` by queries, keys and values.

    Operands are that of the result; queries, keys and values; the logarithms; and for each query
    the sum of the result times its gradient; then the mask.
    """

    name, kind, orders = "attention_backward", Kind.OPAQUE, 0
    compiled = True
    tolerance = TOLERANCE
    samples = (
        sample((2, 5, 3, 6), (2, 5, 3, 4), (2, 7, 3, 4), (2, 7, 3, 6),
               Spec((2, 5, 3), 2.0, 4.0), (2, 5, 3), scale=0.5, causal=False, heads_first=False),
        sample((1, 2, 50, 33), (1, 2, 50, 20), (1, 2, 50, 20), (1, 2, 50, 33),
               Spec((1, 2, 50), 3.0, 5.0), (1, 2, 50), scale=0.3, causal=True, heads_first=True),
        sample((1, 3, 1, 4), (1, 3, 1, 4), (1, 140, 1, 4), (1, 140, 1, 4),
               Spec((1, 3, 1), 3.0, 5.0), (1, 3, 1), Spec((1, 1, 3, 140), dtype=bool_),
               scale=0.5, causal=False, heads_first=False),
    )  # fmt: skip

    def infer(
        self, slope: TensorType, query: TensorType, key: TensorType, value: TensorType,
        logs: TensorType, shares: TensorType, mask: TensorType | None = None, *, scale: float,
        causal: bool, heads_first: bool,
    ) -> tuple[TensorType, ...]:  # fmt: skip
        """Return the types of queries, keys and values."""
        _check(query, key, value, mask, heads_first)
        return query, key, value

    def vjp(self, g: Any, y: Any, *operands: Any, **attrs: Any) -> tuple[Any, ...]:
        """Raise: there is no second gradient."""
        raise AutogradError(
            "the gradient of attention cannot be differentiated",
            remedy="Put softmax between two batch_dot: they consist of plain operations.",
        )

    def nest(self, k: Any, outputs: Any, *operands: Any, **attrs: Any) -> Any:
        """Take a head's blocks of queries past all keys."""
        return backward_nest(k, outputs, operands, Options(**attrs))

    def reference(
        self, slope: np.ndarray, query: np.ndarray, key: np.ndarray, value: np.ndarray,
        logs: np.ndarray, shares: np.ndarray, mask: np.ndarray | None = None, *, scale: float,
        causal: bool, heads_first: bool,
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        """Compute all scores at once."""
        slope, query, key, value, logs, shares = _by_head(
            (slope, query, key, value, logs, shares), heads_first
        )
        weights = np.exp(_scores(query, key, mask, scale, causal) - logs[..., None])
        changes = weights * (slope @ np.swapaxes(value, -1, -2) - shares[..., None])
        changes = changes * query.dtype.type(scale)
        found = (
            changes @ key, np.swapaxes(changes, -1, -2) @ query,
            np.swapaxes(weights, -1, -2) @ slope,
        )  # fmt: skip
        return _by_head(found, heads_first)


BACKWARD = register(Backward())
attention = register(Attention())

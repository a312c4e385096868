"""Attention as a function: which heads, which keys, and the way that fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.errors import ShapeError, user_location
from graphc.frontend.array import mode as scopes
from graphc.frontend.ops.nn import Dropout
from graphc.frontend.ops.operator import chosen, dims, operator
from graphc.ir.dim import Dim
from graphc.ir.ops import basic, comparison, contraction, creation, movement, rearrange, softmax
from graphc.ir.ops.attention import attention
from graphc.ir.ops.attention_tiles import WIDEST
from graphc.ir.sizes import fix
from graphc.ir.types import as_dtype, shape_text

NAME = "scaled_dot_product_attention"


@operator(NAME, inputs=("query", "key", "value", "mask", "valid_length"))
def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, mask: Any = None, valid_length: Any = None,
    causal: bool = False, scale: float | None = None, dropout: float = 0.0, layout: str = "NTHC",
) -> Any:  # fmt: skip
    """Return values averaged by the softmax of scaled products of queries and keys.

    For each head, ``softmax(query @ key.T * scale) @ value``. The scores are computed block by
    block and never stored as a whole; the gradient computes them again. Vaswani et al. 2017,
    arXiv:1706.03762.

    Parameters
    ----------
    query : array, shape (N, T, H, C)
        N sequences of T positions, H heads of C channels. Without the axis H there is one head.
    key, value : array, shapes (N, S, H, C) and (N, S, H, D)
    mask : array, shape (N, H, T, S), (N, T, S) or (T, S), optional
        Not zero where a query sees a key; axes of size 1 broadcast. A query that sees no key gets
        zeros.
    valid_length : array, shape (N,), optional
        Keys of each sequence that are seen; those behind are padding.
    causal : bool
        Query ``t`` sees keys up to ``t``.
    scale : float, optional
        By default ``1 / sqrt(C)``.
    dropout : float
        Probability with which a weight is dropped in training. All scores are stored then.
    layout : {"NTHC", "NHTC"}
        Order of the axes; the result has it, too.

    Returns
    -------
    array, shape (N, T, H, D)
    """
    heads_first = chosen("layout of attention", layout, ("NTHC", "NHTC")) == "NHTC"
    axes = [len(dims(x)) for x in (query, key, value)]
    if axes not in ([3, 3, 3], [4, 4, 4]):
        raise ShapeError(
            f"{NAME} takes queries, keys and values of 4 axes, or of 3, got shapes "
            f"{', '.join(shape_text(dims(x)) for x in (query, key, value))}",
            remedy=f"Axes are {', '.join(layout)}; without H there is one head.",
            where=user_location(),
        )
    alone, head = axes[0] == 3, 1 if heads_first else 2
    if alone:
        query, key, value = (movement.expand_dims(x, head) for x in (query, key, value))
    keys = dims(key)[2 if heads_first else 1]
    seen = _seen(mask, valid_length, keys)
    width = dims(query)[3]
    scale = 1 / math.sqrt(_fixed(width)) if scale is None else float(scale)
    dropped = dropout > 0 and scopes.training
    if dropped or any(_fixed(dims(x)[3]) > WIDEST for x in (query, value)):
        found = _stored(query, key, value, seen, causal, scale, dropout, heads_first)
    else:
        found, _ = attention(
            query, key, value, seen, scale=scale, causal=causal, heads_first=heads_first
        )
    return movement.squeeze(found, head) if alone else found


def _fixed(width: Dim) -> int:
    size = fix(width)
    assert size is not None, "operators run on operands with sizes"
    return size


def _seen(mask: Any, valid_length: Any, keys: Dim) -> Any:
    """Return the mask of bool with four axes; None where every query sees every key."""
    found = None
    if mask is not None:
        found = movement.reshape(basic.cast(mask, "bool"), _four_axes(dims(mask)))
    if valid_length is not None:
        shape = dims(valid_length)
        if len(shape) != 1:
            raise ShapeError(
                f"{NAME} takes valid_length of shape (N,), got {shape_text(shape)}",
                remedy="It has one number for each sequence of the batch.",
                where=user_location(),
            )
        places = creation.arange(keys, dtype=as_dtype(valid_length.dtype))
        ends = movement.reshape(valid_length, (shape[0], 1, 1, 1))
        inside = comparison.less(movement.reshape(places, (1, 1, 1, keys)), ends)
        found = inside if found is None else comparison.logical_and(found, inside)
    return found


def _four_axes(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    if len(shape) not in (2, 3, 4):
        raise ShapeError(
            f"{NAME} got a mask of shape {shape_text(shape)}",
            remedy="Masks have shape (N, H, T, S), (N, T, S) or (T, S).",
            where=user_location(),
        )
    return (*shape[:1], 1, *shape[1:]) if len(shape) == 3 else (*(1,) * (4 - len(shape)), *shape)


def _stored(
    query: Any, key: Any, value: Any, seen: Any, causal: bool, scale: float, dropout: float,
    heads_first: bool,
) -> Any:  # fmt: skip
    """Compute all scores at once: what dropout draws for, and heads too wide for blocks."""
    if not heads_first:
        query, key, value = (rearrange.swapaxes(x, 1, 2) for x in (query, key, value))
    scores = contraction.matmul(query, key, transpose_b=True) * scale
    if causal:
        places = [creation.arange(size, dtype="int64") for size in dims(scores)[-2:]]
        before = comparison.less_equal(places[1], movement.expand_dims(places[0], 1))
        seen = before if seen is None else comparison.logical_and(seen, before)
    if seen is not None:
        scores = comparison.where(seen, scores, -1e30)
    weights = softmax.softmax(scores, -1)
    if seen is not None:
        weights = comparison.where(seen, weights, 0.0)
    found = contraction.matmul(Dropout(weights, p=dropout), value)
    return found if heads_first else rearrange.swapaxes(found, 1, 2)

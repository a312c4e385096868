"""The functions of arrays in NumPy: what every side is compared with. In float64, not timed."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def add_one(x: Array) -> Array:
    return x + 1.0


def matmul(a: Array, b: Array) -> Array:
    return a @ b


def dense_relu(x: Array, weight: Array, bias: Array) -> Array:
    return np.maximum(x @ weight.T + bias, 0.0)


def gelu_chain(x: Array) -> Array:
    y = x * 1.1 + 0.1
    return 0.5 * y * (1.0 + np.tanh(0.7978845608 * (y + 0.044715 * y * y * y))) + x


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def layer_norm_gradient(
    x: Array, gamma: Array, beta: Array, cotangent: Array
) -> tuple[Array, Array, Array, Array]:
    scale = 1.0 / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    unit = (x - x.mean(-1, keepdims=True)) * scale
    g = cotangent * gamma
    inner = g - g.mean(-1, keepdims=True) - unit * (g * unit).mean(-1, keepdims=True)
    return unit * gamma + beta, inner * scale, (cotangent * unit).sum(0), cotangent.sum(0)


def causal_weights(query: Array, key: Array) -> Array:
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])
    return softmax(np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf))


def attention(query: Array, key: Array, value: Array, _: Array) -> Array:
    return causal_weights(query, key) @ value


def attention_gradient(
    query: Array, key: Array, value: Array, cotangent: Array
) -> tuple[Array, Array, Array, Array]:
    weights = causal_weights(query, key)
    y = weights @ value
    arriving = cotangent @ value.swapaxes(-1, -2) - (cotangent * y).sum(-1, keepdims=True)
    scores = weights * arriving / np.sqrt(query.shape[-1])
    by_key = (scores.swapaxes(-1, -2) @ query, weights.swapaxes(-1, -2) @ cotangent)
    return y, scores @ key, *by_key


def cross_entropy_gradient(logits: Array, labels: Array) -> tuple[Array, Array]:
    picked = np.arange(len(labels)), labels
    shares = softmax(logits)
    loss = -np.log(shares[picked]).sum()
    shares[picked] -= 1.0
    return loss, shares


def sum_columns(x: Array) -> Array:
    return x.sum(0)


def max_columns(x: Array) -> Array:
    return x.max(0)


def transpose(x: Array) -> Array:
    return np.ascontiguousarray(x.T)

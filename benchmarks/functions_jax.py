"""The functions of arrays in JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def add_one(x: Array) -> Array:
    return x + 1.0


def matmul(a: Array, b: Array) -> Array:
    return a @ b


def dense_relu(x: Array, weight: Array, bias: Array) -> Array:
    return jax.nn.relu(x @ weight.T + bias)


def gelu_chain(x: Array) -> Array:
    y = x * 1.1 + 0.1
    return 0.5 * y * (1.0 + jnp.tanh(0.7978845608 * (y + 0.044715 * y * y * y))) + x


def softmax(x: Array) -> Array:
    return jax.nn.softmax(x)


def layer_norm_gradient(x: Array, gamma: Array, beta: Array, cotangent: Array) -> tuple[Array, ...]:
    def forward(x: Array, gamma: Array, beta: Array) -> Array:
        unit = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
        return unit * gamma + beta

    y, pull_back = jax.vjp(forward, x, gamma, beta)
    return y, *pull_back(cotangent)


def attention(query: Array, key: Array, value: Array, _: Array | None) -> Array:
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    return jax.nn.dot_product_attention(query, key, value, is_causal=True).swapaxes(1, 2)


def attention_gradient(
    query: Array, key: Array, value: Array, cotangent: Array
) -> tuple[Array, ...]:
    y, pull_back = jax.vjp(lambda *factors: attention(*factors, None), query, key, value)
    return y, *pull_back(cotangent)


def cross_entropy_gradient(logits: Array, labels: Array) -> tuple[Array, Array]:
    def forward(logits: Array) -> Array:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).sum()

    return jax.value_and_grad(forward)(logits)


def sum_columns(x: Array) -> Array:
    return x.sum(0)


def max_columns(x: Array) -> Array:
    return x.max(0)


def transpose(x: Array) -> Array:
    return x.T.copy()

"""Networks of the suite in JAX: functions of a list of parameters, in `benchmarks.models`' order.

``FIRST`` draws parameters where no other side gave them: their shapes by network.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def linear(x: Array, weight: Array, bias: Array) -> Array:
    return x @ weight.T + bias


def mlp(parameters: list[Array], x: Array) -> Array:
    w1, b1, w2, b2, w3, b3 = parameters
    return linear(jax.nn.relu(linear(jax.nn.relu(linear(x, w1, b1)), w2, b2)), w3, b3)


def convolve_pool(x: Array, weight: Array, bias: Array) -> Array:
    dimensions = ("NCHW", "OIHW", "NCHW")
    y = jax.lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=dimensions)
    y = jax.nn.relu(y + bias[:, None, None])
    return jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def lenet(parameters: list[Array], x: Array) -> Array:
    w1, b1, w2, b2, w3, b3, w4, b4 = parameters
    x = convolve_pool(convolve_pool(x, w1, b1), w2, b2).reshape(x.shape[0], -1)
    return linear(jax.nn.relu(linear(x, w3, b3)), w4, b4)


def norm(x: Array, gamma: Array, beta: Array) -> Array:
    scale = jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
    return (x - x.mean(-1, keepdims=True)) * scale * gamma + beta


def attention(parameters: Iterator[Array], x: Array, heads: int, causal: bool) -> Array:
    batch, length, width = x.shape
    joint = linear(x, next(parameters), next(parameters))
    query, key, value = jnp.moveaxis(joint.reshape(batch, length, 3, heads, -1), 2, 0)
    mixed = jax.nn.dot_product_attention(query, key, value, is_causal=causal)
    return linear(mixed.reshape(batch, length, width), next(parameters), next(parameters))


def transformer_layer(parameters: Iterator[Array], x: Array, heads: int, before: bool) -> Array:
    attend, norm1, norm2, wide, narrow = ([next(parameters) for _ in range(n)]
                                          for n in (4, 2, 2, 2, 2))  # fmt: skip
    mix = iter(attend)
    if before:
        x = x + attention(mix, norm(x, *norm1), heads, True)
        hidden = jax.nn.gelu(linear(norm(x, *norm2), *wide), approximate=False)
        return x + linear(hidden, *narrow)
    x = norm(x + attention(mix, x, heads, False), *norm1)
    return norm(x + linear(jax.nn.gelu(linear(x, *wide), approximate=False), *narrow), *norm2)


def gpt(parameters: list[Array], x: Array) -> Array:
    rest = iter(parameters)
    tokens, places = next(rest), next(rest)
    y = tokens[x] + places[jnp.arange(x.shape[1])]
    for _ in range(4):
        y = transformer_layer(rest, y, 4, True)
    y = norm(y, next(rest), next(rest))
    return linear(y, next(rest), next(rest))


def bert_layer(parameters: list[Array], x: Array) -> Array:
    return transformer_layer(iter(parameters), x, 12, False)


def lstm(parameters: list[Array], x: Array) -> Array:
    w, u, b, c = parameters

    def step(states: tuple[Array, Array], projected: Array) -> tuple[tuple[Array, Array], Array]:
        h, s = states
        i, f, g, o = jnp.split(projected + h @ u.T, 4, axis=-1)
        s = jax.nn.sigmoid(f) * s + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(s)
        return (h, s), h

    zeros = jnp.zeros((x.shape[1], u.shape[1]))
    return jax.lax.scan(step, (zeros, zeros), linear(x, w, b + c))[1]


def text_classifier(parameters: list[Array], x: Array) -> Array:
    words, weight, bias = parameters
    return linear(words[x].mean(1), weight, bias)


MLP = ((512, 784), (512,), (256, 512), (256,), (10, 256), (10,))
LENET = ((20, 1, 5, 5), (20,), (50, 20, 5, 5), (50,), (500, 800), (500,), (10, 500), (10,))
LAYER = ((768, 256), (768,), (256, 256), (256,), (256,), (256,), (256,), (256,),
         (1024, 256), (1024,), (256, 1024), (256,))  # fmt: skip
SHAPES = {
    "mlp": MLP,
    "lenet": LENET,
    "gpt": ((256, 256), (128, 256), *4 * LAYER, (256,), (256,), (256, 256), (256,)),
}


def first_parameters(name: str) -> list[np.ndarray]:
    """Return small random parameters of a network."""
    generator = np.random.default_rng(0)
    return [0.05 * generator.standard_normal(s, np.float32) for s in SHAPES[name]]

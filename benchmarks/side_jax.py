"""Rows in JAX, by `jax.jit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import functions_jax, models_jax
from benchmarks.record import Arrays, Row, Side


def as_numpy(values: Any) -> Arrays:
    """Return NumPy arrays of one output or several."""
    return [np.asarray(v) for v in (values if isinstance(values, (tuple, list)) else (values,))]


def function(row: Row, data: Arrays, _: Arrays) -> Side:
    """Prepare a function of arrays."""
    compiled = jax.jit(getattr(functions_jax, row.workload.name))
    arguments = [jnp.asarray(x) for x in data]
    return Side(lambda: jax.block_until_ready(compiled(*arguments)), as_numpy)


def inference(row: Row, data: Arrays, values: Arrays) -> Side:
    """Prepare a network."""
    compiled = jax.jit(getattr(models_jax, row.options["model"]))
    parameters, x = [jnp.asarray(v) for v in values], jnp.asarray(data[0])
    return Side(lambda: jax.block_until_ready(compiled(parameters, x)), as_numpy)


def gradient(row: Row, data: Arrays, values: Arrays) -> Side:
    """Prepare a network's output and its gradients, given that by the output."""
    apply = getattr(models_jax, row.options["model"])

    @jax.jit
    def both(parameters: Any, x: Any, arriving: Any) -> Any:
        y, pull_back = jax.vjp(apply, parameters, x)
        of_parameters, of_data = pull_back(arriving)
        return [y, of_data, *of_parameters]

    arguments = [jnp.asarray(v) for v in values], *map(jnp.asarray, data)
    return Side(lambda: jax.block_until_ready(both(*arguments)), as_numpy)


def sgd(parameters: Any, gradients: Any, state: Any, rate: float) -> tuple[Any, Any]:
    """Return parameters and state after plain gradient descent."""
    return jax.tree.map(lambda w, g: w - rate * g, parameters, gradients), state


def adam(parameters: Any, gradients: Any, state: Any, rate: float) -> tuple[Any, Any]:
    """Return parameters and state after Adam, betas 0.9 and 0.999."""
    means, squares, count = state
    count = count + 1
    means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, gradients)
    squares = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, squares, gradients)
    rate = rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    parameters = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-8), parameters, means, squares
    )
    return parameters, (means, squares, count)


OPTIMIZERS = {"sgd": sgd, "adam": adam}


def trainer(row: Row, data: Arrays, values: Arrays) -> Callable[[], Any]:
    """Return what makes one training step and returns the mean loss."""
    apply = getattr(models_jax, row.options["model"])
    optimizer, rate = OPTIMIZERS[row.options["optimizer"]], row.options["rate"]

    def mean_loss(parameters: Any, x: Any, labels: Any) -> Any:
        shares = jax.nn.log_softmax(apply(parameters, x))
        return -jnp.take_along_axis(shares, labels[..., None], -1).mean()

    def step(parameters: Any, state: Any, x: Any, labels: Any) -> Any:
        loss, gradients = jax.value_and_grad(mean_loss)(parameters, x, labels)
        return loss, *optimizer(parameters, gradients, state, rate)

    compiled = jax.jit(step, donate_argnums=(0, 1))
    x, labels = map(jnp.asarray, data)
    parameters = [jnp.array(v) for v in values]
    zeros = [jnp.zeros_like(p) for p in parameters]
    held = [parameters, (zeros, [jnp.zeros_like(p) for p in parameters], jnp.float32(0))]

    def run() -> Any:
        loss, *held[:] = compiled(*held, x, labels)
        return jax.block_until_ready((loss, held))[0]

    return run


def training(row: Row, data: Arrays, values: Arrays) -> Side:
    """Prepare a training step."""
    return Side(trainer(row, data, values), as_numpy)


KINDS = {
    "function": function,
    "inference": inference,
    "gradient": gradient,
    "training": training,
}

"""Same seed, same bits: training does not depend on the number of threads, nor on the run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from graphc import config
from graphc.codegen.cpu import host_target
from graphc.frontend.trace import trace
from graphc.ir.graph import Graph, Value, constant
from graphc.ir.operand import REGISTRY
from graphc.ir.types import TensorType, float32, int32, int64
from graphc.passes.differentiate import gradients
from graphc.passes.manager import compile_graph
from graphc.runtime import program as runtime
from graphc.runtime.program import Program

BATCH, CLASSES, STEPS = 12, 5, 100
SHAPES = ((6, 1, 3, 3), (6,), (6 * 7 * 7, CLASSES), (CLASSES,))
"""Of the weights and biases of a convolution and a dense layer."""
RATE = 0.05


def loss_of(
    x: Value, label: Value, seed: Value, counter: Value, parameters: tuple[Value, ...]
) -> Value:
    """Return the loss of each image: convolution, pooling, dropout, dense layer."""
    kernel, bias, weight, offset = parameters
    y = REGISTRY["conv"](x, kernel, 1, 1) + REGISTRY["reshape"](bias, (1, 6, 1, 1))
    y = REGISTRY["max_pool"](REGISTRY["relu"](y), 2, 2)
    y = REGISTRY["dropout"](y, seed, counter, p=0.3)
    flat = REGISTRY["reshape"](y, (x.shape[0], -1))
    logits = REGISTRY["matmul"](flat, weight) + offset
    loss: Value = REGISTRY["softmax_cross_entropy"](logits, label)
    return loss


def training_graph() -> Graph:
    """Return one step of gradient descent: the losses, and what replaces the parameters."""

    def step(*inputs: Value) -> tuple[Value, ...]:
        x, label, seed, counter, *parameters = inputs
        loss = loss_of(x, label, seed, counter, tuple(parameters))
        mean = REGISTRY["mean"](loss)
        grads = gradients([mean], [constant(1.0, float32)], parameters)
        assert all(g is not None for g in grads)
        moved = [p - g * RATE for p, g in zip(parameters, grads, strict=True) if g is not None]
        return loss, counter + 1, *moved

    data = [
        TensorType(float32, (BATCH, 1, 14, 14)),
        TensorType(int32, (BATCH,)),
        TensorType(int64, ()),
        TensorType(int64, ()),
    ]
    graph = trace(step, [*data, *(TensorType(float32, shape) for shape in SHAPES)], "training")
    updates = tuple(zip(graph.inputs[3:], graph.outputs[1:], strict=True))
    return Graph(graph.name, graph.inputs, graph.outputs[:1], updates, graph.constraints)


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield images with a bright square whose place tells the class."""
    generator = np.random.default_rng(1)
    for _ in range(STEPS):
        label = generator.integers(0, CLASSES, BATCH).astype(np.int32)
        x = generator.normal(0, 0.3, (BATCH, 1, 14, 14)).astype(np.float32)
        for image, number in zip(x, label, strict=True):
            image[0, 2 * number : 2 * number + 4, 3:9] += 1.0
        yield x, label


def train(step: Program, threads: int, seed: int = 5) -> list[np.ndarray]:
    """Return the losses of every step, then the parameters."""
    generator = np.random.default_rng(0)
    parameters = [generator.normal(0, 0.1, shape).astype(np.float32) for shape in SHAPES]
    counter = np.array(0)
    losses = []
    with config.options(threads=threads):
        for x, label in batches():
            losses += step([x, label, np.array(seed), counter, *parameters])
    assert counter == STEPS
    return [*losses, *parameters]


@pytest.fixture(scope="module")
def step() -> Program:
    return Program(compile_graph(training_graph(), host_target()))


@pytest.fixture(scope="module")
def alone(step: Program) -> list[np.ndarray]:
    return train(step, threads=1)


def assert_equal_bits(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    for number, (x, y) in enumerate(zip(a, b, strict=True)):
        assert x.tobytes() == y.tobytes(), f"the first difference is in result {number}"


def test_training_learns(alone: list[np.ndarray]) -> None:
    first, last = np.mean(alone[:5]), np.mean(alone[STEPS - 5 : STEPS])
    assert last < 0.3 * first


def test_repeated(step: Program, alone: list[np.ndarray]) -> None:
    assert_equal_bits(train(step, threads=1), alone)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads(step: Program, alone: list[np.ndarray], threads: int) -> None:
    assert_equal_bits(train(step, threads), alone)


@pytest.mark.parametrize("chunk_ns", [50, 1_000])
def test_chunks_claimed_by_threads(
    alone: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, chunk_ns: int
) -> None:
    """Many small chunks, so that threads share every launch."""
    monkeypatch.setattr(runtime, "CHUNK_NS", chunk_ns)
    fresh = Program(compile_graph(training_graph(), host_target()))
    assert_equal_bits(train(fresh, threads=2), alone)


def test_another_seed_gives_other_masks(step: Program, alone: list[np.ndarray]) -> None:
    other = train(step, threads=1, seed=6)
    assert any(not np.array_equal(x, y) for x, y in zip(other, alone, strict=True))

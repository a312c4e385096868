"""The data and the least work of each workload, as functions of its sizes.

Bytes count each operand and result once, four bytes an element. Training takes three products for
each product of the forward pass, but for the first layer, whose data has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.record import Arrays, Work, Workload

Generator = np.random.Generator


def normal(generator: Generator, *shape: int) -> np.ndarray:
    """Return normal numbers in float32."""
    return generator.standard_normal(shape, np.float32)


@dataclass(frozen=True)
class Network:
    """Sizes of a network: shape of an example, classes, products an example."""

    shape: tuple[int, ...]
    classes: int
    products: float
    first: float


MLP = Network((784,), 10, 784 * 512 + 512 * 256 + 2560, 784 * 512)
LENET = Network((1, 28, 28), 10, 24**2 * 500 + 64 * 25_000 + 405_000, 24**2 * 500)
IMAGE = 3, 224, 224
LSTM_UNITS = 256
NETWORKS = {
    "mlp": MLP,
    "lenet": LENET,
    "resnet18_small": Network((3, 32, 32), 10, 555.4e6, 1.77e6),
    "resnet18": Network(IMAGE, 1000, 1.814e9, 0.118e9),
    "resnet50": Network(IMAGE, 1000, 4.089e9, 0.118e9),
    "mobilenet_v2": Network(IMAGE, 1000, 0.3008e9, 0.0108e9),
}


def images(network: Network) -> Callable[..., Arrays]:
    """Return what draws a batch of examples and their labels; ``side`` cuts large images."""

    def draw(generator: Generator, batch: int, side: int = 0) -> Arrays:
        shape = (network.shape[0], side, side) if side else network.shape
        return [normal(generator, batch, *shape), generator.integers(0, network.classes, batch)]

    return draw


def forward_work(network: Network) -> Callable[..., Work]:
    """Return the work of inference."""
    return lambda batch: Work(2 * batch * network.products)


def training_work(network: Network) -> Callable[..., Work]:
    """Return the work of a training step."""
    return lambda batch: Work(2 * batch * (3 * network.products - network.first))


def inference(name: str) -> Workload:
    """Return the inference of a network."""
    network = NETWORKS[name]
    return Workload(name, images(network), forward_work(network), "inference", 1e-3)


def training(name: str) -> Workload:
    """Return the training step of a network."""
    network = NETWORKS[name]
    return Workload(name, images(network), training_work(network), "training", 2e-3)


def layer_products(length: int, width: int, share: float = 1.0) -> float:
    """Return products of a transformer layer for one sequence; ``share`` of attention's are due."""
    return 12 * length * width**2 + 2 * share * length**2 * width


def gpt_work(batch: int, length: int) -> Work:
    products = 4 * layer_products(length, 256, 0.5) + length * 256 * 256
    return Work(6 * batch * products)


def bert_work(batch: int, length: int) -> Work:
    return Work(2 * batch * layer_products(length, 768))


def labelled(generator: Generator, rows: int, columns: int) -> Arrays:
    return [normal(generator, rows, columns), generator.integers(0, columns, rows)]


def normalized(generator: Generator, rows: int, columns: int) -> Arrays:
    x, cotangent = normal(generator, rows, columns), normal(generator, rows, columns)
    return [x, normal(generator, columns), normal(generator, columns), cotangent]


def dense_data(generator: Generator, batch: int, inputs: int, units: int) -> Arrays:
    weight = normal(generator, units, inputs) / np.float32(inputs**0.5)
    return [normal(generator, batch, inputs), weight, normal(generator, units)]


def dense_work(batch: int, inputs: int, units: int) -> Work:
    return Work(2 * batch * inputs * units, 4 * (inputs * units + batch * (inputs + units)))


def matrix(generator: Generator, rows: int, columns: int) -> Arrays:
    return [normal(generator, rows, columns)]


def passes(count: float) -> Callable[..., Work]:
    """Return the work of reading or writing a matrix so many times."""
    return lambda rows, columns: Work(0, 4 * count * rows * columns)


def tensors(generator: Generator, count: int, elements: int) -> Arrays:
    """Return parameters, then as many gradients.

    Gradients keep away from zero: MXNet, and so graphc, adds Adam's epsilon to the root of the
    plain mean of squares, PyTorch to that of the corrected mean, as the paper has both. Next to
    gradients below 1e-5 that is seen.
    """
    values = [normal(generator, elements) for _ in range(2 * count)]
    for gradient in values[count:]:
        gradient += np.copysign(np.float32(0.1), gradient)
    return values


def sequences(generator: Generator, batch: int, length: int) -> Arrays:
    shape = (batch, length)
    return [generator.integers(0, 256, shape), generator.integers(0, 256, shape)]


def features(generator: Generator, length: int, batch: int) -> Arrays:
    """Return a sequence, and what arrives at the outputs in the backward pass."""
    return [normal(generator, length, batch, LSTM_UNITS) for _ in range(2)]


def lstm_work(length: int, batch: int) -> Work:
    """Return the work on inputs and states by their weights, and twice that for the gradients."""
    return Work(3 * 2 * length * batch * 2 * 4 * LSTM_UNITS**2)


def texts(generator: Generator, batch: int, length: int) -> Arrays:
    return [generator.integers(0, 50_000, (batch, length)), generator.integers(0, 2, batch)]


def texts_work(batch: int, length: int) -> Work:
    """Return the work on the vectors of words: read, and again read and written by the update."""
    return Work(0, 3 * 400 * batch * length)


def heads(generator: Generator, batch: int, heads: int, length: int) -> Arrays:
    """Return queries, keys, values of 64 channels, and what arrives at the outputs."""
    return [normal(generator, batch, heads, length, 64) for _ in range(4)]


def causal(products: float) -> Callable[..., Work]:
    """Return the work of so many products of positions by positions, half of which are due."""
    return lambda batch, heads, length: Work(products * batch * heads * length**2 * 64)


FUNCTIONS = {
    workload.name: workload
    for workload in (
        Workload("add_one", lambda generator, count: [normal(generator, count)],
                 lambda count: Work()),
        Workload("matmul", lambda generator, n: [normal(generator, n, n), normal(generator, n, n)],
                 lambda n: Work(2 * n**3, 12 * n**2)),
        Workload("dense_relu", dense_data, dense_work),
        Workload("gelu_chain", matrix, passes(2)),
        Workload("softmax", matrix, passes(2)),
        Workload("layer_norm_gradient", normalized, passes(4)),
        Workload("cross_entropy_gradient", labelled, passes(2)),
        Workload("sum_columns", matrix, passes(1)),
        Workload("max_columns", matrix, passes(1)),
        Workload("transpose", matrix, passes(2)),
        Workload("attention", heads, causal(2)),
        Workload("attention_gradient", heads, causal(7)),
    )
}  # fmt: skip

ADAM = Workload("adam", tensors, lambda count, elements: Work(0, 28 * count * elements), "update")
GPT = Workload("gpt", sequences, gpt_work, "training", 2e-3)
LSTM = Workload("lstm", features, lstm_work, "gradient", 1e-3)
BERT = Workload(
    "bert_layer",
    lambda generator, batch, length: [normal(generator, batch, length, 768)],
    bert_work,
    "inference",
    1e-3,
)
TEXT = Workload("text_classifier", texts, texts_work, "training", 1e-3)

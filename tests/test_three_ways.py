"""One program in three ways gives the same losses, in any number of threads, for any batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, gluon, nd
from graphc.gluon import nn

OPTIMIZERS = {
    "sgd": {"learning_rate": 0.05, "momentum": 0.9, "wd": 1e-4},
    "adam": {"learning_rate": 0.003},
}
SIDE = 12


def network() -> nn.HybridSequential:
    """Return a small LeNet with batch normalization and dropout."""
    net = nn.HybridSequential()
    # No bias before the normalization, which takes it away again: its gradient is rounding alone,
    # and Adam would make whole steps of that.
    net.add(
        nn.Conv2D(6, kernel_size=5, padding=2, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Conv2D(8, kernel_size=3, padding=1, use_bias=False),
        nn.BatchNorm(),
        nn.Activation("relu"),
        nn.MaxPool2D(2, 2),
        nn.Dropout(0.3),
        nn.Dense(32, activation="relu"),
        nn.Dropout(0.5),
        nn.Dense(5),
    )
    return net


def batches(count: int, size: int = 16) -> Iterator[tuple[Any, Any]]:
    """Yield images of noise with a bar at a place that the label tells."""
    generator = np.random.default_rng(3)
    for _ in range(count):
        labels = generator.integers(0, 5, size)
        images = generator.standard_normal((size, 1, SIDE, SIDE)).astype(np.float32)
        images[np.arange(size), 0, 2 * labels] += 2
        yield nd.array(images), nd.array(labels, dtype="int32")


Step = Callable[[Any, Any], Any]


def prepared(way: str, optimizer: str) -> tuple[nn.HybridSequential, Step]:
    """Return a network, always from the same weights, and its training step."""
    graphc.random.seed(11)
    net = network()
    net.initialize(graphc.init.Xavier())
    net.hybridize(way != "imperative")
    loss_fn = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), optimizer, OPTIMIZERS[optimizer])
    if way == "TrainStep":
        return net, gluon.TrainStep(net, loss_fn, trainer)

    def step(data: Any, label: Any) -> Any:
        with autograd.record():
            loss = loss_fn(net(data), label)
        loss.backward()
        trainer.step(data.shape[0])
        return loss

    return net, step


def losses(step: Step, count: int, size: int = 16) -> np.ndarray:
    """Return the mean loss of each of ``count`` steps."""
    return np.array([float(step(*batch).mean()) for batch in batches(count, size)])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_ways_give_the_same_losses(optimizer: str) -> None:
    net, step = prepared("imperative", optimizer)
    expected = losses(step, 50)
    assert expected[-10:].mean() < 0.7 * expected[:5].mean(), "the network has learnt nothing"
    for way in ("hybridized", "TrainStep"):
        other, step = prepared(way, optimizer)
        np.testing.assert_allclose(losses(step, 50), expected, rtol=1e-4, err_msg=way)
        for name, parameter in net.collect_params().items():
            np.testing.assert_allclose(
                other.collect_params()[name].data().asnumpy(),
                parameter.data().asnumpy(),
                rtol=2e-3,
                atol=2e-4,
                err_msg=f"{way} {name}",
            )


def test_dropout_and_batch_statistics_take_part() -> None:
    """Without this the test above could pass with both switched off."""
    net, step = prepared("TrainStep", "sgd")
    losses(step, 3)
    assert not np.allclose(net[3].running_mean.data().asnumpy(), 0)
    data, _ = next(batches(1))
    with autograd.train_mode():
        assert not np.allclose(net(data).asnumpy(), net(data).asnumpy())
    np.testing.assert_array_equal(net(data).asnumpy(), net(data).asnumpy())


@pytest.mark.parametrize("way", ["imperative", "hybridized", "TrainStep"])
def test_one_and_two_threads_give_the_same_bits(way: str) -> None:
    found = []
    for threads in (1, 2):
        with graphc.options(threads=threads):
            found.append(losses(prepared(way, "sgd")[1], 100, size=32))
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("way", ["imperative", "hybridized", "TrainStep"])
def test_another_batch_size_compiles_nothing(way: str) -> None:
    net, step = prepared(way, "adam")
    most = 33  # fewer elements may need no program of their own yet, but more do
    losses(step, 2, most)
    net(next(batches(1, most))[0])
    before = graphc.stats()
    for size in (7, 32, 1, 16):
        assert np.isfinite(losses(step, 1, size)).all()
        net(next(batches(1, size))[0])
    after = graphc.stats()
    for name in ("programs_traced", "kernels_compiled", "kernels_loaded"):
        assert after[name] == before[name], name


def test_a_short_last_batch_compiles_nothing() -> None:
    _, step = prepared("TrainStep", "sgd")
    images = np.random.default_rng(0).standard_normal((70, 1, SIDE, SIDE)).astype(np.float32)
    labels = np.arange(70, dtype=np.int32) % 5
    loader = gluon.data.DataLoader(gluon.data.ArrayDataset(images, labels), batch_size=16)
    sizes, counts = [], []
    for data, label in loader:
        assert step(data, label).shape == (len(data),)
        sizes.append(len(data))
        counts.append(graphc.stats()["kernels_compiled"] + graphc.stats()["kernels_loaded"])
    assert sizes == [16, 16, 16, 16, 6]
    assert counts == counts[:1] * 5

"""Train a network on digits in three ways: ``python examples/gluon_block.py [--samples N]``.

An imperative Block, which is plain Python; the same body as a HybridBlock, compiled; and a
TrainStep, which compiles forward, loss, backward and update as one program. It reads MNIST's
training set where that is found (see ``gluon.data.vision.MNIST``), else the digits that ship with
graphc. All three see the same batches from the same weights, so their losses agree to rounding at
first (``--samples 1000``); each step of training magnifies the differences in the last bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import graphc
from graphc import autograd, gluon, nd
from graphc import nd as F
from graphc.errors import DatasetNotFoundError
from graphc.gluon import nn


class Layers:
    """The layers and ``forward`` that both networks have."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv1 = nn.Conv2D(channels=20, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2D(channels=50, kernel_size=5, padding=2)
        self.fc1 = nn.Dense(units=500)
        self.fc2 = nn.Dense(units=10)

    def forward(self, x: Any) -> Any:
        """Return ten scores for each image of x, shape (N, 1, 28, 28)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), pool_size=2, strides=2)
        x = F.max_pool2d(F.relu(self.conv2(x)), pool_size=2, strides=2)
        return self.fc2(F.relu(self.fc1(x.reshape((-1, 7 * 7 * 50)))))


class Net(Layers, nn.Block):
    """Runs op by op."""


class HybridNet(Layers, nn.HybridBlock):
    """Runs op by op, or after ``hybridize()`` as one compiled program."""


def digits(samples: int) -> Any:
    """Return the first images of MNIST as float arrays (1, 28, 28), with their labels."""
    to_tensor = gluon.data.vision.transforms.ToTensor()
    try:
        found = gluon.data.vision.MNIST(train=True)
    except DatasetNotFoundError:
        found = gluon.data.vision.MNISTSample("train")
    return found.transform_first(to_tensor).take(samples)


def separate_steps(net: Any, loss_fn: Any, trainer: gluon.Trainer) -> Callable[[Any, Any], Any]:
    """Return a step that records, goes backward and updates, one after the other."""

    def step(data: Any, label: Any) -> Any:
        with autograd.record():
            loss = loss_fn(net(data), label)
        loss.backward()
        trainer.step(data.shape[0])
        return loss

    return step


def train(net: Any, make_step: Callable[..., Any], samples: int, ctx: graphc.Context) -> str:
    """Train for one pass over the data; return the last loss and how many digits were right."""
    graphc.random.seed(1)
    net.initialize(ctx=ctx)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    step = make_step(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
    train_data = gluon.data.DataLoader(digits(samples), batch_size=100, shuffle=True, ctx=ctx)
    for data, label in train_data:
        loss = step(data, label)
    right = int(nd.sum(nd.argmax(net(data), axis=1) == label))
    return f"loss: {float(loss.mean()):.4f}  right: {right} of {data.shape[0]}"


def main() -> None:
    """Train in each way and print what came out and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=6000, help="digits to train on")
    parser.add_argument("--gpu", action="store_true", help="train on the first NVIDIA GPU")
    options = parser.parse_args()
    ctx = graphc.gpu(0) if options.gpu else graphc.cpu()
    hybrid = HybridNet()
    hybrid.hybridize()
    for name, net, make_step in (
        ("imperative", Net(), separate_steps),
        ("hybridized", hybrid, separate_steps),
        ("TrainStep", HybridNet(), gluon.TrainStep),
    ):
        started = time.perf_counter()
        result = train(net, make_step, options.samples, ctx)
        print(f"{name:<11} {result}  {time.perf_counter() - started:5.1f} s")


if __name__ == "__main__":
    main()

"""Training steps of LeNet and an MLP against PyTorch eager, interleaved in one run.

    python benchmarks/training_step.py [--threads 2] [--repeats 30]

Prints medians in milliseconds and the ratio PyTorch / graphc (above 1: graphc is faster). Both
sides train the same model from the same weights, and the first losses are compared before anything
is timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from models import lenet, mlp

import graphc
from graphc import gluon, nd


def torch_lenet() -> torch.nn.Module:
    """Return the network that `lenet` is."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 20, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2, 2),
        torch.nn.Conv2d(20, 50, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2, 2),
        torch.nn.Flatten(), torch.nn.Linear(2450, 500), torch.nn.ReLU(), torch.nn.Linear(500, 10),
    )  # fmt: skip


def torch_mlp() -> torch.nn.Module:
    """Return the network that `mlp` is."""
    return torch.nn.Sequential(
        torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 256), torch.nn.ReLU(),
        torch.nn.Linear(256, 10),
    )  # fmt: skip


def steps(net: Any, peer: torch.nn.Module, shape: tuple[int, ...], optimizer: str) -> tuple[
    Callable[[], float], Callable[[], float]
]:  # fmt: skip
    """Return one training step of each side, from equal weights on equal data."""
    generator = np.random.default_rng(0)
    images = generator.standard_normal(shape).astype(np.float32)
    labels = generator.integers(0, 10, shape[0])
    net.initialize(graphc.init.Xavier())
    net.hybridize()
    net(nd.array(images))
    with torch.no_grad():
        for ours, theirs in zip(net.collect_params().values(), peer.parameters(), strict=True):
            theirs.copy_(torch.from_numpy(ours.data().asnumpy()))
    trainer = gluon.Trainer(net.collect_params(), optimizer, {"learning_rate": 0.01})
    step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
    data, label = nd.array(images), nd.array(labels, dtype="int32")

    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    updater = kinds[optimizer](peer.parameters(), lr=0.01)
    criterion = torch.nn.CrossEntropyLoss()
    tensor, target = torch.from_numpy(images), torch.from_numpy(labels)

    def ours_step() -> float:
        return float(step(data, label).mean())

    def their_step() -> float:
        updater.zero_grad()
        loss = criterion(peer(tensor), target)
        loss.backward()
        updater.step()
        return float(loss.detach())

    return ours_step, their_step


def compare(name: str, pair: tuple[Callable[[], float], Callable[[], float]], repeats: int) -> None:
    """Check that the losses agree, then time both in turn and print medians and the ratio."""
    ours, theirs = pair
    for _ in range(3):
        mine, other = ours(), theirs()
        assert abs(mine - other) < 1e-3 * max(1.0, abs(other)), (name, mine, other)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for side, run in enumerate(pair):
            started = time.perf_counter()
            run()
            times[side].append(1e3 * (time.perf_counter() - started))
    medians = [statistics.median(t) for t in times]
    ratio = medians[1] / medians[0]
    print(f"{name:<24} graphc {medians[0]:7.2f} ms   torch {medians[1]:7.2f} ms   {ratio:.2f}x")


def main() -> None:
    """Run every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    graphc.configure(threads=options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, medians of {options.repeats}")
    pair = steps(lenet(), torch_lenet(), (100, 1, 28, 28), "sgd")
    compare("LeNet, batch 100, SGD", pair, options.repeats)
    for optimizer in ("sgd", "adam"):
        pair = steps(mlp(), torch_mlp(), (64, 784), optimizer)
        compare(f"MLP, batch 64, {optimizer}", pair, 5 * options.repeats)


if __name__ == "__main__":
    main()

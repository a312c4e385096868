"""The networks that the benchmarks train."""

from __future__ import annotations

from graphc.gluon import nn


def lenet() -> nn.HybridSequential:
    """Return LeNet for 28 x 28 images with one channel, as examples/mnist.py writes it out."""
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(20, kernel_size=5, padding=2, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Conv2D(50, kernel_size=5, padding=2, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Dense(500, activation="relu"),
        nn.Dense(10),
    )
    return net


def mlp() -> nn.HybridSequential:
    """Return a network of three layers, 784-512-256-10."""
    net = nn.HybridSequential()
    net.add(nn.Dense(512, activation="relu"), nn.Dense(256, activation="relu"), nn.Dense(10))
    return net

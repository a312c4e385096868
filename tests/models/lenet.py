"""LeNet with example inputs in its file, for the tests of the command line."""

from graphc import nd
from graphc.gluon import nn

net = nn.HybridSequential(prefix="lenet_")
net.add(
    nn.Conv2D(20, kernel_size=5, padding=2, activation="relu"),
    nn.MaxPool2D(2, 2),
    nn.Conv2D(50, kernel_size=5, padding=2, activation="relu"),
    nn.MaxPool2D(2, 2),
    nn.Dense(500, activation="relu"),
    nn.Dense(10),
)
net.initialize()


def example_inputs():
    return [nd.zeros((100, 1, 28, 28))]

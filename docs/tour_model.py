"""The model of docs/tour.md: two layers, and the loss of a batch."""

from graphc import gluon, nd
from graphc.gluon import nn

net = nn.HybridSequential(prefix="net_")
net.add(nn.Dense(16, activation="relu", prefix="hidden_"), nn.Dense(12, prefix="output_"))
net.initialize()
cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()


def loss(x, label):
    """Return the loss of each row of a batch."""
    return cross_entropy(net(x), label)


def example_inputs():
    """Return a batch that says which types and shapes to trace with."""
    return [nd.zeros((32, 8)), nd.zeros((32,), dtype="int32")]

"""A Block that runs imperatively: nothing of it is compiled."""

from graphc import nd
from graphc.gluon import nn


class Doubled(nn.Block):
    def forward(self, x):
        return x + x


net = Doubled()


def example_inputs():
    return nd.ones((2, 3))

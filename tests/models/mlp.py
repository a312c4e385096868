"""A small network for the tests of the command line."""

from graphc import gluon, nd, sym
from graphc.gluon import nn


class Net(nn.HybridBlock):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = nn.Dense(32, activation="relu", prefix="hidden_")
        self.output = nn.Dense(10, prefix="output_")

    def forward(self, x):
        return self.output(self.hidden(x))


net = Net(prefix="net_")
net.initialize()
loss_fn = gluon.loss.SoftmaxCrossEntropyLoss()
step = gluon.TrainStep(net, loss_fn, gluon.Trainer(net.collect_params(), "sgd"))
uninitialized = nn.Dense(3)
number = 3


def add(a, b):
    return a + b


def loss(x, label):
    return loss_fn(net(x), label)


def gelu(x):
    return x * 0.5 * (1.0 + nd.erf(x / 2.0**0.5))


gelu.example_inputs = lambda: nd.ones((4, 8))


def branches(x):
    return x if x.sum() > 0 else -x


def divides(x):
    return x / (1 / 0)


data = sym.var("data")
hidden = sym.Activation(sym.FullyConnected(data, num_hidden=32, name="fc1"), act_type="relu")
symbol = sym.FullyConnected(sym.BatchNorm(hidden, name="bn"), num_hidden=10, name="fc2")
executor = symbol.simple_bind(data=(16, 784))

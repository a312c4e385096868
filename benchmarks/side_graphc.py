"""Rows in graphc."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc
from benchmarks import functions_graphc, models
from benchmarks.record import Arrays, Row, Side
from graphc import autograd, gluon, nd


def configure(threads: int) -> None:
    """Set the number of threads."""
    graphc.configure(threads=threads)


def use_gpu() -> None:
    """Put arrays on the first GPU from now on."""
    graphc.gpu(0).__enter__()


def wait() -> None:
    """Wait until devices have done their work."""
    nd.waitall()


def array(x: np.ndarray) -> Any:
    """Return an NDArray of the same dtype; indices in the width graphc uses."""
    return nd.array(x, dtype="int32" if x.dtype == np.int64 else x.dtype)


def as_numpy(values: Any) -> Arrays:
    """Return NumPy arrays of one output or several."""
    return [v.asnumpy() for v in (values if isinstance(values, (tuple, list)) else (values,))]


def network(row: Row, data: Arrays) -> Any:
    """Return the row's network, initialized and with every shape known."""
    graphc.random.seed(1)
    net = getattr(models, row.options["model"])()
    net.initialize(graphc.init.Xavier())
    net.complete(array(data[0]))
    return net


def trained(net: Any) -> list[Any]:
    """Return the Parameters that a peer has too: running statistics start the same everywhere."""
    return [p for p in net.collect_params().values() if p.grad_req != "null"]


def weights(row: Row, data: Arrays) -> Arrays:
    """Return the values that every side starts from."""
    return [p.data().asnumpy() for p in trained(network(row, data))]


def function(row: Row, data: Arrays, _: Arrays) -> Side:
    """Prepare a function of arrays."""
    compiled = graphc.compile(getattr(functions_graphc, row.workload.name))
    arguments = [array(x) for x in data]
    precision = row.options.get("precision")
    if precision is None:
        return Side(lambda: compiled(*arguments), as_numpy)

    def run() -> Any:
        with graphc.options(matmul_precision=precision):
            return compiled(*arguments)

    return Side(run, as_numpy)


def inference(row: Row, data: Arrays, _: Arrays) -> Side:
    """Prepare a network in predict mode."""
    net = network(row, data)
    net.hybridize()
    x = array(data[0])
    return Side(lambda: net(x), as_numpy)


def gradient(row: Row, data: Arrays, _: Arrays) -> Side:
    """Prepare a network's output and its gradients, given that by the output."""
    net = network(row, data)
    net.hybridize()
    x, arriving = map(array, data)
    x.attach_grad()
    gradients = [x.grad, *(p.grad() for p in trained(net))]

    def run() -> list[Any]:
        with autograd.record():
            y = net(x)
        y.backward(arriving)
        return [y, *gradients]

    return Side(run, as_numpy)


def training(row: Row, data: Arrays, _: Arrays) -> Side:
    """Prepare a training step."""
    net = network(row, data)
    optimizer, rate = row.options["optimizer"], row.options["rate"]
    trainer = gluon.Trainer(net.collect_params(), optimizer, {"learning_rate": rate})
    step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
    x, labels = map(array, data)
    return Side(lambda: step(x, labels), lambda losses: [losses.asnumpy().mean()])


def update(row: Row, data: Arrays, _: Arrays) -> Side:
    """Prepare an optimizer's update of many tensors, gradients given."""
    half = len(data) // 2
    parameters = [gluon.Parameter(f"w{k}", shape=x.shape) for k, x in enumerate(data[:half])]
    for parameter, value, gradient in zip(parameters, data[:half], data[half:], strict=True):
        parameter.initialize()
        parameter.set_data(array(value))
        parameter.grad()[:] = array(gradient)
    trainer = gluon.Trainer(parameters, "adam", {"learning_rate": row.options["rate"]})
    first = [float(gradient[0]) for gradient in data[half:]]

    def run() -> list[Any]:
        for parameter, value in zip(parameters, first, strict=True):
            parameter.grad()[0] = value  # the trainer refuses gradients that nobody wrote
        trainer.step(1)
        return [parameters[0].data(), parameters[-1].data()]

    return Side(run, as_numpy)


KINDS = {
    "function": function,
    "inference": inference,
    "gradient": gradient,
    "training": training,
    "update": update,
}

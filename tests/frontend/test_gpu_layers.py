"""Every layer, cell, loss and optimizer on an emulated GPU: results and gradients of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from device_programs import agree, floats

import graphc
from graphc import autograd, gluon, nd, optimizer
from graphc.gluon import nn, rnn
from graphc.runtime.device import DeviceArray

pytestmark = pytest.mark.usefixtures("emulated")
DEVICES = (graphc.cpu(), graphc.gpu(0))

LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "Activation": (lambda: nn.Activation("softrelu"), (3, 4)),
    "AvgPool1D": (lambda: nn.AvgPool1D(3, 2, padding=1), (2, 3, 8)),
    "AvgPool2D": (lambda: nn.AvgPool2D(2), (2, 2, 6, 6)),
    "AvgPool3D": (lambda: nn.AvgPool3D(2), (2, 2, 4, 4, 4)),
    "BatchNorm": (nn.BatchNorm, (4, 3, 5)),
    "BatchNorm, global": (lambda: nn.BatchNorm(use_global_stats=True), (4, 3, 5)),
    "Conv1D": (lambda: nn.Conv1D(4, 3), (2, 3, 7)),
    "Conv1DTranspose": (lambda: nn.Conv1DTranspose(3, 3, strides=2), (2, 2, 5)),
    "Conv2D": (lambda: nn.Conv2D(4, 3, strides=2, padding=1), (2, 3, 7, 7)),
    "Conv2D, groups": (lambda: nn.Conv2D(4, 3, groups=2), (2, 4, 6, 6)),
    "Conv2D, depthwise": (lambda: nn.Conv2D(4, 3, groups=4, padding=1), (2, 4, 6, 6)),
    "Conv2DTranspose": (lambda: nn.Conv2DTranspose(3, 3, strides=2), (2, 2, 4, 4)),
    "Conv3D": (lambda: nn.Conv3D(3, 2), (2, 2, 4, 4, 4)),
    "Dense": (lambda: nn.Dense(3, activation="tanh"), (4, 5)),
    "Dropout": (lambda: nn.Dropout(0.4), (6, 7)),
    "Dropout, axes": (lambda: nn.Dropout(0.4, axes=(1,)), (6, 7)),
    "ELU": (nn.ELU, (3, 4)),
    "Flatten": (nn.Flatten, (3, 2, 2)),
    "GELU": (nn.GELU, (3, 4)),
    "GlobalAvgPool1D": (nn.GlobalAvgPool1D, (2, 2, 6)),
    "GlobalAvgPool2D": (nn.GlobalAvgPool2D, (2, 2, 6, 6)),
    "GlobalMaxPool1D": (nn.GlobalMaxPool1D, (2, 2, 6)),
    "GlobalMaxPool2D": (nn.GlobalMaxPool2D, (2, 2, 6, 6)),
    "GroupNorm": (lambda: nn.GroupNorm(2), (2, 4, 5)),
    "HybridLambda": (lambda: nn.HybridLambda(lambda F, x: x * F.sigmoid(x)), (3, 4)),
    "Identity": (nn.Identity, (3, 4)),
    "InstanceNorm": (nn.InstanceNorm, (2, 3, 5)),
    "Lambda": (lambda: nn.Lambda(lambda x: nd.exp(x)), (3, 4)),
    "LayerNorm": (nn.LayerNorm, (4, 6)),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.1), (3, 4)),
    "MaxPool1D": (lambda: nn.MaxPool1D(3, 2, padding=1), (2, 2, 9)),
    "MaxPool2D": (lambda: nn.MaxPool2D(3, 2, padding=1), (2, 2, 7, 7)),
    "MaxPool3D": (lambda: nn.MaxPool3D(2), (2, 2, 4, 4, 4)),
    "MultiHeadAttention": (lambda: nn.MultiHeadAttention(8, 2), (2, 5, 8)),
    "MultiHeadAttention, causal": (lambda: nn.MultiHeadAttention(8, 2, causal=True), (2, 5, 8)),
    "PReLU": (nn.PReLU, (3, 4)),
    "SELU": (nn.SELU, (3, 4)),
    "SiLU": (nn.SiLU, (3, 4)),
    "Swish": (lambda: nn.Swish(1.5), (3, 4)),
    "GRU": (lambda: rnn.GRU(4), (5, 2, 3)),
    "LSTM": (lambda: rnn.LSTM(4, num_layers=2, bidirectional=True), (5, 2, 3)),
    "RNN": (lambda: rnn.RNN(4, dropout=0.5, num_layers=2), (5, 2, 3)),
}
"""Layers of one argument: class, and what is special -> how one is made, shape of the argument."""

CELLS: dict[str, Callable[[], Any]] = {
    "BidirectionalCell": lambda: rnn.BidirectionalCell(rnn.GRUCell(3), rnn.GRUCell(3)),
    "DropoutCell": lambda: rnn.DropoutCell(0.4),
    "GRUCell": lambda: rnn.GRUCell(4),
    "LSTMCell": lambda: rnn.LSTMCell(4),
    "RNNCell": lambda: rnn.RNNCell(4),
    "ResidualCell": lambda: rnn.ResidualCell(rnn.GRUCell(3)),
    "SequentialRNNCell": lambda: sequence(rnn.LSTMCell(4), rnn.RNNCell(3)),
    "ZoneoutCell": lambda: rnn.ZoneoutCell(rnn.RNNCell(4), 0.3, 0.3),
}

LOSSES: dict[str, Callable[[], Any]] = {
    "HingeLoss": gluon.loss.HingeLoss,
    "HuberLoss": gluon.loss.HuberLoss,
    "KLDivLoss": gluon.loss.KLDivLoss,
    "L1Loss": gluon.loss.L1Loss,
    "L2Loss": gluon.loss.L2Loss,
    "SigmoidBinaryCrossEntropyLoss": gluon.loss.SigmoidBinaryCrossEntropyLoss,
    "SoftmaxCrossEntropyLoss": lambda: gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False),
    "SquaredHingeLoss": gluon.loss.SquaredHingeLoss,
    "TripletLoss": gluon.loss.TripletLoss,
}
"""Losses of scores and targets of one shape."""

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "AdaGrad": {},
    "Adam": {},
    "AdamW": {},
    "NAG": {"momentum": 0.9},
    "RMSProp": {"centered": True},
    "SGD": {"momentum": 0.9},
}

ELSEWHERE = {
    "Block", "HybridBlock", "HybridRecurrentCell", "HybridSequential", "Loss", "ModifierCell",
    "Optimizer", "RecurrentCell", "Sequential",  # bases, and containers that other tests have
    "Embedding",  # takes integers: `test_embedding`
}  # fmt: skip


def sequence(*cells: Any) -> Any:
    """Return one cell of several."""
    made = rnn.SequentialRNNCell()
    for cell in cells:
        made.add(cell)
    return made


def public(module: ModuleType, base: type) -> set[str]:
    """Return the names of a module's classes, each once: aliases are left out."""
    return {kind.__name__ for kind in vars(module).values()
            if isinstance(kind, type) and issubclass(kind, base)} - ELSEWHERE  # fmt: skip


def test_none_is_left_out() -> None:
    kinds = public(nn, gluon.Block) | public(rnn, gluon.Block)
    assert kinds == {name.split(",")[0] for name in (*LAYERS, *CELLS)}
    assert public(gluon.loss, gluon.Block) == set(LOSSES)
    assert public(optimizer, optimizer.Optimizer) == set(OPTIMIZERS)


def gradients(net: Any, run: Callable[[Any], Any], x: Any) -> dict[str, np.ndarray]:
    """Return a network's result, and the gradients of a loss of it to its input and parameters."""
    x.attach_grad()
    with autograd.record():
        out = run(x)
        loss = (out * out).sum()
    loss.backward()
    assert isinstance(out._array, DeviceArray) == (x.context != graphc.cpu())
    learned = {n: p for n, p in net.collect_params().items() if p.grad_req != "null"}
    return {"out": out.asnumpy(), "x": x.grad.asnumpy()} | {
        name: parameter.grad().asnumpy() for name, parameter in learned.items()
    }


def on_devices(find: Callable[[Any], dict[str, np.ndarray]]) -> None:
    """Check that both devices find the same."""
    found = []
    for ctx in DEVICES:
        graphc.random.seed(1)
        found.append(find(ctx))
    agree(found[1], found[0])


@pytest.mark.parametrize("hybrid", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, hybrid: bool) -> None:
    make, shape = LAYERS[name]

    def find(ctx: Any) -> dict[str, np.ndarray]:
        net = make()
        net.initialize(graphc.init.Uniform(0.5), ctx=ctx)
        if hybrid:
            net.hybridize()
        return gradients(net, net, nd.array(floats(*shape), ctx=ctx))

    on_devices(find)


@pytest.mark.parametrize("name", CELLS)
def test_cells(name: str) -> None:
    def find(ctx: Any) -> dict[str, np.ndarray]:
        cell = CELLS[name]()
        cell.initialize(graphc.init.Uniform(0.5), ctx=ctx)
        x = nd.array(floats(2, 3, 3), ctx=ctx)
        return gradients(cell, lambda x: cell.unroll(3, x, merge_outputs=True)[0], x)

    on_devices(find)


def test_embedding() -> None:
    def find(ctx: Any) -> dict[str, np.ndarray]:
        net = nn.Embedding(7, 3)
        net.initialize(ctx=ctx)
        with autograd.record():
            out = net(nd.array([[1, 6], [0, 1]], ctx=ctx)) ** 2
        out.backward()
        return {"out": out.asnumpy(), "weight": net.weight.grad().asnumpy()}

    on_devices(find)


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    def find(ctx: Any) -> dict[str, np.ndarray]:
        x, y = nd.array(floats(4, 3), ctx=ctx), nd.array(np.abs(floats(4, 3)[::-1]), ctx=ctx)
        x.attach_grad()
        loss_fn = LOSSES[name]()
        with autograd.record():
            loss = loss_fn(x, y, -y) if name == "TripletLoss" else loss_fn(x, y)
        loss.backward()
        return {"loss": loss.asnumpy(), "x": x.grad.asnumpy()}

    on_devices(find)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str) -> None:
    settings = {"learning_rate": 0.1, "wd": 0.01, **OPTIMIZERS[name]}

    def find(ctx: Any) -> dict[str, np.ndarray]:
        net = nn.Dense(3, in_units=5)
        net.initialize(ctx=ctx)
        trainer = gluon.Trainer(net.collect_params(), name.lower(), settings)
        for _ in range(3):
            with autograd.record():
                loss = (net(nd.array(floats(4, 5), ctx=ctx)) ** 2).mean()
            loss.backward()
            trainer.step(1)
        return {n: p.data().asnumpy() for n, p in net.collect_params().items()}

    on_devices(find)

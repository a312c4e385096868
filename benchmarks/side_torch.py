"""Rows in PyTorch, eager and by `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks import functions_torch, models_torch
from benchmarks.record import Arrays, Row, Side

Wrap = Callable[[Any], Any]
PRECISIONS = {None: "highest", "tf32": "high", "bfloat16": "medium"}
"""What products of matrices round factors to, by PyTorch's names."""
device = "cpu"
"""Where tensors are."""
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def configure(threads: int) -> None:
    """Set the number of threads; let compiled inference fold constants into the code."""
    torch.set_num_threads(threads)


def use_gpu() -> None:
    """Put tensors on the first GPU from now on."""
    global device
    device = "cuda"


def wait() -> None:
    """Wait until the GPU has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def tensor(x: np.ndarray) -> torch.Tensor:
    """Return a tensor of an array: on the CPU in the same memory."""
    return torch.from_numpy(x).to(device)


def eager(function: Any) -> Any:
    """Return what was given."""
    return function


def as_numpy(values: Any) -> Arrays:
    """Return NumPy arrays of one output or several."""
    values = values if isinstance(values, (tuple, list)) else (values,)
    return [v.detach().cpu().numpy() for v in values]


def network(row: Row, values: Arrays) -> torch.nn.Module:
    """Return the row's network with these parameters."""
    net = getattr(models_torch, row.options["model"])()
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(value))
    return net.to(device)


def function(wrap: Wrap, row: Row, data: Arrays, _: Arrays) -> Side:
    """Prepare a function of arrays."""
    compiled = getattr(functions_torch, row.workload.name)(wrap)
    arguments = [tensor(x) for x in data]
    precision = PRECISIONS[row.options.get("precision")]

    @torch.no_grad()
    def run() -> Any:
        torch.set_float32_matmul_precision(precision)
        return compiled(*arguments)

    return Side(run, as_numpy)


def inference(wrap: Wrap, row: Row, data: Arrays, values: Arrays) -> Side:
    """Prepare a network in evaluation mode."""
    if wrap is not eager:
        from torch._inductor import config

        config.freezing = True  # what TORCHINDUCTOR_FREEZING sets
    net = wrap(network(row, values).eval())
    x = tensor(data[0])

    @torch.no_grad()
    def run() -> Any:
        return net(x)

    return Side(run, as_numpy)


def gradient(wrap: Wrap, row: Row, data: Arrays, values: Arrays) -> Side:
    """Prepare a network's output and its gradients, given that by the output."""
    net = network(row, values)
    forward, (x, arriving) = wrap(net), map(tensor, data)
    leaves = [x.requires_grad_(), *net.parameters()]

    def run() -> list[Any]:
        y = forward(x)
        return [y, *torch.autograd.grad(y, leaves, arriving)]

    return Side(run, as_numpy)


def training(wrap: Wrap, row: Row, data: Arrays, values: Arrays) -> Side:
    """Prepare a training step."""
    return Side(trainer(wrap, row, data, network(row, values)), as_numpy)


def trainer(wrap: Wrap, row: Row, data: Arrays, net: torch.nn.Module) -> Callable[[], Any]:
    """Return what makes one training step and returns the mean loss."""
    optimizer = OPTIMIZERS[row.options["optimizer"]](net.parameters(), lr=row.options["rate"])
    criterion, forward = torch.nn.CrossEntropyLoss(), wrap(net)
    x, labels = map(tensor, data)

    def run() -> Any:
        optimizer.zero_grad()
        scores = forward(x)
        loss = criterion(scores.flatten(0, -2), labels.flatten())
        loss.backward()
        optimizer.step()
        return loss

    return run


def update(wrap: Wrap, row: Row, data: Arrays, _: Arrays) -> Side:
    """Prepare an optimizer's update of many tensors, gradients given."""
    half = len(data) // 2
    parameters = [torch.nn.Parameter(tensor(x).clone()) for x in data[:half]]
    for parameter, gradient in zip(parameters, data[half:], strict=True):
        parameter.grad = tensor(gradient)
    optimizer = torch.optim.Adam(parameters, lr=row.options["rate"], foreach=True)
    step = wrap(optimizer.step)

    def run() -> list[Any]:
        step()
        return [parameters[0], parameters[-1]]

    return Side(run, as_numpy)


BUILDERS = {
    "function": function,
    "inference": inference,
    "gradient": gradient,
    "training": training,
    "update": update,
}
KINDS = {kind: partial(builder, eager) for kind, builder in BUILDERS.items()}
COMPILED_KINDS = {kind: partial(builder, torch.compile) for kind, builder in BUILDERS.items()}

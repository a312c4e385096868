"""Rows in onnxruntime: functions and networks as PyTorch exports them. Inference only."""

from __future__ import annotations

import io
import warnings
from typing import Any

import onnxruntime
import torch

from benchmarks import functions_torch, side_torch
from benchmarks.record import Arrays, Row, Side

THREADS = [1]


def configure(threads: int) -> None:
    """Set the number of threads."""
    THREADS[0] = threads


class Function(torch.nn.Module):
    """A module that calls a function, for the exporter."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Any) -> Any:
        """Call it."""
        return self.function(*arguments)


def session(module: torch.nn.Module, data: Arrays) -> Side:
    """Prepare a module for data of these shapes."""
    file = io.BytesIO()
    arguments = tuple(map(torch.from_numpy, data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is the old one
        torch.onnx.export(module.eval(), arguments, file, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS[0]
    # Idle threads that spin would take the cores from the sides that run in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    ready = onnxruntime.InferenceSession(file.getvalue(), options)
    feeds = {node.name: x for node, x in zip(ready.get_inputs(), data)}
    return Side(lambda: ready.run(None, feeds), list)


FORWARD_ONLY = ("_gradient",)


def function(row: Row, data: Arrays, _: Arrays) -> Side | None:
    """Prepare a function of arrays; None for one with a gradient in it."""
    if row.workload.name.endswith(FORWARD_ONLY):
        return None
    return session(Function(getattr(functions_torch, row.workload.name)(side_torch.eager)), data)


def inference(row: Row, data: Arrays, values: Arrays) -> Side:
    """Prepare a network."""
    return session(side_torch.network(row, values), data[:1])


KINDS = {"function": function, "inference": inference}

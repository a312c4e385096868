"""Every kernel as PTX, assembled by NVIDIA's assembler: it fits, and nothing is spilled.

The golden tables say what kernels take on each processor, for one release of the assembler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ptxas import Resources, ptx, release, resources, summary
from record_samples import WITHOUT_CUDA, cases, draw, graph_of

import graphc
from benchmarks import models
from graphc import gluon, nd
from graphc.cli.target import trace
from graphc.codegen.cuda import PROCESSORS, cuda_target
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.loop import Kernel
from graphc.ir.ops.contraction import matmul
from graphc.ir.types import TensorType, float32
from graphc.passes.manager import compile_graph

Golden = Callable[[str, str], None]
GOLDEN_RELEASE = "13.5"
MOST_REGISTERS = 255
MOST_SHARED = {"sm_80": 163 << 10, "sm_90": 227 << 10}
"""Shared memory that a block can ask for."""


def check(found: dict[str, list[Resources]], processor: str, name: str, golden: Golden) -> None:
    """Check limits, and the table of what each row of kernels takes."""
    for row, each in found.items():
        for taken in each:
            assert taken.spill_bytes == 0, f"{row} spills on {processor}: {taken}"
            assert taken.registers <= MOST_REGISTERS, row
            assert taken.shared_bytes <= MOST_SHARED[processor], row
    if release() == GOLDEN_RELEASE:
        width = max(map(len, found))
        lines = [f"{row:{width}} {summary(each)}" for row, each in found.items()]
        golden("\n".join(lines), f"cuda/{name}_{processor}.txt")


def record_kernels(processor: str, every_dtype: bool) -> dict[str, list[Kernel]]:
    """Return the kernels of every record that has some on CUDA."""
    found: dict[str, list[Kernel]] = {}
    for case in cases(every_dtype):
        op, sample, dtype = case.values
        if op.name not in WITHOUT_CUDA:
            graph = graph_of(op, sample, draw(op, sample, dtype))
            plan = compile_graph(graph, cuda_target(processor))
            found.setdefault(op.name, []).extend(launch.kernel for launch in plan.launches)
    return {name: kernels for name, kernels in found.items() if kernels}


@pytest.mark.parametrize(
    ("processor", "every_dtype"), [("sm_80", False), ("sm_90", False), ("sm_90", True)]
)
@pytest.mark.slow
def test_records(processor: str, every_dtype: bool, golden: Golden) -> None:
    kernels = record_kernels(processor, every_dtype)
    flat = [kernel for each in kernels.values() for kernel in each]
    taken = iter(resources(flat, cuda_target(processor)))
    found = {name: [next(taken) for _ in each] for name, each in kernels.items()}
    check(found, processor, "every_dtype" if every_dtype else "records", golden)


def step_of(net: Any, data: np.ndarray, label: np.ndarray) -> Graph:
    """Return the graph of a training step with Adam."""
    net.initialize()
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-3})
    step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
    return trace(step, "step", [nd.array(data), nd.array(label)]).graph


def images(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of images and its labels."""
    return np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)


def tagger() -> gluon.nn.HybridSequential:
    """Return an LSTM with scores of classes at every step."""
    return models.sequential(models.lstm(), gluon.nn.Dense(10, flatten=False))


def sequences(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers, or tokens where there are two axes, and a label of each place."""
    if len(shape) == 2:
        return np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    return np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)


MODELS: dict[str, Callable[[], Graph]] = {
    "gpt": lambda: step_of(models.gpt(), *sequences(2, 8)),
    "lstm": lambda: step_of(tagger(), *sequences(3, 2, 256)),
    "lenet": lambda: step_of(models.lenet(), *images(2, 1, 28, 28)),
    "resnet18": lambda: step_of(models.resnet18_small(), *images(2, 3, 32, 32)),
}


@pytest.mark.parametrize("processor", ["sm_90", pytest.param("sm_80", marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", MODELS)
def test_models(model: str, processor: str, golden: Golden) -> None:
    plan = compile_graph(MODELS[model](), cuda_target(processor))
    everything = resources((launch.kernel for launch in plan.launches), cuda_target(processor))
    found: dict[str, list[Resources]] = {}
    for launch, taken in zip(plan.launches, everything, strict=True):
        found.setdefault(launch.label, []).append(taken)
    check(found, processor, model, golden)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("processor", ["sm_80", "sm_90"])
def test_tensor_cores(precision: str, processor: str) -> None:
    x, w = (placeholder(name, TensorType(float32, (symbol(name), symbol("K")))) for name in "MN")
    graph = Graph("product", (x, w), (matmul(x, w, transpose_b=True),))
    with graphc.options(matmul_precision=precision):
        target = cuda_target(processor)
        whole, parts, fold = (launch.kernel for launch in compile_graph(graph, target).launches)
    assert all("mma.sync" in ptx(kernel, target) for kernel in (whole, parts))
    for taken in resources([whole, parts, fold], target):
        assert taken.spill_bytes == 0 and taken.registers <= MOST_REGISTERS


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_processor(processor: str) -> None:
    graph = MODELS["lenet"]()
    plan = compile_graph(graph, cuda_target(processor))
    text = ptx(plan.launches[0].kernel, cuda_target(processor))
    assert f".target {processor}" in text

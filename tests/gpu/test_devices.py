"""What only a real GPU can show: records, models and memory, against the CPU's results.

pytest -m gpu tests/gpu
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_samples import WITHOUT_CUDA, cases, check_outputs, check_same, draw, graph_of

import graphc
from benchmarks import models
from graphc import autograd, gluon, nd
from graphc.frontend.build import build_program
from graphc.frontend.context import Context
from graphc.gluon import nn
from graphc.gluon.data import vision
from graphc.ir.op import OpDef, Sample
from graphc.ir.types import DType
from graphc.runtime import cuda, driver

pytestmark = pytest.mark.gpu
GPU, CPU = Context("gpu", 0), Context("cpu", 0)


@pytest.fixture(scope="module", autouse=True)
def usable() -> None:
    """Skip where cuda-core is not installed; a driver without it is no fault of graphc's."""
    reason = driver.missing()
    if reason is not None:
        pytest.skip(f"{reason[0]}. {reason[1]}")


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# -- records ---------------------------------------------------------------------------------


# A kernel in Python is compiled for the CPU; tests/frontend/test_gpu.py has the error.
RECORDS = [c for c in cases(every_dtype=False) if c.values[0].name not in WITHOUT_CUDA]


@pytest.mark.parametrize(("op", "sample", "dtype"), RECORDS)
def test_records_agree_with_the_reference(op: OpDef, sample: Sample, dtype: DType) -> None:
    operands = draw(op, sample, dtype)
    graph = graph_of(op, sample, operands)
    device = cuda.device(0)
    program = build_program(graph, GPU)
    for _ in range(2):  # by launches, then as a CUDA graph
        found = [output.get() for output in program([device.put(o) for o in operands])]
        check_outputs(op, sample, operands, graph, found)


FIRST = {case.values[0].name: case for case in reversed(RECORDS)}


@pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason='no numba-cuda: pip install "graphc[cuda-numba]"',
)
@pytest.mark.parametrize(
    "name", ["cast", "erf", "floor_divide", "matmul", "maximum", "random_bits", "round", "softmax"]
)
def test_engines_agree_bit_for_bit(name: str) -> None:
    op, sample, dtype = FIRST[name].values
    operands = draw(op, sample, dtype)
    device = cuda.device(0)
    found = []
    for engine in ("llvm", "numba"):
        with graphc.options(engine=engine):
            program = build_program(graph_of(op, sample, operands), GPU)
            found.append([o.get() for o in program([device.put(x) for x in operands])])
    for one, other in zip(*found, strict=True):
        check_same(one, other)


# -- models ----------------------------------------------------------------------------------


class GPT(nn.HybridBlock):
    """A small transformer of the kind, with causal attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 64)
        self.norm, self.attention = nn.LayerNorm(), nn.MultiHeadAttention(64, 4, causal=True)
        self.widened, self.out = nn.Dense(256, flatten=False), nn.Dense(100, flatten=False)

    def forward(self, tokens: Any) -> Any:
        x = self.embedding(tokens)
        y = self.norm(x)
        x = x + self.attention(y)
        return self.out(nd.relu(self.widened(x)))


MODELS: dict[str, tuple[Callable[[], Any], Callable[[], tuple[np.ndarray, np.ndarray]]]] = {
    "lenet": (models.lenet, lambda: (floats(32, 1, 28, 28), np.arange(32) % 10)),
    "resnet18": (models.resnet18, lambda: (floats(4, 3, 64, 64), np.arange(4))),
    "gpt": (GPT, lambda: (np.arange(4 * 16).reshape(4, 16) % 100, np.arange(64).reshape(4, 16))),
}


def losses(make: Callable[[], Any], data: tuple[np.ndarray, ...], ctx: Context) -> list[float]:
    """Return the losses of three steps of training on a device."""
    graphc.random.seed(1)
    net = make()
    net.initialize(graphc.init.Xavier(), ctx=ctx)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.05})
    step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
    x, label = (nd.array(a, ctx=ctx, dtype=a.dtype) for a in data)
    return [float(step(x, label).mean().asscalar()) for _ in range(3)]


@pytest.mark.parametrize("name", MODELS)
def test_training_steps_agree_with_the_cpu(name: str) -> None:
    make, data = MODELS[name]
    found, expected = losses(make, data(), GPU), losses(make, data(), CPU)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_gradients_agree_with_the_cpu() -> None:
    found = []
    for ctx in (GPU, CPU):
        graphc.random.seed(1)
        net = models.lenet()
        net.initialize(graphc.init.Xavier(), ctx=ctx)
        net.hybridize()
        x = nd.array(floats(8, 1, 28, 28), ctx=ctx)
        with autograd.record():
            loss = (net(x) ** 2).mean()
        loss.backward()
        found.append([p.grad().asnumpy() for p in net.collect_params().values()])
    for far, here in zip(*found, strict=True):
        np.testing.assert_allclose(far, here, rtol=1e-3, atol=1e-5)


def test_lenet_learns_digits(tmp_path: Path) -> None:
    to_tensor = vision.transforms.ToTensor()
    train, test = (vision.MNISTSample(s).transform_first(to_tensor) for s in ("train", "test"))
    net = models.lenet()
    net.initialize(graphc.init.Xavier(), ctx=GPU)
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-3})
    step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
    for _ in range(3):
        for x, label in gluon.data.DataLoader(train, 100, shuffle=True, ctx=GPU):
            step(x, label)
    right = total = 0
    net.hybridize()
    for x, label in gluon.data.DataLoader(test, 100, ctx=GPU):
        right += int((net(x).argmax(axis=1).asnumpy() == label.asnumpy()).sum())
        total += len(label)
    assert right / total > 0.97
    net.save_parameters(str(tmp_path / "lenet.params"))
    here = models.lenet()
    here.load_parameters(str(tmp_path / "lenet.params"), ctx=CPU)
    x = nd.array(floats(2, 1, 28, 28))
    np.testing.assert_allclose(
        net(x.as_in_context(GPU)).asnumpy(), here(x).asnumpy(), rtol=1e-3, atol=1e-4
    )


# -- memory, errors, asynchrony --------------------------------------------------------------


def test_draws_equal_those_of_the_cpu() -> None:
    found = []
    for ctx in (GPU, CPU):
        graphc.random.seed(4)
        function = graphc.compile(lambda x: x * nd.random.uniform(shape=(1000,)))
        found.append(function(nd.ones((1000,), ctx=ctx)).asnumpy())
    np.testing.assert_array_equal(*found)


def test_memory_comes_back() -> None:
    device = cuda.device(0)
    x = nd.ones((1 << 24,), ctx=GPU)
    nd.waitall()
    before = device._pool.attributes.used_mem_current
    for _ in range(20):
        x = x * 1.0
    nd.waitall()
    assert device._pool.attributes.used_mem_current <= before + 2 * x._array.nbytes


def test_more_than_there_is() -> None:
    with pytest.raises(graphc.errors.DeviceError, match=r"gpu\(0\) has no room for"):
        nd.empty((1 << 45,), ctx=GPU)


def test_labels_out_of_range_change_nothing() -> None:
    net = nn.Dense(3)
    net.initialize(ctx=GPU)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 1.0})
    step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
    x = nd.array(floats(4, 5), ctx=GPU)
    step(x, nd.array([0, 1, 2, 0], ctx=GPU))
    before = net.weight.data().asnumpy()
    for _ in range(3):
        step(x, nd.array([0, 7, 2, 0], ctx=GPU))
        with pytest.raises(IndexError, match="label 7 at position 1"):
            nd.waitall()
        np.testing.assert_array_equal(net.weight.data().asnumpy(), before)


def test_nothing_is_changed_by_what_follows_a_failure() -> None:
    x, y, wrong = nd.ones((3, 4), ctx=GPU), nd.ones((4,), ctx=GPU), nd.array([5], ctx=GPU)
    nd.take(x, wrong, mode="raise")
    y += 1
    y[:] = 7
    with pytest.raises(IndexError, match=r"5 at position 0 .*\[test_devices.py:\d+\]"):
        y.asnumpy()
    np.testing.assert_array_equal(y.asnumpy(), np.ones(4, np.float32))


def test_torch_reads_the_memory() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    x = nd.array(floats(3, 4), ctx=GPU)
    shared = torch.from_dlpack(x)
    assert shared.is_cuda and shared.data_ptr() == x._array.address
    np.testing.assert_array_equal(shared.cpu().numpy(), floats(3, 4))

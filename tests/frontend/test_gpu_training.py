"""Networks trained on emulated GPUs: the losses and parameters that the CPU gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_programs import agree, floats
from emulated_cuda import FakeCuda

import graphc
from graphc import autograd, gluon, nd
from graphc.errors import IndexRangeError, user_location
from graphc.frontend.traced import Traced
from graphc.gluon import nn

pytestmark = pytest.mark.usefixtures("emulated")
GPU = graphc.gpu(0)
LOSS = gluon.loss.SoftmaxCrossEntropyLoss()


def lenet(ctx: Any) -> nn.HybridSequential:
    graphc.random.seed(1)
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(4, kernel_size=3, padding=1, activation="relu"), nn.MaxPool2D(2, 2),
        nn.BatchNorm(), nn.Dropout(0.3),
        nn.Conv2D(8, kernel_size=3, padding=1, activation="relu"), nn.MaxPool2D(2, 2),
        nn.Dense(16, activation="relu"), nn.Dense(10),
    )  # fmt: skip
    net.initialize(graphc.init.Xavier(), ctx=ctx)
    return net


def batch(ctx: Any) -> tuple[Any, Any]:
    return nd.array(floats(6, 1, 8, 8), ctx=ctx), nd.array(np.arange(6) % 10, ctx=ctx)


def parameters(net: Any) -> dict[str, np.ndarray]:
    return {name: p.data().asnumpy() for name, p in net.collect_params().items()}


@pytest.mark.parametrize("how", ["imperative", "hybridized", "step"])
def test_lenet_learns_there_what_it_learns_here(how: str) -> None:
    results = []
    for ctx in (graphc.cpu(), GPU):
        net = lenet(ctx)
        trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
        step = gluon.TrainStep(net, LOSS, trainer)
        if how == "hybridized":
            net.hybridize()
        losses = []
        x, label = batch(ctx)
        for _ in range(3):
            if how == "step":
                loss = step(x, label)
            else:
                with autograd.record():
                    loss = LOSS(net(x), label)
                loss.backward()
                trainer.step(6)
            losses.append(loss.asnumpy())
        assert loss.context == ctx
        found = parameters(net)
        results.append((np.array(losses), net(x).asnumpy(), found))
    (losses, out, found), (far_losses, far_out, far_found) = results
    np.testing.assert_allclose(far_losses, losses, rtol=1e-4)
    np.testing.assert_allclose(far_out, out, rtol=1e-3, atol=1e-4)
    agree(far_found, found)


def test_parameters_and_states_go_to_files_and_back(tmp_path: Path) -> None:
    net = lenet(GPU)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    step = gluon.TrainStep(net, LOSS, trainer)
    step(*batch(GPU))
    net.save_parameters(str(tmp_path / "net.params"))
    trainer.save_states(str(tmp_path / "net.states"))
    here = lenet(graphc.cpu())
    here.load_parameters(str(tmp_path / "net.params"), ctx=graphc.cpu())
    agree(parameters(here), parameters(net))
    again = lenet(GPU)
    again.load_parameters(str(tmp_path / "net.params"), ctx=GPU)
    other = gluon.Trainer(again.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    other.load_states(str(tmp_path / "net.states"))
    graphc.random.seed(2)
    step(*batch(GPU))
    graphc.random.seed(2)
    gluon.TrainStep(again, LOSS, other)(*batch(GPU))
    agree(parameters(again), parameters(net))


def test_networks_leave_python_from_there(tmp_path: Path) -> None:
    found = []
    for name, ctx in (("here", graphc.cpu()), ("there", GPU)):
        graphc.random.seed(1)
        net = nn.Dense(3)
        net.initialize(ctx=ctx)
        net.hybridize()
        net(nd.ones((2, 4), ctx=ctx))
        net.export_library(tmp_path / name, weights="beside", link=False)
        weights = nd.load(tmp_path / f"{name}.safetensors").values()
        found.append({str(k): weight.asnumpy() for k, weight in enumerate(weights)})
    agree(*found)


def test_networks_move() -> None:
    net = lenet(graphc.cpu())
    x, _ = batch(graphc.cpu())
    here = net(x).asnumpy()
    net.reset_ctx(GPU)
    assert all(p.data().context == GPU for p in net.collect_params().values())
    far = net(x.as_in_context(GPU))
    assert far.context == GPU
    np.testing.assert_allclose(far.asnumpy(), here, rtol=1e-3, atol=1e-5)


def test_gradients_are_summed_without_the_host(emulated: FakeCuda) -> None:
    devices = [graphc.gpu(0), graphc.gpu(1)]
    net = nn.Dense(3, in_units=5)
    net.initialize(ctx=devices)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    for _ in range(2):
        xs = gluon.utils.split_and_load(floats(6, 5), devices)
        with autograd.record():
            losses = [(net(x) ** 2).sum() for x in xs]
        autograd.backward(losses)
        emulated.calls.clear()
        trainer.step(6)
    assert not emulated.named("sync")
    first, second = (p.asnumpy() for p in net.weight.list_data())
    np.testing.assert_array_equal(first, second)


def test_a_label_that_is_wrong_on_one_gpu_changes_no_parameter_on_any() -> None:
    devices = [graphc.gpu(0), graphc.gpu(1)]
    net = nn.Dense(3, in_units=5)
    net.initialize(ctx=devices)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    before = [p.asnumpy() for p in net.weight.list_data()]
    xs = gluon.utils.split_and_load(floats(6, 5), devices)
    labels = gluon.utils.split_and_load(np.array([0, 1, 2, 0, 7, 1], np.float32), devices)
    with autograd.record():
        losses = [LOSS(net(x), label) for x, label in zip(xs, labels, strict=True)]
    autograd.backward(losses)
    with pytest.raises(IndexRangeError, match=r"label 7 at position 1 (.|\n)*gpu\(1\) found it"):
        trainer.step(6)
    assert trainer.optimizer.num_update == 0
    for found, expected in zip(net.weight.list_data(), before, strict=True):
        np.testing.assert_array_equal(found.asnumpy(), expected)


def test_two_gpus_train_as_one_cpu() -> None:
    results = []
    for devices in ([graphc.cpu()], [graphc.gpu(0), graphc.gpu(1)]):
        graphc.random.seed(1)
        net = nn.HybridSequential()
        net.add(nn.Dense(8, activation="relu"), nn.Dense(10))
        net.initialize(graphc.init.Xavier(), ctx=devices)
        net.hybridize()
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
        for _ in range(3):
            xs = gluon.utils.split_and_load(floats(6, 5), devices)
            labels = gluon.utils.split_and_load(np.arange(6.0, dtype=np.float32), devices)
            with autograd.record():
                losses = [LOSS(net(x), label) for x, label in zip(xs, labels, strict=True)]
            autograd.backward(losses)
            trainer.step(6)
        results.append(
            {name: p.data(devices[-1]).asnumpy() for name, p in net.collect_params().items()}
        )
    agree(*results)


@pytest.mark.parametrize("how", ["imperative", "hybridized", "step"])
def test_a_label_out_of_range_is_heard_of_later_and_changes_nothing(
    how: str, emulated: FakeCuda
) -> None:
    net = lenet(GPU)
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.1})
    step = gluon.TrainStep(net, LOSS, trainer)
    if how == "hybridized":
        net.hybridize()

    def train(x: Any, label: Any) -> Any:
        if how == "step":
            return step(x, label)
        with autograd.record():
            loss = LOSS(net(x), label)
        loss.backward()
        trainer.step(6)
        return loss

    x, label = batch(GPU)
    wrong = label.copy()
    wrong[2] = 17
    train(x, label)
    train(x, label)
    before, counted = parameters(net), trainer.optimizer.num_update
    emulated.calls.clear()
    train(x, wrong)
    train(x, label)
    assert not emulated.named("sync")
    with pytest.raises(IndexRangeError, match=r"17.*\[test_gpu_training.py:\d+"):
        nd.waitall()
    changed = [name for name, found in parameters(net).items() if (found != before[name]).any()]
    # The forward pass in front of the loss was a call of its own.
    assert changed == ([] if how == "step" else ["2.running_mean", "2.running_var"])
    assert trainer.optimizer.num_update == counted == 2
    train(x, label)
    assert trainer.optimizer.num_update == 3


def test_an_error_names_the_call_and_not_where_it_was_heard_of() -> None:
    net = lenet(GPU)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    step = gluon.TrainStep(net, LOSS, trainer)
    x, label = batch(GPU)
    wrong = label.copy()
    wrong[2] = 17
    step(x, label)
    step(x, wrong)
    line = int(str(user_location()).rpartition(":")[2]) - 1
    x._array.device.stream.sync()
    with pytest.raises(IndexRangeError, match=rf"17.*\[test_gpu_training.py:{line} Softmax"):
        step(x, label)
    assert trainer.optimizer.num_update == 1


def test_gradients_are_clipped_there() -> None:
    results = []
    for ctx in (graphc.cpu(), GPU):
        x = nd.array(floats(4, 3) * 10, ctx=ctx)
        norm = gluon.utils.clip_global_norm([x], 1.0)
        results.append({"norm": np.array(norm), "x": x.asnumpy()})
    agree(*results)


def test_metrics_take_arrays_of_a_gpu() -> None:
    metric = graphc.metric.Accuracy()
    metric.update([nd.array([0, 1], ctx=GPU)], [nd.array([[1, 0], [1, 0]], ctx=GPU)])
    assert metric.get() == ("accuracy", 0.5)


def test_a_repeated_call_is_a_check_and_one_graph(
    emulated: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = nn.Dense(8, in_units=4)
    net.initialize(ctx=GPU)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"momentum": 0.9})
    step = gluon.TrainStep(net, gluon.loss.L2Loss(), trainer)
    x, y = nd.ones((6, 4), ctx=GPU), nd.zeros((6, 8), ctx=GPU)
    other = nd.ones((6, 4), ctx=GPU)
    for _ in range(3):
        loss = step(x, y)
    slow: list[Traced] = []
    run = Traced.run
    monkeypatch.setattr(Traced, "run", lambda self, *a: slow.append(self) or run(self, *a))
    for data, most in ((x, 1), (other, 3), (other, 1)):
        emulated.calls.clear()
        loss = step(data, y)  # the one before lives on: its memory is not this one's
        assert len(emulated.named("graph")) == 1
        assert not emulated.named("launch", "instantiate", "sync") and not slow
        assert len(emulated.named("update")) <= most
    seven = nd.ones((7, 4), ctx=GPU)
    found = [step(seven[k : k + 6], y) for k in (0, 1)]
    assert not slow and loss.shape == (6,)
    assert float(found[1].mean()) < float(found[0].mean()) < float(loss.mean())
    narrow, two = graphc.compile(lambda a: a * 2), nd.arange(8, ctx=GPU)
    for begin in (0, 0, 4, 1, 4, 3):  # from 1 and 3 on, vectors are not where kernels take them
        expected = 2 * np.arange(begin, begin + 3)
        np.testing.assert_array_equal(narrow(two[begin : begin + 3]).asnumpy(), expected)
    assert len(slow) == 3  # with the first call of all


def test_a_network_that_is_ready_there_is_ready_nowhere_else() -> None:
    net = nn.Dense(3, in_units=2)
    net.initialize("ones", ctx=[graphc.cpu(), GPU])
    net.hybridize()
    for _ in range(3):
        for ctx in (GPU, graphc.cpu(), GPU):
            found = net(nd.ones((2, 2), ctx=ctx))
            assert found.context == ctx
            np.testing.assert_array_equal(found.asnumpy(), np.full((2, 3), 2.0))

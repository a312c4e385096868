"""Training on several devices, as Gluon users write it; here all of them are the CPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, cpu, gluon, nd
from graphc.context import Context
from graphc.errors import (
    ArgumentError,
    AutogradError,
    DeviceError,
)
from graphc.gluon import nn
from graphc.gluon.data.vision import MNISTSample, transforms

BOTH = [cpu(0), cpu(1)]
ONE = cpu(1)


def parameter(shape: Any = (2, 3), ctx: Any = None, **options: Any) -> gluon.Parameter:
    found = gluon.Parameter("weight", shape=shape, **options)
    found.initialize(graphc.init.Normal(1.0), ctx=BOTH if ctx is None else ctx)
    return found


def values(array: Any) -> np.ndarray:
    return array.asnumpy()


# -- batches and gradients ---------------------------------------------------------------------


def test_split_and_load() -> None:
    batch = np.arange(10, dtype=np.float32).reshape(5, 2)
    with pytest.raises(ArgumentError, match="a batch of 5 cannot be split evenly into 2"):
        gluon.utils.split_and_load(batch, BOTH)
    parts = gluon.utils.split_and_load(batch, BOTH, even_split=False)
    assert [(p.shape, p.context) for p in parts] == [((2, 2), cpu(0)), ((3, 2), ONE)]
    assert np.array_equal(np.concatenate([values(p) for p in parts]), batch)
    columns = gluon.utils.split_and_load(nd.array(batch), BOTH, batch_axis=1)
    assert [(p.shape, p.context) for p in columns] == [((5, 1), cpu(0)), ((5, 1), ONE)]
    (alone,) = gluon.utils.split_and_load(batch, [ONE])
    assert alone.context is ONE and alone.shape == (5, 2)


def test_clip_global_norm_over_devices() -> None:
    arrays = [nd.array([3.0], ctx=cpu(0)), nd.array([4.0], ctx=ONE)]
    assert gluon.utils.clip_global_norm(arrays, 1.0) == 5.0
    assert np.allclose([a.asscalar() for a in arrays], [0.6, 0.8])
    assert [a.context for a in arrays] == BOTH


def test_metrics_take_lists_of_several_devices() -> None:
    metric = graphc.metric.Accuracy()
    labels = [nd.array([0, 1], ctx=c) for c in BOTH]
    outputs = [nd.array([[2, 1], [2, 1]], ctx=c) for c in BOTH]
    metric.update(labels, outputs)
    assert metric.get() == ("accuracy", 0.5)


# -- training ----------------------------------------------------------------------------------


def network() -> nn.HybridSequential:
    net = nn.HybridSequential()
    net.add(nn.Dense(16, activation="relu"), nn.Dense(4))
    return net


def trained(
    devices: Sequence[Context], hybridize: bool, optimizer: str, steps: int = 6,
    **options: Any,
) -> tuple[Any, Any, list[float]]:  # fmt: skip
    """Return a network after some steps, its Trainer, and the loss of each step."""
    graphc.random.seed(2)
    net = network()
    net.initialize(graphc.init.Xavier(), ctx=list(devices))
    net.hybridize(hybridize)
    trainer = gluon.Trainer(net.collect_params(), optimizer, {"learning_rate": 0.05}, **options)
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    generator = np.random.default_rng(0)
    curve = []
    for _ in range(steps):
        x = generator.standard_normal((12, 6)).astype(np.float32)
        y = (x[:, :4]).argmax(1)
        data = gluon.utils.split_and_load(x, devices)
        labels = gluon.utils.split_and_load(y, devices)
        with autograd.record():
            losses = [cross_entropy(net(a), b) for a, b in zip(data, labels, strict=True)]
        autograd.backward(losses)
        trainer.step(12)
        curve.append(sum(float(loss.sum().asscalar()) for loss in losses) / 12)
    return net, trainer, curve


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_devices_train_as_one(hybridize: bool, optimizer: str) -> None:
    alone, _, expected = trained([cpu()], hybridize, optimizer)
    net, _, found = trained(BOTH, hybridize, optimizer)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[-1] < found[0]
    for name, weight in net.collect_params().items():
        ours = [values(a) for a in weight.list_data()]
        assert np.array_equal(ours[0], ours[1])
        one = values(alone.collect_params()[name].data())
        np.testing.assert_allclose(ours[0], one, rtol=1e-4, atol=1e-6)


def test_three_devices_with_unequal_parts_train_as_one() -> None:
    found = {}
    for count in (1, 3):
        devices = [cpu(i) for i in range(count)]
        graphc.random.seed(2)
        net = network()
        net.initialize(ctx=devices)
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
        x = np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32)
        for _ in range(3):
            parts = gluon.utils.split_and_load(x, devices, even_split=False)
            with autograd.record():
                losses = [(net(part) ** 2).sum() for part in parts]
            for loss in losses:
                loss.backward()
            trainer.step(10)
        found[count] = {n: p.values() for n, p in net.collect_params().items()}
        copies = [p.list_data() for p in net.collect_params().values()]
        assert all(np.array_equal(values(a), values(c[0])) for c in copies for a in c)
    for name, array in found[1].items():
        np.testing.assert_allclose(found[3][name], array, rtol=1e-4, atol=1e-6)


def test_gradients_are_summed_in_the_order_of_the_devices() -> None:
    devices = [cpu(i) for i in range(3)]
    weight = parameter((50,), ctx=devices)
    own = [np.random.default_rng(i).standard_normal(50).astype(np.float32) for i in range(3)]
    for gradient, ctx in zip(own, devices, strict=True):
        with autograd.record():
            loss = (weight.data(ctx) * nd.array(gradient, ctx=ctx)).sum()
        loss.backward()
    before = weight.values().copy()
    trainer = gluon.Trainer([weight], "sgd", {"learning_rate": 1.0})
    trainer.allreduce_grads()
    total = (own[0] + own[1]) + own[2]
    assert all(np.array_equal(values(g), total) for g in weight.list_grad())
    gluon.utils.clip_global_norm([weight.grad(c) for c in devices[:1]], 1e9)
    trainer.update(1)
    assert np.array_equal(weight.values(), before - total)


def test_the_sums_of_a_training_step_are_those_of_its_parts() -> None:
    """Bit for bit: each device computes what one device does with its part of the batch."""
    x = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)

    def gradients(devices: list[Context], parts: list[np.ndarray]) -> list[dict[str, Any]]:
        graphc.random.seed(2)
        net = network()
        net.initialize(ctx=list(dict.fromkeys(devices)))
        net.hybridize()
        found = []
        for part, ctx in zip(parts, devices, strict=True):
            with autograd.record():
                loss = (net(nd.array(part, ctx=ctx)) ** 2).sum()
            loss.backward()
            grads = {n: p.grad(ctx) for n, p in net.collect_params().items()}
            found.append({n: values(g) for n, g in grads.items()})
        trainer = gluon.Trainer(net.collect_params(), "sgd")
        trainer.allreduce_grads()
        found.append({n: values(p.grad(ctx)) for n, p in net.collect_params().items()})
        return found

    halves = [x[:4], x[4:]]
    one, other, _ = gradients([cpu(), cpu()], halves)
    *_, total = gradients(BOTH, halves)
    assert all(np.array_equal(total[n], one[n] + other[n]) for n in total)


def test_a_digit_classifier_trains_on_two_devices() -> None:
    graphc.random.seed(0)
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(6, kernel_size=5, activation="relu"), nn.MaxPool2D(2, 2),
        nn.Conv2D(16, kernel_size=5, activation="relu"), nn.MaxPool2D(2, 2),
        nn.Dense(64, activation="relu"), nn.Dense(10),
    )  # fmt: skip
    net.initialize(graphc.init.Xavier(), ctx=BOTH)
    net.hybridize()
    digits = MNISTSample("train").take(2000).transform_first(transforms.ToTensor())
    batches = gluon.data.DataLoader(
        digits, batch_size=50, shuffle=True, pin_memory=True, pin_device_id=0
    )
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 2e-3})
    accuracy = graphc.metric.Accuracy()
    for _ in range(3):
        accuracy.reset()
        for image, label in batches:
            data = gluon.utils.split_and_load(image, BOTH)
            labels = gluon.utils.split_and_load(label, BOTH)
            with autograd.record():
                outputs = [net(part) for part in data]
                losses = [cross_entropy(o, y) for o, y in zip(outputs, labels, strict=True)]
            for loss in losses:
                loss.backward()
            trainer.step(image.shape[0])
            accuracy.update(labels, outputs)
    assert accuracy.get()[1] > 0.9


def test_devices_may_have_a_thread_each() -> None:
    _, _, expected = trained(BOTH, True, "sgd", steps=4)
    graphc.random.seed(2)
    net = network()
    net.initialize(graphc.init.Xavier(), ctx=BOTH)
    net.hybridize()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.05})
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    generator = np.random.default_rng(0)
    curve: list[float] = []

    def work(part: np.ndarray, label: np.ndarray, ctx: Context, sums: dict[Context, float]) -> None:
        with autograd.record():
            loss = cross_entropy(net(nd.array(part, ctx=ctx)), nd.array(label, ctx=ctx))
        loss.backward()
        sums[ctx] = float(loss.sum().asscalar())

    for _ in range(4):
        x = generator.standard_normal((12, 6)).astype(np.float32)
        y = x[:, :4].argmax(1)
        sums: dict[Context, float] = {}
        threads = [
            threading.Thread(target=work, args=(x[6 * i :][:6], y[6 * i :][:6], ctx, sums))
            for i, ctx in enumerate(BOTH)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        trainer.step(12)
        curve.append((sums[BOTH[0]] + sums[BOTH[1]]) / 12)
    assert curve == expected


def test_the_optimizers_state_is_saved_once_and_moves_along(tmp_path: Any) -> None:
    net, trainer, _ = trained(BOTH, True, "adam")
    trainer.save_states(tmp_path / "trainer.states")
    again, other, _ = trained([ONE], True, "adam", steps=1)
    other.load_states(tmp_path / "trainer.states")
    for name, weight in again.collect_params().items():
        weight.set_data(net.collect_params()[name].values())
    net.reset_ctx(ONE)
    x = nd.ones((2, 6), ctx=ONE)
    for block, its in ((net, trainer), (again, other)):
        with autograd.record():
            loss = block(x).sum()
        loss.backward()
        its.step(1)
    for name, weight in net.collect_params().items():
        assert weight.list_ctx() == [ONE]
        assert np.array_equal(weight.values(), again.collect_params()[name].values())


# -- what a Trainer refuses --------------------------------------------------------------------


def written(weight: gluon.Parameter, devices: Sequence[Context]) -> None:
    for number, ctx in enumerate(devices):
        with autograd.record():
            loss = (weight.data(ctx) * (number + 1)).sum()
        loss.backward()


def test_a_device_without_a_new_gradient_is_an_error() -> None:
    weight = parameter((2,))
    trainer = gluon.Trainer([weight], "sgd", {"learning_rate": 1.0})
    written(weight, [ONE])
    with pytest.raises(AutogradError, match=r"since the last step: weight on cpu\(0\) "):
        trainer.step(1)
    before = weight.values().copy()
    trainer.step(1, ignore_stale_grad=True)  # the sum over the devices that have one
    assert [values(a).tolist() for a in weight.list_data()] == [(before - 1).tolist()] * 2
    with pytest.raises(AutogradError, match=r"last step: weight  \["):
        trainer.step(1)


def test_update_takes_gradients_that_are_summed() -> None:
    weight = parameter((2,))
    trainer = gluon.Trainer([weight], "sgd", {"learning_rate": 1.0}, update_on_kvstore=False)
    written(weight, BOTH)
    with pytest.raises(AutogradError, match=r"of parameter weight on cpu\(0\), cpu\(1\) differ"):
        trainer.update(1)
    before = weight.values().copy()
    total = weight.grad(cpu(0)) + weight.grad(ONE).as_in_context(cpu(0))
    for gradient in weight.list_grad():
        total.copyto(gradient)
    trainer.update(1)
    assert np.array_equal(weight.values(), before - 3)


def test_parameters_of_a_trainer_are_on_the_same_devices() -> None:
    one, other = parameter((2,)), gluon.Parameter("bias", shape=(2,))
    other.initialize(ctx=ONE)
    trainer = gluon.Trainer([one, other], "sgd")
    written(one, BOTH)
    written(other, [ONE])
    with pytest.raises(DeviceError, match=r"weight is on cpu\(0\), cpu\(1\), bias on cpu\(1\)"):
        trainer.step(1)


@pytest.mark.parametrize("kvstore", [None, "local", "device", "nccl", object()])
@pytest.mark.parametrize("update_on_kvstore", [None, True, False])
def test_stores_of_mxnet_are_accepted(kvstore: Any, update_on_kvstore: Any) -> None:
    weight = parameter((2,))
    options = {"kvstore": kvstore, "update_on_kvstore": update_on_kvstore}
    trainer = gluon.Trainer([weight], "sgd", {"learning_rate": 1.0}, **options)
    before = weight.values().copy()
    written(weight, BOTH)
    trainer.step(1)
    assert np.array_equal(weight.values(), before - 3)


def test_stores_that_there_are_not() -> None:
    with pytest.raises(ArgumentError, match=r"'dist_sync' sums over several machines"):
        gluon.Trainer([parameter()], "sgd", kvstore="dist_sync")
    with pytest.raises(ArgumentError, match="no kvstore 'devise'. Did you mean 'device'"):
        gluon.Trainer([parameter()], "sgd", kvstore="devise")


def test_a_train_step_is_on_one_device() -> None:
    net = network()
    net.initialize(ctx=BOTH)
    trainer = gluon.Trainer(net.collect_params(), "sgd")
    step = gluon.TrainStep(net, gluon.loss.L2Loss(), trainer)
    x, y = nd.ones((2, 6), ctx=ONE), nd.ones((2, 4), ctx=ONE)
    with pytest.raises(ArgumentError) as caught:
        step(x, y)
    text = str(caught.value)
    assert "one program on one device, the Parameters are on cpu(0), cpu(1)" in text
    assert "trainer.step()" in text and "test_device_training.py" in text
    net.reset_ctx(ONE)
    assert [step(x, y).context for _ in range(3)] == [ONE] * 3
    with pytest.raises(DeviceError, match=r"the arguments are on cpu\(0\), .* cpu\(1\)"):
        step(x.as_in_context(cpu(0)), y.as_in_context(cpu(0)))
    with pytest.raises(DeviceError, match="two devices"):
        step(x, y.as_in_context(cpu(0)))
    assert step(x, y).context is ONE

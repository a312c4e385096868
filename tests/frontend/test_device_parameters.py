"""Parameters and Blocks on several devices; here all of them are the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, cpu, gluon, gpu, nd
from graphc.context import Context
from graphc.errors import (
    ArgumentError,
    AutogradError,
    DeferredInitializationError,
    DeviceError,
    UninitializedError,
)
from graphc.gluon import nn, rnn

BOTH = [cpu(0), cpu(1)]
ONE = cpu(1)


def parameter(shape: Any = (2, 3), ctx: Any = None, **options: Any) -> gluon.Parameter:
    found = gluon.Parameter("weight", shape=shape, **options)
    found.initialize(graphc.init.Normal(1.0), ctx=BOTH if ctx is None else ctx)
    return found


def values(array: Any) -> np.ndarray:
    return array.asnumpy()


# -- Parameter ---------------------------------------------------------------------------------


def test_a_parameter_has_an_array_on_each_device() -> None:
    weight = parameter()
    assert weight.list_ctx() == BOTH
    assert [a.context for a in weight.list_data()] == BOTH
    assert [a.context for a in weight.list_grad()] == BOTH
    for ctx in BOTH:
        assert weight.data(ctx).context is ctx is weight.grad(ctx).context
    assert weight.data() is weight.data(cpu(0))
    with ONE:
        assert weight.data() is weight.data(ONE) and weight.grad() is weight.grad(ONE)
    assert np.array_equal(values(weight.data(BOTH[0])), values(weight.data(BOTH[1])))
    weight.data(ONE)[:] = 0
    assert values(weight.data(cpu(0))).any()


def test_the_devices_change_no_initial_value() -> None:
    found = []
    for ctx in (None, ONE, BOTH):
        graphc.random.seed(5)
        weight = gluon.Parameter("weight", shape=(2, 3))
        weight.initialize(ctx=ctx)
        found.append(values(weight.list_data()[-1]))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_initialize_follows_the_current_device() -> None:
    with ONE:
        assert parameter(ctx=[]).list_ctx() == [ONE]
        net = nn.Dense(2, in_units=2)
        net.initialize()
        assert net.weight.list_ctx() == [ONE]


def test_one_device_is_the_one_that_is_meant() -> None:
    weight = parameter(ctx=ONE)
    assert weight.data().context is weight.grad().context is ONE


@pytest.mark.parametrize("read", ["data", "grad"])
def test_a_device_that_a_parameter_lacks_is_an_error(read: str) -> None:
    weight = parameter()
    with pytest.raises(DeviceError) as caught:
        getattr(weight, read)(cpu(2))
    text = str(caught.value)
    assert "parameter weight has no array on cpu(2), it is on cpu(0), cpu(1)" in text
    assert "initialize(ctx=[...])" in text and "test_device_parameters.py" in text
    with pytest.raises(DeviceError, match=r"no array on gpu\(0\), it is on cpu\(0\)"):
        getattr(weight, read)(gpu(0))
    with cpu(3), pytest.raises(DeviceError, match=r"no array on cpu\(3\)"):
        getattr(weight, read)()


def test_a_device_named_twice_is_an_error() -> None:
    with pytest.raises(ArgumentError, match=r"one array on a device, got cpu\(1\), cpu\(1\)"):
        parameter(ctx=[ONE, ONE])
    with pytest.raises(DeviceError, match=r"gpu\(1\) cannot be used"):
        parameter(ctx=[cpu(0), gpu(1)])


def test_set_data_and_zero_grad_reach_each_device() -> None:
    weight = parameter((2,))
    weight.set_data(nd.array([1.0, 2.0], ctx=ONE))
    assert [values(a).tolist() for a in weight.list_data()] == [[1, 2], [1, 2]]
    for array in weight.list_data():
        with autograd.record():
            loss = (array * array).sum()
        loss.backward()
    assert [values(g).tolist() for g in weight.list_grad()] == [[2, 4], [2, 4]]
    weight.zero_grad()
    assert not any(values(g).any() for g in weight.list_grad())
    weight.cast("float64")
    assert [(a.dtype, a.context) for a in weight.list_data()] == [(np.float64, c) for c in BOTH]
    weight.grad_req = "null"
    with pytest.raises(AutogradError, match="grad_req is 'null'"):
        weight.list_grad()
    assert weight.var().name == "weight"


def test_reset_ctx_moves_values() -> None:
    weight = parameter((2,), ctx=cpu(0))
    before = values(weight.data())
    weight.reset_ctx(ONE)
    assert weight.list_ctx() == [ONE] and np.array_equal(values(weight.data()), before)
    weight.reset_ctx([cpu(2), cpu(3)])
    assert weight.list_ctx() == [cpu(2), cpu(3)]
    weight.data(cpu(3))[:] = before + 2  # those that differ are averaged
    weight.reset_ctx(cpu(0))
    assert np.allclose(values(weight.data()), before + 1)
    with pytest.raises(UninitializedError):
        gluon.Parameter("weight", shape=(2,)).reset_ctx(ONE)


def test_deferred_initialization_remembers_devices() -> None:
    net = nn.Dense(3)
    net.initialize(ctx=BOTH)
    assert net.weight.list_ctx() == BOTH
    with pytest.raises(DeferredInitializationError):
        net.weight.list_data()
    net(nd.ones((2, 5), ctx=ONE))
    assert [a.shape for a in net.weight.list_data()] == [(3, 5)] * 2
    other = nn.Dense(3)
    other.initialize()
    other.reset_ctx(ONE)
    assert other(nd.ones((2, 5), ctx=ONE)).context is ONE


# -- Blocks ------------------------------------------------------------------------------------


class Plain(gluon.HybridBlock):
    """Reads Parameters itself, and makes arrays on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = self.params.get("weight", shape=(3,), init="normal")
        self.shift = self.params.get_constant("shift", nd.array([1.0, 2.0, 3.0]))

    def forward(self, x: Any) -> Any:
        made = nd.ones((3,), ctx=x.context) + nd.ones(3)
        return x * self.weight.data() + self.shift.data() + made


class Hybrid(gluon.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        self.weight = self.params.get("weight", shape=(3,), init="normal")

    def hybrid_forward(self, F: Any, x: Any, weight: Any) -> Any:
        return F.broadcast_mul(x, weight)


def norms() -> nn.HybridSequential:
    net = nn.HybridSequential()
    net.add(nn.Dense(4), nn.BatchNorm(), nn.LayerNorm(), nn.PReLU(), nn.Dropout(0.5))
    return net


BLOCKS: dict[str, Any] = {
    "own forward": Plain,
    "hybrid_forward": Hybrid,
    "layers": norms,
    "LSTM": lambda: rnn.LSTM(4, layout="NTC"),
    "GRU with cells": lambda: rnn.GRUCell(4),
}


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_a_block_uses_the_parameters_of_its_inputs_device(make: Any, hybridize: bool) -> None:
    net = make()
    net.initialize(ctx=BOTH)
    net.hybridize(hybridize)
    cell, recurrent = isinstance(net, rnn.GRUCell), isinstance(net, rnn.LSTM)
    x = np.random.default_rng(0).standard_normal((2, 5, 3) if recurrent else (2, 3))
    found = []
    for ctx in (*BOTH, *BOTH):
        batch = nd.array(x, ctx=ctx)
        states = [net.begin_state(2, ctx=ctx)] if cell else []
        result = net(batch, *states)
        result = result[0] if cell else result
        assert result.context is ctx
        found.append(values(result))
    assert all(np.array_equal(found[0], other) for other in found[1:])
    weight = next(iter(net.collect_params().values()))
    weight.data(ONE)[:] = 0
    assert not np.array_equal(values(net(nd.array(x, ctx=ONE), *states)[0]), found[0][0])


def test_numpy_inputs_go_to_the_parameters() -> None:
    net = nn.Dense(2, in_units=3)
    net.initialize(ctx=ONE)
    net.hybridize()
    assert net(np.ones((2, 3), np.float32)).context is ONE


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
def test_data_on_another_device_than_the_network_is_an_error(hybridize: bool) -> None:
    net = nn.Dense(2, in_units=3)
    net.initialize(ctx=ONE)
    net.hybridize(hybridize)
    with pytest.raises(DeviceError, match=r"two devices: .*cpu\(0\), .* is on cpu\(1\)") as e:
        net(nd.ones((2, 3)))
    text = str(e.value)
    for part in ("test_device_parameters", "Dense", "as_in_context(graphc.cpu(1))", "reset_ctx()"):
        assert part in text
    net.reset_ctx(BOTH)
    assert net(nd.ones((2, 3))).context is cpu(0)
    with pytest.raises(DeviceError, match=r"weight has no array on cpu\(2\), it is on cpu\(0\)"):
        net(nd.ones((2, 3), ctx=cpu(2)))
    net.reset_ctx(cpu(2))
    assert net(nd.ones((2, 3), ctx=cpu(2))).context is cpu(2)


def test_running_statistics_are_each_devices_own() -> None:
    net = nn.BatchNorm(in_channels=3, momentum=0.5)
    net.initialize(ctx=BOTH)
    data = np.random.default_rng(1).standard_normal((2, 8, 3)).astype(np.float32)
    with autograd.record():
        for part, ctx in zip(data, BOTH, strict=True):
            net(nd.array(part, ctx=ctx))
    means = [values(a) for a in net.running_mean.list_data()]
    for mean, part in zip(means, data, strict=True):
        assert np.allclose(mean, part.mean(0) / 2, atol=1e-6)
    assert np.allclose(net.running_mean.values(), (means[0] + means[1]) / 2)


def test_dropout_draws_other_masks_on_each_device() -> None:
    def masks() -> list[np.ndarray]:
        graphc.random.seed(4)
        return [values(nd.Dropout(nd.ones((64,), ctx=c), p=0.5, mode="always")) for c in BOTH]

    first, again = masks(), masks()
    assert not np.array_equal(first[0], first[1])
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


# -- files -------------------------------------------------------------------------------------


def test_files_have_each_parameter_once(tmp_path: Any) -> None:
    net = norms()
    net.initialize(ctx=BOTH)
    for number, ctx in enumerate(BOTH):
        with autograd.record():
            net(nd.full((4, 3), number + 1.0, ctx=ctx) * nd.arange(3, ctx=ctx))
    net.save_parameters(tmp_path / "net.params")
    for ctx in (None, ONE, [ONE, cpu(2)]):
        other = norms()
        other.load_parameters(tmp_path / "net.params", ctx=ctx)
        expected = [cpu(0)] if ctx is None else [ctx] if isinstance(ctx, Context) else ctx
        for name, weight in other.collect_params().items():
            assert weight.list_ctx() == expected
            stored = net.collect_params()[name].values()
            assert all(np.array_equal(values(a), stored) for a in weight.list_data())
    net.load_parameters(tmp_path / "net.params", ctx=ONE)
    assert net.collect_params().list_ctx() == [ONE]
    waiting = norms()
    waiting.initialize(ctx=BOTH)
    waiting.load_parameters(tmp_path / "net.params")
    assert waiting.collect_params().list_ctx() == BOTH
    waiting.collect_params().save(tmp_path / "dict.params")
    waiting.collect_params().load(tmp_path / "dict.params", ctx=cpu(2))
    assert waiting.collect_params().list_ctx() == [cpu(2)]

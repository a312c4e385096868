"""What depends on parameters alone is kept between calls, and never stale."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, gluon, nd
from graphc.frontend.prepared import Prepared
from graphc.gluon import nn


def network() -> Any:
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, padding=1, in_channels=2), nn.BatchNorm(in_channels=4))
    net.add(nn.Activation("relu"), nn.Dense(3, in_units=4 * 25))
    net.initialize(graphc.init.Xavier())
    return net


def images() -> nd.NDArray:
    return nd.array(np.random.default_rng(1).standard_normal((3, 2, 5, 5)).astype(np.float32))


def prepared(net: Any) -> Prepared:
    program = net._program().traces[-1].compiled.program
    assert isinstance(program, Prepared)
    return program


def imperatively(net: Any, x: nd.NDArray) -> np.ndarray:
    """Return what the Blocks compute one by one."""
    for block in net:
        x = block.forward(x)
    return x.asnumpy()


def a_trainer(net: Any) -> gluon.Trainer:
    return gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})


def trained(net: Any, x: nd.NDArray) -> None:
    with autograd.record():
        loss = (net(x) ** 2).sum()
    loss.backward()
    a_trainer(net).step(1)


def trained_at_once(net: Any, x: nd.NDArray) -> None:
    gluon.TrainStep(net, gluon.loss.L2Loss(), a_trainer(net))(x, nd.ones((3, 3)))


def loaded(net: Any, x: nd.NDArray, folder: Path) -> None:
    other = network()
    other[1].gamma.set_data(nd.full((4,), 3.0))
    other.save_parameters(folder / "other.params")
    net.load_parameters(folder / "other.params")


def by_numpy(net: Any, x: nd.NDArray) -> None:
    memory = np.asarray(net[1].gamma.data(), copy=False)
    assert np.shares_memory(memory, net[1].gamma.data()._array)
    memory[:] = 4.0


def by_dlpack(net: Any, x: nd.NDArray) -> None:
    np.from_dlpack(net[0].weight.data())  # the memory is another's too from here on
    net[0].weight.data()._array[...] = 0.25


def running(net: Any, x: nd.NDArray) -> None:
    with autograd.train_mode():
        net(x + 5.0)


WRITES: dict[str, Callable[..., Any]] = {
    "set_data": lambda net, x: net[1].gamma.set_data(nd.full((4,), 2.0)),
    "all elements": lambda net, x: net[1].beta.data().__setitem__(slice(None), 2.0),
    "one element": lambda net, x: net[0].weight.data().__setitem__((0, 1), 2.0),
    "through a view": lambda net, x: net[0].weight.data()[1].__setitem__(slice(None), 2.0),
    "through a reshaped view": lambda net, x: net[0].weight.data().reshape((-1,)).__setitem__(3, 9),
    "through a detached handle": lambda net, x: net[1].gamma.data().detach().__iadd__(1.0),
    "in place": lambda net, x: net[1].gamma.data().__imul__(3.0),
    "out=": lambda net, x: nd.exp(nd.ones((4,)), out=net[1].running_mean.data()),
    "copyto": lambda net, x: nd.full((4,), 7.0).copyto(net[1].running_var.data()),
    "initialize": lambda net, x: net.initialize(graphc.init.One(), force_reinit=True),
    "trainer": trained,
    "TrainStep": trained_at_once,
    "running statistics": running,
    "load_parameters": loaded,
    "NumPy": by_numpy,
    "DLPack": by_dlpack,
}


@pytest.mark.parametrize("name", WRITES)
def test_a_written_parameter_counts_at_the_next_call(name: str, tmp_path: Path) -> None:
    net, x = network(), images()
    net.hybridize()
    for _ in range(3):  # the third call asks only whether anything was written
        before = net(x).asnumpy()
    assert prepared(net).kept is not None
    more = (tmp_path,) if name == "load_parameters" else ()
    WRITES[name](net, x, *more)
    after, expected = net(x).asnumpy(), imperatively(net, x)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)


def test_memory_that_others_have_is_read_at_each_call() -> None:
    net, x = network(), images()
    net.hybridize()
    memory = np.asarray(net[1].beta.data(), copy=False)
    for value in (1.0, 2.0):
        memory[:] = value
        found = net(x).asnumpy()
        np.testing.assert_allclose(found, imperatively(net, x), rtol=1e-4, atol=1e-5)


def test_it_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network(), images()
    net.hybridize()
    net(x)
    program, runs = prepared(net), []
    parts = program.parts
    spied = type(parts)(
        parts.main, lambda a: runs.append(1) or parts.prepare(a), parts.given, parts.rest
    )
    monkeypatch.setattr(program, "parts", spied)
    kept = program.kept
    for _ in range(3):
        net(x)
    assert not runs
    assert program.kept is kept
    net[1].gamma.set_data(nd.full((4,), 2.0))
    for _ in range(3):
        net(x)
    assert len(runs) == 1


def test_there_is_one_copy() -> None:
    net, x = network(), images()
    net.hybridize()
    for batch in (x, x[:2], x[:1]):
        net(batch)
    old = weakref.ref(prepared(net).kept)
    net[1].gamma.set_data(nd.full((4,), 2.0))
    net(x)
    assert old() is None


def test_threads_that_call_while_another_writes() -> None:
    """Every result is that of one state of the parameter, the last ones that of the last state."""
    net, x = network(), images()
    net.hybridize()
    gamma = net[1].gamma
    expected = []
    for value in (1.0, 2.0):
        gamma.set_data(nd.full((4,), value))
        expected.append(net(x).asnumpy())
    done, wrong = threading.Event(), []

    def call() -> None:
        while not done.is_set():
            found = net(x).asnumpy()
            if min(np.abs(found - e).max() for e in expected) > 1e-4:
                wrong.append(found)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for count in range(200):
        gamma.set_data(nd.full((4,), float(count % 2 + 1)))
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    np.testing.assert_allclose(net(x).asnumpy(), expected[1], rtol=1e-5)


def test_a_compiled_function_keeps_what_it_computes_from_parameters() -> None:
    weight = gluon.Parameter("weight", shape=(4, 4))
    weight.initialize(graphc.init.One())
    f = graphc.compile(lambda x: nd.dot(x, nd.exp(weight.data())))
    x = nd.ones((2, 4))
    np.testing.assert_allclose(f(x).asnumpy(), 4 * np.e, rtol=1e-6)
    assert isinstance(f.traces[0].compiled.program, Prepared)
    weight.data()[:] = 0.0
    np.testing.assert_allclose(f(x).asnumpy(), 4.0, rtol=1e-6)


def test_explain_says_what_is_kept() -> None:
    net = network()
    net.hybridize()
    net(images())
    kept = [line for line in net.explain().splitlines() if "computed once" in line]
    assert len(kept) == 2
    assert any("multiply: f32[4, 2, 3, 3]" in line for line in kept)

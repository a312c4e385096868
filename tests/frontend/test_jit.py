"""Compiled functions as they are called: what they refer to, one in another, many shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, nd
from graphc.frontend import jit
from graphc.frontend.ndarray import NDArray
from graphc.gluon import Trainer, TrainStep, loss, nn


@pytest.mark.parametrize("size", [1, 3])
def test_an_array_that_the_code_refers_to_is_read_at_each_call(size: int) -> None:
    w = nd.zeros((size,))  # one element that equals 0 is still no argument number
    add = graphc.compile(lambda x: w + x)
    x = nd.ones((size,))
    for value in (0.0, 5.0):
        w[:] = value
        np.testing.assert_array_equal(add(x).asnumpy(), np.full(size, value + 1))
    w[:] = -1.0
    np.testing.assert_array_equal(add(x).asnumpy(), np.zeros(size))


@pytest.mark.parametrize("called_before", [False, True])
def test_a_compiled_function_in_another_is_a_part_of_it(called_before: bool) -> None:
    w, x = nd.ones((3,)), nd.zeros((3,))
    inner = graphc.compile(lambda a: a * 2)
    if called_before:
        inner(w)
    outer = graphc.compile(lambda x: x + inner(w))
    for value in (1.0, 5.0):
        w[:] = value
        np.testing.assert_array_equal(outer(x).asnumpy(), np.full(3, 2 * value))


def test_arguments_that_are_not_used_or_come_in_another_order() -> None:
    def f(a: Any, b: Any, c: Any) -> Any:
        return c - a

    compiled = graphc.compile(f)
    a, b, c = (nd.full((2,), value) for value in (1.0, 2.0, 5.0))
    for _ in range(2):
        np.testing.assert_array_equal(compiled(a, b, c).asnumpy(), [4.0, 4.0])
        np.testing.assert_array_equal(compiled(c, b, a).asnumpy(), [-4.0, -4.0])


def test_signatures_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "MOST_READY", 3)
    double = graphc.compile(lambda x: x + x)
    for size in (*range(2, 12), 2):
        np.testing.assert_array_equal(double(nd.ones((size,))).asnumpy(), np.full(size, 2.0))
        assert len(double._ready) <= 3
    assert len(double.traces) == 1


def test_indices_that_the_program_computes_itself() -> None:
    """A kernel with its own loops, the range check, reads them from memory like any others."""

    def places(x: nd.NDArray, table: nd.NDArray) -> nd.NDArray:
        return nd.Embedding(nd.arange(x.shape[0]), table, input_dim=8, output_dim=3)

    table = nd.reshape(nd.arange(24), (8, 3))
    for size in (5, 2):
        found = graphc.compile(places)(nd.zeros(size), table).asnumpy()
        np.testing.assert_array_equal(found, table.asnumpy()[:size])


def test_backward_gives_back_what_the_forward_pass_saved() -> None:
    net = nn.HybridSequential()
    net.add(nn.Dense(8, activation="tanh"), nn.Dense(4, activation="sigmoid"))
    net.initialize(graphc.init.Normal(1.0))
    net.hybridize()
    batches = [nd.array(np.random.default_rng(k).normal(size=(5, 3))) for k in range(3)]

    def gradient() -> np.ndarray:
        return net[0].weight.grad().asnumpy()

    def forward(x: Any) -> Any:
        with autograd.record():
            return net(x)

    first = forward(batches[0])
    values = first.asnumpy()
    first.backward(retain_graph=True)
    wanted = gradient()
    kept = first._entry.attrs["saved"]
    assert kept
    second = forward(batches[1])
    assert not {*map(id, kept)} & {*map(id, second._entry.attrs["saved"])}
    second.backward()
    assert second._entry.attrs["saved"] == [] and kept
    assert (first.asnumpy() == values).all()
    first.backward()
    assert (gradient() == wanted).all()
    assert kept == []
    again, larger = forward(batches[1]), forward(nd.concat(*batches, dim=0))
    again.backward()
    larger.backward()
    forward(batches[0]).backward()
    assert (gradient() == wanted).all() and (first.asnumpy() == values).all()


def test_a_ready_call_asks_what_kinds_of_arguments_it_gets() -> None:
    add = graphc.compile(lambda x, y: x + 2 * y)
    x, y = nd.array([1.0, 2.0]), nd.array([3.0, 4.0])
    for one, other in ((x, y), (x, x), (x.astype("int32"), y), (x[:1], y[:1]), (x, y)):
        for _ in range(3):
            found = add(one, other)
            np.testing.assert_array_equal(found.asnumpy(), one.asnumpy() + 2 * other.asnumpy())
    with pytest.raises(TypeError, match="argument"):
        add(x)
    rows = np.arange(12, dtype=np.float32).reshape(2, 6)
    parts = (rows[0], rows[0, ::2], rows[1, ::2], rows.T[1], rows[0, 1:4], rows[1, 1:4])
    for part in map(NDArray, parts):
        np.testing.assert_array_equal(add(part, part).asnumpy(), 3 * part.asnumpy())


def test_a_call_that_cannot_be_taken_as_it_is_draws_once() -> None:
    noisy = graphc.compile(lambda x: x + nd.random.uniform(shape=(3,)))
    rows = np.zeros((2, 6), np.float32)
    plain, strided = NDArray(rows[0, :3]), NDArray(rows[0, ::2])

    def drawn(x: Any) -> list[np.ndarray]:
        graphc.random.seed(3)
        return [noisy(one).asnumpy() for one in (plain, plain, x, plain)]

    np.testing.assert_array_equal(drawn(strided), drawn(plain))


def test_replaced_parameters_and_states_are_used(tmp_path: Any) -> None:
    def made() -> tuple[Any, Trainer, TrainStep]:
        net = nn.Dense(2, in_units=3)
        net.initialize("ones")
        trainer = Trainer(net.collect_params(), "adam", {"learning_rate": 0.1})
        return net, trainer, TrainStep(net, loss.L2Loss(), trainer)

    x, y = nd.ones((4, 3)), nd.zeros((4, 2))
    net, trainer, step = made()
    first = [step(x, y).asnumpy() for _ in range(3)]
    trainer.save_states(tmp_path / "states")
    weights = [p.data().asnumpy() for p in net.collect_params().values()]
    later = [step(x, y).asnumpy() for _ in range(3)]
    trainer.load_states(tmp_path / "states")
    for parameter, value in zip(net.collect_params().values(), weights, strict=True):
        parameter.set_data(value)
    np.testing.assert_array_equal([step(x, y).asnumpy() for _ in range(3)], later)
    net.initialize("ones", force_reinit=True)
    other, _, fresh = made()
    fresh.trainer.load_states(tmp_path / "states")
    trainer.load_states(tmp_path / "states")
    found = [step(x, y).asnumpy() for _ in range(3)]
    np.testing.assert_array_equal(found, [fresh(x, y).asnumpy() for _ in range(3)])
    assert not np.array_equal(found, first)
    net.hybridize()
    for value in ("zeros", "ones", "zeros"):
        net.initialize(value, force_reinit=True)
        expected = 3.0 if value == "ones" else 0.0
        for _ in range(2):
            np.testing.assert_array_equal(net(x).asnumpy(), np.full((4, 2), expected))

"""One network trained imperatively, hybridized and by TrainStep: the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, gluon, lr_scheduler, nd
from graphc.errors import ArgumentError, AutogradError, IndexRangeError
from graphc.gluon import nn
from graphc.passes.manager import run_graph_passes

STEPS = 8


def network() -> Any:
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(5, 3, padding=1, activation="relu"),
        nn.BatchNorm(),
        nn.MaxPool2D(2, 2),
        nn.Dropout(0.3),
        nn.Dense(12, activation="tanh"),
        nn.Dropout(0.5, axes=(0,)),
        nn.Dense(4),
    )
    net.initialize(graphc.init.Xavier())
    return net


def batches(count: int = STEPS, size: int = 6) -> Any:
    generator = np.random.default_rng(4)
    for number in range(count):
        n = size - 2 if number == count - 1 else size  # a short last batch
        x = generator.normal(size=(n, 1, 8, 8))
        yield nd.array(x), nd.array(generator.integers(0, 4, n), dtype="int32")


def trained(how: str, optimizer: str, arguments: dict[str, Any]) -> tuple[np.ndarray, Any]:
    """Return the losses, and the values of all Parameters at the end."""
    graphc.random.seed(7)
    net = network()
    if how == "hybridized":
        net.hybridize()
    loss_fn = gluon.loss.SoftmaxCrossEntropyLoss()
    schedule = lr_scheduler.FactorScheduler(step=3, factor=0.5)
    trainer = gluon.Trainer(
        net.collect_params(), optimizer, {**arguments, "lr_scheduler": schedule}
    )
    step = gluon.TrainStep(net, loss_fn, trainer)
    losses = []
    for data, label in batches():
        if how == "step":
            loss = step(data, label)
        else:
            with autograd.record():
                loss = loss_fn(net(data), label)
            loss.backward()
            trainer.step(data.shape[0])
        losses.append(loss.asnumpy())
    values = {n: p.data().asnumpy() for n, p in net.collect_params().items()}
    return np.concatenate(losses), values


@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    [
        ("sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 1e-3}),
        ("adam", {"learning_rate": 0.01}),
    ],
)
def test_three_ways_to_train_agree(optimizer: str, arguments: dict[str, Any]) -> None:
    losses, values = trained("imperative", optimizer, arguments)
    assert losses.shape == (6 * STEPS - 2,)
    for how in ("hybridized", "step"):
        others, found = trained(how, optimizer, arguments)
        np.testing.assert_allclose(others, losses, rtol=1e-4, atol=1e-5)
        for name, value in values.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-3, atol=2e-4, err_msg=name)


def test_one_program_serves_every_batch_size_and_rate() -> None:
    net = network()
    trainer = gluon.Trainer(net.collect_params(), "adam")
    step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
    sizes = []
    for data, label in batches():
        step(data, label)
        trainer.set_learning_rate(trainer.learning_rate * 0.9)
        sizes.append(graphc.stats()["kernels_compiled"] + graphc.stats()["kernels_loaded"])
    assert len(set(sizes)) == 1
    assert step.explain().count("program ") == 1


def small(grad_req: str = "write") -> tuple[Any, Any, Any]:
    net = nn.Dense(3, in_units=4)
    net.initialize()
    net.collect_params().setattr("grad_req", grad_req)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})
    return net, trainer, gluon.loss.SoftmaxCrossEntropyLoss()


X, Y = nd.ones((2, 4)), nd.array([0, 2])


def test_batch_size_divides_the_gradient() -> None:
    changes = []
    for batch_size in (None, 4):
        graphc.random.seed(0)
        net, trainer, loss = small()
        before = net.weight.data().asnumpy()
        gluon.TrainStep(net, loss, trainer)(X, Y, batch_size=batch_size)
        changes.append(net.weight.data().asnumpy() - before)
    np.testing.assert_allclose(changes[0], 2 * changes[1], rtol=1e-4)


def test_gradients_were_fused_away() -> None:
    net, trainer, loss = small()
    gluon.TrainStep(net, loss, trainer)(X, Y)
    with pytest.raises(AutogradError, match=r"fused away.*test_train_step\.py"):
        net.weight.grad()
    with autograd.record():
        value = loss(net(X), Y)
    value.backward()
    assert net.weight.grad().shape == (3, 4)


def test_grad_req_add_is_refused() -> None:
    net, trainer, loss = small("add")
    with pytest.raises(ArgumentError, match="grad_req is 'add'"):
        gluon.TrainStep(net, loss, trainer)


def test_a_wrong_label_changes_nothing() -> None:
    net, trainer, loss = small()
    step = gluon.TrainStep(net, loss, trainer)
    step(X, Y)
    before = net.weight.data().asnumpy()
    with pytest.raises(IndexRangeError, match="label 3 at position 1"):
        step(X, nd.array([0, 3]))
    np.testing.assert_array_equal(net.weight.data().asnumpy(), before)
    assert trainer.optimizer.num_update == 1


def test_unused_parameters() -> None:
    net, _, loss = small()
    other = nn.Dense(2, in_units=2)
    other.initialize()
    parameters = [*net.collect_params().values(), *other.collect_params().values()]
    trainer = gluon.Trainer(parameters, "sgd")
    with pytest.raises(AutogradError, match="does not depend on"):
        gluon.TrainStep(net, loss, trainer)(X, Y)
    before = other.weight.data().asnumpy()
    gluon.TrainStep(net, loss, trainer, ignore_stale_grad=True)(X, Y)
    np.testing.assert_array_equal(other.weight.data().asnumpy(), before)


def test_what_is_no_network_or_trainer() -> None:
    net, trainer, loss = small()
    with pytest.raises(ArgumentError, match="got a function in place of the network"):
        gluon.TrainStep(lambda x: net(x), loss, trainer)
    with pytest.raises(ArgumentError, match="got a str in place of the Trainer"):
        gluon.TrainStep(net, loss, "sgd")


def test_several_inputs_and_a_sample_weight() -> None:
    class Sum(nn.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Dense(3, in_units=4)

        def forward(self, a: Any, b: Any) -> Any:
            return self.layer(a + b)

    net = Sum()
    net.initialize()
    trainer = gluon.Trainer(net.collect_params(), "sgd")
    step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
    expected = gluon.loss.SoftmaxCrossEntropyLoss()(net(X, X), Y).asnumpy() * [1, 0.5]
    found = step((X, X), Y, nd.array([1, 0.5])).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def changed_settings(how: str) -> np.ndarray:
    """Return the weights after steps between which everything a step depends on was changed."""
    graphc.random.seed(3)
    net, _, loss = small()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    step = gluon.TrainStep(net, loss, trainer)
    changes = [
        lambda: trainer.set_learning_rate(0.7),
        lambda: setattr(trainer.optimizer, "momentum", 0.5),
        lambda: setattr(trainer.optimizer, "wd", 0.1),
        lambda: setattr(trainer.optimizer, "clip_gradient", 0.05),
        lambda: setattr(net.bias, "lr_mult", 0.25),
        lambda: setattr(net.weight, "grad_req", "null"),
        lambda: setattr(net.weight, "grad_req", "write"),
        lambda: net.weight.set_data(net.weight.data() * 2),
    ]
    for change in changes:
        change()
        if how == "step":
            step(X, Y)
            continue
        with autograd.record():
            value = loss(net(X), Y)
        value.backward()
        trainer.step(2)
    return np.concatenate([p.data().asnumpy().ravel() for p in net.collect_params().values()])


def test_whatever_is_changed_between_steps_counts_in_the_next() -> None:
    np.testing.assert_allclose(
        changed_settings("step"), changed_settings("trainer"), rtol=1e-4, atol=1e-6
    )


def test_a_setting_that_comes_back_traces_nothing() -> None:
    net, trainer, loss = small()
    step = gluon.TrainStep(net, loss, trainer)
    assert "not been compiled" in step.explain()
    for factor in (1.0, 0.5):
        net.bias.lr_mult = factor
        step(X, Y)
    before = graphc.stats()["programs_traced"]
    for factor in (1.0, 0.5, 1.0):
        net.bias.lr_mult = factor
        step(X, Y)
    assert graphc.stats()["programs_traced"] == before
    assert "factors of Parameters" in step.explain()


def test_graphs_name_the_optimizer_and_the_parameter() -> None:
    net, trainer, loss = small()
    traced, _ = gluon.TrainStep(net, loss, trainer).trace(X, Y)
    scopes = {node.where.scope for node in traced.compiled.graph.nodes if node.where}
    assert {f"SGD.{p.name}" for p in net.collect_params().values()} <= scopes


def test_states_continue_between_step_and_trainer() -> None:
    def run(kinds: str) -> np.ndarray:
        graphc.random.seed(2)
        net, _, loss = small()
        trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.1})
        step = gluon.TrainStep(net, loss, trainer)
        for kind in kinds:
            if kind == "s":
                step(X, Y)
                continue
            with autograd.record():
                value = loss(net(X), Y)
            value.backward()
            trainer.step(2)
        return net.weight.data().asnumpy()

    np.testing.assert_allclose(run("stst"), run("tttt"), rtol=1e-4, atol=1e-6)


# -- embeddings ------------------------------------------------------------------------------


class Classifier(nn.HybridBlock):
    """Two embeddings, one read at two places; ``tied`` scores by the first one."""

    def __init__(self, tied: bool = False, apart: bool = False, sparse: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 6, sparse_grad=sparse)
        self.places = nn.Embedding(9, 6)
        self.out = None if tied else nn.Dense(4)
        self.tied, self.apart = tied, apart

    def forward(self, x: Any) -> Any:
        h = nd.mean(self.words(x), axis=1) + nd.max(self.places(x % 9), axis=1)
        if self.apart:
            h = h + nd.sum(self.words(x // 2), axis=1)
        return nd.dot(h, self.words.weight.data(), transpose_b=True) if self.tied else self.out(h)


def embedded(how: str, arguments: dict[str, Any], **kind: bool) -> tuple[dict[str, Any], Any]:
    """Return the Parameters after a few steps, and the TrainStep."""
    graphc.random.seed(3)
    net = Classifier(**kind)
    net.initialize(graphc.init.Xavier())
    net.hybridize()
    loss_fn = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), arguments.pop("optimizer", "sgd"), arguments)
    step = gluon.TrainStep(net, loss_fn, trainer)
    generator = np.random.default_rng(1)
    for size in (5, 5, 3):
        x = nd.array(generator.integers(0, 50, (size, 7)), dtype="int32")
        label = nd.array(generator.integers(0, 4, size), dtype="int32")
        if how == "step":
            step(x, label)
        else:
            with autograd.record():
                loss = loss_fn(net(x), label)
            loss.backward()
            trainer.step(size)
    return {n: p.data().asnumpy() for n, p in net.collect_params().items()}, step


def updated_by_rows(step: Any) -> int:
    """Return how many tables a TrainStep updates row by row, with their states."""
    x, label = nd.zeros((4, 7), dtype="int32"), nd.zeros((4,), dtype="int32")
    graph = run_graph_passes(step.trace(x, label)[0].compiled.graph)
    launches = {id(new.node): new.node for _, new in graph.updates}
    return sum(node.attrs.get("label") == "update_rows" for node in launches.values())


@pytest.mark.parametrize(
    ("arguments", "kind", "tables"),
    [
        ({"learning_rate": 0.3}, {}, 2),
        ({"learning_rate": 0.3, "clip_gradient": 0.01}, {}, 2),
        ({"optimizer": "adagrad", "learning_rate": 0.3}, {}, 2),
        ({"learning_rate": 0.3}, {"tied": True}, 1),
        ({"learning_rate": 0.3}, {"apart": True}, 2),
        ({"learning_rate": 0.3, "wd": 0.01}, {}, 0),
        ({"learning_rate": 0.3, "momentum": 0.9}, {}, 0),
        ({"optimizer": "adam"}, {}, 0),
        ({"learning_rate": 0.3}, {"sparse": True}, 2),
        ({"learning_rate": 0.3, "momentum": 0.9, "wd": 0.01}, {"sparse": True}, 1),
        ({"optimizer": "adam", "wd": 0.01}, {"sparse": True}, 1),
        ({"optimizer": "adam"}, {"sparse": True, "tied": True}, 0),
        ({"optimizer": "adam", "lazy_update": False}, {"sparse": True}, 0),
    ],
)
def test_embeddings_are_updated_by_rows_where_that_is_the_same(
    arguments: dict[str, Any], kind: dict[str, bool], tables: int
) -> None:
    expected, _ = embedded("hybridized", dict(arguments), **kind)
    found, step = embedded("step", dict(arguments), **kind)
    assert updated_by_rows(step) == tables
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("how", ["hybridized", "step"])
@pytest.mark.parametrize("lazy", [True, False])
def test_lazy_updates_leave_rows_that_no_batch_touched(how: str, lazy: bool) -> None:
    """With momentum, decay and all; without ``lazy_update`` they decay."""
    arguments = {"optimizer": "adam", "wd": 0.1, "lazy_update": lazy}
    found, _ = embedded(how, arguments, sparse=True)
    start, _ = embedded(how, {"learning_rate": 0.0}, sparse=True)
    generator = np.random.default_rng(1)
    touched: set[int] = set()
    for size in (5, 5, 3):
        touched |= set(generator.integers(0, 50, (size, 7)).ravel().tolist())
        generator.integers(0, 4, size)
    rest = sorted(set(range(50)) - touched)
    name = next(n for n in found if found[n].shape == (50, 6))
    assert rest and (found[name][sorted(touched)] != start[name][sorted(touched)]).any()
    assert (found[name][rest] == start[name][rest]).all() == lazy


def test_weight_decay_that_is_set_later_reaches_every_row() -> None:
    _, step = embedded("step", {"learning_rate": 0.3})
    before = step.net.words.weight.data().asnumpy()
    step.trainer.optimizer.wd = 0.5
    x = nd.zeros((2, 7), dtype="int32")
    step(x, nd.zeros((2,), dtype="int32"))
    after = step.net.words.weight.data().asnumpy()
    np.testing.assert_allclose(after[1:], before[1:] * (1 - 0.3 * 0.5), rtol=1e-6)
    assert updated_by_rows(step) == 0


def test_an_index_out_of_range_changes_no_row() -> None:
    _, step = embedded("step", {"learning_rate": 0.3})
    before = step.net.words.weight.data().asnumpy()
    x = nd.array(np.full((2, 7), 50), dtype="int32")
    with pytest.raises(IndexRangeError, match="50"):
        step(x, nd.zeros((2,), dtype="int32"))
    np.testing.assert_array_equal(step.net.words.weight.data().asnumpy(), before)

"""Blocks: naming, collecting, files, hybridizing, deferred shapes, hooks."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, gluon, nd
from graphc.errors import ArgumentError, FileFormatError
from graphc.gluon import nn


class Net(nn.HybridBlock):
    """A network written with forward."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.hidden = nn.Dense(8, activation="relu")
            self.output = nn.Dense(3)

    def forward(self, x: Any) -> Any:
        return self.output(self.hidden(x))


class Scaled(nn.HybridBlock):
    """A layer written with hybrid_forward and a Parameter of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = self.params.get("factor", shape=(1,), init="ones")

    def hybrid_forward(self, F: Any, x: Any, factor: Any) -> Any:
        return F.broadcast_mul(F.relu(x), factor * 2)


def batch(n: int = 4, width: int = 5) -> Any:
    return nd.array(np.linspace(-1, 1, n * width).reshape(n, width))


def test_names_are_structural_and_prefixed() -> None:
    net = Net(prefix="net_")
    assert list(net.collect_params()) == [
        "hidden.weight", "hidden.bias", "output.weight", "output.bias",
    ]  # fmt: skip
    params = net.collect_params()
    assert params["hidden.weight"].name == "net_dense0_weight"
    assert params["net_dense1_bias"] is net.output.bias
    assert "output.bias" in params and "nothing" not in params


@pytest.mark.parametrize("select", ["output.*", "net_dense1", ".*dense1_"])
def test_collect_params_matches_either_name(select: str) -> None:
    found = Net(prefix="net_").collect_params(select)
    assert list(found) == ["output.weight", "output.bias"]


def test_shared_parameters_are_one() -> None:
    first = nn.Dense(3, in_units=3)
    second = nn.Dense(3, in_units=3, params=first.params)
    assert second.weight is first.weight
    net = nn.Sequential()
    net.add(first, second)
    assert len(net.collect_params()) == 2


def test_sequential_is_a_sequence() -> None:
    net = nn.HybridSequential()
    layers = [nn.Dense(2), nn.Dense(3), nn.Dense(4)]
    net.add(*layers)
    assert len(net) == 3 and list(net) == layers
    assert net[-1] is layers[2]
    assert [b for b in net[1:]] == layers[1:] and isinstance(net[1:], nn.HybridSequential)


def test_repr_is_a_tree() -> None:
    net = nn.Sequential()
    net.add(nn.Dense(2, in_units=3, activation="relu"), nn.Dropout(0.5))
    assert repr(net) == (
        "Sequential(\n  (0): Dense(3 -> 2, Activation(relu))\n  (1): Dropout(p = 0.5, axes=())\n)"
    )


@pytest.mark.parametrize("hybridize", [False, True])
def test_deferred_shapes_become_known_at_the_first_call(hybridize: bool) -> None:
    net = Net()
    net.initialize()
    if hybridize:
        net.hybridize()
    assert net.hidden.weight.shape == (8, 0)
    assert net(batch()).shape == (4, 3)
    assert net.hidden.weight.shape == (8, 5)


def test_order_of_deferred_initialization_does_not_matter() -> None:
    def weights(width: int) -> list[np.ndarray]:
        graphc.random.seed(3)
        net = nn.Sequential()
        net.add(nn.Dense(4, in_units=width), nn.Dense(2))
        net.initialize()
        net(batch())
        return [p.data().asnumpy() for p in net.collect_params().values()]

    for known, deferred in zip(weights(5), weights(0), strict=True):
        np.testing.assert_array_equal(known, deferred)


def test_compiled_is_what_runs_imperatively_and_one_program_serves_all_batches() -> None:
    net = nn.HybridSequential()
    net.add(Net(), Scaled())
    net.initialize()
    expected = [net(batch(n)).asnumpy() for n in (4, 7, 1)]
    net.hybridize()
    before = graphc.stats()["programs_traced"]
    for n, wanted in zip((4, 7, 1), expected, strict=True):
        np.testing.assert_allclose(net(batch(n)).asnumpy(), wanted, rtol=1e-5, atol=1e-6)
    assert graphc.stats()["programs_traced"] - before == 1
    assert "program 0" in net.explain()


@pytest.mark.parametrize("hybridize", [False, True])
def test_gradients_reach_the_parameters(hybridize: bool) -> None:
    net = Net()
    net.initialize(graphc.init.Constant(0.1))
    if hybridize:
        net.hybridize()
    x = batch()
    with autograd.record():
        loss = net(x).sum()
    loss.backward()
    # All weights are 0.1 and biases 0: hidden = relu(0.1 * sum of the row).
    hidden = np.maximum(0.1 * x.asnumpy().sum(1), 0)
    np.testing.assert_allclose(
        net.output.weight.grad().asnumpy(), np.full((3, 8), hidden.sum()), rtol=1e-5
    )
    np.testing.assert_allclose(net.output.bias.grad().asnumpy(), np.full(3, 4.0), rtol=1e-6)


def test_setting_an_attribute_drops_the_traces() -> None:
    class Power(nn.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.scale = 2.0

        def forward(self, x: Any) -> Any:
            return x * self.scale

    inner, outer = Power(), nn.HybridSequential()
    outer.add(inner)
    outer.hybridize()
    x = batch()
    np.testing.assert_array_equal(outer(x).asnumpy(), x.asnumpy() * 2)
    inner.scale = 3.0
    np.testing.assert_array_equal(outer(x).asnumpy(), x.asnumpy() * 3)


def test_replacing_a_child_is_seen() -> None:
    net = Net()
    net.initialize()
    net.hybridize()
    assert net(batch()).shape == (4, 3)
    net.output = nn.Dense(6)
    net.output.initialize()
    assert net(batch()).shape == (4, 6)
    assert net.collect_params()["output.weight"].shape == (6, 8)


def test_block_hybridizes_only_its_children() -> None:
    class Outer(nn.Block):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Net()

        def forward(self, x: Any) -> Any:
            assert isinstance(float(x.sum()), float)  # plain Python, also after hybridize
            return self.inner(x)

    net = Outer()
    net.initialize()
    expected = net(batch()).asnumpy()
    net.hybridize()
    np.testing.assert_allclose(net(batch()).asnumpy(), expected, rtol=1e-5)
    assert "program 0" in net.inner.explain()


@pytest.mark.parametrize("name", ["net.params", "net.safetensors"])
def test_parameters_survive_a_file(tmp_path: Path, name: str) -> None:
    first, second = Net(), Net()
    first.initialize()
    x = batch()
    expected = first(x).asnumpy()
    first.save_parameters(tmp_path / name)
    second.load_parameters(tmp_path / name)
    np.testing.assert_array_equal(second(x).asnumpy(), expected)


def test_loading_takes_full_names_too(tmp_path: Path) -> None:
    first, second = Net(prefix="a_"), Net(prefix="b_")
    first.initialize()
    expected = first(batch()).asnumpy()
    first.collect_params().save(tmp_path / "net.params", strip_prefix="a_")
    second.load_parameters(tmp_path / "net.params")
    np.testing.assert_array_equal(second(batch()).asnumpy(), expected)


def test_a_file_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    wide, net = nn.Dense(3, in_units=4), nn.Dense(3, in_units=5)
    for block in (wide, net):
        block.initialize()
    wide.save_parameters(tmp_path / "wide.params")
    before = net.weight.data().asnumpy()
    with pytest.raises(FileFormatError, match=r"wide\.params.*'weight'.*\(3, 4\).*\(3, 5\)"):
        net.load_parameters(tmp_path / "wide.params")
    np.testing.assert_array_equal(net.weight.data().asnumpy(), before)


def test_missing_and_extra_parameters(tmp_path: Path) -> None:
    small, net = nn.Dense(3, in_units=5, use_bias=False), nn.Dense(3, in_units=5)
    for block in (small, net):
        block.initialize()
    small.save_parameters(tmp_path / "s.params")
    net.save_parameters(tmp_path / "n.params")
    with pytest.raises(FileFormatError, match="'bias' is not in the file"):
        net.load_parameters(tmp_path / "s.params")
    net.load_parameters(tmp_path / "s.params", allow_missing=True)
    np.testing.assert_array_equal(net.weight.data().asnumpy(), small.weight.data().asnumpy())
    with pytest.raises(FileFormatError, match="'bias' is in the file but not in the network"):
        small.load_parameters(tmp_path / "n.params")
    small.load_parameters(tmp_path / "n.params", ignore_extra=True)


def test_cast_changes_computation() -> None:
    net = Net()
    net.initialize()
    net.cast("float64")
    assert net(batch().astype("float64")).dtype == np.float64


def test_apply_hooks_and_summary(capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    net.initialize()
    names: list[str] = []
    net.apply(lambda block: names.append(type(block).__name__))
    assert names == ["Activation", "Dense", "Dense", "Net"]
    seen: list[Any] = []
    handle = net.hidden.register_forward_hook(lambda b, inputs, out: seen.append(out.shape))
    net(batch())
    handle.detach()
    net(batch())
    assert seen == [(4, 8)]
    net.summary(batch())
    printed = capsys.readouterr().out
    assert "Dense" in printed and "(4, 8)" in printed
    assert f"Parameters: {5 * 8 + 8 + 8 * 3 + 3}" in printed


def test_blocks_in_a_list_are_warned_of() -> None:
    class Listed(nn.Block):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Dense(2)]

    with pytest.warns(UserWarning, match=r"Listed\.layers"):
        Listed().collect_params()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Net().collect_params()


def test_forgetting_super_init() -> None:
    class Bad(nn.Block):
        def __init__(self) -> None:
            self.layer = None

    with pytest.raises(ArgumentError, match="super"):
        Bad()


def test_a_symbol_composes_the_network() -> None:
    net = Net(prefix="net_")
    out = net(graphc.sym.var("data"))
    assert out.list_arguments() == [
        "data", "net_dense0_weight", "net_dense0_bias", "net_dense1_weight", "net_dense1_bias",
    ]  # fmt: skip
    net.initialize()
    expected = net(batch()).asnumpy()
    values = {p.name: p.data() for p in net.collect_params().values()}
    executor = out.bind(graphc.cpu(), {"data": batch(), **values})
    np.testing.assert_allclose(executor.forward()[0].asnumpy(), expected, rtol=1e-5, atol=1e-6)


def test_public_names() -> None:
    assert nn.Block is gluon.Block and nn.HybridBlock is gluon.HybridBlock


def test_a_layer_that_replaces_another_takes_its_place() -> None:
    net = Net()
    net.hidden = nn.Dense(6)
    assert list(net._children) == ["hidden", "output"]
    net.output = None
    assert list(net._children) == ["hidden"]
    scaled = Scaled()
    scaled.second = scaled.params.get("second", shape=(1,))
    scaled.factor = scaled.params.get("other", shape=(1,))
    assert list(scaled._reg_params) == ["factor", "second"]


def test_a_second_initialize_that_changes_nothing_warns_at_the_line() -> None:
    net = Net()
    net.initialize()
    net.initialize("zeros")  # Shapes are not known yet: this one counts.
    net(batch())
    before = net.hidden.weight.data().asnumpy()
    with pytest.warns(UserWarning, match="force_reinit=True") as caught:
        net.initialize("ones")
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(net.hidden.weight.data().asnumpy(), before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.initialize("ones", force_reinit=True)
        net.add_later = nn.Dense(2, in_units=2)
        net.initialize("ones")
    np.testing.assert_array_equal(net.hidden.weight.data().asnumpy(), np.ones_like(before))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_of_a_network_has_parameters_and_programs_of_its_own(copied: Any) -> None:
    net = Net()
    net.initialize()
    net.hybridize()
    expected = net(batch()).asnumpy()
    other = copied(net)
    np.testing.assert_array_equal(other(batch()).asnumpy(), expected)
    other.hidden.weight.set_data(nd.zeros((8, 5)))
    np.testing.assert_array_equal(net(batch()).asnumpy(), expected)
    assert not np.allclose(other(batch()).asnumpy(), expected)
    with other.name_scope():
        assert nn.Dense(1).name == f"{net.name}_dense2"

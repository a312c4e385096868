"""Symbols: composing, names, outputs, attributes, copies; MXNet's documented examples."""

from __future__ import annotations

import copy
import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import gluon, nd, sym
from graphc.frontend.ops.operator import OPERATORS
from graphc.gluon import nn

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "symbol.py"


@pytest.fixture(autouse=True)
def own_names():
    with sym.NameManager():
        yield


def mlp() -> sym.Symbol:
    hidden = sym.FullyConnected(sym.var("data"), num_hidden=16, name="fc1")
    hidden = sym.Activation(hidden, act_type="relu", name="relu1")
    return sym.FullyConnected(hidden, num_hidden=4, name="fc2")


def test_example_prints_the_sum(capsys):
    runpy.run_path(str(EXAMPLE))
    printed = capsys.readouterr().out
    assert printed.count("10. 10. 10.") == 4
    assert printed.startswith("[") and "NDArray 2x3 @cpu(0)" in printed


def test_forward_returns_a_list_for_keywords_and_dict():
    x = nd.ones((2, 3)) * 5
    a, b = sym.Variable("a"), sym.Variable("b")
    for executor in (
        (a + b).bind(graphc.cpu(), a=x, b=x),
        (a + b).bind(graphc.cpu(), {"a": x, "b": x}),
        (a + b).bind(graphc.cpu(), [x, x]),
    ):
        outputs = executor.forward()
        assert isinstance(outputs, list) and len(outputs) == 1
        np.testing.assert_array_equal(outputs[0].asnumpy(), np.full((2, 3), 10, "float32"))


def test_layers_make_their_variables():
    net = mlp()
    assert net.list_arguments() == ["data", "fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias"]
    assert net.list_outputs() == ["fc2_output"]
    assert net.list_auxiliary_states() == []
    assert net.name == "fc2" and repr(net) == "<Symbol fc2>"


def test_inputs_that_arguments_rule_out_are_not_made():
    x = sym.var("x")
    assert sym.FullyConnected(x, num_hidden=2, no_bias=True, name="f").list_arguments() == [
        "x", "f_weight"]  # fmt: skip
    assert sym.Deconvolution(x, kernel=(2, 2), num_filter=2, name="d").list_arguments() == [
        "x", "d_weight"]  # fmt: skip
    assert sym.LeakyReLU(x, name="l").list_arguments() == ["x"]
    assert sym.LeakyReLU(x, act_type="prelu", name="l").list_arguments() == ["x", "l_gamma"]
    assert sym.softmax(x).list_arguments() == ["x"]
    masked = sym.SequenceMask(x, use_sequence_length=True, name="m")
    assert masked.list_arguments() == ["x", "m_sequence_length"]


def test_batch_norm_has_auxiliary_states():
    net = sym.BatchNorm(sym.var("x"), name="bn")
    assert net.list_arguments() == ["x", "bn_gamma", "bn_beta"]
    assert net.list_auxiliary_states() == ["bn_moving_mean", "bn_moving_var"]
    assert net.list_inputs() == ["x", "bn_gamma", "bn_beta", "bn_moving_mean", "bn_moving_var"]


def test_automatic_names():
    a, b = sym.var("a"), sym.var("b")
    made = [
        sym.Convolution(a, kernel=(3, 3), num_filter=8), sym.Convolution(a, kernel=3, num_filter=1),
        sym.FullyConnected(a, num_hidden=2), sym.Activation(a, act_type="relu"),
        a + b, a * b, a - b, a / b, a + 1, 1 - a, a / 2, -a, a == b, a > 1,
        sym.broadcast_add(a, b), sym.Embedding(a, input_dim=3, output_dim=2),
    ]  # fmt: skip
    assert [s.name for s in made] == [
        "convolution0", "convolution1", "fullyconnected0", "activation0",
        "_plus0", "_mul0", "_minus0", "_div0", "_plusscalar0", "_rminusscalar0", "_divscalar0",
        "_mulscalar0", "_equal0", "_greaterscalar0", "broadcast_add0", "embedding0",
    ]  # fmt: skip
    assert made[0].list_outputs() == ["convolution0_output"]
    assert made[2].list_arguments() == ["a", "fullyconnected0_weight", "fullyconnected0_bias"]


def test_prefix_goes_before_every_name_but_those_of_variables():
    with sym.Prefix("left_"):
        net = sym.FullyConnected(sym.var("x"), num_hidden=2)
        named = sym.FullyConnected(sym.var("x"), num_hidden=2, name="fc")
    assert net.name == "left_fullyconnected0" and named.name == "left_fc"
    assert named.list_arguments() == ["x", "left_fc_weight", "left_fc_bias"]
    assert sym.FullyConnected(sym.var("x"), num_hidden=2).name == "fullyconnected0"


def test_internals_by_name_and_number():
    net = mlp()
    internals = net.get_internals()
    assert internals.list_outputs() == [
        "data", "fc1_weight", "fc1_bias", "fc1_output", "relu1_output", "fc2_weight", "fc2_bias",
        "fc2_output",
    ]  # fmt: skip
    assert internals["relu1_output"].list_arguments() == ["data", "fc1_weight", "fc1_bias"]
    assert internals[3].name == "fc1" and internals[-1].name == "fc2"
    assert [s.name for s in internals[3:5]] == ["fc1", "relu1"]
    assert len(internals) == internals.num_outputs == 8


def test_children():
    net = mlp()
    assert net.get_children().list_outputs() == ["relu1_output", "fc2_weight", "fc2_bias"]
    assert sym.var("x").get_children() is None


def test_group_iterates_over_its_outputs():
    a, b = sym.var("a"), sym.var("b")
    group = sym.Group([a + b, sym.Group([a * b, a])])
    assert group.list_outputs() == ["_plus0_output", "_mul0_output", "a"]
    assert [s.name for s in group] == ["_plus0", "_mul0", "a"]
    assert group.name is None and repr(group) == "<Symbol group [_plus0, _mul0, a]>"


def test_split_has_numbered_outputs():
    parts = sym.split(sym.var("x"), num_outputs=3, axis=1, name="cut")
    assert parts.list_outputs() == ["cut_output0", "cut_output1", "cut_output2"]
    x = nd.arange(6).reshape((1, 6))
    found = (parts[0] + parts["cut_output2"]).eval(graphc.cpu(), x=x)[0]
    np.testing.assert_array_equal(found.asnumpy(), [[4, 6]])


def test_inputs_have_the_names_of_their_parameters():
    x = nd.arange(6).reshape((2, 3))
    parts = sym.split_v2(sym.var("x"), [1], axis=1, name="cut")
    assert parts.list_outputs() == ["cut_output0", "cut_output1"]
    assert [p.shape for p in parts.eval(x=x)] == [(2, 1), (2, 2)]
    assert sym.moveaxis(sym.var("x"), 0, 1).eval(x=x)[0].shape == (3, 2)
    for record in OPERATORS.values():
        assert record.variadic or set(record.inputs) <= set(record.parameters), record.name


def test_a_graph_is_composed_by_a_call():
    head = sym.FullyConnected(name="fc3", num_hidden=10)
    assert head.list_arguments() == ["fc3_data", "fc3_weight", "fc3_bias"]
    net = mlp()
    joined = head(fc3_data=net, name="head")
    assert joined.list_arguments() == [*net.list_arguments(), "fc3_weight", "fc3_bias"]
    assert joined.name == "head"
    assert head.list_arguments()[0] == "fc3_data"
    assert net(sym.var("x")).list_arguments()[0] == "x"
    shared = (sym.var("a") + sym.var("b"))(a=sym.var("c"), b=sym.var("d") * 2)
    assert shared.list_arguments() == ["c", "d"]


def test_operators_and_methods_mean_what_they_mean_for_arrays():
    generator = np.random.default_rng(0)
    x = nd.array(generator.uniform(0.5, 2, (2, 3, 4)))
    y = nd.array(generator.uniform(0.5, 2, (2, 3, 4)))
    compute = [
        lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b,
        lambda a, b: a % b, lambda a, b: a**b, lambda a, b: 2 - a, lambda a, b: 2 / a,
        lambda a, b: 2**a, lambda a, b: -a, lambda a, b: abs(-a), lambda a, b: a > b,
        lambda a, b: a <= 1, lambda a, b: a == a, lambda a, b: a.sum(),
        lambda a, b: a.sum(axis=1, exclude=True), lambda a, b: a.mean(axis=(0, 2)),
        lambda a, b: a.reshape((0, -1)), lambda a, b: a.reshape((-3, 0)), lambda a, b: a.T,
        lambda a, b: a.astype("int32"), lambda a, b: a.argmax(axis=1), lambda a, b: a.flatten(),
        lambda a, b: a.slice_axis(axis=1, begin=0, end=2), lambda a, b: a.expand_dims(0),
        lambda a, b: a.clip(0.7, 1.5), lambda a, b: a.exp().log(), lambda a, b: a.detach(),
        lambda a, b: a.copy(), lambda a, b: a.norm(), lambda a, b: a.softmax(),
    ]  # fmt: skip
    a, b = sym.var("a"), sym.var("b")
    group = sym.Group([f(a, b) for f in compute])
    given = {"a": x, "b": y}
    found = group.bind(graphc.cpu(), {n: given[n] for n in group.list_arguments()}).forward()
    for f, result in zip(compute, found, strict=True):
        expected = f(x, y)
        assert result.shape == expected.shape and result.dtype == expected.dtype
        np.testing.assert_allclose(result.asnumpy(), expected.asnumpy(), rtol=2e-5)


def test_random_symbols_draw_anew_in_each_run():
    executor = sym.random.uniform(0, 1, shape=(100,)).bind(graphc.cpu())
    first, second = executor.forward()[0].asnumpy(), executor.forward()[0].asnumpy()
    assert np.any(first != second) and min(first.min(), second.min()) >= 0
    graphc.random.seed(0)
    again = executor.forward()[0].asnumpy()
    np.testing.assert_array_equal(again, first)


def test_creation_symbols():
    net = sym.zeros((2, 3)) + sym.ones((2, 3)) * sym.full((2, 3), 4) + sym.arange(0, 3)
    assert net.list_arguments() == []
    np.testing.assert_array_equal(net.eval()[0].asnumpy(), [[4, 5, 6]] * 2)


def test_attributes():
    x = sym.var("x", attr={"mood": "blue"}, shape=(2, 3), lr_mult=2.0, dtype="float64")
    assert x.attr("mood") == "blue" and x.attr("none") is None
    assert x.list_attr() == {
        "mood": "blue", "__shape__": "(2, 3)", "__lr_mult__": "2.0", "__dtype__": "float64"
    }  # fmt: skip
    net = sym.Convolution(x, kernel=(3, 3), num_filter=8, name="conv", attr={"mood": "red"})
    assert net.attr_dict()["conv"] == {"kernel": "(3, 3)", "num_filter": "8", "mood": "red"}
    net._set_attr(owner="me")
    assert net.attr("owner") == "me" and "conv_weight" not in net.attr_dict()


def test_copies_and_pickles_are_equal_and_apart():
    net = sym.BatchNorm(mlp() + 1, name="bn")
    for other in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.debug_str() == net.debug_str()
        other._set_attr(mood="blue")
    assert net.attr("mood") is None


def test_a_long_chain_can_be_pickled_and_run():
    net = x = sym.var("x")
    for _ in range(1500):
        net = net + 1
    assert pickle.loads(pickle.dumps(net)).list_outputs() == net.list_outputs()
    assert net(x=sym.var("y")).list_arguments() == ["y"] and x.name == "x"


def test_debug_str_lists_the_nodes():
    text = mlp().debug_str()
    assert text.splitlines()[:3] == ["outputs: fc2_output", "variable data", "variable fc1_weight"]
    assert "FullyConnected fc1(data, fc1_weight, fc1_bias) num_hidden=16" in text


def test_hostile_names_are_only_names():
    name = '"; import os; os._exit(1) #\n' + "x" * 10_000
    net = sym.FullyConnected(sym.var(name), num_hidden=2, name="a b\n'c'")
    executor = net.simple_bind(graphc.cpu(), **{name: (1, 3)})
    assert executor.forward()[0].shape == (1, 2)
    assert net.list_outputs() == ["a b\n'c'_output"]


def test_every_shared_operator_is_in_sym():
    named = {"FullyConnected", "Convolution", "broadcast_add", "dot", "softmax"}
    shared = {n for n, f in vars(nd).items() if getattr(f, "operator", None) is not None}
    assert named <= shared <= set(vars(sym))
    assert all(OPERATORS[getattr(sym, n).operator.name] for n in shared)
    assert all(vars(graphc.symbol)[n] is getattr(sym, n) for n in shared)


def test_layers_of_sym_compose_without_their_data():
    """Their namesakes of the shared module, which need data, must not stand in their place."""
    assert sym.FullyConnected(num_hidden=2, name="fc").list_arguments()[0] == "fc_data"


def test_a_hybrid_block_called_on_a_symbol_composes():
    net = nn.HybridSequential()
    net.add(nn.Dense(8, activation="relu", in_units=5), nn.BatchNorm(in_channels=8), nn.Dense(2))
    net.initialize()
    x = nd.random.normal(shape=(3, 5))
    expected = net(x)
    composed = net(sym.var("data"))
    names = {p.name for p in net.collect_params().values()}
    assert set(composed.list_inputs()) == names | {"data"}
    assert len(composed.list_auxiliary_states()) == 2
    arrays = {p.name: p.data() for p in net.collect_params().values()}
    found = composed.eval(graphc.cpu(), data=x, **arrays)[0]
    np.testing.assert_allclose(found.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-6)


def test_hybrid_forward_takes_symbols():
    class Scaled(gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            self.scale = self.params.get("scale", shape=(3,), init="ones")

        def hybrid_forward(self, F, x, scale):
            return F.broadcast_mul(F.relu(x), scale) + 1

    net = Scaled()
    net.initialize()
    composed = net(sym.var("x"))
    x = nd.array([[-1.0, 0.0, 2.0]])
    found = composed.eval(x=x, **{net.scale.name: net.scale.data()})[0]
    np.testing.assert_array_equal(found.asnumpy(), net(x).asnumpy())

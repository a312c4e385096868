"""Executors: forward, backward, gradients against autograd, training, reshape, states."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import autograd, gluon, nd, sym
from graphc.gluon import nn


@pytest.fixture(autouse=True)
def own_names():
    with sym.NameManager():
        yield


def sgd(executor, rate):
    for name, gradient in executor.grad_dict.items():
        if gradient is not None:
            executor.arg_dict[name][:] = executor.arg_dict[name] - rate * gradient


def parameter_requests(symbol, *data):
    return {n: "null" if n in data else "write" for n in symbol.list_arguments()}


def softmax_loss(net):
    """The mean cross entropy over a batch of 8."""
    return sym.MakeLoss(sym.softmax_cross_entropy(net, sym.var("label")) / 8.0, name="loss")


# -- what is bound -----------------------------------------------------------------------------


def test_bound_arrays_are_shared_by_reference():
    x, y = nd.ones((3,)), nd.ones((3,))
    executor = (sym.var("a") * sym.var("b")).bind(graphc.cpu(), a=x, b=y)
    assert executor.arg_dict["a"] is x and executor.arg_arrays == [x, y]
    x[:] = 7
    assert executor.forward()[0].asnumpy().tolist() == [7, 7, 7]
    executor.forward(b=np.array([1, 2, 3]))
    assert y.asnumpy().tolist() == [1, 2, 3]
    assert executor.outputs[0].asnumpy().tolist() == [7, 14, 21]


def test_outputs_by_name():
    a = sym.var("a")
    executor = sym.Group([a + 1, a * 2]).bind(graphc.cpu(), a=nd.ones((2,)))
    executor.forward()
    assert list(executor.output_dict) == ["_plusscalar0_output", "_mulscalar0_output"]
    assert executor.output_dict["_plusscalar0_output"].asnumpy().tolist() == [2, 2]


def test_an_output_may_be_a_variable_and_is_a_copy():
    a = sym.var("a")
    x = nd.ones((2,))
    found = sym.Group([a, a + 1]).bind(graphc.cpu(), a=x).forward()
    x[:] = 5
    assert found[0].asnumpy().tolist() == [1, 1] and found[1].asnumpy().tolist() == [2, 2]


def test_outputs_of_an_earlier_run_stay():
    executor = (sym.var("a") * 2).bind(graphc.cpu(), a=nd.ones((2,)))
    first = executor.forward()[0]
    executor.forward(a=nd.ones((2,)) * 4)
    assert first.asnumpy().tolist() == [2, 2]


def test_simple_bind_makes_arrays_of_zeros():
    net = sym.BatchNorm(sym.FullyConnected(sym.var("x"), num_hidden=3, name="fc"), name="bn")
    executor = net.simple_bind(graphc.cpu(), x=(2, 5), type_dict={"x": "float64"})
    shapes = {n: a.shape for n, a in executor.arg_dict.items()}
    assert shapes == {"x": (2, 5), "fc_weight": (3, 5), "fc_bias": (3,), "bn_gamma": (3,),
                      "bn_beta": (3,)}  # fmt: skip
    assert [a.shape for a in executor.grad_arrays] == list(shapes.values())
    assert all(a.dtype == np.float64 and not a.asnumpy().any() for a in executor.arg_arrays)
    assert list(executor.aux_dict) == ["bn_moving_mean", "bn_moving_var"]
    assert len(executor.aux_arrays) == 2


def test_eval_takes_states_by_name_as_well():
    net = sym.BatchNorm(sym.var("x"), name="bn", fix_gamma=False, eps=0.0)
    ones = nd.ones((2,))
    found = net.eval(
        graphc.cpu(), x=nd.array([[1.0, 2.0]]), bn_gamma=ones * 3, bn_beta=ones,
        bn_moving_mean=ones, bn_moving_var=ones * 4,
    )  # fmt: skip
    np.testing.assert_allclose(found[0].asnumpy(), [[1, 2.5]])


# -- gradients ---------------------------------------------------------------------------------


def test_backward_of_the_product_rule_with_head_gradients():
    x, y = nd.array([2.0, 3.0]), nd.array([5.0, 7.0])
    grads = {"a": nd.zeros((2,)), "b": nd.zeros((2,))}
    executor = (sym.var("a") * sym.var("b")).bind(graphc.cpu(), {"a": x, "b": y}, args_grad=grads)
    executor.forward(is_train=True)
    executor.backward()
    assert grads["a"].asnumpy().tolist() == [5, 7] and grads["b"].asnumpy().tolist() == [2, 3]
    executor.backward(nd.array([1.0, 10.0]))
    assert grads["a"].asnumpy().tolist() == [5, 70]
    assert executor.grad_dict["a"] is grads["a"]


def test_several_heads():
    a = sym.var("a")
    grad = nd.zeros((2,))
    executor = sym.Group([a * 2, a * a]).bind(graphc.cpu(), [nd.array([1.0, 3.0])], [grad])
    executor.forward(is_train=True)
    executor.backward([nd.ones((2,)), nd.array([10.0, 100.0])])
    assert grad.asnumpy().tolist() == [22, 602]
    executor.backward()
    assert grad.asnumpy().tolist() == [4, 8]


def test_one_array_for_two_arguments_has_two_gradients():
    x = nd.array([3.0])
    grads = [nd.zeros((1,)), nd.zeros((1,))]
    executor = (sym.var("a") * sym.var("b") * 2).bind(graphc.cpu(), {"a": x, "b": x}, grads)
    executor.forward(is_train=True)
    executor.backward()
    assert [float(g) for g in grads] == [6, 6]


def test_grad_requests():
    a, b, c = (sym.var(name) for name in "abc")
    x = nd.ones((1,)) * 3
    grads = {name: nd.ones((1,)) * 100 for name in "abc"}
    executor = (a * b * c).bind(
        graphc.cpu(), a=x, b=x, c=x, args_grad=grads,
        grad_req={"a": "write", "b": "add", "c": "null"},
    )  # fmt: skip
    for _ in range(2):
        executor.forward(is_train=True)
        executor.backward()
    assert [float(grads[name]) for name in "abc"] == [9, 118, 100]
    assert executor.grad_dict["c"] is None
    listed = (a * b).bind(graphc.cpu(), [x, x], [grads["a"], grads["b"]], ["null", "add"])
    assert [g is None for g in listed.grad_arrays] == [True, False]


def test_an_argument_that_the_outputs_do_not_depend_on_gets_zeros():
    a, b = sym.var("a"), sym.var("b")
    grads = [nd.ones((1,)), nd.ones((1,))]
    executor = (a + sym.BlockGrad(b)).bind(graphc.cpu(), [nd.ones((1,))] * 2, grads)
    executor.forward(is_train=True)
    executor.backward()
    assert [float(g) for g in grads] == [1, 0]


def test_gradients_are_those_of_autograd():
    generator = np.random.default_rng(0)
    arrays = {
        "x": nd.array(generator.normal(size=(4, 2, 6, 6))),
        "w": nd.array(generator.normal(size=(3, 2, 3, 3))),
        "v": nd.array(generator.normal(size=(5, 27))),
    }

    def compute(F, x, w, v):
        x = F.Convolution(x, w, kernel=(3, 3), num_filter=3, no_bias=True)
        x = F.Pooling(F.tanh(x), kernel=(2, 2), stride=(1, 1), pool_type="max")
        x = F.FullyConnected(x, v, num_hidden=5, no_bias=True)
        return F.log_softmax(x).mean(axis=0)

    net = compute(sym, *(sym.var(n) for n in arrays))
    executor = net.bind(graphc.cpu(), arrays, {n: nd.zeros(a.shape) for n, a in arrays.items()})
    found = executor.forward(is_train=True)[0]
    executor.backward()
    for array in arrays.values():
        array.attach_grad()
    with autograd.record():
        expected = compute(nd, **arrays)
    expected.backward()
    np.testing.assert_allclose(found.asnumpy(), expected.asnumpy(), rtol=1e-5)
    for name, array in arrays.items():
        gradient = executor.grad_dict[name].asnumpy()
        np.testing.assert_allclose(gradient, array.grad.asnumpy(), rtol=1e-4, atol=1e-6)


def test_user_gradients_and_record_scopes_are_left_alone():
    x = nd.ones((2,))
    x.attach_grad()
    with autograd.record():
        y = x * 3
        executor = (sym.var("a") * 2).bind(graphc.cpu(), [x], [nd.zeros((2,))])
        executor.forward(is_train=True)
        executor.backward()
        assert autograd.is_recording() and autograd.is_training()
    y.backward()
    assert x.grad.asnumpy().tolist() == [3, 3]
    assert executor.grad_dict["a"].asnumpy().tolist() == [2, 2]
    assert not autograd.is_training()


# -- training ----------------------------------------------------------------------------------


def test_mlp_trains_like_numpy():
    generator = np.random.default_rng(1)
    data = generator.normal(size=(8, 6)).astype("float32")
    label = generator.integers(0, 3, 8)
    w1, w2 = (generator.normal(size=s).astype("float32") * 0.5 for s in ((5, 6), (3, 5)))
    x = sym.FullyConnected(sym.var("data"), num_hidden=5, no_bias=True, name="fc1")
    x = sym.FullyConnected(sym.tanh(x), num_hidden=3, no_bias=True, name="fc2")
    loss = softmax_loss(x)
    executor = loss.simple_bind(
        graphc.cpu(), parameter_requests(loss, "data", "label"), data=(8, 6)
    )
    executor.copy_params_from({"fc1_weight": nd.array(w1), "fc2_weight": nd.array(w2)})
    for _ in range(10):
        hidden = np.tanh(data @ w1.T)
        scores = hidden @ w2.T
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        expected = -np.log(p[np.arange(8), label]).mean()
        p[np.arange(8), label] -= 1
        g2, gh = p.T @ hidden / 8, p @ w2 / 8
        w1, w2 = w1 - 0.5 * (gh * (1 - hidden**2)).T @ data, w2 - 0.5 * g2
        found = executor.forward(is_train=True, data=data, label=label)[0]
        executor.backward()
        sgd(executor, 0.5)
        np.testing.assert_allclose(float(found), expected, rtol=1e-4)
    np.testing.assert_allclose(executor.arg_dict["fc1_weight"].asnumpy(), w1, rtol=1e-3, atol=1e-5)


def gluon_lenet():
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(
            nn.Conv2D(4, kernel_size=3, padding=1, activation="relu"),
            nn.BatchNorm(),
            nn.MaxPool2D(2, 2),
            nn.Dense(3),
        )
    net.initialize(graphc.init.Xavier())
    return net


def test_lenet_trains_like_gluon():
    generator = np.random.default_rng(2)
    data = nd.array(generator.normal(size=(8, 1, 8, 8)))
    label = nd.array(generator.integers(0, 3, 8))
    net = gluon_lenet()
    net(data)
    loss = softmax_loss(net(sym.var("data")))
    executor = loss.simple_bind(
        graphc.cpu(), parameter_requests(loss, "data", "label"), data=data.shape
    )
    params = {p.name: p.data().copy() for p in net.collect_params().values()}
    executor.copy_params_from(
        {n: a for n, a in params.items() if n in executor.arg_dict},
        {n: a for n, a in params.items() if n in executor.aux_dict},
    )
    assert len(executor.aux_dict) == 2
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    for _ in range(5):
        with autograd.record():
            expected = gluon.loss.SoftmaxCrossEntropyLoss()(net(data), label)
        expected.backward()
        trainer.step(8)
        found = executor.forward(is_train=True, data=data, label=label)[0]
        executor.backward()
        sgd(executor, 0.1)
        np.testing.assert_allclose(float(found), float(expected.mean()), rtol=1e-4)
    for name, state in executor.aux_dict.items():
        own = next(p for p in net.collect_params().values() if p.name == name)
        np.testing.assert_allclose(state.asnumpy(), own.data().asnumpy(), rtol=1e-4, atol=1e-6)


def test_running_statistics_move_in_training_only():
    x = nd.array([[1.0], [3.0]])
    net = sym.BatchNorm(sym.var("x"), name="bn", momentum=0.9)
    states = {"bn_moving_mean": nd.zeros((1,)), "bn_moving_var": nd.ones((1,))}
    one = nd.ones((1,))
    executor = net.bind(graphc.cpu(), {"x": x, "bn_gamma": one, "bn_beta": one}, aux_states=states)
    executor.forward()
    assert float(states["bn_moving_mean"]) == 0
    executor.forward(is_train=True)
    np.testing.assert_allclose(float(states["bn_moving_mean"]), 0.2, rtol=1e-6)
    np.testing.assert_allclose(float(states["bn_moving_var"]), 1.0, rtol=1e-6)
    assert executor.aux_dict["bn_moving_mean"] is states["bn_moving_mean"]


def test_states_used_twice_move_twice():
    mean, var = sym.var("mean"), sym.var("var")
    gamma, beta = sym.var("gamma"), sym.var("beta")
    twice = [sym.BatchNorm(sym.var(n), gamma, beta, mean, var, momentum=0.5) for n in ("x", "y")]
    states = {"mean": nd.zeros((1,)), "var": nd.ones((1,))}
    one = nd.ones((1,))
    executor = sym.Group(twice).bind(
        graphc.cpu(), {"x": nd.ones((2, 1)) * 4, "y": nd.ones((2, 1)) * 8, "gamma": one,
                       "beta": one}, aux_states=states,
    )  # fmt: skip
    executor.forward(is_train=True)
    assert float(states["mean"]) == (0 * 0.5 + 4 * 0.5) * 0.5 + 8 * 0.5


def test_dropout_drops_in_training_only():
    grad = nd.zeros((1000,))
    executor = sym.Dropout(sym.var("x"), p=0.5).bind(
        graphc.cpu(), {"x": nd.ones((1000,))}, {"x": grad}
    )
    assert set(executor.forward()[0].asnumpy()) == {1}
    first = executor.forward(is_train=True)[0].asnumpy()
    second = executor.forward(is_train=True)[0].asnumpy()
    executor.backward()
    assert set(first) == {0, 2} and 400 < np.count_nonzero(first) < 600
    assert np.any(first != second)
    np.testing.assert_array_equal(grad.asnumpy(), second)


# -- sizes and copies --------------------------------------------------------------------------


def test_reshape_shares_what_keeps_its_shape_and_compiles_nothing():
    net = sym.FullyConnected(sym.var("x"), num_hidden=2, name="fc")
    executor = net.simple_bind(graphc.cpu(), x=(4, 3))
    executor.arg_dict["fc_weight"][:] = 1
    executor.forward()
    before = graphc.stats()["programs_traced"]
    smaller = executor.reshape(x=(2, 3))
    assert smaller.arg_dict["fc_weight"] is executor.arg_dict["fc_weight"]
    assert smaller.grad_dict["x"].shape == smaller.arg_dict["x"].shape == (2, 3)
    found = smaller.forward(x=np.ones((2, 3)))[0]
    assert found.asnumpy().tolist() == [[3, 3], [3, 3]]
    assert graphc.stats()["programs_traced"] == before
    wider = executor.reshape(partial_shaping=True, x=(4, 5))
    assert wider.arg_dict["fc_weight"].shape == (2, 5)


def test_binding_again_compiles_nothing():
    net = sym.var("a") * 3 + 1
    net.bind(graphc.cpu(), a=nd.ones((2, 2))).forward()
    before = graphc.stats()["programs_traced"]
    net.bind(graphc.cpu(), a=nd.ones((5, 7))).forward()
    assert graphc.stats()["programs_traced"] == before


def test_copy_params_from():
    net = sym.BatchNorm(sym.FullyConnected(sym.var("x"), num_hidden=2, name="fc"), name="bn")
    executor = net.simple_bind(graphc.cpu(), x=(1, 3))
    weight = executor.arg_dict["fc_weight"]
    executor.copy_params_from(
        {"fc_weight": nd.ones((2, 3)), "other": nd.ones((1,))},
        {"bn_moving_var": nd.ones((2,)) * 4},
        allow_extra_params=True,
    )
    assert executor.arg_dict["fc_weight"] is weight and weight.asnumpy().sum() == 6
    assert executor.aux_dict["bn_moving_var"].asnumpy().tolist() == [4, 4]


def test_explain_names_the_variables():
    executor = sym.FullyConnected(sym.var("x"), num_hidden=2, name="fc").simple_bind(x=(4, 3))
    executor.forward()
    text = executor.explain()
    assert "x: f32[B, 3]" in text and "fc_weight: f32[2, 3]" in text
    assert "FullyConnected fc" in executor.debug_str()
    assert repr(executor) == "<Executor of <Symbol fc> on cpu(0)>"

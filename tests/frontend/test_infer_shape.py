"""Shapes and types of Symbols, from those of some variables."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import sym
from graphc.errors import ArgumentError, BindError, ShapeError


@pytest.fixture(autouse=True)
def own_names():
    with sym.NameManager():
        yield


def lenet() -> sym.Symbol:
    x = sym.var("data")
    for number, filters in enumerate((20, 50), 1):
        x = sym.Convolution(x, kernel=(5, 5), num_filter=filters, name=f"conv{number}")
        x = sym.Activation(x, act_type="tanh")
        x = sym.Pooling(x, pool_type="max", kernel=(2, 2), stride=(2, 2))
    x = sym.FullyConnected(sym.Flatten(x), num_hidden=500, name="fc1")
    return sym.FullyConnected(sym.Activation(x, act_type="tanh"), num_hidden=10, name="fc2")


def test_lenet():
    arguments, outputs, states = lenet().infer_shape(data=(64, 1, 28, 28))
    assert dict(zip(lenet().list_arguments(), arguments, strict=True)) == {
        "data": (64, 1, 28, 28), "conv1_weight": (20, 1, 5, 5), "conv1_bias": (20,),
        "conv2_weight": (50, 20, 5, 5), "conv2_bias": (50,), "fc1_weight": (500, 800),
        "fc1_bias": (500,), "fc2_weight": (10, 500), "fc2_bias": (10,),
    }  # fmt: skip
    assert outputs == [(64, 10)] and states == []


@pytest.mark.parametrize(
    ("make", "data", "shapes"),
    [
        (lambda x: sym.FullyConnected(x, num_hidden=3, flatten=False), (2, 4, 5),
         [(3, 5), (3,), (2, 4, 3)]),
        (lambda x: sym.Convolution(x, kernel=3, num_filter=4, num_group=2, pad=1), (2, 6, 9),
         [(4, 3, 3), (4,), (2, 4, 9)]),
        (lambda x: sym.Deconvolution(x, kernel=(2, 2), stride=(2, 2), num_filter=5), (1, 3, 4, 4),
         [(3, 5, 2, 2), (1, 5, 8, 8)]),
        (lambda x: sym.BatchNorm(x, axis=-1), (2, 4, 7), [(7,), (7,), (7,), (7,), (2, 4, 7)]),
        (lambda x: sym.LayerNorm(x), (2, 4, 7), [(7,), (7,), (2, 4, 7)]),
        (lambda x: sym.InstanceNorm(x), (2, 4, 7), [(4,), (4,), (2, 4, 7)]),
        (lambda x: sym.Embedding(x, input_dim=9, output_dim=4), (2, 3), [(9, 4), (2, 3, 4)]),
        (lambda x: sym.LeakyReLU(x, act_type="prelu"), (2, 3, 4), [(3,), (2, 3, 4)]),
        (lambda x: sym.softmax_cross_entropy(x, sym.var("label")), (5, 3), [(5,), (1,)]),
        (lambda x: sym.sum(x, axis=1), (5, 3), [(5,)]),
        (lambda x: sym.concat(x, x, dim=0), (5, 3), [(10, 3)]),
    ],
)  # fmt: skip
def test_layers(make, data, shapes):
    arguments, outputs, states = make(sym.var("x")).infer_shape(x=data)
    found = [*arguments[1:], *states, *outputs]
    assert arguments[0] == data and found == shapes


def test_operands_of_python_operators_lend_each_other_their_shape():
    a, b, c = sym.var("a"), sym.var("b"), sym.var("c")
    assert ((a + b) * sym.relu(c)).infer_shape(a=(2, 3)) == ([(2, 3)] * 3, [(2, 3)], [])
    assert (a + b).infer_shape(b=(4,))[0] == [(4,), (4,)]
    assert sym.elemwise_mul(a, b).infer_shape(b=(4,))[0] == [(4,), (4,)]


def test_broadcasting_operands_do_not():
    a, b = sym.var("a"), sym.var("b")
    with pytest.warns(UserWarning, match="b, broadcast_add0_output do not follow"):
        assert sym.broadcast_add(a, b).infer_shape(a=(2, 3)) == (None, None, None)


def test_positional_shapes():
    a, b = sym.var("a"), sym.var("b")
    assert sym.dot(a, b).infer_shape((2, 3), (3, 4)) == ([(2, 3), (3, 4)], [(2, 4)], [])
    assert sym.dot(a, b).infer_shape((2, 3), None, b=(3, 4))[1] == [(2, 4)]


def test_nothing_known_gives_none_with_a_warning():
    net = sym.FullyConnected(sym.var("x"), num_hidden=3, name="fc")
    with pytest.warns(UserWarning, match="x, fc_weight"):
        assert net.infer_shape() == (None, None, None)


def test_partial_shapes():
    net = sym.FullyConnected(sym.var("x"), num_hidden=3, name="fc")
    assert net.infer_shape_partial() == ([(), (), ()], [()], [])
    assert net.infer_shape_partial(x=(0, 7)) == ([(0, 7), (3, 7), (3,)], [(0, 3)], [])
    assert net.infer_shape_partial(x=(5, -1)) == ([(5, 0), (3, 0), (3,)], [(5, 3)], [])


def test_a_shape_of_the_variable_counts():
    x = sym.var("x", shape=(0, 4))
    assert sym.relu(x).infer_shape_partial()[1] == [(0, 4)]
    assert sym.relu(x).infer_shape(x=(3, 0))[1] == [(3, 4)]
    with pytest.raises(ShapeError, match=r"'x' was made with shape .*4.*, it gets \(3, 5\)"):
        sym.relu(x).infer_shape(x=(3, 5))


def test_contradiction_names_node_and_argument():
    with pytest.raises(ShapeError) as caught:
        lenet().infer_shape(data=(2, 1, 28, 28), fc1_weight=(500, 799))
    text = str(caught.value)
    assert "fc1: its weight 'fc1_weight' has shape (500, 799)" in text
    assert "needs (500, 800)" in text and "test_infer_shape.py" in text


def test_operands_that_do_not_fit_are_named():
    net = sym.dot(sym.var("left"), sym.var("right"), name="product")
    with pytest.raises(ShapeError) as caught:
        net.infer_shape(left=(2, 3), right=(4, 5))
    text = str(caught.value)
    assert text.startswith("product: ") and "rhs right: f32[4, 5]" in text


def test_layer_without_the_size_of_its_weight():
    net = sym.FullyConnected(sym.var("x"), name="fc")
    with pytest.raises(ArgumentError, match="fc: FullyConnected needs num_hidden="):
        net.infer_shape(x=(2, 3))
    assert net.infer_shape(x=(2, 3), fc_weight=(4, 3), fc_bias=(4,))[1] == [(2, 4)]


def test_data_with_too_few_axes():
    net = sym.Convolution(sym.var("x"), kernel=(3, 3), num_filter=2, name="conv")
    with pytest.raises(ShapeError, match="conv: Convolution takes data with 3 or more axes"):
        net.infer_shape(x=(28, 28))
    with pytest.raises(ShapeError, match="kernel with 2 axes, its data has 1"):
        net.infer_shape(x=(1, 28, 28))


def test_unknown_argument_names_the_nearest():
    with pytest.raises(BindError, match="no argument 'dat'. Did you mean 'data'"):
        lenet().infer_shape(dat=(1, 1, 28, 28))
    with pytest.raises(ArgumentError, match="has 1 arguments, got 2"):
        sym.relu(sym.var("x")).infer_shape((1,), (2,))
    with pytest.raises(ShapeError, match="is no shape"):
        sym.relu(sym.var("x")).infer_shape(x=("B", 2))


def test_inferring_draws_no_random_numbers_and_leaves_states_alone():
    before = graphc.frontend.sampling.random.state()
    net = sym.Dropout(sym.random.normal(shape=(3,)) + sym.var("x"))
    assert net.infer_shape()[0] == [(3,)]
    assert graphc.frontend.sampling.random.state() == before


# -- element types -----------------------------------------------------------------------------


def types_by_name(net, **given):
    arguments, outputs, states = net.infer_type(**given)
    names = [*net.list_arguments(), *net.list_auxiliary_states()]
    found = dict(zip(names, [*arguments, *states], strict=True))
    return {name: kind.__name__ for name, kind in found.items()}, [t.__name__ for t in outputs]


def test_types_follow_the_data():
    net = sym.BatchNorm(sym.FullyConnected(sym.var("x"), num_hidden=2, name="fc"), name="bn")
    names, outputs = types_by_name(net, x="float64")
    assert set(names.values()) == {"float64"} and outputs == ["float64"]
    names, outputs = types_by_name(net)
    assert set(names.values()) == {"float32"} and outputs == ["float32"]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8"])
def test_types_without_shapes_agree_with_those_of_a_run(dtype):
    a, b = sym.var("a", dtype=dtype), sym.var("b", dtype="float32")
    group = sym.Group([
        a + 1, a * 0.5, a + b, a > 0, sym.exp(a), a.astype("float64"), a.sum(axis=0),
        a.argmax(axis=0), sym.one_hot(a, depth=3), sym.concat(a, b, dim=0), sym.relu(a),
        sym.take(b, a), sym.where(a, b, b), sym.stack(a, a), sym.Embedding(a, b),
    ])  # fmt: skip
    guessed = [t.__name__ for t in group.infer_type()[1]]
    arrays = {"a": graphc.nd.ones((2, 2), dtype=dtype), "b": graphc.nd.ones((2, 2))}
    found = group.bind(graphc.cpu(), arrays).forward()
    assert guessed == [np.dtype(r.dtype).name for r in found]

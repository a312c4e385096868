"""What goes wrong with Symbols and executors, and what the errors say."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import nd, sym
from graphc.errors import (
    ArgumentError,
    AutogradError,
    BindError,
    DeviceError,
    DTypeError,
    GraphcError,
    IndexRangeError,
    ShapeError,
    TraceError,
)


@pytest.fixture(autouse=True)
def own_names():
    with sym.NameManager():
        yield


def layer():
    return sym.FullyConnected(sym.var("data"), num_hidden=3, name="fc")


def bound(**options):
    return layer().simple_bind(graphc.cpu(), data=(2, 4), **options)


CPU = graphc.cpu()
X = nd.ones((2, 4))
W, B = nd.ones((3, 4)), nd.ones((3,))

# Error, what its text says in order, what is done.
CASES = [
    (BindError, ["'fc_weight', 'fc_bias'", "data, fc_weight, fc_bias", "simple_bind"],
     lambda: layer().bind(CPU, data=X)),
    (BindError, ["no argument 'fc_wieght'. Did you mean 'fc_weight'?", "data, fc_weight, fc_bias"],
     lambda: layer().bind(CPU, data=X, fc_wieght=W, fc_bias=B)),
    (BindError, ["2 arrays were given for 3 arguments", "data, fc_weight, fc_bias"],
     lambda: layer().bind(CPU, [X, W])),
    (BindError, ["a list and by keyword"], lambda: layer().bind(CPU, [X, W, B], data=X)),
    (BindError, ["dict or a list", "got int"], lambda: layer().bind(CPU, 3)),
    (BindError, ["argument 'fc_bias' is a ndarray, not an NDArray", "nd.array(fc_bias)"],
     lambda: layer().bind(CPU, [X, W, np.ones(3)])),
    (ShapeError, ["fc: its weight 'fc_weight' has shape (3, 5)", "(2, 4) needs (3, 4)",
                  "Give 'fc_weight' that shape"],
     lambda: layer().bind(CPU, [X, nd.ones((3, 5)), B])),
    (DTypeError, ["fc: matmul got operands of different types", "weight fc_weight: f64[3, 4]",
                  ".astype('float32')"],
     lambda: layer().bind(CPU, [X, W.astype("float64"), B])),
    (BindError, ["'x' was made with dtype float32, it gets float64", ".astype('float32')"],
     lambda: sym.relu(sym.var("x", dtype="float32")).bind(CPU, x=X.astype("float64"))),
    (ShapeError, ["'x' was made with shape (2, 2), it gets (2, 4)"],
     lambda: sym.relu(sym.var("x", shape=(2, 2))).bind(CPU, x=X)),
    (ShapeError, ["gradient of 'data' has shape (1,), the argument has (2, 4)"],
     lambda: layer().bind(CPU, [X, W, B], {"data": nd.ones((1,))})),
    (BindError, ["no gradient 'dat'. Did you mean 'data'?"],
     lambda: layer().bind(CPU, [X, W, B], {"dat": X})),
    (ArgumentError, ["no grad_req 'writ'. Did you mean 'write'?", "write, add, null"],
     lambda: layer().bind(CPU, [X, W, B], grad_req="writ")),
    (BindError, ["no argument 'dat'. Did you mean 'data'?"],
     lambda: layer().bind(CPU, [X, W, B], grad_req={"dat": "add"})),
    (ArgumentError, ["one word for each of the 3 arguments"],
     lambda: layer().bind(CPU, [X, W, B], grad_req=["add"])),
    (BindError, ["auxiliary state 'bn_moving_mean', 'bn_moving_var'"],
     lambda: sym.BatchNorm(sym.var("x"), name="bn").bind(CPU, x=X, bn_gamma=X, bn_beta=X)),
    (BindError, ["'bn_moving_var' is an auxiliary state, no argument", "aux_states="],
     lambda: sym.BatchNorm(sym.var("x"), name="bn").bind(CPU, {"bn_moving_var": X})),
    (BindError, ["two different variables are called 'x'", "one sym.var for both"],
     lambda: (sym.var("x") + sym.var("x")).bind(CPU, x=X)),
    (DeviceError, ["gpu(99)", "graphc.cpu()"], lambda: layer().bind(graphc.gpu(99), [X, W, B])),
    (BindError, ["shape of 'data' does not follow", "simple_bind(..., data=(...))"],
     lambda: layer().simple_bind(CPU)),
    (BindError, ["no argument 'dat'. Did you mean 'data'?"],
     lambda: layer().simple_bind(CPU, dat=(2, 4))),
    (BindError, ["no argument 'fc_wieght'. Did you mean 'fc_weight'?"],
     lambda: bound(type_dict={"fc_wieght": "float32"})),
    (AutogradError, ["forward(is_train=True) before", "executor.forward(is_train=True) first"],
     lambda: bound().backward()),
    (AutogradError, ["no gradient to compute", "args_grad="],
     lambda: layer().bind(CPU, [X, W, B]).backward()),
    (BindError, ["no outputs yet", "forward() first"], lambda: bound().outputs),
    (BindError, ["no argument 'dat'. Did you mean 'data'?"], lambda: bound().forward(dat=X)),
    (ShapeError, ["'data' was bound with shape (2, 4), forward got (5, 4)",
                  "executor.reshape(data=(5, 4))"],
     lambda: bound().forward(data=np.ones((5, 4)))),
    (BindError, ["no argument 'fc_wieght'. Did you mean 'fc_weight'?", "allow_extra_params=True"],
     lambda: bound().copy_params_from({"fc_wieght": W})),
    (BindError, ["argument 'fc_bias' has shape (3,), it gets an array of (4,)"],
     lambda: bound().copy_params_from({"fc_bias": nd.ones((4,))})),
    (BindError, ["no auxiliary state 'mean'", "none"],
     lambda: bound().copy_params_from({}, {"mean": B})),
    (BindError, ["no argument 'dat'. Did you mean 'data'?"], lambda: bound().reshape(dat=(1, 4))),
    (BindError, ["'fc_weight' would change from shape (3, 4) to (3, 5)", "partial_shaping=True"],
     lambda: bound().reshape(data=(2, 5))),
    (ArgumentError, ["FullyConnected has no argument 'num_hiden'. Did you mean 'num_hidden'?"],
     lambda: sym.FullyConnected(sym.var("x"), num_hiden=3)),
    (ArgumentError, ["Activation takes 2 arguments, got 3"],
     lambda: sym.Activation(sym.var("x"), "relu", 3)),
    (ArgumentError, ["FullyConnected got 'data' twice"],
     lambda: sym.FullyConnected(sym.var("x"), data=sym.var("y"), num_hidden=3)),
    (ArgumentError, ["add cannot take a Symbol and an array together", 'sym.var(name)'],
     lambda: sym.var("x") + X),
    (ArgumentError, ["concat cannot take a Symbol and an array"],
     lambda: sym.concat(sym.var("x"), X, dim=0)),
    (ArgumentError, ["dot cannot take a Symbol and a str together", "Symbols and numbers"],
     lambda: sym.dot(sym.var("x"), "y")),
    (ArgumentError, ["dot got a Symbol with 2 outputs (cut_output0, cut_output1)", "symbol[0]"],
     lambda: sym.dot(sym.split(sym.var("x"), num_outputs=2, name="cut"), sym.var("y"))),
    (ArgumentError, ["concat got 2 Symbols, num_args is 3"],
     lambda: sym.concat(sym.var("x"), sym.var("y"), num_args=3)),
    (ArgumentError, ["has no array to write into (out=)"],
     lambda: sym.relu(sym.var("x"), out=X)),
    (ArgumentError, ["attr takes a dict of strings, got 'a': 3", "'3'"],
     lambda: sym.relu(sym.var("x"), attr={"a": 3})),
    (ArgumentError, ["zeros has no argument 'dtyp'. Did you mean 'dtype'?"],
     lambda: sym.zeros((2,), dtyp="int32")),
    (ArgumentError, ["zeros", "shape"], lambda: sym.zeros()),
    (ArgumentError, ["random_uniform: low must be a number here, got a Symbol"],
     lambda: sym.random.uniform(sym.var("x"), 1, shape=(2,))),
    (ArgumentError, ["a variable needs a name, got None"], lambda: sym.var(None)),
    (ArgumentError, ["var has no argument 'shpae'"], lambda: sym.var("x", shpae=(2,))),
    (DTypeError, ["no dtype 'float3'. Did you mean 'float32'?"],
     lambda: sym.var("x", dtype="float3")),
    (DTypeError, ["Group takes a list of Symbols, got a NDArray"],
     lambda: sym.Group([sym.var("x"), X])),
    (ArgumentError, ["Group got no Symbols"], lambda: sym.Group([])),
    (ArgumentError, ["no output 'fc_otput'. Did you mean 'fc_output'?"],
     lambda: layer()["fc_otput"]),
    (ArgumentError, ["indexed by the number or the name", "sym.slice"], lambda: layer()[None]),
    (ArgumentError, ["no variable 'dat'. Did you mean 'data'?"],
     lambda: layer()(dat=sym.var("x"))),
    (ArgumentError, ["takes 1 Symbols, got 2"],
     lambda: sym.relu(sym.var("x"))(sym.var("y"), sym.var("z"))),
    (ArgumentError, ["composition cannot take a Symbol and an array"], lambda: layer()(data=X)),
    (TraceError, ["no truth value", "sym.where"], lambda: bool(sym.var("x") > 0)),
    (ArgumentError, ["act: there is no activation 'rellu'. Did you mean 'relu'?"],
     lambda: sym.Activation(sym.var("x"), act_type="rellu", name="act")),
    (ShapeError, ["_plus0: shapes (2, 4) and (3,) do not broadcast", "operand 1 b: f32[3]"],
     lambda: (sym.var("a") + sym.var("b")).eval(a=X, b=B)),
    (ShapeError, ["reshape0: ", "data x: f32[2, 4]"],
     lambda: sym.reshape(sym.var("x"), shape=(3, 3)).eval(x=X)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "says", "act"), CASES, ids=[c[1][0][:40] for c in CASES])
def test_error(kind, says, act):
    with pytest.raises(GraphcError) as caught:
        act()
    text = str(caught.value)
    assert type(caught.value) is kind, text
    position = 0
    for part in says:
        assert part in text[position:], text
        position = text.index(part, position)
    assert "test_symbol_errors.py:" in text.splitlines()[0]


def test_the_place_is_the_line_that_composed_the_node():
    net = sym.dot(sym.var("a"), sym.var("b"), name="product")
    with pytest.raises(ShapeError) as caught:
        net.bind(CPU, a=X, b=X)
    assert caught.value.where is not None
    assert caught.value.where.scope == "product"
    first = test_the_place_is_the_line_that_composed_the_node.__code__.co_firstlineno
    assert caught.value.where.line == first + 1


@pytest.mark.parametrize("name", ["shape", "ndim", "asnumpy", "dtype", "size"])
def test_what_a_symbol_has_not(name):
    with pytest.raises(AttributeError, match=rf"a Symbol has no {name}: .*  \[test_symbol_errors"):
        getattr(sym.var("x"), name)
    assert not hasattr(sym.var("x"), name)


def test_a_misspelt_method_names_the_nearest():
    with pytest.raises(AttributeError, match="no attribute 'list_argument'.*'list_arguments'"):
        sym.var("x").list_argument()


def test_output_numbers_are_checked():
    with pytest.raises(IndexError, match="has 1 outputs, there is no output 1"):
        layer()[1]


def test_an_index_out_of_range_is_found_when_it_runs_and_changes_nothing():
    net = sym.Embedding(sym.var("x"), input_dim=4, output_dim=2, name="words")
    executor = net.simple_bind(CPU, x=(2,))
    executor.forward()
    with pytest.raises(IndexRangeError) as caught:
        executor.forward(x=np.array([1, 4]))
    assert "test_symbol_errors.py:" in str(caught.value) and "words" in str(caught.value)
    assert executor.outputs[0].shape == (2, 2)


def test_an_argument_overwritten_before_backward_is_an_error():
    executor = (sym.var("a") * sym.var("b")).simple_bind(CPU, a=(2,), b=(2,))
    executor.forward(is_train=True, a=np.ones(2), b=np.ones(2))
    executor.arg_dict["a"][:] = 5
    with pytest.raises(AutogradError, match="overwritten"):
        executor.backward()


@pytest.mark.parametrize("shape", [(2.5,), "ab", ("B", 2)])
def test_what_is_no_shape(shape):
    with pytest.raises(ShapeError, match="is no shape"):
        sym.relu(sym.var("x")).infer_shape(x=shape)


def test_axes_beyond_the_data_are_found_when_it_is_bound():
    net = sym.softmax(sym.var("x"), axis=2, name="probabilities")
    assert net.infer_type()[1] == [np.float32]
    with pytest.raises(GraphcError, match="probabilities: axis 2"):
        net.bind(CPU, x=X)

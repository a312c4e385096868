"""The usual mistakes in networks and compiled code: each raises at once and says what to do.

``# here`` marks the line that the error must name; the modes are the ways the program is run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mistakes import (  # noqa: E402
    BLOCKS,
    FUNCTIONS,
    NETWORKS,
    as_function,
    as_network,
    mistake,
    unchanged,
    values,
)

import graphc  # noqa: E402
from graphc import autograd, gluon, nd  # noqa: E402
from graphc.errors import (  # noqa: E402
    ArgumentError,
    AutogradError,
    DeferredInitializationError,
    DTypeError,
    IndexRangeError,
    ShapeError,
    TraceError,
    UninitializedError,
    UnknownAttributeError,
)
from graphc.gluon import nn  # noqa: E402

X = nd.ones((2, 3))
IMAGES = nd.ones((2, 1, 28, 28))


class Net(nn.HybridBlock):
    """The network of the first program, with or without its padding."""

    def __init__(self, padding: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(channels=4, kernel_size=5, padding=padding)
        self.conv2 = nn.Conv2D(channels=6, kernel_size=5, padding=padding)
        self.fc1 = nn.Dense(units=8)
        self.fc2 = nn.Dense(units=10)

    def forward(self, x: Any) -> Any:
        x = nd.max_pool2d(nd.relu(self.conv1(x)), pool_size=2, strides=2)
        x = nd.max_pool2d(nd.relu(self.conv2(x)), pool_size=2, strides=2)
        return self.fc2(nd.relu(self.fc1(x.reshape((-1, 7 * 7 * 6)))))


def sequence(*layers: Any) -> nn.HybridSequential:
    net = nn.HybridSequential()
    net.add(*layers)
    return net


# -- sizes -------------------------------------------------------------------------------------


@NETWORKS
def test_wrong_width_of_a_dense_layer(mode: str) -> None:
    net = sequence(nn.Dense(4, in_units=8), nn.Dense(2))
    run = as_network(mode, net)
    before = values(net)
    with mistake(ShapeError, "HybridSequential.0", "takes 8 inputs, got 3", "(2, 3)",
                 remedy="in_units=3"):  # fmt: skip
        run(X)  # here
    assert unchanged(net, before)


@NETWORKS
def test_wrong_number_of_channels(mode: str) -> None:
    run = as_network(mode, sequence(nn.Conv2D(4, 3, in_channels=3)))
    with mistake(ShapeError, "conv2d", "takes 3 input channels", "(2, 1, 28, 28)",
                 remedy="in_channels"):  # fmt: skip
        run(IMAGES)  # here


@NETWORKS
def test_no_padding_so_the_reshape_does_not_fit(mode: str) -> None:
    class Unpadded(Net):
        def forward(self, x: Any) -> Any:
            x = nd.max_pool2d(nd.relu(self.conv1(x)), pool_size=2, strides=2)
            x = nd.max_pool2d(nd.relu(self.conv2(x)), pool_size=2, strides=2)
            return self.fc2(nd.relu(self.fc1(x.reshape((-1, 7 * 7 * 6)))))  # here

    net = Unpadded(padding=0)
    run = as_network(mode, net)
    before = values(net)
    with mistake(ShapeError, "Unpadded]", "f32[2, 6, 4, 4]", "(-1, 294)", "192 is no multiple",
                 remedy="(-1, 96) fits"):  # fmt: skip
        run(IMAGES)
    # The shapes that the failed call has told are forgotten with it.
    assert unchanged(net, before)


@NETWORKS
def test_raw_images_into_a_convolution(mode: str) -> None:
    class Raw(Net):
        def forward(self, x: Any) -> Any:
            return self.conv1(x)  # here

    with mistake(DTypeError, "Raw.conv1", "uint8", "(2, 28, 28, 1)", "(N, C, H, W)",
                 remedy="transforms.ToTensor()"):  # fmt: skip
        as_network(mode, Raw())(nd.zeros((2, 28, 28, 1), dtype="uint8"))


@NETWORKS
def test_float_images_with_channels_last_leave_no_shape_behind(mode: str) -> None:
    class Last(Net):
        def forward(self, x: Any) -> Any:
            return nd.max_pool2d(self.conv1(x), pool_size=2, strides=2)  # here

    net = Last()
    run = as_network(mode, net)
    with mistake(ShapeError, "max_pool, 2, is larger", "f32[2, 4, 28, 1]",
                 remedy="Channels come second"):  # fmt: skip
        run(nd.zeros((2, 28, 28, 1)))
    assert net.conv1.weight.shape == (4, 0, 5, 5)


@BLOCKS
def test_a_pool_larger_than_the_image(mode: str) -> None:
    run = as_network(mode, sequence(nn.MaxPool2D(5)))
    with mistake(ShapeError, "max_pool", "5", "axis 0 of the input: 3", "f32[1, 1, 3, 3]",
                 remedy="smaller window"):  # fmt: skip
        run(nd.ones((1, 1, 3, 3)))  # here


@FUNCTIONS
def test_shapes_that_do_not_broadcast(mode: str) -> None:
    add = as_function(mode, lambda a, b: a + b)  # here
    with mistake(ShapeError, "add(f32[2, 3], f32[4, 2])", "sizes 2 and 4 differ on axis 0",
                 remedy="equal or 1"):  # fmt: skip
        add(X, nd.ones((4, 2)))


@FUNCTIONS
def test_inner_sizes_of_a_product_differ(mode: str) -> None:
    product = as_function(mode, lambda a, b: nd.dot(a, b))  # here
    with mistake(ShapeError, "matmul(f32[2, 3], f32[4, 2])", "inner sizes differ: 3 and 4"):
        product(X, nd.ones((4, 2)))


@FUNCTIONS
def test_concat_of_shapes_that_do_not_fit(mode: str) -> None:
    join = as_function(mode, lambda a, b: nd.concat(a, b, dim=1))  # here
    with mistake(ShapeError, "cannot concat f32[2, 3] and f32[4, 2] along axis 1"):
        join(X, nd.ones((4, 2)))


@FUNCTIONS
def test_stack_of_shapes_that_differ(mode: str) -> None:
    join = as_function(mode, lambda a, b: nd.stack(a, b))  # here
    with mistake(ShapeError, "cannot stack", remedy="equal"):
        join(X, nd.ones((4, 2)))


@FUNCTIONS
@pytest.mark.parametrize("name", ["sum", "softmax", "argmax", "flip"])
def test_an_axis_that_does_not_exist(mode: str, name: str) -> None:
    run = as_function(mode, lambda a: getattr(nd, name)(a, axis=2))  # here
    with mistake(ShapeError, "axis 2 does not exist", f"{name}(f32[2, 3])", remedy="-2 to 1"):
        run(X)


@FUNCTIONS
def test_an_index_out_of_range(mode: str) -> None:
    run = as_function(mode, lambda a: a[5])  # here
    with mistake(IndexRangeError, "index 5", "axis 0 of size 2", "getitem(f32[2, 3])",
                 remedy="-2 to 1"):  # fmt: skip
        run(X)


@FUNCTIONS
def test_too_many_indices(mode: str) -> None:
    run = as_function(mode, lambda a: a[0, 0, 0])  # here
    with mistake(ShapeError, "3 indices", "2 axes", "getitem(f32[2, 3])"):
        run(X)


@FUNCTIONS
@pytest.mark.parametrize("name", ["max", "min", "argmax"])
def test_the_largest_of_nothing(mode: str, name: str) -> None:
    run = as_function(mode, lambda a: getattr(nd, name)(a, axis=0))  # here
    with mistake(ShapeError, f"{name} over axis 0", "f32[0, 3]", remedy="empty operand"):
        run(nd.zeros((0, 3)))


# -- types -------------------------------------------------------------------------------------


@FUNCTIONS
def test_a_product_of_two_types(mode: str) -> None:
    product = as_function(mode, lambda a, b: nd.dot(a, b))  # here
    with mistake(DTypeError, "matmul(f32[2, 3], f64[3, 2])", "float32 and float64",
                 remedy=".astype('float32')"):  # fmt: skip
        product(X, nd.ones((3, 2), dtype="float64"))


@NETWORKS
def test_data_of_another_type_than_the_weights(mode: str) -> None:
    net = sequence(nn.Dense(2, in_units=3))
    run = as_network(mode, net)
    run(X)
    before = values(net)
    with mistake(DTypeError, "HybridSequential.0", "f64[2, 3]", "f32[2, 3]", remedy=".astype"):
        run(X.astype("float64"))  # here
    assert unchanged(net, before)


# -- values ------------------------------------------------------------------------------------


@NETWORKS
def test_a_label_out_of_range(mode: str) -> None:
    net = sequence(nn.Dense(3, in_units=3))
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    loss.hybridize(mode == "hybridized")
    run = as_network(mode, net, loss)
    good, bad = nd.array([0, 2]), nd.array([0, 3])
    step = run if mode == "TrainStep" else lambda x, y: loss(run(x), y)
    step(X, good)
    if mode == "TrainStep":
        before, state = values(net), run.trainer.state(0)[0]._array.copy()
        with mistake(IndexRangeError, "label 3 at position 1", "0 .. 2", "SoftmaxCrossEntropyLoss",
                     remedy="size 3"):  # fmt: skip
            run(X, bad)  # here
        assert unchanged(net, before)
        assert (run.trainer.state(0)[0]._array == state).all()
        assert run.trainer.optimizer.num_update == 1


@BLOCKS
def test_a_label_out_of_range_outside_of_a_step(mode: str) -> None:
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    loss.hybridize(mode == "hybridized")
    loss(X, nd.array([0, 2]))
    with mistake(IndexRangeError, "label 3 at position 1", "0 .. 2", "SoftmaxCrossEntropyLoss",
                 remedy="size 3"):  # fmt: skip
        loss(X, nd.array([0, 3]))  # here


@BLOCKS
def test_a_label_or_an_index_that_is_nan(mode: str) -> None:
    loss, net = gluon.loss.SoftmaxCrossEntropyLoss(), as_network(mode, nn.Embedding(5, 2))
    loss.hybridize(mode == "hybridized")
    missing = nd.array([0, float("nan")])
    for run, what in ((lambda: loss(X, missing), "label"), (lambda: net(missing), "index")):
        with pytest.raises(IndexRangeError, match=f"{what} nan at position 1 is out of range"):
            run()
    kept = loss(X, missing, nd.array([[1], [0]])).asnumpy()  # weight 0: the label does not count
    assert kept[1] == 0


@NETWORKS
def test_an_embedding_index_out_of_range(mode: str) -> None:
    net = sequence(nn.Embedding(5, 2))
    run = as_network(mode, net)
    run(nd.array([1, 4]))
    before = values(net)
    with mistake(IndexRangeError, "embedding index 7 at position 1", "0 .. 4",
                 "HybridSequential.0", remedy="size 5"):  # fmt: skip
        run(nd.array([1, 7]))  # here
    assert unchanged(net, before)


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_labels_of_another_shape(shape: tuple[int, ...]) -> None:
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    with mistake(ShapeError, f"labels of shape {shape}", "predictions of shape (2, 3)"):
        loss(X, nd.zeros(shape))  # here


@pytest.mark.parametrize("rate", [-0.1, 1.5, "0.5"])
def test_a_dropout_rate_that_is_no_probability(rate: Any) -> None:
    with mistake(ArgumentError, "Dropout", repr(rate), remedy="between 0 and 1"):
        nn.Dropout(rate)  # here


@FUNCTIONS
def test_a_dropout_function_with_such_a_rate(mode: str) -> None:
    run = as_function(mode, lambda a: nd.Dropout(a, p=1.5))  # here
    with mistake(ArgumentError, "Dropout", "1.5", remedy="between 0 and 1"):
        run(X)


# -- asking a compiled function for values -----------------------------------------------------


def test_a_branch_on_data() -> None:
    class Branching(nn.HybridBlock):
        def forward(self, x: Any) -> Any:
            if x.sum() > 0:  # here
                return x
            return -x

    assert (as_network("imperative", Branching())(X).asnumpy() == 1).all()
    with mistake(TraceError, "Branching", "a condition", remedy="where"):
        as_network("hybridized", Branching())(X)


@pytest.mark.parametrize(
    ("what", "ask"),
    [
        ("float()", float),
        ("int()", int),
        ("asnumpy()", lambda a: a.asnumpy().sum()),
        ("asscalar()", lambda a: a.asscalar()),
    ],
)
def test_a_value_of_traced_data(what: str, ask: Any) -> None:
    def scaled(x: Any) -> Any:
        return x * ask(x.sum())

    assert (scaled(nd.ones((2,))).asnumpy() == 2).all()
    with pytest.raises(TraceError) as caught:
        graphc.compile(scaled)(nd.ones((2,)))
    text = str(caught.value)
    assert what in text and "test_mistakes.py" in text and "hybridize" in text


def test_a_write_into_traced_data() -> None:
    def cleared(x: Any) -> Any:
        x[0] = 0  # a program has no places to write to

    with pytest.raises(TraceError, match=r"writing into an array.*\[test_mistakes.py:\d+\]"):
        graphc.compile(cleared)(X)


# -- parameters --------------------------------------------------------------------------------


@NETWORKS
def test_no_initialize(mode: str) -> None:
    net = sequence(nn.Dense(2, in_units=3))
    with mistake(UninitializedError, "dense", "weight", "not been initialized",
                 remedy="net.initialize()"):  # fmt: skip
        as_network(mode, net, start=False)(X)  # here


def test_reading_a_parameter_before_initialize() -> None:
    layer = nn.Dense(2, in_units=3)
    with mistake(UninitializedError, layer.weight.name, remedy="initialize()"):
        layer.weight.data()  # here


def test_reading_a_parameter_before_its_shape_is_known() -> None:
    layer = nn.Dense(2)
    layer.initialize()
    with mistake(DeferredInitializationError, layer.weight.name, "(2, 0)", remedy="in_units"):
        layer.weight.data()  # here


def test_an_attribute_that_a_network_does_not_have() -> None:
    net = Net()
    with mistake(UnknownAttributeError, "Net", "'conv_1'", "'conv1'"):
        _ = net.conv_1  # here


@BLOCKS
@pytest.mark.parametrize("count", [1, 3])
def test_the_wrong_number_of_inputs(mode: str, count: int) -> None:
    class Sum(nn.HybridBlock):
        def forward(self, a: Any, b: Any) -> Any:
            return a + b

    class OldSum(nn.HybridBlock):
        def hybrid_forward(self, F: Any, a: Any, b: Any) -> Any:
            return F.broadcast_add(a, b)

    for net in (Sum(), OldSum()):
        run = as_network(mode, net)
        with mistake(ArgumentError, type(net).__name__, "(a", f"got {count} input", "b"):
            run(*[X] * count)  # here


# -- gradients ---------------------------------------------------------------------------------


@BLOCKS
def test_backward_without_record(mode: str) -> None:
    loss = as_network(mode, sequence(nn.Dense(2)))(X).sum()
    with mistake(AutogradError, "backward()", "(1,)", remedy="autograd.record()"):
        loss.backward()  # here


@BLOCKS
def test_backward_twice(mode: str) -> None:
    net = as_network(mode, sequence(nn.Dense(2)))
    with autograd.record():
        loss = net(X).sum()
    loss.backward()
    with mistake(AutogradError, "already called", remedy="retain_graph=True"):
        loss.backward()  # here


def test_a_write_under_record() -> None:
    weight = nd.ones((2,))
    weight.attach_grad()
    with autograd.record(), mistake(AutogradError, "in-place", remedy="x = x + y"):
        weight += 1  # here


def test_a_write_between_record_and_backward() -> None:
    weight = nd.ones((2,))
    weight.attach_grad()
    with autograd.record():
        loss = weight * weight
    weight[:] = 2  # here
    with mistake(AutogradError, "overwritten", "(2,)", remedy="copy"):
        loss.backward()


@BLOCKS
def test_a_step_with_gradients_of_the_last_one(mode: str) -> None:
    net = as_network(mode, sequence(nn.Dense(2)))
    with autograd.record():
        loss = net(X).sum()
    loss.backward()
    trainer = gluon.Trainer(net.collect_params(), "adam")
    trainer.step(2)
    before, count = values(net), trainer.optimizer.num_update
    with mistake(AutogradError, "gradient of 2 parameters", net[0].weight.name,
                 remedy="loss.backward() before trainer.step()"):  # fmt: skip
        trainer.step(2)  # here
    assert unchanged(net, before)
    assert trainer.optimizer.num_update == count


def test_a_step_before_any_backward() -> None:
    net = as_network("imperative", sequence(nn.Dense(2, in_units=3)))
    trainer = gluon.Trainer(net.collect_params(), "sgd")
    with mistake(AutogradError, net[0].bias.name, remedy="loss.backward()"):
        trainer.step(2)  # here


def test_adding_to_gradients_in_a_train_step() -> None:
    net = as_network("imperative", sequence(nn.Dense(2, in_units=3)))
    net.collect_params().setattr("grad_req", "add")
    trainer = gluon.Trainer(net.collect_params(), "sgd")
    with mistake(ArgumentError, net[0].weight.name, "'add'", remedy="'write'"):
        gluon.TrainStep(net, nd.abs, trainer)  # here


def test_reading_a_gradient_after_a_train_step() -> None:
    net = sequence(nn.Dense(2, in_units=3))
    as_network("TrainStep", net)(X)
    weight = net[0].weight
    with mistake(AutogradError, weight.name, "fused away", remedy="backward()"):
        weight.grad()  # here
    with pytest.raises(AutogradError, match="shape .2, 3. was fused away"):
        _ = weight.data().grad
    # A backward pass writes it, and then it can be read again.
    with autograd.record():
        loss = net(X).sum()
    loss.backward()
    np.testing.assert_allclose(weight.data().grad.asnumpy(), 2.0)

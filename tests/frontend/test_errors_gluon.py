"""The usual mistakes: each raises at once, names line, layer and sizes, and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc import autograd, gluon, nd
from graphc.errors import (
    ArgumentError,
    AutogradError,
    DeferredInitializationError,
    DTypeError,
    FileFormatError,
    GraphcError,
    IndexRangeError,
    ShapeError,
    TraceError,
    UninitializedError,
    UnknownNameError,
)
from graphc.gluon import nn

MODES = pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "compiled"])
HERE = Path(__file__).name


class LeNet(nn.HybridBlock):
    """The network of the first example, with one mistake or another."""

    def __init__(self, padding: int = 2, width: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2D(4, 5, padding=padding)
        self.fc = nn.Dense(3, in_units=width)

    def forward(self, x: Any) -> Any:
        x = nd.max_pool2d(nd.relu(self.conv(x)), pool_size=2, strides=2)
        return self.fc(x.reshape((-1, 4 * 4 * 4)))


IMAGES = nd.ones((2, 1, 8, 8))


def ready(net: Any, hybridize: bool) -> Any:
    net.initialize()
    if hybridize:
        net.hybridize()
    return net


def message(kind: type[GraphcError], run: Callable[[], Any]) -> str:
    """Return the text of the error, which must name a line of this file and a remedy."""
    with pytest.raises(kind) as caught:
        run()
    text = str(caught.value)
    assert HERE in text.splitlines()[0], text
    assert caught.value.remedy, text
    return text


@MODES
def test_wrong_width_of_a_dense_layer(hybridize: bool) -> None:
    text = message(ShapeError, lambda: ready(LeNet(width=50), hybridize)(IMAGES))
    assert "takes 50 inputs, got 64" in text and "LeNet.fc]" in text and "in_units=64" in text


@MODES
def test_reshape_that_does_not_fit(hybridize: bool) -> None:
    text = message(ShapeError, lambda: ready(LeNet(padding=0), hybridize)(nd.ones((3, 1, 8, 8))))
    assert "(-1, 64)" in text and "32" not in text.splitlines()[0].split("into")[1]
    assert "LeNet]" in text


@MODES
def test_no_initialize(hybridize: bool) -> None:
    net = LeNet()
    if hybridize:
        net.hybridize()
    text = message(UninitializedError, lambda: net(IMAGES))
    assert "LeNet.conv]" in text and "initialize()" in text


@MODES
def test_raw_images_into_a_convolution(hybridize: bool) -> None:
    net = ready(LeNet(), hybridize)
    images = nd.array(np.zeros((2, 8, 8, 1)), dtype="uint8")
    text = message(DTypeError, lambda: net(images))
    assert "uint8" in text and "(2, 8, 8, 1)" in text and "ToTensor" in text
    assert "LeNet.conv]" in text
    # The mistake has fixed nothing: the network still takes the right images.
    assert net(IMAGES).shape == (2, 3)


@MODES
def test_missing_channel_axis(hybridize: bool) -> None:
    text = message(ShapeError, lambda: ready(LeNet(), hybridize)(nd.ones((2, 8, 8))))
    assert "(N, C, H, W)" in text and "(2, 8, 8)" in text


@MODES
def test_wrong_number_of_channels(hybridize: bool) -> None:
    net = ready(LeNet(), hybridize)
    net(IMAGES)
    text = message(ShapeError, lambda: net(nd.ones((2, 3, 8, 8))))
    assert "takes 1 input channels" in text and "(2, 3, 8, 8)" in text and "LeNet.conv]" in text


@MODES
def test_window_larger_than_the_image(hybridize: bool) -> None:
    net = nn.HybridSequential()
    net.add(nn.Conv2D(2, 9))
    message(ShapeError, lambda: ready(net, hybridize)(IMAGES))


@MODES
def test_branch_on_data(hybridize: bool) -> None:
    class Branching(nn.HybridBlock):
        def forward(self, x: Any) -> Any:
            if x.sum() > 0:
                return x
            return -x

    net = ready(Branching(), hybridize)
    if not hybridize:
        assert (net(IMAGES).asnumpy() == 1).all()
        return
    text = message(TraceError, lambda: net(IMAGES))
    assert "Branching]" in text and "where" in text


@MODES
@pytest.mark.parametrize("ask", [float, int, lambda x: x.asnumpy(), lambda x: x.asscalar()])
def test_value_asked_for_in_compiled_code(ask: Any, hybridize: bool) -> None:
    class Asking(nn.HybridBlock):
        def forward(self, x: Any) -> Any:
            return x * float(np.max(ask(x.sum())))

    net = ready(Asking(), hybridize)
    if not hybridize:
        assert (net(nd.ones((2, 2))).asnumpy() == 4).all()
        return
    assert "Asking]" in message(TraceError, lambda: net(nd.ones((2, 2))))


@MODES
def test_label_out_of_range(hybridize: bool) -> None:
    net = ready(nn.Dense(3), hybridize)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    loss.hybridize(hybridize)
    text = message(IndexRangeError, lambda: loss(net(IMAGES), nd.array([2, 3])))
    assert "label 3 at position 1" in text and "0 .. 2" in text
    assert "SoftmaxCrossEntropyLoss]" in text


@MODES
def test_embedding_index_out_of_range(hybridize: bool) -> None:
    net = nn.HybridSequential()
    net.add(nn.Embedding(5, 2))
    ready(net, hybridize)
    text = message(IndexRangeError, lambda: net(nd.array([[0, 1], [7, 2]])))
    assert "index 7 at position 2" in text and "0 .. 4" in text and "HybridSequential.0]" in text


@MODES
def test_wrong_channels_of_batch_norm(hybridize: bool) -> None:
    net = ready(nn.BatchNorm(in_channels=3), hybridize)
    text = message(ShapeError, lambda: net(nd.ones((2, 4))))
    assert "3 channels, got 4" in text and "(2, 4)" in text


def test_parameters_read_before_their_shape_is_known() -> None:
    layer = nn.Dense(3)
    layer.initialize()
    text = message(DeferredInitializationError, lambda: layer.weight.data())
    assert "(3, 0)" in text and "in_units" in text


def test_unknown_shape_without_a_way_to_find_out() -> None:
    class Layer(nn.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.weight = self.params.get("weight", shape=(2, 0), allow_deferred_init=True)

        def hybrid_forward(self, F: Any, x: Any, weight: Any) -> Any:
            return F.dot(x, weight)

    text = message(ArgumentError, lambda: ready(Layer(), False)(IMAGES))
    assert "infer_shape" in text and "weight" in text


MISSPELT: list[tuple[type[GraphcError], Callable[[], Any], str]] = [
    (UnknownNameError, lambda: nn.Dense(3, activation="rleu"), "'relu'"),
    (UnknownNameError, lambda: nn.Activation("sofplus"), "softrelu"),
    (UnknownNameError, lambda: nn.Dense(3).initialize("xavir"), "'xavier'"),
    (UnknownNameError, lambda: nn.Dense(3, weight_initializer="nrmal").initialize(), "'normal'"),
    (ArgumentError, lambda: nn.Dense(3, activaton="relu"), "'activation'"),
    (ArgumentError, lambda: nn.Conv2D(3, 3, stride=2), "'strides'"),
    (ArgumentError, lambda: gluon.loss.L2Loss(batchaxis=0), "'batch_axis'"),
    (
        UnknownNameError,
        lambda: gluon.Trainer(nn.Dense(3).collect_params(), "amad"),
        "'adam'",
    ),
    (
        ArgumentError,
        lambda: gluon.Trainer(nn.Dense(3).collect_params(), "sgd", {"learning_rat": 0.1}),
        "'learning_rate'",
    ),
    (UnknownNameError, lambda: nn.Dense(3).collect_params()["wieght"], "'weight'"),
]


@pytest.mark.parametrize(("kind", "run", "nearest"), MISSPELT)
def test_misspelt_names(kind: type[GraphcError], run: Callable[[], Any], nearest: str) -> None:
    assert nearest in message(kind, run)


def test_misspelt_function_of_hybrid_forward() -> None:
    class Layer(nn.HybridBlock):
        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return F.rleu(x)

    with pytest.raises(AttributeError, match="'relu'"):
        Layer()(IMAGES)


def test_backward_without_record() -> None:
    net = ready(nn.Dense(3), False)
    assert "record" in message(AutogradError, lambda: net(IMAGES).backward())


def test_step_without_backward() -> None:
    net = ready(nn.Dense(3, in_units=2), False)
    trainer = gluon.Trainer(net.collect_params(), "sgd")
    text = message(AutogradError, lambda: trainer.step(1))
    assert "weight" in text and "backward()" in text


def test_overwriting_a_parameter_that_the_gradient_needs() -> None:
    net = ready(nn.Dense(3, in_units=4), False)
    x = nd.ones((2, 4))
    x.attach_grad()
    with autograd.record():
        loss = net(x).sum()
    net.weight.set_data(np.zeros((3, 4)))
    text = message(AutogradError, lambda: loss.backward())
    assert "overwritten" in text and text.count(HERE) >= 2


def test_trainer_of_a_network_without_parameters() -> None:
    net = nn.Sequential()
    text = message(ArgumentError, lambda: gluon.Trainer(net.collect_params(), "sgd"))
    assert "after all layers were added" in text


def test_adding_what_is_no_block() -> None:
    net = nn.Sequential()
    assert "nn.Lambda" in message(ArgumentError, lambda: net.add(nd.relu))


def test_missing_and_misshaped_parameters_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "dense.params"
    ready(nn.Dense(3, in_units=4), False).save_parameters(file)
    narrow = ready(nn.Dense(3, in_units=5), False)
    text = message(FileFormatError, lambda: narrow.load_parameters(file))
    assert "dense.params" in text and "'weight'" in text
    assert "(3, 4)" in text and "(3, 5)" in text
    net = nn.Sequential()
    net.add(nn.Dense(3, in_units=4))
    text = message(FileFormatError, lambda: ready(net, False).load_parameters(file))
    assert "'0.weight'" in text and "allow_missing=True" in text


def test_file_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    net = ready(nn.Dense(3, in_units=4), False)
    with pytest.raises(FileNotFoundError, match=r"none\.params"):
        net.load_parameters(tmp_path / "none.params")
    file = tmp_path / "net.params"
    net.save_parameters(file)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(FileFormatError, match=r"net\.params"):
        net.load_parameters(file)


def test_saving_before_the_shapes_are_known(tmp_path: Path) -> None:
    net = ready(nn.Dense(3), False)
    message(DeferredInitializationError, lambda: net.save_parameters(tmp_path / "x.params"))
    assert not list(tmp_path.iterdir())

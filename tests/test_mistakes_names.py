"""The usual mistakes in names, arguments, files, data and devices; see `mistakes` for the marks."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mistakes import (  # noqa: E402
    BLOCKS,
    FUNCTIONS,
    as_function,
    as_network,
    mistake,
    unchanged,
    values,
)

import graphc  # noqa: E402
from graphc import gluon, nd, sym  # noqa: E402
from graphc.errors import (  # noqa: E402
    ArgumentError,
    BindError,
    DataLoaderError,
    DatasetNotFoundError,
    DeviceError,
    DTypeError,
    FileAccessError,
    FileFormatError,
    GraphcError,
    MissingFileError,
    ShapeError,
    UnknownAttributeError,
    UnknownNameError,
)
from graphc.gluon import nn  # noqa: E402

X = nd.ones((2, 3))


def weights() -> dict[str, gluon.Parameter]:
    parameter = gluon.Parameter("weight", shape=(2,))
    parameter.initialize()
    return {"weight": parameter}


# -- misspelt names ----------------------------------------------------------------------------


NAMES: dict[str, tuple[type[GraphcError], str, str, Callable[[], Any]]] = {
    "optimizer": (UnknownNameError, "'sdg'", "'sgd'", lambda: gluon.Trainer(weights(), "sdg")),
    "optimizer argument": (
        ArgumentError, "'learningrate'", "'learning_rate'",
        lambda: gluon.Trainer(weights(), "sgd", {"learningrate": 0.1}),
    ),
    "activation": (UnknownNameError, "'rleu'", "'relu'", lambda: nn.Dense(3, activation="rleu")),
    "initializer": (
        UnknownNameError, "'xaviar'", "'xavier'", lambda: nn.Dense(3).initialize("xaviar")
    ),
    "initializer of a layer": (
        UnknownNameError, "'noraml'", "'normal'",
        lambda: nn.Dense(3, weight_initializer="noraml", in_units=2).initialize(),
    ),
    "metric": (
        UnknownNameError, "'acuracy'", "'accuracy'", lambda: graphc.metric.create("acuracy")
    ),
    "dtype": (DTypeError, "'flaot32'", "'float32'", lambda: nd.zeros((2,), dtype="flaot32")),
    "dtype of an array": (DTypeError, "'int23'", "'int32'", lambda: nd.array([1], dtype="int23")),
    "layer dtype": (DTypeError, "'flaot64'", "'float64'", lambda: nn.Dense(3, dtype="flaot64")),
    "argument of a layer": (
        ArgumentError, "Dense has no argument 'activaton'", "'activation'",
        lambda: nn.Dense(3, activaton="relu"),
    ),
    "argument that a layer needs": (
        ArgumentError, "Conv2D has no argument 'kernelsize'", "'kernel_size'",
        lambda: nn.Conv2D(3, kernelsize=2),
    ),
    "layer": (UnknownAttributeError, "graphc.gluon.nn", "'Dense'", lambda: nn.Desne(3)),
    "loss": (
        UnknownAttributeError, "'SoftmaxCrosEntropyLoss'", "'SoftmaxCrossEntropyLoss'",
        lambda: gluon.loss.SoftmaxCrosEntropyLoss(),
    ),
    "function": (UnknownAttributeError, "graphc.nd", "'relu'", lambda: nd.rleu(X)),
    "symbol function": (UnknownAttributeError, "graphc.sym", "'relu'", lambda: sym.rleu(X)),
    "method": (UnknownAttributeError, "NDArray", "'asnumpy'", lambda: X.asnumpi()),
    "class of gluon": (UnknownAttributeError, "graphc.gluon", "'Trainer'", lambda: gluon.Trianer),
    "module": (UnknownAttributeError, "graphc", "'autograd'", lambda: graphc.autograde),
    "option": (
        ArgumentError, "no option 'thread'", "'threads'", lambda: graphc.configure(thread=2)
    ),
    "data set split": (
        ArgumentError, "'tset'", "'test'", lambda: gluon.data.vision.MNISTSample("tset")
    ),
    "grad_req": (ArgumentError, "'wirte'", "'write'", lambda: X.copy().attach_grad("wirte")),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_misspelt_name(name: str) -> None:
    kind, given, suggestion, run = NAMES[name]
    with pytest.raises(kind) as caught:
        run()
    text = str(caught.value)
    assert f"[{Path(__file__).name}:" in text
    assert int(text.split(f"{Path(__file__).name}:")[1].split("]")[0]) in lines_of(run)
    assert given in text and f"Did you mean {suggestion}?" in text and caught.value.remedy


def lines_of(function: Callable[..., Any]) -> set[int]:
    return {line for _, _, line in function.__code__.co_lines() if line is not None}


@FUNCTIONS
def test_a_misspelt_argument_of_a_function(mode: str) -> None:
    run = as_function(mode, lambda a: nd.softmax(a, axes=1))  # here
    with mistake(ArgumentError, "softmax has no argument 'axes'", "'axis'", remedy="temperature"):
        run(X)


@FUNCTIONS
def test_a_missing_argument_of_a_function(mode: str) -> None:
    run = as_function(mode, lambda a: nd.softmax(axis=1))  # here
    with mistake(ArgumentError, "softmax", "'data'", remedy="data, length, axis"):
        run(X)


@FUNCTIONS
def test_a_misspelt_activation_of_a_function(mode: str) -> None:
    run = as_function(mode, lambda a: nd.Activation(a, "sigmod"))  # here
    with mistake(ArgumentError, "'sigmod'", "'sigmoid'", remedy="relu"):
        run(X)


@FUNCTIONS
def test_a_misspelt_dtype_of_a_cast(mode: str) -> None:
    run = as_function(mode, lambda a: a.astype("flaot64"))  # here
    with mistake(DTypeError, "'flaot64'", "'float64'", remedy="int32"):
        run(X)


@FUNCTIONS
def test_a_misspelt_method(mode: str) -> None:
    run = as_function(mode, lambda a: a.softmx())  # here
    with mistake(UnknownAttributeError, "NDArray has no attribute 'softmx'", "'softmax'"):
        run(X)


@pytest.mark.parametrize(
    ("option", "value"),
    [("threads", 0), ("threads", 1.5), ("engine", "nmba"), ("cache_bytes", "big"), ("cache", 1)],
)
def test_an_option_that_cannot_have_a_value(option: str, value: Any) -> None:
    before = graphc.config.current()
    with mistake(ArgumentError, option, repr(value)), graphc.options(**{option: value}):  # here
        pass
    assert graphc.config.current() == before


def test_a_trainer_of_a_network() -> None:
    with mistake(ArgumentError, "Trainer", "a Dense", remedy="collect_params()"):
        gluon.Trainer(nn.Dense(2), "sgd")  # here


# -- files -------------------------------------------------------------------------------------


def network(*units: int) -> nn.HybridSequential:
    net = nn.HybridSequential()
    net.add(*(nn.Dense(out, in_units=size) for size, out in zip(units, units[1:])))
    net.initialize()
    return net


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    network(3, 4, 2).save_parameters(tmp_path / "net.params")
    return tmp_path / "net.params"


@pytest.mark.parametrize(
    ("units", "named"),
    [
        ((3, 4, 2, 2), ("'2.weight' is not in the file", "Did you mean '1.weight'?")),
        ((3, 4), ("'1.weight' is in the file but not in the network", "ignore_extra=True")),
        ((3, 4, 5), ("'1.weight' has shape (2, 4) in the file, the network needs (5, 4)",)),
    ],
    ids=["missing", "extra", "mis-shaped"],
)
def test_a_file_of_another_network(units: tuple[int, ...], named: Any, saved: Path) -> None:
    net = network(*units)
    before = values(net)
    with mistake(FileFormatError, "net.params", *named):
        net.load_parameters(saved)  # here
    assert unchanged(net, before)


def damaged(data: bytes) -> dict[str, bytes]:
    return {
        "truncated": data[: len(data) // 2],
        "empty": b"",
        "text": b"<html>not found</html>",
        "zip": b"PK\x03\x04" + data,
    }


@pytest.mark.parametrize("fault", ["truncated", "empty", "text", "zip"])
def test_a_damaged_or_foreign_file(fault: str, saved: Path) -> None:
    saved.write_bytes(damaged(saved.read_bytes())[fault])
    net = network(3, 4, 2)
    before = values(net)
    with mistake(FileFormatError, "net.params"):
        net.load_parameters(saved)  # here
    assert unchanged(net, before)


def test_an_archive_of_numpy(saved: Path) -> None:
    with zipfile.ZipFile(saved, "w") as archive:
        archive.writestr("weight.npy", b"")
    with mistake(FileFormatError, "net.params", remedy="numpy.load"):
        nd.load(saved)  # here


def test_a_file_that_is_not_there(saved: Path) -> None:
    with mistake(MissingFileError, "nte.params", "Did you mean 'net.params'?", remedy=os.getcwd()):
        network(3, 4, 2).load_parameters(saved.with_name("nte.params"))  # here
    assert issubclass(MissingFileError, FileNotFoundError)


def test_saving_where_nothing_can_be_written(saved: Path) -> None:
    net = network(3, 4, 2)
    for path in (saved / "net.params", saved.parent / "nowhere" / "net.params", saved.parent):
        with mistake(FileAccessError, f"cannot write {path}", remedy="folder exists"):
            net.save_parameters(path)  # here
    assert [p.name for p in saved.parent.iterdir()] == ["net.params"]


# -- data --------------------------------------------------------------------------------------


class Failing(gluon.data.Dataset):
    """Eight numbers, the sixth of which cannot be read."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> np.float32:
        if index == 5:
            raise KeyError("no picture")
        return np.float32(index)


def test_a_failing_worker() -> None:
    loader = gluon.data.DataLoader(Failing(), batch_size=4, num_workers=2)
    with mistake(DataLoaderError, "KeyError: 'no picture'", "item 5 of Failing", "Traceback",
                 'raise KeyError("no picture")', remedy="num_workers=0"):  # fmt: skip
        list(loader)  # here


def test_a_data_set_that_is_not_there(tmp_path: Path) -> None:
    with mistake(DatasetNotFoundError, "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                 str(tmp_path), remedy="root="):  # fmt: skip
        gluon.data.vision.MNIST(root=tmp_path, train=True)  # here


def test_items_of_different_shapes() -> None:
    loader = gluon.data.DataLoader([np.ones(3), np.ones(4)], batch_size=2)
    with mistake(ShapeError, "(3,) at position 0, (4,) at position 1", remedy="batchify.Pad()"):
        list(loader)  # here


def test_items_that_are_no_numbers() -> None:
    loader = gluon.data.DataLoader(["a", "b"], batch_size=2)
    with mistake(DTypeError, "str", remedy="batchify_fn"):
        list(loader)  # here


def test_a_batchify_function_that_is_none() -> None:
    with mistake(ArgumentError, "batchify_fn", "3", remedy="batchify.Pad()"):
        gluon.data.DataLoader([1, 2], batch_size=2, batchify_fn=3)  # here


def test_a_batch_size_that_is_no_integer() -> None:
    with mistake(ArgumentError, "batch_size", "2.5", remedy="batch_size=32"):
        gluon.data.DataLoader([1, 2, 3], batch_size=2.5)  # here


# -- values of the wrong kind ------------------------------------------------------------------


def test_compiling_what_is_no_function() -> None:
    with mistake(ArgumentError, "a NDArray", remedy="the function itself"):
        graphc.compile(X * 2)  # here


class Forgets(nn.HybridBlock):
    def forward(self, x: Any) -> Any:
        x * 2


@BLOCKS
def test_a_loss_of_a_forward_that_returns_nothing(mode: str) -> None:
    net, loss = as_network(mode, Forgets()), gluon.loss.SoftmaxCrossEntropyLoss()
    with mistake(ArgumentError, "SoftmaxCrossEntropyLoss got None", "'pred'", remedy="return"):
        loss(net(X), nd.zeros((2,)))  # here


@BLOCKS
def test_a_layer_behind_a_forward_that_returns_nothing(mode: str) -> None:
    net = nn.HybridSequential()
    net.add(Forgets(), nn.Dense(2))
    net = as_network(mode, net)
    with mistake(ArgumentError, "Dense got None for its input 'x'", remedy="return"):
        net(X)  # here


def test_a_shape_in_two_arguments() -> None:
    with mistake(ArgumentError, "device type 3", remedy="nd.ones((2, 3))"):
        nd.ones(2, 3)  # here


def test_the_gradient_by_integers() -> None:
    slope = graphc.grad(lambda x: (x * 2).sum())
    with mistake(DTypeError, "argument 0 holds int32", remedy="floating-point"):
        slope(nd.array([1, 2], dtype="int32"))  # here


def test_attaching_a_gradient_to_integers() -> None:
    x = nd.array([1, 2], dtype="int32")
    with mistake(DTypeError, "attach_grad()", "int32", remedy='astype("float32")'):
        x.attach_grad()  # here
    x.attach_grad("null")


def test_predictions_given_first_to_a_metric() -> None:
    accuracy = graphc.metric.Accuracy()
    with mistake(ShapeError, "(2, 3)", "(2,)", remedy="labels first"):
        accuracy.update(X, nd.zeros((2,)))  # here


def test_a_misspelt_engine() -> None:
    with mistake(ArgumentError, "'lvm'. Did you mean 'llvm'?", remedy="one of llvm, numba."):
        graphc.configure(engine="lvm")  # here


# -- symbols and devices -----------------------------------------------------------------------


def test_an_unbound_argument() -> None:
    total = sym.Variable("a") + sym.Variable("b")
    with mistake(BindError, "argument 'b'", remedy="a, b"):
        total.bind(graphc.cpu(), {"a": X})  # here


def test_an_argument_that_a_symbol_does_not_have() -> None:
    total = sym.Variable("left") + sym.Variable("right")
    with mistake(BindError, "'rigth'", "'right'", remedy="left, right"):
        total.bind(graphc.cpu(), {"left": X, "rigth": X})  # here


def test_arrays_that_do_not_fit_a_symbol() -> None:
    total = sym.Variable("a") + sym.Variable("b")  # here
    with mistake(ShapeError, "(2, 3) and (4, 5)", "operand 1 b", remedy="equal or 1"):
        total.bind(graphc.cpu(), {"a": X, "b": nd.ones((4, 5))}).forward()


def test_a_device_that_is_not_there() -> None:
    place = graphc.gpu(graphc.context.num_gpus())
    for run in (
        lambda: nd.ones((2,), ctx=place),
        lambda: X.as_in_context(place),
        lambda: as_network("imperative", nn.Dense(2)).collect_params().reset_ctx(place),
    ):
        with pytest.raises(DeviceError) as caught:
            run()
        text = str(caught.value)
        assert str(place) in text and "graphc.cpu()" in text and "num_gpus" in text
        assert f"[{Path(__file__).name}:" in text

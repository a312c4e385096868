"""What is refused: tensors that a library cannot take, and networks that cannot be exported."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, gluon, nd
from graphc.errors import (
    ArgumentError,
    CompileError,
    FileAccessError,
    MissingFileError,
    TraceError,
    UninitializedError,
)
from graphc.gluon import nn
from tests.exported import CUDA, DLTensor, Library, needs_cc, tensor, words

# -- tensors -----------------------------------------------------------------------------------

ROWS, COLUMNS, UNITS = 4, 6, 3
ARGUMENT, SHAPE, DTYPE, DEVICE, LAYOUT = 1, 2, 3, 4, 5


class Sum(gluon.HybridBlock):
    """A layer, and its input doubled; the second input has as many rows as the first."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Dense(UNITS)

    def forward(self, x: Any, y: Any) -> Any:
        return self.dense(x) + y, x * 2


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    net = Sum()
    net.initialize()
    examples = nd.zeros((2, COLUMNS)), nd.zeros((2, UNITS))
    return Library(net.export_library(tmp_path_factory.mktemp("errors") / "model", *examples))


def inputs() -> list[np.ndarray]:
    return [np.ones((ROWS, COLUMNS), np.float32), np.ones((ROWS, UNITS), np.float32)]


def outputs() -> list[np.ndarray]:
    return [np.ones((ROWS, UNITS), np.float32), np.ones((ROWS, COLUMNS), np.float32)]


IN, OUT = "input 0 (x0)", "output 1 (output1)"

TENSORS = {
    "axes": (
        "in", {"ndim": 3}, SHAPE,
        f"{IN} has 3 axes; it is float32[B1, 6]",
    ),
    "input size": (
        "in", {"shape": words(ROWS, 5)}, SHAPE,
        "axis 1 of input 0 (x0) is 5; it is float32[B1, 6]",
    ),
    "sizes that are equal": (
        "in", {"shape": words(ROWS - 1, COLUMNS)}, SHAPE,
        "axis 0 of input 1 (x1) is 4, where B1 is 3; it is float32[B1, 3]",
    ),
    "negative size": (
        "in", {"shape": words(-1, COLUMNS)}, SHAPE,
        "axis 0 of input 0 (x0) is -1; it is float32[B1, 6]",
    ),
    "no shape": ("in", {"shape": None}, ARGUMENT, f"{IN} has no shape: its pointer is null"),
    "kind of type": (
        "in", {"code": 0}, DTYPE,
        f"{IN} has DLPack type code 0 of 32 bits in 1 lanes; it is float32[B1, 6]",
    ),
    "bits": (
        "out", {"bits": 64}, DTYPE,
        f"{OUT} has DLPack type code 2 of 64 bits in 1 lanes; it is float32[B1, 6]",
    ),
    "lanes": (
        "in", {"lanes": 4}, DTYPE,
        f"{IN} has DLPack type code 2 of 32 bits in 4 lanes; it is float32[B1, 6]",
    ),
    "device": (
        "in", {"device_type": CUDA}, DEVICE,
        f"{IN} is on DLPack device type 2; it must be in memory of the CPU, type 1",
    ),
    "output size": (
        "out", {"shape": words(ROWS + 1, COLUMNS)}, SHAPE,
        "axis 0 of output 1 (output1) is 5 instead of B1, here 4; it is float32[B1, 6]",
    ),
    "fixed output size": (
        "out", {"shape": words(ROWS, COLUMNS + 1)}, SHAPE,
        "axis 1 of output 1 (output1) is 7 instead of 6",
    ),
    "no data": ("out", {"data": None}, ARGUMENT, f"{OUT} has no data: its pointer is null"),
    "strides": (
        "in", {"strides": words(1, ROWS)}, LAYOUT,
        f"{IN} is not contiguous: axis 1 has stride 4 instead of 1; pass a C-contiguous copy, or "
        "null strides",
    ),
    "gaps between rows": (
        "out", {"strides": words(2 * COLUMNS, 1)}, LAYOUT,
        f"{OUT} is not contiguous: axis 0 has stride 12 instead of 6; pass a C-contiguous copy, "
        "or null strides",
    ),
    "alignment": (
        "in", {"byte_offset": 2}, LAYOUT,
        f"{IN} begins at an address that is no multiple of 4 bytes",
    ),
}  # fmt: skip


@needs_cc
@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit(library, case):
    which, changes, status, text = TENSORS[case]
    given, made = inputs(), outputs()
    tensors = [tensor(a) for a in given], [tensor(a) for a in made]
    changed = tensors[0][0] if which == "in" else tensors[1][1]
    for name, value in changes.items():
        setattr(changed, name, value)
    assert library.call("run", *tensors)[0] == status
    assert library.error() == text
    assert all(np.array_equal(a, np.ones_like(a)) for a in made), "a call that failed wrote"


@needs_cc
def test_numbers_of_tensors(library):
    given, made = [tensor(a) for a in inputs()], [tensor(a) for a in outputs()]
    assert library.call("run", given[:1], made)[0] == ARGUMENT
    assert library.error() == "model has 2 inputs, got 1"
    assert library.call("run", given, [*made, made[0]])[0] == ARGUMENT
    assert library.error() == "model has 2 outputs, got 3"
    run = library.function("run")
    assert run(None, 2, None, 2) == ARGUMENT
    assert library.error() == "the array of inputs is null"
    assert run((DLTensor * 2)(*given), 2, None, 2) == ARGUMENT
    assert library.error() == "the array of outputs is null"


@needs_cc
def test_memory_that_is_shared(library):
    given, made = inputs(), outputs()
    run = ([tensor(a) for a in given], [tensor(made[0]), tensor(given[0])])
    assert library.call("run", *run)[0] == LAYOUT
    assert library.error() == "output 1 shares memory with input 0"
    both = np.ones((2 * ROWS, COLUMNS), np.float32)
    first, second = both.reshape(-1)[: ROWS * UNITS].reshape(ROWS, UNITS), both[:ROWS]
    run = ([tensor(a) for a in given], [tensor(first), tensor(second)])
    assert library.call("run", *run)[0] == LAYOUT
    assert library.error() == "output 1 shares memory with output 0"


@needs_cc
def test_sizes_that_no_memory_holds(library):
    x, y, rows = *inputs(), 2**61
    given = [tensor(a, shape=words(rows, a.shape[1])) for a in (x, y)]
    made = [tensor(a, shape=words(rows, a.shape[1])) for a in outputs()]
    assert library.call("run", given, made)[0] == SHAPE
    assert library.error() == (
        "the sizes are too large, or one of them is 0 where the model divides by it"
    )


@needs_cc
def test_forms_of_outputs_need_room(library):
    given = [tensor(a) for a in inputs()]
    assert library.call("infer", given, [DLTensor(), DLTensor()])[0] == ARGUMENT
    assert library.error() == "output 0 (output0) has no room for its shape: its pointer is null"
    assert library.call("infer", given[:1], [])[0] == ARGUMENT
    assert library.error() == "model has 2 inputs, got 1"


@needs_cc
def test_offsets_strides_and_empty_tensors_are_taken(library):
    x, y = inputs()
    shifted = np.concatenate([np.zeros(COLUMNS, np.float32), x.reshape(-1)])
    made = outputs()
    given = [
        tensor(x, data=shifted.ctypes.data, byte_offset=4 * COLUMNS, strides=words(COLUMNS, 1)),
        tensor(y),
    ]
    assert library.call("run", given, [tensor(a) for a in made])[0] == 0
    assert np.array_equal(made[1], 2 * x)
    empty = [tensor(a, shape=words(0, a.shape[1]), data=None) for a in inputs()]
    none = [tensor(a, shape=words(0, a.shape[1]), data=None) for a in outputs()]
    assert library.call("run", empty, none)[0] == 0
    one = [tensor(a, shape=words(1, a.shape[1]), strides=words(-7, 1)) for a in (x, y)]
    row = [tensor(a, shape=words(1, a.shape[1])) for a in made]
    assert library.call("run", one, row)[0] == 0, "the stride of one row is never used"


# -- networks and options ----------------------------------------------------------------------


def dense() -> nn.Dense:
    net = nn.Dense(2)
    net.initialize()
    return net


X = nd.zeros((1, 3))


@pytest.mark.parametrize("name", ["my-model", "2d", "lenet.so", "", "über"])
def test_a_name_that_c_does_not_take(tmp_path, name):
    with pytest.raises(ArgumentError, match=f"a library cannot be called {name!r}: functions in C"):
        dense().export_library(f"{tmp_path}/{name}", X)


def test_what_is_no_compiled_function(tmp_path):
    with pytest.raises(ArgumentError, match="takes a compiled function, got a Dense"):
        graphc.export_library(dense(), tmp_path / "model", X)  # type: ignore[arg-type]


def test_an_unknown_target(tmp_path):
    text = (
        r"there is no target 'x86-64-v5'\. Did you mean 'x86-64-v4'\?.*\n.*"
        "Targets are host, x86-64-v3, x86-64-v4, aarch64"
    )
    with pytest.raises(ArgumentError, match=text):
        dense().export_library(tmp_path / "model", X, target="x86-64-v5")


def test_an_unknown_place_of_weights(tmp_path):
    with pytest.raises(ArgumentError, match="weights cannot lie 'besides'. Did you mean 'beside'?"):
        dense().export_library(tmp_path / "model", X, weights="besides")


def test_a_network_without_parameters_yet(tmp_path):
    with pytest.raises(UninitializedError, match="weight"):
        nn.Dense(2).export_library(tmp_path / "model", X)


def test_a_network_that_was_not_called(tmp_path):
    net = dense()
    net.hybridize()
    text = "dense.* was not called for prediction yet, so its inputs are not known"
    with pytest.raises(ArgumentError, match=text):
        net.export_library(tmp_path / "model")
    with autograd.record():
        net(X)
    with pytest.raises(ArgumentError, match=text):
        net.export_library(tmp_path / "model")


def test_a_network_with_several_kinds_of_inputs(tmp_path):
    net = nn.HybridSequential()
    net.add(nn.GlobalAvgPool2D(), nn.Flatten())
    net.hybridize()
    net(nd.zeros((1, 3, 4, 4)))
    net(nd.zeros((1, 3, 4, 4), dtype="float64"))
    with pytest.raises(ArgumentError, match="called with 2 kinds of inputs, of which a library ta"):
        net.export_library(tmp_path / "model")


class Function(gluon.HybridBlock):
    """A function as a network."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


def test_random_numbers(tmp_path):
    net = Function(lambda x: x + nd.random.uniform(shape=(3,)))
    with pytest.raises(ArgumentError, match="model draws random numbers, which an exported lib"):
        net.export_library(tmp_path / "model", X)


def test_state(tmp_path):
    seen = nd.zeros((1, 3))

    def counted(x: Any) -> Any:
        seen[:] = seen + x
        return seen * 1

    with pytest.raises(ArgumentError, match="model changes captured0 when it runs, and an"):
        Function(counted).export_library(tmp_path / "model", X)


def test_functions_in_python(tmp_path):
    class Double(autograd.Function):
        def forward(self, x: Any) -> Any:
            return 2 * x

    with pytest.raises(TraceError, match="Double is an autograd.Function, which runs in Python"):
        Function(lambda x: Double()(x)).export_library(tmp_path / "model", X)


@graphc.kernel("x: f32[n, k] -> y: f32[n, k]")
def printed(x, y):
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            print(x[row, column])
            y[row, column] = x[row, column]


def test_a_kernel_that_calls_python(tmp_path):
    text = r"the code of model calls .*, which a library without.*\n.*graphc.kernel \(printed\)"
    with pytest.raises(CompileError, match=text):
        Function(lambda x: printed(x)).export_library(tmp_path / "model", X)


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "none" / "model"
    with pytest.raises(MissingFileError, match=f"cannot write {path.parent}.*: No such file"):
        dense().export_library(path, X)


@needs_cc
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def full(path: Any, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("graphc.frontend.export_library._write", full)
    with pytest.raises(FileAccessError, match=r"cannot write .*model.h: No space left on device"):
        dense().export_library(tmp_path / "model", X)


def linker(folder: Path, body: str) -> str:
    path = folder / "linker"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_linker_that_fails(tmp_path):
    name = linker(tmp_path, "echo 'cannot find -lpthread' >&2; exit 3")
    (tmp_path / "libmodel.so").write_text("before")
    with pytest.raises(CompileError, match="failed with status 3: cannot find -lpthread") as caught:
        dense().export_library(tmp_path / "model", X, linker=name)
    assert "The command was: " in str(caught.value)
    assert (tmp_path / "libmodel.so").read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "libmodel.so", "linker", "model.h", "model.json"
    ]  # fmt: skip

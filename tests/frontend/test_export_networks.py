"""Exported libraries of many networks: recurrent ones, checks, element types, derived sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import gluon, nd
from graphc.gluon import nn, rnn
from tests.exported import Library, arrays_of, equal, needs_cc


class Classifier(gluon.HybridBlock):
    """Words to classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dense = nn.Embedding(50, 8), nn.Dense(3)

    def forward(self, words: Any) -> Any:
        return self.dense(self.embedding(words).mean(axis=1))


class Recurrent(gluon.HybridBlock):
    """A sequence to classes and the last state."""

    def __init__(self, kind: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.dense = kind(16, num_layers=2, bidirectional=True), nn.Dense(3)

    def forward(self, x: Any) -> Any:
        steps = self.layer(x)
        return self.dense(steps.mean(axis=0)), steps.max(axis=0)


class Function(gluon.HybridBlock):
    """A function as a network."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def exported(net: Any, path: Path, *arrays: np.ndarray, **options: Any) -> Library:
    """Export a network, and compare what it computes on some arrays."""
    net.initialize(graphc.init.Xavier())
    net.hybridize()
    expected = arrays_of(net(*[nd.array(a, dtype=a.dtype) for a in arrays]))
    library = Library(net.export_library(path / "model", **options))
    equal(library.run(*arrays, like=expected), expected)
    return library


def drawn(*shape: int, dtype: str = "float32") -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * 20).astype(dtype)


@needs_cc
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
def test_words_out_of_range_are_errors(tmp_path, dtype):
    words = np.random.default_rng(0).integers(0, 50, (4, 6)).astype(dtype)
    library = exported(Classifier(), tmp_path, words)
    good = library.run(words[:2], like=[np.zeros((2, 3), np.float32)])
    wrong = words[:2].copy()
    wrong[1, 3] = 50
    with pytest.raises(AssertionError, match=r"index 50 at position 9 is out of range: .* 0 \.\."):
        library.run(wrong, like=good)
    assert "Classifier.embedding]" in library.error()
    equal(library.run(words[:2], like=good), good)


@needs_cc
@pytest.mark.parametrize("kind", [rnn.LSTM, rnn.GRU])
def test_sequences_of_any_length(tmp_path, kind):
    net = Recurrent(kind)
    library = exported(net, tmp_path, drawn(5, 4, 6))
    for steps, batch in ((1, 1), (12, 4), (5, 33)):
        x = drawn(steps, batch, 6)
        expected = arrays_of(net(nd.array(x)))
        equal(library.run(x, like=expected), expected)


@needs_cc
@pytest.mark.parametrize(
    "dtype",
    ["float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"],
)
def test_element_types(tmp_path, dtype):
    net = Function(lambda x, y: (x + y, nd.cast(x, "float32").sum(axis=1)))
    library = exported(net, tmp_path, drawn(5, 40, dtype=dtype), drawn(5, 40, dtype=dtype))
    x, y = drawn(0, 40, dtype=dtype), drawn(0, 40, dtype=dtype)
    expected = arrays_of(net(nd.array(x, dtype=dtype), nd.array(y, dtype=dtype)))
    equal(library.run(x, y, like=expected), expected)


@needs_cc
def test_a_network_in_float64(tmp_path):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3), nn.BatchNorm(), nn.Dense(5, activation="tanh"), nn.LayerNorm())
    net.cast("float64")
    exported(net, tmp_path, drawn(3, 2, 8, 8, dtype="float64"))


@needs_cc
def test_outputs_that_are_inputs_and_constants(tmp_path):
    fixed = nd.array([1.0, 2.0, 3.0])
    net = Function(lambda x: (x, fixed, x.reshape((-1,)), x + fixed))
    exported(net, tmp_path, drawn(4, 3))


@needs_cc
def test_sizes_that_follow_from_others(tmp_path):
    def halves(x: Any, y: Any, z: Any) -> Any:
        both = nd.concat(x, x, y, dim=0)
        return x[::2], both * z, nd.dot(x, y.transpose()), z[1:]

    net = Function(halves)
    library = exported(net, tmp_path, drawn(4, 3), drawn(6, 3), drawn(14, 3))
    for rows in ((2, 9, 13), (7, 1, 15)):
        arrays = [drawn(count, 3) for count in rows]
        expected = arrays_of(net(*map(nd.array, arrays)))
        equal(library.run(*arrays, like=expected), expected)
    text = r"axis 0 of input 2 \(x2\) is 16, where B\*2 \+ B1 is 15"
    with pytest.raises(AssertionError, match=text):
        library.run(drawn(7, 3), drawn(1, 3), drawn(16, 3), like=expected)


@graphc.kernel("x: f32[n, k] -> y: f32[n, k]")
def damped(x, y):
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            y[row, column] = np.exp(-abs(x[row, column]))


@needs_cc
def test_kernels_in_python_that_need_none(tmp_path):
    exported(Function(lambda x: damped(x) + 1), tmp_path, drawn(4, 3))


@needs_cc
def test_the_other_engine_writes_the_same(tmp_path):
    net = nn.HybridSequential()
    net.add(nn.Dense(4, activation="relu"), nn.LayerNorm(), Function(lambda x: x.sum(axis=1)))
    with graphc.options(engine="numba"):
        exported(net, tmp_path, drawn(4, 3))


@needs_cc
def test_compiled_functions(tmp_path):
    scale = nd.array([[2.0, 3.0, 4.0]])
    slopes = graphc.compile(graphc.grad(lambda x: (nd.sin(x) * scale).sum()))
    x = drawn(4, 3)
    expected = arrays_of(slopes(nd.array(x)))
    library = Library(graphc.export_library(slopes, tmp_path / "slopes"))
    equal(library.run(x, like=expected), expected)


@needs_cc
def test_examples_instead_of_a_call(tmp_path):
    net = nn.HybridSequential()
    net.add(nn.Dense(8), nn.Dropout(0.5), nn.BatchNorm(), nn.Dense(2))
    net.initialize(graphc.init.Xavier())
    x = drawn(4, 3)
    with graphc.autograd.record():  # a library predicts, wherever it is made
        library = Library(net.export_library(tmp_path / "model", nd.array(x)))
    net.hybridize()
    expected = arrays_of(net(nd.array(x)))
    equal(library.run(x, like=expected), expected)

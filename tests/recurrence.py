"""What the tests of recurrent layers and of cells share: NumPy's formulas, blocks with values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.gluon import rnn

MODES = pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "compiled"])
STEPS, BATCH, INPUTS, UNITS = 5, 3, 4, 2


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def stepped(
    kind: str, x: np.ndarray, states: list[np.ndarray], weights: list[np.ndarray]
) -> list[np.ndarray]:
    w, u, b, c = weights
    of_x, of_h = x @ w.T + b, states[0] @ u.T + c
    if kind == "lstm":
        i, f, g, o = np.split(of_x + of_h, 4, 1)
        cell = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
        return [sigmoid(o) * np.tanh(cell), cell]
    if kind == "gru":
        (xr, xz, xn), (hr, hz, hn) = np.split(of_x, 3, 1), np.split(of_h, 3, 1)
        z = sigmoid(xz + hz)
        return [(1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * states[0]]
    total = of_x + of_h
    return [np.tanh(total) if kind == "rnn_tanh" else np.maximum(total, 0)]


def expected(
    kind: str, x: np.ndarray, layers: list[list[list[np.ndarray]]], states: list[np.ndarray],
    lengths: Any = None,
) -> tuple[np.ndarray, list[np.ndarray]]:  # fmt: skip
    """Return outputs and states, sequence after sequence, step after step."""
    lengths = [len(x)] * x.shape[1] if lengths is None else lengths
    ends = [np.empty_like(s) for s in states]
    x, number = x.astype(np.float64), 0
    for layer in layers:
        outputs = []
        for reverse, weights in enumerate(layer):
            found = np.zeros((len(x), x.shape[1], weights[1].shape[1]))
            for n, length in enumerate(lengths):
                now = [s[number, n : n + 1].astype(np.float64) for s in states]
                for t in range(length)[:: -1 if reverse else 1]:
                    now = stepped(kind, x[t, n : n + 1], now, weights)
                    found[t, n] = now[0][0]
                for end, value in zip(ends, now, strict=True):
                    end[number, n] = value[0]
            outputs.append(found)
            number += 1
        x = np.concatenate(outputs, 2)
    return x, ends


def layer_of(kind: str, **options: Any) -> Any:
    if kind == "lstm":
        return rnn.LSTM(UNITS, **options)
    if kind == "gru":
        return rnn.GRU(UNITS, **options)
    return rnn.RNN(UNITS, activation=kind[4:], **options)


def started(block: Any, hybridize: bool, *inputs: Any) -> Any:
    """Initialize a block, biases too, and run it once."""
    block.initialize(graphc.init.Normal(0.5))
    if hybridize:
        block.hybridize()
    block(*inputs)
    for number, (name, parameter) in enumerate(block.collect_params().items()):
        if name.endswith("bias"):
            parameter.set_data(drawn(*parameter.shape, seed=number))
    return block


def weights_of(layer: Any, layers: int, directions: int) -> list[list[list[np.ndarray]]]:
    values = [p.data().asnumpy() for p in layer.collect_params().values()]
    rows = [values[k : k + 4] for k in range(0, len(values), 4)]
    return [rows[n * directions : (n + 1) * directions] for n in range(layers)]


def close(found: Any, wanted: Any, tolerance: float = 2e-5) -> None:
    found = found.asnumpy() if hasattr(found, "asnumpy") else found
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=20 * tolerance, atol=tolerance)

"""Winograd's convolutions in training: where they are used, what they compute, how they err."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from graphc import config
from graphc.codegen.cpu import host_target
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import interpret
from graphc.ir.operand import REGISTRY
from graphc.ir.ops.winograd import DATA, SUMS, WEIGHTS
from graphc.ir.types import TensorType, float32, tensor_type
from graphc.ir.verify import verify
from graphc.passes.manager import compile_graph
from graphc.passes.winograd_training import winograd
from graphc.runtime.program import Program

CONV, WEIGHT_GRADIENT = REGISTRY["conv"], REGISTRY["conv_weight_grad"]
N, H, W = map(symbol, "NHW")


def images(channels: object = 64, dtype: str = "float32") -> Value:
    kind = tensor_type(dtype, (1,)).dtype
    return placeholder("x", TensorType(kind, (N, channels, H, W)))


def weights(out: object = 64, channels: object = 64, dtype: str = "float32") -> Value:
    kind = tensor_type(dtype, (1,)).dtype
    return placeholder("w", TensorType(kind, (out, channels, 3, 3)))


def trained(x: Value, w: Value, **attrs: object) -> Graph:
    """Return a graph of a convolution's results and of both its gradients."""
    y = CONV(x, w, **attrs)
    g = placeholder("g", y.type)
    return Graph("g", (x, w, g), (y, *CONV.vjp(g, y, x, w, **y.node.attrs)))


def counted(graph: Graph) -> Counter[str]:
    return Counter(node.op.name for node in graph.nodes)


def drawn(sizes: tuple[int, int, int], pad: tuple[int, int], out: int, channels: int) -> list:
    rng = np.random.default_rng(sum(sizes))
    batch, *spatial = sizes
    counts = [n + 2 * p - 2 for n, p in zip(spatial, pad, strict=True)]
    shapes = (batch, channels, *spatial), (out, channels, 3, 3), (batch, out, *counts)
    return [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]


def test_the_gradient_in_the_weights_is_winograds_too() -> None:
    """``G' ((A g) * (B' x))`` is the gradient of ``A' ((G w) * (B' x))`` in ``w``, by ``g``."""
    x, g = np.arange(6) - 2.5, np.array([1.0, -2.0, 0.5, 3.0])
    b, weights_, a = (np.array(m) for m in (DATA, WEIGHTS, SUMS))
    found = weights_.T @ ((a.T @ g) * (b @ x))
    np.testing.assert_allclose(found, np.correlate(x, g, "valid"), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("pad", [(0, 0), (1, 1), (2, 2), (0, 2)])
@pytest.mark.parametrize("sizes", [(1, 4, 4), (2, 7, 9), (3, 3, 16), (0, 5, 5), (5, 8, 12)])
def test_it_computes_the_convolution_and_its_gradients(
    pad: tuple[int, int], sizes: tuple[int, int, int]
) -> None:
    plain = trained(images(), weights(72), pad=pad)
    graph = winograd(plain)
    verify(graph)
    assert {"conv", "conv_data_grad", "conv_weight_grad"}.isdisjoint(counted(graph))
    arrays = drawn(sizes, pad, 72, 64)
    wanted = interpret(plain, arrays)
    for found in (interpret(graph, arrays), Program(compile_graph(graph, host_target()))(arrays)):
        for result, exact in zip(found, wanted, strict=True):
            np.testing.assert_allclose(result, exact, rtol=1e-4, atol=1e-4)


def test_arrays_that_two_convolutions_read_are_turned_once() -> None:
    found = counted(winograd(trained(images(), weights(), pad=1)))
    # Data and gradient; weights, the same turned around, and the gradient in the weights.
    assert found["transpose"] == 2 + 3
    assert found["winograd_tiles"] == 4 and found["matmul"] == 3


@pytest.mark.parametrize(("channels", "side", "batch"), [(64, 32, 8), (256, 8, 16), (512, 4, 32)])
def test_errors_of_the_weights_gradient(channels: int, side: int, batch: int) -> None:
    """As docs/numerics.md states, for data of a rectifier."""
    rng = np.random.default_rng(channels)
    shape = (batch, channels, side, side)
    x = np.maximum(rng.standard_normal(shape), 0).astype(np.float32)
    g = rng.standard_normal((batch, 64, side, side)).astype(np.float32)
    data = placeholder("x", TensorType(float32, (N, channels, H, W)))
    given = placeholder("g", TensorType(float32, (N, 64, H, W)))
    attrs = {"stride": (1, 1), "pad": (1, 1), "dilate": (1, 1), "groups": 1, "window": (3, 3)}
    graph = winograd(Graph("g", (data, given), (WEIGHT_GRADIENT(given, data, **attrs),)))
    assert "winograd_tiles" in counted(graph)
    (found,) = Program(compile_graph(graph, host_target()))([x, g])
    exact = WEIGHT_GRADIENT.reference(g.astype(np.float64), x.astype(np.float64), **attrs)
    error = np.abs(found - exact)
    assert error.max() < 6e-6 * np.abs(exact).max()


LEFT: dict[str, tuple[Value, Value, dict[str, object]]] = {
    "a stride": (images(), weights(), {"stride": 2, "pad": 1}),
    "groups": (images(128), weights(128, 64), {"groups": 2}),
    "few input channels": (images(48), weights(64, 48), {}),
    "few output channels": (images(), weights(48), {}),
    "unknown channels": (images(symbol("C")), weights(64, symbol("C")), {}),
    "float64": (images(dtype="float64"), weights(dtype="float64"), {}),
}


@pytest.mark.parametrize("name", LEFT)
def test_where_it_is_not_used(name: str) -> None:
    x, w, attrs = LEFT[name]
    assert set(counted(winograd(trained(x, w, **attrs)))) == {
        "conv", "conv_data_grad", "conv_weight_grad",
    }  # fmt: skip


def test_the_option() -> None:
    graph = trained(images(), weights(), pad=1)
    with config.options(winograd=False):
        assert winograd(graph) is graph


def test_weights_that_are_not_trained_are_left() -> None:
    x, w = images(), weights()
    graph = Graph("g", (x, w), (CONV(x, w, pad=1),))
    assert winograd(graph) is graph

"""Winograd's convolutions: where they are used, what they compute, how much they err."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sample_graphs import op

from graphc import config
from graphc.codegen.cpu import host_target
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import interpret
from graphc.ir.operand import REGISTRY
from graphc.ir.ops.winograd import DATA, SUMS, WEIGHTS
from graphc.ir.types import TensorType, float32, tensor_type
from graphc.ir.verify import verify
from graphc.passes.fold import Settled
from graphc.passes.hoist import hoist
from graphc.passes.manager import compile_graph
from graphc.passes.winograd import PREPARED_BYTES, winograd_prepared
from graphc.runtime.program import Program

CONV = REGISTRY["conv"]
N, H, W = map(symbol, "NHW")


def images(channels: object = 32, dtype: str = "float32") -> Value:
    kind = tensor_type(dtype, (1,)).dtype
    return placeholder("x", TensorType(kind, (N, channels, H, W)))


def weights(
    out: object = 32, channels: object = 32, window: int = 3, dtype: str = "float32"
) -> Value:
    kind = tensor_type(dtype, (1,)).dtype
    return placeholder("w", TensorType(kind, (out, channels, window, window)))


def prepared(value: Value, x: Value, w: Value) -> Graph:
    graph = winograd_prepared(Graph("g", (x, w), (value,)), Settled((w,)))
    verify(graph)
    return graph


def ops(graph: Graph) -> set[str]:
    return {node.op.name for node in graph.nodes}


@pytest.mark.parametrize(
    ("tile", "window"), list(itertools.product([0.5, 1.0], [(1.0, 2.0, 3.0), (0.0, 0.0, 1.0)]))
)
def test_the_matrices_multiply_polynomials(tile: float, window: tuple[float, ...]) -> None:
    """``A' ((G w) * (B' x))`` is the correlation, in float64 to the last bits."""
    x = np.arange(6) * tile - 1.0
    b, g, a = (np.array(m) for m in (DATA, WEIGHTS, SUMS))
    found = a @ ((g @ window) * (b @ x))
    np.testing.assert_allclose(found, np.correlate(x, window, "valid"), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["conv", "conv_data_grad"])
@pytest.mark.parametrize("pad", [(0, 0), (1, 1), (2, 2), (0, 2)])
@pytest.mark.parametrize("sizes", [(1, 4, 4), (2, 7, 9), (3, 3, 16), (0, 5, 5)])
def test_it_computes_the_convolution(
    name: str, pad: tuple[int, int], sizes: tuple[int, int, int]
) -> None:
    x, w = images(), weights(40)
    value = CONV(x, w, pad=pad)
    rng = np.random.default_rng(0)
    batch, *spatial = sizes
    given = [(batch, 32, *spatial), (40, 32, 3, 3)]
    if name == "conv_data_grad":
        y = placeholder("y", value.type)
        counts = [n + 2 * p - 2 for n, p in zip(spatial, pad, strict=True)]
        value = op(name, y, w, spatial=(H, W), pad=pad)
        x, given = y, [(batch, 40, *counts), (40, 32, 3, 3), (batch, 32, *spatial)]
    inputs = (x, w) if name == "conv" else (x, w, images())
    graph = winograd_prepared(Graph("g", inputs, (value,)), Settled((w,)))
    assert name not in ops(graph) and "winograd_data" in ops(graph)
    arrays = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in given]
    (wanted,) = interpret(Graph("g", inputs, (value,)), arrays)
    for found in (interpret(graph, arrays), Program(compile_graph(graph, host_target()))(arrays)):
        np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("channels", "out"), [(32, 48), (64, 48), (256, 48), (512, 48), (256, 256)]
)
def test_errors_stay_within_the_tolerance_of_the_record(channels: int, out: int) -> None:
    """As docs/numerics.md states: scaled as layers are, and 6 parts in a million of the largest."""
    rng = np.random.default_rng(channels)
    data = np.maximum(rng.standard_normal((1, channels, 16, 16)), 0).astype(np.float32)
    scale = np.sqrt(2 / (9 * channels))
    kernel = (scale * rng.standard_normal((out, channels, 3, 3))).astype(np.float32)
    x, w = images(channels), weights(out, channels)
    graph = prepared(CONV(x, w, pad=1), x, w)
    assert "winograd_data" in ops(graph)
    exact = CONV.reference(
        data.astype(np.float64), kernel.astype(np.float64), stride=(1, 1), pad=(1, 1),
        dilate=(1, 1), groups=1,
    )  # fmt: skip
    (found,) = Program(compile_graph(graph, host_target()))([data, kernel])
    rtol, atol = CONV.tolerance[float32]
    error = np.abs(found - exact)
    assert (error / (atol + rtol * np.abs(exact))).max() < 1
    assert error.max() < 6e-6 * np.abs(exact).max()


LEFT: dict[str, tuple[Value, Value, dict[str, object]]] = {
    "a stride": (images(), weights(), {"stride": 2, "pad": 1}),
    "a dilation": (images(), weights(), {"dilate": 2}),
    "groups": (images(64), weights(64, 32), {"groups": 2}),
    "another window": (images(), weights(window=5), {}),
    "much padding": (images(), weights(), {"pad": 3}),
    "few input channels": (images(8), weights(32, 8), {}),
    "few output channels": (images(), weights(8), {}),
    "unknown channels": (images(symbol("C")), weights(32, symbol("C")), {}),
    "float64": (images(dtype="float64"), weights(dtype="float64"), {}),
    "large weights": (images(512), weights(512, 512), {"pad": 1}),
}


@pytest.mark.parametrize("name", LEFT)
def test_where_it_is_not_used(name: str) -> None:
    x, w, attrs = LEFT[name]
    assert ops(prepared(CONV(x, w, **attrs), x, w)) == {"conv"}


def test_large_weights_are_large() -> None:
    assert 36 * 512 * 512 * 4 > PREPARED_BYTES >= 36 * 256 * 256 * 4


@pytest.mark.parametrize(("channels", "tiles_are_rows"), [(255, False), (256, True)])
def test_kept_weights_of_many_channels_are_columns(channels: int, tiles_are_rows: bool) -> None:
    x, w = images(channels), weights(channels + 16, channels)
    graph = prepared(CONV(x, w, pad=1), x, w)
    (product,) = (node for node in graph.nodes if node.op.name == "matmul")
    assert (product.types[0].shape[-1] == channels + 16) == tiles_are_rows


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_tiles_as_rows_give_the_convolution(batch: int) -> None:
    x, w = images(256), weights(264, 256)
    value = CONV(x, w, pad=1)
    rng = np.random.default_rng(batch)
    arrays = [
        rng.uniform(-1, 1, shape).astype(np.float32)
        for shape in ((batch, 256, 7, 9), (264, 256, 3, 3))
    ]
    arrays[1] /= 16
    (wanted,) = interpret(Graph("g", (x, w), (value,)), arrays)
    plan = compile_graph(prepared(value, x, w), host_target())
    (found,) = Program(plan)(arrays)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)


def test_the_option() -> None:
    x, w = images(), weights()
    with config.options(winograd=False):
        assert ops(prepared(CONV(x, w, pad=1), x, w)) == {"conv"}


def test_weights_that_come_as_arguments_are_not_transformed_at_each_call() -> None:
    x, w = images(), weights()
    graph = Graph("g", (x, w), (CONV(x, w, pad=1),))
    assert ops(winograd_prepared(graph, Settled(()))) == {"conv"}


def test_predict_mode_keeps_the_transformed_weights() -> None:
    x, w = images(), weights()
    cut = hoist(Graph("g", (x, w), (CONV(x, w, pad=1),)), (1,))
    assert cut is not None
    assert "winograd_transform" in ops(cut.prepare)
    assert [v.shape for v in cut.prepare.outputs] == [(6, 6, 32, 32)]
    assert [n.op.name for n in cut.main.nodes].count("winograd_transform") == 1

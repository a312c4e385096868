"""Gradients of a convolution in front of a max pool: where they are taken, what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sample_graphs import op

from graphc import config
from graphc.codegen.cpu import host_target
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, constant, placeholder
from graphc.ir.interp import interpret
from graphc.ir.operand import REGISTRY
from graphc.ir.types import TensorType, tensor_type
from graphc.ir.verify import verify
from graphc.passes.canonicalize import canonicalize
from graphc.passes.manager import compile_graph
from graphc.passes.pooled_gradients import pooled_gradients
from graphc.runtime.program import Program

N = symbol("N")
TWO = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0)}
Arrays = list[np.ndarray]


def trained(
    data: tuple[Any, ...], weights: tuple[int, ...], pool: dict[str, Any], relu: bool = True,
    dtype: str = "float32", **attrs: Any,
) -> Graph:  # fmt: skip
    """Return a graph of both gradients of a convolution that a pool follows."""
    x = placeholder("x", TensorType(tensor_type(dtype, ()).dtype, (N, *data)))
    w = placeholder("w", tensor_type(dtype, weights))
    y = op("conv", x, w, **attrs)
    z = op("relu", y) if relu else y
    p = op("max_pool", z, *pool.values())
    g = placeholder("g", p.type)
    (spread,) = REGISTRY["max_pool"].vjp(g, p, z, **p.node.attrs)
    if relu:
        spread = op("where", op("greater", z, constant(0.0, dtype)), spread, constant(0.0, dtype))
    gradients = REGISTRY["conv"].vjp(spread, y, x, w, **y.node.attrs)
    return canonicalize(Graph("g", (x, w, g), gradients))


def names(graph: Graph) -> set[str]:
    return {node.op.name for node in graph.nodes}


def drawn(graph: Graph, batch: int, dtype: str = "float32") -> Arrays:
    rng = np.random.default_rng(batch)
    shapes = [(batch, *v.shape[1:]) if v.shape[0] == N else v.shape for v in graph.inputs]
    return [rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize(
    ("data", "weights", "pool", "options"),
    [
        ((1, 14, 14), (20, 1, 5, 5), TWO, {}),
        ((20, 12, 12), (11, 20, 5, 5), TWO, {}),
        ((3, 9, 13), (8, 3, 3, 3), TWO, {"pad": 1, "relu": False}),
        ((17, 8, 9), (2, 17, 2, 3), TWO, {"pad": (0, 2)}),
        ((40, 9, 9), (3, 40, 3, 5), TWO, {}),
        ((4, 13, 11), (9, 4, 3, 5), {**TWO, "kernel": (3, 3), "pad": (1, 1)}, {}),
        ((2, 15, 12), (5, 2, 3, 3), {**TWO, "kernel": (2, 3), "stride": (4, 3)}, {"pad": 1}),
    ],
)
def test_it_computes_the_gradients(
    data: tuple[int, ...], weights: tuple[int, ...], pool: dict[str, Any],
    options: dict[str, Any], batch: int,
) -> None:  # fmt: skip
    for dtype, tolerance in (("float32", 1e-4), ("float64", 1e-11)):
        plain = trained(data, weights, pool, dtype=dtype, **options)
        graph = pooled_gradients(plain)
        verify(graph)
        assert {"pooled_data_grad", "pooled_weight_grad"} <= names(graph)
        assert {"max_pool_grad", "conv_data_grad", "conv_weight_grad"}.isdisjoint(names(graph))
        arrays = drawn(graph, batch, dtype)
        wanted = interpret(plain, arrays)
        program = Program(compile_graph(graph, host_target()))
        for found in (interpret(graph, arrays), program(arrays)):
            for result, exact in zip(found, wanted, strict=True):
                np.testing.assert_allclose(result, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("data", "weights", "pool", "options"),
    [
        ((4, 12, 12), (8, 4, 5, 5), TWO, {"stride": 2}),
        ((4, 12, 12), (8, 4, 3, 3), TWO, {"dilate": 2}),
        ((4, 12, 12), (8, 2, 3, 3), TWO, {"groups": 2}),
        ((4, 12, 12), (8, 4, 3, 3), {**TWO, "stride": (1, 2)}, {}),  # half of them are not zero
        ((4, 12, 12), (8, 4, 1, 1), TWO, {}),  # products in a row take less
        ((1, 90, 90), (8, 1, 5, 5), TWO, {}),  # too long a list
        ((64, 12, 12), (64, 64, 3, 3), TWO, {"pad": 1}),  # Winograd saves as much
        ((4, symbol("H"), 12), (8, 4, 3, 3), TWO, {}),
    ],
)
def test_others_stay(
    data: tuple[Any, ...], weights: tuple[int, ...], pool: dict[str, Any], options: dict[str, Any]
) -> None:
    plain = trained(data, weights, pool, **options)
    assert pooled_gradients(plain).nodes == plain.nodes


def test_winograds_are_taken_where_it_is_off() -> None:
    plain = trained((64, 12, 12), (64, 64, 3, 3), TWO, pad=1)
    with config.options(winograd=False):
        assert "pooled_weight_grad" in names(pooled_gradients(plain))


def test_a_large_image_is_not_kept_at_hand() -> None:
    graph = pooled_gradients(trained((64, 40, 40), (8, 64, 5, 5), TWO))
    assert {"conv_data_grad", "pooled_weight_grad"} <= names(graph)


def test_gradients_of_zero_are_left_out() -> None:
    """Of an infinite element that no gradient meets, too: the sum of zeros times it is not NaN."""
    graph = pooled_gradients(trained((20, 12, 12), (11, 20, 5, 5), TWO))
    x, w, g = drawn(graph, 2)
    x[1, 3] = np.inf
    g[1] = 0.0
    by_data, by_weights = Program(compile_graph(graph, host_target()))([x, w, g])
    assert np.isfinite(by_weights).all()
    assert not by_data[1].any()


def test_nan_arrives() -> None:
    graph = pooled_gradients(trained((20, 12, 12), (11, 20, 5, 5), TWO, relu=False))
    x, w, g = drawn(graph, 1)
    g[0, 4, 1, 1] = np.nan
    by_data, by_weights = Program(compile_graph(graph, host_target()))([x, w, g])
    assert np.isnan(by_weights[4]).all() and np.isfinite(by_weights[:4]).all()
    assert np.isnan(by_data).any() and not np.isnan(by_data).all()

"""Channels last inside a program: where, with which ops, and with the same results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sample_graphs import op

from graphc.codegen.cpu import host_target
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import interpret
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, float32, tensor_type
from graphc.ir.verify import verify
from graphc.passes.canonicalize import canonicalize
from graphc.passes.fold import Settled
from graphc.passes.layout import FIRST, LAST, layout
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program

N, H, W = map(symbol, "NHW")


class Net:
    """Collects the weights of a network; each is a parameter."""

    def __init__(self, channels: int = 3) -> None:
        self.x = placeholder("x", TensorType(float32, (N, channels, H, W)))
        self.weights: list[Value] = []

    def weight(self, *shape: int) -> Value:
        self.weights.append(placeholder(f"w{len(self.weights)}", tensor_type("float32", shape)))
        return self.weights[-1]

    def conv(self, x: Value, out: int, window: int = 1, bias: bool = True, **attrs: int) -> Value:
        own = x.shape[1] // attrs.get("groups", 1)
        found: Value = op("conv", x, self.weight(out, own, window, window), **attrs)
        return found + self.weight(1, out, 1, 1) if bias else found

    def graph(self, *results: Value) -> Graph:
        graph = canonicalize(Graph("g", (self.x, *self.weights), results))
        verify(graph)
        return graph

    def turned(self, *results: Value) -> Graph:
        graph = layout(self.graph(*results), Settled(self.weights))
        verify(graph)
        return graph


def turns(graph: Graph) -> list[tuple[int, ...]]:
    """Return the transposes of data between the two layouts."""
    axes = [n.attrs["axes"] for n in graph.nodes if n.op.name == "transpose"]
    return [a for a in axes if a in (FIRST, LAST)]


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def pooled(x: Value) -> Value:
    return op("sum", x, axis=(2, 3), keepdims=True)


def stem(net: Net) -> Value:
    x = op("relu", net.conv(net.x, 16, 7, stride=2, pad=3))
    return op("max_pool", x, kernel=3, stride=2, pad=1)


def residual(net: Net) -> Value:
    x = stem(net)
    y = net.conv(op("relu", net.conv(x, 8)), 32, 3, stride=2, pad=1)
    return pooled(op("relu", y + net.conv(x, 32, stride=2)))


def depthwise(net: Net) -> Value:
    x = stem(net)
    y = op("clip", net.conv(x, 40), low=0.0, high=6.0)
    y = op("clip", net.conv(y, 40, 3, pad=1, groups=40), low=0.0, high=6.0)
    y = net.conv(net.conv(y, 16) + x, 24, bias=False)
    return pooled(net.conv(y, 24, 3, stride=2, pad=1, groups=24))


def winograd(net: Net) -> Value:
    x = net.conv(stem(net), 32)
    y = op("relu", net.conv(x, 32, 3, pad=1))
    return pooled(op("relu", net.conv(y, 32, 3, pad=1) + x))


def gated(net: Net) -> Value:
    x = net.conv(stem(net), 32)
    gate = op("sigmoid", net.conv(op("relu", net.conv(pooled(x), 8)), 32))
    return pooled(net.conv(x * gate, 16))


def joined(net: Net) -> Value:
    x = stem(net)
    both = op("concat", (net.conv(x, 16), net.conv(x, 8, bias=False) * 2.0), axis=1)
    return pooled(net.conv(both, 16, 3, pad=1))


NETS = {f.__name__: f for f in (residual, depthwise, winograd, gated, joined)}
Build = Callable[[Net], Value]


def arrays(graph: Graph, batch: int, high: int, wide: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {N: batch, H: high, W: wide}
    shapes = [[sizes.get(d, d) for d in value.shape] for value in graph.inputs]
    return [rng.standard_normal(shape).astype(np.float32) * 0.3 for shape in shapes]


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_images_of_few_channels_never_turn(build: Build) -> None:
    net = Net()
    graph = net.turned(build(net))
    assert not turns(graph)
    assert not {"conv", "max_pool"} & set(ops(graph))


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
@pytest.mark.parametrize("sizes", [(1, 32, 32), (3, 23, 41)])
def test_results_are_the_same(build: Build, sizes: tuple[int, int, int]) -> None:
    net = Net()
    value = build(net)
    plain, graph = net.graph(value), net.turned(value)
    given = arrays(plain, *sizes)
    (expected,) = interpret(plain, given)
    scale = float(np.abs(expected).max())
    for found in (interpret(graph, given)[0], run(graph, given)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * scale)


def run(graph: Graph, given: list[np.ndarray]) -> np.ndarray:
    found: np.ndarray = Program(compile_graph(graph, host_target()))(given)[0]
    return found


def test_what_only_one_convolution_gains_is_left() -> None:
    net = Net(32)
    value = net.conv(net.x, 32)
    assert "conv" in ops(net.turned(value))
    assert not turns(net.turned(value))


def test_images_of_many_channels_turn_at_the_door() -> None:
    net = Net(16)
    graph = net.turned(pooled(net.conv(net.conv(net.x, 32, 5, stride=2), 32, stride=2)))
    assert turns(graph) == [LAST]


def test_a_result_with_channels_first_is_turned_back() -> None:
    net = Net()
    x = stem(net)
    for _ in range(3):
        x = op("relu", net.conv(x, 16))
    graph = net.turned(x)
    assert turns(graph) == [FIRST]
    assert graph.outputs[0].type == net.graph(x).outputs[0].type


LEFT: dict[str, Build] = {
    "channels that fill no vector": lambda net: net.conv(net.x, 20, 5),
    "dilated windows": lambda net: net.conv(net.x, 16, 3, dilate=2),
    "groups of several channels": lambda net: net.conv(net.x, 16, groups=2),
    "weights that are no parameter": lambda net: op("conv", net.x, op("slice", net.x,
        begin=(0, 0, 0, 0), size=(16, 16, 1, 1), step=(1, 1, 1, 1))),
}  # fmt: skip


@pytest.mark.parametrize("build", LEFT.values(), ids=LEFT)
def test_convolutions_that_stay(build: Build) -> None:
    net = Net(16)
    value = pooled(build(net))
    assert "conv" in ops(net.turned(value))
    assert not turns(net.turned(value))


def test_the_golden_residual_network(golden: Callable[[str, str], None]) -> None:
    net = Net()
    text = print_graph(net.turned(residual(net)))
    bare = "\n".join(line.split("  # ")[0].rstrip() for line in text.splitlines())
    golden(bare, "passes/layout_residual.graph")

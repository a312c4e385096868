"""Kernels with many results at an index: blocks of all planes, copied whole."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import config
from graphc.codegen.cpu import host_target
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.loop import For
from graphc.ir.operand import REGISTRY
from graphc.ir.types import TensorType, float32
from graphc.passes.fuse import fuse
from graphc.passes.lower import lower
from graphc.passes.manager import compile_graph
from graphc.passes.schedule import planes
from graphc.passes.schedule.nest import collapse, nests
from graphc.runtime.program import Program

N, C, H, W = map(symbol, "NCHW")


def tiles() -> tuple[Value, Graph]:
    x = placeholder("x", TensorType(float32, (N, C, 4 * H + 2, 4 * W + 2)))
    h, w = (placeholder(name, TensorType(float32, (size,))) for name, size in (("h", H), ("w", W)))
    return x, Graph("g", (x, h, w), (REGISTRY["winograd_data"](x, (H, W)),))


def test_stores_in_planes_are_found() -> None:
    _, graph = tiles()
    body = fuse(graph).outputs[0].node.attrs["body"]
    found = planes.find(collapse(nests(lower(body, "k").kernel)))
    assert found is not None
    assert len(found.items) == 36
    # A plane is one run of memory: channels, images, rows and columns of tiles.
    assert not found.outer and len(found.inner) == 4


def test_few_stores_are_left_to_others() -> None:
    x = placeholder("x", TensorType(float32, (N, C)))
    body = fuse(Graph("g", (x,), (x + 1.0,))).outputs[0].node.attrs["body"]
    assert planes.find(collapse(nests(lower(body, "k").kernel))) is None


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 3, 2, 5), (3, 2, 7, 6), (1, 2, 3, 140)])
def test_every_block_and_rest(sizes: tuple[int, int, int, int]) -> None:
    """Blocks of 128 tiles begin and end within rows of tiles, and within images."""
    batch, channels, high, wide = sizes
    _, graph = tiles()
    x = np.random.default_rng(0).standard_normal((batch, channels, 4 * high + 2, 4 * wide + 2))
    x = x.astype(np.float32)
    plan = compile_graph(graph, host_target())
    assert any(isinstance(s, For) for s in plan.launches[0].kernel.body)
    operands = [x, np.zeros(high, np.float32), np.zeros(wide, np.float32)]
    expected = REGISTRY["winograd_data"].reference(x, tiles=(high, wide))
    results = []
    for threads in (1, 2):
        with config.options(threads=threads):
            results.append(Program(plan)(operands)[0])
    np.testing.assert_array_equal(*results)
    np.testing.assert_allclose(results[0], expected, rtol=1e-5, atol=1e-5)

"""What kernels compute and move, counted from their plain loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphc.ir.ops  # noqa: F401
from graphc.codegen.cpu import host_target
from graphc.frontend.trace import trace
from graphc.ir.dim import evaluate
from graphc.ir.operand import REGISTRY
from graphc.ir.sizes import bind_sizes
from graphc.ir.types import TensorType, as_dtype
from graphc.passes.manager import compile_graph

OPS = REGISTRY
F = 4  # bytes of a float32


def costs(function: Callable[..., Any], *shapes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return floating-point operations and bytes of each launch."""
    types = [TensorType(as_dtype("float32"), shape) for shape in shapes]
    graph = trace(function, types, "f")
    sizes = bind_sizes([value.shape for value in graph.inputs], shapes) or {}
    found = []
    for spec in compile_graph(graph, host_target()).launches:
        names = zip(spec.kernel.sizes, spec.sizes, strict=True)
        own = {name: evaluate(size, sizes) for name, size in names}
        found.append((evaluate(spec.cost.flops, own), evaluate(spec.cost.n_bytes, own)))
    return found


CASES = {
    "pointwise": (
        lambda x, y: OPS["exp"](x) * y + x, [(9, 20), (9, 20)], (3 * 180, 3 * 180 * F)
    ),
    "broadcast": (lambda x, b: x + b, [(9, 20), (20,)], (180, (2 * 180 + 20) * F)),
    "sum": (lambda x: OPS["sum"](x, axis=1), [(9, 20)], (180, (180 + 9) * F)),
    # Difference and exponential twice; the reductions are done once for each row.
    "softmax": (lambda x: OPS["softmax"](x, axis=1), [(9, 20)], (8 * 180, 2 * 180 * F)),
    "product": (
        lambda x, w: OPS["matmul"](x, w), [(9, 20), (20, 30)],
        (2 * 9 * 20 * 30, (9 * 20 + 20 * 30 + 9 * 30) * F),
    ),
    "part of an operand": (
        lambda x: OPS["slice"](x, (0, 0), (2, 20), (1, 1)) * 2.0, [(90, 20)], (40, 80 * F)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_cost(case: str) -> None:
    function, shapes, expected = CASES[case]
    assert costs(function, *shapes) == [expected]


def test_explicit_loops_over_tiles_count_every_element() -> None:
    steps, batch, units = 3, 16, 32
    shapes = (steps, batch, 4 * units), (4 * units, units), (4 * units,), *2 * ((batch, units),)
    found = costs(lambda *x: OPS["recurrent"](*x, mode="lstm"), *shapes)
    product = 2 * steps * batch * 4 * units**2
    cells = steps * batch * units
    assert product + 10 * cells < found[-1][0] < product + 30 * cells
    elements = 4 * cells + 4 * units * (units + 1) + 2 * batch * units
    results = 2 * (steps + 1) * batch * units + 5 * cells
    assert found[-1][1] == (elements + results) * F

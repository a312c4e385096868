"""Groups of one structure are lowered once, and told apart where a size or an attribute decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphc
import graphc.ir.ops  # noqa: F401
from graphc.codegen.cpu import host_target
from graphc.errors import CompileError
from graphc.ir.graph import Graph, placeholder
from graphc.ir.operand import REGISTRY
from graphc.ir.plan import Plan
from graphc.ir.types import TensorType, as_dtype
from graphc.passes import manager
from graphc.passes.likeness import Likeness, likeness
from graphc.passes.lower import lower

OPS = REGISTRY


def body(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Graph:
    """Return a function of arrays of known sizes as the body of a group."""
    types = (TensorType(as_dtype("float32"), shape) for shape in shapes)
    inputs = tuple(placeholder(f"x{i}", kind) for i, kind in enumerate(types))
    return Graph("body", inputs, (function(*inputs),))


def dense(x, w, b):
    return OPS["relu"](OPS["matmul"](x, w, transpose_b=True) + b)


def cut(begin: int) -> Callable[..., Any]:
    return lambda x: OPS["slice"](x, (begin,), (10,), (1,))


def cut_beside(x, y):
    return cut(20)(x) + OPS["sum"](y)


ALIKE = {
    "sizes": [(dense, (32, 64), (128, 64), (128,)), (dense, (20, 30), (40, 30), (40,))],
    "an attribute that is no size": [(cut(20), (99,)), (cut(20), (88,))],
}
APART = {
    "one or two rows": [(dense, (1, 64), (40, 64), (40,)), (dense, (2, 64), (40, 64), (40,))],
    "small sizes": [(lambda x: x + 1.0, (3, 9)), (lambda x: x + 1.0, (4, 9))],
    "equal sizes": [(lambda x: x + 1.0, (9, 9)), (lambda x: x + 1.0, (9, 10))],
    "attributes": [(cut(20), (99,)), (cut(30), (99,))],
    "an attribute that is a size": [(cut_beside, (99,), (20,)), (cut_beside, (99,), (21,))],
    "constants": [(lambda x: x + 1.0, (9,)), (lambda x: x + 2.0, (9,))],
    "zeros": [(lambda x: OPS["maximum"](x, 0.0), (9,)), (lambda x: OPS["maximum"](x, -0.0), (9,))],
    "operations": [(lambda x: OPS["exp"](x), (9,)), (lambda x: OPS["log"](x), (9,))],
}  # fmt: skip


@pytest.mark.parametrize("name", ALIKE)
def test_bodies_of_other_sizes_lower_to_one_kernel(name):
    first, second = (body(*case) for case in ALIKE[name])
    one, other = likeness(first), likeness(second)
    assert one.key == other.key
    found, expected = lower(first, ""), lower(second, "")
    assert found.kernel == expected.kernel
    assert other.sizes_of(one.arguments(found.sizes)) == expected.sizes


@pytest.mark.parametrize("name", APART)
def test_what_decides_tells_bodies_apart(name):
    one, other = (likeness(body(*case)) for case in APART[name])
    assert one.key != other.key


def lowered_of_layers(monkeypatch: pytest.MonkeyPatch, verify: bool) -> tuple[Plan, list[Any]]:
    """Return the plan of three layers of other sizes, and what was lowered for it."""
    calls: list[Any] = []
    monkeypatch.setattr(manager, "lower", lambda *given: calls.append(given) or lower(*given))

    def layers(x, *weights):
        for w in weights:
            x = OPS["relu"](OPS["matmul"](x, w))
        return x

    graph = body(layers, (50, 20), (20, 30), (30, 40), (40, 60))
    with graphc.options(verify=verify):
        return manager.compile_graph(graph, host_target()), calls


def test_layers_of_one_kind_are_lowered_once(monkeypatch):
    plan, calls = lowered_of_layers(monkeypatch, verify=False)
    assert (len(plan.launches), len(calls)) == (3, 1)
    fresh = [lower(launch.node.attrs["body"], "") for launch in plan.launches]
    assert [launch.sizes for launch in plan.launches] == [lowered.sizes for lowered in fresh]


def test_verify_lowers_what_is_alike_again(monkeypatch):
    assert len(lowered_of_layers(monkeypatch, verify=True)[1]) == 3


def test_verify_notices_bodies_that_only_seem_alike(monkeypatch):
    def any_body(graph, constants):
        return Likeness("any", likeness(graph, constants).sizes)

    monkeypatch.setattr(manager, "likeness", any_body)
    graph = body(lambda x: OPS["matmul"](OPS["matmul"](x, x, transpose_a=True), x), (9, 9))
    with graphc.options(verify=True), pytest.raises(CompileError, match="alike"):
        manager.compile_graph(graph, host_target())

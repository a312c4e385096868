"""Random graphs: compiled, they agree with the interpreter, at other sizes and thread counts too.

The default run takes some seeds, the marker ``slow`` takes 500. A failure prints its seed and the
smallest graph that fails in the same way.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from checks import check, check_cuda, fails_by, report, shrink
from drafts import Draft, text
from gradient_checks import check_gradient, random_gradient_graph
from steps import STEPS, attempt, random_draft, random_graph

from graphc import config
from graphc.ir.graph import Graph, placeholder
from graphc.ir.operand import REGISTRY
from graphc.ir.sizes import solving
from graphc.ir.types import TensorType, float32
from graphc.runtime import program

Check = Callable[[Graph, dict[str, int], int], None]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the parallel axis of small arrays too, so that several threads take part."""
    monkeypatch.setattr(program, "CHUNK_NS", 1)


def _run(graph: Graph, sizes: dict[str, int], seed: int, check_graph: Check) -> None:
    with config.options(compile_threads=1, verify=True):
        try:
            check_graph(graph, sizes, seed)
        except Exception as error:
            pytest.fail(f"{error}\n{report(graph, sizes, seed, check_graph)}")


@pytest.mark.parametrize("seed", range(130))
def test_graphs_of_a_few_steps(seed: int) -> None:
    _run(*random_graph(seed), seed, check)


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_graphs_of_many_steps(seed: int) -> None:
    _run(*random_graph(seed, 12, 25), seed, check)


@pytest.mark.parametrize("seed", range(40))
def test_gradients(seed: int) -> None:
    _run(*random_gradient_graph(seed), seed, check_gradient)


@pytest.mark.parametrize("seed", range(3000, 3040))
def test_cuda(seed: int) -> None:
    _run(*random_graph(seed), seed, check_cuda)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2500))
def test_five_hundred_graphs(seed: int) -> None:
    _run(*random_graph(seed, 3, 25), seed, check)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2150))
def test_more_gradients(seed: int) -> None:
    _run(*random_gradient_graph(seed), seed, check_gradient)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3000, 3300))
def test_more_of_cuda(seed: int) -> None:
    _run(*random_graph(seed, 3, 25), seed, check_cuda)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3000, 3100))
def test_gradients_of_cuda(seed: int) -> None:
    _run(*random_gradient_graph(seed), seed, check_cuda)


def test_a_seed_gives_one_graph() -> None:
    assert text(random_graph(3)[0]) == text(random_graph(3)[0]) != text(random_graph(4)[0])


def test_graphs_hold_many_ops() -> None:
    names = {node.op.name for seed in range(100) for node in random_graph(seed)[0].nodes}
    assert len(names) > 80


@pytest.mark.parametrize("step", [step for step, _ in STEPS], ids=lambda step: step.__name__)
def test_steps_find_something_to_do(step: Callable[[Draft], None]) -> None:
    """A step whose every attempt is rejected would leave its ops untested, unseen."""
    added = 0
    for seed in range(30):
        draft = random_draft(seed, 2, 4)
        before = len(draft.pool)
        with solving(draft.solver):
            attempt(draft, step)
        added += any(v.op_name != "input" for v in draft.pool[before:])
    assert added >= 5


def test_a_wrong_kernel_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzer fuzzed: with a faulty oracle it fails, and names the one op to blame."""
    tanh = REGISTRY["tanh"]
    x = placeholder("x", TensorType(float32, (3,)))
    value = REGISTRY["exp"](tanh(REGISTRY["sin"](x)) + 1.0)
    graph = Graph("wrong", (x,), (value, x * 2.0))
    check(graph, {}, 0)
    monkeypatch.setattr(tanh, "_reference", lambda a: np.tanh(a) + np.float32(0.1))
    fails = fails_by(lambda g: check(g, {}, 0))
    assert fails(graph)
    smallest = shrink(graph, fails)
    assert [node.op.name for node in smallest.nodes] == ["tanh"]

"""Memory plans: nothing that lives is overwritten, and what is dead is used again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pytest
from sample_graphs import lenet_step, mlp_step, node, op, random_graph

from graphc.ir.dim import evaluate, symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import evaluate_node, interpret
from graphc.ir.plan import ALIGNMENT, MemoryPlan, arrange
from graphc.ir.sizes import bind_sizes
from graphc.ir.types import TensorType, float32, tensor_type
from graphc.passes.canonicalize import canonicalize
from graphc.passes.fuse import ALIASES, fuse
from graphc.passes.memory import Storage, lifetimes, storage

B = symbol("B")
X = placeholder("x", TensorType(float32, (B, 64)))
W = placeholder("w", tensor_type("float32", (64, 64)))
SIZES = {"B": 16}
GRAPHS = [mlp_step, lenet_step, *(partial(random_graph, seed) for seed in range(40))]


def laid_out(*outputs: Value, updates: tuple[tuple[Value, Value], ...] = ()) -> Storage:
    return storage(fuse(canonicalize(Graph("g", (X, W), outputs, updates))))


def plan(layout: Storage, sizes: Mapping[str, int]) -> MemoryPlan:
    """Return where values live if each node is one launch."""
    return arrange(lifetimes(layout, [(n.inputs, n.outputs) for n in layout.launches]), sizes)


def products(count: int) -> Value:
    """Return a chain of products, each a kernel of its own."""
    value = X
    for _ in range(count):
        value = op("matmul", value, W)
    return value


def overlaps(layout: Storage, memory: MemoryPlan) -> list[str]:
    """Return pairs of slots that hold different values at the same place and time."""
    found = []
    for number, a in enumerate(memory.slots):
        for b in memory.slots[:number]:
            apart = a.offset + a.n_bytes <= b.offset or b.offset + b.n_bytes <= a.offset
            never = a.last < b.first or b.last < a.first
            # A value that takes over memory is written in the launch that reads the old one last.
            taken = {a.value: b, b.value: a}
            over = layout.over.get(a.value) == b.value or layout.over.get(b.value) == a.value
            handed = over and max(a.first, b.first) == min(a.last, b.last)
            if not (apart or never or handed):
                found.append(f"{sorted(map(repr, taken.values()))}")
    return found


@pytest.mark.parametrize("make", GRAPHS)
def test_no_two_live_values_overlap(make: Callable[[], Graph]) -> None:
    layout = storage(fuse(canonicalize(make())))
    for batch in (1, 16):
        memory = plan(layout, {"B": batch})
        assert overlaps(layout, memory) == []
        assert all(slot.offset % ALIGNMENT == 0 for slot in memory.slots)
        assert all(slot.offset + slot.n_bytes <= memory.arena_bytes for slot in memory.slots)
        assert memory.arena_bytes <= memory.unshared_bytes + ALIGNMENT * len(memory.slots)


def test_an_overlap_is_found() -> None:
    layout = laid_out(products(4))
    memory = plan(layout, SIZES)
    moved = tuple(type(s)(s.value, 0, s.n_bytes, s.first, s.last) for s in memory.slots)
    assert overlaps(layout, MemoryPlan(moved, memory.arena_bytes, memory.unshared_bytes))


def run_in_place(layout: Storage, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run a program in the memory that its plan gives it; return outputs, then updated inputs."""
    graph = layout.graph
    given = [arrays[name] for name in graph.input_names()]
    sizes = bind_sizes([v.shape for v in graph.inputs], [a.shape for a in given])
    assert sizes is not None
    memory = plan(layout, sizes)
    arena = np.full(max(memory.arena_bytes, 1), 0xFF, np.uint8)
    places: dict[Value, np.ndarray] = {
        v: a.astype(v.dtype.numpy) for v, a in zip(graph.inputs, given, strict=True)
    }
    for slot in memory.slots:
        raw = arena[slot.offset : slot.offset + slot.n_bytes]
        shape = [evaluate(d, sizes) for d in slot.value.shape]
        count = int(np.prod(shape)) * slot.value.dtype.item_bytes
        places[slot.value] = raw[:count].view(slot.value.dtype.numpy).reshape(shape)

    def read(value: Value) -> np.ndarray:
        shape = [evaluate(d, sizes) for d in value.shape]
        return places[layout.root[value]].reshape(shape)

    for launch in layout.launches:
        known = {v: read(v).copy() for v in launch.inputs}
        for value, array in zip(launch.outputs, evaluate_node(launch, known, sizes), strict=True):
            root = layout.root[value]
            if root in places:
                places[root][...] = array.reshape(places[root].shape)
            else:
                places[root] = array
    outputs = [read(v) for v in graph.outputs]
    return [*outputs, *(places[target] for target, _ in graph.updates)]


@pytest.mark.parametrize("make", [mlp_step, *(partial(random_graph, s, 14) for s in range(30))])
def test_a_program_in_its_planned_memory_computes_the_same(make: Callable[[], Graph]) -> None:
    graph = make()
    rng = np.random.default_rng(0)
    arrays = {}
    for value, name in zip(graph.inputs, graph.input_names(), strict=True):
        shape = [5 if not isinstance(d, int) else d for d in value.shape]
        integers = value.dtype.integer
        arrays[name] = rng.integers(0, 9, shape) if integers else rng.uniform(-0.5, 0.5, shape)
    with np.errstate(all="ignore"):
        expected = interpret(graph, list(arrays.values()))
        found = run_in_place(storage(fuse(canonicalize(graph))), arrays)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-4, atol=1e-5)


def test_a_chain_needs_two_places() -> None:
    memory = plan(laid_out(products(12)), SIZES)
    one = 16 * 64 * 4
    assert memory.arena_bytes == 2 * one
    assert memory.unshared_bytes == 11 * one


def test_a_value_that_is_read_late_keeps_its_place() -> None:
    first = op("matmul", X, W)
    late = op("matmul", first, W)
    for _ in range(4):
        late = op("matmul", late, W)
    memory = plan(laid_out(late * 1.5 + op("tanh", first)), SIZES)
    assert memory.arena_bytes == 3 * 16 * 64 * 4


def test_a_pointwise_kernel_writes_over_what_it_read_last() -> None:
    moved = op("transpose", op("matmul", X, W), axes=(1, 0))
    value = op("matmul", W, op("exp", op("transpose", moved * 2.0, axes=(1, 0))), transpose_b=True)
    layout = laid_out(value)
    memory = plan(layout, SIZES)
    assert memory.arena_bytes < memory.unshared_bytes


def test_an_update_is_written_over_its_input() -> None:
    layout = laid_out(updates=((W, W * 0.5),))
    (new,) = [new for _, new in layout.graph.updates]
    assert layout.root[new] == W
    assert len(layout.launches) == 1


def test_updates_fused_into_a_product_need_no_copy() -> None:
    momentum = placeholder("m", W.type)
    moved = momentum * 0.9 + op("matmul", X, X, transpose_a=True)
    updates = ((W, W - moved * momentum), (momentum, moved + W))
    layout = storage(fuse(canonicalize(Graph("g", (X, W, momentum), (), updates))))
    assert len(layout.launches) == 1
    assert [layout.root[new] for _, new in layout.graph.updates] == [W, momentum]


def test_every_reader_of_the_old_value_runs_first() -> None:
    output = op("matmul", X, W)
    layout = laid_out(output, updates=((W, W * 0.5),))
    labels = [launch.attrs["label"] for launch in layout.launches]
    assert labels == ["matmul", "multiply"]


def test_an_update_that_reads_at_other_places_goes_through_a_copy() -> None:
    turned = op("transpose", W, axes=(1, 0))
    layout = laid_out(updates=((W, turned),))
    assert [launch.attrs["label"] for launch in layout.launches] == ["transpose", "copy"]
    other = laid_out(updates=((W, op("matmul", W, W)),))
    assert [launch.attrs["label"] for launch in other.launches] == ["matmul", "copy"]


def test_exchanged_inputs_are_both_right() -> None:
    a, b = (placeholder(n, tensor_type("float32", (3,))) for n in "ab")
    graph = Graph("swap", (a, b), (), ((a, b * 1.5), (b, a * 2.0)))
    layout = storage(fuse(canonicalize(graph)))
    arrays = {"a": np.arange(3.0), "b": np.arange(3.0) + 10}
    new_a, new_b = run_in_place(layout, arrays)
    np.testing.assert_array_equal(new_a, (np.arange(3.0) + 10) * 1.5)
    np.testing.assert_array_equal(new_b, np.arange(3.0) * 2)


def test_outputs_have_memory_of_their_own() -> None:
    doubled = X * 2.0
    layout = laid_out(X, doubled, doubled, op("reshape", doubled, shape=(64, B)))
    roots = [layout.root[v] for v in layout.graph.outputs]
    assert len(set(roots)) == 4 and not set(roots) & {X, W}
    assert plan(layout, SIZES).slots == ()


def test_guards_run_before_any_update() -> None:
    index = placeholder("i", tensor_type("int32", (4,)))
    (checked,) = node("check_index", index, size=64, what="index", negative=False)
    graph = Graph("g", (X, W, index), (op("exp", X), checked), ((W, W * 0.5),))
    layout = storage(fuse(canonicalize(graph)))
    labels = [launch.attrs["label"] for launch in layout.launches]
    assert labels[0] == "check_index" and set(labels[1:]) == {"exp", "multiply"}


def test_aliases_cost_nothing() -> None:
    value = op("reshape", op("matmul", X, W), shape=(64, B))
    layout = laid_out(op("matmul", W, value))
    assert len(layout.launches) == 2
    assert "reshape" in ALIASES
    assert len(plan(layout, SIZES).slots) == 1


def test_the_plan_grows_with_the_batch() -> None:
    layout = laid_out(products(4))
    small, large = plan(layout, {"B": 1}), plan(layout, {"B": 100})
    assert large.arena_bytes == 100 * small.arena_bytes
    assert plan(layout, {"B": 0}).arena_bytes >= 0

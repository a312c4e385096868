"""Programs as they are called: arguments of every kind, threads, updates, failures, memory."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc.ir.ops  # noqa: F401
from graphc import config
from graphc.codegen import counters
from graphc.codegen.cpu import host_target
from graphc.errors import ArgumentError, BindError, GraphcError
from graphc.frontend.trace import trace
from graphc.ir.graph import Graph, Value
from graphc.ir.operand import REGISTRY
from graphc.ir.types import TensorType, as_dtype
from graphc.passes.manager import compile_graph
from graphc.runtime import bound, profile
from graphc.runtime import program as runtime
from graphc.runtime.program import Program, address


def graph_of(function: Callable[..., Any], *kinds: tuple[str, tuple[int, ...]]) -> Graph:
    return trace(function, [TensorType(as_dtype(d), s) for d, s in kinds], "model")


def compiled(function: Callable[..., Any], *kinds: tuple[str, tuple[int, ...]]) -> Program:
    return Program(compile_graph(graph_of(function, *kinds), host_target()))


def updating(
    function: Callable[..., Any], pairs: Sequence[tuple[int, int]], *kinds: Any
) -> Program:
    """Compile a function whose result ``j`` replaces input ``i`` for pairs of ``(i, j)``."""
    graph = graph_of(function, *kinds)
    new = {j for _, j in pairs}
    outputs = tuple(v for j, v in enumerate(graph.outputs) if j not in new)
    updates = tuple((graph.inputs[i], graph.outputs[j]) for i, j in pairs)
    changed = Graph(graph.name, graph.inputs, outputs, updates, graph.constraints)
    return Program(compile_graph(changed, host_target()))


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def double() -> Program:
    return compiled(lambda x: x * 2.0, ("float32", (3, 4)))


# -- arguments -------------------------------------------------------------------------------


def test_results_own_their_memory(double: Program) -> None:
    x = floats(3, 4)
    (first,) = double([x])
    kept = first.copy()
    (second,) = double([x + 1.0])
    assert first.flags.owndata and first.flags.writeable and first.base is None
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)


def test_a_result_that_is_an_input_is_a_copy() -> None:
    same = compiled(lambda x: (x, x), ("float32", (3,)))
    x = floats(3)
    a, b = same([x])
    assert not np.shares_memory(a, x) and not np.shares_memory(a, b)
    np.testing.assert_array_equal(a, x)
    np.testing.assert_array_equal(b, x)


def _unaligned(x: np.ndarray) -> np.ndarray:
    memory = np.zeros(x.nbytes + 1, np.uint8)
    view = memory[1:].view(np.uint8)[: x.nbytes].view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned
    return view


def _read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def _subclass(x: np.ndarray) -> np.ndarray:
    return x.view(np.recarray)


@pytest.mark.parametrize(
    "form",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1].copy()[::-1],
        lambda x: np.broadcast_to(x[:1], x.shape),
        _unaligned,
        _read_only,
        _subclass,
    ],
    ids=["fortran", "strided", "reversed", "broadcast", "unaligned", "read-only", "subclass"],
)
def test_arrays_of_every_layout(double: Program, form: Callable[..., np.ndarray]) -> None:
    x = form(floats(3, 4))
    before = x.copy()
    (y,) = double([x])
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, np.asarray(before) * np.float32(2.0))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0), (1, 1)])
def test_axes_of_size_zero_and_one(double: Program, shape: tuple[int, int]) -> None:
    x = floats(*shape)
    (y,) = double([x])
    np.testing.assert_array_equal(y, x * 2)


def test_scalars() -> None:
    (y,) = compiled(lambda x: x + 1.0, ("float32", ()))([np.array(2, np.float32)])
    assert y.shape == () and y == 3


def test_address_is_that_of_the_data() -> None:
    for x in (floats(3), floats(3, 4)[1:], np.zeros((0,)), np.array(1)):
        assert address(x) == x.ctypes.data


def test_other_sizes_compile_nothing(double: Program) -> None:
    before = counters.stats()["kernels_compiled"]
    for rows in range(1, 100):
        (y,) = double([np.ones((rows, 4), np.float32)])
        assert y.shape == (rows, 4) and y[-1, -1] == 2
    assert counters.stats()["kernels_compiled"] == before
    assert len(double._bindings) <= bound.MOST_BINDINGS


# -- errors ----------------------------------------------------------------------------------


def test_wrong_dtype(double: Program) -> None:
    with pytest.raises(BindError, match=r"'x0' of model is f32\[.*got float64\[3, 4\]") as caught:
        double([np.zeros((3, 4))])
    assert 'astype("float32")' in str(caught.value)


def test_no_array(double: Program) -> None:
    with pytest.raises(BindError, match="got list"):
        double([[1.0]])  # type: ignore[list-item]


def test_wrong_number_of_axes(double: Program) -> None:
    with pytest.raises(BindError, match=r"got \(3,\)"):
        double([floats(3)])


def test_wrong_number_of_arrays(double: Program) -> None:
    with pytest.raises(BindError, match="takes 1 arrays, got 2"):
        double([floats(3, 4), floats(3, 4)])


def test_sizes_that_must_be_equal() -> None:
    add = compiled(lambda x, y: x + y, ("float32", (3,)), ("float32", (3,)))
    with pytest.raises(BindError, match=r"must be equal differ.*\(3,\).*\(4,\)"):
        add([floats(3), floats(4)])


def test_threads_must_be_positive() -> None:
    with pytest.raises(ArgumentError, match="threads"), config.options(threads=0):
        pass


# -- updates ---------------------------------------------------------------------------------


def _step(w: Value, g: Value) -> tuple[Value, Value]:
    return w - g * 0.5, REGISTRY["sum"](w * w)


KINDS = (("float32", (6,)), ("float32", (6,)))


@pytest.fixture(scope="module")
def step() -> Program:
    return updating(_step, [(0, 0)], *KINDS)


def test_updates_are_written_in_place(step: Program) -> None:
    w, g = floats(6), np.ones(6, np.float32)
    old, place = w.copy(), w.ctypes.data
    (norm,) = step([w, g])
    assert w.ctypes.data == place
    np.testing.assert_array_equal(w, old - np.float32(0.5))
    np.testing.assert_allclose(norm, (old * old).sum(), rtol=1e-6)


def test_updates_of_a_strided_array(step: Program) -> None:
    whole = np.ones(12, np.float32)
    step([whole[::2], np.ones(6, np.float32)])
    np.testing.assert_array_equal(whole, [0.5, 1.0] * 6)


def test_a_read_only_array_is_not_updated(step: Program) -> None:
    w = _read_only(np.ones(6, np.float32))
    with pytest.raises(BindError, match="'x0', got an array that is read-only"):
        step([w, np.ones(6, np.float32)])
    np.testing.assert_array_equal(w, np.ones(6))


def test_one_array_updated_and_read() -> None:
    shifted = updating(
        lambda w, g: (w + 1.0, REGISTRY["transpose"](g, (1, 0)) * 1.0),
        [(0, 0)],
        ("float32", (3, 3)),
        ("float32", (3, 3)),
    )
    w = floats(3, 3)
    old = w.copy()
    (y,) = shifted([w, w])
    np.testing.assert_array_equal(y, old.T)
    np.testing.assert_array_equal(w, old + 1)


def test_one_array_updated_twice() -> None:
    both = updating(lambda a, b: (a + 1.0, b + 2.0), [(0, 0), (1, 1)], *KINDS)
    w = floats(6)
    with pytest.raises(BindError, match="one array for both"):
        both([w, w])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("offset", [-5, -1, 0, 1, 5])
def test_an_argument_that_overlaps_one_that_is_updated(offset: int, threads: int) -> None:
    size = 4000
    shifted = updating(
        lambda w, g: (w * 2.0 + g, REGISTRY["sum"](w * g)),
        [(0, 0)],
        ("float32", (size,)),
        ("float32", (size,)),
    )
    memory = floats(size + 10)
    old = memory.copy()
    w, g = memory[5 : 5 + size], memory[5 + offset : 5 + offset + size]
    read = g.copy()
    with config.options(threads=threads):
        (total,) = shifted([w, g])
        expected = old.copy()
        expected[5 : 5 + size] = old[5 : 5 + size] * 2 + read
        np.testing.assert_array_equal(memory, expected)
        np.testing.assert_allclose(total, (old[5 : 5 + size] * read).sum(), rtol=1e-3)
        shifted([w, np.zeros(size, np.float32)])  # other addresses, nothing to part
    np.testing.assert_array_equal(w, expected[5 : 5 + size] * 2)


def test_two_updated_arguments_that_overlap() -> None:
    both = updating(lambda a, b: (a + 1.0, b + 2.0), [(0, 0), (1, 1)], *KINDS)
    w = np.zeros(24, np.float32)
    for a, b in [(w[:6], w[5:11]), (w[5:11], w[:6]), (w[:12:2], w[:6]), (w[:6], w[:12:2]),
                 (w[:12:2], w[2:14:2])]:  # fmt: skip
        with pytest.raises(BindError, match="updates 'x[01]' and 'x[01]', got one array for both"):
            both([a, b])
    assert not w.any()
    both([w[:12:2], w[1:13:2]])  # interleaved, no element in common
    both([w[12:18], w[18:]])
    np.testing.assert_array_equal(w, [1, 2] * 6 + [1] * 6 + [2] * 6)


def test_empty_arguments_overlap_nothing() -> None:
    step = updating(lambda w, g: (w + 1.0, REGISTRY["sum"](g)), [(0, 0)], *KINDS)
    w = np.zeros(6, np.float32)
    for empty in (w[:0], w[3:3], w[6:]):
        step([w[3:3], empty])
    assert not w.any()


@pytest.mark.parametrize("seed", range(5))
def test_the_sweep_finds_what_comparing_all_pairs_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(200):
        starts, lengths = rng.integers(0, 30, 5), rng.integers(0, 6, 5)
        spans = [(int(a), int(a + n)) for a, n in zip(starts, lengths)]
        chosen = {i for i in range(5) if rng.random() < 0.4}
        meeting = any(
            max(spans[i][0], spans[j][0]) < min(spans[i][1], spans[j][1])
            for i in chosen
            for j in range(5)
            if i != j
        )
        assert bound.apart(spans, chosen) is not meeting


def test_swapped_inputs() -> None:
    swap = updating(lambda a, b: (b * 1.0, a * 1.0, a + b), [(0, 0), (1, 1)], *KINDS)
    a, b = floats(6), floats(6) + 1
    old = a.copy(), b.copy()
    (total,) = swap([a, b])
    np.testing.assert_array_equal(total, old[0] + old[1])
    np.testing.assert_array_equal(a, old[1])
    np.testing.assert_array_equal(b, old[0])


def test_a_failed_check_changes_nothing() -> None:
    def lookup(table: Value, counter: Value, rows: Value) -> tuple[Value, ...]:
        rows = REGISTRY["check_index"](rows, table.shape[0], "row")
        return table * 0.0, counter + 1, REGISTRY["take"](table, rows)

    program = updating(
        lookup, [(0, 0), (1, 1)], ("float32", (5, 2)), ("int64", ()), ("int32", (3,))
    )
    table, counter = floats(5, 2), np.array(7)
    old = table.copy()
    for threads in (1, 2):
        with config.options(threads=threads), pytest.raises(GraphcError, match="9"):
            program([table, counter, np.array([0, 9, 1], np.int32)])
        np.testing.assert_array_equal(table, old)
        assert counter == 7
    (found,) = program([table, counter, np.array([0, 4, 1], np.int32)])
    np.testing.assert_array_equal(found, old[[0, 4, 1]])
    assert counter == 8 and not table.any()


# -- threads ---------------------------------------------------------------------------------


def _together(run: Callable[[int], None], count: int = 2) -> None:
    """Call ``run(0)``, ``run(1)``, ... at once, and raise what one of them raised."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(count)

    def guarded(number: int) -> None:
        try:
            barrier.wait(10)
            run(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_call_one_program(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "CHUNK_NS", 100)
    config.configure(threads=threads)
    program = compiled(
        lambda x: REGISTRY["softmax"](REGISTRY["matmul"](x, x, transpose_b=True), axis=-1),
        ("float32", (40, 30)),
    )
    inputs = [floats(40, 30) * (i + 1) for i in range(3)]
    expected = [program([x])[0] for x in inputs]

    def run(number: int) -> None:
        for _ in range(50):
            np.testing.assert_array_equal(program([inputs[number]])[0], expected[number])

    _together(run, 3)


def test_programs_that_share_an_updated_buffer_wait_for_each_other() -> None:
    size = 20_000
    up = updating(lambda w, g: (w + g,), [(0, 0)], ("float32", (size,)), ("float32", (size,)))
    down = updating(lambda w, g: (w - g,), [(0, 0)], ("float32", (size,)), ("float32", (size,)))
    w, g = np.zeros(size, np.float32), np.ones(size, np.float32)
    _together(lambda number: [(up, down)[number]([w, g]) for _ in range(300)] and None)
    np.testing.assert_array_equal(w, np.zeros(size))


@pytest.fixture(autouse=True)
def restored_threads() -> Any:
    before = config.current().threads
    yield
    config.configure(threads=before)


def test_results_are_equal_for_every_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "CHUNK_NS", 100)
    program = compiled(
        lambda x: (REGISTRY["sum"](x * x), REGISTRY["logsumexp"](x, axis=0)),
        ("float32", (300, 70)),
    )
    x = floats(300, 70)
    found = []
    for threads in (1, 2, 4, 2, 1):
        with config.options(threads=threads):
            found.append(program([x]))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_runs_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "CHUNK_NS", 100)
    program = updating(lambda w: (w * 2.0, w + 1.0), [(0, 0)], ("float32", (5000,)))
    w = np.ones(5000, np.float32)
    with config.options(threads=2):
        program([w])
        child = os.fork()
        if child == 0:
            # No assertion may leave the child: it would run the parent's tests on.
            status = 1
            try:
                (y,) = program([w])
                status = int(not (np.all(y == 3) and np.all(w == 4)))
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        (y,) = program([w])
    assert np.all(y == 3)


# -- profile and memory ----------------------------------------------------------------------


def test_profile_times_every_launch() -> None:
    program = compiled(
        lambda x: REGISTRY["matmul"](REGISTRY["tanh"](x), x, transpose_b=True), ("float32", (9, 8))
    )
    profile.profile()
    program([floats(9, 8)])
    assert profile.profile() == []
    for threads in (1, 2):
        with config.options(profile=True, threads=threads):
            program([floats(9, 8)])
        timings = profile.profile()
        assert [t.kernel for t in timings] == [row.label for row in program.table.launches]
        assert all(t.program == "model" and t.start_ns <= t.stop_ns for t in timings)
        assert all(a.stop_ns <= b.start_ns for a, b in zip(timings, timings[1:]))
        assert [t.number for t in timings] == list(range(len(timings)))
        assert timings[-1].flops == 2 * 9 * 9 * 8
        assert timings[-1].n_bytes == 4 * (9 * 8 + 9 * 8 + 9 * 9)


def test_a_chain_of_products_takes_two_buffers() -> None:
    def chain(x: Value) -> Value:
        y = x
        for _ in range(6):
            y = REGISTRY["matmul"](y, x)
        return y

    program = compiled(chain, ("float32", (64, 64)))
    plan = program.memory_plan([(64, 64)])
    one = 64 * 64 * 4
    assert plan.arena_bytes == 2 * one
    assert plan.unshared_bytes == 5 * one
    _no_overlap(plan)
    assert program.memory_plan([(128, 128)]).arena_bytes == 4 * plan.arena_bytes


def _no_overlap(plan: Any) -> None:
    """Assert that values that live at once share no memory, but for one that takes over."""
    for i, a in enumerate(plan.slots):
        assert a.offset % 64 == 0 and a.offset + a.n_bytes <= plan.arena_bytes
        for b in plan.slots[i + 1 :]:
            if a.first < b.last and b.first < a.last:
                assert a.offset + a.n_bytes <= b.offset or b.offset + b.n_bytes <= a.offset


def test_the_arena_is_as_large_as_the_plan_says() -> None:
    program = compiled(lambda x: REGISTRY["matmul"](REGISTRY["matmul"](x, x), x),
                       ("float32", (32, 32)))  # fmt: skip
    program([floats(32, 32)])
    (binding,) = program._bindings.values()
    (arena,) = binding.free
    assert arena.memory.nbytes == binding.plan.arena_bytes + runtime.ALIGNMENT
    first = min(p for p in arena.pointers if address(arena.memory) <= p)
    assert first % runtime.ALIGNMENT == 0
    assert ctypes.sizeof(arena.pointers) == 8 * len(arena.pointers)


def test_arenas_are_used_again(double: Program) -> None:
    x = floats(7, 4)
    for _ in range(5):
        double([x])
    assert len(double._bindings[(x.shape,)].free) == 1

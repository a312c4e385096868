"""The dispatcher and its thread pool, run with kernels written here in LLVM IR."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import lazy
from graphc.codegen import dispatch
from graphc.codegen.dispatch import KERNEL_TYPE, Error, Launch, Platform, dispatcher
from graphc.errors import ArgumentError
from graphc.runtime import threads
from graphc.runtime.threads import Pool

# Each loops over i in begin..end; %a and %b are the two buffers, %size the one size.
_BODIES = {
    "index": """
  %value = mul i64 %i, %size
  %place = getelementptr i64, ptr %a, i64 %i
  store i64 %value, ptr %place""",
    "increase": """
  %place = getelementptr i64, ptr %a, i64 %i
  %old = load i64, ptr %place
  %new = add i64 %old, %size
  store i64 %new, ptr %place""",
    "stencil": """
  %low = add i64 %i, -1
  %high = add i64 %i, 1
  %below = icmp slt i64 %low, 0
  %last = add i64 %size, -1
  %above = icmp sgt i64 %high, %last
  %left = select i1 %below, i64 %last, i64 %low
  %right = select i1 %above, i64 0, i64 %high
  %p0 = getelementptr i64, ptr %a, i64 %left
  %p1 = getelementptr i64, ptr %a, i64 %i
  %p2 = getelementptr i64, ptr %a, i64 %right
  %v0 = load i64, ptr %p0
  %v1 = load i64, ptr %p1
  %v2 = load i64, ptr %p2
  %twice = mul i64 %v1, 3
  %sum = add i64 %v0, %twice
  %all = sub i64 %sum, %v2
  %place = getelementptr i64, ptr %b, i64 %i
  store i64 %all, ptr %place""",
    "thread": """
  %self = call i64 @pthread_self()
  %place = getelementptr i64, ptr %a, i64 %i
  store i64 %self, ptr %place""",
    "calls": """
  %first = icmp eq i64 %i, %begin
  %one = zext i1 %first to i64
  %place = getelementptr i64, ptr %a, i64 %begin
  %ignored = atomicrmw add ptr %place, i64 %one monotonic
  %end_place = getelementptr i64, ptr %b, i64 %begin
  store i64 %end, ptr %end_place""",
}
_LOOP = """
define i32 @{name}(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, ptr %error) nounwind {{
entry:
  %a = load ptr, ptr %buffers
  %second = getelementptr ptr, ptr %buffers, i64 1
  %b = load ptr, ptr %second
  %size = load i64, ptr %sizes
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %loop ]{body}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %done
done:
  ret i32 0
}}
"""
# Fails on chunks that begin at %size or above; says where it began.
_FAILING = """
define i32 @failing(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, ptr %error) nounwind {
entry:
  %size = load i64, ptr %sizes
  %wrong = icmp sge i64 %begin, %size
  %detail = getelementptr i64, ptr %error, i64 2
  store i64 %begin, ptr %detail
  %status = select i1 %wrong, i32 5, i32 0
  ret i32 %status
}
"""


@cache
def kernels() -> tuple[dict[str, int], object]:
    """Return addresses of the kernels, and the engine that owns their code."""
    binding = lazy.llvmlite_binding()
    text = "declare i64 @pthread_self()\n" + _FAILING
    text += "".join(_LOOP.format(name=name, body=body) for name, body in _BODIES.items())
    target = binding.Target.from_triple(binding.get_process_triple())
    engine = binding.create_mcjit_compiler(
        binding.parse_assembly(text), target.create_target_machine(opt=2)
    )
    engine.finalize_object()
    names = [*_BODIES, "failing"]
    return {name: engine.get_function_address(name) for name in names}, engine


class Table:
    """A launch table that keeps alive what it points to."""

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, ...]] = []
        self.kept: list[object] = []
        self.error = Error()

    def add(self, kernel, a, b=None, size=1, extent=0, chunk=0) -> Table:
        address = kernels()[0][kernel] if isinstance(kernel, str) else kernel
        places = [None if array is None else array.ctypes.data for array in (a, b)]
        buffers, sizes = (ctypes.c_void_p * 2)(*places), (ctypes.c_int64 * 1)(size)
        self.kept += [a, b, buffers, sizes]
        at = ctypes.addressof
        self.rows.append((address, at(buffers), at(sizes), extent, chunk, 0))
        return self

    def native(self) -> ctypes.Array[Launch]:
        return (Launch * len(self.rows))(*self.rows)

    def run(self, pool: Pool, profile: np.ndarray | None = None) -> int:
        rows = self.native()
        at = None if profile is None else profile.ctypes.data
        status = pool.run(ctypes.addressof(rows), len(rows), ctypes.addressof(self.error), at)
        ctypes.memset(rows, 0, ctypes.sizeof(rows))  # whoever still used it would crash
        return status


def until(condition: Callable[[], object], limit_s: float = 20.0) -> bool:
    """Wait for a condition; return whether it came true in time."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.0002)
    return True


def await_worker(pool: Pool) -> None:
    """Wake the workers and wait until one is up."""

    def is_awake() -> bool:
        pool.wake()
        return not pool.parked

    assert until(is_awake)


@pytest.fixture(params=[1, 2, 4])
def pool(request) -> Iterator[Pool]:
    pool = Pool(request.param)
    yield pool
    pool.stop()


@pytest.fixture
def pair() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.stop()


@pytest.mark.parametrize(
    ("extent", "chunk"),
    [(1, 1), (7, 1), (7, 3), (7, 7), (7, 100), (6, 3), (1000, 1), (7, 0), (7, -2)],
)
def test_every_iteration_runs(pool, extent, chunk):
    a = np.full(extent + 1, -1)
    assert Table().add("index", a, size=3, extent=extent, chunk=chunk).run(pool) == 0
    assert a.tolist() == [3 * i for i in range(extent)] + [-1]


@pytest.mark.parametrize("extent", [0, -5])
def test_empty_launch_is_skipped(pool, extent):
    a = np.full(4, -1)
    table = Table().add("index", a, extent=extent, chunk=1).add("index", a, extent=2, chunk=1)
    assert table.run(pool) == 0
    assert a.tolist() == [0, 1, -1, -1]


def test_empty_table(pool):
    assert dispatcher().run(pool.address, None, 0, pool.threads, None, None) == 0


def test_chunks_do_not_depend_on_threads(pool):
    for _ in range(200):
        calls, ends = np.zeros(50, dtype=np.int64), np.zeros(50, dtype=np.int64)
        assert Table().add("calls", calls, ends, extent=50, chunk=8).run(pool) == 0
        assert {i: ends[i] for i in np.flatnonzero(calls)} == {
            begin: min(begin + 8, 50) for begin in range(0, 50, 8)
        }
        assert calls.sum() == 7


def test_callback_kernel_gets_its_arguments(pair):
    seen = []

    def record(buffers, sizes, begin, end, error):
        seen.append((begin, end, ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64))[0]))
        return 0

    callback = KERNEL_TYPE(record)
    kernel = ctypes.cast(callback, ctypes.c_void_p).value
    assert Table().add(kernel, None, size=9, extent=10, chunk=4).run(pair) == 0
    assert sorted(seen) == [(0, 4, 9), (4, 8, 9), (8, 10, 9)]


def stencil_table(steps: int, size: int, chunk: int) -> tuple[Table, np.ndarray, np.ndarray]:
    """Return a program of dependent steps, its result's array, and what it must hold."""
    a = np.arange(size) ** 2 % 1009
    b = np.zeros_like(a)
    expected = a.copy()
    table = Table()
    for _ in range(steps):
        table.add("stencil", a, b, size=size, extent=size, chunk=chunk)
        expected = np.roll(expected, 1) + 3 * expected - np.roll(expected, -1)
        a, b = b, a
    return table, a, expected


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_step_sees_what_the_step_before_wrote(pool, chunk):
    if pool.threads > 1:
        await_worker(pool)
    table, result, expected = stencil_table(600, 130, chunk)
    assert table.run(pool) == 0
    np.testing.assert_array_equal(result, expected)


def test_workers_take_part(pair):
    a = np.zeros(20_000, dtype=np.int64)
    table = Table().add("thread", a, extent=a.size, chunk=100)

    def shared() -> bool:
        assert table.run(pair) == 0
        return len(np.unique(a)) == 2

    assert until(shared)
    assert 0 not in a


def test_program_of_fewer_threads_leaves_the_others_out():
    pool = Pool(4)
    a = np.zeros(20_000, dtype=np.int64)
    table = Table().add("thread", a, extent=a.size, chunk=100)
    assert until(lambda: (table.run(pool), len(np.unique(a)) > 2)[1])
    pool.threads = 2
    for _ in range(300):
        assert table.run(pool) == 0
        assert len(np.unique(a)) <= 2
    pool.threads = 1
    assert table.run(pool) == 0
    assert np.unique(a).tolist() == [a[0]]
    pool.threads = 3
    assert until(lambda: (table.run(pool), len(np.unique(a)) > 1)[1])
    pool.stop()


def test_error_stops_after_its_step_and_is_the_lowest_chunk_s(pool):
    a = np.zeros(64, dtype=np.int64)
    table = Table().add("increase", a, extent=64, chunk=8)
    table.add("failing", None, size=17, extent=40, chunk=1)
    table.add("increase", a, extent=64, chunk=8)
    for run in range(1, 500):
        table.error = Error()
        assert table.run(pool) == 5
        assert (table.error.launch, table.error.code, table.error.detail[0]) == (1, 5, 17)
        assert (a == run).all()
    table.rows[1] = table.rows[0]
    assert table.run(pool) == 0  # and the pool works on


def test_error_code_of_the_kernel_is_kept(pool):
    def fail(buffers, sizes, begin, end, error):
        error[0].code, error[0].detail[5] = 77, begin
        return -3

    callback = KERNEL_TYPE(fail)
    kernel = ctypes.cast(callback, ctypes.c_void_p).value
    table = Table().add(kernel, None, extent=6, chunk=2)
    assert table.run(pool) == -3
    assert (table.error.launch, table.error.code, table.error.detail[5]) == (0, 77, 0)


def test_error_is_optional(pair):
    rows = Table().add("failing", None, size=0, extent=4, chunk=1)
    native = rows.native()
    assert dispatcher().run(pair.address, ctypes.addressof(native), 1, 2, None, None) == 5


def test_stress_of_short_programs(pair):
    rng = np.random.default_rng(0)
    a = np.zeros(40, dtype=np.int64)
    tables, sums = [], []
    for extent, chunk in zip(rng.integers(1, 40, 50), rng.integers(1, 6, 50), strict=True):
        table = Table()
        for size in (1, 2, 3):
            table.add("increase", a, size=size, extent=int(extent), chunk=int(chunk))
        tables.append(table)
        sums.append(np.where(np.arange(40) < extent, 6, 0))
    for _ in range(400):
        for table in tables:
            assert table.run(pair) == 0
    np.testing.assert_array_equal(a, 400 * sum(sums))


def test_concurrent_callers(pair):
    wrong: list[str] = []

    def call() -> None:
        for _ in range(30):
            table, result, expected = stencil_table(100, 40, 3)
            if table.run(pair) != 0 or not np.array_equal(result, expected):
                wrong.append(threading.current_thread().name)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_busy_pool_runs_the_second_program_on_its_caller(pair):
    a = np.zeros(1000, dtype=np.int64)
    inner = Table().add("thread", a, extent=1000, chunk=10)

    def nested(buffers, sizes, begin, end, error):
        return inner.run(pair)

    callback = KERNEL_TYPE(nested)
    kernel = ctypes.cast(callback, ctypes.c_void_p).value
    await_worker(pair)
    assert Table().add(kernel, None, extent=1).run(pair) == 0
    assert len(np.unique(a)) == 1 and a[0] != 0


def test_profile_times_every_launch(pool):
    a = np.zeros(64, dtype=np.int64)
    table = Table().add("increase", a, extent=64, chunk=8).add("increase", a)
    table.add("increase", a, extent=64)
    profile = np.zeros(7, dtype=np.uint64)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert table.run(pool, profile) == 0
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert sorted(profile[:6].tolist()) == profile[:6].tolist()
    assert before <= profile[0] and profile[5] <= after
    assert profile[6] == 0


def test_idle_workers_park_and_wake_again(pair):
    a = np.zeros(64, dtype=np.int64)
    table = Table().add("increase", a, extent=64, chunk=1)
    for run in range(1, 4):
        await_worker(pair)
        assert table.run(pair) == 0
        assert (a == run).all()
        assert until(lambda: pair.parked)
        used_s = time.process_time()
        time.sleep(0.05)
        assert time.process_time() - used_s < 0.02


def test_workers_stay_while_a_program_runs(pair):
    still_awake = []

    def pause(buffers, sizes, begin, end, error):
        time.sleep(5e-9 * threads.IDLE_NS)
        still_awake.append(not pair.parked)
        return 0

    callback = KERNEL_TYPE(pause)
    kernel = ctypes.cast(callback, ctypes.c_void_p).value
    table = Table().add(kernel, None, extent=1)

    def stayed() -> bool:
        await_worker(pair)  # it may be gone again before the program starts: try several times
        table.run(pair)
        return still_awake[-1]

    assert until(stayed)


def test_threads_start_lazily_and_end_with_the_pool():
    def alive() -> int:
        return sum(thread.name.startswith("graphc-worker") for thread in threading.enumerate())

    before = alive()
    pool = Pool(3)
    assert alive() == before
    pool.wake()
    assert alive() == before + 2
    pool.threads = 4
    pool.wake()
    assert until(lambda: alive() == before + 3)
    del pool
    gc.collect()
    assert alive() == before


def test_stopped_pool_still_runs_programs(pair):
    await_worker(pair)
    pair.stop()
    a = np.zeros(64, dtype=np.int64)
    assert Table().add("index", a, size=1, extent=64, chunk=1).run(pair) == 0
    assert a.tolist() == list(range(64))
    assert pair.parked


@pytest.mark.parametrize("count", [0, -1, 2.0, "2"])
def test_number_of_threads_is_checked(count):
    with pytest.raises(ArgumentError, match="threads must be a positive integer"):
        Pool(count)


def test_default_pool_follows_the_option():
    assert threads.default_pool() is threads.default_pool()
    with graphc.config.options(threads=3):
        assert Pool().threads == 3


class DictCache(dict):
    """An object cache in memory."""

    def put(self, key: str, value: bytes) -> None:
        self[key] = value


@pytest.mark.parametrize("damage", [lambda x: x, lambda x: x[:-9], lambda x: b"", lambda x: b"?"])
def test_object_code_is_cached_and_damage_is_a_miss(monkeypatch, damage):
    compiled = []
    compile_object = dispatch.object_code
    monkeypatch.setattr(
        dispatch, "object_code", lambda *a: compiled.append(1) or compile_object(*a)
    )
    monkeypatch.setattr(dispatch, "_loaded", {})
    cache = DictCache()
    dispatch.dispatcher(cache)
    ((key, good),) = cache.items()
    cache[key] = damage(good)
    monkeypatch.setattr(dispatch, "_loaded", {})
    a = np.zeros(3, dtype=np.int64)
    table = Table().add("index", a, size=2, extent=3)
    native = table.native()
    loaded = dispatch.dispatcher(cache)
    assert loaded.run(None, ctypes.addressof(native), 1, 1, None, None) == 0
    assert a.tolist() == [0, 2, 4]
    assert len(compiled) == (1 if damage(good) == good else 2)
    assert len(cache[key]) == len(good)
    assert dispatch.dispatcher() is loaded


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_object_code_needs_the_c_library_only(tmp_path):
    cache = DictCache()
    dispatch._cached_object_code(cache)
    (entry,) = cache.values()
    file = tmp_path / "dispatch.o"
    file.write_bytes(entry[32:])
    listed = subprocess.run(["nm", "-u", file], capture_output=True, text=True, check=True)
    undefined = {line.split()[-1].lstrip("_") for line in listed.stdout.splitlines()}
    assert undefined <= {"clock_gettime", "sched_yield", "GLOBAL_OFFSET_TABLE_"}


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-darwin"])
def test_aarch64_code_orders_its_memory_accesses(triple):
    binding = lazy.llvmlite_binding()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    platform = Platform(triple, 1)
    target = binding.Target.from_triple(triple)
    machine = target.create_target_machine(opt=3, reloc="pic", codemodel="small")
    module = binding.parse_assembly(str(dispatch.build_module(platform)))
    module.verify()
    assembly = machine.emit_assembly(module)
    assert {"ldaxr", "stlr", "yield"} <= set(assembly.split())
    assert "__aarch64" not in assembly  # atomics by calls into a compiler's library
    assert dispatch.object_code(platform, machine)


def scenario_exit() -> None:
    """Leave the interpreter while the workers spin."""
    pool = threads.default_pool()
    pool.threads = 3
    await_worker(pool)
    assert_right(pool)


def scenario_fork() -> None:
    """Fork a process that has used its pool; both sides compute, the child with new threads."""
    pool = Pool(2)
    await_worker(pool)
    assert_right(pool)
    child = os.fork()
    await_worker(pool)
    assert_right(pool)
    if child:
        assert os.waitpid(child, 0)[1] == 0


def scenario_fork_while_busy() -> None:
    """Fork while another thread's program holds the pool and its locks."""
    pool, over = Pool(2), threading.Event()

    def keep_busy() -> None:
        while not over.is_set():
            assert_right(pool)

    other = threading.Thread(target=keep_busy)
    other.start()
    try:
        for _ in range(10):
            child = os.fork()
            await_worker(pool)
            assert_right(pool)
            if child == 0:
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        over.set()
    other.join()


def assert_right(pool: Pool) -> None:
    table, result, expected = stencil_table(200, 50, 7)
    assert table.run(pool) == 0
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", ["exit", "fork", "fork_while_busy"])
def test_process(name):
    if name.startswith("fork") and not hasattr(os, "fork"):
        pytest.skip("needs fork")
    root = Path(graphc.__file__).parents[1]
    paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    for _ in range(3):
        result = subprocess.run(
            [sys.executable, __file__, name],
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (result.returncode, result.stderr) == (0, "")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Python's own warning about threads and fork
    globals()[f"scenario_{sys.argv[1]}"]()

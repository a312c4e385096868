"""The native dispatcher: every chunk once, steps in order, errors, profiles, object code."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import time
from collections.abc import Iterator

import numpy as np
import pytest
from launch_tables import Table, await_worker, call_of, stencil_table

from graphc import config, lazy
from graphc.codegen import dispatch
from graphc.codegen.dispatch import KERNEL_TYPE, Call, Error, Platform
from graphc.runtime.threads import Pool


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
    assert pool.run(Call()) == 0


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


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_step_sees_what_the_step_before_wrote(pool, chunk):
    if pool.threads > 1:
        await_worker(pool)
    table, result, expected = stencil_table(600, 130, chunk)
    assert table.run(pool) == 0
    np.testing.assert_array_equal(result, expected)


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
    assert pair.run(call_of(rows.native())) == 5


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


@pytest.mark.parametrize("damage", [None, lambda x: x[:-9], lambda x: b"", lambda x: b"?"])
def test_object_code_is_cached_and_damage_is_a_miss(monkeypatch, tmp_path, damage):
    compiled = []
    compile_object = dispatch.object_code
    monkeypatch.setattr(
        dispatch, "object_code", lambda *a: compiled.append(1) or compile_object(*a)
    )
    a = np.zeros(3, dtype=np.int64)
    table = Table().add("index", a, size=2, extent=3)
    call = call_of(table.native())
    with config.options(cache_dir=str(tmp_path)):
        monkeypatch.setattr(dispatch, "_loaded", {})
        dispatch.dispatcher()
        (entry,) = (tmp_path / "entries").iterdir()
        if damage is not None:
            entry.write_bytes(damage(entry.read_bytes()))
        monkeypatch.setattr(dispatch, "_loaded", {})
        loaded = dispatch.dispatcher()
    assert loaded.run(ctypes.addressof(call)) == 0
    assert a.tolist() == [0, 2, 4]
    assert len(compiled) == (1 if damage is None else 2)
    assert dispatch.dispatcher() is loaded


def test_what_is_cached_does_not_need_its_ir(monkeypatch):
    dispatch._cached_object_code()
    monkeypatch.setattr(dispatch, "build_module", None)
    assert dispatch._cached_object_code()


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_object_code_needs_the_c_library_only(tmp_path):
    file = tmp_path / "dispatch.o"
    platform = dispatch.host_platform()
    file.write_bytes(dispatch.object_code(platform, dispatch._host_machine(platform.triple)))
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

"""The life of the dispatcher's threads: sharing, parking, resizing, callers, exit and fork."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from launch_tables import Table, await_worker, call_of, stencil_table, until

import graphc
from graphc.codegen.dispatch import KERNEL_TYPE, dispatcher
from graphc.errors import ArgumentError
from graphc.runtime import threads
from graphc.runtime.threads import Pool


@pytest.fixture
def pair() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.stop()


def test_workers_take_part(pair):
    a = np.zeros(20, dtype=np.int64)
    table = Table().add("thread", a, size=200, extent=20, chunk=1)

    def shared() -> bool:
        assert table.run(pair) == 0
        return len(np.unique(a)) == 2

    assert until(shared)
    assert 0 not in a


def test_program_of_fewer_threads_leaves_the_others_out():
    pool = Pool(4)
    a = np.zeros(40, dtype=np.int64)
    table = Table().add("thread", a, size=200, extent=40, chunk=1)
    for threads_of_program in (4, 2, 1, 3):
        most = 0
        end = time.monotonic() + 20
        while most < threads_of_program and time.monotonic() < end:
            for _ in range(10):
                pool.threads = 4
                pool.wake()
                pool.threads = threads_of_program
                assert table.run(pool) == 0
                most = max(most, len(np.unique(a)))
        assert most == threads_of_program
    pool.stop()


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


def test_workers_that_wake_late_join_the_step_at_hand(pair):
    ran_by = set()

    def slow(buffers, sizes, begin, end, error):
        pair.wake()
        time.sleep(0.005)
        ran_by.add(threading.get_ident())
        return 0

    callback = KERNEL_TYPE(slow)
    kernel = ctypes.cast(callback, ctypes.c_void_p).value
    rows = Table().add(kernel, None, extent=100, chunk=1).native()
    call = call_of(rows)
    call.pool, call.threads = pair.address, pair.threads
    assert pair.parked  # so that the step starts with nobody but its caller
    assert dispatcher().run(ctypes.addressof(call)) == 0
    assert len(ran_by) == 2


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
    assert_right(pool)  # a fork in the middle of an import is beyond repair

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

"""Keys, caches, parallel compilation with workers that die, and loading without numba."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scheduled_kernels import TARGET, apply_kernel, call, pointwise, row_sums

import graphc
from graphc import config
from graphc.codegen import cache, compiler, counters, llvm_compile
from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.loop import Kernel
from graphc.ir.types import float32


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path) -> Iterator[None]:
    """An empty disk cache and an empty process."""
    compiler._loaded.clear()
    counters.reset()
    with config.options(cache_dir=str(tmp_path)):
        yield
    compiler._loaded.clear()


def polynomial(degree: int) -> Kernel:
    def value(x: E.Expr) -> E.Expr:
        y = x
        for k in range(degree):
            y = E.apply("fma", y, x, float(k))
        return y

    return apply_kernel(value, (float32,), float32, 16)


def check(kernel: compiler.CompiledKernel, degree: int) -> None:
    x = np.linspace(-1, 1, 32, dtype=np.float32)
    y = np.zeros_like(x)
    assert call(kernel.address, [x, y], [32], 0, 32) == 0
    expected = x.astype(np.float64)
    for k in range(degree):
        expected = expected * x + k
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_equal_kernels_are_compiled_once() -> None:
    twin = replace(pointwise(), name="another name")
    a, b, c = compiler.compile_kernels([pointwise(), row_sums(), twin], TARGET)
    assert a.key == c.key != b.key and a.address == c.address != b.address
    assert counters.stats()["kernels_compiled"] == 2
    compiler.compile_kernels([twin], TARGET)
    assert counters.stats()["kernels_compiled"] == 2
    assert counters.stats()["kernels_loaded"] == 0
    assert counters.stats()["compile_s"] > 0


def test_second_process_loads_from_disk() -> None:
    (first,) = compiler.compile_kernels([polynomial(3)], TARGET)
    compiler._loaded.clear()
    (second,) = compiler.compile_kernels([polynomial(3)], TARGET)
    assert second.key == first.key
    assert counters.stats()["kernels_compiled"] == 1
    assert counters.stats()["kernels_loaded"] == 1
    check(second, 3)


def test_damaged_entry_is_compiled_again() -> None:
    compiler.compile_kernels([polynomial(3)], TARGET)
    (path,) = (config.cache_dir() / "entries").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    compiler._loaded.clear()
    (again,) = compiler.compile_kernels([polynomial(3)], TARGET)
    assert counters.stats()["kernels_compiled"] == 2
    check(again, 3)


def test_keys_depend_on_text_and_target() -> None:
    other = replace(TARGET, features=TARGET.features + ",-avx512f")
    keys = {compiler.kernel_key(text, t) for text in ("a", "b") for t in (TARGET, other)}
    assert len(keys) == 4


def test_errors_are_raised_and_nothing_is_kept() -> None:
    bad = apply_kernel(lambda a: E.apply("sqrt", a), (E.int64,), E.int64, 1)
    with pytest.raises(CompileError, match="sqrt is not defined on i64"):
        compiler.compile_kernels([polynomial(2), bad], TARGET)
    assert cache.entries() == []


LOADER = """
import sys
from graphc.codegen import compiler, counters
from graphc.codegen.cpu import host_target
kernel = compiler.load_cached(sys.argv[1], host_target())
assert kernel.address
assert counters.stats()["kernels_loaded"] == 1
assert "numba" not in sys.modules, "numba was imported"
"""


def test_loading_imports_no_numba() -> None:
    (compiled,) = compiler.compile_kernels([polynomial(4)], TARGET)
    root = str(Path(graphc.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"GRAPHC_CACHE_DIR": str(config.cache_dir()), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", LOADER, compiled.key], env=env, timeout=60, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def test_several_threads_compile_at_once() -> None:
    found: list[int] = []

    def work() -> None:
        with config.options(cache_dir=str(folder)):
            found.extend(k.address for k in compiler.compile_kernels(kernels, TARGET))

    folder, kernels = config.cache_dir(), [polynomial(5), polynomial(6)]
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6 and len(set(found)) == 2


def test_compiled_code_survives_a_fork() -> None:
    (compiled,) = compiler.compile_kernels([polynomial(3)], TARGET)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            check(compiled, 3)
            (other,) = compiler.compile_kernels([polynomial(8)], TARGET)
            check(other, 8)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- several threads -------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["llvm", "numba"])
def test_code_does_not_depend_on_the_number_of_threads(engine: str, tmp_path: Path) -> None:
    kernels = [polynomial(k) for k in range(2, 8)]
    codes = []
    for threads in (1, 4):
        compiler._loaded.clear()
        folder = str(tmp_path / str(threads))
        with config.options(engine=engine, compile_threads=threads, cache_dir=folder):
            compiled = compiler.compile_kernels(kernels, TARGET)
            codes.append([cache.get(kernel.key) for kernel in compiled])
        for degree, kernel in enumerate(compiled, 2):
            check(kernel, degree)
    assert None not in codes[0] and codes[0] == codes[1]
    assert counters.stats()["kernels_compiled"] == 2 * len(kernels)


def test_an_error_in_a_thread_is_raised_by_the_caller() -> None:
    bad = apply_kernel(lambda a: E.apply("sqrt", a), (E.int64,), E.int64, 1)
    kernels = [*(polynomial(k) for k in range(2, 8)), bad]
    with (
        config.options(compile_threads=2, engine="numba"),
        pytest.raises(CompileError, match="sqrt is not"),
    ):
        compiler.compile_kernels(kernels, TARGET)


# -- the target ------------------------------------------------------------------------------


def test_target_describes_this_machine() -> None:
    assert TARGET.vector_bytes in (16, 32, 64) and TARGET.registers in (16, 32)
    assert TARGET.lanes(float32) == TARGET.vector_bytes // 4
    assert 8 << 10 <= TARGET.l1_bytes <= TARGET.l2_bytes <= TARGET.l3_bytes


@pytest.mark.parametrize("features", ["-avx512f", "-avx512f,-avx2,-avx,-fma"])
def test_narrower_machines_get_code_or_an_error(features: str) -> None:
    if not TARGET.triple.startswith("x86_64"):
        pytest.skip("features of x86")
    narrow = replace(TARGET, cpu="x86-64-v3", features=features, vector_bytes=32, registers=16)
    text = compiler.current_engine().source(pointwise(), narrow)
    if "-fma" in features:
        with pytest.raises(CompileError, match="calls fmaf"):
            compiler.object_code(text, narrow)
    else:
        code = compiler.object_code(text, narrow)
        assert llvm_compile.undefined_symbols(code) == []


def test_counters() -> None:
    counters.add("programs_traced")
    with counters.timed("trace_s"):
        pass
    assert counters.stats()["programs_traced"] == 1 and counters.stats()["trace_s"] > 0
    with pytest.raises(KeyError):
        counters.add("no_such_counter")
    counters.reset()
    assert set(counters.stats().values()) == {0}


def test_a_compilation_pauses_the_collector_and_leaves_it_nothing_new_to_walk() -> None:
    made: list[list[object]] = []
    with compiler.Compilation(TARGET) as compilation:
        assert not gc.isenabled()
        compilation.add(pointwise())
        made += ([] for _ in range(5000))
    assert gc.isenabled() and not gc.get_freeze_count()
    assert len(gc.get_objects(generation=0)) < 5000  # they went to the oldest generation at once


def test_a_frozen_heap_stays_frozen() -> None:
    gc.freeze()
    try:
        with compiler.Compilation(TARGET):
            pass
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()

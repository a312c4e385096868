"""Kernels to native functions: keys, memory and disk cache, parallel compilation, loading."""

from __future__ import annotations

import gc
import importlib.metadata
import itertools
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import cache as remember
from pathlib import Path
from types import ModuleType
from typing import Any

from graphc import config, lazy
from graphc.codegen import (
    cache,
    counters,
    cuda_code,
    llvm_compile,
    llvm_engine,
    numba_cuda,
    numba_engine,
    numba_nvvm,
    python_kernels,
)
from graphc.codegen.dispatch import dispatcher
from graphc.codegen.llvm_kernel import SYMBOL
from graphc.ir.loop import Kernel, python_of
from graphc.ir.target import Target

ENGINES: dict[str, ModuleType] = {engine.NAME: engine for engine in (llvm_engine, numba_engine)}
"""Each offers ``source(kernel, target)``, what kernels are told apart by, and ``llvm_text(source,
target)``; ``PASSES`` that LLVM shall run on it, and ``FILES`` that it is made of."""

CUDA_ENGINES: dict[str, ModuleType] = {"llvm": llvm_engine, "numba": numba_cuda}
"""What the option's name stands for on a GPU; these offer ``source`` and ``FILES``."""

_BY_NAME = ENGINES | {m.NAME: m for m in (python_kernels, numba_cuda)}
"""The engines that an option chooses, and the one of kernels that are Python already."""

# What object code depends on beside its source; a change of one of them makes new keys.
_SHARED_FILES = (
    "cpu.py",
    "llvm_builder.py",
    "llvm_compile.py",
    "llvm_conversions.py",
    "llvm_extremes.py",
    "llvm_kernel.py",
    "llvm_memory.py",
    "llvm_types.py",
    "llvm_values.py",
)


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """A kernel as native code in this process; it stays loaded until the process ends.

    Attributes
    ----------
    key : str
        Names the kernel's text, engine, target and versions; the disk cache's key.
    address : int
        Address of ``i32 kernel(void **buffers, const i64 *sizes, i64 begin, i64 end, Error *)``;
        0 for CUDA, whose kernels each device loads for itself.
    code : bytes
        What `graphc.codegen.cuda_code.read` takes; empty for the CPU.
    """

    key: str
    address: int
    code: bytes = b""


def current_engine() -> Any:
    """Return the engine that the option ``engine`` names."""
    return ENGINES[config.current().engine]


def engine_for(target: Target) -> Any:
    """Return what the option ``engine`` stands for on a target."""
    return current_engine() if target.name == "cpu" else CUDA_ENGINES[config.current().engine]


def engine_of(kernel: Kernel, target: Target) -> Any:
    """Return the engine that compiles a kernel."""
    if python_of(kernel) is not None:
        return python_kernels
    return engine_for(target)


def passes_of(engine: Any, target: Target) -> tuple[str, ...]:
    """Return the passes of LLVM that an engine's text wants on a target."""
    found: tuple[str, ...] = getattr(engine, "TARGET_PASSES", {}).get(target.name, engine.PASSES)
    return found


def compile_kernels(kernels: Sequence[Kernel], target: Target) -> list[CompiledKernel]:
    """Return native code for scheduled kernels; equal ones are compiled once.

    Looks in this process, then in the disk cache, then compiles what is missing, side by side in
    ``config.current().compile_threads`` threads.

    Raises
    ------
    CompileError
        If a kernel holds what no machine runs, or the target lacks an instruction it needs.
    """
    with Compilation(target) as compilation:
        for kernel in kernels:
            compilation.add(kernel)
        return compilation.finish()


_INTERVAL_S = 5e-4


class Compilation:
    """Kernels that are compiled side by side, from the moment each is added.

    A context: threads end with it. Meanwhile the garbage collector pauses, which would walk
    everything again and again, 70 ms each time, and Python's lock changes hands more often, or
    threads would wait 5 ms for it between LLVM's steps. The dispatcher, which the programs will
    need, is made while nothing else is to be compiled yet.

    Parameters
    ----------
    target : Target
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._pool = ThreadPoolExecutor(config.current().compile_threads, "graphc-compile")
        self._collecting, self._interval_s = gc.isenabled(), sys.getswitchinterval()
        self._known: dict[Kernel, str] = {}
        self._keys: list[str] = []
        self._jobs: dict[str, Future[bytes]] = {}

    def __enter__(self) -> Compilation:
        gc.disable()
        if self._interval_s > _INTERVAL_S:
            sys.setswitchinterval(_INTERVAL_S)
        if self._target.name == "cpu":
            self._pool.submit(dispatcher)
        return self

    def __exit__(self, *_: object) -> None:
        if self._interval_s > _INTERVAL_S:  # not where another thread's compilation changed it
            sys.setswitchinterval(self._interval_s)
        if self._collecting:
            if not gc.get_freeze_count():
                # What was made lives on: let the next collection not begin with walking all of it.
                gc.freeze()
                gc.unfreeze()
            gc.enable()
        self._pool.shutdown(cancel_futures=True)

    def add(self, kernel: Kernel) -> None:
        """Begin with a kernel, unless it is known already."""
        nameless = replace(kernel, name="")
        if nameless not in self._known:
            engine = engine_of(kernel, self._target)
            if self._target.name == "cuda":
                text = cuda_code.source(kernel, self._target, engine.NAME)
            else:
                text = engine.source(kernel, self._target)
            key = self._known[nameless] = kernel_key(text, self._target, engine.NAME)
            if key not in self._jobs and load_cached(key, self._target) is None:
                # LLVM, where most of the time goes, runs without Python's lock.
                run = copy_context().run
                self._jobs[key] = self._pool.submit(
                    run, object_code, text, self._target, engine.NAME
                )
        self._keys.append(self._known[nameless])

    def finish(self) -> list[CompiledKernel]:
        """Return the native code of all kernels, in the order they were added."""
        if self._jobs:
            with counters.timed("compile_s"):
                codes = {key: job.result() for key, job in self._jobs.items()}
            counters.add("kernels_compiled", len(codes))
            for key, code in codes.items():
                cache.put(key, code)
                _load(key, code, self._target)
        return [_loaded[key] for key in self._keys]


def object_code(source: str, target: Target, engine: str = "") -> bytes:
    """Return the object file of a kernel's source; its only symbol is `SYMBOL`. For CUDA, PTX.

    Raises
    ------
    CompileError
        If the target lacks an instruction that the kernel needs.
    """
    if target.name == "cuda":
        return cuda_code.machine_code(source, target, engine)
    writer: Any = _BY_NAME[engine or config.current().engine]
    text, library = writer.llvm_text(source, target), getattr(writer, "LIBRARY", ())
    return llvm_compile.object_code(text, target, passes_of(writer, target), library)


def source_of(kernel: Kernel, target: Target) -> str:
    """Return a kernel as Python text."""
    if target.name == "cuda":
        return numba_cuda.source(kernel, target)
    writer = numba_engine if python_of(kernel) is None else python_kernels
    return writer.source(kernel, target)


def text_of(kernel: Kernel, target: Target) -> str:
    """Return what tells kernels of a target apart, for people to read."""
    if target.name == "cpu":
        return source_of(kernel, target)
    text: str = engine_of(kernel, target).source(kernel, target)
    return text


def llvm_ir(kernel: Kernel, target: Target) -> str:
    """Return a kernel's LLVM IR; optimized, but for what NVVM optimizes."""
    engine = engine_of(kernel, target)
    text = engine.source(kernel, target)
    if engine is numba_cuda:
        return "\n".join(numba_nvvm.modules(text, target))
    passes = passes_of(engine, target)
    return str(llvm_compile.optimized(engine.llvm_text(text, target), target, passes))


def assembly(kernel: Kernel, target: Target) -> str:
    """Return a kernel's machine code as assembly; PTX for CUDA."""
    engine = engine_of(kernel, target)
    text = engine.source(kernel, target)
    if target.name == "cuda":
        return cuda_code.ptx(text, target, engine.NAME)
    text = engine.llvm_text(text, target)
    return llvm_compile.assembly(text, target, passes_of(engine, target))


def kernel_key(text: str, target: Target, engine: str = "") -> str:
    """Return the key of a kernel's source on a target."""
    engine, width = engine or config.current().engine, str(target.vector_bytes)
    return cache.key_of(
        text, engine, target.triple, target.cpu, target.features, width, versions(engine)
    )


def load_cached(key: str, target: Target) -> CompiledKernel | None:
    """Return a kernel from this process or the disk cache; imports no numba.

    A program that was compiled before needs the keys of its kernels only.
    """
    found = _loaded.get(key)
    if found is not None:
        return found
    with counters.timed("load_s"):
        code = cache.get(key)
        if code is None:
            return None
        found = _load(key, code, target)
    counters.add("kernels_loaded")
    return found


@remember
def versions(engine: str) -> str:
    """Return what the code of an unchanged source depends on: packages, Python, the engine."""
    packages = ("llvmlite", *_BY_NAME[engine].PACKAGES)
    found = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    if engine == numba_cuda.NAME:
        found += lazy.numba_cuda_versions()
    python = f"python {sys.version_info.major}.{sys.version_info.minor}"
    folder = Path(__file__).parent
    files = (*_SHARED_FILES, *_BY_NAME[engine].FILES)
    return cache.key_of(
        *found, python, *((folder / name).read_text(encoding="utf-8") for name in files)
    )


# No locks: two threads may compile the same kernel at once, and the first to finish wins.
_loaded: dict[str, CompiledKernel] = {}
_linkers: dict[Target, Any] = {}
_libraries: list[Any] = []
_numbers = itertools.count()


def _load(key: str, code: bytes, target: Target) -> CompiledKernel:
    """Link object code into this process."""
    if target.name == "cuda":
        return _loaded.setdefault(key, CompiledKernel(key, 0, code))
    binding = lazy.llvmlite_binding()
    linker = _linkers.get(target)
    if linker is None:
        made = binding.create_lljit_compiler(llvm_compile.new_machine(target))
        linker = _linkers.setdefault(target, made)
    builder = binding.JITLibraryBuilder().add_object_img(code).export_symbol(SYMBOL)
    if llvm_compile.undefined_symbols(code):  # functions of the C library
        builder = builder.add_current_process()
    library = builder.link(linker, f"{key}-{next(_numbers)}")
    compiled = CompiledKernel(key, library[SYMBOL])
    _libraries.append(library)
    return _loaded.setdefault(key, compiled)

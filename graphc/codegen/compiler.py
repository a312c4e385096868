"""Kernels to native functions: keys, memory and disk cache, parallel compilation, loading."""

from __future__ import annotations

import importlib.metadata
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path
from typing import Any

from graphc import config, lazy
from graphc.codegen import cache, counters, llvm_compile, numba_engine, workers
from graphc.ir.loop import Kernel
from graphc.ir.target import Target

ENGINE = "numba"

# What object code depends on beside its text; a change of one of them makes new keys.
_ENGINE_FILES = (
    "cpu.py",
    "llvm_compile.py",
    "llvm_conversions.py",
    "llvm_memory.py",
    "llvm_values.py",
    "numba_lowering.py",
    "python_text.py",
    "sharing.py",
)


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """A kernel as native code in this process; it stays loaded until the process ends.

    Attributes
    ----------
    key : str
        Names the kernel's text, engine, target and versions; the disk cache's key.
    address : int
        Address of ``i32 kernel(void **buffers, const i64 *sizes, i64 begin, i64 end, Error *)``.
    """

    key: str
    address: int


def compile_kernels(kernels: Sequence[Kernel], target: Target) -> list[CompiledKernel]:
    """Return native code for scheduled kernels; equal ones are compiled once.

    Looks in this process, then in the disk cache, then compiles what is missing, side by side in
    ``config.current().compile_workers`` processes where there is enough of it.

    Raises
    ------
    CompileError
        If a kernel holds what no machine runs, or the target lacks an instruction it needs.
    """
    texts = [numba_engine.source(kernel) for kernel in kernels]
    keys = [kernel_key(text, target) for text in texts]
    unknown = {key: text for key, text in zip(keys, texts, strict=True) if key not in _loaded}
    missing = {key: text for key, text in unknown.items() if load_cached(key, target) is None}
    if missing:
        _compile_missing(missing, target)
    return [_loaded[key] for key in keys]


def kernel_key(text: str, target: Target) -> str:
    """Return the key of a kernel's text on a target."""
    width = str(target.vector_bytes)
    return cache.key_of(text, ENGINE, target.triple, target.cpu, target.features, width, versions())


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
def versions() -> str:
    """Return what the code of an unchanged kernel depends on: packages, Python, the engine."""
    packages = [f"{name} {importlib.metadata.version(name)}" for name in ("numba", "llvmlite")]
    python = f"python {sys.version_info.major}.{sys.version_info.minor}"
    folder = Path(__file__).parent
    files = [(folder / name).read_text(encoding="utf-8") for name in _ENGINE_FILES]
    return cache.key_of(*packages, python, *files)


def _compile_missing(missing: dict[str, str], target: Target) -> None:
    with counters.timed("compile_s"):
        codes = workers.compile_texts(
            list(missing.values()),
            target,
            numba_engine.compile_source,
            config.current().compile_workers,
        )
    counters.add("kernels_compiled", len(codes))
    for key, code in zip(missing, codes, strict=True):
        cache.put(key, code)
        _load(key, code, target)


# No locks: two threads may compile the same kernel at once, and the first to finish wins.
_loaded: dict[str, CompiledKernel] = {}
_linkers: dict[Target, Any] = {}
_libraries: list[Any] = []
_numbers = itertools.count()


def _load(key: str, code: bytes, target: Target) -> CompiledKernel:
    """Link object code into this process."""
    binding = lazy.llvmlite_binding()
    linker = _linkers.get(target)
    if linker is None:
        made = binding.create_lljit_compiler(llvm_compile.new_machine(target))
        linker = _linkers.setdefault(target, made)
    library = (
        binding.JITLibraryBuilder()
        .add_object_img(code)
        .export_symbol(numba_engine.SYMBOL)
        .link(linker, f"{key}-{next(_numbers)}")
    )
    compiled = CompiledKernel(key, library[numba_engine.SYMBOL])
    _libraries.append(library)
    return _loaded.setdefault(key, compiled)

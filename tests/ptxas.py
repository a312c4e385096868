"""NVIDIA's assembler: what a kernel's PTX takes of a processor."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from graphc import config
from graphc.codegen import llvm_compile, llvm_engine
from graphc.codegen.llvm_cuda import shared_bytes
from graphc.ir.loop import Kernel
from graphc.ir.target import Target

WHEEL = "nvidia-cuda-nvcc"
_USED = re.compile(r"Used (\d+) registers")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


@dataclass(frozen=True)
class Resources:
    """What a thread, and a block, of a kernel takes."""

    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int


@cache
def assembler() -> str:
    """Return the path of ptxas: the wheel's, whose version the golden files are of, or another."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "ptxas":
            return str(file.locate())
    found = shutil.which("ptxas")
    if found is None:
        pytest.skip(f"no ptxas: the dependency group cuda-check has {WHEEL}")
    return found


@cache
def release() -> str:
    """Return the release of the assembler, ``13.5``."""
    text = subprocess.run([assembler(), "--version"], capture_output=True, text=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    assert found is not None, text
    return found[1]


def ptx(kernel: Kernel, target: Target) -> str:
    """Return a kernel's PTX."""
    text, passes = llvm_engine.source(kernel, target), llvm_engine.TARGET_PASSES["cuda"]
    return llvm_compile.assembly(text, target, passes)


def resources(kernels: Iterable[Kernel], target: Target) -> list[Resources]:
    """Return what each kernel takes; equal ones are assembled once."""
    chosen = list(kernels)
    texts = [llvm_engine.source(kernel, target) for kernel in chosen]
    different = dict(zip(texts, chosen, strict=True))
    with ThreadPoolExecutor(config.available_cores()) as pool:
        found = pool.map(lambda kernel: _assembled(kernel, target), different.values())
        known = dict(zip(different, found, strict=True))
    return [known[text] for text in texts]


def _assembled(kernel: Kernel, target: Target) -> Resources:
    return assembled(ptx(kernel, target), target, kernel)


def assembled(text: str, target: Target, kernel: Kernel) -> Resources:
    """Return what a kernel takes whose PTX is ``text``."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(text)
        command = [assembler(), "-v", f"-arch={target.cpu}", str(source), "-o", os.devnull]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{kernel.name}: {done.stderr}"
    used, spills = _USED.search(done.stderr), _SPILLS.search(done.stderr)
    assert used is not None, done.stderr
    stack, stores, loads = map(int, spills.groups()) if spills else (0, 0, 0)
    return Resources(int(used[1]), stack, stores + loads, shared_bytes(kernel))


def summary(found: Sequence[Resources]) -> str:
    """Return one line: how many kernels, and the most that one of them takes."""
    most = [max(getattr(r, name) for r in found) for name in Resources.__annotations__]
    registers, stack, spills, shared = most
    return (
        f"{len(found):3} kernels, {registers:3} registers, {shared:6} bytes shared, "
        f"{stack} stack, {spills} spilled"
    )

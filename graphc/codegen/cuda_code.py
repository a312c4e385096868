"""A CUDA kernel as bytes: PTX, and beside it what a launch has to know of the kernel."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.codegen import llvm_compile, llvm_engine, numba_cuda, numba_nvvm
from graphc.codegen.llvm_cuda import block_threads, shared_bytes
from graphc.ir.loop import Kernel
from graphc.ir.target import Target


@dataclass(frozen=True, slots=True)
class CudaCode:
    """A compiled kernel.

    Attributes
    ----------
    threads : int
        Threads of a block.
    shared_bytes : int
        Dynamic shared memory of a block.
    code : bytes
        PTX.
    """

    threads: int
    shared_bytes: int
    code: bytes


def source(kernel: Kernel, target: Target, engine: str = llvm_engine.NAME) -> str:
    """Return an engine's text of a scheduled kernel, after a comment on its launch."""
    if engine == numba_cuda.NAME:
        text = numba_cuda.source(kernel, target)
        return comment(kernel, "#", numba_cuda.dynamic_bytes(kernel)) + text
    return comment(kernel, ";", shared_bytes(kernel)) + llvm_engine.source(kernel, target)


def comment(kernel: Kernel, sign: str, dynamic_bytes: int) -> str:
    """Return the line that tells of a kernel's launch."""
    return f"{sign} {block_threads(kernel)} threads, {dynamic_bytes} bytes\n"


def machine_code(text: str, target: Target, engine: str = llvm_engine.NAME) -> bytes:
    """Return the bytes that are kept for a kernel's source: a line on its launch, then PTX."""
    first, _, rest = text.partition("\n")
    return f"//{first[1:]}\n{ptx(rest, target, engine)}".encode()


def ptx(text: str, target: Target, engine: str = llvm_engine.NAME) -> str:
    """Return the PTX of an engine's text.

    Raises
    ------
    MissingDependencyError
        If the engine needs ``numba-cuda``, which is not installed.
    """
    if engine == numba_cuda.NAME:
        return numba_nvvm.ptx(text, target)
    return llvm_compile.assembly(text, target, llvm_engine.TARGET_PASSES["cuda"])


def read(content: bytes) -> CudaCode:
    """Return what `machine_code` made.

    Raises
    ------
    ValueError
        If the bytes are anything else.
    """
    first, _, code = content.partition(b"\n")
    words = first.split()
    if len(words) != 5 or words[0] != b"//" or not code:
        raise ValueError("not the code of a CUDA kernel")
    return CudaCode(int(words[1]), int(words[3]), code)

"""The Numba engine: scheduled loop IR -> Python text -> Numba's front end -> object code."""

from __future__ import annotations

from graphc.codegen import llvm_compile
from graphc.codegen.numba_lowering import SYMBOL, llvm_module
from graphc.codegen.python_text import source
from graphc.ir.loop import Kernel
from graphc.ir.target import Target

__all__ = [
    "SYMBOL",
    "assembly",
    "compile_object",
    "compile_source",
    "llvm_ir",
    "source",
]


def compile_source(text: str, target: Target) -> bytes:
    """Return the object file of a kernel's text; its only symbol is `SYMBOL`."""
    return llvm_compile.object_code(str(llvm_module(text, target)), target)


def compile_object(kernel: Kernel, target: Target) -> bytes:
    """Return the object file of a scheduled kernel.

    The object has no undefined symbols. `SYMBOL` is
    ``i32 kernel(void **buffers, const i64 *sizes, i64 begin, i64 end, Error *error)``.

    Raises
    ------
    CompileError
        If the kernel holds what no machine runs, or the target lacks an instruction it needs.
    """
    return compile_source(source(kernel), target)


def llvm_ir(kernel: Kernel, target: Target, optimize: bool = True) -> str:
    """Return the kernel's LLVM IR."""
    text = str(llvm_module(source(kernel), target))
    return str(llvm_compile.optimized(text, target)) if optimize else text


def assembly(kernel: Kernel, target: Target) -> str:
    """Return the kernel's machine code as assembly."""
    return llvm_compile.assembly(str(llvm_module(source(kernel), target)), target)

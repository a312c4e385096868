"""Kernels in Python text, compiled by Numba as a whole: what users write for `graphc.kernel`.

The text of such a kernel is the user's module and an entry, which makes arrays of addresses. Numba
types, lowers and optimizes it; what is left is a function with the signature of every kernel.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from graphc import lazy
from graphc.codegen import llvm_compile
from graphc.codegen.llvm_kernel import SYMBOL
from graphc.errors import CompileError
from graphc.ir.expr import Buffer
from graphc.ir.loop import Kernel, python_of
from graphc.ir.target import Target
from graphc.ir.types import DTYPES

NAME = "python"
FILES = ("python_kernels.py",)
"""What code depends on beside the emitters that engines share."""
PACKAGES = ("numba",)
PASSES = ("simplify_cfg",)
"""LLVM's passes: Numba has optimized already."""
RAISED = 1
"""Code of a kernel that raised an exception."""
LIBRARY = frozenset(
    name + suffix
    for name in (
        "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "erf",
        "erfc", "exp", "exp2", "expm1", "fmod", "hypot", "ldexp", "lgamma", "log", "log10", "log1p",
        "log2", "pow", "round", "sin", "sincos", "sinh", "sqrt", "tan", "tanh", "tgamma",
    )
    for suffix in ("", "f")
) | {"memcpy", "memmove", "memset"}  # fmt: skip
"""Functions of the C library that the code may call."""

_ENTRY, _FILE = "graphc_entry", "<kernel>"


def source(kernel: Kernel, target: Target) -> str:
    """Return the text of a kernel that is a call of Python."""
    call = python_of(kernel)
    assert call is not None, "the other engines compile loops"
    lines = [f"    {name} = sizes[{number}]" for number, name in enumerate(kernel.sizes)]
    places = {buffer.name: number for number, buffer in enumerate(kernel.params)}
    arrays = ", ".join(_array(buffer, places[buffer.name]) for buffer in call.buffers)
    entry = ["", "", f"def {_ENTRY}(buffers, sizes):", *lines, f"    {call.function}({arrays})"]
    return "\n".join([call.source.rstrip(), *entry]) + "\n"


def _array(buffer: Buffer, place: int) -> str:
    shape = ", ".join(map(str, buffer.shape)) + ("," if len(buffer.shape) == 1 else "")
    return f"_carray(buffers[{place}], ({shape}), _{buffer.dtype.short})"


def llvm_text(text: str, target: Target) -> str:
    """Return LLVM IR of a kernel's text.

    Raises
    ------
    CompileError
        For Python that Numba cannot compile; its own message is part of it.
    """
    numba = lazy.numba()
    scope: dict[str, Any] = {f"_{d.short}": numba.from_dtype(d.numpy) for d in DTYPES}
    scope["_carray"] = numba.carray
    exec(compile(text, _FILE, "exec"), scope)
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    for name, item in list(scope.items()):
        if isinstance(item, FunctionType) and item.__code__.co_filename == _FILE:
            scope[name] = numba.njit(**options)(item)
    pointers = numba.types.CPointer(numba.types.voidptr)
    kinds = pointers, numba.types.CPointer(numba.types.int64)
    try:
        scope[_ENTRY].compile(numba.types.void(*kinds))
    except numba.core.errors.NumbaError as error:
        raise CompileError(
            f"Numba cannot compile a kernel: {_short(str(error))}",
            remedy="Kernels are loops over arrays, numbers and functions of math and NumPy.",
        ) from None
    (found,) = scope[_ENTRY].overloads.values()
    text = found.library.get_llvm_str() + _wrapped(found.fndesc.llvm_func_name)
    return llvm_compile.only_last(text, target)


def _short(message: str) -> str:
    """Return what Numba says of the fault, without its advice."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(lines)[:400]


def _wrapped(function: str) -> str:
    """Return the kernel: it calls Numba's function, whose status is 0 or, for None, -2."""
    return f"""
define i32 @{SYMBOL}(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, ptr %error) {{
  %result = alloca ptr
  %raised = alloca ptr
  %status = call i32 @"{function}"(ptr %result, ptr %raised, ptr %buffers, ptr %sizes)
  %zero = icmp eq i32 %status, 0
  %none = icmp eq i32 %status, -2
  %fine = or i1 %zero, %none
  br i1 %fine, label %good, label %bad
good:
  ret i32 0
bad:
  ret i32 {RAISED}
}}
"""

"""The Numba engine: scheduled loop IR -> Python text -> Numba's front end -> LLVM IR."""

from __future__ import annotations

from graphc.codegen import python_text
from graphc.codegen.numba_lowering import lowered
from graphc.ir.loop import Kernel
from graphc.ir.target import Target

NAME = "numba"
FILES = ("numba_lowering.py", "python_text.py", "sharing.py")
"""What code depends on beside the emitters that engines share."""
PACKAGES = ("numba",)

PASSES = (
    "sroa",
    "simplify_cfg",
    "instruction_combine",
    "loop_rotate",
    "new_gvn",
    "instruction_combine",
    "simplify_cfg",
    "aggressive_dce",
)
"""LLVM's passes: Numba's blocks keep registers and counters in memory."""


def source(kernel: Kernel, target: Target) -> str:
    """Return the Python text of a scheduled kernel; it is the same for every target.

    Raises
    ------
    CompileError
        If the kernel holds what no machine runs.
    """
    return python_text.source(kernel)


def llvm_text(text: str, target: Target) -> str:
    """Return the LLVM IR of a kernel's Python text, not yet optimized."""
    return lowered(text, target)

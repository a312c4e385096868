"""Linking an object file to a shared library by the system's C compiler."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from graphc.codegen.cpu import architecture, host_target
from graphc.errors import CompileError
from graphc.ir.target import Target

_TIMEOUT_S = 300


def is_mac(target: Target) -> bool:
    """Return whether libraries for a target are those of macOS."""
    return "darwin" in target.triple or "macos" in target.triple


def library_name(name: str, target: Target) -> str:
    """Return the file name of a shared library."""
    return f"lib{name}.dylib" if is_mac(target) else f"lib{name}.so"


def linker_of(target: Target) -> str:
    """Return the C compiler that links for a target: ``cc``, or the cross compiler's usual name."""
    if architecture(target) == architecture(host_target()):
        return "cc"
    return f"{architecture(target)}-linux-gnu-gcc"


def command(linker: str, target: Target, library: str, code: str, mathematics: bool) -> list[str]:
    """Return the command that makes a library of an object file.

    Parameters
    ----------
    linker : str
        A C compiler.
    target : Target
    library, code : str
        Files to write and to read.
    mathematics : bool
        Whether the code calls functions of the C library's mathematics.
    """
    own = [] if is_mac(target) else [f"-Wl,-soname,{Path(library).name}", "-Wl,-z,defs"]
    libraries = ["-lm"] if mathematics else []
    return [linker, "-shared", "-o", library, code, *own, *libraries, "-pthread"]


def found(linker: str) -> bool:
    """Return whether there is such a program."""
    return shutil.which(linker) is not None


def run(arguments: list[str]) -> None:
    """Run a linker.

    Raises
    ------
    CompileError
        With what it printed.
    """
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise CompileError(
            f"{shlex.join(arguments[:1])} failed with status {done.returncode}: "
            f"{done.stderr.strip()[:2000]}",
            remedy=f"The command was: {shlex.join(arguments)}",
        )

"""Which frameworks can take part here, and how each prepares a row."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Framework:
    """A side of the table.

    Parameters
    ----------
    name : str
        The column.
    needs : tuple of str
        Modules that have to be installed.
    module : str
        File of this folder that prepares its rows, by kind of workload, in ``table``.
    """

    name: str
    needs: tuple[str, ...]
    module: str
    table: str = "KINDS"

    def missing(self) -> list[str]:
        """Return which of its modules are not installed."""
        return [m for m in self.needs if importlib.util.find_spec(m) is None]

    def kinds(self) -> Mapping[str, Any]:
        """Return what prepares a row of each kind; imports the framework."""
        return getattr(importlib.import_module(f"benchmarks.{self.module}"), self.table)

    def configure(self, threads: int) -> None:
        """Set its number of threads, where it has such a setting."""
        module = importlib.import_module(f"benchmarks.{self.module}")
        if hasattr(module, "configure"):
            module.configure(threads)


    def use_gpu(self) -> None:
        """Put arrays on the first GPU from now on."""
        importlib.import_module(f"benchmarks.{self.module}").use_gpu()

    def wait(self) -> None:
        """Wait until a device has done its work, where it works by itself."""
        module = importlib.import_module(f"benchmarks.{self.module}")
        if hasattr(module, "wait"):
            module.wait()


GRAPHC = Framework("graphc", (), "side_graphc")
REFERENCE = Framework("numpy", (), "side_numpy")
COMPILED = Framework("torch.compile", ("torch",), "side_torch", "COMPILED_KINDS")
PEERS = (
    Framework("torch", ("torch",), "side_torch"),
    Framework("jax", ("jax",), "side_jax"),
    Framework("onnxruntime", ("onnxruntime", "torch", "onnx"), "side_onnxruntime"),
)


def cpp_compiler() -> str | None:
    """Return the C++ compiler that `torch.compile` would use."""
    return next(filter(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++"))), None)


def participants(torch_compile: bool, wanted: list[str] | None = None) -> list[Framework]:
    """Return graphc and the peers that are installed, or those of them that are ``wanted``.

    Raises
    ------
    SystemExit
        When `torch.compile` is asked for and has no compiler, or a wanted peer is not here.
    """
    if torch_compile and cpp_compiler() is None:
        raise SystemExit(
            "--torch-compile: there is no C++ compiler\ninstall g++ or clang++, or name one in CXX"
        )
    every = [*PEERS, *([COMPILED] if torch_compile else [])]
    absent = {p.name: p.missing() for p in every if p.missing()}
    unknown = sorted(set(wanted or ()) - {p.name for p in every if p.name not in absent})
    if unknown:
        known = ", ".join(p.name for p in every if p.name not in absent) or "none"
        raise SystemExit(
            f"--peers: {', '.join(unknown)} cannot run here\ninstalled peers: {known}\n"
            "the others come with: pip install --group bench"
        )
    here = [p for p in every if p.name not in absent]
    return [GRAPHC, *(p for p in here if wanted is None or p.name in wanted)]

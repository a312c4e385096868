"""Targets by the names that people give them."""

from __future__ import annotations

from graphc.codegen import cpu, cuda
from graphc.errors import ArgumentError, nearest
from graphc.ir.target import Target

CUDA = "cuda:"
"""What the name of a CUDA processor begins with, ``"cuda:sm_90"``."""


def target_names() -> tuple[str, ...]:
    """Return the names of all targets, this machine first."""
    return (cpu.HOST, *cpu.CPUS, *(CUDA + name for name in cuda.PROCESSORS))


def named_target(name: str) -> Target:
    """Return this machine (``host``), a nominal processor, or a CUDA one.

    Raises
    ------
    ArgumentError
        If there is none of this name.
    """
    if name not in target_names():
        raise ArgumentError(
            f"there is no target {name!r}.{nearest(name, target_names())}",
            remedy=f"Targets are {', '.join(target_names())}.",
        )
    return cuda.cuda_target(name[len(CUDA) :]) if name.startswith(CUDA) else cpu.named_target(name)

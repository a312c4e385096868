"""The CPU target: this machine's description, and LLVM's names of operations."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from graphc import config, lazy
from graphc.ir.target import Target

_LINUX_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_DEFAULT_CACHES = (32 << 10, 512 << 10, 8 << 20)

FLOAT_INTRINSICS = {
    "sqrt": "llvm.sqrt",
    "floor": "llvm.floor",
    "ceil": "llvm.ceil",
    "trunc": "llvm.trunc",
    "round": "llvm.rint",
    "abs": "llvm.fabs",
    "fma": "llvm.fma",
    "min": "llvm.minimum",
    "max": "llvm.maximum",
}
"""LLVM intrinsics of operations on floats; the vector type is appended."""

INTEGER_INTRINSICS = {
    ("min", "i"): "llvm.smin",
    ("max", "i"): "llvm.smax",
    ("min", "u"): "llvm.umin",
    ("max", "u"): "llvm.umax",
}
"""LLVM intrinsics of operations on signed (``i``) and unsigned (``u``) integers."""

STREAMING_FENCE = {"x86_64": "llvm.x86.sse.sfence"}
"""By architecture, what orders streaming stores before later ones; others need none."""


@cache
def host_target() -> Target:
    """Return the Target of this machine."""
    binding = lazy.llvmlite_binding()
    features = dict(binding.get_host_cpu_features())
    wide = features.get("avx512f", False) and features.get("avx512vl", False)
    vector_bytes = 64 if wide else 32 if features.get("avx2", False) else 16
    neon = platform.machine().lower() in ("arm64", "aarch64")
    l1_bytes, l2_bytes, l3_bytes = _cache_sizes()
    return Target(
        name="cpu",
        triple=binding.get_process_triple(),
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        vector_bytes=vector_bytes,
        registers=32 if wide or neon else 16,
        l1_bytes=l1_bytes,
        l2_bytes=l2_bytes,
        l3_bytes=l3_bytes,
        cores=config.available_cores(),
    )


HOST = "host"
"""Name of this machine among those of `named_target`."""
CPUS = {
    "x86-64-v3": ("x86_64-unknown-linux-gnu", "x86-64-v3", 32, 16),
    "x86-64-v4": ("x86_64-unknown-linux-gnu", "x86-64-v4", 64, 32),
    "aarch64": ("aarch64-unknown-linux-gnu", "generic", 16, 32),
}
"""Nominal processors: LLVM's names of system and processor, bytes and number of the vectors."""


def named_target(name: str) -> Target:
    """Return this machine (``host``), or a nominal processor of `CPUS`.

    What is compiled for a nominal one is the same on every machine.
    """
    if name == HOST:
        return host_target()
    triple, cpu, vector_bytes, registers = CPUS[name]
    caches = (32 << 10, 1 << 20, 32 << 20)
    return Target("cpu", triple, cpu, "", vector_bytes, registers, *caches)


def architecture(target: Target) -> str:
    """Return the first part of the triple, with one name for 64-bit ARM."""
    found = target.triple.partition("-")[0]
    return "aarch64" if found == "arm64" else found


def _cache_sizes() -> tuple[int, int, int]:
    found = _mac_caches() if sys.platform == "darwin" else _linux_caches()
    l1, l2, l3 = (found.get(level, _DEFAULT_CACHES[level - 1]) for level in (1, 2, 3))
    return l1, l2, l3


def _linux_caches() -> dict[int, int]:
    sizes: dict[int, int] = {}
    for folder in sorted(_LINUX_CACHES.glob("index*")):
        try:
            kind = (folder / "type").read_text().strip()
            level = int((folder / "level").read_text())
            size = parse_bytes((folder / "size").read_text())
        except (OSError, ValueError):
            continue
        if kind != "Instruction":
            sizes[level] = size
    return sizes


def parse_bytes(text: str) -> int:
    """Return the bytes of a size such as ``"48K"``.

    Raises
    ------
    ValueError
        If ``text`` is no such size.
    """
    found = re.fullmatch(r"\s*(\d+)([KMG]?)\s*", text)
    if found is None:
        raise ValueError(f"not a size: {text!r}")
    return int(found[1]) * _UNITS[found[2]]


def _mac_caches() -> dict[int, int]:
    names = {1: "hw.l1dcachesize", 2: "hw.l2cachesize", 3: "hw.l3cachesize"}
    sizes: dict[int, int] = {}
    for level, name in names.items():
        try:
            text = subprocess.run(
                ["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True
            ).stdout
            sizes[level] = parse_bytes(text)
        except (OSError, ValueError, subprocess.SubprocessError):
            continue
    return sizes

"""``graphc info`` and ``graphc cache``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time

from graphc import config
from graphc.codegen import cache
from graphc.codegen.cpu import host_target
from graphc.errors import GraphcError
from graphc.ir.printer import bytes_text
from graphc.runtime import cuda, driver

PACKAGES = ("numpy", "numba", "llvmlite", "networkx")
FEATURES = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512vl", "avx512bf16", "amx-tile", "neon")
_DAY_S = 86400.0


def info() -> str:
    """Return versions, processor, threads, cache and GPU, one line each."""
    target = host_target()
    present = {f.lstrip("+") for f in target.features.split(",") if f.startswith("+")}
    caches = (target.l1_bytes, target.l2_bytes, target.l3_bytes)
    rows = [
        ("graphc", version("graphc")),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        *((name, version(name)) for name in PACKAGES),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("cpu", f"{target.cpu}, {os.cpu_count()} logical cores"),
        ("features", ", ".join(f for f in FEATURES if f in present) or "none of those graphc uses"),
        ("vectors", f"{8 * target.vector_bytes} bits, {target.registers} registers"),
        ("caches", ", ".join(f"L{i} {n >> 10} KiB" for i, n in enumerate(caches, 1))),
        ("threads", f"{config.current().threads} (option threads)"),
        ("engine", config.current().engine),
        ("kernels", cache_line()),
        ("gpu", gpu_line()),
    ]
    return "".join(f"{name:<10}{value}\n" for name, value in rows)


def version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"


def cache_line() -> str:
    """Return folder and size of the disk cache."""
    options = config.current()
    if not options.cache:
        return "not kept on disk (option cache)"
    used, count = cache.size_bytes(), len(cache.entries())
    bound = bytes_text(options.cache_bytes)
    return f"{count} entries in {config.cache_dir()}, {bytes_text(used)} of at most {bound}"


def gpu_line() -> str:
    """Return the CUDA devices, or what is missing for one."""
    reason = driver.missing()
    if reason is not None:
        return f"none: {reason[0]}"
    devices = [cuda.device(number) for number in range(cuda.num_gpus())]
    return ", ".join(f"{d.name} {d.model} ({d.target.cpu})" for d in devices)


def cache_command(action: str) -> str:
    """Return what ``graphc cache list``, ``size`` or ``clear`` prints."""
    folder = config.cache_dir()
    if action == "size":
        return f"{cache_line()}\n"
    if action == "clear":
        count, left = cache.clear(), len(cache.entries())
        if left:
            raise GraphcError(
                f"{left} of {count} entries of {folder} could not be removed",
                remedy="Check who owns the folder and whether it can be written.",
            )
        return f"removed {count} entries from {folder}\n"
    now = time.time()
    lines = [
        f"{entry.key[:16]}  {bytes_text(entry.size_bytes):>9}  "
        f"used {max(0.0, now - entry.used_s) / _DAY_S:.1f} days ago\n"
        for entry in cache.entries()
    ]
    return "".join(lines) + f"{cache_line()}\n"

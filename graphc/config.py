"""Options that a user sets: one frozen Config, changed for good or for a while."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from graphc.errors import ArgumentError, nearest, user_location


def available_cores() -> int:
    """Return how many threads of this process run at once."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Config:
    """Every option with its default.

    Parameters
    ----------
    threads : int
        Number of threads that run a program, the caller included.
    engine : str
        What turns loop IR into machine code: ``"llvm"``, or ``"numba"``, which goes through
        Python text.
    cache : bool
        Keep compiled kernels and programs on disk.
    cache_dir : str or None
        Folder of the disk cache; None is the platform's cache folder, or ``GRAPHC_CACHE_DIR``.
    cache_bytes : int
        Size bound of the disk cache; the least recently used entries go first.
    compile_threads : int
        Number of threads that compile kernels side by side.
    winograd : bool
        Compute 3x3 convolutions over many channels by Winograd's F(4x4, 3x3), in a quarter of the
        products; see docs/numerics.md for the error.
    matmul_precision : str
        In what a GPU computes products of float32 matrices and convolutions: ``"float32"``, or by
        tensor cores, with factors rounded to ``"tf32"`` (10 explicit bits), ``"bfloat16"`` (7) or
        ``"float16"`` (10, up to 65504) and sums in float32. The CPU always computes in float32.
    index_bits : int
        Bits in which a GPU computes indices: 32, or 64 where an array has 2**31 elements or more.
    verify : bool
        Check the graph after every pass.
    profile : bool
        Time every launch of every program; read by ``graphc.profile()``.
    """

    threads: int = field(default_factory=available_cores)
    engine: str = "llvm"
    cache: bool = True
    cache_dir: str | None = None
    cache_bytes: int = 512 * 1024 * 1024
    compile_threads: int = field(default_factory=available_cores)
    winograd: bool = True
    matmul_precision: str = "float32"
    index_bits: int = 32
    verify: bool = False
    profile: bool = False

    def replace(self, **changes: object) -> Config:
        """Return a copy with some options changed; an unknown name is an ArgumentError."""
        known = {f.name for f in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise ArgumentError(
                    f"there is no option {name!r}.{nearest(name, known)}",
                    remedy=f"Options are {', '.join(sorted(known))}.",
                    where=user_location(),
                )
            _check(name, changes[name])
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


CHOICES: dict[str, tuple[object, ...]] = {
    "engine": ("llvm", "numba"),
    "matmul_precision": ("float32", "tf32", "bfloat16", "float16"),
    "index_bits": (32, 64),
}
"""Options that have one of a few values."""
_LEAST = {"threads": 1, "cache_bytes": 0, "compile_threads": 1}


def _check(name: str, value: object) -> None:
    """Raise ArgumentError where an option cannot have a value."""
    if name in _LEAST:
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= _LEAST[name]
        accepted, good = f"an integer of {_LEAST[name]} or more", whole
    elif name in CHOICES:
        accepted, good = f"one of {', '.join(map(str, CHOICES[name]))}", value in CHOICES[name]
    elif name == "cache_dir":
        accepted, good = "a path or None", value is None or isinstance(value, (str, os.PathLike))
    else:
        accepted, good = "True or False", isinstance(value, bool)
    if not good:
        raise ArgumentError(
            f"option {name} cannot be {value!r}"
            + (f".{nearest(str(value), map(str, CHOICES[name]))}" if name in CHOICES else ""),
            remedy=f"It is {accepted}.",
            where=user_location(),
        )


_process = Config()
_override: ContextVar[Config | None] = ContextVar("graphc_config", default=None)


def current() -> Config:
    """Return the options in force here."""
    return _override.get() or _process


def configure(**changes: object) -> Config:
    """Change options for the whole process, for good; return the new Config."""
    global _process
    _process = _process.replace(**changes)
    return _process


@contextmanager
def options(**changes: object) -> Iterator[Config]:
    """Change options while the ``with`` body runs.

    Examples
    --------
    >>> import graphc
    >>> with graphc.options(threads=1) as config:
    ...     config.threads
    1
    """
    config = current().replace(**changes)
    token = _override.set(config)
    try:
        yield config
    finally:
        _override.reset(token)


def cache_dir() -> Path:
    """Return the folder of the disk cache: the option, ``GRAPHC_CACHE_DIR``, or the platform's."""
    chosen = current().cache_dir or os.environ.get("GRAPHC_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "graphc" / "cache"
    if os.uname().sysname == "Darwin":
        return Path.home() / "Library" / "Caches" / "graphc"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphc"

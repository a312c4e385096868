"""What this process traced, compiled and loaded, and how long that took."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_COUNTS = ("programs_traced", "programs_loaded", "kernels_compiled", "kernels_loaded")
_TIMES = ("trace_s", "compile_s", "load_s")
_values: dict[str, float] = {}
_lock = threading.Lock()


def reset() -> None:
    """Set every counter to zero."""
    with _lock:
        _values.update(dict.fromkeys(_COUNTS, 0) | dict.fromkeys(_TIMES, 0.0))


def stats() -> dict[str, float]:
    """Return a copy of all counters: numbers of events, and ``*_s`` in seconds."""
    with _lock:
        return dict(_values)


def add(name: str, amount: float = 1) -> None:
    """Add to a counter; unknown names raise KeyError."""
    with _lock:
        _values[name] = _values[name] + amount


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Add the seconds that the body takes to a counter."""
    start = time.perf_counter()
    try:
        yield
    finally:
        add(name, time.perf_counter() - start)


reset()

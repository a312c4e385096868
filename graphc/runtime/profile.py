"""Times of every launch, collected while the option ``profile`` is on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ir.table import LaunchRow


@dataclass(frozen=True, slots=True)
class Timing:
    """One launch of one program call.

    Attributes
    ----------
    program, kernel : str
        Name of the program, label of the kernel.
    where : str
        The user's line.
    start_ns, stop_ns : int
        On the monotonic clock.
    """

    program: str
    kernel: str
    where: str
    start_ns: int
    stop_ns: int


_timings: list[Timing] = []
_lock = threading.Lock()


def record(program: str, launches: Sequence[LaunchRow], times: Any) -> None:
    """Keep the start and stop times of one call's launches."""
    rows = [
        Timing(program, row.label, str(row.where or ""), times[2 * i], times[2 * i + 1])
        for i, row in enumerate(launches)
    ]
    with _lock:
        _timings.extend(rows)


def profile(reset: bool = True) -> list[Timing]:
    """Return the launches timed since the last reset, in the order they ran.

    Examples
    --------
    >>> import graphc
    >>> with graphc.options(profile=True):
    ...     pass  # run programs here
    >>> isinstance(graphc.profile(), list)
    True
    """
    with _lock:
        found = list(_timings)
        if reset:
            _timings.clear()
    return found

"""Times of every launch, collected while the option ``profile`` is on."""

from __future__ import annotations

import json
import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from graphc.ir.table import LaunchRow
from graphc.runtime.limits import Limits


@dataclass(frozen=True, slots=True)
class Timing:
    """One launch of one program call.

    Attributes
    ----------
    program, kernel : str
        Name of the program, label of the kernel.
    number : int
        Of the launch in its program.
    where : str
        The user's line.
    start_ns, stop_ns : int
        On the monotonic clock.
    flops, n_bytes : int
        Floating-point operations; bytes of operands and results, each counted once.
    """

    program: str
    kernel: str
    number: int
    where: str
    start_ns: int
    stop_ns: int
    flops: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Every call of one launch at the same sizes.

    Attributes
    ----------
    first : Timing
        The first one.
    calls : int
    median_s, total_s : float
    """

    first: Timing
    calls: int
    median_s: float
    total_s: float


class Timings(list[Timing]):
    """Launches in the order they ran; printed as a table."""

    def summaries(self) -> list[Summary]:
        """Return launches in the order they first ran, the calls of each at one size as one."""
        calls: dict[Any, list[Timing]] = {}
        for t in self:
            calls.setdefault((t.program, t.number, t.kernel, t.flops, t.n_bytes), []).append(t)
        found = []
        for group in calls.values():
            seconds = [(t.stop_ns - t.start_ns) * 1e-9 for t in group]
            found.append(Summary(group[0], len(group), statistics.median(seconds), sum(seconds)))
        return found

    def table(self, limits: Limits | None = None) -> str:
        """Return a text with a line for each launch: time, rates, share of the limit reached.

        Parameters
        ----------
        limits : Limits, optional
            Of the machine, as `graphc.runtime.limits.measure` gives them; without, no shares.
        """
        rows = self.summaries()
        total_s = sum(row.total_s for row in rows)
        head = f"{'time':>10}{'share':>7}{'GFLOP/s':>9}{'GB/s':>8}{'limit':>7}{'calls':>7}  launch"
        once_s = sum(row.median_s for row in rows)
        last = f"{once_s * 1e6:>7.1f} us  all launches, each once"
        return "\n".join([head, *(_line(row, total_s, limits) for row in rows), last]) + "\n"

    __str__ = table

    def save(self, path: str | PathLike[str]) -> None:
        """Write a trace that Perfetto and ``chrome://tracing`` show.

        Parameters
        ----------
        path : str or path-like
            A JSON file in the Trace Event Format.
        """
        origin = min((t.start_ns for t in self), default=0)
        events = [
            {
                "name": t.kernel,
                "cat": t.program,
                "ph": "X",
                "pid": 0,
                "tid": 0,
                "ts": (t.start_ns - origin) / 1e3,
                "dur": (t.stop_ns - t.start_ns) / 1e3,
                "args": {
                    "launch": t.number, "where": t.where, "flops": t.flops, "bytes": t.n_bytes,
                },
            }
            for t in self
        ]  # fmt: skip
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": events, "displayTimeUnit": "ns"}, file)


def _line(row: Summary, total_s: float, limits: Limits | None) -> str:
    first, seconds = row.first, max(row.median_s, 1e-9)
    share = row.total_s / total_s if total_s else 0.0
    limit = "-"
    if limits is not None:
        limit = f"{limits.least_s(first.flops, first.n_bytes) / seconds:.0%}"
    return (
        f"{row.median_s * 1e6:>7.1f} us{share:>7.1%}{first.flops / seconds * 1e-9:>9.1f}"
        f"{first.n_bytes / seconds * 1e-9:>8.1f}{limit:>7}{row.calls:>7}  "
        f"{first.program}.{first.number} {first.kernel}  {first.where}".rstrip()
    )


_timings = Timings()
_lock = threading.Lock()


def record(
    program: str, launches: Sequence[LaunchRow], times: Any, costs: Sequence[tuple[int, int]]
) -> None:
    """Keep the start and stop times of one call's launches."""
    rows = [
        Timing(program, row.label, i, str(row.where or ""), times[2 * i], times[2 * i + 1], *cost)
        for i, (row, cost) in enumerate(zip(launches, costs, strict=True))
    ]
    with _lock:
        _timings.extend(rows)


def profile(reset: bool = True) -> Timings:
    """Return the launches timed since the last reset, in the order they ran.

    Examples
    --------
    >>> import graphc
    >>> with graphc.options(profile=True):
    ...     pass  # run programs here
    >>> timings = graphc.profile()  # print(timings), timings.save("trace.json")
    >>> len(timings)
    0
    """
    with _lock:
        found = Timings(_timings)
        if reset:
            _timings.clear()
    return found

"""Timings of launches: as a table, as a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphc.runtime import profile
from graphc.runtime.limits import Limits


def timed(number: int, start_ns: int, stop_ns: int) -> profile.Timing:
    return profile.Timing("net", f"kernel{number}", number, "a.py:3", start_ns, stop_ns, 4000, 8000)


def test_timings_as_a_table() -> None:
    timings = profile.Timings([timed(0, 0, 1000), timed(1, 1000, 4000), timed(0, 5000, 8000)])
    first, second = timings.summaries()
    assert (first.calls, first.median_s) == (2, pytest.approx(2e-6))
    assert first.total_s == pytest.approx(4e-6)
    assert (second.first.kernel, second.calls) == ("kernel1", 1)
    limits = Limits(1, 4e9, {1 << 20: 1e12})
    head, one, _, last = timings.table(limits).splitlines()
    assert head.split() == ["time", "share", "GFLOP/s", "GB/s", "limit", "calls", "launch"]
    assert one.split()[:7] == ["2.0", "us", "57.1%", "2.0", "4.0", "50%", "2"]
    assert one.endswith("net.0 kernel0  a.py:3")
    assert last == "    5.0 us  all launches, each once"
    assert " - " in str(timings)


def test_timings_as_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    profile.Timings([timed(0, 7000, 8000), timed(1, 8500, 9000)]).save(path)
    events = json.loads(path.read_text())["traceEvents"]
    assert [(e["name"], e["ph"], e["ts"], e["dur"]) for e in events] == [
        ("kernel0", "X", 0.0, 1.0),
        ("kernel1", "X", 1.5, 0.5),
    ]
    assert events[0]["args"] == {"launch": 0, "where": "a.py:3", "flops": 4000, "bytes": 8000}

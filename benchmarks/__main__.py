"""Every row of the suite, for graphc and the peers installed: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import datetime
import os
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report, runner, start_up
from benchmarks.first_batch import NETWORKS
from benchmarks.record import Measured, Row
from benchmarks.rows import GPU_ROWS, ROWS, chosen
from benchmarks.sides import Framework, participants
from benchmarks.start_up import Started
from graphc import nd
from graphc.runtime.limits import Limits, measure


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("words", nargs="*", help="run only rows whose name has one of these words")
    add("--list", action="store_true", help="print the rows and stop")
    add("--threads", type=int, default=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)  # fmt: skip
    add("--repeats", type=int, default=30, help="samples of each side, at most (default 30)")
    add("--budget", type=float, default=20.0, metavar="S",
        help="seconds of a row; three samples are taken anyway (default 20)")  # fmt: skip
    add("--peers", nargs="*", metavar="NAME", help="only these peers; none: graphc alone")
    add("--torch-compile", action="store_true",
        help="also torch.compile: needs a C++ compiler, and minutes to compile")  # fmt: skip
    add("--start-up", type=int, default=None, metavar="N",
        help="processes for each start-up figure (default 3, with words 0)")  # fmt: skip
    add("--gpu", action="store_true", help="the rows of a GPU, on the first one, beside PyTorch")
    add("--json", type=Path, metavar="FILE", help="write every sample")
    add("--plot", type=Path, metavar="FILE", help="draw the ratios; needs matplotlib")
    return parser.parse_args(given)


def limit_processors(threads: int) -> None:
    """Keep to so many processors: JAX has no other setting, and so no side gets more."""
    if hasattr(os, "sched_setaffinity"):
        here = sorted(os.sched_getaffinity(0))
        if threads > len(here):
            raise SystemExit(f"--threads {threads}: this process may use {len(here)} processors")
        os.sched_setaffinity(0, here[:threads])


def device_limits() -> Limits:
    """Return the rate of copying a gibibyte on the current device; products have no limit here."""
    x = nd.zeros((1 << 28,))
    times = []
    for _ in range(10):
        started = time.perf_counter()
        x.copy().wait_to_read()
        times.append(time.perf_counter() - started)
    return Limits(1, float("inf"), {2 * x.size * 4: 2 * x.size * 4 / min(times)})


def run_rows(
    rows: Sequence[Row], frameworks: Sequence[Framework], limits: Limits,
    options: argparse.Namespace,
) -> list[Measured]:  # fmt: skip
    """Measure and print row by row; one that fails is shown with its reason."""
    names = [f.name for f in frameworks]
    print(report.columns(names), flush=True)
    found: list[Measured] = []
    for row in rows:
        measured = runner.measure(row, frameworks, limits, options.repeats, options.budget)
        found.append(measured)
        print(report.line(measured, names), flush=True)
    return found


def run_start_up(frameworks: Sequence[Framework], threads: int, repeats: int) -> list[Started]:
    """Measure and print the time to the first trained batch."""
    print(f"\n{'first batch':32}{'cold':>10}{'warm':>10}{'peak':>10}")
    found: list[Started] = []
    for network in NETWORKS:
        for started in start_up.measure(network, frameworks, threads, repeats):
            found.append(started)
            print(report.started_line(started), flush=True)
    return found


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; the status is 1 when a row failed."""
    options = arguments(given)
    rows = chosen(options.words, GPU_ROWS if options.gpu else ROWS)
    if not rows:
        raise SystemExit(f"no row has one of the words {' '.join(options.words)}\nsee --list")
    if options.list:
        for row in rows:
            print(f"{row.name:52} goal {row.goal}")
        return 0
    pyplot = report.plotting() if options.plot else None
    limit_processors(options.threads)
    wanted = ["torch", "torch.compile"] if options.gpu else options.peers
    frameworks = participants(options.torch_compile, wanted)
    for framework in frameworks:
        framework.configure(options.threads)
        if options.gpu:
            framework.use_gpu()
    limits = device_limits() if options.gpu else measure(options.threads)
    print(report.heading(limits))
    measured = run_rows(rows, frameworks, limits, options)
    processes = 0 if options.words or options.gpu else 3
    repeats = processes if options.start_up is None else options.start_up
    started = run_start_up(frameworks, options.threads, repeats) if repeats else []
    if options.json:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        report.write_json(options.json, report.as_data(limits, measured, started, today))
    if pyplot is not None:
        report.plot(pyplot, options.plot, [m for m in measured if not m.problem])
    return 1 if any(m.problem for m in measured) else 0


if __name__ == "__main__":
    raise SystemExit(main())

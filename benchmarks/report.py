"""What is shown of the figures: the table, JSON, and a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import processor, versions
from benchmarks.record import Measured
from benchmarks.start_up import Started
from graphc.runtime.limits import Limits


def duration(seconds: float | None) -> str:
    """Return a time with its unit."""
    if seconds is None:
        return "-"
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def rate(measured: Measured) -> str:
    """Return what graphc does in a second: operations if the row has any, else bytes."""
    seconds, work = measured.median_s("graphc"), measured.work
    if not seconds or not (work.flops or work.bytes):
        return "-"
    amount, unit = (work.flops, "GFLOP/s") if work.flops else (work.bytes, "GB/s")
    return f"{amount / seconds / 1e9:.3g} {unit}"


def share(measured: Measured) -> float | None:
    """Return the limit's time over graphc's; None for a row that nothing bounds."""
    seconds = measured.median_s("graphc")
    return measured.limit_s / seconds if seconds and measured.limit_s else None


def verdict(met: bool | None) -> str:
    """Return a word for a goal."""
    return {True: "met", False: "missed", None: ""}[met]


def heading(limits: Limits) -> str:
    """Return what the figures were measured on."""
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    rates = ", ".join(
        f"{bytes_ / (1 << 20):g} MiB {rate_ / 1e9:.0f}"
        for bytes_, rate_ in sorted(limits.bytes_per_s.items())
    )
    return (
        f"{processor()}, {limits.threads} threads; {used}\n"
        f"peak {limits.flops_per_s / 1e9:.0f} GFLOP/s in float32; copying, GB/s: {rates}"
    )


def columns(names: Sequence[str]) -> str:
    """Return the table's first line."""
    sides = "".join(f"{name:>14}" for name in names)
    return f"{'':52}{sides}{'rate':>14}{'of limit':>9}{'ratio':>8}{'goal':>7}"


def line(measured: Measured, names: Sequence[str]) -> str:
    """Return a row of the table."""
    if measured.problem:
        return f"{measured.row.name:52}  failed: {measured.problem}"
    sides = "".join(f"{duration(measured.median_s(name)):>14}" for name in names)
    part, ratio = share(measured), measured.ratio
    seconds = measured.median_s("graphc") or 0.0
    shares = f"{100 * part:.0f} %" if part else "-"
    ratios = f"{ratio:.2f}x" if ratio else "-"
    goal = measured.row.goal
    return (
        f"{measured.row.name:52}{sides}{rate(measured):>14}{shares:>9}{ratios:>8}"
        f"{goal!s:>7} {verdict(goal.met(ratio, seconds))}"
    )


def started_line(started: Started) -> str:
    """Return a line of the start-up table."""
    cold, warm = duration(started.median_s("cold")), duration(started.median_s("warm"))
    megabytes = f"{started.peak_bytes / 1e6:.0f} MB"
    return f"{started.network:16}{started.framework:16}{cold:>10}{warm:>10}{megabytes:>10}"


def as_data(
    limits: Limits,
    measured: Sequence[Measured],
    started: Sequence[Started],
    date: str,
) -> dict[str, Any]:
    """Return everything as what JSON can hold; times in seconds, all samples kept."""
    return {
        "date": date,
        "processor": processor(),
        "threads": limits.threads,
        "versions": versions(),
        "peak_flops_per_s": limits.flops_per_s,
        "copy_bytes_per_s": {str(k): v for k, v in limits.bytes_per_s.items()},
        "rows": [row_data(m) for m in measured],
        "start_up": [
            {
                "network": s.network,
                "framework": s.framework,
                "cold_s": list(s.cold_s),
                "warm_s": list(s.warm_s),
                "peak_bytes": s.peak_bytes,
            }
            for s in started
        ],
    }


def row_data(measured: Measured) -> dict[str, Any]:
    """Return one row as what JSON can hold."""
    seconds = measured.median_s("graphc") or 0.0
    if measured.problem:
        return {"name": measured.row.name, "problem": measured.problem}
    return {
        "name": measured.row.name,
        "goal": str(measured.row.goal),
        "met": measured.row.goal.met(measured.ratio, seconds),
        "flops": measured.work.flops,
        "bytes": measured.work.bytes,
        "limit_s": measured.limit_s,
        "best_peer": measured.best_peer,
        "ratio": measured.ratio,
        "median_s": {side: measured.median_s(side) for side in measured.seconds},
        "seconds": {side: list(times) for side, times in measured.seconds.items()},
    }


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write the figures to a file."""
    path.write_text(json.dumps(data, indent=1) + "\n")


def plotting() -> Any:
    """Return matplotlib's pyplot without a window; ask for it before hours of measuring.

    Raises
    ------
    SystemExit
        When matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise SystemExit(
            "--plot: matplotlib is not installed\ninstall it with: pip install graphc[plot]"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot(pyplot: Any, path: Path, measured: Sequence[Measured]) -> None:
    """Draw ratio and goal of each row that has a peer, on a logarithmic axis."""
    shown = [m for m in measured if m.ratio is not None][::-1]
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.32 * len(shown)), layout="constrained")
    colours = ["tab:green" if m.ratio >= (m.row.goal.ratio or 1) else "tab:orange" for m in shown]
    places = range(len(shown))
    axes.barh(places, [m.ratio for m in shown], color=colours)
    for place, m in zip(places, shown):
        axes.annotate(f" {m.ratio:.2f} ({m.best_peer})", (m.ratio, place), va="center", size=8)
        if m.row.goal.ratio:
            axes.plot([m.row.goal.ratio] * 2, [place - 0.4, place + 0.4], color="black")
    axes.set_yticks(places, [m.row.name for m in shown])
    axes.set_xscale("log")
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_xlabel("time of the best peer / time of graphc; the black mark is the goal")
    figure.savefig(path, dpi=150)

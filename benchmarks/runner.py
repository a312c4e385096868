"""Runs rows: prepares each side, checks that all compute the same, times them in turn."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks import side_graphc
from benchmarks.record import Arrays, Measured, Row, Side
from benchmarks.sides import REFERENCE, Framework
from graphc.runtime.limits import Limits

SAMPLE_S = 5e-3
REST_S = 5e-3
WARM_S = 1e-2
CHECKED_STEPS = 3


class Disagreement(AssertionError):
    """Two sides of a row computed different values."""


def starting_weights(row: Row, data: Arrays) -> Arrays:
    """Return the parameters that every side of a network's row starts from."""
    return side_graphc.weights(row, data) if "model" in row.options else []


def prepare(row: Row, sizes: Mapping[str, int], frameworks: Sequence[Framework]) -> dict[str, Side]:
    """Return a row's sides: those frameworks that have it."""
    data = row.data(sizes)
    values = starting_weights(row, data)
    sides: dict[str, Side] = {}
    for framework in frameworks:
        build = framework.kinds().get(row.workload.kind)
        if build is None or not has_model(framework, row):
            continue
        # Updates are in place: nobody shares memory with another side.
        side = build(row, [x.copy() for x in data], [v.copy() for v in values])
        if side is not None:
            sides[framework.name] = replace(side, wait=framework.wait)
    return sides


def has_model(framework: Framework, row: Row) -> bool:
    """Return whether a framework's file has the row's network."""
    if "model" not in row.options or framework.name != "jax":
        return True
    from benchmarks import models_jax

    return hasattr(models_jax, row.options["model"])


def distance(found: Arrays, expected: Arrays) -> float:
    """Return the largest difference, relative to the largest element of that output."""
    if len(found) != len(expected):
        return math.inf
    worst = 0.0
    for ours, theirs in zip(found, expected):
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        if ours.size != theirs.size:
            return math.inf
        scale = max(float(np.abs(theirs).max(initial=0.0)), 1e-30)
        difference = np.abs(ours.ravel() - theirs.ravel()).max(initial=0.0) / scale
        worst = max(worst, float(difference)) if np.isfinite(difference) else math.inf
    return worst


def agreement(row: Row, sides: Mapping[str, Side]) -> dict[str, float]:
    """Run the first steps of all sides and return how far each is from graphc.

    A training step changes what the next one computes, so that the losses of several steps check
    gradients and update too.
    """
    steps = 1 if row.workload.kind in ("function", "inference", "gradient") else CHECKED_STEPS
    worst = dict.fromkeys(sides, 0.0)
    for _ in range(steps):
        outputs = {name: side.outputs(side.run()) for name, side in sides.items()}
        for name, found in outputs.items():
            worst[name] = max(worst[name], distance(found, outputs["graphc"]))
    return worst


def verify(row: Row, sides: Mapping[str, Side]) -> None:
    """Raise Disagreement where a side is further from graphc than the row allows."""
    for name, far in agreement(row, sides).items():
        if not far <= row.workload.tolerance:
            raise Disagreement(
                f"{row.name}: graphc and {name} differ by {far:.1e}\n"
                f"allowed is {row.workload.tolerance:.1e} of the largest element"
            )


def elapsed_s(side: Side, calls: int) -> float:
    """Return the mean time of so many calls."""
    started = time.perf_counter()
    for _ in range(calls):
        side.run()
    side.wait()
    return (time.perf_counter() - started) / calls


def times_of(sides: Mapping[str, Side], repeats: int, budget_s: float) -> dict[str, list[float]]:
    """Return times of every side, taken in turn, so that all meet the same state of the machine.

    A sample is as many calls as fill five milliseconds. Before it comes a rest, in which the
    threads of the side before stop waiting for work, and calls that are not counted: a system that
    saves power gives threads that woke a processor of their own only after some milliseconds.
    """
    lasting = {name: elapsed_s(side, 2) for name, side in sides.items()}
    calls = {name: max(1, int(SAMPLE_S / each)) for name, each in lasting.items()}
    warming = {name: int(WARM_S / each) + 1 for name, each in lasting.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    end = time.perf_counter() + budget_s
    gc.collect()
    gc.disable()
    try:
        for turn in range(repeats):
            if turn >= 3 and time.perf_counter() > end:
                break
            for name, side in sides.items():
                time.sleep(REST_S)
                elapsed_s(side, warming[name])
                times[name].append(elapsed_s(side, calls[name]))
    finally:
        gc.enable()
    return times


def measure(
    row: Row, frameworks: Sequence[Framework], limits: Limits, repeats: int, budget_s: float
) -> Measured:
    """Return a row's figures; every side is compared with graphc before any is timed.

    A row of which one side fails has no figures but its problem, and the others still run.
    """
    work = row.workload.work(**row.sizes)
    limit_s = limits.least_s(work.flops, work.bytes)
    try:
        sides = prepare(row, row.sizes, [*frameworks, REFERENCE])
        verify(row, sides)
        sides.pop(REFERENCE.name, None)
        return Measured(row, times_of(sides, repeats, budget_s), limit_s)
    except Exception as error:  # whatever a framework may raise
        return Measured(row, {}, limit_s, f"{type(error).__name__}: {error}")

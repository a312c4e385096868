"""``graphc profile``: the time of every launch of a model, and how near it is to the limit."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from graphc import config
from graphc.cli.target import runnable
from graphc.errors import ArgumentError, user_location
from graphc.frontend.array import mode
from graphc.runtime.limits import measure
from graphc.runtime.profile import Timings, profile


def profile_command(options: argparse.Namespace) -> None:
    """Run the target and print where its time goes."""
    call, place = runnable(options.target, options.shape)
    outer = str(user_location())
    before, mode.training = mode.training, options.train
    try:
        call()  # compiles
        with config.options(profile=True):
            profile()
            for _ in range(options.repeats):
                call()
            found = profile()
    finally:
        mode.training = before
    if not found:
        raise ArgumentError(
            f"{options.target} ran no compiled program",
            remedy="What is profiled is a HybridBlock, a TrainStep, a Symbol or a function.",
        )
    # What no line of the file calls, the command does: it gets the object's own line.
    timings = Timings(replace(t, where=t.where.replace(outer, str(place), 1)) for t in found)
    limits = None if options.no_limits else measure(config.current().threads)
    sys.stdout.write(timings.table(limits))
    if options.trace is not None:
        _save(timings, options.trace)


def _save(timings: Timings, path: str) -> None:
    try:
        timings.save(path)
    except OSError as error:
        raise ArgumentError(f"cannot write to {path}: {error.strerror or error}") from None
    print(f"trace: {path}, for Perfetto or chrome://tracing")

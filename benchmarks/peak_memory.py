"""Peak memory of a LeNet training step against what the printed plan says.

    python -m benchmarks.peak_memory [--batch 1000] [--optimizer sgd]

A fresh process loads and compiles everything and trains on a batch of two; then its peak is reset,
and it trains on the large batch. What its resident memory grew by at the peak is compared with the
plan of that program (`graphc dump ... --stage plan`): the arena, and the batch with its losses.
Parameters and optimizer states are resident before; the second ratio counts them on both sides.
Needs Linux (``/proc/self/clear_refs``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from benchmarks.models import lenet
from graphc import gluon, nd

MEGABYTE = 1e6
LIMIT = 1.15


def resident_bytes(field: str) -> int:
    """Return ``VmRSS`` (resident now) or ``VmHWM`` (at the peak) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise SystemExit(f"this system does not tell {field}")


def batch_of(size: int) -> tuple[Any, Any]:
    """Return images and labels; no more memory is touched than they take."""
    images = nd.zeros((size, 1, 28, 28))
    images._array[...] = np.linspace(0, 1, 784, dtype=np.float32).reshape(28, 28)
    labels = nd.zeros((size,), dtype="int32")
    labels._array[...] = np.arange(size) % 10
    return images, labels


def measure(batch: int, optimizer: str) -> None:
    """Train one step of this size in this process and print the figures."""
    net = lenet(pad=2)
    net.initialize(graphc.init.Xavier())
    trainer = gluon.Trainer(net.collect_params(), optimizer)
    step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
    step(*batch_of(2))

    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    images, labels = batch_of(batch)
    loss = step(images, labels)
    grown = resident_bytes("VmHWM") - before

    traced, arguments = step.trace(images, labels)
    operands = traced.operands()
    for place, source in enumerate(traced.sources):
        if isinstance(source, int):
            operands[place] = arguments[source]
    plan = traced.compiled.program.memory_plan([o.shape for o in operands])
    data = sum(a._array.nbytes for a in (images, labels, loss))
    kept = sum(o._array.nbytes for o in operands) - images._array.nbytes - labels._array.nbytes
    planned = plan.arena_bytes + data
    print(f"LeNet, batch {batch}, {optimizer}, {graphc.config.current().threads} threads")
    print(f"  plan: arena {plan.arena_bytes / MEGABYTE:.1f} MB in {len(plan.slots)} values "
          f"({plan.unshared_bytes / MEGABYTE:.1f} MB without reuse), batch and losses "
          f"{data / MEGABYTE:.1f} MB, parameters and states {kept / MEGABYTE:.1f} MB")  # fmt: skip
    print(f"  peak: grew by {grown / MEGABYTE:.1f} MB, planned {planned / MEGABYTE:.1f} MB: "
          f"{grown / planned:.3f}x")  # fmt: skip
    total = (grown + kept) / (planned + kept)
    print(f"  with parameters and states: {total:.3f}x (limit {LIMIT}x)")
    if grown > LIMIT * planned:
        raise SystemExit("the peak is above the limit")


def main() -> None:
    """Run the measurement in a process of its own, once the cache is warm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        measure(options.batch, options.optimizer)
        return
    command = [sys.executable, "-m", "benchmarks.peak_memory", "--inner"]
    command.append(f"--optimizer={options.optimizer}")
    subprocess.run([*command, "--batch=2"], check=False, capture_output=True)
    raise SystemExit(subprocess.run([*command, f"--batch={options.batch}"], check=False).returncode)


if __name__ == "__main__":
    main()

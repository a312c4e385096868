"""The first trained batch of a network, in a process of its own that imports one framework.

The network ``import`` trains nothing: it is the import alone.

``python -m benchmarks.first_batch NETWORK FRAMEWORK THREADS`` trains and prints its peak memory.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks.record import Row
from benchmarks.rows import ROWS

if sys.platform != "win32":
    import resource

ALL = ("graphc", "torch", "jax", "torch.compile")
NETWORKS = {
    "import": ("graphc", "torch", "jax"),
    "mlp": ALL,
    "lenet": ALL,
    "resnet18_small": ("graphc", "torch", "torch.compile"),
    "gpt": ALL,
}


def row_of(network: str) -> Row:
    """Return the training row of a network."""
    return next(r for r in ROWS if r.options.get("model") == network and "optimizer" in r.options)


def train_graphc(row: Row, threads: int) -> None:
    """Train a batch in graphc."""
    from benchmarks import side_graphc

    side_graphc.configure(threads)
    side = side_graphc.training(row, row.data(row.sizes), [])
    side.outputs(side.run())


def train_torch(row: Row, threads: int, compiled: bool) -> None:
    """Train a batch in PyTorch."""
    import torch

    from benchmarks import models_torch, side_torch

    side_torch.configure(threads)
    net = getattr(models_torch, row.options["model"])()
    wrap = torch.compile if compiled else side_torch.eager
    side_torch.trainer(wrap, row, row.data(row.sizes), net)().item()


def train_jax(row: Row) -> None:
    """Train a batch in JAX."""
    from benchmarks import models_jax, side_jax

    values = models_jax.first_parameters(row.options["model"])
    float(side_jax.trainer(row, row.data(row.sizes), values)())


def peak_bytes() -> int:
    """Return the most memory that this process has held; 0 where the system does not tell.

    Linux counts it for the program that runs now: what the parent held is not in it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return 1024 * next(int(x.split()[1]) for x in lines if x.startswith("VmHWM:"))
    if sys.platform == "win32":
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main(network: str, framework: str, threads: int) -> None:
    """Train and print."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if network == "import":
        importlib.import_module(framework)
    else:
        train(row_of(network), framework, threads)
    print(json.dumps({"peak_bytes": peak_bytes()}))


def train(row: Row, framework: str, threads: int) -> None:
    """Train a batch."""
    if framework == "graphc":
        train_graphc(row, threads)
    elif framework == "jax":
        train_jax(row)
    else:
        train_torch(row, threads, framework == "torch.compile")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

"""From process start to the first trained batch: empty and filled cache, and the memory it took.

Each figure comes from fresh processes that run `benchmarks.first_batch`.
"""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import graphc
from benchmarks.first_batch import NETWORKS
from benchmarks.sides import Framework

# Where each framework keeps what it compiled.
CACHES = ("GRAPHC_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
ALWAYS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


@dataclass(frozen=True)
class Started:
    """A network's start in one framework.

    Parameters
    ----------
    cold_s, warm_s : sequence of float
        Wall time of each process.
    peak_bytes : int
        Peak resident size of the processes with a warm cache, median.
    """

    network: str
    framework: str
    cold_s: Sequence[float]
    warm_s: Sequence[float]
    peak_bytes: int

    def median_s(self, state: str) -> float:
        """Return the median of the ``"cold"`` or ``"warm"`` times."""
        return float(np.median(self.cold_s if state == "cold" else self.warm_s))


def run_once(network: str, framework: str, threads: int, cache: str) -> tuple[float, int]:
    """Train one batch in a process of its own; return its wall time and peak resident bytes."""
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **ALWAYS, **dict.fromkeys(CACHES, cache), "PYTHONPATH": path}
    command = [sys.executable, "-m", "benchmarks.first_batch", network, framework, str(threads)]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"first batch of {network} in {framework}:\n{done.stderr}")
    return seconds, json.loads(done.stdout.splitlines()[-1])["peak_bytes"]


def compile_to_bytecode() -> None:
    """Do for graphc what installing a package does: compile its Python files to bytecode.

    Peers are installed packages. graphc may be a checkout, where the interpreter would compile
    them in each process if it is told to write no bytecode.
    """
    compileall.compile_dir(Path(graphc.__file__).parent, quiet=2)


def measure(
    network: str, frameworks: Sequence[Framework], threads: int, repeats: int
) -> list[Started]:
    """Return the figures of one network; frameworks take turns."""
    compile_to_bytecode()
    taking_part = [f.name for f in frameworks if f.name in NETWORKS[network]]
    cold: dict[str, list[float]] = {name: [] for name in taking_part}
    warm: dict[str, list[float]] = {name: [] for name in taking_part}
    peaks: dict[str, list[int]] = {name: [] for name in taking_part}
    for _ in range(repeats):
        for name in taking_part:
            with tempfile.TemporaryDirectory() as cache:
                cold[name].append(run_once(network, name, threads, cache)[0])
                seconds, peak = run_once(network, name, threads, cache)
            warm[name].append(seconds)
            peaks[name].append(peak)
    return [
        Started(network, name, cold[name], warm[name], int(np.median(peaks[name])))
        for name in taking_part
    ]

"""From process start to the first trained LeNet batch: empty cache, warm cache; and imports.

    python benchmarks/start_up.py [--repeats 5]

Each figure is the median over fresh processes, in seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

FIRST_BATCH = """
import numpy as np, graphc
from graphc import gluon, nd
from graphc.gluon import nn
net = nn.HybridSequential()
net.add(nn.Conv2D(20, kernel_size=5, padding=2, activation="relu"), nn.MaxPool2D(2, 2),
        nn.Conv2D(50, kernel_size=5, padding=2, activation="relu"), nn.MaxPool2D(2, 2),
        nn.Dense(500, activation="relu"), nn.Dense(10))
net.initialize(graphc.init.Xavier()); net.hybridize()
trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-3})
step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
loss = step(nd.random.normal(shape=(100, 1, 28, 28)), nd.zeros((100,)))
print(float(loss.mean()), graphc.stats())
"""


def seconds(code: str, cache: str) -> float:
    """Run ``code`` in a fresh interpreter and return its wall time."""
    environment = {**os.environ, "GRAPHC_CACHE_DIR": cache}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    cold, warm, numpy, both = [], [], [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(seconds(FIRST_BATCH, cache))
            warm.append(seconds(FIRST_BATCH, cache))
            numpy.append(seconds("import numpy", cache))
            both.append(seconds("import numpy, graphc", cache))
    added = statistics.median(both) - statistics.median(numpy)
    print(f"first trained LeNet batch, empty cache  {statistics.median(cold):.2f} s")
    print(f"first trained LeNet batch, warm cache   {statistics.median(warm):.2f} s")
    print(f"import graphc, beyond import numpy      {added:.3f} s")


if __name__ == "__main__":
    main()

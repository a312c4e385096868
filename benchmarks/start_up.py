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
from pathlib import Path

FIRST_BATCH = """
import graphc
from graphc import gluon, nd
from models import lenet
net = lenet()
net.initialize(graphc.init.Xavier()); net.hybridize()
trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-3})
step = gluon.TrainStep(net, gluon.loss.SoftmaxCrossEntropyLoss(), trainer)
loss = step(nd.random.normal(shape=(100, 1, 28, 28)), nd.zeros((100,)))
print(float(loss.mean()), graphc.stats())
"""


def seconds(code: str, cache: str) -> float:
    """Run ``code`` in a fresh interpreter and return its wall time."""
    here = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "GRAPHC_CACHE_DIR": cache, "PYTHONPATH": path}
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

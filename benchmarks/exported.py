"""Calls of an exported LeNet: from C, from Python by ctypes, and the same network in Python.

Run ``python -m benchmarks.exported``; prints medians in microseconds. onnxruntime takes part where
it and PyTorch are installed.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from benchmarks.models import lenet
from graphc import nd
from graphc.codegen.export.layout import Tensor

SIDE, CLASSES = 28, 10

PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "lenet.h"
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec * 1e-3;
}
static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
int main(int count, char **arguments) {
  int64_t in_shape[4] = {atoll(arguments[1]), 1, 28, 28}, out_shape[2] = {in_shape[0], 10};
  int calls = atoi(arguments[2]);
  float *images = calloc((size_t)in_shape[0] * 784, 4), *scores = malloc(in_shape[0] * 40);
  double *times = malloc(calls * sizeof(double));
  DLTensor in = {images, {kDLCPU, 0}, 4, {kDLFloat, 32, 1}, in_shape, NULL, 0};
  DLTensor out = {scores, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, out_shape, NULL, 0};
  if (count > 3) lenet_set_threads(atoi(arguments[3]));
  for (int i = 0; i < calls; i++) {
    double start = now();
    if (lenet_run(&in, 1, &out, 1)) { puts(lenet_error()); return 1; }
    times[i] = now() - start;
  }
  qsort(times, calls, sizeof(double), compare);
  printf("%f\\n", times[calls / 2]);
  return 0;
}
"""


def median_us(call: Callable[[], object], calls: int) -> float:
    """Return the median time of a call, in microseconds."""
    times = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e3


def tensor(array: np.ndarray) -> Tensor:
    """Return a float32 array as DLPack's struct."""
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    made = Tensor(
        data=array.ctypes.data, device_type=1, ndim=array.ndim, code=2, bits=32, lanes=1,
        shape=ctypes.addressof(shape),
    )  # fmt: skip
    made.kept = array, shape
    return made


def by_ctypes(library: Path, x: np.ndarray, threads: int) -> Callable[[], object]:
    """Return a call of the library from Python."""
    loaded = ctypes.CDLL(str(library))
    loaded.lenet_set_threads(threads)
    given, made = tensor(x), tensor(np.empty((len(x), CLASSES), np.float32))
    inputs, outputs = ctypes.byref(given), ctypes.byref(made)
    return lambda: (loaded.lenet_run(inputs, 1, outputs, 1), given, made)


def by_onnxruntime(x: np.ndarray, threads: int) -> Callable[[], object] | None:
    """Return a call of the same network in onnxruntime, if it is installed."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "onnxruntime")):
        return None
    from benchmarks import models_torch, side_onnxruntime

    side_onnxruntime.configure(threads)
    net = models_torch.lenet()
    return side_onnxruntime.session(net, [x]).run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=graphc.config.current().threads)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    net = lenet()
    net.initialize(graphc.init.Xavier())
    net.hybridize()
    with tempfile.TemporaryDirectory() as name, graphc.options(threads=options.threads):
        folder = Path(name)
        files = net.export_library(folder / "lenet", nd.zeros((1, 1, SIDE, SIDE)))
        assert files.library is not None, "this needs a C compiler"
        (folder / "main.c").write_text(PROGRAM)
        command = ["cc", "-O2", "-o", "main", "main.c", "-L.", "-llenet", f"-Wl,-rpath,{folder}"]
        subprocess.run(command, cwd=folder, check=True)
        print(f"liblenet.so: {files.library.stat().st_size / 1e6:.2f} MB")
        print(f"{'batch':>5} {'C':>9} {'ctypes':>9} {'graphc':>9} {'onnxruntime':>12}   us")
        for batch, calls in ((1, 2000), (100, 100)):
            x = np.zeros((batch, 1, SIDE, SIDE), np.float32)
            array = nd.array(x)
            sides: dict[str, Any] = {
                "C": lambda b=batch, c=calls: float(
                    subprocess.run(
                        [folder / "main", str(b), str(c), str(options.threads)],
                        capture_output=True, text=True, check=True,
                    ).stdout
                )  # fmt: skip
            }
            timed = {
                "ctypes": by_ctypes(files.library, x, options.threads),
                "graphc": lambda a=array: net(a),
                "onnxruntime": by_onnxruntime(x, options.threads),
            }
            for side, call in timed.items():
                sides[side] = None if call is None else (
                    lambda f=call, c=calls: median_us(f, c)
                )
            rounds = [
                {side: run() for side, run in sides.items() if run} for _ in range(options.rounds)
            ]
            found = [
                f"{statistics.median(r[side] for r in rounds):.1f}" if sides[side] else "-"
                for side in sides
            ]
            print(f"{batch:5} " + " ".join(f"{text:>9}" for text in found))


if __name__ == "__main__":
    main()

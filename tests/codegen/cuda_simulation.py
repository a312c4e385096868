"""Runs kernels' Python text in Numba's CUDA simulator, in a process of its own: it is chosen when
Numba is imported.

The input is a pickle of (text, blocks, arrays, sizes) for each kernel, the output one of arrays.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"

import numpy as np
from numba import cuda


def run(text: str, blocks: int, arrays: list[np.ndarray], sizes: list[int]) -> list[np.ndarray]:
    """Return what a kernel makes of arrays."""
    scope: dict[str, Any] = {}
    exec(compile(text, "<kernel>", "exec"), scope)  # the text under test
    flat = [array.reshape(-1) for array in arrays]
    error = np.zeros(8, np.int64)
    kernel = cuda.jit(scope["kernel"])
    with np.errstate(all="ignore"):
        kernel[blocks, scope["BLOCK_THREADS"]](*flat, *sizes, error)
    return [*flat, error]


if __name__ == "__main__":
    jobs = pickle.load(sys.stdin.buffer)
    pickle.dump([run(*job) for job in jobs], sys.stdout.buffer)

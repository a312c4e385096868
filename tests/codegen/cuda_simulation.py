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
from numba.cuda.simulator import kernelapi

FIXED = kernelapi.FakeCUDAShared.array


EXCHANGED: dict[int, Any] = {}
"""What each thread of the block that runs gives to the others."""


def shared_array(self: Any, shape: int, dtype: type, alignment: Any = None) -> np.ndarray:
    """Return the memory that a launch gives, as the compiler does for a NumPy type too."""
    return np.frombuffer(self._dynshared.data, dtype)


def shfl_xor_sync(self: Any, mask: int, value: Any, distance: int) -> Any:
    """Exchange values between threads, which the simulator cannot: all of a block take part."""
    own = self.threadIdx.x
    EXCHANGED[own] = value
    self.syncthreads()
    found = EXCHANGED[own ^ int(distance)]
    self.syncthreads()
    return found


kernelapi.FakeCUDAModule.shfl_xor_sync = shfl_xor_sync


def run(text: str, blocks: int, arrays: list[np.ndarray], sizes: list[int]) -> list[np.ndarray]:
    """Return what a kernel makes of arrays."""
    scope: dict[str, Any] = {}
    exec(compile(text, "<kernel>", "exec"), scope)  # the text under test
    flat = [array.reshape(-1) for array in arrays]
    flag = np.zeros(16, np.int64)
    kernel, shared_bytes = cuda.jit(scope["kernel"]), scope["DYNAMIC_BYTES"]
    kernelapi.FakeCUDAShared.array = shared_array if shared_bytes else FIXED
    with np.errstate(all="ignore"):
        kernel[blocks, scope["BLOCK_THREADS"], 0, shared_bytes](*flat, *sizes, 0, flag)
    return [*flat, flag]


if __name__ == "__main__":
    jobs = pickle.load(sys.stdin.buffer)
    pickle.dump([run(*job) for job in jobs], sys.stdout.buffer)

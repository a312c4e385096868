"""What this machine can do: peak of multiply-adds and memory bandwidth, measured."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.codegen.compiler import compile_kernels
from graphc.codegen.cpu import host_target
from graphc.codegen.dispatch import KERNEL_TYPE
from graphc.ir import expr as E
from graphc.ir.dim import symbol
from graphc.ir.expr import Buffer
from graphc.ir.loop import Assign, Declare, For, Kernel, Store
from graphc.ir.types import float32


@dataclass(frozen=True, slots=True)
class Limits:
    """Measured limits.

    Attributes
    ----------
    threads : int
    flops_per_s : float
        Multiply-adds in registers on all threads, two operations each, in float32.
    bytes_per_s : dict of int to float
        Copying, read and write counted, by the bytes that are touched.
    """

    threads: int
    flops_per_s: float
    bytes_per_s: dict[int, float]

    def least_s(self, flops: float, n_bytes: float) -> float:
        """Return the least time that so much work can take here; 0 where nothing bounds it."""
        sizes = sorted(self.bytes_per_s)
        nearest = next((s for s in sizes if s >= n_bytes), sizes[-1])
        return max(flops / self.flops_per_s, n_bytes / self.bytes_per_s[nearest])


def side_by_side_s(calls: Sequence[Callable[[], object]], rounds: int = 5) -> float:
    """Return the time of the slowest call of the best round, each call on a thread of its own."""
    barrier = threading.Barrier(len(calls))
    spans = [[0.0] * rounds for _ in calls]

    def run(number: int) -> None:
        for turn in range(rounds):
            barrier.wait()
            started = time.perf_counter()
            calls[number]()
            spans[number][turn] = time.perf_counter() - started

    workers = [threading.Thread(target=run, args=(k,)) for k in range(len(calls))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return min(map(max, zip(*spans)))


def peak_kernel(steps: int) -> tuple[Kernel, int]:
    """Return chains of multiply-adds that never leave the registers, and their operations."""
    target = host_target()
    tile = ((8, 3) if target.registers >= 32 else (6, 2)) + (target.lanes(float32),)
    buffer = Buffer("p0", float32, (symbol("n0"),))
    factor = E.load(buffer, E.index(1), (1, 1, tile[2]), (0, 0, 0))
    start = E.load(buffer, E.index(0), tile, (0, 0, 0))
    held = E.use("sum", start)
    term = Assign("sum", E.apply("fma", held, factor, held))
    body = (
        Declare("sum", start),
        For("k", E.index(0), E.index(steps), (term,)),
        Store(buffer, E.index(0), held, (tile[1] * tile[2], tile[2], 1)),
    )
    return Kernel("peak", (buffer,), 1, ("n0",), body), 2 * steps * int(np.prod(tile))


def peak_flops_per_s(threads: int, steps: int = 1 << 20) -> float:
    """Return the rate of multiply-adds in registers, all threads together."""
    kernel, operations = peak_kernel(steps)
    (compiled,) = compile_kernels([kernel], host_target())
    native = KERNEL_TYPE(compiled.address)

    def call() -> Callable[[], object]:
        memory = np.full(4096, 1e-6, np.float32)
        pointers = (ctypes.c_void_p * 1)(memory.ctypes.data)
        sizes = (ctypes.c_int64 * 1)(memory.size)

        def chains() -> object:
            return memory, native(pointers, sizes, 0, 1, None)

        return chains

    calls = [call() for _ in range(threads)]
    return threads * operations / side_by_side_s(calls)


def copy_bytes_per_s(threads: int, touched: int) -> float:
    """Return the rate of copying, with so many bytes read and written in all."""
    count = max(touched // (2 * threads), 64)
    repeats = max(1, (64 << 20) // (2 * count))
    buffers = [(np.ones(count, np.uint8), np.ones(count, np.uint8)) for _ in range(threads)]

    def call(source: np.ndarray, target: np.ndarray) -> Callable[[], object]:
        def copies() -> None:
            for _ in range(repeats):
                ctypes.memmove(target.ctypes.data, source.ctypes.data, count)

        return copies

    seconds = side_by_side_s([call(a, b) for a, b in buffers])
    return threads * repeats * 2 * count / seconds


def measure(threads: int) -> Limits:
    """Measure the limits of this machine, a second or two."""
    sizes = [1 << power for power in (20, 23, 25, 28)]
    rates = {size: copy_bytes_per_s(threads, size) for size in sizes}
    return Limits(threads, peak_flops_per_s(threads), rates)

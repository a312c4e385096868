"""Generated matrix products and convolutions on one thread, beside NumPy's matrix product.

Run ``python -m benchmarks.contraction [ENGINE] [WORD ...]``; only rows that contain one of the
words run, or all.
Prints GFLOP/s (best of several runs), the time to compile a kernel, and the machine's peak: the
rate of independent multiply-adds in registers, measured by a generated kernel too.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read once, when NumPy loads its library

import numpy as np  # noqa: E402

from graphc import config  # noqa: E402
from graphc.codegen import compiler  # noqa: E402
from graphc.codegen.compiler import compile_kernels  # noqa: E402
from graphc.codegen.cpu import host_target  # noqa: E402
from graphc.codegen.dispatch import KERNEL_TYPE  # noqa: E402
from graphc.ir.dim import Dim, evaluate, symbol  # noqa: E402
from graphc.ir.graph import Graph, placeholder  # noqa: E402
from graphc.ir.loop import Kernel  # noqa: E402
from graphc.ir.ops.contraction import matmul  # noqa: E402
from graphc.ir.ops.convolution import conv, conv_data_grad, conv_weight_grad  # noqa: E402
from graphc.ir.types import TensorType, float32  # noqa: E402
from graphc.passes.lower import Lowered, lower  # noqa: E402
from graphc.passes.schedule.cpu import schedule  # noqa: E402
from graphc.runtime.limits import peak_flops_per_s  # noqa: E402

TARGET = host_target()
SECONDS = 0.3

M, N, K, BATCH = map(symbol, ("M", "N", "K", "B"))


@dataclass(frozen=True)
class Row:
    """One line of the table: a product of two operands, and the same in NumPy, if it has it."""

    name: str
    build: Callable[[Any, Any], Any]
    shapes: tuple[tuple[Dim, ...], tuple[Dim, ...]]
    sizes: dict[str, int]
    flops: int
    numpy: Callable[[Any, Any], Any] | None = None


def matrices(m: int, n: int, k: int, ta: bool = False, tb: bool = False) -> Row:
    """Return a matrix product; every size is a variable of the kernel."""
    shapes = (K, M) if ta else (M, K), (N, K) if tb else (K, N)
    return Row(
        f"matmul {'NT'[ta]}{'NT'[tb]} {m}x{n}x{k}",
        lambda a, b: matmul(a, b, transpose_a=ta, transpose_b=tb),
        shapes,
        {"M": m, "N": n, "K": k},
        2 * m * n * k,
        lambda a, b: (a.T if ta else a) @ (b.T if tb else b),
    )


def convolutions(
    n: int, c: int, size: int, out: int, window: int, stride: int = 1, pad: int = 0
) -> list[Row]:
    """Return a convolution of square images and its two gradients."""
    attrs = {"stride": (stride,) * 2, "pad": (pad,) * 2}
    count = (size + 2 * pad - window) // stride + 1
    x, w, g = (BATCH, c, size, size), (out, c, window, window), (BATCH, out, count, count)
    sizes = {"B": n}
    flops = 2 * n * out * count * count * c * window * window
    name = f"{n}x{c}x{size}x{size} -> {out} {window}x{window} s{stride} p{pad}"
    return [
        Row(f"conv {name}", lambda a, b: conv(a, b, **attrs), (x, w), sizes, flops),
        Row(
            f"data gradient {name}",
            lambda a, b: conv_data_grad(a, b, spatial=x[2:], **attrs), (g, w), sizes, flops,
        ),
        Row(
            f"weight gradient {name}",
            lambda a, b: conv_weight_grad(a, b, window=w[2:], **attrs), (g, x), sizes, flops,
        ),
    ]  # fmt: skip


def table() -> list[Row]:
    """Return all rows."""
    rows = [
        matrices(n, n, n, ta, tb)
        for n in (256, 512, 1024)
        for ta, tb in ((False, False), (False, True), (True, False))
    ]
    rows += [
        matrices(100, 500, 2450, tb=True),
        matrices(100, 2450, 500),
        matrices(500, 2450, 100, ta=True),
        matrices(100, 10, 500, tb=True),
        matrices(1, 500, 2450, tb=True),
        matrices(8, 500, 2450, tb=True),
    ]
    rows += convolutions(100, 1, 28, 20, 5, pad=2)
    rows += convolutions(100, 20, 14, 50, 5, pad=2)
    rows += convolutions(16, 64, 28, 64, 3, pad=1)
    rows += convolutions(16, 64, 28, 128, 1)
    rows += convolutions(16, 64, 28, 64, 3, stride=2, pad=1)
    rows += convolutions(16, 128, 7, 128, 3, pad=1)
    return rows


def best_s(call: Callable[[], object]) -> float:
    """Return the shortest time of a call, in seconds."""
    call()
    times = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def runner(
    kernel: Kernel, arrays: Sequence[np.ndarray], sizes: Sequence[int], extent: int
) -> Callable[[], int]:
    """Return a call of the compiled kernel over all its iterations."""
    (compiled,) = compile_kernels([kernel], TARGET)
    native = KERNEL_TYPE(compiled.address)
    pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
    numbers = (ctypes.c_int64 * max(len(sizes), 1))(*sizes)
    kept = list(arrays)

    def call() -> int:
        assert kept
        return native(pointers, numbers, 0, extent, None)

    return call


def plain_kernel(row: Row) -> Lowered:
    """Return a row's product as plain loops."""
    inputs = [
        placeholder(f"x{position}", TensorType(float32, shape))
        for position, shape in enumerate(row.shapes)
    ]
    return lower(Graph("g", tuple(inputs), (row.build(*inputs),)), "k")


def measure(row: Row) -> None:
    """Print one line."""
    random = np.random.default_rng(0)
    arrays = [
        random.standard_normal([evaluate(d, row.sizes) for d in shape]).astype(np.float32)
        for shape in row.shapes
    ]
    lowered = plain_kernel(row)
    sizes = [evaluate(d, row.sizes) for d in lowered.sizes]
    start = time.perf_counter()
    kernel = schedule(lowered.kernel, TARGET)
    compiler.object_code(compiler.current_engine().source(kernel, TARGET), TARGET)
    compile_ms = (time.perf_counter() - start) * 1e3
    bound = dict(zip(kernel.sizes, sizes))
    shape = [evaluate(d, bound) for d in kernel.params[-1].shape]
    arrays.append(np.empty(shape, np.float32))
    extent = evaluate(kernel.extent, bound)
    rate = row.flops / best_s(runner(kernel, arrays, sizes, extent)) / 1e9
    line = f"{row.name:58} {rate:8.1f} GFLOP/s {extent:4} blocks {compile_ms:6.0f} ms"
    if row.numpy is not None:
        theirs = row.flops / best_s(lambda: row.numpy(*arrays[:2])) / 1e9
        line += f"   NumPy {theirs:8.1f}  ratio {rate / theirs:5.2f}"
    print(line, flush=True)


def main(words: Sequence[str]) -> None:
    """Measure the rows that hold one of the words, or all."""
    if words and words[0] in compiler.ENGINES:
        config.configure(engine=words[0])
        words = words[1:]
    print(f"{'peak of one core':58} {peak_flops_per_s(threads=1) / 1e9:8.1f} GFLOP/s")
    for row in table():
        if not words or any(word in row.name for word in words):
            measure(row)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Compile time of each kind of kernel, part by part, and speed of the register micro-kernel.

python -m benchmarks.compile_time
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "codegen"))

import scheduled_kernels as kernels

from benchmarks import contraction
from graphc import config
from graphc.codegen import compiler, llvm_compile
from graphc.ir import expr as E
from graphc.ir.loop import Kernel
from graphc.ir.types import float32
from graphc.passes.schedule.cpu import schedule

REPEATS = 7


def polynomial(operations: int) -> Kernel:
    """A pointwise chain, main loop only."""

    def value(x: E.Expr) -> E.Expr:
        y = x
        for k in range(operations):
            y = E.apply("fma" if k % 2 else "max", y, x, *([0.5 + k] if k % 2 else []))
        return y

    return kernels.apply_kernel(value, (float32,), float32, 16)


KINDS: dict[str, Callable[[], Kernel]] = {
    "pointwise, 6 operations + masked tail": kernels.pointwise,
    "pointwise, 10 operations": lambda: polynomial(10),
    "pointwise, 60 operations": lambda: polynomial(60),
    "pointwise, 180 operations": lambda: polynomial(180),
    "row sums, (4, 16) accumulators": kernels.row_sums,
    "take rows, gather and check": kernels.take_rows,
    "transpose through (16, 16)": kernels.transpose,
    "matrix micro-kernel (8, 3, 16)": kernels.micro_kernel,
}


def best_ms(function: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def compile_times(name: str) -> None:
    target = kernels.TARGET
    engine = compiler.ENGINES[name]
    start = time.perf_counter()
    with config.options(engine=name):
        compiler.object_code(engine.source(kernels.pointwise(), target), target)
    first_s = time.perf_counter() - start
    print(f"engine {name}: first kernel {first_s:.3f} s; milliseconds of later ones:")
    print(f"{'kernel':40} {'text':>6} {'lower':>6} {'LLVM':>6} {'total':>6} {'link':>6}  bytes")
    for kind, make in KINDS.items():
        kernel = make()
        text = engine.source(kernel, target)
        ir = engine.llvm_text(text, target)
        code = llvm_compile.object_code(ir, target, engine.PASSES)
        columns = [
            best_ms(lambda k=kernel: engine.source(k, target)),
            best_ms(lambda t=text: engine.llvm_text(t, target)),
            best_ms(lambda i=ir: llvm_compile.object_code(i, target, engine.PASSES)),
        ]
        number = iter(range(REPEATS))
        warm = f"{name} {kind}"
        compiler._load(warm, code, target)
        link = best_ms(lambda n=number, c=code, k=warm: compiler._load(f"{k} {next(n)}", c, target))
        row = "".join(f" {ms:6.2f}" for ms in (*columns, sum(columns), link))
        print(f"{kind:40}{row}  {len(code)}")


def contraction_times() -> None:
    """Print the time of each step of a contraction: schedule, text, LLVM."""
    target, engine = kernels.TARGET, compiler.current_engine()
    print(f"{'contraction':50} {'sched.':>6} {'text':>6} {'LLVM':>6} {'total':>6}")
    for row in contraction.table():
        plain = contraction.plain_kernel(row).kernel
        kernel = schedule(plain, target)
        text = engine.source(kernel, target)
        columns = [
            best_ms(lambda p=plain: schedule(p, target)),
            best_ms(lambda k=kernel: engine.source(k, target)),
            best_ms(lambda t=text: compiler.object_code(t, target)),
        ]
        figures = "".join(f"{ms:7.1f}" for ms in (*columns, sum(columns)))
        print(f"{row.name:50} {figures}")


def launch(run: Callable[..., int], repeats: int, *arguments: object) -> None:
    for _ in range(repeats):
        run(arguments[0], arguments[1], 0, arguments[2], None)


def micro_kernel_speed() -> None:
    (compiled,) = compiler.compile_kernels([kernels.micro_kernel()], kernels.TARGET)
    print("micro-kernel (8, 3, 16), one core: depth, panels, kilobytes, GFLOP/s")
    for depth, panels in ((64, 1), (128, 1), (256, 1), (256, 8), (512, 8), (512, 32)):
        a = np.random.default_rng(0).standard_normal((panels, depth, 8)).astype(np.float32)
        b = np.random.default_rng(1).standard_normal((panels, depth, 48)).astype(np.float32)
        c = np.zeros((panels, 8, 48), np.float32)
        pointers = (ctypes.c_void_p * 3)(*(x.ctypes.data for x in (a, b, c)))
        sizes = (ctypes.c_int64 * 1)(depth)
        run = kernels._NATIVE(compiled.address)
        repeats = max(1, 20_000_000 // (panels * depth * 384))

        seconds = best_ms(partial(launch, run, repeats, pointers, sizes, panels)) / 1e3
        kilobytes = (a.nbytes + b.nbytes + c.nbytes) >> 10
        gflops = 2 * 384 * depth * panels * repeats / seconds / 1e9
        print(f"  {depth:5} {panels:5} {kilobytes:7} {gflops:8.1f}")


if __name__ == "__main__":
    for name in compiler.ENGINES:
        compile_times(name)
    contraction_times()
    micro_kernel_speed()

"""Cost of the native dispatcher: one program call, and one parallel step of it.

Run ``python benchmarks/dispatch.py``; prints medians in microseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from functools import partial

from graphc import lazy
from graphc.codegen.dispatch import Call, Error, Launch, dispatcher
from graphc.runtime.threads import Pool

_KERNEL = """
define i32 @bump(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, ptr %error) nounwind {
entry:
  %array = load ptr, ptr %buffers
  %repeats = load i64, ptr %sizes
  %item = getelementptr i64, ptr %array, i64 %begin
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %old = load volatile i64, ptr %item
  %new = add i64 %old, 1
  store volatile i64 %new, ptr %item
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %repeats
  br i1 %more, label %loop, label %done
done:
  ret i32 0
}
"""


def compile_kernel() -> tuple[int, object]:
    """Return a kernel that adds 1 to the item at ``begin``, ``sizes[0]`` times, and its owner."""
    binding = lazy.llvmlite_binding()
    target = binding.Target.from_triple(binding.get_process_triple())
    machine = target.create_target_machine(opt=2)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(_KERNEL), machine)
    engine.finalize_object()
    return engine.get_function_address("bump"), engine


def median_us(call: Callable[[], object], calls: int, rounds: int) -> float:
    """Return the median over ``rounds`` of the mean time of ``calls`` calls, in microseconds."""
    means = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        for _ in range(calls):
            call()
        means.append((time.perf_counter_ns() - start) / calls / 1e3)
    return statistics.median(means)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    threads, steps, rounds = arguments.threads, arguments.steps, arguments.rounds

    kernel, engine = compile_kernel()
    # each chunk's item lies on cache lines of its own: the step is measured, not the kernel
    items = (ctypes.c_int64 * (64 * threads))()
    buffers = (ctypes.c_void_p * 1)(ctypes.addressof(items))
    sizes = (ctypes.c_int64 * 1)(1)

    def table(extent: int, steps: int) -> ctypes.Array[Launch]:
        row = Launch(kernel, ctypes.addressof(buffers), ctypes.addressof(sizes), extent, 64, 0)
        return (Launch * steps)(*[row] * steps)

    def called(rows: ctypes.Array[Launch], count: int) -> Call:
        return Call(None, ctypes.addressof(rows), count, 1, ctypes.addressof(error), None)

    error, pool = Error(), Pool(threads)
    one, parallel, serial = table(1, 1), table(64 * threads, steps), table(1, steps)
    first, last = called(one, 1), called(serial, steps)
    single = partial(dispatcher().run, ctypes.addressof(first))
    one_chunk_each = partial(dispatcher().run, ctypes.addressof(last))
    parallel_call = partial(pool.run, called(parallel, 1))
    program = partial(pool.run, called(parallel, steps))
    print(f"program of one launch, 1 thread            {median_us(single, 2000, rounds):8.3f} us")
    cost = median_us(parallel_call, 2000, rounds)
    print(f"program of one parallel step, {threads} threads    {cost:8.3f} us")
    for repeats in (1, 300, 3000):
        sizes[0] = repeats
        chunk = median_us(one_chunk_each, 5, rounds) / steps
        step = median_us(program, 5, rounds) / steps
        print(
            f"step of {threads} chunks of {chunk:7.3f} us, {threads} threads  {step:8.3f} us: "
            f"{step - chunk:+.3f} us over one chunk"
        )
    pool.stop()
    del engine


if __name__ == "__main__":
    main()

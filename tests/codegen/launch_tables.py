"""Launch tables for the tests of dispatcher and pool, and kernels written in LLVM IR."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import cache

import numpy as np

from graphc import lazy
from graphc.codegen.dispatch import Call, Error, Launch
from graphc.runtime.threads import Pool

# Each loops over i in begin..end; %a and %b are the two buffers, %size the one size.
_BODIES = {
    "index": """
  %value = mul i64 %i, %size
  %place = getelementptr i64, ptr %a, i64 %i
  store i64 %value, ptr %place""",
    "increase": """
  %place = getelementptr i64, ptr %a, i64 %i
  %old = load i64, ptr %place
  %new = add i64 %old, %size
  store i64 %new, ptr %place""",
    "stencil": """
  %low = add i64 %i, -1
  %high = add i64 %i, 1
  %below = icmp slt i64 %low, 0
  %last = add i64 %size, -1
  %above = icmp sgt i64 %high, %last
  %left = select i1 %below, i64 %last, i64 %low
  %right = select i1 %above, i64 0, i64 %high
  %p0 = getelementptr i64, ptr %a, i64 %left
  %p1 = getelementptr i64, ptr %a, i64 %i
  %p2 = getelementptr i64, ptr %a, i64 %right
  %v0 = load i64, ptr %p0
  %v1 = load i64, ptr %p1
  %v2 = load i64, ptr %p2
  %twice = mul i64 %v1, 3
  %sum = add i64 %v0, %twice
  %all = sub i64 %sum, %v2
  %place = getelementptr i64, ptr %b, i64 %i
  store i64 %all, ptr %place""",
    "thread": """
  %self = call i64 @pthread_self()
  %pause = trunc i64 %size to i32
  %done_pausing = call i32 @usleep(i32 %pause)
  %place = getelementptr i64, ptr %a, i64 %i
  store i64 %self, ptr %place""",
    "calls": """
  %first = icmp eq i64 %i, %begin
  %one = zext i1 %first to i64
  %place = getelementptr i64, ptr %a, i64 %begin
  %ignored = atomicrmw add ptr %place, i64 %one monotonic
  %end_place = getelementptr i64, ptr %b, i64 %begin
  store i64 %end, ptr %end_place""",
}
_LOOP = """
define i32 @{name}(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, ptr %error) nounwind {{
entry:
  %a = load ptr, ptr %buffers
  %second = getelementptr ptr, ptr %buffers, i64 1
  %b = load ptr, ptr %second
  %size = load i64, ptr %sizes
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %loop ]{body}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %done
done:
  ret i32 0
}}
"""
# Fails on chunks that begin at %size or above; says where it began.
_FAILING = """
define i32 @failing(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, ptr %error) nounwind {
entry:
  %size = load i64, ptr %sizes
  %wrong = icmp sge i64 %begin, %size
  %detail = getelementptr i64, ptr %error, i64 2
  store i64 %begin, ptr %detail
  %status = select i1 %wrong, i32 5, i32 0
  ret i32 %status
}
"""


@cache
def kernels() -> tuple[dict[str, int], object]:
    """Return addresses of the kernels, and the engine that owns their code."""
    binding = lazy.llvmlite_binding()
    text = "declare i64 @pthread_self()\ndeclare i32 @usleep(i32)\n" + _FAILING
    text += "".join(_LOOP.format(name=name, body=body) for name, body in _BODIES.items())
    target = binding.Target.from_triple(binding.get_process_triple())
    engine = binding.create_mcjit_compiler(
        binding.parse_assembly(text), target.create_target_machine(opt=2)
    )
    engine.finalize_object()
    names = [*_BODIES, "failing"]
    return {name: engine.get_function_address(name) for name in names}, engine


class Table:
    """A launch table that keeps alive what it points to."""

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, ...]] = []
        self.kept: list[object] = []
        self.error = Error()

    def add(self, kernel, a, b=None, size=1, extent=0, chunk=0) -> Table:
        addresses, engine = kernels()
        address = addresses[kernel] if isinstance(kernel, str) else kernel
        places = [None if array is None else array.ctypes.data for array in (a, b)]
        buffers, sizes = (ctypes.c_void_p * 2)(*places), (ctypes.c_int64 * 1)(size)
        self.kept += [engine, a, b, buffers, sizes]
        at = ctypes.addressof
        self.rows.append((address, at(buffers), at(sizes), extent, chunk, 0))
        return self

    def native(self) -> ctypes.Array[Launch]:
        return (Launch * len(self.rows))(*self.rows)

    def run(self, pool: Pool, profile: np.ndarray | None = None) -> int:
        rows = self.native()
        at = None if profile is None else profile.ctypes.data
        status = pool.run(call_of(rows, self.error, at))
        ctypes.memset(rows, 0, ctypes.sizeof(rows))  # whoever still used it would crash
        return status


def call_of(
    rows: ctypes.Array[Launch], error: Error | None = None, profile: int | None = None
) -> Call:
    """Return a call of a launch table on its caller's thread; keeps the table alive."""
    at = None if error is None else ctypes.addressof(error)
    call = Call(None, ctypes.addressof(rows), len(rows), 1, at, profile)
    call.kept = rows, error
    return call


def until(condition: Callable[[], object], limit_s: float = 20.0) -> bool:
    """Wait for a condition; return whether it came true in time."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.0002)
    return True


def await_worker(pool: Pool) -> None:
    """Wake the workers and wait until one is up."""

    def is_awake() -> bool:
        pool.wake()
        return not pool.parked

    assert until(is_awake)


def stencil_table(steps: int, size: int, chunk: int) -> tuple[Table, np.ndarray, np.ndarray]:
    """Return a program of dependent steps, its result's array, and what it must hold."""
    a = np.arange(size) ** 2 % 1009
    b = np.zeros_like(a)
    expected = a.copy()
    table = Table()
    for _ in range(steps):
        table.add("stencil", a, b, size=size, extent=size, chunk=chunk)
        expected = np.roll(expected, 1) + 3 * expected - np.roll(expected, -1)
        a, b = b, a
    return table, a, expected

"""The structures that native code and Python share, as ctypes lays them out.

Native code is the dispatcher with its workers, and the kernels of a GPU.
"""

from __future__ import annotations

import ctypes

# Two cache lines of x86-64 (their prefetcher fetches pairs) and one of Apple's processors.
LINE_BYTES = 128
"""Unit of memory that two threads should not both write to."""

CHUNK_NS = 8_000
"""Estimated nanoseconds of work that a thread claims at once, at least."""
MOST_CHUNKS = 128
"""Chunks of a long launch: each then is a stretch of memory that the processor reads ahead in."""
IDLE_NS = 1_000_000
"""Time that a worker spins without a program before it parks, in nanoseconds."""
STACK_BYTES = 4 << 20
"""Stack of a worker: kernels keep packed panels of up to half a megabyte on it."""


class Error(ctypes.Structure):
    """What a failed kernel says: ``struct Error { int64_t launch, code, detail[6]; }``.

    Attributes
    ----------
    launch : int
        Row of the launch table; written by the walker.
    code : int
        Set by the kernel; the kernel's return value where the kernel left 0.
    detail : array of 6 int
        Set by the kernel: offending index, bound, ...
    """

    _fields_ = [
        ("launch", ctypes.c_int64),
        ("code", ctypes.c_int64),
        ("detail", ctypes.c_int64 * 6),
    ]


class Report(ctypes.Structure):
    """What a failed kernel on a GPU tells the host, in page-locked memory.

    Attributes
    ----------
    error : Error
        All of it written by the kernel.
    call : int
        The Flag's number of the call.
    """

    _fields_ = [("error", Error), ("call", ctypes.c_int64)]


class Flag(ctypes.Structure):
    """What the kernels of a GPU know of failures, in its own memory.

    Attributes
    ----------
    call : int
        Number of the call whose checks run, written before they do.
    code : int
        0, or that of the first kernel to fail since the host has cleared it.
    report : int
        Address of the Report.
    """

    _fields_ = [("call", ctypes.c_int64), ("code", ctypes.c_int64), ("report", ctypes.c_void_p)]


class Launch(ctypes.Structure):
    """One row of a launch table; all fields are 8 bytes.

    Attributes
    ----------
    kernel : int
        Address of ``int32_t k(void **buffers, const int64_t *sizes, int64_t begin, int64_t end,
        Error *error)``.
    buffers, sizes : int
        Addresses handed to the kernel as they are.
    extent : int
        Iterations of the parallel axis; nothing is launched where it is 0 or less.
    chunk : int
        Iterations claimed at once; the caller runs the whole extent by one call where ``chunk``
        is not less than ``extent``, or is 0 or less.
    flags : int
        Reserved, 0.
    """

    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("buffers", ctypes.c_void_p),
        ("sizes", ctypes.c_void_p),
        ("extent", ctypes.c_int64),
        ("chunk", ctypes.c_int64),
        ("flags", ctypes.c_int64),
    ]


class Call(ctypes.Structure):
    """What ``graphc_run`` is told: a launch table, and how to walk it; all fields are 8 bytes.

    Attributes
    ----------
    pool : int
        Address of a PoolState; unused, may be 0, where ``threads`` is 1.
    table, count : int
        Address of the launch table, its rows.
    threads : int
        Threads of this call, its caller included.
    error : int
        Address of an Error, or 0.
    profile : int
        Address of ``2 * count`` 64-bit integers, or 0: start and stop of each launch in
        nanoseconds of ``CLOCK_MONOTONIC``.
    pointers : int
        Address of the buffers that the table's kernels are handed.
    stores, store_count : int
        Address of pairs of 64-bit integers, their number: before the walk, the entry of
        ``pointers`` that the first counts becomes the address of the data of the one of
        ``arrays`` that the second counts.
    arrays, data_offset : int
        Address of addresses of structures that hold such an address at an offset in bytes.
    """

    _fields_ = [
        ("pool", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("error", ctypes.c_void_p),
        ("profile", ctypes.c_void_p),
        ("pointers", ctypes.c_void_p),
        ("stores", ctypes.c_void_p),
        ("store_count", ctypes.c_int64),
        ("arrays", ctypes.c_void_p),
        ("data_offset", ctypes.c_int64),
    ]


class Failure(ctypes.Structure):
    """Failures of one running program, on its caller's stack; the lowest chunk's error wins."""

    _fields_ = [
        ("lock", ctypes.c_int64),
        ("row", ctypes.c_int64),
        ("chunk", ctypes.c_int64),
        ("status", ctypes.c_int64),
        ("error", ctypes.c_void_p),
    ]


def _padding(fields: int) -> type[ctypes.Array[ctypes.c_char]]:
    return ctypes.c_char * (LINE_BYTES - 8 * fields)


class PoolState(ctypes.Structure):
    """``struct Pool``: what a caller and the workers share; all zeros is a fresh pool.

    Each group of fields has cache lines of its own.

    Attributes
    ----------
    busy : int
        1 while a program runs on the pool: a try-lock.
    width : int
        Threads of that program; workers of this index and above leave it alone.
    stopping : int
        Set to 1 to make every worker leave.
    awake : int
        Workers inside ``graphc_worker``.
    ticket, launch, failure : int
        The step in progress, see the module's description.
    finished : int
        Chunks that workers have run since the pool was made.
    """

    _fields_ = [
        ("busy", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("_busy_padding", _padding(2)),
        ("stopping", ctypes.c_int64),
        ("awake", ctypes.c_int64),
        ("_awake_padding", _padding(2)),
        ("ticket", ctypes.c_int64),
        ("launch", ctypes.c_void_p),
        ("failure", ctypes.c_void_p),
        ("_ticket_padding", _padding(3)),
        ("finished", ctypes.c_int64),
        ("_finished_padding", _padding(1)),
    ]

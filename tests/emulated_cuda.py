"""CUDA devices without a GPU: a stand-in for cuda-core whose kernels run on the CPU.

What is put on a stream runs when something waits for it, and not before: code that reads too early
reads garbage, as it may on a GPU. Kernels are scheduled for CUDA; blocks and threads then become
loops (`graphc.passes.emulate`) that the CPU engine compiles.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graphc import lazy
from graphc.codegen import compiler, cuda_code, llvm_compile, llvm_engine
from graphc.codegen.cpu import host_target
from graphc.codegen.dispatch import KERNEL_TYPE, Error
from graphc.codegen.dispatch_layout import Flag, Report
from graphc.codegen.llvm_cuda import shared_bytes
from graphc.ir.loop import Kernel
from graphc.ir.target import Target
from graphc.passes.emulate import emulate
from graphc.runtime import cuda

ALIGN_BYTES = 256
GARBAGE = 0xCD


class CUDAError(Exception):
    """What cuda-core raises."""


class CUresult(IntEnum):
    """Status of a call of the driver."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803


# -- kernels on the CPU ----------------------------------------------------------------------


def emulated_source(kernel: Kernel, target: Target, engine: str = "") -> str:
    """Take the place of `cuda_code.source`."""
    narrow = replace(host_target(), index_bits=target.index_bits)
    text = llvm_engine.source(emulate(kernel), narrow)
    return f"{cuda_code.comment(kernel, ';', shared_bytes(kernel))}; {len(kernel.params)}\n{text}"


def emulated_code(text: str, target: Target, engine: str = "") -> bytes:
    """Take the place of `cuda_code.machine_code`."""
    launch, count, rest = text.split("\n", 2)
    code = llvm_compile.object_code(rest, host_target(), llvm_engine.PASSES)
    return f"//{launch[1:]}\n{count[1:]}\n".encode() + code


class FakeKernel:
    """A kernel: the object code of one that the CPU runs."""

    def __init__(self, code: bytes) -> None:
        count, _, rest = code.partition(b"\n")
        self.handle, self.count = object(), int(count)
        key = "emulated" + hashlib.sha256(rest).hexdigest()
        self.function = KERNEL_TYPE(compiler._load(key, rest, host_target()).address)

    def run(self, config: Any, arguments: tuple[int, ...]) -> None:
        """Run all blocks, one after the other, unless a flag says that something has failed."""
        assert all(type(a) is int for a in arguments), arguments
        *rest, launch, address = arguments
        flag = Flag.from_address(address) if address else Flag()
        if flag.code:
            return
        pointers, sizes = rest[: self.count], rest[self.count :]
        memory = (ctypes.c_uint64 * max(len(pointers), 1))(*pointers)
        numbers = (ctypes.c_int64 * max(len(sizes), 1))(*sizes)
        own = Error()
        if self.function(memory, numbers, 0, config.grid, ctypes.byref(own)):
            assert address, "a launch that is told of no flag has failed"
            flag.code = own.code
            report = Report.from_address(flag.report)
            report.error, report.error.launch, report.call = own, launch, flag.call


# -- cuda.core -------------------------------------------------------------------------------


class FakeEvent:
    """A place in a stream."""

    def __init__(self, stream: FakeStream, timed: bool) -> None:
        self.stream, self.timed, self.is_done, self.time_ms = stream, timed, False, 0.0

    def happen(self) -> None:
        self.is_done, self.time_ms = True, time.perf_counter() * 1e3

    def sync(self) -> None:
        self.stream.run_until(self)

    def __sub__(self, other: FakeEvent) -> float:
        assert self.timed and other.timed and self.is_done and other.is_done
        return self.time_ms - other.time_ms


class FakeStream:
    """Work that waits until somebody asks for it."""

    def __init__(self, fake: FakeCuda, number: int) -> None:
        self.fake, self.number, self.work = fake, number, deque[Callable[[], object]]()
        self.handle = 7
        self.lock = threading.RLock()

    def add(self, what: str, work: Callable[[], object], *details: Any) -> None:
        assert self.fake.current.number == self.number, f"{what} on a device that is not current"
        self.fake.calls.append((what, *details))
        with self.lock:
            self.work.append(work)

    def record(self, event: None = None, options: Any = None) -> FakeEvent:
        made = FakeEvent(self, bool(options and options.timing_enabled))
        self.add("record", made.happen)
        return made

    def wait(self, event: FakeEvent) -> None:
        self.add("wait", event.sync)

    def sync(self) -> None:
        self.fake.calls.append(("sync",))
        self.fake.check()
        with self.lock:
            while self.work:
                self.work.popleft()()

    def run_until(self, event: FakeEvent) -> None:
        with self.lock:
            while not event.is_done:
                self.work.popleft()()


class FakeBuffer:
    """Memory, or a span of it that something else owns."""

    def __init__(self, handle: int, size: int, owner: Callable[[Any], None] | None = None) -> None:
        self.handle, self.size, self.owner = handle, size, owner
        self.stream: FakeStream | None = None
        self.kept: Any = None

    @staticmethod
    def from_handle(ptr: int, size: int, owner: Any = None) -> FakeBuffer:
        found = FakeBuffer(ptr, size)
        found.kept = owner
        return found

    def copy_from(self, src: FakeBuffer, *, stream: FakeStream) -> None:
        assert src.size == self.size > 0
        there, here, size = self.handle, src.handle, self.size
        stream.add("copy", lambda: ctypes.memmove(there, here, size), size)

    def fill(self, value: int | bytes, *, stream: FakeStream) -> None:
        there, size = self.handle, self.size
        pattern = bytes([value]) if isinstance(value, int) else value
        assert len(pattern) in (1, 2, 4) and size % len(pattern) == 0
        content = pattern * (size // len(pattern))
        stream.add("fill", lambda: ctypes.memmove(there, content, size), size)

    def set_deallocation_stream(self, stream: FakeStream) -> None:
        self.stream = stream

    def __del__(self) -> None:
        if self.owner is not None:
            self.owner(self)


def shared_view(buffer: FakeBuffer, shape: tuple[int, ...], dtype: Any) -> Any:
    """Take the place of `StridedMemoryView.from_buffer`: the memory as NumPy shares it."""
    memory = (ctypes.c_ubyte * buffer.size).from_address(buffer.handle)
    memory.kept = buffer
    return np.frombuffer(memory, dtype).reshape(shape)


class FakePool:
    """Memory of a device: what is given back serves the next of its size on the same stream."""

    def __init__(self, fake: FakeCuda, number: int) -> None:
        self.fake, self.number, self.handle = fake, number, object()
        self.free: dict[tuple[int, int], list[np.ndarray]] = {}
        self.lent: dict[int, np.ndarray] = {}
        self.used_bytes = 0
        self.peer_accessible_by: set[int] = set()

    def allocate(self, size: int, *, stream: FakeStream) -> FakeBuffer:
        self.fake.calls.append(("allocate", size))
        if self.used_bytes + size > self.fake.total_bytes:
            raise CUDAError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed")
        waiting = self.free.get((id(stream), size))
        memory = waiting.pop() if waiting else np.empty(size + ALIGN_BYTES, np.uint8)
        handle = -(-memory.ctypes.data // ALIGN_BYTES) * ALIGN_BYTES
        self.lent[handle] = memory
        self.used_bytes += size
        stream.add("poison", lambda: ctypes.memset(handle, GARBAGE, size))
        found = FakeBuffer(handle, size, self.give_back)
        found.stream = stream
        return found

    def give_back(self, buffer: FakeBuffer) -> None:
        self.used_bytes -= buffer.size
        memory = self.lent.pop(buffer.handle)
        self.free.setdefault((id(buffer.stream), buffer.size), []).append(memory)


class FakePinned:
    """Page-locked memory."""

    def allocate(self, size: int) -> FakeBuffer:
        memory = (ctypes.c_ubyte * size)()
        found = FakeBuffer(ctypes.addressof(memory), size)
        found.kept = memory
        return found


class FakeGraph:
    """Launches as one; definition and executable graph."""

    def __init__(self, fake: FakeCuda) -> None:
        self.fake, self.nodes = fake, list[tuple[Any, Any, tuple[int, ...]]]()

    def add(self, config: Any, kernel: FakeKernel, *arguments: int) -> Any:
        self.nodes.append((config, kernel, arguments))
        return SimpleNamespace(number=len(self.nodes) - 1, launch=self.add)

    def instantiate(self) -> FakeGraph:
        self.fake.calls.append(("instantiate", len(self.nodes)))
        return self

    def __getitem__(self, node: Any) -> Any:
        def update(*, config: Any, kernel: FakeKernel, args: tuple[int, ...]) -> None:
            self.fake.calls.append(("update", node.number))
            self.nodes[node.number] = config, kernel, args

        return SimpleNamespace(update=update)

    def launch(self, stream: FakeStream) -> None:
        nodes = list(self.nodes)

        def work() -> None:
            for config, kernel, arguments in nodes:
                kernel.run(config, arguments)

        stream.add("graph", work, len(nodes))


class FakeCuda:
    """The parts of cuda-core and of the driver's bindings that graphc uses.

    Attributes
    ----------
    count : int
        Number of devices.
    capability : tuple of int
    total_bytes : int
        Memory of each.
    calls : list of tuple
        What was asked for, in order.
    broken : str
        What the driver says at the next wait.
    status : CUresult
        What starting the driver returns.
    peers : bool
        Whether devices reach each other's memory.
    """

    def __init__(self, count: int = 2) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.allowed: list[int] = []
        self.opened: dict[int, cuda.CudaDevice] = {}
        self.restore(count)
        self.current = threading.local()
        self.pools: dict[int, FakePool] = {}
        self.core = SimpleNamespace(
            Device=self.device,
            DeviceMemoryResource=self.pool,
            LegacyPinnedMemoryResource=FakePinned,
            Buffer=FakeBuffer,
            ObjectCode=SimpleNamespace(from_ptx=self.load),
            LaunchConfig=lambda grid, block, shmem_size: SimpleNamespace(
                grid=grid, block=block, shmem_size=shmem_size
            ),
            EventOptions=lambda timing_enabled: SimpleNamespace(timing_enabled=timing_enabled),
            launch=self.launch,
            utils=SimpleNamespace(
                StridedMemoryView=SimpleNamespace(from_buffer=shared_view, from_dlpack=self.view)
            ),
            graph=SimpleNamespace(GraphDefinition=self.graph),
        )
        attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)
        self.driver = SimpleNamespace(
            CUresult=CUresult,
            CUfunction_attribute=attribute,
            cuInit=lambda flags: (self.status,),
            cuDeviceGetCount=lambda: (CUresult.CUDA_SUCCESS, self.count),
            cuMemGetInfo=self.memory,
            cuKernelSetAttribute=self.allow,
            cuMemPoolTrimTo=lambda pool, n_bytes: (CUresult.CUDA_SUCCESS,),
        )

    def restore(self, count: int = 2) -> None:
        """Be as new but for memory, streams and kernels."""
        self.count, self.capability, self.total_bytes = count, (9, 0), 1 << 30
        self.broken, self.status, self.peers = "", CUresult.CUDA_SUCCESS, True
        self.calls.clear()
        self.allowed.clear()

    def check(self) -> None:
        if self.broken:
            message, self.broken = self.broken, ""
            raise CUDAError(message)

    def device(self, number: int) -> Any:
        assert 0 <= number < self.count
        return SimpleNamespace(
            name="Emulated GPU",
            compute_capability=self.capability,
            set_current=lambda: setattr(self.current, "number", number),
            create_stream=lambda: FakeStream(self, number),
            can_access_peer=lambda other: self.peers,
        )

    def pool(self, number: int) -> FakePool:
        return self.pools.setdefault(number, FakePool(self, number))

    def view(self, other: Any, stream_ptr: int) -> Any:
        """Take the place of `StridedMemoryView.from_dlpack`."""
        assert stream_ptr == 7
        array, item = other.array, other.array.itemsize
        strides = tuple(stride // item for stride in array.strides)
        return SimpleNamespace(
            ptr=array.ctypes.data, shape=array.shape, strides=strides, dtype=array.dtype, kept=other
        )

    def memory(self) -> tuple[CUresult, int, int]:
        used = self.pools[self.current.number].used_bytes
        return CUresult.CUDA_SUCCESS, self.total_bytes - used, self.total_bytes

    def load(self, code: bytes) -> Any:
        self.calls.append(("load",))
        return SimpleNamespace(get_kernel=lambda name: FakeKernel(code))

    def allow(self, attribute: int, n_bytes: int, kernel: Any, number: int) -> tuple[CUresult]:
        if n_bytes > 227 << 10:
            return (CUresult.CUDA_ERROR_INVALID_VALUE,)
        self.allowed.append(n_bytes)
        return (CUresult.CUDA_SUCCESS,)

    def launch(self, stream: FakeStream, config: Any, kernel: FakeKernel, *args: int) -> None:
        assert config.grid > 0 and 0 < config.block <= 1024
        stream.add("launch", lambda: kernel.run(config, args), config.grid, config.block, *args)

    def graph(self) -> Any:
        found = FakeGraph(self)
        return SimpleNamespace(launch=found.add, instantiate=found.instantiate)

    def named(self, *names: str) -> list[tuple[Any, ...]]:
        """Return the calls of these names."""
        return [call for call in self.calls if call[0] in names]


@contextmanager
def emulated_cuda(folder: Path, fake: FakeCuda) -> Iterator[FakeCuda]:
    """Have devices; kernels are kept apart from real ones, in a cache in a folder.

    What a check has found must have been raised when this ends.
    """
    fake.restore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHC_CACHE_DIR", str(folder))
        patch.setattr(lazy, "cuda_core", lambda: fake.core)
        patch.setattr(lazy, "cuda_driver", lambda: fake.driver)
        patch.setattr(lazy, "cuda_error", lambda: CUDAError)
        patch.setattr(cuda_code, "source", emulated_source)
        patch.setattr(cuda_code, "machine_code", emulated_code)
        patch.setattr(cuda, "_opened", fake.opened)
        yield fake
        fake.restore()
        cuda.synchronize_all()

"""CUDA devices through cuda-core: memory from a stream-ordered pool, one stream, kernels, copies.

Everything that is asked of a device happens in the order of its stream, so memory may be given back
and written again while kernels that use it are still to run. The host waits only where it reads.
"""

from __future__ import annotations

import gc
import math
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import config, lazy
from graphc.codegen import cuda_code
from graphc.codegen.compiler import CompiledKernel
from graphc.codegen.cuda import SHARED_BYTES, cuda_target
from graphc.codegen.llvm_kernel import SYMBOL
from graphc.errors import DeviceError, GraphcError, Location
from graphc.ir.target import Target
from graphc.runtime.checks import FLAG_BYTES, Checks
from graphc.runtime.device import DeviceArray
from graphc.runtime.driver import count, missing, processor_of
from graphc.runtime.staging import PIECE_BYTES, Staging, as_bytes, view

ARENA_STEP_BYTES = 2 << 20
"""The scratch memory that programs share grows by multiples of this."""
MOST_BLOCKS = 2**31 - 1
LATEST = 8
"""Programs that an error names which is found only after they were started."""


@dataclass(frozen=True, slots=True)
class Step:
    """One launch, all but the addresses: a kernel, its grid of blocks, its whole-number arguments.

    These are the sizes, and the number by which a check that fails names its launch.
    """

    kernel: Any
    config: Any
    numbers: tuple[int, ...]


class Recorded:
    """Launches as one CUDA graph, each waiting for the one before."""

    def __init__(self, steps: Sequence[Step], arguments: Sequence[Sequence[int]]) -> None:
        definition = lazy.cuda_core().graph.GraphDefinition()
        last, self._nodes = definition, []
        for step, found in zip(steps, arguments, strict=True):
            last = last.launch(step.config, step.kernel, *found)
            self._nodes.append(last)
        self._definition, self._graph = definition, definition.instantiate()

    def update(self, number: int, step: Step, arguments: Sequence[int]) -> None:
        """Give one launch other arguments, from the next run on."""
        node = self._graph[self._nodes[number]]
        node.update(config=step.config, kernel=step.kernel, args=tuple(arguments))

    def launch(self, stream: Any) -> None:
        """Run all of them."""
        self._graph.launch(stream)


class CudaDevice:
    """One GPU.

    Attributes
    ----------
    number : int
    model : str
        What its maker calls it.
    lock : threading.RLock
        Held while a program's launches go to the stream, so that programs of several threads do
        not mix.
    checks : Checks
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.lock = threading.RLock()
        self._process = os.getpid()
        core = lazy.cuda_core()
        device = self._current()
        self.model = str(device.name)
        self._processor = processor_of(self.name, device)
        self.stream = device.create_stream()
        self._copies: Any = None
        self._pool = core.DeviceMemoryResource(number)
        self._staging = Staging()
        self._kernels: dict[str, tuple[Any, cuda_code.CudaCode]] = {}
        self._arena: Any = None
        self._reached: dict[int, bool] = {}
        self.checks = Checks(self.name, self.allocate(FLAG_BYTES), self.stream)
        self._latest: deque[tuple[str, Location | None]] = deque(maxlen=LATEST)

    @property
    def name(self) -> str:
        """Name of the context: ``"gpu(0)"``."""
        return f"gpu({self.number})"

    @property
    def target(self) -> Target:
        """What kernels are compiled for, as the options are now."""
        return cuda_target(self._processor)

    def _current(self) -> Any:
        """Make the device the one of this thread; return cuda-core's handle of it."""
        if os.getpid() != self._process:
            raise DeviceError(
                f"{self.name} was used before this process was forked, and cannot be used in it",
                remedy='Use the device in one process, or start others with "spawn".',
            )
        device = lazy.cuda_core().Device(self.number)
        device.set_current()
        return device

    @contextmanager
    def used(self) -> Iterator[None]:
        """Have the device to oneself; what the driver refuses becomes a DeviceError."""
        with self.lock, self._errors():
            yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            self._current()
            yield
        except lazy.cuda_error() as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> DeviceError:
        """Return the error for one of the driver, with what ran last."""
        lines = [f"{name} ({where})" if where else name for name, where in self._latest]
        return DeviceError(
            f"{self.name} failed: {str(error).splitlines()[0]}",
            remedy=f"It was running {', '.join(lines)}." if lines else None,
            where=self._latest[-1][1] if self._latest else None,
        )

    # -- memory ------------------------------------------------------------------------------

    def allocate(self, n_bytes: int, stream: Any = None) -> Any:
        """Return memory of the pool.

        Raises
        ------
        DeviceError
            If there is not enough.
        """
        stream = stream or self.stream
        try:
            return self._pool.allocate(max(n_bytes, 1), stream=stream)
        except lazy.cuda_error() as error:
            if "OUT_OF_MEMORY" not in str(error):
                raise
        gc.collect()  # handles on a tape know each other
        self.stream.sync()
        try:
            return self._pool.allocate(max(n_bytes, 1), stream=stream)
        except lazy.cuda_error():
            _, free, total = lazy.cuda_driver().cuMemGetInfo()
            raise DeviceError(
                f"{self.name} has no room for {n_bytes:,} bytes: {free:,} of {total:,} are free",
                remedy="Use a smaller batch, or let go of arrays that are not needed.",
            ) from None

    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """Return an array with arbitrary elements."""
        with self.used():
            return self._empty(shape, np.dtype(dtype), self.stream)

    def _empty(self, shape: Sequence[int], dtype: np.dtype[Any], stream: Any) -> DeviceArray:
        memory = self.allocate(math.prod(shape) * dtype.itemsize, stream)
        return DeviceArray(self, memory, int(memory.handle), shape, dtype)

    def arena(self, n_bytes: int) -> int:
        """Return the address of scratch memory that each program has until the next one runs."""
        if self._arena is None or self._arena.size < n_bytes:
            self._arena = None
            self._arena = self.allocate(-(-n_bytes // ARENA_STEP_BYTES) * ARENA_STEP_BYTES)
        return int(self._arena.handle)

    def empty_cache(self) -> None:
        """Give memory that waits for arrays to come back to the driver."""
        with self.used():
            self._arena = None
            self.stream.sync()
            lazy.cuda_driver().cuMemPoolTrimTo(self._pool.handle, 0)

    # -- copies ------------------------------------------------------------------------------

    def put(self, array: np.ndarray) -> DeviceArray:
        """Return a copy of a NumPy array; it may be overwritten when this returns."""
        with self.used():
            found = self._empty(array.shape, array.dtype, self.stream)
            self.upload(as_bytes(np.require(array, None, "C")), found.address)
            return found

    def write(self, array: np.ndarray, target: DeviceArray) -> None:
        """Copy a NumPy array of the same bytes into an array."""
        with self.used():
            self.upload(as_bytes(np.require(array, None, "C")), target.address)

    def upload(self, content: np.ndarray, address: int, stream: Any = None) -> None:
        """Copy bytes to an address, by way of page-locked memory."""
        stream = stream or self.stream
        for start, size in _pieces(content.size):
            piece = self._staging.take(size)
            view(piece, size)[...] = content[start : start + size]
            source, target = self._span(int(piece.handle), size), self._span(address + start, size)
            target.copy_from(source, stream=stream)
            self._staging.give_back(piece, stream.record())

    def get(self, array: DeviceArray) -> np.ndarray:
        """Return a copy of an array when what computes it is done.

        Raises
        ------
        GraphcError
            What a check has found that was asked for before.
        """
        found = np.empty(array.shape, array.dtype)
        with self.used():
            self.download(array.address, as_bytes(found))
            if found.size:
                self.checks.passed()
        return found

    def download(self, address: int, content: np.ndarray) -> None:
        """Wait for and copy bytes from an address."""
        for start, size in _pieces(content.size):
            piece = self._staging.take(size)
            target, source = self._span(int(piece.handle), size), self._span(address + start, size)
            target.copy_from(source, stream=self.stream)
            self.stream.sync()
            content[start : start + size] = view(piece, size)
            self._staging.give_back(piece)

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        """Copy the elements of one array into another of the same bytes.

        From another device they go directly where its memory can be reached, else by the host.
        """
        if not source.nbytes:
            return
        other = source.device
        if other is self:
            with self.used():
                self._copy(source, target)
        elif isinstance(other, CudaDevice) and other.reached_from(self.number):
            other.settle()  # what a check has stopped over there must not arrive here
            self.join(other.mark())
            with self.used():
                self._copy(source, target)
            other.join(self.mark())  # before the source's memory is another array's
        else:
            self.write(other.get(source), target)

    def _copy(self, source: DeviceArray, target: DeviceArray) -> None:
        there = self._span(target.address, source.nbytes)
        there.copy_from(self._span(source.address, source.nbytes), stream=self.stream)

    def reached_from(self, number: int) -> bool:
        """Return whether another device can read this one's memory; lets it, if so."""
        known = self._reached.get(number)
        if known is None:
            with self.used():
                known = bool(lazy.cuda_core().Device(number).can_access_peer(self.number))
                if known:
                    self._pool.peer_accessible_by.add(number)
            self._reached[number] = known
        return known

    def clear(self, array: DeviceArray) -> None:
        """Set all bytes of an array to zero."""
        with self.used():
            self.clear_bytes(array.address, array.nbytes)

    def clear_bytes(self, address: int, n_bytes: int) -> None:
        """Set bytes at an address to zero."""
        if n_bytes:
            self._span(address, n_bytes).fill(0, stream=self.stream)

    def put_ahead(self, array: np.ndarray) -> tuple[DeviceArray, Any]:
        """Copy an array while kernels run; return it with what `join` takes before it is used."""
        with self.used():
            if self._copies is None:
                self._copies = lazy.cuda_core().Device(self.number).create_stream()
            found = self._empty(array.shape, array.dtype, self._copies)
            self.upload(as_bytes(np.require(array, None, "C")), found.address, self._copies)
            found.memory.set_deallocation_stream(self.stream)
            return found, self._copies.record()

    def mark(self) -> Any:
        """Return what `join` of another device takes to wait for all that was asked for here."""
        with self.used():
            return self.stream.record()

    def join(self, mark: Any) -> None:
        """Have kernels from now on wait for a copy that was made ahead, or for another device."""
        with self.used():
            self.stream.wait(mark)

    def synchronize(self) -> None:
        """Wait until everything that was asked for is done.

        Raises
        ------
        GraphcError
            What a check has found.
        """
        with self.used():
            self.stream.sync()
            self._latest.clear()
            self.checks.passed()

    @property
    def checking(self) -> bool:
        """Whether checks may be under way: what is there must not be changed but by programs."""
        return self.checks.under_way

    def settle(self) -> None:
        """Wait for checks, before something is changed by other means."""
        if self.checks.under_way:
            with self.used():
                self.checks.settle()

    def shared(self, array: DeviceArray) -> Any:
        """Return what tells other libraries of an array by DLPack, when it is computed."""
        self.synchronize()
        core = lazy.cuda_core()
        memory = core.Buffer.from_handle(array.address, array.nbytes, owner=array)
        return core.utils.StridedMemoryView.from_buffer(memory, array.shape, dtype=array.dtype)

    def adopt(self, other: Any) -> DeviceArray | None:
        """Return an array in the memory that another library shares by DLPack.

        None where its elements do not lie in row-major order.
        """
        with self.used():
            view = lazy.cuda_core().utils.StridedMemoryView.from_dlpack(
                other, stream_ptr=int(self.stream.handle)
            )
        rows = np.empty(view.shape, np.uint8).strides
        strides = view.strides
        if strides is not None and any(
            stride != row for stride, row, size in zip(strides, rows, view.shape) if size > 1
        ):
            return None
        return DeviceArray(self, view, view.ptr, view.shape, view.dtype)

    def _span(self, address: int, n_bytes: int) -> Any:
        """Return cuda-core's handle of memory that something else owns."""
        return lazy.cuda_core().Buffer.from_handle(address, n_bytes)

    # -- kernels -----------------------------------------------------------------------------

    def load(self, kernels: Sequence[CompiledKernel]) -> None:
        """Load kernels onto the device that are not there yet.

        The driver makes machine code of PTX, side by side in threads, and keeps it on disk.
        """
        missing = {k.key: k for k in kernels if k.key not in self._kernels}
        if len(missing) > 1:
            with ThreadPoolExecutor(config.current().compile_threads, "graphc-load") as pool:
                list(pool.map(self._load, missing.values()))
        else:
            for kernel in missing.values():
                self._load(kernel)

    def _load(self, compiled: CompiledKernel) -> None:
        code = cuda_code.read(compiled.code)
        with self._errors():
            kernel = lazy.cuda_core().ObjectCode.from_ptx(code.code).get_kernel(SYMBOL)
            if code.shared_bytes > SHARED_BYTES:
                self._allow(kernel, code.shared_bytes)
            self._kernels[compiled.key] = kernel, code

    def _allow(self, kernel: Any, shared_bytes: int) -> None:
        """Let blocks of a kernel have more shared memory than every kernel may have."""
        driver = lazy.cuda_driver()
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        (status,) = driver.cuKernelSetAttribute(attribute, shared_bytes, kernel.handle, self.number)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise DeviceError(
                f"a kernel needs {shared_bytes:,} bytes of shared memory, more than {self.name} has"
            )

    def step(self, key: str, blocks: int, numbers: Sequence[int]) -> Step:
        """Return a launch of a loaded kernel with so many blocks.

        Raises
        ------
        GraphcError
            If there are too many.
        """
        if blocks > MOST_BLOCKS:
            raise GraphcError(f"arrays are too large: a launch takes {blocks:,} blocks")
        kernel, code = self._kernels[key]
        config = lazy.cuda_core().LaunchConfig(
            grid=blocks, block=code.threads, shmem_size=code.shared_bytes
        )
        return Step(kernel, config, tuple(numbers))

    def launch(self, step: Step, arguments: Sequence[int]) -> None:
        """Put a launch on the stream."""
        lazy.cuda_core().launch(self.stream, step.config, step.kernel, *arguments)

    def recorded(self, steps: Sequence[Step], arguments: Sequence[Sequence[int]]) -> Recorded:
        """Return launches as one CUDA graph."""
        return Recorded(steps, arguments)

    def note(self, program: str, where: Location | None) -> None:
        """Remember what was started, for errors that are found later."""
        self._latest.append((program, where))

    def timestamp(self) -> Any:
        """Put an event on the stream; the difference of two is in milliseconds."""
        options = lazy.cuda_core().EventOptions(timing_enabled=True)
        return self.stream.record(options=options)


def _pieces(n_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield start and size of pieces that are copied at once."""
    for start in range(0, n_bytes, PIECE_BYTES):
        yield start, min(PIECE_BYTES, n_bytes - start)


# -- the devices that were used --------------------------------------------------------------


def num_gpus() -> int:
    """Return how many GPUs arrays can be put on."""
    return 0 if missing() else count()


_opening = threading.Lock()
_opened: dict[int, CudaDevice] = {}


def device(number: int) -> CudaDevice:
    """Return a GPU by its number.

    Raises
    ------
    DeviceError
        If it is not there; says what is missing.
    """
    found = _opened.get(number)
    if found is None:
        with _opening:
            found = _opened.get(number) or _opened.setdefault(number, _open(number))
    return found


def _open(number: int) -> CudaDevice:
    reason = missing()
    if reason is not None:
        remedy = f"{reason[1]} Without, use graphc.cpu(); graphc.num_gpus() counts what is there."
        raise DeviceError(f"gpu({number}) cannot be used: {reason[0]}", remedy=remedy)
    there = count()
    if not 0 <= number < there:
        last = f"gpu(0) to gpu({there - 1})" if there > 1 else "gpu(0)"
        remedy = f"This machine has {last}, and graphc.cpu()."
        raise DeviceError(f"there is no gpu({number})", remedy=remedy)
    return CudaDevice(number)


def synchronize_all() -> None:
    """Wait for every device that was used."""
    for found in list(_opened.values()):
        found.synchronize()

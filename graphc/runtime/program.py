"""Programs: a plan with machine code, bound to sizes, called with arrays.

A Program holds no state but pools of arenas, one pool for each set of sizes it was called with, so
threads may call it at once. Returned arrays own their memory.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import config
from graphc.codegen.compiler import CompiledKernel, compile_kernels, load_cached
from graphc.codegen.cpu import host_target
from graphc.codegen.dispatch import Call, Error, Launch, dispatcher
from graphc.codegen.dispatch_layout import CHUNK_NS, MOST_CHUNKS
from graphc.errors import BindError
from graphc.ir.dim import evaluate
from graphc.ir.plan import ALIGNMENT, MemoryPlan, Plan
from graphc.ir.table import LaunchTable, table_of
from graphc.runtime import profile
from graphc.runtime.blocks import Allocate, allocator
from graphc.runtime.bound import BoundTable, apart, launch_sizes
from graphc.runtime.locks import alone
from graphc.runtime.threads import default_pool

# NumPy's ABI: an array's first field is the address of its data. Asking `__array_interface__`
# takes longer than all the rest of a call.
DATA_OFFSET = object.__basicsize__
pointer_at = ctypes.c_uint64.from_address
Output = tuple[Allocate, tuple[int, ...], np.dtype[Any]]
USABLE = 0x0101  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED
_WRITEABLE = 0x0400  # NPY_ARRAY_WRITEABLE


def address(array: np.ndarray) -> int:
    """Return the address of an array's first element."""
    return pointer_at(id(array) + DATA_OFFSET).value


@dataclass(slots=True)
class _Arena:
    """Memory for one running call: intermediate values, pointer blocks, the launch table.

    ``run`` walks the table as ``call`` says; its argument is converted once. ``arrays`` takes the
    ``id`` of each argument and output.
    """

    memory: np.ndarray
    pointers: Any
    arrays: bytearray
    table: Any
    error: Error
    call: Call
    run: Callable[[], int]


@dataclass(slots=True)
class Binding:
    """A program at concrete sizes.

    Attributes
    ----------
    plan : MemoryPlan
    sizes, extents : list
        Size arguments of each launch; its extent and chunk.
    outputs : list of Output
        What makes each output; its arguments.
    costs : list of (int, int)
        Floating-point operations and bytes of each launch.
    parallel : bool
        Whether a launch has more than one chunk.
    free : list of _Arena
    apart : list of int
        Addresses of arguments that were found not to share memory with one that is updated.
    """

    plan: MemoryPlan
    sizes: list[Any]
    extents: list[tuple[int, int]]
    outputs: list[Output]
    costs: list[tuple[int, int]]
    parallel: bool
    free: list[_Arena] = field(default_factory=list)
    apart: list[int] = field(default_factory=list)


class Program(BoundTable[Binding]):
    """A compiled graph.

    Parameters
    ----------
    plan : Plan
        As `graphc.passes.manager.compile_graph` returns it.
    kernels : sequence of CompiledKernel, optional
        Of its launches; by default they are compiled here.

    Raises
    ------
    CompileError
        When a kernel cannot be compiled.
    """

    def __init__(self, plan: Plan, kernels: Sequence[CompiledKernel] | None = None) -> None:
        if kernels is None:
            kernels = compile_kernels([launch.kernel for launch in plan.launches], host_target())
        self._start(table_of(plan, [kernel.key for kernel in kernels]), kernels)

    @classmethod
    def loaded(cls, table: LaunchTable) -> Program | None:
        """Return the program of a table; None if one of its kernels is not in the cache."""
        target = host_target()
        kernels = []
        for row in table.launches:
            kernel = load_cached(row.kernel, target)
            if kernel is None:
                return None
            kernels.append(kernel)
        program = cls.__new__(cls)
        program._start(table, kernels)
        return program

    def _start(self, table: LaunchTable, kernels: Sequence[CompiledKernel]) -> None:
        super().__init__(table)
        self._addresses = [kernel.address for kernel in kernels]
        self._put = struct.Struct(f"{len(table.inputs) + len(table.outputs)}Q").pack_into
        self._stores = _stores(table)

    def __call__(
        self, arguments: Sequence[np.ndarray], results: Sequence[np.ndarray | None] = ()
    ) -> list[np.ndarray]:
        """Run the program.

        Parameters
        ----------
        arguments : sequence of numpy.ndarray
            One for each input, of its type. Inputs that the program updates are written to.
        results : sequence of numpy.ndarray or None, optional
            For each output, an array that it may be written to. What does not fit is not used.

        Returns
        -------
        list of numpy.ndarray
            The outputs; they own their memory.

        Raises
        ------
        BindError
            When a shape or type does not fit, or what is to be updated cannot be written.
        GraphcError
            What a check in the program found, for example an index out of range. Nothing has
            been updated then.
        """
        if len(arguments) != len(self._kinds):
            raise self._miscounted(len(arguments))
        arrays: list[np.ndarray] = []
        shapes: list[tuple[int, ...]] = []
        for array, kind in zip(arguments, self._kinds):
            if (
                type(array) is not np.ndarray
                or array.dtype is not kind
                or array.flags.num & USABLE != USABLE
            ):
                array = self._converted(array, len(arrays))
            arrays.append(array)
            shapes.append(array.shape)
        binding = self.at(tuple(shapes))
        if self.updated:
            return self._update(binding, arrays, arguments)
        given = self._fitting(binding, arrays, results) if results else ()
        return self.launch(binding, [id(array) for array in arrays], given)

    def _fitting(
        self, binding: Binding, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray | None]
    ) -> Sequence[np.ndarray | None]:
        """Return the arrays that outputs can be written to.

        There are none where a check may fail after something was written, and none where one
        shares memory with an argument or with another.
        """
        fitting = [
            array if array is not None and _takes(array, shape, kind) else None
            for array, (_, shape, kind) in zip(results, binding.outputs, strict=True)
        ]
        chosen = [array for array in fitting if array is not None]
        spans = [(address(a), address(a) + a.nbytes) for a in (*arrays, *chosen)]
        free = apart(spans, range(len(arrays), len(spans)))
        return fitting if free and not self._checks else ()

    def _converted(self, argument: Any, position: int) -> np.ndarray:
        """Return an argument as the kernels take it: itself, a view or a copy."""
        kind = self._kinds[position]
        if getattr(argument, "dtype", None) != kind or not isinstance(argument, np.ndarray):
            raise self._mistyped(argument, position)
        return np.require(argument, kind, ["C", "A"]).view(np.ndarray)

    def _update(
        self,
        binding: Binding,
        arrays: list[np.ndarray],
        arguments: Sequence[np.ndarray],
    ) -> list[np.ndarray]:
        """Run a program that writes to some of its arguments."""
        self._check_updated(arrays, arguments)
        places = [address(array) for array in arrays]
        if places != binding.apart:
            self._parted(arrays, places)
            binding.apart = [address(array) for array in arrays]
        targets = [address(arguments[position]) for position in self.updated]
        with alone(targets):
            outputs = self.launch(binding, [id(array) for array in arrays])
            for position, target in zip(self.updated, targets):
                if address(arrays[position]) != target:
                    arguments[position][...] = arrays[position]
        return outputs

    def _check_updated(self, arrays: Sequence[np.ndarray], arguments: Sequence[np.ndarray]) -> None:
        """Raise BindError where results cannot be written back, or would be over one another."""
        for position in self.updated:
            argument = arguments[position]
            if not argument.flags.num & _WRITEABLE:
                raise BindError(
                    f"{self.table.name} updates its input {self._names[position]!r}, got an array "
                    "that is read-only",
                    remedy="Pass a copy of it.",
                )
            if arrays[position] is not argument:  # what runs may be a copy: look at the original
                for other in self.updated:
                    if other != position and np.shares_memory(argument, arguments[other]):
                        raise self._shared(other, position)

    def memory_plan(self, shapes: Sequence[tuple[int, ...]]) -> MemoryPlan:
        """Return the memory plan for inputs of these shapes."""
        return self.at(tuple(tuple(shape) for shape in shapes)).plan

    # -- binding -----------------------------------------------------------------------------

    def taking(self, arrays: Sequence[np.ndarray]) -> Binding | None:
        """Return the binding for arrays that `launch` takes as they are; None for others."""
        as_they_are = all(
            type(array) is np.ndarray and array.dtype is kind and array.flags.num & USABLE == USABLE
            for array, kind in zip(arrays, self._kinds, strict=True)
        )
        if not as_they_are or any(not arrays[i].flags.writeable for i in self.updated):
            return None
        spans = [(address(array), address(array) + array.nbytes) for array in arrays]
        if not apart(spans, frozenset(self.updated)):
            return None
        return self.at(tuple(array.shape for array in arrays))

    def _bound(self, sizes: Mapping[str, int]) -> Binding:
        blocks, extents, costs = [], [], []
        for row in self.table.launches:
            known, extent, cost = launch_sizes(row, sizes)
            work = max(evaluate(row.work, known), 1)
            blocks.append((ctypes.c_int64 * max(len(known), 1))(*known.values()))
            extents.append((extent, max(-(-CHUNK_NS // work), extent // MOST_CHUNKS, 1)))
            costs.append(cost)
        outputs = [(allocator(shape, kind), shape, kind) for shape, kind in self._outputs(sizes)]
        parallel = any(extent > chunk for extent, chunk in extents)
        return Binding(self.table.memory(sizes), blocks, extents, outputs, costs, parallel)

    def _new_arena(self, binding: Binding) -> _Arena:
        memory = np.empty(binding.plan.arena_bytes + ALIGNMENT, np.uint8)
        base = -(-address(memory) // ALIGNMENT) * ALIGNMENT
        offsets = {slot.value: base + slot.offset for slot in binding.plan.slots}
        rows = self.table.launches
        places = [place for row in rows for place in row.places]
        pointers = (ctypes.c_uint64 * max(len(places), 1))(*[offsets.get(p, 0) for p in places])
        table = (Launch * max(len(rows), 1))()
        buffers = ctypes.addressof(pointers)
        for entry, row, kernel, sizes, (extent, chunk) in zip(
            table, rows, self._addresses, binding.sizes, binding.extents
        ):
            entry.kernel, entry.buffers, entry.sizes = kernel, buffers, ctypes.addressof(sizes)
            entry.extent, entry.chunk = extent, chunk
            buffers += 8 * len(row.places)
        error = Error()
        count = len(self.table.inputs) + len(self.table.outputs)
        # Packing into a ctypes array would take five times as long.
        arrays = bytearray(8 * max(count, 1))
        call = Call(
            table=ctypes.addressof(table), count=len(rows), threads=1,
            error=ctypes.addressof(error), pointers=ctypes.addressof(pointers),
            stores=ctypes.addressof(self._stores), store_count=len(self._stores) // 2,
            arrays=ctypes.addressof(ctypes.c_char.from_buffer(arrays)), data_offset=DATA_OFFSET,
        )  # fmt: skip
        run = functools.partial(dispatcher().run, ctypes.c_void_p(ctypes.addressof(call)))
        return _Arena(memory, pointers, arrays, table, error, call, run)

    # -- running -----------------------------------------------------------------------------

    def launch(
        self, binding: Binding, arrays: list[int], given: Sequence[np.ndarray | None] = ()
    ) -> list[np.ndarray]:
        """Run on arguments that the caller keeps alive; adds the outputs to theirs.

        Parameters
        ----------
        binding : Binding
            Of the arguments' shapes.
        arrays : list of int
            ``id`` of C-contiguous, aligned NumPy arrays of the inputs' types, none of which
            shares memory with one that the program updates.
        given : sequence of numpy.ndarray or None, optional
            Arrays to write outputs to; by default all are new.
        """
        try:
            arena = binding.free.pop()
        except IndexError:
            arena = self._new_arena(binding)
        outputs: list[np.ndarray] = []
        if given:
            outputs += map(_made, binding.outputs, given)
            arrays += map(id, outputs)
        else:  # one by one: this is a good part of a small call
            for empty, shape, kind in binding.outputs:
                output = empty(shape, kind)
                outputs.append(output)
                arrays.append(id(output))
        self._put(arena.arrays, 0, *arrays)
        options = config.current()
        if binding.parallel or options.profile:
            status = self._walk(binding, arena, options)
        else:
            status = arena.run()
        error, failure = arena.error, None
        if status:
            failure = self._failed(error.launch, error.code, tuple(error.detail))
        binding.free.append(arena)
        if failure is not None:
            raise failure
        return outputs

    def _walk(self, binding: Binding, arena: _Arena, options: config.Config) -> int:
        """Run with several threads where that pays, timed if the options say so."""
        call, times = arena.call, None
        if options.profile:
            times = (ctypes.c_uint64 * max(2 * call.count, 1))()
            call.profile = ctypes.addressof(times)
        if options.threads > 1 and binding.parallel:
            pool = default_pool()
            if pool.threads != options.threads:
                pool.threads = options.threads
            status = pool.run(call)
        else:
            call.threads = 1
            status = arena.run()
        if times is not None:
            call.profile = None
            profile.record(self.table.name, self.table.launches, times, binding.costs)
        return int(status)


def _stores(table: LaunchTable) -> Any:
    """Return pairs: entry of the pointer blocks, which argument's or output's address it holds."""
    places = [*range(len(table.inputs)), *(place for place, _ in table.outputs)]
    numbers = {place: number for number, place in enumerate(places)}
    used = (place for row in table.launches for place in row.places)
    pairs = [(i, numbers[place]) for i, place in enumerate(used) if place in numbers]
    return (ctypes.c_int64 * (2 * len(pairs)))(*itertools.chain(*pairs))


def _made(output: Output, place: np.ndarray | None) -> np.ndarray:
    """Return the array given for an output, or a new one."""
    empty, shape, kind = output
    return empty(shape, kind) if place is None else place


def _takes(array: np.ndarray, shape: tuple[int, ...], kind: np.dtype[Any]) -> bool:
    """Return whether an output of a shape and type can be written to an array."""
    wanted = USABLE | _WRITEABLE
    fits = type(array) is np.ndarray and array.shape == shape and array.dtype is kind
    return fits and array.flags.num & wanted == wanted

"""Programs: a plan with machine code, bound to sizes, called with arrays.

A Program holds no state but pools of arenas, one pool for each set of sizes it was called with, so
threads may call it at once. Returned arrays own their memory.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import config
from graphc.codegen.compiler import CompiledKernel, compile_kernels, load_cached
from graphc.codegen.cpu import host_target
from graphc.codegen.dispatch import Call, Error, Launch, dispatcher
from graphc.codegen.dispatch_layout import CHUNK_NS, MOST_CHUNKS
from graphc.codegen.python_call import (
    NOT_TAKEN,
    USABLE,
    CallArrays,
    Site,
    address,
    called,
    made,
    words,
)
from graphc.errors import BindError
from graphc.ir.dim import evaluate
from graphc.ir.plan import ALIGNMENT, MemoryPlan, Plan
from graphc.ir.table import LaunchTable, table_of
from graphc.runtime import profile
from graphc.runtime.blocks import allocator, empty
from graphc.runtime.bound import BoundTable, Output, apart, launch_sizes
from graphc.runtime.locks import alone, locks_of
from graphc.runtime.threads import default_pool

_WRITEABLE = 0x0400  # NPY_ARRAY_WRITEABLE


@dataclass(slots=True)
class _Arena:
    """Memory for one running call: intermediate values, pointer blocks, the launch table.

    ``run`` makes the call, as its `Site` says.
    """

    memory: np.ndarray
    pointers: Any
    addresses: Any
    table: Any
    error: Error
    call: Call
    site: Site
    run: CallArrays


@dataclass(slots=True)
class Binding:
    """A program at concrete sizes.

    Attributes
    ----------
    plan : MemoryPlan
    sizes, extents : list
        Size arguments of each launch; its extent and chunk.
    outputs : list of (tuple of int, numpy.dtype)
        Shape and type of each output.
    large : list of int
        Which of them have memory of `blocks`.
    made, n_bytes : array
        As a `Site` takes them: what outputs are, bytes of the inputs.
    costs : list of (int, int)
        Floating-point operations and bytes of each launch.
    parallel : bool
        Whether a launch has more than one chunk.
    free : list of _Arena
    """

    plan: MemoryPlan
    sizes: list[Any]
    extents: list[tuple[int, int]]
    outputs: list[Output]
    large: list[int]
    made: Any
    n_bytes: Any
    costs: list[tuple[int, int]]
    parallel: bool
    free: list[_Arena] = field(default_factory=list)


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
        self._stores, self._store_count = _stores(table)
        self._targets = words(table.updated)

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
        return self._launched(binding, arrays, given)

    def _fitting(
        self, binding: Binding, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray | None]
    ) -> Sequence[np.ndarray | None]:
        """Return the arrays that outputs can be written to.

        There are none where a check may fail after something was written, and none where one
        shares memory with an argument or with another.
        """
        fitting = [
            array if array is not None and _takes(array, shape, kind) else None
            for array, (shape, kind) in zip(results, binding.outputs, strict=True)
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
        targets = [address(arguments[position]) for position in self.updated]
        with alone(locks_of(targets)):
            outputs = self.launch(binding, arrays)
            if outputs is None:
                self._parted(arrays, [address(array) for array in arrays])
                outputs = self._launched(binding, arrays)
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
            type(array) is np.ndarray and array.dtype is kind
            for array, kind in zip(arrays, self._kinds, strict=True)
        )
        if not as_they_are or any(not arrays[i].flags.writeable for i in self.updated):
            return None
        if _apart(arrays, self.updated) is None:
            return None
        return self.at(tuple(array.shape for array in arrays))

    def locks(self, arrays: Sequence[np.ndarray]) -> int:
        """Return what a call of `launch` on such arguments has to hold, for `alone`."""
        return locks_of(address(arrays[position]) for position in self.updated)

    def _bound(self, sizes: Mapping[str, int]) -> Binding:
        blocks, extents, costs = [], [], []
        for row in self.table.launches:
            known, extent, cost = launch_sizes(row, sizes)
            work = max(evaluate(row.work, known), 1)
            blocks.append((ctypes.c_int64 * max(len(known), 1))(*known.values()))
            extents.append((extent, max(-(-CHUNK_NS // work), extent // MOST_CHUNKS, 1)))
            costs.append(cost)
        outputs = self._outputs(sizes)
        large = [i for i, output in enumerate(outputs) if allocator(*output) is empty]
        n_bytes = words(
            math.prod(evaluate(d, sizes) for d in kind.shape) * kind.dtype.numpy.itemsize
            for kind in self._types
        )
        parallel = any(extent > chunk for extent, chunk in extents)
        return Binding(
            self.table.memory(sizes), blocks, extents, outputs, large, made(outputs), n_bytes,
            costs, parallel,
        )  # fmt: skip

    def _new_arena(self, binding: Binding) -> _Arena:
        memory = np.empty(binding.plan.arena_bytes + ALIGNMENT, np.uint8)
        base = -(-address(memory) // ALIGNMENT) * ALIGNMENT
        offsets = {slot.value: base + slot.offset for slot in binding.plan.slots}
        rows = self.table.launches
        pointers = words([offsets.get(place, 0) for row in rows for place in row.places])
        table = (Launch * max(len(rows), 1))()
        buffers = ctypes.addressof(pointers)
        for entry, row, kernel, sizes, (extent, chunk) in zip(
            table, rows, self._addresses, binding.sizes, binding.extents
        ):
            entry.kernel, entry.buffers, entry.sizes = kernel, buffers, ctypes.addressof(sizes)
            entry.extent, entry.chunk = extent, chunk
            buffers += 8 * len(row.places)
        error = Error()
        call = Call(
            table=ctypes.addressof(table), count=len(rows), threads=1,
            error=ctypes.addressof(error),
        )  # fmt: skip
        addresses = words([0] * (len(self._kinds) + len(binding.outputs)))
        site = Site(
            call=ctypes.addressof(call), addresses=ctypes.addressof(addresses),
            input_count=len(self._kinds), output_count=len(binding.outputs),
            n_bytes=ctypes.addressof(binding.n_bytes), made=ctypes.addressof(binding.made),
            updated=ctypes.addressof(self._targets), updated_count=len(self.updated),
            stores=ctypes.addressof(self._stores), store_count=self._store_count,
            pointers=ctypes.addressof(pointers),
        )  # fmt: skip
        native = dispatcher()
        run = called(native.call_address, native.run, site, binding.outputs)
        return _Arena(memory, pointers, addresses, table, error, call, site, run)

    # -- running -----------------------------------------------------------------------------

    def launch(
        self, binding: Binding, arrays: list[Any], given: Sequence[np.ndarray | None] = ()
    ) -> list[np.ndarray] | None:
        """Run on arguments as they are; return None, having done nothing, where that cannot be.

        Parameters
        ----------
        binding : Binding
            Of the arguments' shapes.
        arrays : list of numpy.ndarray
            Of the inputs' types. They have to be C-contiguous and aligned, and none may share
            memory with one that the program updates.
        given : sequence of numpy.ndarray or None, optional
            Arrays to write outputs to; by default all are new.
        """
        try:
            arena = binding.free.pop()
        except IndexError:
            arena = self._new_arena(binding)
        if given or binding.large:
            arrays = [*arrays, *_places(binding, given)]
        options = config.current()
        if binding.parallel or options.profile:
            found = self._walk(binding, arena, options, arrays)
        else:
            found = arena.run(arrays)
        taken = found if type(found) is list else self._otherwise(binding, arena, arrays, found)
        binding.free.append(arena)
        return taken

    def _launched(
        self, binding: Binding, arrays: list[Any], given: Sequence[np.ndarray | None] = ()
    ) -> list[np.ndarray]:
        """Run on arguments that can be taken as they are."""
        outputs = self.launch(binding, arrays, given)
        assert outputs is not None
        return outputs

    def _otherwise(
        self, binding: Binding, arena: _Arena, arrays: list[Any], found: Any
    ) -> list[np.ndarray] | None:
        """Look closer at arguments that were not taken; raise what a kernel found."""
        if found == NOT_TAKEN:
            places = _apart(arrays[: len(self._kinds)], self.updated)
            if places is not None:
                arena.addresses[: len(places)] = places
                found = self._walk(binding, arena, config.current(), arrays)
        if type(found) is list:
            return found
        if found == NOT_TAKEN:
            return None
        failure = self._failed(arena.error.launch, arena.error.code, tuple(arena.error.detail))
        binding.free.append(arena)
        raise failure

    def _walk(
        self, binding: Binding, arena: _Arena, options: config.Config, arrays: list[Any]
    ) -> list[np.ndarray] | int:
        """Run with several threads where that pays, timed if the options say so."""
        call, times = arena.call, None
        if options.profile:
            times = (ctypes.c_uint64 * max(2 * call.count, 1))()
            call.profile = ctypes.addressof(times)
        if options.threads > 1 and binding.parallel:
            pool = default_pool()
            if pool.threads != options.threads:
                pool.threads = options.threads
            pool.lend(call)
        else:
            call.threads = 1
        found = arena.run(arrays)
        if times is not None:
            call.profile = None
        if times is not None and found != NOT_TAKEN:
            profile.record(self.table.name, self.table.launches, times, binding.costs)
        return found


def _stores(table: LaunchTable) -> tuple[Any, int]:
    """Return pairs, and their number: entry of the pointer blocks, whose address it holds."""
    places = [*range(len(table.inputs)), *(place for place, _ in table.outputs)]
    numbers = {place: number for number, place in enumerate(places)}
    used = (place for row in table.launches for place in row.places)
    pairs = [(i, numbers[place]) for i, place in enumerate(used) if place in numbers]
    return words(itertools.chain(*pairs)), len(pairs)


def _places(binding: Binding, given: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """Return an array for each output that is given, or whose memory is not NumPy's."""
    places: list[np.ndarray | None] = [*given] or [None for _ in binding.outputs]
    for number in binding.large:
        if places[number] is None:
            places[number] = empty(*binding.outputs[number])
    return places


def _apart(arrays: Sequence[np.ndarray], updated: Collection[int]) -> list[int] | None:
    """Return the addresses of arguments that a call takes as they are; None for others."""
    if not all(array.flags.num & USABLE == USABLE for array in arrays):
        return None
    places = [address(array) for array in arrays]
    spans = [(place, place + array.nbytes) for place, array in zip(places, arrays, strict=True)]
    return places if apart(spans, frozenset(updated)) else None


def _takes(array: np.ndarray, shape: tuple[int, ...], kind: np.dtype[Any]) -> bool:
    """Return whether an output of a shape and type can be written to an array."""
    wanted = USABLE | _WRITEABLE
    fits = type(array) is np.ndarray and array.shape == shape and array.dtype is kind
    return fits and array.flags.num & wanted == wanted

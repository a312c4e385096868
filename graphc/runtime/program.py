"""Programs: a plan with machine code, bound to sizes, called with arrays.

A Program holds no state but pools of arenas, one pool for each set of sizes it was called with, so
threads may call it at once. Returned arrays own their memory.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import config
from graphc.codegen.compiler import CompiledKernel, compile_kernels
from graphc.codegen.cpu import host_target
from graphc.codegen.dispatch import Error, Launch, dispatcher
from graphc.errors import BindError, GraphcError
from graphc.ir.dim import evaluate
from graphc.ir.graph import Value, input_name
from graphc.ir.plan import LaunchSpec, MemoryPlan, Plan
from graphc.ir.sizes import bind_sizes
from graphc.runtime import profile
from graphc.runtime.threads import default_pool

CHUNK_NS = 8_000
"""Estimated nanoseconds of work that a thread claims at once."""
ALIGNMENT = 64
_updating = threading.RLock()


def address(array: np.ndarray) -> int:
    """Return the address of an array's first element."""
    return int(array.__array_interface__["data"][0])


@dataclass(slots=True)
class _Arena:
    """Memory for one running call: intermediate values, pointer blocks, the launch table."""

    memory: np.ndarray
    pointers: Any
    table: Any
    table_address: int
    error: Error
    error_address: int


@dataclass(slots=True)
class _Binding:
    """A program at concrete sizes."""

    plan: MemoryPlan
    sizes: list[Any]
    extents: list[tuple[int, int]]
    output_shapes: list[tuple[int, ...]]
    parallel: bool
    free: list[_Arena] = field(default_factory=list)


class Program:
    """A compiled graph.

    Parameters
    ----------
    plan : Plan
        As `graphc.passes.manager.compile_graph` returns it.

    Raises
    ------
    CompileError
        When a kernel cannot be compiled.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        kernels = [launch.kernel for launch in plan.launches]
        self.compiled: list[CompiledKernel] = compile_kernels(kernels, host_target())
        self._inputs = plan.graph.inputs
        self._bindings: dict[tuple[tuple[int, ...], ...], _Binding] = {}
        self._types = [(v, v.dtype.numpy) for v in self._inputs]
        self._input_positions = _positions(plan, self._inputs)
        self._output_positions = _positions(plan, [plan.root[v] for v in plan.graph.outputs])
        self._output_dtypes = [v.dtype.numpy for v in plan.graph.outputs]
        self._updated = [self._inputs.index(target) for target, _ in plan.graph.updates]
        self._label = plan.graph.name

    def __call__(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run the program.

        Parameters
        ----------
        arguments : sequence of numpy.ndarray
            One for each input, of its type. Inputs that the program updates are written to.

        Returns
        -------
        list of numpy.ndarray
            The outputs; they own their memory.

        Raises
        ------
        BindError
            When a shape or type does not fit.
        GraphcError
            What a check in the program found, for example an index out of range. Nothing has
            been updated then.
        """
        arrays = [
            a
            if type(a) is np.ndarray
            and (flags := a.flags).c_contiguous
            and flags.aligned
            and a.dtype == kind
            else self._convert(value, a, kind)
            for a, (value, kind) in zip(arguments, self._types, strict=True)
        ]
        key = tuple([a.shape for a in arrays])
        binding = self._bindings.get(key) or self._bind(key)
        if not self._updated:
            return self._run(binding, arrays)
        with _updating:
            outputs = self._run(binding, arrays)
            for position in self._updated:
                if arrays[position] is not arguments[position]:
                    arguments[position][...] = arrays[position]
        return outputs

    def _convert(self, value: Value, argument: np.ndarray, kind: np.dtype[Any]) -> np.ndarray:
        if argument.dtype != kind:
            raise BindError(
                f"input {input_name(value)!r} of {self._label} is {value.type}, "
                f"got {argument.dtype}{list(argument.shape)}",
                remedy=f'Convert it with .astype("{kind}").',
            )
        return np.array(argument, order="C", copy=True, subok=False)

    def memory_plan(self, shapes: Sequence[tuple[int, ...]]) -> MemoryPlan:
        """Return the memory plan for inputs of these shapes."""
        key = tuple(tuple(shape) for shape in shapes)
        return (self._bindings.get(key) or self._bind(key)).plan

    # -- binding -----------------------------------------------------------------------------

    def _bind(self, key: tuple[tuple[int, ...], ...]) -> _Binding:
        sizes = bind_sizes([v.shape for v in self._inputs], key)
        if sizes is None:
            raise self._misfit(key)
        blocks, extents = [], []
        for launch in self.plan.launches:
            block, extent = _launch_sizes(launch, sizes)
            blocks.append(block)
            extents.append(extent)
        shapes = [
            tuple(evaluate(d, sizes) for d in value.shape) for value in self.plan.graph.outputs
        ]
        parallel = any(extent > chunk for extent, chunk in extents)
        binding = _Binding(self.plan.memory(sizes), blocks, extents, shapes, parallel)
        self._bindings[key] = binding
        return binding

    def _misfit(self, key: tuple[tuple[int, ...], ...]) -> BindError:
        """Return the error for shapes that no values of the size variables give."""
        pairs = [
            f"{input_name(value)!r} is {value.type}, got {shape}"
            for value, shape in zip(self._inputs, key, strict=True)
            if bind_sizes([value.shape], [shape]) is None
        ]
        detail = "; ".join(pairs) or "sizes that must be equal differ: " + ", ".join(
            f"{input_name(value)} {shape}" for value, shape in zip(self._inputs, key, strict=True)
        )
        return BindError(f"the arguments of {self._label} do not fit its inputs: {detail}")

    def _arena(self, binding: _Binding) -> _Arena:
        try:
            return binding.free.pop()
        except IndexError:
            return self._new_arena(binding)

    def _new_arena(self, binding: _Binding) -> _Arena:
        memory = np.empty(binding.plan.arena_bytes + ALIGNMENT, np.uint8)
        base = -(-address(memory) // ALIGNMENT) * ALIGNMENT
        offsets = {slot.value: base + slot.offset for slot in binding.plan.slots}
        count = sum(len(s.kernel.params) for s in self.plan.launches)
        pointers = (ctypes.c_uint64 * max(count, 1))()
        start = ctypes.addressof(pointers)
        table = (Launch * max(len(self.plan.launches), 1))()
        position = 0
        for row, spec in enumerate(self.plan.launches):
            extent, chunk = binding.extents[row]
            table[row].kernel = self.compiled[row].address
            table[row].buffers = start + 8 * position
            table[row].sizes = ctypes.addressof(binding.sizes[row])
            table[row].extent, table[row].chunk = extent, chunk
            for value in (*spec.node.inputs, *spec.node.outputs):
                pointers[position] = offsets.get(self.plan.root[value], 0)
                position += 1
        error = Error()
        return _Arena(
            memory, pointers, table, ctypes.addressof(table), error, ctypes.addressof(error)
        )

    # -- running -----------------------------------------------------------------------------

    def _run(self, binding: _Binding, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        arena = self._arena(binding)
        pointers = arena.pointers
        for array, positions in zip(arrays, self._input_positions, strict=True):
            if positions:
                place = address(array)
                for position in positions:
                    pointers[position] = place
        outputs = []
        for shape, kind, positions in zip(
            binding.output_shapes, self._output_dtypes, self._output_positions, strict=True
        ):
            output = np.empty(shape, kind)
            place = address(output)
            for position in positions:
                pointers[position] = place
            outputs.append(output)
        failure = self._launch(binding, arena)
        binding.free.append(arena)
        if failure is not None:
            raise failure
        return outputs

    def _launch(self, binding: _Binding, arena: _Arena) -> GraphcError | None:
        options = config.current()
        count = len(self.plan.launches)
        if options.profile:
            times = (ctypes.c_uint64 * max(2 * count, 1))()
            status = self._walk(binding, arena, options.threads, ctypes.addressof(times))
            profile.record(self._label, self.plan.launches, times)
        else:
            status = self._walk(binding, arena, options.threads, None)
        return self._failure(arena.error) if status else None

    def _walk(
        self, binding: _Binding, arena: _Arena, threads: int, times: int | None
    ) -> int:
        count = len(self.plan.launches)
        if threads > 1 and binding.parallel:
            pool = default_pool()
            if pool.threads != threads:
                pool.threads = threads
            return pool.run(arena.table_address, count, arena.error_address, times)
        return int(
            dispatcher().run(None, arena.table_address, count, 1, arena.error_address, times)
        )

    def _failure(self, error: Error) -> GraphcError:
        launch = self.plan.launches[error.launch]
        for node in launch.node.attrs["body"].nodes:
            if node.op.nests:
                details = tuple(error.detail)
                failure: GraphcError = node.op.failure(error.code, details, **node.attrs)
                return failure.attach(where=launch.node.where)
        return GraphcError(
            f"kernel {launch.label} failed with code {error.code}", where=launch.node.where
        )


def _positions(plan: Plan, values: Sequence[Value]) -> list[list[int]]:
    """Return for each value the entries of the pointer blocks that hold its address."""
    where: dict[Value, list[int]] = {}
    position = 0
    for launch in plan.launches:
        for value in (*launch.node.inputs, *launch.node.outputs):
            where.setdefault(plan.root[value], []).append(position)
            position += 1
    return [where.get(value, []) for value in values]


def _launch_sizes(launch: LaunchSpec, sizes: Mapping[str, int]) -> tuple[Any, tuple[int, int]]:
    """Return a launch's size arguments, and its extent and chunk."""
    names = launch.kernel.sizes
    known = {n: evaluate(d, sizes) for n, d in zip(names, launch.sizes, strict=True)}
    block = (ctypes.c_int64 * max(len(names), 1))(*known.values())
    extent = evaluate(launch.kernel.extent, known)
    work = max(evaluate(launch.kernel.work, known), 1)
    return block, (extent, max(-(-CHUNK_NS // work), 1))

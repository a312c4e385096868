"""Programs on a device: launches go to its stream, and as one CUDA graph from the second run on.

What the host gives to a program (random state, learning rates) is copied in one piece. The scratch
memory of a device belongs to one program after the other. All is asynchronous. Checks run first in
a program; what they find is raised later, see `checks`. Launches that change what was there before
the call are told of the device's flag, and do nothing while it is raised.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import config
from graphc.codegen.compiler import CompiledKernel, load_cached
from graphc.errors import BindError, DeviceError, user_location
from graphc.ir.dim import evaluate
from graphc.ir.plan import ALIGNMENT
from graphc.ir.table import LaunchRow, LaunchTable
from graphc.runtime import profile
from graphc.runtime.bound import BoundTable, Output, apart, launch_sizes
from graphc.runtime.cuda import CudaDevice, Recorded, Step
from graphc.runtime.device import DeviceArray, is_aligned
from graphc.runtime.staging import as_bytes

MOST_COUNTED = 2**31 - 2**24
"""What indices of 32 bits count to, blocks of threads beyond the last one included."""
Argument = DeviceArray | np.ndarray
NEVER, ALWAYS, GIVEN = range(3)
"""When a launch is told of the flag, see `DeviceProgram._told`."""


@dataclass(slots=True)
class DeviceBinding:
    """A program at concrete sizes.

    Attributes
    ----------
    scratch_bytes : int
        Of the arena.
    offsets : list of int
        Where in scratch memory each value of the arena lies.
    steps : list of Step
        The launches that are not empty.
    places : list of list of int
        Of each step: which of the program's addresses its kernel takes, the last one for the
        device's flag.
    rows : list of int
        Number of each step's row in the launch table.
    outputs : list of Output
    costs : list of (int, int)
        Floating-point operations and bytes of each step.
    runs : int
    graph : Replay or None
    apart : list of int
        Addresses of arguments that were found not to share memory with one that is updated.
    """

    scratch_bytes: int
    offsets: list[int]
    steps: list[Step]
    places: list[list[int]]
    rows: list[int]
    outputs: list[Output]
    costs: list[tuple[int, int]]
    runs: int = 0
    graph: Replay | None = None
    apart: list[int] = field(default_factory=list)

    def arguments(self, number: int, addresses: Sequence[int]) -> list[int]:
        """Return what the kernel of a step takes."""
        *buffers, flag = [addresses[place] for place in self.places[number]]
        return [*buffers, *self.steps[number].numbers, flag]


@dataclass(slots=True)
class Replay:
    """Recorded launches, and the addresses that they have now.

    Attributes
    ----------
    recorded : Recorded
    addresses : list of int
    users : dict of int to list of int
        Which of the launches take an address.
    """

    recorded: Recorded
    addresses: list[int]
    users: dict[int, list[int]] = field(default_factory=dict)

    def changed(self, addresses: Sequence[int]) -> list[int]:
        """Return the launches that take other addresses than they have."""
        if addresses == self.addresses:
            return []
        pairs = enumerate(zip(addresses, self.addresses, strict=True))
        moved = [place for place, (now, before) in pairs if now != before]
        return sorted({number for place in moved for number in self.users.get(place, ())})


class DeviceProgram(BoundTable[DeviceBinding]):
    """A compiled graph on a device.

    Parameters
    ----------
    table : LaunchTable
    kernels : sequence of CompiledKernel
        Of its launches, compiled for the device's target.
    device : CudaDevice
    """

    def __init__(
        self, table: LaunchTable, kernels: Sequence[CompiledKernel], device: CudaDevice
    ) -> None:
        super().__init__(table)
        self.device, self._index_bits = device, device.target.index_bits
        rows = table.launches
        try:
            device.load(kernels)
        except DeviceError as error:
            raise error.attach(where=rows[0].where)  # noqa: B904
        outputs = {place for place, _ in table.outputs}
        self._checked_outputs = any(
            row.check is not None and outputs.intersection(row.written) for row in rows
        )

    @classmethod
    def loaded(cls, table: LaunchTable, device: CudaDevice) -> DeviceProgram | None:
        """Return the program of a table; None if one of its kernels is not in the cache."""
        kernels = []
        for row in table.launches:
            kernel = load_cached(row.kernel, device.target)
            if kernel is None:
                return None
            kernels.append(kernel)
        return cls(table, kernels, device)

    def __call__(
        self, arguments: Sequence[Argument], results: Sequence[DeviceArray | None] = ()
    ) -> list[DeviceArray]:
        """Start the program.

        Parameters
        ----------
        arguments : sequence of DeviceArray or numpy.ndarray
            One for each input, of its type; NumPy arrays are copied to the device. Inputs that the
            program updates are arrays of the device, and written to.
        results : sequence of DeviceArray or None, optional
            For each output, an array that it may be written to. What does not fit is not used.

        Returns
        -------
        list of DeviceArray
            The outputs; they own their memory.

        Raises
        ------
        BindError
            When a shape or type does not fit.
        DeviceError
            When an array is on another device, or there is no room.
        GraphcError
            What a check in an earlier call found. What has been there before that call is
            unchanged, and this call has not been made.
        """
        if len(arguments) != len(self._kinds):
            raise self._miscounted(len(arguments))
        arrays = [self._taken(array, place) for place, array in enumerate(arguments)]
        binding = self.at(tuple(array.shape for array in arrays))
        with self.device.used():
            self.device.checks.raise_found()
            if self.updated:
                self._part(binding, arrays, arguments)
            given = results if results and self._usable(binding, arrays, results) else ()
            outputs = [
                self.device.empty(shape, kind) if place is None else place
                for (shape, kind), place in zip(
                    binding.outputs, given or [None] * len(binding.outputs), strict=True
                )
            ]
            self._run(binding, arrays, outputs, any(place is not None for place in given))
            for place in self.updated:
                if arrays[place] is not arguments[place]:
                    self.device.copy(arrays[place], arguments[place])  # type: ignore[arg-type]
        return outputs

    def taking(self, arrays: Sequence[Any]) -> None:
        """Return None: no call is made ready for the next one here, as on the CPU."""

    # -- arguments ---------------------------------------------------------------------------

    def _taken(self, argument: Argument, place: int) -> Any:
        """Return an argument as kernels take it: itself, or a copy."""
        kind = self._kinds[place]
        if getattr(argument, "dtype", None) != kind:
            raise self._mistyped(argument, place)
        if isinstance(argument, DeviceArray):
            if argument.device is not self.device:
                raise DeviceError(
                    f"input {self._names[place]!r} of {self.table.name} is on "
                    f"{argument.device.name}, the program on {self.device.name}",
                    remedy=f"Copy it there: x.as_in_context(graphc.{self.device.name}).",
                )
            return argument if is_aligned(argument) else argument.copy()
        if not isinstance(argument, np.ndarray):
            raise self._mistyped(argument, place)
        if place in self.updated:
            raise BindError(
                f"{self.table.name} updates its input {self._names[place]!r}, which is not on "
                f"{self.device.name}",
                remedy=f"Copy it there: x.as_in_context(graphc.{self.device.name}).",
            )
        return np.require(argument, kind, "C")

    def _part(
        self, binding: DeviceBinding, arrays: list[Any], arguments: Sequence[Argument]
    ) -> None:
        """Copy what shares memory with an array that is updated; refuse two such arrays."""
        places = [a.address if isinstance(a, DeviceArray) else 0 for a in arguments]
        if places == binding.apart:
            return
        there = [i for i, array in enumerate(arguments) if isinstance(array, DeviceArray)]
        spans = [_span(arguments[i]) for i in there]
        if apart(spans, [k for k, i in enumerate(there) if i in self.updated]):
            binding.apart = places
            return
        for k, place in enumerate(there):
            for j, owner in enumerate(there):
                if owner == place or owner not in self.updated or not _meet(spans[k], spans[j]):
                    continue
                if place in self.updated:
                    raise self._shared(place, owner)
                if arrays[place] is arguments[place]:
                    arrays[place] = arrays[place].copy()

    def _usable(
        self, binding: DeviceBinding, arrays: Sequence[Any], results: Sequence[DeviceArray | None]
    ) -> bool:
        """Return whether outputs can be written to the arrays given for them.

        None can that a check writes, which would have written a part of it when it fails.
        """
        if self._checked_outputs:
            return False
        chosen = []
        for array, (shape, kind) in zip(results, binding.outputs, strict=True):
            if array is None:
                continue
            fits = isinstance(array, DeviceArray) and array.device is self.device
            if not fits or (array.shape, array.dtype) != (shape, kind) or not is_aligned(array):
                return False
            chosen.append(_span(array))
        spans = [_span(array) for array in arrays if isinstance(array, DeviceArray)]
        return apart(spans + chosen, range(len(spans), len(spans) + len(chosen)))

    # -- binding -----------------------------------------------------------------------------

    def _bound(self, sizes: Mapping[str, int]) -> DeviceBinding:
        plan = self.table.memory(sizes)
        places = [*range(len(self.table.inputs)), *(place for place, _ in self.table.outputs)]
        numbers = {place: number for number, place in enumerate(places)}
        numbers |= {slot.value: len(places) + i for i, slot in enumerate(plan.slots)}
        flags = len(places) + len(plan.slots)
        steps, taken, rows, costs = [], [], [], []
        for number, row in enumerate(self.table.launches):
            known, blocks, cost = launch_sizes(row, sizes)
            self._check_width(evaluate(row.cost.widest, known))
            if blocks > 0:
                steps.append(self.device.step(row.kernel, blocks, [*known.values(), number]))
                told = flags + self._told(row)
                taken.append([*[numbers[place] for place in row.places], told])
                rows.append(number)
                costs.append(cost)
        offsets = [slot.offset for slot in plan.slots]
        outputs = self._outputs(sizes)
        return DeviceBinding(plan.arena_bytes, offsets, steps, taken, rows, outputs, costs)

    def _told(self, row: LaunchRow) -> int:
        """Return when a launch is told of the flag: `NEVER`, `ALWAYS`, or where results are given.

        It is where the launch checks, or writes what outlives the call and was there before.
        """
        inputs = len(self.table.inputs)
        if row.check is not None or any(place < inputs for place in row.written):
            return ALWAYS
        outputs = {place for place, _ in self.table.outputs}
        return GIVEN if outputs.intersection(row.written) else NEVER

    def _check_width(self, count: int) -> None:
        """Raise BindError where a launch counts further than its indices go."""
        if count > MOST_COUNTED and self._index_bits == 32:
            raise BindError(
                f"{self.table.name} counts {count:,} elements, more than indices of 32 bits do",
                remedy="Call graphc.configure(index_bits=64) first, for all that is compiled then.",
                where=user_location(),
            )

    # -- running -----------------------------------------------------------------------------

    def _run(
        self, binding: DeviceBinding, arrays: Sequence[Any], outputs: Sequence[DeviceArray],
        given: bool,
    ) -> None:  # fmt: skip
        """Put the launches on the stream; ``given`` where outputs are in arrays of the caller's."""
        device = self.device
        where = self.table.launches[0].where if self.table.launches else None
        device.note(self.table.name, where)
        addresses = self._addresses(binding, arrays, outputs)
        flag = device.checks.flag
        addresses += [0, flag, flag if given else 0]  # in the order of NEVER, ALWAYS, GIVEN
        checking = self._checks and bool(binding.steps)
        if checking:
            device.checks.begin(self)
        binding.runs += 1
        if config.current().profile:
            self._timed(binding, addresses)
        elif len(binding.steps) < 2:
            self._plain(binding, addresses)
        else:
            self._replayed(binding, addresses)
        if checking:
            device.checks.end()

    def _addresses(
        self, binding: DeviceBinding, arrays: Sequence[Any], outputs: Sequence[DeviceArray]
    ) -> list[int]:
        """Return the addresses of inputs, outputs and values in the arena."""
        packed, host = 0, []
        for array in arrays:
            if not isinstance(array, DeviceArray):
                host.append((packed, array))
                packed += -(-max(array.nbytes, 1) // ALIGNMENT) * ALIGNMENT
        base = self.device.arena(binding.scratch_bytes + packed)
        start = -(-binding.scratch_bytes // ALIGNMENT) * ALIGNMENT + base
        if host:
            content = np.zeros(packed, np.uint8)
            for offset, array in host:
                content[offset : offset + array.nbytes] = as_bytes(array)
            self.device.upload(content, start)
        offsets = iter(host)
        addresses = [
            a.address if isinstance(a, DeviceArray) else start + next(offsets)[0] for a in arrays
        ]
        addresses += [output.address for output in outputs]
        return addresses + [base + offset for offset in binding.offsets]

    def _plain(self, binding: DeviceBinding, addresses: list[int]) -> None:
        for number, step in enumerate(binding.steps):
            self.device.launch(step, binding.arguments(number, addresses))

    def _replayed(self, binding: DeviceBinding, addresses: list[int]) -> None:
        """Launch as a CUDA graph, once it is known that there is another run.

        Where few launches take other addresses than last time, the graph is given these.
        """
        graph, steps = binding.graph, binding.steps
        changed = [] if graph is None else graph.changed(addresses)
        if graph is None or 2 * len(changed) > len(steps):  # scratch memory has moved
            if binding.runs < 2:
                self._plain(binding, addresses)
                return
            calls = [binding.arguments(number, addresses) for number in range(len(steps))]
            graph = binding.graph = Replay(self.device.recorded(steps, calls), addresses)
            for number, places in enumerate(binding.places):
                for place in places:
                    graph.users.setdefault(place, []).append(number)
        else:
            for number in changed:
                graph.recorded.update(number, steps[number], binding.arguments(number, addresses))
            graph.addresses = addresses
        graph.recorded.launch(self.device.stream)

    def _timed(self, binding: DeviceBinding, addresses: list[int]) -> None:
        """Launch one by one between two events each, and keep the times."""
        device, started_ns = self.device, time.monotonic_ns()
        events = [device.timestamp()]
        for number, step in enumerate(binding.steps):
            device.launch(step, binding.arguments(number, addresses))
            events.append(device.timestamp())
        device.stream.sync()
        marks = [started_ns + int(1e6 * (event - events[0])) for event in events]
        times = [t for pair in zip(marks, marks[1:]) for t in pair]
        rows = [self.table.launches[row] for row in binding.rows]
        profile.record(self.table.name, rows, times, binding.costs)


def _span(array: Any) -> tuple[int, int]:
    return array.address, array.address + array.nbytes


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < min(one[1], other[1]) and other[0] < one[1]

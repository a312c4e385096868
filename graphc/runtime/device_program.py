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
from graphc.runtime.device import ALIGNMENT as ALIGNED_BYTES
from graphc.runtime.device import DeviceArray, is_aligned

MOST_COUNTED = 2**31 - 2**24
"""What indices of 32 bits count to, blocks of threads beyond the last one included."""
Argument = DeviceArray | np.ndarray
ON_HOST = -1
"""Stands for the address of an argument that the host has."""
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
    arena : list of int
        Address of scratch memory at the last run, and of the values in it.
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
    arena: list[int] = field(default_factory=list)

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
        self.device, self._owned = device, frozenset(table.updated)
        self._index_bits = device.target.index_bits
        rows = table.launches
        try:
            device.load(kernels)
        except DeviceError as error:
            raise error.attach(where=rows[0].where)  # noqa: B904
        self._where = rows[0].where if rows else None
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
            if self.updated and not self._apart(binding, arguments, _places(arguments)):
                self._part(arrays, arguments)
            given = results if results and self._usable(binding, arrays, results) else ()
            outputs = self._started(binding, arrays, _places(arrays), given)
            for place in self.updated:
                if arrays[place] is not arguments[place]:
                    self.device.copy(arrays[place], arguments[place])  # type: ignore[arg-type]
        return outputs

    def taking(self, arrays: Sequence[Any]) -> DeviceBinding | None:
        """Return the binding for arrays that `launch` takes as they are; None for others."""
        for place, (array, kind) in enumerate(zip(arrays, self._kinds, strict=True)):
            there = isinstance(array, DeviceArray) and array.device is self.device
            if array.dtype != kind or (place in self.updated and not there):
                return None
            if isinstance(array, DeviceArray) and not (there and is_aligned(array)):
                return None
        binding = self.at(tuple(array.shape for array in arrays))
        return binding if self._apart(binding, arrays, _places(arrays)) else None

    def launch(self, binding: DeviceBinding, arrays: list[Any]) -> list[DeviceArray] | None:
        """Start on arguments as they are; return None, having done nothing, where that cannot be.

        Parameters
        ----------
        binding : DeviceBinding
            Of the arguments' shapes.
        arrays : list of DeviceArray or numpy.ndarray
            Of the inputs' types; those that are updated are arrays of the device. They have to be
            aligned, and none may share memory with one that the program updates.
        """
        with self.device.used():
            self.device.checks.raise_found()
            places = _places(arrays)
            if places != binding.apart and not self._apart(binding, arrays, places):
                return None
            return self._started(binding, arrays, places)

    def locks(self, arrays: Sequence[Any]) -> int:
        """Return 0: a device's own lock is all that a call takes."""
        return 0

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

    def _apart(
        self, binding: DeviceBinding, arrays: Sequence[Argument], places: list[int]
    ) -> bool:
        """Return whether arguments are aligned and share no memory with one that is updated.

        Only those are looked at that were elsewhere at the last call.
        """
        before = binding.apart or [ON_HOST - 1] * len(places)
        moved = [i for i, (now, last) in enumerate(zip(places, before)) if now != last]
        there = [i for i in moved if places[i] != ON_HOST]
        if any(places[i] % ALIGNED_BYTES for i in there):
            return False
        if self._owned.isdisjoint(moved):
            updated = [_span(arrays[i]) for i in self.updated]
            spans = [_span(arrays[i]) for i in there]
            found = not any(_meet(span, other) for span in spans for other in updated)
        else:
            there = [i for i, place in enumerate(places) if place != ON_HOST]
            owned = [k for k, i in enumerate(there) if i in self._owned]
            found = apart([_span(arrays[i]) for i in there], owned)
        if found:
            binding.apart = places
        return found

    def _part(self, arrays: list[Any], arguments: Sequence[Argument]) -> None:
        """Copy what shares memory with an array that is updated; refuse two such arrays."""
        there = [i for i, array in enumerate(arguments) if isinstance(array, DeviceArray)]
        spans = {i: _span(arguments[i]) for i in there}
        for place in there:
            for owner in self.updated:
                if owner == place or not _meet(spans[place], spans[owner]):
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
            self._check_width(max((evaluate(n, known) for n in row.cost.counts), default=0))
            turns = evaluate(row.turns, known)
            for turn in range(turns if blocks > 0 else 0):
                own = [*known.values(), *([] if row.turns == 1 else [turn]), number]
                steps.append(self.device.step(row.kernel, blocks, own))
                told = flags + self._told(row)
                taken.append([*[numbers[place] for place in row.places], told])
                rows.append(number)
                costs.append((cost[0] // turns, cost[1] // turns))
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

    def _started(
        self, binding: DeviceBinding, arrays: Sequence[Any], places: list[int],
        given: Sequence[DeviceArray | None] = (),
    ) -> list[DeviceArray]:  # fmt: skip
        """Make outputs, but for those in arrays of the caller's; put the launches on the stream."""
        device, told = self.device, False
        if given:
            pairs = zip(binding.outputs, given, strict=True)
            outputs = [device.made(*kind) if array is None else array for kind, array in pairs]
            told = any(array is not None for array in given)
        else:
            outputs = [device.made(*kind) for kind in binding.outputs]
        device.note(self.table.name, self._where)
        addresses = self._addresses(binding, arrays, places, outputs)
        flag = device.checks.flag
        addresses += [0, flag, flag if told else 0]  # in the order of NEVER, ALWAYS, GIVEN
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
        return outputs

    def _addresses(
        self, binding: DeviceBinding, arrays: Sequence[Any], places: list[int],
        outputs: Sequence[DeviceArray],
    ) -> list[int]:  # fmt: skip
        """Return the addresses of inputs, outputs and values in the arena."""
        addresses, host = places + [output.address for output in outputs], ON_HOST in places
        content = [_padded(a) for a in arrays if type(a) is not DeviceArray] if host else []
        base = self.device.arena(binding.scratch_bytes + sum(map(len, content)))
        if content:
            start = -(-binding.scratch_bytes // ALIGNMENT) * ALIGNMENT + base
            self.device.upload(np.frombuffer(b"".join(content), np.uint8), start)
            for piece in content:
                addresses[addresses.index(ON_HOST)] = start
                start += len(piece)
        if binding.arena[:1] != [base]:
            binding.arena = [base, *[base + offset for offset in binding.offsets]]
        return addresses + binding.arena[1:]

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


def _places(arrays: Sequence[Argument]) -> list[int]:
    """Return the addresses of arrays, `ON_HOST` for those that are to be copied."""
    return [array.address if type(array) is DeviceArray else ON_HOST for array in arrays]


def _padded(array: np.ndarray) -> bytes:
    """Return the bytes of an array of the host, and zeros up to where the next one may begin."""
    content = array.tobytes()
    return content.ljust(-(-max(len(content), 1) // ALIGNMENT) * ALIGNMENT, b"\0")


def _span(array: Any) -> tuple[int, int]:
    return array.address, array.address + array.nbytes


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < min(one[1], other[1]) and other[0] < one[1]

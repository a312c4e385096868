"""A launch table bound to sizes, on whatever machine: what programs of all devices share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from graphc.errors import BindError, GraphcError, Location, line_of_call
from graphc.ir.dim import evaluate
from graphc.ir.operand import REGISTRY
from graphc.ir.sizes import bind_sizes
from graphc.ir.table import LaunchRow, LaunchTable

MOST_BINDINGS = 64
"""Sets of sizes that a program remembers; the oldest is forgotten first."""

Shapes = tuple[tuple[int, ...], ...]
Output = tuple[tuple[int, ...], np.dtype[Any]]


class Memory(Protocol):
    """What is asked of an argument here: an array of NumPy or of a device."""

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""

    def copy(self) -> Any:
        """Return a copy."""


A = TypeVar("A", bound=Memory)
B = TypeVar("B")


class BoundTable(Generic[B]):
    """A launch table with its bindings, of type ``B``, at the sizes it was called with.

    Attributes
    ----------
    table : LaunchTable
    updated : tuple of int
        Inputs that are written to.
    traced : Location or None
        The line whose call made the trace; None for programs of single operations.
    """

    def __init__(self, table: LaunchTable) -> None:
        self.table = table
        self.traced: Location | None = None
        self.updated = table.updated
        self._names = [name for name, _ in table.inputs]
        self._types = [kind for _, kind in table.inputs]
        self._kinds = [kind.dtype.numpy for kind in self._types]
        self._checks = any(row.check is not None for row in table.launches)
        self._bindings: dict[Shapes, B] = {}

    def at(self, shapes: Shapes) -> B:
        """Return the program at the sizes that inputs of these shapes give."""
        return self._bindings.get(shapes) or self._bind(shapes)

    def _bind(self, shapes: Shapes) -> B:
        sizes = bind_sizes([kind.shape for kind in self._types], shapes)
        if sizes is None:
            raise self._misfit(shapes)
        binding = self._bindings[shapes] = self._bound(sizes)
        if len(self._bindings) > MOST_BINDINGS:
            # Another thread may have forgotten the same one.
            self._bindings.pop(next(iter(tuple(self._bindings))), None)
        return binding

    def _bound(self, sizes: Mapping[str, int]) -> B:
        """Return the binding for values of the size variables."""
        raise NotImplementedError

    def _outputs(self, sizes: Mapping[str, int]) -> list[Output]:
        """Return shape and element type of each output."""
        return [
            (tuple(evaluate(d, sizes) for d in kind.shape), kind.dtype.numpy)
            for _, kind in self.table.outputs
        ]

    def _parted(self, arrays: list[A], places: Sequence[int]) -> bool:
        """Copy arguments that share memory with one that is updated; return if there were any.

        Parameters
        ----------
        arrays : list
            A copy takes the place of its argument.
        places : sequence of int
            Their addresses.
        """
        spans = [(place, place + array.nbytes) for place, array in zip(places, arrays, strict=True)]
        if apart(spans, frozenset(self.updated)):
            return False
        for position, (start, stop) in enumerate(spans):
            for owner in self.updated:
                first, last = spans[owner]
                if owner == position or start >= min(stop, last) or first >= min(stop, last):
                    continue
                if position in self.updated:
                    raise self._shared(position, owner)
                arrays[position] = arrays[position].copy()
                break
        return True

    # -- errors ------------------------------------------------------------------------------

    def _misfit(self, shapes: Shapes) -> BindError:
        """Return the error for shapes that no values of the size variables give."""
        inputs = list(zip(self._names, self._types, shapes, strict=True))
        pairs = [
            f"{name!r} is {kind}, got {shape}"
            for name, kind, shape in inputs
            if bind_sizes([kind.shape], [shape]) is None
        ]
        detail = "; ".join(pairs) or "sizes that must be equal differ: " + ", ".join(
            f"{name} {shape}" for name, _, shape in inputs
        )
        return BindError(f"the arguments of {self.table.name} do not fit its inputs: {detail}")

    def _mistyped(self, argument: Any, position: int) -> BindError:
        """Return the error for an argument of another element type."""
        found = getattr(argument, "dtype", type(argument).__name__)
        return BindError(
            f"input {self._names[position]!r} of {self.table.name} is {self._types[position]}, "
            f"got {found}{list(np.shape(argument))}",
            remedy=f'Convert it with .astype("{self._kinds[position]}").',
        )

    def _miscounted(self, count: int) -> BindError:
        names = ", ".join(self._names)
        return BindError(
            f"{self.table.name} takes {len(self._names)} arrays, got {count}",
            remedy=f"Its inputs are {names}." if names else "It has no inputs.",
        )

    def _shared(self, one: int, other: int) -> BindError:
        return BindError(
            f"{self.table.name} updates {self._names[one]!r} and {self._names[other]!r}, got one "
            "array for both, or two that share memory",
            remedy="Pass a copy for one of them.",
        )

    def _failed(self, launch: int, code: int, details: tuple[int, ...]) -> GraphcError:
        """Return the error of a launch whose kernel stopped with a code."""
        row = self.table.launches[launch]
        if row.check is None:
            return GraphcError(f"kernel {row.label} failed with code {code}", where=row.where)
        op = REGISTRY[row.check.op]
        failure: GraphcError = op.failure(code, details, **row.check.attrs)
        return failure.attach(where=row.where)


    def failed_late(
        self, launch: int, code: int, details: tuple[int, ...], here: Location, device: str
    ) -> GraphcError:
        """Return the error of a launch that failed after its call, at the line ``here``."""
        error = self._failed(launch, code, details)
        error.where = line_of_call(here, error.where, self.traced)
        told = (
            f"{device} found it in {self.table.name}, after the call had returned; what was there "
            "before that call is unchanged."
        )
        error.remedy = f"{error.remedy}\n  {told}" if error.remedy else told
        error.late = True
        return error


def apart(spans: Sequence[tuple[int, int]], updated: Collection[int]) -> bool:
    """Return whether no span of addresses meets one that is updated; one sweep over all."""
    read_stop = updated_stop = 0
    for start, stop, position in sorted((*span, i) for i, span in enumerate(spans)):
        if start == stop:
            continue
        if position in updated:
            if start < max(read_stop, updated_stop):
                return False
            updated_stop = stop
        elif start < updated_stop:
            return False
        else:
            read_stop = max(read_stop, stop)
    return True


def launch_sizes(
    row: LaunchRow, sizes: Mapping[str, int]
) -> tuple[dict[str, int], int, tuple[int, int]]:
    """Return a launch's size arguments by name, its extent, its operations and bytes."""
    known = {name: evaluate(size, sizes) for name, size in row.sizes}
    cost = evaluate(row.cost.flops, known), evaluate(row.cost.n_bytes, known)
    return known, evaluate(row.extent, known), cost

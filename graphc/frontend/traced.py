"""One trace of a function, and its calls.

A call of a kind that was seen before goes through `Ready`: which program serves it, and where the
arrays lie that the trace refers to, was found then.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.errors import GraphcError, Location, line_of_call, user_location
from graphc.frontend.array import Array, Storage, Unplaced, Writes
from graphc.frontend.compiled import Compiled, call, touch
from graphc.frontend.context import HOST, Context
from graphc.frontend.prepared import Kept, Prepared
from graphc.frontend.tree import LEAF, unflatten
from graphc.ir.dim import Dim
from graphc.runtime import random
from graphc.runtime.locks import alone
from graphc.runtime.program import USABLE, Binding, Program, address


@dataclass(slots=True)
class Traced:
    """One trace of a function.

    Attributes
    ----------
    compiled : Compiled
    sources : list
        Where each graph input comes from at a call: an argument number, an array, an object with
        ``current_array()``, ``"seed"`` or ``"counter"``.
    structure : object
        Of the result.
    classes : list of type
        Handle class of each result.
    draws : int
        Random keys that a call takes.
    where : Location
        The line whose call made this trace.
    key : object
        What a call must have in common with it, besides the sizes.
    captured : list of (int, callable, numpy.dtype, tuple of Dim)
        For sources that are neither arguments nor random state: which input, what gives the array
        now, and its type when traced.
    given : list of (int, int)
        Which input is which argument.
    """

    compiled: Compiled
    sources: list[Any]
    structure: Any
    classes: list[type[Array]]
    draws: int
    where: Location
    key: Any
    captured: list[tuple[int, Callable[[], Array], Any, tuple[Dim, ...]]] = field(init=False)
    given: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.given = [(p, s) for p, s in enumerate(self.sources) if isinstance(s, int)]
        inputs = zip(self.sources, self.compiled.graph.inputs, strict=True)
        self.captured = [
            (place, _reader(source), value.dtype.numpy, value.shape)
            for place, (source, value) in enumerate(inputs)
            if not isinstance(source, (int, str))
        ]

    def run(self, arguments: Sequence[Array]) -> Any:
        """Call the program with these arguments and return what the function returns."""
        operands = self.operands()
        assert operands is not None
        for place, number in self.given:
            operands[place] = arguments[number]
        for place, state in self.random_state():
            operands[place] = Array(state, Unplaced())
        try:
            handles = call(self.compiled, operands, self.classes)
        except GraphcError as error:
            raise self.placed(error) from None
        return self.returned(handles)

    def returned(self, handles: list[Any]) -> Any:
        """Return handles of the results in the structure that the function returns."""
        return handles[0] if self.structure == LEAF else unflatten(self.structure, handles)

    def random_state(self) -> list[tuple[int, np.ndarray]]:
        """Draw the random keys of a call; return which inputs tell the program of them."""
        if not self.draws:
            return []
        state = dict(zip(("seed", "counter"), random.advance(self.draws), strict=True))
        return [
            (place, np.asarray(state[source], np.int64))
            for place, source in enumerate(self.sources)
            if isinstance(source, str)
        ]

    def placed(self, error: GraphcError) -> GraphcError:
        """Give what failed while running the line of this call, where it has that of the trace.

        A line inside the traced function stays as it is.
        """
        if not error.late:
            error.where = line_of_call(user_location(), error.where, self.where)
        return error

    def operands(self) -> list[Any] | None:
        """Return the operands of a call without the arguments, or None where it no longer fits.

        It does while the arrays that the trace refers to have the types they had, where they were.
        """
        found: list[Any] = [None] * len(self.sources)
        context = self.compiled.context
        for place, current, kind, shape in self.captured:
            operand = current()
            array = operand._array
            own = operand._storage.context
            if array.dtype != kind or array.shape != shape or (
                own is not context and own is not None
            ):
                return None
            found[place] = operand
        return found

    def fits(self) -> bool:
        """Return whether the arrays that the trace refers to still have the types they had."""
        return self.operands() is not None


def _reader(source: Any) -> Callable[[], Array]:
    """Return what gives the array of a source that is neither an argument nor random state."""
    return (lambda: source) if isinstance(source, Array) else source.current_array


def _maker(cls: type[Array], context: Context | None) -> Callable[[np.ndarray], Array]:
    """Return what makes a handle of new memory on a device: the class itself on ``cpu(0)``."""
    return cls if context is HOST else lambda array: cls(array, Storage.on(context))


def _same(captured: Sequence[tuple[Callable[[], Array], np.ndarray]]) -> bool:
    """Return whether sources have the arrays that they had."""
    return all(current()._array is array for current, array in captured)


PREPARED = -1
"""Stands for the place of an input that is prepared, in the order of a program's inputs."""
STALE = object()
"""What a `Ready` returns for a call that has to find its program anew."""


class Ready:
    """A trace at the sizes of one signature, for calls that record nothing.

    Attributes
    ----------
    traced : Traced
    """

    __slots__ = (
        "_binding", "_captured", "_given", "_handles", "_kept", "_places", "_prepared", "_program",
        "_seen", "_single", "_spans", "_targets", "_template", "_written", "traced",
    )  # fmt: skip

    def __init__(
        self, traced: Traced, program: Program, binding: Binding, arrays: Sequence[np.ndarray],
        order: Sequence[int], kept: Kept | None,
    ) -> None:  # fmt: skip
        self.traced, self._program, self._binding = traced, program, binding
        self._kept = None if kept is None else weakref.ref(kept)  # what is stale goes at once
        self._template = [id(array) for array in arrays]
        self._places = places = {place: i for i, place in enumerate(order)}
        self._given = [(places[place], number) for place, number in traced.given]
        captured = [(place, c, c()._array) for place, c, *_ in traced.captured]
        whole = traced.compiled.program
        prepared = whole.parts.given if isinstance(whole, Prepared) else ()
        self._captured = [(c, array) for place, c, array in captured if place not in prepared]
        self._prepared = [(c, array) for place, c, array in captured if place in prepared]
        self._seen: object = None
        sources = {place: current for place, current, *_ in traced.captured}
        self._written = [sources[order[i]] for i in program.updated]
        self._targets = [address(arrays[i]) for i in program.updated]
        sizes = [arrays[i].nbytes for i in program.updated]
        self._spans = sorted((a, a + size) for a, size in zip(self._targets, sizes, strict=True))
        self._single = traced.structure == LEAF
        self._handles = [_maker(cls, traced.compiled.context) for cls in traced.classes]

    @classmethod
    def of(cls, traced: Traced, arguments: Sequence[Array]) -> Ready | None:
        """Return a trace ready for calls like this one; None where calls need a closer look.

        Those are calls that update an argument, and those with arrays that kernels do not take
        as they are, or that share memory with one that is updated.
        """
        whole, given = traced.compiled.program, dict(traced.given)
        program = whole.parts.main if isinstance(whole, Prepared) else whole
        kept = whole.kept if isinstance(whole, Prepared) else None
        values = () if kept is None else kept.values
        order = tuple(range(len(traced.sources)))
        if isinstance(whole, Prepared):
            if kept is None or not kept.fresh():
                return None
            order = (PREPARED,) * len(values) + whole.parts.rest
        if any(order[i] in given for i in program.updated):
            return None
        inputs = [np.empty((), np.int64)] * len(traced.sources)  # random state is such a number
        for place, number in given.items():
            inputs[place] = arguments[number]._array
        for place, current, *_ in traced.captured:
            inputs[place] = current()._array
        arrays = [*values, *(inputs[place] for place in order[len(values) :])]
        binding = program.taking(arrays)
        return None if binding is None else cls(traced, program, binding, arrays, order, kept)

    def __call__(self, arguments: Sequence[Array]) -> Any:
        """Run the program; return what the function returns, or STALE, having done nothing."""
        if self._captured and not _same(self._captured):
            return STALE
        kept = None  # while the program runs
        if self._kept is not None:
            kept = self._kept()
            if kept is None or not self._fresh(kept):
                return STALE
        traced, arrays = self.traced, self._template.copy()
        for place, number in self._given:
            array = arguments[number]._array
            if array.flags.num & USABLE != USABLE or (self._spans and self._meets(array)):
                return STALE
            arrays[place] = id(array)
        if traced.draws:
            state = traced.random_state()  # kept while the program runs
            for place, array in state:
                arrays[self._places[place]] = id(array)
        try:
            if self._written:
                results = self._update(arrays)
            else:
                results = self._program.launch(self._binding, arrays)
        except GraphcError as error:
            raise traced.placed(error) from None
        if self._single:
            return self._handles[0](results[0])
        return traced.returned([handle(r) for handle, r in zip(self._handles, results)])

    def _fresh(self, kept: Kept) -> bool:
        """Return whether prepared values are of the parameters as they are now."""
        last = Writes.last  # before the look: a write meanwhile is seen by the next call
        if self._seen is not last:
            if not (_same(self._prepared) and kept.fresh()):
                return False
            self._seen = last
        return True

    def _update(self, arrays: list[int]) -> list[np.ndarray]:
        with alone(self._targets):
            results = self._program.launch(self._binding, arrays)
        touch([current()._storage for current in self._written])
        return results

    def _meets(self, array: np.ndarray) -> bool:
        """Return whether memory is shared with an array that the program updates."""
        start, spans = address(array), self._spans
        stop = start + array.nbytes
        number = bisect_left(spans, (stop, 0)) - 1  # the last that begins before the array ends
        return number >= 0 and start < min(stop, spans[number][1])

"""One trace of a function, and its calls.

A call of a kind that was seen before goes through `Ready`: which program serves it, and where the
arrays lie that the trace refers to, was found then.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.errors import GraphcError, Location, line_of_call, user_location
from graphc.frontend.array import Array, Moves, Noted, Storage, Unplaced, Writes, mode
from graphc.frontend.compiled import Compiled, call, touch
from graphc.frontend.context import HOST, Context, current_context
from graphc.frontend.prepared import Kept, Prepared
from graphc.frontend.tree import LEAF, unflatten
from graphc.ir.dim import Dim
from graphc.runtime import random
from graphc.runtime.locks import alone
from graphc.runtime.program import Binding, Program


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
    random : list of int
        Which inputs tell the program of the random keys.
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
    random: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.given = [(p, s) for p, s in enumerate(self.sources) if isinstance(s, int)]
        self.random = [p for p, s in enumerate(self.sources) if isinstance(s, str)]
        inputs = zip(self.sources, self.compiled.graph.inputs, strict=True)
        self.captured = [
            (place, _reader(source), value.dtype.numpy, value.shape)
            for place, (source, value) in enumerate(inputs)
            if not isinstance(source, (int, str))
        ]

    def run(self, arguments: Sequence[Array], drawn: Sequence[np.ndarray] | None = None) -> Any:
        """Call the program with these arguments and return what the function returns.

        ``drawn`` are random keys that were drawn for this call already.
        """
        operands = self.operands()
        assert operands is not None
        for place, number in self.given:
            operands[place] = arguments[number]
        for place, state in zip(self.random, self.random_state() if drawn is None else drawn):
            operands[place] = Array(state, Unplaced())
        try:
            handles = call(self.compiled, operands, self.classes)
        except GraphcError as error:
            raise self.placed(error) from None
        return self.returned(handles)

    def returned(self, handles: list[Any]) -> Any:
        """Return handles of the results in the structure that the function returns."""
        return handles[0] if self.structure == LEAF else unflatten(self.structure, handles)

    def random_state(self) -> list[np.ndarray]:
        """Draw the random keys of a call; return what tells the program of them."""
        if not self.draws:
            return []
        state = dict(zip(("seed", "counter"), random.advance(self.draws), strict=True))
        return [np.asarray(state[self.sources[place]], np.int64) for place in self.random]

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


def _same(captured: Sequence[tuple[Callable[[], Array], Array]]) -> bool:
    """Return whether sources have the arrays that they had."""
    return all(current() is array for current, array in captured)


def _kind(argument: Array) -> tuple[Any, ...]:
    """Return what the next argument must have in common with this one."""
    array = argument._array
    return type(argument), array.dtype, array.shape, argument._storage.context


STALE = object()
"""What a `Ready` returns for a call that has to find its program anew."""


class Ready:
    """A trace for one kind of arguments and their sizes, for calls that record nothing.

    Where neither a parameter nor anything prepared was changed since the last call, that is asked
    by one comparison, whatever the number of parameters.

    Attributes
    ----------
    traced : Traced
    """

    __slots__ = (
        "_asked", "_binding", "_context", "_count", "_given", "_handles", "_kept", "_launch",
        "_locks", "_moving", "_noted", "_random", "_seen", "_single", "_template", "_training",
        "_written", "traced",
    )  # fmt: skip

    def __init__(
        self, traced: Traced, program: Program, binding: Binding, arrays: Sequence[np.ndarray],
        order: Sequence[int], kept: Kept | None, arguments: Sequence[Array],
    ) -> None:  # fmt: skip
        self._training, self._count = mode.training, len(arguments)
        unplaced = any(a._storage.context is None for a in arguments)
        self._context = current_context() if unplaced else None
        self.traced, self._launch, self._binding = traced, program.launch, binding
        self._kept = None if kept is None else weakref.ref(kept)  # what is stale goes at once
        count = 0 if kept is None else len(kept.values)
        self._template = [*arrays[count:]]
        places = {place: i for i, place in enumerate(order)}
        self._given = [
            (places[place], number, *_kind(arguments[number])) for place, number in traced.given
        ]
        self._random = [places[p] for p, s in enumerate(traced.sources) if isinstance(s, str)]
        captured = {place: (current, current()) for place, current, *_ in traced.captured}
        noted = {p for p in captured if getattr(traced.sources[p], "notes_moves", False)}
        fixed = {p for p in captured if isinstance(traced.sources[p], Array)}
        self._moving = [captured[place] for place in sorted(noted)]
        self._asked = [captured[place] for place in sorted(captured.keys() - noted - fixed)]
        self._noted: type[Noted] = Moves if kept is None else Writes
        self._seen: object = None
        updated = (order[i - count] for i in program.updated)
        self._written = [captured[place][1]._storage for place in updated]
        self._locks = program.locks(arrays)
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
            order = whole.parts.rest
        if any(order[i - len(values)] in given for i in program.updated):
            return None
        inputs = [np.empty((), np.int64)] * len(traced.sources)  # random state is such a number
        for place, number in given.items():
            inputs[place] = arguments[number]._array
        for place, current, *_ in traced.captured:
            inputs[place] = current()._array
        arrays = [*values, *(inputs[place] for place in order)]
        binding = program.taking(arrays)
        return None if binding is None else cls(
            traced, program, binding, arrays, order, kept, arguments
        )  # fmt: skip

    def call(self, arguments: Sequence[Any]) -> Any:
        """Run the program; return what the function returns, or STALE, having done nothing."""
        if len(arguments) != self._count or mode.training is not self._training:
            return STALE
        arrays, kept, drawn = self._template.copy(), None, None
        for place, number, cls, dtype, shape, context in self._given:
            argument = arguments[number]
            if type(argument) is not cls:
                return STALE
            array = argument._array
            if array.dtype is not dtype or array.shape != shape:
                return STALE
            if argument._storage.context is not context:
                return STALE
            arrays[place] = array
        if self._context is not None and current_context() is not self._context:
            return STALE
        if self._seen is not self._noted.last and not self._look():
            return STALE
        if self._asked and not _same(self._asked):
            return STALE
        if self._kept is not None:
            kept = self._kept()
            if kept is None:
                return STALE
        if self._random:
            drawn = self.traced.random_state()
            for place, state in zip(self._random, drawn):
                arrays[place] = state
        if kept is not None:
            arrays = [*kept.values, *arrays]
        try:
            if self._locks:
                with alone(self._locks):
                    results = self._launch(self._binding, arrays)
            else:
                results = self._launch(self._binding, arrays)
        except GraphcError as error:
            raise self.traced.placed(error) from None
        if results is None:
            return self.traced.run(arguments, drawn)
        if self._written:
            touch(self._written)
        if self._single:
            return self._handles[0](results[0])
        return self.traced.returned([handle(r) for handle, r in zip(self._handles, results)])

    def _look(self) -> bool:
        """Return whether parameters, and what was prepared, are as they were at the last look."""
        last = self._noted.last  # before the look: what changes meanwhile is seen by the next call
        kept = None if self._kept is None else self._kept()
        stale = self._kept is not None and (kept is None or not kept.fresh())
        if stale or not _same(self._moving):
            return False
        self._seen = last
        return True

"""Compiling functions of arrays: tracing, choosing a trace for a call, explaining retraces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.codegen import counters
from graphc.errors import ArgumentError, GraphcError, Location, user_location
from graphc.frontend.array import Array, mode
from graphc.frontend.compiled import Compiled, call
from graphc.frontend.trace import Specializations, finish
from graphc.frontend.tracer import Trace, Tracer, current_trace, tracing
from graphc.frontend.tree import LEAF, flatten, unflatten
from graphc.ir.dim import Dim
from graphc.ir.graph import Graph, Value
from graphc.ir.sizes import solving
from graphc.ir.types import TensorType
from graphc.passes.canonicalize import canonicalize
from graphc.passes.fuse import fuse_with_reasons
from graphc.passes.hoist import hoist
from graphc.runtime import random

MOST_KNOWN = 1024
"""Signatures of calls that a function remembers; a call of another one only takes longer."""


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
    direct : bool
        Whether the inputs are the first arguments, in order.
    """

    compiled: Compiled
    sources: list[Any]
    structure: Any
    classes: list[type[Array]]
    draws: int
    where: Location
    key: Any
    captured: list[tuple[int, Callable[[], Array], Any, tuple[Dim, ...]]] = field(init=False)
    direct: bool = field(init=False)
    _given: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self._given = [(p, s) for p, s in enumerate(self.sources) if isinstance(s, int)]
        self.direct = self._given == [(p, p) for p in range(len(self.sources))]
        inputs = zip(self.sources, self.compiled.graph.inputs, strict=True)
        self.captured = [
            (place, _reader(source), value.dtype.numpy, value.shape)
            for place, (source, value) in enumerate(inputs)
            if not isinstance(source, (int, str))
        ]

    def run(self, arguments: Sequence[Array]) -> Any:
        """Call the program with these arguments and return what the function returns."""
        found = self.operands()
        assert found is not None
        return self.run_with(arguments, found)

    def run_with(self, arguments: Sequence[Array], operands: Sequence[Any]) -> Any:
        """Call the program with these arguments and with what ``operands`` found just now."""
        if self.direct:
            operands = arguments[: len(self.sources)]
        else:
            operands = self._filled(arguments, list(operands))
        try:
            handles = call(self.compiled, operands, self.classes)
        except GraphcError as error:
            raise self._placed(error) from None
        return handles[0] if self.structure == LEAF else unflatten(self.structure, handles)

    def _filled(self, arguments: Sequence[Array], operands: list[Any]) -> list[Any]:
        """Put in the arguments and the random state."""
        for place, number in self._given:
            operands[place] = arguments[number]
        if self.draws:
            state = dict(zip(("seed", "counter"), random.advance(self.draws), strict=True))
            for place, source in enumerate(self.sources):
                if isinstance(source, str):
                    operands[place] = Array(np.asarray(state[source], np.int64))
        return operands

    def _placed(self, error: GraphcError) -> GraphcError:
        """Give what failed while running the line of this call, where it has that of the trace.

        A line inside the traced function stays as it is.
        """
        here, there = user_location(), error.where
        if there is None or (there.file, there.line) == (self.where.file, self.where.line):
            error.where = Location(here.file, here.line, there.scope if there else here.scope)
        return error

    def operands(self) -> list[Any] | None:
        """Return the operands of a call without the arguments, or None where it no longer fits.

        It does while the arrays that the trace refers to have the types they had.
        """
        found: list[Any] = [None] * len(self.sources)
        for place, current, kind, shape in self.captured:
            operand = current()
            array = operand._array
            if array.dtype != kind or array.shape != shape:
                return None
            found[place] = operand
        return found

    def fits(self) -> bool:
        """Return whether the arrays that the trace refers to still have the types they had."""
        return self.operands() is not None


def _reader(source: Any) -> Callable[[], Array]:
    """Return what gives the array of a source that is neither an argument nor random state."""
    return (lambda: source) if isinstance(source, Array) else source.current_array


class Jit:
    """A function of arrays, compiled when it is first called with a new kind of arguments.

    Parameters
    ----------
    function : callable
        Takes arrays, and lists, tuples and dicts of them; other arguments are static.
    name : str, optional
        Name of the programs; by default the function's.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.function = function
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.traces: list[Traced] = []
        self._by_key: dict[Any, Specializations[Traced]] = {}
        self._known: dict[Any, Traced] = {}
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function through its compiled program; inside another trace, as a part of it."""
        if current_trace() is not None:
            return self.function(*args, **kwargs)
        signature = _signature(args) if not kwargs else None
        if signature is not None:
            traced = self._known.get((signature, mode.training))
            if traced is not None and (operands := traced.operands()) is not None:
                return traced.run_with(args, operands)
        leaves, structure = flatten((args, kwargs), _is_array)
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return self.function(*args, **kwargs)
        arguments = [leaf if isinstance(leaf, Array) else Array(leaf) for leaf in leaves]
        traced = self.trace_for(arguments, structure)
        if signature is not None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[signature, mode.training] = traced
        return traced.run(arguments)

    def trace(self, *args: Any, **kwargs: Any) -> tuple[Traced, list[Array]]:
        """Return the trace that serves a call, and the call's arrays; runs nothing."""
        leaves, structure = flatten((args, kwargs), _is_array)
        arguments = [leaf if isinstance(leaf, Array) else Array(leaf) for leaf in leaves]
        return self.trace_for(arguments, structure), arguments

    def clear(self) -> None:
        """Forget every trace."""
        with self._lock:
            self.traces.clear()
            self._by_key.clear()
            self._known.clear()

    def trace_for(self, arguments: Sequence[Array], structure: Any) -> Traced:
        """Return the trace that serves a call, tracing if there is none yet."""
        key = (
            structure,
            tuple([(type(a), a._array.dtype.char) for a in arguments]),
            mode.training,
        )
        try:
            known = self._by_key.get(key)
        except TypeError as error:
            raise ArgumentError(
                f"{self.name} got an argument that cannot be compiled: {error}",
                remedy="Pass arrays, and numbers or strings as static arguments.",
                where=user_location(),
            ) from None
        shapes = [a._array.shape for a in arguments]
        found = known.lookup(shapes) if known is not None else None
        if found is not None and found.fits():
            return found
        with self._lock:
            known = self._by_key.setdefault(key, Specializations())
            found = known.lookup(shapes)
            if found is not None and found.fits():
                return found
            if found is not None:
                known = self._by_key[key] = Specializations()
            traced, declared = self._trace(arguments, structure, key)
            self.traces.append(traced)
            return known.add(declared, traced)

    def argument(self, trace: Trace, number: int, kind: TensorType) -> Value:
        """Return the input of a trace that stands for an argument; its sizes are symbolic."""
        return trace.argument(number, kind)

    def _trace(
        self, arguments: Sequence[Array], structure: Any, key: Any
    ) -> tuple[Traced, Graph]:
        """Trace the function; returns the trace, and a graph that declares the arguments only."""
        started = time.perf_counter()
        trace = Trace()
        with solving(trace.solver), tracing(trace):
            values = [self.argument(trace, i, a.type) for i, a in enumerate(arguments)]
            handles = [
                a.tracer_class.wrap(v) for a, v in zip(arguments, values, strict=True)
            ]
            args, kwargs = unflatten(structure, list(handles))
            result = self.function(*args, **kwargs)
            leaves, returned = flatten(result, _is_array)
            leaves = [
                leaf if isinstance(leaf, Tracer) else _captured(trace, leaf) for leaf in leaves
            ]
            graph = Graph(
                self.name,
                tuple(v for v, _ in trace.inputs),
                tuple(leaf._value for leaf in leaves),
                tuple(trace.updates.items()),
            )
            graph = finish(graph, trace.solver)
        counters.add("programs_traced")
        counters.add("trace_s", time.perf_counter() - started)
        sources = [source for _, source in trace.inputs]
        # Other arrays that the code refers to may lie in memory of the user's.
        parameters = tuple(i for i, s in enumerate(sources) if hasattr(s, "current_array"))
        traced = Traced(
            Compiled(graph, parameters),
            sources,
            returned,
            [type(leaf).eager_class for leaf in leaves],
            trace.draws,
            user_location(),
            key,
        )
        numbers = [i for i, source in enumerate(sources) if isinstance(source, int)]
        arguments_only = tuple(graph.inputs[i] for i in numbers)
        return traced, Graph(self.name, arguments_only, (), (), graph.constraints)

    def explain(self) -> str:
        """Return a text: which traces there are, what fixed their sizes, why each was made.

        What is computed from parameters alone is listed, and every edge between kernels comes
        with the reason why it was not fused.
        """
        if not self.traces:
            return f"{self.name} has not been compiled yet: it is when it is first called."
        parts = []
        for number, traced in enumerate(self.traces):
            graph = traced.compiled.graph
            cut = hoist(graph, traced.compiled.fixed)
            plain = canonicalize(graph) if cut is None else cut.main
            lines = [f"{self.name} program {number}, traced at {traced.where}"]
            lines += [f"  {v.node.attrs['name']}: {v.type}" for v in graph.inputs]
            lines += [f"  fixed or unified: {c}" for c in graph.constraints]
            lines += [] if cut is None else [f"  {note}" for note in cut.notes()]
            lines += [f"  {note}" for note in fuse_with_reasons(plain).refusals]
            if number:
                lines.append(f"  why: {_difference(self.traces[:number], traced)}")
            parts.append("\n".join(lines))
        return "\n".join(parts)


def _signature(args: tuple[Any, ...]) -> Any:
    """Return what tells apart calls with arrays only, or None for other calls."""
    try:
        found: list[Any] = []
        for a in args:
            array = a._array
            found += type(a), array.dtype.char, array.shape
        return tuple(found)
    except AttributeError:
        return None


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (Array, Tracer, np.ndarray))


def _captured(trace: Trace, array: Any) -> Tracer:
    array = array if isinstance(array, Array) else Array(array)
    tracer: Tracer = array.tracer_class.wrap(trace.current(array))
    return tracer


def _difference(earlier: Sequence[Traced], traced: Traced) -> str:
    """Return what is new in a trace against the last one before it."""
    structure, dtypes, training = traced.key
    last_structure, last_dtypes, last_training = earlier[-1].key
    if traced.key in [t.key for t in earlier]:
        return "a size that the model fixes is another one"
    reasons = []
    if structure != last_structure:
        reasons.append(f"other arguments: {structure} after {last_structure}")
    if [d for _, d in dtypes] != [d for _, d in last_dtypes]:
        reasons.append("other element types")
    if [c for c, _ in dtypes] != [c for c, _ in last_dtypes]:
        reasons.append("other kinds of arrays")
    if training != last_training:
        reasons.append("training mode" if training else "prediction mode")
    return ", ".join(reasons) or "the arrays it refers to were replaced by others"


def compile(function: Callable[..., Any]) -> Jit:
    """Return ``function`` compiled: traced at its first call, run as one program from then on.

    Parameters
    ----------
    function : callable
        Of arrays (and lists, tuples and dicts of them); other arguments are static.

    Returns
    -------
    Jit
        Call it like the function; ``.explain()`` says what was compiled and why.

    Examples
    --------
    >>> import graphc
    >>> from graphc import nd
    >>> double = graphc.compile(lambda x: x + x)
    >>> double(nd.ones((2,))).asnumpy()
    array([2., 2.], dtype=float32)
    """
    if not callable(function):
        raise ArgumentError(
            f"graphc.compile takes a function of arrays, got a {type(function).__name__}",
            remedy="Pass the function itself: graphc.compile(step), not graphc.compile(step(x)).",
            where=user_location(),
        )
    return Jit(function)



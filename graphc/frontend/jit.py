"""Compiling functions of arrays: tracing, choosing a trace for a call, explaining retraces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.codegen import counters
from graphc.errors import ArgumentError, DeviceError, user_location
from graphc.frontend.array import Array, Unplaced, common, mode
from graphc.frontend.compiled import Compiled
from graphc.frontend.context import HOST, Context, current_context, usable
from graphc.frontend.trace import Specializations, finish
from graphc.frontend.traced import STALE, Ready, Traced
from graphc.frontend.tracer import Trace, Tracer, current_trace, tracing
from graphc.frontend.tree import flatten, unflatten
from graphc.ir.graph import Graph, Value
from graphc.ir.sizes import solving
from graphc.ir.types import TensorType
from graphc.passes.canonicalize import canonicalize
from graphc.passes.fuse import fuse_with_reasons
from graphc.passes.hoist import hoist

MOST_READY = 1024
"""Signatures of calls that a function is ready for; a call of another one only takes longer."""


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
        self._ready: dict[Any, Ready] = {}
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function through its compiled program; inside another trace, as a part of it."""
        if current_trace() is not None:
            return self.function(*args, **kwargs)
        signature = None if kwargs or mode.recording else _signature(args)
        if signature is not None:
            ready = self._ready.get(signature)
            if ready is not None:
                result = ready(args)
                if result is not STALE:
                    return result
        leaves, structure = flatten((args, kwargs), _is_array)
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return self.function(*args, **kwargs)
        arguments = _as_handles(leaves)
        traced = self.trace_for(arguments, structure)
        result = traced.run(arguments)
        if signature is not None:
            self._get_ready(signature, traced, arguments)
        return result

    def _get_ready(self, key: Any, traced: Traced, arguments: Sequence[Array]) -> None:
        """Remember what serves calls like this one."""
        ready = Ready.of(traced, arguments)
        if ready is None:
            return
        if len(self._ready) >= MOST_READY:
            self._ready.clear()
        self._ready[key] = ready

    def trace(self, *args: Any, **kwargs: Any) -> tuple[Traced, list[Array]]:
        """Return the trace that serves a call, and the call's arrays; runs nothing."""
        leaves, structure = flatten((args, kwargs), _is_array)
        arguments = _as_handles(leaves)
        return self.trace_for(arguments, structure), arguments

    def clear(self) -> None:
        """Forget every trace."""
        with self._lock:
            self.traces.clear()
            self._by_key.clear()
            self._ready.clear()

    def trace_for(self, arguments: Sequence[Array], structure: Any) -> Traced:
        """Return the trace that serves a call, tracing if there is none yet."""
        context = self._context(arguments)
        key = (
            structure,
            tuple([(type(a), a._array.dtype.char) for a in arguments]),
            mode.training,
            context or current_context(),
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
            with usable(context):
                traced, declared = self._trace(arguments, structure, key, context)
            self.traces.append(traced)
            return known.add(declared, traced)

    def _context(self, arguments: Sequence[Array]) -> Context | None:
        """Return the device of the arguments of a call; None where they go with any."""
        try:
            return common(arguments, "argument")
        except DeviceError as error:
            types = [a.type for a in arguments]
            raise error.attach(op=self.name, operands=types) from None

    def argument(self, trace: Trace, number: int, kind: TensorType) -> Value:
        """Return the input of a trace that stands for an argument; its sizes are symbolic."""
        return trace.argument(number, kind)

    def _trace(
        self, arguments: Sequence[Array], structure: Any, key: Any, context: Context | None
    ) -> tuple[Traced, Graph]:
        """Trace the function; returns the trace, and a graph that declares the arguments only."""
        started = time.perf_counter()
        trace = Trace(context)
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
        where = user_location()
        traced = Traced(
            Compiled(graph, parameters, trace.context, where),
            sources,
            returned,
            [type(leaf).eager_class for leaf in leaves],
            trace.draws,
            where,
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
    found: tuple[Any, ...] = (mode.training,)
    try:
        for a in args:
            array = a._array
            found += type(a), array.dtype, array.shape
            if a._storage.context is not HOST:
                found += (a._storage.context or current_context(),)
    except AttributeError:
        return None
    return found


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (Array, Tracer, np.ndarray))


def _as_handles(leaves: Sequence[Any]) -> list[Array]:
    return [leaf if isinstance(leaf, Array) else Array(leaf, Unplaced()) for leaf in leaves]


def _captured(trace: Trace, array: Any) -> Tracer:
    array = array if isinstance(array, Array) else Array(array, Unplaced())
    tracer: Tracer = array.tracer_class.wrap(trace.current(array))
    return tracer


def _difference(earlier: Sequence[Traced], traced: Traced) -> str:
    """Return what is new in a trace against the last one before it."""
    structure, dtypes, training, context = traced.key
    last_structure, last_dtypes, last_training, last_context = earlier[-1].key
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
    if context is not last_context:
        reasons.append(f"on {context} after {last_context}")
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



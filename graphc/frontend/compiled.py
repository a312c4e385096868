"""A traced graph with its programs: plain, and cut in two for a gradient."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import Location, user_location
from graphc.frontend.array import Array, Entry, Saved, Storage, mode
from graphc.frontend.build import Halves, Parts, build_halves, build_parts, build_program
from graphc.frontend.context import HOST, Context
from graphc.frontend.memory import filled
from graphc.frontend.prepared import Prepared
from graphc.ir.graph import Graph
from graphc.ir.op import Kind, OpDef
from graphc.passes.differentiate import cotangent_inputs, gradients
from graphc.runtime.program import Program


class Compiled:
    """A graph and its programs, each compiled when it is first needed.

    Parameters
    ----------
    graph : Graph
    fixed : tuple of int, optional
        Which inputs are parameters: what depends on these alone is kept from call to call.
    context : Context, optional
        The device that it runs on; None where its arrays go with those of any.
    where : Location, optional
        The line whose call made the graph.
    """

    def __init__(
        self, graph: Graph, fixed: tuple[int, ...] = (), context: Context | None = None,
        where: Location | None = None,
    ) -> None:  # fmt: skip
        self.graph, self.fixed, self.context, self.where = graph, fixed, context, where
        self._processor = (context or HOST).processor
        places = {id(value.node): place for place, value in enumerate(graph.inputs)}
        self.updated = tuple(places[id(value.node)] for value, _ in graph.updates)
        self._lock = threading.RLock()
        self._program: Program | Prepared | None = None
        self._halves: dict[Any, Halves] = {}
        self._gradients: dict[Any, tuple[Compiled, tuple[int, ...]]] = {}

    @property
    def program(self) -> Program | Prepared:
        """The program of the graph, cut in two where parameters alone decide a part of it."""
        if self._program is None:
            with self._lock:
                self._program = self._program or self._built()
        return self._program

    def _built(self) -> Program | Prepared:
        if not self.fixed:
            return self._placed(build_program(self.graph, self._processor))
        parts = build_parts(self.graph, self.fixed, self._processor)
        if isinstance(parts, Parts):
            self._placed(parts.main)
            return Prepared(parts)
        return self._placed(parts)

    def _placed(self, program: Any) -> Any:
        """Tell a program the line of its trace; return it."""
        program.traced = self.where
        return program

    def halves(self, wrt: tuple[int, ...], heads: tuple[bool, ...]) -> Halves:
        """Return the forward and backward programs for gradients by the inputs ``wrt``."""
        key = (wrt, heads)
        with self._lock:
            if key not in self._halves:
                halves = build_halves(self.graph, wrt, heads, self._processor)
                self._placed(halves.forward)
                self._placed(halves.backward)
                self._halves[key] = halves
        return self._halves[key]

    def gradient(
        self, wrt: tuple[int, ...], heads: tuple[bool, ...]
    ) -> tuple[Compiled, tuple[int, ...]]:
        """Return the graph from inputs and cotangents to gradients, and which inputs have one."""
        key = (wrt, heads)
        with self._lock:
            if key not in self._gradients:
                outputs = self.graph.outputs
                given = cotangent_inputs(self.graph, heads)
                found = gradients(outputs, given, [self.graph.inputs[i] for i in wrt])
                inputs = (*self.graph.inputs, *(c for c in given if c is not None))
                results = tuple(g for g in found if g is not None)
                graph = Graph(f"{self.graph.name}_gradient", inputs, results)
                chosen = tuple(i for i, g in zip(wrt, found, strict=True) if g is not None)
                compiled = Compiled(graph, context=self.context, where=self.where)
                self._gradients[key] = (compiled, chosen)
        return self._gradients[key]


class Call(OpDef):
    """The tape's op for a call of a compiled graph; differentiates to any order."""

    name, kind = "call", Kind.OPAQUE

    def vjp(
        self, g: Any, y: Any, *inputs: Any, target: Compiled, halves: Halves, saved: list[Any]
    ) -> tuple[Any, ...]:
        """Run the backward program, or where that is recorded, the gradient of the whole graph."""
        return self.vjp_into({}, g, y, *inputs, target=target, halves=halves, saved=saved)

    def vjp_into(
        self, kept: Mapping[int, np.ndarray], g: Any, y: Any, *inputs: Any, target: Compiled,
        halves: Halves, saved: list[Any],
    ) -> tuple[Any, ...]:  # fmt: skip
        """Do the same, if possible with the gradients of some inputs in arrays that are there."""
        graph = target.graph
        heads = tuple(v.dtype.floating for v in graph.outputs)
        arriving = g if isinstance(g, tuple) else (g,)
        outputs = y if isinstance(y, tuple) else (y,)
        cotangents = [
            _zeros(o) if c is None else c
            for o, c, head in zip(outputs, arriving, heads, strict=True)
            if head
        ]
        found: list[Any] = [None] * len(inputs)
        if mode.recording:
            gradient, wrt = target.gradient(halves.wrt, heads)
            classes = [Array] * len(gradient.graph.outputs)
            results = call(gradient, [*inputs, *cotangents], classes)
        else:
            wrt = halves.wrt
            arrays = [
                inputs[i]._array if kind == "input" else saved[i]
                for kind, i in halves.reads
            ]
            arrays += [c._array for c in cotangents]
            places = [kept.get(i) for i in wrt] if kept else ()
            results = [
                Array(a, Storage.on(target.context)) for a in halves.backward(arrays, places)
            ]
        for position, result in zip(wrt, results, strict=True):
            found[position] = result
        return tuple(found)

    def release(self, *, target: Compiled, halves: Halves, saved: list[Any]) -> None:
        """Give back what the forward pass saved, before the next one runs."""
        saved.clear()


CALL = Call()


def _zeros(like: Array) -> Array:
    context = like._storage.context
    return Array(filled(like.shape, 0, like.dtype.numpy, context), Storage.on(context))


def call(
    target: Compiled, operands: Sequence[Array], classes: Sequence[type[Array]]
) -> list[Any]:
    """Run a compiled graph on array handles, recording it where a gradient flows.

    Parameters
    ----------
    target : Compiled
    operands : sequence of Array
        One for each input of the graph; those that it updates are written in place.
    classes : sequence of type
        Handle class of each result.

    Returns
    -------
    list of handles
    """
    arrays = [o._array for o in operands]
    wrt: tuple[int, ...] = ()
    if mode.recording:
        wrt = tuple(i for i, o in enumerate(operands) if o.on_tape and o.type.dtype.floating)
    if not wrt:
        program = target._program or target.program
        if isinstance(program, Prepared):
            results = program(operands, arrays)
        else:
            results = program(arrays)
        if target.updated:
            touch([operands[place]._storage for place in target.updated])
        return [cls(r, Storage.on(target.context)) for cls, r in zip(classes, results)]
    heads = tuple(v.dtype.floating for v in target.graph.outputs)
    halves = target.halves(wrt, heads)
    results = halves.forward(arrays)
    if target.updated:
        touch([operands[place]._storage for place in target.updated])
    count = len(target.graph.outputs)
    outputs = [
        cls(r, Storage.on(target.context)) for cls, r in zip(classes, results[:count], strict=True)
    ]
    where = user_location()
    attrs = {"target": target, "halves": halves, "saved": results[count:]}
    entry = Entry(CALL, attrs, tuple(Saved(o, where) for o in operands), where)
    for index, output in enumerate(outputs):
        output._entry, output._index = entry, index
    entry.outputs = tuple(Saved(o, where) for o in outputs)
    return outputs


def touch(written: Sequence[Storage]) -> None:
    """Note that a call wrote to arrays in place."""
    where = user_location()
    for storage in written:
        storage.touch(where)

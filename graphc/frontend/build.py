"""Traced graphs to programs: from the disk cache where they are there, else through every pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphc.codegen.compiler import Compilation
from graphc.codegen.cpu import host_target
from graphc.frontend.context import HOST, Context
from graphc.ir.graph import Graph, input_name
from graphc.passes.hoist import hoist
from graphc.passes.manager import compile_graph
from graphc.passes.partition import split
from graphc.runtime import saved
from graphc.runtime.program import Program


@dataclass(frozen=True, slots=True)
class Halves:
    """The forward and the backward program of one graph; ``reads`` and ``wrt`` as in `Split`."""

    forward: Program
    backward: Program
    reads: tuple[tuple[str, int], ...]
    wrt: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """A graph's program, and the one of what it reads prepared, with `Hoisted`'s places."""

    main: Program
    prepare: Program
    given: tuple[int, ...]
    rest: tuple[int, ...]


def build_program(graph: Graph, processor: Context = HOST) -> Program:
    """Return the program of a graph for a device of this machine.

    ``processor`` is a `Context.processor`, here and below: the CPU is the only one so far.
    """
    key = saved.key_of(graph)
    found = saved.load(key)
    if found is not None and len(found[0]) == 1 and _takes(found[0][0], graph):
        return found[0][0]
    program = _compiled(graph)
    saved.save(key, [program])
    return program


def build_parts(
    graph: Graph, fixed: tuple[int, ...], processor: Context = HOST
) -> Parts | Program:
    """Return the programs of a graph whose inputs ``fixed`` are parameters.

    One program where nothing is computed from these alone.
    """
    key = saved.key_of(graph, "hoisted", repr(fixed))
    found = saved.load(key)
    parts = None if found is None else _placed(*found, graph)
    if parts is not None:
        return parts
    cut = hoist(graph, fixed)
    if cut is None:
        program = _compiled(graph)
        saved.save(key, [program])
        return program
    main, prepare = map(_compiled, (cut.main, cut.prepare))
    saved.save(key, [main, prepare], {"given": cut.given, "rest": cut.rest})
    return Parts(main, prepare, cut.given, cut.rest)


def _compiled(graph: Graph) -> Program:
    """Compile a graph; LLVM has begun with the first kernels when the last are scheduled."""
    with Compilation(host_target()) as compilation:
        plan = compile_graph(graph, host_target(), compilation.add)
        return Program(plan, compilation.finish())


def build_halves(
    graph: Graph, wrt: tuple[int, ...], heads: tuple[bool, ...], processor: Context = HOST
) -> Halves:
    """Return the programs of a graph whose outputs ``heads`` are differentiated by inputs ``wrt``.

    A warm start also skips the cut between the two.
    """
    key = saved.key_of(graph, "halves", repr(wrt), repr(heads))
    found = saved.load(key)
    halves = None if found is None else _connected(*found, graph, heads)
    if halves is None:
        cut = split(graph, wrt, heads)
        forward, backward = _compiled(cut.forward), _compiled(cut.backward)
        saved.save(key, [forward, backward], {"reads": cut.reads, "wrt": cut.wrt})
        halves = Halves(forward, backward, cut.reads, cut.wrt)
    return halves


def _placed(programs: list[Program], notes: Any, graph: Graph) -> Parts | Program | None:
    """Return what an entry holds; None where it does not take and return what the graph does."""
    if len(programs) == 1:
        return programs[0] if _takes(programs[0], graph) else None
    try:
        main, prepare = programs
        given, rest = (tuple(map(int, notes[name])) for name in ("given", "rest"))
    except (KeyError, TypeError, ValueError):
        return None
    inputs = tuple((input_name(v), v.type) for v in graph.inputs)
    kept = tuple(kind for _, kind in prepare.table.outputs)
    fits = (
        all(place in range(len(inputs)) for place in (*given, *rest))
        and prepare.table.inputs == tuple(inputs[place] for place in given)
        and tuple(kind for _, kind in main.table.inputs[: len(kept)]) == kept
        and main.table.inputs[len(kept) :] == tuple(inputs[place] for place in rest)
        and len(main.table.outputs) == len(graph.outputs)
    )
    return Parts(main, prepare, given, rest) if fits else None


def _takes(program: Program, graph: Graph) -> bool:
    """Return whether a program from the disk takes and returns what a graph does."""
    inputs = tuple((input_name(v), v.type) for v in graph.inputs)
    return program.table.inputs == inputs and len(program.table.outputs) == len(graph.outputs)


def _connected(
    programs: list[Program], notes: Any, graph: Graph, heads: tuple[bool, ...]
) -> Halves | None:
    """Return what an entry holds; None where that is not two programs and how they connect."""
    try:
        forward, backward = programs
        reads = tuple((str(kind), int(place)) for kind, place in notes["reads"])
        wrt = tuple(map(int, notes["wrt"]))
    except (KeyError, TypeError, ValueError):
        return None
    n_saved = len(forward.table.outputs) - len(graph.outputs)
    readable = {"input": range(len(graph.inputs)), "saved": range(n_saved)}
    fits = (
        all(place in readable.get(kind, ()) for kind, place in reads)
        and all(place in readable["input"] for place in wrt)
        and len(backward.table.inputs) == len(reads) + sum(heads)
        and len(backward.table.outputs) == len(wrt)
    )
    return Halves(forward, backward, reads, wrt) if fits else None

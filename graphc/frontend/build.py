"""Traced graphs to programs: from the disk cache where they are there, else through every pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from graphc.codegen.compiler import Compilation
from graphc.codegen.cpu import host_target
from graphc.frontend.context import HOST, Context
from graphc.ir.graph import Graph, input_name
from graphc.ir.table import table_of
from graphc.ir.target import Target
from graphc.passes.hoist import hoist
from graphc.passes.manager import compile_graph
from graphc.passes.partition import split
from graphc.runtime import saved
from graphc.runtime.cuda import CudaDevice
from graphc.runtime.device_program import DeviceProgram
from graphc.runtime.program import Program

# A Program on the CPU, else a DeviceProgram: both are called alike, with arrays of their kind.
AnyProgram = Any


@dataclass(frozen=True, slots=True)
class Halves:
    """The forward and the backward program of one graph; ``reads`` and ``wrt`` as in `Split`."""

    forward: AnyProgram
    backward: AnyProgram
    reads: tuple[tuple[str, int], ...]
    wrt: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """A graph's program, and the one of what it reads prepared, with `Hoisted`'s places."""

    main: AnyProgram
    prepare: AnyProgram
    given: tuple[int, ...]
    rest: tuple[int, ...]


def build_program(graph: Graph, processor: Context = HOST) -> AnyProgram:
    """Return the program of a graph for a device of this machine.

    ``processor`` is a `Context.processor`, here and below.
    """
    device = processor.accelerator
    key = saved.key_of(graph, target=_target(device))
    found = saved.load(key, _loader(device))
    if found is not None and len(found[0]) == 1 and _takes(found[0][0], graph):
        return found[0][0]
    program = _compiled(graph, device)
    saved.save(key, [program])
    return program


def build_parts(
    graph: Graph, fixed: tuple[int, ...], processor: Context = HOST
) -> Parts | AnyProgram:
    """Return the programs of a graph whose inputs ``fixed`` are parameters.

    One program where nothing is computed from these alone.
    """
    device = processor.accelerator
    key = saved.key_of(graph, "hoisted", repr(fixed), target=_target(device))
    found = saved.load(key, _loader(device))
    parts = None if found is None else _placed(*found, graph)
    if parts is not None:
        return parts
    cut = hoist(graph, fixed)
    if cut is None:
        program = _compiled(graph, device)
        saved.save(key, [program])
        return program
    main, prepare = (_compiled(part, device) for part in (cut.main, cut.prepare))
    saved.save(key, [main, prepare], {"given": cut.given, "rest": cut.rest})
    return Parts(main, prepare, cut.given, cut.rest)


def _target(device: CudaDevice | None) -> Target:
    return host_target() if device is None else device.target


def _loader(device: CudaDevice | None) -> Any:
    """Return what makes a program of a table whose kernels are in the cache."""
    return Program.loaded if device is None else partial(DeviceProgram.loaded, device=device)


def _compiled(graph: Graph, device: CudaDevice | None) -> AnyProgram:
    """Compile a graph; LLVM has begun with the first kernels when the last are scheduled."""
    target = _target(device)
    with Compilation(target) as compilation:
        plan = compile_graph(graph, target, compilation.add)
        kernels = compilation.finish()
    if device is None:
        return Program(plan, kernels)
    return DeviceProgram(table_of(plan, [kernel.key for kernel in kernels]), kernels, device)


def build_halves(
    graph: Graph, wrt: tuple[int, ...], heads: tuple[bool, ...], processor: Context = HOST
) -> Halves:
    """Return the programs of a graph whose outputs ``heads`` are differentiated by inputs ``wrt``.

    A warm start also skips the cut between the two.
    """
    device = processor.accelerator
    key = saved.key_of(graph, "halves", repr(wrt), repr(heads), target=_target(device))
    found = saved.load(key, _loader(device))
    halves = None if found is None else _connected(*found, graph, heads)
    if halves is None:
        cut = split(graph, wrt, heads)
        forward, backward = (_compiled(half, device) for half in (cut.forward, cut.backward))
        saved.save(key, [forward, backward], {"reads": cut.reads, "wrt": cut.wrt})
        halves = Halves(forward, backward, cut.reads, cut.wrt)
    return halves


def _placed(programs: list[AnyProgram], notes: Any, graph: Graph) -> Parts | AnyProgram | None:
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


def _takes(program: AnyProgram, graph: Graph) -> bool:
    """Return whether a program from the disk takes and returns what a graph does."""
    inputs = tuple((input_name(v), v.type) for v in graph.inputs)
    return program.table.inputs == inputs and len(program.table.outputs) == len(graph.outputs)


def _connected(
    programs: list[AnyProgram], notes: Any, graph: Graph, heads: tuple[bool, ...]
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

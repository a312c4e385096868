"""Exporting what was traced as a library that needs no Python."""

from __future__ import annotations

import json
import os
import re
import shlex
import struct
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphc.codegen.cpu import CPUS, HOST, named_target
from graphc.codegen.export import linking
from graphc.codegen.export.header import description, header
from graphc.codegen.export.layout import Argument, Export
from graphc.codegen.export.object_code import mathematics, object_code
from graphc.errors import ArgumentError, GraphcError, nearest, user_location
from graphc.frontend.array import mode
from graphc.frontend.build import build_program
from graphc.frontend.formats.arrays import refused, save_arrays
from graphc.frontend.formats.atomic import atomic_write
from graphc.frontend.jit import Jit
from graphc.frontend.memory import on_host
from graphc.frontend.traced import Traced
from graphc.ir.dim import symbols
from graphc.ir.graph import input_name
from graphc.ir.loop import Kernel
from graphc.ir.table import table_of
from graphc.ir.target import Target
from graphc.passes.hoist import hoist
from graphc.passes.manager import compile_graph

VERSION = str(sys.modules["graphc"].__version__)
TARGETS = (HOST, *CPUS)
INSIDE, BESIDE = WEIGHTS = ("inside", "beside")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class ExportedLibrary:
    """The files of an exported library.

    Attributes
    ----------
    name : str
        What the names of its functions begin with.
    header, description : Path
        ``NAME.h`` and ``NAME.json``.
    library : Path or None
        ``libNAME.so``; None where it was not linked.
    code : Path or None
        The object file, where it was not linked.
    script : Path or None
        Shell script with the command that links it, where it was not linked.
    weights : Path or None
        The file of weights, if they lie beside the library.
    command : tuple of str
        What links the library, in its folder.
    """

    name: str
    header: Path
    description: Path
    library: Path | None
    code: Path | None
    script: Path | None
    weights: Path | None
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choices:
    """What a user chose: where to, and how."""

    folder: Path
    name: str
    target_name: str
    target: Target
    beside: bool
    link: bool
    linker: str


def chosen(
    path: str | os.PathLike[str], target: str, weights: str, link: bool, linker: str | None
) -> Choices:
    """Check how a library is to be made.

    Raises
    ------
    ArgumentError
        Names what is not accepted.
    """
    folder, name = os.path.split(os.fspath(path))
    if not _NAME.fullmatch(name):
        raise ArgumentError(
            f"a library cannot be called {name!r}: functions in C are named after it",
            remedy="Give a path whose last part is letters, digits and underscores, without a "
            'suffix: "out/lenet" makes out/liblenet.so.',
            where=user_location(),
        )
    if target not in TARGETS:
        raise ArgumentError(
            f"there is no target {target!r}.{nearest(str(target), TARGETS)}",
            remedy=f"Targets are {', '.join(TARGETS)}.",
            where=user_location(),
        )
    if weights not in WEIGHTS:
        raise ArgumentError(
            f"weights cannot lie {weights!r}.{nearest(str(weights), WEIGHTS)}",
            remedy='They lie "inside" the library or "beside" it.',
            where=user_location(),
        )
    found = named_target(target)
    beside = weights == BESIDE
    return Choices(
        Path(folder), name, target, found, beside, link, linker or linking.linker_of(found)
    )


@contextmanager
def predicting() -> Iterator[None]:
    """Trace for prediction, whatever scope of autograd the caller is in."""
    before = mode.recording, mode.training
    mode.recording = mode.training = False
    try:
        yield
    finally:
        mode.recording, mode.training = before


def known_trace(program: Jit) -> Traced:
    """Return the trace of calls that were made, if they were of one kind.

    Raises
    ------
    ArgumentError
        If there was none in prediction mode, or several.
    """
    traces = [traced for traced in program.traces if not traced.key[2] and traced.fits()]
    if len(traces) == 1:
        return traces[0]
    name = program.name
    problem = (
        f"{name} was called with {len(traces)} kinds of inputs, of which a library takes one"
        if traces
        else f"{name} was not called for prediction yet, so its inputs are not known"
    )
    raise ArgumentError(
        problem,
        remedy="Give an example of each input behind the path: "
        'net.export_library("model", nd.zeros((1, 3, 32, 32))).',
        where=user_location(),
    )


def export_library(
    function: Jit, path: str | os.PathLike[str], *examples: Any, target: str = HOST,
    weights: str = INSIDE, link: bool = True, linker: str | None = None,
) -> ExportedLibrary:  # fmt: skip
    """Write a compiled function as a shared library that needs no Python.

    Parameters
    ----------
    function : Jit
        What `graphc.compile` returned. Networks have a method of this name.
    path : path-like
        ``"out/lenet"`` makes ``out/liblenet.so``, ``out/lenet.h``, which says how to call it, and
        ``out/lenet.json``.
    *examples : NDArray
        What the function is called with; only shapes and types matter. Not needed where it was
        called for prediction with one kind of inputs before.
    target : {"host", "x86-64-v3", "x86-64-v4", "aarch64"}
        Processor: this one, or a kind.
    weights : {"inside", "beside"}
        Where the arrays that the function refers to go: into the library, or to
        ``out/lenet.safetensors``.
    link : bool
        False leaves the object file, and a script with the command that links it.
    linker : str, optional
        C compiler to link with; by default ``cc``.

    Returns
    -------
    ExportedLibrary
        The files.

    Raises
    ------
    ArgumentError
        For an option that is not accepted, inputs that are not known, and a function that draws
        random numbers or changes an array.
    CompileError
        If the linker fails, or a kernel calls Python.
    FileAccessError
        If a file cannot be written.
    """
    if not isinstance(function, Jit):
        raise ArgumentError(
            f"graphc.export_library takes a compiled function, got a {type(function).__name__}",
            remedy="Pass graphc.compile(function); networks are exported by "
            'net.export_library("model").',
            where=user_location(),
        )
    choices = chosen(path, target, weights, link, linker)
    with predicting():
        traced = function.trace(*examples)[0] if examples else known_trace(function)
    _check(traced, choices.name)
    export, kernels, arrays = _program(traced, choices)
    try:
        return _written(export, kernels, arrays, choices)
    except OSError as error:
        if isinstance(error, GraphcError):
            raise
        path = os.fspath(error.filename or choices.folder)
        raise refused("write", path, error) from error


def _check(traced: Traced, name: str) -> None:
    """Refuse a program that is more than a function of its arguments."""
    compiled = traced.compiled
    if traced.draws:
        raise ArgumentError(
            f"{name} draws random numbers, which an exported library does not",
            remedy="Pass them as an input.",
            where=user_location(),
        )
    if compiled.updated:
        inputs = compiled.graph.inputs
        names = ", ".join(input_name(inputs[i]) for i in compiled.updated)
        raise ArgumentError(
            f"{name} changes {names} when it runs, and an exported library has no state",
            remedy="Take the state as an input and return what it becomes.",
            where=user_location(),
        )


def _program(
    traced: Traced, choices: Choices
) -> tuple[Export, list[Kernel], dict[str, np.ndarray]]:
    """Return the program, its kernels, and its weights by name."""
    graph, fixed = traced.compiled.graph, traced.compiled.fixed
    arrays: dict[int, np.ndarray] = {}
    for place, current, *_ in traced.captured:
        arrays[place] = on_host(current()._array)
    cut = hoist(graph, fixed)
    prepared: list[np.ndarray] = []
    rest, main = tuple(range(len(graph.inputs))), graph
    if cut is not None:
        # For a foreign target too: what is prepared depends on none.
        prepared = build_program(cut.prepare)([arrays[place] for place in cut.given])
        rest, main = cut.rest, cut.main
    plan = compile_graph(main, choices.target)
    table = table_of(plan, ["" for _ in plan.launches])  # a library has no keys
    given = dict(traced.given)
    weights = dict(enumerate(prepared))
    inputs = {}
    for position, place in enumerate(rest, len(prepared)):
        name, kind = table.inputs[position]
        if place in given:
            inputs[given[place]] = Argument(name, kind, position)
        else:
            weights[position] = np.asarray(arrays[place], order="C")
    names = ["output"] if len(table.outputs) == 1 else [
        f"output{i}" for i in range(len(table.outputs))
    ]
    outputs = tuple(
        Argument(name, kind, place)
        for name, (place, kind) in zip(names, table.outputs, strict=True)
    )
    ordered = tuple(inputs[number] for number in sorted(inputs))
    sizes = {name for a in ordered for size in a.type.shape for name in symbols(size)}
    facts = tuple(f for f in graph.constraints if symbols(f.left) | symbols(f.right) <= sizes)
    export = Export(choices.name, table, ordered, outputs, weights, facts)
    named = {table.inputs[position][0]: array for position, array in weights.items()}
    return export, [launch.kernel for launch in plan.launches], named


def _written(
    export: Export, kernels: Sequence[Kernel], arrays: Mapping[str, np.ndarray], choices: Choices
) -> ExportedLibrary:
    """Compile a program and write all its files."""
    folder, name, target = choices.folder, choices.name, choices.target
    weights = folder / f"{name}.safetensors" if choices.beside and arrays else None
    if weights is not None:
        save_arrays(weights, dict(arrays))
        export = _read_from(weights, export)
    code = object_code(export, kernels, target)
    library, compiled = linking.library_name(name, target), f"{name}.o"
    with_math = mathematics(code, target)
    command = linking.command(choices.linker, target, library, compiled, with_math)
    beside = weights.name if weights else None
    texts = {
        f"{name}.h": header(export, f"{choices.target_name}, {target.cpu}", VERSION, beside),
        f"{name}.json": _json(export, choices, beside, library, command),
    }
    for file, text in texts.items():
        _write(folder / file, text.encode())
    linked = choices.link and linking.found(choices.linker)
    if linked:
        _link(code, choices, library, with_math)
    else:
        _write(folder / compiled, code)
        _write(folder / f"{name}-link.sh", _script(command).encode())
    if choices.link and not linked:
        warnings.warn(
            f"there is no {choices.linker} to link {library}: {folder / compiled} was written, and "
            f"{name}-link.sh, which links it where there is one",
            stacklevel=4,
        )
    return ExportedLibrary(
        name,
        folder / f"{name}.h",
        folder / f"{name}.json",
        folder / library if linked else None,
        None if linked else folder / compiled,
        None if linked else folder / f"{name}-link.sh",
        weights,
        tuple(command),
    )


def _read_from(path: Path, export: Export) -> Export:
    """Return the program with its weights in a file: where each lies."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        text = file.read(length)
    entries = json.loads(text)
    spans = {}
    for position in export.weights:
        begin, end = entries[export.table.inputs[position][0]]["data_offsets"]
        spans[position] = begin, end - begin
    in_order = dict(sorted(spans.items(), key=lambda item: item[1]))
    return replace(export, header=struct.pack("<Q", length) + text, spans=in_order)


def _json(
    export: Export, choices: Choices, weights: str | None, library: str, command: Sequence[str]
) -> str:
    data = description(export, choices.target_name, choices.target, VERSION)
    data["library"], data["header"] = library, f"{choices.name}.h"
    data["weights"] = weights
    data["link"] = list(command)
    return json.dumps(data, indent=2) + "\n"


def _script(command: Sequence[str]) -> str:
    return f'#!/bin/sh\ncd "$(dirname "$0")" && {shlex.join(command)}\n'


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def _link(code: bytes, choices: Choices, library: str, with_math: bool) -> None:
    """Link into a folder of its own first: a failure leaves what was there."""
    with tempfile.TemporaryDirectory(dir=choices.folder, prefix=f".{choices.name}.") as folder:
        compiled, made = Path(folder) / f"{choices.name}.o", Path(folder) / library
        compiled.write_bytes(code)
        linking.run(
            linking.command(
                choices.linker, choices.target, str(made), str(compiled), with_math
            )
        )
        os.replace(made, choices.folder / library)

"""Programs on disk: a traced graph's key to its launch tables, so that a warm start runs no pass.

The key is the graph's text with the user's lines, the target, the engine and the versions of
whatever makes code of a graph. An entry that is damaged, or names a kernel that the cache no longer
holds, is a miss. Tables are read and written by `graphc.ir.table`; nothing in them is evaluated.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from functools import cache as remember
from pathlib import Path
from typing import Any

import numpy as np

from graphc import config
from graphc.codegen import cache, compiler, counters
from graphc.codegen.cpu import host_target
from graphc.errors import GraphcError
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph
from graphc.ir.table import LaunchTable, read_tables, write_tables
from graphc.ir.target import Target
from graphc.runtime.device_program import DeviceProgram
from graphc.runtime.program import Program

_MAKERS = ("ir", "passes", "codegen")
"""The rooms whose source decides what a graph becomes."""


def key_of(graph: Graph, *more: str, target: Target | None = None) -> str | None:
    """Return the key of what is compiled from a graph; None without a cache, or without a text.

    Parameters
    ----------
    graph : Graph
        As traced, before any pass.
    *more : str
        What else decides, such as the inputs to differentiate by.
    target : Target, optional
        By default the CPU.
    """
    if not config.current().cache:
        return None
    try:
        text = print_graph(graph)
    except GraphcError:  # an attribute without a form in text
        return None
    files = "\n".join(_files(graph))  # the text has them without their folders
    options = config.current()
    made_for = target or host_target()
    engine = compiler.engine_for(made_for).NAME
    chosen = repr(made_for), engine, f"winograd={options.winograd}"
    return cache.key_of("program", text, files, *chosen, versions(engine), *more)


def _files(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        yield "" if node.where is None else node.where.file
        for item in node.attrs.values():
            if isinstance(item, Graph):
                yield from _files(item)


@remember
def versions(engine: str) -> str:
    """Return what the tables of an unchanged graph depend on: packages, and graphc itself."""
    root = Path(__file__).parent.parent
    paths = sorted(path for room in _MAKERS for path in (root / room).rglob("*.py"))
    sources = [f"{path.relative_to(root)}\n{path.read_text(encoding='utf-8')}" for path in paths]
    networkx = importlib.metadata.version("networkx")
    return cache.key_of(compiler.versions(engine), np.__version__, networkx, *sources)


def load(
    key: str | None, loaded: Callable[[LaunchTable], Any] = Program.loaded
) -> tuple[list[Any], Any] | None:
    """Return the programs and notes that were saved under a key, or None.

    With the option ``verify`` there is never anything: what is to be checked must be made.

    Parameters
    ----------
    key : str or None
    loaded : callable
        Returns the program of a table, or None if one of its kernels is gone; by default for the
        CPU.
    """
    if key is None or config.current().verify:
        return None
    content = cache.get(key)
    if content is None:
        return None
    try:
        tables, notes = read_tables(content)
    except ValueError:
        return None
    programs = []
    for table in tables:
        program = loaded(table)
        if program is None:
            return None
        programs.append(program)
    counters.add("programs_loaded", len(programs))
    return programs, notes


def save(key: str | None, programs: Sequence[Program | DeviceProgram], notes: Any = None) -> None:
    """Keep programs, and notes that JSON can hold, for the next process."""
    if key is None:
        return
    try:
        content = write_tables([program.table for program in programs], notes)
    except ValueError:  # a check with an attribute that has no form on disk
        return
    cache.put(key, content)

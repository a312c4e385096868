"""Lines for what no line of the user's file calls: ``graphc dump`` calls the object itself."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from graphc.errors import Location
from graphc.ir.graph import Graph, Node, Value, rewrite


def definition(path: Path, name: str) -> Location:
    """Return the line of a Python file that makes the object ``name``, else its first line."""
    first = name.partition(".")[0]
    line = 1
    for statement in ast.parse(path.read_bytes()).body:
        for node in ast.walk(statement):
            named = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            if named and node.id == first:  # type: ignore[attr-defined]
                line = statement.lineno
        if getattr(statement, "name", "") == first:
            line = statement.lineno
    return Location(str(path), line)


def relocated(graph: Graph, outer: Location, place: Location) -> Graph:
    """Return the graph with ``place`` where the line ``outer``, the command's own, stands.

    Parameters
    ----------
    graph : Graph
    outer, place : Location
    """

    def moved(where: Location | None) -> Location | None:
        if where is None or (where.file, where.line) != (outer.file, outer.line):
            return where
        return Location(place.file, place.line, where.scope)

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        return Node(node.op, inputs, node.attrs, node.types, moved(node.where)).outputs

    facts = tuple(replace(fact, where=moved(fact.where)) for fact in graph.constraints)
    found = rewrite(graph, visit)
    return found.with_results(found.results, constraints=facts)

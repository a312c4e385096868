"""Graphs and memory plans as text.

One value per line, numbered, type last, attributes sorted, the user's line as a comment::

    graph @mlp(%x0: f32[B, 784], %0.weight: f32[10, 784])  # B: any size
      %0 = matmul %x0, %0.weight {transpose_a=False, transpose_b=True} : f32[B, 10]  # mlp.py:9
      return %0

`graphc.ir.parser.parse_graph` reads it back: printing what was parsed gives the same bytes. There
are no ids or addresses in it, so equal programs print alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.ir.dim import symbols
from graphc.ir.graph import Graph, Node, Value, input_name
from graphc.ir.plan import Plan
from graphc.ir.text import (
    attribute_text,
    input_text,
    name_text,
    with_location,
)

WIDTH = 98
"""Columns that a header with all its inputs may take in one line."""
_INDENT = "  "


def print_graph(graph: Graph) -> str:
    """Return the text of a graph, with a newline at its end."""
    return "\n".join(_graph_lines(graph, "", "")) + "\n"


def value_names(graph: Graph) -> dict[Value, str]:
    """Return what each input and each result of a node is called in the graph's text."""
    names = {value: input_text(input_name(value)) for value in graph.inputs}
    values = (value for node in graph.nodes for value in node.outputs)
    names.update((value, f"%{number}") for number, value in enumerate(values))
    return names


def size_names(graph: Graph) -> list[str]:
    """Return the size variables of a graph's inputs, in order of appearance."""
    found = (
        name for value in graph.inputs for dim in value.shape for name in sorted(symbols(dim))
    )
    return list(dict.fromkeys(found))


def _graph_lines(graph: Graph, indent: str, title: str) -> list[str]:
    inner = indent + _INDENT
    names = value_names(graph)
    lines = _header(graph, indent, title)
    for fact in graph.constraints:
        line = f"{inner}where {fact.left} == {fact.right}"
        lines.append(with_location(line, fact.where))
    for node in graph.nodes:
        lines.append(with_location(inner + _node_text(node, names), node.where))
        for key in sorted(node.attrs):
            body = node.attrs[key]
            if isinstance(body, Graph):
                lines += _graph_lines(body, inner + _INDENT, f"{key} = ")
    for target, new in graph.updates:
        lines.append(f"{inner}update {_name(target, names)} = {_name(new, names)}")
    results = ", ".join(_name(value, names) for value in graph.outputs)
    lines.append(f"{inner}return {results or '()'}")
    return lines


def _header(graph: Graph, indent: str, title: str) -> list[str]:
    start = f"{indent}{title}graph @{name_text(graph.name)}("
    inputs = [f"{input_text(input_name(v))}: {v.type}" for v in graph.inputs]
    sizes = "" if title else ", ".join(size_names(graph))
    comment = f"  # {sizes}: any size" if sizes else ""
    line = f"{start}{', '.join(inputs)})"
    if len(line) <= WIDTH:
        return [line + comment]
    return [start, *(f"{indent}{_INDENT * 2}{text}," for text in inputs), f"{indent}){comment}"]


def _node_text(node: Node, names: Mapping[Value, str]) -> str:
    results = ", ".join(names[value] for value in node.outputs)
    operands = ", ".join(_name(value, names) for value in node.inputs)
    attrs = ", ".join(
        f"{key}={attribute_text(item)}"
        for key, item in sorted(node.attrs.items())
        if not isinstance(item, Graph)
    )
    types = ", ".join(map(str, node.types))
    parts = [f"{results} = {node.op.name}", operands, f"{{{attrs}}}" if attrs else "", f": {types}"]
    return " ".join(part for part in parts if part)


def _name(value: Value, names: Mapping[Value, str]) -> str:
    """Return a value's name; a graph that verify refuses may use an input it does not declare."""
    if value in names:
        return names[value]
    return input_text(input_name(value)) if value.op_name == "input" else "%?"


# -- memory plans ----------------------------------------------------------------------------


def print_plan(plan: Plan, sizes: Mapping[str, int]) -> str:
    """Return the memory plan of a program at concrete sizes: what lives where, and when.

    The launches, whose numbers ``live`` counts in, come below it.

    Parameters
    ----------
    plan : Plan
    sizes : mapping of str to int
        A value for every size variable of the graph.
    """
    memory = plan.memory(sizes)
    names = value_names(plan.graph)
    bound = "".join(f" {name}={size}" for name, size in sorted(sizes.items()))
    places = len({(slot.offset, slot.n_bytes) for slot in memory.slots})
    lines = [
        f"plan @{name_text(plan.graph.name)}{bound}: arena {bytes_text(memory.arena_bytes)} in "
        f"{places} slots ({bytes_text(memory.unshared_bytes)} without reuse)"
    ]
    rows = [("offset", "bytes", "live", "value")]
    for slot in sorted(memory.slots, key=lambda slot: (slot.first, slot.offset)):
        live = f"{slot.first}..{slot.last}"
        value = f"{_name(slot.value, names)} {slot.value.type}"
        rows.append((str(slot.offset), str(slot.n_bytes), live, value))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines += [
        f"  {a:>{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}" for a, b, c, d in rows
    ]
    return "\n".join(lines + _launch_lines(plan, names)) + "\n"


def _launch_lines(plan: Plan, names: Mapping[Value, str]) -> list[str]:
    lines = ["launches"]
    for number, launch in enumerate(plan.launches):
        results = ", ".join(
            f"{names[v]} in place of {names[plan.root[v]]}"
            if plan.root.get(v, v) != v
            else _name(v, names)
            for v in launch.writes
        )
        lines.append(f"  {number:>3}  {launch.label} -> {results}")
    return lines


def bytes_text(n_bytes: int) -> str:
    """Return a number of bytes for people: ``640 B``, ``6.4 MB`` (powers of 1000)."""
    size, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{n_bytes} B" if unit == "B" else f"{size:.1f} {unit}"


__all__ = [
    "bytes_text",
    "print_graph",
    "print_plan",
    "size_names",
    "value_names",
]

"""Graphs as Graphviz DOT text."""

from __future__ import annotations

import json

from graphc.ir.graph import Graph, Value
from graphc.ir.printer import value_names
from graphc.ir.text import location_text

_LABEL = 60


def print_dot(graph: Graph) -> str:
    """Return a graph as DOT text; fusion groups are boxes of their own.

    Parameters
    ----------
    graph : Graph

    Returns
    -------
    str
        For ``dot -Tsvg``; names are quoted, so that none can be syntax.
    """
    lines = [f"digraph {json.dumps(graph.name)} {{", "  node [shape=box, fontname=monospace];"]
    lines += _graph_lines(graph, "", "  ")
    return "\n".join([*lines, "}"]) + "\n"


def _graph_lines(graph: Graph, prefix: str, indent: str) -> list[str]:
    names = value_names(graph)
    lines = []
    for value in graph.inputs:
        lines.append(_vertex(indent, prefix, names, value, "", "ellipse"))
    for node in graph.nodes:
        body = node.attrs.get("body")
        label = str(node.attrs.get("label", node.op.name))
        lines.append(_vertex(indent, prefix, names, node.outputs[0], label, "box"))
        target = _identity(prefix, names[node.outputs[0]])
        for operand in node.inputs:
            source = _identity(prefix, _owner(names, operand))
            kind = json.dumps(str(operand.type))
            lines.append(f"{indent}{source} -> {target} [label={kind}];")
        if isinstance(body, Graph):
            inner = f"{prefix}{names[node.outputs[0]]}/"
            lines.append(f"{indent}subgraph {json.dumps('cluster' + inner)} {{")
            lines.append(f"{indent}  label={json.dumps(label)};")
            lines += _graph_lines(body, inner, indent + "  ")
            lines.append(f"{indent}}}")
    return lines


def _owner(names: dict[Value, str], value: Value) -> str:
    return names[value.node.outputs[0]]


def _identity(prefix: str, name: str) -> str:
    return json.dumps(prefix + name)


def _vertex(
    indent: str, prefix: str, names: dict[Value, str], value: Value, label: str, shape: str
) -> str:
    text = f"{names[value]} {label}".strip()
    text = text if len(text) <= _LABEL else text[: _LABEL - 3] + "..."
    where = value.node.where
    tip = "" if where is None else f", tooltip={json.dumps(location_text(where))}"
    return (
        f"{indent}{_identity(prefix, names[value])} [label={json.dumps(text)}, shape={shape}{tip}];"
    )

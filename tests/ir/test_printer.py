"""Graphs, kernels and plans as text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from sample_graphs import TARGET, lenet_step, mlp_step, node, odd_graph, op, random_graph

from graphc.errors import GraphcError, Location
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Node, Value, placeholder, rewrite
from graphc.ir.kernel_printer import print_kernel
from graphc.ir.printer import bytes_text, print_graph, print_plan, size_names, value_names
from graphc.ir.text import attribute_text, input_text, location_text, name_text
from graphc.ir.types import TensorType, float32, float64, tensor_type
from graphc.passes.canonicalize import canonicalize
from graphc.passes.fuse import fuse
from graphc.passes.lower import lower
from graphc.passes.manager import compile_graph

Golden = Callable[[str, str], None]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x", "x"),
        ("0.weight", "0.weight"),
        ("conv0_weight", "conv0_weight"),
        ("a b", '"a b"'),
        ('"; import os; ...', '"\\"; import os; ..."'),
        ("new\nline", '"new\\nline"'),
        ("größe", '"gr\\u00f6\\u00dfe"'),
        ("", '""'),
        ("x" * 10_000, "x" * 10_000),
        ("-" * 10_000, '"' + "-" * 10_000 + '"'),
    ],
)
def test_names_are_plain_or_quoted(name: str, text: str) -> None:
    assert name_text(name) == text


def test_an_input_of_digits_is_not_a_result() -> None:
    assert input_text("0") == '%"0"'
    assert input_text("0.weight") == "%0.weight"


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (3, "3"),
        (True, "True"),
        (None, "None"),
        (0.1, "0.1"),
        (-0.0, "-0.0"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        ('a"b', '"a\\"b"'),
        (float32, "f32"),
        (TensorType(float64, (2, symbol("B"))), "f64[2, B]"),
        ((), "()"),
        ((1,), "(1,)"),
        ((1, (2.0, "x")), '(1, (2.0, "x"))'),
        ([1, 2], "[1, 2]"),
        (symbol("B") * 2 + 1, "B*2 + 1"),
        (symbol("f32") + 1, "size(f32 + 1)"),
        (symbol("nan"), "size(nan)"),
    ],
)
def test_attributes(item: object, text: str) -> None:
    assert attribute_text(item) == text


def test_an_attribute_without_a_form_is_an_error() -> None:
    with pytest.raises(GraphcError, match="type object has no form"):
        attribute_text(object())


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (Location("/home/me/lenet.py", 7, "net.conv0"), "lenet.py:7 net.conv0"),
        (Location("C:\\me\\lenet.py", 7), "lenet.py:7"),
        (Location("<stdin>", 1), "<stdin>:1"),
        (Location("my file.py", 1, "a\nb"), '"my file.py":1 "a\\nb"'),
    ],
)
def test_locations(where: Location, text: str) -> None:
    assert location_text(where) == text


def test_a_graph_is_printed_line_by_line() -> None:
    x = placeholder("x", TensorType(float32, (symbol("B"), 3)))
    exp = op("exp", x).node
    located = Node(exp.op, (x,), {}, exp.types, Location("mlp.py", 9, "net")).outputs[0]
    total = node("sum", located, axis=(1,), dtype=None, keepdims=False)[0]
    text = print_graph(Graph("g", (x,), (total,)))
    assert text == (
        "graph @g(%x: f32[B, 3])  # B: any size\n"
        "  %0 = exp %x : f32[B, 3]" + " " * 51 + "  # mlp.py:9 net\n"
        "  %1 = sum %0 {axis=(1,), dtype=None, keepdims=False} : f32[B]\n"
        "  return %1\n"
    )


def test_text_has_no_traces_of_identity() -> None:
    assert print_graph(mlp_step()) == print_graph(mlp_step())
    assert " at 0x" not in print_graph(mlp_step())


def test_an_undeclared_input_does_not_stop_the_printer() -> None:
    x, stray = (placeholder(n, tensor_type("float32", (2,))) for n in ("x", "stray"))
    assert "add %x, %stray" in print_graph(Graph("broken", (x,), (x + stray,)))


def test_size_and_value_names() -> None:
    graph = mlp_step()
    assert size_names(graph) == ["B"]
    names = value_names(graph)
    assert names[graph.inputs[3]] == "%0.weight"
    assert sorted(int(n[1:]) for n in names.values() if n[1:].isdigit()) == list(
        range(len(graph.nodes))
    )


def test_every_line_of_a_printed_graph_is_ascii_and_has_no_hostile_text() -> None:
    text = print_graph(odd_graph())
    assert text.isascii()
    assert '\n"; import' not in text and text.count("\n") < 100


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0 B"), (999, "999 B"), (6_400_000, "6.4 MB"), (10**15, "1000.0 TB")]
)
def test_bytes_are_for_people(n_bytes: int, text: str) -> None:
    assert bytes_text(n_bytes) == text


def test_golden_graphs(golden: Golden) -> None:
    golden(print_graph(strip(mlp_step())), "ir/mlp_step.graph")


def test_golden_plan(golden: Golden) -> None:
    plan = compile_graph(mlp_step(), TARGET)
    text = print_plan(plan, {"B": 64})
    assert text.startswith("plan @mlp_step B=64: arena ")
    golden(text, "passes/plan_mlp_step.txt")


def test_golden_lowered_kernels(golden: Golden) -> None:
    plan = compile_graph(strip(mlp_step()), TARGET)
    texts = []
    for launch in plan.launches:
        kernel = lower(launch.node.attrs["body"], launch.kernel.name).kernel
        texts.append(print_kernel(replace(kernel, where=None), launch.label))
    golden("\n".join(texts), "ir/lowered_mlp_step.txt")


def test_golden_scheduled_kernels(golden: Golden) -> None:
    # Contractions have goldens of their own; these are the rest of the step.
    plan = compile_graph(strip(mlp_step()), TARGET)
    chosen = [launch for launch in plan.launches if "matmul" not in launch.label]
    assert chosen
    texts = [print_kernel(replace(c.kernel, where=None), c.label) for c in chosen]
    golden("\n".join(texts), "ir/kernels_mlp_step.txt")


@pytest.mark.parametrize("make", [lenet_step, *(partial(random_graph, s) for s in range(5))])
def test_kernels_of_models_print_each_name_before_its_use(make: Callable[[], Graph]) -> None:
    plan = compile_graph(make(), TARGET)
    for launch in plan.launches:
        for kernel in (launch.kernel, lower(launch.node.attrs["body"], "k").kernel):
            text = print_kernel(kernel)
            assert undefined_names(text) == set(), text


def test_a_name_out_of_its_block_is_found() -> None:
    assert undefined_names("  t0 = 1.0\n  o0[0] = t0 + t1\n") == {"t1"}
    assert undefined_names("  t0 = sum over r0 in 0..2:\n    t1 = 1.0\n  o0[0] = t1\n") == {"t1"}


def undefined_names(text: str) -> set[str]:
    """Return temporaries that a kernel's text reads where they are not in scope."""
    found: set[str] = set()
    scopes: list[tuple[int, set[str]]] = []
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        scopes = [scope for scope in scopes if scope[0] <= depth]
        if not scopes or scopes[-1][0] < depth:
            scopes.append((depth, set()))
        target, equals, value = line.strip().partition(" = ")
        known = set().union(*(names for _, names in scopes))
        used = set(re.findall(r"\bt\d+\b", value if equals else line))
        found |= used - known
        if re.fullmatch(r"t\d+", target):
            scopes[-1][1].add(target)
    return found


def test_passes_do_not_change_what_a_text_says_of_updates() -> None:
    text = print_graph(fuse(canonicalize(mlp_step())))
    assert text.count("  update %") == 4


def strip(graph: Graph) -> Graph:
    """Return a graph without locations, whose lines would change with every edit of a test."""

    def visit(n: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        return Node(n.op, inputs, n.attrs, n.types).outputs

    return rewrite(graph, visit)

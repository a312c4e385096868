"""Text back to graphs: the same bytes when printed, and one error for each fault."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sample_graphs import (
    RECORDS,
    lenet_step,
    mlp_step,
    odd_graph,
    random_graph,
    record_graphs,
)

from graphc.errors import Location, ParseError
from graphc.ir.graph import Graph
from graphc.ir.interp import interpret
from graphc.ir.parser import parse_graph
from graphc.ir.printer import print_graph
from graphc.ir.verify import verify
from graphc.passes.canonicalize import canonicalize
from graphc.passes.fuse import fuse


def check_round_trip(graph: Graph) -> None:
    text = print_graph(graph)
    again = parse_graph(text)
    assert print_graph(again) == text


def stages(graph: Graph) -> list[Graph]:
    canonical = canonicalize(graph)
    return [graph, canonical, fuse(canonical)]


@pytest.mark.parametrize("name", RECORDS)
def test_records_round_trip(name: str) -> None:
    for graph in record_graphs(name):
        check_round_trip(graph)


@pytest.mark.parametrize("make", [mlp_step, lenet_step])
def test_training_steps_round_trip(make: object) -> None:
    assert callable(make)
    for graph in stages(make()):
        check_round_trip(graph)
        verify(parse_graph(print_graph(graph)))


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_round_trip(seed: int) -> None:
    for graph in stages(random_graph(seed)):
        check_round_trip(graph)


def test_odd_names_constants_and_sizes_round_trip() -> None:
    graph = odd_graph()
    check_round_trip(graph)
    again = parse_graph(print_graph(graph))
    assert again.name == graph.name
    assert again.input_names() == graph.input_names()
    assert [str(c) for c in again.constraints] == [str(c) for c in graph.constraints]


def test_a_parsed_graph_computes_the_same() -> None:
    graph = mlp_step()
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 10, 3).astype(np.int32)
        if v.dtype.integer
        else np.asarray(rng.normal(size=[3 if not isinstance(d, int) else d for d in v.shape]))
        for v in graph.inputs
    ]
    for a, b in zip(
        interpret(graph, arrays),
        interpret(parse_graph(print_graph(graph)), arrays),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_locations_are_read_back() -> None:
    text = (
        "graph @g(%x: f32[3])\n"
        "  where B == 3  # model.py:4\n"
        '  %0 = exp %x : f32[3]  # "my file.py":12 net.a\n'
        "  %1 = exp %0 : f32[3]  # a remark, no place\n"
        "  return %1\n"
    )
    graph = parse_graph(text)
    assert graph.nodes[0].where == Location("my file.py", 12, "net.a")
    assert graph.nodes[1].where is None
    assert graph.constraints[0].where == Location("model.py", 4)


def test_layout_is_free() -> None:
    text = "graph@g(\n%x :f32[ 3 ],\n)%0=exp%x:f32[3] return %0"
    assert print_graph(parse_graph(text)).startswith("graph @g(%x: f32[3])\n  %0 = exp %x")


def test_a_graph_may_return_nothing() -> None:
    text = "graph @g(%x: f32[3])\n  return ()\n"
    assert print_graph(parse_graph(text)) == text


HEAD = "graph @g(%x: f32[3], %n: i32[3])\n"
DEEP = "(" * 40 + ")" * 40
NESTED = "".join(
    "  " * n + '%0 = fused {label="a"} : f32[]\nbody = graph @b()\n' for n in range(20)
)
FAULTS = [
    ("", "line 1, column 1: expected 'graph', found the end of the text"),
    ("graf @g()", "expected 'graph', found 'graf @g()'"),
    ("graph g()", "expected '@'"),
    ("graph @g", "expected '('"),
    ("graph @g(x: f32[])", "expected '%'"),
    ("graph @g(%x f32[])", "expected ':'"),
    ("graph @g(%x: float33[])", "there is no dtype 'float33'"),
    ("graph @g(%x: f33[])", "there is no dtype 'f33'. Did you mean 'f32'?"),
    ("graph @g(%x: f32)", "expected '['"),
    ("graph @g(%x: f32[2; 3])", "expected a size"),
    ("graph @g(%x: f32[-2])", "a size is not negative"),
    ("graph @g(%x: f32[2//0])", "division by zero"),
    ("graph @g(%x: f32[" + "9" * 5000 + "])", "longer than 4000 characters"),
    ("graph @g(%x: f32[" + "9" * 3000 + "B])", "expected a size"),
    ("graph @g(%x: f32[" + "(" * 500 + "])", "expected a size"),
    ("graph @g(%x: f32[" + "*".join(["(a+b+c+d+e)"] * 20) + "])", "multiplies too many sums"),
    ("graph @g(%x: f32[], %x: f32[])", "two inputs are called 'x'"),
    ('graph @g(%"x: f32[])', "expected a string that ends on its line"),
    ('graph @g(%"\\q": f32[])', "a string with a bad escape"),
    (HEAD, "expected a statement (%0 = ...), 'update' or 'return'"),
    (HEAD + "return %x extra", "expected the end of the text, found 'extra'"),
    (HEAD + "return %y", "%'y' is not an input"),
    (HEAD + "return %3", "%'3' is not a result before this line"),
    (HEAD + "%0 = expp %x : f32[3] return %0", "there is no op 'expp'. Did you mean 'exp'?"),
    (HEAD + "%0 = os.system %x : f32[3] return %0", "there is no op 'os.system'"),
    (HEAD + "%0 = input : f32[3] return %0", "inputs are declared in the first line"),
    (HEAD + "%0 = " + "e" * 10_000 + " %x : f32[3]", "... (10000 characters)"),
    (HEAD + "%0 = exp %0 : f32[3] return %0", "%'0' is not a result before this line"),
    (HEAD + "%0 = exp %x : f32[4] return %0", "exp gives f32[3], the text says f32[4]"),
    (HEAD + "%0 = exp %x : f64[3] return %0", "exp gives f32[3], the text says f64[3]"),
    (HEAD + "%0 = exp %x, %x : f32[3] return %0", "exp does not take these operands"),
    (HEAD + "%0 = add %x, %n : f32[3] return %0", "add takes f64 and f64 here"),
    (HEAD + "%0 = exp : f32[3] return %0", "exp does not take these operands"),
    (HEAD + "%0 = exp %x {} return %0", "expected ':'"),
    (HEAD + "%0 = exp %x {axis=1} : f32[3] return %0", "exp does not take these operands"),
    (HEAD + "%0 = sum %x {axis=9, dtype=None, keepdims=True} : f32[1]", "sum: axis 9 does not"),
    (HEAD + '%0 = sum %x {axis="a"} : f32[1] return %0', "sum"),
    (HEAD + "%0 = sum %x {axis=(0,), axis=1} : f32[1]", "attribute 'axis' is given twice"),
    (HEAD + "%0 = sum %x {axis=(0,} : f32[1]", "expected a number, a string"),
    (HEAD + "%0 = sum %x {axis=(0 1)} : f32[1]", "expected a number"),
    (HEAD + '%0 = sum %x {axis=("a" "b")} : f32[1]', "expected ',' or ')'"),
    (HEAD + "%0 = sum %x {axis=;} : f32[1]", "expected a number, a string, a size"),
    (HEAD + "%0 = sum %x {axis=" + DEEP + "} : f32[1]", "attributes are nested deeper than 32"),
    (HEAD + "%0 = cast %x {dtype=f3x2} : f32[3] return %0", "cast"),
    (HEAD + "%0, %1 = exp %x : f32[3] return %0", "2 results have 1 types"),
    (HEAD + "%00 = exp %x : f32[3] return %0", "a number has no leading zeros"),
    (HEAD + "%0 = exp %x : f32[3] %0 = exp %x : f32[3]", "%'0' is already defined; the next is %1"),
    (HEAD + "%a = exp %x : f32[3]", "expected the number of a result"),
    (HEAD + "%0 = exp %x : f32[3] update %0 = %x return %0", "an update replaces an input"),
    (HEAD + "update %n = %x return %x", "an update of i32[3] by f32[3]"),
    (HEAD + "where B = 3 return %x", "expected '=='"),
    (HEAD + NESTED, "graphs are nested deeper than 16"),
]


@pytest.mark.parametrize(("text", "message"), FAULTS, ids=range(len(FAULTS)))
def test_faults_are_named(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_graph(text)
    said = str(caught.value)
    assert message in said and "line " in said and "column " in said
    assert len(said) < 1000


def test_the_place_of_a_fault_is_exact() -> None:
    with pytest.raises(ParseError, match=r"^m.graph, line 3, column 8: there is no op 'expp'"):
        parse_graph("# a remark\ngraph @g(%x: f32[3])\n  %0 = expp %x : f32[3]\n", "m.graph")


def test_truncated_text_is_an_error_everywhere() -> None:
    text = print_graph(fuse(canonicalize(mlp_step())))
    for end in range(0, len(text) - 1, 50):
        try:
            graph = parse_graph(text[:end])
        except ParseError:
            continue
        # Only the list of results may lose its end and still be a list.
        assert text[:end].rstrip().splitlines()[-1].lstrip().startswith("return"), end
        verify(graph)


def test_damaged_text_never_raises_anything_else() -> None:
    rng = random.Random(0)
    text = print_graph(fuse(canonicalize(mlp_step())))
    alphabet = '%@(){}[]=:,"#\\\n 0129-.eBgx\x00\u2028é'
    for _ in range(1500):
        letters = list(text)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(letters))
            letters[place : place + rng.randrange(3)] = rng.choice(alphabet)
        try:
            graph = parse_graph("".join(letters))
        except ParseError as error:
            assert "line " in str(error)
        else:
            check_round_trip(graph)


def test_nothing_of_a_text_is_executed(capfd: pytest.CaptureFixture[str]) -> None:
    evil = '__import__("os").system("echo executed")'
    for text in (
        evil,
        f"graph @g(%x: f32[{evil}])",
        f"graph @g(%x: f32[3]) %0 = full {{value={evil}}} : f32[3]",
        f'graph @g(%"{evil}": f32[3]) return ()',
    ):
        with pytest.raises(ParseError):
            parse_graph(text)
    assert "executed" not in capfd.readouterr().out

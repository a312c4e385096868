"""Programs on disk: what a second process skips, and entries that are not to be trusted."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc.ir.ops  # noqa: F401
from graphc import config
from graphc.codegen import cache, compiler, counters
from graphc.errors import GraphcError, Location
from graphc.frontend import build
from graphc.frontend.build import build_halves, build_program
from graphc.frontend.trace import trace
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.operand import REGISTRY
from graphc.ir.table import read_tables, table_data, table_from, write_tables
from graphc.ir.types import TensorType, as_dtype
from graphc.runtime import saved

# -- a second process ------------------------------------------------------------------------

WARM = """
from graphc.frontend import build
build.compile_graph = build.split = None  # a pass that ran would fail
"""
MODELS = {
    "compile": """
        fn = graphc.compile(lambda a, b: (nd.dot(a, b).tanh() + a[:, :1]).sum(axis=0))
        print(fn(x, nd.ones((8, 5))).asnumpy().tolist())
        """,
    "hybridized": """
        net.hybridize()
        for _ in range(2):
            with autograd.record():
                loss = loss_fn(net(x), label)
            loss.backward()
            trainer.step(6)
            print(loss.asnumpy().tolist())
        """,
    "train step": """
        step = gluon.TrainStep(net, loss_fn, trainer)
        print([step(x, label).asnumpy().tolist() for _ in range(2)])
        """,
    "symbol": """
        a, w = sym.Variable("a"), sym.Variable("w")
        out = sym.FullyConnected(a, weight=w, no_bias=True, num_hidden=5).tanh()
        grad = nd.zeros((5, 8))
        exe = out.bind(graphc.cpu(), {"a": x, "w": nd.ones((5, 8)) * 0.1}, args_grad={"w": grad})
        exe.forward(is_train=True)
        exe.backward(nd.ones((6, 5)))
        print(exe.outputs[0].asnumpy().tolist(), grad.asnumpy().tolist())
        """,
}
START = """
    import sys
    import graphc
    from graphc import autograd, gluon, nd, sym
    from graphc.gluon import nn
    x = nd.arange(48).reshape((6, 8)) / 48
    label = nd.array([0, 1, 2, 0, 1, 2])
    net = nn.HybridSequential()
    net.add(nn.Dense(7, activation="relu"), nn.Dropout(0.5), nn.Dense(3))
    net.initialize()
    trainer = gluon.Trainer(net.collect_params(), "adam")
    loss_fn = gluon.loss.SoftmaxCrossEntropyLoss()
    """
END = """
stats = graphc.stats()
print(*(int(stats[f"{n}"]) for n in ("programs_loaded", "kernels_compiled", "kernels_loaded")))
print(sorted({"numba", "networkx"} & set(sys.modules)))
"""


def _run(path: Path, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, path],
        env={**os.environ, "GRAPHC_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("model", MODELS)
def test_a_warm_start_runs_no_pass(model: str, tmp_path: Path) -> None:
    script = tmp_path / "model.py"
    body = textwrap.dedent(START) + textwrap.dedent(MODELS[model]) + END
    script.write_text("\n" * WARM.count("\n") + body)
    *cold, counts, _ = _run(script, tmp_path / "cache")
    loaded, compiled, _ = map(int, counts.split())
    assert compiled > 0 and loaded == 0
    script.write_text(WARM + body)
    *warm, counts, modules = _run(script, tmp_path / "cache")
    loaded, compiled, kernels = map(int, counts.split())
    assert loaded > 0 and compiled == 0 and kernels > 0
    assert modules == "[]"
    assert warm == cold


# -- one process -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    with config.options(cache_dir=str(tmp_path), verify=False):
        yield tmp_path / "entries"


def graph_of(function: Callable[..., Any], *kinds: tuple[str, tuple[int, ...]]) -> Graph:
    return trace(function, [TensorType(as_dtype(d), s) for d, s in kinds], "model")


def model() -> Graph:
    def body(table: Value, rows: Value, x: Value) -> tuple[Value, Value]:
        rows = REGISTRY["check_index"](rows, table.shape[0], "row")
        taken = REGISTRY["take"](table, rows)
        return REGISTRY["matmul"](REGISTRY["tanh"](taken), x), REGISTRY["sum"](x * x)

    return graph_of(body, ("float32", (5, 8)), ("int32", (3,)), ("float32", (8, 4)))


def arguments(rows: tuple[int, ...] = (0, 4, 1)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    table, x = (rng.standard_normal(s).astype(np.float32) for s in ((5, 8), (8, 4)))
    return [table, np.array(rows, np.int32), x]


def check(program: Any) -> None:
    table, rows, x = arguments()
    product, total = program([table, rows, x])
    np.testing.assert_allclose(product, np.tanh(table[rows]) @ x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(total, (x * x).sum(), rtol=1e-5)


def forget_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the process as one that has loaded no kernel."""
    monkeypatch.setattr(compiler, "_loaded", {})


def loads(graph: Graph) -> bool:
    """Build a program that must work; return whether it came from the disk."""
    before = counters.stats()["programs_loaded"]
    check(build_program(graph))
    return counters.stats()["programs_loaded"] > before


def test_what_was_saved_is_loaded() -> None:
    assert not loads(model())
    assert loads(model())


def test_tables_read_back_as_they_were() -> None:
    table = build_program(model()).table
    again, notes = read_tables(write_tables([table, table], {"wrt": [0, 2]}))
    assert again == [table, table] and notes == {"wrt": [0, 2]}
    assert any(row.check is not None for row in table.launches)
    assert any(isinstance(life.size, int) is False for life in table.lives)


def test_a_kernel_that_is_gone_is_compiled_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_kernels(monkeypatch)
    table = build_program(model()).table
    for row in table.launches:
        (folder / f"{row.kernel}.entry").unlink()
        forget_kernels(monkeypatch)
        before = counters.stats()["kernels_compiled"]
        assert not loads(model())
        assert counters.stats()["kernels_compiled"] == before + 1
        forget_kernels(monkeypatch)
        assert loads(model())


def test_a_loaded_program_fails_with_the_same_error() -> None:
    first = build_program(model())
    second = build_program(model())
    messages = []
    for program in (first, second):
        with pytest.raises(GraphcError, match="9") as caught:
            program(arguments((0, 9, 1)))
        messages.append((str(caught.value), caught.value.where))
    assert type(second.table) is type(first.table) and messages[0] == messages[1]
    assert messages[0][1].file == __file__


def test_halves_are_loaded_without_a_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_halves()
    monkeypatch.setattr(build, "split", None)
    second = run_halves()
    assert first[:2] == second[:2] and first[1] == (0, 1)
    for a, b in zip(first[2], second[2], strict=True):
        np.testing.assert_array_equal(a, b)


def run_halves() -> tuple[Any, Any, list[np.ndarray]]:
    """Build both halves of a function that does not depend on its last input, and run them."""
    shapes = ((8, 8), (8, 4), (1,))
    graph = graph_of(
        lambda x, w, n: REGISTRY["tanh"](REGISTRY["matmul"](x, w)) * 2.0,
        *(("float32", shape) for shape in shapes),
    )
    halves = build_halves(graph, (0, 1, 2), (True,))
    values = [np.full(shape, 0.25, np.float32) for shape in shapes]
    outputs = halves.forward(values)
    reads = [values[i] if kind == "input" else outputs[1 + i] for kind, i in halves.reads]
    return halves.reads, halves.wrt, halves.backward([*reads, np.ones((8, 4), np.float32)])


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: table.update({key: value})


def _launch(column: int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(table: dict[str, Any]) -> None:
        for row in table["launches"]:
            row[column] = value

    return change


DAMAGE: dict[str, Callable[[dict[str, Any]], None]] = {
    "no name": lambda table: table.pop("name"),
    "name": _set("name", 3),
    "inputs": _set("inputs", [["x", "float32"]]),
    "dtype": lambda table: table["inputs"][0].__setitem__(1, "float33"),
    "negative size": lambda table: table["inputs"][0].__setitem__(2, [-1]),
    "size": lambda table: table["inputs"][0].__setitem__(2, ["__import__('os')"]),
    "deep size": lambda table: table["inputs"][0].__setitem__(2, ["(" * 10_000]),
    "unknown size": lambda table: table["outputs"][0].__setitem__(2, ["nowhere"]),
    "true": _set("updated", [True]),
    "updated": _set("updated", [17]),
    "launches": _set("launches", {"a": 1}),
    "kernel": _launch(0, ["k"]),
    "kernel path": _launch(0, "../../" * 5 + "etc/passwd"),
    "where": _launch(2, ["file", "line", "scope"]),
    "places": _launch(3, [0, 99]),
    "place text": _launch(3, ["0"]),
    "sizes": _launch(4, [["n0", "unknown"]]),
    "extent": _launch(5, "n99"),
    "division": _launch(6, "n0 // 0"),
    "check": _launch(7, ["exec", {}]),
    "check of nothing": _launch(7, ["tanh", {}]),
    "arena": _set("arena", [[7, 7, "B"]]),
    "owner": lambda table: table["arena"][0].__setitem__(1, 99),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_no_table_is_a_miss(name: str) -> None:
    table = build_program(model()).table
    data = table_data(table)
    DAMAGE[name](data)
    key = saved.key_of(model())
    assert key is not None
    cache.put(key, json.dumps({"tables": [data], "notes": None}).encode())
    assert not loads(model())
    assert loads(model()), "the entry was written anew"


@pytest.mark.parametrize("content", [
    b"", b"\x80\x04K\x01.", b"[]", b"{}", b"null", b'{"tables": 1, "notes": 2}', b"\xff\xfe",
    b'{"tables": [], "notes": null}', b"[" * 100_000, b'{"tables": [[]], "notes": null}',
])  # fmt: skip
def test_other_content_is_a_miss(content: bytes) -> None:
    key = saved.key_of(model())
    assert key is not None
    cache.put(key, content)
    assert not loads(model())


@pytest.mark.parametrize("notes", [
    None, [], {"reads": 1, "wrt": [0]}, {"reads": [], "wrt": "x"}, {"reads": [["input"]]},
    {"reads": [["nothing", 0]], "wrt": [0]}, {"reads": [["saved", 99]], "wrt": [0]},
    {"reads": [[[], 0]], "wrt": [0]}, {"reads": [["input", 0.5]], "wrt": [[]]},
    {"reads": [["input", -1]], "wrt": [0]}, {"reads": [["input", 0]], "wrt": [0, 99]},
])  # fmt: skip
def test_halves_that_do_not_connect_are_a_miss(notes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run_halves()
    kept: list[tuple[str, bytes]] = []
    monkeypatch.setattr(cache, "put", lambda key, data: kept.append((key, data)))
    with config.options(verify=True):  # looks nothing up
        run_halves()
    monkeypatch.undo()
    ((key, content),) = kept
    cache.put(key, json.dumps({**json.loads(content), "notes": notes}).encode())
    found = run_halves()
    assert found[:2] == expected[:2]
    np.testing.assert_array_equal(found[2][0], expected[2][0])


def test_keys_depend_on_what_decides_the_code() -> None:
    graph = model()
    keys = [saved.key_of(graph), saved.key_of(graph, "halves", "(0,)"), saved.key_of(graph, "(0,)")]
    keys.append(saved.key_of(dataclasses.replace(graph, name="other")))
    keys.append(saved.key_of(dataclasses.replace(graph, outputs=graph.outputs[:1])))
    for where in (Location("/elsewhere/test_saved.py", 1), Location(__file__, 1), None):
        moved = [
            Value(Node(v.node.op, v.node.inputs, v.node.attrs, v.node.types, where), v.index)
            for v in graph.outputs
        ]
        keys.append(saved.key_of(graph.with_results(moved)))
    assert None not in keys and len(set(keys)) == len(keys)
    assert saved.key_of(model()) == saved.key_of(model())


def test_a_graph_without_a_text_is_compiled_and_not_kept(folder: Path) -> None:
    graph = model()
    node = graph.outputs[0].node
    attrs = {**node.attrs, "note": object()}
    strange = Value(Node(node.op, node.inputs, attrs, node.types, node.where), 0)
    assert saved.key_of(graph.with_results([strange, graph.outputs[1]])) is None
    saved.save(None, [])
    assert saved.load(None) is None and not folder.exists()


def test_with_verify_every_pass_runs() -> None:
    build_program(model())
    with config.options(verify=True):
        assert not loads(model())


def test_without_the_cache_nothing_is_kept(folder: Path) -> None:
    with config.options(cache=False):
        assert not loads(model())
        assert not loads(model())
    assert not folder.exists()


def test_a_check_with_an_odd_attribute_has_no_form_on_disk() -> None:
    table = build_program(model()).table
    rows = tuple(
        row if row.check is None else dataclasses.replace(
            row, check=dataclasses.replace(row.check, attrs={"what": object()}))
        for row in table.launches
    )  # fmt: skip
    with pytest.raises(ValueError, match="attribute of type object"):
        table_data(dataclasses.replace(table, launches=rows))
    with pytest.raises(ValueError, match="not a launch table"):
        table_from(None)

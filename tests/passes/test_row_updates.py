"""Updates of the rows that a batch touched: the bits of updating whole tables, or left alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest
from sample_graphs import op

from graphc import config
from graphc.codegen.compiler import ENGINES
from graphc.codegen.cpu import host_target
from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import interpret
from graphc.ir.parser import parse_graph
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, as_dtype, int64, tensor_type
from graphc.ir.verify import verify
from graphc.passes.canonicalize import canonicalize
from graphc.passes.fuse import fuse
from graphc.passes.manager import GRAPH_PASSES, compile_graph
from graphc.passes.memory import storage
from graphc.passes.row_updates import row_updates
from graphc.runtime.program import Program

N = symbol("N")
ROWS, WIDTH = 40, 21
RATE = placeholder("rate", tensor_type("float32", ()))

Change = Callable[..., tuple[Value, ...]]


def inputs(
    lead: tuple[object, ...] = (N,), row: tuple[object, ...] = (WIDTH,), tables: int = 1,
    dtype: str = "float32", index: str = "int64",
) -> tuple[Value, ...]:  # fmt: skip
    """Return indices, gradients of rows, and tables."""
    own = as_dtype(dtype)
    table = TensorType(own, (ROWS, *row))
    return (
        placeholder("i", TensorType(as_dtype(index), lead)),
        placeholder("g", TensorType(own, (*lead, *row))),
        *(placeholder(f"t{n}", table) for n in range(tables)),
    )


def graph_of(
    change: Change, given: tuple[Value, ...], rows: Value | None = None, mode: str = "clip",
    returned: bool = False,
) -> Graph:  # fmt: skip
    """Return the program that changes tables by the gradient, which it may also return."""
    indices, _, *tables = given
    gradient = op(
        "scatter_add", indices, given[1] if rows is None else rows, tables[0].shape, 0, mode
    )
    new = change(gradient, *tables)
    outputs = (gradient,) if returned else ()
    return Graph("g", (*given, RATE), outputs, tuple(zip(tables, new, strict=True)))


def sgd(g: Value, w: Value) -> tuple[Value, ...]:
    return (w - op("cast", RATE, w.dtype) * g,)


def clipped(g: Value, w: Value) -> tuple[Value, ...]:
    decay = op("cast", RATE, w.dtype) * 0.0
    return (w - 0.1 * (op("clip", g * 0.5, -0.25, 0.25) + decay * w),)


def ada_grad(g: Value, w: Value, h: Value) -> tuple[Value, ...]:
    squares = h + g * g
    return w - 0.1 * (g / op("sqrt", squares + 1e-7)), squares


def momentum(g: Value, w: Value, m: Value) -> tuple[Value, ...]:
    moved = 0.9 * m - 0.1 * g
    return w + moved, moved


def names(graph: Graph) -> list[str]:
    return [node.op.name for node in row_updates(canonicalize(graph)).nodes]


def changed(graph: Graph) -> int:
    """Return how many updates change the rows of a table in place."""
    return sum(new.op_name == "update_rows" for _, new in row_updates(canonicalize(graph)).updates)


def arrays_of(graph: Graph, count: int, low: int = 0, high: int = ROWS) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    found = []
    for value in graph.inputs:
        shape = tuple(d if isinstance(d, int) else count for d in value.shape)
        drawn = (
            generator.integers(low, high, shape)
            if value.dtype.integer
            else (
                np.abs(generator.normal(size=shape)) + 0.1
                if value.node.attrs["name"].startswith("t")
                else generator.normal(size=shape)
            )
        )
        found.append(np.asarray(drawn).astype(value.dtype.numpy))
    return found


def run(graph: Graph, given: list[np.ndarray], by_rows: bool = True) -> list[np.ndarray]:
    """Return the outputs of a run, and what the tables are after it."""
    arrays = [a.copy() for a in given]
    passes = tuple(p for p in GRAPH_PASSES["cpu"] if by_rows or p is not row_updates)
    with mock.patch.dict(GRAPH_PASSES, cpu=passes):
        plan = compile_graph(graph, host_target())
    return [*Program(plan)(arrays), *arrays[2:-1]]


def lazily(change: Change) -> Change:
    """Return the change in rows whose gradient is not zero."""

    def changed(g: Value, *tables: Value) -> tuple[Value, ...]:
        axes = tuple(range(1, g.ndim))
        touched = op("any", op("not_equal", g, 0), axes, True)
        new = change(g, *tables)
        return tuple(op("where", touched, n, t) for n, t in zip(new, tables, strict=True))

    return changed


def decayed_momentum(g: Value, w: Value, m: Value) -> tuple[Value, ...]:
    return momentum(g + 0.01 * w, w, m)


CASES = {
    "sgd": (sgd, {}),
    "two axes of indices": (sgd, {"lead": (N, 3)}),
    "one index": (sgd, {"lead": ()}),
    "rows of two axes": (sgd, {"row": (3, 5)}),
    "one number a row": (sgd, {"row": ()}),
    "float64": (sgd, {"dtype": "float64"}),
    "float indices": (sgd, {"index": "float32"}),
    "clipped": (clipped, {}),
    "AdaGrad": (ada_grad, {"tables": 2}),
    "lazy": (lazily(decayed_momentum), {"tables": 2}),
    "lazy, rows of two axes": (lazily(momentum), {"tables": 2, "row": (3, 5), "dtype": "float64"}),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_the_bits_are_those_of_updating_whole_tables(case: str, engine: str) -> None:
    change, shape = CASES[case]
    given = inputs(**shape)  # type: ignore[arg-type]
    graph = graph_of(change, given)
    assert changed(graph) == len(given) - 2 and "scatter_add" not in names(graph)
    arrays = arrays_of(graph, 150)  # more than there are rows: some come several times
    with config.options(engine=engine):
        found, expected = (run(graph, arrays, by_rows) for by_rows in (True, False))
    for new, wanted, old in zip(found, expected, arrays[2:], strict=False):
        np.testing.assert_array_equal(new, wanted)
        assert (new != old).any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", ["sgd", "two axes of indices", "rows of two axes", "float64"])
def test_a_gradient_that_is_returned_is_written_over_zeros(case: str, engine: str) -> None:
    change, shape = CASES[case]
    graph = graph_of(change, inputs(**shape), returned=True)  # type: ignore[arg-type]
    assert labels(graph)[:3] == ["sort_rows", "full", "update_rows"]
    assert changed(graph) == 0 and "copy" not in labels(graph)
    arrays = arrays_of(graph, 30)
    with config.options(engine=engine):
        found, expected = (run(graph, arrays, by_rows) for by_rows in (True, False))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(np.signbit(one), np.signbit(other))


def test_a_lazy_update_leaves_rows_whose_gradients_cancel() -> None:
    graph = graph_of(lazily(momentum), inputs(tables=2))
    arrays = arrays_of(graph, 4)
    arrays[0][:] = 5, 5, 7, 8
    arrays[1][1], arrays[1][3] = -arrays[1][0], 0.0
    after, _ = run(graph, arrays)
    assert np.flatnonzero((after != arrays[2]).any(1)).tolist() == [7]
    plain = graph_of(lazily(sgd), inputs())
    (update,) = (n for n in row_updates(canonicalize(plain)).nodes if n.op.name == "update_rows")
    assert not update.attrs["nonzero"]  # there zero rows stay by themselves


@pytest.mark.parametrize("mode", ["clip", "wrap"])
def test_indices_out_of_range_name_the_same_rows(mode: str) -> None:
    given = inputs()
    arrays = arrays_of(graph_of(sgd, given), 30, -90, 90)
    graph = graph_of(sgd, given, mode=mode)
    found, expected = (run(graph, arrays, by_rows) for by_rows in (True, False))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("repeated", [(N, 1), (1, 3), (1, 1)])
def test_rows_that_repeat_are_not_written_out(repeated: tuple[object, ...]) -> None:
    indices, _, table = inputs((N, 3))
    narrow = placeholder("g", TensorType(table.dtype, (*repeated, WIDTH)))
    rows = op("broadcast_to", narrow, (N, 3, WIDTH))
    given = (indices, narrow, table)
    graph = graph_of(sgd, given, rows)
    assert "broadcast_to" not in names(graph)
    arrays = arrays_of(graph, 7)
    np.testing.assert_array_equal(*(run(graph, arrays, by_rows) for by_rows in (True, False)))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 5000])
def test_any_number_of_indices(count: int) -> None:
    given = inputs()
    graph = graph_of(sgd, given, returned=True)
    arrays = arrays_of(graph, count)
    found, expected = (run(graph, arrays, by_rows) for by_rows in (True, False))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_number_of_threads_changes_nothing() -> None:
    graph = graph_of(sgd, inputs())
    arrays = arrays_of(graph, 5000)
    found = []
    for threads in (1, 2, 5):
        with config.options(threads=threads):
            found.append(run(graph, arrays)[0])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_rows_that_no_index_names_are_not_read() -> None:
    """Nor computed: what is no number there stays what it is."""
    graph = graph_of(sgd, inputs())
    arrays = arrays_of(graph, 50, 0, ROWS // 2)
    arrays[2][ROWS // 2 :] = np.inf
    (new,) = run(graph, arrays)
    assert np.isinf(new[ROWS // 2 :]).all() and np.isfinite(new[: ROWS // 2]).all()


def test_two_tables_by_the_same_indices() -> None:
    indices, g, first, second = inputs(tables=2)

    found = [op("scatter_add", indices, g * (n + 1.0), first.shape) for n in range(2)]
    new = [t - RATE * s for t, s in zip((first, second), found, strict=True)]
    graph = Graph("g", (indices, g, first, second, RATE), (), ((first, new[0]), (second, new[1])))
    assert changed(graph) == 2
    arrays = arrays_of(graph, 60)
    np.testing.assert_array_equal(*(run(graph, arrays, by_rows) for by_rows in (True, False)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_that_is_read_twice_is_updated_once(engine: str) -> None:
    """By the rows of both places, those of the first one first."""
    indices, g, w = inputs((N, 3))
    more, h = placeholder("j", TensorType(int64, (N,))), placeholder("h", g.type)
    narrow = op("sum", h, (1,))
    total = op("scatter_add", indices, g, w.shape) + op("scatter_add", more, narrow, w.shape)
    graph = Graph("g", (indices, g, w, more, h, RATE), (), ((w, w - RATE * total),))
    assert changed(graph) == 1 and names(graph).count("sort_rows") == 1
    arrays = arrays_of(graph, 20)
    expected = np.zeros_like(arrays[2])
    np.add.at(expected, arrays[0], arrays[1])
    np.add.at(expected, arrays[3], arrays[4].sum(1))
    with config.options(engine=engine):
        found = run(graph, arrays)[0]
    np.testing.assert_allclose(found, arrays[2] - arrays[5] * expected, rtol=1e-5, atol=1e-6)
    other = op("scatter_add", more, narrow, w.shape, 0, "wrap")
    apart = op("scatter_add", indices, g, w.shape) + other
    kept = Graph("g", graph.inputs, (), ((w, w - RATE * apart),))
    assert changed(kept) == 0  # other rules for indices out of range


# -- what stays as it is ---------------------------------------------------------------------


def decayed(g: Value, w: Value) -> tuple[Value, ...]:
    return (w - 0.1 * (g + RATE * w),)


def lifted(g: Value, w: Value) -> tuple[Value, ...]:
    return (w - op("clip", g, 0.25, 1.0),)


def shifted(g: Value, w: Value) -> tuple[Value, ...]:
    return (w - op("exp", g),)


def shrunk(g: Value, w: Value) -> tuple[Value, ...]:
    return (op("multiply", w, 1.0 - g),)


def tied(g: Value, w: Value) -> tuple[Value, ...]:
    return (w - 0.1 * (g + op("matmul", w, op("matmul", w, w, transpose_a=True))),)


def summed(g: Value, w: Value) -> tuple[Value, ...]:
    return (w - 0.1 * g / op("sum", g * g),)


def half_lazy(g: Value, w: Value, m: Value) -> tuple[Value, ...]:
    return momentum(g, w, m)[0], lazily(momentum)(g, w, m)[1]


def lazy_by_elements(g: Value, w: Value, m: Value) -> tuple[Value, ...]:
    touched = op("not_equal", g, 0)
    return tuple(op("where", touched, n, t) for n, t in zip(momentum(g, w, m), (w, m)))


def crossed(g: Value, w: Value, v: Value) -> tuple[Value, ...]:
    """Each table takes the place of the other."""
    return v - 0.1 * g, w - 0.1 * g


@pytest.mark.parametrize(
    "change",
    [
        decayed,
        lifted,
        shifted,
        shrunk,
        tied,
        summed,
        momentum,
        crossed,
        half_lazy,
        lazy_by_elements,
    ],
)
def test_other_updates_stay_whole(change: Change) -> None:
    tables = change.__code__.co_argcount - 1
    graph = graph_of(change, inputs(tables=tables))
    assert changed(graph) == 0 and "copy" not in labels(graph)[:-tables]
    arrays = arrays_of(graph, 60)
    for one, other in zip(run(graph, arrays), run(graph, arrays, by_rows=False), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_scatter_along_another_axis_stays() -> None:
    table = placeholder("t0", tensor_type("float32", (4, ROWS)))
    indices = placeholder("i", tensor_type("int64", (7,)))
    g = placeholder("g", tensor_type("float32", (4, 7)))
    new = table - RATE * op("scatter_add", indices, g, table.shape, 1)
    assert "update_rows" not in names(Graph("g", (indices, g, table, RATE), (), ((table, new),)))


def test_a_table_that_another_one_is_computed_from_stays() -> None:
    indices, g, w, other = inputs(tables=2)
    new = w - RATE * (op("scatter_add", indices, g, w.shape) * other)
    graph = Graph("g", (indices, g, w, other, RATE), (), ((w, new),))
    assert changed(graph) == 0


# -- the graph and its memory ----------------------------------------------------------------


def test_golden(golden: Callable[[str, str], None]) -> None:
    given = inputs((N, 3), tables=2)
    graph = row_updates(canonicalize(graph_of(ada_grad, given)))
    verify(graph)
    text = print_graph(graph)
    assert print_graph(parse_graph(text)) == text
    golden(re.sub(r" +#.*", "", text), "passes/row_updates_ada_grad.graph")


def test_the_oracle_agrees() -> None:
    graph = graph_of(ada_grad, inputs((N, 3), tables=2))
    arrays = arrays_of(graph, 40)
    found, expected = (interpret(g, arrays) for g in (row_updates(canonicalize(graph)), graph))
    for new, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(new, wanted, rtol=1e-6)


def labels(graph: Graph) -> list[str]:
    layout = storage(fuse(row_updates(canonicalize(graph))))
    return [launch.attrs["label"] for launch in layout.launches]


def test_tables_are_changed_in_place() -> None:
    graph = graph_of(ada_grad, inputs(tables=2))
    layout = storage(fuse(row_updates(canonicalize(graph))))
    assert labels(graph) == ["sort_rows", "update_rows"]
    assert [layout.root[new] for _, new in layout.graph.updates] == list(layout.graph.inputs[2:4])


def test_what_reads_the_old_table_runs_first() -> None:
    indices, g, w = inputs()
    graph = graph_of(sgd, (indices, g, w))
    read = Graph("g", graph.inputs, (op("sum", w), op("take", w, indices)), graph.updates)
    assert labels(read)[-1] == "update_rows" and "copy" not in labels(read)
    arrays = arrays_of(read, 9)
    old = arrays[2].copy()
    total, rows = Program(compile_graph(read, host_target()))(arrays)
    np.testing.assert_allclose(total, old.sum(), rtol=1e-5)
    np.testing.assert_array_equal(rows, old[arrays[0]])


def test_a_table_that_is_not_replaced_is_copied_first() -> None:
    """As where the op is used by itself: its operand stays."""
    graph = graph_of(sgd, inputs())
    ((table, new),) = row_updates(canonicalize(graph)).updates
    plain = Graph("g", graph.inputs, (new, new * 2.0))
    assert labels(plain) == ["sort_rows", "copy", "update_rows", "multiply"]
    arrays = arrays_of(graph, 30)
    old = arrays[2].copy()
    found, doubled = Program(compile_graph(plain, host_target()))(arrays)
    np.testing.assert_array_equal(arrays[2], old)
    (expected,) = run(graph, arrays)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(doubled, expected * 2)

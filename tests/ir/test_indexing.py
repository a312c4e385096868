"""Reading and scattering at data indices: range checks, integer-array indexing, explicit nests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from graphc.codegen.python_engine import run_python
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError, VerifyError
from graphc.ir.dim import evaluate
from graphc.ir.evaluate import lower_and_evaluate
from graphc.ir.graph import Graph, Value, build, placeholder
from graphc.ir.interp import interpret
from graphc.ir.loop import Kernel
from graphc.ir.op import OpDef, Sample
from graphc.ir.ops.gather import (
    embedding,
    gather_nd,
    getitem_advanced,
    scatter_add,
    scatter_nd,
)
from graphc.ir.ops.indexing import (
    OUT_OF_RANGE,
    check_index,
    one_hot,
    pick,
    range_error,
    take,
)
from graphc.ir.ops.random import random_permutation
from graphc.ir.sizes import SizeSolver, solving
from graphc.ir.target import Target
from graphc.ir.types import DType, TensorType, as_dtype, bool_, float32, int64
from graphc.passes.lower import lower
from graphc.passes.schedule.cpu import schedule

MACHINE = Target("cpu", "x86_64-linux-gnu", "", "", 32, 16, 1 << 15, 1 << 20, 1 << 23)
NESTS: list[OpDef] = [scatter_add, scatter_nd, check_index, random_permutation]


def value(*shape: Any, dtype: Any = float32) -> Value:
    return placeholder("x", TensorType(as_dtype(dtype), shape))


def run(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    inputs = tuple(
        placeholder(f"x{n}", TensorType(as_dtype(a.dtype), a.shape)) for n, a in enumerate(arrays)
    )
    return interpret(Graph("g", inputs, (function(*inputs),)), arrays)[0]


# -- explicit nests ----------------------------------------------------------------------------


def kernel_of(op: OpDef, arrays: Sequence[np.ndarray], attrs: Any) -> tuple[Kernel, list[int]]:
    inputs = tuple(
        placeholder(f"x{n}", TensorType(as_dtype(a.dtype), a.shape)) for n, a in enumerate(arrays)
    )
    lowered = lower(Graph("g", inputs, build(op, inputs, attrs, None)), "k")
    return schedule(lowered.kernel, MACHINE), [evaluate(d, {}) for d in lowered.sizes]


def run_nest(
    op: OpDef, arrays: Sequence[np.ndarray], attrs: Any, error: list[int] | None = None
) -> tuple[np.ndarray, int]:
    """Run a record's nest, its parallel iterations one by one and last to first."""
    kernel, sizes = kernel_of(op, arrays, attrs)
    expected = kernel.params[-1]
    names = dict(zip(kernel.sizes, sizes, strict=True))
    shape = tuple(evaluate(d, names) for d in expected.shape)
    out = np.full(shape, 99).astype(expected.dtype.numpy)
    buffers = [*map(np.ascontiguousarray, arrays), out]
    status = 0
    for step in reversed(range(evaluate(kernel.extent, names))):
        status = status or run_python(kernel, buffers, sizes, step, step + 1, error)
    return out, status


def nest_cases() -> list[Any]:
    return [
        pytest.param(op, sample, dtype, id=f"{op.name}-{number}-{dtype.short}")
        for op in NESTS
        for number, sample in enumerate(op.samples)
        for dtype in op.dtypes
    ]


@pytest.mark.parametrize(("op", "sample", "dtype"), nest_cases())
def test_nest_agrees_with_the_reference(op: OpDef, sample: Sample, dtype: DType) -> None:
    generator = np.random.default_rng(3)
    arrays = [spec.draw(generator, dtype) for spec in sample.specs]
    computed, status = run_nest(op, arrays, sample.attrs)
    expected = op.reference(*arrays, **sample.attrs)
    assert status == 0
    assert computed.dtype == expected.dtype
    np.testing.assert_array_equal(computed, expected)


@pytest.mark.parametrize("width", [1, 9, 64, 65, 150])
def test_scatter_over_size_variables_and_several_blocks(width: int) -> None:
    generator = np.random.default_rng(width)
    indices = generator.integers(-20, 20, (3, 11))
    updates = generator.normal(size=(2, 3, 11, width)).astype(np.float32)
    attrs = {"shape": (2, 13, width), "axis": 1, "mode": "wrap"}
    computed, _ = run_nest(scatter_add, [indices, updates], attrs)
    np.testing.assert_array_equal(computed, scatter_add.reference(indices, updates, **attrs))


def test_equal_indices_add_up_in_order() -> None:
    updates = np.array([1e8, 1.0, -1e8], np.float32)
    attrs = {"shape": (2,), "axis": 0, "mode": "clip"}
    computed, _ = run_nest(scatter_add, [np.zeros(3, np.int64), updates], attrs)
    assert computed[0] == (updates[0] + updates[1]) + updates[2] == 0.0


def test_every_parallel_step_of_a_scatter_owns_its_elements() -> None:
    arrays = [np.zeros(4, np.int64), np.ones((4, 200), np.float32)]
    kernel, sizes = kernel_of(scatter_add, arrays, {"shape": (3, 200), "axis": 0, "mode": "clip"})
    names = dict(zip(kernel.sizes, sizes, strict=True))
    steps = evaluate(kernel.extent, names)
    assert steps == 4
    written = np.zeros((3, 200), int)
    for step in range(steps):
        out = np.full((3, 200), np.nan, np.float32)
        run_python(kernel, [*arrays, out], sizes, step, step + 1)
        written += ~np.isnan(out)
    assert (written == 1).all()


# -- range checks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("indices", "negative", "details"),
    [
        (np.array([[0, 1], [4, -7]]), False, [4, 2, 4]),
        (np.array([0.0, 3.9, -1.5], np.float32), False, [-1, 2, 4]),
        (np.array([-4, -5], np.int8), True, [-5, 1, 4]),
        (np.array([255], np.uint8), False, [255, 0, 4]),
    ],
)
def test_an_index_out_of_range_fails_alike_in_kernel_and_reference(
    indices: np.ndarray, negative: bool, details: list[int]
) -> None:
    attrs = {"size": 4, "what": "label", "negative": negative}
    error: list[int] = []
    out, status = run_nest(check_index, [indices], attrs, error)
    assert status != 0
    assert error[:4] == [OUT_OF_RANGE, *details]
    with pytest.raises(IndexRangeError) as caught:
        check_index.reference(indices, **attrs)
    assert str(caught.value) == str(range_error("label", *details, negative))
    assert str(caught.value) == str(check_index.failure(error[0], tuple(error[1:]), **attrs))
    lowest = -4 if negative else 0
    assert f"label {details[0]} at position {details[1]}" in str(caught.value)
    assert f"{lowest} .. 3" in str(caught.value)


def test_nan_is_no_index() -> None:
    lowest = np.array([np.nan, np.inf, -np.inf, 2.0], np.float32)
    found = take.reference(np.arange(4.0), lowest, axis=0, mode="clip")
    np.testing.assert_array_equal(found, [0, 3, 0, 2])
    computed = lower_and_evaluate(
        take, [np.arange(4.0), lowest], {"axis": 0, "mode": "clip"}, symbolic=True
    )
    np.testing.assert_array_equal(computed[0], found)


@pytest.mark.parametrize("wrong", [-4, 3])
def test_mode_raise_names_the_index(wrong: int) -> None:
    x, indices = np.arange(6.0).reshape(3, 2), np.array([0, -3, wrong])
    for function in (
        lambda a, i: take(a, i, mode="raise"),
        getitem_advanced,
        lambda a, i: scatter_add(i, take(a, i), (3, 2), mode="raise"),
    ):
        with pytest.raises(IndexRangeError, match=f"index {wrong} at position 2.*-3 .. 2"):
            run(function, x, indices)
    np.testing.assert_array_equal(
        run(lambda a, i: take(a, i, mode="raise"), x, indices[:2]), x[indices[:2]]
    )


def test_embedding_takes_rows_and_names_the_one_that_is_missing() -> None:
    weight, rows = np.arange(12.0).reshape(4, 3), np.array([[0, 3], [2, 2]])
    np.testing.assert_array_equal(run(embedding, rows, weight), weight[rows])
    for wrong in (4, -1):
        with pytest.raises(IndexRangeError, match=f"row {wrong} at position 1.*0 .. 3"):
            run(embedding, np.array([0, wrong]), weight)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: take(value(3), value(2, dtype=bool_)), DTypeError, "got a bool array"),
        (lambda: take(value(3), value(2), mode="warp"), ArgumentError, "Did you mean 'wrap'?"),
        (lambda: take(value(3), value(2), 1), ShapeError, "axis 1 does not exist"),
        (lambda: take(value(0, 3), value(2)), ShapeError, "is empty"),
        (lambda: pick(value(3, 4), value(4)), ShapeError, r"must be \(3,\)"),
        (lambda: pick(value(3, 4), value(3), keepdims=True, axis=2), ShapeError, "axis 2"),
        (lambda: scatter_add(value(2), value(2, 4), (3, 5)), ShapeError, r"must be \(2, 5\)"),
        (lambda: gather_nd(value(3), value(2, 4)), ShapeError, "do not index"),
        (lambda: scatter_nd(value(1, 4), value(3), (5,)), ShapeError, r"must be \(4,\)"),
        (lambda: gather_nd(value(0, 2), value(1, 4)), ShapeError, "nothing to gather"),
        (lambda: embedding(value(2), value(3)), ShapeError, "weight of 2 axes"),
        (lambda: one_hot(value(2, dtype=bool_), 3), DTypeError, "got a bool array"),
    ],
)
def test_errors_say_what(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_mode_raise_is_never_lowered_without_its_check() -> None:
    inputs = value(3), value(2, dtype=int64)
    outputs = build(take, inputs, {"axis": 0, "mode": "raise"}, None)
    with pytest.raises(VerifyError, match="check_index"):
        lower(Graph("g", inputs, outputs), "k")


def test_pick_takes_indices_with_or_without_the_axis() -> None:
    x, indices = np.arange(12.0).reshape(3, 4), np.array([3, 0, 1])
    expected = x[np.arange(3), indices]
    for given in (indices, indices[:, None]):
        np.testing.assert_array_equal(run(pick, x, given), expected)
        kept = run(lambda a, i: pick(a, i, keepdims=True), x, given)
        np.testing.assert_array_equal(kept, expected[:, None])


def test_symbolic_sizes_stay() -> None:
    solver = SizeSolver()
    with solving(solver):
        batch, other = solver.fresh("B", 5), solver.fresh("C", 5)
        x, labels = value(batch, 10), value(other, dtype=int64)
        assert take(x, labels).shape == (other, 10)
        assert one_hot(labels, 10).shape == (other, 10)
        assert not solver.constraints
        assert solver.resolve(pick(x, labels).shape[0]) == solver.resolve(batch)
        assert solver.resolve(batch) == solver.resolve(other) != 5


# -- x[i, j] -----------------------------------------------------------------------------------

ROWS, COLUMNS = np.array([0, -1, 2]), np.array([[1], [0]])
ADVANCED: list[Any] = [
    (ROWS,), (COLUMNS,), (ROWS, COLUMNS), (slice(None), ROWS), (..., ROWS), (ROWS, 0), (0, ROWS),
    (ROWS, slice(1, None), COLUMNS), (slice(None), ROWS, COLUMNS), (ROWS, None, COLUMNS),
    (None, ROWS, slice(None), COLUMNS), (slice(None), ROWS, slice(1, 3)), (1, slice(None), ROWS),
    (slice(None), slice(None), ROWS, COLUMNS), (slice(0, 2), ROWS, 1), (ROWS, ROWS, ROWS, ROWS),
    (np.array(1), slice(None), ROWS), (np.zeros((2, 0), int),), (slice(None, None, -1), COLUMNS),
]  # fmt: skip


@pytest.mark.parametrize("key", ADVANCED, ids=lambda key: "-".join(map(_kind, key)))
def test_integer_array_indexing_agrees_with_numpy(key: tuple[Any, ...]) -> None:
    x = np.arange(3 * 4 * 3 * 5.0).reshape(3, 4, 3, 5)
    arrays = [item for item in key if isinstance(item, np.ndarray)]

    def index(v: Value, *indices: Value) -> Value:
        given = iter(indices)
        items = tuple(next(given) if isinstance(k, np.ndarray) else k for k in key)
        return getitem_advanced(v, items)

    np.testing.assert_array_equal(run(index, x, *arrays), x[key])


def _kind(item: Any) -> str:
    return f"array{np.ndim(item)}" if isinstance(item, np.ndarray) else str(item)


@pytest.mark.parametrize("mode", ["clip", "wrap"])
def test_indices_that_are_not_finite(mode: str) -> None:
    indices = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, -1.9])
    (computed,) = lower_and_evaluate(take, [np.arange(7.0), indices], {"axis": 0, "mode": mode})
    expected = take.reference(np.arange(7.0), indices, axis=0, mode=mode)
    np.testing.assert_array_equal(computed, expected)

"""Movement ops: symbolic sizes, errors, basic indexing against NumPy, flat copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from graphc.errors import ArgumentError, GraphcError, IndexRangeError, ShapeError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, dim_max, dim_min, evaluate, symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import interpret
from graphc.ir.lowering import Lowering, Operand
from graphc.ir.ops.composite import Composite
from graphc.ir.ops.creation import arange, eye, full, linspace, ones_like, tril, zeros
from graphc.ir.ops.movement import broadcast_to, expand_dims, reshape, squeeze, transpose, unravel
from graphc.ir.ops.padding import pad
from graphc.ir.ops.rearrange import (
    broadcast_like,
    flatten,
    flip,
    getitem,
    moveaxis,
    repeat,
    roll,
    slice_,
    slice_axis,
    split,
    stack,
    swapaxes,
    tile,
)  # fmt: skip
from graphc.ir.ops.slice_bounds import slice_bounds
from graphc.ir.ops.slicing import concat
from graphc.ir.sizes import SizeSolver, solving
from graphc.ir.types import TensorType, as_dtype, float32, int32, int64, uint8


def value(*shape: Dim, dtype: Any = float32) -> Value:
    return placeholder("x", TensorType(as_dtype(dtype), shape))


def run(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    inputs = tuple(
        placeholder(f"x{n}", TensorType(as_dtype(a.dtype), a.shape)) for n, a in enumerate(arrays)
    )
    return interpret(Graph("g", inputs, (function(*inputs),)), arrays)[0]


def message(function: Callable[[], Any]) -> str:
    with pytest.raises(GraphcError) as caught:
        function()
    return str(caught.value)


@pytest.fixture
def solver() -> Iterator[SizeSolver]:
    with solving(SizeSolver()) as active:
        yield active


# -- reshape -----------------------------------------------------------------------------------


def test_reshape_keeps_the_batch_symbolic(solver: SizeSolver) -> None:
    batch = solver.fresh("B", 100)
    y = reshape(value(batch, 50, 7, 7), (-1, 2450))
    assert y.shape == (batch, 2450)
    assert y.node.attrs["shape"] == (batch, 2450)
    assert reshape(y, (-1, 50, 49)).shape == (batch, 50, 49)
    assert reshape(y, (batch, -1)).shape == (batch, 2450)
    assert not solver.constraints


def test_reshape_unifies_sizes(solver: SizeSolver) -> None:
    batch, other = solver.fresh("B", 6), solver.fresh("C", 6)
    assert reshape(value(batch, 4), (other, 4)).type.size == 4 * solver.resolve(other)
    assert [str(c) for c in solver.constraints][0].startswith("B == C")


def test_reshape_that_divides_now_fixes_the_size(solver: SizeSolver) -> None:
    batch = solver.fresh("B", 6)
    assert reshape(value(batch, 5), (-1, 10)).shape == (3, 10)
    assert solver.solution == {"B": 6}


def test_reshape_error_names_what_fits() -> None:
    text = message(lambda: reshape(value(100, 50, 4, 4), (-1, 7 * 7 * 50)))
    assert "cannot reshape f32[100, 50, 4, 4] (80000 elements) into (-1, 2450)" in text
    assert "(-1, 800) fits" in text
    assert "50 * 4 * 4 = 800" in text
    assert "reshape(f32[100, 50, 4, 4])" in text
    assert "test_movement.py" in text


def test_reshape_error_while_tracing_prints_the_sizes_of_the_call(solver: SizeSolver) -> None:
    text = message(lambda: reshape(value(solver.fresh("B", 100), 50, 4, 4), (-1, 2450)))
    assert "cannot reshape f32[100, 50, 4, 4] (80000 elements) into (-1, 2450)" in text


@pytest.mark.parametrize("shape", [(-1, -1), (-2, 3), (5,), (-1, 0), (4, -1)])
def test_reshapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        reshape(value(2, 3), shape)


def copied_from(source: tuple[Dim, ...], target: tuple[Dim, ...]) -> tuple[Any, Any]:
    """Return the offset a reshape reads, and the offset it writes."""
    kinds = TensorType(float32, source), TensorType(float32, target)
    index = tuple(E.index(symbol(f"i{axis}")) for axis in range(len(target)))
    buffers = [E.Buffer(name, float32, kind.shape) for name, kind in zip("xy", kinds, strict=True)]
    x = Operand(kinds[0], lambda at, mask, fill: E.load(buffers[0], E.flatten(buffers[0], at)))
    k = Lowering(index, (kinds[1],), lambda: "r")
    return reshape.lower(k, x, shape=target).offset, E.flatten(buffers[1], index)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((symbol("n"), 50, 7, 7), (symbol("n"), 2450)),
        ((symbol("n"), symbol("c"), 7), (symbol("n"), 7 * symbol("c"))),
        ((symbol("a") * symbol("b"), 4), (symbol("a"), symbol("b"), 4)),
        ((symbol("a"), symbol("b"), 4), (symbol("ab"), 4)),
        ((6, 4), (4, 3, 2)),
    ],
)
def test_reshape_of_a_buffer_is_a_flat_copy(source: Any, target: Any) -> None:
    read, written = copied_from(source, target)
    assert read is written


def test_unravel_leaves_equal_axes_alone() -> None:
    n, c = symbol("n"), symbol("c")
    index = [E.index(symbol(name)) for name in "ijk"]
    found = unravel(index, (n, c * 7, 5), (n, 1, c, 7, 5))
    assert found[0] is index[0] and found[4] is index[2]
    assert found[1] is E.index(0)


# -- axes --------------------------------------------------------------------------------------


def test_squeeze_of_a_symbolic_axis_fixes_it(solver: SizeSolver) -> None:
    one = solver.fresh("B", 1)
    assert squeeze(value(one, 3), 0).shape == (3,)
    assert solver.solution == {"B": 1}
    assert squeeze(value(solver.fresh("T", 1), 1)).ndim == 0
    assert solver.solution == {"B": 1, "T": 1}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: squeeze(value(2, 3), 1), "cannot squeeze axis 1 of size 3"),
        (lambda: squeeze(value(0, 3), 0), "cannot squeeze axis 0 of size 0"),
        (lambda: transpose(value(2, 3), (0, 0)), "axes (0, 0) do not put 2 axes in order"),
        (lambda: transpose(value(2, 3), (0,)), "do not put 2 axes in order"),
        (lambda: expand_dims(value(2), 3), "axis 3 does not exist"),
        (lambda: swapaxes(value(2, 3), 0, 2), "axis 2 does not exist"),
        (lambda: moveaxis(value(2, 3), (0, 0), (0, 1)), "do not pair up"),
        (lambda: broadcast_to(value(2, 3), (2, 4)), "do not broadcast"),
        (lambda: broadcast_to(value(2, 3), (3,)), "(2, 3) does not broadcast to (3,)"),
        (lambda: broadcast_to(value(2, 3), (2, 1)), "(2, 3) does not broadcast to (2, 1)"),
        (lambda: concat([value(2, 3), value(2, 4)], 0), "cannot concat f32[2, 3] and f32[2, 4]"),
        (lambda: concat([value(2, 3), value(2)], 0), "cannot concat"),
        (lambda: stack([value(2, 3), value(3, 2)]), "cannot stack shapes (2, 3) and (3, 2)"),
        (lambda: stack([]), "at least one array"),
        (lambda: split(value(7), 2), "an axis of size 7 does not split into 2 equal parts"),
        (lambda: pad(value(2), ((1, 1), (1, 1))), "pad width"),
        (lambda: pad(value(2), ((-1, 1),)), "pad width"),
        (lambda: pad(value(2), 1, "refelct"), "Did you mean 'reflect'?"),
        (lambda: pad(value(2), 2, "reflect"), "at least 3 elements"),
        (lambda: flatten(value()), "at least one axis"),
        (lambda: roll(value(2, 3), (1, 2, 3), (0, 0)), "3 shifts for 2 axes"),
        (lambda: repeat(value(2, 3), -1, 0), "sizes must be 0 or more"),
        (lambda: tile(value(2, 3), -1), "sizes must be 0 or more"),
        (lambda: broadcast_to(value(1), (-1,)), "sizes must be 0 or more"),
        (lambda: reshape(value(6), (2.0, 3)), "a shape is an integer or a sequence of them"),
        (lambda: reshape(value(6), None), "a shape is an integer or a sequence of them"),
        (lambda: concat([]), "at least one array"),
        (lambda: pad(value(2, dtype=int32), 1, value=1.5), "no whole number"),
        (lambda: pad(value(2, dtype=uint8), 1, value=-1), "-1 is out of range for uint8"),
        (lambda: arange(math.inf), "finite bounds"),
        (lambda: arange(0, 1, math.nan), "finite bounds"),
        (lambda: eye(-1), "sizes must be 0 or more"),
        (lambda: full((2, -3), 1.0), "sizes must be 0 or more"),
        (lambda: tril(value(3)), "tril needs at least 2 axes"),
        (lambda: arange(0, 4, 0), "step other than 0"),
        (lambda: slice_(value(3), (0,), (2,), (0,)), "step must be an integer other than 0"),
        (lambda: slice_(value(3), (0, 0), (2,)), "2 begins, 1 ends"),
        (lambda: slice_(value(3), (0, 0), (2, 2)), "2 indices for an operand with 1 axes"),
    ],
)
def test_errors_say_what(call: Callable[[], Any], words: str) -> None:
    assert words in message(_traced(call))


def _traced(call: Callable[[], Any]) -> Callable[[], Any]:
    """Let creation functions build graph nodes, as they do inside a trace."""

    def inner() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("graphc.ir.ops.composite.apply", _build)
            return call()

    return inner


def _build(op: Any, operands: Any, attrs: Any) -> Any:
    op.infer(**attrs)
    return Value.__graphc_apply__(op, operands, attrs)


def test_operations_on_symbolic_sizes(solver: SizeSolver) -> None:
    batch, width = solver.fresh("B", 4), solver.fresh("W", 6)
    x = value(batch, width, 3)
    assert transpose(x).shape == (3, width, batch)
    assert concat([x, x, value(batch, 2, 3)], 1).shape == (batch, 2 * width + 2, 3)
    assert stack([x, x], -1).shape == (batch, width, 3, 2)
    assert tile(x, (2, 1, 1)).shape == (2 * batch, width, 3)
    assert repeat(x, 2, 1).shape == (batch, 2 * width, 3)
    assert pad(x, ((0, 0), (1, 2), (0, 0))).shape == (batch, width + 3, 3)
    assert flip(x, 0).shape == roll(x, 1, 2).shape == x.shape
    assert flatten(x).shape == (batch, 3 * width)
    assert broadcast_like(value(1, width, 3), x).shape == x.shape
    assert ones_like(x).shape == x.shape and zeros((batch, 2)).shape == (batch, 2)
    assert arange(batch).shape == (batch,) and arange(1, batch).shape == (dim_max(batch - 1, 0),)
    assert [part.shape[2] for part in split(x, 3, 2)] == [1, 1, 1]
    assert not solver.constraints
    assert [part.shape[1] for part in split(x, 2, 1)] == [3, 3]
    assert solver.solution == {"W": 6}


# -- slices ------------------------------------------------------------------------------------


def test_slices_of_symbolic_sizes_are_clamped_for_every_size() -> None:
    size = symbol("n")
    bounds = [None, -9, -3, -1, 0, 1, 2, 5, 9]
    for start in bounds:
        for stop in bounds:
            for step in (None, 1, 2, 3, -1, -2, -5):
                begin, length, stride = slice_bounds(slice(start, stop, step), size)
                for n in range(8):
                    lanes = list(range(n))[start:stop:step]
                    count = evaluate(length, {"n": n})
                    first = evaluate(begin, {"n": n})
                    assert [first + i * stride for i in range(count)] == lanes, (start, stop, step)


def test_usual_slices_have_short_sizes() -> None:
    n = symbol("n")
    assert slice_bounds(slice(None), n) == (0, n, 1)
    assert slice_bounds(slice(1, None), n) == (1, dim_max(n - 1, 0), 1)
    assert slice_bounds(slice(None, -1), n) == (0, dim_max(n - 1, 0), 1)
    assert slice_bounds(slice(-3, None), n) == (dim_max(n - 3, 0), dim_min(n, 3), 1)
    assert slice_bounds(slice(None, None, -1), n) == (n - 1, n, -1)


KEYS: list[Any] = [
    0, -1, slice(1, 3), slice(None, None, -1), ..., None, (), (..., 0), (0, ...), (1, 2, 3),
    (None, 1, ..., None), (slice(-2, None), -1), (slice(5, 1, -2), slice(None), slice(0, 9, 2)),
    (slice(2, 2),), (slice(None), None, slice(4, None, -3), 0), (np.int32(1), slice(np.int64(1))),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_getitem_agrees_with_numpy(key: Any) -> None:
    x = np.arange(60.0).reshape(3, 5, 4)
    np.testing.assert_array_equal(run(lambda v: getitem(v, key), x), x[key])


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_getitem_of_symbolic_sizes_agrees_with_numpy(key: Any, solver: SizeSolver) -> None:
    x = np.arange(60.0).reshape(3, 5, 4)
    v = value(solver.fresh("A", 3), solver.fresh("B", 5), 4, dtype="float64")
    y = getitem(v, key)
    kind = y.type.with_shape([solver.resolve(d) for d in y.shape])
    assert tuple(evaluate(d, {"A": 3, "B": 5}) for d in kind.shape) == x[key].shape
    result = interpret(Graph("g", (v,), (y,)), [x])[0]
    np.testing.assert_array_equal(result, x[key])


@pytest.mark.parametrize("index", [3, -4])
def test_an_integer_out_of_range_names_axis_and_size(index: int) -> None:
    words = f"index {index} is out of range for axis 1 of size 3"
    with pytest.raises(IndexRangeError, match=words):
        getitem(value(2, 3), (0, index))


def test_first_and_last_keep_a_size_symbolic_and_others_fix_it(solver: SizeSolver) -> None:
    steps = solver.fresh("T", 5)
    assert getitem(value(steps, 3), 0).shape == getitem(value(steps, 3), -1).shape == (3,)
    assert not solver.solution
    assert [(str(c.left), c.right) for c in solver.constraints] == [("min(T, 1)", 1)]
    getitem(value(steps, 3), 2)
    assert solver.solution == {"T": 5}
    with pytest.raises(IndexRangeError):
        getitem(value(steps, 3), 5)


@pytest.mark.parametrize("key", ["a", 1.5, (0, 0, 0), (..., ...), True])
def test_what_is_no_basic_index(key: Any) -> None:
    with pytest.raises((ArgumentError, ShapeError)):
        getitem(value(2, 3), key)


def test_a_slice_of_everything_is_the_operand_itself() -> None:
    x = value(2, 3)
    assert slice_axis(x, 0, None, None) is x
    assert getitem(x, slice(None)) is x


# -- creation ----------------------------------------------------------------------------------


def made(call: Callable[[], Any]) -> np.ndarray:
    result = _traced(call)()
    return interpret(Graph("g", (), (result,)), [])[0]


@pytest.mark.parametrize("bounds", [(5,), (2, 9), (9, 2, -3), (0, 1, 0.25), (3, 1), (1.5, 4)])
def test_arange_agrees_with_numpy(bounds: tuple[Any, ...]) -> None:
    got, expected = made(lambda: arange(*bounds)), np.arange(*bounds)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected)


def test_creation_functions() -> None:
    np.testing.assert_array_equal(made(lambda: zeros((2, 3))), np.zeros((2, 3), np.float32))
    assert made(lambda: full((2,), 7)).dtype == np.int64
    np.testing.assert_array_equal(made(lambda: eye(3, k=-1)), np.eye(3, k=-1))
    assert made(lambda: linspace(0.1, 0.7, 9))[-1] == np.float32(0.7)


# -- operands without a shape ------------------------------------------------------------------


class Unknown:
    """An operand whose shape is not known yet, as a Symbol's."""

    __graphc_priority__ = 5

    @staticmethod
    def __graphc_apply__(op: Any, operands: Any, attrs: Any) -> Any:
        return op, attrs


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (lambda x: getitem(x, (0, slice(1, None), ...)), (2, 4)),
        (lambda x: split(x, 3, axis=1)[0] if isinstance(x, Value) else split(x, 3, axis=1), None),
        (lambda x: swapaxes(x, 0, 2), (4, 3, 2)),
        (lambda x: slice_(x, [0, None], [1, -1]), (1, 2, 4)),
        (lambda x: stack([x, x], axis=-1), (2, 3, 4, 2)),
        (lambda x: pad(x, 1, "edge"), (4, 5, 6)),
    ],
)
def test_calls_on_symbols_are_kept_and_decomposed_later(call: Any, shape: Any) -> None:
    op, attrs = call(Unknown())
    assert isinstance(op, Composite)
    hash(tuple(attrs.items()))
    operands = (value(2, 3, 4),) * (2 if op.name == "stack" else 1)
    inferred = op.infer(*(v.type for v in operands), **attrs)
    later = op.decompose(*operands, **attrs)
    if shape is None:
        assert [v.type for v in later] == list(inferred)
        assert [v.shape for v in later] == [(2, 1, 4)] * 3
    else:
        assert later.type == inferred == TensorType(float32, shape)


def test_records_on_symbols_take_unresolved_arguments() -> None:
    op, attrs = reshape(Unknown(), (-1, 6))
    assert op.infer(TensorType(float32, (2, 3, 4)), **attrs).shape == (4, 6)
    op, attrs = squeeze(Unknown(), -1)
    assert op.infer(TensorType(int64, (2, 1)), **attrs).shape == (2,)
    op, attrs = transpose(Unknown())
    assert op.infer(TensorType(int64, (2, 1)), **attrs).shape == (1, 2)
    op, attrs = expand_dims(Unknown(), -1)
    assert op.infer(TensorType(int64, (2, 3)), **attrs).shape == (2, 3, 1)

"""nd functions: MXNet 1.9's names, arguments and quirks, against NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, nd
from graphc.errors import (
    ArgumentError,
    DTypeError,
    GraphcError,
    IndexRangeError,
    ShapeError,
)
from graphc.frontend.ops.operator import OPERATORS

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(2, 3, 4)).astype(np.float32)
M = RANDOM.normal(size=(3, 4)).astype(np.float32)
IMAGE = RANDOM.normal(size=(2, 3, 5, 6)).astype(np.float32)


def check(found: Any, expected: Any, rtol: float = 2e-5) -> None:
    expected = np.asarray(expected)
    assert isinstance(found, nd.NDArray)
    assert found.shape == (expected.shape or (1,))
    np.testing.assert_allclose(found.asnumpy(), expected.reshape(found.shape), rtol, 1e-5)


def erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf)(x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# -- elementwise -------------------------------------------------------------------------------

SAME_NAME = [
    "abs", "sign", "negative", "reciprocal", "square", "sqrt", "cbrt", "exp", "expm1", "log",
    "log2", "log10", "log1p", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh",
    "tanh", "arcsinh", "arctanh", "degrees", "radians", "floor", "ceil", "trunc", "fix",
]  # fmt: skip
UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{name: getattr(np, name) for name in SAME_NAME},
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "arccosh": lambda x: np.arccosh(x),
    "erf": erf,
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "softsign": lambda x: x / (1 + abs(x)),
    "softrelu": lambda x: np.log1p(np.exp(x)),
    "log_sigmoid": lambda x: -np.log1p(np.exp(-x)),
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "round": lambda x: np.sign(x) * np.floor(abs(x) + 0.5),
    "rint": lambda x: np.ceil(x - 0.5),
    "zeros_like": np.zeros_like,
    "ones_like": np.ones_like,
    "identity": lambda x: x,
    "BlockGrad": lambda x: x,
    "make_loss": lambda x: x,
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    x = np.array([[-2.5, -0.5, 0.1], [0.5, 0.9, 2.5]], np.float32)
    with np.errstate(all="ignore"):
        expected = UNARY[name](x)
    check(getattr(nd, name)(nd.array(x)), expected)
    check(getattr(nd, name)(data=nd.array(x)), expected)


@pytest.mark.parametrize("name", ["round", "rint"])
def test_rounding_is_exact(name: str) -> None:
    """Adding a half is not: it takes the float before it to 1, and odd numbers above 2**23 up."""
    below_half, odd = np.nextafter(np.float32(0.5), np.float32(0)), np.float32(2**23 + 1)
    x = np.array([below_half, -below_half, odd, -odd, np.inf, -np.inf, np.nan], np.float32)
    found = getattr(nd, name)(nd.array(x))
    np.testing.assert_array_equal(found.asnumpy(), [0, 0, odd, -odd, np.inf, -np.inf, np.nan])
    whole = getattr(nd, name)(nd.array([-3, 4], dtype="int32"))
    np.testing.assert_array_equal(whole.asnumpy(), [-3, 4])


BROADCAST = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "mod": np.mod,
    "power": np.power, "maximum": np.maximum, "minimum": np.minimum, "hypot": np.hypot,
    "equal": np.equal, "not_equal": np.not_equal, "lesser": np.less, "greater": np.greater,
    "lesser_equal": np.less_equal, "greater_equal": np.greater_equal,
    "logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor,
}  # fmt: skip


@pytest.mark.parametrize("name", BROADCAST)
def test_broadcasting(name: str) -> None:
    a, b = np.array([[1.0], [2], [0]], np.float32), np.array([2.0, 1], np.float32)
    found = getattr(nd, f"broadcast_{name}")(nd.array(a), nd.array(b))
    assert found.dtype is np.float32
    check(found, BROADCAST[name](a, b).astype(np.float32))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_elemwise_needs_equal_shapes(name: str) -> None:
    function = getattr(nd, f"elemwise_{name}")
    check(function(nd.array(M), nd.array(M)), BROADCAST[name](M, M))
    with pytest.raises(ShapeError, match=rf"elemwise_{name}[\s\S]*broadcast_{name} broadcasts"):
        function(nd.array(M), nd.array(M[:1]))


def test_scalars_and_arrays() -> None:
    check(nd.maximum(nd.array(M), 0), np.maximum(M, 0))
    check(nd.power(2, nd.array(M)), 2**M)
    check(nd.add_n(nd.array(M), nd.array(M), nd.array(M)), 3 * M)
    check(nd.clip(nd.array(M), -0.5, 0.5), np.clip(M, -0.5, 0.5))
    check(nd.logical_not(nd.array([0, 2])), [1, 0])
    check(nd.isnan(nd.array([np.nan, 2])), [1, 0])
    assert nd.cast(nd.array(M), dtype="int32").dtype is np.int32


def test_where() -> None:
    condition = (M > 0).astype(np.float32)
    check(nd.where(nd.array(condition), nd.array(M), nd.array(-M)), abs(M))
    rows = nd.where(nd.array([1, 0, 1]), nd.array(M), nd.zeros((3, 4)))
    check(rows, M * np.array([[1], [0], [1]]))


def test_where_chooses_rows_of_a_square_matrix() -> None:
    square = M[:, :3]
    expected = square * np.array([[1], [0], [1]])
    check(nd.where(nd.array([1, 0, 1]), nd.array(square), nd.zeros((3, 3))), expected)
    check(nd.where(nd.array([1, 0, 1]), nd.array(square), 0), expected)
    check(nd.where(nd.array([0, 1, 0]), 0, nd.array(square)), expected)
    with pytest.raises(ShapeError):
        nd.where(nd.array([1, 0, 1, 1]), nd.array(M), nd.zeros((3, 4)))
    compiled = graphc.compile(nd.where)
    check(compiled(nd.array([1, 0]), nd.array(M[:2]), nd.zeros((2, 4))), M[:2] * [[1], [0]])
    check(compiled(nd.array([1, 0, 1]), nd.array(square), nd.zeros((3, 3))), expected)


def test_sizes_and_axes_may_be_numpys() -> None:
    check(nd.array(M).reshape(np.array([2, 6])), M.reshape(2, 6))
    check(nd.reshape(nd.array(M), np.array([2, 6])), M.reshape(2, 6))
    check(nd.sum(nd.array(M), axis=np.int64(1)), M.sum(1))
    check(nd.zeros(np.array([2, 3])), np.zeros((2, 3)))


def test_operands_may_be_numpys() -> None:
    identity = np.eye(3, dtype=np.float32)
    for found in (nd.exp(M), nd.exp(data=M), nd.dot(lhs=identity, rhs=np.exp(M))):
        check(found, np.exp(M))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nd.exp(2.0), "exp got no array"),
        (lambda: nd.dot([1.0], [2.0]), "dot got no array"),
        (lambda: nd.concat(), "concat needs at least one array"),
        (lambda: nd.stack([]), "stack needs at least one array"),
        (lambda: nd.concatenate([]), "concatenate needs at least one array"),
        (lambda: nd.add_n(), "add_n needs at least one array"),
        (lambda: nd.exp(), "^exp missing 1 required positional argument: 'data'"),
        (lambda: nd.zeros((2.0, 2)), r"sizes must be whole numbers, 0 or more, got \(2.0, 2\)"),
        (lambda: nd.array(None), "cannot make an array of float32 of this NoneType"),
    ],
)
def test_calls_without_arrays(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(GraphcError, match=message) as caught:
        call()
    assert caught.value.where is not None and caught.value.where.file == __file__


# -- reductions --------------------------------------------------------------------------------

REDUCTIONS = {"sum": np.sum, "mean": np.mean, "prod": np.prod, "max": np.max, "min": np.min}
AXES: list[Any] = [None, 0, -1, (0, 2), [1], ()]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str, axis: Any, keepdims: bool) -> None:
    x = nd.array(X)
    plain = None if axis in (None, ()) else axis if isinstance(axis, int) else tuple(axis)
    expected = REDUCTIONS[name](X, axis=plain, keepdims=keepdims)
    check(getattr(nd, name)(x, axis=axis, keepdims=keepdims), expected)
    check(getattr(x, name)(axis=axis, keepdims=keepdims), expected)


def test_exclude() -> None:
    check(nd.sum(nd.array(X), axis=1, exclude=True), X.sum((0, 2)))
    check(nd.mean(nd.array(X), axis=(0, -1), exclude=True, keepdims=True), X.mean(1, keepdims=True))


@pytest.mark.parametrize("axis", [None, 0, 2])
def test_argmax_is_float32(axis: int | None) -> None:
    for name in ("argmax", "argmin"):
        found = getattr(nd, name)(nd.array(X), axis=axis)
        assert found.dtype is np.float32
        check(found, getattr(np, name)(X, axis=axis))
    check(nd.argmax_channel(nd.array(M)), M.argmax(1))


def test_norms_and_moments() -> None:
    check(nd.norm(nd.array(X)), np.sqrt((X * X).sum()))
    check(nd.norm(nd.array(X), ord=1, axis=1, keepdims=True), abs(X).sum(1, keepdims=True))
    mean, variance = nd.moments(nd.array(X), axes=(0, 2))
    check(mean, X.mean((0, 2)))
    check(variance, X.var((0, 2)))
    check(nd.nansum(nd.array([1, np.nan, 2])), 3)
    check(nd.nanprod(nd.array([4, np.nan, 2])), 8)
    for mode, axes in (("instance", (1, 2, 3)), ("channel", 1), ("spatial", (2, 3))):
        size = np.sqrt((IMAGE**2).sum(axes, keepdims=True) + 1e-10)
        check(nd.L2Normalization(nd.array(IMAGE), mode=mode), IMAGE / size)


# -- shapes ------------------------------------------------------------------------------------

CODES = [
    ((2, 3, 4), (0, -1), False, (2, 12)),
    ((2, 3, 4), (4, 0, 2), False, (4, 3, 2)),
    ((2, 3, 4), (6, 1, -1), False, (6, 1, 4)),
    ((2, 3, 4), (-2,), False, (2, 3, 4)),
    ((2, 3, 4), (2, -2), False, (2, 3, 4)),
    ((2, 3, 4), (-2, 1, 1), False, (2, 3, 4, 1, 1)),
    ((2, 3, 4), (-3, 4), False, (6, 4)),
    ((2, 3, 4, 5), (-3, -3), False, (6, 20)),
    ((2, 3, 4), (0, -3), False, (2, 12)),
    ((2, 3, 4), (-3, -2), False, (6, 4)),
    ((2, 3, 4), (-4, 1, 2, -2), False, (1, 2, 3, 4)),
    ((2, 3, 4), (2, -4, -1, 3, -2), False, (2, 1, 3, 4)),
    ((10, 5, 4), (-1, 0), False, (40, 5)),
    ((10, 5, 4), (-1, 0), True, (50, 4)),
    ((2, 3, 4), (-4, 1, -1, 0, 0), False, (1, 2, 3, 4)),
]


@pytest.mark.parametrize(("shape", "codes", "reverse", "expected"), CODES, ids=str)
def test_reshape_codes(shape: Any, codes: Any, reverse: bool, expected: Any) -> None:
    x = nd.arange(math.prod(shape)).reshape(shape)
    for found in (
        x.reshape(codes, reverse=reverse), nd.reshape(x, shape=codes, reverse=reverse),
        x.reshape(*codes, reverse=reverse), x.reshape(shape=codes, reverse=reverse),
    ):  # fmt: skip
        assert found.shape == expected
        assert found.asnumpy().reshape(-1).tolist() == list(range(math.prod(shape)))


@pytest.mark.parametrize("codes", [(0, 0, 0, 0), (-3, -3), (5, 5), (-4, 2), (-5, 2)], ids=str)
def test_reshape_that_does_not_fit(codes: Any) -> None:
    with pytest.raises(ShapeError):
        nd.array(X).reshape(codes)


def test_moving_axes() -> None:
    x = nd.array(X)
    check(nd.transpose(x), X.T)
    check(nd.transpose(x, axes=(1, 0, 2)), X.transpose(1, 0, 2))
    check(x.transpose((2, 0, 1)), X.transpose(2, 0, 1))
    check(x.transpose(2, 0, 1), X.transpose(2, 0, 1))
    check(nd.swapaxes(x, 0, 2), X.swapaxes(0, 2))
    check(nd.SwapAxis(x, dim1=0, dim2=1), X.swapaxes(0, 1))
    check(nd.moveaxis(x, 0, 2), np.moveaxis(X, 0, 2))
    check(nd.flatten(x), X.reshape(2, 12))
    check(nd.Flatten(nd.ones((3,))), np.ones((3, 1)))
    check(nd.expand_dims(x, axis=1), X[:, None])
    check(nd.squeeze(nd.ones((1, 2, 1))), np.ones(2))
    check(nd.squeeze(nd.ones((1, 1))), np.ones(1))
    check(nd.reshape_like(nd.array(M), nd.ones((2, 6))), M.reshape(2, 6))


def test_broadcasting_shapes() -> None:
    row = nd.array(M[:1])
    check(nd.broadcast_to(row, shape=(3, 4)), np.tile(M[:1], (3, 1)))
    check(row.broadcast_to((3, 0)), np.tile(M[:1], (3, 1)))
    check(nd.broadcast_axis(row, axis=0, size=2), np.tile(M[:1], (2, 1)))
    check(nd.broadcast_like(row, nd.array(M)), np.tile(M[:1], (3, 1)))
    check(
        nd.broadcast_like(row, nd.ones((5, 2)), lhs_axes=(0,), rhs_axes=(0,)),
        np.tile(M[:1], (5, 1)),
    )


def test_joining_and_cutting() -> None:
    a, b = nd.array(M), nd.array(-M)
    check(nd.concat(a, b), np.concatenate([M, -M], 1))
    check(nd.Concat(a, b, dim=0), np.concatenate([M, -M], 0))
    check(nd.concat([a, b], dim=-1), np.concatenate([M, -M], 1))
    check(nd.stack(a, b, axis=1), np.stack([M, -M], 1))
    check(nd.concatenate([a, b]), np.concatenate([M, -M]))
    parts = nd.split(a, num_outputs=2)
    assert isinstance(parts, list)
    check(parts[1], M[:, 2:])
    rows = nd.SliceChannel(a, num_outputs=3, axis=0, squeeze_axis=True)
    check(rows[2], M[2])
    assert isinstance(nd.split(a, num_outputs=1), nd.NDArray)
    check(nd.split_v2(a, (1, 3), axis=1)[1], M[:, 1:3])
    with pytest.raises(ShapeError, match="does not split into 3"):
        nd.split(a, num_outputs=3)


def test_slices() -> None:
    x = nd.array(X)
    check(nd.slice(x, begin=(0, 1), end=(1, None)), X[0:1, 1:])
    check(nd.slice(x, (None, -1), (None, 0), step=(1, -1)), X[:, -1:0:-1])
    check(nd.slice_axis(x, axis=-1, begin=1, end=None), X[..., 1:])
    check(nd.slice_axis(x, axis=1, begin=-2, end=-1), X[:, -2:-1])
    check(nd.slice_like(x, nd.ones((1, 2, 2))), X[:1, :2, :2])
    check(nd.slice_like(x, nd.ones((1, 2)), axes=(1,)), X[:, :2])


def test_repeating_and_padding() -> None:
    x = nd.array(M)
    check(nd.tile(x, reps=(2, 1, 2)), np.tile(M, (2, 1, 2)))
    check(nd.repeat(x, repeats=2, axis=1), np.repeat(M, 2, 1))
    check(nd.repeat(x, 2), np.repeat(M, 2))
    check(nd.flip(x, axis=1), M[:, ::-1])
    check(nd.reverse(x, axis=(0, 1)), M[::-1, ::-1])
    widths = (0, 0, 0, 0, 1, 2, 2, 1)
    pairs = [(0, 0), (0, 0), (1, 2), (2, 1)]
    for mode in ("edge", "reflect"):
        check(nd.pad(nd.array(IMAGE), mode=mode, pad_width=widths), np.pad(IMAGE, pairs, mode))
    check(nd.Pad(nd.array(IMAGE), "constant", widths, 3.0), np.pad(IMAGE, pairs, constant_values=3))
    with pytest.raises(ArgumentError, match="pad_width has 2 numbers"):
        nd.pad(nd.array(IMAGE), "edge", (1, 1))


# -- creation ----------------------------------------------------------------------------------


def test_creation() -> None:
    check(nd.zeros(3), np.zeros(3))
    check(nd.ones((2, 0)), np.ones((2, 0)))
    check(nd.full((2,), 7, dtype="int32"), [7, 7])
    assert nd.empty((2, 3)).shape == (2, 3)
    check(nd.arange(5), np.arange(5))
    assert nd.arange(5).dtype is np.float32
    check(nd.arange(1, 8, 2.5, repeat=2, dtype="float64"), np.repeat(np.arange(1, 8, 2.5), 2))
    check(nd.linspace(0, 1, 5), np.linspace(0, 1, 5))
    check(nd.eye(2, 3, 1), np.eye(2, 3, 1))
    check(nd.eye(2), np.eye(2))
    out = nd.zeros((2,))
    assert nd.full((2,), 3, out=out) is out and float(out.sum()) == 6
    nd.waitall()
    with pytest.raises(ShapeError, match="0 or more"):
        nd.zeros((-1,))


# -- indices -----------------------------------------------------------------------------------


def test_take_pick_one_hot() -> None:
    x, columns = nd.array(M), nd.array([3, 0, 9])
    check(nd.take(x, nd.array([[2, 0], [7, -1]])), M[[[2, 0], [2, 0]]])
    check(nd.take(x, nd.array([5, -1]), axis=1, mode="wrap"), M[:, [1, 3]])
    check(nd.pick(x, columns), M[[0, 1, 2], [3, 0, 3]])
    check(
        nd.pick(x, nd.array([0, 1, 2, 0]), axis=0, keepdims=True),
        M[[0, 1, 2, 0], [0, 1, 2, 3]][None],
    )
    check(nd.one_hot(nd.array([1, 5, 0]), 3), [[0, 1, 0], [0, 0, 0], [1, 0, 0]])
    assert nd.one_hot(columns, depth=4, on_value=2, off_value=1, dtype="int32").dtype is np.int32
    check(nd.batch_take(x, nd.array([3, 0, 2])), M[[0, 1, 2], [3, 0, 2]])
    check(nd.gather_nd(x, nd.array([[0, 2], [1, 3]])), M[[0, 2], [1, 3]])
    check(nd.scatter_nd(nd.array([5, 6, 1]), nd.array([[0, 2, 0]]), (3,)), [6, 0, 6])
    with pytest.raises(ArgumentError, match="Did you mean 'clip'"):
        nd.take(x, columns, mode="clap")


def test_embedding() -> None:
    weight = nd.array(M)
    found = nd.Embedding(nd.array([[0, 2]]), weight, input_dim=3, output_dim=4)
    check(found, M[[[0, 2]]])
    with pytest.raises(IndexRangeError, match="row 3 at position 1 is out of range"):
        nd.Embedding(nd.array([0, 3]), weight)
    with pytest.raises(ShapeError, match="input_dim is 5"):
        nd.Embedding(nd.array([0]), weight, input_dim=5)
    weight.attach_grad()
    with autograd.record():
        y = nd.Embedding(nd.array([1, 1]), weight)
    y.backward()
    check(weight.grad, [[0] * 4, [2] * 4, [0] * 4])


def test_sequences() -> None:
    lengths = nd.array([1, 2])
    x = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    expected = x.copy()
    expected[1:, 0], expected[2:, 1] = -1, -1
    check(nd.SequenceMask(nd.array(x), lengths, use_sequence_length=True, value=-1), expected)
    turned = nd.SequenceMask(nd.array(x.swapaxes(0, 1)), lengths, True, -1, axis=1)
    check(turned, expected.swapaxes(0, 1))
    check(nd.SequenceMask(nd.array(x)), x)
    check(nd.SequenceLast(nd.array(x), lengths, True), x[[0, 1], [0, 1]])
    check(nd.SequenceLast(nd.array(x)), x[-1])


# -- products ----------------------------------------------------------------------------------


def test_dot() -> None:
    a, b = nd.array(M), nd.array(X)
    check(nd.dot(a, nd.array(M.T)), M @ M.T)
    check(nd.dot(a, a, transpose_b=True), M @ M.T)
    check(nd.dot(a, a, transpose_a=True), M.T @ M)
    check(nd.dot(b, nd.array(M.T)), np.tensordot(X, M.T, 1))
    check(nd.dot(b, b.T), np.tensordot(X, X.T, 1))
    check(nd.dot(a, b, transpose_b=True), np.tensordot(M, X, ((1,), (2,))))
    check(nd.dot(nd.array([1, 2]), nd.array([3, 4])), 11)
    check(nd.dot(a, nd.array([1, 2, 3, 4])), M @ [1, 2, 3, 4])
    with pytest.raises(ShapeError, match="inner sizes differ"):
        nd.dot(a, a)


def test_batch_dot_and_gemm() -> None:
    x = nd.array(X)
    check(nd.batch_dot(x, x, transpose_b=True), X @ X.swapaxes(1, 2))
    check(nd.linalg.gemm2(x, x, transpose_a=True, alpha=2.0), 2 * X.swapaxes(1, 2) @ X)
    check(nd.linalg_gemm2(nd.array(M), nd.array(M.T)), M @ M.T)
    check(nd.linalg.gemm(nd.array(M), nd.array(M.T), nd.ones((3, 3)), beta=3.0), M @ M.T + 3)
    check(nd.linalg.syrk(nd.array(M), transpose=True), M.T @ M)
    with pytest.raises(ShapeError, match="batches of matrices"):
        nd.batch_dot(nd.array(M), nd.array(M.T))


# -- keywords ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nd.FullyConnected(nd.ones((1, 2)), nd.ones((3, 2)), num_hiden=3), "'num_hidden'"),
        (lambda: nd.Activation(nd.ones((1,)), act_type="rellu"), "'relu'"),
        (lambda: nd.sum(nd.ones((1,)), axes=1), "'axis'"),
        (lambda: nd.concat(nd.ones((1,)), axis=0, dm=1), "'dim'|concat"),
        (lambda: nd.LeakyReLU(nd.ones((1,)), act_type="leeky"), "'leaky'"),
        (lambda: nd.Pooling(nd.ones((1, 1, 2)), pool_type="maxx"), "'max'"),
    ],
)
def test_misspelt_words_name_the_nearest(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=rf"(Did you mean )?({message})[\s\S]*test_nd_ops.py"):
        call()


def test_out_and_name() -> None:
    out = nd.zeros((3, 4))
    assert nd.relu(nd.array(M), out=out, name="r") is out
    check(out, np.maximum(M, 0))


def test_every_operator_of_the_table_is_in_nd() -> None:
    hidden = {"_copy", "_contrib_isnan", "_contrib_isinf", "_contrib_isfinite", "pow"}
    missing = [n for n in OPERATORS if not n.startswith("_linalg") and not hasattr(nd, n)]
    assert set(missing) <= hidden


def test_numpy_arrays_are_taken() -> None:
    check(nd.relu(M), np.maximum(M, 0))
    with pytest.raises(DTypeError, match="cannot take a str"):
        nd.relu(nd.ones((1,)) * 1) + nd.broadcast_add(nd.ones((1,)), "x")

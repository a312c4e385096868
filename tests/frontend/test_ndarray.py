"""NDArray: MXNet 1.9's types, shapes, indexing, writing, conversion."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest

from graphc import context, nd
from graphc.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    IndexRangeError,
    ShapeError,
)
from graphc.frontend.array import Array
from graphc.frontend.memory import filled

SHAPE = (2, 3, 4)


@pytest.fixture
def source() -> np.ndarray:
    return np.arange(24, dtype=np.float32).reshape(SHAPE)


def same(found: nd.NDArray, expected: np.ndarray) -> None:
    assert isinstance(found, nd.NDArray)
    expected = np.asarray(expected)
    assert found.shape == (expected.shape or (1,))
    np.testing.assert_array_equal(found.asnumpy(), expected.reshape(found.shape))


# -- making and describing ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [[1, 2], [1.5, 2.5], (3,), np.arange(3), np.float64(2.5), 7])
def test_array_is_float32_by_default(value: object) -> None:
    found = nd.array(value)
    assert found.dtype is np.float32
    same(found, np.asarray(value, np.float32))


def test_array_copies_and_keeps_the_type_of_an_ndarray(source: np.ndarray) -> None:
    x = nd.array(source)
    source[0] = -1
    assert x.asnumpy()[0, 0, 1] == 1
    assert nd.array(nd.ones((2,), dtype="int32")).dtype is np.int32
    same(nd.array([nd.array([1, 2]), nd.array([3, 4])]), np.array([[1, 2], [3, 4]]))


def test_descriptions(source: np.ndarray) -> None:
    x = nd.array(source)
    assert (x.shape, x.size, x.ndim, len(x), x.dtype) == (SHAPE, 24, 3, 2, np.float32)
    assert x.context == x.ctx == x.device == context.cpu(0)
    assert x.stype == "default"
    same(x.T, source.T)
    assert repr(nd.ones((1, 2))) == "\n[[1. 1.]]\n<NDArray 1x2 @cpu(0)>"
    assert hash(x) == hash(x) and len({x, x, nd.array(source)}) == 2


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(DTypeError, match="equal lengths"):
        nd.array([[1], [2, 3]])


def test_unknown_dtype_names_the_nearest_and_the_line() -> None:
    with pytest.raises(DTypeError, match=r"'flaot32'. Did you mean 'float32'.*test_ndarray.py"):
        nd.zeros((2,), dtype="flaot32")


# -- indexing ----------------------------------------------------------------------------------

BASIC = [
    0, -1, slice(1, None), (1, 2), (0, slice(None), 1), (slice(None), -2), (Ellipsis, 3),
    (slice(None), slice(None, None, -1)), (None, 1), (1, 2, 3), (slice(0, 0),),
    (slice(None), slice(0, 3, 2), slice(1, 3)), Ellipsis, (0, Ellipsis, None),
]  # fmt: skip
ADVANCED = [
    [1, 0], np.array([0, 1, 1]), ([0, 1], [2, -1]), (slice(None), [0, 2]),
    (0, [1, 1]), ([[0], [1]], [[0, 2]]), ([0, 1], slice(None), [3, 0]), (slice(None), 1, [0, 3]),
]  # fmt: skip


@pytest.mark.parametrize("key", BASIC, ids=str)
def test_basic_indexing(source: np.ndarray, key: object) -> None:
    same(nd.array(source)[key], source[key])


@pytest.mark.parametrize("key", ADVANCED, ids=str)
def test_integer_array_indexing(source: np.ndarray, key: object) -> None:
    plain = (
        tuple(np.asarray(k) if isinstance(k, list) else k for k in key)
        if isinstance(key, tuple)
        else np.asarray(key)
    )
    same(nd.array(source)[key], source[plain])


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64", "uint8"])
def test_indices_may_be_ndarrays_of_any_number_type(source: np.ndarray, dtype: str) -> None:
    same(nd.array(source)[nd.array([1, 0, 1], dtype=dtype)], source[[1, 0, 1]])


def test_an_element_of_a_vector_has_shape_1() -> None:
    x = nd.array([1, 2, 3])
    same(x[1], np.array([2.0]))
    assert [float(v) for v in x] == [1, 2, 3]


OUT_OF_RANGE = [5, (0, 3), (0, 0, -5), [0, 2]]


@pytest.mark.parametrize("key", OUT_OF_RANGE, ids=str)
def test_out_of_range_write(source: np.ndarray, key: object) -> None:
    with pytest.raises(IndexRangeError, match="cannot write into an array of shape .* out of bo"):
        nd.array(source)[key] = 1


@pytest.mark.parametrize("key", OUT_OF_RANGE, ids=str)
def test_out_of_range_index(source: np.ndarray, key: object) -> None:
    with pytest.raises(IndexRangeError, match="out of range"):
        nd.array(source)[key]


def test_too_many_indices(source: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="4 indices"):
        nd.array(source)[0, 0, 0, 0]


@pytest.mark.parametrize("write", [False, True])
def test_boolean_masks_are_refused(write: bool) -> None:
    x = nd.array([1, 2, 3])
    masks = np.array([True, False, True]), x > 1, (x > 1).astype("bool"), nd.lesser(x, 2), True
    for mask in masks:
        with pytest.raises(DTypeError, match="boolean mask"):
            if write:
                x[mask] = 0
            else:
                x[mask]


def test_contiguous_slices_and_reshapes_alias(source: np.ndarray) -> None:
    x = nd.array(source)
    views = x[1], x[0:1], x[1, 2], x[1, 2, 3], x.reshape((-1,)), x.reshape((4, 6)), x.detach()
    for view in views:
        x[:] = 0
        view[:] = 5
        assert x.asnumpy().sum() == 5 * view.size
        assert view._storage is x._storage


def test_everything_else_copies(source: np.ndarray) -> None:
    x = nd.array(source)
    row = nd.array([[1, 2]])
    copies = [
        x[:, 1], x[[0, 1]], x.copy(), x.T, x.transpose(0, 1, 2), x.astype("float32"),
        x.expand_dims(0), row.squeeze(), row.T, x.broadcast_to(SHAPE), nd.identity(x), x + 0,
        nd.BlockGrad(x), nd.array(x), x.copyto(context.cpu()),
    ]  # fmt: skip
    for copied in copies:
        copied[:] = -7
    same(x, source)
    same(row, np.array([[1, 2]]))


def test_copies_where_asked_to() -> None:
    x = nd.ones((2,))
    assert x.astype("float32", copy=False) is x
    assert x.as_in_context(context.cpu(0)) is x
    assert x.as_in_context(context.cpu_pinned(1)) is x
    assert x.astype("int32").dtype is np.int32


# -- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", BASIC + ADVANCED, ids=str)
def test_writing(source: np.ndarray, key: object) -> None:
    x = nd.array(source)
    x[key] = 9
    plain = (
        tuple(np.asarray(k) if isinstance(k, list) else k for k in key)
        if isinstance(key, tuple)
        else key
    )
    source[plain] = 9
    same(x, source)


def test_writing_arrays_casts_and_broadcasts() -> None:
    x = nd.zeros((2, 3), dtype="int32")
    x[0] = nd.array([1.7, 2.2, 3.9])
    x[1] = np.array([[4, 5, 6]])
    same(x, np.array([[1, 2, 3], [4, 5, 6]]))
    x[:] = [7, 8, 9]
    same(x, np.array([[7, 8, 9]] * 2))
    x[nd.array([0, 1]), 2] = 0
    same(x, np.array([[7, 8, 0]] * 2))


@pytest.mark.parametrize("key", [(0, 1), (0,), (slice(None), 2), ([0, 1],)], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1)])
def test_one_element_is_written_anywhere(key: object, shape: tuple[int, ...]) -> None:
    x, expected = nd.zeros((2, 3)), np.zeros((2, 3))
    x[key] = np.full(shape, 7.0) if shape == () else nd.full(shape, 7.0)
    expected[key] = 7.0
    same(x, expected)


def test_writing_what_does_not_fit() -> None:
    x = nd.zeros((2, 3))
    with pytest.raises(ShapeError, match=r"shape \(4,\) into a part of shape \(3,\)"):
        x[0] = nd.ones((4,))
    with pytest.raises(ShapeError):
        x[:] = nd.ones((3, 3))


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "imod"])
def test_in_place_operators_keep_identity_memory_and_grad(name: str) -> None:
    x = nd.array([5, 6, 7])
    x.attach_grad()
    before, memory, gradient = x, x._array, x.grad
    x = getattr(operator, name)(x, 2)
    assert x is before and x._array is memory and x.grad is gradient
    expected = getattr(operator, name)(np.array([5, 6, 7], np.float32), 2)
    same(x, expected)


# -- arithmetic and types ----------------------------------------------------------------------

OPERATIONS = ["add", "sub", "mul", "truediv", "mod", "pow"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_arithmetic(name: str) -> None:
    a, b = np.array([[1.5], [-2.0]], np.float32), np.array([2.0, 3.0], np.float32)
    apply = getattr(operator, name)
    with np.errstate(all="ignore"):
        for left, right in ((a, b), (a, 2), (3, b)):
            expected = apply(left, right)
            wrapped = [nd.array(v) if isinstance(v, np.ndarray) else v for v in (left, right)]
            np.testing.assert_allclose(apply(*wrapped).asnumpy(), expected, rtol=1e-6)


def test_unary_operators() -> None:
    x = nd.array([-1, 2])
    same(-x, np.array([1, -2]))
    same(abs(x), np.array([1, 2]))


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne"])
def test_comparisons_give_float32_zeros_and_ones(name: str) -> None:
    x = np.array([1, 2, 3], np.float32)
    found = getattr(operator, name)(nd.array(x), 2)
    assert found.dtype is np.float32
    same(found, getattr(operator, name)(x, 2).astype(np.float32))
    same(getattr(operator, name)(nd.array(x), nd.array([2, 2, 2])), getattr(operator, name)(x, 2))


def test_equal_to_something_else_is_plain_inequality() -> None:
    assert (nd.ones((2,)) == None) is False  # noqa: E711
    assert (nd.ones((2,)) != "x") is True


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda: nd.ones((2,)) / np.sqrt(3.0), np.float32),
        (lambda: nd.ones((2,)) * np.float64(2), np.float32),
        (lambda: np.float64(2) * nd.ones((2,)), np.float32),
        (lambda: nd.ones((2,), dtype="int32") + 1, np.int32),
        (lambda: nd.ones((2,), dtype="int32") * 0.5, np.float32),
        (lambda: nd.ones((2,), dtype="int32") + nd.ones((2,)), np.float32),
        (lambda: nd.ones((2,), dtype="int64") + nd.ones((2,)), np.float32),
        (lambda: nd.ones((2,), dtype="int32") + nd.ones((2,), dtype="float64"), np.float64),
        (lambda: nd.ones((2,), dtype="uint8") + nd.ones((2,), dtype="int32"), np.int32),
        (lambda: nd.exp(nd.ones((2,), dtype="int32")), np.float32),
        (lambda: nd.ones((2,), dtype="int32") / 2, np.float32),
        (lambda: nd.ones((2,), dtype="int32").mean(), np.float32),
        (lambda: nd.ones((2,), dtype="int32").sum(), np.int32),
        (lambda: nd.ones((2,)) + np.ones(2), np.float32),
    ],
)
def test_result_types(expression: object, expected: type) -> None:
    assert expression().dtype is expected  # type: ignore[operator]


def test_contractions_refuse_mixed_types() -> None:
    with pytest.raises(DTypeError, match=r"float32 and float64[\s\S]*astype"):
        nd.dot(nd.ones((2, 2)), nd.ones((2, 2), dtype="float64"))


def test_numpy_on_the_left_defers() -> None:
    found = np.ones((2,), np.float32) - nd.array([1, 2])
    same(found, np.array([0, -1]))


# -- conversion --------------------------------------------------------------------------------


def test_scalars() -> None:
    x = nd.array([2.5])
    assert (float(x), int(x), bool(x), x.item(), x.asscalar()) == (2.5, 2, True, 2.5, 2.5)
    assert isinstance(x.asscalar(), np.float32)
    assert range(3)[nd.array([1], dtype="int32")] == 1
    for convert in (float, int, bool, nd.NDArray.asscalar):
        with pytest.raises(ShapeError, match=r"\(2,\)"):
            convert(nd.ones((2,)))


def test_numpy_conversion_copies(source: np.ndarray) -> None:
    x = nd.array(source)
    for copied in (x.asnumpy(), np.array(x), np.asarray(x)):
        copied[:] = -1
    same(x, source)
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert x.tolist() == source.tolist()


def test_dlpack_shares_memory(source: np.ndarray) -> None:
    x = nd.array(source)
    np.from_dlpack(x)[0, 0, 0]
    y = nd.from_dlpack(x)
    y[:] = 3
    assert x.asnumpy().min() == 3
    same(nd.from_numpy(source), source)
    with pytest.raises(ShapeError, match="C-contiguous"):
        nd.from_numpy(source.T)


def test_pickle_and_copies(source: np.ndarray) -> None:
    x = nd.array(source)
    for made in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), copy.copy(x)):
        same(made, source)
        made[:] = 0
    same(x, source)


def test_copyto(source: np.ndarray) -> None:
    x, y = nd.array(source), nd.zeros(SHAPE, dtype="int32")
    assert x.copyto(y) is y
    same(y, source.astype(np.int32))
    with pytest.raises(ArgumentError, match="copyto"):
        x.copyto(source)
    with pytest.raises(ShapeError):
        x.copyto(nd.zeros((1,)))


def test_save_and_load(tmp_path, source: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    x = nd.array(source)
    for name in ("a.params", "a.safetensors"):
        nd.save(str(tmp_path / name), {"w": x, "b": nd.ones((2,), dtype="int32")})
        found = nd.load(str(tmp_path / name))
        same(found["w"], source)
        assert found["b"].dtype is np.int32
    nd.save(tmp_path / "list.params", [x, x])
    assert len(nd.load(tmp_path / "list.params")) == 2
    with pytest.raises(ArgumentError, match="NDArray"):
        nd.save(tmp_path / "x.params", {"w": source})


# -- devices -----------------------------------------------------------------------------------


def test_contexts() -> None:
    assert context.gpu(1) == context.Context("gpu", 1) != context.gpu(0)
    assert repr(context.cpu()) == "cpu(0)" and context.num_gpus() >= 0
    with context.cpu(3):
        assert context.current_context() == context.cpu(3)
    assert context.current_context() == context.cpu(0)
    with pytest.raises(ArgumentError, match="Did you mean 'gpu'"):
        context.Context("gpuu")


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: nd.zeros((2,), ctx=context.gpu(99)),
        lambda: nd.ones((2,)).as_in_context(context.gpu(99)),
        lambda: nd.ones((2,)).copyto(context.gpu(99)),
        lambda: nd.random.uniform(ctx=context.gpu(99)),
    ],
)
def test_allocating_on_a_gpu(allocate: object) -> None:
    with pytest.raises(DeviceError, match=r"gpu\(99\)"):
        allocate()  # type: ignore[operator]
    with context.gpu(99), pytest.raises(DeviceError):
        nd.zeros((2,))


def test_plain_arrays_stay_plain() -> None:
    assert type(Array(np.ones(2)) + 1) is Array
    assert type(Array(np.ones(2, np.float32)) + nd.ones((2,))) is nd.NDArray


def test_a_negative_zero_fills_memory() -> None:
    assert np.signbit(filled((2,), -0.0, np.float32, None)).all()
    assert not np.signbit(filled((2,), 0, np.float32, None)).any()

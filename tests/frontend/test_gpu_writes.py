"""Writes into parts of arrays on emulated GPUs: what NumPy does, and nothing goes to the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated_cuda import FakeCuda

import graphc
from graphc import nd
from graphc.errors import IndexRangeError, ShapeError, user_location

GPU = graphc.gpu(0)
KEYS = [
    np.s_[:, 1], np.s_[::2], np.s_[:, ::-1], np.s_[..., 1:3], np.s_[1:, None, 0], np.s_[2:0:-1, 0],
    np.s_[:, 1:1], np.s_[:, 0, 3], np.s_[1:2, :, 1:], np.s_[[0, 2]], np.s_[:, [1, 1, 0]],
    np.s_[[0, 1], :, [2, -1]], np.s_[[[0], [1]], [0, 1]], np.s_[[]],
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_writes_are_those_of_numpy(emulated: FakeCuda, key: Any, dtype: str) -> None:
    expected = np.arange(24).reshape(3, 2, 4).astype(dtype)
    x, shape = nd.array(expected, ctx=GPU, dtype=dtype), expected[key].shape
    numbers = np.random.default_rng(0).integers(0, 99, shape)
    values: list[Any] = [5, numbers, numbers[..., :1], numbers[None].astype("float64")]
    there = [nd.array(value, ctx=GPU) for value in values[1:] if np.size(value)]
    for value in (*values, *there):
        emulated.calls.clear()
        x[key] = value
        assert not emulated.named("sync")
        expected[key] = value.asnumpy() if isinstance(value, nd.NDArray) else value
        np.testing.assert_array_equal(x.asnumpy(), expected)


def test_values_of_other_devices_and_of_the_array_itself(emulated: FakeCuda) -> None:
    expected = np.arange(12, dtype=np.float32).reshape(4, 3)
    x = nd.array(expected, ctx=GPU)
    for ctx in (graphc.cpu(), graphc.gpu(1)):
        x[:, 1] = nd.full((4,), 7 + ctx.device_id, ctx=ctx)
        expected[:, 1] = 7 + ctx.device_id
    x[::2] = x[1:3]
    expected[::2] = expected[1:3].copy()
    np.testing.assert_array_equal(x.asnumpy(), expected)


def test_writes_into_a_view(emulated: FakeCuda) -> None:
    expected = np.arange(15, dtype=np.float32).reshape(5, 3)
    x = nd.array(expected, ctx=GPU)
    view = x[1:4]  # which does not begin at a vector
    view[:, 1] = 9
    expected[1:4, 1] = 9
    np.testing.assert_array_equal(x.asnumpy(), expected)


def test_one_program_serves_every_index(emulated: FakeCuda) -> None:
    x = nd.zeros((6, 7), ctx=GPU)
    x[:, 1] = 1.5
    emulated.calls.clear()
    for column in range(7):
        x[:, column] = column
        x[column % 2 :: 2, 3] = column
    assert not emulated.named("load")


INDEXED = [
    np.s_[[0, 2]], np.s_[[2, 0, 2, 2]], np.s_[:, [1, 1, 0]], np.s_[[0, -1], :, [2, -1]],
    np.s_[[[0], [1]], [0, 1]], np.s_[1, [1, 0, 1], 1:3], np.s_[::2, None, [1]],
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize("key", INDEXED, ids=str)
def test_indices_that_only_the_device_knows(emulated: FakeCuda, key: Any, dtype: str) -> None:
    expected = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    x, shape = nd.array(expected, ctx=GPU), expected[key].shape
    parts = key if isinstance(key, tuple) else (key,)
    there = tuple(
        nd.array(p, ctx=GPU, dtype=dtype) if isinstance(p, list) else p for p in parts
    )
    for value in (5, np.arange(np.prod(shape)).reshape(shape)):
        emulated.calls.clear()
        x[there] = value
        assert not emulated.named("sync")
        expected[key] = value
        np.testing.assert_array_equal(x.asnumpy(), expected)


def test_an_index_out_of_range_is_heard_of_later(emulated: FakeCuda) -> None:
    x = nd.zeros((3, 4), ctx=GPU)
    x[nd.array([0, 3], ctx=GPU)] = 1
    line = int(str(user_location()).rpartition(":")[2]) - 1
    with pytest.raises(IndexRangeError, match=rf"index 3 at .*\[test_gpu_writes.py:{line}\]"):
        nd.waitall()
    assert not x.asnumpy().any()


def test_indices_on_another_device(emulated: FakeCuda) -> None:
    index = nd.array([0, 2], ctx=GPU)
    for ctx in (graphc.cpu(), graphc.gpu(1)):
        x = nd.zeros((3, 2), ctx=ctx)
        x[index] = 1
        assert x.asnumpy().tolist() == [[1, 1], [0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        (np.s_[:, 1], np.ones(4), ShapeError, r"shape \(4,\) into a part of shape \(3,\)"),
        (np.s_[[0, 1]], np.ones(3), ShapeError, r"shape \(3,\) into a part of shape \(2, 4\)"),
        ("there", np.ones(3), ShapeError, r"shape \(3,\) into a part of shape \(2, 4\)"),
        (np.s_[:, 4], 1, IndexRangeError, "index 4 is out of bounds for axis 1 with size 4"),
        (np.s_[[0, 3]], 1, IndexRangeError, "index 3 is out of bounds for axis 0 with size 3"),
    ],
)
def test_what_does_not_fit(
    emulated: FakeCuda, key: Any, value: Any, error: type[Exception], message: str
) -> None:
    x = nd.zeros((3, 4), ctx=GPU)
    key = nd.array([0, 1], ctx=GPU) if isinstance(key, str) else key
    with pytest.raises(error, match=message):
        x[key] = value

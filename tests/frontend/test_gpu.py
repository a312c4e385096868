"""Arrays, gradients and compiled functions on emulated GPUs: what the CPU gives, elsewhere."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from device_programs import floats
from emulated_cuda import FakeCuda

import graphc
from graphc import autograd, gluon, nd, sym
from graphc.cli.info import gpu_line
from graphc.errors import (
    CompileError,
    DeviceError,
    IndexRangeError,
    ShapeError,
    user_location,
)
from graphc.runtime import cuda
from graphc.runtime.device import DeviceArray

pytestmark = pytest.mark.usefixtures("emulated")
GPU = graphc.gpu(0)


def there(array: np.ndarray) -> Any:
    found = nd.array(array, ctx=GPU, dtype=array.dtype)
    assert isinstance(found._array, DeviceArray)
    return found


# -- making, copying, reading ----------------------------------------------------------------


def test_there_are_two() -> None:
    assert graphc.num_gpus() == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda ctx: nd.array([[1, 2], [3, 4]], ctx=ctx),
        lambda ctx: nd.zeros((2, 3), ctx=ctx),
        lambda ctx: nd.ones((2, 3), ctx=ctx, dtype="int32"),
        lambda ctx: nd.full((4,), 2.5, ctx=ctx),
        lambda ctx: nd.arange(5, ctx=ctx),
        lambda ctx: nd.eye(3, ctx=ctx),
        lambda ctx: nd.linspace(0, 1, 5, ctx=ctx),
        lambda ctx: nd.array(np.arange(6).reshape(2, 3), ctx=ctx, dtype="int64"),
        lambda ctx: nd.array(np.float64(2), ctx=ctx),
    ],
)
def test_arrays_are_made_there(make: Callable[[Any], Any]) -> None:
    here, far = make(graphc.cpu()), make(GPU)
    assert far.context == GPU and isinstance(far._array, DeviceArray)
    assert (far.shape, far.dtype) == (here.shape, here.dtype)
    np.testing.assert_array_equal(far.asnumpy(), here.asnumpy())


@pytest.mark.parametrize("size", [7, 5000])
def test_draws_are_the_same_there(size: int) -> None:
    draws = []
    for ctx in (graphc.cpu(), GPU):
        graphc.random.seed(3)
        ends = nd.arange(size, ctx=ctx)
        found = [
            nd.random.uniform(shape=(size,), ctx=ctx), nd.random.normal(shape=(size, 3), ctx=ctx),
            nd.random.normal(2, 3, shape=(size,), ctx=ctx, dtype="float64"),
            nd.random.randint(0, 9, shape=(size,), ctx=ctx), nd.random.shuffle(ends),
            nd.random.uniform(0, ends), nd.random.normal(ends, 2), nd.random.exponential(ends + 1),
            nd.random.bernoulli(0.3, shape=(size,), ctx=ctx), nd.random.uniform_like(ends),
            nd.random.exponential(2, shape=(size,), ctx=ctx),
        ]  # fmt: skip
        assert all(f.context == ctx for f in found)
        draws.append([f.asnumpy() for f in found])
    for here, far in zip(*draws, strict=True):
        np.testing.assert_array_equal(here, far)


def test_many_numbers_are_drawn_there(emulated: FakeCuda) -> None:
    for draw in (nd.random.uniform, nd.random.normal):
        draw(shape=(5000,), ctx=GPU)
        emulated.calls.clear()
        draw(shape=(5000,), ctx=GPU)
        assert all(size < 1000 for _, size in emulated.named("copy"))


def test_a_scope_chooses_the_device() -> None:
    with graphc.gpu(1):
        assert nd.zeros((2,)).context == graphc.gpu(1)


def test_arrays_move() -> None:
    x = nd.array(floats(3, 4))
    far = x.as_in_context(GPU)
    farther = far.copyto(graphc.gpu(1))
    back = farther.as_in_context(graphc.cpu())
    assert (far.context, farther.context, back.context) == (GPU, graphc.gpu(1), graphc.cpu())
    assert far.as_in_context(GPU) is far
    np.testing.assert_array_equal(back.asnumpy(), floats(3, 4))
    into = nd.zeros((3, 4), ctx=GPU)
    x.copyto(into)
    np.testing.assert_array_equal(into.asnumpy(), floats(3, 4))


def test_elements_come_out() -> None:
    x = there(np.array([2.5], np.float32))
    assert x.asscalar() == x.item() == float(x) == 2.5 and int(x) == 2 and bool(x)
    assert there(floats(2)).tolist() == floats(2).tolist()
    assert repr(x) == "\n[2.5]\n<NDArray 1 @gpu(0)>"
    assert np.asarray(x).tolist() == [2.5]
    with pytest.raises(ValueError, match="not in memory that NumPy can read"):
        np.asarray(x, copy=False)


def test_copies_and_pickles_stay_there() -> None:
    x = there(floats(3))
    for found in (x.copy(), copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert found.context == GPU and found._array.memory is not x._array.memory
        np.testing.assert_array_equal(found.asnumpy(), floats(3))


@pytest.mark.parametrize("name", ["x.params", "x.safetensors"])
def test_files(tmp_path: Path, name: str) -> None:
    nd.save(tmp_path / name, {"x": there(floats(2, 3))})
    with GPU:
        (found,) = nd.load(tmp_path / name).values()
    assert found.context == GPU
    np.testing.assert_array_equal(found.asnumpy(), floats(2, 3))


def test_waiting() -> None:
    x = there(floats(3)) + 1
    x.wait_to_read()
    nd.waitall()
    assert not x._array.device.stream.work


# -- operations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x + y,
        lambda x, y: 2 * x - y / 3,
        lambda x, y: x > y,
        lambda x, y: x.sum(axis=1),
        lambda x, y: x.max(),
        lambda x, y: x.softmax(),
        lambda x, y: nd.dot(x, y.T),
        lambda x, y: nd.concat(x, y, dim=1),
        lambda x, y: nd.stack(x, y),
        lambda x, y: x.T,
        lambda x, y: x[:, 1],
        lambda x, y: x[::2, 1:3],
        lambda x, y: x[1],
        lambda x, y: x[nd.array([2, 0], ctx=x.context)],
        lambda x, y: nd.take(x, nd.array([1, 1], ctx=x.context)),
        lambda x, y: nd.where(x > 0, x, y),
        lambda x, y: x.argmax(axis=1),
        lambda x, y: nd.split(x, 2, axis=1)[1],
        lambda x, y: x.astype("int32"),
        lambda x, y: x.reshape((2, -1)),
        lambda x, y: nd.one_hot(nd.array([1, 0], ctx=x.context), 3),
        lambda x, y: nd.norm(x),
        lambda x, y: nd.FullyConnected(x, y, None, no_bias=True, num_hidden=3),
        lambda x, y: nd.LayerNorm(x, y[0], y[1]),
        lambda x, y: nd.Convolution(
            x.reshape((1, 1, 3, 4)), y[:2, :2].reshape((1, 1, 2, 2)), None, no_bias=True,
            kernel=(2, 2), num_filter=1,
        ),
        lambda x, y: nd.Pooling(x.reshape((1, 1, 3, 4)), kernel=(2, 2), pool_type="max"),
        lambda x, y: nd.zeros_like(x) + nd.ones_like(y),
        lambda x, y: x.clip(-1, 1),
        lambda x, y: np.add(x, 1),
    ],
)  # fmt: skip
def test_operations(function: Callable[[Any, Any], Any]) -> None:
    x, y = floats(3, 4), floats(3, 4)[::-1].copy()
    here = function(nd.array(x), nd.array(y))
    far = function(there(x), there(y))
    assert far.context == GPU and (far.shape, far.dtype) == (here.shape, here.dtype)
    np.testing.assert_allclose(far.asnumpy(), here.asnumpy(), rtol=2e-6, atol=2e-6)


def test_views_share_memory() -> None:
    x = there(floats(3, 4))
    x[1] = 5
    x[2:][:] = nd.zeros((1, 4), ctx=GPU)
    x.reshape((12,))[0:2] = there(np.array([7, 8], np.float32))
    x[0, 2] = 9
    expected = floats(3, 4)
    expected[1], expected[2], expected[0, :3] = 5, 0, [7, 8, 9]
    np.testing.assert_array_equal(x.asnumpy(), expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (slice(None), 1), (slice(None), floats(4)), ((slice(None), 1), 2.0),
        ((slice(None), slice(None, None, 2)), floats(3, 2)), (1, np.float64(3)),
        ((slice(None), -1), floats(3)),
    ],
)  # fmt: skip
def test_writing_into_parts(key: Any, value: Any) -> None:
    x, expected = there(floats(3, 4)), floats(3, 4)
    expected[key] = value
    x[key] = value
    np.testing.assert_array_equal(x.asnumpy(), expected)
    y = there(floats(3, 4))
    y[key] = nd.array(value, ctx=GPU) if isinstance(value, np.ndarray) else value
    np.testing.assert_array_equal(y.asnumpy(), expected)


def test_writing_at_index_arrays() -> None:
    x, expected = there(floats(3, 4)), floats(3, 4)
    x[nd.array([2, 0], ctx=GPU)] = 1
    expected[[2, 0]] = 1
    np.testing.assert_array_equal(x.asnumpy(), expected)


def test_in_place_operators() -> None:
    x = there(floats(3))
    same = x
    x += 1
    x *= there(floats(3))
    assert same is x
    np.testing.assert_array_equal(x.asnumpy(), (floats(3) + 1) * floats(3))


# -- gradients, compiled functions -----------------------------------------------------------


def chain(x: Any, w: Any) -> Any:
    return (nd.dot(x, w).tanh() * x[:, :1]).sum()


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("grad_req", ["write", "add"])
def test_gradients(hybrid: bool, grad_req: str) -> None:
    found = []
    for ctx in (graphc.cpu(), GPU):
        x, w = nd.array(floats(3, 4), ctx=ctx), nd.array(floats(4, 5), ctx=ctx)
        function = graphc.compile(chain) if hybrid else chain
        w.attach_grad(grad_req)
        for _ in range(2):
            with autograd.record():
                loss = function(x, w)
            loss.backward()
        assert w.grad.context == ctx
        found.append((loss.asnumpy(), w.grad.asnumpy()))
    for here, far in zip(*found, strict=True):
        np.testing.assert_allclose(far, here, rtol=1e-5, atol=1e-6)


def test_gradients_through_views_and_between_devices() -> None:
    x = there(floats(4, 3))
    x.attach_grad()
    with autograd.record():
        y = (x[1:3].reshape((3, 2)) * 2).as_in_context(graphc.gpu(1)).sum()
    y.backward()
    expected = np.zeros((4, 3), np.float32)
    expected[1:3] = 2
    np.testing.assert_array_equal(x.grad.asnumpy(), expected)


def test_compiled_functions_follow_their_arguments() -> None:
    function = graphc.compile(lambda x: (x * 2).sum(axis=0))
    for ctx in (GPU, graphc.cpu(), graphc.gpu(1), GPU):
        for rows in (3, 70, 3):
            found = function(nd.array(floats(rows, 4), ctx=ctx))
            assert found.context == ctx
            np.testing.assert_allclose(
                found.asnumpy(), 2 * floats(rows, 4).sum(0), rtol=1e-4, atol=1e-5
            )


def test_draws_in_compiled_functions() -> None:
    found = []
    for ctx in (graphc.cpu(), GPU):
        graphc.random.seed(5)
        function = graphc.compile(lambda x: x * nd.random.uniform(shape=(40,)))
        found.append([function(nd.ones((40,), ctx=ctx)).asnumpy() for _ in range(2)])
    np.testing.assert_array_equal(*found)
    assert (found[0][0] != found[0][1]).any()


def test_executors() -> None:
    a, b = sym.Variable("a"), sym.Variable("b")
    x, y = there(floats(3, 4)), there(floats(3, 4))
    grads = {"a": nd.zeros((3, 4), ctx=GPU)}
    executor = (a * b).bind(GPU, {"a": x, "b": y}, args_grad=grads)
    (found,) = executor.forward(is_train=True)
    executor.backward(nd.ones((3, 4), ctx=GPU))
    assert found.context == GPU
    np.testing.assert_array_equal(found.asnumpy(), floats(3, 4) ** 2)
    np.testing.assert_array_equal(grads["a"].asnumpy(), floats(3, 4))


# -- errors ----------------------------------------------------------------------------------


def test_arrays_on_two_devices() -> None:
    with pytest.raises(DeviceError, match=r"operand 0 is on gpu\(0\), operand 1 is on cpu\(0\)"):
        there(floats(3)) + nd.ones((3,))


def test_an_index_out_of_range_names_the_line() -> None:
    x = there(floats(3, 4))
    nd.take(x, there(np.array([1])), mode="raise")
    wrong = there(np.array([5]))
    found = nd.take(x, wrong, mode="raise")
    line = int(str(user_location()).rpartition(":")[2]) - 1
    with pytest.raises(IndexRangeError, match=rf"5.*\[test_gpu.py:{line}\]") as caught:
        print(found)
    assert "gpu(0) found it in check_index, after the call had returned" in str(caught.value)


def _set(x: Any, key: Any, value: Any) -> None:
    x[key] = value


@pytest.mark.parametrize(
    "change",
    [
        lambda x, row: _set(x, slice(None), 7),
        lambda x, row: _set(x, slice(None), floats(3, 4)),
        lambda x, row: _set(x, slice(None), row),
        lambda x, row: _set(x, 2, row[0]),
        lambda x, row: _set(x, (1, slice(1, 3)), floats(2)),
        lambda x, row: _set(x, (slice(None), 1), 5),
        lambda x, row: x.__iadd__(1),
        lambda x, row: x.__imul__(row),
        lambda x, row: nd.random.uniform(shape=(3, 4), ctx=GPU, out=x),
        lambda x, row: row.broadcast_to((3, 4)).astype("float64").copyto(x),
    ],
)
def test_nothing_that_was_there_is_changed_after_a_failure(change: Any) -> None:
    x, wrong = there(floats(3, 4)) + 1, there(np.array([5]))
    x.attach_grad()
    with autograd.record():
        (x * 2).sum().backward()
    expected = x.asnumpy(), x.grad.asnumpy()
    row = nd.take(x, wrong, mode="raise")
    with pytest.raises(IndexRangeError, match="index 5 at position 0 is out of range"):
        with autograd.record():
            (x * row).sum().backward()
        change(x, row)
        nd.waitall()
    np.testing.assert_array_equal(x.asnumpy(), expected[0])
    np.testing.assert_array_equal(x.grad.asnumpy(), expected[1])


def test_a_part_that_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"array of shape \(3,\) into a part of shape \(2, 4\)"):
        there(floats(3, 4))[1:] = floats(3)


def test_no_such_device() -> None:
    with pytest.raises(DeviceError, match=r"there is no gpu\(7\) +\[test_gpu.py:\d+\]"):
        nd.zeros((2,), ctx=graphc.gpu(7))


def test_no_device_at_all(emulated: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    emulated.count = 0
    monkeypatch.setattr(cuda, "_opened", {})
    with pytest.raises(DeviceError, match=r"gpu\(0\) cannot be used: the NVIDIA driver finds no"):
        nd.zeros((2,), ctx=GPU)


def test_kernels_in_python() -> None:
    @graphc.kernel("x: f32[n] -> out: f32[n]")
    def twice(x, out):  # type: ignore[no-untyped-def]
        for i in range(x.shape[0]):
            out[i] = 2 * x[i]

    with pytest.raises(CompileError, match="twice cannot run on a GPU"):
        twice(there(floats(3)))


# -- other libraries, batches ----------------------------------------------------------------


def test_memory_is_shared_by_dlpack() -> None:
    x = there(floats(3, 4)) * 2
    assert x.__dlpack_device__() == (2, 0)
    shared = np.from_dlpack(SimpleNamespace(  # as the CPU's, which emulated memory is
        __dlpack__=x.__dlpack__, __dlpack_device__=lambda: (1, 0)
    ))  # fmt: skip
    x[0] = 5
    x.wait_to_read()
    np.testing.assert_array_equal(shared[0], np.full(4, 5, np.float32))
    np.testing.assert_array_equal(shared[1:], 2 * floats(3, 4)[1:])


@pytest.mark.parametrize("ctx", [graphc.cpu(), GPU])
def test_batches_arrive_on_a_device(ctx: Any) -> None:
    data = gluon.data.ArrayDataset(floats(10, 3), np.arange(10))
    for start, (x, label) in zip((0, 4, 8), gluon.data.DataLoader(data, 4, ctx=ctx), strict=True):
        assert x.context == label.context == ctx
        np.testing.assert_array_equal((x * 2).asnumpy(), 2 * floats(10, 3)[start : start + 4])
        np.testing.assert_array_equal(label.asnumpy(), np.arange(10)[start : start + 4])


def test_the_next_batch_is_on_its_way(emulated: FakeCuda) -> None:
    loader = gluon.data.DataLoader(gluon.data.ArrayDataset(floats(6, 3)), 2, ctx=GPU)
    for number, _ in enumerate(loader, 1):
        copies = [size for name, *size in emulated.calls if name == "copy"]
        assert len(copies) == min(number + 1, 3)


def test_memory_of_other_libraries() -> None:
    def tensor(array: np.ndarray) -> Any:
        return SimpleNamespace(__dlpack_device__=lambda: (2, 0), array=array)

    theirs = floats(3, 4)
    found = nd.from_dlpack(tensor(theirs))
    assert found.context == GPU
    found[1] = 7
    nd.waitall()
    assert (theirs[1] == 7).all()
    with pytest.raises(ShapeError, match="arrays in row-major order"):
        nd.from_dlpack(tensor(theirs.T))


def test_calls_of_several_threads() -> None:
    function = graphc.compile(lambda x: (x * 2).sum(axis=0) + x)
    wrong = []

    def run(number: int) -> None:
        for turn in range(5):
            x = floats(3, 4) * (number + turn)
            found = function(nd.array(x, ctx=GPU)).asnumpy()
            if not np.allclose(found, (x * 2).sum(axis=0) + x, rtol=1e-4, atol=1e-4):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_gradients_of_functions() -> None:
    x = there(floats(3, 4))
    (found,) = graphc.grad(lambda a: (a * a).sum(), argnums=(0,))(x)
    assert found.context == GPU
    np.testing.assert_allclose(found.asnumpy(), 2 * floats(3, 4), rtol=1e-6)


def test_info_names_the_devices() -> None:
    assert gpu_line() == "gpu(0) Emulated GPU (sm_90), gpu(1) Emulated GPU (sm_90)"


@pytest.mark.parametrize("workers", [0, 2])
def test_items_are_made_on_the_cpu(workers: int) -> None:
    class Squares(gluon.data.Dataset):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            x = nd.array([index])
            assert x.context == graphc.cpu()
            return x * x

    with GPU:
        loader = gluon.data.DataLoader(Squares(), 3, num_workers=workers)
        batches = list(loader)
    assert all(batch.context == GPU for batch in batches)
    assert np.concatenate([b.asnumpy() for b in batches]).ravel().tolist() == [0, 1, 4, 9, 16, 25]

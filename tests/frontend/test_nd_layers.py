"""Layers of nd as functions, and nd code in compiled functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc import autograd, nd
from graphc.errors import (
    ArgumentError,
    DTypeError,
    IndexRangeError,
    ShapeError,
    TraceError,
)
from graphc.frontend.jit import Jit

RANDOM = np.random.default_rng(5)
ROWS = RANDOM.normal(size=(3, 4)).astype(np.float32)
IMAGE = RANDOM.normal(size=(2, 3, 5, 6)).astype(np.float32)


def check(found: Any, expected: Any, rtol: float = 2e-5) -> None:
    expected = np.asarray(expected)
    assert isinstance(found, nd.NDArray)
    assert found.shape == (expected.shape or (1,))
    np.testing.assert_allclose(found.asnumpy(), expected.reshape(found.shape), rtol, 2e-5)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


# -- products, convolutions, pools -------------------------------------------------------------


def test_fully_connected() -> None:
    x, w, b = (nd.array(RANDOM.normal(size=s)) for s in ((2, 3, 4), (5, 12), (5,)))
    flat = x.asnumpy().reshape(2, 12) @ w.asnumpy().T
    check(nd.FullyConnected(x, w, b, num_hidden=5), flat + b.asnumpy())
    check(nd.FullyConnected(x, w, num_hidden=5, no_bias=True), flat)
    narrow = nd.array(RANDOM.normal(size=(5, 4)))
    check(
        nd.FullyConnected(x, narrow, no_bias=True, flatten=False), x.asnumpy() @ narrow.asnumpy().T
    )
    with pytest.raises(ShapeError, match="num_hidden is 6"):
        nd.FullyConnected(x, w, b, num_hidden=6)
    with pytest.raises(ShapeError, match="inner sizes differ: 12 and 4"):
        nd.FullyConnected(x, narrow, no_bias=True)


def convolved(x: np.ndarray, w: np.ndarray, stride: int, pad: int) -> np.ndarray:
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))
    return np.einsum("nchwij,ocij->nohw", windows[:, :, ::stride, ::stride], w)


@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (2, 1), (1, 1)])
def test_convolution(stride: int, pad: int) -> None:
    w = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)
    b = np.array([1, 2, 3, 4], np.float32)
    found = nd.Convolution(
        nd.array(IMAGE), nd.array(w), nd.array(b), kernel=(3, 3), num_filter=4,
        stride=(stride, stride), pad=(pad, pad),
    )  # fmt: skip
    expected = convolved(IMAGE, w, stride, pad)
    check(found, expected + b[:, None, None], 1e-4)
    bare = nd.Convolution(nd.array(IMAGE), nd.array(w), stride=stride, pad=pad, no_bias=True)
    check(bare, expected, 1e-4)


def test_convolution_arguments() -> None:
    x, w = nd.array(IMAGE), nd.ones((4, 3, 3, 3))
    for wrong in ({"num_filter": 5}, {"kernel": (5, 5)}):
        with pytest.raises(ShapeError, match="but the weight has shape"):
            nd.Convolution(x, w, no_bias=True, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="Did you mean 'NCHW'"):
        nd.Convolution(x, w, no_bias=True, layout="NHWC")


def test_deconvolution_is_the_gradient_of_convolution() -> None:
    w, g = nd.array(RANDOM.normal(size=(4, 3, 3, 3))), nd.array(RANDOM.normal(size=(2, 4, 2, 3)))
    x = nd.array(IMAGE)
    x.attach_grad()
    settings = {"kernel": (3, 3), "stride": (2, 2), "no_bias": True}
    with autograd.record():
        y = nd.Convolution(x, w, num_filter=4, pad=(0, 1), **settings)
    y.backward(g)
    found = nd.Deconvolution(g, w, num_filter=3, pad=(0, 1), adj=(0, 1), **settings)
    check(found, x.grad.asnumpy(), 1e-4)


def windows(size: int, stride: int) -> np.ndarray:
    view = np.lib.stride_tricks.sliding_window_view(IMAGE, (size, size), (2, 3))
    return view[:, :, ::stride, ::stride]


@pytest.mark.parametrize("kind", ["max", "avg", "sum"])
def test_pooling(kind: str) -> None:
    x = nd.array(IMAGE)
    reduce = {"max": np.max, "avg": np.mean, "sum": np.sum}[kind]
    for stride in (1, 2):
        found = nd.Pooling(x, kernel=(2, 2), stride=(stride, stride), pool_type=kind)
        check(found, reduce(windows(2, stride), axis=(4, 5)))
    check(nd.Pooling(x, kernel=(2, 2), pool_type=kind), reduce(windows(2, 1), axis=(4, 5)))
    check(
        nd.Pooling(x, kernel=(9, 9), global_pool=True, pool_type=kind),
        reduce(IMAGE, axis=(2, 3), keepdims=True),
    )


def test_pooling_conventions() -> None:
    x = nd.ones((1, 1, 5, 5))
    assert nd.Pooling(x, kernel=2, stride=2).shape == (1, 1, 2, 2)
    full = nd.Pooling(x, kernel=2, stride=2, pooling_convention="full")
    assert full.shape == (1, 1, 3, 3)
    counted = nd.Pooling(x, kernel=2, pad=1, pool_type="avg")
    bare = nd.Pooling(x, kernel=2, pad=1, pool_type="avg", count_include_pad=False)
    assert (float(counted[0, 0, 0, 0]), float(bare[0, 0, 0, 0])) == (0.25, 1.0)
    with pytest.raises(ArgumentError, match="needs kernel="):
        nd.Pooling(x)


def test_pool_functions() -> None:
    x = nd.array(IMAGE)
    check(nd.max_pool2d(x, pool_size=2, strides=2), windows(2, 2).max((4, 5)))
    check(nd.max_pool2d(x, 3), windows(3, 3).max((4, 5)))
    check(nd.avg_pool2d(x, pool_size=(2, 2)), windows(2, 2).mean((4, 5)))


# -- activations, softmax ----------------------------------------------------------------------


def test_activations() -> None:
    x = nd.array(ROWS)
    for name in ("relu", "sigmoid", "tanh", "softsign", "softrelu", "gelu"):
        check(nd.Activation(x, act_type=name), getattr(nd, name)(x).asnumpy())
    check(nd.LeakyReLU(x), np.where(ROWS > 0, ROWS, 0.25 * ROWS))
    check(nd.LeakyReLU(x, act_type="elu", slope=0.5), np.where(ROWS > 0, ROWS, np.expm1(ROWS) / 2))
    check(nd.LeakyReLU(x, nd.array([0.1]), act_type="prelu"), np.where(ROWS > 0, ROWS, ROWS / 10))
    mean = (0.125 + 0.334) / 2
    check(nd.LeakyReLU(x, act_type="rrelu"), np.where(ROWS > 0, ROWS, mean * ROWS))
    slopes = nd.array([0.1, 0.2, 0.3])
    check(
        nd.LeakyReLU(nd.array(IMAGE), slopes, act_type="prelu"),
        np.where(IMAGE > 0, IMAGE, IMAGE * slopes.asnumpy()[:, None, None]),
    )
    with pytest.raises(ArgumentError, match="needs gamma"):
        nd.LeakyReLU(x, act_type="prelu")


def test_randomized_slopes_in_training() -> None:
    with autograd.train_mode():
        y = nd.LeakyReLU(-nd.ones((100,)), act_type="rrelu", lower_bound=0.2, upper_bound=0.4)
    slopes = -y.asnumpy()
    assert 0.2 <= slopes.min() < 0.25 and 0.35 < slopes.max() <= 0.4


def test_softmaxes() -> None:
    x = nd.array(ROWS)
    check(nd.softmax(x), softmax(ROWS))
    check(x.softmax(axis=0), softmax(ROWS, 0))
    check(nd.softmax(x, temperature=2.0), softmax(ROWS / 2))
    check(nd.log_softmax(x), np.log(softmax(ROWS)))
    check(nd.softmin(x), softmax(-ROWS))
    check(nd.SoftmaxActivation(nd.array(IMAGE), mode="channel"), softmax(IMAGE, 1))
    check(nd.SoftmaxActivation(nd.array(IMAGE)), softmax(IMAGE.reshape(2, -1)).reshape(IMAGE.shape))
    assert nd.softmax(x, dtype="float64").dtype is np.float64
    found = nd.softmax(x, nd.array([1, 4, 2]), use_length=True).asnumpy()
    check(nd.array(found[2]), [*softmax(ROWS[2, :2]), 0, 0])
    assert found[0].tolist() == [1, 0, 0, 0]


def test_losses() -> None:
    label = nd.array([1, 0, 3])
    expected = -np.log(softmax(ROWS))[[0, 1, 2], [1, 0, 3]].sum()
    check(nd.softmax_cross_entropy(nd.array(ROWS), label), expected)
    with pytest.raises(IndexRangeError, match="label 4 at position 1"):
        nd.softmax_cross_entropy(nd.array(ROWS), nd.array([0, 4, 0]))
    x = np.array([-2, -0.2, 0.1, 1.5], np.float32)
    check(nd.smooth_l1(nd.array(x), scalar=1.0), np.where(abs(x) < 1, x * x / 2, abs(x) - 0.5))
    y = nd.array([1.0, 2.0])
    y.attach_grad()
    with autograd.record():
        z = nd.MakeLoss(y * y, grad_scale=10.0)
    z.backward()
    check(z, [1, 4])
    check(y.grad, [20, 40])


# -- normalisation -----------------------------------------------------------------------------


def normal(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def test_batch_norm_in_training() -> None:
    gamma, beta = nd.array([1, 2, 3]), nd.array([0, 1, 2])
    mean, var = nd.zeros((3,)), nd.ones((3,))
    with autograd.train_mode():
        y = nd.BatchNorm(nd.array(IMAGE), gamma, beta, mean, var, fix_gamma=False, momentum=0.75)
    spread = [v.asnumpy()[:, None, None] for v in (gamma, beta)]
    check(y, normal(IMAGE, (0, 2, 3), 1e-3) * spread[0] + spread[1], 1e-4)
    check(mean, 0.25 * IMAGE.mean((0, 2, 3)))
    check(var, 0.75 + 0.25 * IMAGE.var((0, 2, 3)))


def test_batch_norm_fixes_gamma_by_default() -> None:
    gamma, zeros, ones = nd.array([5, 5, 5]), nd.zeros((3,)), nd.ones((3,))
    found = nd.BatchNorm(nd.array(IMAGE), gamma, zeros, zeros, ones)
    check(found, IMAGE / np.sqrt(1 + 1e-3))
    scaled = nd.BatchNorm(nd.array(IMAGE), gamma, zeros, zeros, ones, fix_gamma=False)
    check(scaled, 5 * IMAGE / np.sqrt(1 + 1e-3))


def test_batch_norm_statistics() -> None:
    zeros, ones = nd.zeros((3,)), nd.ones((3,))
    with autograd.train_mode():
        found = nd.BatchNorm(nd.array(IMAGE), ones, zeros, zeros, ones, use_global_stats=True)
        parts = nd.BatchNorm(
            nd.array(IMAGE), ones, zeros, zeros.copy(), ones.copy(), output_mean_var=True
        )
    check(found, IMAGE / np.sqrt(1 + 1e-3))
    check(zeros, np.zeros(3))
    check(parts[1], IMAGE.mean((0, 2, 3)))
    check(parts[2], IMAGE.var((0, 2, 3)))


def test_batch_norm_gradient_reaches_the_data_only_through_the_batch() -> None:
    x, mean = nd.array(IMAGE), nd.zeros((3,))
    x.attach_grad()
    with autograd.record():
        y = nd.BatchNorm(x, nd.ones((3,)), nd.zeros((3,)), mean, nd.ones((3,)))
    y.backward()
    assert abs(x.grad.asnumpy()).max() < 1e-4
    assert mean._entry is None


def test_other_norms() -> None:
    x, ones = nd.array(IMAGE), nd.ones((3,))
    check(
        nd.LayerNorm(nd.array(ROWS), nd.ones((4,)), nd.zeros((4,))), normal(ROWS, (1,), 1e-5), 1e-4
    )
    check(nd.InstanceNorm(x, ones, nd.zeros((3,))), normal(IMAGE, (2, 3), 1e-3), 1e-4)
    check(nd.GroupNorm(x, ones, nd.zeros((3,))), normal(IMAGE, (1, 2, 3), 1e-5), 1e-4)
    parts = nd.LayerNorm(nd.array(ROWS), nd.ones((4,)), nd.zeros((4,)), output_mean_var=True)
    check(parts[1], ROWS.mean(1, keepdims=True))
    check(parts[2], np.sqrt(ROWS.var(1, keepdims=True) + 1e-5))


# -- dropout -----------------------------------------------------------------------------------


def test_dropout_only_in_training() -> None:
    x = nd.ones((1000,))
    assert nd.Dropout(x, p=0.5) is x
    with autograd.train_mode():
        y = nd.Dropout(x, p=0.25).asnumpy()
        assert nd.Dropout(x, p=0.0) is x
    assert set(np.round(y, 4)) == {0.0, np.float32(1.3333)}
    assert 0.65 < (y > 0).mean() < 0.85
    assert (nd.Dropout(x, mode="always").asnumpy() == 0).any()
    with pytest.raises(ArgumentError, match="probability"):
        nd.Dropout(x, p=1.5)


def test_dropout_axes_share_a_draw_and_the_gradient_its_mask() -> None:
    x = nd.ones((20, 5))
    x.attach_grad()
    with autograd.record():
        y = nd.Dropout(x, p=0.5, axes=(1,))
    y.backward()
    assert (y.asnumpy() == y.asnumpy()[:, :1]).all()
    check(x.grad, y.asnumpy())


# -- in compiled functions ---------------------------------------------------------------------


def test_traced_code_is_the_same_code() -> None:
    def model(x: Any, w: Any) -> Any:
        h = nd.relu(nd.FullyConnected(x, w, no_bias=True)).reshape((x.shape[0], -1))
        h += 1
        h = h[:, 1:] * h[:, :1] + h[0].sum()
        return nd.softmax(h), h.mean(axis=0, exclude=True), h > 2, h.reshape((-3,)), x[0, 1]

    compiled = Jit(model)
    w = nd.array(RANDOM.normal(size=(3, 4)))
    for rows in (5, 7):
        x = nd.array(RANDOM.normal(size=(rows, 4)))
        for found, expected in zip(compiled(x, w), model(x, w), strict=True):
            check(found, expected.asnumpy())
    assert len(compiled.traces) == 1


def test_arrays_that_code_refers_to_are_read_at_each_call() -> None:
    scale, total = nd.array([2.0]), nd.zeros((3,))

    def function(x: Any) -> Any:
        total[:] = total + x
        return x * nd.exp(scale)

    compiled = Jit(function)
    x = nd.array([1, 2, 3])
    check(compiled(x), x.asnumpy() * np.exp(2.0))
    scale[:] = 0
    check(compiled(x), x.asnumpy())
    check(total, 2 * x.asnumpy())
    assert len(compiled.traces) == 1


def test_compiled_and_imperative_draws_are_equal() -> None:
    def function(x: Any) -> Any:
        noise = nd.random.normal(shape=x.shape) + nd.random.uniform(shape=(1,))
        return nd.Dropout(x, 0.5, mode="always") + noise

    compiled, x = Jit(function), nd.ones((4, 5))
    for _ in range(2):
        nd.random.seed(3)
        expected = [function(x).asnumpy() for _ in range(2)]
        nd.random.seed(3)
        found = [compiled(x).asnumpy() for _ in range(2)]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not (found[0] == found[1]).all()


def test_compiled_batch_norm_updates_its_statistics() -> None:
    statistics = [nd.zeros((3,)), nd.ones((3,))]

    def function(x: Any) -> Any:
        return nd.BatchNorm(x, nd.ones((3,)), nd.zeros((3,)), *statistics)

    with autograd.train_mode():
        Jit(function)(nd.array(IMAGE))
    check(statistics[0], 0.1 * IMAGE.mean((0, 2, 3)))
    check(statistics[1], 0.9 + 0.1 * IMAGE.var((0, 2, 3)))


REFUSED: list[Callable[[Any], Any]] = [
    lambda x: x if x.sum() > 0 else -x,
    lambda x: float(x[0]) * x,
    lambda x: x.asnumpy(),
    lambda x: x.asscalar(),
    lambda x: x.__setitem__(0, 1.0),
]


def test_masks_are_refused_while_compiling() -> None:
    with pytest.raises(DTypeError, match="boolean mask"):
        Jit(lambda x: x[x > 0])(nd.ones((3,)))


@pytest.mark.parametrize("function", REFUSED)
def test_asking_for_a_value_while_compiling(function: Callable[[Any], Any]) -> None:
    with pytest.raises(TraceError, match=r"test_nd_layers.py"):
        Jit(function)(nd.ones((3,)))


def test_views_of_captured_arrays_are_read_at_each_call() -> None:
    weight = nd.array([[1, 2], [3, 4]])
    compiled = Jit(lambda x: x * weight[1] + weight.reshape((-1,))[0] + weight.detach()[0, 1])
    x = nd.ones((2,))
    check(compiled(x), [6, 7])
    weight[:] = 10
    check(compiled(x), [30, 30])


def test_writes_in_compiled_functions() -> None:
    state, seen = nd.zeros((2,)), nd.zeros((1,))

    def function(x: Any) -> Any:
        state[:] = 5
        state[:] += x
        seen.__iadd__(1)
        return state * 1

    compiled = Jit(function)
    for calls in (1, 2):
        check(compiled(nd.array([1, 2])), [6, 7])
        check(state, [6, 7])
        check(seen, calls)
    with pytest.raises(TraceError, match="part of an array"):
        Jit(lambda x: state.__setitem__(0, x[0]))(nd.ones((2,)))


def test_a_custom_gradient_cannot_be_compiled() -> None:
    class Double(autograd.Function):
        def forward(self, x: Any) -> Any:
            return 2 * x

    with pytest.raises(TraceError, match="Double is an autograd.Function"):
        Jit(Double())(nd.ones((2,)))

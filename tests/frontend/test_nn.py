"""Layers against NumPy, imperatively and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, gluon, nd
from graphc.errors import ArgumentError, IndexRangeError, ShapeError, UnknownNameError
from graphc.gluon import nn

GENERATOR = np.random.default_rng(0)
MODES = pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "compiled"])


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def ready(layer: Any, hybridize: bool, *inputs: np.ndarray) -> Any:
    """Initialize a layer, with biases other than 0, and run it once."""
    layer.initialize(graphc.init.Normal(0.5))
    if hybridize:
        layer.hybridize()
    layer(*map(nd.array, inputs))
    for name, parameter in layer.collect_params().items():
        if name.endswith(("bias", "beta", "gamma")) and parameter.grad_req != "null":
            parameter.set_data(drawn(*parameter.shape) + 1)
    return layer


def values(layer: Any) -> dict[str, np.ndarray]:
    return {n: p.data().asnumpy() for n, p in layer.collect_params().items()}


def check(layer: Any, hybridize: bool, expected: Callable[..., Any], *inputs: np.ndarray) -> None:
    layer = ready(layer, hybridize, *inputs)
    found = layer(*map(nd.array, inputs)).asnumpy()
    wanted = expected(*inputs, **values(layer))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


@MODES
def test_dense(hybridize: bool) -> None:
    check(
        nn.Dense(4, activation="tanh"), hybridize,
        lambda x, weight, bias: np.tanh(x.reshape(3, -1) @ weight.T + bias), drawn(3, 2, 5),
    )  # fmt: skip
    check(
        nn.Dense(4, flatten=False, use_bias=False), hybridize,
        lambda x, weight: x @ weight.T, drawn(3, 2, 5),
    )  # fmt: skip


def windows(x: np.ndarray, size: int, stride: int, pad: int, fill: float) -> np.ndarray:
    """Return (N, C, H', W', size, size)."""
    width = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    padded = np.pad(x, width, constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
    return view[:, :, ::stride, ::stride]


@MODES
@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (2, 1)])
def test_conv2d(hybridize: bool, stride: int, pad: int) -> None:
    def expected(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        found = np.einsum("nchwij,ocij->nohw", windows(x, 3, stride, pad, 0), weight)
        return np.maximum(found + bias[:, None, None], 0)

    layer = nn.Conv2D(4, 3, strides=stride, padding=pad, activation="relu")
    check(layer, hybridize, expected, drawn(2, 3, 7, 6))


@MODES
def test_conv1d_is_a_row_of_conv2d(hybridize: bool) -> None:
    def expected(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        view = np.lib.stride_tricks.sliding_window_view(x, 3, axis=2)
        return np.einsum("ncwi,oci->now", view, weight) + bias[:, None]

    check(nn.Conv1D(4, 3), hybridize, expected, drawn(2, 3, 9))


@MODES
def test_grouped_convolution(hybridize: bool) -> None:
    def expected(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        halves = zip(np.split(x, 2, 1), np.split(weight, 2, 0), strict=True)
        parts = [np.einsum("nchwij,ocij->nohw", windows(a, 3, 1, 0, 0), w) for a, w in halves]
        return np.concatenate(parts, 1) + bias[:, None, None]

    check(nn.Conv2D(6, 3, groups=2), hybridize, expected, drawn(2, 4, 5, 5))


@MODES
def test_pools(hybridize: bool) -> None:
    x = drawn(2, 3, 7, 7)
    check(nn.MaxPool2D(), hybridize, lambda x: windows(x, 2, 2, 0, 0).max((-1, -2)), x)
    check(
        nn.MaxPool2D(3, 2, 1), hybridize,
        lambda x: windows(x, 3, 2, 1, -np.inf).max((-1, -2)), x,
    )  # fmt: skip
    check(nn.AvgPool2D(3, 2, 1), hybridize, lambda x: windows(x, 3, 2, 1, 0).mean((-1, -2)), x)
    check(
        nn.AvgPool2D(3, 2, 1, count_include_pad=False), hybridize,
        lambda x: np.nanmean(windows(x, 3, 2, 1, np.nan), (-1, -2)), x,
    )  # fmt: skip
    check(nn.GlobalAvgPool2D(), hybridize, lambda x: x.mean((2, 3), keepdims=True), x)
    check(nn.GlobalMaxPool2D(), hybridize, lambda x: x.max((2, 3), keepdims=True), x)
    row = x[:, 0]
    check(nn.MaxPool1D(2), hybridize, lambda x: x[:, :, :6].reshape(2, 7, 3, 2).max(-1), row)
    check(nn.GlobalAvgPool1D(), hybridize, lambda x: x.mean(2, keepdims=True), row)


@MODES
def test_ceil_mode_keeps_the_last_window(hybridize: bool) -> None:
    x = drawn(1, 1, 5, 5)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=-np.inf)
    check(
        nn.MaxPool2D(2, 2, ceil_mode=True), hybridize,
        lambda x: windows(padded, 2, 2, 0, 0).max((-1, -2)), x,
    )  # fmt: skip


@MODES
def test_batch_norm(hybridize: bool) -> None:
    x = drawn(4, 3, 2, 2) * 3 + 1
    layer = ready(nn.BatchNorm(momentum=0.8, epsilon=1e-3), hybridize, x)
    v = values(layer)
    affine = v["gamma"][:, None, None], v["beta"][:, None, None]
    expected = x / np.sqrt(1 + 1e-3) * affine[0] + affine[1]
    np.testing.assert_allclose(layer(nd.array(x)).asnumpy(), expected, rtol=1e-4, atol=1e-5)
    with autograd.record():
        found = layer(nd.array(x))
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    scaled = (x - mean[:, None, None]) / np.sqrt(var + 1e-3)[:, None, None]
    expected = scaled * affine[0] + affine[1]
    np.testing.assert_allclose(found.asnumpy(), expected, rtol=1e-4, atol=1e-5)
    after = values(layer)
    np.testing.assert_allclose(after["running_mean"], 0.2 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after["running_var"], 0.8 + 0.2 * var, rtol=1e-4)


@MODES
def test_batch_norm_without_scale_and_with_global_statistics(hybridize: bool) -> None:
    x = drawn(6, 3)
    layer = ready(nn.BatchNorm(scale=False, use_global_stats=True), hybridize, x)
    assert layer.gamma.grad_req == "null"
    with autograd.train_mode():
        found = layer(nd.array(x)).asnumpy()
    expected = x / np.sqrt(1 + 1e-5) + values(layer)["beta"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (values(layer)["running_mean"] == 0).all()


@MODES
def test_layer_norm(hybridize: bool) -> None:
    def expected(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
        centered = x - x.mean(-1, keepdims=True)
        return centered / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gamma + beta

    check(nn.LayerNorm(), hybridize, expected, drawn(3, 4, 5))


@MODES
def test_dropout_is_off_in_prediction_and_scales_in_training(hybridize: bool) -> None:
    layer = nn.Dropout(0.4)
    if hybridize:
        layer.hybridize()
    x = nd.ones((100, 100))
    assert layer(x).asnumpy().min() == 1
    with autograd.train_mode():
        found = layer(x).asnumpy()
        again = layer(x).asnumpy()
    assert set(np.unique(found)) == {np.float32(0), np.float32(1 / 0.6)}
    assert abs((found == 0).mean() - 0.4) < 0.02
    assert (found != again).any()


@MODES
def test_embedding(hybridize: bool) -> None:
    ids = np.array([[0, 4], [2, 2]])
    layer = ready(nn.Embedding(5, 3), hybridize, ids)
    weight = values(layer)["weight"]
    np.testing.assert_array_equal(layer(nd.array(ids)).asnumpy(), weight[ids])
    np.testing.assert_array_equal(layer(nd.array(ids, dtype="int32")).asnumpy(), weight[ids])
    for wrong in (5, -1):
        with pytest.raises(IndexRangeError, match=f"{wrong} at position 1 .* 0 .. 4"):
            layer(nd.array([0, wrong]))


@MODES
def test_embedding_gradient_adds_up(hybridize: bool) -> None:
    layer = nn.Embedding(4, 2)
    layer.initialize()
    if hybridize:
        layer.hybridize()
    with autograd.record():
        loss = layer(nd.array([1, 3, 1])).sum()
    loss.backward()
    np.testing.assert_array_equal(layer.weight.grad().asnumpy()[:, 0], [0, 2, 0, 1])


ACTIVATIONS: list[tuple[Any, Callable[[np.ndarray], np.ndarray]]] = [
    (nn.Activation("relu"), lambda x: np.maximum(x, 0)),
    (nn.Activation("sigmoid"), lambda x: 1 / (1 + np.exp(-x))),
    (nn.Activation("softrelu"), lambda x: np.log1p(np.exp(x))),
    (nn.Activation("softsign"), lambda x: x / (1 + np.abs(x))),
    (nn.LeakyReLU(0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
    (nn.ELU(0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
    (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
    (nn.Swish(2.0), lambda x: x / (1 + np.exp(-2 * x))),
    (nn.Flatten(), lambda x: x.reshape(len(x), -1)),
    (nn.Identity(), lambda x: x),
    (nn.HybridLambda("tanh"), np.tanh),
    (nn.HybridLambda(lambda F, x: F.square(x) + 1), lambda x: x * x + 1),
    (nn.Lambda(lambda x: x * 2), lambda x: x * 2),
]


@MODES
@pytest.mark.parametrize(("layer", "expected"), ACTIVATIONS, ids=lambda p: repr(p)[:24])
def test_activations(layer: Any, expected: Any, hybridize: bool) -> None:
    check(layer, hybridize, expected, drawn(3, 2, 4))


@MODES
def test_prelu_learns_its_slope(hybridize: bool) -> None:
    layer = nn.PReLU()
    layer.initialize()
    if hybridize:
        layer.hybridize()
    x = nd.array([-2.0, 3.0])
    with autograd.record():
        y = layer(x)
    y.backward()
    np.testing.assert_allclose(y.asnumpy(), [-0.5, 3.0])
    np.testing.assert_allclose(layer.alpha.grad().asnumpy(), [-2.0])


def test_arguments_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="'sigmoid'"):
        nn.Activation("sigmid")
    with pytest.raises(ArgumentError, match="units"):
        nn.Dense(0)
    with pytest.raises(ArgumentError, match="probability"):
        nn.Dropout(2)
    with pytest.raises(ArgumentError, match="NCHW"):
        nn.Conv2D(3, 3, layout="NHWC")
    with pytest.raises(ArgumentError, match="kernel_size"):
        nn.Conv2D(3, (3, 3, 3))
    with pytest.raises(ArgumentError, match="groups"):
        nn.Conv2D(3, 3, groups=2, in_channels=4)
    with pytest.raises(ArgumentError, match="'pool_size'"):
        nn.MaxPool2D(poolsize=2)
    with pytest.raises(UnknownNameError, match="'sigmoid'"):
        nn.HybridLambda("sigmod")
    with pytest.raises(ShapeError, match=r"\(N, C, H, W\).*\(2, 3\)"):
        nn.MaxPool2D()(nd.ones((2, 3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: graphc.init.Normal("a"), "sigma of Normal must be a number, got 'a', a str"),
        (lambda: graphc.init.Xavier(magnitude=None), "magnitude of Xavier .*, got None"),
        (lambda: nn.LeakyReLU("0.1"), "alpha of LeakyReLU .*, got '0.1', a str"),
        (lambda: nn.BatchNorm(momentum=None), "momentum of BatchNorm .*, got None"),
        (lambda: nn.LayerNorm(epsilon="x"), "epsilon of LayerNorm .*, got 'x'"),
        (lambda: gluon.loss.L2Loss(weight="x"), "weight of L2Loss .*, got 'x'"),
        (lambda: gluon.loss.HingeLoss(margin=[1]), "margin of HingeLoss .*, got .1., a list"),
    ],
)
def test_an_argument_that_is_no_number(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=f"{message}.*test_nn.py"):
        make()

"""Attention as a function and as a layer, against softmax between two products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import autograd, gluon, nd, sym
from graphc.errors import ArgumentError, AutogradError, DTypeError, ShapeError
from graphc.gluon import nn

GENERATOR = np.random.default_rng(5)


def drawn(*shape: int) -> Any:
    return nd.array(GENERATOR.standard_normal(shape))


def expected(query: Any, key: Any, value: Any, seen: np.ndarray | None = None) -> np.ndarray:
    """Return attention over axes N, T, H, C, in float64."""
    q, k, v = (np.swapaxes(x.asnumpy().astype("float64"), 1, 2) for x in (query, key, value))
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    if seen is not None:
        scores = np.where(seen, scores, -np.inf)
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = np.nan_to_num(weights / weights.sum(-1, keepdims=True))
    return np.swapaxes(weights @ v, 1, 2)


@pytest.mark.parametrize("length", [1, 16, 33, 150])
def test_the_function_agrees_with_numpy(length: int) -> None:
    query, key, value = drawn(2, length, 3, 8), drawn(2, 40, 3, 8), drawn(2, 40, 3, 5)
    found = nd.scaled_dot_product_attention(query, key, value).asnumpy()
    assert found.shape == (2, length, 3, 5)
    np.testing.assert_allclose(found, expected(query, key, value), rtol=1e-5, atol=1e-6)


def test_heads_may_come_first_or_be_left_out() -> None:
    query, key, value = drawn(2, 6, 3, 8), drawn(2, 9, 3, 8), drawn(2, 9, 3, 8)
    found = nd.scaled_dot_product_attention(query, key, value)
    turned = [nd.transpose(x, axes=(0, 2, 1, 3)) for x in (query, key, value)]
    first = nd.scaled_dot_product_attention(*turned, layout="NHTC")
    np.testing.assert_array_equal(first.asnumpy(), found.asnumpy().transpose(0, 2, 1, 3))
    one = nd.scaled_dot_product_attention(query[:, :, 1], key[:, :, 1], value[:, :, 1])
    np.testing.assert_array_equal(one.asnumpy(), found[:, :, 1].asnumpy())


MASKS = {
    "causal": (dict(causal=True), np.tri(6, 9, dtype=bool)),
    "keys": (dict(mask=nd.array([[1] * 4 + [0] * 5])), np.arange(9) < 4),
    "positions": (dict(mask=nd.array(np.tri(6, 9, 2))), np.tri(6, 9, 2, dtype=bool)),
    "batch": (
        dict(mask=nd.array(np.arange(108).reshape(2, 6, 9) % 3)),
        (np.arange(108).reshape(2, 1, 6, 9) % 3).astype(bool),
    ),
    "heads": (
        dict(mask=nd.array(np.arange(162).reshape(1, 3, 6, 9) % 5)),
        (np.arange(162).reshape(1, 3, 6, 9) % 5).astype(bool),
    ),
    "lengths": (
        dict(valid_length=nd.array([3, 9]), causal=True),
        (np.arange(9) < np.array([3, 9])[:, None, None, None]) & np.tri(6, 9, dtype=bool),
    ),
    "nothing seen": (
        dict(valid_length=nd.array([0, 2])),
        np.arange(9) < np.array([0, 2])[:, None, None, None],
    ),
}


@pytest.mark.parametrize("case", MASKS)
@pytest.mark.parametrize("stored", [False, True], ids=["blocks", "stored"])
def test_masks_hide_keys(case: str, stored: bool) -> None:
    arguments, seen = MASKS[case]
    width = 260 if stored else 8
    query, key, value = drawn(2, 6, 3, width), drawn(2, 9, 3, width), drawn(2, 9, 3, 8)
    found = nd.scaled_dot_product_attention(query, key, value, **arguments).asnumpy()
    np.testing.assert_allclose(found, expected(query, key, value, seen), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("batch", [1, 9])  # few elements are computed with NumPy
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_agree_with_those_of_plain_operations(compiled: bool, batch: int) -> None:
    arrays = [drawn(batch, 37, 8), drawn(batch, 37, 8), drawn(batch, 37, 8)]
    slope = drawn(batch, 37, 8)

    def blocks(query: Any, key: Any, value: Any) -> Any:
        return nd.scaled_dot_product_attention(query, key, value, causal=True)

    def plain(query: Any, key: Any, value: Any) -> Any:
        scores = nd.batch_dot(query, key, transpose_b=True) / np.sqrt(8)
        ahead = nd.array(np.triu(np.full((37, 37), -1e30), 1))
        return nd.batch_dot(nd.softmax(nd.broadcast_add(scores, ahead.expand_dims(0))), value)

    def gradients(function: Any) -> list[np.ndarray]:
        for array in arrays:
            array.attach_grad()
        run = graphc.compile(function) if compiled else function
        with autograd.record():
            result = run(*arrays)
        result.backward(slope)
        return [array.grad.asnumpy() for array in arrays]

    for found, wanted in zip(gradients(blocks), gradients(plain), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_one_program_serves_every_length() -> None:
    run = graphc.compile(lambda x: nd.scaled_dot_product_attention(x, x, x, causal=True))
    for length in (5, 33, 150):
        x = drawn(1, length, 2, 8)
        seen = np.tri(length, dtype=bool)
        np.testing.assert_allclose(run(x).asnumpy(), expected(x, x, x, seen), rtol=1e-5, atol=1e-6)
    assert run.explain().count(" program ") == 1


def test_symbols_compose_it() -> None:
    x = drawn(2, 7, 8)
    names = [sym.Variable(name) for name in "qkv"]
    bound = sym.scaled_dot_product_attention(*names).bind(graphc.cpu(), dict.fromkeys("qkv", x))
    found = bound.forward()[0].asnumpy()
    wanted = nd.scaled_dot_product_attention(x, x, x).asnumpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_dropout_drops_weights_in_training_only() -> None:
    x, ones = drawn(1, 40, 1, 8), nd.ones((1, 40, 1, 8))
    plain = nd.scaled_dot_product_attention(x, x, ones).asnumpy()
    np.testing.assert_allclose(plain, 1.0, rtol=1e-5)
    np.testing.assert_array_equal(
        nd.scaled_dot_product_attention(x, x, ones, dropout=0.5).asnumpy(), plain
    )
    with autograd.train_mode():
        dropped = nd.scaled_dot_product_attention(x, x, ones, dropout=0.5).asnumpy()
    assert np.abs(dropped - 1).max() > 0.1 and abs(dropped.mean() - 1) < 0.3


# -- the layer -------------------------------------------------------------------------------


def test_the_layer_is_four_dense_layers_around_attention() -> None:
    layer = nn.MultiHeadAttention(12, 3)
    layer.initialize(graphc.init.Xavier())
    query, memory = drawn(2, 5, 6), drawn(2, 7, 10)
    found = layer(query, memory, valid_length=nd.array([4, 7]))
    heads = [
        nd.reshape(dense(x), (0, 0, 3, 4))
        for dense, x in ((layer.query, query), (layer.key, memory), (layer.value, memory))
    ]
    mixed = nd.scaled_dot_product_attention(*heads, valid_length=nd.array([4, 7]))
    wanted = layer.out(nd.reshape(mixed, (0, 0, -1)))
    np.testing.assert_array_equal(found.asnumpy(), wanted.asnumpy())


def test_a_compiled_layer_learns_as_an_imperative_one() -> None:
    losses = []
    for compiled in (False, True):
        graphc.random.seed(3)
        layer = nn.MultiHeadAttention(8, 2, causal=True)
        layer.initialize(graphc.init.Xavier())
        trainer = gluon.Trainer(layer.collect_params(), "sgd", {"learning_rate": 0.5})
        loss = gluon.loss.L2Loss()
        x = nd.array(np.random.default_rng(1).standard_normal((4, 9, 8)))
        step = gluon.TrainStep(layer, loss, trainer)
        for _ in range(5):
            if compiled:
                value = step(x, x)
            else:
                with autograd.record():
                    value = loss(layer(x), x)
                value.backward()
                trainer.step(4)
        losses.append(value.asnumpy())
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


# -- errors ----------------------------------------------------------------------------------


def refused(error: type[Exception], text: str, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(error, match=text) as caught:
        nd.scaled_dot_product_attention(*args, **kwargs)
    assert "test_attention.py" in str(caught.value).splitlines()[0]
    assert len(str(caught.value).splitlines()) >= 2


def test_errors_of_the_function_name_the_operands() -> None:
    x = drawn(2, 7, 8)
    refused(ShapeError, "of 4 axes, or of 3", x, x, x[0])
    refused(ShapeError, "queries and keys differ", x, drawn(2, 7, 5), x)
    refused(ShapeError, "keys and values differ", x, x, drawn(2, 6, 8))
    refused(DTypeError, "one floating type", x, x.astype("float64"), x)
    refused(ShapeError, r"mask has shape \(1, 1, 3, 3\)", x, x, x, mask=nd.ones((3, 3)))
    refused(ShapeError, "a mask of shape", x, x, x, mask=nd.ones((3,)))
    refused(ShapeError, "valid_length of shape", x, x, x, valid_length=nd.ones((2, 2)))
    refused(ArgumentError, "layout of attention 'TNC'", x, x, x, layout="TNC")


def test_the_layer_wants_heads_of_equal_width() -> None:
    with pytest.raises(ArgumentError, match="10 units do not make 3 heads"):
        nn.MultiHeadAttention(10, 3)


def test_there_is_no_second_gradient() -> None:
    x = drawn(1, 3, 4)
    once = graphc.grad(lambda x: nd.sum(nd.scaled_dot_product_attention(x, x, x)))
    with pytest.raises(AutogradError, match="cannot be differentiated"):
        graphc.grad(lambda x: nd.sum(once(x)))(x)

"""Losses against NumPy, imperatively and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc import autograd, nd
from graphc.errors import IndexRangeError, ShapeError
from graphc.gluon import loss as losses

MODES = pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "compiled"])
PRED = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
TARGET = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
BINARY = (TARGET > 0).astype(np.float32)
LABEL = np.array([0, 2, 1, 2])


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    below = x - x.max(axis, keepdims=True)
    return below - np.log(np.exp(below).sum(axis, keepdims=True))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


PROBABILITIES = np.exp(log_softmax(TARGET))
LOG_PRED = log_softmax(PRED)
ROWS = np.arange(4)

CASES: list[tuple[Any, tuple[np.ndarray, ...], np.ndarray]] = [
    (losses.L2Loss(), (PRED, TARGET), ((PRED - TARGET) ** 2 / 2).mean(1)),
    (losses.L2Loss(weight=3), (PRED, TARGET), ((PRED - TARGET) ** 2 * 1.5).mean(1)),
    (losses.L2(batch_axis=1), (PRED, TARGET), ((PRED - TARGET) ** 2 / 2).mean(0)),
    (losses.L1Loss(), (PRED, TARGET.reshape(3, 4)), np.abs(PRED - TARGET).mean(1)),
    (losses.SoftmaxCELoss(), (PRED, LABEL), -LOG_PRED[ROWS, LABEL]),
    (losses.SoftmaxCELoss(), (PRED, LABEL[:, None]), -LOG_PRED[ROWS, LABEL]),
    (losses.SoftmaxCELoss(weight=2.0), (PRED, LABEL), -2 * LOG_PRED[ROWS, LABEL]),
    (losses.SoftmaxCELoss(from_logits=True), (LOG_PRED, LABEL), -LOG_PRED[ROWS, LABEL]),
    (losses.SoftmaxCELoss(axis=0, batch_axis=0), (PRED.T, LABEL), -LOG_PRED[ROWS, LABEL]),
    (
        losses.SoftmaxCELoss(sparse_label=False),
        (PRED, PROBABILITIES),
        -(PROBABILITIES * LOG_PRED).sum(1),
    ),
    (
        losses.SigmoidBCELoss(),
        (PRED, BINARY),
        -(BINARY * np.log(sigmoid(PRED)) + (1 - BINARY) * np.log(sigmoid(-PRED))).mean(1),
    ),
    (
        losses.SigmoidBCELoss(from_sigmoid=True),
        (sigmoid(PRED), BINARY),
        -(BINARY * np.log(sigmoid(PRED)) + (1 - BINARY) * np.log(sigmoid(-PRED))).mean(1),
    ),
    (
        losses.KLDivLoss(from_logits=False),
        (PRED, PROBABILITIES),
        (PROBABILITIES * (np.log(PROBABILITIES) - LOG_PRED)).mean(1),
    ),
    (
        losses.HuberLoss(rho=0.5),
        (PRED, TARGET),
        np.where(
            np.abs(PRED - TARGET) > 0.5, np.abs(PRED - TARGET) - 0.25, (PRED - TARGET) ** 2
        ).mean(1),
    ),
    (
        losses.HingeLoss(),
        (PRED, BINARY * 2 - 1),
        np.maximum(0, 1 - PRED * (BINARY * 2 - 1)).mean(1),
    ),
    (
        losses.SquaredHingeLoss(margin=2),
        (PRED, BINARY * 2 - 1),
        (np.maximum(0, 2 - PRED * (BINARY * 2 - 1)) ** 2).mean(1),
    ),
    (
        losses.TripletLoss(),
        (PRED, TARGET, BINARY),
        np.maximum(0, ((TARGET - PRED) ** 2 - (BINARY - PRED) ** 2).sum(1) + 1),
    ),
]


@MODES
@pytest.mark.parametrize(("loss", "inputs", "expected"), CASES)
def test_against_numpy(loss: Any, inputs: Any, expected: np.ndarray, hybridize: bool) -> None:
    if loss._batch_axis == 0 and getattr(loss, "_axis", -1) == 0:
        expected = expected.mean(keepdims=True)  # the class axis is also the one that is kept
    loss.hybridize(hybridize)
    found = loss(*map(nd.array, inputs)).asnumpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@MODES
def test_positive_weight(hybridize: bool) -> None:
    weight = np.array([[1.0, 2.0, 3.0]], np.float32)
    positive = BINARY * np.log(sigmoid(PRED)) * weight
    expected = -(positive + (1 - BINARY) * np.log(sigmoid(-PRED))).mean(1)
    for pred, from_sigmoid in ((PRED, False), (sigmoid(PRED), True)):
        loss = losses.SigmoidBCELoss(from_sigmoid)
        loss.hybridize(hybridize)
        found = loss(nd.array(pred), nd.array(BINARY), None, nd.array(weight)).asnumpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@MODES
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_sample_weight(hybridize: bool, shape: tuple[int, ...]) -> None:
    weight = nd.array(np.array([1, 0, 2, 0.5]).reshape(shape))
    loss = losses.SoftmaxCELoss()
    loss.hybridize(hybridize)
    found = loss(nd.array(PRED), nd.array(LABEL), weight).asnumpy()
    expected = -LOG_PRED[ROWS, LABEL] * [1, 0, 2, 0.5]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    other = losses.L2Loss()
    other.hybridize(hybridize)
    found = other(nd.array(PRED), nd.array(TARGET), weight).asnumpy()
    expected = ((PRED - TARGET) ** 2 / 2).mean(1) * [1, 0, 2, 0.5]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@MODES
@pytest.mark.parametrize(("label", "position"), [([0, 3, 1, 2], 1), ([0, 1, 1, -1], 3)])
def test_labels_out_of_range(hybridize: bool, label: list[int], position: int) -> None:
    loss = losses.SoftmaxCELoss()
    loss.hybridize(hybridize)
    message = f"label {label[position]} at position {position} .* 0 .. 2"
    with pytest.raises(IndexRangeError, match=message):
        loss(nd.array(PRED), nd.array(label))


@MODES
def test_labels_of_weight_zero_may_be_out_of_range(hybridize: bool) -> None:
    loss = losses.SoftmaxCELoss()
    loss.hybridize(hybridize)
    weight = nd.array([1, 0, 1, 1])
    found = loss(nd.array(PRED), nd.array([0, 99, 1, 2]), weight).asnumpy()
    expected = -LOG_PRED[ROWS, [0, 0, 1, 2]] * [1, 0, 1, 1]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(IndexRangeError, match="label 99 at position 0"):
        loss(nd.array(PRED), nd.array([99, 99, 1, 2]), weight)


@MODES
def test_sequence_labels_with_masked_steps(hybridize: bool) -> None:
    pred = np.random.default_rng(3).normal(size=(2, 3, 4)).astype(np.float32)
    label = np.array([[0, 3, -1], [1, -1, -1]])
    weight = (label >= 0).astype(np.float32)[:, :, None]
    loss = losses.SoftmaxCELoss()
    loss.hybridize(hybridize)
    found = loss(nd.array(pred), nd.array(label), nd.array(weight)).asnumpy()
    rows = log_softmax(pred)
    each = -np.take_along_axis(rows, np.maximum(label, 0)[:, :, None], 2) * weight
    np.testing.assert_allclose(found, each.mean((1, 2)), rtol=1e-5)


@MODES
def test_gradient_of_softmax_cross_entropy(hybridize: bool) -> None:
    pred = nd.array(PRED)
    pred.attach_grad()
    loss = losses.SoftmaxCELoss()
    loss.hybridize(hybridize)
    with autograd.record():
        total = loss(pred, nd.array(LABEL))
    total.backward()
    expected = np.exp(LOG_PRED) - np.eye(3)[LABEL]
    np.testing.assert_allclose(pred.grad.asnumpy(), expected, rtol=1e-4, atol=1e-6)


WRONG: list[tuple[Callable[[], Any], Any, str]] = [
    (losses.SoftmaxCELoss, np.ones((4, 3)), "sparse_label=False"),
    (losses.SoftmaxCELoss, np.ones((5,)), r"\(5,\).*\(4, 3\)"),
    (losses.L2Loss, np.ones((4,)), r"\(4,\).*\(4, 3\)"),
    (lambda: losses.SoftmaxCELoss(sparse_label=False), LABEL, r"\(4,\).*\(4, 3\)"),
]


@MODES
@pytest.mark.parametrize(("make", "label", "message"), WRONG)
def test_labels_that_do_not_fit(make: Any, label: Any, message: str, hybridize: bool) -> None:
    loss = make()
    loss.hybridize(hybridize)
    with pytest.raises(ShapeError, match=f"(?s){message}"):
        loss(nd.array(PRED), nd.array(label))

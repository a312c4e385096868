"""Metrics: values by hand, accumulation, names, and errors that name the sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graphc.errors import ArgumentError, ShapeError, UnknownNameError
from graphc.frontend import metric

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5]], np.float32)


class Handle:
    """Stands in for an nd array: all that a metric may use is ``asnumpy``."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def asnumpy(self):
        return self.values


def value_of(measure, *batches):
    for labels, preds in batches:
        measure.update(labels, preds)
    return measure.get()[1]


@pytest.mark.parametrize("wrap", [np.asarray, Handle, lambda x: [np.asarray(x)]])
def test_accuracy_of_arrays_handles_and_lists(wrap):
    measure = metric.Accuracy()
    assert math.isnan(measure.get()[1])
    measure.update(wrap([1, 0, 1]), wrap(SCORES))
    assert measure.get() == ("accuracy", pytest.approx(2 / 3))
    measure.update(wrap([1.0, 1.0, 1.0]), wrap([1, 1, 0]))
    assert measure.get_name_value() == [("accuracy", pytest.approx(4 / 6))]
    measure.reset()
    assert math.isnan(measure.get()[1])


def test_accuracy_takes_float32_labels_and_another_axis():
    assert value_of(metric.Accuracy(axis=0), (np.float32([1, 0, 1]), SCORES.T)) == 2 / 3
    pixels = np.random.default_rng(0).random((2, 4, 5, 6))
    assert value_of(metric.Accuracy(), (pixels.argmax(1), pixels)) == 1.0


def test_top_k():
    measure = metric.create("top_k_accuracy", top_k=2)
    assert value_of(measure, (np.array([2, 1, 0]), SCORES)) == pytest.approx(1 / 3)
    assert measure.get()[0] == "top_k_accuracy_2"
    with pytest.raises(ArgumentError, match="at least 2(.|\n)*Accuracy"):
        metric.TopKAccuracy(top_k=1)


def test_regression_errors_average_over_batches():
    batches = [([1.0, 2.0], [[2.0], [4.0]]), ([0.0], [0.0])]
    batches = [(np.array(label), np.array(pred)) for label, pred in batches]
    assert value_of(metric.MAE(), *batches) == pytest.approx(1.5 / 2)
    assert value_of(metric.MSE(), *batches) == pytest.approx(2.5 / 2)
    assert value_of(metric.RMSE(), *batches) == pytest.approx(math.sqrt(2.5) / 2)


def test_unsigned_labels_do_not_wrap_around():
    assert value_of(metric.MAE(), (np.uint8([1]), np.uint8([3]))) == 2


def test_cross_entropy_and_perplexity():
    labels = np.float32([1, 0, 2])
    expected = -np.log([0.7, 0.5, 0.5]).mean()
    assert value_of(metric.create("ce"), (labels, SCORES)) == pytest.approx(expected, rel=1e-6)
    found = value_of(metric.Perplexity(), (labels, SCORES))
    assert found == pytest.approx(np.exp(expected), rel=1e-6)
    ignoring = metric.Perplexity(ignore_label=0)
    expected = np.exp(-np.log([0.7, 0.5]).mean())
    assert value_of(ignoring, (labels, SCORES)) == pytest.approx(expected, rel=1e-6)
    sequence = np.stack([SCORES, SCORES], axis=1)
    assert value_of(metric.Perplexity(), (np.stack([labels, labels], 1), sequence)) > 1
    assert math.isnan(metric.Perplexity().get()[1])


def test_loss_is_a_mean_over_elements():
    measure = metric.create("loss")
    measure.update(None, np.float32([1, 2, 3]))
    measure.update(0, [Handle([6.0])])
    assert measure.get() == ("loss", 3.0)


def test_f1_macro_and_micro():
    first = (np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0]))
    second = (np.array([1, 0]), np.array([[0.2, 0.8], [0.9, 0.1]]))
    assert value_of(metric.F1(), first, second) == pytest.approx((0.5 + 1) / 2)
    micro = metric.F1(average="micro")
    assert value_of(micro, first, second) == pytest.approx(4 / 6)
    micro.reset()
    assert value_of(micro, second) == 1.0
    with pytest.raises(ArgumentError, match="0 and 1 only"):
        metric.F1().update(np.array([0, 2]), np.array([0, 1]))
    with pytest.raises(ArgumentError, match="Did you mean 'macro'"):
        metric.F1(average="marco")


def test_composite_feeds_every_child():
    measure = metric.create(["acc", metric.CrossEntropy()])
    measure.update(np.array([1, 0, 1]), SCORES)
    names, values = measure.get()
    assert names == ["accuracy", "cross-entropy"] and values[0] == pytest.approx(2 / 3)
    measure.add("mse")
    assert [name for name, _ in measure.get_name_value()] == [*names, "mse"]
    measure.reset()
    assert all(math.isnan(value) for value in measure.get()[1])
    assert isinstance(measure.get_metric(0), metric.Accuracy)


def test_functions_become_metrics():
    def worst(label, pred):
        return np.abs(label - pred).max()

    assert value_of(metric.create(worst), (np.array([1.0, 5.0]), np.array([2.0, 2.0]))) == 3
    assert metric.create(worst).get()[0] == "custom(worst)"
    counted = metric.np(lambda label, pred: (label.sum(), label.size), name="mean label")
    assert value_of(counted, (np.array([1, 2]), np.array([0, 0]))) == 1.5
    assert counted.get()[0] == "mean label"
    extra = metric.CustomMetric(worst, allow_extra_outputs=True)
    extra.update([np.array([1.0])], [np.array([2.0]), np.array([9.0])])
    assert extra.get()[1] == 1


def test_a_registered_subclass_is_found_by_name():
    @metric.register
    class OffByOne(metric.EvalMetric):
        def __init__(self):
            super().__init__("off by one")

        def evaluate(self, label, pred):
            return (np.abs(label - pred) == 1).sum(), label.size

    assert value_of(metric.create("offbyone"), (np.array([1, 2]), np.array([2, 2]))) == 0.5
    with pytest.raises(NotImplementedError, match="defines neither"):
        metric.EvalMetric("bare").update(np.array([1]), np.array([1]))


def test_update_dict_picks_by_name():
    measure = metric.Accuracy(output_names=["prob"], label_names=["y"])
    measure.update_dict({"y": np.array([1]), "z": 0}, {"prob": SCORES[:1], "other": 0})
    assert measure.get()[1] == 1.0


def test_create_names_the_nearest_metric_and_the_line():
    with pytest.raises(UnknownNameError, match=r"'acuracy'.*'accuracy'.*test_metric\.py"):
        metric.create("acuracy")
    with pytest.raises(ArgumentError, match="not int"):
        metric.create(3)
    assert metric.create("Accuracy").name == "accuracy"


@pytest.mark.parametrize(
    ("name", "labels", "preds"),
    [
        ("acc", np.zeros(4), np.zeros((3, 10))),
        ("acc", np.zeros(4), np.zeros(3)),
        ("mse", np.zeros(4), np.zeros((4, 2))),
        ("ce", np.zeros(4), np.zeros((3, 10))),
        ("ce", np.zeros(4), np.zeros(4)),
        ("perplexity", np.zeros((4, 2)), np.zeros((4, 3, 10))),
        ("f1", np.zeros(4), np.zeros((3, 2))),
    ],
)
def test_shapes_that_do_not_fit_are_both_named(name, labels, preds):
    with pytest.raises(ShapeError) as caught:
        metric.create(name).update(labels, preds)
    assert str(labels.shape) in str(caught.value) and str(preds.shape) in str(caught.value)
    assert "test_metric.py" in str(caught.value)


def test_numbers_of_arrays_and_ranges_of_labels_are_checked():
    with pytest.raises(ShapeError, match="2 labels for 1 predictions"):
        metric.Accuracy().update([SCORES, SCORES], [SCORES])
    with pytest.raises(ArgumentError, match=r"label 3 is outside the 3 classes 0\.\.2"):
        metric.CrossEntropy().update(np.array([0, 3, 1]), SCORES)
    with pytest.raises(ArgumentError, match="label -1"):
        metric.CrossEntropy().update(np.array([0, -1, 1]), SCORES)

"""Evaluation metrics, accumulated batch by batch.

Labels and predictions are nd arrays, NumPy arrays or lists of either; every metric computes in
NumPy at once, so a value is never wrong because an array was overwritten later.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from graphc.errors import ArgumentError, nearest, user_location
from graphc.frontend.metric_base import CompositeEvalMetric as CompositeEvalMetric
from graphc.frontend.metric_base import CustomMetric as CustomMetric
from graphc.frontend.metric_base import EvalMetric as EvalMetric
from graphc.frontend.metric_base import as_list, check_axis, mismatch, to_numpy
from graphc.frontend.metric_base import create as create
from graphc.frontend.metric_base import np as np
from graphc.frontend.metric_base import register as register


@register("acc")
class Accuracy(EvalMetric):
    """Share of right classes, ``sum(argmax(pred, axis) == label) / n``.

    Parameters
    ----------
    axis : int
        Class axis of predictions; predictions shaped like the labels are taken as classes.
    name : str
        Shown by ``get``.
    """

    def __init__(self, axis: int = 1, name: str = "accuracy", **names: Any) -> None:
        super().__init__(name, **names)
        self.axis = axis

    def evaluate(self, label: numpy.ndarray, pred: numpy.ndarray) -> tuple[float, int]:
        """Return (number of right predictions, number of predictions)."""
        classes = _classes(self.name, self.axis, label, pred)
        right = classes.astype(numpy.int64) == label.ravel().astype(numpy.int64)
        return right.sum(), right.size


@register("top_k_accuracy", "top_k_acc")
class TopKAccuracy(EvalMetric):
    """Share of labels among the ``top_k`` highest scores.

    Parameters
    ----------
    top_k : int
        At least 2; :class:`Accuracy` is the case of 1.
    name : str
        Shown by ``get`` with ``_k`` appended.
    """

    def __init__(self, top_k: int = 1, name: str = "top_k_accuracy", **names: Any) -> None:
        if top_k <= 1:
            raise ArgumentError(
                f"top_k must be at least 2, not {top_k}",
                remedy="Use Accuracy for the single best class.",
                where=user_location(),
            )
        super().__init__(f"{name}_{top_k}", **names)
        self.top_k = top_k

    def evaluate(self, label: numpy.ndarray, pred: numpy.ndarray) -> tuple[float, int]:
        """Return (number of labels among the best scores, number of labels)."""
        if pred.ndim != 2 or label.size != pred.shape[0]:
            raise mismatch(self.name, label, pred, "predictions must be (batch, classes)")
        best = numpy.argsort(pred, axis=1, kind="stable")[:, -self.top_k :]
        right = (best == label.reshape(-1, 1).astype(numpy.int64)).any(axis=1)
        return right.sum(), right.size


@register()
class F1(EvalMetric):
    """F1 score of a two-class problem, ``2 precision recall / (precision + recall)``.

    Parameters
    ----------
    name : str
        Shown by ``get``.
    average : {"macro", "micro"}
        Mean of the batches' scores, or the score over all instances seen.
    """

    def __init__(self, name: str = "f1", average: str = "macro", **names: Any) -> None:
        if average not in ("macro", "micro"):
            hint = nearest(str(average), ("macro", "micro"))
            raise ArgumentError(f"average is macro or micro, not {average!r}.{hint}")
        self.average = average
        super().__init__(name, **names)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._counts = numpy.zeros(3, numpy.int64)

    def evaluate(self, label: numpy.ndarray, pred: numpy.ndarray) -> tuple[float, int]:
        """Return (score, 1) of one batch, or the change that makes the ratio the micro score."""
        counts = self._count(label, pred)
        if self.average == "macro":
            return _f1(counts), 1
        self._counts += counts
        seen = self.num_inst + label.size
        return _f1(self._counts) * seen - self.sum_metric, label.size

    def _count(self, label: numpy.ndarray, pred: numpy.ndarray) -> numpy.ndarray:
        """Return the numbers of true positives, false positives and false negatives."""
        classes = _classes(self.name, 1, label, pred)
        if label.size and not numpy.isin(label, (0, 1)).all():
            raise ArgumentError(f"{self.name} takes labels 0 and 1 only, not up to {label.max()}")
        truth, guess = label.ravel() == 1, classes == 1
        return numpy.array([(truth & guess).sum(), (~truth & guess).sum(), (truth & ~guess).sum()])


def _f1(counts: numpy.ndarray) -> float:
    hits, false_alarms, misses = counts.tolist()
    total = 2 * hits + false_alarms + misses
    return 2 * hits / total if total else 0.0


class _Regression(EvalMetric):
    """Mean over the batches of a distance between labels and predictions."""

    def evaluate(self, label: numpy.ndarray, pred: numpy.ndarray) -> tuple[float, int]:
        """Return (distance, 1) of one batch."""
        columns = [x.reshape(-1, 1) if x.ndim == 1 else x for x in (label, pred)]
        if columns[0].shape != columns[1].shape:
            raise mismatch(self.name, label, pred)
        return self.distance(columns[0].astype(numpy.float64) - columns[1]), 1

    def distance(self, difference: numpy.ndarray) -> float:
        """Return the distance for ``label - pred``."""
        raise NotImplementedError


@register()
class MAE(_Regression):
    """Mean absolute error, the mean over batches of ``mean(|label - pred|)``.

    Parameters
    ----------
    name : str
        Shown by ``get``.
    """

    def __init__(self, name: str = "mae", **names: Any) -> None:
        super().__init__(name, **names)

    def distance(self, difference: numpy.ndarray) -> float:
        """Return the mean absolute difference."""
        return float(numpy.abs(difference).mean())


@register()
class MSE(_Regression):
    """Mean squared error, the mean over batches of ``mean((label - pred)^2)``.

    Parameters
    ----------
    name : str
        Shown by ``get``.
    """

    def __init__(self, name: str = "mse", **names: Any) -> None:
        super().__init__(name, **names)

    def distance(self, difference: numpy.ndarray) -> float:
        """Return the mean squared difference."""
        return float(numpy.square(difference).mean())


@register()
class RMSE(_Regression):
    """Root mean squared error, the mean over batches of ``sqrt(mean((label - pred)^2))``.

    Parameters
    ----------
    name : str
        Shown by ``get``.
    """

    def __init__(self, name: str = "rmse", **names: Any) -> None:
        super().__init__(name, **names)

    def distance(self, difference: numpy.ndarray) -> float:
        """Return the root of the mean squared difference."""
        return math.sqrt(numpy.square(difference).mean())


@register("ce", "cross-entropy", "nll_loss", "nll-loss")
class CrossEntropy(EvalMetric):
    """Mean of ``-log(pred[i, label[i]] + eps)`` over the instances.

    Parameters
    ----------
    eps : float
        Keeps the logarithm finite.
    name : str
        Shown by ``get``.
    """

    def __init__(self, eps: float = 1e-12, name: str = "cross-entropy", **names: Any) -> None:
        super().__init__(name, **names)
        self.eps = eps

    def evaluate(self, label: numpy.ndarray, pred: numpy.ndarray) -> tuple[float, int]:
        """Return (sum of the losses, number of labels)."""
        if pred.ndim != 2 or label.size != pred.shape[0]:
            raise mismatch(self.name, label, pred, "predictions must be (batch, classes)")
        chosen = _pick(self.name, label.ravel(), pred)
        return -numpy.log(chosen + self.eps).sum(), chosen.size


@register()
class Perplexity(EvalMetric):
    """``exp`` of the mean of ``-log(pred at label)``, without the instances of ``ignore_label``.

    Parameters
    ----------
    ignore_label : int, optional
        Label of padding.
    axis : int
        Class axis of the predictions.
    name : str
        Shown by ``get``.
    """

    def __init__(
        self,
        ignore_label: int | None = None,
        axis: int = -1,
        name: str = "perplexity",
        **names: Any,
    ) -> None:
        super().__init__(name, **names)
        self.ignore_label = ignore_label
        self.axis = axis

    def evaluate(self, label: numpy.ndarray, pred: numpy.ndarray) -> tuple[float, int]:
        """Return (sum of the losses, number of labels that count)."""
        check_axis(self.name, self.axis, label, pred)
        pred = numpy.moveaxis(pred, self.axis, -1)
        if label.size != math.prod(pred.shape[:-1]):
            raise mismatch(self.name, label, pred)
        label, pred = label.ravel(), pred.reshape(-1, pred.shape[-1])
        if self.ignore_label is not None:
            counts = label != self.ignore_label
            label, pred = label[counts], pred[counts]
        chosen = _pick(self.name, label, pred)
        return -numpy.log(numpy.maximum(chosen, 1e-10)).sum(), chosen.size

    def get(self) -> tuple[str, float]:
        """Return ``(name, value)``; the value is NaN before the first batch."""
        name, value = super().get()
        return name, math.exp(value)


@register()
class Loss(EvalMetric):
    """Mean of the values of a loss; the labels are not looked at.

    Parameters
    ----------
    name : str
        Shown by ``get``.
    """

    def __init__(self, name: str = "loss", **names: Any) -> None:
        super().__init__(name, **names)

    def update(self, _: Any, preds: Any) -> None:
        """Take in the losses of one batch, an array or a list of arrays."""
        for loss in map(to_numpy, as_list(preds)):
            self.sum_metric += float(loss.sum(dtype=numpy.float64))
            self.num_inst += loss.size


def _pick(name: str, label: numpy.ndarray, pred: numpy.ndarray) -> numpy.ndarray:
    """Return the probability that ``pred`` (batch, classes) gives to each label."""
    index = label.astype(numpy.int64)
    if index.size and (index.min() < 0 or index.max() >= pred.shape[1]):
        wrong = index[(index < 0) | (index >= pred.shape[1])][0]
        raise ArgumentError(
            f"{name}: label {wrong} is outside the {pred.shape[1]} classes 0..{pred.shape[1] - 1}",
            where=user_location(),
        )
    return pred[numpy.arange(index.size), index].astype(numpy.float64)


def _classes(name: str, axis: int, label: numpy.ndarray, pred: numpy.ndarray) -> numpy.ndarray:
    """Return the predicted class of each label, flat; ``pred`` holds scores or classes."""
    classes = pred
    if pred.shape != label.shape:
        check_axis(name, axis, label, pred)
        classes = pred.argmax(axis=axis)
    if classes.size != label.size:
        raise mismatch(name, label, pred)
    return classes.ravel()

"""What a metric is, how it is found by name, and metrics made of functions.

Labels and predictions are nd arrays, NumPy arrays or lists of either; every metric computes in
NumPy at once, so a value is never wrong because an array was overwritten later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from graphc.errors import ArgumentError, ShapeError, UnknownNameError, nearest, user_location

_registry: dict[str, type[EvalMetric]] = {}


def register(*names: str) -> Callable[[type[EvalMetric]], type[EvalMetric]]:
    """Class decorator: make a metric known to :func:`create` by its class name and ``names``.

    ``@register`` without a call works too, as in MXNet.
    """
    if len(names) == 1 and isinstance(names[0], type):
        return register()(names[0])

    def add(metric: type[EvalMetric]) -> type[EvalMetric]:
        for name in (metric.__name__, *names):
            _registry[name.lower()] = metric
        return metric

    return add


def create(metric: Any, *args: Any, **kwargs: Any) -> EvalMetric:
    """Make a metric from its name.

    Parameters
    ----------
    metric : str, callable, EvalMetric or list of these
        A registered name; ``f(label, pred)`` on NumPy arrays; a list gives a composite.
    *args, **kwargs
        Passed to the metric's constructor.

    Returns
    -------
    EvalMetric

    Raises
    ------
    UnknownNameError
        No metric has that name; gives the nearest one.
    """
    if isinstance(metric, EvalMetric):
        return metric
    if isinstance(metric, (list, tuple)):
        return CompositeEvalMetric([create(child, *args, **kwargs) for child in metric])
    if isinstance(metric, str):
        if metric.lower() not in _registry:
            raise UnknownNameError(
                f"no metric is called {metric!r}.{nearest(metric.lower(), _registry)}",
                remedy=f"Known: {', '.join(sorted(_registry))}.",
                where=user_location(),
            )
        return _registry[metric.lower()](*args, **kwargs)
    if callable(metric):
        return CustomMetric(metric, *args, **kwargs)
    raise ArgumentError(
        f"a metric is a name, a function or a list of them, not {type(metric).__name__}",
        where=user_location(),
    )


class EvalMetric:
    """Base of the metrics: a sum, a number of instances, and their ratio.

    Parameters
    ----------
    name : str
        Shown by :meth:`get`.
    output_names, label_names : list of str, optional
        What :meth:`update_dict` picks; everything by default.

    Attributes
    ----------
    sum_metric : float
        Sum over what :meth:`update` saw since the last :meth:`reset`.
    num_inst : int
        Number of instances in that sum.
    """

    def __init__(
        self,
        name: str,
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ) -> None:
        self.name = str(name)
        self.output_names = output_names
        self.label_names = label_names
        self.reset()

    def __str__(self) -> str:
        return f"EvalMetric: {dict(self.get_name_value())}"

    def reset(self) -> None:
        """Forget everything."""
        self.num_inst = 0
        self.sum_metric = 0.0

    def update(self, labels: Any, preds: Any) -> None:
        """Take in one batch.

        Parameters
        ----------
        labels, preds : array or list of arrays
            One pair per output of the network.

        Raises
        ------
        ShapeError
            The numbers of labels and predictions, or their shapes, do not fit.
        """
        for label, pred in _pairs(self.name, labels, preds):
            total, count = self.evaluate(label, pred)
            self.sum_metric += float(total)
            self.num_inst += int(count)

    def evaluate(self, label: numpy.ndarray, pred: numpy.ndarray) -> tuple[float, int]:
        """Return (sum, number of instances) of one pair of arrays; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} defines neither evaluate nor update")

    def update_dict(self, label: dict[str, Any], pred: dict[str, Any]) -> None:
        """Take in one batch given by names."""
        labels = [label[name] for name in (self.label_names or label)]
        preds = [pred[name] for name in (self.output_names or pred)]
        self.update(labels, preds)

    def get(self) -> tuple[Any, Any]:
        """Return ``(name, value)``; the value is NaN before the first batch."""
        value = self.sum_metric / self.num_inst if self.num_inst else math.nan
        return self.name, value

    def get_name_value(self) -> list[tuple[str, float]]:
        """Return ``[(name, value), ...]``."""
        name, value = self.get()
        if isinstance(name, list):
            return list(zip(name, value, strict=True))
        return [(name, value)]


@register("composite")
class CompositeEvalMetric(EvalMetric):
    """Several metrics, fed together.

    Parameters
    ----------
    metrics : list of EvalMetric, str or callable, optional
        What :func:`create` takes.
    name : str
        Not shown; the children's names are.
    """

    def __init__(self, metrics: Sequence[Any] = (), name: str = "composite") -> None:
        self.metrics = [create(metric) for metric in metrics or ()]
        super().__init__(name)

    def add(self, metric: Any) -> None:
        """Append a child."""
        self.metrics.append(create(metric))

    def get_metric(self, index: int) -> EvalMetric:
        """Return child ``index``."""
        return self.metrics[index]

    def reset(self) -> None:
        """Reset every child."""
        for metric in self.metrics:
            metric.reset()

    def update(self, labels: Any, preds: Any) -> None:
        """Give one batch to every child."""
        for metric in self.metrics:
            metric.update(labels, preds)

    def update_dict(self, label: dict[str, Any], pred: dict[str, Any]) -> None:
        """Give one batch, by names, to every child."""
        for metric in self.metrics:
            metric.update_dict(label, pred)

    def get(self) -> tuple[list[str], list[float]]:
        """Return (names, values)."""
        found = [pair for metric in self.metrics for pair in metric.get_name_value()]
        return [name for name, _ in found], [value for _, value in found]


@register("custom")
class CustomMetric(EvalMetric):
    """A metric from a function.

    Parameters
    ----------
    feval : callable
        ``feval(label, pred)`` on NumPy arrays; returns a number (one instance) or
        ``(sum, number of instances)``.
    name : str, optional
        The function's name by default.
    allow_extra_outputs : bool
        Ignore predictions beyond the number of labels.
    """

    def __init__(
        self,
        feval: Callable[[numpy.ndarray, numpy.ndarray], Any],
        name: str | None = None,
        allow_extra_outputs: bool = False,
        **names: Any,
    ) -> None:
        function = getattr(feval, "__name__", type(feval).__name__)
        super().__init__(f"custom({function})" if name is None else name, **names)
        self.feval = feval
        self.allow_extra_outputs = allow_extra_outputs

    def update(self, labels: Any, preds: Any) -> None:
        """Take in one batch."""
        if self.allow_extra_outputs:
            preds = as_list(preds)[: len(as_list(labels))]
        super().update(labels, preds)

    def evaluate(self, label: numpy.ndarray, pred: numpy.ndarray) -> tuple[float, int]:
        """Return what the function says of one pair."""
        value = self.feval(label, pred)
        return value if isinstance(value, tuple) else (value, 1)


def np(
    numpy_feval: Callable[[numpy.ndarray, numpy.ndarray], Any],
    name: str | None = None,
    allow_extra_outputs: bool = False,
) -> CustomMetric:
    """Make a metric from ``f(label, pred)`` on NumPy arrays; MXNet's ``metric.np``."""
    shown = name or getattr(numpy_feval, "__name__", None)
    return CustomMetric(numpy_feval, shown, allow_extra_outputs)


def to_numpy(array: Any) -> numpy.ndarray:
    """Return an nd array, NumPy array or number as NumPy array."""
    return array.asnumpy() if hasattr(array, "asnumpy") else numpy.asarray(array)


def as_list(arrays: Any) -> list[Any]:
    """Return a list or tuple as list, anything else as list of one."""
    return list(arrays) if isinstance(arrays, (list, tuple)) else [arrays]


_LABELS_FIRST = "update() takes the labels first, then the predictions."


def _pairs(name: str, labels: Any, preds: Any) -> list[tuple[numpy.ndarray, numpy.ndarray]]:
    labels, preds = as_list(labels), as_list(preds)
    if len(labels) != len(preds):
        raise ShapeError(
            f"{name}: {len(labels)} labels for {len(preds)} predictions",
            remedy="Pass one label array per prediction array.",
            where=user_location(),
        )
    return [(to_numpy(label), to_numpy(pred)) for label, pred in zip(labels, preds, strict=True)]


def mismatch(
    name: str, label: numpy.ndarray, pred: numpy.ndarray, remedy: str = ""
) -> ShapeError:
    """Return the error of a label and a prediction that do not fit."""
    return ShapeError(
        f"{name}: labels of shape {label.shape} do not fit predictions of shape {pred.shape}",
        remedy=remedy or f"There must be one label for each prediction; {_LABELS_FIRST}",
        where=user_location(),
    )


def check_axis(name: str, axis: int, label: numpy.ndarray, pred: numpy.ndarray) -> None:
    """Raise unless ``pred`` has the class axis ``axis``."""
    if not -pred.ndim <= axis < pred.ndim:
        remedy = f"The predictions have no axis {axis} of classes; {_LABELS_FIRST}"
        raise mismatch(name, label, pred, remedy)

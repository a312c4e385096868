"""Losses: Blocks of prediction and label that give one number for each example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import ShapeError, user_location
from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.hybrid_block import HybridBlock
from graphc.frontend.gluon.input_shapes import shown
from graphc.frontend.numeric import number
from graphc.frontend.ops.operator import dims
from graphc.ir.ops import basic, comparison, indexing, movement
from graphc.ir.ops import softmax as core
from graphc.ir.sizes import known_size
from graphc.ir.types import as_dtype, bool_, normalize_axis


def _has_type(x: Any) -> bool:
    """Return whether an operand is an array or a traced value, not a Symbol."""
    return hasattr(x, "type")


def _like(label: Any, pred: Any) -> Any:
    """Return labels under the shape of the predictions."""
    if not (_has_type(label) and _has_type(pred)):
        return F.reshape_like(label, pred)
    if len(dims(label)) == len(dims(pred)):
        same = all(
            known_size(a) == known_size(b) for a, b in zip(dims(label), dims(pred), strict=True)
        )
        if same:
            return label
    if _elements(label) != _elements(pred):
        raise ShapeError(
            f"labels of shape {shown(dims(label))} do not fit predictions of shape "
            f"{shown(dims(pred))}",
            remedy="They need as many elements; class numbers are for SoftmaxCrossEntropyLoss.",
            where=user_location(),
        )
    return F.reshape_like(label, pred)


def _elements(x: Any) -> int:
    count = 1
    for size in dims(x):
        count *= known_size(size) or 0
    return count


class Loss(HybridBlock):
    """Base of the losses.

    Parameters
    ----------
    weight : float, optional
        Factor of the loss.
    batch_axis : int
        The axis that is kept; the loss is the mean over all others.
    """

    def __init__(self, weight: float | None = None, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._weight = None if weight is None else number(type(self).__name__, "weight", weight)
        self._batch_axis = batch_axis

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_axis={self._batch_axis}, w={self._weight})"

    def weighted(self, loss: Any, sample_weight: Any, factor: float = 1.0) -> Any:
        """Return a loss times the weights, then its mean for each example.

        Parameters
        ----------
        loss : operand
        sample_weight : operand, optional
            Broadcasts to the loss; one weight for each example may have shape ``(N,)``.
        factor : float
        """
        if sample_weight is not None:
            loss = F.broadcast_mul(loss, _spread(sample_weight, loss))
        factor = factor if self._weight is None else factor * self._weight
        loss = loss if factor == 1.0 else loss * factor
        if _has_type(loss) and len(dims(loss)) == 1:
            return loss
        return F.mean(loss, axis=self._batch_axis, exclude=True)


def _spread(weight: Any, loss: Any) -> Any:
    """Give weights the missing trailing axes: one for each example is ``(N, 1, ...)``."""
    if not (_has_type(weight) and _has_type(loss)):
        return weight
    missing = len(dims(loss)) - len(dims(weight))
    return movement.reshape(weight, (*dims(weight), *(1,) * missing)) if missing > 0 else weight


class L2Loss(Loss):
    """Half the squared difference, ``weight / 2 * (pred - label)**2``.

    Parameters
    ----------
    weight : float
    batch_axis : int
    """

    def __init__(self, weight: float = 1.0, batch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(weight, batch_axis, **kwargs)

    def forward(self, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """Return the loss of each example."""
        return self.weighted(F.square(_like(label, pred) - pred), sample_weight, 0.5)


class L1Loss(Loss):
    """The absolute difference.

    Parameters
    ----------
    weight : float, optional
    batch_axis : int
    """

    def forward(self, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """Return the loss of each example."""
        return self.weighted(F.abs(_like(label, pred) - pred), sample_weight)


class SigmoidBinaryCrossEntropyLoss(Loss):
    """Cross entropy of labels in 0 .. 1 and the sigmoid of predictions.

    Parameters
    ----------
    from_sigmoid : bool
        Predictions are probabilities already.
    weight : float, optional
    batch_axis : int
    """

    def __init__(
        self, from_sigmoid: bool = False, weight: float | None = None, batch_axis: int = 0,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(weight, batch_axis, **kwargs)
        self._from_sigmoid = bool(from_sigmoid)

    def forward(
        self, pred: Any, label: Any, sample_weight: Any = None, pos_weight: Any = None
    ) -> Any:
        """Return the loss of each example; ``pos_weight`` multiplies the part of label 1."""
        label = _like(label, pred)
        if self._from_sigmoid:
            tiny = 1e-12
            positive = F.log(pred + tiny) * label
            positive = positive if pos_weight is None else F.broadcast_mul(positive, pos_weight)
            loss = -(positive + F.log(1.0 - pred + tiny) * (1.0 - label))
        elif pos_weight is None:
            loss = F.relu(pred) - pred * label + _softplus(-F.abs(pred))
        else:
            scale = 1.0 + F.broadcast_mul(label, pos_weight - 1.0)
            loss = pred - pred * label + scale * (_softplus(-F.abs(pred)) + F.relu(-pred))
        return self.weighted(loss, sample_weight)


def _softplus(x: Any) -> Any:
    return F.Activation(x, act_type="softrelu")


class SoftmaxCrossEntropyLoss(Loss):
    """Cross entropy of labels and the softmax of predictions.

    Parameters
    ----------
    axis : int
        The class axis.
    sparse_label : bool
        Labels are class numbers; otherwise a weight for each class, shaped like predictions.
    from_logits : bool
        Predictions are logarithms of probabilities (the result of ``log_softmax``) already.
    weight : float, optional
    batch_axis : int

    Raises
    ------
    IndexRangeError
        When called with a label outside ``0 .. classes - 1``, where its ``sample_weight`` is not 0.
    """

    def __init__(
        self, axis: int = -1, sparse_label: bool = True, from_logits: bool = False,
        weight: float | None = None, batch_axis: int = 0, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(weight, batch_axis, **kwargs)
        self._axis, self._sparse, self._from_logits = axis, bool(sparse_label), bool(from_logits)

    def forward(self, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """Return the loss of each example."""
        if not _has_type(pred) or not _has_type(label):
            return self.weighted(self._composed(pred, label), sample_weight)
        place = normalize_axis(self._axis, len(dims(pred)))
        if self._sparse:
            label = self._checked(pred, label, sample_weight, place)
        else:
            label = _like(label, pred)
        if self._from_logits:
            loss = self._composed(pred, label)
        else:
            each = core.softmax_cross_entropy(pred, label, place, self._sparse)
            loss = movement.expand_dims(each, place)
        return self.weighted(loss, sample_weight)

    def _composed(self, pred: Any, label: Any) -> Any:
        logits = pred if self._from_logits else F.log_softmax(pred, axis=self._axis)
        if self._sparse:
            return -F.pick(logits, label, axis=self._axis, keepdims=True)
        return -F.sum(logits * label, axis=self._axis, keepdims=True)

    def _checked(self, pred: Any, label: Any, sample_weight: Any, place: int) -> Any:
        """Return class numbers that are in range; those of weight 0 become 0."""
        shape = dims(pred)
        examples = (*shape[:place], *shape[place + 1 :])
        if len(dims(label)) == len(shape) and known_size(dims(label)[place]) == 1:
            label = movement.squeeze(label, place)
        if as_dtype(label.dtype) is bool_:
            label = basic.cast(label, "int32")
        _check_label_shape(label, pred, examples)
        if sample_weight is not None:
            weight = _spread(sample_weight, pred)
            if len(dims(weight)) == len(shape):
                weight = movement.squeeze(weight, place)
            used = movement.broadcast_to(comparison.not_equal(weight, 0), dims(label))
            label = comparison.where(used, label, 0)
        label = indexing.check_index(label, shape[place], "label")
        return label if as_dtype(label.dtype).integer else basic.cast(label, "int32")


def _check_label_shape(label: Any, pred: Any, examples: Sequence[Any]) -> None:
    """Raise for labels that are not one for each example."""
    given = tuple(known_size(d) for d in dims(label))
    expected = tuple(known_size(d) for d in examples)
    if given == expected:
        return
    dense = given == tuple(known_size(d) for d in dims(pred))
    raise ShapeError(
        f"labels of shape {shown(dims(label))} do not fit predictions of shape "
        f"{shown(dims(pred))}: sparse labels are one class number for each example",
        remedy="Labels with a weight for each class need SoftmaxCrossEntropyLoss("
        "sparse_label=False)." if dense else f"Their shape must be {shown(examples)}.",
        where=user_location(),
    )


class KLDivLoss(Loss):
    """The Kullback-Leibler divergence of labels, which are probabilities, from predictions.

    Parameters
    ----------
    from_logits : bool
        Predictions are logarithms of probabilities; otherwise their softmax is taken.
    axis : int
        The class axis.
    weight : float, optional
    batch_axis : int
    """

    def __init__(
        self, from_logits: bool = True, axis: int = -1, weight: float | None = None,
        batch_axis: int = 0, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(weight, batch_axis, **kwargs)
        self._from_logits, self._axis = bool(from_logits), axis

    def forward(self, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """Return the loss of each example."""
        logits = pred if self._from_logits else F.log_softmax(pred, axis=self._axis)
        return self.weighted(label * (F.log(label + 1e-12) - logits), sample_weight)


class HuberLoss(Loss):
    """Squared near 0 and absolute beyond ``rho``.

    Parameters
    ----------
    rho : float
    weight : float, optional
    batch_axis : int
    """

    def __init__(
        self, rho: float = 1, weight: float | None = None, batch_axis: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._rho = number("HuberLoss", "rho", rho)

    def forward(self, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """Return the loss of each example."""
        size = F.abs(_like(label, pred) - pred)
        far, near = size - 0.5 * self._rho, F.square(size) * (0.5 / self._rho)
        return self.weighted(F.where(size > self._rho, far, near), sample_weight)


class HingeLoss(Loss):
    """``max(0, margin - pred * label)`` for labels -1 and 1.

    Parameters
    ----------
    margin : float
    weight : float, optional
    batch_axis : int
    """

    def __init__(
        self, margin: float = 1, weight: float | None = None, batch_axis: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._margin = number(type(self).__name__, "margin", margin)

    def forward(self, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """Return the loss of each example."""
        return self.weighted(F.relu(self._margin - pred * _like(label, pred)), sample_weight)


class SquaredHingeLoss(HingeLoss):
    """``max(0, margin - pred * label)**2`` for labels -1 and 1.

    Parameters
    ----------
    margin : float
    weight : float, optional
    batch_axis : int
    """

    def forward(self, pred: Any, label: Any, sample_weight: Any = None) -> Any:
        """Return the loss of each example."""
        loss = F.square(F.relu(self._margin - pred * _like(label, pred)))
        return self.weighted(loss, sample_weight)


class TripletLoss(Loss):
    """``max(0, |anchor - positive|**2 - |anchor - negative|**2 + margin)``.

    Parameters
    ----------
    margin : float
    weight : float, optional
    batch_axis : int
    """

    def __init__(
        self, margin: float = 1, weight: float | None = None, batch_axis: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(weight, batch_axis, **kwargs)
        self._margin = number(type(self).__name__, "margin", margin)

    def forward(self, pred: Any, positive: Any, negative: Any, sample_weight: Any = None) -> Any:
        """Return the loss of each example."""
        near = F.square(_like(positive, pred) - pred)
        far = F.square(_like(negative, pred) - pred)
        total = F.sum(near - far, axis=self._batch_axis, exclude=True)
        return self.weighted(F.relu(total + self._margin), sample_weight)


L1, L2, KLDiv, Huber, Hinge = L1Loss, L2Loss, KLDivLoss, HuberLoss, HingeLoss
SigmoidBCE = SigmoidBCELoss = SigmoidBinaryCrossEntropyLoss
SoftmaxCE = SoftmaxCELoss = SoftmaxCrossEntropyLoss

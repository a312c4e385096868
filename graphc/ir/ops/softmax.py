"""Softmax, log-softmax and the cross entropies, stable for logits of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.dim import Dim
from graphc.ir.expr import Expr
from graphc.ir.op import Binary, Kind, OpDef, Spec, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.basic import cast
from graphc.ir.ops.comparison import equal, where
from graphc.ir.ops.movement import expand_dims, reshape, squeeze
from graphc.ir.ops.reduction import max as max_
from graphc.ir.ops.reduction import positions_along, refuse_empty
from graphc.ir.ops.reduction import sum as sum_
from graphc.ir.ops.transcendental import exp, log, sigmoid
from graphc.ir.types import (
    DType,
    TensorType,
    as_dtype,
    float32,
    float64,
    floating_dtype,
    int32,
    int64,
    normalize_axis,
    promote,
    same_shape,
    shape_text,
)

_FAR = Spec((2, 4), -3000.0, 3000.0)
_SAMPLES = (
    sample((2, 5), axis=-1),
    sample((2, 3, 4), axis=1),
    sample((4,), axis=0),
    sample((3, 1), axis=1),
    sample((0, 3), axis=1),
)
_TOLERANCE = {float32: (2e-5, 2e-6), float64: (1e-12, 1e-13)}


def _below_peak(x: Any, axis: int) -> Any:
    """Return ``x`` less its maximum, so that no exponential overflows."""
    return x - max_(x, axis=axis, keepdims=True)


class SoftmaxLike(OpDef):
    """What softmax and log-softmax share."""

    kind, tolerance, samples = Kind.REDUCE, _TOLERANCE, (*_SAMPLES, sample(_FAR, axis=-1))

    def __call__(self, x: Any, axis: int = -1, temperature: float | None = None) -> Any:
        """Normalise along ``axis``.

        Parameters
        ----------
        x : operand
            Logits; ``-inf`` is a class that is ruled out.
        axis : int
        temperature : float, optional
            Divides the logits first.
        """
        logits = x if temperature is None else x / float(temperature)
        return apply(self, (logits,), {"axis": int(axis)})

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Promote integers to floating point."""
        return (floating_dtype(types[0].dtype),)

    def infer(self, x: TensorType, *, axis: int) -> TensorType:
        """Return the type of ``x``; the axis may not be empty."""
        refuse_empty(self.name, x, (normalize_axis(axis, x.ndim),))
        return x


class Softmax(SoftmaxLike):
    """Probabilities along an axis, ``exp(x) / sum(exp(x))``."""

    name = "softmax"

    def decompose(self, x: Any, *, axis: int) -> Any:
        """Scale exponentials by one over their sum, which is at least 1."""
        powers = exp(_below_peak(x, axis))
        return powers * (1.0 / sum_(powers, axis=axis, keepdims=True))

    def vjp(self, g: Any, y: Any, x: Any, *, axis: int) -> tuple[Any, ...]:
        """Return ``y * (g - sum(g * y))``."""
        return (y * (g - sum_(g * y, axis=axis, keepdims=True)),)

    def reference(self, x: np.ndarray, *, axis: int) -> Any:
        """Compute with NumPy."""
        with np.errstate(all="ignore"):
            powers = np.exp(x - x.max(axis=axis, keepdims=True))
            return powers / powers.sum(axis=axis, keepdims=True)


class LogSoftmax(SoftmaxLike):
    """Logarithms of the probabilities along an axis, ``x - log(sum(exp(x)))``."""

    name = "log_softmax"

    def decompose(self, x: Any, *, axis: int) -> Any:
        """Subtract the logarithm of the sum of exponentials."""
        below = _below_peak(x, axis)
        return below - log(sum_(exp(below), axis=axis, keepdims=True))

    def vjp(self, g: Any, y: Any, x: Any, *, axis: int) -> tuple[Any, ...]:
        """Return ``g - exp(y) * sum(g)``."""
        return (g - exp(y) * sum_(g, axis=axis, keepdims=True),)

    def reference(self, x: np.ndarray, *, axis: int) -> Any:
        """Compute with NumPy."""
        with np.errstate(all="ignore"):
            below = x - x.max(axis=axis, keepdims=True)
            return below - np.log(np.exp(below).sum(axis=axis, keepdims=True))


softmax = register(Softmax())
log_softmax = register(LogSoftmax())


def _is_class(x: Any, labels: Any, axis: int) -> Any:
    """Return where a position along the class axis is its label's: a comparison with a range."""
    place = normalize_axis(axis, x.ndim)
    # A range in the labels' own type could be too short: uint8 has no class 256.
    kind = int64 if as_dtype(labels.dtype) is int64 else int32
    classes = positions_along(x, place, kind)
    trailing = x.ndim - 1 - place
    if trailing:
        classes = reshape(classes, (x.shape[place], *(1,) * trailing))
    return equal(expand_dims(cast(labels, kind), place), classes)


class SoftmaxCrossEntropy(OpDef):
    """Cross entropy between labels and the softmax of logits, one loss for each example.

    Sparse labels are class numbers; one that is out of range (which the losses check for) hits no
    class. Dense labels are a weight for each class.
    """

    name, kind, tolerance = "softmax_cross_entropy", Kind.REDUCE, _TOLERANCE
    samples = (
        sample((3, 5), Spec((3,), 0, 5, int32), axis=-1, sparse=True),
        sample((2, 3, 4), Spec((2, 4), 0, 3, int64), axis=1, sparse=True),
        sample((4,), Spec((), 0, 4, int64), axis=0, sparse=True),
        sample((3, 5), Spec((3, 5), 0.0, 1.0), axis=-1, sparse=False),
        sample((2, 3, 4), Spec((2, 3, 4), 0.0, 1.0), axis=1, sparse=False),
        sample((0, 3), Spec((0,), 0, 3, int32), axis=-1, sparse=True),
        sample(_FAR, Spec((2,), 0, 4, int32), axis=-1, sparse=True),
    )

    def __call__(self, logits: Any, labels: Any, axis: int = -1, sparse: bool = True) -> Any:
        """Return the loss of each example.

        Parameters
        ----------
        logits : operand
        labels : operand
            Sparse: integers, the shape of ``logits`` without ``axis``. Dense: like ``logits``.
        axis : int
            The class axis.
        sparse : bool

        Returns
        -------
        operand
            The shape of ``logits`` without ``axis``.

        Raises
        ------
        ShapeError
            When the labels' shape does not fit.
        DTypeError
            When sparse labels are not integers.
        """
        return apply(self, (logits, labels), {"axis": int(axis), "sparse": bool(sparse)})

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Promote logits to floating point, and dense labels with them."""
        logits, labels = (t.dtype for t in types)
        if types[0].ndim != types[1].ndim:
            return floating_dtype(logits), labels
        return (floating_dtype(promote(logits, labels)),) * 2

    def infer(
        self, logits: TensorType, labels: TensorType, *, axis: int, sparse: bool
    ) -> TensorType:
        """Return one loss for each example; there must be a class."""
        place = normalize_axis(axis, logits.ndim)
        refuse_empty(self.name, logits, (place,))
        examples = (*logits.shape[:place], *logits.shape[place + 1 :])
        expected = examples if sparse else logits.shape
        if not same_shape(labels.shape, expected):
            raise ShapeError(
                f"{'sparse' if sparse else 'dense'} labels of shape {shape_text(labels.shape)} do "
                f"not fit logits of shape {shape_text(logits.shape)}",
                remedy=_label_remedy(labels, logits, expected, sparse),
            )
        if sparse and not labels.dtype.integer:
            raise DTypeError(
                f"sparse labels must be integers, got {labels.dtype.name}",
                remedy='Convert them by .astype("int32").',
            )
        return logits.with_shape(examples)

    def decompose(self, logits: Any, labels: Any, *, axis: int, sparse: bool) -> Any:
        """Subtract the label's logit from the logarithm of the sum of exponentials."""
        place = normalize_axis(axis, logits.ndim)
        below = _below_peak(logits, place)
        total = log(sum_(exp(below), axis=place, keepdims=True))
        if sparse:
            own = where(_is_class(logits, labels, place), below, 0.0)
            return squeeze(total - sum_(own, axis=place, keepdims=True), place)
        # A class of weight 0 does not count, were its probability 0 as well.
        parts = where(equal(labels, 0.0), 0.0, labels * (total - below))
        return sum_(parts, axis=place)

    def vjp(
        self, g: Any, y: Any, logits: Any, labels: Any, *, axis: int, sparse: bool
    ) -> tuple[Any, ...]:
        """Return ``(softmax - label) * g``."""
        place = normalize_axis(axis, logits.ndim)
        each = expand_dims(g, place)
        probabilities = softmax(logits, axis=place)
        if sparse:
            hit = cast(_is_class(logits, labels, place), as_dtype(logits.dtype))
            return (probabilities - hit) * each, None
        weight = sum_(labels, axis=place, keepdims=True)
        return (
            (probabilities * weight - labels) * each,
            -log_softmax(logits, axis=place) * each,
        )

    def reference(
        self, logits: np.ndarray, labels: np.ndarray, *, axis: int, sparse: bool
    ) -> Any:
        """Compute with NumPy."""
        found = -log_softmax.reference(logits, axis=axis)
        with np.errstate(all="ignore"):
            if not sparse:
                return np.where(labels == 0, 0, labels * found).sum(axis=axis).astype(logits.dtype)
            chosen = np.expand_dims(labels.astype(np.int64), axis)
            inside = (chosen >= 0) & (chosen < logits.shape[axis])
            safe = np.where(inside, chosen, 0)
            peak = logits.max(axis=axis, keepdims=True)
            missed = np.log(np.exp(logits - peak).sum(axis=axis, keepdims=True))
            taken = np.where(inside, np.take_along_axis(found, safe, axis), missed)
            return np.squeeze(taken, axis)


def _label_remedy(
    labels: TensorType, logits: TensorType, expected: Sequence[Dim], sparse: bool
) -> str:
    if sparse and labels.ndim == logits.ndim:
        return "Labels with a weight for each class are dense: pass sparse=False."
    if not sparse and labels.ndim == logits.ndim - 1:
        return "Labels that are class numbers are sparse: pass sparse=True."
    return f"The labels' shape must be {shape_text(expected)}."


softmax_cross_entropy = register(SoftmaxCrossEntropy())


def _binary_cross_entropy(k: Any, x: Expr, z: Expr) -> Any:
    return k.maximum(x, 0) - x * z + k.apply("log1p", k.exp(-k.apply("abs", x)))


sigmoid_binary_cross_entropy = Binary(
    "sigmoid_binary_cross_entropy",
    "Return the cross entropy of labels ``z`` in 0 .. 1 and ``sigmoid(x)``, stable for any ``x``.",
    lower=_binary_cross_entropy,
    reference=lambda x, z: np.maximum(x, 0) - x * z + np.log1p(np.exp(-np.abs(x))),
    vjp=lambda g, y, x, z: (g * (sigmoid(x) - z), -g * x),
    floating=True,
    samples=(
        sample((2, 3), Spec((2, 3), 0.0, 1.0)),
        sample(Spec((4,), -500.0, 500.0), Spec((4,), 0.0, 1.0)),
        sample((2, 1), Spec((3,), 0.0, 1.0)),
        sample((0, 3), (3,)),
    ),
    tolerance=_TOLERANCE,
)

"""Losses as functions."""

from __future__ import annotations

from typing import Any

from graphc.frontend.ops.operator import at_least_1d, operator
from graphc.frontend.ops.shape import BlockGrad
from graphc.ir.ops import arithmetic, basic, comparison, indexing, reduction
from graphc.ir.ops import softmax as core
from graphc.ir.ops.composite import shape_of
from graphc.ir.types import as_dtype, bool_


@operator("softmax_cross_entropy", inputs=("data", "label"))
def softmax_cross_entropy(data: Any, label: Any) -> Any:
    """Return the cross entropy of labels and the softmax of rows, summed over all rows.

    Parameters
    ----------
    data : array, shape (N, C)
    label : array, shape (N,)
        Class numbers, which may be floats.

    Returns
    -------
    array, shape (1,)

    Raises
    ------
    IndexRangeError
        For a label outside ``0 .. C - 1``.
    """
    label = basic.cast(label, "int32") if as_dtype(label.dtype) is bool_ else label
    label = indexing.check_index(label, shape_of(data)[-1], "label")
    classes = label if as_dtype(label.dtype).integer else basic.cast(label, "int32")
    return at_least_1d(reduction.sum(core.softmax_cross_entropy(data, classes)))


@operator("smooth_l1")
def smooth_l1(data: Any, scalar: float = 1.0) -> Any:
    """Return ``0.5 * (scalar * x)**2`` up to ``1 / scalar**2``, then ``|x| - 0.5 / scalar**2``."""
    square = scalar * scalar
    size = arithmetic.abs(data)
    near = comparison.less(size, 1.0 / square)
    return comparison.where(near, data * data * (0.5 * square), size - 0.5 / square)


@operator("MakeLoss", "make_loss")
def MakeLoss(
    data: Any, grad_scale: float = 1.0, valid_thresh: float = 0.0, normalization: str = "null"
) -> Any:
    """Return ``data`` as a loss; its gradient is multiplied by ``grad_scale``."""
    if grad_scale == 1.0:
        return basic.copy(data)
    scaled = data * grad_scale
    return scaled + BlockGrad(data - scaled)


make_loss = MakeLoss

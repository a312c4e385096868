"""Transposed convolution, as the data gradient of `conv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import ArgumentError
from graphc.ir.dim import Dim
from graphc.ir.op import NUMBERS, sample
from graphc.ir.ops.composite import composite, shape_of
from graphc.ir.ops.convolution import Numbers, conv_data_grad, settings
from graphc.ir.ops.windows import Array, per_axis


def _transpose_reference(x: Array, w: Array, **attrs: Any) -> Any:
    extra = attrs.pop("output_pad")
    settled = settings(x, **attrs)
    spatial = _transposed_sizes(x.shape, w.shape, settled, (extra,) * (x.ndim - 2))
    return conv_data_grad.reference(x, w, spatial=spatial, **settled)


def _transposed_sizes(
    x: Sequence[Dim], w: Sequence[Dim], attrs: dict[str, Any], extra: Sequence[int]
) -> tuple[Any, ...]:
    numbers = zip(x[2:], w[2:], attrs["stride"], attrs["pad"], attrs["dilate"], extra)
    return tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 + e for n, k, s, p, d, e in numbers)


@composite(
    _transpose_reference, operands=2, dtypes=NUMBERS,
    samples=(
        sample((2, 3, 4, 3), (3, 2, 3, 3), stride=2, pad=1, dilate=1, groups=1, output_pad=1),
        sample((1, 4, 3), (4, 1, 2), stride=2, pad=0, dilate=2, groups=2, output_pad=0),
    ),
)  # fmt: skip
def conv_transpose(
    x: Any, w: Any, stride: Numbers = 1, pad: Numbers = 0, dilate: Numbers = 1, groups: int = 1,
    output_pad: Numbers = 0,
) -> Any:  # fmt: skip
    """Return the transposed convolution, which undoes the change of size that `conv` makes.

    Parameters
    ----------
    x : operand, shape (N, O, *counts)
    w : operand, shape (O, C // groups, *window)
    stride, pad, dilate, groups
        Those of the convolution that is transposed.
    output_pad : int or sequence of int
        Added to the size on one side, less than the stride.

    Returns
    -------
    operand, shape (N, C, *spatial)
        ``spatial = (count - 1) * stride - 2 * pad + dilate * (window - 1) + 1 + output_pad``.
    """
    attrs = settings(w, stride, pad, dilate, groups)
    extra = per_axis("output_pad", output_pad, len(attrs["stride"]), 0)
    if any(e >= s for e, s in zip(extra, attrs["stride"])):
        raise ArgumentError(f"output_pad {output_pad} must be less than the stride {stride}")
    spatial = _transposed_sizes(shape_of(x), shape_of(w), attrs, extra)
    return conv_data_grad(x, w, spatial=spatial, **attrs)

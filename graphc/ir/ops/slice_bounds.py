"""Python's slice semantics over sizes that may be symbolic."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.ir.dim import Dim, SizeExpr, bounds, ceil_div, dim_max, dim_min
from graphc.ir.sizes import known_size


def slice_bounds(key: slice, size: Dim) -> tuple[Dim, Dim, int]:
    """Return ``(begin, length, step)`` of a slice of an axis.

    Parameters
    ----------
    key : slice
        Bounds are None, integers or Dims; negative ones count from the end, as in Python.
    size : Dim
        Size of the axis; while it is symbolic, bounds are clamped symbolically.

    Returns
    -------
    tuple
        Every ``begin + i * step`` with ``0 <= i < length`` lies in the axis, for every size.

    Raises
    ------
    ArgumentError
        When the step is 0, or a bound is no integer.
    """
    step = 1 if key.step is None else _whole(key.step)
    start, stop = _whole(key.start), _whole(key.stop)
    if isinstance(step, SizeExpr) or step == 0:
        raise ArgumentError(f"a slice's step must be an integer other than 0, got {step}")
    if isinstance(size, int) and not any(isinstance(d, SizeExpr) for d in (start, stop)):
        lanes = range(*slice(start, stop, step).indices(size))
        # One element has no step: x[::-1] of it is x.
        return (lanes.start if lanes else 0), len(lanes), step if len(lanes) > 1 else 1
    if step > 0:
        begin, length = _forward(start, stop, size)
    else:
        begin, length = _backward(start, stop, size)
    return begin, length if abs(step) == 1 else ceil_div(length, abs(step)), step


def _forward(start: Any, stop: Any, size: Dim) -> tuple[Dim, Dim]:
    if stop is None and isinstance(start, int) and start < 0:
        return dim_max(size + start, 0), dim_min(size, -start)
    begin = 0 if start is None else _from_start(start, size)
    if stop is None:
        end = size
    else:
        end = _from_start(stop, size)
        end = end if _negative(stop) else dim_min(end, size)
    return begin, dim_max(end - begin, 0)


def _backward(start: Any, stop: Any, size: Dim) -> tuple[Dim, Dim]:
    last = size - 1
    begin = last if start is None else dim_min(_counted(start, size), last)
    end = -1 if stop is None else dim_max(dim_min(_counted(stop, size), last), -1)
    return begin, dim_max(begin - end, 0)


def _from_start(bound: Any, size: Dim) -> Dim:
    return dim_max(_counted(bound, size), 0)


def _counted(bound: Dim, size: Dim) -> Dim:
    """Return a bound counted from the start."""
    return size + bound if _negative(bound) else bound


def _negative(bound: Dim) -> bool:
    if isinstance(bound, int):
        return bound < 0
    low = bounds(bound, {})[0]
    known = known_size(bound)
    return (low is None or low < 0) and known is not None and known < 0


def _whole(bound: Any) -> Any:
    if bound is None or isinstance(bound, SizeExpr):
        return bound
    if hasattr(bound, "__index__") and not isinstance(bound, (bool, np.ndarray)):
        return operator.index(bound)
    raise ArgumentError(f"a slice's bounds must be integers, got {bound!r}")

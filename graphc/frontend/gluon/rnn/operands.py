"""What layers and cells are called with: states to begin with, inputs of the right size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from graphc.errors import ArgumentError, ShapeError, user_location
from graphc.frontend import creation
from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.input_shapes import shown
from graphc.frontend.ops.operator import dims
from graphc.ir.sizes import known_size, unify

StateInfo = dict[str, Any]
"""``shape`` and ``__layout__`` of an array of states, and its ``dtype``."""


def make_states(
    name: str, infos: Sequence[StateInfo], func: Callable[..., Any] | None,
    options: Mapping[str, Any],
) -> list[Any]:  # fmt: skip
    """Return an array for each description, by default of zeros.

    Raises
    ------
    ArgumentError
        When the size of the batch was not given.
    """
    if func is None and any(isinstance(d, int) and d <= 0 for info in infos for d in info["shape"]):
        raise ArgumentError(
            f"{name}.begin_state needs the size of the batch",
            remedy="Call begin_state(batch_size=...).",
            where=user_location(),
        )
    make = creation.zeros if func is None else func
    return [make(shape=info["shape"], **{"dtype": info["dtype"], **options}) for info in infos]


def is_symbol(x: Any) -> bool:
    """Return whether something stands for an array of a graph that is being composed."""
    return hasattr(type(x), "__graphc_compose__")


def zeros_beside(inputs: Any, batch_axis: int) -> Callable[..., Any]:
    """Return what makes zeros with the batch size of a Symbol, whose shape nobody knows."""

    def make(shape: tuple[int, ...], dtype: Any = None) -> Any:
        one = inputs
        for axis in range(len(shape)):
            if axis != batch_axis:
                one = F.slice_axis(one, axis=axis, begin=0, end=1)
        others = [axis for axis in range(len(shape)) if axis != batch_axis]
        sizes = tuple(shape[axis] for axis in others)
        return F.broadcast_axis(F.zeros_like(one), axis=tuple(others), size=sizes)

    return make


def check_inputs(name: str, inputs: Any, layout: str, weight: Any) -> None:
    """Raise ShapeError unless inputs have a layout's axes and the last fits the input weights."""
    if not hasattr(inputs, "type"):
        raise ArgumentError(
            f"{name} got no array",
            remedy="Make one of lists and numbers with nd.array(...).",
            where=user_location(),
        )
    shape = dims(inputs)
    if len(shape) != len(layout):
        raise ShapeError(
            f"{name} takes inputs ({', '.join(layout)}), got shape {shown(shape)}",
            remedy="T is time, N the batch, C the size of an input.",
            where=user_location(),
        )
    known = weight is not None and weight.shape_known
    if known and unify(shape[-1], weight.shape[1]) is None:
        raise ShapeError(
            f"{name} takes inputs of size {weight.shape[1]}, got {known_size(shape[-1])} from data "
            f"of shape {shown(shape)}",
            remedy=f"The data's axes are {layout}; the last has the inputs of a step.",
            where=user_location(),
        )


def probability(name: str, value: Any) -> float:
    """Return a probability given by the user, or raise ArgumentError."""
    if not isinstance(value, Real) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ArgumentError(
            f"{name} is a probability, got {value!r}",
            remedy="Pass a number between 0 and 1.",
            where=user_location(),
        )
    return float(value)

"""The states that layers and cells begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from graphc.errors import ArgumentError, user_location
from graphc.frontend import creation

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
    if any(isinstance(d, int) and d <= 0 for info in infos for d in info["shape"]):
        raise ArgumentError(
            f"{name}.begin_state needs the size of the batch",
            remedy="Call begin_state(batch_size=...).",
            where=user_location(),
        )
    make = creation.zeros if func is None else func
    return [make(shape=info["shape"], **{"dtype": info["dtype"], **options}) for info in infos]


def probability(name: str, value: Any) -> float:
    """Return a probability given by the user, or raise ArgumentError."""
    if not isinstance(value, Real) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ArgumentError(
            f"{name} is a probability, got {value!r}",
            remedy="Pass a number between 0 and 1.",
            where=user_location(),
        )
    return float(value)

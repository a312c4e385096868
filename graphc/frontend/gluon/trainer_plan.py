"""What the program of an update depends on, and the numbers that it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.frontend.array import Array, Unplaced


class Scalars:
    """0-d arrays of numbers; only where a number is another than last time a new one is made."""

    def __init__(self) -> None:
        self._last: list[tuple[float | None, Any]] = []

    def of(self, numbers: Sequence[float]) -> list[Array]:
        """Return an array for each number. None is ever written, so threads may share them."""
        last = self._last
        if len(last) != len(numbers):
            last = [(None, None)] * len(numbers)
        self._last = last = [
            known
            if known[0] == number
            else (number, Array(np.array(number, np.float64), Unplaced()))
            for number, known in zip(numbers, last)
        ]
        return [array for _, array in last]


Entry = tuple[int, float, float, int]


@dataclass(frozen=True, eq=False)
class Plan:
    """What the program of an update depends on; a Trainer makes one object for equal ones.

    Attributes
    ----------
    entries : tuple
        For each Parameter its number, its factors of learning rate and weight decay (0 where there
        is no decay), and which of the step numbers is its own.
    rate_count : int
        How many numbers the program is told: three, and the step numbers.
    """

    entries: tuple[Entry, ...]
    rate_count: int

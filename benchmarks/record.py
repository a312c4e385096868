"""What a row of the suite is, and what measuring it gives: plain records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Goal:
    """What a row is to reach: a ratio to the best peer, or a time."""

    ratio: float | None = None
    at_most_us: float | None = None

    def met(self, ratio: float | None, seconds: float) -> bool | None:
        """Return whether it was reached; None where nothing was there to compare with."""
        if self.at_most_us is not None:
            return seconds * 1e6 <= self.at_most_us
        return None if ratio is None or self.ratio is None else ratio >= self.ratio

    def __str__(self) -> str:
        return f"{self.at_most_us:g} us" if self.ratio is None else f"{self.ratio:g}x"


@dataclass(frozen=True)
class Work:
    """The least that any implementation does: floating-point operations, bytes read and written."""

    flops: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True)
class Workload:
    """What several rows share: the data, and the work as a function of the sizes.

    Parameters
    ----------
    name : str
        Of the function in each framework's file that prepares it; a file without one has no side.
    data : callable
        ``data(generator, **sizes)`` gives the arrays that every side gets.
    work : callable
        ``work(**sizes)``.
    kind : str
        ``"function"`` of arrays, ``"inference"``, ``"gradient"`` or ``"training"`` of a network, or
        ``"update"``.
    tolerance : float
        Allowed difference of two sides, relative to the largest element of the output.
    """

    name: str
    data: Callable[..., Arrays]
    work: Callable[..., Work]
    kind: str = "function"
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    name : str
    workload : Workload
    goal : Goal
    sizes, tiny : mapping
        Arguments of the workload: as measured, and as the tests run it.
    options : mapping
        Further arguments of the sides, the optimizer for instance.
    """

    name: str
    workload: Workload
    goal: Goal
    sizes: Mapping[str, int] = field(default_factory=dict)
    tiny: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def data(self, sizes: Mapping[str, int]) -> Arrays:
        """Return the arrays that every side gets, the same at each call."""
        return self.workload.data(np.random.default_rng(0), **sizes)


@dataclass(frozen=True)
class Side:
    """A row prepared in one framework.

    Parameters
    ----------
    run : callable
        Does the work once, on a GPU perhaps later; returns the framework's own values.
    outputs : callable
        Turns what ``run`` returned into NumPy arrays.
    wait : callable
        Waits until all work is done.
    """

    run: Callable[[], Any]
    outputs: Callable[[Any], Arrays]
    wait: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Measured:
    """A row's figures: seconds of each side, and against what they are held.

    Parameters
    ----------
    seconds : mapping of str to sequence of float
        All samples by side.
    limit_s : float
        The least time that the machine can take.
    problem : str
        Why there are no figures, ``""`` where there are.
    """

    row: Row
    seconds: Mapping[str, Sequence[float]]
    limit_s: float
    problem: str = ""

    def median_s(self, side: str) -> float | None:
        """Return the median time of a call, None for a side that did not run."""
        times = self.seconds.get(side)
        return float(np.median(times)) if times else None

    @property
    def best_peer(self) -> str | None:
        """The fastest side beside graphc."""
        peers = [s for s, times in self.seconds.items() if s != "graphc" and times]
        return min(peers, key=lambda s: self.median_s(s) or 0.0, default=None)

    @property
    def ratio(self) -> float | None:
        """Time of the best peer over graphc's: above 1, graphc is faster."""
        ours = self.median_s("graphc")
        theirs = self.median_s(self.best_peer) if self.best_peer else None
        return theirs / ours if ours and theirs else None

    @property
    def work(self) -> Work:
        """The work of a call."""
        return self.row.workload.work(**self.row.sizes)

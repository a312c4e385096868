"""Learning rate schedules: functions of the number of updates made so far.

A schedule keeps no state, so calling it twice, or resuming from a saved number of updates,
gives the same rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from graphc.errors import ArgumentError, nearest, user_location
from graphc.frontend.numeric import number

_WARMUP_MODES = ("linear", "constant")


class LRScheduler:
    """Base of the schedules: warm-up, then :meth:`rate`.

    Parameters
    ----------
    base_lr : float
        Learning rate at the end of the warm-up. An optimizer may set the attribute.
    warmup_steps : int
        Number of updates of the warm-up.
    warmup_begin_lr : float
        Learning rate at the first update of the warm-up, at most ``base_lr``.
    warmup_mode : {"linear", "constant"}
        Whether the rate climbs to ``base_lr`` or stays at ``warmup_begin_lr`` while warming up.

    Raises
    ------
    ArgumentError
        A warm-up that is negative, starts above ``base_lr`` or has an unknown mode.
    """

    def __init__(
        self,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ) -> None:
        owner = type(self).__name__
        base_lr = number(owner, "base_lr", base_lr)
        warmup_begin_lr = number(owner, "warmup_begin_lr", warmup_begin_lr)
        if warmup_begin_lr > base_lr:
            raise _invalid(f"warmup_begin_lr {warmup_begin_lr} is above base_lr {base_lr}")
        if not _is_whole(warmup_steps) or warmup_steps < 0:
            raise _invalid(f"warmup_steps must be an integer of 0 or more, not {warmup_steps!r}")
        if warmup_mode not in _WARMUP_MODES:
            hint = nearest(str(warmup_mode), _WARMUP_MODES)
            raise _invalid(
                f"warmup_mode must be one of {_WARMUP_MODES}, not {warmup_mode!r}.{hint}"
            )
        self.base_lr = base_lr
        self.warmup_steps = int(warmup_steps)
        self.warmup_begin_lr = warmup_begin_lr
        self.warmup_mode = warmup_mode

    def get_warmup_lr(self, num_update: int) -> float:
        """Return the learning rate of update ``num_update`` of the warm-up."""
        if self.warmup_mode == "constant":
            return self.warmup_begin_lr
        climbed = (self.base_lr - self.warmup_begin_lr) * num_update / self.warmup_steps
        return self.warmup_begin_lr + climbed

    def rate(self, num_update: int) -> float:
        """Return the learning rate after the warm-up; subclasses define it.

        Parameters
        ----------
        num_update : int
            Number of updates, those of the warm-up included.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither rate nor __call__")

    def __call__(self, num_update: int) -> float:
        """Return the learning rate of update ``num_update``.

        Parameters
        ----------
        num_update : int
            The largest number of updates that any parameter has had.

        Returns
        -------
        float
        """
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        return self.rate(num_update)


class FactorScheduler(LRScheduler):
    """Multiply by ``factor`` every ``step`` updates: ``base_lr * factor^((n - 1) // step)``.

    Parameters
    ----------
    step : int
        Number of updates between two changes, at least 1.
    factor : float
        At most 1.
    stop_factor_lr : float
        The rate never falls below this.
    base_lr, warmup_steps, warmup_begin_lr, warmup_mode
        As in :class:`LRScheduler`.
    """

    def __init__(
        self,
        step: int,
        factor: float = 1,
        stop_factor_lr: float = 1e-8,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        self.step = number(type(self).__name__, "step", step)
        if self.step < 1:
            raise _invalid(f"step must be 1 update or more, not {step!r}")
        self.factor = _falling(self, factor)
        self.stop_factor_lr = number(type(self).__name__, "stop_factor_lr", stop_factor_lr)

    def rate(self, num_update: int) -> float:
        """Return the learning rate after the warm-up."""
        changes = max(0, math.ceil(num_update / self.step) - 1)
        if changes == 0:
            return self.base_lr
        return max(self.base_lr * self.factor**changes, self.stop_factor_lr)


class MultiFactorScheduler(LRScheduler):
    """Multiply the rate by ``factor`` after each of the given numbers of updates.

    Parameters
    ----------
    step : sequence of int
        Increasing numbers of updates, each at least 1.
    factor : float
        At most 1.
    base_lr, warmup_steps, warmup_begin_lr, warmup_mode
        As in :class:`LRScheduler`.
    """

    def __init__(
        self,
        step: Sequence[int],
        factor: float = 1,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if not isinstance(step, Sequence) or not step:
            raise _invalid(f"step must be a list of numbers of updates, not {step!r}")
        self.step = [number(type(self).__name__, "step", part) for part in step]
        if self.step[0] < 1 or any(a >= b for a, b in pairwise(self.step)):
            raise _invalid(f"step must increase from 1 or more, not {list(step)!r}")
        self.factor = _falling(self, factor)

    def rate(self, num_update: int) -> float:
        """Return the learning rate after the warm-up."""
        changes = sum(num_update > step for step in self.step)
        return self.base_lr * self.factor**changes


class _DecayToFinal(LRScheduler):
    """A schedule that goes from ``base_lr`` to ``final_lr`` until update ``max_update``."""

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        final_lr: float = 0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if not _is_whole(max_update) or max_update < 1:
            raise _invalid(f"max_update must be an integer of 1 or more, not {max_update!r}")
        if max_update <= self.warmup_steps:
            raise _invalid(
                f"max_update {max_update} leaves nothing after {self.warmup_steps} of warm-up"
            )
        self.max_update = int(max_update)
        self.final_lr = number(type(self).__name__, "final_lr", final_lr)

    def rate(self, num_update: int) -> float:
        """Return the learning rate after the warm-up."""
        done = (num_update - self.warmup_steps) / (self.max_update - self.warmup_steps)
        return self.final_lr + (self.base_lr - self.final_lr) * self.remaining(min(done, 1.0))

    def remaining(self, done: float) -> float:
        """Return how much of the way to ``final_lr`` is left when ``done`` of the updates are."""
        raise NotImplementedError


class PolyScheduler(_DecayToFinal):
    """Fall to ``final_lr`` as a power: ``final + (base - final) * (1 - n / max_update)^pwr``.

    Parameters
    ----------
    max_update : int
        Update at which ``final_lr`` is reached, the warm-up included.
    base_lr : float
        Learning rate after the warm-up.
    pwr : int
        The power.
    final_lr : float
        The last learning rate.
    warmup_steps, warmup_begin_lr, warmup_mode
        As in :class:`LRScheduler`.
    """

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        pwr: float = 2,
        final_lr: float = 0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ) -> None:
        super().__init__(
            max_update, base_lr, final_lr, warmup_steps, warmup_begin_lr, warmup_mode
        )
        self.power = number(type(self).__name__, "pwr", pwr)

    def remaining(self, done: float) -> float:
        """Return ``(1 - done)^pwr``."""
        return (1 - done) ** self.power


class CosineScheduler(_DecayToFinal):
    """Fall to ``final_lr`` along half a cosine: ``final + (base - final) * (1 + cos(pi t)) / 2``.

    Loshchilov and Hutter, *SGDR*, arXiv:1608.03983, without restarts.

    Parameters
    ----------
    max_update : int
        Update at which ``final_lr`` is reached, the warm-up included.
    base_lr : float
        Learning rate after the warm-up.
    final_lr : float
        The last learning rate.
    warmup_steps, warmup_begin_lr, warmup_mode
        As in :class:`LRScheduler`.
    """

    def remaining(self, done: float) -> float:
        """Return ``(1 + cos(pi * done)) / 2``."""
        return (1 + math.cos(math.pi * done)) / 2


def _is_whole(value: object) -> bool:
    return isinstance(value, int) or (hasattr(value, "__index__") and not isinstance(value, bool))


def _falling(schedule: LRScheduler, factor: float) -> float:
    """Return the factor of a schedule, which makes its rate fall."""
    factor = number(type(schedule).__name__, "factor", factor)
    if factor > 1:
        raise _invalid(f"factor must be at most 1 for the rate to fall, not {factor!r}")
    return factor


def _invalid(message: str) -> ArgumentError:
    return ArgumentError(message, where=user_location())

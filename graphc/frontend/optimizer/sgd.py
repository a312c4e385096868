"""Stochastic gradient descent, plain, with momentum and with Nesterov's."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend.optimizer.base import Optimizer, State, register


@register
class SGD(Optimizer):
    """Stochastic gradient descent.

    ``m = momentum * m - lr * (clip(g) + wd * w)``, ``w = w + m``.

    Parameters
    ----------
    momentum : float
    lazy_update : bool
        Of an ``Embedding(..., sparse_grad=True)``, leave rows whose gradient is zero as they are:
        neither their momentum nor their decay goes on.
    **kwargs
        As of :class:`Optimizer`.
    """

    def __init__(self, momentum: float = 0.0, lazy_update: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = self._number("momentum", momentum)
        self.lazy_update = bool(lazy_update)

    def init_state(self, weight: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the momentum, zeros."""
        return (np.zeros_like(weight),) if self.momentum else ()

    def update(
        self, weight: Any, grad: Any, state: State, lr: Any, wd: Any, t: Any
    ) -> tuple[Any, State]:
        """Step against the gradient."""
        step = lr * (self.clipped(grad) + wd * weight)
        if not state:
            return weight - step, ()
        moved = self.momentum * state[0] - step
        return weight + self.change(moved, step), (moved,)

    def change(self, moved: Any, step: Any) -> Any:
        """Return what is added to the weight, of the new momentum and the step by itself."""
        return moved


@register
class NAG(SGD):
    """Gradient descent with Nesterov's accelerated momentum.

    ``m = momentum * m - lr * (clip(g) + wd * w)``, ``w = w + momentum * m - lr * (...)``.

    Parameters
    ----------
    momentum : float
    lazy_update : bool
        As of :class:`SGD`.
    **kwargs
        As of :class:`Optimizer`.
    """

    def change(self, moved: Any, step: Any) -> Any:
        """Return the change as if the momentum had been taken once more."""
        return self.momentum * moved - step

"""Optimizers that divide by a root mean square: RMSProp and AdaGrad."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend.optimizer.base import Optimizer, State, limited, register
from graphc.ir.ops.arithmetic import sqrt


@register
class RMSProp(Optimizer):
    """RMSProp: the gradient, ``clip(g + wd * w)``, divided by its root mean square.

    Parameters
    ----------
    learning_rate : float
    gamma1 : float
        Decay of the mean of squares.
    gamma2 : float
        Momentum, of the centered variant.
    epsilon : float
    centered : bool
        Divide by the standard deviation instead (Graves), with momentum.
    clip_weights : float, optional
        New weights are limited to ``-clip_weights .. clip_weights``.
    **kwargs
        As of :class:`Optimizer`.
    """

    default_learning_rate = 0.001

    def __init__(
        self,
        learning_rate: float | None = None,
        gamma1: float = 0.9,
        gamma2: float = 0.9,
        epsilon: float = 1e-8,
        centered: bool = False,
        clip_weights: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.gamma1 = self._number("gamma1", gamma1)
        self.gamma2 = self._number("gamma2", gamma2)
        self.epsilon = self._number("epsilon", epsilon)
        self.centered = bool(centered)
        self.clip_weights = self._optional("clip_weights", clip_weights)

    def init_state(self, weight: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the mean of squares; centered, also the mean and the momentum."""
        return tuple(np.zeros_like(weight) for _ in range(3 if self.centered else 1))

    def update(
        self, weight: Any, grad: Any, state: State, lr: Any, wd: Any, t: Any
    ) -> tuple[Any, State]:
        """Step by the scaled gradient."""
        grad = self.clipped(grad + wd * weight)
        square = (1 - self.gamma1) * (grad * grad) + self.gamma1 * state[0]
        if not self.centered:
            new = weight - lr * grad / sqrt(square + self.epsilon)
            return limited(new, self.clip_weights), (square,)
        mean = (1 - self.gamma1) * grad + self.gamma1 * state[1]
        scale = sqrt(square - mean * mean + self.epsilon)
        moved = self.gamma2 * state[2] - lr * grad / scale
        return limited(weight + moved, self.clip_weights), (square, mean, moved)


@register
class AdaGrad(Optimizer):
    """AdaGrad: the gradient divided by the root of the sum of all its squares.

    Parameters
    ----------
    eps : float
    **kwargs
        As of :class:`Optimizer`.
    """

    def __init__(self, eps: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.eps = self._number("eps", eps)

    def init_state(self, weight: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the sum of squares, zeros."""
        return (np.zeros_like(weight),)

    def update(
        self, weight: Any, grad: Any, state: State, lr: Any, wd: Any, t: Any
    ) -> tuple[Any, State]:
        """Step by the scaled gradient; the decay is not scaled."""
        grad = self.clipped(grad)
        history = state[0] + grad * grad
        return weight - lr * (grad / sqrt(history + self.eps) + wd * weight), (history,)

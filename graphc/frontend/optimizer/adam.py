"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend.optimizer.base import Optimizer, State, register
from graphc.ir.ops.arithmetic import sqrt
from graphc.ir.ops.basic import cast


@register
class Adam(Optimizer):
    """Adam: steps scaled by running means of the gradient and of its square.

    ``g = clip(g + wd * w)``; the bias of the means is corrected in the learning rate,
    ``lr * sqrt(1 - beta2**t) / (1 - beta1**t)``.

    Parameters
    ----------
    learning_rate : float
    beta1, beta2 : float
        Decay of the means.
    epsilon : float
        Added to the root of the mean square as it is, before its bias is corrected: MXNet's way,
        and that of the paper's efficient form. PyTorch adds it to the corrected one.
    **kwargs
        As of :class:`Optimizer`.
    """

    default_learning_rate = 0.001

    def __init__(
        self,
        learning_rate: float | None = None,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        lazy_update: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1 = self._number("beta1", beta1)
        self.beta2 = self._number("beta2", beta2)
        self.epsilon = self._number("epsilon", epsilon)
        self.lazy_update = bool(lazy_update)

    def init_state(self, weight: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the two running means, zeros."""
        return np.zeros_like(weight), np.zeros_like(weight)

    def update(
        self, weight: Any, grad: Any, state: State, lr: Any, wd: Any, t: Any
    ) -> tuple[Any, State]:
        """Step by the running means."""
        return self._stepped(weight, self.clipped(grad + wd * weight), state, lr, t)

    def _stepped(
        self, weight: Any, grad: Any, state: State, lr: Any, t: Any
    ) -> tuple[Any, State]:
        mean = self.beta1 * state[0] + (1 - self.beta1) * grad
        square = self.beta2 * state[1] + (1 - self.beta2) * (grad * grad)
        # In float64, t's type: in float32 1 - 0.999**t would lose most of its digits.
        correction = sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
        rate = lr * cast(correction, weight.dtype)
        return weight - rate * mean / (sqrt(square) + self.epsilon), (mean, square)


@register
class AdamW(Adam):
    """Adam with the weight decay apart from the gradient: ``w`` also loses ``lr * wd * w``.

    Parameters
    ----------
    learning_rate : float
    beta1, beta2 : float
    epsilon : float
    lazy_update : bool
    **kwargs
        As of :class:`Optimizer`.
    """

    def update(
        self, weight: Any, grad: Any, state: State, lr: Any, wd: Any, t: Any
    ) -> tuple[Any, State]:
        """Step by the running means, then decay."""
        new, means = self._stepped(weight, self.clipped(grad), state, lr, t)
        return new - lr * wd * weight, means

"""Activations as layers."""

from __future__ import annotations

from typing import Any

from graphc.errors import UnknownNameError, nearest, user_location
from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.hybrid_block import HybridBlock
from graphc.frontend.initializer import Constant
from graphc.frontend.numeric import number

ACTIVATIONS = (
    "relu", "sigmoid", "tanh", "softrelu", "softsign", "log_sigmoid", "gelu", "silu", "swish",
)  # fmt: skip


class Activation(HybridBlock):
    """An activation by its name.

    Parameters
    ----------
    activation : {"relu", "sigmoid", "tanh", "softrelu", "softsign", "log_sigmoid", "gelu", "silu"}

    Raises
    ------
    UnknownNameError
        There is no such activation; gives the nearest one.
    """

    def __init__(self, activation: str, **kwargs: Any) -> None:
        if activation not in ACTIVATIONS:
            raise UnknownNameError(
                f"there is no activation {activation!r}.{nearest(str(activation), ACTIVATIONS)}",
                remedy=f"Known are {', '.join(ACTIVATIONS)}.",
                where=user_location(),
            )
        super().__init__(**kwargs)
        self._act_type = activation

    def __repr__(self) -> str:
        return f"Activation({self._act_type})"

    def forward(self, x: Any) -> Any:
        """Apply the activation."""
        return F.Activation(x, act_type=self._act_type)


class LeakyReLU(HybridBlock):
    """``x`` where it is positive, else ``alpha * x``.

    Parameters
    ----------
    alpha : float
    """

    def __init__(self, alpha: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._alpha = number("LeakyReLU", "alpha", alpha)

    def __repr__(self) -> str:
        return f"LeakyReLU({self._alpha})"

    def forward(self, x: Any) -> Any:
        """Apply element by element."""
        return F.LeakyReLU(x, act_type="leaky", slope=self._alpha)


class PReLU(HybridBlock):
    """A leaky relu whose slope is learnt.

    Parameters
    ----------
    alpha_initializer : Initializer or str
    in_channels : int
        Number of slopes, one for each channel (axis 1), or 1 for all.
    """

    def __init__(
        self, alpha_initializer: Any = "constant", in_channels: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if alpha_initializer == "constant":
            alpha_initializer = Constant(0.25)
        self.alpha = self.params.get("alpha", shape=(in_channels,), init=alpha_initializer)

    def forward(self, x: Any) -> Any:
        """Apply element by element."""
        return F.LeakyReLU(x, self.alpha.data(), act_type="prelu")


class ELU(HybridBlock):
    """``x`` where it is positive, else ``alpha * (exp(x) - 1)``.

    Parameters
    ----------
    alpha : float
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._alpha = number("ELU", "alpha", alpha)

    def forward(self, x: Any) -> Any:
        """Apply element by element."""
        return F.LeakyReLU(x, act_type="elu", slope=self._alpha)


class SELU(HybridBlock):
    """The scaled exponential linear unit, which keeps mean 0 and variance 1."""

    def forward(self, x: Any) -> Any:
        """Apply element by element."""
        return F.LeakyReLU(x, act_type="selu")


class GELU(HybridBlock):
    """``x * Phi(x)`` with the normal distribution function."""

    def forward(self, x: Any) -> Any:
        """Apply element by element."""
        return F.LeakyReLU(x, act_type="gelu")


class Swish(HybridBlock):
    """``x * sigmoid(beta * x)``.

    Parameters
    ----------
    beta : float
    """

    def __init__(self, beta: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._beta = number("Swish", "beta", beta)

    def forward(self, x: Any) -> Any:
        """Apply element by element."""
        if self._beta == 1.0:
            return F.Activation(x, act_type="silu")
        return x * F.sigmoid(x * self._beta)


class SiLU(Swish):
    """``x * sigmoid(x)``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

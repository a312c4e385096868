"""Batch, layer, instance and group normalization."""

from __future__ import annotations

from typing import Any

from graphc.errors import ShapeError, user_location
from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.hybrid_block import HybridBlock
from graphc.frontend.gluon.input_shapes import expect_axes, shown, sizes
from graphc.frontend.numeric import number
from graphc.frontend.ops.operator import dims
from graphc.ir.sizes import known_size, unify
from graphc.ir.types import normalize_axis


class _Normalization(HybridBlock):
    """What the layers share: gamma and beta, along one axis."""

    def __init__(
        self, axis: int = -1, epsilon: float = 1e-5, center: bool = True, scale: bool = True,
        beta_initializer: Any = "zeros", gamma_initializer: Any = "ones", in_channels: int = 0,
        dtype: Any = "float32", **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._axis, self._epsilon = axis, number(type(self).__name__, "epsilon", epsilon)
        self._scale = scale
        with self.name_scope():
            self.gamma = self._vector("gamma", in_channels, gamma_initializer, scale, dtype)
            self.beta = self._vector("beta", in_channels, beta_initializer, center, dtype)

    def _vector(self, name: str, size: int, init: Any, learnt: bool, dtype: Any) -> Any:
        return self.params.get(
            name, shape=(size,), init=init, allow_deferred_init=True, differentiable=learnt,
            dtype=dtype, grad_req="write" if learnt else "null",
        )  # fmt: skip

    def __repr__(self) -> str:
        size = self.gamma.shape[0] or None
        return f"{type(self).__name__}(axis={self._axis}, eps={self._epsilon}, in_channels={size})"

    def infer_shape(self, x: Any, *args: Any) -> None:
        """Take the number of channels from the data."""
        shape = sizes(x)
        expect_axes(type(self).__name__, x, self._least_axes(), f"an axis {self._axis}")
        size = shape[self._axis]
        for parameter in self._reg_params.values():
            parameter.shape = (size,)

    def _least_axes(self) -> int:
        return self._axis + 1 if self._axis >= 0 else -self._axis

    def _check(self, x: Any) -> None:
        if not hasattr(x, "type"):
            return
        shape = dims(x)
        expect_axes(type(self).__name__, x, self._least_axes(), f"an axis {self._axis}")
        size = shape[normalize_axis(self._axis, len(shape))]
        if unify(size, self.gamma.shape[0]) is None:
            raise ShapeError(
                f"{self.name} has {self.gamma.shape[0]} channels, got {known_size(size)} on axis "
                f"{self._axis} of data of shape {shown(shape)}",
                remedy="Make the layer with another axis= or in_channels=.",
                where=user_location(),
            )


class BatchNorm(_Normalization):
    """Normalizes each channel over the batch, in prediction by running statistics.

    Parameters
    ----------
    axis : int
        The channel axis.
    momentum : float
        Of the running statistics, ``running * momentum + batch * (1 - momentum)``.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether beta is added and gamma multiplied.
    use_global_stats : bool
        Use the running statistics in training too.
    beta_initializer, gamma_initializer, running_mean_initializer, running_variance_initializer
        Initializer or str.
    in_channels : int
        0 is what the first data has.
    """

    def __init__(
        self, axis: int = 1, momentum: float = 0.9, epsilon: float = 1e-5, center: bool = True,
        scale: bool = True, use_global_stats: bool = False, beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones", running_mean_initializer: Any = "zeros",
        running_variance_initializer: Any = "ones", in_channels: int = 0, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            axis, epsilon, center, scale, beta_initializer, gamma_initializer, in_channels,
            **kwargs,
        )  # fmt: skip
        self._momentum = number("BatchNorm", "momentum", momentum)
        self._use_global_stats = bool(use_global_stats)
        with self.name_scope():
            self.running_mean = self._vector(
                "running_mean", in_channels, running_mean_initializer, False, "float32"
            )
            self.running_var = self._vector(
                "running_var", in_channels, running_variance_initializer, False, "float32"
            )

    def forward(self, x: Any) -> Any:
        """Normalize; in training, move the running statistics."""
        self._check(x)
        return F.BatchNorm(
            x, self.gamma.data(), self.beta.data(), self.running_mean.data(),
            self.running_var.data(), eps=self._epsilon, momentum=self._momentum,
            fix_gamma=not self._scale, use_global_stats=self._use_global_stats, axis=self._axis,
        )  # fmt: skip


class LayerNorm(_Normalization):
    """Normalizes each example along an axis.

    Parameters
    ----------
    axis : int
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether beta is learnt and gamma is learnt.
    beta_initializer, gamma_initializer : Initializer or str
    in_channels : int
        0 is what the first data has.
    """

    def forward(self, x: Any) -> Any:
        """Normalize along the axis."""
        self._check(x)
        return F.LayerNorm(
            x, self.gamma.data(), self.beta.data(), axis=self._axis, eps=self._epsilon
        )


class InstanceNorm(_Normalization):
    """Normalizes each channel (axis 1) of each example.

    Parameters
    ----------
    epsilon : float
    center, scale : bool
    beta_initializer, gamma_initializer : Initializer or str
    in_channels : int
    """

    def __init__(
        self, axis: int = 1, epsilon: float = 1e-5, center: bool = True, scale: bool = False,
        beta_initializer: Any = "zeros", gamma_initializer: Any = "ones", in_channels: int = 0,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            axis, epsilon, center, scale, beta_initializer, gamma_initializer, in_channels,
            **kwargs,
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        """Normalize over the spatial axes."""
        self._check(x)
        if self._axis == 1:
            return F.InstanceNorm(x, self.gamma.data(), self.beta.data(), eps=self._epsilon)
        moved = F.swapaxes(x, 1, self._axis)
        found = F.InstanceNorm(moved, self.gamma.data(), self.beta.data(), eps=self._epsilon)
        return F.swapaxes(found, 1, self._axis)


class GroupNorm(_Normalization):
    """Normalizes groups of channels (axis 1) of each example.

    Parameters
    ----------
    num_groups : int
    epsilon : float
    center, scale : bool
    beta_initializer, gamma_initializer : Initializer or str
    in_channels : int
    """

    def __init__(
        self, num_groups: int = 1, epsilon: float = 1e-5, center: bool = True, scale: bool = True,
        beta_initializer: Any = "zeros", gamma_initializer: Any = "ones", in_channels: int = 0,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            1, epsilon, center, scale, beta_initializer, gamma_initializer, in_channels, **kwargs
        )
        self._num_groups = int(num_groups)

    def forward(self, x: Any) -> Any:
        """Normalize the groups."""
        self._check(x)
        return F.GroupNorm(
            x, self.gamma.data(), self.beta.data(), num_groups=self._num_groups, eps=self._epsilon
        )

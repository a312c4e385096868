"""Pools as layers."""

from __future__ import annotations

from typing import Any

from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.hybrid_block import HybridBlock
from graphc.frontend.gluon.nn.conv import LAYOUTS, Numbers, check_data, check_layout, per_axis


class _Pool(HybridBlock):
    """What the pools share."""

    axes, kind = 2, "max"

    def __init__(
        self, pool_size: Numbers = 2, strides: Numbers | None = None, padding: Numbers = 0,
        layout: str | None = None, ceil_mode: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        axes = self.axes
        check_layout(type(self).__name__, layout or LAYOUTS[axes], axes)
        self._size = per_axis("pool_size", pool_size, axes, 1)
        given = pool_size if strides is None else strides
        self._strides = per_axis("strides", given, axes, 1)
        self._padding = per_axis("padding", padding, axes, 0)
        self._ceil_mode = bool(ceil_mode)
        self._include_pad = True

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(size={self._size}, stride={self._strides}, "
            f"padding={self._padding}, ceil_mode={self._ceil_mode})"
        )

    def forward(self, x: Any) -> Any:
        """Reduce each window."""
        check_data(type(self).__name__, x, self.axes, floating=False)
        return F.Pooling(
            x, kernel=self._size, pool_type=self.kind, stride=self._strides, pad=self._padding,
            pooling_convention="full" if self._ceil_mode else "valid",
            count_include_pad=self._include_pad,
        )  # fmt: skip


class _AvgPool(_Pool):
    """What the averaging pools share."""

    kind = "avg"

    def __init__(
        self, pool_size: Numbers = 2, strides: Numbers | None = None, padding: Numbers = 0,
        layout: str | None = None, ceil_mode: bool = False, count_include_pad: bool = True,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(pool_size, strides, padding, layout, ceil_mode, **kwargs)
        self._include_pad = bool(count_include_pad)


class _GlobalPool(HybridBlock):
    """What the pools over whole axes share."""

    axes, kind = 2, "max"

    def __init__(self, layout: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_layout(type(self).__name__, layout or LAYOUTS[self.axes], self.axes)

    def forward(self, x: Any) -> Any:
        """Reduce all spatial axes to size 1."""
        check_data(type(self).__name__, x, self.axes, floating=False)
        return F.Pooling(x, kernel=(1,) * self.axes, pool_type=self.kind, global_pool=True)


class MaxPool1D(_Pool):
    """The largest element of each window of NCW data; arguments as of :class:`MaxPool2D`."""

    axes = 1


class MaxPool2D(_Pool):
    """The largest element of each window of NCHW data.

    Parameters
    ----------
    pool_size : int or sequence of int
        Size of the window.
    strides : int or sequence of int, optional
        By default windows lie side by side.
    padding : int or sequence of int
    layout : {"NCHW"}
    ceil_mode : bool
        Keep a last, incomplete window.
    """


class MaxPool3D(_Pool):
    """The largest element of each window of NCDHW data; arguments as of :class:`MaxPool2D`."""

    axes = 3


class AvgPool1D(_AvgPool):
    """The mean of each window of NCW data; arguments as of :class:`AvgPool2D`."""

    axes = 1


class AvgPool2D(_AvgPool):
    """The mean of each window of NCHW data.

    Parameters
    ----------
    pool_size : int or sequence of int
        Size of the window.
    strides : int or sequence of int, optional
        By default windows lie side by side.
    padding : int or sequence of int
    layout : {"NCHW"}
    ceil_mode : bool
        Keep a last, incomplete window.
    count_include_pad : bool
        Whether padding counts in the mean.
    """


class AvgPool3D(_AvgPool):
    """The mean of each window of NCDHW data; arguments as of :class:`AvgPool2D`."""

    axes = 3


class GlobalMaxPool1D(_GlobalPool):
    """The largest element over all spatial axes of NCW data, which get size 1."""

    axes = 1


class GlobalMaxPool2D(_GlobalPool):
    """The largest element over all spatial axes of NCHW data, which get size 1."""


class GlobalAvgPool1D(_GlobalPool):
    """The mean over all spatial axes of NCW data, which get size 1."""

    axes, kind = 1, "avg"


class GlobalAvgPool2D(_GlobalPool):
    """The mean over all spatial axes of NCHW data, which get size 1."""

    kind = "avg"

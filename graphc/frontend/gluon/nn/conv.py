"""Convolutions and pools as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import ArgumentError, DTypeError, ShapeError, nearest, user_location
from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.hybrid_block import HybridBlock
from graphc.frontend.gluon.input_shapes import shown, sizes
from graphc.frontend.gluon.nn.activations import Activation
from graphc.frontend.gluon.nn.basic import positive
from graphc.frontend.ops.operator import dims
from graphc.ir.sizes import unify
from graphc.ir.types import as_dtype

Numbers = int | Sequence[int]
LAYOUTS = {1: "NCW", 2: "NCHW", 3: "NCDHW"}


def check_layout(layer: str, layout: str, axes: int) -> None:
    """Raise ArgumentError for any layout but channels first."""
    if layout != LAYOUTS[axes]:
        raise ArgumentError(
            f"{layer} works on layout {LAYOUTS[axes]}, got {layout!r}."
            f"{nearest(str(layout), [LAYOUTS[axes]])}",
            remedy="Transpose the data so that channels come second.",
            where=user_location(),
        )


def check_data(layer: str, x: Any, axes: int, floating: bool) -> None:
    """Raise where data is not (N, C, ...), or not floating point for a convolution."""
    if not hasattr(x, "type"):
        return
    shape, dtype = dims(x), as_dtype(x.dtype)
    expected = "(" + ", ".join(LAYOUTS[axes]) + ")"
    if floating and not dtype.floating:
        raise DTypeError(
            f"{layer} takes floating-point data {expected}, got {dtype.name} of shape "
            f"{shown(shape)}",
            remedy="Images from a data set need transforms.ToTensor(), which gives float32 "
            'channels first; other data .astype("float32").',
            where=user_location(),
        )
    if len(shape) != axes + 2:
        raise ShapeError(
            f"{layer} takes data {expected}, got shape {shown(shape)}",
            remedy="Reshape it: the batch comes first, then the channels (1 for grey images).",
            where=user_location(),
        )


def per_axis(name: str, value: Numbers, axes: int, least: int) -> tuple[int, ...]:
    """Return a number for each spatial axis."""
    if isinstance(value, (tuple, list)):
        given = tuple(value)
    else:
        given = (value,) * axes
    if len(given) != axes or any(not hasattr(v, "__index__") or int(v) < least for v in given):
        raise ArgumentError(
            f"{name} must be an integer of {least} or more, or {axes} of them, got {value!r}",
            where=user_location(),
        )
    return tuple(int(v) for v in given)


class _Conv(HybridBlock):
    """What the convolutions share."""

    axes = 2

    def __init__(
        self, channels: int, kernel_size: Numbers, strides: Numbers = 1, padding: Numbers = 0,
        dilation: Numbers = 1, groups: int = 1, layout: str | None = None,
        activation: str | None = None, use_bias: bool = True, weight_initializer: Any = None,
        bias_initializer: Any = "zeros", in_channels: int = 0, dtype: Any = "float32",
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        axes, layer = self.axes, type(self).__name__
        check_layout(layer, layout or LAYOUTS[axes], axes)
        self._channels = positive("channels", channels)
        self._groups = positive("groups", groups)
        self._kernel = per_axis("kernel_size", kernel_size, axes, 1)
        self._steps = {
            "stride": per_axis("strides", strides, axes, 1),
            "dilate": per_axis("dilation", dilation, axes, 1),
            "pad": per_axis("padding", padding, axes, 0),
        }
        with self.name_scope():
            self.weight = self.params.get(
                "weight", shape=self._weight_shape(in_channels), init=weight_initializer,
                dtype=dtype, allow_deferred_init=True,
            )  # fmt: skip
            self.bias = (
                self.params.get("bias", shape=(channels,), init=bias_initializer, dtype=dtype)
                if use_bias else None
            )  # fmt: skip
            self.act = Activation(activation, prefix=f"{activation}_") if activation else None

    def _weight_shape(self, in_channels: int) -> tuple[int, ...]:
        if in_channels % self._groups or self._channels % self._groups:
            raise ArgumentError(
                f"{in_channels} input and {self._channels} output channels do not divide into "
                f"{self._groups} groups",
                where=user_location(),
            )
        return (self._channels, in_channels // self._groups, *self._kernel)

    def __repr__(self) -> str:
        inputs = (self.weight.shape or (0, 0))[1] * self._groups or None
        text = f"{type(self).__name__}({inputs} -> {self._channels}, kernel_size={self._kernel}"
        for name, value in zip(("stride", "dilation", "padding"), self._steps.values()):
            if len(set(value)) > 1 or value[0] != (0 if name == "padding" else 1):
                text += f", {name}={value}"
        if self._groups > 1:
            text += f", groups={self._groups}"
        text += "" if self.bias is not None else ", bias=False"
        return text + (f", Activation({self.act._act_type}))" if self.act else ")")

    def infer_shape(self, x: Any, *args: Any) -> None:
        """Take the number of input channels from the data."""
        check_data(type(self).__name__, x, self.axes, floating=True)
        self.weight.shape = self._weight_shape(sizes(x)[1])

    def forward(self, x: Any) -> Any:
        """Convolve, add the bias, apply the activation."""
        check_data(type(self).__name__, x, self.axes, floating=True)
        weight = self.weight.data()
        if hasattr(x, "type"):
            self._check_channels(x, weight)
        bias = None if self.bias is None else self.bias.data()
        found = self._convolved(x, weight, bias)
        return found if self.act is None else self.act(found)

    def _check_channels(self, x: Any, weight: Any) -> None:
        channels = dims(weight)[1] * self._groups
        if unify(dims(x)[1], channels) is None:
            raise ShapeError(
                f"{self.name} takes {channels} input channels, got data of shape "
                f"{shown(dims(x))}",
                remedy="Channels come second; make the layer with another in_channels, or "
                "transpose the data.",
                where=user_location(),
            )

    def _convolved(self, x: Any, weight: Any, bias: Any) -> Any:
        return F.Convolution(
            x, weight, bias, kernel=self._kernel, num_filter=self._channels,
            num_group=self._groups, no_bias=bias is None, **self._steps,
        )  # fmt: skip


class Conv1D(_Conv):
    """Convolution over one axis of NCW data; arguments as of :class:`Conv2D`."""

    axes = 1


class Conv2D(_Conv):
    """Convolution over two axes of NCHW data.

    Parameters
    ----------
    channels : int
        Number of output channels.
    kernel_size : int or sequence of int
        Size of the window.
    strides, padding, dilation : int or sequence of int
    groups : int
        Channels are split into groups that do not mix.
    layout : {"NCHW"}
    activation : str, optional
        As of :class:`Activation`.
    use_bias : bool
    weight_initializer, bias_initializer : Initializer or str, optional
    in_channels : int
        0 is what the first data has.
    """

    axes = 2


class Conv3D(_Conv):
    """Convolution over three axes of NCDHW data; arguments as of :class:`Conv2D`."""

    axes = 3


class _ConvTranspose(_Conv):
    """What the transposed convolutions share."""

    def __init__(
        self, channels: int, kernel_size: Numbers, strides: Numbers = 1, padding: Numbers = 0,
        output_padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
        layout: str | None = None, activation: str | None = None, use_bias: bool = True,
        weight_initializer: Any = None, bias_initializer: Any = "zeros", in_channels: int = 0,
        dtype: Any = "float32", **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            channels, kernel_size, strides, padding, dilation, groups, layout, activation,
            use_bias, weight_initializer, bias_initializer, in_channels, dtype, **kwargs,
        )  # fmt: skip
        self._adjust = per_axis("output_padding", output_padding, self.axes, 0)

    def _weight_shape(self, in_channels: int) -> tuple[int, ...]:
        super()._weight_shape(in_channels)
        return (in_channels, self._channels // self._groups, *self._kernel)

    def _check_channels(self, x: Any, weight: Any) -> None:
        if unify(dims(x)[1], dims(weight)[0]) is None:
            raise ShapeError(
                f"{self.name} takes {dims(weight)[0]} input channels, got data of shape "
                f"{shown(dims(x))}",
                remedy="Channels come second.",
                where=user_location(),
            )

    def _convolved(self, x: Any, weight: Any, bias: Any) -> Any:
        return F.Deconvolution(
            x, weight, bias, kernel=self._kernel, num_filter=self._channels, adj=self._adjust,
            num_group=self._groups, no_bias=bias is None, **self._steps,
        )  # fmt: skip


class Conv1DTranspose(_ConvTranspose):
    """Transposed convolution over one axis of NCW data, as :class:`Conv2DTranspose`."""

    axes = 1


class Conv2DTranspose(_ConvTranspose):
    """Transposed convolution over two axes of NCHW data: the gradient of a convolution.

    Parameters
    ----------
    channels : int
        Number of output channels.
    kernel_size : int or sequence of int
        Size of the window.
    strides, padding, dilation : int or sequence of int
    output_padding : int or sequence of int
        Elements to add at the end of each axis, fewer than the stride.
    groups : int
        Channels are split into groups that do not mix.
    layout : {"NCHW"}
    activation : str, optional
        As of :class:`Activation`.
    use_bias : bool
    weight_initializer, bias_initializer : Initializer or str, optional
    in_channels : int
        0 is what the first data has.
    """

    axes = 2

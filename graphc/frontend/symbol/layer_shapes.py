"""What the shapes of a layer's parameters follow from: its data and its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend.ops.rnn import parameter_count
from graphc.ir.dim import Dim, SizeExpr, product
from graphc.ir.types import normalize_axis, shape_text

Shape = tuple[Dim, ...]
Params = Mapping[str, Any]
Shapes = dict[str, Shape]


def _asked(params: Params, name: str, layer: str) -> int:
    size = params.get(name)
    if not size:
        raise ArgumentError(f"{layer} needs {name}=", remedy="It gives its weight a shape.")
    return int(size)


def _window(params: Params, axes: int, layer: str) -> tuple[int, ...]:
    kernel = params.get("kernel")
    if not kernel:
        raise ArgumentError(f"{layer} needs kernel=", remedy="It gives its weight a shape.")
    sizes = (kernel,) * axes if isinstance(kernel, int) else tuple(kernel)
    if len(sizes) != axes:
        raise ShapeError(
            f"{layer} has a kernel with {len(sizes)} axes, its data has {axes} after batch and "
            "channel",
            remedy=f"Give the kernel {axes} sizes, or data of shape (N, C, ...) with as many.",
        )
    return sizes


def _fully_connected(data: Shape, params: Params) -> Shapes:
    hidden = _asked(params, "num_hidden", "FullyConnected")
    width = product(data[1:]) if params.get("flatten", True) else data[-1]
    return {"weight": (hidden, width), "bias": (hidden,)}


def _grouped(channels: Dim, params: Params, layer: str) -> Dim:
    groups = int(params.get("num_group", 1))
    if not isinstance(channels, SizeExpr) and channels % groups:
        raise ShapeError(f"{layer} cannot split {channels} channels into {groups} groups")
    return channels // groups


def _convolution(data: Shape, params: Params) -> Shapes:
    filters = _asked(params, "num_filter", "Convolution")
    window = _window(params, len(data) - 2, "Convolution")
    inner = _grouped(data[1], params, "Convolution")
    return {"weight": (filters, inner, *window), "bias": (filters,)}


def _deconvolution(data: Shape, params: Params) -> Shapes:
    filters = _asked(params, "num_filter", "Deconvolution")
    window = _window(params, len(data) - 2, "Deconvolution")
    outer = _grouped(filters, params, "Deconvolution")
    return {"weight": (data[1], outer, *window), "bias": (filters,)}


def _channels(axis: int) -> Callable[[Shape, Params], Shapes]:
    """Return the rule of a normalisation whose parameters have the size of one axis."""

    def rule(data: Shape, params: Params) -> Shapes:
        size = (data[normalize_axis(int(params.get("axis", axis)), len(data))],)
        return dict.fromkeys(("gamma", "beta", "moving_mean", "moving_var"), size)

    return rule


def _embedding(data: Shape, params: Params) -> Shapes:
    rows = _asked(params, "input_dim", "Embedding")
    return {"weight": (rows, _asked(params, "output_dim", "Embedding"))}


def _leaky_relu(data: Shape, params: Params) -> Shapes:
    return {"gamma": (data[1],)}


def _recurrent(data: Shape, params: Params) -> Shapes:
    units, layers = (_asked(params, name, "RNN") for name in ("state_size", "num_layers"))
    directions = 2 if params.get("bidirectional") else 1
    count = parameter_count(params.get("mode", "lstm"), data[2], units, layers, directions)
    state = (layers * directions, data[1], units)
    return {"parameters": (count,), "state": state, "state_cell": state}


def _per_row(data: Shape, params: Params) -> Shapes:
    return {"label": data[:1]}


# Operator -> (fewest axes of its data, rule).
RULES: dict[str, tuple[int, Callable[[Shape, Params], Shapes]]] = {
    "FullyConnected": (1, _fully_connected),
    "Convolution": (3, _convolution),
    "Deconvolution": (3, _deconvolution),
    "BatchNorm": (1, _channels(1)),
    "InstanceNorm": (2, _channels(1)),
    "GroupNorm": (2, _channels(1)),
    "LayerNorm": (1, _channels(-1)),
    "Embedding": (0, _embedding),
    "LeakyReLU": (2, _leaky_relu),
    "RNN": (3, _recurrent),
    "softmax_cross_entropy": (1, _per_row),
}


def parameter_shapes(op: str, data: Shape, params: Params) -> Shapes:
    """Return the shapes that an operator's other inputs must have, by parameter.

    Parameters
    ----------
    op : str
    data : tuple of Dim
        Shape of its first input.
    params : dict
        Its arguments that are no arrays.

    Returns
    -------
    dict of str to tuple of Dim
        Empty for an operator that has no parameters of its own.

    Raises
    ------
    ShapeError
        When the data has too few axes, or its channels do not divide.
    ArgumentError
        When an argument that sizes the parameters is missing.
    """
    axes, rule = RULES.get(op, (0, None))
    if rule is None:
        return {}
    if len(data) < axes:
        raise ShapeError(f"{op} takes data with {axes} or more axes, got shape {shape_text(data)}")
    return rule(data, params)

"""Take the gradients of a convolution in front of a max pool where they are not zero.

A pool's gradient goes to one element of each window. Where windows lie two apart along both axes,
three quarters of what arrives at the convolution is zero, and so are as many of the products in the
gradients of its weights and of its data. `graphc.ir.ops.pooled_gradients` takes the others alone.
They are fewer by as much as Winograd saves, so what `winograd_training` replaces stays for it.

A gradient of zero is taken to be nothing, whatever the data: as for rows that no index names, this
is right for finite numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.ir.dim import Dim, product
from graphc.ir.graph import Graph, Node, Value, rewrite
from graphc.ir.operand import REGISTRY
from graphc.ir.ops.pooled_gradient_nests import LANES
from graphc.passes.winograd_training import pays_trained

SPARSE = 4
"""Elements for each window of the pool from which on the rest is worth leaving out."""
WINDOWS = 1024
"""Windows of an image, and channel, that one list holds."""
IMAGE_BYTES = 1 << 18
"""Of an image whose gradient is kept at hand while it is added to: it fits a second-level cache."""
LEAST_RUN = 16
"""Weights of a window that repay finding their place."""
CROSSING = 1.5
"""How much longer a vector is read that starts anywhere, and may cross a line of the cache."""


def pooled_gradients(graph: Graph) -> Graph:
    """Return a graph that takes such gradients at the windows of the pool; others as they are."""
    return rewrite(graph, _visit)


def _visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    replacement = _REPLACEMENTS.get(node.op.name)
    if replacement is None or inputs[0].op_name != "max_pool_grad" or not _fits(node, inputs):
        return None
    return (replacement(node, *inputs),)


def _fits(node: Node, inputs: tuple[Value, ...]) -> bool:
    """Return whether windows of the pool are few, and the sizes of loops known and small."""
    attrs, spread = node.attrs, inputs[0].node
    window, counts = _window(node, inputs), spread.inputs[0].shape[2:]
    channels = inputs[1].shape[1]
    if len(window) != 2 or attrs["groups"] != 1 or {*attrs["stride"], *attrs["dilate"]} != {1}:
        return False
    spatial = node.attrs.get("spatial", (1,))
    known = all(isinstance(n, int) for n in (*window, *counts, channels, *spatial))
    if not known or pays_trained(node):
        return False
    image_bytes = product((*spatial, channels)) * node.types[0].dtype.item_bytes
    if node.op.name == "conv_data_grad" and image_bytes > IMAGE_BYTES:
        return False
    run = product((*window, channels))
    assert isinstance(run, int)
    few = product(spread.attrs["stride"]) >= SPARSE and product(counts) <= WINDOWS
    return few and run >= LEAST_RUN


def _window(node: Node, inputs: tuple[Value, ...]) -> tuple[Dim, ...]:
    """Return the sizes of the weights' window."""
    found: tuple[Dim, ...] = node.attrs.get("window", inputs[1].shape[2:])
    return found


def _weight_gradient(node: Node, gradient: Value, x: Value) -> Value:
    settings = _settings(node, (gradient, x))
    data = _channels_last(x, node.attrs["pad"], settings["channels"])
    found = REGISTRY["pooled_weight_grad"](*gradient.node.inputs, data, **settings)
    out, channels, *window = node.types[0].shape
    size = (out, *window, channels)
    if size != found.shape:
        found = REGISTRY["slice"](found, (0,) * 4, size, (1,) * 4)
    first: Value = REGISTRY["transpose"](found, (0, 3, 1, 2))
    return first


def _data_gradient(node: Node, gradient: Value, weights: Value) -> Value:
    settings = _settings(node, (gradient, weights))
    kernels = _channels_last(weights, (0, 0), settings["channels"])
    _, channels, *spatial = node.types[0].shape
    found: Value = REGISTRY["pooled_data_grad"](
        *gradient.node.inputs, kernels, spatial=tuple(spatial), border=node.attrs["pad"],
        kept=channels, **settings,
    )  # fmt: skip
    return found


_REPLACEMENTS = {"conv_weight_grad": _weight_gradient, "conv_data_grad": _data_gradient}


def _settings(node: Node, inputs: tuple[Value, ...]) -> dict[str, Any]:
    """Return the attributes that both ops have."""
    spread = inputs[0].node
    window = _window(node, inputs)
    return {
        "window": window,
        "channels": _padded(inputs[1].shape[1], window[1]),
        "counts": spread.inputs[0].shape[2:],
        **{name: spread.attrs[name] for name in ("kernel", "stride", "pad")},
    }


def _padded(channels: Dim, columns: Dim) -> int:
    """Return as how many channels they lie in memory: whole vectors, unless that is much more."""
    assert isinstance(channels, int) and isinstance(columns, int)
    whole = -(-channels // LANES) * LANES
    aligned, anywhere = columns * whole // LANES, -(-columns * channels // LANES)
    return whole if aligned <= CROSSING * anywhere else channels


def _channels_last(x: Value, pad: Sequence[int], channels: int) -> Value:
    """Return an array with its second axis last, zeros around it and behind its channels."""
    count, inner, *spatial = x.shape
    high, wide = (n + 2 * p for n, p in zip(spatial, pad, strict=True))
    if inner == 1:
        turned: Value = REGISTRY["reshape"](x, (count, *spatial, 1))
    else:
        turned = REGISTRY["transpose"](x, (0, 2, 3, 1))
    shape = (count, high, wide, channels)
    if shape == turned.shape:
        return turned
    found: Value = REGISTRY["unslice"](turned, (0, *pad, 0), shape, (1, 1, 1, 1))
    return found

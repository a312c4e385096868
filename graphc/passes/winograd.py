"""Put Winograd's F(4x4, 3x3) in place of 3x3 convolutions by weights that are kept.

Data, weights and results go through the transforms of `graphc.ir.ops.winograd`; between them 36
products of matrices sum over the channels. The gradient in the data is such a convolution too, with
the weights turned around.

Whether it pays is decided by channels, which types know, and by who transforms the weights. In
predict mode that is done once, and what is kept must not be so large that reading it takes longer
than a small batch. A graph that trains the weights is a matter of `winograd_training`. Elsewhere,
for weights that come as arguments, a batch of one would not repay it: convolutions stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc import config
from graphc.ir.dim import Dim, ceil_div, product
from graphc.ir.graph import Graph, Node, Value, rewrite
from graphc.ir.operand import REGISTRY
from graphc.ir.ops.channels_last import PANEL
from graphc.ir.ops.winograd import POINTS, TILE
from graphc.ir.types import TensorType, float32

LEAST_CHANNELS = 32
"""On either side: with fewer, transforms take longer than the products that are saved."""
PREPARED_BYTES = 16 << 20
"""Of one layer's transformed weights at most, where they are kept."""
WIDE_CHANNELS = 256
"""Kept weights of so many channels are read from memory, and lie for that in columns."""


def winograd_prepared(graph: Graph, settled: Callable[[Value], bool]) -> Graph:
    """Return the graph with convolutions by weights replaced that are ``settled``, and small."""
    return _rewritten(graph, lambda node: _keeps(node, settled), WIDE_CHANNELS)


def pays_prepared(node: Node, settled: Callable[[Value], bool]) -> bool:
    """Return whether to replace a convolution whose transformed weights would be kept."""
    return config.current().winograd and pays(node) and _keeps(node, settled)


def _keeps(node: Node, settled: Callable[[Value], bool]) -> bool:
    weights = node.inputs[1]
    out, channels, *_ = weights.shape
    kept_bytes = POINTS * POINTS * out * channels * weights.dtype.item_bytes
    return settled(weights) and kept_bytes <= PREPARED_BYTES


def _rewritten(graph: Graph, wanted: Callable[[Node], bool], wide: float = float("inf")) -> Graph:
    if not config.current().winograd:
        return graph

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        named = node.op.name in ("conv", "conv_data_grad")
        if not (named and pays(node) and wanted(node)):
            return None
        products = _by_tile if least_channels(node) >= wide else _by_channel
        return _replaced(node, inputs, products)

    return rewrite(graph, visit)


def _replaced(
    node: Node, inputs: tuple[Value, ...], products: Callable[[Value, Value], Value]
) -> Sequence[Value]:
    x, weights = inputs
    spatial = node.types[0].shape[2:]
    pad = node.attrs["pad"]
    if node.op.name == "conv":
        kernels = _transformed(weights, (2, 3, 0, 1), "weights")
        return (_convolved(x, kernels, products, pad, spatial),)
    turned = tuple(2 - p for p in pad)
    kernels = _transformed(weights, (2, 3, 1, 0), "turned weights")
    return (_convolved(x, kernels, products, turned, spatial),)


def pays(node: Node) -> bool:
    """Return whether a convolution is one of 3x3 windows side by side, over many channels."""
    attrs = node.attrs
    plain = (
        _weights(node).shape[2:] == (3, 3)
        and attrs["stride"] == attrs["dilate"] == (1, 1)
        and attrs["groups"] == 1
        and all(p <= 2 for p in attrs["pad"])
        and node.types[0].dtype is float32
    )
    return plain and least_channels(node) >= LEAST_CHANNELS


def least_channels(node: Node) -> int:
    """Return the number of channels on the side with fewer, 0 where it is not known."""
    sides = _weights(node).shape[:2]
    return min(n if isinstance(n, int) else 0 for n in sides)


def _weights(node: Node) -> TensorType:
    """Return the type of the weights, or of their gradient."""
    return node.types[0] if node.op.name == "conv_weight_grad" else node.inputs[1].type


def _transformed(weights: Value, axes: tuple[int, ...], matrix: str) -> Value:
    """Return the transform of ``weights``, whose axes in order are window, out and in."""
    kernels: Value = REGISTRY["winograd_transform"](REGISTRY["transpose"](weights, axes), matrix)
    return kernels


def _convolved(
    x: Value, kernels: Value, products: Callable[[Value, Value], Value], pad: Sequence[int],
    spatial: Sequence[Dim],
) -> Value:  # fmt: skip
    """Return the convolution with the weights that ``kernels`` are the transform of."""
    tiles = _tiles(spatial)
    shape = (*x.shape[:2], *(TILE * count + 2 for count in tiles))
    padded = REGISTRY["unslice"](x, (0, 0, *pad), shape, (1, 1, 1, 1))
    data = REGISTRY["winograd_data"](padded, tiles)
    sums = products(_as_matrices(kernels), _as_matrices(data))
    _, _, out, _ = kernels.shape
    points = REGISTRY["reshape"](sums, (POINTS, POINTS, out, x.shape[0], *tiles))
    results = REGISTRY["winograd_transform"](points, "sums")
    whole: Value = REGISTRY["untile"](results, tuple(spatial))
    return whole


def convolved_last(x: Value, weights: Value, pad: Sequence[int], spatial: Sequence[Dim]) -> Value:
    """Return a convolution of data ``(N, H, W, C)``, in that layout, to ``spatial`` sizes.

    Tiles are the rows of the products, channels their columns, whatever the numbers.
    """
    kernels = _transformed(weights, (2, 3, 1, 0), "weights")
    rows = tiles_at_points(x, spatial, pad, "data")
    columns = REGISTRY["reshape"](kernels, (POINTS * POINTS, *kernels.shape[2:]))
    return images_of_sums(_products(rows, columns), x.shape[0], spatial)


def tiles_at_points(x: Value, counts: Sequence[Dim], pad: Sequence[int], matrix: str) -> Value:
    """Return a matrix of tiles by channels for each point, of data ``(N, H, W, C)``.

    There are ``counts`` results; ``pad`` and ``matrix`` are as of `winograd_tiles`.
    """
    tiles = _tiles(counts)
    points = REGISTRY["winograd_tiles"](x, tiles, tuple(pad), matrix)
    shape = (POINTS * POINTS, product((x.shape[0], *tiles)), x.shape[3])
    matrices: Value = REGISTRY["reshape"](points, shape)
    return matrices


def images_of_sums(sums: Value, batch: Dim, counts: Sequence[Dim]) -> Value:
    """Return ``counts`` results, ``(N, H, W, C)``, of a matrix of sums for each point."""
    shape = (POINTS, POINTS, batch, *_tiles(counts), sums.shape[2])
    images: Value = REGISTRY["winograd_images"](REGISTRY["reshape"](sums, shape), tuple(counts))
    return images


def _tiles(counts: Sequence[Dim]) -> tuple[Dim, ...]:
    return tuple(ceil_div(count, TILE) for count in counts)


def _products(rows: Value, columns: Value) -> Value:
    """Return the products of matrices for every point, of kept columns in panels if those fit."""
    points, channels, out = columns.shape
    if out % PANEL:
        whole: Value = REGISTRY["matmul"](rows, columns)
        return whole
    split = REGISTRY["reshape"](columns, (points, channels, out // PANEL, PANEL))
    sums: Value = REGISTRY["panel_matmul"](rows, REGISTRY["transpose"](split, (0, 2, 1, 3)))
    return sums


def _by_channel(kernels: Value, data: Value) -> Value:
    """Return the sums of every point, the channels as rows."""
    sums: Value = REGISTRY["matmul"](kernels, data)
    return sums


def _by_tile(kernels: Value, data: Value) -> Value:
    """Return the same with tiles as the rows of the product.

    Many channels come with few tiles, often a vector of them, while their weights are what takes
    time to read: as columns these are read in one stream, and make wide tiles of registers.
    """
    columns = REGISTRY["transpose"](kernels, (0, 2, 1))
    sums = REGISTRY["matmul"](data, columns, transpose_a=True)
    turned: Value = REGISTRY["transpose"](sums, (0, 2, 1))
    return turned


def _as_matrices(x: Value) -> Value:
    """Return a matrix for each point, of the first axis behind the points and all others."""
    matrices: Value = REGISTRY["reshape"](x, (POINTS * POINTS, x.shape[2], product(x.shape[3:])))
    return matrices

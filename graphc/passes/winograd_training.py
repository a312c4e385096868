"""Put Winograd's F(4x4, 3x3) in place of the 3x3 convolutions that a graph trains.

A training step computes three convolutions for each layer: its results, the gradient in its data
and that in its weights. Each becomes transforms and 36 products of matrices, which sum over input
channels, output channels and tiles. Batches are large here, so what the transforms cost decides:
they read and write images with their channels last (`graphc.ir.ops.winograd_tiles`).

Weights change at each step, so each step transforms them; its batch repays that.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc import config
from graphc.ir.dim import Dim
from graphc.ir.graph import Graph, Node, Value, rewrite
from graphc.ir.operand import REGISTRY
from graphc.ir.ops.winograd import POINTS
from graphc.passes.winograd import images_of_sums, least_channels, pays, tiles_at_points

TRAINED_CHANNELS = 64
"""On either side: with fewer, a batch's transforms take longer than the products that are saved."""
CHANNELS_LAST = 0, 2, 3, 1


def winograd(graph: Graph) -> Graph:
    """Return a graph that trains convolutions with these replaced; others as they are."""
    trains = any(node.op.name == "conv_weight_grad" for node in graph.nodes)
    if not trains or not config.current().winograd:
        return graph
    return rewrite(graph, _Replacing())


def pays_trained(node: Node) -> bool:
    """Return whether a convolution, or a gradient of one, is replaced where it is trained."""
    wide = pays(node) and least_channels(node) >= TRAINED_CHANNELS
    return config.current().winograd and wide


class _Replacing:
    """What `rewrite` asks of each node; an array that two convolutions read is turned once."""

    def __init__(self) -> None:
        self.turned: dict[Value, Value] = {}

    def __call__(self, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        """Return the replacement of a convolution, None for what stays."""
        replacement = _REPLACEMENTS.get(node.op.name)
        if replacement is None or not pays_trained(node):
            return None
        return (replacement(self, node, *inputs),)

    def convolution(self, node: Node, x: Value, weights: Value) -> Value:
        """Return the results of a convolution."""
        kernels = _transformed(weights, (2, 3, 1, 0), "weights")
        return self.convolved(x, kernels, node.attrs["pad"], node.types[0].shape[2:])

    def data_gradient(self, node: Node, gradient: Value, weights: Value) -> Value:
        """Return the gradient in the data: a convolution with the weights turned around."""
        kernels = _transformed(weights, (2, 3, 0, 1), "turned weights")
        turned = tuple(2 - p for p in node.attrs["pad"])
        return self.convolved(gradient, kernels, turned, node.types[0].shape[2:])

    def weight_gradient(self, node: Node, gradient: Value, x: Value) -> Value:
        """Return the gradient in the weights."""
        counts = gradient.shape[2:]
        rows = self.points(gradient, counts, (0, 0), "gradient")
        columns = self.points(x, counts, node.attrs["pad"], "data")
        sums = REGISTRY["matmul"](rows, columns, transpose_a=True)
        points = REGISTRY["reshape"](sums, (POINTS, POINTS, *sums.shape[1:]))
        windows = REGISTRY["winograd_transform"](points, "weight gradients")
        found: Value = REGISTRY["transpose"](windows, (2, 3, 0, 1))
        return found

    def points(self, x: Value, counts: Sequence[Dim], pad: Sequence[int], matrix: str) -> Value:
        """Return a matrix of tiles by channels for each point; there are ``counts`` results."""
        if x not in self.turned:
            self.turned[x] = REGISTRY["transpose"](x, CHANNELS_LAST)
        return tiles_at_points(self.turned[x], counts, pad, matrix)

    def convolved(
        self, x: Value, kernels: Value, pad: Sequence[int], counts: Sequence[Dim]
    ) -> Value:
        """Return the convolution with the weights that ``kernels`` are the transform of."""
        sums = REGISTRY["matmul"](self.points(x, counts, pad, "data"), kernels)
        found: Value = REGISTRY["channels_first"](images_of_sums(sums, x.shape[0], counts))
        return found


_REPLACEMENTS = {
    "conv": _Replacing.convolution,
    "conv_data_grad": _Replacing.data_gradient,
    "conv_weight_grad": _Replacing.weight_gradient,
}


def _transformed(weights: Value, axes: tuple[int, ...], matrix: str) -> Value:
    """Return the transform of ``weights`` as matrices, their last two axes those of ``axes``."""
    kernels = REGISTRY["winograd_transform"](REGISTRY["transpose"](weights, axes), matrix)
    matrices: Value = REGISTRY["reshape"](kernels, (POINTS * POINTS, *kernels.shape[2:]))
    return matrices

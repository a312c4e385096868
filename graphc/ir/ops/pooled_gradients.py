"""Gradients of a convolution whose results go into a max pool.

Such a gradient is zero but where a window of the pool has its largest element, and
`max_pool_index` says where that is: one element of each window, a quarter or less of all. So for
each window and output channel there is one number, and the data (or the gradient in it) under the
weights' window there, which these ops visit one after the other; what they take for zero is zero
times a finite number.

Data and weights have their channels last here, so that what lies under a row of the weights'
window is a run of memory, read in whole vectors. The pass `pooled_gradients` puts these ops in
place of `conv_weight_grad` and `conv_data_grad`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.dim import Dim
from graphc.ir.expr import Buffer
from graphc.ir.op import Kind, OpDef, Spec, register, sample
from graphc.ir.ops.convolution import ConvDataGrad, ConvWeightGrad
from graphc.ir.ops.pooled_gradient_nests import (
    LANES,
    Body,
    DataGradient,
    Pool,
    Sizes,
    Walk,
    WeightGradient,
    Window,
)
from graphc.ir.ops.pooling import MaxPoolGrad
from graphc.ir.sizes import unify
from graphc.ir.types import TensorType, float32, float64, int32, same_shape, shape_text

Array = np.ndarray


class Pooled(OpDef):
    """What the two records share."""

    kind, dtypes, gradient = Kind.OPAQUE, (float32, float64), False
    tolerance = {float32: (1e-4, 2e-5), float64: (1e-11, 1e-12)}


def _check(
    op: str, g: TensorType, index: TensorType, other: TensorType, counts: Window,
    known: Sequence[Dim],
) -> None:  # fmt: skip
    """Raise ShapeError where shapes do not fit; sizes that decide about loops become known."""
    fit = g.ndim == other.ndim == 4 and same_shape(g.shape, index.shape)
    found = (*g.shape[2:], *other.shape[-len(known) :])
    if not fit or any(unify(a, b) is None for a, b in zip(found, (*counts, *known))):
        raise ShapeError(
            f"{op} got gradients {shape_text(g.shape)}, their places {shape_text(index.shape)} "
            f"and {shape_text(other.shape)}"
        )


def _spread(
    g: Array, index: Array, spatial: Sequence[int], window: Window, pool: Pool
) -> Array:
    """Return the gradient of the convolution's results."""
    results = tuple(n - k + 1 for n, k in zip(spatial, window))
    found: Array = MaxPoolGrad().reference(
        g, index, spatial=results, kernel=pool.kernel, stride=pool.stride, pad=pool.pad
    )
    return found


_PLAIN: dict[str, Any] = {"stride": (1, 1), "pad": (0, 0), "dilate": (1, 1), "groups": 1}


def _places(shape: tuple[int, ...], limit: int = 4) -> Spec:
    return Spec(shape, 0, limit, int32)


_TWO = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0)}
_THREE = {"kernel": (3, 3), "stride": (2, 2), "pad": (0, 0)}


class PooledWeightGrad(Pooled):
    """Gradient in the weights: ``(O, *window, C)``."""

    name = "pooled_weight_grad"
    samples = (
        sample((2, 3, 2, 3), _places((2, 3, 2, 3)), (2, 6, 8, 8), window=(3, 3), channels=8,
               counts=(2, 3), **_TWO),
        sample((1, 11, 2, 2), _places((1, 11, 2, 2)), (1, 8, 8, 1), window=(5, 5),
               channels=1, counts=(2, 2), **_TWO),
        sample((2, 9, 2, 1), _places((2, 9, 2, 1), 9), (2, 7, 7, 3), window=(3, 5),
               channels=3, counts=(2, 1), **_THREE),
        sample((1, 2, 5, 4), _places((1, 2, 5, 4)), (1, 12, 12, 24), window=(3, 5),
               channels=24, counts=(5, 4), **_TWO),
        sample((0, 2, 1, 1), _places((0, 2, 1, 1)), (0, 3, 3, 2), window=(2, 2), channels=2,
               counts=(1, 1), **_TWO),
    )

    def infer(
        self, g: TensorType, index: TensorType, x: TensorType, *, window: Window, channels: int,
        counts: Window, **pool: Window,
    ) -> TensorType:  # fmt: skip
        """Return ``(O, *window, C)``."""
        _check(self.name, g, index, x, counts, (channels,))
        return g.with_shape((g.shape[1], *window, channels))

    def nest(
        self, k: Any, outputs: Sequence[Buffer], g: Buffer, index: Buffer, x: Buffer, *,
        window: Window, channels: int, counts: Window, **pool: Window,
    ) -> Body:  # fmt: skip
        """Go through blocks of output channels, images, channels and windows of the pool."""
        sizes = Sizes(window, channels, counts)
        walk = Walk(k, sizes, Pool(**pool), (g, index), x.shape[2])
        return WeightGradient(walk, x, outputs[0]).blocks()

    def reference(
        self, g: Array, index: Array, x: Array, *, window: Window, channels: int, counts: Window,
        **pool: Window,
    ) -> Array:  # fmt: skip
        """Spread the gradient, and correlate."""
        spread = _spread(g, index, x.shape[1:3], window, Pool(**pool))
        first = ConvWeightGrad().reference(spread, np.moveaxis(x, 3, 1), window=window, **_PLAIN)
        return np.ascontiguousarray(np.moveaxis(first, 1, 3))


class PooledDataGrad(Pooled):
    """Gradient in the data of a padded convolution: ``(N, C, *spatial)``."""

    name = "pooled_data_grad"
    samples = (
        sample((2, 3, 2, 3), _places((2, 3, 2, 3)), (3, 3, 3, 8), spatial=(6, 8), border=(0, 0),
               kept=7, window=(3, 3), channels=8, counts=(2, 3), **_TWO),
        sample((1, 11, 2, 2), _places((1, 11, 2, 2)), (11, 5, 5, 1), spatial=(4, 6),
               border=(2, 1), kept=1, window=(5, 5), channels=1, counts=(2, 2), **_TWO),
        sample((2, 9, 2, 1), _places((2, 9, 2, 1), 9), (9, 3, 5, 3), spatial=(5, 7),
               border=(1, 0), kept=3, window=(3, 5), channels=3, counts=(2, 1), **_THREE),
        sample((1, 2, 5, 4), _places((1, 2, 5, 4)), (2, 3, 5, 24), spatial=(12, 12),
               border=(0, 0), kept=24, window=(3, 5), channels=24, counts=(5, 4), **_TWO),
        sample((0, 2, 1, 1), _places((0, 2, 1, 1)), (2, 2, 2, 2), spatial=(3, 3), border=(0, 0),
               kept=2, window=(2, 2), channels=2, counts=(1, 1), **_TWO),
    )  # fmt: skip

    def infer(
        self, g: TensorType, index: TensorType, w: TensorType, *, spatial: Window, border: Window,
        kept: int, window: Window, channels: int, counts: Window, **pool: Window,
    ) -> TensorType:  # fmt: skip
        """Return ``(N, kept, *spatial)``."""
        _check(self.name, g, index, w, counts, (*window, channels))
        return g.with_shape((g.shape[0], kept, *spatial))

    def nest(
        self, k: Any, outputs: Sequence[Buffer], g: Buffer, index: Buffer, w: Buffer, *,
        spatial: Window, border: Window, kept: int, window: Window, channels: int,
        counts: Window, **pool: Window,
    ) -> Body:  # fmt: skip
        """Go through images, output channels and windows of the pool."""
        high, wide = (n + 2 * p for n, p in zip(spatial, border, strict=True))
        shape = (high * wide + LANES, channels)
        image = Buffer("image", g.dtype, shape, "stack")
        walk = Walk(k, Sizes(window, channels, counts), Pool(**pool), (g, index), wide)
        return DataGradient(walk, image, w, outputs[0], (kept, *spatial), border).images()

    def reference(
        self, g: Array, index: Array, w: Array, *, spatial: Window, border: Window, kept: int,
        window: Window, channels: int, counts: Window, **pool: Window,
    ) -> Array:  # fmt: skip
        """Spread the gradient, and convolve."""
        padded = tuple(n + 2 * p for n, p in zip(spatial, border, strict=True))
        spread = _spread(g, index, padded, window, Pool(**pool))
        first = np.moveaxis(w, 3, 1)[:, :kept]
        return ConvDataGrad().reference(
            spread, np.ascontiguousarray(first), spatial=spatial, **{**_PLAIN, "pad": border}
        )


pooled_weight_grad = register(PooledWeightGrad())
pooled_data_grad = register(PooledDataGrad())

"""Winograd's transforms of images whose channels come last.

With channels last a vector holds one position of neighbouring channels, so a transform is the same
arithmetic on every lane: no element is gathered, whatever the size of an image or of a tile. The
points are those of `graphc.ir.ops.winograd`.

In training the gradient in the weights is Winograd's too. With ``y = A' ((G w G') * (B' x B)) A``
for a tile, it is ``G' (sum over tiles of (A g A') * (B' x B)) G`` for the gradient ``g`` of ``y``:
36 products of matrices, summed over the tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.dim import Dim
from graphc.ir.expr import Expr
from graphc.ir.op import Kind, OpDef, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.windows import Array, inside, read
from graphc.ir.ops.winograd import (
    POINTS,
    SUMS,
    TILE,
    TILES,
    Transform,
    apply_matrix,
    at_points,
)
from graphc.ir.sizes import unify
from graphc.ir.types import TensorType, float32, float64, shape_text


class WinogradTiles(Transform):
    """Tiles of images, channels last, at the 36 points: ``(6, 6, N, *tiles, C)``."""

    name = "winograd_tiles"
    samples = (
        sample((1, 6, 6, 2), tiles=(1, 1), pad=(0, 0), matrix="data"),
        sample((2, 8, 9, 3), tiles=(2, 3), pad=(1, 1), matrix="data"),
        sample((1, 3, 5, 20), tiles=(1, 2), pad=(2, 0), matrix="data"),
        sample((2, 8, 8, 5), tiles=(2, 2), pad=(0, 0), matrix="gradient"),
        sample((1, 7, 3, 17), tiles=(2, 1), pad=(0, 0), matrix="gradient"),
        sample((0, 4, 4, 2), tiles=(1, 1), pad=(1, 1), matrix="data"),
    )

    def __call__(self, x: Any, tiles: tuple[Dim, Dim], pad: Sequence[int], matrix: str) -> Any:
        """Transform the tiles of ``x``, 4 apart; beyond the images are zeros.

        Parameters
        ----------
        x : operand, shape (N, H, W, C)
        tiles : tuple of Dim
            How many there are along each axis.
        pad : sequence of int
            The first tile begins so many places before the first element.
        matrix : str
            One of `TILES`, which also says how large tiles are.
        """
        return apply(self, (x,), {"tiles": tuple(tiles), "pad": tuple(pad), "matrix": matrix})

    def infer(
        self, x: TensorType, *, tiles: tuple[Dim, Dim], pad: tuple[int, int], matrix: str
    ) -> TensorType:
        """Return ``(6, 6, N, *tiles, C)``."""
        if x.ndim != 4:
            raise ShapeError(f"winograd_tiles takes (N, H, W, C), got {shape_text(x.shape)}")
        return x.with_shape((POINTS, POINTS, x.shape[0], *tiles, x.shape[3]))

    def lower(
        self, k: Any, x: Any, *, tiles: tuple[Dim, Dim], pad: tuple[int, int], matrix: str
    ) -> Any:
        """Combine the elements of a tile."""
        row, column, batch, i, j, channel = k.index

        def at(r: int, s: int) -> Expr:
            place = [i * TILE + (r - pad[0]), j * TILE + (s - pad[1])]
            mask = inside(place, x.shape[1:3], [r < pad[0], s < pad[1]], [True, True])
            return read(x, mask, 0, batch, *place, channel)

        return at_points(k, TILES[matrix], (row, column), (batch, i, j, channel), at)

    def reference(
        self, x: Array, *, tiles: tuple[int, int], pad: tuple[int, int], matrix: str
    ) -> Array:
        """Compute with NumPy."""
        size = len(TILES[matrix][0])
        ends = [TILE * (n - 1) + size - p for n, p in zip(tiles, pad, strict=True)]
        margins = [(p, max(e - n, 0)) for p, e, n in zip(pad, ends, x.shape[1:3], strict=True)]
        padded = np.pad(x, ((0, 0), *margins, (0, 0)))
        views = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
        chosen = views[:, ::TILE, ::TILE][:, : tiles[0], : tiles[1]]
        return apply_matrix(TILES[matrix], chosen.transpose(4, 5, 0, 1, 2, 3))


class WinogradImages(Transform):
    """Sums at the 36 points to images, channels last: ``(N, *spatial, C)``."""

    name, unrolled, tiled = "winograd_images", (), {1: TILE, 2: TILE}
    samples = (
        sample((6, 6, 1, 1, 1, 2), spatial=(4, 4)),
        sample((6, 6, 2, 2, 3, 20), spatial=(7, 12)),
        sample((6, 6, 1, 2, 1, 16), spatial=(5, 1)),
        sample((6, 6, 0, 1, 2, 3), spatial=(4, 8)),
    )

    def __call__(self, x: Any, spatial: tuple[Dim, Dim]) -> Any:
        """Put the tiles of results side by side and cut off what is beyond ``spatial``."""
        return apply(self, (x,), {"spatial": tuple(spatial)})

    def infer(self, x: TensorType, *, spatial: tuple[Dim, Dim]) -> TensorType:
        """Return ``(N, *spatial, C)``."""
        sides = x.shape[:2] if x.ndim == 6 else ()
        if len(sides) < 2 or any(unify(side, POINTS) is None for side in sides):
            raise ShapeError(
                f"winograd_images takes (6, 6, N, high, wide, C), got {shape_text(x.shape)}"
            )
        return x.with_shape((x.shape[2], *spatial, x.shape[5]))

    def lower(self, k: Any, x: Any, *, spatial: tuple[Dim, Dim]) -> Any:
        """Combine the sums of a tile."""
        batch, row, column, channel = k.index
        place, tile = (row % TILE, column % TILE), (batch, row // TILE, column // TILE, channel)
        return at_points(k, SUMS, place, tile, lambda r, s: x.at(r, s, *tile))

    def reference(self, x: Array, *, spatial: tuple[int, int]) -> Array:
        """Compute with NumPy."""
        _, _, batch, high, wide, channels = x.shape
        tiles = apply_matrix(SUMS, x).transpose(2, 3, 0, 4, 1, 5)
        whole = tiles.reshape(batch, high * TILE, wide * TILE, channels)
        return np.ascontiguousarray(whole[:, : spatial[0], : spatial[1]])


class ChannelsFirst(OpDef):
    """Images with their channels behind the batch again: ``(N, *spatial, C)`` to NCHW."""

    name, kind, dtypes, gradient = "channels_first", Kind.MOVEMENT, (float32, float64), False
    scattered = True
    samples = (sample((2, 3, 4, 5)), sample((1, 17, 1, 40)), sample((0, 2, 2, 3)))

    def infer(self, x: TensorType) -> TensorType:
        """Move the last axis behind the first."""
        if x.ndim < 3:
            raise ShapeError(f"channels_first takes (N, *spatial, C), got {shape_text(x.shape)}")
        return x.with_shape((x.shape[0], x.shape[-1], *x.shape[1:-1]))

    def lower(self, k: Any, x: Any) -> Any:
        """Read along the channels."""
        batch, channel, *places = k.index
        return x.at(batch, *places, channel)

    def reference(self, x: Array) -> Array:
        """Transpose with NumPy."""
        return np.ascontiguousarray(np.moveaxis(x, -1, 1))


winograd_tiles = register(WinogradTiles())
winograd_images = register(WinogradImages())
channels_first = register(ChannelsFirst())

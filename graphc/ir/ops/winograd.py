"""The transforms of Winograd's minimal filtering F(4x4, 3x3): a tile of results by 36 products.

A 3x3 convolution takes 16 * 9 products for a tile of 4x4 results; by way of transforms it takes 36,
summed over channels by 36 products of matrices (Lavin and Gray 2016, doi:10.1109/CVPR.2016.435).
One axis at a time, ``y = A' ((G w) * (B' x))`` interpolates the product of two polynomials at six
points. The points here, 0, +-5/8, +-3/2 and infinity, err a quarter as much as the usual
+-1, +-2, and their powers are exact in float32; how points decide the error is in Alam et al. 2022,
doi:10.1145/3524069.

The pass `winograd` puts these ops in place of convolutions once gradients are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.dim import Dim
from graphc.ir.expr import Expr
from graphc.ir.op import Kind, OpDef, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.windows import Array
from graphc.ir.sizes import unify
from graphc.ir.types import TensorType, float32, float64, shape_text

Row = tuple[float, ...]
TILE, POINTS = 4, 6
"""Results of a tile along one axis, and points to interpolate at."""
P, Q = 5 / 8, 3 / 2


def _polynomial(*roots: float) -> Row:
    """Return the coefficients of ``product of (x - root)``, lowest first, for six powers."""
    found = [1.0]
    for root in roots:
        found = [a - root * b for a, b in zip([0.0, *found], [*found, 0.0], strict=True)]
    return (*found, *[0.0] * (POINTS - len(found)))


def _weights_row(point: float) -> Row:
    scale = 1.0
    for other in _FINITE:
        scale *= point - other if other != point else 1.0
    return tuple(point**power / scale for power in range(3))


_FINITE = (0.0, P, -P, Q, -Q)
DATA = (*(_polynomial(*(q for q in _FINITE if q != p)) for p in _FINITE), _polynomial(*_FINITE))
"""``B'``: six elements of the data to the six points."""
WEIGHTS = (*map(_weights_row, _FINITE), (0.0, 0.0, 1.0))
"""``G``: three weights to the six points."""
SUMS = tuple(
    (*(point**power for point in _FINITE), 1.0 if power == TILE - 1 else 0.0)
    for power in range(TILE)
)
"""``A'``: the six products to four results."""
MATRICES: dict[str, tuple[Row, ...]] = {
    "weights": WEIGHTS,
    "turned weights": tuple(row[::-1] for row in WEIGHTS),
    "sums": SUMS,
    "weight gradients": tuple(zip(*WEIGHTS, strict=True)),
}
"""The transforms of arrays whose first two axes are those of a tile, by name."""
TILES: dict[str, tuple[Row, ...]] = {
    "data": DATA,
    "gradient": tuple(zip(*SUMS, strict=True)),
}
"""The transforms of tiles of images to the points, by name: of data, and of results' gradients."""


def _dot(k: Any, row: Sequence[float], values: Sequence[Expr]) -> Expr | None:
    """Return the sum of the values times the row's numbers; None where all are zero."""
    total: Expr | None = None
    for number, value in zip(row, values, strict=True):
        if total is None:
            total = None if number == 0 else value if number == 1 else value * number
        elif abs(number) == 1:
            total = total + value if number > 0 else total - value
        elif number != 0:
            total = k.apply("fma", value, k.const(number, value.dtype), total)
    return total


def _by_parity(k: Any, row: Row, values: Sequence[Expr]) -> Expr:
    """Return a row's sum; rows of opposite points share both of its halves."""
    even, odd = _dot(k, row[::2], values[::2]), row[1::2]
    sign = next((1 if number > 0 else -1 for number in odd if number), 1)
    other = _dot(k, [sign * number for number in odd], values[1::2])
    if even is None or other is None:
        found = even if other is None else other if sign > 0 else -other
        assert found is not None
        return found
    return even + other if sign > 0 else even - other


def _by_pairs(k: Any, row: Row, values: Sequence[Expr]) -> Expr:
    """Return a row's sum; rows of one parity share sums of the values at opposite points."""
    zero, one, _, two, _, infinity = row
    same = row[2] == one
    pairs = [values[i] + values[i + 1] if same else values[i] - values[i + 1] for i in (1, 3)]
    short = _dot(k, (zero, one, two, infinity), (values[0], *pairs, values[5]))
    assert short is not None
    return short


def at_points(
    k: Any,
    matrix: Sequence[Row],
    place: Sequence[Any],
    tile: tuple[Expr, ...],
    at: Callable[[int, int], Expr],
) -> Expr:
    """Return ``matrix @ values @ matrix'`` at ``place``, two indices that are constants.

    ``at`` gives the values of a tile; those, and sums of them, are made once for all places.
    """
    by_pairs = len(matrix[0]) == POINTS and matrix is not DATA
    combine = _by_pairs if by_pairs else _by_parity
    row, column = (index.dim for index in place)
    size = range(len(matrix[0]))
    if tile not in k.memo:
        k.memo[tile] = [[at(r, s) for r in size] for s in size]
    if (tile, row) not in k.memo:
        k.memo[tile, row] = [combine(k, matrix[row], values) for values in k.memo[tile]]
    return combine(k, matrix[column], k.memo[tile, row])


def begins_with(x: TensorType, size: int) -> bool:
    """Return whether the first two axes have a size; they get it where it is open."""
    return all(unify(dim, size) is not None for dim in x.shape[:2])


def apply_matrix(matrix: Sequence[Row], x: Array) -> Array:
    """Apply a matrix along the first two axes; what it does not read may be infinite."""
    for axis in (0, 1):
        values = list(np.moveaxis(x, axis, 0))
        rows = [
            sum(x.dtype.type(n) * v for n, v in zip(row, values, strict=True) if n)
            for row in matrix
        ]
        x = np.stack(rows, axis)
    return x


class Transform(OpDef):
    """What the two transforms share: a tile's elements come first, each computed by own code."""

    kind, dtypes, gradient = Kind.OPAQUE, (float32, float64), False
    unrolled: tuple[int, ...] = (0, 1)
    tolerance = {float32: (1e-5, 1e-5), float64: (1e-13, 1e-13)}


class WinogradData(Transform):
    """Overlapping 6x6 tiles of images, 4 apart, at the 36 points: ``(6, 6, C, N, *tiles)``."""

    name = "winograd_data"
    samples = (
        sample((1, 2, 6, 6), tiles=(1, 1)),
        sample((2, 3, 10, 14), tiles=(2, 3)),
        sample((1, 1, 6, 74), tiles=(1, 18)),
        sample((0, 2, 6, 6), tiles=(1, 1)),
    )

    def __call__(self, x: Any, tiles: tuple[Dim, Dim]) -> Any:
        """Transform ``x``, padded to ``4 * tiles + 2``."""
        return apply(self, (x,), {"tiles": tuple(tiles)})

    def infer(self, x: TensorType, *, tiles: tuple[Dim, Dim]) -> TensorType:
        """Return ``(6, 6, C, N, *tiles)``."""
        if x.ndim != 4:
            raise ShapeError(f"winograd_data takes (N, C, H, W), got {shape_text(x.shape)}")
        return x.with_shape((POINTS, POINTS, x.shape[1], x.shape[0], *tiles))

    def lower(self, k: Any, x: Any, *, tiles: tuple[Dim, Dim]) -> Any:
        """Combine the 36 elements of a tile."""
        channel, batch, i, j = tile = k.index[2:]
        return at_points(
            k, DATA, k.index[:2], tile,
            lambda r, s: x.at(batch, channel, i * TILE + r, j * TILE + s),
        )  # fmt: skip

    def reference(self, x: Array, *, tiles: tuple[int, int]) -> Array:
        """Compute with NumPy."""
        views = np.lib.stride_tricks.sliding_window_view(x, (POINTS, POINTS), axis=(2, 3))
        return apply_matrix(DATA, views[:, :, ::TILE, ::TILE].transpose(4, 5, 1, 0, 2, 3))


class WinogradTransform(Transform):
    """Tiles ``(k, k, ...)`` to the points, or products at the points to tiles of results."""

    name = "winograd_transform"
    samples = (
        sample((3, 3, 2, 5), matrix="weights"),
        sample((3, 3, 4, 20), matrix="turned weights"),
        sample((6, 6, 2, 1, 3, 3), matrix="sums"),
        sample((6, 6, 0, 4), matrix="sums"),
    )

    def __call__(self, x: Any, matrix: str) -> Any:
        """Apply one of `MATRICES` along the first axis and along the second."""
        return apply(self, (x,), {"matrix": matrix})

    def infer(self, x: TensorType, *, matrix: str) -> TensorType:
        """Return the type with tiles of another size."""
        rows = MATRICES[matrix]
        if x.ndim < 3 or not begins_with(x, len(rows[0])):
            raise ShapeError(
                f"the transform of {matrix} takes tiles of {len(rows[0])} by {len(rows[0])}, "
                f"got {shape_text(x.shape)}"
            )
        return x.with_shape((len(rows), len(rows), *x.shape[2:]))

    def lower(self, k: Any, x: Any, *, matrix: str) -> Any:
        """Combine the elements of a tile."""
        rest = k.index[2:]
        place = k.index[:2]
        return at_points(k, MATRICES[matrix], place, rest, lambda r, s: x.at(r, s, *rest))

    def reference(self, x: Array, *, matrix: str) -> Array:
        """Compute with NumPy."""
        return apply_matrix(MATRICES[matrix], x)


class Untile(OpDef):
    """Images of tiles: ``(4, 4, C, N, *tiles)`` to ``(N, C, *spatial)``."""

    name, kind, dtypes, gradient = "untile", Kind.MOVEMENT, (float32, float64), False
    scattered = True
    samples = (
        sample((4, 4, 2, 3, 2, 2), spatial=(8, 8)),
        sample((4, 4, 3, 1, 2, 5), spatial=(5, 18)),
        sample((4, 4, 1, 0, 1, 1), spatial=(4, 4)),
    )

    def __call__(self, x: Any, spatial: tuple[Dim, Dim]) -> Any:
        """Put the tiles side by side and cut off what is beyond ``spatial``."""
        return apply(self, (x,), {"spatial": tuple(spatial)})

    def infer(self, x: TensorType, *, spatial: tuple[Dim, Dim]) -> TensorType:
        """Return ``(N, C, *spatial)``."""
        if x.ndim != 6 or not begins_with(x, TILE):
            raise ShapeError(f"untile takes (4, 4, C, N, *tiles), got {shape_text(x.shape)}")
        return x.with_shape((x.shape[3], x.shape[2], *spatial))

    def lower(self, k: Any, x: Any, *, spatial: tuple[Dim, Dim]) -> Any:
        """Read a tile's element."""
        batch, channel, i, j = k.index
        return x.at(i % TILE, j % TILE, channel, batch, i // TILE, j // TILE)

    def reference(self, x: Array, *, spatial: tuple[int, int]) -> Array:
        """Transpose with NumPy."""
        _, _, channels, batch, high, wide = x.shape
        whole = x.transpose(3, 2, 4, 0, 5, 1).reshape(batch, channels, high * TILE, wide * TILE)
        return np.ascontiguousarray(whole[:, :, : spatial[0], : spatial[1]])


winograd_data = register(WinogradData())
winograd_transform = register(WinogradTransform())
untile = register(Untile())

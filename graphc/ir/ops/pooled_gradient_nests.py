"""Loops of the gradients of a convolution in front of a max pool.

Of an image and an output channel the gradients of the pool's windows are listed, with the places
they belong to; then tiles of the weights' window visit the list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, product, symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.loop import Alloc, Assign, Bind, Declare, For, Let, Stmt, Store
from graphc.ir.types import int32, int64

Window = tuple[int, int]
Body = tuple[Stmt, ...]

LANES = 8
"""Elements of a vector: runs start at multiples of it if channels are, and cross no line then."""
VECTORS = 15
"""Vectors of a tile: with the one that they are multiplied by they are the registers of AVX2."""
CHAINS = 8
"""Vectors that multiply-adds need at least to follow each other without waiting."""
LONG = 16
"""Vectors of a channel's weights from which on looking for gradients of zero is repaid."""
CHANNELS = 8
"""Output channels of a block at most; blocks come in pairs of one size, for two cores."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Window, stride and padding of the pool."""

    kernel: Window
    stride: Window
    pad: Window


@dataclass(frozen=True, slots=True)
class Sizes:
    """The weights' window, channels of the data, windows of the pool."""

    window: Window
    channels: int
    counts: Window


@dataclass(frozen=True, slots=True)
class _Tile:
    """Some rows of the weights' window by some vectors of a row, from ``row`` and ``vector`` on."""

    row: Dim
    vector: Dim
    rows: int
    vectors: int
    mask: Expr | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the shape of the registers that hold it."""
        return (self.rows, self.vectors, LANES)


class Walk:
    """Loops and places that both share; images are ``wide`` positions across."""

    def __init__(
        self, k: Any, sizes: Sizes, pool: Pool, given: tuple[Buffer, Buffer], wide: Dim
    ) -> None:
        self.names, self.pool = k.axis_names, pool
        self.g, self.index = given
        self.dtype, self.outs = self.g.dtype, self.g.shape[1]
        (self.high, self.wide), self.channels = sizes.counts, sizes.channels
        self.windows = self.high * self.wide
        self.rows, self.run = sizes.window[0], sizes.window[1] * sizes.channels
        self.pitch = wide * sizes.channels
        self.count, every = self.names(), E.index(self.windows)
        self.stop: Expr = every
        if self.rows * -(-self.run // LANES) >= LONG:
            self.stop = E.use(self.count, every)
        room = (self.windows // LANES + 1) * LANES
        self.starts = Buffer("starts", int32, (room,), "stack")
        self.places = Buffer("places", int32, (room,), "stack")
        self.values = Buffer("values", self.dtype, (room,), "stack")

    def loop(
        self, start: Dim, stop: Dim | Expr, body: Callable[[Dim], Body], step: int = 1
    ) -> For:
        """Return a loop over a fresh variable."""
        name = self.names()
        last = stop if isinstance(stop, Expr) else E.index(stop)
        return For(name, E.index(start), last, body(symbol(name)), step=step)

    def in_scratch(self) -> Body:
        """Return what makes the scratch, and fills in where windows of the pool start."""
        (down, across), (above, left) = self.pool.stride, self.pool.pad

        def start(i: Dim, j: Dim) -> Stmt:
            place = (i * down - above) * self.pitch + (j * across - left) * self.channels
            return Store(self.starts, E.index(i * self.wide + j), E.cast(E.index(place), int32))

        return (
            *map(Alloc, (self.starts, self.places, self.values)),
            self.loop(0, self.high, lambda i: (
                self.loop(0, self.wide, lambda j: (start(i, j),)),
            )),
        )  # fmt: skip

    def listed(self, image: Dim, out: Dim) -> Body:
        """Return what lists a channel's gradients, and where in the image they belong.

        Behind the last one, and behind the last window, are gradients of zero.
        """
        first = (image * self.outs + out) * self.windows
        high, wide = self.pool.kernel

        def vector(window: Dim) -> Body:
            mask = E.iota(LANES) < E.index(self.windows - window)
            tap, value = (
                E.load(buffer, E.index(first + window), (LANES,), (1,), mask)
                for buffer in (self.index, self.g)
            )
            place = E.load(self.starts, E.index(window), (LANES,), (1,), mask)
            place = place + tap * E.cast(E.index(self.channels), int32)
            jump = E.cast(E.index(self.pitch - wide * self.channels), int32)
            for row in range(1, high):
                place = place + E.select(tap >= row * wide, jump, 0)
            return (
                Store(self.places, E.index(window), place, (1,)),
                Store(self.values, E.index(window), value, (1,)),
            )

        every = self.loop(0, self.windows, vector, LANES)
        return (every,) if isinstance(self.stop, E.Index) else (every, *self._without_zeros())

    def _without_zeros(self) -> Body:
        """Return the loop that moves up the gradients which are not zero, and counts them."""
        none, count = E.index(0), self.stop

        def keep(window: Dim) -> Body:
            place, value = self.place(window), self.value(window)
            names = self.names(), self.names()
            held = E.use(names[0], place), E.use(names[1], value)
            more = E.select(held[1].ne(0.0), E.index(1), none)
            return (
                *(Let(name, v) for name, v in zip(names, (place, value))),
                Store(self.places, count, held[0]),
                Store(self.values, count, held[1]),
                Assign(self.count, count + more),
            )

        return (
            Declare(self.count, none),
            self.loop(0, self.windows, keep),
            Store(self.places, count, E.const(0, int32)),
            Store(self.values, count, E.const(0, self.dtype)),
        )

    def tiles(self, body: Callable[[_Tile], Body]) -> Body:
        """Return loops over tiles of the weights' window, whole vectors first."""
        whole = self.run // LANES
        loops: list[Stmt] = []
        if whole:
            parts = -(-whole // VECTORS)
            loops += self._grid(0, whole, -(-whole // parts), None, body)
        if self.run % LANES:
            mask = E.iota(LANES) < E.index(self.run % LANES)
            loops += self._grid(whole, whole + 1, 1, mask, body)
        return tuple(loops)

    def _grid(
        self, left: int, right: int, across: int, mask: Expr | None,
        body: Callable[[_Tile], Body],
    ) -> Body:  # fmt: skip
        """Return the loops over tiles of vectors ``left`` to ``right``, ``across`` at once."""

        def beside(row: Dim, rows: int) -> Body:
            return tuple(
                self.loop(first, last, partial(along, row, rows, n), n)
                for first, last, n in _steps(left, right, across)
            )

        def along(row: Dim, rows: int, count: int, vector: Dim) -> Body:
            return body(_Tile(row, vector, rows, count, mask))

        down = min(self.rows, VECTORS // across)
        return tuple(
            self.loop(top, bottom, partial(beside, rows=n), n)
            for top, bottom, n in _steps(0, self.rows, down)
        )

    def value(self, window: Dim) -> Expr:
        """Return a gradient of the list."""
        return E.load(self.values, E.index(window))

    def place(self, window: Dim) -> Expr:
        """Return where in the image it belongs."""
        return E.load(self.places, E.index(window))

    def under(self, start: Dim, window: Dim, tile: _Tile) -> Expr:
        """Return where a tile of the weights lies for a window of the image from ``start`` on."""
        at = E.index(start + tile.row * self.pitch + tile.vector * LANES)
        return at + E.cast(self.place(window), int64)

    def own(self, out: Dim, tile: _Tile) -> Expr:
        """Return where a tile of a channel's weights lies."""
        return E.index((out * self.rows + tile.row) * self.run + tile.vector * LANES)

    def cleared(self, target: Buffer, start: Dim, size: Dim) -> For:
        """Return the stores of zeros into ``size`` elements."""

        def zero(place: Dim) -> Body:
            mask = E.iota(LANES) < E.index(size - place)
            value = E.splat(E.const(0, self.dtype), (LANES,))
            return (Store(target, E.index(start + place), value, (1,), mask),)

        return self.loop(0, size, zero, LANES)


def _steps(start: int, stop: int, step: int) -> list[tuple[int, int, int]]:
    """Return start, stop and step of the loop over whole steps, and of the one over the rest."""
    whole = start + (stop - start) // step * step
    return [(start, whole, step), *([(whole, stop, stop - whole)] if whole < stop else [])]


class WeightGradient:
    """A tile of a channel's weights stays in registers for the windows of an image."""

    def __init__(self, walk: Walk, x: Buffer, result: Buffer) -> None:
        self.walk, self.x, self.result = walk, x, result

    def blocks(self) -> Body:
        """Return the loop over blocks of output channels."""
        walk = self.walk
        block, count = symbol(walk.names()), 2 * ceil_div(walk.outs, 2 * CHANNELS)
        first, stop = block * walk.outs // count, (block + 1) * walk.outs // count
        size = walk.rows * walk.run
        return (
            For(str(block), E.index(0), E.index(count), (
                *walk.in_scratch(),
                walk.cleared(self.result, first * size, (stop - first) * size),
                walk.loop(0, walk.g.shape[0], lambda image: (
                    walk.loop(first, stop, lambda out: (
                        *walk.listed(image, out),
                        *walk.tiles(lambda tile: self.tile(image, out, tile)),
                    )),
                )),
            ), bind=Bind.PARALLEL),
        )  # fmt: skip

    def tile(self, image: Dim, out: Dim, tile: _Tile) -> Body:
        """Return the sums of a tile; of few vectors in two parts, which windows take in turn."""
        walk, start = self.walk, image * product(self.x.shape[1:])
        at, strides = walk.own(out, tile), (walk.run, LANES, 1)
        before = E.load(self.result, at, tile.shape, strides, tile.mask)
        zero = E.splat(E.const(0, walk.dtype), tile.shape)
        parts = 1 if tile.rows * tile.vectors >= CHAINS else 2
        sums = [E.use(walk.names(), before) for _ in range(parts)]

        def window(k: Dim) -> Body:
            return tuple(
                Assign(total.name, E.apply("fma", walk.value(k + n), E.load(
                    self.x, walk.under(start, k + n, tile), tile.shape, (walk.pitch, LANES, 1),
                    tile.mask,
                ), total))
                for n, total in enumerate(sums)
            )  # fmt: skip

        total = sums[0] if parts == 1 else sums[0] + sums[1]
        return (
            *(Declare(s.name, zero if n else before) for n, s in enumerate(sums)),
            walk.loop(0, walk.stop, window, parts),
            Store(self.result, at, total, strides, tile.mask),
        )


class DataGradient:
    """An image's gradient stays in scratch until all channels have been added."""

    def __init__(
        self, walk: Walk, image: Buffer, w: Buffer, result: Buffer, shape: tuple[int, ...],
        border: Window,
    ) -> None:  # fmt: skip
        self.walk, self.image, self.weights, self.result = walk, image, w, result
        self.shape, self.border = shape, border

    def images(self) -> Body:
        """Return the loop over images."""
        walk, image = self.walk, symbol(self.walk.names())
        size = product(self.image.shape)
        return (
            For(str(image), E.index(0), E.index(walk.g.shape[0]), (
                Alloc(self.image),
                *walk.in_scratch(),
                walk.cleared(self.image, 0, size),
                walk.loop(0, walk.outs, lambda out: (
                    *walk.listed(image, out),
                    *walk.tiles(lambda tile: self.tile(out, tile)),
                )),
                *self.turned(image),
            ), bind=Bind.PARALLEL),
        )  # fmt: skip

    def tile(self, out: Dim, tile: _Tile) -> Body:
        """Return the loop that adds a tile of weights wherever a window's gradient belongs."""
        walk = self.walk
        weights = E.load(
            self.weights, walk.own(out, tile), tile.shape, (walk.run, LANES, 1), tile.mask
        )
        held, strides = E.use(walk.names(), weights), (walk.pitch, LANES, 1)

        def window(k: Dim) -> Body:
            at = walk.under(0, k, tile)
            there = E.load(self.image, at, tile.shape, strides, tile.mask)
            value = E.apply("fma", walk.value(k), held, there)
            return (Store(self.image, at, value, strides, tile.mask),)

        return (Let(held.name, weights), walk.loop(0, walk.stop, window))

    def turned(self, image: Dim) -> Body:
        """Return the loops that write an image's channels, one after the other."""
        kept, start = self.shape[0], 0
        loops: list[Stmt] = []
        for count in (LANES, LANES // 2, LANES // 4, 1):
            stop = start + (kept - start) // count * count
            loops += self._in_squares(image, (start, stop), count) if start < stop else ()
            start = stop
        return tuple(loops)

    def _in_squares(self, image: Dim, channels: tuple[int, int], count: int) -> Body:
        """Return the loops over squares of ``count`` channels by a vector of positions."""
        walk, (kept, high, wide) = self.walk, self.shape
        above, left = self.border
        if not above and not left:
            high, wide = 1, high * wide

        def square(channel: Dim, row: Dim, column: Dim) -> Body:
            place = (row + above) * walk.pitch + (column + left) * walk.channels + channel
            value = E.load(self.image, E.index(place), (count, LANES), (1, walk.channels))
            at = ((image * kept + channel) * high + row) * wide + column
            mask = E.iota(LANES) < E.index(wide - column)
            return (Store(self.result, E.index(at), value, (high * wide, 1), mask),)

        return (
            walk.loop(*channels, lambda channel: (
                walk.loop(0, high, lambda row: (
                    walk.loop(0, wide, lambda column: square(channel, row, column), LANES),
                )),
            ), count),
        )  # fmt: skip

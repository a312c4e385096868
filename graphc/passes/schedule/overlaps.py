"""Gradients of a convolution's data on small planes: products first, then sums where they overlap.

As one sum over channels and window, every element of the data takes a whole window of the output's
gradient, most of it padding where planes are small: 5 x 5 windows on 8 x 8 elements multiply 720
times for every 320 that count. Here each channel of the data first gets its products, taps by
positions of the gradient, none of them on padding; they wait in L1. Then every row of the data
adds up those that lie on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, linear, product, substitute, symbol
from graphc.ir.expr import Axis, Expr, Index, Load
from graphc.ir.loop import BEGIN, END, Alloc, Assign, Declare, For, Kernel, Let, Store
from graphc.ir.target import Target
from graphc.passes.schedule.contraction_match import Match
from graphc.passes.schedule.loops import Body, values_first
from graphc.passes.schedule.nest import Nest, free_names, over_sums, substituted
from graphc.passes.schedule.packing import conjuncts, scratch
from graphc.passes.schedule.vectorize import vector_store, vectorize

POSITIONS = 64
"""Planes of the output's gradient have up to this many elements, whole vectors of them."""
TAPS = 8
"""Windows have up to this many rows and columns."""
WASTE = 1.5
"""How many times more multiplications a sum over whole windows must take."""
IMAGES = 16
"""Images that one channel's weights are read for in one go."""


@dataclass(frozen=True, slots=True)
class Overlaps:
    """The gradient of a convolution's data, as the parts of its sum.

    Attributes
    ----------
    matched : Match
        The sum as a product: its one row axis is the data's channel, its columns end with the
        data's rows and columns.
    weight, gradient : Load
        The factors.
    plane, window : tuple of int
        Rows and columns of the output's gradient and of the window.
    pad : tuple of int
        Of the convolution.
    tile_rows : int
        Rows of the window whose products one register tile holds.
    """

    matched: Match
    weight: Load
    gradient: Load
    plane: tuple[int, int]
    window: tuple[int, int]
    pad: tuple[int, int]
    tile_rows: int

    @property
    def positions(self) -> int:
        """Elements of the gradient's plane."""
        return self.plane[0] * self.plane[1]

    @property
    def worthwhile(self) -> bool:
        """Whether a sum over whole windows would mostly multiply padding."""
        counts = [n + k - 1 - 2 * p for n, k, p in zip(self.plane, self.window, self.pad)]
        return counts[0] * counts[1] >= WASTE * self.positions


def match(matched: Match, target: Target) -> Overlaps | None:
    """Read a product as the gradient of data on small planes; None where it is none."""
    weight, gradient, depth = matched.a, matched.b, matched.depth
    if matched.batch or len(matched.rows) != 1 or len(depth) != 3 or len(matched.columns) < 2:
        return None
    if not (isinstance(weight, Load) and weight.mask is None and isinstance(gradient, Load)):
        return None
    if len(gradient.buffer.shape) != 4 or gradient.mask is None:
        return None
    sizes = *gradient.buffer.shape[2:], *(axis.extent for axis in depth[1:])
    if not all(isinstance(size, int) for size in sizes) or max(sizes[2:]) > TAPS:
        return None
    rows, columns, height, width = (size for size in sizes if isinstance(size, int))
    pad = _pad(matched, weight, gradient, (rows, columns), width)
    if pad is None or rows * columns > POSITIONS:
        return None
    lanes = target.lanes(matched.reduce.dtype)
    vectors = -(-rows * columns // lanes)
    if vectors > 1 and rows * columns % lanes:
        return None
    most = target.registers * 3 // 4 // (width * vectors)
    tile_rows = max((r for r in range(1, most + 1) if height % r == 0), default=0)
    found = Overlaps(
        matched, weight, gradient, (rows, columns), (height, width), pad, tile_rows
    )
    return found if tile_rows and found.worthwhile else None


def _pad(
    matched: Match, weight: Load, gradient: Load, plane: tuple[int, int], width: int
) -> tuple[int, int] | None:
    """Return the padding, if the factors step as those of a convolution without strides do."""
    (_, down, across), (y, x) = matched.depth, matched.columns[-2:]
    expected = {y: plane[1], x: 1, down: -plane[1], across: -1}
    if not (isinstance(gradient.offset, Index) and isinstance(weight.offset, Index)):
        return None
    if any(_step(gradient.offset, axis) != step for axis, step in expected.items()):
        return None
    if _step(weight.offset, across) != 1 or _step(weight.offset, down) != width:
        return None
    axes = (*matched.columns, *matched.depth)
    start = substitute(gradient.offset.dim, {axis.name: 0 for axis in axes})
    return divmod(start, plane[1]) if isinstance(start, int) and start >= 0 else None


def _step(offset: Index, axis: Axis) -> Dim | None:
    found = linear(offset.dim, axis.name)
    return None if found is None else found[0]


def schedule(kernel: Kernel, items: Sequence[Nest], found: Overlaps, target: Target) -> Kernel:
    """Return the kernel; iterations are channels of a few images.

    Parameters
    ----------
    kernel : Kernel
        The plain kernel.
    items : sequence of Nest
        Its stores.
    found : Overlaps
        What `match` found in them.
    target : Target
    """
    return _Plane(found, target.lanes(found.matched.reduce.dtype)).kernel(kernel, items)


class _Plane:
    """Writes what happens to one channel of one image."""

    def __init__(self, found: Overlaps, lanes: int) -> None:
        self.found, self.lanes, self.tile_rows = found, lanes, found.tile_rows
        self.vectors = -(-found.positions // lanes)
        self.images = found.matched.columns[:-2]
        self.channel = found.matched.rows[0]
        self.y, self.x = found.matched.columns[-2:]
        self.out, self.down, self.across = found.matched.depth
        shape = found.window[0] * found.window[1], self.vectors * lanes
        self.products = scratch("products", found.matched.reduce.dtype, shape, lanes)

    def kernel(self, kernel: Kernel, items: Sequence[Nest]) -> Kernel:
        """Return the scheduled kernel."""
        channels, images = self.channel.extent, product(a.extent for a in self.images)
        p, plane = symbol("p"), (self._products(), self._sums(items))
        body: Body = (Let(self.channel.name, E.index(p % channels)), *plane)
        if self.images:
            (image,) = self.images
            first = symbol("first_image")
            stop = E.index(dim_min(first + IMAGES, image.extent))
            body = (
                body[0],
                Let("first_image", E.index(p // channels * IMAGES)),
                For(image.name, E.index(first), stop, plane),
            )
        loop = For("p", E.index(symbol(BEGIN)), E.index(symbol(END)), body)
        terms = self.products.shape[0] * self.vectors * self.out.extent
        return replace(
            kernel,
            body=(Alloc(self.products), loop),
            extent=ceil_div(images, IMAGES) * channels,
            work=200 + dim_min(images, IMAGES) * terms // 4,
        )

    def _products(self) -> For:
        """Return the loops that leave the products of taps and positions in scratch."""
        found, lanes, pitch = self.found, self.lanes, self.products.shape[1]
        width = found.window[1]
        tile = (self.tile_rows * width, self.vectors, lanes)
        start = E.splat(E.const(0, found.matched.reduce.dtype), tile)
        holder = E.use("tile", start)
        place = E.index(symbol(self.down.name) * width * pitch)
        a = E.load(
            found.weight.buffer, substituted(found.weight.offset, {self.across.name: 0}, {}),
            (tile[0], 1, 1), (1, 0, 0),
        )  # fmt: skip
        body = (
            Declare("tile", start),
            For(self.out.name, E.index(0), E.index(self.out.extent), (
                Assign("tile", E.apply("fma", a, self._plane(), holder)),
            )),
            Store(self.products, place, holder, (pitch, lanes, 1)),
        )  # fmt: skip
        stop = E.index(found.window[0])
        return For(self.down.name, E.index(0), stop, body, step=self.tile_rows)

    def _plane(self) -> Expr:
        """Return the vectors of a whole plane of the output's gradient."""
        offset = self._in_plane({self.y: 0, self.x: 0, self.down: 0, self.across: 0})
        start = offset - self.found.pad[0] * self.found.plane[1] - self.found.pad[1]
        rest = E.iota(self.lanes) < E.index(self.found.positions)
        return E.load(
            self.found.gradient.buffer, E.index(start), (1, self.vectors, self.lanes),
            (0, self.lanes, 1), rest if self.found.positions < self.lanes else None,
        )  # fmt: skip

    def _in_plane(self, places: dict[Axis, Dim]) -> Dim:
        offset = self.found.gradient.offset
        assert isinstance(offset, Index)
        return substitute(offset.dim, {axis.name: at for axis, at in places.items()})

    # -- sums where windows overlap ----------------------------------------------------------

    def _sums(self, items: Sequence[Nest]) -> For:
        """Return the loops over vectors of columns and rows of the data."""
        name, x = self.x.name, symbol(self.x.name)
        rest = Let("rest", E.iota(self.lanes) < E.index(self.x.extent - x))
        masks = [self._column_mask(tap, rest) for tap in range(self.found.window[1])]
        zero = E.splat(E.const(0, self.products.dtype), (self.lanes,))
        total = E.use("total", zero)
        row = symbol(self.y.name) + self.found.pad[0]
        first = dim_max(row - self.found.plane[0] + 1, 0)
        behind = dim_min(row + 1, self.found.window[0])
        holder = E.use("sum", self.found.matched.reduce)
        stores = over_sums(items, self.found.matched.reduce, holder)
        kept = E.use("rest", rest.value)
        known: dict[Expr, Expr] = {holder: total}
        down = For(self.down.name, E.index(first), E.index(behind), self._added(masks, total))
        body = (
            Declare("total", zero),
            down,
            *values_first([vector_store(s, name, self.lanes, kept, known) for s in stores]),
        )
        rows = For(self.y.name, E.index(0), E.index(self.y.extent), body)
        return For(name, E.index(0), E.index(self.x.extent), (rest, *masks, rows), step=self.lanes)

    def _column_mask(self, tap: int, rest: Let) -> Let:
        """Return the lanes of a vector of columns that a tap reaches."""
        mask: Expr = E.use("rest", rest.value)
        for part in conjuncts(self.found.gradient.mask):
            if self.x.name in free_names(part):
                part = substituted(part, {self.across.name: tap}, {})
                mask = mask & vectorize(part, self.x.name, self.lanes, None, {})
        return Let(f"inside{tap}", mask)

    def _added(self, masks: Sequence[Let], total: Expr) -> Body:
        """Return the statements that add one row of taps up."""
        pitch, width = self.products.shape[1], self.found.window[1]
        outside = {axis: 0 for axis in (*self.images, self.out)}
        added = total
        for tap, mask in enumerate(masks):
            place = self._in_plane({**outside, self.across: tap})
            row = (symbol(self.down.name) * width + tap) * pitch
            inside = E.use(mask.name, mask.value)
            added = added + E.load(
                self.products, E.index(row + place), (self.lanes,), (1,), inside
            )
        return (Assign("total", added),)

"""Windows over images with their channels last: depthwise convolutions, vectors along channels.

Neighbouring results of one channel share most of what they read, and all of its weights. A tile
of a few rows by a few columns of the output is computed at once for each vector of channels: an
element of the data is loaded once and multiplied into every result whose window has it, so that
multiply-adds, not loads, are what takes the time. Padding above and below is a mask for each row,
padding left and right is met by single columns beside the tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product as places

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, linear, product, substitute, symbol
from graphc.ir.expr import Apply, Axis, Expr, Index, Load, Reduce
from graphc.ir.loop import For, If, Kernel, Let, Store
from graphc.ir.target import Target
from graphc.passes.schedule.loops import Body, flat_loop, operations, values_first, vector_loop
from graphc.passes.schedule.nest import (
    Nest,
    free_names,
    moved,
    over_sums,
    reductions,
    stride,
    substituted,
)
from graphc.passes.schedule.packing import conjuncts
from graphc.passes.schedule.vectorize import vector_store

TAPS = 32
"""Windows of up to this many elements are written out."""
STRIDE = 4
"""The largest distance of neighbouring windows that is looked for."""
COLUMNS = 4
"""Columns of a tile."""
PART = 4
"""Vectors of channels that a part of them has at least, where rows are few."""


@dataclass(frozen=True, slots=True)
class Windows:
    """A kernel as sums over windows of images with channels last.

    Attributes
    ----------
    reduce : Reduce
        The sum of ``data * weight`` over two static axes.
    data, weight : Load
    outer : tuple of Axis
        Axes that number the images.
    rows, columns, channels : Axis
    row_step, column_step : int
        Distances of neighbouring windows.
    """

    reduce: Reduce
    data: Load
    weight: Load
    outer: tuple[Axis, ...]
    rows: Axis
    columns: Axis
    channels: Axis
    row_step: int
    column_step: int

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a window."""
        high, wide = (axis.extent for axis in self.reduce.axes)
        assert isinstance(high, int) and isinstance(wide, int)
        return high, wide


def match(items: Sequence[Nest]) -> Windows | None:
    """Read a plain kernel as sums over windows of images; None where it is more than that."""
    found, axes = reductions(items), items[0].axes
    if len(found) != 1 or len(axes) < 3 or any(n.axes != axes or n.store.mask for n in items):
        return None
    (reduce,), body = found, found[0].body
    count = product(a.extent for a in reduce.axes)
    if len(reduce.axes) != 2 or not isinstance(count, int) or not 1 < count <= TAPS:
        return None
    if reduce.combine != "add" or not (isinstance(body, Apply) and body.op == "mul"):
        return None
    if any(stride(item.store, axes[-1].name) != 1 for item in items):
        return None
    for data, weight in (body.args, body.args[::-1]):
        if isinstance(data, Load) and isinstance(weight, Load):
            windows = _classify(reduce, data, weight, axes)
            if windows is not None:
                return windows
    return None


def _classify(
    reduce: Reduce, data: Load, weight: Load, axes: Sequence[Axis]
) -> Windows | None:
    *outer, rows, columns, channels = axes
    if weight.mask is not None or free_names(weight) & {a.name for a in axes[:-1]}:
        return None
    if stride(data, channels.name) != 1 or stride(weight, channels.name) != 1:
        return None
    down, across = reduce.axes
    steps = _ratio(data, rows, down), _ratio(data, columns, across)
    if steps[0] is None or steps[1] is None:
        return None
    found = Windows(
        reduce, data, weight, tuple(outer), rows, columns, channels, steps[0], steps[1]
    )
    names = {rows.name, down.name}, {columns.name, across.name}
    for part in conjuncts(data.mask):
        used = free_names(part) & {rows.name, columns.name, channels.name, down.name, across.name}
        if not any(used <= allowed for allowed in names):
            return None
        if columns.name in used and _limit(part, columns) is None:
            return None
    return found


def _ratio(data: Load, axis: Axis, tap: Axis) -> int | None:
    """Return how many taps neighbouring windows on an axis are apart."""
    far, near = stride(data, axis.name), stride(data, tap.name)
    if far is None or near is None or near == 0:
        return None
    return next((step for step in range(1, STRIDE + 1) if near * step == far), None)


def _limit(part: Expr, columns: Axis) -> tuple[bool, Dim] | None:
    """Return a condition as a limit of the column: whether it is the least, or one too many."""
    if not (isinstance(part, Apply) and part.op in ("ge", "lt")):
        return None
    a, b = part.args
    if not (isinstance(a, Index) and isinstance(b, Index)):
        return None
    found = linear(a.dim - b.dim, columns.name)
    if found is None or not isinstance(found[0], int) or found[0] <= 0:
        return None
    # step * column + rest >= 0, or < 0
    return part.op == "ge", ceil_div(-found[1], found[0])


def schedule(kernel: Kernel, items: Sequence[Nest], windows: Windows, target: Target) -> Kernel:
    """Return the kernel with images, parts of the channels and rows on the parallel axis.

    Parameters
    ----------
    kernel : Kernel
        The plain kernel.
    items : sequence of Nest
        Its stores.
    windows : Windows
        What `match` found in ``items``.
    target : Target
    """
    lanes = target.lanes(windows.reduce.dtype)
    high = 2 if target.registers >= 32 else 1
    rows, height = windows.rows.name, windows.rows.extent
    strips = ceil_div(height, high)
    width = _width(windows.channels.extent, lanes, ceil_div(2 * target.cores, dim_max(strips, 1)))
    emit = _Emitter(windows, items, lanes, width)
    first = symbol("rows") * high
    body: Body = (Let(rows, E.index(first)), *emit.strip(high))
    if height % high != 0:
        body = (
            If(
                E.index(first + high) <= E.index(height),
                body,
                (For(rows, E.index(first), E.index(height), emit.strip(1)),),
            ),
        )
    part = Axis("part", ceil_div(windows.channels.extent, width))
    axes = (*windows.outer, part, Axis("rows", strips))
    cost = product(windows.size) + operations(item.store.value for item in items)
    work = 16 + high * windows.columns.extent * ceil_div(width, lanes) * cost // 4
    extent = product(a.extent for a in axes)
    return replace(kernel, body=(flat_loop(axes, body),), extent=extent, work=work)


def _width(channels: Dim, lanes: int, wanted: Dim) -> Dim:
    """Return how wide parts of the channels are, of which as many as rows leave cores idle."""
    parts = dim_max(dim_min(wanted, channels // (PART * lanes)), 1)
    return dim_max(ceil_div(ceil_div(channels, parts), lanes), 1) * lanes


class _Emitter:
    """Writes the loops over the columns of a few rows."""

    def __init__(self, windows: Windows, items: Sequence[Nest], lanes: int, width: Dim) -> None:
        self.windows, self.lanes, self.width = windows, lanes, width
        self.sum = E.use("sum", windows.reduce)
        self.stores = over_sums(items, windows.reduce, self.sum)

    def strip(self, high: int) -> Body:
        """Return the loops over the columns of ``high`` rows, tiles and what is beside them."""
        columns, (down, across) = self.windows.columns, self.windows.reduce.axes
        far = (high - 1) * self.windows.row_step + self.windows.size[0]
        rows, row_masks = self._masks(down, far, f"row{high}_")
        sides, side_masks = self._masks(across, self.windows.size[1], f"side{high}_")
        first, behind = self._clear()
        tiled, side = symbol("tiled"), symbol("side")
        lets = (Let("tiled", E.index((behind - first) // COLUMNS * COLUMNS)), *rows)
        tile = self._tile(high, COLUMNS, row_masks, {})
        tiles = For(
            columns.name, E.index(first), E.index(first + tiled), tile, step=COLUMNS
        )
        beside = side + dim_min(dim_max(side + 1 - first, 0), 1) * tiled
        single = (
            Let(columns.name, E.index(beside)),
            *sides,
            *self._tile(high, 1, row_masks, side_masks),
        )
        singles = For("side", E.index(0), E.index(columns.extent - tiled), single)
        return (*lets, tiles, singles)

    # -- padding -----------------------------------------------------------------------------

    def _masks(self, tap: Axis, count: int, prefix: str) -> tuple[list[Let], dict[int, Expr]]:
        """Return what the data's mask asks of each of ``count`` places on the axis of ``tap``."""
        lets: list[Let] = []
        masks: dict[int, Expr] = {}
        parts = [p for p in conjuncts(self.windows.data.mask) if tap.name in free_names(p)]
        for place in range(count) if parts else ():
            test = _both([substituted(part, {tap.name: place}, {}) for part in parts])
            assert test is not None, "there are parts"
            lets.append(Let(f"{prefix}{place}", E.splat(test, (self.lanes,))))
            masks[place] = E.use(lets[-1].name, lets[-1].value)
        return lets, masks

    def _clear(self) -> tuple[Dim, Dim]:
        """Return the columns, first and one behind, whose windows meet no padding."""
        columns, across = self.windows.columns, self.windows.reduce.axes[1]
        least: Dim = 0
        behind: Dim = columns.extent
        for part in conjuncts(self.windows.data.mask):
            found = _limit(part, columns)
            if found is None:
                continue
            is_least, limit = found
            for tap in (0, self.windows.size[1] - 1):
                place = substitute(limit, {across.name: tap})
                least, behind = (
                    (dim_max(least, place), behind)
                    if is_least
                    else (least, dim_min(behind, place))
                )
        least = dim_min(least, columns.extent)
        return least, dim_max(behind, least)

    # -- sums and stores ---------------------------------------------------------------------

    def _tile(
        self, high: int, wide: int, row_masks: dict[int, Expr], side_masks: dict[int, Expr]
    ) -> Body:
        """Return the loop over vectors of channels for a tile of the output."""

        def step(lanes: int, mask: Expr | None) -> Body:
            tag = f"{high}x{wide}{'' if mask is None else 'r'}"
            lets, sums = self._sums(high, wide, tag, (row_masks, side_masks, mask))
            stores = []
            for (row, column), total in sums.items():
                known: dict[Expr, Expr] = {self.sum: total}
                stores += [self._store(s, row, column, mask, known) for s in self.stores]
            return (*lets, *values_first(stores))

        windows, start = self.windows, symbol("part") * self.width
        cost = operations(s.value for s in self.stores)
        stop = dim_min(windows.channels.extent, start + self.width)
        return vector_loop(windows.channels.name, start, stop, self.lanes, step, cost=cost)

    def _sums(
        self, high: int, wide: int, tag: str,
        masks: tuple[dict[int, Expr], dict[int, Expr], Expr | None],
    ) -> tuple[list[Let], dict[tuple[int, int], Expr]]:
        """Return statements that sum a tile's windows, row-major, and where the sums are."""
        windows, lets = self.windows, list[Let]()
        (down, across), (taps_down, taps_across) = windows.reduce.axes, windows.size
        weights: dict[tuple[int, int], Expr] = {}
        sums: dict[tuple[int, int], Expr] = {}

        def name(text: str, value: Expr) -> Expr:
            lets.append(Let(f"{text}_{tag}", value))
            return E.use(lets[-1].name, value)

        def weight(y: int, x: int) -> Expr:
            if (y, x) not in weights:
                own = substituted(windows.weight, {down.name: y, across.name: x}, {})
                weights[y, x] = name(f"w{y}_{x}", self._vector(own, masks[2]))
            return weights[y, x]

        for y in range((high - 1) * windows.row_step + taps_down):
            rows = _users(y, windows.row_step, taps_down, high)
            for x in range((wide - 1) * windows.column_step + taps_across):
                columns = _users(x, windows.column_step, taps_across, wide)
                if not rows or not columns:
                    continue
                data = substituted(windows.data, {down.name: y, across.name: x}, {})
                own = [m for m in (masks[0].get(y), masks[1].get(x), masks[2]) if m is not None]
                value = name(f"x{y}_{x}", self._vector(data, _both(own)))
                for (i, r), (j, s) in places(rows, columns):
                    total, factor = sums.get((i, j)), weight(r, s)
                    term = value * factor
                    if total is not None:
                        term = E.apply("fma", value, factor, total)
                    sums[i, j] = name(f"sum{i}_{j}_{r}_{s}", term)
        return lets, sums

    def _vector(self, load: Expr, mask: Expr | None) -> Expr:
        assert isinstance(load, Load)
        return E.load(load.buffer, load.offset, (self.lanes,), (1,), mask, load.fill)

    def _store(
        self, store: Store, row: int, column: int, mask: Expr | None, known: dict[Expr, Expr]
    ) -> Store:
        rows, columns = self.windows.rows.name, self.windows.columns.name
        place: dict[str, Dim] = {rows: symbol(rows) + row, columns: symbol(columns) + column}
        one = moved(store, place, {})
        return vector_store(one, self.windows.channels.name, self.lanes, mask, known)


def _users(place: int, step: int, taps: int, count: int) -> list[tuple[int, int]]:
    """Return which of ``count`` windows read a place of the data, and with which tap."""
    found = ((window, place - window * step) for window in range(count))
    return [(window, tap) for window, tap in found if 0 <= tap < taps]


def _both(masks: Sequence[Expr]) -> Expr | None:
    """Return where all masks hold; None where there is none."""
    found: Expr | None = None
    for mask in masks:
        found = mask if found is None else found & mask
    return found

"""Convolutions of images with few channels, those first: the first layer of a network.

Neighbouring results read neighbouring places, and a sum has few terms: copying patches takes as
long as multiplying them. A tile of neighbouring positions by a few vectors of output channels reads
the image where it lies, an element at a time, and the weights from their panels; its sums go from
registers to what the stores make of them. The image is padded ahead, so nothing is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, product, substitute, symbol
from graphc.ir.expr import Axis, Expr, Index, Load
from graphc.ir.loop import Assign, Declare, For, If, Kernel, Let, Store
from graphc.ir.ops.channels_last import PANEL
from graphc.ir.target import Target
from graphc.passes.schedule.contraction_match import Match
from graphc.passes.schedule.loops import Body, flat_loop, operations, over_axes, values_first
from graphc.passes.schedule.nest import Nest, moved, over_sums, stride, substituted
from graphc.passes.schedule.panels import panels
from graphc.passes.schedule.vectorize import vector_store

TILE = 8
"""Positions of a tile, at most."""


@dataclass(frozen=True, slots=True)
class Direct:
    """A product whose rows lie along an image, with its columns' factor in panels.

    Attributes
    ----------
    matched : Match
    data, weight : Load
    """

    matched: Match
    data: Load
    weight: Load

    @property
    def positions(self) -> Axis:
        """The axis of a tile's rows."""
        return self.matched.rows[-1]

    @property
    def columns(self) -> Axis:
        """The output channels."""
        return self.matched.columns[-1]


def match(matched: Match, target: Target) -> Direct | None:
    """Return a contraction as a convolution over the image in place, or None."""
    data, weight = matched.a, matched.b
    if matched.batch or len(matched.columns) != 1 or len(matched.depth) < 2:
        return None
    if not (isinstance(data, Load) and isinstance(weight, Load)) or data.mask or weight.mask:
        return None
    steps = [stride(data, axis.name) for axis in (*matched.rows, *matched.depth)]
    near, lanes = steps[len(matched.rows) - 1], target.lanes(matched.reduce.dtype)
    if any(step is None for step in steps) or not isinstance(near, int) or PANEL % lanes:
        return None
    first, fixed = matched.columns[0], {axis.name: 0 for axis in matched.depth[1:]}
    inner = substituted(weight, dict(fixed), {})
    if panels(inner, [first], matched.depth[:1], lanes, PANEL) is None:
        return None
    return Direct(matched, data, weight)


def schedule(kernel: Kernel, items: Sequence[Nest], direct: Direct, target: Target) -> Kernel:
    """Return the kernel with rows of images on the parallel axis and tiles of positions inside.

    Parameters
    ----------
    kernel : Kernel
        The plain kernel.
    items : sequence of Nest
        Its stores.
    direct : Direct
        What `match` found in ``items``.
    target : Target
    """
    matched, lanes = direct.matched, target.lanes(direct.matched.reduce.dtype)
    emit = _Emitter(direct, items, lanes, 24 if target.registers >= 32 else 12)
    count = direct.columns.extent // PANEL
    at_once = max(2 * lanes // PANEL, 1)
    first = Let("first", E.index(symbol("strip") * at_once))
    body: Body = emit.strip(at_once)
    if at_once > 1:
        whole = E.index(symbol("first") + at_once) <= E.index(count)
        body = (If(whole, body, emit.strip(1)),)
    strips = For("strip", E.index(0), E.index(ceil_div(count, at_once)), (first, *body))
    outer = matched.rows[:-1] or (Axis("only_row", 1),)
    depth = product(axis.extent for axis in matched.depth)
    terms = direct.positions.extent * ceil_div(direct.columns.extent, lanes) * (depth + 4)
    cost = operations(item.store.value for item in items)
    return replace(
        kernel,
        body=(flat_loop(outer, (strips,)),),
        extent=product(axis.extent for axis in outer),
        work=16 + terms // 4 + cost,
    )


class _Emitter:
    """Writes the loops over the positions of a row, for some panels of the weights."""

    def __init__(
        self, direct: Direct, items: Sequence[Nest], lanes: int, registers: int
    ) -> None:
        self.direct, self.lanes, self.registers = direct, lanes, registers
        self.sum = E.use("sum", direct.matched.reduce)
        self.stores = over_sums(items, direct.matched.reduce, self.sum)

    def strip(self, count: int) -> Body:
        """Return the loops over positions for ``count`` panels, from number ``first`` on."""
        axis = self.direct.positions
        vectors = count * PANEL // self.lanes
        high = min(TILE, self.registers // vectors)
        whole = axis.extent // high * high
        start, behind = E.index(whole), E.index(axis.extent)
        tiles = For(axis.name, E.index(0), start, self._tile(high, count), step=high)
        rest = For(axis.name, start, behind, self._tile(1, count))
        column = Let(self.direct.columns.name, E.index(symbol("first") * PANEL))
        return (column, tiles, rest)

    def _tile(self, high: int, count: int) -> Body:
        """Return the sums of a tile, and the stores."""
        lanes, dtype = self.lanes, self.direct.matched.reduce.dtype
        places = [(p, k) for p in range(count) for k in range(0, PANEL, lanes)]
        zero = E.splat(E.const(0, dtype), (lanes,))
        sums = {
            (row, place): f"sum{row}_{number}_{high}x{count}"
            for row in range(high)
            for number, place in enumerate(places)
        }
        lets: list[Let | Assign] = []
        weights = {}
        for number, place in enumerate(places):
            lets.append(Let(f"weight{number}_{high}x{count}", self._weight(*place)))
            weights[place] = E.use(lets[-1].name, lets[-1].value)
        for row in range(high):
            data = Let(f"data{row}_{high}x{count}", E.splat(self._data(row), (lanes,)))
            lets.append(data)
            value = E.use(data.name, data.value)
            for place in places:
                holder = E.use(sums[row, place], zero)
                term = E.apply("fma", value, weights[place], holder)
                lets.append(Assign(sums[row, place], term))
        loops = over_axes(self.direct.matched.depth, tuple(lets))
        stores = [
            self._store(store, row, place, {self.sum: E.use(name, zero)})
            for (row, place), name in sums.items()
            for store in self.stores
        ]
        return (*(Declare(name, zero) for name in sums.values()), *loops, *values_first(stores))

    def _data(self, row: int) -> Expr:
        name = self.direct.positions.name
        return substituted(self.direct.data, {name: symbol(name) + row}, {})

    def _weight(self, panel: int, lane: int) -> Expr:
        """Return the vector of a panel's weights from ``lane`` on."""
        weight, column = self.direct.weight, self.direct.columns.name
        assert isinstance(weight.offset, Index)
        start = substitute(weight.offset.dim, {column: (symbol("first") + panel) * PANEL})
        return E.load(weight.buffer, E.index(start + lane), (self.lanes,), (1,))

    def _store(
        self, store: Store, row: int, place: tuple[int, int], known: dict[Expr, Expr]
    ) -> Store:
        name, column = self.direct.positions.name, self.direct.columns.name
        panel, lane = place
        at: dict[str, Dim] = {
            name: symbol(name) + row, column: symbol(column) + panel * PANEL + lane,
        }  # fmt: skip
        return vector_store(moved(store, at, {}), column, self.lanes, None, known)

"""Gradients of convolution weights without a matrix of patches.

As a matrix product this is ``(window, depth) x (depth, channels)``, where the depth runs over all
positions of all images. A row of the left matrix is the data itself, shifted: so its elements are
read one by one where they lie, or from rows copied with their padding. The gradient of the output
is transposed into scratch a stretch of depth at a time, its channels in the lanes; a register tile
holds the taps of one row of the window by a few vectors of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, linear, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Index, Load
from graphc.ir.loop import BEGIN, END, Alloc, Assign, Declare, For, If, Kernel, Let, Store
from graphc.ir.target import Target
from graphc.passes.schedule.contraction_match import Match, merged
from graphc.passes.schedule.epilogue import Sums, epilogue, turn
from graphc.passes.schedule.loops import Body
from graphc.passes.schedule.nest import Nest, substituted
from graphc.passes.schedule.packing import (
    Names,
    Stretch,
    over,
    pack_turned,
    scratch,
    touched,
    window_vector,
)

TAPS = 8
"""Windows have up to this many columns."""
DEPTH = 256
"""Positions of a stretch of depth."""
SUMS = 512
"""Taps whose sums one block keeps."""
PADDED = 1 << 14
"""Elements of scratch for rows with their padding."""
NARROW = 6
"""Rows of images shorter than this are over before they repay their start."""
LEAST_ROWS = 3
"""Rows of windows that repay transposing the gradient for a block of their own."""


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient of weights, as the parts of its product.

    Attributes
    ----------
    matched : Match
        The product; its rows are output channels, its columns end with the window's.
    gradient, data : Load
        The factors.
    stride, dilate : int
        Steps of the data along the innermost axis of the depth and along the window's columns.
    """

    matched: Match
    gradient: Load
    data: Load
    stride: int
    dilate: int

    @property
    def channel(self) -> Axis:
        """Output channels."""
        return self.matched.rows[0]

    @property
    def tap(self) -> Axis:
        """Columns of the window."""
        return self.matched.columns[-1]

    @property
    def rows(self) -> tuple[Axis, ...]:
        """Input channels and rows of the window."""
        return self.matched.columns[:-1] or (Axis("only_row", 1),)

    @property
    def lines(self) -> tuple[Axis, ...]:
        """Images and their rows."""
        return self.matched.depth[:-1]

    @property
    def across(self) -> Axis:
        """Positions of a row of an image."""
        return self.matched.depth[-1]


def match(matched: Match) -> Gradient | None:
    """Read a product as the gradient of a convolution's weights; None where it is none."""
    a, b, depth = matched.a, matched.b, matched.depth
    if matched.batch or len(matched.rows) != 1 or len(depth) < 2:
        return None
    if not (isinstance(a, Load) and a.mask is None and isinstance(b, Load)):
        return None
    tap, across = matched.columns[-1], depth[-1]
    steps = [_step(b, axis) for axis in (across, tap)]
    if _step(a, across) != 1 or not isinstance(tap.extent, int) or not 1 < tap.extent <= TAPS:
        return None
    if isinstance(across.extent, int) and across.extent < NARROW:
        return None
    stride, dilate = steps
    if stride is None or dilate is None or not 0 < stride <= TAPS or 1 not in (stride, dilate):
        return None
    return Gradient(matched, a, b, stride, dilate)


def _step(load: Load, axis: Axis) -> int | None:
    """Return the constant step of a read along an axis; None where there is none."""
    if not isinstance(load.offset, Index):
        return None
    found = linear(load.offset.dim, axis.name)
    return found[0] if found is not None and isinstance(found[0], int) else None


def schedule(kernel: Kernel, items: Sequence[Nest], found: Gradient, target: Target) -> Kernel:
    """Return the kernel in blocks of output channels by rows of windows, each over all images.

    Parameters
    ----------
    kernel : Kernel
        The plain kernel.
    items : sequence of Nest
        Its stores.
    found : Gradient
        What `match` found in them.
    target : Target
    """
    return _Blocks(found, target).kernel(kernel, items)


class _Blocks:
    """Writes the loops over blocks.

    Inside the kernel ``channel0`` and ``row0`` are where the block at hand starts, ``channels`` and
    ``rows`` how far it goes; ``line0``, ``lines``, ``across0`` and ``width`` are the stretch of
    depth at hand.
    """

    def __init__(self, found: Gradient, target: Target) -> None:
        self.found, self.names = found, Names()
        dtype = found.matched.reduce.dtype
        self.lanes = lanes = target.lanes(dtype)
        assert isinstance(found.tap.extent, int)
        self.taps = found.tap.extent
        self.vectors = max(min(target.registers * 3 // 4 // self.taps, 4), 1)
        self.limit = max(SUMS // self.taps, 1)
        channels = self.vectors * lanes
        self.turned = scratch("turned_block", dtype, (DEPTH, channels), lanes)
        self.sums = scratch("sums_block", dtype, (self.limit * self.taps, channels), lanes)
        self.strip = scratch("strip", dtype, (lanes, self.limit * self.taps + lanes), lanes)
        masked = found.data.mask is not None
        self.padded = Buffer("padded", dtype, (PADDED,), "stack") if masked else None
        self.count = target.cores  # blocks are alike, and each transposes the gradient for itself

    def kernel(self, kernel: Kernel, items: Sequence[Nest]) -> Kernel:
        """Return the scheduled kernel."""
        buffers = [self.turned, self.sums, self.strip, *([self.padded] if self.padded else [])]
        sizes = tuple(Let(name, E.index(value)) for name, value in self._sizes().items())
        block = (*self._place(), self._over_depth(), *self._results(items))
        loop = For("p", E.index(symbol(BEGIN)), E.index(symbol(END)), block)
        extents = self._sizes(named=False)
        extent = extents["channel_blocks"] * extents["row_blocks"]
        depth = product(a.extent for a in self.found.matched.depth)
        terms = extents["row_step"] * self.taps * extents["channel_step"] * depth
        body = (*map(Alloc, buffers), *sizes, loop)
        return replace(kernel, body=body, extent=extent, work=200 + terms // (4 * self.lanes))

    def _sizes(self, named: bool = True) -> dict[str, Dim]:
        """Return counts and sizes, over kernel sizes and, if ``named``, the ones before."""
        found, lanes = self.found, self.lanes
        known: dict[str, Dim] = {}

        def name(text: str, value: Dim) -> Dim:
            known[text] = value
            return symbol(text) if named else value

        channels, rows = found.channel.extent, product(a.extent for a in found.rows)
        # Sizes of nothing divide as those of one do.
        blocks = name("channel_blocks", ceil_div(channels, self.vectors * lanes))
        name("channel_step", ceil_div(ceil_div(channels, dim_max(blocks, 1)), lanes) * lanes)
        wanted = dim_min(ceil_div(self.count, dim_max(blocks, 1)), ceil_div(rows, LEAST_ROWS))
        row_blocks = name("row_blocks", dim_max(ceil_div(rows, self.limit), wanted))
        name("row_step", ceil_div(rows, dim_max(row_blocks, 1)))
        width = name("width_step", dim_max(dim_min(found.across.extent, DEPTH), 1))
        pitch = name("pitch", width * found.stride + (self.taps - 1) * found.dilate + lanes)
        name("line_step", dim_max(dim_min(DEPTH // width, PADDED // pitch), 1))
        return known

    def _place(self) -> Body:
        """Return statements that find the block of iteration ``p``."""
        rows = product(a.extent for a in self.found.rows)
        row0, channel0 = symbol("row0"), symbol("channel0")
        step, wide = symbol("row_step"), symbol("channel_step")
        places: dict[str, Dim] = {
            "row0": symbol("p") % symbol("row_blocks") * step,
            "channel0": symbol("p") // symbol("row_blocks") * wide,
            "rows": dim_max(dim_min(rows - row0, step), 0),
            "channels": dim_min(self.found.channel.extent - channel0, wide),
        }
        return tuple(Let(name, E.index(value)) for name, value in places.items())

    # -- sums --------------------------------------------------------------------------------

    def _over_depth(self) -> For:
        """Return the loops over stretches of depth that leave a block's sums in scratch."""
        found = self.found
        lines, width = product(a.extent for a in found.lines), found.across.extent
        line0, across0 = symbol("line0"), symbol("across0")
        body = (
            Let("across0", E.index(symbol("stretch") * symbol("width_step"))),
            Let("width", E.index(dim_min(width - across0, symbol("width_step")))),
            *self._turn(line0 * width + across0, symbol("lines") * symbol("width")),
            *self._over_rows(),
        )
        # Of nothing there is one empty stretch, which leaves the sums at zero.
        stretches = dim_max(ceil_div(width, symbol("width_step")), 1)
        some = (
            Let("line0", E.index(symbol("line_block") * symbol("line_step"))),
            Let("lines", E.index(dim_min(lines - line0, symbol("line_step")))),
            For("stretch", E.index(0), E.index(stretches), body),
        )
        blocks = dim_max(ceil_div(lines, symbol("line_step")), 1)
        return For("line_block", E.index(0), E.index(blocks), some)

    def _turn(self, start: Dim, count: Dim) -> Body:
        """Transpose the output's gradient at ``count`` positions from ``start`` on."""
        axes, (gradient,) = merged(self.found.matched.depth, [self.found.gradient])
        channels = Stretch((self.found.channel,), symbol("channel0"), symbol("channels"))
        body = pack_turned(
            self.turned, Stretch(axes, start, count), channels, gradient, self.lanes, self.names
        )
        assert body is not None
        return body

    def _over_rows(self) -> Body:
        """Return the loop over rows of windows."""
        before, rows = touched(
            Stretch(self.found.rows, symbol("row0"), symbol("rows")), self.names
        )
        inside, lines = touched(
            Stretch(self.found.lines, symbol("line0"), symbol("lines")), self.names
        )

        def row(position: Dim) -> Body:
            place = (position - symbol("row0")) * self.taps
            return (*self._copy_rows(lines), *self._by_width(place, lines))

        return (*before, *inside, *over(rows, self.names, row))

    def _copy_rows(self, lines: Stretch) -> Body:
        """Copy the data under one row of the window, with its padding."""
        if self.padded is None:
            return ()
        found, padded, q = self.found, self.padded, symbol("column")
        # One of the two steps is one: along that loop variable lie all columns of the data.
        ways: tuple[dict[str, Dim], dict[str, Dim]] = (
            {found.across.name: symbol("across0"), found.tap.name: q},
            {found.across.name: symbol("across0") + q, found.tap.name: 0},
        )
        value = substituted(found.data, ways[found.dilate != 1], {})
        reach = (symbol("width") - 1) * found.stride + (self.taps - 1) * found.dilate + 1

        rest = E.iota(self.lanes) < E.index(reach - q)
        lets, vector = window_vector(value, "column", self.lanes, rest, lines)

        def line(position: Dim) -> Body:
            place = E.index((position - lines.start) * symbol("pitch") + q)
            return (Store(padded, place, vector, (1,)),)

        body = (*lets, *over(lines, self.names, line))
        return (For("column", E.index(0), E.index(reach), body, step=self.lanes),)

    def _by_width(self, place: Dim, lines: Stretch) -> Body:
        """Return the sums of a row's taps; the channels decide how many vectors a tile has."""
        tiles = [self._tile(place, lines, v + 1) for v in range(self.vectors)]
        body = tiles[-1]
        for number, tile in reversed(list(enumerate(tiles[:-1]))):
            few = E.index(symbol("channels")) <= E.index((number + 1) * self.lanes)
            body = (If(few, tile, body),)
        return body

    def _tile(self, place: Dim, lines: Stretch, vectors: int) -> Body:
        """Return the sums of a register tile, taps by vectors of channels."""
        found, lanes, pitch = self.found, self.lanes, self.sums.shape[1]
        tile, register = (self.taps, vectors, lanes), f"sum{vectors}"
        start = E.splat(E.const(0, found.matched.reduce.dtype), tile)
        holder = E.use(register, start)
        at, strides = E.index(place * pitch), (pitch, lanes, 1)
        k = symbol("k")

        def line(position: Dim) -> Body:
            local = position - lines.start
            depth = local * symbol("width") + k
            b = E.load(
                self.turned, E.index(depth * self.turned.shape[1]), (1, vectors, lanes),
                (0, lanes, 1),
            )  # fmt: skip
            data = self._scalars(local)
            step = Assign(register, E.apply("fma", data, b, holder))
            return (For("k", E.index(0), E.index(symbol("width")), (step,)),)

        more = E.index(symbol("line_block") + symbol("stretch")) > 0
        return (
            Declare(register, start),
            If(more, (Assign(register, E.load(self.sums, at, tile, strides)),)),
            *self._over_lines(lines, line),
            Store(self.sums, at, holder, strides),
        )

    def _over_lines(self, lines: Stretch, line: Callable[[Dim], Body]) -> Body:
        """Return the loops over lines; where those of the data are copied, their number will do."""
        if self.padded is None:
            return over(lines, self.names, line)
        body = line(lines.start + symbol("line"))
        return (For("line", E.index(0), E.index(lines.count), body),)

    def _scalars(self, line: Dim) -> Expr:
        """Return the data at position ``k`` of a line for each tap."""
        found, k = self.found, symbol("k")
        shape, strides = (self.taps, 1, 1), (found.dilate, 0, 0)
        if self.padded is not None:
            place = line * symbol("pitch") + k * found.stride
            return E.load(self.padded, E.index(place), shape, strides)
        at: dict[str, Dim] = {found.across.name: symbol("across0") + k, found.tap.name: 0}
        return E.load(found.data.buffer, substituted(found.data.offset, at, {}), shape, strides)

    # -- stores ------------------------------------------------------------------------------

    def _results(self, items: Sequence[Nest]) -> Body:
        """Return loops that turn the sums back and apply the stores to them."""
        strip, lanes = symbol("channel_strip"), self.lanes
        taps = symbol("row0") * self.taps, symbol("rows") * self.taps
        down = symbol("channel0") + strip, dim_min(symbol("channels") - strip, lanes)
        sums = Sums(self.strip, down, taps)
        loops = epilogue(self.found.matched, items, sums, lanes, self.names)
        turned = turn(self.sums, self.strip, taps[1], strip, lanes)
        over_strips = For(
            "channel_strip", E.index(0), E.index(symbol("channels")), (*turned, *loops), step=lanes
        )
        return (over_strips,)

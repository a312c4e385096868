"""Recurrent layers on CUDA: the grid is launched once for every step.

A step needs all units of the one before, and the end of a grid is where all blocks meet. A block
has a tile of a step, some sequences by 16 units, forward as well as backward: it multiplies states
(slopes of gates) with its weights, then does what is left to do for its units. So all weights are
read once in a step for every 8 or 16 sequences.

The threads of a block share the depth of the product as well as its columns: each has a vector of
columns for all sequences of the tile, at places of the depth that no other thread of these columns
has. So no weight and no state is read twice by a block, and nothing has to wait in shared memory
but the sums of the threads, which meet there.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_min, symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.loop import TURN, Assign, Barrier, Declare, For, If, Let, Stmt, Store
from graphc.ir.ops.recurrent_cells import GATES, Values, backward_cell, forward_cell
from graphc.ir.ops.recurrent_nests import LANES as UNITS
from graphc.ir.target import Target
from graphc.passes.lower import OwnNest
from graphc.passes.schedule.cuda.grid import BLOCK, THREAD, THREADS, over_blocks, over_turns
from graphc.passes.schedule.loops import Body

ROWS = 16, 8
"""Sequences of a tile: the first where there are blocks for half of all processors then."""
BANKS = 32
"""Numbers of 4 bytes that lie in different banks of shared memory."""
AT_ONCE = 4
"""Sums of other threads that a turn of a loop adds."""
CARRIED = {"lstm": (1,), "gru": (0,)}
"""Mode -> states whose gradient reaches the step before past the product, too."""
PART, VECTOR, FIRST, UNIT_BLOCK, CHUNK = "part", "vector", "first", "unit_block", "chunk"
"""Names of a thread's part of the depth and its vector of columns, of a block's first sequence and
units, and of places of the depth."""


def forward(target: Target) -> OwnNest:
    """Return the loops of a recurrent layer's steps."""
    return OwnNest(partial(_nest, target, _Forward), ((0, 2), (1, 0), (1, 1)))


def backward(target: Target) -> OwnNest:
    """Return the loops of their gradient."""
    return OwnNest(partial(_nest, target, _Backward), ((-1, 0), (-1, 1), (-2, 2), (-3, 2)))


def _nest(
    target: Target, kind: Callable[..., _Tile], k: Any, outputs: Sequence[Buffer],
    *operands: Buffer, **attrs: Any,
) -> Body:  # fmt: skip
    """Return the loop over turns, one more than there are steps, around the blocks of one."""
    large, small = (kind(target, rows, outputs, operands, **attrs) for rows in ROWS)
    enough = dim_min(2 * large.blocks // target.cores, 1)
    extent = enough * large.blocks + (1 - enough) * small.blocks
    choice = If(E.index(enough).ne(0), large.body(), small.body())
    grid = over_blocks(extent, (large.partial,), (choice,), large.threads)
    return over_turns(large.steps + 1, grid)


class _Item:
    """A sequence and a unit that a thread finishes, and what it reads for it ahead."""

    def __init__(self, tile: _Tile, number: int) -> None:
        place = symbol(THREAD) + number * tile.threads
        self.number, self.place = number, place
        self.row, self.unit = symbol(f"row{number}"), symbol(f"unit{number}")
        self.names = (
            Let(str(self.row), E.index(symbol(FIRST) + place // UNITS)),
            Let(str(self.unit), E.index(symbol(UNIT_BLOCK) * UNITS + place % UNITS)),
        )
        self.exists = (
            (E.index(place) < E.index(tile.rows * UNITS))
            & (E.index(self.row) < E.index(tile.batch))
            & (E.index(self.unit) < E.index(tile.units))
        )
        self.ahead: list[Stmt] = []

    def read(self, buffer: Buffer, place: Dim, also: Expr | None = None) -> Expr:
        """Return an element that is read ahead of the product, if the item exists."""
        mask = self.exists if also is None else self.exists & also
        value = E.load(buffer, E.index(place), mask=mask)
        name = f"read{self.number}_{len(self.ahead)}"
        self.ahead.append(Let(name, value))
        return E.use(name, value)


class _Tile(ABC):
    """What a block does: ``rows`` sequences by 16 units of a step."""

    steps: Dim
    batch: Dim
    units: Dim

    def __init__(self, target: Target, rows: int, packed: Buffer, columns: int) -> None:
        self.rows, self.packed, self.columns = rows, packed, columns
        self.depth = packed.shape[1]
        self.lanes = target.vector_bytes // packed.dtype.item_bytes
        self.vectors = columns // self.lanes
        self.parts = 1 << (THREADS // self.vectors).bit_length() - 1
        self.threads = self.parts * self.vectors
        # Two rows that a warp reads, and two parts that it writes, begin in different banks.
        self.row_pitch = columns if columns % BANKS else columns + UNITS
        pitch = rows * self.row_pitch + (0 if self.vectors >= 8 else UNITS)
        self.partial = Buffer("partial", packed.dtype, (self.parts, pitch), "shared")
        zeros = E.splat(E.const(0, packed.dtype), (self.lanes,))
        self.sums = [E.use(f"sum{row}", zeros) for row in range(rows)]
        self.counter = itertools.count()

    @property
    def blocks(self) -> Dim:
        """How many blocks there are."""
        return ceil_div(self.batch, self.rows) * ceil_div(self.units, UNITS)

    def items(self) -> list[_Item]:
        """Return what each thread finishes."""
        return [_Item(self, number) for number in range(-(-self.rows * UNITS // self.threads))]

    def body(self) -> Body:
        """Return what a thread does."""
        items = self.items()
        finished = [If(item.exists, self.finished(item)) for item in items]
        return (
            *self.named(items),
            *(stmt for item in items for stmt in item.ahead),
            *(Declare(held.name, E.splat(E.const(0, held.dtype), held.tile)) for held in self.sums),
            *self.product(),
            *self._kept(),
            Barrier(),
            *finished,
        )

    def named(self, items: Sequence[_Item]) -> Body:
        """Return statements that name what the thread's number says."""
        block, unit_blocks = symbol(BLOCK), ceil_div(self.units, UNITS)
        return (
            Let(FIRST, E.index(block // unit_blocks * self.rows)),
            Let(UNIT_BLOCK, E.index(block % unit_blocks)),
            *(stmt for item in items for stmt in item.names),
        )

    @abstractmethod
    def product(self) -> Body:
        """Return what adds the products with the block's weights to the thread's sums."""

    @abstractmethod
    def finished(self, item: _Item) -> Body:
        """Return what is done when products are known."""

    # -- products ----------------------------------------------------------------------------

    def added(self, source: Buffer, step: Dim) -> Body:
        """Return the loop over the thread's places of the depth, over rows of one step."""
        each = self.lanes
        if not isinstance(self.depth, int) or self.depth % each:
            each = 1
        rows, depth = range(self.rows), symbol(CHUNK) * each
        named = [
            Let(f"from{row}", E.index(dim_min(symbol(FIRST) + row, self.batch - 1)))
            for row in rows
        ]
        body: list[Stmt] = []
        for number in range(each):
            place = symbol(UNIT_BLOCK) * self.depth + depth + number
            column = symbol(VECTOR) * self.lanes
            weights = E.load(
                self.packed, E.index(place * self.columns + column), (self.lanes,), (1,)
            )
            body.append(Let(f"weights{number}", weights))
        for row in rows:
            place = (step * self.batch + symbol(f"from{row}")) * self.depth + depth
            factors = E.load(source, E.index(place), (each,), (1,))
            body.append(Let(f"factors{row}", factors))
            factors = E.use(f"factors{row}", factors)
            for number in range(each):
                factor = E.repeat(factors, self.lanes, self.lanes, number * self.lanes)
                weights = E.use(f"weights{number}", self.sums[row])
                total = E.apply("fma", factor, weights, self.sums[row])
                body.append(Assign(self.sums[row].name, total))
        part, stop = E.index(symbol(PART)), E.index(ceil_div(self.depth, each))
        return (
            Let(PART, E.index(symbol(THREAD) // self.vectors)),
            Let(VECTOR, E.index(symbol(THREAD) % self.vectors)),
            *named,
            For(CHUNK, part, stop, tuple(body), step=self.parts),
        )

    def _kept(self) -> Body:
        """Return the stores of the thread's sums to shared memory."""
        part, vector = symbol(THREAD) // self.vectors, symbol(THREAD) % self.vectors
        first = part * self.partial.shape[1] + vector * self.lanes
        return tuple(
            Store(self.partial, E.index(first + row * self.row_pitch), held, (1,))
            for row, held in enumerate(self.sums)
        )

    def total(self, item: _Item, gate: int, start: Expr) -> tuple[Body, Expr]:
        """Return what adds up the parts of a gate's product, and the sum."""
        name, pitch = f"total{item.number}_{gate}", self.partial.shape[1]
        place = item.place // UNITS * self.row_pitch + gate * UNITS + item.place % UNITS
        held = E.use(name, start)
        adds = tuple(
            Assign(name, held + E.load(
                self.partial, E.index((symbol(PART) + number) * pitch + place)
            ))
            for number in range(AT_ONCE)
        )  # fmt: skip
        loop = For(PART, E.index(0), E.index(self.parts), adds, step=AT_ONCE)
        return (Declare(name, start), loop), held

    # -- places ------------------------------------------------------------------------------

    def at(self, step: Dim, item: _Item, part: int = 0, parts: int = 1) -> Dim:
        """Return the place of an item in an array whose rows have ``parts`` times the units."""
        return ((step * self.batch + item.row) * parts + part) * self.units + item.unit

    def own(self, item: _Item) -> Dim:
        """Return the place of an item in an array of one step."""
        return self.at(0, item)

    def name(self) -> str:
        """Return a fresh name."""
        return f"value{next(self.counter)}"


class _Forward(_Tile):
    """In the first turn states are copied; each other one is a step."""

    def __init__(
        self, target: Target, rows: int, outputs: Sequence[Buffer], operands: Sequence[Buffer],
        mode: str, reverse: bool,
    ) -> None:  # fmt: skip
        self.mode, self.gates = mode, GATES[mode]
        self.x, packed, self.bias, *self.starts = operands
        super().__init__(target, rows, packed, self.gates * UNITS)
        self.steps, self.batch, _ = self.x.shape
        self.units = self.starts[0].shape[1]
        self.given, self.kept = outputs[0], outputs[-1]
        self.states = outputs[1 : 1 + len(self.starts)]
        turn = symbol(TURN)
        self.step = self.steps - turn if reverse else turn - 1
        self.before, self.after = self.step + int(reverse), self.step + 1 - int(reverse)
        self.start = self.steps * int(reverse)

    def body(self) -> Body:
        """Return what a thread does."""
        items = self.items()
        copies = []
        for item in items:
            pairs = zip(self.starts, self.states, strict=True)
            stores = tuple(
                Store(state, E.index(self.at(self.start, item)), E.load(
                    start, E.index(self.own(item))
                ))
                for start, state in pairs
            )  # fmt: skip
            copies.append(If(item.exists, stores))
        begins = E.index(symbol(TURN)).eq(0)
        return (If(begins, (*self.named(items), *copies), super().body()),)

    def product(self) -> Body:
        """Return the product of the states of the step before."""
        return self.added(self.states[0], self.before)

    def finished(self, item: _Item) -> Body:
        """Return gates, states and outputs of the step."""
        gates = range(self.gates)
        body: list[Stmt] = []
        xs = [item.read(self.x, self.at(self.step, item, gate, self.gates)) for gate in gates]
        hidden = []
        for gate in gates:
            start = item.read(self.bias, gate * self.units + item.unit)
            if self.mode == "lstm":
                start = start + xs[gate]
            adding, total = self.total(item, gate, start)
            body += adding
            hidden.append(total)
        values = Values(self.name)
        found, kept = forward_cell(
            self.mode, values, xs, hidden,
            lambda number: item.read(self.states[number], self.at(self.before, item)),
        )  # fmt: skip
        stores = [
            Store(buffer, E.index(self.at(self.after, item)), value)
            for buffer, value in zip(self.states, found, strict=True)
        ]
        stores.append(Store(self.given, E.index(self.at(self.step, item)), found[0]))
        stores += [
            Store(self.kept, E.index(self.at(self.step, item, part, len(kept))), value)
            for part, value in enumerate(kept)
        ]
        return (*body, *values.body, *stores)


class _Backward(_Tile):
    """Each turn but the last is a step; each but the first has one behind it.

    What goes to the step before past the product waits in the results for the start.
    """

    def __init__(
        self, target: Target, rows: int, outputs: Sequence[Buffer], operands: Sequence[Buffer],
        mode: str, reverse: bool, given: Sequence[bool],
    ) -> None:  # fmt: skip
        super().__init__(target, rows, operands[-1], UNITS)
        count = 1 + (mode == "lstm")
        rest = iter(operands)
        arriving = [next(rest) if there else None for there in given]
        self.mode = mode
        self.of_outputs, self.of_states = arriving[0], arriving[1 : 1 + count]
        self.values = [next(rest) for _ in range(count)]
        self.kept = None if mode.startswith("rnn") else next(rest)
        self.of_kept = None if self.kept is None else arriving[-1]
        self.projected, self.hidden = outputs[0], outputs[1 if mode == "gru" else 0]
        self.carried = outputs[-count:]
        self.steps, self.batch, _ = self.projected.shape
        self.units = self.carried[0].shape[1]
        turn, back = symbol(TURN), int(reverse)
        self.step = turn if reverse else self.steps - 1 - turn
        self.before, self.after = self.step + back, self.step + 1 - back
        self.behind = self.step - 1 if reverse else self.step + 1
        self.start = self.steps * back
        self.follows = E.index(0) < E.index(turn)
        self.stands = E.index(turn) < E.index(self.steps)

    def product(self) -> Body:
        """Return the product of the slopes of the step behind."""
        return (If(self.follows, self.added(self.hidden, self.behind)),)

    def finished(self, item: _Item) -> Body:
        """Return the slopes of the step; or, behind the first one, those of the start."""
        zero = E.const(0, self.packed.dtype)
        adding, total = self.total(item, 0, zero)
        slopes = [total, zero][: len(self.carried)]
        for number in CARRIED.get(self.mode, ()):
            past = item.read(self.carried[number], self.own(item), self.follows)
            slopes[number] = past if number else total + past
        return (*adding, If(self.stands, self._stepped(item, slopes), self._ended(item, slopes)))

    def _ended(self, item: _Item, slopes: Sequence[Expr]) -> Body:
        """Return the stores of the gradients of the states at the start."""
        stores = []
        for slope, buffer, given in zip(slopes, self.carried, self.of_states, strict=True):
            if given is not None:
                ends = E.index(symbol(TURN)).eq(E.index(self.steps))
                slope = slope + item.read(given, self.at(self.start, item), ends)
            stores.append(Store(buffer, E.index(self.own(item)), slope))
        return tuple(stores)

    def _stepped(self, item: _Item, slopes: Sequence[Expr]) -> Body:
        """Return the gradient of a step's projections."""
        values, slopes = Values(self.name), list(slopes)

        def read(buffer: Buffer, step: Dim, part: int = 0, parts: int = 1) -> Expr:
            return item.read(buffer, self.at(step, item, part, parts), self.stands)

        for number, given in enumerate(self.of_states):
            if given is not None:
                slopes[number] = slopes[number] + read(given, self.after)
        if self.of_outputs is not None:
            slopes[0] = slopes[0] + read(self.of_outputs, self.step)
        gates, more = (
            None if buffer is None else [read(buffer, self.step, part, 4) for part in range(4)]
            for buffer in (self.kept, self.of_kept)
        )
        projected, hidden, carried = backward_cell(
            self.mode, values, [values(slope) for slope in slopes], gates or [], more,
            lambda number: read(self.values[number], self.before),
            lambda number: read(self.values[number], self.after),
        )  # fmt: skip
        targets = {self.projected: projected, self.hidden: hidden}
        stores = [
            Store(buffer, E.index(self.at(self.step, item, part, len(parts))), value)
            for buffer, parts in targets.items()
            for part, value in enumerate(parts)
        ]
        stores += [
            Store(self.carried[number], E.index(self.own(item)), carried[number])
            for number in CARRIED.get(self.mode, ())
        ]
        return (*values.body, *stores)

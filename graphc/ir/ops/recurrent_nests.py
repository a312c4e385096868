"""Loops of recurrent layers: a block of the batch goes through all steps by itself.

Forward, a register tile of rows by units has one accumulator for each gate; weights lie in blocks
of units, so that each step reads them in order. Backward, gates of a step come first, then their
product with the weights, which is what the state before gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, dim_max, dim_min, symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.loop import Assign, Bind, Declare, For, Stmt, Store
from graphc.ir.ops.recurrent_cells import GATES, Values, backward_cell, forward_cell
from graphc.ir.types import DType, float32, float64

LANES = 16
"""Units of a block."""
ROWS = 16
"""Rows of the batch that go through the sequence together: weights are read once for all.

A batch of less than two such blocks is cut into two of a multiple of ``FEWEST`` rows.
"""
FEWEST = 4
TILES = {float32: ((6, 12), (4, 4), (1, 1)), float64: ((3, 3), (1, 1))}
"""Rows of register tiles, and of how many rows each kind takes a multiple.

With the vectors of four gates six rows take 24 registers; eight rows are better done by fours.
"""
ACROSS = 4
"""Vectors of a tile of the backward product."""

Body = tuple[Stmt, ...]


class _Walk:
    """The loops that both directions share, and places in arrays of steps, rows and units."""

    def __init__(self, k: Any, sizes: tuple[Dim, Dim, Dim], reverse: bool) -> None:
        self.steps, self.batch, self.units = sizes
        self.reverse = int(reverse)
        self.names = k.axis_names
        self.block = symbol(self.names())
        half = ceil_div(self.batch, 2 * FEWEST) * FEWEST
        self.rows = dim_max(dim_min(half, ROWS), FEWEST)
        self.first = self.block * self.rows
        self.stop = dim_min(self.first + self.rows, self.batch)

    @property
    def start(self) -> Dim:
        """Where the state at the start lies among the states."""
        return self.steps * self.reverse

    def loop(self, start: Dim, stop: Dim, body: Callable[[Dim], Body], step: int = 1) -> For:
        """Return a loop over a fresh variable."""
        name = self.names()
        return For(name, E.index(start), E.index(stop), body(symbol(name)), step=step)

    def over_blocks(self, body: Body) -> Body:
        """Return the loop over blocks of the batch, which run side by side."""
        blocks = E.index(ceil_div(self.batch, self.rows))
        return (For(str(self.block), E.index(0), blocks, body, bind=Bind.PARALLEL),)

    def over_rows(self, dtype: DType, body: Callable[[Dim, int], Body]) -> Body:
        """Return loops over tiles of rows of the block, each as large as the rows left allow."""
        loops, start = [], self.first
        for count, multiple in TILES[dtype]:
            whole = start + (self.stop - start) // multiple * multiple
            loops.append(self._tiles(start, whole, count, body))
            start = whole
        return tuple(loops)

    def _tiles(self, start: Dim, stop: Dim, count: int, body: Callable[[Dim, int], Body]) -> For:
        return self.loop(start, stop, lambda row: body(row, count), count)

    def vectors(self, body: Callable[[Dim, Expr], Body]) -> For:
        """Return the loop over vectors of units, with the mask of those that exist."""
        return self.loop(0, self.units, lambda unit: body(unit, self.inside(unit)), LANES)

    def sweep(self, turn: Dim, stop: Dim, width: int, body: Callable[[Dim], Body]) -> For:
        """Return the loop over blocks of units, in every second turn the last block first.

        Weights may be larger than the second-level cache: so each turn begins with those that the
        one before read last.
        """
        count, odd = ceil_div(stop, width), turn - turn // 2 * 2
        return self.loop(
            0, count, lambda block: body((block + odd * (count - 1 - 2 * block)) * width)
        )

    def inside(self, unit: Dim) -> Expr:
        """Return the mask of the units that exist in a vector."""
        return E.iota(LANES) < E.index(self.units - unit)

    def over_units(self, body: Callable[[Dim, Dim, Expr], Body]) -> For:
        """Return the loops over rows of the block and vectors of units."""
        return self.loop(self.first, self.stop, lambda row: (
            self.vectors(lambda unit, mask: body(row, unit, mask)),
        ))  # fmt: skip

    def at(self, step: Dim, row: Dim, unit: Dim, parts: int = 1) -> Expr:
        """Return the offset of a unit in an array whose rows have ``parts`` times the units."""
        return E.index((step * self.batch + row) * parts * self.units + unit)


def _zeros(dtype: DType) -> Expr:
    return E.splat(E.const(0, dtype), (LANES,))


# -- forward ---------------------------------------------------------------------------------


def forward_nest(k: Any, outputs: Sequence[Buffer], operands: Sequence[Buffer], mode: str,
                 reverse: bool) -> Body:  # fmt: skip
    """Return the loops over blocks of the batch, steps, and blocks of units."""
    x, packed, bias, *starts = operands
    steps, batch, _ = x.shape
    walk = _Walk(k, (steps, batch, starts[0].shape[1]), reverse)
    forward = _Forward(walk, mode, outputs, operands)

    def copied(row: Dim, unit: Dim, mask: Expr) -> Body:
        pairs = zip(starts, outputs[1:])
        return tuple(_copied(walk, *pair, row, unit, mask) for pair in pairs)

    def step(turn: Dim) -> Body:
        t = steps - 1 - turn if reverse else turn
        gathered = forward.gathered(t) if mode == "lstm" else ()
        return (*gathered, walk.sweep(turn, walk.units, LANES, lambda unit: walk.over_rows(
            x.dtype, lambda row, count: forward.tile(t, row, count, unit, walk.inside(unit))
        )),)  # fmt: skip

    return walk.over_blocks((walk.over_units(copied), walk.loop(0, steps, step)))


def _copied(
    walk: _Walk, source: Buffer, target: Buffer, row: Dim, unit: Dim, mask: Expr
) -> Store:
    value = E.load(source, E.index(row * walk.units + unit), (LANES,), (1,), mask)
    return Store(target, walk.at(walk.start, row, unit), value, (1,), mask)


class _Forward:
    """One tile of a step: products with the weights, then the gates."""

    def __init__(
        self, walk: _Walk, mode: str, outputs: Sequence[Buffer], operands: Sequence[Buffer]
    ) -> None:
        self.walk, self.mode = walk, mode
        self.x, self.packed, self.bias = operands[:3]
        self.given, self.kept = outputs[0], outputs[-1]
        self.states = outputs[1 : 2 + (mode == "lstm")]
        self.gates = GATES[mode]

    def gathered(self, t: Dim) -> Body:
        """Return the loops that put inputs plus biases where the gates of a step will lie.

        Tiles read lines far apart. This way those are in the cache, and will be written anyway.
        """
        walk, width = self.walk, self.gates * self.walk.units

        def add(row: Dim, column: Dim) -> Body:
            place = E.index((t * walk.batch + row) * width + column)
            mask = E.iota(LANES) < E.index(width - column)
            x, bias = (
                E.load(buffer, at, (LANES,), (1,), mask)
                for buffer, at in ((self.x, place), (self.bias, E.index(column)))
            )
            return (Store(self.kept, place, x + bias, (1,), mask),)

        return (walk.loop(walk.first, walk.stop, lambda row: (
            walk.loop(0, width, lambda column: add(row, column), LANES),
        )),)  # fmt: skip

    def tile(self, t: Dim, row: Dim, count: int, unit: Dim, mask: Expr) -> Body:
        """Return the statements of ``count`` rows by a vector of units at step ``t``."""
        walk, shape = self.walk, (count, LANES)
        before, after = t + walk.reverse, t + 1 - walk.reverse
        sums: list[Expr] = []
        body: list[Stmt] = []
        registers = [walk.names() for _ in range(self.gates)]
        for gate in range(self.gates):
            column = gate * walk.units + unit
            if self.mode == "lstm":
                place = walk.at(t, row, column, self.gates)
                start = E.load(self.kept, place, shape, (self.gates * walk.units, 1), mask)
            else:
                start = E.load(self.bias, E.index(column), shape, (0, 1), mask)
            body.append(Declare(registers[gate], start))
            sums.append(E.use(registers[gate], start))

        def term(depth: Dim) -> Body:
            state = E.load(self.states[0], walk.at(before, row, depth), (count, 1), (walk.units, 0))
            place = ((unit // LANES * walk.units + depth) * self.gates) * LANES
            return tuple(
                Assign(name, E.apply("fma", state, E.load(
                    self.packed, E.index(place + gate * LANES), (1, LANES), (0, 1)
                ), sums[gate]))
                for gate, name in enumerate(registers)
            )  # fmt: skip

        body.append(walk.loop(0, walk.units, term))
        values = Values(walk.names)

        def read(buffer: Buffer, step: Dim, part: int = 0, parts: int = 1) -> Expr:
            place = walk.at(step, row, part * walk.units + unit, parts)
            return values(E.load(buffer, place, shape, (parts * walk.units, 1), mask))

        xs = [] if self.mode == "lstm" else [
            read(self.x, t, gate, self.gates) for gate in range(self.gates)
        ]  # fmt: skip
        found, kept = forward_cell(self.mode, values, xs, sums, lambda number: read(
            self.states[number], before
        ))  # fmt: skip
        writes = [
            Store(buffer, walk.at(after, row, unit), value, (walk.units, 1), mask)
            for buffer, value in zip(self.states, found)
        ]
        writes.append(Store(self.given, walk.at(t, row, unit), found[0], (walk.units, 1), mask))
        writes += [
            Store(
                self.kept, walk.at(t, row, part * walk.units + unit, len(kept)), value,
                (len(kept) * walk.units, 1), mask,
            )
            for part, value in enumerate(kept)
        ]  # fmt: skip
        return (*body, *values.body, *writes)


# -- backward --------------------------------------------------------------------------------


def backward_nest(k: Any, outputs: Sequence[Buffer], operands: Sequence[Buffer], mode: str,
                  reverse: bool, given: Sequence[bool]) -> Body:  # fmt: skip
    """Return the loops over blocks of the batch and steps, the last one first."""
    steps, batch, _ = outputs[0].shape
    walk = _Walk(k, (steps, batch, outputs[-1].shape[1]), reverse)
    backward = _Backward(walk, mode, outputs, operands, given)

    def step(turn: Dim) -> Body:
        t = turn if reverse else steps - 1 - turn
        slopes = walk.over_units(lambda row, unit, mask: backward.slopes(t, row, unit, mask))
        return (slopes, *backward.product(turn, t))

    first = walk.over_units(backward.cleared)
    last = (walk.over_units(backward.ended),) if any(backward.of_states) else ()
    return walk.over_blocks((first, walk.loop(0, steps, step), *last))


class _Backward:
    """The gradient of a step; what goes to the step before waits in the results for the start."""

    def __init__(
        self, walk: _Walk, mode: str, outputs: Sequence[Buffer], operands: Sequence[Buffer],
        given: Sequence[bool],
    ) -> None:  # fmt: skip
        count = 1 + (mode == "lstm")
        self.walk, self.mode = walk, mode
        rest = iter(operands)
        arriving = [next(rest) if there else None for there in given]
        self.of_outputs, self.of_states = arriving[0], arriving[1 : 1 + count]
        self.values = [next(rest) for _ in range(count)]
        self.kept = None if mode.startswith("rnn") else next(rest)
        self.kept_slope = None if self.kept is None else arriving[-1]
        self.packed = next(rest)
        self.projected, self.hidden = outputs[0], outputs[1 if mode == "gru" else 0]
        self.carried = outputs[-count:]

    def _place(self, row: Dim, unit: Dim) -> Expr:
        return E.index(row * self.walk.units + unit)

    def cleared(self, row: Dim, unit: Dim, mask: Expr) -> Body:
        """Return the stores of zeros that the last step gets from behind."""
        return tuple(
            Store(buffer, self._place(row, unit), _zeros(buffer.dtype), (1,), mask)
            for buffer in self.carried
        )

    def ended(self, row: Dim, unit: Dim, mask: Expr) -> Body:
        """Return the stores that add what arrives at the state at the start itself."""
        place, start = self._place(row, unit), self.walk.at(self.walk.start, row, unit)
        stores = []
        for buffer, given in zip(self.carried, self.of_states):
            if given is None:
                continue
            there = E.load(buffer, place, (LANES,), (1,), mask)
            value = there + E.load(given, start, (LANES,), (1,), mask)
            stores.append(Store(buffer, place, value, (1,), mask))
        return tuple(stores)

    def slopes(self, t: Dim, row: Dim, unit: Dim, mask: Expr) -> Body:
        """Return the gradient of a step's projections, for a row and a vector of units."""
        walk, name = self.walk, Values(self.walk.names)
        after, before = t + 1 - walk.reverse, t + walk.reverse

        def read(buffer: Buffer, place: Expr) -> Expr:
            return name(E.load(buffer, place, (LANES,), (1,), mask))

        def parts(buffer: Buffer) -> list[Expr]:
            return [read(buffer, walk.at(t, row, n * walk.units + unit, 4)) for n in range(4)]

        own = self._place(row, unit)
        slopes = [read(carried, own) for carried in self.carried]
        for number, given in enumerate(self.of_states):
            if given is not None:
                slopes[number] = name(read(given, walk.at(after, row, unit)) + slopes[number])
        if self.of_outputs is not None:
            slopes[0] = name(read(self.of_outputs, walk.at(t, row, unit)) + slopes[0])
        gates = [] if self.kept is None else parts(self.kept)
        more = None if self.kept_slope is None else parts(self.kept_slope)

        def old(number: int) -> Expr:
            return read(self.values[number], walk.at(before, row, unit))

        def new(number: int) -> Expr:
            return read(self.values[number], walk.at(after, row, unit))

        projected, hidden, carried = backward_cell(
            self.mode, name, slopes, gates, more, old, new
        )

        def store(buffer: Buffer, number: int, parts: int, value: Expr) -> Store:
            place = walk.at(t, row, number * walk.units + unit, parts)
            return Store(buffer, place, value, (1,), mask)

        writes = [store(self.projected, n, len(projected), v) for n, v in enumerate(projected)]
        if self.hidden is not self.projected:
            writes += [store(self.hidden, n, len(hidden), v) for n, v in enumerate(hidden)]
        writes += [
            Store(buffer, own, value, (1,), mask)
            for buffer, value in zip(self.carried, carried, strict=True)
        ]
        return (*name.body, *writes)

    def product(self, turn: Dim, t: Dim) -> Body:
        """Return the loops that add the product with the weights to what is carried."""
        walk, width = self.walk, self.packed.shape[1]
        whole = walk.units // (ACROSS * LANES) * (ACROSS * LANES)

        def tile(row: Dim, count: int, unit: Dim, vectors: int, mask: Expr | None) -> Body:
            shape = (count, LANES)
            zero = E.splat(E.const(0, self.packed.dtype), shape)
            sums = [E.use(walk.names(), zero) for _ in range(vectors)]

            def term(depth: Dim) -> Body:
                slope = E.load(
                    self.hidden, E.index((t * walk.batch + row) * width + depth), (count, 1),
                    (width, 0),
                )  # fmt: skip
                return tuple(
                    Assign(held.name, E.apply("fma", slope, E.load(
                        self.packed, E.index(((unit // LANES + n) * width + depth) * LANES),
                        (1, LANES), (0, 1),
                    ), held))
                    for n, held in enumerate(sums)
                )  # fmt: skip

            adds = []
            for n, held in enumerate(sums):
                place = self._place(row, unit + LANES * n)
                there = E.load(self.carried[0], place, shape, (walk.units, 1), mask)
                adds.append(Store(self.carried[0], place, there + held, (walk.units, 1), mask))
            return (*(Declare(s.name, zero) for s in sums), walk.loop(0, width, term), *adds)

        main = walk.sweep(turn, whole, ACROSS * LANES, lambda unit: walk.over_rows(
            self.packed.dtype, lambda row, count: tile(row, count, unit, ACROSS, None)
        ))  # fmt: skip
        rest = walk.loop(whole, walk.units, lambda unit: walk.over_rows(
            self.packed.dtype, lambda row, count: tile(row, count, unit, 1, walk.inside(unit))
        ), LANES)  # fmt: skip
        return main, rest

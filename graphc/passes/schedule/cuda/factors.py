"""The factors of a product on CUDA: how the threads of a block copy a stretch to shared memory.

Shared memory holds units: a term each, or two terms of 16 bits side by side. Two stretches take
turns: one is read while the other is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Load
from graphc.ir.loop import Assign, Declare, If, Let, Stmt, Store
from graphc.ir.types import DType
from graphc.passes.schedule.cuda.grid import THREAD, placed
from graphc.passes.schedule.lane_groups import runs_along
from graphc.passes.schedule.loops import Body
from graphc.passes.schedule.nest import substituted

THREADS = 256
"""Threads of a block that computes products."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What shared memory holds of a factor.

    Attributes
    ----------
    dtype : DType
    terms : int
        Neighbouring terms of the sum that one unit holds.
    packed : callable
        The unit of that many values.
    """

    dtype: DType
    terms: int
    packed: Callable[[Sequence[Expr]], Expr]


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor of the product: its value over merged axes, and how a block copies it.

    Attributes
    ----------
    name : str
        Prefix of what belongs to it.
    value : Expr
    axes, depth : tuple of Axis
        Those of its side of the result, and those of the sum.
    block : Dim
        Number of the block along its side.
    side : int
        Rows of a block.
    padding : int
        Unused units behind each row of shared memory.
    unit : Unit
    units : int
        Units of the depth that a turn copies and multiplies.
    memory : Buffer
        Two stretches; unit ``k`` of row ``m`` of each lies at ``k * width + m``.
    """

    name: str
    value: Expr
    axes: tuple[Axis, ...]
    depth: tuple[Axis, ...]
    block: Dim
    side: int
    padding: int
    unit: Unit
    units: int
    memory: Buffer

    @property
    def width(self) -> int:
        """Units from one of the depth to the next in shared memory."""
        return self.side + self.padding

    @property
    def turns(self) -> Dim:
        """Stretches of the whole depth."""
        terms = product(axis.extent for axis in self.depth)
        return ceil_div(terms, self.units * self.unit.terms)

    def stretch(self, turn: Dim) -> Dim:
        """Return where the stretch of a turn lies."""
        return turn % 2 * (self.units * self.width)

    def ahead(self) -> Body:
        """Return statements that name the indices of a thread's rows, which stay the same."""
        body: Body = ()
        for number in range(self._copies):
            row = self.block * self.side + self._place(number)[0]
            body += placed(self._rows(number), row)
        return body

    def loads(self, turn: Dim) -> Body:
        """Return the reads of a stretch into registers, zeros outside of the factor."""
        body: list[Stmt] = []
        for number in range(self._copies):
            for term in range(self.unit.terms):
                body += self._load(number, term, turn)
        return tuple(body)

    def stores(self, turn: Dim) -> Body:
        """Return the writes of a stretch to shared memory."""
        body: list[Stmt] = []
        for number in range(self._copies):
            row, unit = self._place(number)
            place = E.index(self.stretch(turn) + unit * self.width + row)
            terms = range(self.unit.terms)
            values = [E.use(self._register(number, term), self.value) for term in terms]
            body.append(Store(self.memory, place, self.unit.packed(values)))
        return tuple(body)

    # -- one unit ----------------------------------------------------------------------------

    @property
    def _copies(self) -> int:
        """Units that each thread copies in a turn."""
        return self.side * self.units // THREADS

    def _place(self, number: int) -> tuple[Dim, Dim]:
        """Return row and unit that a thread copies as its ``number``-th.

        Neighbours in memory are neighbouring threads': along the depth or along the rows.
        """
        thread = symbol(THREAD)
        if self._runs_along_depth():
            return thread // self.units + number * (THREADS // self.units), thread % self.units
        return thread % self.side, thread // self.side + number * (THREADS // self.side)

    def _runs_along_depth(self) -> bool:
        return self._adjacent(self.depth[-1]) and not self._adjacent(self.axes[-1])

    def _adjacent(self, axis: Axis) -> bool:
        """Return whether a long axis has neighbours side by side in memory."""
        loads = [e for e in E.walk(self.value) if isinstance(e, Load)]
        short = isinstance(axis.extent, int)
        return not short and any(runs_along(load, axis.name, 4) for load in loads)

    def _rows(self, number: int) -> list[Axis]:
        return [Axis(f"{axis.name}_{number}", axis.extent) for axis in self.axes]

    def _register(self, number: int, term: int) -> str:
        return f"{self.name}_next{number}_{term}"

    def _load(self, number: int, term: int, turn: Dim) -> list[Stmt]:
        rows, terms = (product(a.extent for a in axes) for axes in (self.axes, self.depth))
        row, unit = self._place(number)
        place = (turn * self.units + unit) * self.unit.terms + term
        inside = E.index(self.block * self.side + row) < E.index(rows)
        inside = inside & (E.index(place) < E.index(terms))
        depth = [Axis(f"{self.name}_{axis.name}", axis.extent) for axis in self.depth]
        new = (*self._rows(number), *depth)
        names: dict[str, Dim] = {
            old.name: symbol(axis.name)
            for old, axis in zip((*self.axes, *self.depth), new, strict=True)
        }
        value, register = substituted(self.value, names, {}), self._register(number, term)
        found = (*placed(depth, place), Assign(register, value))
        return [Declare(register, E.const(0, value.dtype)), If(inside, found)]


def named(name: str, value: Expr, body: list[Stmt]) -> Expr:
    """Add a statement that names a value; return its use."""
    body.append(Let(name, value))
    return E.use(name, value)

"""The factors of a product on CUDA: how the threads of a block copy a stretch to shared memory.

Shared memory holds units: a term each, or two terms of 16 bits side by side. Two stretches take
turns: one is read while the other is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from graphc.ir import expr as E
from graphc.ir.dim import Dim, ceil_div, product, symbol
from graphc.ir.expr import Axis, Buffer, Expr, Load
from graphc.ir.loop import Assign, Declare, If, Let, Stmt, Store
from graphc.ir.types import DType
from graphc.passes.schedule.cuda.grid import (
    THREAD,
    THREADS,
    Whole,
    adjacent,
    exists,
    placed,
    whole,
)
from graphc.passes.schedule.lane_groups import runs_along
from graphc.passes.schedule.loops import Body
from graphc.passes.schedule.nest import substituted
from graphc.passes.schedule.vectorize import vectorize

HALF = "half"
"""Name of which of two stretches a turn multiplies: 0 or 1."""


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
    def lanes(self) -> int:
        """Elements that a thread copies at once."""
        return 1

    @property
    def width(self) -> int:
        """Units from one of the depth to the next in shared memory."""
        return self.side + self.padding

    @property
    def turns(self) -> Dim:
        """Stretches of the whole depth."""
        terms = product(axis.extent for axis in self.depth)
        return ceil_div(terms, self.units * self.unit.terms)

    def stretch(self, other: bool = False) -> Dim:
        """Return where the stretch of this turn lies, or the other one."""
        half = symbol(HALF)
        return (1 - half if other else half) * (self.units * self.width)

    def assumed(self) -> Body:
        """Return statements that name what the others take for granted."""
        return ()

    def ahead(self) -> Body:
        """Return statements that name the indices of a thread's rows, which stay the same."""
        body: Body = ()
        for number in range(self._copies):
            body += placed(self._rows(number), self._row(number))
        return body

    def loads(self, turn: Dim) -> Body:
        """Return the reads of a stretch into registers, zeros outside of the factor."""
        body: list[Stmt] = []
        for number in range(self._copies):
            for term in range(self.unit.terms):
                body += self._load(number, term, turn)
        return tuple(body)

    def stores(self, other: bool = False) -> Body:
        """Return the writes of this turn's stretch to shared memory, or of the other one."""
        body: list[Stmt] = []
        for number in range(self._copies):
            row, unit = self._place(number)
            place = E.index(self.stretch(other) + unit * self.width + row)
            terms = range(self.unit.terms)
            values = [E.use(self._register(number, term), self._value()) for term in terms]
            body.append(self._store(place, self.unit.packed(values)))
        return tuple(body)

    # -- one copy of a thread ----------------------------------------------------------------

    @property
    def _copies(self) -> int:
        """How often each thread copies in a turn."""
        return self.side * self.units // (THREADS * self.lanes)

    def _place(self, number: int) -> tuple[Dim, Dim]:
        """Return row and unit that a thread copies as its ``number``-th.

        Neighbours in memory are neighbouring threads': along the depth or along the rows.
        """
        thread = symbol(THREAD)
        if runs_along_depth(self):
            return thread // self.units + number * (THREADS // self.units), thread % self.units
        return thread % self.side, thread // self.side + number * (THREADS // self.side)

    def _rows(self, number: int) -> list[Axis]:
        """Return the axes of a row, with a copy's names."""
        return [Axis(f"{axis.name}_{number}", axis.extent) for axis in self.axes]

    def _row(self, number: int) -> Dim:
        """Return a copy's position over those axes."""
        return self.block * self.side + self._place(number)[0]

    def _terms(self) -> list[Axis]:
        """Return the axes of the depth, with this factor's names."""
        return [Axis(f"{self.name}_{axis.name}", axis.extent) for axis in self.depth]

    def _term(self, number: int, term: int, turn: Dim) -> Dim:
        """Return a copy's position over those axes."""
        return (turn * self.units + self._place(number)[1]) * self.unit.terms + term

    def _value(self) -> Expr:
        """Return what is read, over the factor's axes and depth."""
        return self.value

    def _sizes(self) -> dict[str, Dim]:
        """Return what is known of sizes."""
        return {}

    def _along(self, axes: Sequence[Axis], names: Sequence[Axis]) -> dict[str, Dim]:
        """Return the indices on axes by the names of a copy's."""
        return {axis.name: symbol(new.name) for axis, new in zip(axes, names, strict=True)}

    def _register(self, number: int, term: int) -> str:
        kind = "next" if self.lanes == 1 else "vector"
        return f"{self.name}_{kind}{number}_{term}"

    def _load(self, number: int, term: int, turn: Dim) -> list[Stmt]:
        rows, terms = self._rows(number), self._terms()
        row, place = self._row(number), self._term(number, term, turn)
        inside = exists(row, rows) & exists(place, terms)
        names = self._along(self.axes, rows) | self._along(self.depth, terms) | self._sizes()
        value, register = substituted(self._value(), names, {}), self._register(number, term)
        found = (*placed(terms, place), Assign(register, value))
        zero = E.splat(E.const(0, value.dtype), value.tile)
        return [Declare(register, zero), If(inside, found)]

    def _store(self, place: Expr, value: Expr) -> Store:
        return Store(self.memory, place, value)


@dataclass(frozen=True, slots=True)
class Vectors(Factor):
    """A factor of which a thread copies neighbours at once.

    Attributes
    ----------
    whole : Whole
        Why the axis that they are on is made of whole vectors.
    """

    whole: Whole

    @property
    def lanes(self) -> int:
        """Elements that a thread copies at once."""
        return self.whole.lanes

    def assumed(self) -> Body:
        """Return statements that name what the others take for granted."""
        return (self.whole.named(),)

    @property
    def _last(self) -> Axis:
        """The axis that neighbours are on."""
        raise NotImplementedError

    def _value(self) -> Expr:
        value = vectorize(self.value, self._last.name, self.lanes, None, {})
        return value if value.tile else E.splat(value, (self.lanes,))

    def _sizes(self) -> dict[str, Dim]:
        return self.whole.sizes

    def _along(self, axes: Sequence[Axis], names: Sequence[Axis]) -> dict[str, Dim]:
        found = Factor._along(self, axes, names)
        if self._last in axes:
            found[self._last.name] *= self.lanes
        return found

    def _in_vectors(self, axes: list[Axis]) -> list[Axis]:
        """Return axes of which the last counts vectors."""
        return [*axes[:-1], Axis(axes[-1].name, self.whole.vectors)]


@dataclass(frozen=True, slots=True)
class RowVectors(Vectors):
    """Neighbours are along the last axis of the rows."""

    @property
    def _last(self) -> Axis:
        return self.axes[-1]

    def _place(self, number: int) -> tuple[Dim, Dim]:
        each = self.side // self.lanes
        thread = symbol(THREAD)
        return thread % each * self.lanes, thread // each + number * (THREADS // each)

    def _rows(self, number: int) -> list[Axis]:
        return self._in_vectors(Factor._rows(self, number))

    def _row(self, number: int) -> Dim:
        return Factor._row(self, number) // self.lanes

    def _store(self, place: Expr, value: Expr) -> Store:
        return Store(self.memory, place, value, (1,))


@dataclass(frozen=True, slots=True)
class DeepVectors(Vectors):
    """Neighbours are along the depth."""

    @property
    def _last(self) -> Axis:
        return self.depth[-1]

    def _place(self, number: int) -> tuple[Dim, Dim]:
        each = self.units // self.lanes
        thread = symbol(THREAD)
        return thread // each + number * (THREADS // each), thread % each * self.lanes

    def _terms(self) -> list[Axis]:
        return self._in_vectors(Factor._terms(self))

    def _term(self, number: int, term: int, turn: Dim) -> Dim:
        return Factor._term(self, number, term, turn) // self.lanes

    def _store(self, place: Expr, value: Expr) -> Store:
        return Store(self.memory, place, value, (self.width,))


def vectors(factor: Factor, lanes: int) -> Factor:
    """Return a factor that is copied in vectors where neighbours lie side by side; or as it is."""
    deep = runs_along_depth(factor)
    last = (factor.depth if deep else factor.axes)[-1]
    found = whole(last.extent, lanes, f"{factor.name}_quotient")
    if found is None or not adjacent(factor.value, last.name) or (deep and factor.unit.terms > 1):
        return factor
    kind = DeepVectors if deep else RowVectors
    return kind(**{f.name: getattr(factor, f.name) for f in fields(factor)}, whole=found)


def runs_along_depth(factor: Factor) -> bool:
    """Return whether neighbours in memory are those along the depth."""
    return _adjacent(factor.value, factor.depth[-1]) and not _adjacent(
        factor.value, factor.axes[-1]
    )


def _adjacent(value: Expr, axis: Axis) -> bool:
    """Return whether a long axis has neighbours side by side in memory."""
    loads = [e for e in E.walk(value) if isinstance(e, Load)]
    short = isinstance(axis.extent, int)
    return not short and any(runs_along(load, axis.name, 4) for load in loads)


def named(name: str, value: Expr, body: list[Stmt]) -> Expr:
    """Add a statement that names a value; return its use."""
    body.append(Let(name, value))
    return E.use(name, value)

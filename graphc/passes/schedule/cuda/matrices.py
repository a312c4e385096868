"""Products of matrices in shared memory, added up in registers by 16 teams of 16 threads.

A *turned* matrix lies in shared memory channel by channel: a team's rows of it are read as one
vector. The others lie row by row. All threads of a team are in one warp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from graphc.ir import expr as E
from graphc.ir.dim import Dim, dim_min, symbol
from graphc.ir.expr import Buffer, Expr, Use
from graphc.ir.loop import Assign, Declare, For, If, Intrinsic, Let, Stmt, Store
from graphc.ir.types import DType
from graphc.passes.schedule.cuda.grid import THREAD, THREADS
from graphc.passes.schedule.loops import Body

TEAMS = MEMBERS = 16
"""Teams of a block, and threads of a team."""
VECTOR_BYTES = 16
"""What one access of shared memory moves for a thread."""
SECTOR = 8
"""Neighbours in memory that are read at once, where a warp reads several rows."""
COLUMNS = 2 * MEMBERS
"""Rows in shared memory have room for a multiple of so many channels."""
TERMS = 16
"""Vectors of products that the loops of a product write out, or a few more."""

AHEAD, AHEAD_BYTES = 16, 128
"""Units that a thread reads ahead at most, as each has an address, too; and their bytes."""

TEAM, MEMBER = symbol(THREAD) // MEMBERS, symbol(THREAD) % MEMBERS


def vector(dtype: DType) -> int:
    """Return how many numbers one access moves; rows are padded by as many.

    Then rows begin in different banks, and neighbouring threads can read those of each.
    """
    return VECTOR_BYTES // dtype.item_bytes


def padded(width: int) -> int:
    """Return the channels that a row has room for."""
    return -(-width // COLUMNS) * COLUMNS


# -- copies ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a matrix, as many as a block takes in a turn, on their way to shared memory.

    `loads` read them into registers, `stores` write these to shared memory: what stands between
    the two does not wait for memory. Where rows have too many units for that, `stores` does both.
    Rows that do not exist are copies of the last one.

    Attributes
    ----------
    name : str
        Prefix of its registers.
    source : Buffer
    place : callable
        Where a row begins.
    width : int
        Channels of a row.
    side : int
        Rows of a turn.
    memory : Buffer
    scale : Expr, optional
        Factor of what is copied.
    """

    name: str
    source: Buffer
    place: Callable[[Dim], Dim]
    width: int
    side: int
    memory: Buffer
    scale: Expr | None = None

    @property
    def pitch(self) -> int:
        """Numbers from a row to the next in shared memory."""
        return padded(self.width) + vector(self.source.dtype)

    @property
    def unit(self) -> int:
        """Numbers that are copied at once."""
        lanes = vector(self.source.dtype)
        return 1 if self.width % lanes else lanes

    @property
    def each(self) -> int:
        """Units of a row with its padding."""
        return padded(self.width) // self.unit

    def declared(self) -> Body:
        """Return the statements that make the registers."""
        zero = E.splat(E.const(0, self.source.dtype), (self.unit,))
        numbers = range(self._copies if self._ahead else 0)
        return tuple(Declare(self._register(number), zero) for number in numbers)

    def loads(self, first: Dim, stop: Dim) -> Body:
        """Return the reads of rows from ``first`` on; there is a row ``stop - 1``."""
        body: list[Stmt] = []
        for number in range(self._copies if self._ahead else 0):
            row, unit = self._task(number)
            named, value = self._load(f"{self.name}_row{number}", first + row, stop, unit)
            body += [named, Assign(self._register(number), value)]
        return tuple(body)

    def stores(self, first: Dim, stop: Dim) -> Body:
        """Return the writes to shared memory of what was read, or is read now."""
        if self._ahead:
            zero = E.splat(E.const(0, self.source.dtype), (self.unit,))
            uses = [E.use(self._register(number), zero) for number in range(self._copies)]
            return tuple(self._kept(number, use) for number, use in enumerate(uses))
        task = symbol("task")
        row, unit = task // self.each, task % self.each
        named, value = self._load(f"{self.name}_row", first + row, stop, unit)
        body = (named, self._store(row, unit, value))
        count = E.index(self.side * self.each)
        return (For("task", E.index(symbol(THREAD)), count, body, step=THREADS),)

    def _load(self, name: str, row: Dim, stop: Dim, unit: Dim) -> tuple[Let, Expr]:
        """Return a unit of a row, and the statement that it stands behind."""
        if padded(self.width) != self.width:
            unit = dim_min(unit, self.width // self.unit - 1)
        place = E.index(self.place(symbol(name)) + unit * self.unit)
        value = E.load(self.source, place, (self.unit,), (1,))
        return Let(name, E.index(dim_min(row, stop - 1))), value

    def _store(self, row: Dim, unit: Dim, value: Expr) -> Stmt:
        value = value if self.scale is None else value * self.scale
        return Store(self.memory, E.index(row * self.pitch + unit * self.unit), value, (1,))

    def _kept(self, number: int, value: Expr) -> Stmt:
        """Return the store of what a thread copies as its ``number``-th."""
        row, unit = self._task(number)
        store = self._store(row, unit, value)
        if (number + 1) * THREADS <= self.side * self.each:
            return store
        return If(E.index(row) < E.index(self.side), (store,))

    @property
    def _copies(self) -> int:
        """Units that a thread copies."""
        return -(-self.side * self.each // THREADS)

    @property
    def _ahead(self) -> bool:
        """Whether there are registers for what is copied."""
        own_bytes = self._copies * self.unit * self.source.dtype.item_bytes
        return self._copies <= AHEAD and own_bytes <= AHEAD_BYTES

    def _task(self, number: int) -> tuple[Dim, Dim]:
        """Return row and unit of what a thread copies as its ``number``-th."""
        thread, each = symbol(THREAD), self.each
        if THREADS % each == 0:
            return thread // each + number * (THREADS // each), thread % each
        task = thread + number * THREADS
        return task // each, task % each

    def _register(self, number: int) -> str:
        return f"{self.name}_next{number}"


def turned(rows: Rows, first: Dim, stop: Dim) -> Body:
    """Return the loop that copies rows from ``first`` on, channel by channel.

    A warp reads 8 channels of 4 rows, whole sectors of memory, and writes to 32 banks.
    """
    pitch, at_once = turned_pitch(rows.side, rows.source.dtype), THREADS // SECTOR
    channel = symbol("channel")
    body: list[Stmt] = []
    for number in range(-(-rows.side // at_once)):
        row, own = symbol(THREAD) // SECTOR + number * at_once, f"{rows.name}_row{number}"
        value = E.load(rows.source, E.index(rows.place(symbol(own)) + channel))
        value = value if rows.scale is None else value * rows.scale
        copied: Body = (
            Let(own, E.index(dim_min(first + row, stop - 1))),
            Store(rows.memory, E.index(channel * pitch + row), value),
        )
        if (number + 1) * at_once > rows.side:
            copied = (If(E.index(row) < E.index(rows.side), copied),)
        body += copied
    start = E.index(symbol(THREAD) % SECTOR)
    return (For("channel", start, E.index(rows.width), tuple(body), step=SECTOR),)


def turned_pitch(side: int, dtype: DType) -> int:
    """Return the numbers from a channel of a turned matrix to the next in shared memory."""
    return side + vector(dtype)


# -- products --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Square:
    """A square of scores: a vector of its columns for each of a thread's rows.

    A team has neighbouring columns, a thread every 16th row.

    Attributes
    ----------
    name : str
        Prefix of its registers.
    dtype : DType
    lanes : int
        Columns, and rows, of a thread.
    """

    name: str
    dtype: DType
    lanes: int

    @property
    def side(self) -> int:
        """Rows, and columns, of the square."""
        return TEAMS * self.lanes

    @property
    def pitch(self) -> int:
        """Numbers from a row to the next in shared memory."""
        return turned_pitch(self.side, self.dtype)

    @property
    def column(self) -> Dim:
        """The first column of a thread."""
        return TEAM * self.lanes

    def row(self, number: int) -> Dim:
        """Return which row a thread's ``number``-th is."""
        return MEMBER + number * MEMBERS

    def splat(self, number: float) -> Expr:
        """Return a vector of one number."""
        return E.splat(E.const(number, self.dtype), (self.lanes,))

    @property
    def uses(self) -> list[Use]:
        """The registers, row by row."""
        zero = self.splat(0)
        return [E.use(f"{self.name}{row}", zero) for row in range(self.lanes)]

    def product(self, left: Rows, right: Buffer) -> Body:
        """Return what computes products of rows with those of a turned matrix.

        Sums are in the order of the channels.
        """
        step = vector(self.dtype)
        step *= max(TERMS // (step * self.lanes), 1)
        whole = left.width // step * step
        body: list[Stmt] = [Declare(use.name, self.splat(0)) for use in self.uses]
        if whole:
            channel = symbol("channel")
            terms = self._terms(left, right, channel, step)
            body.append(For("channel", E.index(0), E.index(whole), terms, step=step))
        return (*body, *self._terms(left, right, whole, left.width - whole))

    def _terms(self, left: Rows, right: Buffer, first: Dim, count: int) -> Body:
        """Return what adds the products of ``count`` channels."""
        body: list[Stmt] = []
        lanes, each = self.lanes, vector(self.dtype)
        for k in range(count):
            if k % each == 0:
                for number in range(lanes):
                    place = E.index(self.row(number) * left.pitch + first + k)
                    row = E.load(left.memory, place, (each,), (1,))
                    body.append(Let(f"{self.name}_left{number}", row))
            place = E.index((first + k) * self.pitch + self.column)
            body.append(Let(f"{self.name}_right", E.load(right, place, (lanes,), (1,))))
            column = E.use(f"{self.name}_right", self.splat(0))
            like = E.splat(E.const(0, self.dtype), (each,))
            for number, held in enumerate(self.uses):
                row = E.use(f"{self.name}_left{number}", like)
                spread = E.repeat(row, lanes, lanes, k % each * lanes)
                body.append(Assign(held.name, E.apply("fma", spread, column, held)))
        return tuple(body)

    def kept(self, memory: Buffer, number: int, value: Expr) -> Store:
        """Return the store of a thread's ``number``-th row to shared memory."""
        place = E.index(self.row(number) * self.pitch + self.column)
        return Store(memory, place, value, (1,))


def over_team(name: str, combine: str, value: Expr) -> tuple[Body, Expr]:
    """Return statements that combine what the threads of a team hold, and the result."""
    body: list[Stmt] = []
    distance = MEMBERS // 2
    while distance:
        far, near = f"{name}_far{distance}", f"{name}_near{distance}"
        body.append(Intrinsic(far, "shuffle_xor", (value, E.index(distance))))
        both = E.apply(combine, value, E.use(far, value))
        body.append(Let(near, both))
        value = E.use(near, both)
        distance //= 2
    return tuple(body), value


@dataclass(frozen=True, slots=True)
class Chunk:
    """A vector of neighbouring channels for each member of a team."""

    first: int
    lanes: int

    @property
    def channel(self) -> Dim:
        """The first channel of a thread."""
        return self.first + MEMBER * self.lanes


@dataclass(frozen=True, slots=True)
class Weighted:
    """Sums of rows, weighted for each column of a square: a team has those of its columns.

    Attributes
    ----------
    name : str
        Prefix of its registers.
    square : Square
    width : int
        Channels of a row.
    """

    name: str
    square: Square
    width: int
    chunks: tuple[Chunk, ...] = field(init=False)

    def __post_init__(self) -> None:
        most = vector(self.square.dtype)
        first, found = 0, []
        while first < padded(self.width):
            lanes = min(most, (padded(self.width) - first) // MEMBERS)
            found.append(Chunk(first, lanes))
            first += lanes * MEMBERS
        object.__setattr__(self, "chunks", tuple(found))

    def registers(self) -> Iterator[tuple[int, Chunk, Use]]:
        """Yield column, channels and register of each sum."""
        for column in range(self.square.lanes):
            for number, chunk in enumerate(self.chunks):
                zero = E.splat(E.const(0, self.square.dtype), (chunk.lanes,))
                yield column, chunk, E.use(f"{self.name}{column}_{number}", zero)

    def declared(self) -> Body:
        """Return the statements that begin all sums at zero."""
        return tuple(
            Declare(held.name, E.splat(E.const(0, held.dtype), held.tile))
            for _, _, held in self.registers()
        )

    def scaled(self, factors: Expr) -> Body:
        """Return what multiplies the sums of each column by its factor."""
        return tuple(
            Assign(held.name, held * _lane(factors, column, chunk.lanes))
            for column, chunk, held in self.registers()
        )

    def added(self, weights: Buffer, rows: Rows) -> Body:
        """Return the loop that adds a turn's rows, weighted by a square in shared memory."""
        square = self.square
        body: list[Stmt] = []
        step = min(max(TERMS // (square.lanes * len(self.chunks)), 1), MEMBERS)
        step = 1 << step.bit_length() - 1
        for k in range(step):
            row = symbol("row") + k
            place = E.index(row * square.pitch + square.column)
            body.append(Let(f"{self.name}_weights", E.load(weights, place, (square.lanes,), (1,))))
            factors = E.use(f"{self.name}_weights", square.splat(0))
            named: dict[Chunk, Expr] = {}
            for number, chunk in enumerate(self.chunks):
                place = E.index(row * rows.pitch + chunk.channel)
                value = E.load(rows.memory, place, (chunk.lanes,), (1,))
                body.append(Let(f"{self.name}_row{number}", value))
                named[chunk] = E.use(f"{self.name}_row{number}", value)
            for column, chunk, held in self.registers():
                spread = _lane(factors, column, chunk.lanes)
                body.append(Assign(held.name, E.apply("fma", spread, named[chunk], held)))
        return (For("row", E.index(0), E.index(square.side), tuple(body), step=step),)

    def results(
        self, target: Buffer, place: Callable[[Dim], Dim], first: Dim, stop: Dim,
        factors: Expr | None = None,
    ) -> Body:  # fmt: skip
        """Return the stores of the sums, times the factor of each column, to rows below ``stop``.

        Parameters
        ----------
        target : Buffer
        place : callable
            Where a row begins.
        first, stop : Dim
            The row of the first column, and the number of rows.
        factors : Expr, optional
        """
        stores: dict[int, list[Stmt]] = {}
        for column, chunk, held in self.registers():
            row = first + self.square.column + column
            value = held if factors is None else held * _lane(factors, column, chunk.lanes)
            channel, at = chunk.channel, E.index(place(row) + chunk.channel)
            store: Stmt = Store(target, at, value, (1,))
            if self.width % chunk.lanes:
                inside = E.iota(chunk.lanes) < E.index(self.width - channel)
                store = Store(target, at, value, (1,), inside)
            elif chunk.first + MEMBERS * chunk.lanes > self.width:
                store = If(E.index(channel) < E.index(self.width), (store,))
            stores.setdefault(column, []).append(store)
        return tuple(
            If(E.index(first + self.square.column + column) < E.index(stop), tuple(found))
            for column, found in stores.items()
        )


def _lane(factors: Expr, number: int, lanes: int) -> Expr:
    """Return one lane of a vector as a vector of its own."""
    return E.repeat(factors, lanes, lanes, number * lanes)

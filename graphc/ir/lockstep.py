"""Runs a scheduled CUDA kernel in NumPy, all its threads in step, and checks what they touch.

A statement is done by all threads that reach it, of many blocks, before the next one. An access
outside of its buffer is an error, and so is a *race*: two threads of a block touch one element
between two barriers, or threads of two blocks do, and one of them writes. A kernel without either
gives the same results in any order of its threads.

Products are added in two roundings, so results are close to those of a machine, not equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graphc.errors import IndexRangeError, VerifyError
from graphc.ir.dim import evaluate
from graphc.ir.evaluate import Array, Evaluation
from graphc.ir.expr import Apply, Buffer, Const, Expr, Index, Load, Tile
from graphc.ir.intrinsics import INTRINSICS, WARP
from graphc.ir.loop import (
    BEGIN,
    END,
    TURN,
    Alloc,
    Assign,
    Barrier,
    Bind,
    Declare,
    Fail,
    For,
    If,
    Intrinsic,
    Kernel,
    Let,
    Prefetch,
    Stmt,
    Store,
)
from graphc.ir.races import SharedMemory
from graphc.ir.statements import register_tiles, statements

AT_ONCE = 1 << 13
"""Threads that are run in step, if blocks are smaller."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The `Fail` that the first thread came to."""

    code: int
    details: tuple[int, ...]


class _Failed(Exception):
    """Ends a run at a `Fail`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def run_in_step(
    kernel: Kernel, buffers: Sequence[Array], sizes: Sequence[int]
) -> Failure | None:
    """Run all blocks of a scheduled and expanded CUDA kernel, and check every access.

    Parameters
    ----------
    kernel : Kernel
    buffers : sequence of numpy.ndarray
        One C-contiguous array for each of ``kernel.params``; outputs are written in place. Arrays
        at one address are one memory, as where a result takes the place of an operand.
    sizes : sequence of int
        Values of ``kernel.sizes``, without the number of the launch.

    Returns
    -------
    Failure or None

    Raises
    ------
    IndexRangeError
        A thread reads or writes outside of a buffer.
    VerifyError
        Threads race, read shared memory that none has written, or come to a barrier or an
        intrinsic without the others of their block or warp.
    """
    known = dict(zip(kernel.sizes, sizes))
    try:
        with np.errstate(all="ignore"):
            for turn in range(evaluate(kernel.turns, known)):
                # Another launch sees all that this one does: none of it is a race.
                _Run(kernel, buffers, {**known, TURN: turn}).outside(kernel.body)
    except _Failed as failed:
        return failed.failure
    return None


# -- running ---------------------------------------------------------------------------------


class _Names(Mapping[str, Any]):
    """Sizes, loop variables and registers as some of the threads see them.

    ``given`` has for each name a number, or an array with an axis of all threads in front, or of
    one that stands for all; ``lanes`` are the threads at hand, None for all.
    """

    def __init__(self, given: dict[str, Any], lanes: Array | None) -> None:
        self.given, self.lanes = given, lanes
        self.seen: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        found = self.seen.get(name)
        if found is None:
            found = self.given[name]
            if self.lanes is not None and np.ndim(found) and len(found) > 1:
                found = found[self.lanes]
            self.seen[name] = found
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.given

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)


class _Step(Evaluation):
    """The evaluation of one statement's expressions for some threads."""

    load_by: Callable[[Load, Array, Array | None], Array]

    def compute(self, expr: Expr) -> Any:
        if isinstance(expr, Const) and expr.tile:
            return np.full((1, *expr.tile), expr.value, expr.dtype.numpy)
        return super().compute(expr)

    def apply(self, expr: Apply) -> Any:
        if expr.op != "fma":
            return super().apply(expr)
        a, b, c = (self.aligned(arg, len(expr.tile)) for arg in expr.args)
        return a * b + c

    def load(self, expr: Load) -> Array:
        mask = None if expr.mask is None else self.aligned(expr.mask, len(expr.tile))
        return self.load_by(expr, self.places(expr.offset, expr.tile, expr.strides), mask)


class _Run:
    """One kernel at given sizes."""

    def __init__(
        self, kernel: Kernel, buffers: Sequence[Array], sizes: Mapping[str, int]
    ) -> None:
        self.kernel = kernel
        self.blocks = evaluate(kernel.extent, sizes)
        self.threads = _threads(kernel)
        self.tiles = register_tiles(kernel.body)
        self.values: dict[str, Any] = {**sizes, BEGIN: 0, END: self.blocks}
        self.number = np.zeros(1, np.int64)
        self.time = np.zeros(1, np.int64)
        self.memory: dict[str, SharedMemory] = {}
        self.limits: dict[str, int] = {}
        self.own: set[str] = set()
        self.shared: set[str] = set()
        self._take(buffers)

    def _take(self, buffers: Sequence[Array]) -> None:
        """Make the memory of parameters; those at one address share it."""
        stores = (s for s in statements(self.kernel.body) if isinstance(s, Store))
        stored = {store.buffer.name for store in stores}
        pairs = list(zip(self.kernel.params, buffers, strict=True))
        written = {a.ctypes.data for buffer, a in pairs if buffer.name in stored}
        at: dict[tuple[int, Any], SharedMemory] = {}
        for buffer, array in pairs:
            key = array.ctypes.data, array.dtype
            if key not in at or at[key].data.size < array.size:
                at[key] = SharedMemory(
                    self.kernel.name, buffer.name, array.reshape(-1), array.size, self.threads,
                    key[0] in written,
                )  # fmt: skip
            self.limits[buffer.name] = array.size
        for buffer, array in pairs:
            self.memory[buffer.name] = at[array.ctypes.data, array.dtype]

    # -- threads of many blocks --------------------------------------------------------------

    def outside(self, body: Sequence[Stmt]) -> None:
        """Run statements around the loop over blocks."""
        for stmt in body:
            match stmt:
                case For() if stmt.bind is Bind.BLOCK:
                    many = max(AT_ONCE // self.threads, 1)
                    for first in range(0, self.blocks, many):
                        self.block(stmt, first, min(first + many, self.blocks))
                case If():
                    yes = bool(self.evaluation(None).value(stmt.condition).all())
                    self.outside(stmt.body if yes else stmt.otherwise)
                case _:
                    self.statement(stmt, None)

    def block(self, loop: For, first: int, last: int) -> None:
        """Run blocks ``first`` to ``last`` in step."""
        count, threads = last - first, self.threads
        known = dict(self.values)
        self.number = first * threads + np.arange(count * threads)
        self.time = np.zeros(count * threads, np.int64)
        self.values[loop.name] = self.number // threads
        for stmt in loop.body:
            match stmt:
                case Alloc():
                    self.share(stmt.buffer, count)
                case For() if stmt.bind is Bind.THREAD:
                    self.values[stmt.name] = self.number % threads
                    self.run(stmt.body, None)
                case _:
                    self.statement(stmt, None)
        self.values = known
        self.number, self.time = np.zeros(1, np.int64), np.zeros(1, np.int64)

    def share(self, buffer: Buffer, blocks: int) -> None:
        """Make memory of each block."""
        size = prod(d for d in buffer.shape if isinstance(d, int))
        data = np.zeros(blocks * size, buffer.dtype.numpy)
        self.memory[buffer.name] = SharedMemory(
            self.kernel.name, f"shared {buffer.name}", data, size, self.threads, True, scratch=True
        )
        self.limits[buffer.name] = size
        self.shared.add(buffer.name)

    def run(self, body: Sequence[Stmt], lanes: Array | None) -> None:
        """Run statements by the threads at hand."""
        for stmt in body:
            self.statement(stmt, lanes)

    def evaluation(self, lanes: Array | None) -> _Step:
        """Return the evaluation of expressions by threads."""
        step = _Step(_Names(self.values, lanes), {}, 1)
        step.load_by = lambda load, place, mask: self.load(load, place, mask, lanes)
        return step

    # -- statements --------------------------------------------------------------------------

    def statement(self, stmt: Stmt, lanes: Array | None) -> None:
        """Run one statement by the threads at hand."""
        match stmt:
            case For():
                self.loop(stmt, lanes)
            case If():
                self.branch(stmt, lanes)
            case Let() | Declare() | Assign():
                value = self.evaluation(lanes).value(stmt.value)
                tile = stmt.value.tile if isinstance(stmt, Let) else self.tiles[stmt.name]
                self.name(stmt.name, value, tile, lanes, isinstance(stmt, Let))
            case Store():
                self.store(stmt, lanes)
            case Alloc():
                size = prod(d for d in stmt.buffer.shape if isinstance(d, int))
                data = np.zeros(self.number.size * size, stmt.buffer.dtype.numpy)
                name = stmt.buffer.name
                self.memory[name] = SharedMemory("", name, data, size, 1, watched=False)
                self.limits[stmt.buffer.name] = size
                self.own.add(stmt.buffer.name)
            case Barrier():
                self.meet(lanes, self.threads, "a barrier", "block")
                self.time[slice(None) if lanes is None else lanes] += 1
            case Intrinsic():
                self.intrinsic(stmt, lanes)
            case Fail():
                step = self.evaluation(lanes)
                details = (step.value(d).reshape(-1)[0] for d in stmt.details)
                raise _Failed(Failure(stmt.code, tuple(map(int, details))))
            case Prefetch():
                pass
            case _:
                raise VerifyError(
                    f"{self.kernel.name}: {type(stmt).__name__} is no statement of threads"
                )

    def name(
        self, name: str, value: Array, tile: Tile, lanes: Array | None, alike: bool
    ) -> None:
        """Give threads a value; one that is ``alike`` for all may be kept once."""
        count = self.number.size
        if lanes is None:
            one = alike and value.shape[:1] == (1,)
            found = np.broadcast_to(value, (1 if one else count, *tile))
            self.values[name] = found if alike else found.copy()
            return
        known = self.values.get(name, 0)
        if alike or np.shape(known) != (count, *tile):
            known = np.zeros((count, *tile))
        whole = np.array(known, value.dtype)  # a copy, since others may name the same
        whole[lanes] = value
        self.values[name] = whole

    def loop(self, loop: For, lanes: Array | None) -> None:
        """Run a loop until the last of the threads has left it."""
        step = self.evaluation(lanes)
        start, stop = step.value(loop.start), step.value(loop.stop)
        if start.size == stop.size == 1:
            for turn in range(start.item(), stop.item(), loop.step):
                self.values[loop.name] = turn
                self.run(loop.body, lanes)
            return
        inside = self.number * 0
        everyone = np.arange(self.number.size) if lanes is None else lanes
        place, stop = (np.broadcast_to(e, everyone.shape) for e in (start, stop))
        while (more := place < stop).any():
            everyone, place, stop = everyone[more], place[more], stop[more]
            inside[everyone] = place
            self.values[loop.name] = inside
            whole = everyone.size == self.number.size
            self.run(loop.body, None if whole else everyone)
            place = place + loop.step

    def branch(self, stmt: If, lanes: Array | None) -> None:
        """Run each way of a branch by the threads that take it."""
        condition = self.evaluation(lanes).value(stmt.condition)
        if condition.all() or not condition.any():
            self.run(stmt.body if condition.all() else stmt.otherwise, lanes)
            return
        everyone = np.arange(self.number.size) if lanes is None else lanes
        self.run(stmt.body, everyone[condition])
        self.run(stmt.otherwise, everyone[~condition])

    def meet(self, lanes: Array | None, together: int, what: str, unit: str) -> None:
        """Raise VerifyError where threads of a unit miss what all must come to."""
        if lanes is None:
            return
        number = self.number[lanes]
        size = min(together, self.threads)
        group, count = np.unique(number // size, return_counts=True)
        if (count != size).any():
            at = int(np.argmax(count != size))
            raise VerifyError(
                f"{self.kernel.name}: {count[at]} of {size} threads of {unit} "
                f"{int(group[at]) * size // self.threads} come to {what}"
            )

    def intrinsic(self, stmt: Intrinsic, lanes: Array | None) -> None:
        """Let warps compute together."""
        self.meet(lanes, WARP, stmt.operation, "a warp of block")
        step = self.evaluation(lanes)
        count = self.number.size if lanes is None else lanes.size
        width = min(WARP, self.threads)
        args = [
            np.broadcast_to(step.value(a), (count, *a.tile)).reshape(-1, width, *a.tile)
            for a in stmt.args
        ]
        if stmt.operation == "shuffle_xor":  # of all warps at once
            partner = np.arange(width) ^ int(args[1].flat[0])
            found = args[0][:, np.where(partner < width, partner, np.arange(width))]
        else:
            reference = INTRINSICS[stmt.operation].reference
            found = np.stack([reference(*warp) for warp in zip(*args, strict=True)])
        tile = stmt.value.tile
        self.name(stmt.name, found.reshape(count, *tile), tile, lanes, alike=True)

    # -- memory ------------------------------------------------------------------------------

    def load(self, load: Load, place: Array, mask: Array | None, lanes: Array | None) -> Array:
        """Read by threads; the result has the shape of the places, those of all threads."""
        count = self.number.size if lanes is None else lanes.size
        tile = np.broadcast_shapes(place.shape[1:], load.tile)
        place = np.broadcast_to(place, (count, *tile))
        keep = None if mask is None else np.broadcast_to(mask, place.shape)
        memory, where = self.touch(load.buffer, place, keep, lanes, writes=False)
        if keep is None:
            return np.asarray(memory.data[where].reshape(place.shape))
        found = np.full(place.shape, load.fill, memory.data.dtype)
        found[keep] = memory.data[where]
        return found

    def store(self, stmt: Store, lanes: Array | None) -> None:
        """Write by threads."""
        step = self.evaluation(lanes)
        value = step.value(stmt.value)
        tile = stmt.offset.tile or stmt.value.tile
        strides = () if stmt.offset.tile else stmt.strides or (1,) * len(tile)
        place = step.places(stmt.offset, tile, strides)
        count = self.number.size if lanes is None else lanes.size
        place = np.broadcast_to(place, (count, *tile))
        value = np.broadcast_to(step.aligned(stmt.value, len(tile)), place.shape)
        keep = None
        if stmt.mask is not None:
            keep = np.broadcast_to(step.aligned(stmt.mask, len(tile)), place.shape)
        memory, where = self.touch(stmt.buffer, place, keep, lanes, writes=True)
        memory.data[where] = value.reshape(-1) if keep is None else value[keep]

    def touch(
        self, buffer: Buffer, place: Array, keep: Array | None, lanes: Array | None, writes: bool
    ) -> tuple[SharedMemory, Array]:
        """Check an access; return the memory and the flat places that are accessed."""
        memory, limit = self.memory[buffer.name], self.limits[buffer.name]
        own = np.arange(self.number.size) if lanes is None else lanes
        lane = np.broadcast_to(own.reshape(-1, *(1,) * (place.ndim - 1)), place.shape)
        place, lane = (a.reshape(-1) if keep is None else a[keep] for a in (place, lane))
        outside = (place < 0) | (place >= limit)
        if outside.any():
            at = int(np.argmax(outside))
            number = int(self.number[lane[at]])
            raise IndexRangeError(
                f"{self.kernel.name}: thread {number % self.threads} of block "
                f"{number // self.threads} {'writes' if writes else 'reads'} "
                f"{buffer.name}[{place[at]}], which has {limit} elements"
            )
        if buffer.name in self.own:
            return memory, place + lane * limit
        if buffer.name in self.shared:
            place = place + lane // self.threads * limit
        if memory.watched:
            note = memory.write if writes else memory.read
            note(place, self.number[lane], self.time[lane])
        return memory, place


def _threads(kernel: Kernel) -> int:
    for stmt in statements(kernel.body):
        if isinstance(stmt, For) and stmt.bind is Bind.THREAD:
            assert isinstance(stmt.stop, Index) and isinstance(stmt.stop.dim, int)
            return stmt.stop.dim
    return 1

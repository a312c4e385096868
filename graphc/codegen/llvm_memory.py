"""Loads, stores, gathers, scatters, transposition and stack memory in LLVM IR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np

from graphc.codegen.llvm_builder import Builder, Constant, filled, undefined
from graphc.codegen.llvm_conversions import Conversions
from graphc.codegen.llvm_transposition import transposed
from graphc.codegen.llvm_types import I8, I32, I64, VOID, VectorType, array, vector
from graphc.codegen.llvm_values import Row, Tile, Value, Weak, suffix, whole
from graphc.errors import CompileError
from graphc.ir.types import DType, bool_

SCRATCH_ALIGN_BYTES = 64
_DUMMY_BYTES = 64
MAX_APART = 4
"""Elements this far apart or nearer are adjacent reads or writes and shuffles, not gathers."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """Typed memory: a parameter or scratch, or what lies behind its ``start``."""

    dtype: DType
    address: Row
    start: Row | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an element lies: ``sum(steps) + number`` elements behind a pointer."""

    steps: tuple[Row, ...]
    number: int


class Memory(Conversions):
    """Access to memory; offsets and strides are in elements.

    Attributes
    ----------
    entry : Builder
        Where stack memory is made: the block every path comes through once.
    bounds : dict of str to Value
        Bounds of the parallel loop by name, if the function gets them.
    aligned : bool
        Whether all memory begins where the largest vector may; else where an element may.
    """

    entry: Builder
    bounds: dict[str, Value]
    aligned = False
    _dummy: Row | None = None

    # -- addresses ---------------------------------------------------------------------------

    def memory_type(self, dtype: DType) -> Any:
        """Return the LLVM type of one element in memory."""
        return I8 if dtype is bool_ else self.scalar_type(dtype)

    def alloc(self, dtype: DType, count: int) -> Pointer:
        """Make scratch for ``count`` elements on the stack, once for the whole kernel."""
        return Pointer(dtype, self._stack(self.memory_type(dtype), max(count, 1)))

    def _stack(self, element: Any, count: int) -> Row:
        return self.entry.alloca(array(element, count), SCRATCH_ALIGN_BYTES)

    def element(self, pointer: Pointer, place: Place | Row) -> Row:
        """Return the address of an element, or of each of a vector of elements.

        Constants are added last: the code generator takes them into its instructions.
        """
        if isinstance(place, Row):
            return self._beside(pointer, pointer.address, place)
        address = pointer.address
        for offset in place.steps:
            address = self._beside(pointer, address, offset)
        number = whole(place.number)
        return self._beside(pointer, address, number) if place.number else address

    def _beside(self, pointer: Pointer, address: Row, offset: Row) -> Row:
        return self.builder.gep(address, offset, self.memory_type(pointer.dtype))

    def places(
        self, offset: Value | Weak, lead: Tile, strides: Sequence[Value | Weak]
    ) -> list[Place]:
        """Return the place of each row, given the strides of the axes before the last."""
        start, number = self.builder.parts(self.typed([offset])[0].rows[0])
        static: Any = np.full((), number, np.int64)
        steps: list[tuple[Row, ...]] = [()]
        for extent, stride in zip(lead, strides):
            if not isinstance(stride, Value):  # constants are added up here, once for each row
                static = static[..., None] + np.arange(extent) * stride
                steps = [before for before in steps for _ in range(extent)]
                continue
            (row,) = stride.rows
            ways = [(self.builder.mul(row, whole(k)),) if k else () for k in range(extent)]
            static = np.repeat(static[..., None], extent, axis=-1)
            steps = [(*before, *way) for before in steps for way in ways]
        rows = zip(steps, static.ravel().tolist(), strict=True)
        return [Place((*before, start), k) for before, k in rows]

    def lane_offsets(self, place: Place | Row, stride: Value | Weak, lanes: int) -> Row:
        """Return a vector of offsets ``place + lane * stride``."""
        steps = self.apply("mul", self.iota(lanes), stride)
        start: Row = place if isinstance(place, Row) else whole(place.number)
        for offset in place.steps if isinstance(place, Place) else ():
            start = self.builder.add(offset, start)
        return self.apply("add", steps, self.scalar(start)).rows[0]

    def dummy(self) -> Row:
        """Return memory that masked-off accesses go to."""
        if self._dummy is None:
            zeros = Constant(vector(I8, _DUMMY_BYTES), [0] * _DUMMY_BYTES)
            self._dummy = self._stack(I8, _DUMMY_BYTES)
            self.entry.store(zeros, self._dummy, SCRATCH_ALIGN_BYTES)
        return self._dummy

    def from_memory(self, dtype: DType, row: Row) -> Row:
        """Convert what was loaded into a register row."""
        if dtype is not bool_:
            return row
        return self.builder.icmp_unsigned("!=", row, self.like(row, 0))

    def to_memory(self, dtype: DType, row: Row) -> Row:
        """Convert a register row into what is stored."""
        if dtype is not bool_:
            return row
        wide = isinstance(row.type, VectorType)
        kind = vector(I8, row.type.count) if wide else I8
        return self.builder.zext(row, kind)

    def memory_row(self, dtype: DType, lanes: int) -> Any:
        """Return the LLVM type of a row in memory."""
        element = self.memory_type(dtype)
        return element if lanes == 1 else vector(element, lanes)

    # -- loads -------------------------------------------------------------------------------

    def load(
        self,
        pointer: Pointer,
        offset: Value | Weak,
        tile: Tile = (),
        strides: Sequence[Value | Weak] = (),
        mask: Value | Weak | None = None,
        fill: Weak = 0,
        multiple: int = 1,
    ) -> Value:
        """Read a tile of elements ``offset + sum(lane[d] * strides[d])``; see `ir.expr.Load`.

        Rows begin at a ``multiple`` of elements.
        """
        if mask is None and self._is_transposed(tile, strides):
            return self._load_transposed(pointer, offset, tile, strides)
        dtype, lanes = pointer.dtype, tile[-1] if tile else 1
        stride = strides[-1] if tile else 1
        places = self.places(offset, tile[:-1], strides)
        masks = self._mask_rows(mask, tile)
        rows = []
        for place, keep in zip(places, masks, strict=True):
            if lanes == 1 or _is(stride, 0):
                rows.append(self.splat(self._load_row(pointer, place, 1, keep, fill), lanes))
            elif _is(stride, 1):
                rows.append(self._load_row(pointer, place, lanes, keep, fill, multiple))
            elif _is_apart(stride, lanes):
                rows.append(self._load_apart(pointer, place, stride, lanes, keep, fill))
            else:
                vector = self.lane_offsets(place, stride, lanes)
                rows.append(self._gather_row(pointer, vector, lanes, keep, fill))
        return Value(dtype, tile, rows)

    def gather(
        self, pointer: Pointer, offsets: Value, mask: Value | Weak | None = None, fill: Weak = 0
    ) -> Value:
        """Read the element at each offset of a tile."""
        masks = self._mask_rows(mask, offsets.tile)
        rows = [
            self._gather_row(pointer, row, offsets.lanes, keep, fill)
            for row, keep in zip(offsets.rows, masks, strict=True)
        ]
        return Value(pointer.dtype, offsets.tile, rows)

    def prefetch(
        self, pointer: Pointer, offset: Value | Weak, level: int = 1, write: bool = False
    ) -> None:
        """Ask for the line of an element into a level of the caches and those below.

        No address faults.
        """
        (place,) = self.places(offset, (), ())
        arguments = [self.element(pointer, place)]
        how = (int(write), 4 - level, 1)  # to read or write, how near, data
        arguments += [Constant(I32, number) for number in how]
        callee = self.module.declare("llvm.prefetch.p0", VOID, [a.type for a in arguments])
        self.builder.call(callee, arguments)

    def _mask_rows(self, mask: Value | Weak | None, tile: Tile) -> Sequence[Row | None]:
        """Return each row's mask: None, a bool for the whole row, or one for each lane."""
        count = math.prod(tile[:-1])
        if mask is None:
            return [None] * count
        value = self.as_bool(mask)
        narrow = (*tile[:-1], 1) if tile and value.lanes == 1 else tile
        return self.broadcast(value, narrow)

    def _load_row(
        self, pointer: Pointer, place: Place | Row, lanes: int, keep: Row | None, fill: Weak,
        multiple: int = 1,
    ) -> Row:  # fmt: skip
        dtype = pointer.dtype
        address, kind = self.element(pointer, place), self.memory_row(dtype, lanes)
        align = dtype.item_bytes * math.gcd(multiple, lanes)
        if keep is None:
            return self.from_memory(dtype, self.builder.load(address, kind, align))
        filling = self.constant(fill, dtype, lanes)
        if isinstance(keep.type, VectorType):
            passed = self.to_memory_constant(dtype, fill, lanes)
            arguments = [address, Constant(I32, align), keep, passed]
            callee = self.module.declare(
                f"llvm.masked.load.{suffix(kind)}.p0", kind, [a.type for a in arguments]
            )
            return self.from_memory(dtype, self.builder.call(callee, arguments))
        address = self._guarded(keep, address, dtype.item_bytes * lanes)
        row = self.from_memory(dtype, self.builder.load(address, kind, align))
        return self.builder.select(keep, row, filling)

    def _load_apart(
        self, pointer: Pointer, place: Place, stride: int, lanes: int, keep: Row | None, fill: Weak
    ) -> Row:
        """Return every ``stride``-th element from adjacent reads, the last ending at the last."""
        starts = [*range(0, (stride - 1) * lanes, lanes), (lanes - 1) * (stride - 1)]
        within = np.minimum(np.arange(lanes) * stride // lanes, stride - 1)
        row, taken = undefined(self.memory_row(pointer.dtype, lanes)), np.arange(lanes) * stride
        for number, start in enumerate(starts):
            at = replace(place, number=place.number + start)
            wanted = np.where(within == number)[0]
            mask = None if keep is None else self._apart(keep, lanes, wanted, stride, start)
            part = self._load_row(pointer, at, lanes, mask, fill)
            if number == 0:
                row = part
                continue
            order = np.where(within == number, lanes + np.arange(lanes) * stride - start, taken)
            row = self.shuffle(row, part, np.where(within > number, 0, order).tolist())
            taken = np.arange(lanes)
        return row

    def _apart(self, keep: Row, lanes: int, wanted: Any, stride: int, start: int) -> Row:
        """Return the mask of an adjacent read that holds the ``wanted`` lanes."""
        order = np.full(lanes, lanes)
        order[wanted * stride - start] = wanted
        none = self.constant(False, bool_, lanes)
        return self.shuffle(self._lane_mask(keep, lanes), none, order.tolist())

    def to_memory_constant(self, dtype: DType, number: Weak, lanes: int) -> Row:
        """Return a constant row as it lies in memory."""
        if dtype is not bool_:
            return self.constant(number, dtype, lanes)
        return filled(self.memory_row(dtype, lanes), int(bool(number)))

    def _guarded(self, keep: Row, address: Row, size_bytes: int) -> Row:
        if size_bytes > _DUMMY_BYTES:
            raise CompileError(f"a scalar mask guards at most {_DUMMY_BYTES} bytes at once")
        return self.builder.select(keep, address, self.dummy())

    def _gather_row(
        self, pointer: Pointer, places: Row, lanes: int, keep: Row | None, fill: Weak
    ) -> Row:
        if lanes == 1:
            return self._load_row(pointer, places, 1, keep, fill)
        dtype = pointer.dtype
        addresses, kind = self.element(pointer, places), self.memory_row(dtype, lanes)
        arguments = [
            addresses,
            Constant(I32, dtype.item_bytes),
            self._lane_mask(keep, lanes),
            self.to_memory_constant(dtype, fill, lanes),
        ]
        name = f"llvm.masked.gather.{suffix(kind)}.v{lanes}p0"
        callee = self.module.declare(name, kind, [a.type for a in arguments])
        return self.from_memory(dtype, self.builder.call(callee, arguments))

    def _lane_mask(self, keep: Row | None, lanes: int) -> Row:
        if keep is None:
            return self.constant(True, bool_, lanes)
        return keep if isinstance(keep.type, VectorType) else self.splat(keep, lanes)

    # -- stores ------------------------------------------------------------------------------

    def store(
        self,
        pointer: Pointer,
        offset: Value | Weak,
        operand: Value | Weak,
        strides: Sequence[Value | Weak] | None = None,
        mask: Value | Weak | None = None,
        streaming: bool = False,
        multiple: int = 1,
    ) -> None:
        """Write a tile; strides default to adjacent elements, rows begin at a ``multiple``."""
        value = self._stored(pointer, operand)
        tile = value.tile
        strides = [1] * len(tile) if strides is None else strides
        if mask is None and self._is_transposed(tile, strides):
            value, strides = self._transposed(value), [*strides[:-2], strides[-1], 1]
            tile = value.tile
        stride = strides[-1] if tile else 1
        places = self.places(offset, tile[:-1], strides)
        if streaming and mask is None and value.lanes > 1 and _is(stride, 1):
            self._stream_rows(pointer, places, value.rows)
            return
        for place, row, keep in zip(places, value.rows, self._mask_rows(mask, tile), strict=True):
            if value.lanes == 1 or _is(stride, 1):
                self._store_row(pointer, place, row, keep, multiple)
            elif _is_apart(stride, value.lanes):
                self._store_apart(pointer, place, row, stride, keep)
            else:
                vector = self.lane_offsets(place, stride, value.lanes)
                self._scatter_row(pointer, vector, row, keep)

    def scatter(
        self, pointer: Pointer, offsets: Value, operand: Value | Weak, mask: Any = None
    ) -> None:
        """Write to the element at each offset of a tile; of equal offsets the last lane wins."""
        value = self._stored(pointer, operand)
        tile = offsets.tile
        masks = self._mask_rows(mask, tile)
        rows = self.broadcast(value, tile)
        for place, row, keep in zip(offsets.rows, rows, masks, strict=True):
            self._scatter_row(pointer, place, row, keep)

    def _stored(self, pointer: Pointer, operand: Value | Weak) -> Value:
        if not isinstance(operand, Value):
            return self.value(operand, pointer.dtype)
        if operand.dtype is not pointer.dtype:
            raise CompileError(f"a store of {operand.dtype} into memory of {pointer.dtype}")
        return operand

    def _store_row(
        self, pointer: Pointer, place: Place | Row, row: Row, keep: Row | None, multiple: int = 1
    ) -> None:
        dtype, address = pointer.dtype, self.element(pointer, place)
        item = self.to_memory(dtype, row)
        if keep is not None and isinstance(keep.type, VectorType):
            arguments = [item, address, Constant(I32, dtype.item_bytes), keep]
            name = f"llvm.masked.store.{suffix(item.type)}.p0"
            callee = self.module.declare(name, VOID, [a.type for a in arguments])
            self.builder.call(callee, arguments)
            return
        lanes = getattr(row.type, "count", 1)
        if keep is not None:
            address = self._guarded(keep, address, dtype.item_bytes * lanes)
        self.builder.store(item, address, dtype.item_bytes * math.gcd(multiple, lanes))

    def _store_apart(
        self, pointer: Pointer, place: Place, row: Row, stride: int, keep: Row | None
    ) -> None:
        """Write to every ``stride``-th element by adjacent writes that leave out the others."""
        lanes = row.type.count
        none, keep = self.constant(False, bool_, lanes), self._lane_mask(keep, lanes)
        for start in range(0, stride * lanes, lanes):
            at = replace(place, number=place.number + start)
            source, rest = np.divmod(start + np.arange(lanes), stride)
            order = np.where(rest == 0, source, lanes)
            wanted = self.shuffle(keep, none, order.tolist())
            spread = self.shuffle(row, row, source.tolist())
            self._store_row(pointer, at, spread, wanted)

    def _stream_rows(self, pointer: Pointer, places: Sequence[Place], rows: Sequence[Row]) -> None:
        """Store the rows of a tile past the cache where the memory begins at a line.

        Each row then begins at a multiple of its own elements, as `ir.loop.Store` has it.
        """
        item_bytes = pointer.dtype.item_bytes
        stored = [
            (self.to_memory(pointer.dtype, row), self.element(pointer, place))
            for place, row in zip(places, rows, strict=True)
        ]
        align_bytes = min(getattr(rows[0].type, "count", 1) * item_bytes, SCRATCH_ALIGN_BYTES)
        start = self.builder.ptrtoint(pointer.start or pointer.address, I64)
        low = self.builder.and_(start, whole(align_bytes - 1))
        aligned = self.builder.icmp_unsigned("==", low, whole(0))
        with self.builder.if_else(aligned) as ways:
            for way, streaming in zip(ways, (True, False), strict=True):
                with way:
                    for item, address in stored:
                        bytes_ = align_bytes if streaming else item_bytes
                        self.builder.store(item, address, bytes_, streaming)

    def _scatter_row(self, pointer: Pointer, places: Row, row: Row, keep: Row | None) -> None:
        if not isinstance(row.type, VectorType):
            self._store_row(pointer, places, row, keep)
            return
        dtype, lanes = pointer.dtype, row.type.count
        item = self.to_memory(dtype, row)
        align = Constant(I32, dtype.item_bytes)
        addresses = self.element(pointer, places)
        arguments = [item, addresses, align, self._lane_mask(keep, lanes)]
        name = f"llvm.masked.scatter.{suffix(item.type)}.v{lanes}p0"
        callee = self.module.declare(name, VOID, [a.type for a in arguments])
        self.builder.call(callee, arguments)

    # -- shuffles ----------------------------------------------------------------------------

    def repeat(self, value: Value, lanes: int, count: int, first: int) -> Value:
        """Return the vector of ``lanes`` whose lane ``k`` is lane ``(k + first) // count``."""
        (row,) = value.rows
        order = ((np.arange(lanes) + first) // count).tolist()
        if lanes == 1 or value.lanes == 1:  # whose rows are scalars
            one = row if value.lanes == 1 else self.builder.extract_element(row, order[0])
            return Value(value.dtype, (lanes,), [self.splat(one, lanes)])
        return Value(value.dtype, (lanes,), [self.shuffle(row, row, order)])

    # -- transposition -----------------------------------------------------------------------

    def _is_transposed(self, tile: Tile, strides: Sequence[Value | Weak]) -> bool:
        """Whether the last axis but one is the adjacent one, and both allow a network."""
        if len(tile) < 2 or not _is(strides[-2], 1) or _is(strides[-1], 1) or _is(strides[-1], 0):
            return False
        return all(size > 1 and size & (size - 1) == 0 for size in tile[-2:])

    def _load_transposed(
        self, pointer: Pointer, offset: Value | Weak, tile: Tile, strides: Sequence[Value | Weak]
    ) -> Value:
        turned = (*tile[:-2], tile[-1], tile[-2])
        value = self.load(pointer, offset, turned, [*strides[:-2], strides[-1], 1])
        return self._transposed(value)

    def _transposed(self, value: Value) -> Value:
        """Return the tile with its last two axes exchanged, by shuffles."""
        *lead, height, width = value.tile
        rows: list[Row] = []
        for first in range(0, len(value.rows), height):
            part = value.rows[first : first + height]
            rows += transposed(self.builder, part, width, value.dtype.item_bytes)
        return Value(value.dtype, (*lead, width, height), rows)


def _is(stride: Value | Weak, number: int) -> bool:
    return not isinstance(stride, Value) and stride == number


def _is_apart(stride: Value | Weak, lanes: int) -> TypeGuard[int]:
    """Return whether a row with this stride is worth adjacent accesses."""
    return lanes >= 4 and isinstance(stride, int) and 2 <= stride <= MAX_APART

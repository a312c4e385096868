"""Conversions between element types, folds and C's fmod, in LLVM IR."""

from __future__ import annotations

import math
from typing import Any

from graphc.codegen.llvm_builder import Builder, Constant, Function, undefined
from graphc.codegen.llvm_types import I1, VectorType, vector
from graphc.codegen.llvm_values import Arithmetic, Row, Tile, Value, Weak, suffix
from graphc.errors import CompileError
from graphc.ir.types import DType, bool_


class Conversions(Arithmetic):
    """Casts, bit casts, folds over tiles, and remainders of floats."""

    def cast(self, operand: Value | Weak, dtype: DType) -> Value:
        """Convert: towards zero and saturating from float to integer, NaN to 0; bool is != 0."""
        if not isinstance(operand, Value):
            return self.value(operand, dtype)
        if operand.dtype is dtype:
            return operand
        rows = [self._cast_row(r, operand.dtype, dtype, operand.lanes) for r in operand.rows]
        return Value(dtype, operand.tile, rows)

    def _cast_row(self, row: Row, old: DType, new: DType, lanes: int) -> Row:
        builder, kind = self.builder, self.row_type(new, lanes)
        if new is bool_:
            zero = self.constant(0, old, lanes)
            if old.floating:
                return builder.fcmp_unordered("!=", row, zero)
            return builder.icmp_unsigned("!=", row, zero)
        if old.floating and new.floating:
            wider = new.item_bytes > old.item_bytes
            return (builder.fpext if wider else builder.fptrunc)(row, kind)
        if old.floating:
            name = "llvm.fptosi.sat" if new.kind == "i" else "llvm.fptoui.sat"
            full = f"{name}.{suffix(kind)}.{suffix(row.type)}"
            return builder.call(self.module.declare(full, kind, [row.type]), [row], pure=True)
        if new.floating:
            return (builder.sitofp if old.kind == "i" else builder.uitofp)(row, kind)
        if old is bool_ or new.item_bytes > old.item_bytes:
            return (builder.sext if old.kind == "i" else builder.zext)(row, kind)
        return row if new.item_bytes == old.item_bytes else builder.trunc(row, kind)

    def bitcast(self, operand: Value, dtype: DType) -> Value:
        """Reinterpret bits as another type of the same size."""
        if operand.dtype.item_bytes != dtype.item_bytes or bool_ in (operand.dtype, dtype):
            raise CompileError(f"cannot reinterpret {operand.dtype} as {dtype}")
        kind = self.row_type(dtype, operand.lanes)
        rows = [r if r.type == kind else self.builder.bitcast(r, kind) for r in operand.rows]
        return Value(dtype, operand.tile, rows)

    # -- folds -------------------------------------------------------------------------------

    def fold(self, op: str, value: Value) -> Value:
        """Reduce a tile to a scalar: axes first to last, each by halves, lower with upper."""
        tile, rows = value.tile, value.rows
        while len(tile) > 1:
            rows = self._fold_rows(op, value.dtype, tile, rows)
            tile = tile[1:]
        row, lanes = rows[0], value.lanes
        if value.dtype is bool_ and op in ("and", "or") and lanes > 1:
            name = f"llvm.vector.reduce.{op}.{suffix(row.type)}"  # any order gives the same
            reduce = self.module.declare(name, I1, [row.type])
            return self.scalar(self.builder.call(reduce, [row], pure=True), bool_)
        while lanes > 1:
            half = (lanes + 1) // 2
            row = self._fold_lanes(op, value.dtype, row, lanes, half)
            lanes = half
        return self.scalar(row, value.dtype)

    def _combine(self, op: str, dtype: DType, lanes: int, a: Row, b: Row) -> Row:
        tile = (lanes,)
        return self.apply(op, Value(dtype, tile, [a]), Value(dtype, tile, [b])).rows[0]

    def _fold_rows(self, op: str, dtype: DType, tile: Tile, rows: list[Row]) -> list[Row]:
        inner, count = math.prod(tile[1:-1]), tile[0]
        rows = list(rows)
        while count > 1:
            half = (count + 1) // 2
            for position in range((count - half) * inner):
                upper = rows[half * inner + position]
                rows[position] = self._combine(op, dtype, tile[-1], rows[position], upper)
            count = half
        return rows[:inner]

    def _fold_lanes(self, op: str, dtype: DType, row: Row, lanes: int, half: int) -> Row:
        if lanes % 2 == 0:
            lower, upper = self.lanes(row, 0, half), self.lanes(row, half, half)
            return self._combine(op, dtype, half, lower, upper)
        count = lanes - half
        lower, upper = self.lanes(row, 0, count), self.lanes(row, half, count)
        combined = self._combine(op, dtype, count, lower, upper)
        middle = self.lanes(row, count, 1)
        return self.joined([combined, middle], [count, 1])

    def lanes(self, row: Row, first: int, count: int) -> Row:
        """Return some adjacent lanes of a vector; a scalar for one."""
        if not isinstance(row.type, VectorType):
            return row
        if count == 1:
            return self.builder.extract_element(row, first)
        return self.shuffle(row, row, list(range(first, first + count)))

    def shuffle(self, a: Row, b: Row, positions: list[int]) -> Row:
        """Return a vector of lanes picked from two vectors, numbered one after the other."""
        return self.builder.shuffle_vector(a, b, positions)

    def joined(self, rows: list[Row], counts: list[int]) -> Row:
        """Return the lanes of several rows in one vector."""
        total = sum(counts)
        element = rows[0].type.element if counts[0] > 1 else rows[0].type
        result = undefined(vector(element, total))
        position = 0
        for row, count in zip(rows, counts, strict=True):
            for lane in range(count):
                item = self.lanes(row, lane, 1)
                result = self.builder.insert_element(result, item, position)
                position += 1
        return result

    # -- remainders of floats ----------------------------------------------------------------

    def _rem_f(self, a: Row, b: Row) -> Row:
        return self._by_lane(self._fmod(a.type), a, b)

    def _floordiv_f(self, a: Row, b: Row) -> Row:
        """NumPy's floor division: exact about the remainder, so 1.0 // 0.1 is 9."""
        builder = self.builder
        zero, one = self.like(a, 0.0), self.like(a, 1.0)
        remainder = self._rem_f(a, b)
        quotient = builder.fdiv(builder.fsub(a, remainder), b)
        crossed = builder.and_(
            builder.fcmp_unordered("!=", remainder, zero),
            builder.xor(
                builder.fcmp_ordered("<", b, zero), builder.fcmp_ordered("<", remainder, zero)
            ),
        )
        quotient = builder.select(crossed, builder.fsub(quotient, one), quotient)
        floored = self.intrinsic("llvm.floor", quotient)
        off = builder.fcmp_ordered(">", builder.fsub(quotient, floored), self.like(a, 0.5))
        floored = builder.select(off, builder.fadd(floored, one), floored)
        plain = builder.fdiv(a, b)
        signed_zero = self.intrinsic("llvm.copysign", zero, plain)
        nonzero = builder.fcmp_unordered("!=", quotient, zero)
        floored = builder.select(nonzero, floored, signed_zero)
        return builder.select(builder.fcmp_ordered("==", b, zero), plain, floored)

    def _by_lane(self, function: Any, a: Row, b: Row) -> Row:
        if not isinstance(a.type, VectorType):
            return self.builder.call(function, [a, b], pure=True)
        result = undefined(a.type)
        for lane in range(a.type.count):
            item = self.builder.call(function, [self.lanes(a, lane, 1), self.lanes(b, lane, 1)])
            result = self.builder.insert_element(result, item, lane)
        return result

    def _fmod(self, row: Any) -> Function:
        """Return a function of the module that is C's fmod; LLVM's frem would call libm.

        It doubles the divisor up to the dividend and subtracts on the way back; every step is
        exact in floating point.
        """
        kind = getattr(row, "element", row)
        name = f"fmod_{suffix(kind)}"
        found = self.module.functions.get(name)
        if found is not None:
            return found
        function = self.module.define(Function(name, kind, [kind, kind], internal=True))
        outside, self.builder = self.builder, Builder(function, function.block("entry"))
        self._write_fmod(function, kind)
        self.builder = outside
        return function

    def _write_fmod(self, function: Function, kind: Any) -> None:
        builder, zero = self.builder, Constant(kind, 0.0)
        up, down, done, bad = (function.block(name) for name in ("up", "down", "done", "bad"))
        entry, (a, b) = builder.block, function.arguments
        dividend, divisor = self.intrinsic("llvm.fabs", a), self.intrinsic("llvm.fabs", b)
        valid = builder.and_(
            builder.fcmp_ordered("<", dividend, Constant(kind, math.inf)),
            builder.fcmp_ordered(">", divisor, zero),
        )
        builder.cbranch(valid, up, bad)
        builder.block = up
        multiple = builder.phi(kind)
        room = builder.fsub(dividend, multiple)
        doubled = builder.fadd(multiple, multiple)
        builder.cbranch(builder.fcmp_ordered(">=", room, multiple), up, down)
        multiple.add_incoming(divisor, entry)
        multiple.add_incoming(doubled, up)
        builder.block = down
        left, step = builder.phi(kind), builder.phi(kind)
        fits = builder.fcmp_ordered(">=", left, step)
        rest = builder.select(fits, builder.fsub(left, step), left)
        smaller = builder.fmul(step, Constant(kind, 0.5))
        left.add_incoming(dividend, up)
        left.add_incoming(rest, down)
        step.add_incoming(multiple, up)
        step.add_incoming(smaller, down)
        builder.cbranch(builder.fcmp_ordered(">", step, divisor), down, done)
        builder.block = done
        builder.ret(self.intrinsic("llvm.copysign", rest, a))
        builder.block = bad
        builder.ret(Constant(kind, math.nan))

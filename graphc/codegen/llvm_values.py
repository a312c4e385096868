"""Register tiles in LLVM IR: how a tile is kept, and its arithmetic, one row at a time.

A tile (8, 3, 16) is 24 *rows*, LLVM values of type ``<16 x float>``; a last axis of 1 makes rows
scalars, and a scalar has one row. Broadcasting repeats rows and splats scalars into vectors, so
(8, 1, 1) x (1, 3, 16) becomes broadcast operands, without a trip through memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from graphc.codegen.cpu import FLOAT_INTRINSICS, INTEGER_INTRINSICS
from graphc.codegen.llvm_builder import Builder, Constant, Module, Row, filled, undefined
from graphc.codegen.llvm_extremes import Extremes
from graphc.codegen.llvm_types import DOUBLE, FLOAT, I1, I32, I64, VectorType, integer, vector
from graphc.errors import CompileError
from graphc.ir.types import DType, bool_, int64

Tile = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """A typed register tile; ``rows`` in row-major order of all axes but the last."""

    dtype: DType
    tile: Tile
    rows: list[Row]

    @property
    def lanes(self) -> int:
        """Elements of a row."""
        return self.tile[-1] if self.tile else 1


Weak = int | float | bool
"""A Python number; it takes the type of the operand beside it."""


def row_positions(source: Tile, tile: Tile) -> list[int]:
    """Return, for each row of ``tile``, which row of ``source`` broadcasts to it."""
    lead = tuple(source[:-1])
    rows = np.arange(math.prod(lead)).reshape((1,) * (len(tile) - 1 - len(lead)) + lead)
    return [int(r) for r in np.broadcast_to(rows, tile[:-1]).ravel()]


class Arithmetic:
    """Emits operations over `Value` at the end of ``builder``'s block.

    Attributes
    ----------
    builder : Builder
        Where instructions go; its block may change between calls.
    mask_bits : int
        Integers that masks of leading lanes are compared in.
    scale_bits : int
        Width of vectors that one instruction multiplies by powers of two, 0 if there is none.
    """

    mask_bits = 32
    scale_bits = 0

    def __init__(self, module: Module, builder: Builder):
        self.module = module
        self.builder = builder
        self._extremes = Extremes()

    # -- types and constants -----------------------------------------------------------------

    def scalar_type(self, dtype: DType) -> Any:
        """Return the LLVM type of one element in a register."""
        if dtype.floating:
            return FLOAT if dtype.item_bytes == 4 else DOUBLE
        return I1 if dtype is bool_ else integer(8 * dtype.item_bytes)

    def row_type(self, dtype: DType, lanes: int) -> Any:
        """Return the LLVM type of a row."""
        element = self.scalar_type(dtype)
        return element if lanes == 1 else vector(element, lanes)

    def constant(self, number: Weak, dtype: DType, lanes: int = 1) -> Row:
        """Return a constant row."""
        bits = 1 if dtype is bool_ else 8 * dtype.item_bytes
        item = float(number) if dtype.floating else int(number) & ((1 << bits) - 1)
        return filled(self.row_type(dtype, lanes), item)

    def value(self, number: Weak, dtype: DType, tile: Tile = ()) -> Value:
        """Return a tile filled with a number."""
        row = self.constant(number, dtype, tile[-1] if tile else 1)
        return Value(dtype, tile, [row] * math.prod(tile[:-1]))

    def scalar(self, row: Row, dtype: DType = int64) -> Value:
        """Return a scalar value."""
        return Value(dtype, (), [row])

    def iota(self, lanes: int) -> Value:
        """Return the i64 vector 0 .. lanes - 1."""
        if lanes == 1:
            return Value(int64, (1,), [Constant(I64, 0)])
        return Value(int64, (lanes,), [Constant(vector(I64, lanes), list(range(lanes)))])

    # -- shapes ------------------------------------------------------------------------------

    def splat(self, row: Row, lanes: int) -> Row:
        """Return a vector with a scalar in every lane."""
        if lanes == 1:
            return row
        if isinstance(row, Constant):
            return Constant(vector(row.type, lanes), [row.constant] * lanes)
        nothing = undefined(vector(row.type, lanes))
        first = self.builder.insert_element(nothing, row, 0)
        return self.builder.shuffle_vector(first, nothing, [0] * lanes)

    def broadcast(self, value: Value, tile: Tile) -> list[Row]:
        """Return the rows of a value spread over a tile."""
        if value.tile == tile:
            return value.rows
        lanes = tile[-1] if tile else 1
        positions = row_positions(value.tile, tile)
        if value.lanes == lanes:
            return [value.rows[p] for p in positions]
        return [self.splat(value.rows[p], lanes) for p in positions]

    def spread(self, value: Value, tile: Tile) -> Value:
        """Return a value of a wider tile."""
        return Value(value.dtype, tile, self.broadcast(value, tile))

    def elementwise(self, rule: Callable[..., Row], values: Sequence[Value], dtype: DType) -> Value:
        """Apply a rule of rows to broadcast values."""
        tile = values[0].tile
        if any(v.tile != tile for v in values):
            tile = np.broadcast_shapes(*(v.tile for v in values))
        columns = [self.broadcast(v, tile) for v in values]
        return Value(dtype, tile, [rule(*rows) for rows in zip(*columns, strict=True)])

    # -- operations --------------------------------------------------------------------------

    def apply(self, op: str, *operands: Value | Weak) -> Value:
        """Apply a machine operation of `OPERATIONS` (all but casts); numbers are weak.

        Raises
        ------
        CompileError
            If the operation is not defined on the type.
        """
        values = self.typed(operands[1:] if op == "select" else operands)
        dtype = values[0].dtype
        if op == "lt" and _is_iota(values[0]) and not values[1].tile:
            return self.leading(values[0].lanes, values[1].rows[0])
        if op == "select":
            values.insert(0, self.as_bool(operands[0]))
        rule = self._rule(op, dtype)
        boolean = op in _COMPARISONS
        return self.elementwise(rule, values, bool_ if boolean else dtype)

    def leading(self, lanes: int, count: Row) -> Value:
        """Return the mask of the first ``count`` lanes, compared in narrow integers."""
        zero, most = whole(0), whole(lanes)
        clamped = self.intrinsic("llvm.smin", self.intrinsic("llvm.smax", count, zero), most)
        kind = integer(self.mask_bits)
        limit = self.splat(self.builder.trunc(clamped, kind), lanes)
        numbers = _lane_numbers(kind, lanes)
        return Value(bool_, (lanes,), [self.builder.icmp_unsigned("<", numbers, limit)])

    def typed(self, operands: Sequence[Value | Weak]) -> list[Value]:
        """Give numbers the type of the values beside them; i64 where there are none."""
        dtypes = {o.dtype for o in operands if isinstance(o, Value)} or {int64}
        if len(dtypes) > 1:
            raise CompileError(f"operands of types {', '.join(sorted(map(str, dtypes)))}")
        (dtype,) = dtypes
        return [o if isinstance(o, Value) else self.value(o, dtype) for o in operands]

    def as_bool(self, operand: Value | Weak) -> Value:
        """Return a condition as a bool value."""
        return operand if isinstance(operand, Value) else self.value(operand, bool_)

    def _rule(self, op: str, dtype: DType) -> Callable[..., Row]:
        if op in _COMPARISONS:
            return lambda a, b: self._compare(op, dtype, a, b)
        for table, kinds in ((_FLOAT_RULES, "f"), (_INTEGER_RULES, "iu"), (_BOOL_RULES, "b")):
            if dtype.kind in kinds and op in table:
                name = table[op]
                return lambda *rows: getattr(self.builder, name)(*rows)
        if op in ("min", "max") and dtype.floating:
            return lambda a, b: self._extreme(op, a, b)
        if op in FLOAT_INTRINSICS and dtype.floating:
            return lambda *rows: self.intrinsic(FLOAT_INTRINSICS[op], *rows)
        if (op, dtype.kind) in INTEGER_INTRINSICS:
            return lambda *rows: self.intrinsic(INTEGER_INTRINSICS[op, dtype.kind], *rows)
        special = getattr(self, f"_{op}_{dtype.kind}", None) or getattr(self, f"_{op}", None)
        if special is None or (op == "mulhi" and dtype.item_bytes != 4):
            raise CompileError(f"{op} is not defined on {dtype}")
        return lambda *rows: special(*rows)

    def intrinsic(self, name: str, *rows: Row, extra: Sequence[Row] = ()) -> Row:
        """Call an LLVM intrinsic that is overloaded on the type of its first operand."""
        kind = rows[0].type
        arguments = [*rows, *extra]
        full = f"{name}.{suffix(kind)}"
        callee = self.module.declare(full, kind, [a.type for a in arguments])
        return self.builder.call(callee, arguments, pure=True)

    def _compare(self, op: str, dtype: DType, a: Row, b: Row) -> Row:
        sign = _COMPARISONS[op]
        if dtype.floating:
            ordered = self.builder.fcmp_unordered if op == "ne" else self.builder.fcmp_ordered
            return ordered(sign, a, b)
        signed = dtype.kind == "i"
        return (self.builder.icmp_signed if signed else self.builder.icmp_unsigned)(sign, a, b)

    def _extreme(self, op: str, a: Row, b: Row) -> Row:
        plain = isinstance(a.type, VectorType) and not {Constant} & {type(a), type(b)}
        if plain and self.module.triple.startswith("x86_64"):
            return self._extremes.write(self.builder, op, a, b)
        return self.intrinsic(FLOAT_INTRINSICS[op], a, b)

    def like(self, row: Row, number: Weak) -> Row:
        """Return a constant of the type of a row."""
        return filled(row.type, number)

    def _select(self, condition: Row, a: Row, b: Row) -> Row:
        return self.builder.select(condition, a, b)

    def _neg_f(self, a: Row) -> Row:
        return self.builder.fneg(a)

    def _neg_i(self, a: Row) -> Row:
        return self.builder.sub(self.like(a, 0), a)

    _neg_u = _neg_i

    def _not(self, a: Row) -> Row:
        ones = (1 << (a.type.element if hasattr(a.type, "element") else a.type).width) - 1
        return self.builder.xor(a, self.like(a, ones))

    def _identity(self, a: Row) -> Row:
        return a

    _abs_u = _abs_b = _identity
    _floor_i = _floor_u = _ceil_i = _ceil_u = _identity
    _trunc_i = _trunc_u = _round_i = _round_u = _identity

    def _abs_i(self, a: Row) -> Row:
        return self.intrinsic("llvm.abs", a, extra=[Constant(I1, 0)])

    def _mulhi_u(self, a: Row, b: Row) -> Row:
        wide: Any = I64
        if isinstance(a.type, VectorType):
            wide = vector(wide, a.type.count)
        product = self.builder.mul(self.builder.zext(a, wide), self.builder.zext(b, wide))
        return self.builder.trunc(self.builder.lshr(product, self.like(product, 32)), a.type)

    def _scale_f(self, a: Row, power: Row) -> Row:
        kind = a.type
        width = _float_bits(kind)
        if isinstance(kind, VectorType) and kind.count * width == self.scale_bits:
            mask, name = integer(kind.count), f"llvm.x86.avx512.mask.scalef.{_PACKED[width]}.512"
            callee = self.module.declare(name, kind, [kind, kind, kind, mask, I32])
            arguments = [a, power, a, Constant(mask, -1), Constant(I32, _AS_ROUNDED)]
            return self.builder.call(callee, arguments, pure=True)
        return self._scaled_twice(a, power)

    def _scaled_twice(self, a: Row, power: Row) -> Row:
        """Multiply by halves of the power, which do not overflow: the first product is exact."""
        fraction, one = _FRACTIONS[_float_bits(a.type)]
        build, whole = self.builder, self.like(power, 1.5 * 2.0**fraction)
        bits: Any = integer(_float_bits(a.type))
        bits = vector(bits, a.type.count) if isinstance(a.type, VectorType) else bits
        number = build.bitcast(build.fadd(power, whole), bits)
        half = build.ashr(number, self.like(number, 1))
        for part in (half, build.sub(number, half)):
            shifted = build.shl(part, self.like(part, fraction))
            factor = build.bitcast(build.add(shifted, self.like(part, one)), a.type)
            a = build.fmul(a, factor)
        return a

    # A shift by the width or more is poison in LLVM; here all bits leave, as in NumPy.

    def _shl_i(self, a: Row, b: Row) -> Row:
        return self._shift(self.builder.shl, a, b)

    _shl_u = _shl_i

    def _shr_u(self, a: Row, b: Row) -> Row:
        return self._shift(self.builder.lshr, a, b)

    def _shr_i(self, a: Row, b: Row) -> Row:
        width = bit_width(a.type)
        if _is_between(b, 0, width - 1):
            return self.builder.ashr(a, b)
        return self.builder.ashr(a, self.intrinsic("llvm.umin", b, self.like(b, width - 1)))

    def _shift(self, shift: Callable[..., Row], a: Row, b: Row) -> Row:
        width = bit_width(a.type)
        if _is_between(b, 0, width - 1):
            return shift(a, b)
        inside = self.builder.icmp_unsigned("<", b, self.like(b, width))
        amount = self.builder.select(inside, b, self.like(b, 0))
        return self.builder.select(inside, shift(a, amount), self.like(a, 0))

    # Divisions: a zero divisor and MIN / -1 trap on some machines, so they never reach them.

    def _safe_divisor(self, b: Row, signed: bool) -> Row:
        if _is_positive(b):
            return b
        unsafe = self.builder.icmp_signed("==", b, self.like(b, 0))
        if signed:
            minus = self.builder.icmp_signed("==", b, self.like(b, -1))
            unsafe = self.builder.or_(unsafe, minus)
        return self.builder.select(unsafe, self.like(b, 1), b)

    def _divided(self, a: Row, b: Row, quotient: Row) -> Row:
        """Put in a/0 == 0 and a/-1 == -a."""
        if _is_positive(b):
            return quotient
        zero, minus = self.like(b, 0), self.like(b, -1)
        negated = self.builder.sub(zero, a)
        quotient = self.builder.select(self.builder.icmp_signed("==", b, minus), negated, quotient)
        return self.builder.select(self.builder.icmp_signed("==", b, zero), zero, quotient)

    def _remaining(self, b: Row, remainder: Row) -> Row:
        if _is_positive(b):
            return remainder
        zero = self.like(b, 0)
        return self.builder.select(self.builder.icmp_signed("==", b, zero), zero, remainder)

    def _floor_parts(self, a: Row, b: Row) -> tuple[Row, Row, Row]:
        """Return divisor, remainder towards zero, and whether rounding down changes it."""
        divisor = self._safe_divisor(b, signed=True)
        remainder = self.builder.srem(a, divisor)
        zero = self.like(a, 0)
        signs = self.builder.xor(remainder, divisor)
        crossed = self.builder.and_(
            self.builder.icmp_signed("!=", remainder, zero),
            self.builder.icmp_signed("<", signs, zero),
        )
        return divisor, remainder, crossed

    def _floordiv_i(self, a: Row, b: Row) -> Row:
        known = _known(b) or 0
        if known & (known - 1) == 0 and _is_positive(b):
            return self.builder.ashr(a, self.like(a, known.bit_length() - 1))
        divisor, _, crossed = self._floor_parts(a, b)
        quotient = self.builder.sdiv(a, divisor)
        lower = self.builder.sub(quotient, self.like(a, 1))
        return self._divided(a, b, self.builder.select(crossed, lower, quotient))

    def _mod_i(self, a: Row, b: Row) -> Row:
        known = _known(b) or 0
        if known & (known - 1) == 0 and _is_positive(b):
            return self.builder.and_(a, self.like(a, known - 1))
        divisor, remainder, crossed = self._floor_parts(a, b)
        upper = self.builder.add(remainder, divisor)
        return self._remaining(b, self.builder.select(crossed, upper, remainder))

    def _rem_i(self, a: Row, b: Row) -> Row:
        return self._remaining(b, self.builder.srem(a, self._safe_divisor(b, signed=True)))

    def _floordiv_u(self, a: Row, b: Row) -> Row:
        quotient = self.builder.udiv(a, self._safe_divisor(b, signed=False))
        return self._remaining(b, quotient)

    def _mod_u(self, a: Row, b: Row) -> Row:
        return self._remaining(b, self.builder.urem(a, self._safe_divisor(b, signed=False)))

    _rem_u = _mod_u


_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_FRACTIONS = {32: (23, 127 << 23), 64: (52, 1023 << 52)}
"""Bits of a float -> those of its fraction, and 1.0 as an integer."""
_PACKED = {32: "ps", 64: "pd"}
_AS_ROUNDED = 4
"""Operand of an instruction of AVX-512: round as all others do."""
_FLOAT_RULES = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_BITS = {"and": "and_", "or": "or_", "xor": "xor"}
_INTEGER_RULES = {"add": "add", "sub": "sub", "mul": "mul", **_BITS}
_BOOL_RULES = {**_BITS, "add": "or_", "max": "or_", "mul": "and_", "min": "and_"}


@cache
def whole(number: int) -> Constant:
    """Return a constant of 64 bits."""
    return Constant(I64, number % (1 << 64))


@cache
def _lane_numbers(kind: Any, lanes: int) -> Constant:
    return Constant(vector(kind, lanes), list(range(lanes)))


def _is_iota(value: Value) -> bool:
    """Whether a value is the lane numbers of a vector, few enough for 8 bits."""
    numbers = getattr(value.rows[0], "constant", None)
    short = len(value.tile) == 1 and 1 < value.lanes <= 128 and value.dtype is int64
    return short and numbers == list(range(value.lanes))


def bit_width(kind: Any) -> int:
    """Return the bits of an integer type, or of a vector's elements."""
    return int(getattr(kind, "element", kind).width)


def _float_bits(kind: Any) -> int:
    return 32 if getattr(kind, "element", kind) is FLOAT else 64


def suffix(kind: Any) -> str:
    """Return LLVM's name of a type inside an intrinsic's name: ``v16f32``."""
    if hasattr(kind, "count"):
        return f"v{kind.count}{suffix(kind.element)}"
    return {"float": "f32", "double": "f64"}.get(str(kind), str(kind))


def _known(row: Row) -> int | None:
    """Return the integer that every lane of a constant holds, or None."""
    found = getattr(row, "constant", None)
    if isinstance(found, list):
        items = set(found)
        found = items.pop() if len(items) == 1 else None
    return found if isinstance(found, int) else None


def _is_positive(row: Row) -> bool:
    """Whether a row is a constant above zero, read as signed."""
    return _is_between(row, 1, (1 << (bit_width(row.type) - 1)) - 1)


def _is_between(row: Row, low: int, high: int) -> bool:
    """Whether a row is a constant in a range."""
    known = _known(row)
    return known is not None and low <= known <= high

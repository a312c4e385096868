"""Python text to LLVM IR through Numba's front end.

Numba reads the byte code: it finds the loops and branches and turns the function into blocks of
simple assignments. Types are known at each of them, since every value carries its own, so one walk
over the blocks both types and lowers them. Numba's type inference and its lowering are left out:
they cost most of its compile time, wait for an import of half a second more, and would promote
int32 to int64 and int * float32 to float64.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc import lazy
from graphc.codegen.llvm_builder import Constant
from graphc.codegen.llvm_kernel import KernelEmitter
from graphc.codegen.llvm_memory import Memory, Pointer
from graphc.codegen.llvm_types import I64
from graphc.codegen.llvm_values import Tile, Value, Weak
from graphc.codegen.python_text import DTYPE_NAMES, FOLDS, FUNCTIONS
from graphc.errors import CompileError
from graphc.ir.target import Target
from graphc.ir.types import DType

_OPERATORS: dict[Callable[..., Any], str] = {
    operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.truediv: "div",
    operator.floordiv: "floordiv", operator.mod: "mod", operator.and_: "and", operator.or_: "or",
    operator.xor: "xor", operator.lshift: "shl", operator.rshift: "shr", operator.neg: "neg",
    operator.lt: "lt", operator.le: "le", operator.gt: "gt", operator.ge: "ge",
    operator.eq: "eq", operator.ne: "ne",
}  # fmt: skip
_OPERATIONS = {name: op for op, name in FUNCTIONS.items()}


def lowered(text: str, target: Target) -> str:
    """Return the LLVM IR of a kernel's text, not yet optimized."""
    return _Lowering(text, target).emit.finish()


@dataclass(slots=True)
class _Loop:
    """``iter(range(start, stop, step))``: a counter on the stack."""

    counter: Any
    stop: Any
    step: int


@dataclass(frozen=True, slots=True)
class _Range:
    start: Value | Weak
    stop: Value | Weak
    step: int


@dataclass(frozen=True, slots=True)
class _Slot:
    """A register that is assigned more than once: stack memory for each row."""

    dtype: DType
    tile: Tile
    cells: list[Any]


class _Lowering:
    """One walk over Numba's blocks; ``values`` maps variables to what they hold."""

    def __init__(self, text: str, target: Target):
        self.numba_ir = lazy.numba().core.ir
        self.target = target
        self.blocks = _numba_blocks(text)
        self.emit = KernelEmitter(target)
        labels = sorted(self.blocks)
        self.llvm_blocks = {k: self.emit.function.block() for k in labels}
        self.names = self._global_names()
        self.values: dict[str, Any] = {}
        self.slots: dict[tuple[str, DType, Tile], _Slot] = {}
        self.assignments = Counter(
            inst.target.name
            for block in self.blocks.values()
            for inst in block.body
            if isinstance(inst, self.numba_ir.Assign)
        )
        for label in labels:
            self.emit.builder.block = self.llvm_blocks[label]
            self.emit.builder.forget()
            for inst in self.blocks[label].body:
                self.instruction(inst)
        self.emit.builder.block = self.emit.start
        self.emit.builder.branch(self.llvm_blocks[labels[0]])

    # -- instructions ------------------------------------------------------------------------

    def instruction(self, inst: Any) -> None:
        ir, builder = self.numba_ir, self.emit.builder
        match inst:
            case ir.Assign():
                self.assign(inst.target.name, self.evaluate(inst.value))
            case ir.Branch():
                (condition,) = self.emit.as_bool(self.read(inst.cond)).rows
                yes, no = self.llvm_blocks[inst.truebr], self.llvm_blocks[inst.falsebr]
                builder.cbranch(condition, yes, no)
            case ir.Jump():
                builder.branch(self.llvm_blocks[inst.target])
            case ir.Return():
                self.emit.leave(self.read(inst.value))
            case ir.Del() | ir.PopBlock():
                pass
            case _:
                raise CompileError(f"kernel text holds an unexpected {type(inst).__name__}: {inst}")

    def assign(self, name: str, value: Any) -> None:
        if self.assignments[name] > 1 and isinstance(value, Value | int | float):
            value = self.into_slot(name, self.emit.typed([value])[0])
        self.values[name] = value

    def into_slot(self, name: str, value: Value) -> _Slot:
        key = (name, value.dtype, value.tile)
        slot = self.slots.get(key)
        if slot is None:
            kind = self.emit.row_type(value.dtype, value.lanes)
            cells = [self.emit.entry.alloca(kind) for _ in value.rows]
            slot = self.slots[key] = _Slot(value.dtype, value.tile, cells)
        for row, cell in zip(value.rows, slot.cells, strict=True):
            self.emit.builder.store(row, cell)
        return slot

    def read(self, variable: Any) -> Any:
        found = self.values[variable.name]
        if not isinstance(found, _Slot):
            return found
        kind = self.emit.row_type(found.dtype, found.tile[-1] if found.tile else 1)
        rows = [self.emit.builder.load(cell, kind) for cell in found.cells]
        return Value(found.dtype, found.tile, rows)

    def evaluate(self, source: Any) -> Any:
        ir = self.numba_ir
        match source:
            case ir.Const():
                return source.value
            case ir.Global() | ir.FreeVar():
                return self.names[source.name]
            case ir.Arg():
                row = self.emit.function.arguments[source.index]
                return self.emit.scalar(row) if row.type is I64 else row
            case ir.Var():
                return self.read(source)
            case ir.Expr():
                return self.expression(source)
        raise CompileError(f"kernel text holds an unexpected {type(source).__name__}: {source}")

    def expression(self, expr: Any) -> Any:
        match expr.op:
            case "binop":
                operands = self.read(expr.lhs), self.read(expr.rhs)
                return self.operation(expr.fn, *operands)
            case "unary":
                return self.operation(expr.fn, self.read(expr.value))
            case "call":
                arguments = [self.read(a) for a in expr.args]
                return self.read(expr.func)(*arguments)
            case "build_tuple":
                return tuple(self.read(item) for item in expr.items)
            case "getiter":
                return self.start_loop(self.read(expr.value))
            case "iternext":
                return self.next_iteration(self.read(expr.value))
            case "pair_first":
                return self.read(expr.value)[0]
            case "pair_second":
                return self.read(expr.value)[1]
            case "cast":
                return self.read(expr.value)
        raise CompileError(f"kernel text holds an unexpected {expr.op}")

    def operation(self, function: Callable[..., Any], *operands: Any) -> Any:
        if not any(isinstance(o, Value) for o in operands):
            return function(*operands)
        return self.emit.apply(_OPERATORS[function], *operands)

    # -- loops -------------------------------------------------------------------------------

    def start_loop(self, bounds: _Range) -> _Loop:
        start, stop = self.emit.typed([bounds.start, bounds.stop, self.emit.iota(1)])[:2]
        counter = self.emit.entry.alloca(I64)
        self.emit.builder.store(start.rows[0], counter)
        return _Loop(counter, stop.rows[0], bounds.step)

    def next_iteration(self, loop: _Loop) -> tuple[Value, Value]:
        builder = self.emit.builder
        position = builder.load(loop.counter, I64)
        more = builder.icmp_signed("<", position, loop.stop)
        builder.store(builder.advance(position, Constant(I64, loop.step)), loop.counter)
        return self.emit.scalar(position), self.emit.scalar(more)

    # -- the names of the text ---------------------------------------------------------------

    def _global_names(self) -> dict[str, Any]:
        emit = self.emit
        names: dict[str, Any] = {
            "inf": math.inf,
            "nan": math.nan,
            "bool": lambda condition: condition,
            "range": self.range,
            "buffer": lambda buffers, position, dtype: emit.buffer(position, dtype.dtype),
            "size": lambda sizes, position: emit.size(position),
            "alloc": lambda dtype, count: emit.alloc(dtype.dtype, count),
            "load": self.load,
            "load_where": lambda mask, fill, *rest: self.load(*rest, mask=mask, fill=fill),
            "gather": emit.gather,
            "gather_where": lambda mask, fill, p, at: emit.gather(p, at, mask, fill),
            "store": emit.store,
            "store_where": lambda mask, *rest: self.store(rest, mask=mask),
            "scatter": emit.scatter,
            "scatter_where": lambda mask, p, at, value: emit.scatter(p, at, value, mask),
            "stream": lambda *rest: self.store(rest, streaming=True),
            "stream_where": lambda mask, *rest: self.store(rest, mask=mask, streaming=True),
            "stream_fence": emit.stream_fence,
            "prefetch": emit.prefetch,
            "prefetch_to_write": lambda p, at, level=1: emit.prefetch(p, at, level, True),
            "fail": self.fail,
            "full": lambda dtype, number, *tile: emit.value(number, dtype.dtype, tile),
            "spread": lambda value, *tile: emit.spread(emit.typed([value])[0], tile),
            "repeat": emit.repeat,
            "iota": emit.iota,
            "bitcast": lambda value, dtype: emit.bitcast(value, dtype.dtype),
        }
        names |= {name: self.function_of(op) for name, op in _OPERATIONS.items()}
        names |= {name: self.fold_of(op) for name, op in FOLDS.items()}
        return names | {name: _Convert(emit, dtype) for name, dtype in DTYPE_NAMES.items()}

    def function_of(self, op: str) -> Callable[..., Value]:
        return lambda *operands: self.emit.apply(op, *operands)

    def fold_of(self, op: str) -> Callable[[Value], Value]:
        return lambda value: self.emit.fold(op, value)

    def range(self, *bounds: Any) -> _Range:
        start, stop, step = (0, *bounds, 1) if len(bounds) == 1 else (*bounds, 1)[:3]
        return _Range(start, stop, step)

    def load(
        self,
        pointer: Pointer,
        offset: Value | Weak,
        tile: Tile | int = (),
        strides: Sequence[Value | Weak] = (1,),
        **masked: Any,
    ) -> Value:
        shape = (tile,) if isinstance(tile, int) else tile
        return self.emit.load(pointer, offset, shape, strides, **masked)

    def store(self, operands: Sequence[Any], **options: Any) -> None:
        self.emit.store(*operands, **options)

    def fail(self, error: Any, code: int, *details: Value | Weak) -> int:
        self.emit.fail(code, details)
        return 1


@dataclass(frozen=True, slots=True)
class _Convert:
    """A type's name in the text: converts values and types constants."""

    emit: Memory
    dtype: DType

    def __call__(self, operand: Value | Weak) -> Value:
        return self.emit.cast(operand, self.dtype)


def _numba_blocks(text: str) -> dict[int, Any]:
    """Return the blocks of Numba's IR of a kernel's text."""
    scope: dict[str, Any] = {}
    exec(compile(text, "<kernel>", "exec"), scope)
    frontend = lazy.numba().core.compiler.run_frontend
    return frontend(scope["kernel"], emit_dels=False).blocks  # type: ignore[no-any-return]

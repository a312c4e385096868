"""Functions of the runtime in LLVM IR: local variables, loops, and fields of ctypes structures."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from graphc.codegen.dispatch_layout import PoolState
from graphc.codegen.llvm_builder import Block, Builder, Constant, Function, Module, Row
from graphc.codegen.llvm_types import I1, I8, I32, I64, POINTER, VOID, Type, array, integer

TYPES = {"v": VOID, "i": I32, "q": I64, "p": POINTER}
"""Types of results and arguments by letters."""

_FIELDS = {
    ctypes.c_void_p: POINTER,
    ctypes.c_int32: I32,
    ctypes.c_uint16: integer(16),
    ctypes.c_uint8: I8,
}

Struct = type[ctypes.Structure]


class NativeFunction:
    """One function being written: its builder, and native fields by name.

    Parameters
    ----------
    module : Module
    name : str
    result, arguments : str
        Letters of `TYPES`.
    internal : bool
        Whether nothing outside the module calls it.
    """

    def __init__(
        self, module: Module, name: str, result: str, arguments: str, internal: bool = True
    ):
        self.module = module
        kinds = [TYPES[letter] for letter in arguments]
        function = Function(name, TYPES[result], kinds, "nounwind", internal)
        self.function = module.define(function)
        self._stack = Builder(function, function.block("entry"))
        self._start = function.block("start")
        self.builder = Builder(function, self._start)

    @property
    def arguments(self) -> tuple[Row, ...]:
        """The function's arguments."""
        return tuple(self.function.arguments)

    def constant(self, value: int) -> Row:
        """Return a number of 64 bits."""
        return Constant(I64, value)

    def returns(self, value: Row | None = None) -> Function:
        """Return a value from here, and the function: it is whole now."""
        self.builder.ret(value)
        self._stack.branch(self._start)
        return self.function

    def at(self, base: Row, struct: Struct, field: str) -> tuple[Row, Type]:
        """Return address and type of a field."""
        offset = self.constant(getattr(struct, field).offset)
        types = dict(item[:2] for item in struct._fields_)
        return self.builder.gep(base, offset, I8), _FIELDS.get(types[field], I64)

    def load(self, base: Row, struct: Struct, field: str) -> Row:
        """Return what a field holds."""
        place, kind = self.at(base, struct, field)
        return self.builder.load(place, kind, _align_bytes(kind))

    def store(self, value: Row, base: Row, struct: Struct, field: str) -> None:
        """Change a field."""
        place, kind = self.at(base, struct, field)
        self.builder.store(value, place, _align_bytes(kind))

    def load_atomic(self, base: Row, field: str, ordering: str = "monotonic") -> Row:
        """Return what a field of the pool holds."""
        return self.builder.load_atomic(self.at(base, PoolState, field)[0], ordering)

    def store_atomic(self, value: Row, base: Row, field: str, ordering: str) -> None:
        """Change a field of the pool."""
        self.builder.store_atomic(value, self.at(base, PoolState, field)[0], ordering)

    def add_atomic(self, base: Row, field: str, amount: Row, ordering: str) -> None:
        """Add to a field of the pool."""
        self.builder.add_atomic(self.at(base, PoolState, field)[0], amount, ordering)

    def stack(self, struct: Struct) -> Row:
        """Reserve a structure on the stack."""
        return self._stack.alloca(words(struct), 8)

    def stack_words(self, count: int) -> Row:
        """Reserve words of 64 bits on the stack."""
        return self._stack.alloca(array(I64, max(count, 1)), 8)

    def variable(self, value: Row) -> Row:
        """Reserve a local variable; LLVM turns it into a register."""
        slot = self._stack.alloca(value.type)
        self.builder.store(value, slot)
        return slot

    def get(self, slot: Row) -> Row:
        """Return what a local variable of 64 bits holds."""
        return self.builder.load(slot, I64)

    def increase(self, slot: Row, amount: Row | None = None) -> None:
        """Add to a local variable, by default 1."""
        amount = self.constant(1) if amount is None else amount
        self.builder.store(self.builder.add(self.get(slot), amount), slot)

    def word(self, base: Row, index: Row | int) -> Row:
        """Return the address of a word of 64 bits in an array."""
        index = self.constant(index) if isinstance(index, int) else index
        return self.builder.gep(base, index, I64)

    def get_word(self, base: Row, index: Row | int) -> Row:
        """Return a word of an array."""
        return self.builder.load(self.word(base, index), I64, 8)

    def put_word(self, value: Row, base: Row, index: Row | int) -> None:
        """Change a word of an array."""
        self.builder.store(value, self.word(base, index), 8)

    def library(self, name: str, signature: str, *arguments: Row) -> Row:
        """Call a function of the C library: the letters of its result, then of its arguments."""
        kinds = [TYPES[letter] for letter in signature[1:]]
        return self.builder.call(
            self.module.declare(name, TYPES[signature[0]], kinds), arguments
        )

    def block(self, name: str) -> Block:
        """Return a new block."""
        return self.function.block(name)

    def go_on(self, block: Block) -> None:
        """Carry on in a block that control comes to from elsewhere."""
        self.builder.forget()
        self.builder.block = block

    @contextmanager
    def loop(self) -> Iterator[tuple[Block, Block]]:
        """Repeat the body for ever; yields the blocks to branch to for the next round and out."""
        again, leave = self.block("again"), self.block("leave")
        self.builder.branch(again)
        self.go_on(again)
        yield again, leave
        if not self.builder.block.terminated:
            self.builder.branch(again)
        self.go_on(leave)

    @contextmanager
    def count(self, stop: Row) -> Iterator[Row]:
        """Repeat the body for each number from 0 below ``stop``; yields the number."""
        slot = self.variable(self.constant(0))
        with self.loop() as (_, leave):
            number = self.get(slot)
            self.go_if(self.builder.icmp_signed(">=", number, stop), leave)
            yield number
            self.increase(slot)

    def go_if(self, condition: Row, block: Block) -> None:
        """Branch to ``block`` where the condition holds, and carry on in a new block otherwise."""
        rest = self.block("rest")
        self.builder.cbranch(condition, block, rest)
        self.builder.block = rest

    def leave_if(self, condition: Row, value: Row) -> None:
        """Return ``value`` where the condition holds, and carry on otherwise."""
        with self.builder.if_then(condition):
            self.builder.ret(value)

    def is_zero(self, value: Row) -> Row:
        """Return whether a number is 0, or an address null."""
        nothing = Row(POINTER, "null") if value.type is POINTER else Constant(value.type, 0)
        return self.builder.icmp_unsigned("==", value, nothing)

    def is_set(self, value: Row) -> Row:
        """Return whether a number is not 0, or an address not null."""
        return self.builder.xor(self.is_zero(value), Constant(I1, 1))


def words(struct: Struct) -> Type:
    """Return the type of a structure as words of 64 bits."""
    return array(I64, ctypes.sizeof(struct) // 8)


def _align_bytes(kind: Type) -> int:
    return getattr(kind, "width", 64) // 8

"""LLVM IR as text: constants, blocks, and a builder that never writes a value twice.

An instruction without side effects that is written again where its first copy is known gives the
first copy's result: value numbering while writing. That saves LLVM most of its own redundancy
passes, and text is what LLVM parses anyway. Method names are those of LLVM's own builders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.codegen.llvm_types import (
    I1,
    I32,
    I64,
    POINTER,
    VOID,
    IntegerType,
    Type,
    VectorType,
    literal,
    vector,
)

FLAGGED = Type("{ i64, i1 }")
"""A number and a flag, as instructions return that may not succeed."""


# -- values --------------------------------------------------------------------------------------


class Row:
    """A value: its type and the text that names it."""

    __slots__ = ("text", "type")

    def __init__(self, type: Any, text: str):
        self.type, self.text = type, text

    @property
    def typed(self) -> str:
        """The value as an operand that says its type."""
        return f"{self.type.text} {self.text}"


class Constant(Row):
    """A constant; ``constant`` is its number, or a list of them for the lanes of a vector."""

    __slots__ = ("constant",)

    def __init__(self, type: Any, number: Any):
        super().__init__(type, literal(type, number))
        self.constant = number


class Phi(Row):
    """A value that depends on the block that control comes from."""

    __slots__ = ("incoming",)

    def __init__(self, type: Any, text: str):
        super().__init__(type, text)
        self.incoming: list[str] = []

    def add_incoming(self, row: Row, block: Block) -> None:
        """Give the value for control that comes from a block."""
        self.incoming.append(f"[ {row.text}, %{block.name} ]")

    def __str__(self) -> str:
        return f"  {self.text} = phi {self.type.text} {', '.join(self.incoming)}"


def filled(type: Any, number: float) -> Constant:
    """Return a constant with one number, in every lane of a vector."""
    return Constant(type, [number] * type.count if isinstance(type, VectorType) else number)


def undefined(type: Any) -> Row:
    """Return a value whose content does not matter."""
    return Row(type, "poison")


def zeroed(type: Any) -> Row:
    """Return a value of zeros only, of any type."""
    return Row(type, "zeroinitializer")


# -- modules, functions, blocks ------------------------------------------------------------------


class Block:
    """Instructions up to one that leaves."""

    __slots__ = ("lines", "name", "terminated")

    def __init__(self, name: str):
        self.name = name
        self.lines: list[str | Phi] = []
        self.terminated = False


class Function:
    """A function being written."""

    def __init__(
        self,
        name: str,
        result: Type,
        arguments: Sequence[Type],
        attributes: str = "",
        internal: bool = False,
        convention: str = "",
    ):
        self.name, self.result, self.attributes = name, result, attributes
        self.linkage = "internal " if internal else convention
        self.arguments = [Row(kind, f"%a{k}") for k, kind in enumerate(arguments)]
        self.blocks: list[Block] = []
        self.count = 0

    def block(self, name: str = "b") -> Block:
        """Return a new block at the end."""
        self.count += 1
        made = Block(f"{name}{self.count}")
        self.blocks.append(made)
        return made

    def fresh(self) -> str:
        """Return a new name of a value."""
        self.count += 1
        return f"%v{self.count}"

    @property
    def text(self) -> str:
        """The function as a declaration, or with its blocks."""
        kinds = ", ".join(a.type.text for a in self.arguments)
        if not self.blocks:
            return f"declare {self.result.text} @{self.name}({kinds}) {self.attributes}\n"
        arguments = ", ".join(a.typed for a in self.arguments)
        head = f"define {self.linkage}{self.result.text} @{self.name}({arguments})"
        lines = [f"{head} {self.attributes} {{"]
        for block in self.blocks:
            lines.append(f"{block.name}:")
            lines += map(str, block.lines)
        return "\n".join([*lines, "}\n"])


class Module:
    """Functions by name, behind ``head``."""

    def __init__(self, triple: str):
        self.triple, self.head = triple, [f'target triple = "{triple}"']
        self.functions: dict[str, Function] = {}

    def declare(self, name: str, result: Type, arguments: Sequence[Type]) -> Function:
        """Return the function of this name, declared at its first use."""
        found = self.functions.get(name)
        return found or self.functions.setdefault(name, Function(name, result, arguments))

    def define(self, function: Function) -> Function:
        """Add a function that is being written."""
        self.functions[function.name] = function
        return function

    def __str__(self) -> str:
        parts = [f.text for f in self.functions.values()]
        return "\n".join([*self.head, *parts, NONTEMPORARY])


NONTEMPORARY = "!0 = !{i32 1}\n"
"""The metadata that a streaming store refers to."""


# -- the builder ---------------------------------------------------------------------------------

_SIGNED = {"<": "slt", "<=": "sle", ">": "sgt", ">=": "sge", "==": "eq", "!=": "ne"}
_UNSIGNED = {"<": "ult", "<=": "ule", ">": "ugt", ">=": "uge", "==": "eq", "!=": "ne"}
_ORDERED = {"<": "olt", "<=": "ole", ">": "ogt", ">=": "oge", "==": "oeq", "!=": "one"}
_UNORDERED = {"<": "ult", "<=": "ule", ">": "ugt", ">=": "uge", "==": "ueq", "!=": "une"}


def _binary(name: str) -> Callable[[Builder, Row, Row], Row]:
    """Return the method of an instruction of two operands of one type."""

    def write(self: Builder, a: Row, b: Row) -> Row:
        return self._moved(a.type, f"{name} {a.type.text} {a.text}, {b.text}", a, b)

    return write


_MOVED = {I64, POINTER}
"""Types of the values of index arithmetic."""


def _number(row: Row) -> int | None:
    """Return the number of a constant integer scalar, or None."""
    if isinstance(row, Constant) and isinstance(row.type, IntegerType):
        return int(row.constant) % (1 << row.type.width)
    return None


def _conversion(name: str) -> Callable[[Builder, Row, Any], Row]:
    """Return the method of a conversion to a type."""

    def write(self: Builder, a: Row, kind: Any) -> Row:
        return a if a.type is kind else self._pure(kind, f"{name} {a.typed} to {kind.text}")

    return write


class Ahead:
    """The block in front of an innermost loop: what its index arithmetic repeats goes there.

    Attributes
    ----------
    block : Block
    last : int
        Greatest number among names of values in front of the loop.
    """

    __slots__ = ("block", "known", "last", "names")

    def __init__(self, block: Block, last: int):
        self.block, self.last = block, last
        self.known: dict[str, Row] = {}
        self.names: set[str] = set()

    def has(self, row: Row) -> bool:
        """Whether a value is there at the end of the block."""
        text = row.text
        return not text.startswith("%v") or int(text[2:]) <= self.last or text in self.names


class Builder:
    """Writes instructions at the end of ``block``.

    Attributes
    ----------
    function : Function
    block : Block
    ahead : Ahead or None
        Where integer arithmetic and addresses go whose operands are known there.
    """

    def __init__(self, function: Function, block: Block):
        self.function, self.block = function, block
        self.ahead: Ahead | None = None
        self._known: dict[str, Row] = {}
        self._added: list[str] = []
        self._sums: dict[str, tuple[Row, int]] = {}

    # -- what is known -----------------------------------------------------------------------

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Forget on leaving what was computed inside, where not every path comes through."""
        mark = len(self._added)
        yield
        for text in self._added[mark:]:
            del self._known[text]
        del self._added[mark:]

    def forget(self) -> None:
        """Forget everything: what follows may not be reached from here."""
        self._known.clear()
        self._added.clear()

    def _pure(self, kind: Any, text: str) -> Row:
        found = self._known.get(text)
        if found is None:
            found = self._effect(kind, text)
            self._known[text] = found
            self._added.append(text)
        return found

    def _moved(self, kind: Any, text: str, *operands: Row) -> Row:
        """Write an instruction in front of the loop if all operands are known there."""
        ahead = self.ahead
        if ahead is None or kind not in _MOVED or not all(map(ahead.has, operands)):
            return self._pure(kind, text)
        found = self._known.get(text)
        if found is None or not ahead.has(found):
            found = ahead.known.get(text)
        if found is None:
            here, self.block = self.block, ahead.block
            found = ahead.known[text] = self._effect(kind, text)
            self.block = here
            ahead.names.add(found.text)
        return found

    def _effect(self, kind: Any, text: str) -> Row:
        row = Row(kind, self.function.fresh())
        self.block.lines.append(f"  {row.text} = {text}")
        return row

    def _line(self, text: str) -> None:
        self.block.lines.append(f"  {text}")

    # -- arithmetic --------------------------------------------------------------------------

    _add, _sub, _mul = map(_binary, ("add", "sub", "mul"))
    sdiv, udiv, srem, urem = map(_binary, ("sdiv", "udiv", "srem", "urem"))
    shl, lshr, ashr = map(_binary, ("shl", "lshr", "ashr"))
    and_, or_, xor = map(_binary, ("and", "or", "xor"))
    fadd, fsub, fmul, fdiv = map(_binary, ("fadd", "fsub", "fmul", "fdiv"))
    advance, _less, _times = map(_binary, ("add nsw", "sub nsw", "mul nsw"))

    def add(self, a: Row, b: Row, wraps: bool = True) -> Row:
        """Return a sum; constants of scalars are gathered, which finds equal addresses."""
        write = self._add if wraps else self.advance
        a, b = (b, a) if isinstance(a, Constant) else (a, b)
        number = _number(b)
        if number is None:
            return write(a, b)
        if isinstance(a, Constant):
            return Constant(a.type, (a.constant + number) % (1 << a.type.width))
        base, before = self._sums.get(a.text, (a, 0))
        total = (before + number) % (1 << a.type.width)
        if not total:
            return base
        row = write(base, Constant(a.type, total))
        self._sums[row.text] = base, total
        return row

    def sub(self, a: Row, b: Row, wraps: bool = True) -> Row:
        """Return a difference."""
        number = _number(b)
        write = self._sub if wraps else self._less
        return write(a, b) if number is None else self.add(a, Constant(a.type, -number), wraps)

    def mul(self, a: Row, b: Row, wraps: bool = True) -> Row:
        """Return a product; those of scalars by 0, 1 and -1 take no multiplication."""
        a, b = (b, a) if isinstance(a, Constant) else (a, b)
        number, write = _number(b), self._mul if wraps else self._times
        if number is None:
            return write(a, b)
        if isinstance(a, Constant):
            return Constant(a.type, a.constant * number % (1 << a.type.width))
        if number == (1 << a.type.width) - 1:
            return self._sub(Constant(a.type, 0), a)
        return b if number == 0 else a if number == 1 else write(a, b)

    def fneg(self, a: Row) -> Row:
        return self._pure(a.type, f"fneg {a.typed}")

    def _compare(self, text: str, a: Row, b: Row) -> Row:
        kind = vector(I1, a.type.count) if isinstance(a.type, VectorType) else I1
        return self._pure(kind, f"{text} {a.typed}, {b.text}")

    def icmp_signed(self, sign: str, a: Row, b: Row) -> Row:
        return self._compare(f"icmp {_SIGNED[sign]}", a, b)

    def icmp_unsigned(self, sign: str, a: Row, b: Row) -> Row:
        return self._compare(f"icmp {_UNSIGNED[sign]}", a, b)

    def fcmp_ordered(self, sign: str, a: Row, b: Row) -> Row:
        return self._compare(f"fcmp {_ORDERED[sign]}", a, b)

    def fcmp_unordered(self, sign: str, a: Row, b: Row) -> Row:
        return self._compare(f"fcmp {_UNORDERED[sign]}", a, b)

    def select(self, condition: Row, a: Row, b: Row) -> Row:
        return self._pure(a.type, f"select {condition.typed}, {a.typed}, {b.typed}")

    trunc, zext, sext = map(_conversion, ("trunc", "zext", "sext"))
    fptrunc, fpext = map(_conversion, ("fptrunc", "fpext"))
    sitofp, uitofp = map(_conversion, ("sitofp", "uitofp"))
    bitcast, ptrtoint, inttoptr = map(_conversion, ("bitcast", "ptrtoint", "inttoptr"))

    def call(self, function: Function, arguments: Sequence[Row], pure: bool = False) -> Row:
        """Call a function; a pure one is called once for equal arguments."""
        inner = ", ".join(a.typed for a in arguments)
        text = f"call {function.result.text} @{function.name}({inner})"
        if function.result is VOID:
            self._line(text)
            return undefined(VOID)
        kind = function.result
        return self._moved(kind, text, *arguments) if pure else self._effect(kind, text)

    def call_address(self, address: Row, result: Any, arguments: Sequence[Row]) -> Row:
        """Call the function at an address."""
        inner = ", ".join(a.typed for a in arguments)
        return self._effect(result, f"call {result.text} {address.text}({inner})")

    # -- vectors -----------------------------------------------------------------------------

    def insert_element(self, a: Row, item: Row, lane: int) -> Row:
        return self._pure(a.type, f"insertelement {a.typed}, {item.typed}, i32 {lane}")

    def extract_element(self, a: Row, lane: int) -> Row:
        return self._pure(a.type.element, f"extractelement {a.typed}, i32 {lane}")

    def extract_value(self, a: Row, kind: Any, position: int) -> Row:
        return self._pure(kind, f"extractvalue {a.typed}, {position}")

    def shuffle_vector(self, a: Row, b: Row, lanes: Sequence[int]) -> Row:
        order = Constant(vector(I32, len(lanes)), lanes)
        kind = vector(a.type.element, len(lanes))
        return self._pure(kind, f"shufflevector {a.typed}, {b.typed}, {order.typed}")

    # -- memory ------------------------------------------------------------------------------

    def alloca(self, kind: Any, align_bytes: int | None = None) -> Row:
        align = f", align {align_bytes}" if align_bytes else ""
        return self._effect(POINTER, f"alloca {kind.text}{align}")

    def generic(self, variable: str) -> Row:
        """Return the address of a shared variable as one that may lie anywhere."""
        return self._pure(POINTER, f"addrspacecast ptr addrspace(3) {variable} to ptr")

    def gep(self, address: Row, offset: Row, element: Any) -> Row:
        """Return ``address`` plus ``offset`` elements, a scalar or a vector of them."""
        wide = isinstance(offset.type, VectorType)
        kind = vector(POINTER, offset.type.count) if wide else POINTER
        text = f"getelementptr {element.text}, {address.typed}, {offset.typed}"
        return self._moved(kind, text, address, offset)

    def parts(self, offset: Row) -> tuple[Row, int]:
        """Return a scalar as another one and the constant that was added to it."""
        base, number = self._sums.get(offset.text, (offset, 0))
        return base, number - (number >> 63 << 64)

    def load(self, address: Row, kind: Any, align_bytes: int | None = None) -> Row:
        align = f", align {align_bytes}" if align_bytes else ""
        return self._effect(kind, f"load {kind.text}, {address.typed}{align}")

    def store(
        self, item: Row, address: Row, align_bytes: int | None = None, streaming: bool = False
    ) -> None:
        align = f", align {align_bytes}" if align_bytes else ""
        hint = ", !nontemporal !0" if streaming else ""
        self._line(f"store {item.typed}, {address.typed}{align}{hint}")

    # -- atomic words of 64 bits -------------------------------------------------------------

    def load_atomic(self, address: Row, ordering: str) -> Row:
        return self._effect(I64, f"load atomic i64, {address.typed} {ordering}, align 8")

    def store_atomic(self, item: Row, address: Row, ordering: str) -> None:
        self._line(f"store atomic {item.typed}, {address.typed} {ordering}, align 8")

    def add_atomic(self, address: Row, amount: Row, ordering: str) -> None:
        self._effect(I64, f"atomicrmw add {address.typed}, {amount.typed} {ordering}")

    def compare_and_swap(self, address: Row, old: Row, new: Row, ordering: str) -> Row:
        """Return whether the word held ``old`` and now holds ``new``."""
        text = f"cmpxchg {address.typed}, {old.typed}, {new.typed} {ordering} monotonic"
        return self.part(self._effect(FLAGGED, text), 1)

    def part(self, pair: Row, index: int) -> Row:
        """Return the number, or behind it the flag, of a `FLAGGED` value."""
        return self._pure((I64, I1)[index], f"extractvalue {pair.typed}, {index}")

    # -- control flow ------------------------------------------------------------------------

    def phi(self, kind: Any) -> Phi:
        """Write a choice by where control comes from; all of a block's come first in it."""
        made = Phi(kind, self.function.fresh())
        self.block.lines.append(made)
        return made

    def branch(self, block: Block) -> None:
        self._leave(f"br label %{block.name}")

    def cbranch(self, condition: Row, yes: Block, no: Block) -> None:
        self._leave(f"br {condition.typed}, label %{yes.name}, label %{no.name}")

    def ret(self, value: Row | None = None) -> None:
        self._leave("ret void" if value is None else f"ret {value.typed}")

    def _leave(self, text: str) -> None:
        self._line(text)
        self.block.terminated = True

    @contextmanager
    def if_then(self, condition: Row) -> Iterator[None]:
        """Write what happens where a condition holds."""
        yes, after = self.function.block(), self.function.block()
        self.cbranch(condition, yes, after)
        with self._way(yes, after):
            yield
        self.block = after

    @contextmanager
    def if_else(self, condition: Row) -> Iterator[tuple[Any, Any]]:
        """Yield two contexts to write the ways in; control meets again behind."""
        yes, no, after = (self.function.block() for _ in range(3))
        self.cbranch(condition, yes, no)
        yield self._way(yes, after), self._way(no, after)
        self.block = after

    @contextmanager
    def _way(self, block: Block, after: Block) -> Iterator[None]:
        with self.scope():
            self.block = block
            yield
            if not self.block.terminated:
                self.branch(after)

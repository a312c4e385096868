"""A module of the runtime in LLVM IR: functions, and the memory and constants they refer to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.codegen.llvm_builder import Function, Module, Row
from graphc.codegen.llvm_types import POINTER, Type

# Every byte as LLVM writes it in a string constant, by which a table of bytes becomes one of text.
_ESCAPED = np.array([list(f"\\{byte:02X}".encode()) for byte in range(256)], np.uint8)


class Variadic(Function):
    """A function of the C library with any number of arguments behind its first ones."""

    def __init__(self, name: str, result: Type, arguments: Sequence[Type]):
        kinds = ", ".join(kind.text for kind in arguments)
        # A call of such a function spells out the whole type where others have the result's.
        super().__init__(name, Type(f"{result.text} ({kinds}, ...)"), arguments)
        self._declaration = f"declare {result.text} @{name}({kinds}, ...)\n"

    @property
    def text(self) -> str:
        """The declaration."""
        return self._declaration


class NativeModule(Module):
    """Functions by name, and global memory.

    Parameters
    ----------
    triple : str
        LLVM's name of the target.
    """

    def __init__(self, triple: str):
        super().__init__(triple)
        self._lines: list[str] = []
        self._texts: dict[bytes, Row] = {}

    def text(self, content: str) -> Row:
        """Return the address of a constant text as C has it."""
        data = content.encode() + b"\0"
        if data not in self._texts:
            self._texts[data] = self.data(f"text{len(self._texts)}", data, 1)
        return self._texts[data]

    def data(self, name: str, content: bytes, align_bytes: int) -> Row:
        """Return the address of constant bytes."""
        return self._global(name, f"constant {_bytes_text(content)}", align_bytes)

    def elsewhere(self, name: str) -> Row:
        """Return the address of constant bytes that another module has, see `constant_text`."""
        self._lines.append(f"@{name} = external hidden constant i8")
        return Row(POINTER, f"@{name}")

    def numbers(self, name: str, values: Sequence[int]) -> Row:
        """Return the address of constant words of 64 bits."""
        return self.data(name, np.array(values, "<i8").tobytes(), 8)

    def memory(self, name: str, n_bytes: int, align_bytes: int = 8, own: bool = False) -> Row:
        """Return the address of memory that begins as zeros; with ``own`` each thread has some."""
        kind = "thread_local global" if own else "global"
        return self._global(name, f"{kind} [{n_bytes} x i8] zeroinitializer", align_bytes)

    def _global(self, name: str, content: str, align_bytes: int) -> Row:
        self._lines.append(f"@{name} = internal {content}, align {align_bytes}")
        return Row(POINTER, f"@{name}")

    def address(self, function: Function) -> Row:
        """Return the address of a function."""
        return Row(POINTER, f"@{function.name}")

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self._lines, ""])


def constant_text(name: str, content: bytes, align_bytes: int) -> str:
    """Return a module of constant bytes only."""
    return f"@{name} = hidden constant {_bytes_text(content)}, align {align_bytes}\n"


def _bytes_text(content: bytes) -> str:
    """Return type and value of constant bytes."""
    if not content:
        return "[0 x i8] zeroinitializer"
    text = _ESCAPED[np.frombuffer(content, np.uint8)].tobytes().decode()
    return f'[{len(content)} x i8] c"{text}"'

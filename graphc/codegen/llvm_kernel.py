"""A kernel's function in LLVM IR: its signature, parameters, and how it fails.

``i32 graphc_kernel(void **buffers, const i64 *sizes, i64 begin, i64 end, Error *error)``
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.cpu import STREAMING_FENCE, architecture
from graphc.codegen.llvm_builder import Builder, Constant, Function, Module
from graphc.codegen.llvm_memory import Memory, Pointer
from graphc.codegen.llvm_types import I8, I32, I64, POINTER, VOID
from graphc.codegen.llvm_values import Value, Weak
from graphc.ir.loop import BEGIN, END
from graphc.ir.target import Target
from graphc.ir.types import DType, int64

SYMBOL = "graphc_kernel"
"""Symbol of a compiled kernel in its object file."""

CODE_BYTES, DETAIL_BYTES = 8, 16
"""Where in an Error its code and its details lie, words of 64 bits."""


def failure_places(count: int) -> range:
    """Return where in an Error the first ``count`` details lie."""
    return range(DETAIL_BYTES, DETAIL_BYTES + 8 * count, 8)


class KernelEmitter(Memory):
    """Emits the one function of a module."""

    def __init__(self, target: Target):
        # Without "no-builtins" LLVM turns loops that fill or copy into calls of memset and memcpy.
        width = 8 * target.vector_bytes
        attributes = f'nounwind "no-builtins" "prefer-vector-width"="{width}"'
        self.function = Function(SYMBOL, I32, [POINTER, POINTER, I64, I64, POINTER], attributes)
        self.module = Module(target.triple)
        self.module.define(self.function)
        self.target = target
        self.entry = Builder(self.function, self.function.block("entry"))
        self.start = self.function.block("start")
        self.mask_bits = 8 if target.vector_bytes == 64 else 32
        self.scale_bits = 512 if target.vector_bytes == 64 else 0
        super().__init__(self.module, Builder(self.function, self.start))
        self.buffers, self.sizes, begin, end, self.error = self.function.arguments
        self.bounds = {BEGIN: self.scalar(begin), END: self.scalar(end)}

    def finish(self) -> str:
        """Return the module's text; the body must have left every block."""
        self.entry.branch(self.start)
        return str(self.module)

    def buffer(self, position: int, dtype: DType) -> Pointer:
        """Return a parameter's memory."""
        place = self.builder.gep(self.buffers, Constant(I64, position), POINTER)
        return Pointer(dtype, self.builder.load(place, POINTER))

    def size(self, position: int) -> Value:
        """Return a size variable."""
        return self.load(Pointer(int64, self.sizes), position)

    def stream_fence(self) -> None:
        """Order streaming stores before what comes after the kernel."""
        name = STREAMING_FENCE.get(architecture(self.target))
        if name is not None:
            self.builder.call(self.module.declare(name, VOID, []), [])

    def fail(self, code: int, details: Sequence[Value | Weak]) -> None:
        """Write an error's code and details."""
        self._write(CODE_BYTES, self.value(code, int64))
        for place, detail in zip(failure_places(len(details)), details, strict=True):
            self._write(place, self.cast(self.typed([detail])[0], int64))

    def _write(self, offset_bytes: int, value: Value) -> None:
        place = self.builder.gep(self.error, Constant(I64, offset_bytes), I8)
        self.builder.store(value.rows[0], place)

    def leave(self, status: int) -> None:
        """Return from the kernel."""
        self.builder.ret(Constant(I32, status))

"""Weights of exported libraries: constants of theirs, or memory that a file is read into."""

from __future__ import annotations

from graphc.codegen.export.errors import Errors
from graphc.codegen.export.layout import Export, Status
from graphc.codegen.llvm_builder import Constant, Function, Row
from graphc.codegen.llvm_types import I8, I32, I64, POINTER
from graphc.codegen.native.function import NativeFunction
from graphc.codegen.native.module import NativeModule
from graphc.ir.plan import ALIGNMENT

WEIGHT = "weight"
"""What the names of constant weights begin with."""
_UNREADABLE, _OTHER = 1, 2


def constant_name(place: int) -> str:
    """Return the name of a weight that the library holds."""
    return f"{WEIGHT}{place}"


class Weights:
    """Writes where the weights lie, and what reads them from a file.

    Parameters
    ----------
    module : NativeModule
    export : Export
    errors : Errors

    Attributes
    ----------
    load : Function or None
        ``i32 load(const char *path)``; None where the library holds the weights.
    """

    def __init__(self, module: NativeModule, export: Export, errors: Errors) -> None:
        self._module, self._export, self._errors = module, export, errors
        self._offsets: dict[int, int] = {}
        self._constants: dict[int, Row] = {}
        self.load: Function | None = None
        if export.header:
            self._base = module.memory("weights", 8)
            self.n_bytes = self._placed()
            self.load = self._loading(self._reading())
            return
        for place in export.weights:
            self._constants[place] = module.elsewhere(constant_name(place))

    def _placed(self) -> int:
        """Give each weight an aligned offset in memory; return the bytes of all."""
        total = 0
        for place, (_, n_bytes) in self._export.spans.items():
            self._offsets[place] = total
            total += -(-n_bytes // ALIGNMENT) * ALIGNMENT
        return max(total, ALIGNMENT)

    def address(self, body: NativeFunction, place: int) -> Row:
        """Return the address of a weight; the file has been read."""
        if not self._export.header:
            return self._constants[place]
        base = body.builder.load(self._base, POINTER, 8)
        return body.builder.gep(base, body.constant(self._offsets[place]), I8)

    def require(self, body: NativeFunction) -> None:
        """Fail where the file has not been read."""
        if self._export.header:
            self._errors.refuse(
                body, body.is_zero(body.builder.load_atomic(self._base, "acquire")), Status.WEIGHTS,
                f"the weights of {self._export.name} are not loaded: call "
                f"{self._export.name}_load with the path of their file",
            )  # fmt: skip

    def release(self, body: NativeFunction) -> None:
        """Give back the memory of weights that were read."""
        if self._export.header:
            body.library("free", "vp", body.builder.load(self._base, POINTER, 8))
            body.builder.store_atomic(body.constant(0), self._base, "release")

    def _reading(self) -> Function:
        """``i64 read(const char *path, void *memory)``: 0, or what is wrong with the file."""
        spans = self._export.spans
        offsets = self._module.numbers("weights_offsets", [self._offsets[p] for p in spans])
        counts = self._module.numbers("weights_bytes", [n_bytes for _, n_bytes in spans.values()])
        header = self._module.data("weights_header", self._export.header, 1)
        body = NativeFunction(self._module, "weights_read", "q", "pp")
        builder, (path, memory) = body.builder, body.arguments
        file = body.library("fopen", "ppp", path, self._module.text("rb"))
        body.leave_if(body.is_zero(file), body.constant(_UNREADABLE))
        found, other = body.variable(body.constant(_OTHER)), body.block("other")
        one, length = body.constant(1), body.constant(len(self._export.header))
        read = body.library("fread", "qpqqp", memory, one, length, file)
        body.go_if(builder.icmp_signed("!=", read, length), other)
        differs = body.library("memcmp", "ippq", memory, header, length)
        body.go_if(body.is_set(differs), other)
        with body.count(body.constant(len(spans))) as index:
            place = builder.gep(memory, body.get_word(offsets, index), I8)
            n_bytes = body.get_word(counts, index)
            read = body.library("fread", "qpqqp", place, one, n_bytes, file)
            body.go_if(builder.icmp_signed("!=", read, n_bytes), other)
        more = builder.icmp_signed(">=", body.library("fgetc", "ip", file), Constant(I32, 0))
        body.go_if(more, other)
        builder.store(body.constant(0), found)
        builder.branch(other)
        body.go_on(other)
        body.library("fclose", "ip", file)
        return body.returns(body.get(found))

    def _loading(self, reading: Function) -> Function:
        body = NativeFunction(self._module, "public.load", "i", "p", internal=False)
        builder, (path,) = body.builder, body.arguments
        name, refuse = self._export.name, self._errors.refuse
        refuse(body, body.is_zero(path), Status.ARGUMENT, "the path of the weights is null")
        here, again = builder.load_atomic(self._base, "acquire"), (
            f"the weights of {name} are loaded already: call {name}_release first"
        )
        refuse(body, body.is_set(here), Status.WEIGHTS, again)
        n_bytes = body.constant(max(self.n_bytes, len(self._export.header)))
        slot, align = body.stack_words(1), body.constant(ALIGNMENT)
        failed = body.library("posix_memalign", "ipqq", slot, align, n_bytes)
        refuse(body, body.is_set(failed), Status.MEMORY, "no memory for %lld bytes", (n_bytes,))
        memory = builder.load(slot, POINTER, 8)
        wrong = builder.call(reading, [path, memory])
        with builder.if_then(body.is_set(wrong)):
            body.library("free", "vp", memory)
        unreadable = builder.icmp_signed("==", wrong, body.constant(_UNREADABLE))
        refuse(body, unreadable, Status.WEIGHTS, "%s cannot be opened", (path,))
        other = f"%s does not hold the weights of {name}, or is not whole"
        refuse(body, body.is_set(wrong), Status.WEIGHTS, other, (path,))
        number = builder.ptrtoint(memory, I64)
        kept = builder.compare_and_swap(self._base, body.constant(0), number, "acq_rel")
        body.leave_if(kept, Constant(I32, 0))
        body.library("free", "vp", memory)
        return body.returns(self._errors.fail(body, Status.WEIGHTS, again))

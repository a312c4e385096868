"""A CUDA kernel's function in LLVM IR: parameters one by one, shared memory, barriers, warps.

``void kernel(void *buffer, ..., i64 size, ..., i64 launch, Flag *flag)``; the blocks of the grid
are the iterations of the kernel's parallel axis. The first thread on a device to fail raises the
flag and reports to the host; a kernel that is given a flag which is raised does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.cuda import BARRIER, POSITIONS, PRODUCTS, SHUFFLE_XOR
from graphc.codegen.llvm_builder import Builder, Constant, Function, Module, Row, undefined
from graphc.codegen.llvm_kernel import CODE_BYTES, SYMBOL, failure_places
from graphc.codegen.llvm_memory import Memory, Place, Pointer
from graphc.codegen.llvm_types import (
    FLOAT,
    I8,
    I32,
    I64,
    POINTER,
    VOID,
    Type,
    VectorType,
    integer,
    vector,
)
from graphc.codegen.llvm_values import Value, Weak
from graphc.codegen.sharing import static_size
from graphc.ir.intrinsics import WARP
from graphc.ir.loop import Alloc, Bind, For, Kernel
from graphc.ir.statements import statements
from graphc.ir.target import Target
from graphc.ir.types import DType, bool_, int64

CALL_BYTES, REPORT_BYTES = 0, 16
"""Where in a Flag, beside its code, the host's number of the call and the report's address lie."""
REPORT_LAUNCH_BYTES, REPORT_CALL_BYTES = 0, 64
"""Where in a Report, beside what an Error has, the launch and the call that failed are noted."""

SHARED = "@shared"
SHARED_ALIGN_BYTES = 16
PAIR = Type("<2 x half>")
_ALL = Constant(I32, -1)
_SUMS = Type("{ float, float, float, float }")


def block_threads(kernel: Kernel) -> int:
    """Return how many threads a block of a scheduled kernel has."""
    for stmt in statements(kernel.body):
        if isinstance(stmt, For) and stmt.bind is Bind.THREAD:
            return int(stmt.stop.dim)  # type: ignore[attr-defined]
    return 1


def blocks_at_once(kernel: Kernel) -> int:
    """Return how many blocks of a scheduled kernel a multiprocessor runs at least."""
    loops = (stmt for stmt in statements(kernel.body) if isinstance(stmt, For))
    return max((loop.at_once for loop in loops), default=1)


def shared_bytes(kernel: Kernel) -> int:
    """Return the shared memory that a block of a scheduled kernel asks for."""
    buffers = (s.buffer for s in statements(kernel.body) if isinstance(s, Alloc))
    return sum(room_bytes(b.dtype, static_size(b)) for b in buffers if b.space == "shared")


def room_bytes(dtype: DType, count: int) -> int:
    """Return the bytes of shared memory, up to where the next may begin."""
    return -(-max(count, 1) * dtype.item_bytes // SHARED_ALIGN_BYTES) * SHARED_ALIGN_BYTES


class CudaEmitter(Memory):
    """Emits the one function of a module for NVPTX."""

    aligned = True

    def __init__(self, kernel: Kernel, target: Target):
        threads = block_threads(kernel)
        self.count = len(kernel.params)
        kinds = [POINTER] * self.count + [I64] * len(kernel.sizes) + [I64, POINTER]
        # Without a number of blocks ptxas would rather spill than use many registers.
        blocks = blocks_at_once(kernel)
        attributes = f'nounwind "nvvm.maxntid"="{threads}" "nvvm.minctasm"="{blocks}"'
        self.function = Function(SYMBOL, VOID, kinds, attributes, convention="ptx_kernel ")
        self.module = Module(target.triple)
        self.module.define(self.function)
        self.target = target
        self.entry = Builder(self.function, self.function.block("entry"))
        self.start = self.function.block("start")
        self.mask_bits, self.scale_bits = 32, 0
        super().__init__(self.module, Builder(self.function, self.start))
        self.bounds: dict[str, Value] = {}
        self.shared_bytes = 0

    def finish(self) -> str:
        """Return the module's text; the body must have left every block."""
        entry, flag = self.entry, self.function.arguments[-1]
        given, stopped = (self.function.block(name) for name in ("given", "stopped"))
        entry.cbranch(entry.icmp_unsigned("==", flag, Row(POINTER, "null")), self.start, given)
        entry.block = given
        code = entry.load(self._place(entry, flag, CODE_BYTES), I64, 8)
        entry.cbranch(entry.icmp_signed("==", code, Constant(I64, 0)), self.start, stopped)
        entry.block = stopped
        entry.ret()
        return str(self.module)

    def _place(self, builder: Builder, address: Row, offset_bytes: int) -> Row:
        return builder.gep(address, Constant(I64, offset_bytes), I8)

    def buffer(self, position: int, dtype: DType) -> Pointer:
        """Return a parameter's memory."""
        return Pointer(dtype, self.function.arguments[position])

    def size(self, position: int) -> Value:
        """Return a size variable."""
        return self.scalar(self.function.arguments[self.count + position])

    def position(self, bind: Bind) -> Value:
        """Return the number of the block or of the thread in it."""
        read = self.module.declare(POSITIONS[bind], I32, [])
        return self.scalar(self.builder.zext(self.builder.call(read, [], pure=True), I64))

    def leave(self, status: int) -> None:
        """Return from the kernel."""
        self.builder.ret()

    def stream_fence(self) -> None:
        """Do nothing: a later kernel sees all stores."""

    def prefetch(
        self, pointer: Pointer, offset: Value | Weak, level: int = 1, write: bool = False
    ) -> None:
        """Do nothing: other warps run while one waits for memory."""

    def fail(self, code: int, details: Sequence[Value | Weak]) -> None:
        """Raise the flag and report code and details, unless a thread before has."""
        launch, flag = self.function.arguments[-2:]
        builder, values = self.builder, [self.cast(d, int64).rows[0] for d in self.typed(details)]
        place = self._place(builder, flag, CODE_BYTES)
        own = Constant(I64, code)
        first = builder.compare_and_swap(place, Constant(I64, 0), own, "monotonic")
        with builder.if_then(first):
            report = builder.load(self._place(builder, flag, REPORT_BYTES), POINTER, 8)
            call = builder.load(self._place(builder, flag, CALL_BYTES), I64, 8)
            noted = {REPORT_LAUNCH_BYTES: launch, REPORT_CALL_BYTES: call, CODE_BYTES: own}
            noted |= dict(zip(failure_places(len(values)), values, strict=True))
            for offset, value in noted.items():
                builder.store(value, self._place(builder, report, offset), 8)

    # -- threads of a block, of a warp -------------------------------------------------------

    def shared(self, dtype: DType, count: int) -> Pointer:
        """Return the next part of the memory that the threads of a block share.

        It is one array, whose size a launch gives: so there may be more than 48 KB.
        """
        if not self.shared_bytes:
            text = f"{SHARED} = external addrspace(3) global [0 x i8], align {SHARED_ALIGN_BYTES}"
            self.module.head.append(text)
        whole, offset = self.builder.generic(SHARED), Constant(I64, self.shared_bytes)
        self.shared_bytes += room_bytes(dtype, count)
        return Pointer(dtype, self.builder.gep(whole, offset, I8))

    def barrier(self) -> None:
        """Wait for all threads of the block."""
        wait = self.module.declare(BARRIER, VOID, [I32])
        self.builder.call(wait, [Constant(I32, 0)])

    def collective(self, operation: str, args: Sequence[Value]) -> Value:
        """Return what a warp computes together; see `graphc.ir.intrinsics`."""
        if operation == "shuffle_xor":
            value, distance = args
            width = 8 * value.dtype.item_bytes if value.dtype is not bool_ else 1
            rows = [self._shuffled(row, width, distance.rows[0]) for row in value.rows]
            return Value(value.dtype, value.tile, rows)
        return self._product(operation, *args)

    def _shuffled(self, row: Row, width: int, distance: Row) -> Row:
        """Exchange a row of elements of ``width`` bits one by one, in words of 32 bits."""
        builder = self.builder
        if isinstance(row.type, VectorType):
            found = undefined(row.type)
            for lane in range(row.type.count):
                item = self._shuffled(builder.extract_element(row, lane), width, distance)
                found = builder.insert_element(found, item, lane)
            return found
        bits = builder.bitcast(row, integer(width))
        if width <= 32:
            word = self._word(builder.zext(bits, I32), distance)
            return builder.bitcast(builder.trunc(word, bits.type), row.type)
        pair = builder.bitcast(bits, vector(I32, 2))
        words = [self._word(builder.extract_element(pair, k), distance) for k in range(2)]
        both = undefined(pair.type)
        for k, word in enumerate(words):
            both = builder.insert_element(both, word, k)
        return builder.bitcast(both, row.type)

    def _word(self, word: Row, distance: Row) -> Row:
        function = self.module.declare(SHUFFLE_XOR, I32, [I32] * 4)
        near, last = self.builder.trunc(distance, I32), Constant(I32, WARP - 1)
        return self.builder.call(function, [_ALL, word, near, last])

    def _product(self, operation: str, a: Value, b: Value, c: Value) -> Value:
        builder = self.builder
        kind = PAIR if operation == "mma_f16" else I32
        factors = [
            builder.bitcast(builder.extract_element(row, lane), kind)
            for value in (a, b)
            for row in value.rows
            for lane in range(value.lanes)
        ]
        sums = [builder.extract_element(c.rows[0], lane) for lane in range(4)]
        kinds = [kind] * len(factors) + [FLOAT] * 4
        function = self.module.declare(PRODUCTS[operation], _SUMS, kinds)
        result = builder.call(function, [*factors, *sums])
        found = undefined(c.rows[0].type)
        for lane in range(4):
            found = builder.insert_element(found, builder.extract_value(result, FLOAT, lane), lane)
        return Value(c.dtype, c.tile, [found])

    # -- memory: a masked access is a branch -------------------------------------------------

    def _load_row(
        self, pointer: Pointer, place: Place | Row, lanes: int, keep: Row | None, fill: Weak,
        multiple: int = 1,
    ) -> Row:  # fmt: skip
        if keep is None:
            return super()._load_row(pointer, place, lanes, None, fill, multiple)
        if isinstance(keep.type, VectorType):
            places = self.lane_offsets(place, 1, lanes)
            return self._gather_row(pointer, places, lanes, keep, fill)
        builder, before = self.builder, self.builder.block
        filling = self.constant(fill, pointer.dtype, lanes)
        with builder.if_then(keep):
            found = super()._load_row(pointer, place, lanes, None, fill, multiple)
            inside = builder.block
        phi = builder.phi(found.type)
        phi.add_incoming(filling, before)
        phi.add_incoming(found, inside)
        return phi

    def _store_row(
        self, pointer: Pointer, place: Place | Row, row: Row, keep: Row | None, multiple: int = 1
    ) -> None:
        if keep is None:
            super()._store_row(pointer, place, row, None, multiple)
        elif isinstance(keep.type, VectorType):
            places = self.lane_offsets(place, 1, keep.type.count)
            self._scatter_row(pointer, places, row, keep)
        else:
            with self.builder.if_then(keep):
                super()._store_row(pointer, place, row, None, multiple)

    def _gather_row(
        self, pointer: Pointer, places: Row, lanes: int, keep: Row | None, fill: Weak
    ) -> Row:
        if lanes == 1:
            return self._load_row(pointer, places, 1, keep, fill)
        found = undefined(self.row_type(pointer.dtype, lanes))
        for lane in range(lanes):
            place = self.builder.extract_element(places, lane)
            item = self._load_row(pointer, place, 1, self._lane(keep, lane), fill)
            found = self.builder.insert_element(found, item, lane)
        return found

    def _scatter_row(self, pointer: Pointer, places: Row, row: Row, keep: Row | None) -> None:
        if not isinstance(row.type, VectorType):
            self._store_row(pointer, places, row, keep)
            return
        for lane in range(row.type.count):
            place = self.builder.extract_element(places, lane)
            item = self.builder.extract_element(row, lane)
            self._store_row(pointer, place, item, self._lane(keep, lane))

    def _lane(self, keep: Row | None, lane: int) -> Row | None:
        if keep is None or not isinstance(keep.type, VectorType):
            return keep
        return self.builder.extract_element(keep, lane)

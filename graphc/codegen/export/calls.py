"""Calls of exported libraries: their memory, their sizes, and the functions that users call.

The memory of a call, its *context*, holds the launch table at the sizes of the last call that had
it. Contexts wait in slots, and are taken and given back by a swap, so that threads may call at once
and a call like the last one finds everything in place.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from graphc.codegen.dispatch_layout import CHUNK_NS, MOST_CHUNKS, Call, Error, Launch
from graphc.codegen.export.arena import arrange
from graphc.codegen.export.errors import Errors, quoted
from graphc.codegen.export.layout import Context, Export, Status
from graphc.codegen.export.sizes import SizeWriter
from graphc.codegen.export.tensors import TOO_LARGE, Tensors
from graphc.codegen.export.threads import MOST_THREADS, Threads
from graphc.codegen.export.weights import Weights
from graphc.codegen.llvm_builder import Constant, Function, Row
from graphc.codegen.llvm_types import I8, I32, I64, POINTER
from graphc.codegen.native.function import NativeFunction
from graphc.codegen.native.module import NativeModule
from graphc.ir.dim import Dim
from graphc.ir.plan import ALIGNMENT
from graphc.ir.table import LaunchRow

PUBLIC = "public."
"""What the names of functions begin with that a library shows; its own name replaces it."""
_SLOTS = 16
_MOST_BYTES = 1 << 46
_NULL = Row(POINTER, "null")


class Calls:
    """Writes the functions of a library.

    Parameters
    ----------
    module : NativeModule
        Defines the dispatcher.
    export : Export
    kernels : sequence of str
        The function of each launch.
    failures : sequence of (str, sequence of (int, int)) or None
        For each launch that may fail its text, a format, and the details it shows: the number of
        each and what is added to it.
    """

    def __init__(
        self, module: NativeModule, export: Export, kernels: Sequence[str],
        failures: Sequence[tuple[str, Sequence[tuple[int, int]]] | None],
    ) -> None:  # fmt: skip
        self._module, self._export = module, export
        self._kernels, self._failures = kernels, failures
        self._errors = Errors(module)
        self._threads = Threads(module)
        self._weights = Weights(module, export, self._errors)
        self._tensors = Tensors(module, export, self._errors)
        self._context = Context(export.table, len(self._tensors.variables))
        self._slots = module.memory("contexts", 8 * _SLOTS, 64)
        self._registered = module.memory("registered", 8)
        self._kept = self._keeping()
        self._empty = self._emptying()
        self._take, self._give = self._taking(self._making()), self._giving()
        self._bind = self._binding(self._planning(), arrange(module, export.table.lives))
        self._release()
        self._run(self._binds(), self._failing())
        self._infer()
        self._error()
        self._set_threads()

    def _field(self, body: NativeFunction, context: Row, offset: int) -> Row:
        return body.builder.gep(context, body.constant(offset), I8)

    # -- contexts ----------------------------------------------------------------------------

    def _making(self) -> Function:
        """``void *make()``: a new context with all that does not depend on sizes, or null."""
        body = NativeFunction(self._module, "context_make", "p", "")
        builder, table, layout = body.builder, self._export.table, self._context
        slot, n_bytes = body.stack_words(1), body.constant(layout.n_bytes)
        align = body.constant(ALIGNMENT)
        failed = body.library("posix_memalign", "ipqq", slot, align, n_bytes)
        body.leave_if(body.is_set(failed), _NULL)
        context = builder.load(slot, POINTER, 8)
        with body.count(body.constant(layout.n_bytes // 8)) as index:
            body.put_word(body.constant(0), context, index)
        first = builder.compare_and_swap(
            self._registered, body.constant(0), body.constant(1), "acq_rel"
        )
        with builder.if_then(first):
            body.library("atexit", "ip", self._module.address(self._empty))
        pointers, sizes = layout.pointers, layout.sizes
        for number, (row, kernel) in enumerate(zip(table.launches, self._kernels, strict=True)):
            self._module.declare(kernel, I32, [POINTER, POINTER, I64, I64, POINTER])
            launch = self._field(body, context, layout.table + number * ctypes.sizeof(Launch))
            addresses = {
                "kernel": Row(POINTER, f"@{kernel}"),
                "buffers": self._field(body, context, pointers),
                "sizes": self._field(body, context, sizes),
            }
            for name, address in addresses.items():
                body.store(address, launch, Launch, name)
            pointers, sizes = pointers + 8 * len(row.places), sizes + 8 * len(row.sizes)
        for position, place in self._used():
            if place in self._export.weights:
                weight = self._weights.address(body, place)
                builder.store(weight, self._pointer(body, context, position), 8)
        call = self._field(body, context, layout.call)
        fields = {
            "pool": self._threads.pool,
            "table": self._field(body, context, layout.table),
            "count": body.constant(len(table.launches)),
            "error": self._field(body, context, layout.error),
        }
        for name, value in fields.items():
            body.store(value, call, Call, name)
        return body.returns(context)

    def _used(self) -> list[tuple[int, int]]:
        """Return the entries of the blocks of pointers, and the memory that each is of."""
        used = (place for row in self._export.table.launches for place in row.places)
        return list(enumerate(used))

    def _pointer(self, body: NativeFunction, context: Row, position: int) -> Row:
        return self._field(body, context, self._context.pointers + 8 * position)

    def _keeping(self) -> Function:
        """``void *kept()``: take a context that nobody uses, or return null."""
        body = NativeFunction(self._module, "context_kept", "p", "")
        builder, zero = body.builder, body.constant(0)
        with body.count(body.constant(_SLOTS)) as index:
            slot = body.word(self._slots, index)
            found, empty = builder.load_atomic(slot, "acquire"), body.block("empty")
            body.go_if(body.is_zero(found), empty)
            taken = builder.compare_and_swap(slot, found, zero, "acquire")
            body.leave_if(taken, builder.inttoptr(found, POINTER))
            builder.branch(empty)
            body.go_on(empty)
        return body.returns(_NULL)

    def _taking(self, make: Function) -> Function:
        """``void *take()``: a context that nobody uses; null without memory."""
        body = NativeFunction(self._module, "context_take", "p", "")
        context = body.builder.call(self._kept, [])
        body.leave_if(body.is_set(context), context)
        return body.returns(body.builder.call(make, []))

    def _giving(self) -> Function:
        """``void give(void *context)``: keep a context for later calls, or free it."""
        body = NativeFunction(self._module, "context_give", "v", "p")
        builder, (context,) = body.builder, body.arguments
        number = builder.ptrtoint(context, I64)
        with body.count(body.constant(_SLOTS)) as index:
            slot = body.word(self._slots, index)
            kept = builder.compare_and_swap(slot, body.constant(0), number, "release")
            with builder.if_then(kept):
                builder.ret()
        self._free(body, context)
        return body.returns()

    def _free(self, body: NativeFunction, context: Row) -> None:
        arena = self._field(body, context, self._context.arena)
        body.library("free", "vp", body.builder.load(arena, POINTER, 8))
        body.library("free", "vp", context)

    # -- sizes -------------------------------------------------------------------------------

    def _planning(self) -> Function:
        """``i32 plan(context)``: all that follows from the size variables; 1 for a fault."""
        body = NativeFunction(self._module, "context_plan", "i", "p")
        builder, (context,) = body.builder, body.arguments
        layout, table = self._context, self._export.table
        variables = self._field(body, context, layout.variables)
        names = [solution.name for solution in self._tensors.variables]
        writer = SizeWriter(body, {n: body.get_word(variables, i) for i, n in enumerate(names)})
        block, parallel = layout.sizes, body.constant(0)
        for number, row in enumerate(table.launches):
            values = [writer.value(size) for _, size in row.sizes]
            words = self._field(body, context, block)
            for index, value in enumerate(values):
                body.put_word(value, words, index)
            block += 8 * len(values)
            launch = self._field(body, context, layout.table + number * ctypes.sizeof(Launch))
            extent, chunk = self._extent(body, writer, row, values)
            body.store(extent, launch, Launch, "extent")
            body.store(chunk, launch, Launch, "chunk")
            longer = builder.zext(builder.icmp_signed(">", extent, chunk), I64)
            parallel = builder.or_(parallel, longer)
        builder.store(parallel, self._field(body, context, layout.parallel), 8)
        needs = self._field(body, context, layout.needs)
        for index, life in enumerate(layout.owners):
            body.put_word(self._need(body, writer, life.size, life.item_bytes), needs, index)
        return body.returns(builder.zext(writer.fault, I32))

    def _extent(
        self, body: NativeFunction, program: SizeWriter, row: LaunchRow, values: Sequence[Row]
    ) -> tuple[Row, Row]:
        """Return a launch's iterations, and those that a thread claims at once."""
        own = {name: value for (name, _), value in zip(row.sizes, values, strict=True)}
        writer, one = SizeWriter(body, own), body.constant(1)
        extent, work = writer.value(row.extent), writer.larger(writer.value(row.work), one)
        most = body.constant(CHUNK_NS - 1)
        chunk = body.builder.add(writer.quotient(most, work), one)  # rounded up
        share = writer.quotient(extent, body.constant(MOST_CHUNKS))
        program.note(writer.fault)
        return extent, writer.larger(writer.larger(chunk, share), one)

    def _need(self, body: NativeFunction, writer: SizeWriter, size: Dim, item_bytes: int) -> Row:
        """Return the bytes of a value in the arena; an empty one still has an address."""
        builder = body.builder
        count = writer.larger(writer.value(size), body.constant(1))
        n_bytes = writer.checked("mul", count, body.constant(item_bytes))
        writer.note(builder.icmp_signed(">", n_bytes, body.constant(_MOST_BYTES)))
        padded = builder.add(n_bytes, body.constant(ALIGNMENT - 1))
        return builder.and_(padded, body.constant(-ALIGNMENT))

    def _binding(self, plan: Function, arranged: Function) -> Function:
        """``i32 bind(context)``: make a context fit its size variables."""
        body = NativeFunction(self._module, "context_bind", "i", "p")
        builder, (context,) = body.builder, body.arguments
        layout = self._context
        fault = builder.call(plan, [context])
        self._errors.refuse(body, body.is_set(fault), Status.SHAPE, TOO_LARGE)
        if layout.owners:
            parts = (layout.needs, layout.offsets, layout.order)
            n_bytes = builder.call(arranged, [self._field(body, context, p) for p in parts])
            arena = self._arena(body, context, n_bytes)
            owners = {life.value: index for index, life in enumerate(layout.owners)}
            owned = {life.value: owners[life.owner] for life in self._export.table.lives}
            offsets = self._field(body, context, layout.offsets)
            for position, place in self._used():
                if place in owned:
                    address = builder.gep(arena, body.get_word(offsets, owned[place]), I8)
                    builder.store(address, self._pointer(body, context, position), 8)
        builder.store(body.constant(1), self._field(body, context, layout.bound), 8)
        return body.returns(Constant(I32, 0))

    def _arena(self, body: NativeFunction, context: Row, n_bytes: Row) -> Row:
        """Return an arena of enough bytes: the one that is there, or a new one."""
        builder, layout = body.builder, self._context
        arena, capacity = (
            self._field(body, context, offset) for offset in (layout.arena, layout.capacity)
        )
        small = builder.icmp_signed("<", builder.load(capacity, I64, 8), n_bytes)
        with builder.if_then(small):
            body.library("free", "vp", builder.load(arena, POINTER, 8))
            builder.store(_NULL, arena, 8)
            builder.store(body.constant(0), capacity, 8)
            align = body.constant(ALIGNMENT)
            failed = body.library("posix_memalign", "ipqq", arena, align, n_bytes)
            with builder.if_then(body.is_set(failed)):
                builder.store(_NULL, arena, 8)
                text = "no memory for %lld bytes"
                builder.ret(self._errors.fail(body, Status.MEMORY, text, (n_bytes,)))
            builder.store(n_bytes, capacity, 8)
        return builder.load(arena, POINTER, 8)

    def _binds(self) -> Function:
        """``i32 ready(context, i64 *variables)``: bind, unless the last call had these sizes."""
        body = NativeFunction(self._module, "context_ready", "i", "pp")
        builder, (context, variables) = body.builder, body.arguments
        layout, stale = self._context, body.block("stale")
        bound = self._field(body, context, layout.bound)
        own = self._field(body, context, layout.variables)
        count = body.constant(len(self._tensors.variables))
        body.go_if(body.is_zero(builder.load(bound, I64, 8)), stale)
        with body.count(count) as index:
            now, before = body.get_word(variables, index), body.get_word(own, index)
            body.go_if(builder.icmp_signed("!=", now, before), stale)
        builder.ret(Constant(I32, 0))
        body.go_on(stale)
        builder.store(body.constant(0), bound, 8)
        with body.count(count) as index:
            body.put_word(body.get_word(variables, index), own, index)
        return body.returns(builder.call(self._bind, [context]))

    # -- what users call ---------------------------------------------------------------------

    def _public(self, name: str, result: str, arguments: str) -> NativeFunction:
        return NativeFunction(self._module, PUBLIC + name, result, arguments, internal=False)

    def _run(self, ready: Function, failing: Function) -> None:
        """``int32_t run(inputs, n_inputs, outputs, n_outputs)``."""
        body = self._public("run", "i", "pipi")
        builder, (inputs, n_inputs, outputs, n_outputs) = body.builder, body.arguments
        given = len(self._export.inputs)
        variables = body.stack_words(len(self._tensors.variables))
        addresses = body.stack_words(given + len(self._export.outputs))
        checks = (
            (self._tensors.sizes, [inputs, n_inputs, variables]),
            (self._tensors.results, [outputs, n_outputs, variables]),
            (self._tensors.memory, [inputs, outputs, addresses]),
        )
        for check, arguments in checks:
            self._errors.check(body, builder.call(check, arguments))
        self._weights.require(body)
        context = builder.call(self._take, [])
        none = body.is_zero(context)
        self._errors.refuse(body, none, Status.MEMORY, "no memory for a call")
        status = body.variable(builder.call(ready, [context, variables]))
        finish = body.block("finish")
        body.go_if(body.is_set(builder.load(status, I32)), finish)
        tensors = (*self._export.inputs, *self._export.outputs)
        numbers = {argument.place: index for index, argument in enumerate(tensors)}
        for position, place in self._used():
            if place in numbers:
                address = body.get_word(addresses, numbers[place])
                builder.store(address, self._pointer(body, context, position), 8)
        self._walk(body, context, failing, status)
        builder.branch(finish)
        body.go_on(finish)
        builder.call(self._give, [context])
        body.returns(builder.load(status, I32))

    def _walk(self, body: NativeFunction, context: Row, failing: Function, status: Row) -> None:
        """Walk the table, with several threads where that pays."""
        builder, layout = body.builder, self._context
        call = self._field(body, context, layout.call)
        threads, one = body.variable(body.constant(1)), body.constant(1)
        parallel = builder.load(self._field(body, context, layout.parallel), I64, 8)
        with builder.if_then(body.is_set(parallel)):
            wanted = builder.call(self._threads.wanted, [])
            with builder.if_then(builder.icmp_signed(">", wanted, one)):
                builder.store(builder.call(self._threads.wake, [wanted]), threads)
        body.store(body.get(threads), call, Call, "threads")
        failed = builder.call(self._module.functions["graphc_run"], [call])
        with builder.if_then(body.is_set(failed)):
            builder.store(builder.call(failing, [context]), status)

    def _failing(self) -> Function:
        """``i32 failed(context)``: say what the kernel that failed checks."""
        body = NativeFunction(self._module, "context_failed", "i", "p")
        builder, (context,) = body.builder, body.arguments
        error = self._field(body, context, self._context.error)
        launch = body.load(error, Error, "launch")
        details = body.at(error, Error, "detail")[0]
        for number, failure in enumerate(self._failures):
            if failure is not None:
                text, shown = failure
                values = [
                    builder.add(body.get_word(details, i), body.constant(more)) for i, more in shown
                ]
                here = builder.icmp_signed("==", launch, body.constant(number))
                self._errors.refuse(body, here, Status.VALUE, text, values)
        text = f"launch %lld of {quoted(self._export.name)} failed"
        return body.returns(self._errors.fail(body, Status.VALUE, text, (launch,)))

    def _infer(self) -> None:
        """``int32_t infer(inputs, n_inputs, outputs, n_outputs)``."""
        body = self._public("infer", "i", "pipi")
        inputs, n_inputs, outputs, n_outputs = body.arguments
        variables = body.stack_words(len(self._tensors.variables))
        status = body.builder.call(self._tensors.sizes, [inputs, n_inputs, variables])
        self._errors.check(body, status)
        body.returns(body.builder.call(self._tensors.infer, [outputs, n_outputs, variables]))

    def _error(self) -> None:
        """``const char *error(void)``."""
        self._public("error", "p", "").returns(self._errors.text)

    def _set_threads(self) -> None:
        """``int32_t set_threads(int32_t threads)``."""
        body = self._public("set_threads", "i", "i")
        builder, (threads,) = body.builder, body.arguments
        number, most = builder.sext(threads, I64), body.constant(MOST_THREADS)
        few = builder.icmp_signed("<", number, body.constant(1))
        wrong = builder.or_(few, builder.icmp_signed(">", number, most))
        self._errors.refuse(
            body, wrong, Status.ARGUMENT,
            f"{self._export.name} can use 1 to {MOST_THREADS} threads, got %lld", (number,),
        )  # fmt: skip
        builder.store_atomic(number, self._threads.limit, "monotonic")
        body.returns(Constant(I32, 0))

    def _emptying(self) -> Function:
        """``void empty(void)``: end the threads, and give back memory that no call uses."""
        body = NativeFunction(self._module, "contexts_empty", "v", "")
        body.builder.call(self._threads.stop, [])
        with body.loop() as (_, leave):
            context = body.builder.call(self._kept, [])
            body.go_if(body.is_zero(context), leave)
            self._free(body, context)
        return body.returns()

    def _release(self) -> None:
        """``void release(void)``: the same, and weights that were read from a file."""
        body = self._public("release", "v", "")
        body.builder.call(self._empty, [])
        self._weights.release(body)
        body.returns()

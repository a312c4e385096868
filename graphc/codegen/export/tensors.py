"""What exported libraries ask of a caller's tensors, before anything runs.

Two functions look at any tensor: at its form, which is all that `infer` needs, and at its memory.
What they compare it with are constants of each argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.export.errors import Errors, quoted
from graphc.codegen.export.layout import CPU, Argument, Export, Status, Tensor, dtype_word
from graphc.codegen.export.sizes import AXIS, SizeWriter, Solution, solutions
from graphc.codegen.llvm_builder import Constant, Function, Row
from graphc.codegen.llvm_types import I8, I32, I64, POINTER
from graphc.codegen.native.function import NativeFunction
from graphc.codegen.native.module import NativeModule
from graphc.ir.dim import SizeExpr, symbols
from graphc.ir.types import TensorType

TENSOR_BYTES = 48
"""Of a ``DLTensor``."""
_NULL = Row(POINTER, "null")


def shown(kind: TensorType) -> str:
    """Return a type as texts of a library say it: ``float32[B, 1, 28, 28]``."""
    return f"{kind.dtype.name}[{', '.join(map(str, kind.shape))}]"


class Tensors:
    """Writes the checks of an export's arguments.

    Parameters
    ----------
    module : NativeModule
    export : Export
    errors : Errors

    Attributes
    ----------
    variables : tuple of Solution
        How the shapes of the inputs give the size variables.
    sizes, infer, results, memory : Function
        ``i32 sizes(inputs, i32 count, i64 *variables)`` checks the inputs' forms and finds the size
        variables. ``i32 infer(outputs, i32 count, variables)`` fills in the forms of the outputs,
        ``i32 results(outputs, i32 count, variables)`` checks them. ``i32 memory(inputs, outputs,
        i64 *addresses)`` checks where all tensors lie; addresses are those of their data.
    """

    def __init__(self, module: NativeModule, export: Export, errors: Errors) -> None:
        self._module, self._export, self._errors = module, export, errors
        self.variables: Sequence[Solution] = solutions(export.declared())
        self._form, self._lies = self._forms(), self._memories()
        self.sizes, self.memory = self._sizes(), self._memory()
        self.results = self._each_output("tensors_results", self._fits)
        self.infer = self._each_output("tensors_infer", self._fill)

    # -- any tensor --------------------------------------------------------------------------

    def _forms(self) -> Function:
        """``i32 form(tensor, i32 ndim, i32 dtype, name, type)``: axes, type, device, sizes."""
        body = NativeFunction(self._module, "tensor_form", "i", "piipp")
        builder, (tensor, ndim, dtype, name, kind) = body.builder, body.arguments
        refuse = self._errors.refuse
        found = body.load(tensor, Tensor, "ndim")
        refuse(
            body, builder.icmp_signed("!=", found, ndim), Status.SHAPE,
            "%s has %lld axes; it is %s", (name, builder.sext(found, I64), kind),
        )  # fmt: skip
        place = body.at(tensor, Tensor, "code")[0]
        word = builder.load(place, I32, 4)
        code, bits, lanes = (
            builder.zext(body.load(tensor, Tensor, f), I64) for f in ("code", "bits", "lanes")
        )
        refuse(
            body, builder.icmp_signed("!=", word, dtype), Status.DTYPE,
            "%s has DLPack type code %lld of %lld bits in %lld lanes; it is %s",
            (name, code, bits, lanes, kind),
        )  # fmt: skip
        device = body.load(tensor, Tensor, "device_type")
        refuse(
            body, builder.icmp_signed("!=", device, Constant(I32, CPU)), Status.DEVICE,
            "%s is on DLPack device type %lld; it must be in memory of the CPU, type 1",
            (name, builder.sext(device, I64)),
        )  # fmt: skip
        shape = body.load(tensor, Tensor, "shape")
        some = builder.icmp_signed(">", ndim, Constant(I32, 0))
        refuse(
            body, builder.and_(some, body.is_zero(shape)), Status.ARGUMENT,
            "%s has no shape: its pointer is null", (name,),
        )  # fmt: skip
        with body.count(builder.sext(ndim, I64)) as axis:
            size = body.get_word(shape, axis)
            refuse(
                body, builder.icmp_signed("<", size, body.constant(0)), Status.SHAPE,
                "axis %lld of %s is %lld; it is %s", (axis, name, size, kind),
            )  # fmt: skip
        return body.returns(Constant(I32, 0))

    def _memories(self) -> Function:
        """``i32 lies(tensor, name, i64 item_bytes, i64 *span)``: where data begin and end."""
        body = NativeFunction(self._module, "tensor_memory", "i", "ppqp")
        builder, (tensor, name, item_bytes, span) = body.builder, body.arguments
        refuse = self._errors.refuse
        ndim = builder.sext(body.load(tensor, Tensor, "ndim"), I64)
        shape, strides = (body.load(tensor, Tensor, f) for f in ("shape", "strides"))
        expected, zero, one = body.variable(body.constant(1)), body.constant(0), body.constant(1)
        strided = body.is_set(strides)
        elements = self._elements(body, shape, ndim)
        many = builder.icmp_signed(">", elements, zero)
        asked = builder.and_(strided, many)
        known = builder.select(asked, strides, shape)
        with body.count(ndim) as reverse:
            axis = builder.sub(builder.sub(ndim, one), reverse)
            size, stride = body.get_word(shape, axis), body.get_word(known, axis)
            other = builder.icmp_signed("!=", stride, body.get(expected))
            wrong = builder.and_(other, builder.icmp_signed(">", size, one))
            refuse(
                body, builder.and_(asked, wrong), Status.LAYOUT,
                "%s is not contiguous: axis %lld has stride %lld instead of %lld; pass a "
                "C-contiguous copy, or null strides",
                (name, axis, stride, body.get(expected)),
            )  # fmt: skip
            builder.store(builder.mul(body.get(expected), size), expected)
        data = body.load(tensor, Tensor, "data")
        refuse(
            body, builder.and_(many, body.is_zero(data)), Status.ARGUMENT,
            "%s has no data: its pointer is null", (name,),
        )  # fmt: skip
        offset = body.load(tensor, Tensor, "byte_offset")
        begin = builder.add(builder.ptrtoint(data, I64), offset)
        rest = builder.urem(begin, item_bytes)
        refuse(
            body, builder.and_(many, body.is_set(rest)), Status.LAYOUT,
            "%s begins at an address that is no multiple of %lld bytes", (name, item_bytes),
        )  # fmt: skip
        body.put_word(begin, span, 0)
        body.put_word(builder.add(begin, builder.mul(elements, item_bytes)), span, 1)
        return body.returns(Constant(I32, 0))

    def _elements(self, body: NativeFunction, shape: Row, ndim: Row) -> Row:
        total = body.variable(body.constant(1))
        with body.count(ndim) as axis:
            writer = SizeWriter(body, {})
            size = writer.checked("mul", body.get(total), body.get_word(shape, axis))
            self._errors.refuse(body, writer.fault, Status.SHAPE, TOO_LARGE)
            body.builder.store(size, total)
        return body.get(total)

    # -- inputs ------------------------------------------------------------------------------

    def _counted(
        self, body: NativeFunction, tensors: Row, count: Row, what: str, expected: int
    ) -> None:
        """Refuse another number of tensors, or no array of them."""
        number = body.builder.sext(count, I64)
        self._errors.refuse(
            body, body.builder.icmp_signed("!=", count, Constant(I32, expected)), Status.ARGUMENT,
            f"{self._export.name} has {expected} {what}, got %lld", (number,),
        )  # fmt: skip
        if expected:
            self._errors.refuse(
                body, body.is_zero(tensors), Status.ARGUMENT, f"the array of {what} is null"
            )

    def _tensor(self, body: NativeFunction, tensors: Row, index: int) -> Row:
        return body.builder.gep(tensors, body.constant(index * TENSOR_BYTES), I8)

    def _label(self, what: str, index: int, argument: Argument) -> str:
        return f"{what} {index} ({argument.name})"

    def _checked_form(
        self, body: NativeFunction, tensor: Row, label: str, argument: Argument
    ) -> None:
        kind, text = argument.type, self._module.text
        status = body.builder.call(
            self._form,
            [
                tensor, Constant(I32, kind.ndim), Constant(I32, dtype_word(kind.dtype)),
                text(label), text(shown(kind)),
            ],
        )  # fmt: skip
        self._errors.check(body, status)

    def _sizes(self) -> Function:
        body = NativeFunction(self._module, "tensors_sizes", "i", "pip")
        inputs, count, variables = body.arguments
        self._counted(body, inputs, count, "inputs", len(self._export.inputs))
        axes: list[tuple[str, int, Row]] = []
        for index, argument in enumerate(self._export.inputs):
            tensor = self._tensor(body, inputs, index)
            label = self._label("input", index, argument)
            self._checked_form(body, tensor, label, argument)
            shape = body.load(tensor, Tensor, "shape")
            axes += [
                (label, axis, body.get_word(shape, axis)) for axis in range(argument.type.ndim)
            ]
        values = self._solved(body, axes)
        self._compare(body, axes, values)
        for number, solution in enumerate(self.variables):
            body.put_word(values[solution.name], variables, number)
        return body.returns(Constant(I32, 0))

    def _solved(
        self, body: NativeFunction, axes: Sequence[tuple[str, int, Row]]
    ) -> dict[str, Row]:
        """Return the size variables; what a division leaves over fails in the comparison."""
        values: dict[str, Row] = {}
        for solution in self.variables:
            own = {**values, AXIS: axes[solution.axis][2]}
            writer = SizeWriter(body, own)
            values[solution.name] = writer.value(solution.value)
            self._errors.refuse(body, writer.fault, Status.SHAPE, TOO_LARGE)
        return values

    def _compare(
        self, body: NativeFunction, axes: Sequence[tuple[str, int, Row]], values: dict[str, Row]
    ) -> None:
        builder, types = body.builder, [a.type for a in self._export.inputs]
        kinds = [kind for kind in types for _ in kind.shape]
        writer, lone = SizeWriter(body, values), {s.axis: str(s.name) for s in self.variables}
        for number, (label, axis, size) in enumerate(axes):
            dim = kinds[number].shape[axis]
            if lone.get(number) == str(dim):
                continue
            expected = writer.value(dim)
            wrong = builder.or_(writer.fault, builder.icmp_signed("!=", size, expected))
            self._errors.refuse(
                body, wrong, Status.SHAPE,
                f"axis {axis} of {quoted(label)} is %lld, where {quoted(str(dim))} is %lld; it is "
                f"{quoted(shown(kinds[number]))}" if symbols(dim) else
                f"axis {axis} of {quoted(label)} is %lld; it is {quoted(shown(kinds[number]))}",
                (size, expected),
            )  # fmt: skip
        self._constrain(body, values)

    def _constrain(self, body: NativeFunction, values: dict[str, Row]) -> None:
        builder, writer = body.builder, SizeWriter(body, values)
        for name, value in values.items():
            self._errors.refuse(
                body, builder.icmp_signed("<", value, body.constant(0)), Status.SHAPE,
                f"size {name} would be %lld", (value,),
            )  # fmt: skip
        for fact in self._export.constraints:
            left, right = writer.value(fact.left), writer.value(fact.right)
            wrong = builder.or_(writer.fault, builder.icmp_signed("!=", left, right))
            text = quoted(f"{fact.left} == {fact.right}")
            self._errors.refuse(
                body, wrong, Status.SHAPE,
                f"the model was traced for sizes with {text}; here the first is %lld", (left,),
            )  # fmt: skip

    # -- outputs -----------------------------------------------------------------------------

    def _each_output(self, name: str, write: Callable[..., None]) -> Function:
        """``i32 name(outputs, i32 count, variables)``: do something for each output."""
        body = NativeFunction(self._module, name, "i", "pip")
        outputs, count, variables = body.arguments
        self._counted(body, outputs, count, "outputs", len(self._export.outputs))
        values = {s.name: body.get_word(variables, i) for i, s in enumerate(self.variables)}
        writer = SizeWriter(body, values)
        for index, argument in enumerate(self._export.outputs):
            sizes = [writer.value(dim) for dim in argument.type.shape]
            self._errors.refuse(body, writer.fault, Status.SHAPE, TOO_LARGE)
            tensor = self._tensor(body, outputs, index)
            write(body, tensor, self._label("output", index, argument), argument, sizes)
        return body.returns(Constant(I32, 0))

    def _fits(
        self, body: NativeFunction, tensor: Row, label: str, argument: Argument,
        sizes: Sequence[Row],
    ) -> None:  # fmt: skip
        self._checked_form(body, tensor, label, argument)
        shape = body.load(tensor, Tensor, "shape")
        for axis, (dim, expected) in enumerate(zip(argument.type.shape, sizes, strict=True)):
            size = body.get_word(shape, axis)
            here = f", here %lld; it is {quoted(shown(argument.type))}"
            self._errors.refuse(
                body, body.builder.icmp_signed("!=", size, expected), Status.SHAPE,
                f"axis {axis} of {quoted(label)} is %lld instead of {quoted(str(dim))}"
                + (here if isinstance(dim, SizeExpr) else ""),
                (size, expected),
            )  # fmt: skip

    def _fill(
        self, body: NativeFunction, tensor: Row, label: str, argument: Argument,
        sizes: Sequence[Row],
    ) -> None:  # fmt: skip
        shape = body.load(tensor, Tensor, "shape")
        if sizes:
            self._errors.refuse(
                body, body.is_zero(shape), Status.ARGUMENT,
                f"{quoted(label)} has no room for its shape: its pointer is null",
            )  # fmt: skip
        for axis, size in enumerate(sizes):
            body.put_word(size, shape, axis)
        for number, name in ((CPU, "device_type"), (0, "device_id"), (len(sizes), "ndim")):
            body.store(Constant(I32, number), tensor, Tensor, name)
        place = body.at(tensor, Tensor, "code")[0]
        body.builder.store(Constant(I32, dtype_word(argument.type.dtype)), place, 4)
        body.store(_NULL, tensor, Tensor, "strides")
        body.store(body.constant(0), tensor, Tensor, "byte_offset")

    # -- memory ------------------------------------------------------------------------------

    def _memory(self) -> Function:
        inputs, outputs = self._export.inputs, self._export.outputs
        apart = self._apart()
        body = NativeFunction(self._module, "tensors_memory", "i", "ppp")
        builder, (given, made, addresses) = body.builder, body.arguments
        spans = body.stack_words(2 * (len(inputs) + len(outputs)))
        groups = ("input", given, inputs, 0), ("output", made, outputs, len(inputs))
        for what, tensors, arguments, first in groups:
            for index, argument in enumerate(arguments):
                label = self._module.text(self._label(what, index, argument))
                item_bytes = body.constant(argument.type.dtype.item_bytes)
                span = body.word(spans, 2 * (first + index))
                tensor = self._tensor(body, tensors, index)
                status = builder.call(self._lies, [tensor, label, item_bytes, span])
                self._errors.check(body, status)
                body.put_word(body.get_word(span, 0), addresses, first + index)
        for index in range(len(outputs)):
            number = body.constant(len(inputs) + index)
            self._errors.check(body, builder.call(apart, [spans, number]))
        return body.returns(Constant(I32, 0))

    def _apart(self) -> Function:
        """``i32 apart(i64 *spans, i64 number)``: whether a span meets none before it."""
        body = NativeFunction(self._module, "tensors_apart", "i", "pq")
        builder, (spans, number) = body.builder, body.arguments
        inputs, one = body.constant(len(self._export.inputs)), body.constant(1)
        own, two = builder.mul(number, body.constant(2)), body.constant(2)
        begin, end = body.get_word(spans, own), body.get_word(spans, builder.add(own, one))
        with body.count(number) as other:
            place = builder.mul(other, two)
            start, stop = body.get_word(spans, place), body.get_word(spans, builder.add(place, one))
            meets = builder.icmp_unsigned("<", start, end)
            meets = builder.and_(meets, builder.icmp_unsigned("<", begin, stop))
            both = builder.icmp_unsigned("<", begin, end)
            both = builder.and_(both, builder.icmp_unsigned("<", start, stop))
            meets = builder.and_(meets, both)
            given = builder.icmp_signed("<", other, inputs)
            names = self._module.text("input"), self._module.text("output")
            what = builder.select(given, *names)
            rank = builder.select(given, other, builder.sub(other, inputs))
            self._errors.refuse(
                body, meets, Status.LAYOUT, "output %lld shares memory with %s %lld",
                (builder.sub(number, inputs), what, rank),
            )  # fmt: skip
        return body.returns(Constant(I32, 0))


TOO_LARGE = "the sizes are too large, or one of them is 0 where the model divides by it"


"""Errors of exported libraries: a status, and a text for the thread that called."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.export.layout import TEXT_BYTES, Status
from graphc.codegen.llvm_builder import Constant, Function, Row
from graphc.codegen.llvm_types import I32, I64, POINTER
from graphc.codegen.native.function import NativeFunction
from graphc.codegen.native.module import NativeModule, Variadic

_MOST_VALUES = 6


class Errors:
    """Writes what fails.

    Parameters
    ----------
    module : NativeModule

    Attributes
    ----------
    text : Row
        Address of the calling thread's text.
    """

    def __init__(self, module: NativeModule) -> None:
        self._module = module
        self.text = module.memory("error_text", TEXT_BYTES, 16, own=True)
        self._fail = self._failing()

    def _failing(self) -> Function:
        """``i32 fail(i32 status, const char *format, i64 ...)``: write the text; return it."""
        body = NativeFunction(self._module, "error_fail", "i", "ip" + _MOST_VALUES * "q")
        body.function.attributes += " noinline cold"
        status, form, *values = body.arguments
        snprintf = Variadic("snprintf", I32, [POINTER, I64, POINTER])
        self._module.define(snprintf)
        room = body.constant(TEXT_BYTES)
        body.builder.call(snprintf, [self.text, room, form, *values])
        return body.returns(status)

    def fail(
        self, body: NativeFunction, status: Status, form: str, values: Sequence[Row] = ()
    ) -> Row:
        """Write a text, and return the status for the function to return.

        Parameters
        ----------
        body : NativeFunction
        status : Status
        form : str
            As of ``printf``: each number is ``%lld``, each address of a text ``%s``.
        values : sequence of Row
            Numbers of 64 bits, and addresses.
        """
        builder = body.builder
        numbers = [builder.ptrtoint(v, I64) if v.type is POINTER else v for v in values]
        numbers += [body.constant(0)] * (_MOST_VALUES - len(numbers))
        form_address = self._module.text(form)
        return builder.call(self._fail, [Constant(I32, status), form_address, *numbers])

    def refuse(
        self, body: NativeFunction, wrong: Row, status: Status, form: str,
        values: Sequence[Row] = (),
    ) -> None:  # fmt: skip
        """Fail and return where a condition holds."""
        with body.builder.if_then(wrong):
            body.builder.ret(self.fail(body, status, form, values))

    def check(self, body: NativeFunction, status: Row) -> None:
        """Return a status that says that another function failed."""
        body.leave_if(body.is_set(status), status)


def quoted(text: str) -> str:
    """Return a text as part of a format."""
    return text.replace("%", "%%")

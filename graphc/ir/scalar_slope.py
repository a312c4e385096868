"""Derivatives of scalar functions, as text: forward, from step to step, by the ops' own gradients.

The text of a derivative is a scalar function like any other, so it has a derivative again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.ir.graph import Value
from graphc.ir.operand import Operators, is_scalar
from graphc.ir.scalar_text import ScalarText, function_text
from graphc.ir.types import DType, TensorType, as_dtype

Apply = Callable[[Any, Sequence[Any]], Value]


class Term(Operators):
    """A named value of the text that is being written; ops that it meets add a line.

    Attributes
    ----------
    text : Writer
    what : str or number
        Its name, or the number it is.
    type : TensorType
    """

    __slots__ = ("text", "type", "value", "what")
    __graphc_priority__ = 100

    def __init__(self, text: Writer, what: Any, value: Value | None, type: TensorType) -> None:
        self.text, self.what, self.value, self.type = text, what, value, type

    @property
    def dtype(self) -> DType:
        """Type of the elements."""
        return self.type.dtype

    @staticmethod
    def __graphc_apply__(op: Any, operands: tuple[Any, ...], attrs: dict[str, Any]) -> Term:
        (text, *_) = (x.text for x in operands if isinstance(x, Term))
        if "value" in attrs:  # full_like
            dtype = attrs["dtype"] or operands[0].dtype
            return Term(text, attrs["value"], None, TensorType(dtype, ()))
        assert not attrs, f"{op.name} has attributes, which scalar functions have not"
        return text.write(op, operands)


class Writer:
    """Lines of a text; ``apply`` computes the types of what they make."""

    def __init__(self, names: Sequence[str], apply: Apply) -> None:
        self.lines: list[str] = []
        self.names, self.apply = set(names), apply
        self.known: dict[Any, Term] = {}

    def write(self, op: Any, operands: Sequence[Any]) -> Term:
        """Add a line that applies an op, unless there is one like it."""
        plain = [x.what if isinstance(x, Term) and x.value is None else x for x in operands]
        values = [x.value if isinstance(x, Term) else x for x in plain]
        if all(is_scalar(x) for x in values):
            return self.number(op, operands)
        shown = ", ".join(x.what if isinstance(x, Term) else number_text(x) for x in plain)
        line = f"{op.name}({shown})"
        found = self.known.get(line)
        if found is None:
            value = self.apply(op, values)
            name = self.fresh()
            self.lines.append(f"{name} = {line}")
            found = self.known[line] = Term(self, name, value, value.type)
        return found

    def number(self, op: Any, parts: Sequence[Any]) -> Term:
        """Return what an op makes of numbers."""
        dtype = next(x.dtype for x in parts if isinstance(x, Term))
        plain = [x.what if isinstance(x, Term) else x for x in parts]
        with np.errstate(all="ignore"):
            result = np.asarray(op.reference(*(np.asarray(x, dtype.numpy) for x in plain)))
        return Term(self, result.item(), None, TensorType(as_dtype(result.dtype), ()))

    def fresh(self) -> str:
        """Return a name that no line has."""
        count = len(self.lines)
        while f"t{count}" in self.names:
            count += 1
        self.names.add(f"t{count}")
        return f"t{count}"


def number_text(x: Any) -> str:
    """Return a number as `graphc.ir.scalar_text` reads it."""
    return repr(x.item() if isinstance(x, np.generic) else x)


def slope(body: ScalarText, values: Sequence[Value], position: int, apply: Apply) -> str | None:
    """Return the text of the derivative of a function by a parameter.

    Parameters
    ----------
    body : ScalarText
    values : sequence of Value
        0-d stand-ins for the operands.
    position : int
    apply : callable
        Applies an op to values and numbers.

    Returns
    -------
    str or None
        None where the result does not depend on the parameter.
    """
    text = Writer(body.parameters, apply)
    terms = [Term(text, n, v, v.type) for n, v in zip(body.parameters, values, strict=True)]
    slopes: dict[int, Any] = {id(terms[position]): 1.0}
    kept: list[Any] = []  # ids are of what is alive

    def compute(op: Any, operands: Sequence[Any]) -> Any:
        result = text.write(op, operands)
        kept.append(result)
        arriving = [slopes.get(id(x)) for x in operands]
        if any(found is not None for found in arriving) and id(result) not in slopes:
            found = _through(op, operands, result, arriving)
            if found is not None:
                slopes[id(result)] = found
        return result

    (result,) = body(terms, compute)
    found = slopes.get(id(result))
    if found is None:
        return None
    last = found.what if isinstance(found, Term) else found
    returned = last if isinstance(last, str) else number_text(last)
    name = f"{body.name}_by_{body.parameters[position]}"
    return function_text(name, body.parameters, _needed(text.lines, returned), returned)


def _needed(lines: Sequence[str], result: str) -> list[str]:
    """Return the lines that a result depends on."""
    wanted, found = {result}, []
    for line in reversed(lines):
        name, _, call = line.partition(" = ")
        if name in wanted:
            found.append(line)
            wanted.update(call[call.index("(") + 1 : -1].split(", "))
    return found[::-1]


def _through(op: Any, operands: Sequence[Any], result: Term, arriving: Sequence[Any]) -> Any:
    """Return the derivative of an op's result, given those of its operands."""
    if op.name == "where":
        a, b = (0.0 if found is None else found for found in arriving[1:])
        if arriving[1] is None and arriving[2] is None:
            return None
        test = operands[0]
        return a if is_scalar(test) and test else op(test, _term(result, a), _term(result, b))
    one = _term(result, 1.0)
    partials = op.vjp(one, result, *(_term(result, x) for x in operands))
    total: Any = None
    for found, part in zip(arriving, partials, strict=True):
        if found is None or part is None:
            continue
        product = part if is_scalar(found) and found == 1.0 else _product(part, found)
        total = product if total is None else total + product
    return total


def _term(like: Term, x: Any) -> Any:
    """Return a number as a term of the type of another one."""
    return Term(like.text, x, None, like.type) if is_scalar(x) else x


def _product(a: Any, b: Any) -> Any:
    return b if isinstance(a, Term) and a.value is None and a.what == 1.0 else a * b

"""Scalar functions as text: straight-line Python over ops, ``def f(x, a): t = abs(x); return t``.

It is what a node of the op ``scalar`` keeps, so it prints, compares and hashes. Operators and names
of element-by-element ops are all it has; there is no dtype in it, so one text serves every type.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from graphc.errors import ParseError
from graphc.ir.op import Kind
from graphc.ir.operand import REGISTRY

OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "floor_divide",
    ast.Mod: "mod",
    ast.Pow: "power",
    ast.USub: "negative",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
"""Ops of Python's operators."""

Compute = Callable[[Any, Sequence[Any]], Any]
"""``compute(op, operands)`` applies an op record."""


@dataclass(frozen=True, slots=True)
class ScalarText:
    """A parsed text.

    Attributes
    ----------
    name : str
    parameters : tuple of str
    lines : tuple of (str, ast.expr)
        Assigned names and what they are.
    results : tuple of ast.expr
    """

    name: str
    parameters: tuple[str, ...]
    lines: tuple[tuple[str, ast.expr], ...]
    results: tuple[ast.expr, ...]

    def __call__(self, operands: Sequence[Any], compute: Compute) -> list[Any]:
        """Return the results over operands; numbers in the text stay Python's."""
        known: dict[str, Any] = dict(zip(self.parameters, operands, strict=True))
        known |= {"inf": math.inf, "nan": math.nan}
        for name, value in self.lines:
            known[name] = _value(value, known, compute)
        return [_value(result, known, compute) for result in self.results]

    def only(self, position: int) -> str:
        """Return the text with one of the results."""
        lines = [f"{name} = {ast.unparse(value)}" for name, value in self.lines]
        result = ast.unparse(self.results[position])
        return function_text(self.name, self.parameters, lines, result)


def function_text(
    name: str, parameters: Sequence[str], lines: Sequence[str], result: str
) -> str:
    """Return the text of a function of these assignments."""
    return f"def {name}({', '.join(parameters)}): {'; '.join([*lines, f'return {result}'])}"


def elementwise(name: str) -> bool:
    """Return whether an op of that name computes element by element, from operands alone."""
    return name in REGISTRY and REGISTRY[name].kind is Kind.POINTWISE


@cache
def parse_scalar(text: str) -> ScalarText:
    """Parse the text of a scalar function.

    Raises
    ------
    ParseError
        For text that is none.
    """
    try:
        (function,) = ast.parse(text).body
        assert isinstance(function, ast.FunctionDef)
        *lines, last = function.body
        assert isinstance(last, ast.Return) and last.value is not None
        results = tuple(last.value.elts) if isinstance(last.value, ast.Tuple) else (last.value,)
        return ScalarText(
            function.name,
            tuple(a.arg for a in function.args.args),
            tuple(map(_line, lines)),
            results,
        )
    except (SyntaxError, ValueError, AssertionError) as error:
        raise ParseError(f"not the text of a scalar function: {text!r:.80}") from error


def _line(statement: ast.stmt) -> tuple[str, ast.expr]:
    assert isinstance(statement, ast.Assign)
    (target,) = statement.targets
    assert isinstance(target, ast.Name)
    return target.id, statement.value


def _value(node: ast.expr, known: dict[str, Any], compute: Compute) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return known[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, (ast.Constant, ast.Name)):
        part = _value(node.operand, known, compute)
        if isinstance(part, (int, float)):
            return -part
    op, operands = application(node)
    values = [_value(operand, known, compute) for operand in operands]
    return compute(REGISTRY[op], values)


def application(node: ast.expr) -> tuple[str, Sequence[ast.expr]]:
    """Return the op that an expression of a text applies, and its operands.

    Raises
    ------
    ParseError
        For an expression that applies none.
    """
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)], (node.left, node.right)
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)], (node.operand,)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return OPERATORS[type(node.ops[0])], (node.left, node.comparators[0])
    called = node.func if isinstance(node, ast.Call) and not node.keywords else None
    if isinstance(node, ast.Call) and isinstance(called, ast.Name) and elementwise(called.id):
        return called.id, node.args
    raise ParseError(f"no part of a scalar function: {ast.unparse(node)}")

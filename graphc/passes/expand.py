"""Replace mathematical functions by arithmetic, so that only machine operations reach an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphc.errors import CompileError
from graphc.ir.expr import Apply, Expr, rebuild
from graphc.ir.loop import Assign, Declare, Fail, For, If, Kernel, Let, Stmt, Store
from graphc.ir.operations import OPERATIONS
from graphc.passes import elementary, trigonometry
from graphc.passes.elementary import FORMATS

Memo = dict[Expr, Expr]

FUNCTIONS: dict[str, Callable[..., Expr]] = {
    "exp": elementary.exp,
    "expm1": elementary.expm1,
    "log": elementary.log,
    "log1p": elementary.log1p,
    "tanh": elementary.tanh,
    "erf": elementary.erf,
    "sigmoid": elementary.sigmoid,
    "sin": trigonometry.sin,
    "cos": trigonometry.cos,
    "tan": trigonometry.tan,
    "asin": trigonometry.asin,
    "acos": trigonometry.acos,
    "atan": trigonometry.atan,
    "sinh": elementary.sinh,
    "cosh": elementary.cosh,
    "asinh": elementary.asinh,
    "acosh": elementary.acosh,
    "atanh": elementary.atanh,
    "pow": elementary.pow,
}
"""The expansion of every operation that is no machine operation."""


def expand(kernel: Kernel) -> Kernel:
    """Return the kernel with every operation that is not ``machine`` expanded.

    Parameters
    ----------
    kernel : Kernel
        Scheduled or not; tiles of any shape.

    Raises
    ------
    CompileError
        When a function is applied to a type other than float32 and float64.
    """
    return replace(kernel, body=expand_body(kernel.body, {}))


def expand_body(body: tuple[Stmt, ...], memo: Memo) -> tuple[Stmt, ...]:
    """Return statements with their expressions expanded."""
    return tuple(_expand_statement(statement, memo) for statement in body)


def _expand_statement(statement: Stmt, memo: Memo) -> Stmt:
    match statement:
        case For():
            return replace(
                statement,
                start=expand_expr(statement.start, memo),
                stop=expand_expr(statement.stop, memo),
                body=expand_body(statement.body, memo),
            )
        case If():
            return replace(
                statement,
                condition=expand_expr(statement.condition, memo),
                body=expand_body(statement.body, memo),
                otherwise=expand_body(statement.otherwise, memo),
            )
        case Let() | Declare() | Assign():
            return replace(statement, value=expand_expr(statement.value, memo))
        case Store():
            return replace(
                statement,
                offset=expand_expr(statement.offset, memo),
                value=expand_expr(statement.value, memo),
                mask=None if statement.mask is None else expand_expr(statement.mask, memo),
            )
        case Fail():
            details = tuple(expand_expr(d, memo) for d in statement.details)
            return replace(statement, details=details)
    return statement


def expand_expr(expr: Expr, memo: Memo | None = None) -> Expr:
    """Return an expression of machine operations with the same value."""
    memo = {} if memo is None else memo

    def visit(node: Expr) -> Expr | None:
        if not isinstance(node, Apply) or OPERATIONS[node.op].machine:
            return None
        if node.dtype not in FORMATS:
            raise CompileError(
                f"{node.op} of {node.dtype.name} values cannot be compiled",
                remedy="Cast the operand to float32 or float64.",
            )
        return FUNCTIONS[node.op](*(rebuild(a, visit, memo) for a in node.args))

    return rebuild(expr, visit, memo)

"""Replace mathematical functions by arithmetic, so that only machine operations reach an engine.

Most are expressions without branches. The angles of sine, cosine and tangent are reduced by
statements, so that what only large angles need is computed only where there are some.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.expr import Apply, Expr, Reduce
from graphc.ir.loop import Assign, Declare, For, If, Kernel, Let, Stmt
from graphc.ir.operations import OPERATIONS
from graphc.ir.statements import with_expressions
from graphc.passes import elementary, trigonometry
from graphc.passes.elementary import FORMATS
from graphc.passes.trigonometry import OF_ANGLE, Angle, far_angle, is_far, near_angle

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
    return replace(kernel, body=_Expansion().body(kernel.body))


def expand_expr(expr: Expr) -> Expr:
    """Return an expression of machine operations with the same value, without branches."""
    return _Functions().expanded(expr)


class _Functions:
    """The expansion of expressions.

    Attributes
    ----------
    memo : dict
    """

    def __init__(self) -> None:
        self.memo: Memo = {}

    def expanded(self, expr: Expr) -> Expr:
        """Return an expression expanded."""
        return E.rebuild(expr, self.visit, self.memo)

    def visit(self, node: Expr) -> Expr | None:
        """Return what takes the place of a node, or None."""
        if isinstance(node, Reduce):  # its axes are known in it only
            return E.with_children(node, expand_expr, {})
        if not isinstance(node, Apply) or OPERATIONS[node.op].machine:
            return None
        if node.dtype not in FORMATS:
            raise CompileError(
                f"{node.op} of {node.dtype.name} values cannot be compiled",
                remedy="Cast the operand to float32 or float64.",
            )
        args = [self.expanded(a) for a in node.args]
        return self.of_angle(node.op, *args) if node.op in OF_ANGLE else FUNCTIONS[node.op](*args)

    def of_angle(self, op: str, x: Expr) -> Expr:
        """Return a function of an angle."""
        return FUNCTIONS[op](x)


class _Expansion(_Functions):
    """The expansion of one kernel's statements.

    Statements in front of the one that needs an angle reduce it: into registers, cheaply, and once
    more behind a branch, taken if any element of the tile is far from 0.

    Attributes
    ----------
    before : list of Stmt
        Those of the statement at hand.
    reduced : dict
        Registers of angles, by the angle and their number. They and ``memo``, which may hold uses
        of them, serve further statements of the body as long as these change nothing: `Let`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.before: list[Stmt] = []
        self.reduced: dict[tuple[Expr, int], tuple[Expr, ...]] = {}

    def body(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        """Return statements with their expressions expanded; themselves if none was."""
        expanded = tuple([part for statement in body for part in self.statement(statement)])
        self.forget()
        same = len(body) == len(expanded) and all(a is b for a, b in zip(body, expanded))
        return body if same else expanded

    def statement(self, statement: Stmt) -> tuple[Stmt, ...]:
        """Return a statement expanded, behind those that reduce its angles."""
        self.before = []
        expanded = with_expressions(statement, self.expanded)
        before = self.before
        if not isinstance(statement, Let):
            self.forget()
        return (*before, self.nested(expanded))

    def forget(self) -> None:
        """Use no register of an angle again."""
        if self.reduced:
            self.memo, self.reduced = {}, {}

    def nested(self, statement: Stmt) -> Stmt:
        """Return a loop or a branch with its bodies expanded."""
        match statement:
            case For():
                body = self.body(statement.body)
                return statement if body is statement.body else replace(statement, body=body)
            case If():
                yes, no = self.body(statement.body), self.body(statement.otherwise)
                if yes is not statement.body or no is not statement.otherwise:
                    return replace(statement, body=yes, otherwise=no)
        return statement

    def of_angle(self, op: str, x: Expr) -> Expr:
        """Return a function of the registers of a reduced angle."""
        parts, function = OF_ANGLE[op]
        found = self.reduced.get((x, parts))
        if found is None:
            found = self.reduced[x, parts] = self.reduce(x, parts)
        return function(*found)

    def reduce(self, x: Expr, parts: int) -> tuple[Expr, ...]:
        """Write the statements that reduce an angle; return their registers."""
        name = f"angle{self.count}"
        self.count += 1
        angle = E.use(name, x)
        far = is_far(angle)
        near, further = near_angle(angle)[:parts], far_angle(angle)[:parts]
        registers = [E.use(f"{name}_{part}", e) for part, e in zip(Angle._fields, near)]
        self.before += [
            Let(name, x),
            *(Declare(r.name, e) for r, e in zip(registers, near)),
            If(
                E.fold("or", far),
                tuple(Assign(r.name, E.select(far, e, r)) for r, e in zip(registers, further)),
            ),
        ]
        return tuple(registers)

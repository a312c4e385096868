"""Python source of scalar functions, read into `graphc.ir.scalar_text`.

The source is walked once. Local variables get a name for each assignment, both sides of an ``if``
are computed and chosen from, loops over constant ranges are written out.
"""

from __future__ import annotations

import ast
import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, Location
from graphc.frontend.source import definition
from graphc.ir.scalar_text import OPERATORS, elementwise, function_text

FUNCTIONS: Mapping[str, str] = {
    **{
        name: name
        for name in (
            "abs", "ceil", "cbrt", "copysign", "cos", "cosh", "erf", "exp", "expm1", "floor",
            "hypot", "log", "log10", "log1p", "log2", "maximum", "minimum", "sign", "sin", "sinh",
            "sqrt", "square", "tan", "tanh", "trunc", "where", "isnan", "isinf", "arctan2",
            "sigmoid", "relu", "rsqrt", "reciprocal", "arcsin", "arccos", "arctan", "arcsinh",
            "arccosh", "arctanh", "logical_and", "logical_or", "logical_not",
        )
    },
    **{f"a{name}": f"arc{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "atan2": "arctan2", "fabs": "abs", "pow": "power", "power": "power", "max": "maximum",
    "min": "minimum", "add": "add", "subtract": "subtract", "multiply": "multiply",
    "divide": "divide", "absolute": "abs", "negative": "negative",
}  # fmt: skip
"""Functions that may be called, by the name they have in Python, ``math``, NumPy or ``nd``."""
MOST_STEPS = 1024
"""Assignments of one function at most, loops written out."""

_CONSTANT = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_, ast.Eq: operator.eq,
    ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """What a function was read as.

    Attributes
    ----------
    name : str
    parameters : tuple of str
    defaults : dict of str to number
    text : str
    where : Location
        Of its definition.
    """

    name: str
    parameters: tuple[str, ...]
    defaults: dict[str, Any]
    text: str
    where: Location


def read(function: Callable[..., Any], results: int = 1) -> Source:
    """Read a function that returns ``results`` numbers.

    Raises
    ------
    ArgumentError
        With the line, for what has no meaning element by element.
    """
    tree, file, first = definition(function)
    reader = _Reader(function, file, first)
    parameters, defaults = reader.signature(tree)
    found = reader.block(tree.body, {name: ast.Name(name) for name in parameters})
    if found is None:
        raise reader.error(tree, "does not return a number on every path")
    parts = found.elts if isinstance(found, ast.Tuple) else [found]
    if len(parts) != results:
        raise reader.error(tree, f"returns {len(parts)} numbers, {results} are expected")
    lines = [f"{name} = {ast.unparse(value)}" for name, value in reader.lines]
    text = function_text(tree.name, parameters, lines, ", ".join(map(ast.unparse, parts)))
    where = Location(file, first + tree.lineno - 1)
    return Source(tree.name, parameters, defaults, text, where)


Environment = dict[str, Any]
"""Expressions of local names; of one that is not set on every path, an `_Unset`."""


class _Unset:
    """A variable that only one side of an ``if`` assigned."""


class _Reader:
    """One walk over a function."""

    def __init__(self, function: Callable[..., Any], file: str, first: int) -> None:
        self.function, self.file, self.first = function, file, first
        self.lines: list[tuple[str, ast.expr]] = []
        self.used: set[str] = set()

    def error(self, node: ast.AST, what: str, remedy: str = "") -> ArgumentError:
        """Return an error at the line of a part of the function."""
        return ArgumentError(
            f"scalar function {self.function.__name__} {what}",
            remedy=remedy or "It computes one number from numbers: arithmetic, comparisons, if, "
            "loops over range, and functions of math.",
            where=Location(self.file, self.first + getattr(node, "lineno", 1) - 1),
        )

    def signature(self, node: ast.FunctionDef) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Return the names of the parameters, and the numbers that stand for missing ones."""
        args = node.args
        if args.vararg or args.kwarg or args.kwonlyargs or not (args.posonlyargs + args.args):
            raise self.error(node, "takes something else than one or more numbers by position")
        names = tuple(a.arg for a in (*args.posonlyargs, *args.args))
        values = self.function.__defaults__ or ()
        defaults = dict(zip(names[len(names) - len(values) :], values, strict=True))
        for name, value in defaults.items():
            if not _is_number(value):
                raise self.error(node, f"has the default {name}={value!r:.40}, which is no number")
        self.used.update(names)
        return names, defaults

    # -- statements --------------------------------------------------------------------------

    def block(self, statements: Sequence[ast.stmt], known: Environment) -> ast.expr | None:
        """Read statements; returns what they return, or None if they end without it."""
        for place, statement in enumerate(statements):
            if isinstance(statement, ast.Return):
                return self.returned(statement, known)
            if isinstance(statement, ast.If):
                rest = statements[place + 1 :]
                if _returns(statement):
                    return self.early(statement, rest, known)
                self.branches(statement, known)
            elif isinstance(statement, ast.For):
                if _returns(statement):
                    raise self.error(statement, "returns from inside a loop")
                for item in self.items(statement, known):
                    known[_target(self, statement.target)] = ast.Constant(item)
                    self.block(statement.body, known)
            else:
                self.simple(statement, known)
        return None

    def returned(self, statement: ast.Return, known: Environment) -> ast.expr:
        """Read what is returned."""
        if statement.value is None:
            raise self.error(statement, "returns nothing here")
        if isinstance(statement.value, ast.Tuple):
            return ast.Tuple([self.value(part, known) for part in statement.value.elts])
        return self.value(statement.value, known)

    def simple(self, statement: ast.stmt, known: Environment) -> None:
        """Read an assignment; doc strings and ``pass`` say nothing."""
        if isinstance(statement, ast.Pass):
            return
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return
        if isinstance(statement, ast.AugAssign):
            left = ast.copy_location(ast.Name(_target(self, statement.target)), statement)
            value: ast.expr = ast.BinOp(left, statement.op, statement.value)
            target: ast.expr = statement.target
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            target, value = statement.target, statement.value
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
        else:
            raise self.error(statement, f"has a statement that is none for numbers: "
                             f"{type(statement).__name__.lower()}")  # fmt: skip
        found = self.value(ast.copy_location(value, statement), known)
        name = _target(self, target)
        known[name] = self.named(name, ast.copy_location(found, statement))

    def named(self, name: str, value: ast.expr) -> ast.expr:
        """Give a value a name of its own, unless it is a name or a number."""
        if isinstance(value, (ast.Name, ast.Constant)):
            return value
        unique, count = name, 1
        while unique in self.used:
            unique, count = f"{name}_{count}", count + 1
        self.used.add(unique)
        self.lines.append((unique, value))
        if len(self.lines) > MOST_STEPS:
            raise self.error(value, f"makes more than {MOST_STEPS} steps, loops written out")
        return ast.Name(unique)

    def items(self, statement: ast.For, known: Environment) -> range:
        """Return what a loop goes over."""
        call = statement.iter
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            bounds = [self.value(argument, known) for argument in call.args]
            constants = [b.value for b in bounds if isinstance(b, ast.Constant)]
            numbers = [n for n in constants if isinstance(n, int)]
            if call.func.id == "range" and len(numbers) == len(bounds) and not statement.orelse:
                return range(*numbers)
        raise self.error(
            statement, "has a loop over something else than a range of constants",
            "Loop over range(4), or over a range of numbers from around the function.",
        )  # fmt: skip

    def condition(self, test: ast.expr, known: Environment) -> ast.expr:
        """Read a condition, under a name."""
        return self.named("test", self.value(test, known))

    def early(
        self, statement: ast.If, rest: Sequence[ast.stmt], known: Environment
    ) -> ast.expr | None:
        """Read an ``if`` that returns on a side: what follows belongs to both sides."""
        test = self.condition(statement.test, known)
        if isinstance(test, ast.Constant):
            chosen = statement.body if test.value else statement.orelse
            return self.block([*chosen, *rest], known)
        sides = [
            self.block([*side, *rest], dict(known)) for side in (statement.body, statement.orelse)
        ]
        if sides[0] is None or sides[1] is None:
            return None
        if isinstance(sides[0], ast.Tuple) and isinstance(sides[1], ast.Tuple):
            pairs = zip(sides[0].elts, sides[1].elts, strict=True)
            return ast.Tuple([_chosen(test, a, b) for a, b in pairs])
        return _chosen(test, sides[0], sides[1])

    def branches(self, statement: ast.If, known: Environment) -> None:
        """Read an ``if`` that assigns: each variable is chosen from both sides."""
        test = self.condition(statement.test, known)
        if isinstance(test, ast.Constant):
            self.block(statement.body if test.value else statement.orelse, known)
            return
        first, second = dict(known), dict(known)
        self.block(statement.body, first)
        self.block(statement.orelse, second)
        for name in dict.fromkeys((*first, *second)):
            a, b = first.get(name, _Unset()), second.get(name, _Unset())
            if isinstance(a, _Unset) or isinstance(b, _Unset):
                known[name] = _Unset()
            elif a is b or ast.unparse(a) == ast.unparse(b):
                known[name] = a
            else:
                known[name] = self.named(name, _chosen(test, a, b))

    # -- expressions -------------------------------------------------------------------------

    def value(self, node: ast.expr, known: Environment) -> ast.expr:
        """Return an expression over parameters and named values, constants computed."""
        if isinstance(node, ast.Constant) and _is_number(node.value):
            return node
        if isinstance(node, ast.Name):
            return self.name(node, known)
        if isinstance(node, ast.Attribute):
            return self.constant(node)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            parts = self.value(node.left, known), self.value(node.right, known)
            return self.folded(node, node.op, parts, ast.BinOp(parts[0], node.op, parts[1]))
        if isinstance(node, ast.UnaryOp):
            return self.unary(node, known)
        if isinstance(node, ast.Compare):
            return self.comparison(node, known)
        if isinstance(node, ast.BoolOp):
            op = "logical_and" if isinstance(node.op, ast.And) else "logical_or"
            return _joined(op, [self.value(part, known) for part in node.values])
        if isinstance(node, ast.IfExp):
            test = self.value(node.test, known)
            sides = self.value(node.body, known), self.value(node.orelse, known)
            if isinstance(test, ast.Constant):
                return sides[0] if test.value else sides[1]
            return _chosen(test, *sides)
        if isinstance(node, ast.Call):
            return self.call(node, known)
        raise self.error(node, f"has an expression that is none of numbers: {ast.unparse(node)}")

    def name(self, node: ast.Name, known: Environment) -> ast.expr:
        """Return what a name stands for: a value, or a number from around the function."""
        found = known.get(node.id)
        if isinstance(found, _Unset):
            raise self.error(
                node, f"uses {node.id}, which only one side of an if has set",
                f"Set {node.id} ahead of the if.",
            )  # fmt: skip
        return self.constant(node) if found is None else found

    def constant(self, node: ast.expr) -> ast.expr:
        """Return a number from around the function."""
        value = self.around(node)
        if not _is_number(value):
            raise self.error(
                node, f"uses {ast.unparse(node)}, which is no number but {type(value).__name__}",
                "Pass arrays as arguments; only numbers are taken from around the function.",
            )  # fmt: skip
        return ast.Constant(value.item() if isinstance(value, np.generic) else value)

    def around(self, node: ast.expr) -> Any:
        """Return what a name, or an attribute of a module, is around the function."""
        if isinstance(node, ast.Attribute):
            return getattr(self.around(node.value), node.attr, None)
        if isinstance(node, ast.Name):
            outside = inspect.getclosurevars(self.function)
            for names in (outside.nonlocals, outside.globals, outside.builtins):
                if node.id in names:
                    return names[node.id]
            if node.id in self.function.__globals__:
                return self.function.__globals__[node.id]
            raise self.error(node, f"uses {node.id}, which is not defined",
                             "Recursion and names defined later cannot be read.")  # fmt: skip
        raise self.error(node, f"has an expression that is none of numbers: {ast.unparse(node)}")

    def unary(self, node: ast.UnaryOp, known: Environment) -> ast.expr:
        """Read ``-x``, ``+x`` and ``not x``."""
        part = self.value(node.operand, known)
        if isinstance(part, ast.Constant) or type(node.op) in OPERATORS:
            return self.folded(node, node.op, (part,), ast.UnaryOp(node.op, part))
        if isinstance(node.op, ast.UAdd):
            return part
        if isinstance(node.op, ast.Not):
            return _applied("logical_not", part)
        raise self.error(node, f"has an operator that numbers have not: {ast.unparse(node)}")

    def comparison(self, node: ast.Compare, known: Environment) -> ast.expr:
        """Read a chain of comparisons."""
        parts = [self.value(part, known) for part in (node.left, *node.comparators)]
        found = []
        for op, a, b in zip(node.ops, parts, parts[1:]):
            if type(op) not in OPERATORS:
                raise self.error(node, f"has a comparison numbers have not: {ast.unparse(node)}")
            found.append(self.folded(node, op, (a, b), ast.Compare(a, [op], [b])))
        return _joined("logical_and", found)

    def folded(
        self, node: ast.AST, op: ast.AST, parts: Sequence[ast.expr], otherwise: ast.expr
    ) -> ast.expr:
        """Return a constant where all operands are, else an expression."""
        numbers = [part.value for part in parts if isinstance(part, ast.Constant)]
        if len(numbers) < len(parts):
            return otherwise
        try:
            found: Any = _CONSTANT[type(op)]
            return ast.Constant(found(*numbers))
        except (ArithmeticError, KeyError) as error:
            raise self.error(node, f"computes a constant that has no value: {error}") from None

    def call(self, node: ast.Call, known: Environment) -> ast.expr:
        """Read a call of a function of numbers, or of another scalar function."""
        if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            raise self.error(node, f"passes arguments by keyword: {ast.unparse(node)}")
        parts = [self.value(part, known) for part in node.args]
        function = self.around(node.func)
        if hasattr(function, "pullback"):
            return self.inlined(node, function, parts)
        name = FUNCTIONS.get(getattr(function, "__name__", getattr(function, "name", "")))
        if name is None or not elementwise(name):
            raise self.error(node, f"calls {ast.unparse(node.func)}, no function of numbers")
        if all(isinstance(part, ast.Constant) for part in parts):
            numbers = [part.value for part in parts if isinstance(part, ast.Constant)]
            return ast.Constant(_computed(function, numbers))
        if name in ("maximum", "minimum") and len(parts) > 1:
            return _joined(name, parts)
        if len(parts) != operands(name):
            raise self.error(node, f"calls {ast.unparse(node.func)} with {len(parts)} arguments")
        return _applied(name, *parts)

    def inlined(self, node: ast.Call, inner: Any, parts: Sequence[ast.expr]) -> ast.expr:
        """Read a call of another scalar function: its lines, under names of their own."""
        names = inner.parameters
        if inner.pullback:
            raise self.error(node, f"calls {inner.name}, whose own vjp would be lost")
        if len(parts) != len(names):
            raise self.error(node, f"calls {inner.name} with {len(parts)} arguments, "
                             f"it takes {len(names)}")  # fmt: skip
        known = {name: self.named(name, part) for name, part in zip(names, parts, strict=True)}
        tree, file, first = definition(inner.__wrapped__)
        reader = _Reader(inner.__wrapped__, file, first)
        reader.lines, reader.used = self.lines, self.used
        found = reader.block(tree.body, known)
        assert found is not None, "it was read before"
        return found


_PAIRS = (
    "power", "arctan2", "hypot", "copysign", "maximum", "minimum", "add", "subtract", "multiply",
    "divide", "logical_and", "logical_or",
)  # fmt: skip


def operands(op: str) -> int:
    """Return how many operands an op has."""
    return 3 if op == "where" else 1 + (op in _PAIRS)


def _computed(function: Any, numbers: Sequence[Any]) -> Any:
    value = function(*numbers)
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value: Any) -> bool:
    kinds = (bool, int, float, np.bool_, np.integer, np.floating)
    return isinstance(value, kinds) and not math.isnan(value)


def _target(reader: _Reader, target: ast.expr) -> str:
    if not isinstance(target, ast.Name):
        raise reader.error(target, f"assigns to something else than a variable: "
                           f"{ast.unparse(target)}")  # fmt: skip
    return target.id


def _returns(statement: ast.stmt) -> bool:
    return any(isinstance(node, ast.Return) for node in ast.walk(statement))


def _applied(op: str, *parts: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(op), list(parts), [])


def _chosen(test: ast.expr, a: ast.expr, b: ast.expr) -> ast.expr:
    return _applied("where", test, a, b)


def _joined(op: str, parts: Sequence[ast.expr]) -> ast.expr:
    found = parts[0]
    for part in parts[1:]:
        found = _applied(op, found, part)
    return found


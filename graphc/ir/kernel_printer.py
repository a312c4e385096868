"""Kernels as near-Python text, before and after scheduling.

What a statement uses twice gets a name (``t0``), and so does every reduction, which is a block of
its own::

    kernel @k0(p0: f32[n0, n1]) -> (o0: f32[n0, n1])  # n0, n1: i64
      for i0 in 0..n0:
        for i1 in 0..n1:
          t0 = max over r0 in 0..n1: p0[i0*n1 + r0]
          o0[i0*n1 + i1] = p0[i0*n1 + i1] - t0

``p0[e : 16]`` are sixteen adjacent elements from ``e`` on, ``p0[e : (8, 16) by (n1, 1)]`` a tile
with strides, ``where(mask, p0[e], 0)`` a read only where ``mask`` holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from graphc.ir.dim import Dim, symbols
from graphc.ir.expr import (
    Apply,
    Const,
    Expr,
    Fold,
    Index,
    Iota,
    Load,
    Reduce,
    Repeat,
    Splat,
    Tile,
    Use,
    children,
    walk,
)
from graphc.ir.loop import (
    TURN,
    Alloc,
    Assign,
    Barrier,
    Declare,
    Fail,
    For,
    If,
    Intrinsic,
    Kernel,
    Let,
    Prefetch,
    Python,
    Stmt,
    Store,
)
from graphc.ir.text import float_text, name_text, with_location
from graphc.ir.types import bool_, float32, int64

WIDTH = 96
_INDENT = "  "
_ATOM, _UNARY = 9, 8
SIGNS = {
    "mul": ("*", 7), "div": ("/", 7), "floordiv": ("//", 7), "mod": ("%", 7),
    "add": ("+", 6), "sub": ("-", 6), "shl": ("<<", 5), "shr": (">>", 5),
    "and": ("&", 4), "xor": ("^", 3), "or": ("|", 2),
    "lt": ("<", 1), "le": ("<=", 1), "gt": (">", 1), "ge": (">=", 1), "eq": ("==", 1),
    "ne": ("!=", 1),
}  # fmt: skip
"""Operation -> sign and how strongly it binds; a comparison never chains."""
COMBINE = {"add": "sum", "mul": "product", "and": "all", "or": "any"}
"""Combine operation of a reduction -> its name in the text; others keep theirs."""


def print_kernel(kernel: Kernel, label: str = "") -> str:
    """Return the text of a kernel, scheduled or not, with a newline at its end.

    Parameters
    ----------
    kernel : Kernel
    label : str
        For people, appended to the kernel's name.
    """
    split = len(kernel.params) - kernel.outputs
    inputs = ", ".join(map(str, kernel.params[:split]))
    outputs = ", ".join(map(str, kernel.params[split:]))
    name = name_text(f"{kernel.name}_{label}" if label else kernel.name)
    line = f"kernel @{name}({inputs}) -> ({outputs})"
    if len(line) > WIDTH:
        line = f"kernel @{name}(\n    {inputs}\n) -> ({outputs})"
    writer = _Writer()
    writer.body(kernel.body, 1)
    head = with_location(line, kernel.where)
    facts = [f"{', '.join(kernel.sizes)}: i64"] if kernel.sizes else []
    if kernel.extent != 1:
        facts += [f"begin..end is a part of 0..{kernel.extent}", f"one takes {kernel.work} ns"]
    if kernel.turns != 1:
        facts.append(f"launched for {TURN} in 0..{kernel.turns}")
    lines = [head, *(f"{_INDENT}# {fact}" for fact in facts), *writer.lines]
    return "\n".join(lines) + "\n"


@dataclass(slots=True)
class _Scope:
    """Where names are bound: a statement's own lines, or the body of a reduction."""

    indent: int
    axes: frozenset[str] = frozenset()
    lines: list[str] = field(default_factory=list)
    names: dict[Expr, str] = field(default_factory=dict)

    def line(self, text: str) -> None:
        self.lines.append(_INDENT * self.indent + text)


class _Writer:
    """Writes statements; ``scopes`` are those open at the expression being written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.scopes: list[_Scope] = []
        self.shared: set[Expr] = set()
        self.free: dict[Expr, frozenset[str]] = {}
        self.count = 0

    # -- statements --------------------------------------------------------------------------

    def body(self, statements: Sequence[Stmt], indent: int) -> None:
        for statement in statements:
            self.statement(statement, indent)

    def statement(self, statement: Stmt, indent: int) -> None:
        match statement:
            case For():
                self.simple(indent, self.loop(statement), statement.start, statement.stop)
                self.body(statement.body, indent + 1)
            case If():
                self.simple(indent, lambda: f"if {self.text(statement.condition)}:",
                            statement.condition)  # fmt: skip
                self.body(statement.body, indent + 1)
                if statement.otherwise:
                    self.lines.append(_INDENT * indent + "else:")
                    self.body(statement.otherwise, indent + 1)
            case Let() | Assign() | Declare():
                word = "var " if isinstance(statement, Declare) else ""
                self.simple(
                    indent,
                    lambda: f"{word}{statement.name} = {self.typed(statement.value)}",
                    statement.value,
                )
            case Store():
                roots = [statement.offset, statement.value]
                roots += [] if statement.mask is None else [statement.mask]
                self.simple(indent, lambda: self.store(statement), *roots)
            case Prefetch():
                self.simple(indent, lambda: self.prefetch(statement), statement.offset)
            case Alloc():
                buffer = statement.buffer
                self.lines.append(f"{_INDENT * indent}alloc {buffer} in {buffer.space}")
            case Intrinsic():
                self.simple(indent, lambda: self.intrinsic(statement), *statement.args)
            case Barrier():
                self.lines.append(f"{_INDENT * indent}barrier")
            case Fail():
                self.simple(indent, lambda: self.fail(statement), *statement.details)
            case Python():
                self.lines += self.python(statement, _INDENT * indent)

    def simple(self, indent: int, write: object, *roots: Expr) -> None:
        """Write one line, behind the lines that name what it shares."""
        assert callable(write)
        self.shared = shared_expressions(roots)
        self.scopes = [_Scope(indent)]
        text = write()
        self.scopes[0].line(text)
        self.lines += self.scopes[0].lines

    def loop(self, loop: For) -> object:
        def write() -> str:
            step = f" step {loop.step}" if loop.step != 1 else ""
            bind = f" {loop.bind.value}" if loop.bind.value else ""
            many = f" {loop.at_once} at once" if loop.at_once != 1 else ""
            start, stop = self.text(loop.start), self.text(loop.stop)
            return f"for {loop.name} in {start}..{stop}{step}{bind}{many}:"

        return write

    def store(self, store: Store) -> str:
        word = "stream " if store.streaming else ""
        place = self.place(store.offset, store.value.tile, store.strides)
        value = self.typed(store.value)
        mask = "" if store.mask is None else f" where {self.text(store.mask)}"
        return f"{word}{store.buffer.name}[{place}] = {value}{mask}"

    def prefetch(self, ahead: Prefetch) -> str:
        far = "" if ahead.level == 1 else f" into level {ahead.level}"
        use = " to write" if ahead.write else ""
        return f"prefetch {ahead.buffer.name}[{self.place(ahead.offset, (), ())}]{far}{use}"

    def intrinsic(self, call: Intrinsic) -> str:
        return f"{call.name} = warp {call.operation}({', '.join(map(self.typed, call.args))})"

    def python(self, call: Python, indent: str) -> list[str]:
        names = ", ".join(buffer.name for buffer in call.buffers)
        source = (f"{indent}{_INDENT}| {line}".rstrip() for line in call.source.splitlines())
        return [f"{indent}python {call.function}({names})", *source]

    def fail(self, fail: Fail) -> str:
        return f"fail({', '.join([str(fail.code), *map(self.text, fail.details)])})"

    # -- expressions -------------------------------------------------------------------------

    def text(self, expr: Expr) -> str:
        return self.render(expr)[0]

    def typed(self, expr: Expr) -> str:
        """Return an expression that says its own type: constants alone do not."""
        return _typed_constant(expr) if isinstance(expr, Const) else self.text(expr)

    def render(self, expr: Expr) -> tuple[str, int]:
        """Return text and binding strength, naming what is shared first."""
        scope = self.scopes[self.level(expr)]
        if expr in scope.names:
            return scope.names[expr], _ATOM
        if isinstance(expr, Reduce):
            return self.reduction(expr, scope), _ATOM
        if expr in self.shared:
            return self.bind(expr), _ATOM
        return self.fresh(expr)

    def level(self, expr: Expr) -> int:
        """Return the innermost open scope whose reduction axes the expression needs."""
        free = self.axes_of(expr)
        for number in range(len(self.scopes) - 1, 0, -1):
            if free & self.scopes[number].axes:
                return number
        return 0

    def axes_of(self, expr: Expr) -> frozenset[str]:
        if expr not in self.free:
            found = frozenset(symbols(expr.dim)) if isinstance(expr, Index) else frozenset()
            for child in children(expr):
                found |= self.axes_of(child)
            if isinstance(expr, Reduce):
                found -= {axis.name for axis in expr.axes}
            self.free[expr] = found
        return self.free[expr]

    def name(self) -> str:
        self.count += 1
        return f"t{self.count - 1}"

    def bind(self, expr: Expr) -> str:
        """Name an expression in the outermost scope that has all it needs."""
        level = self.level(expr)
        inner, self.scopes = self.scopes[level + 1 :], self.scopes[: level + 1]
        text = self.fresh(expr)[0]
        scope = self.scopes[level]
        name = scope.names[expr] = self.name()
        scope.line(f"{name} = {text}")
        self.scopes += inner
        return name

    def reduction(self, expr: Reduce, scope: _Scope) -> str:
        level = self.level(expr)
        inner, self.scopes = self.scopes[level + 1 :], self.scopes[: level + 1]
        axes = ", ".join(f"{axis.name} in 0..{axis.extent}" for axis in expr.axes)
        head = f"{COMBINE.get(expr.combine, expr.combine)} over {axes}:"
        inside = _Scope(scope.indent + 1, frozenset(axis.name for axis in expr.axes))
        self.scopes.append(inside)
        value = self.typed(expr.body)
        self.scopes = self.scopes[:-1] + inner
        name = scope.names[expr] = self.name()
        line = f"{name} = {head}"
        if inside.lines or len(line) + len(value) + len(_INDENT) * scope.indent > WIDTH:
            scope.line(line)
            scope.lines += inside.lines
            scope.line(f"{_INDENT}yield {value}")
        else:
            scope.line(f"{line} {value}")
        return name

    def fresh(self, expr: Expr) -> tuple[str, int]:
        match expr:
            case Const():
                return _literal(expr), _ATOM
            case Use():
                return expr.name, _ATOM
            case Index():
                return _dim(expr.dim)
            case Iota():
                return f"iota{_tile(expr.tile)}", _ATOM
            case Apply():
                return self.application(expr)
            case Load():
                return self.load(expr), _ATOM
            case Splat():
                return f"splat({self.typed(expr.arg)}, {_tile(expr.tile)})", _ATOM
            case Repeat():
                numbers = f"{expr.tile[0]}, {expr.count}, {expr.first}"
                return f"repeat({self.text(expr.arg)}, {numbers})", _ATOM
            case Fold():
                return f"fold_{expr.combine}({self.text(expr.arg)})", _ATOM
        return type(expr).__name__, _ATOM

    def application(self, expr: Apply) -> tuple[str, int]:
        if expr.op == "cast":
            return f"{expr.dtype}({self.typed(expr.args[0])})", _ATOM
        if expr.op == "bitcast":
            return f"bitcast({self.typed(expr.args[0])}, {expr.dtype})", _ATOM
        operands = self.operands(expr)
        if expr.op in SIGNS:
            sign, strength = SIGNS[expr.op]
            left = _wrapped(operands[0], strength + (strength == 1))
            return f"{left} {sign} {_wrapped(operands[1], strength + 1)}", strength
        if expr.op == "neg":
            return f"-{_wrapped(operands[0], _UNARY)}", _UNARY
        return f"{expr.op}({', '.join(text for text, _ in operands)})", _ATOM

    def operands(self, expr: Apply) -> list[tuple[str, int]]:
        """Write the operands; the longest get names while the line would be too wide."""
        values = expr.args[1:] if expr.op == "select" else expr.args
        constants = all(isinstance(arg, Const) for arg in values)
        texts = [
            (_typed_constant(a), _ATOM) if constants and isinstance(a, Const) else self.render(a)
            for a in expr.args
        ]
        room = WIDTH - 16 - len(_INDENT) * self.scopes[-1].indent
        while sum(len(text) for text, _ in texts) > room:
            longest = max(range(len(texts)), key=lambda n: len(texts[n][0]))
            if len(texts[longest][0]) < 24:
                break
            texts[longest] = self.bind(expr.args[longest]), _ATOM
        return texts

    def load(self, load: Load) -> str:
        element = f"{load.buffer.name}[{self.place(load.offset, load.tile, load.strides)}]"
        if load.mask is None:
            return element
        return f"where({self.text(load.mask)}, {element}, {_literal(Const(load.fill, load.dtype))})"

    def place(self, offset: Expr, tile: Tile, strides: Sequence[Dim]) -> str:
        start = self.text(offset)
        if not strides or not tile:
            return start
        if len(tile) == 1 and strides[0] == 1:
            return f"{start} : {tile[0]}"
        return f"{start} : {_tile(tile)} by ({', '.join(map(str, strides))})"


def shared_expressions(roots: Sequence[Expr]) -> set[Expr]:
    """Return the sub-expressions that are used more than once and are worth a name."""
    seen: set[int] = set()
    uses: Counter[Expr] = Counter(roots)
    for root in roots:
        for expr in walk(root, seen):
            uses.update(children(expr))
    plain = (Const, Use, Index, Iota)
    return {expr for expr, count in uses.items() if count > 1 and not isinstance(expr, plain)}


def _dim(dim: Dim) -> tuple[str, int]:
    text = str(dim)
    if text.isidentifier() or text.isdigit():
        return text, _ATOM
    return text, 1


def _wrapped(operand: tuple[str, int], strength: int) -> str:
    text, own = operand
    return text if own >= strength else f"({text})"


def _tile(tile: Tile) -> str:
    return f"({', '.join(map(str, tile))})"


def _literal(expr: Const) -> str:
    if expr.dtype is float32:
        return str(np.float32(expr.value))
    if expr.dtype.floating:
        return float_text(float(expr.value))
    return str(bool(expr.value)) if expr.dtype is bool_ else str(int(expr.value))


def _typed_constant(expr: Const) -> str:
    return _literal(expr) if expr.dtype is int64 else f"{expr.dtype}({_literal(expr)})"

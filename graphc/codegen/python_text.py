"""Scheduled loop IR as Python text: what ``graphc dump --stage source`` prints and what runs.

The text is one function, ``kernel(buffers, sizes, begin, end, error)``, over the names of
`NAMES`. It is compiled as it stands (`numba_engine`), and runs as plain Python over NumPy
(`python_engine`). A sub-expression that a run of statements uses twice gets a name; the rest stays
nested in one line up to a readable width.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from graphc.codegen.sharing import (
    Key,
    shared_expressions,
    static_size,
    straight_runs,
    used_names,
)
from graphc.errors import CompileError
from graphc.ir.dim import Atom, Dim, FloorDiv, Maximum, Minimum, Modulo, Var, terms
from graphc.ir.expr import Apply, Const, Expr, Fold, Index, Iota, Load, Repeat, Splat, Use
from graphc.ir.loop import (
    Alloc,
    Assign,
    Declare,
    Fail,
    For,
    If,
    Kernel,
    Let,
    Prefetch,
    Stmt,
    Store,
)
from graphc.ir.operations import OPERATIONS
from graphc.ir.statements import register_tiles, statements
from graphc.ir.types import DTYPES, DType, bool_, float32, int64

WIDTH = 96
"""Columns that a line of the text should keep within."""
_INDENT = "    "

BINARY = {
    "add": ("+", 6),
    "sub": ("-", 6),
    "mul": ("*", 7),
    "div": ("/", 7),
    "floordiv": ("//", 7),
    "mod": ("%", 7),
    "shl": ("<<", 5),
    "shr": (">>", 5),
    "and": ("&", 4),
    "xor": ("^", 3),
    "or": ("|", 2),
    "lt": ("<", 1),
    "le": ("<=", 1),
    "gt": (">", 1),
    "ge": (">=", 1),
    "eq": ("==", 1),
    "ne": ("!=", 1),
}
"""Operation -> Python's operator and its precedence; 1 is a comparison, which never chains."""

FUNCTIONS = {
    "min": "minimum",
    "max": "maximum",
    "abs": "absolute",
    "not": "invert",
    "round": "rint",
    **{n: n for n in (
        "rem", "mulhi", "scale", "sqrt", "floor", "ceil", "trunc", "fma", "select",
    )},
}
"""Operation -> name of its function in the text."""

FOLDS = {f"fold_{op}": op for op in ("add", "mul", "max", "min", "and", "or")}
"""Function in the text -> the operation it folds a tile by."""

_UNARY, _ATOM = 8, 9

# Texts below this length are not worth a line of their own; what stands around a sub-expression.
_SHORT, _SURROUNDING = 20, 28

_MEMORY = (
    "buffer", "size", "alloc", "load", "load_where", "gather", "gather_where", "store",
    "store_where", "scatter", "scatter_where", "stream", "stream_where", "stream_fence", "fail",
    "full", "spread", "repeat", "iota", "bitcast", "prefetch", "prefetch_to_write",
)  # fmt: skip
DTYPE_NAMES: dict[str, DType] = {d.short: d for d in DTYPES if d is not bool_} | {"boolean": bool_}
"""Name of a type in the text; calling it converts, or makes a constant."""

NAMES = frozenset((*FUNCTIONS.values(), *FOLDS, *_MEMORY, *DTYPE_NAMES, "inf", "nan", "range"))
"""Every global name that a text may use."""

_PARAMETERS = ("buffers", "sizes", "begin", "end", "error")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,30}")
_TEMPORARY = re.compile(r"t\d+")


def source(kernel: Kernel) -> str:
    """Return the Python text of a scheduled, machine-level kernel.

    The text holds neither the kernel's name nor its location: kernels of equal text are equal.

    Raises
    ------
    CompileError
        If the body holds what is gone after scheduling and expansion: a Reduce, or an operation
        that no machine has.
    """
    return _Writer(kernel).text()


class _Writer:
    """Writes one kernel; ``lines`` grows as statements are visited."""

    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.lines: list[str] = []
        self.depth = 1
        self.names: dict[str, str] = {"begin": "begin", "end": "end"}
        self.taken = set(_PARAMETERS) | NAMES
        self.temporaries = 0
        self.bound: dict[Key, str] = {}
        self.shared: set[Key] = set()
        self.stamps: Callable[[Expr], int] = lambda expr: 0
        self.tiles = register_tiles(kernel.body)
        self.streams = any(isinstance(s, Store) and s.streaming for s in statements(kernel.body))

    # -- names and lines ---------------------------------------------------------------------

    def name(self, original: str) -> str:
        """Return the identifier of an IR name, made here where the name is none itself."""
        if original not in self.names:
            found = original.replace(".", "_")
            usable = _IDENTIFIER.fullmatch(found) and not _TEMPORARY.fullmatch(found)
            if not usable or keyword.iskeyword(found) or found.startswith("__"):
                found = "v"
            fresh, number = found, 0
            while fresh in self.taken or keyword.iskeyword(fresh):
                number += 1
                fresh = f"{found}_{number}"
            self.taken.add(fresh)
            self.names[original] = fresh
        return self.names[original]

    def line(self, text: str) -> None:
        self.lines.append(_INDENT * self.depth + text)

    def text(self) -> str:
        kernel = self.kernel
        used = used_names(kernel)
        self.lines.append(f"def kernel({', '.join(_PARAMETERS)}):")
        for position, buffer in enumerate(kernel.params):
            if buffer.name in used:
                dtype = _dtype_name(buffer.dtype)
                self.line(f"{self.name(buffer.name)} = buffer(buffers, {position}, {dtype})")
        for position, size in enumerate(kernel.sizes):
            if size in used:
                self.line(f"{self.name(size)} = size(sizes, {position})")
        self.body(kernel.body)
        self.finish()
        return "\n".join(self.lines) + "\n"

    def finish(self, value: str = "0") -> None:
        if self.streams:
            self.line("stream_fence()")
        self.line(f"return {value}")

    # -- statements --------------------------------------------------------------------------

    def body(self, stmts: Sequence[Stmt]) -> None:
        outer = self.bound, self.shared, self.stamps
        for run in straight_runs(stmts):
            self.bound = {}
            self.shared, per_stmt = shared_expressions(run)
            for stmt, stamps in zip(run, per_stmt, strict=True):
                self.stamps = stamps
                self.statement(stmt)
        self.bound, self.shared, self.stamps = outer

    def statement(self, stmt: Stmt) -> None:
        match stmt:
            case For():
                self.loop(stmt)
            case If():
                self.branch(stmt)
            case Let() | Assign():
                self.line(f"{self.name(stmt.name)} = {self.value(stmt.value)}")
            case Declare():
                self.line(f"{self.name(stmt.name)} = {self.initial(stmt)}")
            case Store():
                self.store(stmt)
            case Alloc():
                size = static_size(stmt.buffer)
                dtype = _dtype_name(stmt.buffer.dtype)
                self.line(f"{self.name(stmt.buffer.name)} = alloc({dtype}, {size})")
            case Prefetch():
                how = "prefetch_to_write" if stmt.write else "prefetch"
                far = "" if stmt.level == 1 else f", {stmt.level}"
                place = f"{self.name(stmt.buffer.name)}, {self.plain(stmt.offset)}"
                self.line(f"{how}({place}{far})")
            case Fail():
                details = "".join(f", {self.plain(d)}" for d in stmt.details)
                self.finish(f"fail(error, {stmt.code}{details})")
            case _:
                raise CompileError(f"{type(stmt).__name__} is no statement of a scheduled kernel")

    def loop(self, loop: For) -> None:
        bounds = [self.plain(loop.start), self.plain(loop.stop)]
        bounds = self.fitted([loop.start, loop.stop], bounds, _SURROUNDING)
        step = [str(loop.step)] if loop.step != 1 else []
        if bounds[0] == "0" and not step:
            bounds = bounds[1:]
        self.line(f"for {self.name(loop.name)} in range({', '.join([*bounds, *step])}):")
        self.block(loop.body)

    def branch(self, stmt: If) -> None:
        self.line(f"if {self.plain(stmt.condition)}:")
        self.block(stmt.body)
        if stmt.otherwise:
            self.line("else:")
            self.block(stmt.otherwise)

    def block(self, stmts: Sequence[Stmt]) -> None:
        self.depth += 1
        if stmts:
            self.body(stmts)
        else:
            self.line("pass")
        self.depth -= 1

    def initial(self, stmt: Declare) -> str:
        tile = self.tiles.get(stmt.name, stmt.value.tile)
        if tile == stmt.value.tile:
            return self.value(stmt.value)
        return self.splat(Splat(stmt.value, stmt.value.dtype, tile))

    def store(self, stmt: Store) -> None:
        kind = "scatter" if stmt.offset.tile else "stream" if stmt.streaming else "store"
        exprs = [stmt.offset, stmt.value]
        texts = [self.plain(stmt.offset), self.value(stmt.value)]
        if stmt.mask is not None:
            kind += "_where"
            exprs.insert(0, stmt.mask)
            texts.insert(0, self.plain(stmt.mask))
        name = self.name(stmt.buffer.name)
        plain = _is_plain(stmt.value.tile, stmt.strides)
        strides = [] if plain else [self.strides(stmt.strides)]
        texts = self.fitted(exprs, texts, len(f"{kind}({name}, {strides})"))
        mask, rest = texts[:-2], texts[-2:]
        self.line(f"{kind}({', '.join([*mask, name, *rest, *strides])})")

    def fitted(self, exprs: Sequence[Expr], texts: list[str], used: int) -> list[str]:
        """Bind the longest texts while the line would be too wide beside ``used`` characters."""
        texts = list(texts)
        while used + sum(map(len, texts)) + len(_INDENT) * self.depth > WIDTH:
            longest = max(range(len(texts)), key=lambda k: len(texts[k]))
            if len(texts[longest]) < _SHORT:
                break
            key = (exprs[longest], self.stamps(exprs[longest]))
            texts[longest] = self.bound.get(key) or self.bind(key, texts[longest])
        return texts

    def strides(self, dims: Sequence[Dim]) -> str:
        inner = ", ".join(self.polynomial(d)[0] for d in dims)
        return f"({inner},)" if len(dims) == 1 else f"({inner})"

    # -- expressions -------------------------------------------------------------------------

    def plain(self, expr: Expr) -> str:
        """Return the text of an expression as an argument."""
        return self.render(expr)[0]

    def value(self, expr: Expr) -> str:
        """Return the text of an expression that must carry its own type."""
        return _typed_constant(expr) if isinstance(expr, Const) else self.plain(expr)

    def render(self, expr: Expr) -> tuple[str, int]:
        """Return text and precedence, naming the expression first where it is shared."""
        key = (expr, self.stamps(expr))
        if key in self.bound:
            return self.bound[key], _ATOM
        text, precedence = self.fresh(expr)
        if key in self.shared and not (isinstance(expr, Const) or _is_simple(text)):
            return self.bind(key, text), _ATOM
        return text, precedence

    def bind(self, key: Key, text: str) -> str:
        name = f"t{self.temporaries}"
        self.temporaries += 1
        self.line(f"{name} = {text}")
        self.bound[key] = name
        return name

    def fresh(self, expr: Expr) -> tuple[str, int]:
        match expr:
            case Const():
                return (_full(expr, expr.tile) if expr.tile else _literal(expr)), _ATOM
            case Use():
                return self.name(expr.name), _ATOM
            case Index():
                return self.polynomial(expr.dim)
            case Iota():
                if len(expr.tile) != 1:
                    raise CompileError("an Iota has one axis")
                return f"iota({expr.tile[0]})", _ATOM
            case Apply():
                return self.application(expr)
            case Load():
                return self.load(expr), _ATOM
            case Splat():
                return self.splat(expr), _ATOM
            case Repeat():
                numbers = f"{expr.tile[0]}, {expr.count}, {expr.first}"
                return f"repeat({self.value(expr.arg)}, {numbers})", _ATOM
            case Fold():
                return f"fold_{expr.combine}({self.value(expr.arg)})", _ATOM
        raise CompileError(
            f"{type(expr).__name__} is no expression of a scheduled kernel",
            remedy="passes/schedule turns reductions into loops.",
        )

    def application(self, expr: Apply) -> tuple[str, int]:
        if expr.op in ("cast", "bitcast"):
            dtype, inner = _dtype_name(expr.dtype), self.value(expr.args[0])
            converted = f"{dtype}({inner})" if expr.op == "cast" else f"bitcast({inner}, {dtype})"
            return converted, _ATOM
        if not OPERATIONS[expr.op].machine:
            raise CompileError(
                f"{expr.op} is no machine operation", remedy="passes/expand replaces it."
            )
        operands = self.operands(expr)
        if expr.op in BINARY:
            sign, precedence = BINARY[expr.op]
            left = _parenthesized(operands[0], precedence + (precedence == 1))
            right = _parenthesized(operands[1], precedence + 1)
            return f"{left} {sign} {right}", precedence
        if expr.op == "neg":
            return f"-{_parenthesized(operands[0], _UNARY)}", _UNARY
        return f"{FUNCTIONS[expr.op]}({', '.join(text for text, _ in operands)})", _ATOM

    def operands(self, expr: Apply) -> list[tuple[str, int]]:
        """Render the operands; bind the longest while the line would be too wide."""
        constants = [isinstance(a, Const) for a in expr.args]
        values = constants[1:] if expr.op == "select" else constants
        if all(values):  # at least one of them must carry the type
            texts = [(_typed_constant(a), _ATOM) if isinstance(a, Const) else self.render(a)
                     for a in expr.args]  # fmt: skip
        else:
            texts = [self.render(a) for a in expr.args]
        fitted = self.fitted(expr.args, [text for text, _ in texts], _SURROUNDING)
        return [old if old[0] == new else (new, _ATOM) for old, new in zip(texts, fitted)]

    def splat(self, expr: Splat) -> str:
        if isinstance(expr.arg, Const):
            return _full(expr.arg, expr.tile)
        return f"spread({self.value(expr.arg)}, {', '.join(map(str, expr.tile))})"

    def load(self, expr: Load) -> str:
        name, kind = self.name(expr.buffer.name), "load"
        exprs, tile = [expr.offset], ""
        if expr.offset.tile and not expr.strides:
            kind = "gather"
        elif expr.tile:
            plain = _is_plain(expr.tile, expr.strides)
            tile = f", {expr.tile[0]}" if plain else f", {expr.tile}, {self.strides(expr.strides)}"
        if expr.mask is not None:
            kind += "_where"
            exprs.insert(0, expr.mask)
        texts = self.fitted(exprs, [self.plain(e) for e in exprs], _SURROUNDING + len(tile))
        where = f"{texts[0]}, {_literal(Const(expr.fill, expr.dtype))}, " if len(texts) > 1 else ""
        return f"{kind}({where}{name}, {texts[-1]}{tile})"

    # -- index arithmetic --------------------------------------------------------------------

    def polynomial(self, dim: Dim) -> tuple[str, int]:
        """Return a Dim as Python text and its precedence."""
        ordered = sorted(terms(dim), key=lambda term: term[0] < 0)
        parts = [self.monomial(*term, leads=i == 0) for i, term in enumerate(ordered)]
        if not parts:
            return "0", _ATOM
        if len(parts) == 1:
            return parts[0]
        text = parts[0][0]
        for part, _ in parts[1:]:
            text += f" - {part[1:]}" if part.startswith("-") else f" + {part}"
        return text, BINARY["add"][1]

    def monomial(
        self, coefficient: int, factors: Sequence[tuple[Atom, int]], leads: bool
    ) -> tuple[str, int]:
        texts = [self.atom(atom) for atom, power in factors for _ in range(power)]
        sign = "-" if coefficient < 0 else ""
        if abs(coefficient) != 1 or not texts:
            texts.append((str(abs(coefficient)), _ATOM))
        if len(texts) == 1 and not sign:
            return texts[0]
        # Left to right: `a // 4 * 4` is (a // 4) * 4, but `4 * a // 4` is not what is meant,
        # and the sign that leads in `-a // 4` is that of `a`.
        first, *rest = texts
        product = _parenthesized(first, 8 if sign and leads else 7)
        product += "".join(f" * {_parenthesized(text, 8)}" for text in rest)
        return sign + product, _UNARY if sign and not rest else 7

    def atom(self, atom: Atom) -> tuple[str, int]:
        match atom:
            case Var():
                return self.name(atom.name), _ATOM
            case FloorDiv() | Modulo():
                left, right = self.polynomial(atom.a), self.polynomial(atom.b)
                sign = "//" if isinstance(atom, FloorDiv) else "%"
                # A sign in front would read as that of the whole term.
                numerator = _parenthesized(left, _ATOM if left[0].startswith("-") else 7)
                return f"{numerator} {sign} {_parenthesized(right, 8)}", 7
            case Minimum() | Maximum():
                name = "minimum" if isinstance(atom, Minimum) else "maximum"
                return f"{name}({self.polynomial(atom.a)[0]}, {self.polynomial(atom.b)[0]})", _ATOM
        raise CompileError(f"{type(atom).__name__} is no index arithmetic")


def _parenthesized(operand: tuple[str, int], precedence: int) -> str:
    text, own = operand
    return text if own >= precedence else f"({text})"


def _is_simple(text: str) -> bool:
    """Whether naming a text would not make anything shorter: a name, a number."""
    return bool(re.fullmatch(r"-?[\w.]+", text))


def _is_plain(tile: Sequence[int], strides: Sequence[Dim]) -> bool:
    """Whether the tile is what an omitted ``strides`` means: a scalar or adjacent elements."""
    return not strides or (len(tile) == 1 and strides[0] == 1)


def _dtype_name(dtype: DType) -> str:
    return "boolean" if dtype is bool_ else dtype.short


def _literal(expr: Const) -> str:
    value = expr.value
    if expr.dtype.floating:
        value = float(value)
        if math.isnan(value):
            return "nan"
        if expr.dtype is float32 and math.isfinite(value):
            return str(np.float32(value))  # the shortest that is this value in float32
        return repr(value)  # "inf" and "-inf" included, which are names of the text
    return repr(bool(value)) if expr.dtype is bool_ else repr(int(value))


def _typed_constant(expr: Const) -> str:
    if expr.tile:
        return _full(expr, expr.tile)
    return _literal(expr) if expr.dtype is int64 else f"{_dtype_name(expr.dtype)}({_literal(expr)})"


def _full(expr: Const, tile: Sequence[int]) -> str:
    return f"full({_dtype_name(expr.dtype)}, {_literal(expr)}, {', '.join(map(str, tile))})"

"""CUDA kernels as Python text for ``numba-cuda``, and for Numba's simulator.

Every element of a register tile is a variable of its own, so this is the text of small kernels, to
read and to step through: those that compute on CUDA cores. Numbers keep their types by NumPy's
scalars, whose names Numba knows too.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import prod

import numpy as np

from graphc.codegen.llvm_cuda import block_threads
from graphc.codegen.sharing import static_size
from graphc.errors import CompileError
from graphc.ir.dim import Dim
from graphc.ir.expr import (
    Apply,
    Const,
    Expr,
    Fold,
    Index,
    Iota,
    Load,
    Repeat,
    Splat,
    Tile,
    Use,
    children,
)
from graphc.ir.loop import (
    Alloc,
    Assign,
    Barrier,
    Bind,
    Declare,
    Fail,
    For,
    If,
    Intrinsic,
    Kernel,
    Let,
    Prefetch,
    Stmt,
    Store,
)
from graphc.ir.statements import expressions
from graphc.ir.target import Target
from graphc.ir.types import DType, bool_, int64

PRELUDE = '''\
import math

import numpy as np
from numba import cuda
from numpy import bool_, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64


@cuda.jit(device=True)
def floored(x):
    return type(x)(math.floor(x)) if abs(x) < 4503599627370496.0 else x


@cuda.jit(device=True)
def rounded(x):
    down = floored(x)
    up = x - down > 0.5 or (x - down == 0.5 and down % 2 != 0)
    return down + 1 if up else down


@cuda.jit(device=True)
def scaled(x, power):
    return type(x)(math.ldexp(x, int(power))) if x == x else x

'''
"""What the text of a kernel needs in front of it."""

_BINARY = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%", "shl": "<<",
    "shr": ">>", "xor": "^", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip
_CALLS = {
    "abs": "abs({0})",
    "sqrt": "{type}(math.sqrt({0}))",
    "floor": "floored({0})",
    "ceil": "-floored(-{0})",
    "trunc": "(floored({0}) if {0} > 0 else -floored(-{0}))",
    "round": "rounded({0})",
    "rem": "{type}(math.fmod({0}, {1}))",
    "min": "({0} if {0} < {1} or {0} != {0} else {1})",
    "max": "({0} if {0} > {1} or {0} != {0} else {1})",
    "fma": "{type}(cuda.fma({0}, {1}, {2}))",
    "select": "({1} if {0} else {2})",
    "mulhi": "uint32((uint64({0}) * uint64({1})) >> uint64(32))",
    "scale": "scaled({0}, {1})",
}
"""Operation -> its text: ``{0}`` is an operand, ``{type}`` the result's type."""


def source(kernel: Kernel, target: Target) -> str:
    """Return a module's text that defines ``kernel``, a function for ``cuda.jit``.

    Its arguments are the buffers as flat arrays, the sizes, and an int64 array of 8 zeros that gets
    the error's code at 1 and its details from 2 on; ``BLOCK_THREADS`` is the number of threads.

    Raises
    ------
    CompileError
        If the kernel computes products on tensor cores.
    """
    threads = f"BLOCK_THREADS = {block_threads(kernel)}\n\n"
    return PRELUDE + threads + "\n".join(_Walk(kernel).text()) + "\n"


class _Walk:
    """Writes one kernel; ``known`` has the texts of what the statement at hand computed."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.lines: list[str] = []
        self.indent = 1
        self.known: dict[Expr, list[str]] = {}
        self.uses: Counter[Expr] = Counter()
        self.temporaries = itertools.count()

    def text(self) -> list[str]:
        names = [*(b.name for b in self.kernel.params), *self.kernel.sizes, "error"]
        self.lines = [f"def kernel({', '.join(names)}):"]
        self.body(self.kernel.body)
        return self.lines

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    # -- statements --------------------------------------------------------------------------

    def body(self, body: Sequence[Stmt]) -> None:
        for stmt in body:
            self.known = {}
            self.uses = Counter(_uses(expressions(stmt)))
            self.statement(stmt)

    def block(self, head: str, body: Sequence[Stmt]) -> None:
        self.line(head)
        self.indent += 1
        count = len(self.lines)
        self.body(body)
        if len(self.lines) == count:
            self.line("pass")
        self.indent -= 1

    def statement(self, stmt: Stmt) -> None:
        match stmt:
            case For() if stmt.bind in (Bind.BLOCK, Bind.THREAD):
                number = "blockIdx" if stmt.bind is Bind.BLOCK else "threadIdx"
                self.line(f"{stmt.name} = int64(cuda.{number}.x)")
                self.body(stmt.body)
            case For():
                start, stop = self.one(stmt.start), self.one(stmt.stop)
                self.block(f"for {stmt.name} in range({start}, {stop}, {stmt.step}):", stmt.body)
            case If():
                self.block(f"if {self.one(stmt.condition)}:", stmt.body)
                if stmt.otherwise:
                    self.block("else:", stmt.otherwise)
            case Let() | Declare() | Assign():
                self.name(stmt.name, stmt.value)
            case Store():
                self.store(stmt)
            case Alloc():
                space = "shared" if stmt.buffer.space == "shared" else "local"
                size = max(static_size(stmt.buffer), 1)
                dtype = stmt.buffer.dtype.name
                self.line(f"{stmt.buffer.name} = cuda.{space}.array({size}, {_type(dtype)})")
            case Barrier():
                self.line("cuda.syncthreads()")
            case Intrinsic():
                self.intrinsic(stmt)
            case Fail():
                self.fail(stmt)
            case Prefetch():
                pass
            case _:
                raise CompileError(f"{type(stmt).__name__} is no statement of a CUDA kernel")

    def name(self, name: str, value: Expr) -> None:
        """Assign the elements of a tile to variables, all computed before the first is changed."""
        texts = self.value(value)
        targets = _elements(name, value.tile)
        self.line(f"{', '.join(targets)} = {', '.join(texts)}")

    def store(self, store: Store) -> None:
        tile = store.value.tile
        values = self.value(store.value)
        places = self.places(store.offset, tile, store.strides)
        masks = None if store.mask is None else self.spread(store.mask, tile)
        for number, (place, value) in enumerate(zip(places, values, strict=True)):
            head = "" if masks is None else f"if {masks[number]}: "
            self.line(f"{head}{store.buffer.name}[{place}] = {value}")

    def intrinsic(self, stmt: Intrinsic) -> None:
        if stmt.operation != "shuffle_xor":
            raise CompileError(
                "Numba has no products on tensor cores",
                remedy='Use the engine "llvm", or matmul_precision="float32".',
            )
        value, distance = (self.value(arg) for arg in stmt.args)
        for target, own in zip(_elements(stmt.name, stmt.value.tile), value, strict=True):
            self.line(f"{target} = cuda.shfl_xor_sync(0xffffffff, {own}, {distance[0]})")

    def fail(self, stmt: Fail) -> None:
        details = [self.one(detail) for detail in stmt.details]
        self.line(f"if cuda.atomic.cas(error, 1, 0, {stmt.code}) == 0:")
        for number, detail in enumerate(details):
            self.line(f"    error[{2 + number}] = {detail}")
        if not details:
            self.line("    pass")
        self.line("return")

    # -- expressions -------------------------------------------------------------------------

    def one(self, expr: Expr) -> str:
        """Return the text of a scalar."""
        (text,) = self.value(expr)
        return text

    def spread(self, expr: Expr, tile: Tile) -> list[str]:
        """Return the texts of an expression at each element of a tile it broadcasts to."""
        texts = np.array(self.value(expr), object).reshape(expr.tile)
        return list(np.broadcast_to(texts, tile).reshape(-1))

    def value(self, expr: Expr) -> list[str]:
        """Return the texts of an expression's elements, named where they are used again."""
        found = self.known.get(expr)
        if found is None:
            found = self.fresh(expr)
            if self.uses[expr] > 1 and isinstance(expr, Apply | Load | Fold):
                names = [f"t{next(self.temporaries)}" for _ in found]
                self.line(f"{', '.join(names)} = {', '.join(found)}")
                found = names
            self.known[expr] = found
        return found

    def fresh(self, expr: Expr) -> list[str]:
        match expr:
            case Const():
                return [_constant(expr.value, expr.dtype)]
            case Index():
                return [f"({expr.dim})" if not isinstance(expr.dim, int) else str(expr.dim)]
            case Use():
                return _elements(expr.name, expr.tile)
            case Iota():
                return [str(k) for k in range(prod(expr.tile))]
            case Splat():
                return self.value(expr.arg) * prod(expr.tile)
            case Repeat():
                lanes = self.value(expr.arg)
                return [lanes[(k + expr.first) // expr.count] for k in range(expr.tile[0])]
            case Load():
                return self.load(expr)
            case Fold():
                return [self.folded(expr)]
            case Apply():
                return self.applied(expr)
        raise CompileError(f"{type(expr).__name__} is no expression of a CUDA kernel")

    def load(self, load: Load) -> list[str]:
        tile = load.tile
        places = self.places(load.offset, tile, load.strides)
        reads = [f"{load.buffer.name}[{place}]" for place in places]
        if load.mask is None:
            return reads
        fill, masks = _constant(load.fill, load.dtype), self.spread(load.mask, tile)
        return [f"({read} if {mask} else {fill})" for read, mask in zip(reads, masks, strict=True)]

    def places(self, offset: Expr, tile: Tile, strides: Sequence[Dim]) -> list[str]:
        """Return the text of each element's offset."""
        if not strides:
            return self.spread(offset, tile)
        first = self.one(offset)
        found = []
        for lane in np.ndindex(*tile):
            terms = [f"{k} * ({stride})" for k, stride in zip(lane, strides, strict=True) if k]
            found.append(" + ".join([first, *terms]))
        return found

    def applied(self, expr: Apply) -> list[str]:
        args = [self.spread(arg, expr.tile) for arg in expr.args]
        kind = expr.args[-1].dtype
        return [self.operation(expr, kind, each) for each in zip(*args, strict=True)]

    def operation(self, expr: Apply, kind: DType, args: Sequence[str]) -> str:
        if expr.op == "cast":
            return _cast(args[0], kind, expr.dtype)
        if expr.op in ("and", "or") and kind is bool_:
            return f"({args[0]} {expr.op} {args[1]})"
        if expr.op in ("and", "or"):
            return f"({args[0]} {'&' if expr.op == 'and' else '|'} {args[1]})"
        if expr.op in ("neg", "not"):
            return f"({'not ' if kind is bool_ else '-' if expr.op == 'neg' else '~'}{args[0]})"
        if expr.op in _BINARY:
            return f"({args[0]} {_BINARY[expr.op]} {args[1]})"
        if expr.op == "bitcast":
            return f"{kind.name}({args[0]}).view({expr.dtype.name})"
        return _CALLS[expr.op].format(*args, type=expr.dtype.name)

    def folded(self, fold: Fold) -> str:
        """Return the tree of a fold: axis by axis, the upper half combined with the lower."""
        texts = np.array(self.value(fold.arg), object).reshape(fold.arg.tile)
        combine: Callable[[str, str], str] = self._combined(fold)
        for _ in fold.arg.tile:
            while len(texts) > 1:
                half = (len(texts) + 1) // 2
                both = np.frompyfunc(combine, 2, 1)(texts[: len(texts) - half], texts[half:])
                texts = np.concatenate([both, texts[len(texts) - half : half]])
            texts = texts[0]
        return str(texts)

    def _combined(self, fold: Fold) -> Callable[[str, str], str]:
        probe = Apply(fold.combine, (fold.arg, fold.arg), fold.dtype)
        return lambda a, b: self.operation(probe, fold.dtype, (a, b))


def _uses(roots: Sequence[Expr]) -> Iterator[Expr]:
    """Yield expressions as often as others read them."""
    seen: set[Expr] = set()
    waiting = list(roots)
    yield from roots
    while waiting:
        expr = waiting.pop()
        if expr not in seen:
            seen.add(expr)
            yield from children(expr)
            waiting += children(expr)


def _elements(name: str, tile: Tile) -> list[str]:
    return [f"{name}_{k}" for k in range(prod(tile))] if tile else [name]


def _type(name: str) -> str:
    return "bool_" if name == "bool" else name


def _constant(value: int | float | bool, dtype: DType) -> str:
    if dtype is int64 or dtype is bool_:
        return repr(value)
    text = repr(value) if np.isfinite(value) else f"float('{value}')"
    return f"{dtype.name}({text})"


def _cast(text: str, old: DType, new: DType) -> str:
    """Return a conversion; from floats to integers it truncates and saturates."""
    if new is bool_:
        return f"({text} != 0)"
    if not old.floating or new.floating:
        return f"{_type(new.name)}({text})"
    limits = np.iinfo(new.name)
    inside = f"{new.name}({text}) if {text} > {float(limits.min)} else {new.name}({limits.min})"
    above = f"{new.name}({limits.max}) if {text} >= {float(limits.max)} else {inside}"
    return f"({above} if {text} == {text} else {new.name}(0))"

"""CUDA kernels as Python text for ``numba-cuda``, and for Numba's simulator.

Every element of a register tile is a variable of its own, so this is the text of small kernels, to
read and to step through: those that compute on CUDA cores. Numbers keep their types by NumPy's
scalars, whose names Numba knows too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from math import prod

import numpy as np

from graphc.codegen import numba_cuda_names as names
from graphc.codegen.cuda import SHARED_BYTES
from graphc.codegen.llvm_cuda import (
    REPORT_CALL_BYTES,
    REPORT_LAUNCH_BYTES,
    block_threads,
    blocks_at_once,
    room_bytes,
    shared_bytes,
)
from graphc.codegen.llvm_kernel import CODE_BYTES, failure_places
from graphc.codegen.sharing import Key, shared_expressions, static_size, straight_runs
from graphc.errors import CompileError
from graphc.ir.dim import Dim
from graphc.ir.expr import (
    Apply,
    Buffer,
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
from graphc.ir.target import Target
from graphc.ir.types import DType, int64

NAME = "numba-cuda"
FILES = ("cuda.py", "cuda_code.py", "numba_cuda.py", "numba_cuda_names.py", "numba_nvvm.py")
"""What code depends on."""
PACKAGES = ("numba",)
SIGNATURE = "SIGNATURE"
"""The first line behind the functions that a text calls: the types of the kernel's arguments."""


def source(kernel: Kernel, target: Target) -> str:
    """Return a module's text that defines ``kernel``, a function for ``cuda.jit``.

    Its arguments are the buffers as flat arrays, the sizes, the launch's number, and a Flag of
    `graphc.codegen.dispatch_layout` as an array of words; in a simulator, which has no addresses,
    the Report is what follows the Flag. What a launch and a compiler have to know stands in front.

    Raises
    ------
    CompileError
        If the kernel computes products on tensor cores.
    """
    body = "\n".join(_Walk(kernel).text())
    kinds = [f"{names.memory_type(b.dtype)}*" for b in kernel.params]
    kinds += ["int64"] * len(kernel.sizes) + ["int64", "int64*"]
    facts = {
        SIGNATURE: f'"{", ".join(kinds)}"',
        "BLOCK_THREADS": block_threads(kernel),
        "BLOCKS_AT_ONCE": blocks_at_once(kernel),
        "DYNAMIC_BYTES": dynamic_bytes(kernel),
    }
    lines = "".join(f"{name} = {value}\n" for name, value in facts.items())
    return f"{names.prelude(body)}\n{lines}\n\n{body}\n"


def dynamic_bytes(kernel: Kernel) -> int:
    """Return the shared memory that a launch gives: none where what kernels may have is enough."""
    found = shared_bytes(kernel)
    return found if found > SHARED_BYTES else 0


_SHORT = 8
"""Texts below this length are not worth a name."""


class _Walk:
    """Writes one kernel; ``known`` has the texts of what the run of statements computed so far."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.lines: list[str] = []
        self.indent = 1
        self.known: dict[Key, list[str]] = {}
        self.shared: set[Key] = set()
        self.stamp: Callable[[Expr], int] = lambda expr: 0
        self.temporaries = itertools.count()
        self.dynamic, self.taken_bytes = dynamic_bytes(kernel) > 0, 0

    def text(self) -> list[str]:
        arguments = [*(b.name for b in self.kernel.params), *self.kernel.sizes, "launch", "flag"]
        self.lines = [f"def kernel({', '.join(arguments)}):"]
        self.line("if stopped(flag):")
        self.line("    return")
        self.body(self.kernel.body)
        return self.lines

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    # -- statements --------------------------------------------------------------------------

    def body(self, body: Sequence[Stmt]) -> None:
        for run in _runs(body):
            self.shared, stamps = shared_expressions(run)
            self.known = {}
            for stmt, self.stamp in zip(run, stamps, strict=True):
                self.statement(stmt)

    def block(self, head: str, body: Sequence[Stmt]) -> None:
        self.line(head)
        self.indent += 1
        self.filled(body)
        self.indent -= 1

    def filled(self, body: Sequence[Stmt]) -> None:
        count = len(self.lines)
        self.body(body)
        if len(self.lines) == count:
            self.line("pass")

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
                self.line(f"{stmt.buffer.name} = {self.memory(stmt.buffer)}")
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

    def memory(self, buffer: Buffer) -> str:
        """Return the text of scratch memory."""
        size, kind = max(static_size(buffer), 1), names.memory_type(buffer.dtype)
        if buffer.space != "shared":
            return f"cuda.local.array({size}, {kind})"
        if not self.dynamic:
            return f"cuda.shared.array({size}, {kind})"
        first = self.taken_bytes // buffer.dtype.item_bytes
        self.taken_bytes += room_bytes(buffer.dtype, size)
        return f"cuda.shared.array(0, {kind})[{first}:{first + size}]"

    def name(self, name: str, value: Expr) -> None:
        """Assign the elements of a tile to variables, all computed before the first is changed."""
        texts = self.value(value)
        targets = _elements(name, value.tile)
        late = {t for k, t in enumerate(targets) for text in texts[k + 1 :] if _reads(text, t)}
        for target, text in zip(targets, texts, strict=True):
            self.line(f"{target}{'_next' if target in late else ''} = {text}")
        for target in targets:
            if target in late:
                self.line(f"{target} = {target}_next")

    def store(self, store: Store) -> None:
        tile, dtype = store.value.tile, store.buffer.dtype
        values = [names.stored(text, dtype) for text in self.value(store.value)]
        places = self.places(store.offset, tile, store.strides)
        writes = [f"{store.buffer.name}[{p}] = {v}" for p, v in zip(places, values, strict=True)]
        if store.mask is None:
            for write in writes:
                self.line(write)
        elif not store.mask.tile:
            self.lines_under(f"if {self.one(store.mask)}:", writes)
        else:
            for mask, write in zip(self.spread(store.mask, tile), writes, strict=True):
                self.line(f"if {mask}: {write}")

    def lines_under(self, head: str, lines: Sequence[str]) -> None:
        self.line(head)
        for text in lines:
            self.line("    " + text)

    def intrinsic(self, stmt: Intrinsic) -> None:
        if stmt.operation != "shuffle_xor":
            raise CompileError(
                "Numba has no products on tensor cores",
                remedy='Use the engine "llvm", or matmul_precision="float32".',
            )
        value, distance = (self.value(arg) for arg in stmt.args)
        for target, own in zip(_elements(stmt.name, stmt.value.tile), value, strict=True):
            self.line(f"{target} = {_shuffled(own, distance[0], stmt.value.dtype)}")

    def fail(self, stmt: Fail) -> None:
        details = [_word(self.one(detail), detail.dtype) for detail in stmt.details]
        words = {REPORT_LAUNCH_BYTES: "launch", REPORT_CALL_BYTES: "flag[0]", CODE_BYTES: stmt.code}
        words |= dict(zip(failure_places(len(details)), details, strict=True))
        reports = [f"report(flag, {place // 8}, {word})" for place, word in words.items()]
        self.lines_under(f"if failed_first(flag, {stmt.code}):", reports)
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
        key = expr, self.stamp(expr)
        found = self.known.get(key)
        if found is None:
            found = self.fresh(expr)
            if key in self.shared and isinstance(expr, Apply | Load | Fold | Index):
                found = self.named(found)
            self.known[key] = found
        return found

    def named(self, texts: list[str]) -> list[str]:
        """Return names of what texts compute, or short texts themselves."""
        if all(text.isidentifier() or len(text) < _SHORT for text in texts):
            return texts
        found = self.fresh_names(len(texts))
        for line in _assignments(found, texts):
            self.line(line)
        return found

    def fresh(self, expr: Expr) -> list[str]:
        match expr:
            case Const():
                return [names.constant(expr.value, expr.dtype)]
            case Index():
                return [_dim(expr.dim)]
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
        reads = [names.loaded(f"{load.buffer.name}[{place}]", load.dtype) for place in places]
        if load.mask is None:
            return reads
        fill = names.constant(load.fill, load.dtype)
        if load.mask.tile:
            masks = self.spread(load.mask, tile)
            return [f"({read} if {m} else {fill})" for read, m in zip(reads, masks, strict=True)]
        found = self.fresh_names(len(reads))
        self.lines_under(f"if {self.one(load.mask)}:", _assignments(found, reads))
        self.lines_under("else:", _assignments(found, [fill] * len(reads)))
        return found

    def fresh_names(self, count: int) -> list[str]:
        return [f"t{next(self.temporaries)}" for _ in range(count)]

    def places(self, offset: Expr, tile: Tile, strides: Sequence[Dim]) -> list[str]:
        """Return the text of each element's offset."""
        if not strides:
            return self.spread(offset, tile)
        first = self.one(offset)
        if prod(tile) > 1:
            (first,) = self.named([first])
        found = []
        for lane in np.ndindex(*tile):
            fixed = sum(k * s for k, s in zip(lane, strides, strict=True) if isinstance(s, int))
            terms = [first, str(fixed)] if fixed else [first]
            pairs = zip(lane, strides, strict=True)
            terms += [f"{k} * {_dim(s)}" for k, s in pairs if k and not isinstance(s, int)]
            found.append(" + ".join(terms))
        return found

    def applied(self, expr: Apply) -> list[str]:
        args = [self.spread(arg, expr.tile) for arg in expr.args]
        kind = expr.args[-1].dtype
        return [self.operation(expr, kind, each) for each in zip(*args, strict=True)]

    def operation(self, expr: Apply, kind: DType, args: Sequence[str]) -> str:
        if expr.op == "cast":
            return names.cast(args[0], kind, expr.dtype)
        if expr.op == "bitcast":
            return f"bits_as({kind.name}({args[0]}), {expr.dtype.name})"
        last = expr.args[-1]
        by = last.arg if isinstance(last, Splat) else last
        amount = int(by.value) if isinstance(by, Const) and not kind.floating else None
        return names.operation(expr.op, kind, args, amount)

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


def _runs(body: Sequence[Stmt]) -> Iterator[list[Stmt]]:
    """Yield the runs of statements between which values may be kept: all threads go past them."""
    for run in straight_runs(body):
        begin = 0
        for k, stmt in enumerate(run):
            if isinstance(stmt, Barrier | Intrinsic | Fail):
                yield run[begin : k + 1]
                begin = k + 1
        if begin < len(run):
            yield run[begin:]


def _dim(dim: Dim) -> str:
    text = str(dim)
    return text if text.isalnum() else f"({text})"


def _elements(name: str, tile: Tile) -> list[str]:
    return [f"{name}_{k}" for k in range(prod(tile))] if tile else [name]


def _reads(text: str, name: str) -> bool:
    return name in text and re.search(rf"\b{name}\b", text) is not None


def _assignments(targets: Sequence[str], texts: Sequence[str]) -> list[str]:
    return [f"{target} = {text}" for target, text in zip(targets, texts, strict=True)]


def _word(text: str, dtype: DType) -> str:
    return text if dtype is int64 else names.cast(text, dtype, int64)


def _shuffled(text: str, distance: str, dtype: DType) -> str:
    """Return what a thread of the warp holds; Numba exchanges floats and signed words."""
    wide = "int64" if dtype.item_bytes == 8 else "int32"
    carrier = dtype.name if dtype.floating else wide
    found = f"cuda.shfl_xor_sync(0xffffffff, {carrier}({text}), {distance})"
    return found if dtype.name == carrier else names.cast(found, int64, dtype)

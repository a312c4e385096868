"""What statements read and change, and which of their sub-expressions are worth a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from graphc.errors import CompileError
from graphc.ir.dim import symbols
from graphc.ir.expr import Buffer, Expr, children, walk
from graphc.ir.loop import Alloc, Assign, Declare, For, If, Kernel, Let, Prefetch, Stmt, Store
from graphc.ir.statements import expressions, names_in, statements

Key = tuple[Expr, int]
"""An expression and its stamp: equal keys are equal values."""


def used_names(kernel: Kernel) -> set[str]:
    """Return the names of buffers, sizes, loop variables and registers that the body reads."""
    used: set[str] = set()
    seen: set[int] = set()
    for stmt in statements(kernel.body):
        if isinstance(stmt, Store):
            used.add(stmt.buffer.name)
            used |= frozenset().union(*map(symbols, stmt.strides))
        elif isinstance(stmt, Prefetch):
            used.add(stmt.buffer.name)
        for root in expressions(stmt):
            for expr in walk(root, seen):
                used.update(names_in(expr))
    return used


def static_size(buffer: Buffer) -> int:
    """Return the elements of scratch memory.

    Raises
    ------
    CompileError
        If a size is not known when compiling.
    """
    size = 1
    for dim in buffer.shape:
        if not isinstance(dim, int):
            raise CompileError(f"scratch {buffer} has no static shape")
        size *= dim
    return size


def straight_runs(stmts: Sequence[Stmt]) -> Iterator[list[Stmt]]:
    """Cut a body into runs of straight statements; loops and branches stand alone."""
    run: list[Stmt] = []
    for stmt in stmts:
        if isinstance(stmt, For | If | Alloc):
            if run:
                yield run
            yield [stmt]
            run = []
        else:
            run.append(stmt)
    if run:
        yield run


def shared_expressions(
    run: Sequence[Stmt],
) -> tuple[set[Key], list[Callable[[Expr], int]]]:
    """Return what a run of statements uses more than once, and each statement's stamps.

    A stamp is the position of the last statement before that changed something the expression
    reads: a register, or the buffer of a load. Equal expressions of equal stamp are equal values.
    """
    changed: dict[str, int] = {}
    counts: Counter[Key] = Counter()
    dependencies: dict[Expr, frozenset[str]] = {}
    per_stmt = []
    for position, stmt in enumerate(run, 1):
        stamps = _stamper(dict(changed), dependencies)
        per_stmt.append(stamps)
        for root in expressions(stmt):
            _count(root, stamps, counts)
        match stmt:
            case Let() | Declare() | Assign():
                changed[stmt.name] = position
            case Store():
                changed[stmt.buffer.name] = position
    return {key for key, count in counts.items() if count > 1}, per_stmt


def _stamper(
    changed: dict[str, int], dependencies: dict[Expr, frozenset[str]]
) -> Callable[[Expr], int]:
    def reads(expr: Expr) -> frozenset[str]:
        found = dependencies.get(expr)
        if found is None:
            found = frozenset(names_in(expr)).union(*map(reads, children(expr)))
            dependencies[expr] = found
        return found

    return lambda expr: max((changed.get(name, 0) for name in reads(expr)), default=0)


def _count(expr: Expr, stamps: Callable[[Expr], int], counts: Counter[Key]) -> None:
    key = (expr, stamps(expr))
    counts[key] += 1
    if counts[key] == 1:
        for child in children(expr):
            _count(child, stamps, counts)

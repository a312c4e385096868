"""Results too large for the caches are stored past them.

An ordinary store first reads the line that it overwrites, and drives others out of the caches; a
streaming one does neither. Whether results are so large is decided at launch, by the sizes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, linear, product, symbols
from graphc.ir.expr import Expr, Index
from graphc.ir.loop import If, Kernel, Let, Stmt, Store
from graphc.ir.target import Target
from graphc.ir.types import bool_
from graphc.passes.schedule.nest import Nest

_DECIDED = "streams"


def condition(
    kernel: Kernel, places: Sequence[tuple[Nest, str]], lanes: int, target: Target
) -> Expr | None:
    """Return whether results are streamed, to be `decided` ahead of all loops.

    They are where what the kernel reads and writes is larger than half of the last cache.

    Parameters
    ----------
    kernel : Kernel
    places : sequence of (Nest, str)
        Results, and the loop variable of each that steps by vectors.
    lanes : int
        Elements of a vector, each of which must begin at a multiple of it.
    target : Target

    Returns
    -------
    Expr or None
        None where vectors begin anywhere, or where all sizes are known and small.
    """
    touched = sum((product(b.shape) * b.dtype.item_bytes for b in kernel.params), 0)
    most = target.l3_bytes // 2
    if not places or isinstance(touched, int):
        return None
    holds = E.index(touched) > E.index(most)
    for step in (step for item, name in places for step in _steps(item, name)):
        if step is None or (isinstance(step, int) and step % lanes):
            return None
        if not isinstance(step, int):
            holds = holds & E.index(step % lanes).eq(0)
    return holds


def decided(holds: Expr) -> Let:
    """Return the statement that evaluates a condition."""
    return Let(_DECIDED, holds)


def _steps(item: Nest, name: str) -> list[Dim | None]:
    """Return by what a place moves along the other axes, and where it begins; None if unclear."""
    if not isinstance(item.store.offset, Index):
        return [None]
    rest, found = item.store.offset.dim, []
    for axis in item.axes:
        parts = linear(rest, axis.name)
        if parts is None or symbols(parts[0]) & {a.name for a in item.axes}:
            return [None]
        step, rest = parts
        if axis.name != name:
            found.append(step)
        elif step != 1:
            return [None]
    return [*found, rest]


def if_streamed(yes: Sequence[Stmt], no: Sequence[Stmt]) -> If:
    """Return the statements of whole vectors as it was decided."""
    return If(E.Use(_DECIDED, bool_), tuple(yes), tuple(no))


def streamed(stores: Sequence[Store]) -> If:
    """Return stores of registers, past the caches where that was decided."""
    return if_streamed([replace(store, streaming=True) for store in stores], stores)

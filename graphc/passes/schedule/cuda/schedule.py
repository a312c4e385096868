"""The schedule of the CUDA target: which of the others fits a kernel."""

from __future__ import annotations

from dataclasses import replace

from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.loop import Grid, Kernel, Let, Series, alone, python_of
from graphc.ir.statements import expressions, names_in, statements
from graphc.ir.target import Target
from graphc.passes.schedule.contraction_match import match
from graphc.passes.schedule.cuda import chunks, elements
from graphc.passes.schedule.cuda import nests as explicit
from graphc.passes.schedule.loops import Body, hoisted
from graphc.passes.schedule.nest import Nest, collapse, collapse_reductions, nests, reductions
from graphc.passes.schedule.series import taking
from graphc.passes.schedule.windows import write_out_windows


def schedule(kernel: Kernel, target: Target) -> Series:
    """Bind a plain kernel's loops to blocks and threads.

    Parameters
    ----------
    kernel : Kernel
        As `graphc.passes.lower.lower` returns it.
    target : Target

    Returns
    -------
    Series
        The parallel axis of each kernel are the blocks of a grid.

    Raises
    ------
    CompileError
        For a kernel in Python, which runs on the CPU only.
    """
    python = python_of(kernel)
    if python is not None:
        raise CompileError(
            f"graphc.kernel {python.function} cannot run on a GPU: its Python is compiled for the "
            "CPU",
            remedy="Copy its arguments to graphc.cpu(), or write the function from operations.",
        )
    if kernel.ordered:
        return alone(explicit.schedule(kernel, target), kernel)
    present = [n for n in nests(kernel) if all(a.extent != 0 for a in n.axes)]
    if not present:
        return alone(replace(kernel, body=(), extent=0), kernel)
    items = collapse(collapse_reductions(write_out_windows(present)))
    ahead, items = hoisted(items)
    found = _bound(kernel, items, target)
    return replace(found, grids=tuple(_named(g, ahead, kernel) for g in found.grids))


def _bound(kernel: Kernel, items: tuple[Nest, ...], target: Target) -> Series:
    """Choose the schedule that fits what is stored."""
    if not reductions(items):
        return alone(elements.schedule(kernel, items, target), kernel)
    matched = match(items)
    if matched is not None:
        return chunks.of_product(kernel, items, matched, target)
    return chunks.of_sums(kernel, items, target)


def _named(grid: Grid, ahead: Body, kernel: Kernel) -> Grid:
    """Put what is named ahead of all loops in front of a grid that uses it.

    Grids other than that of the whole ``kernel`` take what they read and write.
    """
    used = {name for stmt in statements(grid.kernel.body) for root in expressions(stmt)
            for expr in E.walk(root) for name in names_in(expr)}  # fmt: skip
    own = tuple(let for let in ahead if isinstance(let, Let) and let.name in used)
    named = replace(grid.kernel, body=(*own, *grid.kernel.body))
    return replace(grid, kernel=named if grid.plain is kernel else taking(named))

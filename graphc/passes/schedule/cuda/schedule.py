"""The schedule of the CUDA target: which of the others fits a kernel."""

from __future__ import annotations

from dataclasses import replace

from graphc.errors import CompileError
from graphc.ir.loop import Kernel, python_of
from graphc.ir.target import Target
from graphc.passes.schedule.contraction_match import match
from graphc.passes.schedule.cuda import elements, products, sums
from graphc.passes.schedule.cuda import nests as explicit
from graphc.passes.schedule.loops import hoisted
from graphc.passes.schedule.nest import Nest, collapse, collapse_reductions, nests, reductions
from graphc.passes.schedule.windows import write_out_windows


def schedule(kernel: Kernel, target: Target) -> Kernel:
    """Bind a plain kernel's loops to blocks and threads.

    Parameters
    ----------
    kernel : Kernel
        As `graphc.passes.lower.lower` returns it.
    target : Target

    Returns
    -------
    Kernel
        Its parallel axis are the blocks of a grid.

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
        return explicit.schedule(kernel)
    present = [n for n in nests(kernel) if all(a.extent != 0 for a in n.axes)]
    if not present:
        return replace(kernel, body=(), extent=0)
    items = collapse(collapse_reductions(write_out_windows(present)))
    ahead, items = hoisted(items)
    found = _bound(kernel, items, target)
    return replace(found, body=(*ahead, *found.body))


def _bound(kernel: Kernel, items: tuple[Nest, ...], target: Target) -> Kernel:
    """Choose the schedule that fits what is stored."""
    if not reductions(items):
        return elements.schedule(kernel, items, target)
    matched = match(items)
    if matched is not None:
        return products.schedule(kernel, items, matched, target)
    return sums.schedule(kernel, items, target)

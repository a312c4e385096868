"""Gradients of strided convolutions: an output's positions by their remainder, one after the other.

Position ``i`` of the data lies in window ``w`` at tap ``r`` where ``i + pad == w * stride + r``. Of
all pairs ``(w, r)`` only every ``stride``-th fits, and a sum over every tap would multiply by zeros
elsewhere. Positions of one remainder, a *phase*, share the taps that fit: on these ``i`` and ``r``
walk in steps of the stride, the test for divisibility is settled, and what is left is the product
of an ordinary convolution. Phases are a loop around it, so its code is there once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir import expr as E
from graphc.ir.dim import (
    Dim,
    FloorDiv,
    dim_max,
    dim_min,
    product,
    simplify,
    substitute,
    symbol,
    symbols,
    terms,
)
from graphc.ir.expr import Apply, Axis, Expr, Index, Reduce
from graphc.ir.loop import BEGIN, END, Alloc, For, Kernel, Let
from graphc.ir.types import bool_
from graphc.passes.schedule.loops import Body
from graphc.passes.schedule.nest import Nest, all_expressions, reductions

SHARES = 64
"""Iterations of the parallel axis; each is a share of the blocks of every phase."""


@dataclass(frozen=True, slots=True)
class Phase:
    """An output axis whose positions meet only every ``stride``-th tap.

    ``tap`` is the axis of the sum over taps, None for windows of one element.
    """

    axis: Axis
    tap: Axis | None
    stride: int
    pad: int

    @property
    def number(self) -> Dim:
        """The phase at hand: the remainder of ``axis + pad``, and of every tap that meets it."""
        return symbol(f"{self.axis.name}_phase")

    @property
    def first(self) -> Dim:
        """Quotient of the first position of the phase."""
        return (self.pad - self.number + self.stride - 1) // self.stride

    @property
    def positions(self) -> Dim:
        """Number of positions of the phase."""
        last = (self.axis.extent - 1 + self.pad - self.number) // self.stride
        return last + 1 - self.first

    @property
    def taps(self) -> Dim:
        """Number of taps of the phase."""
        return (self.window - self.number + self.stride - 1) // self.stride

    @property
    def window(self) -> Dim:
        """Number of taps of all phases."""
        return 1 if self.tap is None else self.tap.extent

    @property
    def always_met(self) -> bool:
        """Whether every phase is known to have taps."""
        return isinstance(self.window, int) and self.window >= self.stride

    def steps(self) -> dict[str, Dim]:
        """Return what takes the place of the two loop variables."""
        quotient = symbol(self.axis.name) + self.first
        found = {self.axis.name: quotient * self.stride + self.number - self.pad}
        if self.tap is not None:
            found[self.tap.name] = symbol(self.tap.name) * self.stride + self.number
        return found


def find(items: Sequence[Nest]) -> tuple[Phase, ...]:
    """Return the phased axes of the one reduction in ``items``; none if there is anything else."""
    found = reductions(items)
    if len(found) != 1:
        return ()
    outer = {axis.name: axis for item in items for axis in item.axes}
    taps = {axis.name: axis for axis in found[0].axes}
    tests = {e: _phase(*t, outer, taps) for e in all_expressions(items) if (t := _divisible(e))}
    phases = tuple(p for p in tests.values() if p is not None)
    return phases if len(phases) == len(tests) else ()


def _divisible(test: Expr) -> tuple[Dim, int] | None:
    """Return ``x`` and ``n`` where an expression asks ``x // n * n == x``."""
    if not (isinstance(test, Apply) and test.op == "eq"):
        return None
    a, b = test.args
    if not (isinstance(a, Index) and isinstance(b, Index)):
        return None
    for coefficient, monomial in terms(a.dim - b.dim):
        for atom, _ in monomial:
            if not (isinstance(atom, FloorDiv) and isinstance(atom.b, int)):
                continue
            if coefficient == atom.b and a.dim - b.dim == coefficient * (atom.a // atom.b) - atom.a:
                return atom.a, atom.b
    return None


def _phase(
    divided: Dim, stride: int, outer: dict[str, Axis], taps: dict[str, Axis]
) -> Phase | None:
    """Return the phase that divisibility of ``axis + pad - tap`` makes, if it has that form."""
    names = symbols(divided)
    axes, found = names & outer.keys(), names & taps.keys()
    if len(axes) != 1 or len(found) > 1:
        return None
    (axis,), tap = axes, next(iter(found), None)
    pad = divided - symbol(axis) + (0 if tap is None else symbol(tap))
    if not isinstance(pad, int):
        return None
    return Phase(outer[axis], None if tap is None else taps[tap], stride, pad)


def split(items: Sequence[Nest], phases: Sequence[Phase]) -> tuple[Nest, ...]:
    """Return the nests over the positions and taps of one phase of each axis."""
    steps = {name: dim for phase in phases for name, dim in phase.steps().items()}
    counts = {phase.axis.name: phase.positions for phase in phases}
    limits = {f"{phase.axis.name}_phase": phase.stride for phase in phases}
    memo: dict[Expr, Expr] = {}

    def visit(node: Expr) -> Expr | None:
        if _divisible(node):
            return E.const(True, bool_)
        if isinstance(node, Index):
            return E.index(simplify(substitute(node.dim, steps), limits))
        if isinstance(node, Reduce):
            return E.reduce(node.combine, _axes(node, phases), E.rebuild(node.body, visit, memo))
        return None

    def rewritten(item: Nest) -> Nest:
        axes = tuple(replace(a, extent=counts.get(a.name, a.extent)) for a in item.axes)
        value, offset = (E.rebuild(e, visit, memo) for e in (item.store.value, item.store.offset))
        return Nest(axes, replace(item.store, value=value, offset=offset))

    return tuple(map(rewritten, items))


def _axes(reduce: Reduce, phases: Sequence[Phase]) -> tuple[Axis, ...]:
    """Return a sum's axes over the taps of one phase, channels innermost: taps are too few there.

    A phase that meets no tap has an empty sum: its outermost axis is empty, the others are not, as
    positions of the flat axis are divided by their extents.
    """
    counts = {p.tap.name: dim_max(p.taps, 1) for p in phases if p.tap is not None}
    taps = [replace(a, extent=counts[a.name]) for a in reduce.axes if a.name in counts]
    first, *rest = (*taps, *(a for a in reduce.axes if a.name not in counts))
    met = product(dim_min(p.taps, 1) for p in phases if not p.always_met)
    return (replace(first, extent=first.extent * met), *rest)


def in_turn(kernel: Kernel, phases: Sequence[Phase], blocks: Kernel) -> Kernel:
    """Return the kernel that runs ``blocks``, scheduled for one phase of each axis, for all."""
    *before, loop = blocks.body
    assert isinstance(loop, For)
    scratch = tuple(s for s in before if isinstance(s, Alloc))
    rest = tuple(s for s in before if not isinstance(s, Alloc))
    bounds = [Let(name, E.index(symbol("phase_blocks") * symbol(end) // SHARES))
              for name, end in (("first_block", BEGIN), ("last_block", END))]  # fmt: skip
    start, stop = (E.index(symbol(let.name)) for let in bounds)
    body: Body = (
        *rest,
        Let("phase_blocks", E.index(blocks.extent)),
        *bounds,
        replace(loop, start=start, stop=stop),
    )
    for phase in reversed(phases):
        name = f"{phase.axis.name}_phase"
        body = (For(name, E.index(0), E.index(phase.stride), body),)
    first = {f"{phase.axis.name}_phase": 0 for phase in phases}
    total = substitute(blocks.extent * blocks.work, first) * product(p.stride for p in phases)
    return replace(kernel, body=(*scratch, *body), extent=SHARES, work=total // SHARES + 1)

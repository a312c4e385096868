"""What a schedule decides before it writes loops: the vector axis, the lanes, which reductions
share a loop, and how long an iteration of the parallel axis will take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from graphc.ir import expr as E
from graphc.ir.dim import Dim, dim_min, product, symbol
from graphc.ir.expr import Apply, Axis, Expr, Load, Reduce
from graphc.ir.target import Target
from graphc.passes.schedule import columns
from graphc.passes.schedule.lane_groups import runs_along
from graphc.passes.schedule.loops import operations
from graphc.passes.schedule.nest import Nest, free_names, reductions, substituted

BLOCK = 2048
"""Elements of the vector axis that one iteration of the parallel axis covers."""
LIGHT = 16
"""Reductions of terms of at most this many operations keep four vectors of partial results."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided: kept axes, the vector axis among them (or None), the lanes.

    A step of the vector loop has ``lanes``; what is left at its end is done ``one`` vector at once.
    """

    items: tuple[Nest, ...]
    kept: tuple[Axis, ...]
    vector: Axis | None
    lanes: int
    one: int
    groups: tuple[tuple[Reduce, ...], ...]
    cores: int

    @property
    def outer(self) -> tuple[Axis, ...]:
        """Kept axes that run in parallel as they are."""
        return tuple(a for a in self.kept if a != self.vector)

    @property
    def block(self) -> Dim:
        """Elements of the vector axis in one iteration of the parallel axis."""
        if not self.groups:
            return BLOCK
        if self.vector is None or not columns.fit(self.groups):
            return self.lanes
        return columns.width(self.vector, self.outer, self.cores)


def plan_of(items: tuple[Nest, ...], target: Target) -> Plan:
    """Decide how the loops of collapsed nests run."""
    axes = {a.name: a for n in items for a in n.axes}
    ordered = sorted(axes.values(), key=lambda a: int(a.name[1:]))
    found = reductions(items)
    names = frozenset().union(*(free_names(r) for r in found)) if found else frozenset(axes)
    kept = tuple(a for a in ordered if a.name in names)
    lanes = one = target.vector_bytes // 4
    vector = kept[-1] if kept and not _follow_reduction(found, kept[-1], lanes) else None
    if found and max(operations([r.body]) for r in found) <= LIGHT:
        lanes *= 4
    return Plan(items, kept, vector, lanes, one, grouped(found), target.cores)


def _follow_reduction(found: Sequence[Reduce], last: Axis, lanes: int) -> bool:
    """Return whether the reads run along the reduction axes rather than the output's last."""
    along_reduction = along_output = 0
    for reduce in found:
        for node in E.walk(reduce.body):
            if isinstance(node, Load):
                along_reduction += runs_along(node, reduce.axes[-1].name, lanes)
                along_output += runs_along(node, last.name, lanes)
    return along_reduction > along_output


def grouped(found: Sequence[Reduce]) -> tuple[tuple[Reduce, ...], ...]:
    """Put reductions over equal extents that do not read each other into one loop."""
    groups: list[list[Reduce]] = []
    for reduce in found:
        extents = [a.extent for a in reduce.axes]
        inside = {id(e) for e in E.walk(reduce.body)}
        last = groups[-1] if groups else []
        if (
            last
            and [a.extent for a in last[0].axes] == extents
            and not any(id(r) in inside for r in last)
        ):
            last.append(reduce)
        else:
            groups.append([reduce])
    return tuple(map(tuple, groups))


def body_over(reduce: Reduce, axes: Sequence[Axis]) -> Expr:
    """Return the body of a reduction over the loop variables of another."""
    renamed: dict[str, Dim] = {
        a.name: symbol(b.name) for a, b in zip(reduce.axes, axes, strict=True) if a != b
    }
    return substituted(reduce.body, renamed, {}) if renamed else reduce.body


def accumulate(
    combine: str, holder: Expr, term: Expr, convert: Callable[[Expr], Expr]
) -> Expr:
    """Return the accumulator's next value; a sum of products is a fused multiply-add."""
    if (
        combine == "add"
        and isinstance(term, Apply)
        and term.op == "mul"
        and term.dtype.floating
    ):
        return E.apply("fma", convert(term.args[0]), convert(term.args[1]), holder)
    return E.apply(combine, holder, convert(term))


def element_cost(plan: Plan) -> int:
    """Return how many operations the stores of a plan apply to one element."""
    return operations(item.store.value for item in plan.items)


def work(plan: Plan) -> Dim:
    """Return the estimated nanoseconds of one iteration of the parallel axis."""
    if plan.vector is None:
        return 16 + sum((_loop_ns(plan, axes, values) for axes, values in _loops(plan)), 0)
    total: Dim = 16
    per_element = 2 + element_cost(plan)
    for item in plan.items:
        inner = product(a.extent for a in item.axes if a not in plan.kept)
        total = total + inner * per_element // 16
    for group in plan.groups:
        total = total + product(a.extent for a in group[0].axes) * per_element // 16
    return total * dim_min(plan.vector.extent, plan.block) // (1 if plan.groups else 16)


def _loops(plan: Plan) -> Iterator[tuple[Sequence[Axis], list[Expr]]]:
    """Yield the axes of each loop inside a row, and what it computes."""
    for group in plan.groups:
        yield group[0].axes, [reduce.body for reduce in group]
    for item in plan.items:
        yield [a for a in item.axes if a not in plan.kept], [item.store.value]


def _loop_ns(plan: Plan, axes: Sequence[Axis], values: Sequence[Expr]) -> Dim:
    """Return the time of a loop: four operations a nanosecond, and eight to read and write."""
    known = {id(reduce) for group in plan.groups for reduce in group}
    elements = product(a.extent for a in axes)
    return elements * (8 + operations(values, known)) // (4 * plan.one)

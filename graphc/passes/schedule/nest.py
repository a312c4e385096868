"""Reading plain nests: axes, stores, reductions; merging axes that are one in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, linear, substitute, symbols
from graphc.ir.expr import Apply, Axis, Expr, Index, Load, Reduce
from graphc.ir.loop import For, Kernel, Stmt, Store


@dataclass(frozen=True, slots=True)
class Nest:
    """One output: the loops around its store, outermost first."""

    axes: tuple[Axis, ...]
    store: Store


def parse(statement: Stmt) -> Nest:
    """Read a chain of loops that ends in one store."""
    axes: list[Axis] = []
    while isinstance(statement, For):
        assert isinstance(statement.stop, Index)
        axes.append(Axis(statement.name, statement.stop.dim))
        (statement,) = statement.body
    assert isinstance(statement, Store)
    return Nest(tuple(axes), statement)


def nests(kernel: Kernel) -> tuple[Nest, ...]:
    """Return the nests of a plain kernel."""
    return tuple(parse(statement) for statement in kernel.body)


def expressions(store: Store) -> tuple[Expr, ...]:
    """Return the expressions of a store."""
    return (store.value, store.offset) if store.mask is None else (
        store.value, store.offset, store.mask,
    )  # fmt: skip


def all_expressions(items: Iterable[Nest]) -> Iterator[Expr]:
    """Yield every distinct sub-expression of the nests, operands first."""
    seen: set[int] = set()
    for item in items:
        for expr in expressions(item.store):
            yield from E.walk(expr, seen)


def free_names(expr: Expr) -> frozenset[str]:
    """Return loop variables and sizes an expression depends on, its own reduction axes apart."""
    return _free(expr, {})


def _free(expr: Expr, memo: dict[int, frozenset[str]]) -> frozenset[str]:
    found = memo.get(id(expr))
    if found is None:
        found = frozenset().union(*(_free(c, memo) for c in E.children(expr)))
        if isinstance(expr, Index):
            found |= symbols(expr.dim)
        elif isinstance(expr, E.Use):
            found |= {expr.name}
        elif isinstance(expr, Reduce):
            found |= frozenset().union(*(symbols(a.extent) for a in expr.axes))
            found -= {axis.name for axis in expr.axes}
        memo[id(expr)] = found
    return found


def substituted(expr: Expr, mapping: dict[str, Dim], memo: dict[Expr, Expr]) -> Expr:
    """Return the expression with loop variables replaced in its index arithmetic."""

    def visit(node: Expr) -> Expr | None:
        if isinstance(node, Index):
            return E.index(substitute(node.dim, mapping))
        return None

    return E.rebuild(expr, visit, memo)


def reductions(items: Iterable[Nest]) -> list[Reduce]:
    """Return every reduction, those that others read first."""
    return [e for e in all_expressions(items) if isinstance(e, Reduce)]


# -- merging axes ----------------------------------------------------------------------------


def collapse(items: Sequence[Nest]) -> tuple[Nest, ...]:
    """Merge neighbouring axes that every access walks as one: ``(h, w)`` becomes ``z``."""
    merged = tuple(items)
    position = 0
    while True:
        axes = max((n.axes for n in merged), key=len, default=())
        if position + 1 >= len(axes):
            return merged
        outer, inner = axes[position], axes[position + 1]
        indices = [e for e in all_expressions(merged) if isinstance(e, Index)]
        names = {outer.name, inner.name}
        together = all(
            len(names & {a.name for a in n.axes}) in (0, 2) for n in merged
        )
        if together and contiguous(indices, outer, inner):
            merged = tuple(_merge_nest(n, outer, inner) for n in merged)
        else:
            position += 1


def contiguous(indices: Iterable[Index], outer: Axis, inner: Axis) -> bool:
    """Return whether all index arithmetic steps ``inner.extent`` inner steps per outer step."""
    for item in indices:
        names = symbols(item.dim)
        if outer.name not in names and inner.name not in names:
            continue
        by_outer, by_inner = linear(item.dim, outer.name), linear(item.dim, inner.name)
        if by_outer is None or by_inner is None:
            return False
        if by_outer[0] != by_inner[0] * inner.extent:
            return False
    return True


def _merge_nest(item: Nest, outer: Axis, inner: Axis) -> Nest:
    if outer not in item.axes:
        return item
    both = Axis(inner.name, outer.extent * inner.extent)
    axes = tuple(both if a == inner else a for a in item.axes if a != outer)
    return Nest(axes, moved(item.store, {outer.name: 0}, {}))


def moved(store: Store, place: dict[str, Dim], memo: dict[Expr, Expr]) -> Store:
    """Return a store at other values of its loop variables; stores that share have one memo."""
    value, offset = (substituted(e, place, memo) for e in (store.value, store.offset))
    mask = None if store.mask is None else substituted(store.mask, place, memo)
    return replace(store, value=value, offset=offset, mask=mask)


def over_sums(items: Sequence[Nest], reduce: Reduce, holder: Expr) -> list[Store]:
    """Return the stores of ``items`` with ``holder`` in place of a reduction."""
    memo: dict[Expr, Expr] = {reduce: holder}
    values = [E.rebuild(item.store.value, lambda e: None, memo) for item in items]
    return [replace(item.store, value=v) for item, v in zip(items, values, strict=True)]


def collapse_reductions(items: Sequence[Nest]) -> tuple[Nest, ...]:
    """Merge neighbouring axes of each reduction where its body walks them as one."""
    memo: dict[Expr, Expr] = {}

    def visit(node: Expr) -> Expr | None:
        if not isinstance(node, Reduce):
            return None
        body = E.rebuild(node.body, visit, memo)
        axes, body = _collapse_axes(list(node.axes), body)
        return E.reduce(node.combine, axes, body)

    return tuple(
        replace(n, store=replace(n.store, value=E.rebuild(n.store.value, visit, memo)))
        for n in items
    )


def _collapse_axes(axes: list[Axis], body: Expr) -> tuple[tuple[Axis, ...], Expr]:
    position = 0
    while position + 1 < len(axes):
        outer, inner = axes[position], axes[position + 1]
        indices = [e for e in E.walk(body) if isinstance(e, Index)]
        if contiguous(indices, outer, inner):
            body = substituted(body, {outer.name: 0}, {})
            axes[position : position + 2] = [Axis(inner.name, outer.extent * inner.extent)]
        else:
            position += 1
    return tuple(axes), body


def stride(load: Load | Store, name: str) -> Dim | None:
    """Return the element step of an access along a loop variable; None where it is not linear."""
    return step(load.offset, name)


def step(offset: Expr, name: str) -> Dim | None:
    """Return the step of index arithmetic along a loop variable; None where it is not linear.

    Places that are read from memory, such as the rows of an embedding, may be part of it.
    """
    if isinstance(offset, Index):
        found = linear(offset.dim, name)
        return None if found is None else found[0]
    if name not in free_names(offset):
        return 0
    if isinstance(offset, Apply) and offset.op == "add":
        a, b = (step(part, name) for part in offset.args)
        return None if a is None or b is None else a + b
    return None

"""Turning a scalar expression over a loop variable into one over a vector of its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphc.ir import expr as E
from graphc.ir.dim import (
    Dim,
    FloorDiv,
    Maximum,
    Minimum,
    Modulo,
    Var,
    linear,
    symbol,
    symbols,
    terms,
)
from graphc.ir.expr import Expr, Index, Load
from graphc.ir.loop import Store


def vectorize(
    expr: Expr, name: str, lanes: int, mask: Expr | None, known: Mapping[Expr, Expr]
) -> Expr:
    """Return ``expr`` for ``name``, ``name + 1``, ..., ``name + lanes - 1`` at once.

    Parameters
    ----------
    expr : Expr
        A scalar expression.
    name : str
        The loop variable, which now steps by ``lanes``.
    lanes : int
    mask : Expr or None
        Lanes that exist; reads of the others are suppressed.
    known : mapping
        Replacements for sub-expressions that are already in registers.
    """
    memo: dict[Expr, Expr] = dict(known)

    def visit(node: Expr) -> Expr | None:
        if isinstance(node, Index):
            return vector_index(node.dim, name, lanes)
        if isinstance(node, Load):
            return _vector_load(node, name, lanes, mask, lambda e: E.rebuild(e, visit, memo))
        return None

    return E.rebuild(expr, visit, memo)


def _vector_load(
    node: Load, name: str, lanes: int, mask: Expr | None, convert: Callable[[Expr], Expr]
) -> Expr:
    own = None if node.mask is None else convert(node.mask)
    step = _step(node.offset, name)
    if step == 0 and (own is None or not own.tile):
        return E.load(node.buffer, node.offset, mask=own, fill=node.fill)
    if own is not None and not own.tile:
        own = E.splat(own, (lanes,))
    both = mask if own is None else own if mask is None else own & mask
    if step is not None:
        return E.load(node.buffer, node.offset, (lanes,), (step,), both, node.fill)
    return E.load(node.buffer, convert(node.offset), mask=both, fill=node.fill)


def vector_store(
    store: Store, name: str, lanes: int, mask: Expr | None, known: Mapping[Expr, Expr]
) -> Store:
    """Return the store of ``lanes`` neighbouring values of ``name``."""
    value = vectorize(store.value, name, lanes, mask, known)
    value = value if value.tile else E.splat(value, (lanes,))
    step = _step(store.offset, name)
    if step is None:
        offset = vectorize(store.offset, name, lanes, mask, known)
        return Store(store.buffer, offset, value, (), mask, store.streaming)
    return Store(store.buffer, store.offset, value, (step,), mask, store.streaming)


def _step(offset: Expr, name: str) -> Dim | None:
    """Return the constant step of an offset along ``name``, or None."""
    if isinstance(offset, Index):
        found = linear(offset.dim, name)
        return None if found is None else found[0]
    uses = any(isinstance(e, Index) and name in symbols(e.dim) for e in E.walk(offset))
    return None if uses else 0


def vector_index(dim: Dim, name: str, lanes: int) -> Expr:
    """Return index arithmetic over a vector of values of ``name``."""
    if name not in symbols(dim):
        return E.index(dim)
    found = linear(dim, name)
    if found is not None:
        return E.index(dim) + E.iota(lanes) * E.index(found[0])
    return _atomwise(dim, name, lanes)


def _atomwise(dim: Dim, name: str, lanes: int) -> Expr:
    total: Expr = E.index(0)
    for coefficient, monomial in terms(dim):
        product: Expr = E.index(coefficient)
        for atom, power in monomial:
            for _ in range(power):
                product = product * _vector_atom(atom, name, lanes)
        total = total + product
    return total


def _vector_atom(atom: object, name: str, lanes: int) -> Expr:
    def convert(dim: Dim) -> Expr:
        return vector_index(dim, name, lanes)

    match atom:
        case Var():
            return convert(symbol(atom.name))
        case FloorDiv(a, b):
            return E.apply("floordiv", convert(a), convert(b))
        case Modulo(a, b):
            return E.apply("mod", convert(a), convert(b))
        case Minimum(a, b):
            return E.apply("min", convert(a), convert(b))
        case Maximum(a, b):
            return E.apply("max", convert(a), convert(b))
    raise TypeError(f"unknown size atom {atom!r}")

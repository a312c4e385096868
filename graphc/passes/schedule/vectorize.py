"""Turning a scalar expression over a loop variable into one over a vector of its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from graphc.ir import expr as E
from graphc.ir.dim import (
    Dim,
    FloorDiv,
    Maximum,
    Minimum,
    Modulo,
    Var,
    ceil_div,
    linear,
    substitute,
    symbol,
    symbols,
    terms,
)
from graphc.ir.expr import Apply, Expr, Index, Load
from graphc.ir.loop import Store
from graphc.ir.types import int32
from graphc.passes.schedule.lane_groups import LANE, index_by_groups, load_by_groups
from graphc.passes.schedule.nest import step


def vectorize(
    expr: Expr,
    name: str,
    lanes: int,
    mask: Expr | None,
    known: Mapping[Expr, Expr],
    aligned: bool = False,
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
    aligned : bool
        Whether the vector begins at a multiple of ``lanes``.
    """
    memo: dict[Expr, Expr] = dict(known)

    def visit(node: Expr) -> Expr | None:
        if isinstance(node, Index):
            return vector_index(node.dim, name, lanes, aligned=aligned)
        if isinstance(node, Load):
            return _vector_load(node, name, lanes, mask, convert, aligned)
        if isinstance(node, Apply):
            return _lane_mask(node, name, lanes) or _narrow_lanes(node, name, lanes)
        return None

    convert = partial(E.rebuild, visit=visit, memo=memo)
    return E.rebuild(expr, visit, memo)


def _vector_load(
    node: Load,
    name: str,
    lanes: int,
    mask: Expr | None,
    convert: Callable[[Expr], Expr],
    aligned: bool,
) -> Expr:
    own = None if node.mask is None else convert(node.mask)
    along = step(node.offset, name)
    if along == 0 and (own is None or not own.tile):
        return E.load(node.buffer, node.offset, mask=own, fill=node.fill)
    if own is not None and not own.tile:
        own = E.splat(own, (lanes,))
    both = mask if own is None else own if mask is None else own & mask
    if along is not None:
        return E.load(node.buffer, node.offset, (lanes,), (along,), both, node.fill)
    grouped = load_by_groups(node, name, lanes, mask, _vectorized) if aligned else None
    return grouped or E.load(node.buffer, convert(node.offset), mask=both, fill=node.fill)


def _vectorized(expr: Expr, name: str, lanes: int) -> Expr:
    return vectorize(expr, name, lanes, None, {})


def vector_store(
    store: Store,
    name: str,
    lanes: int,
    mask: Expr | None,
    known: Mapping[Expr, Expr],
    aligned: bool = False,
) -> Store:
    """Return the store of ``lanes`` neighbouring values of ``name``; see `vectorize`."""
    value = vectorize(store.value, name, lanes, mask, known, aligned)
    value = value if value.tile else E.splat(value, (lanes,))
    if store.mask is not None:
        own = vectorize(store.mask, name, lanes, mask, known, aligned)
        own = own if own.tile else E.splat(own, (lanes,))
        mask = own if mask is None else own & mask
    along = step(store.offset, name)
    if along is None:
        offset = vectorize(store.offset, name, lanes, mask, known, aligned)
        return Store(store.buffer, offset, value, (), mask, store.streaming)
    return Store(store.buffer, store.offset, value, (along,), mask, store.streaming)


def _lane_mask(node: Apply, name: str, lanes: int) -> Expr | None:
    """Return a comparison of index arithmetic as one of lane numbers with a limit, or None.

    Engines make such masks from narrow integers.
    """
    a, *rest = node.args
    b = rest[0] if rest else a
    if node.op not in _LESS or not (isinstance(a, Index) and isinstance(b, Index)):
        return None
    swapped, negated = _LESS[node.op]
    found = linear(_undivided(b.dim - a.dim if swapped else a.dim - b.dim, name), name)
    if found is None or not isinstance(found[0], int) or found[0] == 0:
        return None
    step, start = found[0], found[1] + found[0] * symbol(name)
    # lane * step + start < 0
    if step > 0:
        less = E.iota(lanes) < E.index(ceil_div(-start, step))
    else:
        less, negated = E.iota(lanes) < E.index(start // -step + 1), not negated
    return ~less if negated else less


def _narrow_lanes(node: Apply, name: str, lanes: int) -> Expr | None:
    """Return index arithmetic cast to int32 as arithmetic of int32, or None.

    Both wrap around alike, and vectors of int64 would be twice as many.
    """
    (a, *_) = node.args
    if node.op != "cast" or node.dtype is not int32 or not isinstance(a, Index):
        return None
    found = linear(a.dim, name)
    if found is None or not isinstance(found[0], int) or found[0] == 0:
        return None
    steps = E.cast(E.iota(lanes), int32)
    steps = steps if found[0] == 1 else steps * E.cast(E.index(found[0]), int32)
    return E.cast(a, int32) + steps


_LESS = {"lt": (False, False), "ge": (False, True), "gt": (True, False), "le": (True, True)}
"""Comparison -> whether ``<`` takes its operands swapped, and whether it is negated."""


def _undivided(dim: Dim, name: str) -> Dim:
    """Return a size that is negative where ``dim`` is, without its one division of ``name``."""
    if linear(dim, name) is not None:
        return dim
    for coefficient, monomial in terms(dim):
        ((atom, power),) = monomial[:1] or ((None, 0),)
        if len(monomial) != 1 or power != 1 or abs(coefficient) != 1:
            continue
        if isinstance(atom, FloorDiv) and name in symbols(atom.a):
            rest = dim - coefficient * (atom.a // atom.b)
            if coefficient == 1:  # a // b + rest < 0: a < -b * rest
                return atom.a + atom.b * rest
            return atom.b * (rest + 1) - atom.a - 1  # rest < a // b: b * (rest + 1) <= a
    return dim


def vector_index(
    dim: Dim, name: str, lanes: int, first: Dim | None = None, aligned: bool = False
) -> Expr:
    """Return index arithmetic over a vector of values of ``name``, the first one ``first``."""
    if name not in symbols(dim):
        return E.index(dim)
    found = linear(dim, name)
    if found is not None:
        start = dim if first is None else substitute(dim, {name: first})
        steps = E.iota(lanes) if found[0] == 1 else E.iota(lanes) * E.index(found[0])
        return steps if start == 0 else E.index(start) + steps
    split = index_by_groups(dim, name, lanes) if aligned else None
    if split is None:
        return _atomwise(dim, lambda part: vector_index(part, name, lanes, first))
    own = vector_index(split[1], LANE, lanes, 0)
    return own if split[0] == 0 else E.index(split[0]) + own


def _atomwise(dim: Dim, convert: Callable[[Dim], Expr]) -> Expr:
    total: Expr | None = None
    for coefficient, monomial in terms(dim):
        factors = [_vector_atom(atom, convert) for atom, power in monomial for _ in range(power)]
        if coefficient != 1 or not factors:
            factors.append(E.index(coefficient))
        term = factors[0]
        for factor in factors[1:]:
            term = term * factor
        total = term if total is None else total + term
    assert total is not None
    return total


def _vector_atom(atom: object, convert: Callable[[Dim], Expr]) -> Expr:
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

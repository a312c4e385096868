"""Divisions of a vector's loop variable: ``i // 2`` changes from every second lane to the next.

What is read at ``i // c`` is the same for ``c`` neighbouring lanes, so a vector of it is a short
contiguous read and a shuffle rather than a gather, and a remainder is a constant vector. All this
holds where the vector's first index is a multiple of its lanes, and these a multiple of ``c``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from graphc.ir import expr as E
from graphc.ir.dim import (
    Dim,
    FloorDiv,
    Modulo,
    ceil_div,
    linear,
    simplify,
    substitute,
    symbol,
    symbols,
    terms,
)
from graphc.ir.expr import Apply, Expr, Index, Iota, Load
from graphc.passes.schedule.nest import stride, substituted

GROUP, WITHIN, LANE = "group", "within", "lane"
"""Names in rewritten index arithmetic: number of a group, place in it, number of a lane."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Lane ``k`` belongs to group ``(k + first) // count``."""

    count: int
    first: int

    def number(self, lanes: int) -> int:
        """Return how many groups ``lanes`` lanes touch."""
        return (lanes - 1 + self.first) // self.count + 1


def find_groups(dims: Iterator[Dim], name: str, lanes: int) -> Groups | None:
    """Return the groups that every division of ``name`` in index arithmetic makes, or None."""
    found = {_of_division(a, name) for dim in dims for a in _divisions(dim, name)}
    if len(found) != 1:
        return None
    (groups,) = found
    return groups if groups and lanes % groups.count == 0 and groups.count < lanes else None


def runs_along(node: Load, name: str, lanes: int) -> bool:
    """Return whether neighbouring values of ``name`` read neighbouring or equal elements."""
    return stride(node, name) == 1 or find_groups(_dims(node), name, lanes) is not None


def _divisions(dim: Dim, name: str) -> Iterator[FloorDiv | Modulo]:
    for _, monomial in terms(dim):
        for atom, _ in monomial:
            if isinstance(atom, (FloorDiv, Modulo)) and name in symbols(atom.a) | symbols(atom.b):
                yield atom


def _of_division(atom: FloorDiv | Modulo, name: str) -> Groups | None:
    found = linear(atom.a, name)
    if found is None or found[0] != 1:
        return None
    rest, count = found[1], atom.b
    if isinstance(rest, int) and isinstance(count, int) and count > 1:
        return Groups(count, rest % count)
    return None


# -- reads -----------------------------------------------------------------------------------


def load_by_groups(
    node: Load,
    name: str,
    lanes: int,
    mask: Expr | None,
    convert: Callable[[Expr, str, int], Expr],
) -> Expr | None:
    """Return the vector of a read as a repeated short one, or None where it is none.

    Parameters
    ----------
    node : Load
        A scalar read.
    name : str
        The loop variable, a multiple of ``lanes`` where the vector begins.
    lanes : int
    mask : Expr or None
        Lanes that exist; `Iota` below a limit.
    convert : callable
        ``convert(expr, name, lanes)`` makes a vector over another loop variable.
    """
    if not isinstance(node.offset, Index) or (mask is not None and _limit(mask) is None):
        return None
    groups = find_groups(_dims(node), name, lanes)
    if groups is None:
        return None
    shifted = groups.count * symbol(GROUP) + symbol(WITHIN) - groups.first
    offset = simplify(
        substitute(node.offset.dim, {name: shifted}), {WITHIN: groups.count}
    )
    step = linear(offset, GROUP)
    if step is None or WITHIN in symbols(offset):
        return None
    width = 1 << (groups.number(lanes) - 1).bit_length()
    own, uniform = _masks(node, name, groups, width, convert)
    wanted = _wanted(own, uniform, groups, lanes, width, mask)
    back: dict[str, Dim] = {GROUP: symbol(name) // groups.count}
    narrow = E.load(
        node.buffer, E.index(substitute(offset, back)), (width,), (step[0],),
        None if wanted is None else substituted(wanted, back, {}), node.fill,
    )  # fmt: skip
    repeated = E.repeat(narrow, lanes, groups.count, groups.first)
    if uniform or node.mask is None:
        return repeated
    return E.select(convert(node.mask, name, lanes), repeated, E.const(node.fill, node.dtype))


def _dims(node: Load) -> Iterator[Dim]:
    for expr in E.walk(node):
        if isinstance(expr, Index):
            yield expr.dim


def _limit(mask: Expr) -> Dim | None:
    """Return ``n`` of the mask ``iota < n``."""
    if isinstance(mask, Apply) and mask.op == "lt" and isinstance(mask.args[0], Iota):
        limit = mask.args[1]
        return limit.dim if isinstance(limit, Index) else None
    return None


def _masks(
    node: Load, name: str, groups: Groups, width: int, convert: Callable[[Expr, str, int], Expr]
) -> tuple[list[Expr], bool]:
    """Return the read's own mask at each place of a group, and whether all places agree."""
    if node.mask is None:
        return [], True
    places = [
        substituted(node.mask, {name: groups.count * symbol(GROUP) + place - groups.first}, {})
        for place in range(groups.count)
    ]
    if all(p is places[0] for p in places):
        places = places[:1]
    masks = [E.splat(v, () if v.tile else (width,)) for v in
             (convert(p, GROUP, width) for p in places)]  # fmt: skip
    return masks, len(masks) == 1


def _wanted(
    own: list[Expr], uniform: bool, groups: Groups, lanes: int, width: int, mask: Expr | None
) -> Expr | None:
    """Return which groups have a lane that exists and reads; None where all have."""
    iota, limit = E.iota(width), None if mask is None else _limit(mask)
    if uniform:
        inside: Expr | None = None
        if limit is not None:
            inside = iota < E.index(ceil_div(limit + groups.first, groups.count))
        elif groups.number(lanes) < width:
            inside = iota < E.index(groups.number(lanes))
        if not own:
            return inside
        return own[0] if inside is None else own[0] & inside
    wanted: Expr | None = None
    for place, mine in enumerate(own):
        end = lanes if limit is None else limit
        exists = iota < E.index(ceil_div(end + groups.first - place, groups.count))
        if place < groups.first:  # such a lane of the first group is before the vector
            exists = exists & ~(iota < E.index(1))
        wanted = mine & exists if wanted is None else wanted | (mine & exists)
    return wanted


# -- index arithmetic ------------------------------------------------------------------------


def index_by_groups(dim: Dim, name: str, lanes: int) -> tuple[Dim, Dim] | None:
    """Split index arithmetic into what all lanes share and what depends on `LANE` only.

    Returns None where a division of ``name`` does not repeat from one vector to the next.
    """
    groups = [_of_division(atom, name) for atom in _divisions(dim, name)]
    if not groups or any(g is None or lanes % g.count for g in groups):
        return None
    period = max(g.count for g in groups if g is not None)
    whole = substitute(dim, {name: period * symbol(GROUP) + symbol(LANE)})
    shared = substitute(whole, {LANE: 0})
    own, by_group = whole - shared, linear(shared, GROUP)
    if by_group is None or GROUP in symbols(own):
        return None
    return by_group[0] * (symbol(name) // period) + by_group[1], own

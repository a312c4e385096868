"""Blocks of threads: the loops around a kernel's body, and indices from a thread's number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir import expr as E
from graphc.ir.dim import Dim, Var, ceil_div, dim_min, product, substitute, symbol, terms
from graphc.ir.expr import Axis, Buffer, Expr, Load
from graphc.ir.loop import BEGIN, END, TURN, Alloc, Bind, For, If, Kernel, Let, Stmt, Store
from graphc.ir.statements import expressions, statements
from graphc.ir.target import Target
from graphc.passes.schedule.loops import Body
from graphc.passes.schedule.nest import stride

THREADS = 256
"""Threads of a block, where nothing asks for another number."""
BLOCKS_EACH = 32
"""Most blocks for each multiprocessor, where blocks take several shares of the work in turn.

A multiprocessor runs 8 blocks of 256 threads at once, so these are four rounds: enough that all are
busy until the end, few enough that what a block does once is nothing beside its work.
"""
PLACES = 12
"""Most places that a thread reads and writes in one of several turns.

Their addresses stay in two registers each from turn to turn, so with more of them a multiprocessor
would run fewer threads at once; and one turn is work enough.
"""
BLOCK, THREAD = "block", "thread"
"""Names of the loop variables of blocks and of threads."""
PART = "part"
"""Name of the loop variable where partial results of chunks are folded."""
QUOTIENT = "quotient"
"""Name of a size variable divided by the lanes of a vector."""


def in_blocks(
    kernel: Kernel, extent: Dim, body: Body, shared: Sequence[Buffer] = ()
) -> Kernel:
    """Return a kernel of ``extent`` blocks, each thread of which runs ``body``."""
    (blocks,) = over_blocks(extent, shared, body)
    return over_grid(kernel, extent, blocks)


def over_blocks(
    extent: Dim, shared: Sequence[Buffer], body: Body, threads: int = THREADS, at_once: int = 1
) -> tuple[For]:
    """Return the loops over blocks and their threads, as the whole of an explicit nest.

    A multiprocessor runs ``at_once`` blocks at least, see `graphc.ir.loop.For`.
    """
    inner = For(THREAD, E.index(0), E.index(threads), body, bind=Bind.THREAD)
    made = (*map(Alloc, shared), inner)
    loop = For(BLOCK, E.index(0), E.index(extent), made, bind=Bind.BLOCK, at_once=at_once)
    return (loop,)


def over_turns(turns: Dim, blocks: tuple[For]) -> tuple[For]:
    """Return a loop of an explicit nest in which the grid runs once in each of its turns."""
    return (For(TURN, E.index(0), E.index(turns), blocks),)


def over_grid(kernel: Kernel, extent: Dim, loop: For, turns: Dim = 1) -> Kernel:
    """Return a kernel of the loop over its ``extent`` blocks, launched ``turns`` times."""
    begin, end = (E.index(symbol(name)) for name in (BEGIN, END))
    sizes = kernel.sizes if turns == 1 else (*kernel.sizes, TURN)
    body = (replace(loop, start=begin, stop=end),)
    return replace(kernel, body=body, extent=extent, work=1, turns=turns, sizes=sizes)


def most_blocks(target: Target, body: Sequence[Stmt]) -> int | None:
    """Return how many blocks a grid has at most whose threads do ``body`` in turns.

    None where one turn is work enough: there is a block for each share of the work.
    """
    known: set[int] = set()
    found = list(statements(body))
    roots = (root for stmt in found for root in expressions(stmt))
    loads = {e for root in roots for e in E.walk(root, known) if isinstance(e, Load)}
    stores = sum(isinstance(stmt, Store) for stmt in found)
    return None if len(loads) + stores > PLACES else target.cores * BLOCKS_EACH


def capped(blocks: Dim, most: int | None) -> Dim:
    """Return how many blocks a grid has for ``blocks`` shares of work."""
    return blocks if most is None else dim_min(blocks, most)


def in_turns(
    name: str, stop: Dim, most: int | None, body: Body, each: int = THREADS
) -> Body:
    """Return what a thread does in a `capped` grid: ``body`` for its numbers below ``stop``.

    A block has ``each`` numbers in a turn, of which the first ones are its threads'. The next turn
    is as many blocks further on as a grid has at most: where it has fewer, there is none, so the
    step is a constant. With 32 bits a number and a step can be added: a program counts to
    2**31 - 2**24 at most, and steps are less than 2**23.

    Parameters
    ----------
    name : str
        Of the number in ``body``.
    stop : Dim
    most : int or None
        Blocks of a grid, as `most_blocks` returns it.
    body : tuple of Stmt
    each : int, optional
    """
    first = symbol(BLOCK) * each + symbol(THREAD)
    shares = ceil_div(stop, each)
    if most is None or (isinstance(shares, int) and shares <= most):
        return (Let(name, E.index(first)), *below(symbol(name), stop, body))
    return (For(name, E.index(first), E.index(stop), body, step=most * each),)


def placed(axes: Sequence[Axis], position: Dim) -> Body:
    """Return statements that name the index on each axis of a row-major position."""
    found = indices(axes, position)
    return tuple(Let(axis.name, E.index(found[axis.name])) for axis in reversed(axes))


def exists(position: Dim, axes: Sequence[Axis]) -> Expr:
    """Return whether a row-major position over axes exists."""
    return E.index(position) < E.index(product(axis.extent for axis in axes))


def below(position: Dim, extent: Dim, body: Body) -> Body:
    """Return ``body`` for positions below an extent."""
    return (If(E.index(position) < E.index(extent), body),)


@dataclass(frozen=True, slots=True)
class Whole:
    """Rows that are made of whole vectors, if one size variable is a multiple of their lanes.

    With that multiple put for the variable, index arithmetic shows that every row is aligned.

    Attributes
    ----------
    variable : str
    lanes : int
    extent : Dim
        Elements of a row.
    quotient : str
        Name of that multiple's number of vectors.
    """

    variable: str
    lanes: int
    extent: Dim
    quotient: str = QUOTIENT

    @property
    def vectors(self) -> Dim:
        """Vectors of a row."""
        return substitute(self.extent, {self.variable: symbol(self.quotient)})

    @property
    def sizes(self) -> dict[str, Dim]:
        """What to put for the variable."""
        return {self.variable: symbol(self.quotient) * self.lanes}

    @property
    def holds(self) -> Dim:
        """1 if rows are made of whole vectors, else 0."""
        return 1 - dim_min(symbol(self.variable) % self.lanes, 1)

    def named(self) -> Let:
        """Return the statement that gives the quotient its name."""
        return Let(self.quotient, E.index(symbol(self.variable) // self.lanes))

    def either(self, vectors: Body, elements: Body) -> If:
        """Return the branch that computes by vectors where rows are made of them."""
        return If(E.index(self.holds).ne(0), (self.named(), *vectors), elements)


def whole(extent: Dim, lanes: int, quotient: str = QUOTIENT) -> Whole | None:
    """Return how rows of an extent can be whole vectors; None where no variable decides."""
    found = terms(extent)
    if isinstance(extent, int) or len(found) != 1:
        return None
    names = [atom.name for atom, power in found[0][1] if power == 1 and isinstance(atom, Var)]
    return Whole(names[-1], lanes, extent, quotient) if names else None


def indices(axes: Sequence[Axis], position: Dim) -> dict[str, Dim]:
    """Return the index on each axis of a row-major position."""
    found: dict[str, Dim] = {}
    for axis in reversed(axes[1:]):
        found[axis.name] = position % axis.extent
        position = position // axis.extent
    return found | {axis.name: position for axis in axes[:1]}


def adjacent(expr: Expr, name: str) -> bool:
    """Return whether all reads of an expression are the same along a variable, or side by side."""
    loads = (e for e in E.walk(expr) if isinstance(e, Load))
    return all(load.mask is None and stride(load, name) in (0, 1) for load in loads)

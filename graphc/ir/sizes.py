"""What tracing learns about symbolic sizes: which are equal, which are fixed, and by which line.

Types compare through `unify`, `broadcast_dims` and `fix`. While a `SizeSolver` is active they may
add constraints on size variables; without one, sizes are equal only when they are written alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from graphc.errors import Location, user_location
from graphc.ir.dim import (
    Dim,
    SizeExpr,
    dim_min,
    evaluate,
    provably_equal,
    solve,
    substitute,
    symbol,
    symbols,
)

_active: ContextVar[SizeSolver | None] = ContextVar("graphc_size_solver", default=None)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A fact about sizes that a line of the model implied: ``left == right``."""

    left: Dim
    right: Dim
    where: Location | None = None

    def __str__(self) -> str:
        place = f"  # {self.where}" if self.where else ""
        return f"{self.left} == {self.right}{place}"


class SizeSolver:
    """Size variables of one trace, with the sizes seen while tracing as hints.

    Attributes
    ----------
    hints : dict of str to int
        The size each variable had in the call that is being traced.
    solution : dict of str to Dim
        Variables that were unified with others or fixed.
    constraints : list of Constraint
        The same facts with the line that implied them.
    """

    def __init__(self) -> None:
        self.hints: dict[str, int] = {}
        self.solution: dict[str, Dim] = {}
        self.constraints: list[Constraint] = []

    def fresh(self, name: str, hint: int) -> SizeExpr:
        """Return a new variable with the size it has now; ``name`` is made unique."""
        unique, count = name, 1
        while unique in self.hints:
            unique, count = f"{name}{count}", count + 1
        self.hints[unique] = hint
        return symbol(unique)

    def resolve(self, dim: Dim) -> Dim:
        """Return ``dim`` with what is known put in."""
        while isinstance(dim, SizeExpr):
            known = {v: self.solution[v] for v in symbols(dim) if v in self.solution}
            if not known:
                return dim
            dim = substitute(dim, known)
        return dim

    def hint(self, dim: Dim) -> int:
        """Return the size that ``dim`` has in the call being traced."""
        return evaluate(dim, self.hints)

    def unify(self, a: Dim, b: Dim) -> Dim | None:
        """Make two sizes equal; None when they differ in the call being traced."""
        a, b = self.resolve(a), self.resolve(b)
        if a == b or provably_equal(a, b):
            return a
        if self.hint(a) != self.hint(b):
            return None
        solved = solve(a, b)
        # Where a factor is 0 now, what would equate the others does not hold now.
        if solved is None or self.hint(solved[1]) != self.hints[solved[0]]:
            self.fix(a)
            self.fix(b)
        else:
            self._learn(*solved)
        return self.resolve(a)

    def fix(self, dim: Dim) -> int:
        """Fix every variable in ``dim`` to its size in the call being traced."""
        for name in sorted(symbols(self.resolve(dim))):
            self._learn(name, self.hints[name])
        return self.hint(dim)

    def require_elements(self, dim: Dim) -> None:
        """Note that ``dim`` must not be 0 in any call: the trace reads an element of that axis."""
        dim = self.resolve(dim)
        fact = dim_min(dim, 1)
        if isinstance(fact, SizeExpr) and fact not in [c.left for c in self.constraints]:
            self.constraints.append(Constraint(fact, 1, user_location()))

    def facts(self) -> tuple[Constraint, ...]:
        """Return the constraints, those that are no solution of a variable with it put in."""
        settled = (
            fact
            if str(fact.left) in self.solution
            else Constraint(self.resolve(fact.left), fact.right, fact.where)
            for fact in self.constraints
        )
        return tuple(fact for fact in settled if isinstance(fact.left, SizeExpr))

    def _learn(self, name: str, value: Dim) -> None:
        self.constraints.append(Constraint(symbol(name), value, user_location()))
        self.solution[name] = value


@contextmanager
def solving(solver: SizeSolver) -> Iterator[SizeSolver]:
    """Let comparisons of sizes in the body add constraints to ``solver``."""
    token = _active.set(solver)
    try:
        yield solver
    finally:
        _active.reset(token)


def resolve(dim: Dim) -> Dim:
    """Return ``dim`` with what the active solver knows put in."""
    solver = _active.get()
    return dim if solver is None else solver.resolve(dim)


def unify(a: Dim, b: Dim) -> Dim | None:
    """Return the common size of two that must be equal, or None."""
    if a == b or provably_equal(a, b):
        return a
    solver = _active.get()
    return None if solver is None else solver.unify(a, b)


def broadcast_dims(a: Dim, b: Dim) -> Dim | None:
    """Return the size two axes broadcast to, or None when they do not fit."""
    a, b = resolve(a), resolve(b)
    if a == b or b == 1 or provably_equal(a, b):
        return a
    if a == 1:
        return b
    solver = _active.get()
    if solver is None:
        return None
    size_a, size_b = solver.hint(a), solver.hint(b)
    if size_a == size_b:
        return solver.unify(a, b)
    if size_a == 1:
        solver.fix(a)
        return b
    if size_b == 1:
        solver.fix(b)
        return a
    return None


def known_size(dim: Dim) -> int | None:
    """Return the integer that ``dim`` is, its hint while tracing, or None."""
    dim = resolve(dim)
    if isinstance(dim, int):
        return dim
    solver = _active.get()
    return None if solver is None else solver.hint(dim)


def fix(dim: Dim) -> int | None:
    """Return ``dim`` as an integer, fixing it while tracing; None when it is not known."""
    if isinstance(dim, int):
        return dim
    solver = _active.get()
    return None if solver is None else solver.fix(dim)


def require_elements(dim: Dim) -> None:
    """Note while tracing that an axis must have elements in every call."""
    solver = _active.get()
    if solver is not None:
        solver.require_elements(dim)


def satisfied(constraints: Sequence[Constraint], sizes: Mapping[str, int]) -> bool:
    """Return whether the facts that speak of ``sizes`` only hold for them."""
    return all(
        evaluate(fact.left, sizes) == evaluate(fact.right, sizes)
        for fact in constraints
        if symbols(fact.left) | symbols(fact.right) <= sizes.keys()
    )


def bind_sizes(
    declared: Sequence[tuple[Dim, ...]], actual: Sequence[tuple[int, ...]]
) -> dict[str, int] | None:
    """Find the values of size variables for which declared shapes are the actual ones.

    Parameters
    ----------
    declared : sequence of tuple of Dim
    actual : sequence of tuple of int

    Returns
    -------
    dict of str to int, or None
        None when the shapes do not fit.
    """
    bindings: dict[str, int] = {}
    pending: list[tuple[SizeExpr, int]] = []
    if len(declared) != len(actual):
        return None
    for shape, sizes in zip(declared, actual, strict=True):
        if len(shape) != len(sizes):
            return None
        for dim, size in zip(shape, sizes, strict=True):
            if isinstance(dim, SizeExpr):
                pending.append((dim, size))
            elif dim != size:
                return None
    # Lone variables first: most sizes are, and the others are usually built from them.
    pending.sort(key=lambda pair: not str(pair[0]).isidentifier())
    return bindings if _bind_pending(pending, bindings) else None


def _bind_pending(pending: list[tuple[SizeExpr, int]], bindings: dict[str, int]) -> bool:
    """Bind what can be solved for, as often as that helps; False on a contradiction."""
    while pending:
        waiting = []
        for dim, size in pending:
            rest = substitute(dim, bindings)
            if isinstance(rest, SizeExpr):
                solved = solve(rest, size)
                if solved is None or not isinstance(solved[1], int):
                    waiting.append((dim, size))
                else:
                    bindings[solved[0]] = solved[1]
            elif rest != size:
                return False
        if len(waiting) == len(pending):
            return False
        pending = waiting
    return True


def substituted(shape: tuple[Dim, ...], mapping: Mapping[str, Dim]) -> tuple[Dim, ...]:
    """Return the shape with variables replaced."""
    return tuple(substitute(d, mapping) if isinstance(d, SizeExpr) else d for d in shape)

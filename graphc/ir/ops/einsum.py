"""Einstein summation by transpose, reshape and matmul."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError
from graphc.ir.dim import Dim, product
from graphc.ir.op import NUMBERS, sample
from graphc.ir.ops.composite import attempt, composite, shape_of
from graphc.ir.ops.contraction import matmul
from graphc.ir.ops.movement import reshape, transpose
from graphc.ir.ops.reduction import sum as sum_
from graphc.ir.sizes import resolve, unify
from graphc.ir.types import as_dtype, broadcast_shapes, shape_text


@dataclass(frozen=True, slots=True)
class _Term:
    """An operand and the letter of each of its axes."""

    value: Any
    letters: str

    def size(self, letter: str) -> Dim:
        dim: Dim = shape_of(self.value)[self.letters.index(letter)]
        return dim


def _reference(operands: Sequence[np.ndarray], subscripts: str) -> Any:
    return np.einsum(subscripts, *operands)


@composite(
    _reference, name="einsum", operands=None, dtypes=NUMBERS,
    samples=(
        sample((2, 3), (3, 4), subscripts="ij,jk->ik"),
        sample((2, 3), (3, 4), subscripts="ij,jk"),
        sample((2, 3, 4), (2, 4, 3), subscripts="bij,bjk->bik"),
        sample((2, 3, 4), (5, 4, 3), subscripts="aij,bji->ab"),
        sample((2, 3), (3, 2), subscripts="ij,ji->"),
        sample((2, 3), subscripts="ij->ji"),
        sample((2, 3), subscripts="ij->j"),
        sample((2, 3), (4,), subscripts="ij,k->kj"),
        sample((2, 1, 3, 4), (5, 4, 2), subscripts="...ij,...jk->...ik"),
        sample((2, 3), (3, 4), (4, 2), subscripts="ij,jk,kl->il"),
        sample((2, 0), (0, 3), subscripts="ij,jk->ik"),
    ),
)  # fmt: skip
def _einsum(operands: Sequence[Any], subscripts: str) -> Any:
    """Return sums of products by Einstein's convention."""
    shapes = [shape_of(x) for x in operands]
    inputs, output = attempt("einsum", operands, parse, subscripts, shapes)
    terms = [_Term(x, letters) for x, letters in zip(operands, inputs)]
    while len(terms) > 1:
        later = set(output).union(*(t.letters for t in terms[2:]))
        terms[:2] = [attempt("einsum", operands, _contract, terms[0], terms[1], later)]
    return _arranged(_summed(terms[0], set(output)), output).value


def einsum(subscripts: str, *operands: Any) -> Any:
    """Return sums of products by Einstein's convention.

    Parameters
    ----------
    subscripts : str
        A letter for each axis, ``"bij,bjk->bik"``. Letters that are not in the output are summed
        over; without ``->`` the output has those that stand once, in alphabetical order. ``...``
        stands for further axes, which broadcast.
    *operands : operand
        Contracted two by two, from left to right.

    Raises
    ------
    ArgumentError
        When the subscripts are not well formed or repeat a letter within one operand.
    ShapeError
        When axes of one letter differ in size.
    """
    return _einsum(operands, subscripts)


def parse(subscripts: str, shapes: Sequence[Sequence[Dim]]) -> tuple[list[str], str]:
    """Return the letters of each operand's axes and of the output's; ``...`` gets letters too."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(shapes):
        raise ArgumentError(
            f"einsum {subscripts!r} is for {len(parts)} operands, got {len(shapes)}"
        )
    free = [c for c in ascii_letters if c not in text]
    counts = [len(s) - len(p.replace("...", "")) for p, s in zip(parts, shapes)]
    longest = max([c for c, p in zip(counts, parts) if "..." in p], default=0)
    dots = "".join(free[:longest])
    inputs = []
    for part, shape, count in zip(parts, shapes, counts):
        if count < 0 or (count and "..." not in part):
            raise ShapeError(f"einsum {subscripts!r}: {part!r} does not fit {shape_text(shape)}")
        inputs.append(part.replace("...", dots[longest - count :]))
    letters = "".join(inputs)
    once = sorted(c for c in set(letters) - set(dots) if letters.count(c) == 1)
    output = right.replace("...", dots) if arrow else dots + "".join(once)
    _check_letters(subscripts, inputs, output)
    return inputs, output


def _check_letters(subscripts: str, inputs: Sequence[str], output: str) -> None:
    wrong = sorted(c for c in set("".join(inputs) + output) if c not in ascii_letters)
    if wrong:
        raise ArgumentError(f"einsum {subscripts!r} has {wrong[0]!r} where letters belong")
    for part in (*inputs, output):
        if len(set(part)) != len(part):
            raise ArgumentError(
                f"einsum {subscripts!r} repeats a letter within {part!r}",
                remedy="Diagonals are not taken; each axis needs a letter of its own.",
            )
    unknown = sorted(set(output) - set("".join(inputs)))
    if unknown:
        raise ArgumentError(f"einsum {subscripts!r}: no operand has the output's {unknown[0]!r}")


def _summed(term: _Term, wanted: set[str]) -> _Term:
    """Sum over the letters that are not wanted."""
    axes = tuple(axis for axis, c in enumerate(term.letters) if c not in wanted)
    if not axes:
        return term
    total = sum_(term.value, axis=axes, dtype=as_dtype(term.value.dtype))
    return _Term(total, "".join(c for c in term.letters if c in wanted))


def _arranged(term: _Term, letters: str) -> _Term:
    """Put a term's axes in the order of ``letters``."""
    if term.letters == letters:
        return term
    return _Term(transpose(term.value, [term.letters.index(c) for c in letters]), letters)


def _contract(a: _Term, b: _Term, later: set[str]) -> _Term:
    """Multiply two terms, summing over the letters that are not needed later."""
    a, b = _summed(a, later | set(b.letters)), _summed(b, later | set(a.letters))
    shared = [c for c in a.letters if c in b.letters]
    batch = "".join(c for c in shared if c in later)
    inner = "".join(c for c in shared if c not in later)
    rows = "".join(c for c in a.letters if c not in shared)
    columns = "".join(c for c in b.letters if c not in shared)
    for c in inner:
        if unify(a.size(c), b.size(c)) is None:
            raise ShapeError(f"axis {c!r} has sizes {resolve(a.size(c))} and {resolve(b.size(c))}")
    left = _merged(_arranged(a, batch + rows + inner), len(batch), len(rows))
    right = _merged(_arranged(b, batch + inner + columns), len(batch), len(inner))
    joined = broadcast_shapes([a.size(c) for c in batch], [b.size(c) for c in batch])
    shape = (*joined, *(a.size(c) for c in rows), *(b.size(c) for c in columns))
    return _Term(reshape(matmul(left, right), shape), batch + rows + columns)


def _merged(term: _Term, batch: int, first: int) -> Any:
    """Join the ``first`` axes after the batch into one, and those behind them into another."""
    shape = shape_of(term.value)
    split = batch + first
    if first == 1 and len(shape) == split + 1:
        return term.value
    return reshape(
        term.value, (*shape[:batch], product(shape[batch:split]), product(shape[split:]))
    )

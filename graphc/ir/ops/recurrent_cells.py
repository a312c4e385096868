"""The formulas of recurrent layers' cells, for scalars and for tiles of registers.

A cell's step is what is left when products with the recurrent weights are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir import expr as E
from graphc.ir.expr import Expr
from graphc.ir.loop import Let, Stmt

GATES = {"rnn_relu": 1, "rnn_tanh": 1, "lstm": 4, "gru": 3}
"""Mode -> parts of the projections."""

Read = Callable[[int], Expr]
"""What reads a state by its number: an LSTM's cell is its second."""
Pieces = tuple[list[Expr], list[Expr], list[Expr]]


class Values:
    """Statements that name values, in order; each is computed where it stands."""

    def __init__(self, names: Callable[[], str]) -> None:
        self.names = names
        self.body: list[Stmt] = []

    def __call__(self, value: Expr) -> Expr:
        name = self.names()
        self.body.append(Let(name, value))
        return E.use(name, value)


def _sigmoid(x: Expr) -> Expr:
    return E.apply("sigmoid", x)


def _tanh(x: Expr) -> Expr:
    return E.apply("tanh", x)


def _zeros(like: Expr) -> Expr:
    return E.splat(E.const(0, like.dtype), like.tile)


def forward_cell(
    mode: str, values: Values, x: Sequence[Expr], hidden: Sequence[Expr], before: Read
) -> tuple[list[Expr], list[Expr]]:
    """Return the new state (and cell), and what is kept for the gradient.

    Parameters
    ----------
    mode : str
    values : Values
        Gets the statements that the results stand behind.
    x, hidden : sequence of Expr
        Projected inputs of each gate, and products with the recurrent weights, biases added; of an
        LSTM ``hidden`` is the sum of both.
    before : callable
        Reads a state of the step before.
    """
    if mode == "lstm":
        i, f, g, o = hidden
        i, f, o = (values(_sigmoid(gate)) for gate in (i, f, o))
        g = values(_tanh(g))
        cell = values(f * before(1) + i * g)
        return [values(o * _tanh(cell)), cell], [i, f, g, o]
    if mode == "gru":
        r, z = (values(_sigmoid(a + b)) for a, b in zip(x[:2], hidden))
        inner = values(hidden[2])
        n = values(_tanh(x[2] + r * inner))
        state = before(0)
        return [values((1.0 - z) * n + z * state)], [r, z, n, inner]
    total = x[0] + hidden[0]
    new = _tanh(total) if mode == "rnn_tanh" else E.apply("max", total, 0.0)
    return [values(new)], []


def backward_cell(
    mode: str, values: Values, slopes: list[Expr], gates: list[Expr], more: list[Expr] | None,
    old: Read, new: Read,
) -> Pieces:  # fmt: skip
    """Return the gradients of projections, of the hidden part, and of state and cell before.

    To that of the state before, the hidden part's product with the weights is to be added.

    Parameters
    ----------
    mode : str
    values : Values
        Gets the statements that the results stand behind.
    slopes : list of Expr
        Gradients of state and cell behind the step.
    gates, more : list of Expr
        What the step kept, and gradients that arrive there, if there are any.
    old, new : callable
        Read a state before and behind the step.
    """
    return _CELLS[mode](values, slopes, gates, more, old, new)


def _added(values: list[Expr], more: list[Expr] | None) -> list[Expr]:
    return values if more is None else [a + b for a, b in zip(values, more, strict=True)]


def _lstm(name: Values, slopes: list[Expr], gates: list[Expr], more: list[Expr] | None,
          old: Read, new: Read) -> Pieces:  # fmt: skip
    """Return the gradients of projections, of the hidden part, and of state and cell before."""
    i, f, g, o = gates
    cell, before = name(_tanh(new(1))), old(1)
    d_cell = name(slopes[1] + slopes[0] * o * (1.0 - cell * cell))
    di, df, dg, do = _added([d_cell * g, d_cell * before, d_cell * i, slopes[0] * cell], more)
    parts = [
        name(di * i * (1.0 - i)), name(df * f * (1.0 - f)), name(dg * (1.0 - g * g)),
        name(do * o * (1.0 - o)),
    ]  # fmt: skip
    return parts, parts, [_zeros(i), name(d_cell * f)]


def _gru(name: Values, slopes: list[Expr], gates: list[Expr], more: list[Expr] | None,
         old: Read, new: Read) -> Pieces:  # fmt: skip
    r, z, n, inner = gates
    (slope,) = slopes
    dz, dn = slope * (old(0) - n), slope * (1.0 - z)
    if more is not None:
        dz, dn = dz + more[1], dn + more[2]
    dn = name(dn * (1.0 - n * n))
    dr = dn * inner if more is None else dn * inner + more[0]
    d_inner = dn * r if more is None else dn * r + more[3]
    dr, dz = name(dr * r * (1.0 - r)), name(dz * z * (1.0 - z))
    return [dr, dz, dn], [dr, dz, name(d_inner)], [name(slope * z)]


def _rnn(relu: bool) -> Callable[..., Pieces]:
    def cell(name: Values, slopes: list[Expr], gates: list[Expr], more: list[Expr] | None,
             old: Read, new: Read) -> Pieces:  # fmt: skip
        state = new(0)
        zero = _zeros(state)
        if relu:
            part = name(E.select(state > 0.0, slopes[0], zero))
        else:
            part = name(slopes[0] * (1.0 - state * state))
        return [part], [part], [zero]

    return cell


_CELLS = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn(False), "rnn_relu": _rnn(True)}

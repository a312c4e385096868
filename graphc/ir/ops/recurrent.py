"""Recurrent layers over a sequence: what each step adds to products made for all steps at once.

Inputs are projected for the whole sequence by one product before; gradients of weights are one
product after. In between each state needs the one before it. A kernel takes a block of the batch
through all steps by itself, so nothing waits for anything.

Gates are in cuDNN's order, which is MXNet's: input, forget, cell, output for LSTM (Hochreiter and
Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735); reset, update, new for GRU (Cho et al. 2014,
doi:10.3115/v1/D14-1179, with the reset gate behind the product).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AutogradError, ShapeError
from graphc.ir.dim import Dim, ceil_div
from graphc.ir.op import Kind, OpDef, Spec, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.composite import shape_of
from graphc.ir.ops.contraction import matmul
from graphc.ir.ops.movement import reshape, transpose
from graphc.ir.ops.rearrange import slice_axis
from graphc.ir.ops.recurrent_cells import GATES
from graphc.ir.ops.recurrent_nests import LANES, backward_nest, forward_nest
from graphc.ir.ops.reduction import sum as sum_
from graphc.ir.ops.slicing import unslice
from graphc.ir.types import TensorType, float32, float64, same_shape, shape_text

KEPT = {"rnn_relu": 0, "rnn_tanh": 0, "lstm": 4, "gru": 4}
"""Mode -> what a step keeps for the gradient; of GRU also the new gate's product."""


TOLERANCE = {float32: (1e-4, 1e-5), float64: (1e-10, 1e-11)}
"""Rounding errors of a step are carried through those behind it."""


def check_mode(mode: str) -> str:
    """Return a mode, or raise ArgumentError."""
    if mode not in GATES:
        raise ArgumentError(
            f"there is no recurrent mode {mode!r}", remedy=f"Modes are {', '.join(GATES)}."
        )
    return mode


def _state_count(mode: str) -> int:
    return 1 + (mode == "lstm")


def _result_types(x: TensorType, units: Dim, mode: str) -> tuple[TensorType, ...]:
    steps, batch, _ = x.shape
    outputs, states = (x.with_shape((n, batch, units)) for n in (steps, steps + 1))
    kept = x.with_shape((steps, batch, KEPT[mode] * units))
    return outputs, *[states] * _state_count(mode), *([kept] if KEPT[mode] else [])


def _check(name: str, what: str, kind: TensorType, expected: tuple[Dim, ...]) -> None:
    if not same_shape(kind.shape, expected):
        raise ShapeError(
            f"the {what} of {name} has shape {shape_text(kind.shape)}",
            remedy=f"It must be {shape_text(expected)}.",
        )


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _stepped(
    mode: str, x: np.ndarray, hidden: np.ndarray, h: np.ndarray, c: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return state, cell and what is kept of one step."""
    if mode == "lstm":
        i, f, g, o = np.split(x + hidden, 4, axis=-1)
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        cell = f * c + i * g
        return o * np.tanh(cell), cell, np.concatenate([i, f, g, o], axis=-1)
    if mode == "gru":
        (xr, xz, xn), (hr, hz, hn) = np.split(x, 3, axis=-1), np.split(hidden, 3, axis=-1)
        r, z = _sigmoid(xr + hr), _sigmoid(xz + hz)
        n = np.tanh(xn + r * hn)
        return (1 - z) * n + z * h, None, np.concatenate([r, z, n, hn], axis=-1)
    total = x + hidden
    return (np.tanh(total) if mode == "rnn_tanh" else np.maximum(total, 0)), None, total[:, :0]


class Recurrent(OpDef):
    """A recurrent layer in one direction, over projected inputs.

    Results are the outputs of shape (T, N, H), which are the states behind each step; the states
    of shape (T + 1, N, H), the first of them (the last one of a reversed layer) the state at the
    start; of an LSTM the cells likewise; and the gates of each step, which the gradient needs.
    """

    name, kind, orders = "recurrent", Kind.SCAN, 1
    compiled = True
    tolerance = TOLERANCE
    samples = (
        sample((3, 2, 12), (12, 3), (12,), (2, 3), (2, 3), mode="lstm", reverse=False),
        sample((2, 5, 68), (68, 17), (68,), (5, 17), (5, 17), mode="lstm", reverse=True),
        sample((3, 2, 9), (9, 3), (9,), (2, 3), mode="gru", reverse=True),
        sample((2, 18, 6), (6, 2), (6,), (18, 2), mode="gru", reverse=False),
        sample((3, 2, 4), (4, 4), (4,), (2, 4), mode="rnn_tanh", reverse=False),
        sample((3, 2, 4), (4, 4), (4,), (2, 4), mode="rnn_relu", reverse=True),
        sample((0, 2, 4), (4, 4), (4,), (2, 4), mode="rnn_tanh", reverse=False),
    )

    def __call__(
        self, x: Any, weight: Any, bias: Any, state: Any, cell: Any = None, *, mode: str,
        reverse: bool = False,
    ) -> Any:  # fmt: skip
        """Go through a sequence.

        Parameters
        ----------
        x : operand, shape (T, N, G * H)
            Inputs of every step times the input weights, biases added; G gates of H units.
        weight, bias : operand, shapes (G * H, H) and (G * H,)
            From a state to the gates of the step after it.
        state : operand, shape (N, H)
            At the start.
        cell : operand, shape (N, H), optional
            Of an LSTM, at the start.
        mode : {"rnn_relu", "rnn_tanh", "lstm", "gru"}
        reverse : bool
            From the last step to the first.
        """
        operands = (x, weight, bias, state, *(() if cell is None else (cell,)))
        return apply(self, operands, {"mode": check_mode(mode), "reverse": bool(reverse)})

    def infer(
        self, x: TensorType, weight: TensorType, bias: TensorType, *states: TensorType, mode: str,
        reverse: bool,
    ) -> tuple[TensorType, ...]:  # fmt: skip
        """Check the operands against the weights' number of units."""
        gates, units = GATES[mode], weight.shape[-1]
        if x.ndim != 3 or weight.ndim != 2 or len(states) != _state_count(mode):
            raise ShapeError(
                f"recurrent takes inputs (T, N, G * H), weights (G * H, H), biases and "
                f"{_state_count(mode)} states, got shapes "
                f"{', '.join(shape_text(t.shape) for t in (x, weight, bias, *states))}"
            )
        _check(mode, "recurrent weight", weight, (gates * units, units))
        _check(mode, "recurrent bias", bias, (gates * units,))
        _check(mode, "projected input", x, (x.shape[0], x.shape[1], gates * units))
        for state in states:
            _check(mode, "state at the start", state, (x.shape[1], units))
        return _result_types(x, units, mode)

    def decompose(
        self, x: Any, weight: Any, bias: Any, *states: Any, mode: str, reverse: bool
    ) -> Any:
        """Lay out the weights by blocks of units, then take the steps."""
        operands = (x, _packed(weight, GATES[mode]), bias, *states)
        return apply(STEPS, operands, {"mode": mode, "reverse": reverse})

    def vjp(
        self, g: Any, y: Any, x: Any, weight: Any, bias: Any, *states: Any, mode: str,
        reverse: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Go back through the sequence; the weights' gradient is one product over all steps."""
        given = g if isinstance(g, tuple) else (g,)
        arriving = [slope for slope in given if slope is not None]
        found = apply(
            BACKWARD,
            (*arriving, *y[1:], _by_columns(weight)),
            {"mode": mode, "reverse": reverse, "given": tuple(s is not None for s in given)},
        )
        projected, hidden, *starts = found if mode == "gru" else (found[0], *found)
        steps, _, width = shape_of(x)
        units = shape_of(weight)[-1]
        before = slice_axis(y[1], 0, int(reverse), steps + int(reverse))
        d_weight = matmul(_rows(hidden, width), _rows(before, units), transpose_a=True)
        return projected, d_weight, sum_(hidden, axis=(0, 1)), *starts

    def reference(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, h: np.ndarray,
        c: np.ndarray | None = None, *, mode: str, reverse: bool,
    ) -> Any:  # fmt: skip
        """Step by step."""
        steps = len(x)
        states = np.empty((steps + 1, *h.shape), x.dtype)
        cells = np.empty_like(states)
        kept = np.empty((*x.shape[:2], KEPT[mode] * weight.shape[1]), x.dtype)
        states[steps * reverse] = h
        cells[steps * reverse] = 0 if c is None else c
        for turn in range(steps):
            t = steps - 1 - turn if reverse else turn
            after = t + 1 - reverse
            h, c, kept[t] = _stepped(mode, x[t], h @ weight.T + bias, h, c)
            states[after] = h
            cells[after] = 0 if c is None else c
        outputs = states[1 - reverse :][:steps].copy()
        return outputs, states, *[cells][: _state_count(mode) - 1], *([kept] if KEPT[mode] else [])


def _rows(x: Any, width: Dim) -> Any:
    """Join all axes but the last."""
    steps, batch, _ = shape_of(x)
    return reshape(x, (steps * batch, width))


def _packed(weight: Any, gates: int) -> Any:
    """Return recurrent weights as (blocks of units, H, gates, units of a block), zeros at the end.

    So the steps read them in order.
    """
    units = shape_of(weight)[1]
    blocks = ceil_div(units, LANES)
    cut, padded = reshape(weight, (gates, units, units)), (gates, blocks * LANES, units)
    if padded != shape_of(cut):
        cut = unslice(cut, (0, 0, 0), padded, (1, 1, 1))
    return transpose(reshape(cut, (gates, blocks, LANES, units)), (1, 3, 0, 2))


def _by_columns(weight: Any) -> Any:
    """Return recurrent weights as (blocks of units, gates and units, units of a block)."""
    rows, units = shape_of(weight)
    blocks = ceil_div(units, LANES)
    padded = (rows, blocks * LANES)
    if padded != (rows, units):
        weight = unslice(weight, (0, 0), padded, (1, 1))
    return transpose(reshape(weight, (rows, blocks, LANES)), (1, 0, 2))


class Steps(OpDef):
    """The steps of `Recurrent` over packed weights."""

    name, kind, gradient = "recurrent_steps", Kind.SCAN, False
    compiled = True
    tolerance = TOLERANCE
    samples = (
        sample((3, 2, 12), (1, 3, 4, LANES), (12,), (2, 3), (2, 3), mode="lstm", reverse=False),
        sample((2, 5, 51), (2, 17, 3, LANES), (51,), (5, 17), mode="gru", reverse=True),
        sample((2, 18, 4), (1, 4, 1, LANES), (4,), (18, 4), mode="rnn_tanh", reverse=False),
    )

    def infer(
        self, x: TensorType, packed: TensorType, bias: TensorType, *states: TensorType, mode: str,
        reverse: bool,
    ) -> tuple[TensorType, ...]:  # fmt: skip
        """Return the types of outputs, states, cells and gates."""
        return _result_types(x, packed.shape[1], mode)

    def nest(self, k: Any, outputs: Any, *operands: Any, mode: str, reverse: bool) -> Any:
        """Take a block of the batch through all steps."""
        return forward_nest(k, outputs, operands, mode, reverse)

    def reference(
        self, x: np.ndarray, packed: np.ndarray, bias: np.ndarray, *states: np.ndarray, mode: str,
        reverse: bool,
    ) -> Any:  # fmt: skip
        """Unpack the weights, then step by step."""
        units = states[0].shape[1]
        weight = packed.transpose(2, 0, 3, 1).reshape(GATES[mode], -1, units)[:, :units]
        flat = weight.reshape(-1, units)
        return RECURRENT.reference(x, flat, bias, *states, mode=mode, reverse=reverse)


class Backward(OpDef):
    """The gradient of `Recurrent` by its projected inputs and by the states at the start.

    For GRU also that by the product of state and weights, which is not the inputs'.
    """

    name, kind, orders = "recurrent_backward", Kind.SCAN, 0
    compiled = True
    tolerance = TOLERANCE
    samples = (
        sample((3, 2, 3), (4, 2, 3), (4, 2, 3), (3, 2, 12), (4, 2, 3), (4, 2, 3), (3, 2, 12),
               (1, 12, LANES), mode="lstm", reverse=False, given=(True, True, True, True)),
        sample((2, 5, 67), (3, 5, 67), (3, 5, 67), Spec((2, 5, 268), 0.1, 0.9),
               Spec((5, 268, LANES), -0.2, 0.2),
               mode="lstm", reverse=True, given=(True, False, False, False)),
        sample((3, 5, 3), (3, 5, 3), (3, 5, 3), (2, 5, 12), (1, 12, LANES),
               mode="lstm", reverse=False, given=(False, False, True, False)),
        sample((3, 18, 3), (2, 18, 12), (3, 18, 3), (2, 18, 12), (1, 9, LANES),
               mode="gru", reverse=False, given=(False, True, True)),
        sample((2, 5, 2), (3, 5, 2), (2, 5, 8), (1, 6, LANES),
               mode="gru", reverse=True, given=(True, False, False)),
        sample((3, 2, 4), (3, 2, 4), (1, 4, LANES),
               mode="rnn_tanh", reverse=False, given=(False, True)),
        sample((2, 2, 4), (3, 2, 4), (1, 4, LANES),
               mode="rnn_relu", reverse=True, given=(True, False)),
    )  # fmt: skip

    def infer(
        self, *operands: TensorType, mode: str, reverse: bool, given: tuple[bool, ...]
    ) -> tuple[TensorType, ...]:
        """Return the types of the gradients."""
        states = operands[sum(given)]
        length, batch, units = states.shape
        projected = states.with_shape((length - 1, batch, GATES[mode] * units))
        start = states.with_shape((batch, units))
        if mode == "gru":
            return projected, projected, start
        return (projected, start, start) if mode == "lstm" else (projected, start)

    def vjp(self, g: Any, y: Any, *operands: Any, **attrs: Any) -> tuple[Any, ...]:
        """Raise: there is no second gradient."""
        raise AutogradError(
            "the gradient of a recurrent layer cannot be differentiated",
            remedy="Unroll a cell of gluon.rnn, such as LSTMCell: it consists of plain operations.",
        )

    def nest(
        self, k: Any, outputs: Any, *operands: Any, mode: str, reverse: bool,
        given: tuple[bool, ...],
    ) -> Any:  # fmt: skip
        """Take a block of the batch back through all steps."""
        return backward_nest(k, outputs, operands, mode, reverse, given)

    def reference(
        self, *operands: np.ndarray, mode: str, reverse: bool, given: tuple[bool, ...]
    ) -> tuple[np.ndarray, ...]:
        """Step by step."""
        count, rest = _state_count(mode), iter(operands)
        slopes_given = [next(rest) if there else None for there in given]
        values = [next(rest) for _ in range(count)]
        gates = next(rest) if KEPT[mode] else None
        more = slopes_given[-1] if KEPT[mode] else None
        arriving = [
            np.zeros_like(values[0]) if slope is None else slope.copy()
            for slope in slopes_given[1 : 1 + count]
        ]
        if slopes_given[0] is not None:
            arriving[0][1 - reverse :][: len(slopes_given[0])] += slopes_given[0]
        length, batch, units = values[0].shape
        weight = np.concatenate(list(next(rest)), axis=1)[:, :units]
        steps = length - 1
        projected = np.empty((steps, batch, GATES[mode] * units), weight.dtype)
        hidden = np.empty_like(projected)
        carried = [np.zeros((batch, units), weight.dtype) for _ in arriving]
        for turn in range(steps):
            t = turn if reverse else steps - 1 - turn
            before, after = t + reverse, t + 1 - reverse
            slopes = [given[after] + c for given, c in zip(arriving, carried)]
            step = _slopes(
                mode, slopes, None if gates is None else np.split(gates[t], 4, axis=-1),
                None if more is None else np.split(more[t], 4, axis=-1),
                [v[before] for v in values], [v[after] for v in values],
            )  # fmt: skip
            projected[t], hidden[t] = (np.concatenate(part, axis=-1) for part in step[:2])
            carried = [hidden[t] @ weight + step[2][0], *step[2][1:]]
        carried = [c + given[steps * reverse] for c, given in zip(carried, arriving)]
        return (projected, *((hidden,) if mode == "gru" else ()), *carried)


def _slopes(
    mode: str, slopes: list[Any], gates: Any, more: Any, old: list[Any], new: list[Any]
) -> tuple[list[Any], list[Any], list[Any]]:
    """Return gradients of the projections, of the hidden part, and directly of the states."""
    zero = np.zeros_like(slopes[0])
    extra = [zero] * 4 if more is None else more
    if mode == "lstm":
        i, f, g, o = gates
        cell = np.tanh(new[1])
        d_cell = slopes[1] + slopes[0] * o * (1 - cell * cell)
        values = [d_cell * g, d_cell * old[1], d_cell * i, slopes[0] * cell]
        di, df, dg, do = (a + b for a, b in zip(values, extra))
        parts = [di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)]
        return parts, parts, [zero, d_cell * f]
    if mode == "gru":
        r, z, n, inner = gates
        (slope,) = slopes
        dn = (slope * (1 - z) + extra[2]) * (1 - n * n)
        dz = (slope * (old[0] - n) + extra[1]) * z * (1 - z)
        dr = (dn * inner + extra[0]) * r * (1 - r)
        return [dr, dz, dn], [dr, dz, dn * r + extra[3]], [slope * z]
    part = slopes[0] * ((new[0] > 0) if mode == "rnn_relu" else 1 - new[0] * new[0])
    return [part], [part], [zero]


STEPS = register(Steps())
BACKWARD = register(Backward())
RECURRENT = recurrent = register(Recurrent())

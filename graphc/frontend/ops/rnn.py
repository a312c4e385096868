"""Recurrent layers as functions: several of them, in one direction or both, over a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from graphc.errors import ArgumentError, ShapeError, user_location
from graphc.frontend.ops.indexing import SequenceMask, SequenceReverse
from graphc.frontend.ops.nn import Dropout
from graphc.frontend.ops.operator import chosen, dims, operator
from graphc.ir.dim import Dim
from graphc.ir.ops import contraction, creation, gather, movement, rearrange, slicing
from graphc.ir.ops.recurrent import recurrent
from graphc.ir.ops.recurrent_cells import GATES
from graphc.ir.sizes import known_size, unify
from graphc.ir.types import as_dtype, shape_text


class Weights(NamedTuple):
    """The parameters of one layer in one direction: G gates of H units over C inputs.

    Attributes
    ----------
    i2h_weight, h2h_weight : array, shapes (G * H, C) and (G * H, H)
    i2h_bias, h2h_bias : array, shape (G * H,)
    """

    i2h_weight: Any
    h2h_weight: Any
    i2h_bias: Any
    h2h_bias: Any


def run_layers(
    x: Any, layers: Sequence[Sequence[Weights]], states: Sequence[Any], mode: str, p: float = 0.0,
    lengths: Any = None,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """Return the outputs of the last layer, and the states at the end.

    Parameters
    ----------
    x : array, shape (T, N, C)
    layers : sequence of sequence of Weights
        For each layer, of one direction or of both.
    states : sequence of array, shape (L * D, N, H)
        At the start, of an LSTM also the cells; without any they are zeros.
    mode : {"rnn_relu", "rnn_tanh", "lstm", "gru"}
    p : float
        Probability with which inputs of every layer but the first are dropped in training.
    lengths : array, shape (N,), optional
        Steps of each sequence; outputs after them are zeros.

    Returns
    -------
    outputs : array, shape (T, N, D * H)
    states : list of array, shape (L * D, N, H)
    """
    ends: list[list[Any]] = []
    for weights in layers:
        if ends:
            x = Dropout(x, p=p)
        outputs = []
        for reverse, own in enumerate(weights):
            number = len(ends)
            starts = _starts(x, own, mode, [_part(s, number) for s in states])
            run = _direction if lengths is None else _direction_of_lengths(lengths)
            found, end = run(x, own, starts, mode, bool(reverse))
            outputs.append(found)
            ends.append(end)
        x = outputs[0] if len(outputs) == 1 else slicing.concat(outputs, 2)
    joined = [list(parts) for parts in zip(*ends)]
    return x, [parts[0] if len(parts) == 1 else slicing.concat(parts, 0) for parts in joined]


def _part(states: Any, number: int) -> Any:
    """Return the state of one layer in one direction."""
    _, batch, units = dims(states)
    return movement.reshape(rearrange.slice_axis(states, 0, number, number + 1), (batch, units))


def _starts(x: Any, weights: Weights, mode: str, given: list[Any]) -> list[Any]:
    """Return the states at the start, zeros where none are given."""
    if given:
        return given
    shape, dtype = (dims(x)[1], dims(weights.h2h_weight)[1]), as_dtype(x.dtype)
    return [creation.full(shape, 0.0, dtype)] * state_count(mode)


def state_count(mode: str) -> int:
    """Return how many arrays of states a mode has."""
    return 2 if mode == "lstm" else 1


def _steps(
    x: Any, weights: Weights, starts: Sequence[Any], mode: str, reverse: bool
) -> tuple[Any, ...]:
    """Return the outputs; the states at all steps and at the start; of an LSTM also the cells."""
    projected = contraction.matmul(x, weights.i2h_weight, transpose_b=True) + weights.i2h_bias
    found = recurrent(
        projected, weights.h2h_weight, weights.h2h_bias, *starts, mode=mode, reverse=reverse
    )
    return tuple(found[: 1 + len(starts)])


def _direction(
    x: Any, weights: Weights, starts: Sequence[Any], mode: str, reverse: bool
) -> tuple[Any, list[Any]]:
    """Return outputs, and the states at the end with an axis before them."""
    outputs, *found = _steps(x, weights, starts, mode, reverse)
    last = 0 if reverse else dims(x)[0]
    return outputs, [rearrange.slice_axis(states, 0, last, last + 1) for states in found]


def _direction_of_lengths(lengths: Any) -> Any:
    """Return what `_direction` is for sequences that end before the last step."""

    def turned(x: Any, reverse: bool) -> Any:
        return SequenceReverse(x, lengths, use_sequence_length=True) if reverse else x

    def run(
        x: Any, weights: Weights, starts: Sequence[Any], mode: str, reverse: bool
    ) -> tuple[Any, list[Any]]:
        outputs, *found = _steps(turned(x, reverse), weights, starts, mode, False)
        outputs = turned(outputs, reverse)
        rows = creation.arange(dims(x)[1], dtype="int64")
        ends = [gather.getitem_advanced(states, (lengths, rows), "clip") for states in found]
        masked = SequenceMask(outputs, lengths, use_sequence_length=True)
        return masked, [movement.expand_dims(end, 0) for end in ends]

    return run


# -- the operator, with all parameters in one vector -------------------------------------------


def weight_shapes(
    mode: str, inputs: Dim, units: int, layers: int, directions: int
) -> list[list[Weights]]:
    """Return the shapes of the parameters of each layer and direction."""
    rows = GATES[mode] * units
    return [
        [Weights((rows, directions * units if layer else inputs), (rows, units), (rows,), (rows,))]
        * directions
        for layer in range(layers)
    ]  # fmt: skip


def parameter_count(mode: str, inputs: Dim, units: int, layers: int, directions: int) -> Dim:
    """Return the size of the vector of all parameters."""
    rows = GATES[mode] * units
    first = rows * (inputs + units + 2)
    return directions * (first + (layers - 1) * rows * (directions * units + units + 2))


def _cut(vector: Any, shapes: list[list[Weights]]) -> list[list[Weights]]:
    """Return the parameters in a vector: first all weights, then all biases."""
    place: Dim = 0

    def take(shape: tuple[Dim, ...]) -> Any:
        nonlocal place
        size = shape[0] * shape[1] if len(shape) == 2 else shape[0]
        start, place = place, place + size
        return movement.reshape(rearrange.slice_axis(vector, 0, start, place), shape)

    weights = [[[take(s) for s in own[:2]] for own in layer] for layer in shapes]
    biases = [[[take(s) for s in own[2:]] for own in layer] for layer in shapes]
    return [
        [Weights(*w, *b) for w, b in zip(*layer, strict=True)]
        for layer in zip(weights, biases, strict=True)
    ]


def _outputs(state_outputs: bool = False, mode: str = "lstm", **_: Any) -> tuple[str, ...]:
    states = ("state", "state_cell")[: state_count(mode)]
    return ("output", *states) if state_outputs else ("output",)


@operator(
    "RNN",
    inputs=("data", "parameters", "state", "state_cell", "sequence_length"),
    outputs=_outputs,
)
def RNN(
    data: Any, parameters: Any, state: Any, state_cell: Any = None, sequence_length: Any = None,
    state_size: int | None = None, num_layers: int | None = None, bidirectional: bool = False,
    mode: str = "lstm", p: float = 0.0, state_outputs: bool = False,
    use_sequence_length: bool = False,
) -> Any:  # fmt: skip
    """Run recurrent layers whose parameters lie in one vector.

    The vector holds, for each layer and direction, the input and the recurrent weights; then,
    again for each, the two biases.

    Parameters
    ----------
    data : array, shape (T, N, C)
    parameters : array, shape (size,)
    state : array, shape (num_layers * directions, N, state_size)
    state_cell : array, optional
        Of an LSTM, shaped as ``state``.
    sequence_length : array, shape (N,), optional
        With ``use_sequence_length``, the steps of each sequence.
    state_size, num_layers : int
    bidirectional : bool
        Every layer also goes from the last step to the first; outputs are joined.
    mode : {"rnn_relu", "rnn_tanh", "lstm", "gru"}
    p : float
        Probability with which inputs of every layer but the first are dropped in training.
    state_outputs : bool
        Return the states at the end as well.
    use_sequence_length : bool

    Returns
    -------
    array, shape (T, N, directions * state_size), or list of it and the states
    """
    chosen("mode", mode, tuple(GATES))
    if not state_size or not num_layers:
        raise ArgumentError(
            "RNN needs state_size= and num_layers=",
            remedy="They say how the vector of parameters is to be cut.",
            where=user_location(),
        )
    if len(dims(data)) != 3:
        raise ShapeError(
            f"RNN takes data (T, N, C), got shape {shape_text(dims(data))}", where=user_location()
        )
    directions = 2 if bidirectional else 1
    sizes = mode, dims(data)[2], int(state_size), int(num_layers), directions
    check_count(parameters, parameter_count(*sizes))
    given = [state] if mode != "lstm" else [state, state_cell]
    shape = (sizes[3] * directions, dims(data)[1], sizes[2])
    check_states(f"RNN in mode {mode!r}", given, shape)
    outputs, ends = run_layers(
        data, _cut(parameters, weight_shapes(*sizes)), given, mode, p,
        sequence_length if use_sequence_length else None,
    )  # fmt: skip
    return [outputs, *ends] if state_outputs else outputs


def check_count(parameters: Any, count: Dim) -> None:
    """Raise ShapeError unless there are so many parameters in a vector."""
    shape = dims(parameters)
    if len(shape) != 1 or unify(shape[0], count) is None:
        raise ShapeError(
            f"RNN takes a vector of {known_size(count)} parameters, got shape {shape_text(shape)}",
            remedy="Weights of every layer and direction come first, then their biases.",
            where=user_location(),
        )


def check_states(layer: str, states: Sequence[Any], shape: tuple[Dim, ...]) -> None:
    """Raise ShapeError unless every state has a shape, ArgumentError where one is missing."""
    for state in states:
        if state is None:
            raise ArgumentError(
                f"{layer} takes {len(states)} states, one is missing",
                remedy="An LSTM has a state and a cell: pass both.",
                where=user_location(),
            )
        given = dims(state)
        if len(given) != len(shape) or any(unify(a, b) is None for a, b in zip(given, shape)):
            raise ShapeError(
                f"{layer} takes states of shape {_shown(shape)}, got {_shown(given)}",
                remedy="That is (layers times directions, batch, units), as begin_state makes it.",
                where=user_location(),
            )


def _shown(shape: Sequence[Dim]) -> str:
    return shape_text([known_size(d) for d in shape])  # type: ignore[misc]

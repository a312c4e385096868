"""Recurrent cells: one step of a recurrent layer, and how steps are unrolled over a sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError, ShapeError, user_location
from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.hybrid_block import HybridBlock
from graphc.frontend.gluon.input_shapes import shown
from graphc.frontend.gluon.rnn.operands import StateInfo, is_symbol, make_states, zeros_beside
from graphc.frontend.ops.operator import chosen, dims
from graphc.ir.dim import Dim
from graphc.ir.sizes import known_size, unify

LAYOUTS = ("NTC", "TNC")


class RecurrentCell(HybridBlock):
    """Base of cells: override ``forward(inputs, states)`` and ``state_info``.

    ``forward``, or as in MXNet ``hybrid_forward``, takes the inputs of one step, (N, C), and a
    list of states, and returns the output and a list of new states.
    """

    _modified: bool

    def __init__(self, prefix: str | None = None, params: Any = None, **unknown: Any) -> None:
        super().__init__(prefix=prefix, params=params, **unknown)
        self.__dict__["_modified"] = False

    def reset(self) -> None:
        """Forget what cells keep from step to step; `unroll` begins and ends with it."""
        for child in self._children.values():
            if isinstance(child, RecurrentCell):
                child.reset()

    def state_info(self, batch_size: Dim = 0) -> list[StateInfo]:
        """Return shape and layout of each state."""
        raise NotImplementedError(f"{type(self).__name__} does not define state_info")

    def begin_state(
        self, batch_size: Dim = 0, func: Callable[..., Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Return states to begin with.

        Parameters
        ----------
        batch_size : int
        func : callable, optional
            ``func(shape=..., dtype=...)`` makes each; by default `nd.zeros`.
        **kwargs
            For ``func``, the context for instance.
        """
        if self._modified:
            raise ArgumentError(
                f"{self.name} is part of another cell and cannot be used by itself",
                remedy="Call the cell that it was given to.",
                where=user_location(),
            )
        return make_states(type(self).__name__, self.state_info(batch_size), func, kwargs)

    def unroll(
        self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC",
        merge_outputs: bool | None = None, valid_length: Any = None,
    ) -> tuple[Any, list[Any]]:  # fmt: skip
        """Run over a sequence step by step.

        Parameters
        ----------
        length : int
            Number of steps.
        inputs : array, shape (N, T, C) or (T, N, C), or list of array, shape (N, C)
        begin_state : list of array, optional
            By default zeros.
        layout : {"NTC", "TNC"}
            Of inputs and outputs that are one array.
        merge_outputs : bool, optional
            Whether outputs are one array or a list of them; by default a list, unless there is
            ``valid_length``.
        valid_length : array, shape (N,), optional
            Steps of each sequence: later outputs are zeros, states are those after the last step.

        Returns
        -------
        outputs : array or list of array
        states : list of array
        """
        self.reset()
        steps = split_steps(self.name, length, inputs, layout)
        states = self._states_at_start(begin_state, steps[0])
        outputs, history = [], []
        for step in steps:
            output, states = self(step, states)
            outputs.append(output)
            history.append(states)
        self.reset()
        if valid_length is None:
            return joined_steps(outputs, layout, bool(merge_outputs)), states
        ends = [
            F.SequenceLast(F.stack(*values, axis=0), valid_length, use_sequence_length=True)
            for values in zip(*history)
        ]
        merge = merge_outputs is None or merge_outputs
        return masked_steps(outputs, valid_length, layout, merge), ends

    def _states_at_start(self, given: Any, step: Any) -> list[Any]:
        """Return the states a user gave, or zeros beside a step's inputs, for a batch as theirs."""
        if given is not None:
            return list(given) if isinstance(given, (list, tuple)) else [given]
        if is_symbol(step):
            return self.begin_state(func=zeros_beside(step, 0))
        return self.begin_state(batch_size=dims(step)[0], ctx=step.context, dtype=step.dtype)


def split_steps(name: str, length: int, inputs: Any, layout: str) -> list[Any]:
    """Return the inputs of each step as a list.

    Raises
    ------
    ShapeError
        When there are not as many steps as asked for.
    """
    axis = time_axis(layout)
    if isinstance(inputs, (list, tuple)):
        count: Any = len(inputs)
    elif is_symbol(inputs):
        count = length
    elif not hasattr(inputs, "type") or len(dims(inputs)) <= axis:
        raise ShapeError(
            f"{name} is unrolled over inputs ({', '.join(layout)}) or a list of each step's, got "
            f"{shown(dims(inputs)) if hasattr(inputs, 'type') else type(inputs).__name__}",
            remedy="Call the cell itself for one step.",
            where=user_location(),
        )
    else:
        count = dims(inputs)[axis]
    if unify(count, length) is None or not length:
        raise ShapeError(
            f"{name} is to be unrolled over {length} steps, the inputs have {known_size(count)}",
            remedy=f"Pass length={known_size(count)}, or another layout than {layout!r}.",
            where=user_location(),
        )
    if isinstance(inputs, (list, tuple)):
        return list(inputs)
    if length == 1:
        return [F.squeeze(inputs, axis=axis)]
    parts = F.split(inputs, num_outputs=int(length), axis=axis, squeeze_axis=True)
    return [parts[step] for step in range(length)]


def time_axis(layout: str) -> int:
    """Return where time lies."""
    return chosen("layout", layout, LAYOUTS).index("T")


def joined_steps(outputs: Sequence[Any], layout: str, merge: bool) -> Any:
    """Return outputs of steps as one array, or as the list they are."""
    return F.stack(*outputs, axis=time_axis(layout)) if merge else list(outputs)


def masked_steps(outputs: Sequence[Any], lengths: Any, layout: str, merge: bool) -> Any:
    """Return outputs with zeros after the end of each sequence."""
    axis, count = time_axis(layout), len(outputs)
    whole = F.SequenceMask(
        F.stack(*outputs, axis=axis), lengths, use_sequence_length=True, axis=axis
    )
    return whole if merge else split_steps("", count, whole, layout)

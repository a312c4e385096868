"""Cells made of other cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graphc.errors import ArgumentError, user_location
from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.rnn.cell import (
    RecurrentCell,
    joined_steps,
    masked_steps,
    split_steps,
)
from graphc.frontend.gluon.rnn.operands import StateInfo, probability
from graphc.ir.dim import Dim


def _a_cell(owner: str, cell: Any) -> RecurrentCell:
    if not isinstance(cell, RecurrentCell):
        raise ArgumentError(
            f"{owner} takes a recurrent cell, got {type(cell).__name__}",
            remedy="Cells are RNNCell, LSTMCell, GRUCell and those made of them.",
            where=user_location(),
        )
    return cell


class _Several(RecurrentCell):
    """What cells of several share: their states are those of all children."""

    def _cells(self) -> list[RecurrentCell]:
        return [child for child in self._children.values() if isinstance(child, RecurrentCell)]

    def state_info(self, batch_size: Dim = 0) -> list[StateInfo]:
        """Return shape and layout of each state, cell after cell."""
        return [info for cell in self._cells() for info in cell.state_info(batch_size)]

    def begin_state(
        self, batch_size: Dim = 0, func: Callable[..., Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Return states to begin with, cell after cell."""
        super().begin_state(0, lambda **_: None)
        parts = (cell.begin_state(batch_size, func, **kwargs) for cell in self._cells())
        return [state for part in parts for state in part]

    def _shared_out(self, states: Sequence[Any]) -> list[tuple[RecurrentCell, list[Any]]]:
        """Return each cell with its part of the states."""
        found, start = [], 0
        for cell in self._cells():
            count = len(cell.state_info())
            found.append((cell, list(states[start : start + count])))
            start += count
        if start != len(states):
            raise ArgumentError(
                f"{self.name} takes {start} state{'s' * (start != 1)}, got {len(states)}",
                remedy="Pass what begin_state or the step before returned.",
                where=user_location(),
            )
        return found


class SequentialRNNCell(_Several):
    """Cells one after the other, each with its own states."""

    def add(self, *cells: RecurrentCell) -> None:
        """Append cells."""
        for cell in cells:
            self.register_child(_a_cell(f"{type(self).__name__}.add", cell))

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[RecurrentCell]:
        return iter(self._cells())

    def __getitem__(self, place: int) -> RecurrentCell:
        return self._cells()[place]

    def forward(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        """Take one step through all cells."""
        found: list[Any] = []
        for cell, own in self._shared_out(states):
            inputs, after = cell(inputs, own)
            found += after
        return inputs, found

    def unroll(
        self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC",
        merge_outputs: bool | None = None, valid_length: Any = None,
    ) -> tuple[Any, list[Any]]:  # fmt: skip
        """Run each cell over the whole sequence; arguments as of `RecurrentCell.unroll`."""
        self.reset()
        steps = split_steps(self.name, length, inputs, layout)
        states = self._states_at_start(begin_state, steps[0])
        found: list[Any] = []
        shared, data = self._shared_out(states), inputs
        for number, (cell, own) in enumerate(shared):
            merge = merge_outputs if number == len(shared) - 1 else None
            data, after = cell.unroll(length, data, own, layout, merge, valid_length)
            found += after
        return data, found


class BidirectionalCell(_Several):
    """One cell from the first step to the last, one back; outputs are joined. Only `unroll` runs.

    Parameters
    ----------
    l_cell, r_cell : RecurrentCell
        From the first step on, and from the last.
    """

    def __init__(
        self, l_cell: RecurrentCell, r_cell: RecurrentCell, output_prefix: str = "bi_",
        prefix: str | None = "", params: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        self.l_cell, self.r_cell = (_a_cell("BidirectionalCell", c) for c in (l_cell, r_cell))

    def forward(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        """Raise: one step cannot run backwards too."""
        raise ArgumentError(
            "a BidirectionalCell cannot take single steps: one of its cells begins at the end",
            remedy="Call unroll(length, inputs).",
            where=user_location(),
        )

    def unroll(
        self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC",
        merge_outputs: bool | None = None, valid_length: Any = None,
    ) -> tuple[Any, list[Any]]:  # fmt: skip
        """Run both cells over a sequence; arguments as of `RecurrentCell.unroll`."""
        self.reset()
        steps = split_steps(self.name, length, inputs, layout)
        states = self._states_at_start(begin_state, steps[0])
        (left, of_left), (right, of_right) = self._shared_out(states)
        ahead, after = left.unroll(length, steps, of_left, layout, False, valid_length)
        back, before = right.unroll(
            length, _reversed(steps, valid_length), of_right, layout, False, valid_length
        )
        pairs = zip(ahead, _reversed(back, valid_length), strict=True)
        outputs = [F.concat(*pair, dim=1) for pair in pairs]
        merge = valid_length is not None if merge_outputs is None else merge_outputs
        return joined_steps(outputs, layout, merge), after + before


def _reversed(steps: Sequence[Any], lengths: Any) -> list[Any]:
    """Return steps in reverse order, those of each sequence up to its end."""
    if lengths is None:
        return list(reversed(steps))
    whole = F.stack(*steps, axis=0)
    turned = F.SequenceReverse(whole, lengths, use_sequence_length=True)
    return split_steps("", len(steps), turned, "TNC")


class DropoutCell(RecurrentCell):
    """A step of dropout, without states.

    Parameters
    ----------
    rate : float
        Probability with which an element is dropped in training.
    axes : sequence of int
        Axes along which all elements share one draw.
    """

    def __init__(
        self, rate: float, axes: Sequence[int] = (), prefix: str | None = None, params: Any = None
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        self._rate, self._axes = probability("the rate of DropoutCell", rate), tuple(axes)

    def _alias(self) -> str:
        return "dropout"

    def state_info(self, batch_size: Dim = 0) -> list[StateInfo]:
        """Return nothing: there are no states."""
        return []

    def forward(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        """Drop elements in training."""
        return F.Dropout(inputs, p=self._rate, axes=self._axes), list(states)


class ModifierCell(RecurrentCell):
    """Base of cells that change what another one does; that one is then used through them only.

    Parameters
    ----------
    base_cell : RecurrentCell
    """

    def __init__(self, base_cell: RecurrentCell) -> None:
        _a_cell(type(self).__name__, base_cell).__dict__["_modified"] = True
        super().__init__(prefix=base_cell.prefix + self._alias())
        self.base_cell = base_cell

    def _alias(self) -> str:
        return type(self).__name__.lower().removesuffix("cell") + "_"

    def state_info(self, batch_size: Dim = 0) -> list[StateInfo]:
        """Return shape and layout of each state of the cell within."""
        return self.base_cell.state_info(batch_size)


class ZoneoutCell(ModifierCell):
    """Keeps elements of outputs and states as they were at the step before, at random in training.

    Parameters
    ----------
    base_cell : RecurrentCell
    zoneout_outputs, zoneout_states : float
        Probabilities of keeping.

    Notes
    -----
    Krueger et al. 2016, arXiv:1606.01305.
    """

    def __init__(
        self, base_cell: RecurrentCell, zoneout_outputs: float = 0.0, zoneout_states: float = 0.0
    ) -> None:
        super().__init__(base_cell)
        self._of_outputs = probability("zoneout_outputs", zoneout_outputs)
        self._of_states = probability("zoneout_states", zoneout_states)
        self.__dict__["_before"] = None

    def hybridize(
        self, active: bool = True, static_alloc: bool = False, static_shape: bool = False,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Compile the cell within; this one keeps its last output, in Python, between steps."""
        self.base_cell.hybridize(active, static_alloc, static_shape, **kwargs)

    def reset(self) -> None:
        """Forget the last output."""
        super().reset()
        self.__dict__["_before"] = None

    def forward(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        """Take a step, and keep some elements."""
        output, new = self.base_cell(inputs, states)
        before = self._before
        before = F.zeros_like(output) if before is None else before
        output = _kept(self._of_outputs, output, before)
        self.__dict__["_before"] = output
        return output, [_kept(self._of_states, *pair) for pair in zip(new, states, strict=True)]


def _kept(p: float, new: Any, old: Any) -> Any:
    """Return elements that are old with probability ``p`` in training."""
    return F.where(F.Dropout(F.ones_like(new), p=p), new, old) if p else new


class ResidualCell(ModifierCell):
    """Adds the inputs to the output.

    Parameters
    ----------
    base_cell : RecurrentCell
    """

    def forward(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        """Take a step, and add the inputs."""
        output, new = self.base_cell(inputs, states)
        return output + inputs, new

    def unroll(
        self, length: int, inputs: Any, begin_state: Any = None, layout: str = "NTC",
        merge_outputs: bool | None = None, valid_length: Any = None,
    ) -> tuple[Any, list[Any]]:  # fmt: skip
        """Unroll the cell within, which may be bidirectional, and add the inputs."""
        self.reset()
        steps = split_steps(self.name, length, inputs, layout)
        states = self._states_at_start(begin_state, steps[0])
        outputs, ends = self.base_cell.unroll(length, steps, states, layout, False, valid_length)
        sums = [output + step for output, step in zip(outputs, steps, strict=True)]
        if valid_length is None:
            return joined_steps(sums, layout, bool(merge_outputs)), ends
        merge = merge_outputs is None or merge_outputs
        return masked_steps(sums, valid_length, layout, merge), ends

"""The plain cells: RNNCell, LSTMCell, GRUCell."""

from __future__ import annotations

from typing import Any

from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.input_shapes import sizes
from graphc.frontend.gluon.nn.basic import positive
from graphc.frontend.gluon.rnn.cell import RecurrentCell
from graphc.frontend.gluon.rnn.operands import StateInfo, check_inputs, is_symbol
from graphc.frontend.ops.operator import dims
from graphc.frontend.ops.rnn import Weights, check_states, state_count, weight_shapes
from graphc.ir.dim import Dim


class _Cell(RecurrentCell):
    """What the plain cells share: weights and biases from inputs and from the state."""

    mode = ""

    def __init__(
        self, hidden_size: int, initializers: Weights, input_size: int, prefix: str | None,
        params: Any,
    ) -> None:  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        self._units = positive("hidden_size", hidden_size)
        shapes = self._shapes(int(input_size))
        with self.name_scope():
            for kind, shape, init in zip(Weights._fields, shapes, initializers, strict=True):
                setattr(self, kind, self.params.get(
                    kind, shape=shape, init=init, allow_deferred_init=True
                ))  # fmt: skip

    def _shapes(self, inputs: int) -> Weights:
        return weight_shapes(self.mode, inputs, self._units, 1, 1)[0][0]

    def _alias(self) -> str:
        return type(self).__name__.lower().removesuffix("cell")

    def __repr__(self) -> str:
        inputs = (self.i2h_weight.shape or (0, 0))[1] or None
        return f"{type(self).__name__}({inputs} -> {self._units})"

    def state_info(self, batch_size: Dim = 0) -> list[StateInfo]:
        """Return shape and layout of each state."""
        info = {
            "shape": (batch_size, self._units), "__layout__": "NC", "dtype": self.h2h_bias.dtype
        }  # fmt: skip
        return [info] * state_count(self.mode)

    def infer_shape(self, inputs: Any, *args: Any) -> None:
        """Take the size of the inputs from the data."""
        check_inputs(type(self).__name__, inputs, "NC", None)
        self.i2h_weight.shape = self._shapes(sizes(inputs)[1]).i2h_weight

    def forward(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        """Take one step.

        Parameters
        ----------
        inputs : array, shape (N, C)
        states : list of array, shape (N, hidden_size)

        Returns
        -------
        output : array, shape (N, hidden_size)
        states : list of array
        """
        given = list(states) if isinstance(states, (list, tuple)) else [states]
        if not is_symbol(inputs):
            check_inputs(self.name, inputs, "NC", self.i2h_weight)
            missing = [None] * (state_count(self.mode) - len(given))
            check_states(self.name, [*given, *missing], (dims(inputs)[0], self._units))
        products = [
            F.FullyConnected(
                x, getattr(self, f"{side}_weight").data(), getattr(self, f"{side}_bias").data(),
                num_hidden=self.h2h_weight.shape[0],
            )
            for x, side in ((inputs, "i2h"), (given[0], "h2h"))
        ]  # fmt: skip
        found = self._step(*products, *given)
        return found[0], found

    def _step(self, of_inputs: Any, of_state: Any, *states: Any) -> list[Any]:
        """Return the new states, of which the first is the output."""
        raise NotImplementedError


class RNNCell(_Cell):
    """``h' = activation(W x + b + U h + c)``.

    Parameters
    ----------
    hidden_size : int
    activation : str
        As of `nn.Activation`.
    i2h_weight_initializer, h2h_weight_initializer : Initializer or str, optional
        Of W and U.
    i2h_bias_initializer, h2h_bias_initializer : Initializer or str
        Of b and c.
    input_size : int
        0 is what the first data has.

    Examples
    --------
    >>> from graphc import nd
    >>> from graphc.gluon import rnn
    >>> cell = rnn.RNNCell(4)
    >>> cell.initialize()
    >>> output, states = cell(nd.ones((3, 10)), cell.begin_state(batch_size=3))
    >>> outputs, states = cell.unroll(5, nd.ones((3, 5, 10)), merge_outputs=True)
    >>> output.shape, outputs.shape
    ((3, 4), (3, 5, 4))
    """

    mode = "rnn_tanh"

    def __init__(
        self, hidden_size: int, activation: str = "tanh", i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None, i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros", input_size: int = 0, prefix: str | None = None,
        params: Any = None,
    ) -> None:  # fmt: skip
        initializers = Weights(
            i2h_weight_initializer, h2h_weight_initializer, i2h_bias_initializer,
            h2h_bias_initializer,
        )  # fmt: skip
        super().__init__(hidden_size, initializers, input_size, prefix, params)
        self._activation = activation

    def _step(self, of_inputs: Any, of_state: Any, *states: Any) -> list[Any]:
        return [F.Activation(of_inputs + of_state, act_type=self._activation)]


class _Gated(_Cell):
    """What the cells with gates share."""

    def __init__(
        self, hidden_size: int, i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None, i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros", input_size: int = 0, prefix: str | None = None,
        params: Any = None, activation: str = "tanh", recurrent_activation: str = "sigmoid",
    ) -> None:  # fmt: skip
        initializers = Weights(
            i2h_weight_initializer, h2h_weight_initializer, i2h_bias_initializer,
            h2h_bias_initializer,
        )  # fmt: skip
        super().__init__(hidden_size, initializers, input_size, prefix, params)
        self._activation, self._gate = activation, recurrent_activation

    def _act(self, x: Any) -> Any:
        return F.Activation(x, act_type=self._activation)

    def _open(self, x: Any) -> Any:
        return F.Activation(x, act_type=self._gate)


class LSTMCell(_Gated):
    """A step of long short-term memory; formulas as of :class:`LSTM`. States: state and cell.

    Parameters
    ----------
    hidden_size : int
    i2h_weight_initializer, h2h_weight_initializer : Initializer or str, optional
    i2h_bias_initializer, h2h_bias_initializer : Initializer or str
    input_size : int
    activation, recurrent_activation : str
        Of cells and of gates.
    """

    mode = "lstm"

    def _step(self, of_inputs: Any, of_state: Any, *states: Any) -> list[Any]:
        i, f, g, o = F.split(of_inputs + of_state, num_outputs=4, axis=1)
        cell = self._open(f) * states[1] + self._open(i) * self._act(g)
        return [self._open(o) * self._act(cell), cell]


class GRUCell(_Gated):
    """A step of a gated recurrent unit; formulas as of :class:`GRU`.

    Parameters
    ----------
    hidden_size : int
    i2h_weight_initializer, h2h_weight_initializer : Initializer or str, optional
    i2h_bias_initializer, h2h_bias_initializer : Initializer or str
    input_size : int
    activation, recurrent_activation : str
        Of the new state and of gates.
    """

    mode = "gru"

    def _step(self, of_inputs: Any, of_state: Any, *states: Any) -> list[Any]:
        (xr, xz, xn), (hr, hz, hn) = (
            F.split(x, num_outputs=3, axis=1) for x in (of_inputs, of_state)
        )
        reset, update = self._open(xr + hr), self._open(xz + hz)
        new = self._act(xn + reset * hn)
        return [(1.0 - update) * new + update * states[0]]

"""Recurrent layers: each runs over a whole sequence in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError, user_location
from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.hybrid_block import HybridBlock
from graphc.frontend.gluon.input_shapes import sizes
from graphc.frontend.gluon.nn.basic import positive
from graphc.frontend.gluon.rnn.operands import (
    StateInfo,
    check_inputs,
    is_symbol,
    make_states,
    probability,
    zeros_beside,
)
from graphc.frontend.ops.operator import chosen, dims
from graphc.frontend.ops.rnn import (
    Weights,
    check_states,
    run_layers,
    state_count,
    weight_shapes,
)
from graphc.ir.dim import Dim

LAYOUTS = ("TNC", "NTC")
"""Where time, batch and channels lie."""


class _Layer(HybridBlock):
    """What the recurrent layers share; their parameters are ``l0_i2h_weight``, ``r0_...``, ..."""

    def __init__(
        self, mode: str, hidden_size: int, num_layers: int, layout: str, dropout: float,
        bidirectional: bool, input_size: int, initializers: Weights, dtype: Any,
        use_sequence_length: bool, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._mode, self._units = mode, positive("hidden_size", hidden_size)
        self._layers = positive("num_layers", num_layers)
        self._layout = chosen("layout", layout, LAYOUTS)
        self._dropout = probability("dropout", dropout)
        self._directions, self._inputs = (2 if bidirectional else 1), int(input_size)
        self._dtype, self._lengths = dtype, bool(use_sequence_length)
        with self.name_scope():
            for place, shapes in self._shapes(self._inputs).items():
                for kind, shape, init in zip(Weights._fields, shapes, initializers, strict=True):
                    name = f"{place}_{kind}"
                    setattr(self, name, self.params.get(
                        name, shape=shape, init=init, dtype=dtype, allow_deferred_init=True
                    ))  # fmt: skip

    def _shapes(self, inputs: int) -> dict[str, Weights]:
        """Return the shapes of the parameters of ``l0``, ``r0``, ``l1``, ..."""
        found = weight_shapes(self._mode, inputs, self._units, self._layers, self._directions)
        return {
            f"{side}{number}": shapes
            for number, layer in enumerate(found)
            for side, shapes in zip("lr", layer)
        }

    def __repr__(self) -> str:
        inputs = (self._reg_params["l0_i2h_weight"].shape or (0, 0))[1] or None
        text = f"{type(self).__name__}({inputs} -> {self._units}, {self._layout}"
        text += f", num_layers={self._layers}" if self._layers > 1 else ""
        text += f", dropout={self._dropout}" if self._dropout else ""
        return text + (", bidirectional)" if self._directions == 2 else ")")

    def state_info(self, batch_size: Dim = 0) -> list[StateInfo]:
        """Return shape and layout of each array of states."""
        shape = (self._layers * self._directions, batch_size, self._units)
        return [{"shape": shape, "__layout__": "LNC", "dtype": self._dtype}] * state_count(
            self._mode
        )

    def begin_state(
        self, batch_size: Dim = 0, func: Callable[..., Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Return states to begin with.

        Parameters
        ----------
        batch_size : int
        func : callable, optional
            ``func(shape, **kwargs)`` makes each; by default `nd.zeros`.
        **kwargs
            For ``func``, the context for instance.

        Returns
        -------
        list of array, shape (num_layers * directions, batch_size, hidden_size)
            The state, and of an LSTM the cell.
        """
        return make_states(type(self).__name__, self.state_info(batch_size), func, kwargs)

    def infer_shape(self, inputs: Any, *args: Any) -> None:
        """Take the size of the inputs from the data."""
        check_inputs(type(self).__name__, inputs, self._layout, None)
        for place, shapes in self._shapes(sizes(inputs)[2]).items():
            self._reg_params[f"{place}_i2h_weight"].shape = shapes.i2h_weight

    def forward(self, inputs: Any, states: Any = None, sequence_length: Any = None) -> Any:
        """Run over a sequence.

        Parameters
        ----------
        inputs : array, shape (T, N, C), or (N, T, C) in layout ``"NTC"``
        states : array or list of array, shape (num_layers * directions, N, hidden_size), optional
            By default zeros.
        sequence_length : array, shape (N,), optional
            Of a layer with ``use_sequence_length``: the steps of each sequence.

        Returns
        -------
        outputs : array, shape (T, N, directions * hidden_size), or (N, T, ...)
            Alone where no states were given.
        states : list of array
            After the last step.
        """
        given = [] if states is None else _listed(states)
        self._check_lengths(sequence_length)
        composed = is_symbol(inputs)
        if not composed:
            check_inputs(self.name, inputs, self._layout, self._reg_params["l0_i2h_weight"])
        x = F.swapaxes(inputs, 0, 1) if self._layout == "NTC" else inputs
        run = self._composed if composed else self._run
        outputs, ends = run(x, given, sequence_length)
        outputs = F.swapaxes(outputs, 0, 1) if self._layout == "NTC" else outputs
        return outputs if states is None else (outputs, ends)

    def _run(self, x: Any, states: list[Any], lengths: Any) -> tuple[Any, list[Any]]:
        if states:
            (info, *_) = self.state_info(dims(x)[1])
            self._check_count(states)
            check_states(self.name, states, info["shape"])
        layers = [
            [Weights(*(self._reg_params[f"{side}{number}_{kind}"].data()
                       for kind in Weights._fields))
             for side in "lr"[: self._directions]]
            for number in range(self._layers)
        ]  # fmt: skip
        return run_layers(x, layers, states, self._mode, self._dropout, lengths)

    def _check_count(self, states: Sequence[Any]) -> None:
        count = state_count(self._mode)
        if len(states) != count:
            raise ArgumentError(
                f"{self.name} takes {count} array{'s' * (count > 1)} of states, got {len(states)}",
                remedy="Pass what begin_state or the call before returned.",
                where=user_location(),
            )

    def _check_lengths(self, lengths: Any) -> None:
        if (lengths is not None) != self._lengths:
            raise ArgumentError(
                f"{self.name} got {'no ' * (lengths is None)}sequence_length, it was made with "
                f"use_sequence_length={self._lengths}",
                remedy="Give both or neither.",
                where=user_location(),
            )

    def _composed(self, x: Any, states: list[Any], lengths: Any) -> tuple[Any, list[Any]]:
        """Return outputs and states as Symbols: one node, its parameters joined to a vector."""
        names = [f"{side}{n}" for n in range(self._layers) for side in "lr"[: self._directions]]
        parts = [
            F.reshape(self._reg_params[f"{name}_{side}_{kind}"].data(), shape=(-1,))
            for kind in ("weight", "bias") for name in names for side in ("i2h", "h2h")
        ]  # fmt: skip
        states = states or self.begin_state(func=zeros_beside(x, 1))
        given = dict(zip(("state", "state_cell"), states))
        if lengths is not None:
            given["sequence_length"] = lengths
        found = F.RNN(
            x, F.concat(*parts, dim=0), state_size=self._units, num_layers=self._layers,
            bidirectional=self._directions == 2, mode=self._mode, p=self._dropout,
            state_outputs=True, use_sequence_length=self._lengths, **given,
        )  # fmt: skip
        return found[0], [found[n + 1] for n in range(state_count(self._mode))]


def _listed(states: Any) -> list[Any]:
    return list(states) if isinstance(states, (list, tuple)) else [states]


class RNN(_Layer):
    """Layers of ``h[t] = activation(W x[t] + b + U h[t - 1] + c)``.

    Parameters
    ----------
    hidden_size : int
        Units of each layer.
    num_layers : int
    activation : {"relu", "tanh"}
    layout : {"TNC", "NTC"}
        Of inputs and outputs: time, batch, channels. States are always (layers, batch, units).
    dropout : float
        Probability with which inputs of every layer but the first are dropped in training.
    bidirectional : bool
        Every layer also goes from the last step to the first; outputs are joined.
    input_size : int
        0 is what the first data has.
    i2h_weight_initializer, h2h_weight_initializer : Initializer or str, optional
        Of W and U.
    i2h_bias_initializer, h2h_bias_initializer : Initializer or str
        Of b and c.
    dtype : str
    use_sequence_length : bool
        Whether calls get the length of each sequence.

    Examples
    --------
    >>> from graphc import nd
    >>> from graphc.gluon import rnn
    >>> layer = rnn.RNN(4, num_layers=2)
    >>> layer.initialize()
    >>> outputs, states = layer(nd.ones((5, 3, 10)), layer.begin_state(batch_size=3))
    >>> outputs.shape, states[0].shape
    ((5, 3, 4), (2, 3, 4))
    """

    def __init__(
        self, hidden_size: int, num_layers: int = 1, activation: str = "relu",
        layout: str = "TNC", dropout: float = 0, bidirectional: bool = False,
        i2h_weight_initializer: Any = None, h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros", h2h_bias_initializer: Any = "zeros",
        input_size: int = 0, dtype: Any = "float32", use_sequence_length: bool = False,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        initializers = Weights(
            i2h_weight_initializer, h2h_weight_initializer, i2h_bias_initializer,
            h2h_bias_initializer,
        )  # fmt: skip
        super().__init__(
            "rnn_" + chosen("activation", activation, ("relu", "tanh")), hidden_size, num_layers,
            layout, dropout, bidirectional, input_size, initializers, dtype, use_sequence_length,
            **kwargs,
        )  # fmt: skip


class LSTM(_Layer):
    """Layers of long short-term memory (Hochreiter and Schmidhuber 1997).

    With ``[i f g o] = W x[t] + b + U h[t - 1] + c``, cells are ``s[t] = sigmoid(f) s[t - 1] +
    sigmoid(i) tanh(g)`` and states ``h[t] = sigmoid(o) tanh(s[t])``.

    Parameters
    ----------
    hidden_size, num_layers, layout, dropout, bidirectional, input_size, dtype
        As of :class:`RNN`.
    i2h_weight_initializer, h2h_weight_initializer : Initializer or str, optional
    i2h_bias_initializer, h2h_bias_initializer : Initializer or str
        ``init.LSTMBias(1.0)`` begins with open forget gates.
    use_sequence_length : bool
        As of :class:`RNN`.

    Notes
    -----
    doi:10.1162/neco.1997.9.8.1735
    """

    mode = "lstm"

    def __init__(
        self, hidden_size: int, num_layers: int = 1, layout: str = "TNC", dropout: float = 0,
        bidirectional: bool = False, input_size: int = 0, i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None, i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros", dtype: Any = "float32",
        use_sequence_length: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        initializers = Weights(
            i2h_weight_initializer, h2h_weight_initializer, i2h_bias_initializer,
            h2h_bias_initializer,
        )  # fmt: skip
        super().__init__(
            self.mode, hidden_size, num_layers, layout, dropout, bidirectional, input_size,
            initializers, dtype, use_sequence_length, **kwargs,
        )  # fmt: skip


class GRU(LSTM):
    """Layers of gated recurrent units (Cho et al. 2014), the reset gate behind the product.

    With ``[r z n] = W x[t] + b`` and ``[r' z' n'] = U h[t - 1] + c``, ``h[t] = (1 - z) n + z
    h[t - 1]``, where ``z = sigmoid(z + z')`` and ``n = tanh(n + sigmoid(r + r') n')``.

    Parameters
    ----------
    hidden_size, num_layers, layout, dropout, bidirectional, input_size, dtype
        As of :class:`RNN`.
    i2h_weight_initializer, h2h_weight_initializer : Initializer or str, optional
    i2h_bias_initializer, h2h_bias_initializer : Initializer or str
    use_sequence_length : bool
        As of :class:`RNN`.

    Notes
    -----
    doi:10.3115/v1/D14-1179
    """

    mode = "gru"

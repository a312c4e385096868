"""Fully connected layers, dropout, embedding and small helpers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from graphc.errors import ArgumentError, ShapeError, UnknownNameError, user_location
from graphc.frontend.gluon.block import Block
from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.hybrid_block import HybridBlock
from graphc.frontend.gluon.input_shapes import shown, sizes
from graphc.frontend.gluon.nn.activations import Activation
from graphc.frontend.ops.operator import dims
from graphc.ir.dim import product
from graphc.ir.ops import indexing
from graphc.ir.sizes import known_size, unify


class Dense(HybridBlock):
    """A fully connected layer, ``activation(x @ weight.T + bias)``.

    Parameters
    ----------
    units : int
        Number of outputs.
    activation : str, optional
        As of :class:`Activation`.
    use_bias : bool
    flatten : bool
        Join all axes but the first; otherwise the layer works on the last one.
    dtype : str
    weight_initializer, bias_initializer : Initializer or str, optional
    in_units : int
        Number of inputs; 0 is what the first data has.
    """

    def __init__(
        self, units: int, activation: str | None = None, use_bias: bool = True,
        flatten: bool = True, dtype: Any = "float32", weight_initializer: Any = None,
        bias_initializer: Any = "zeros", in_units: int = 0, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._units, self._flatten = positive("units", units), bool(flatten)
        with self.name_scope():
            self.weight = self.params.get(
                "weight", shape=(units, in_units), dtype=dtype, init=weight_initializer,
                allow_deferred_init=True,
            )  # fmt: skip
            self.bias = (
                self.params.get("bias", shape=(units,), dtype=dtype, init=bias_initializer)
                if use_bias else None
            )  # fmt: skip
            self.act = Activation(activation, prefix=f"{activation}_") if activation else None

    def __repr__(self) -> str:
        inputs = (self.weight.shape or (0, 0))[1] or None
        act = f"Activation({self.act._act_type})" if self.act else "linear"
        return f"Dense({inputs} -> {self._units}, {act})"

    def infer_shape(self, x: Any, *args: Any) -> None:
        """Take the number of inputs from the data."""
        shape = sizes(x)
        width = 1
        for size in shape[1:] if self._flatten else shape[-1:]:
            width *= size
        self.weight.shape = (self._units, width)

    def forward(self, x: Any) -> Any:
        """Multiply, add the bias, apply the activation."""
        weight = self.weight.data()
        if hasattr(x, "type"):
            self._check_width(x, weight)
        bias = None if self.bias is None else self.bias.data()
        found = F.FullyConnected(
            x, weight, bias, num_hidden=self._units, no_bias=bias is None, flatten=self._flatten
        )
        return found if self.act is None else self.act(found)

    def _check_width(self, x: Any, weight: Any) -> None:
        shape, width = dims(x), dims(weight)[1]
        if not shape:
            raise ShapeError("Dense got a 0-d array", where=user_location())
        given = product(shape[1:]) if self._flatten else shape[-1]
        if unify(given, width) is None:
            joined = " (all axes but the first joined)" if self._flatten and len(shape) > 2 else ""
            raise ShapeError(
                f"{self.name} takes {width} inputs, got {known_size(given)}{joined} from data of "
                f"shape {shown(shape)}",
                remedy=f"Its weight is {shown(dims(weight))}. Reshape the data, or make the "
                f"layer with in_units={known_size(given)}.",
                where=user_location(),
            )


def positive(name: str, value: Any) -> int:
    """Return a size given by the user; raise ArgumentError unless it is a positive integer."""
    try:
        size = value.__index__()
    except (AttributeError, TypeError):
        size = 0
    if size <= 0 or isinstance(value, bool):
        raise ArgumentError(
            f"{name} must be a positive integer, got {value!r}", where=user_location()
        )
    return int(size)


class Dropout(HybridBlock):
    """In training, zeroes elements at random and scales the others up.

    Parameters
    ----------
    rate : float
        Probability of zero.
    axes : sequence of int
        Axes along which all elements share one draw.
    """

    def __init__(self, rate: float, axes: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        given: object = rate
        if not isinstance(given, Real) or not 0 <= rate <= 1:
            raise ArgumentError(
                f"the rate of Dropout is a probability, got {rate!r}",
                remedy="Pass the share of elements to drop, between 0 and 1: Dropout(0.5).",
                where=user_location(),
            )
        self._rate, self._axes = float(rate), tuple(axes)

    def __repr__(self) -> str:
        return f"Dropout(p = {self._rate}, axes={self._axes})"

    def forward(self, x: Any) -> Any:
        """Drop elements in training."""
        return F.Dropout(x, p=self._rate, axes=self._axes)


class Embedding(HybridBlock):
    """Rows of a matrix by number.

    Parameters
    ----------
    input_dim : int
        Number of rows.
    output_dim : int
        Size of a row.
    dtype : str
    weight_initializer : Initializer or str, optional
    sparse_grad : bool
        Let optimizers with ``lazy_update`` leave rows alone whose gradient is zero. Where the
        update of such a row changes nothing, as with plain SGD, it makes no difference: a
        `TrainStep` touches no other rows than those of the batch anyway. The gradient itself,
        where it is written, is an array of all rows.

    Raises
    ------
    IndexRangeError
        When called with an index outside ``0 .. input_dim - 1``.
    """

    def __init__(
        self, input_dim: int, output_dim: int, dtype: Any = "float32",
        weight_initializer: Any = None, sparse_grad: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._rows, self._width = positive("input_dim", input_dim), positive(
            "output_dim", output_dim
        )
        with self.name_scope():
            self.weight = self.params.get(
                "weight", shape=(input_dim, output_dim), dtype=dtype, init=weight_initializer,
                allow_deferred_init=True, grad_stype="row_sparse" if sparse_grad else "default",
            )  # fmt: skip

    def __repr__(self) -> str:
        return f"Embedding({self._rows} -> {self._width}, {self.weight._dtype.name})"

    def forward(self, x: Any) -> Any:
        """Return the row of each index."""
        if not hasattr(x, "type"):
            return F.Embedding(
                x, self.weight.data(), input_dim=self._rows, output_dim=self._width
            )
        whole = indexing.check_index(x, self._rows, "embedding index")
        return F.take(self.weight.data(), whole, axis=0)


class Flatten(HybridBlock):
    """Joins all axes but the first."""

    def __repr__(self) -> str:
        return "Flatten"

    def forward(self, x: Any) -> Any:
        """Return a matrix."""
        return F.flatten(x)


class Identity(HybridBlock):
    """Returns its input."""

    def forward(self, x: Any) -> Any:
        """Return the input."""
        return x


class Lambda(Block):
    """A function as a Block.

    Parameters
    ----------
    function : callable or str
        Of arrays; a name stands for the function of `nd`.
    """

    def __init__(self, function: Callable[..., Any] | str, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self._function, self._function_name = _function_of(function)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._function_name})"

    def forward(self, *args: Any) -> Any:
        """Call the function."""
        return self._function(*args)


class HybridLambda(HybridBlock):
    """A function as a HybridBlock.

    Parameters
    ----------
    function : callable or str
        ``function(F, x, ...)``; a name stands for the function of `nd`.
    """

    def __init__(self, function: Callable[..., Any] | str, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        found, self._function_name = _function_of(function)
        named = isinstance(function, str)
        self._function = (lambda _, *args: found(*args)) if named else found

    __repr__ = Lambda.__repr__

    def forward(self, *args: Any) -> Any:
        """Call the function."""
        return self._function(F, *args)


def _function_of(function: Any) -> tuple[Callable[..., Any], str]:
    if isinstance(function, str):
        try:
            return getattr(F, function), function
        except AttributeError as error:
            raise UnknownNameError(str(error), where=user_location()) from None
    if not callable(function):
        raise ArgumentError(
            f"a Lambda takes a function or the name of one, got {type(function).__name__}",
            where=user_location(),
        )
    return function, getattr(function, "__name__", repr(function))

"""The functions of `graphc.sym` that are not shared with `graphc.nd`: what begins a graph.

A layer called without its data makes a variable for it, so that it can be composed later.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from graphc.errors import ArgumentError, DTypeError, user_location
from graphc.frontend import creation, sampling
from graphc.frontend.ops import indexing, loss, nn, norm, rnn
from graphc.frontend.ops.operator import element_type
from graphc.frontend.symbol.compose import checked_attributes, compose_source, variable
from graphc.frontend.symbol.node import SOURCES, Entry
from graphc.frontend.symbol.symbol import Symbol, every_output

F = TypeVar("F", bound=Callable[..., Any])


def var(
    name: str, attr: dict[str, str] | None = None, shape: Sequence[int] | None = None,
    lr_mult: float | None = None, wd_mult: float | None = None, dtype: Any = None,
    init: Any = None, stype: str | None = None, **kwargs: str,
) -> Symbol:  # fmt: skip
    """Return a variable: an array that is given when the Symbol is bound.

    Parameters
    ----------
    name : str
    attr : dict of str to str, optional
        Kept at the node.
    shape : tuple of int, optional
        0 or -1 is a size that is not known.
    lr_mult, wd_mult : float, optional
        What a trainer multiplies learning rate and weight decay by.
    dtype : optional
    init : str or Initializer, optional
    stype : str, optional
        Accepted as MXNet's; every array is dense.
    **kwargs : str
        Kept at the node; the names begin and end with two underscores.

    Raises
    ------
    ArgumentError
        For a name that is no string, and for other keywords.
    """
    if not isinstance(name, str) or not name:
        raise ArgumentError(
            f"a variable needs a name, got {name!r}", remedy='Write sym.var("data").',
            where=user_location(),
        )  # fmt: skip
    for key in kwargs:
        if not (key.startswith("__") and key.endswith("__")):
            raise ArgumentError(
                f"var has no argument {key!r}",
                remedy=f"Attributes are called __{key}__, or are given as attr={{...}}.",
                where=user_location(),
            )
    params = {
        "shape": None if shape is None else tuple(int(d) for d in shape),
        "dtype": None if dtype is None else element_type(dtype),
        "lr_mult": lr_mult,
        "wd_mult": wd_mult,
        "init": init,
    }
    return every_output(variable(name, params, checked_attributes({**(attr or {}), **kwargs})))


Variable = var


def Group(symbols: Sequence[Symbol]) -> Symbol:
    """Return the outputs of several Symbols as one Symbol.

    Raises
    ------
    DTypeError
        For anything but Symbols.
    """
    heads: list[Entry] = []
    for symbol in symbols:
        if not isinstance(symbol, Symbol):
            raise DTypeError(
                f"Group takes a list of Symbols, got a {type(symbol).__name__}",
                where=user_location(),
            )
        heads += symbol._heads
    if not heads:
        raise ArgumentError("Group got no Symbols", where=user_location())
    return Symbol(heads)


def _composing(function: F) -> F:
    """Return a shared function that composes whatever its arguments are."""
    record = function.operator  # type: ignore[attr-defined]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Symbol:
        return Symbol.__graphc_compose__(record, args, kwargs)

    return call  # type: ignore[return-value]


FullyConnected = _composing(nn.FullyConnected)
Convolution = _composing(nn.Convolution)
Deconvolution = _composing(nn.Deconvolution)
Pooling = _composing(nn.Pooling)
Activation = _composing(nn.Activation)
LeakyReLU = _composing(nn.LeakyReLU)
Dropout = _composing(nn.Dropout)
SoftmaxActivation = _composing(nn.SoftmaxActivation)
BatchNorm = _composing(norm.BatchNorm)
LayerNorm = _composing(norm.LayerNorm)
InstanceNorm = _composing(norm.InstanceNorm)
GroupNorm = _composing(norm.GroupNorm)
Embedding = _composing(indexing.Embedding)
RNN = _composing(rnn.RNN)
softmax_cross_entropy = _composing(loss.softmax_cross_entropy)


def _source(op: str, function: F) -> F:
    """Return a function without array operands as one that composes a node."""
    SOURCES[op] = function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Symbol:
        name = kwargs.pop("name", None)
        return every_output(compose_source(op, function, name, args, kwargs))

    return call  # type: ignore[return-value]


zeros = _source("zeros", creation.zeros)
ones = _source("ones", creation.ones)
full = _source("full", creation.full)
arange = _source("arange", creation.arange)
eye = _source("eye", creation.eye)
linspace = _source("linspace", creation.linspace)

uniform = _source("random_uniform", sampling.uniform)
normal = _source("random_normal", sampling.normal)
randint = _source("random_randint", sampling.randint)
random_uniform, random_normal, random_randint = uniform, normal, randint

"""What the tests of mistakes share: what an error must say, and the ways a program is run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import graphc
from graphc import gluon, nd
from graphc.errors import GraphcError

MARK = "# here"

FUNCTIONS = pytest.mark.parametrize("mode", ["imperative", "compile"])
BLOCKS = pytest.mark.parametrize("mode", ["imperative", "hybridized"])
NETWORKS = pytest.mark.parametrize("mode", ["imperative", "hybridized", "TrainStep"])


@contextmanager
def mistake(kind: type[GraphcError], *fragments: str, remedy: str = "") -> Iterator[None]:
    """Expect an error that names the line marked ``# here``, and says what is given.

    Parameters
    ----------
    kind : type
        Of the error.
    *fragments : str
        What its text names: layer or op, sizes, names, the nearest valid name.
    remedy : str
        A part of the remedy, of which there must be one.
    """
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None and frame.f_back.f_back is not None
    place = marked_line(frame.f_back.f_back)
    with pytest.raises(kind) as caught:
        yield
    text = str(caught.value)
    assert place in text, f"no {place} in: {text}"
    for fragment in fragments:
        assert fragment in text, f"no {fragment!r} in: {text}"
    assert caught.value.remedy, f"no remedy in: {text}"
    assert remedy in caught.value.remedy, f"no {remedy!r} in the remedy of: {text}"


def marked_line(frame: FrameType) -> str:
    """Return the file and line of the mark in the function that a frame runs."""
    lines, first = inspect.getsourcelines(frame.f_code)
    marked = [first + number for number, line in enumerate(lines) if line.rstrip().endswith(MARK)]
    assert len(marked) == 1, f"{frame.f_code.co_name} needs one line that ends in {MARK}"
    return f"{Path(frame.f_code.co_filename).name}:{marked[0]}"


def as_function(mode: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of arrays as it is, or compiled."""
    return graphc.compile(function) if mode == "compile" else function


def as_network(mode: str, net: Any, loss: Callable[..., Any] = nd.abs, start: bool = True) -> Any:
    """Return something to call with a batch: a network, hybridized or not, or its TrainStep."""
    if start:
        net.initialize()
    if mode == "TrainStep":
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"momentum": 0.9})
        return gluon.TrainStep(net, loss, trainer)
    net.hybridize(mode == "hybridized")
    return net


def values(net: Any) -> dict[str, Any]:
    """Return a copy of all parameters, None for those whose shape is not known yet."""
    return {
        name: parameter.data().asnumpy().copy() if parameter.initialized else None
        for name, parameter in net.collect_params().items()
    }


def unchanged(net: Any, before: dict[str, Any]) -> bool:
    """Return whether all parameters are what they were."""
    after = values(net)
    return all(
        (after[name] is None) == (old is None) and (old is None or (after[name] == old).all())
        for name, old in before.items()
    )

"""The ``F`` of ``hybrid_forward``: the functions of `nd`, which take Symbols as well."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from graphc.errors import nearest
from graphc.frontend import creation, sampling
from graphc.frontend.ops import (
    attention,
    elementwise,
    indexing,
    linalg,
    loss,
    nn,
    norm,
    reduce,
    rnn,
    shape,
)


class Functions:
    """Functions of modules under one name.

    Parameters
    ----------
    name : str
    *modules : module
        Searched in order.
    """

    def __init__(self, name: str, *modules: ModuleType, **parts: Any) -> None:
        self._name, self._modules = name, modules
        self.__dict__.update(parts)

    def __repr__(self) -> str:
        return f"<functions {self._name}>"

    def __getattr__(self, name: str) -> Any:
        for module in self._modules:
            if not name.startswith("_") and hasattr(module, name):
                return getattr(module, name)
        known = [n for m in self._modules for n in vars(m) if not n.startswith("_")]
        raise AttributeError(f"{self._name} has no function {name!r}.{nearest(name, known)}")


_OPERATORS = (nn, norm, rnn, attention, elementwise, reduce, shape, linalg, indexing, loss)

F = Functions(
    "F", *_OPERATORS, creation, sampling,
    random=sampling,
    linalg=Functions("F.linalg", linalg),
    contrib=Functions("F.contrib", *_OPERATORS),
)  # fmt: skip
"""What ``hybrid_forward`` gets as ``F``."""

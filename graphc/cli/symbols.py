"""Symbols for ``graphc dump``: bound to zeros, since only types and shapes matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, nearest
from graphc.frontend.symbol.executor import Executor
from graphc.frontend.symbol.symbol import Symbol
from graphc.ir.types import TensorType, as_dtype

Given = Sequence[tuple[str, TensorType]]


def bound_to_zeros(symbol: Symbol, name: str, given: Given) -> Executor:
    """Return a Symbol with arrays of zeros, whose shapes follow from those given.

    Parameters
    ----------
    symbol : Symbol
    name : str
        Of the object in its file.
    given : sequence of (str, TensorType)
        Types of variables by name; those without a name are of the arguments in their order.

    Raises
    ------
    ArgumentError
        For a name that is no variable, and when the shape of a variable does not follow.
    """
    arguments, states = symbol.list_arguments(), symbol.list_auxiliary_states()
    known = [*arguments, *states]
    kinds = {label: kind for label, kind in given if label}
    for wrong in [label for label in kinds if label not in known]:
        raise ArgumentError(
            f"{name} has no variable {wrong!r}.{nearest(wrong, known)}",
            remedy=f"Its variables are {', '.join(known[:20])}.",
        )
    rest = (argument for argument in arguments if argument not in kinds)
    for kind in [kind for label, kind in given if not label]:
        label = next(rest, None)
        if label is None:
            raise ArgumentError(f"{name} has {len(arguments)} arguments, --shape gives more")
        kinds[label] = kind
    shapes: dict[str, Any] = {label: kind.shape for label, kind in kinds.items()}
    found, _, kept = symbol.infer_shape_partial(**shapes)
    pairs = zip(known, (*found, *kept), strict=True)
    unknown = [label for label, shape in pairs if not shape or 0 in shape]
    if unknown:
        raise ArgumentError(
            f"the shapes of the variables of {name} ({', '.join(unknown[:8])}) are not known",
            remedy=f"Give them, --shape {unknown[0]}=f32[...]; those of parameters follow from "
            "their layer's data.",
        )
    dtypes = {label: kind.dtype for label, kind in kinds.items()}
    return symbol.simple_bind(type_dict=dtypes, **shapes)


def types_of(example: Any, name: str) -> list[tuple[str, TensorType]]:
    """Return the types of example inputs: a dict of arrays by name, or arrays in order."""
    if isinstance(example, Mapping):
        pairs = list(example.items())
    else:
        listed = example if isinstance(example, (list, tuple)) else [example]
        pairs = [("", array) for array in listed]
    for label, array in pairs:
        if not hasattr(array, "shape"):
            raise ArgumentError(
                f"the example input {label or 'of ' + name} is a {type(array).__name__}, no array"
            )
    return [(label, TensorType(as_dtype(a.dtype), tuple(np.shape(a)))) for label, a in pairs]


def parameters(executor: Executor) -> frozenset[int]:
    """Return the numbers of the arguments that are parameters of layers."""
    fixed = executor.programs.fixed[: len(executor.arg_arrays)]
    return frozenset(number for number, parameter in enumerate(fixed) if parameter)

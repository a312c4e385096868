"""What Blocks are called with: as arrays, their device, their sizes, sizes that do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError, user_location
from graphc.frontend.array import Array
from graphc.frontend.context import Context, current_context
from graphc.frontend.ops.operator import as_operand, dims
from graphc.frontend.tree import flatten, unflatten
from graphc.ir.sizes import known_size
from graphc.ir.types import shape_text


def as_arrays(tree: Any) -> Any:
    """Return lists, tuples and dicts with their NumPy arrays as NDArrays."""
    if not _has_numpy(tree):
        return tree
    leaves, structure = flatten(tree, lambda x: isinstance(x, (np.ndarray, Array)))
    return unflatten(structure, [x if isinstance(x, Array) else as_operand(x) for x in leaves])


def _has_numpy(tree: Any) -> bool:
    if isinstance(tree, Array):
        return False
    if isinstance(tree, (list, tuple)):
        return any(map(_has_numpy, tree))
    if isinstance(tree, dict):
        return any(map(_has_numpy, tree.values()))
    return isinstance(tree, np.ndarray)


def elsewhere(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Context | None:
    """Return the device of the first input that is on one, or None where it is the current one.

    A Block runs with that as the current one: it says which array of a Parameter is meant, and
    where ``forward`` makes new arrays.
    """
    found = _first_device(args) or (_first_device(kwargs.values()) if kwargs else None)
    return None if found is current_context() else found


def _first_device(inputs: Iterable[Any]) -> Context | None:
    for x in inputs:
        if isinstance(x, Array):
            found = x._storage.context
        else:
            found = _first_device(x) if isinstance(x, (list, tuple)) else None
        if found is not None:
            return found
    return None


def sizes(x: Any) -> tuple[int, ...]:
    """Return the sizes of an input, in a trace those of the call being traced."""
    found = tuple(known_size(d) for d in dims(x))
    assert all(size is not None for size in found)
    return found  # type: ignore[return-value]


def shown(shape: Sequence[Any]) -> str:
    """Return a shape as text, in a trace with the sizes of the call being traced."""
    return shape_text([known_size(d) for d in shape])  # type: ignore[misc]


def expect_axes(layer: str, x: Any, least: int, layout: str) -> None:
    """Raise ShapeError where an input has too few axes for a layer."""
    if len(dims(x)) < least:
        raise ShapeError(
            f"{layer} expects {layout}, got shape {shown(dims(x))}",
            remedy="Add the missing axes with reshape or expand_dims.",
            where=user_location(),
        )

"""Nested lists, tuples and dicts of arrays as a flat list and a structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LEAF = "*"
"""Stands for a leaf in a structure."""


def flatten(tree: Any, is_leaf: Callable[[Any], bool]) -> tuple[list[Any], Any]:
    """Return the leaves in order, and the structure, which is hashable if the rest of it is.

    Parameters
    ----------
    tree : object
        Lists, tuples and dicts, nested; what is neither these nor a leaf is part of the structure.
    is_leaf : callable
    """
    leaves: list[Any] = []
    return leaves, _structure(tree, is_leaf, leaves)


def _structure(tree: Any, is_leaf: Callable[[Any], bool], leaves: list[Any]) -> Any:
    if is_leaf(tree):
        leaves.append(tree)
        return LEAF
    if isinstance(tree, (list, tuple)):
        kind = "list" if isinstance(tree, list) else "tuple"
        return (kind, *(_structure(part, is_leaf, leaves) for part in tree))
    if isinstance(tree, dict):
        return ("dict", *((key, _structure(tree[key], is_leaf, leaves)) for key in tree))
    return ("static", tree)


def unflatten(structure: Any, leaves: list[Any]) -> Any:
    """Return the tree of a structure, taking leaves from the front of the list."""
    if structure == LEAF:
        return leaves.pop(0)
    kind, *parts = structure
    if kind == "list":
        return [unflatten(part, leaves) for part in parts]
    if kind == "tuple":
        return tuple(unflatten(part, leaves) for part in parts)
    if kind == "dict":
        return {key: unflatten(part, leaves) for key, part in parts}
    return parts[0]

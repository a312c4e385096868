"""Gradients of what was recorded, into the arrays they are wanted for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AutogradError, ShapeError, user_location
from graphc.frontend.array import Array, Storage, Unplaced, common, mode
from graphc.frontend.memory import accumulate, converted, copied, overwrite
from graphc.frontend.tape import Leaf, key_of, ones_like, pull_back

GRAD_REQUESTS = ("write", "add", "null")


def detach_from_tape(array: Array) -> None:
    """Forget how an array was computed."""
    array._entry, array._index, array._leaf = None, 0, None


def constant_of(array: Array) -> Array:
    """Return an array as a vjp takes it: NumPy's semantics, the same memory and tape entry."""
    found = Array(array._array, array._storage)
    found._entry, found._index, found._leaf = array._entry, array._index, array._leaf
    return found


def cotangents_of(heads: Sequence[Array], given: Any) -> list[Array]:
    """Return the head gradients, ones where none is given.

    Raises
    ------
    ShapeError
        When one does not have the shape of its head.
    """
    if given is None:
        return [ones_like(head) for head in heads]
    listed = [given] if isinstance(given, (Array, np.ndarray)) else list(given)
    if len(listed) != len(heads):
        raise ArgumentError(
            f"{len(listed)} head gradients were given for {len(heads)} heads",
            where=user_location(),
        )
    return [_cotangent(head, gradient) for head, gradient in zip(heads, listed, strict=True)]


def _cotangent(head: Array, gradient: Any) -> Array:
    if gradient is None:
        return ones_like(head)
    found = gradient if isinstance(gradient, Array) else Array(np.asarray(gradient), Unplaced())
    common((head, found), "head and its gradient, number")
    if found.shape != head.shape:
        raise ShapeError(
            f"a head gradient of shape {found.shape} does not fit a head of shape {head.shape}",
            remedy="They must be equal.",
            where=user_location(),
        )
    found = constant_of(found)
    if found.type.dtype is not head.type.dtype:
        array = converted(found._array, head._array.dtype)
        found = Array(array, Storage.on(found._storage.context))
    return found


def backward(
    heads: Sequence[Array], head_grads: Any = None, retain_graph: bool = False,
    train_mode: bool = True,
) -> None:  # fmt: skip
    """Compute the gradients of the heads' sum for every array with `attach_grad`.

    Parameters
    ----------
    heads : sequence of Array
    head_grads : sequence of Array, optional
        Gradient of each head; by default ones.
    retain_graph : bool
        Keep the record for another pass.
    train_mode : bool
        Whether operations behave as in training.
    """
    for head in heads:
        if head._entry is None:
            raise AutogradError(
                f"backward() on an array of shape {head.shape} that was not computed inside "
                "autograd.record() from one that has attach_grad()",
                remedy="Call attach_grad() on what to differentiate by (Parameters have it), then "
                "compute inside `with autograd.record():` by operations that have a gradient; "
                "argmax, comparisons and rounding have none.",
                where=user_location(),
            )
    arriving = _pulled(heads, head_grads, retain_graph, False, train_mode, frozenset(), True)
    for key, gradient in arriving.items():
        if isinstance(key, Leaf) and key.owner is not None:
            _store(key.owner, gradient)


def _pulled(
    heads: Sequence[Array], head_grads: Any, retain: bool, create_graph: bool, training: bool,
    stops: frozenset[Any], write: bool = False,
) -> dict[Any, Array]:  # fmt: skip
    cotangents = cotangents_of(heads, head_grads)
    previous, mode.training = mode.training, training
    try:
        return pull_back(
            [constant_of(head) for head in heads],
            cotangents,
            retain=retain,
            create_graph=create_graph,
            stops=stops,
            write=write,
        )
    finally:
        mode.training = previous


def _store(owner: Any, gradient: Array) -> None:
    """Write a gradient as the owner's ``grad_req`` says; the grad array stays the same object."""
    target = owner._grad
    if target is None:
        return
    if owner._grad_req == "add":
        accumulate(target._array, gradient._array)
    elif gradient._array is not target._array:
        overwrite(target._array, gradient._array)
    target._storage.touch()


def gradients(
    heads: Sequence[Array], variables: Sequence[Array], head_grads: Any, retain: bool,
    create_graph: bool, training: bool,
) -> list[Any]:  # fmt: skip
    """Return the gradients of the heads' sum by variables, which stay as they are.

    Raises
    ------
    AutogradError
        When the heads do not depend on a variable.
    """
    keys = [key_of(variable) for variable in variables]
    stops = frozenset(key for key in keys if key is not None)
    arriving = _pulled(heads, head_grads, retain, create_graph, training, stops)
    return [
        _returned(variable, None if key is None else arriving.get(key), number)
        for number, (variable, key) in enumerate(zip(variables, keys, strict=True))
    ]


def _returned(variable: Array, gradient: Array | None, number: int) -> Any:
    if gradient is None:
        raise AutogradError(
            f"the heads do not depend on variable {number}, of shape {variable.shape}",
            remedy="Call attach_grad() on it before autograd.record(), and use it there.",
            where=user_location(),
        )
    context = variable._storage.context
    found = type(variable)(copied(gradient._array, context), Storage.on(context))
    found._entry, found._index, found._leaf = gradient._entry, gradient._index, gradient._leaf
    return found

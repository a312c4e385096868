"""Gradients of functions of arrays: ``grad`` and ``value_and_grad``, to any order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError, user_location
from graphc.frontend.array import Array, Storage, Unplaced, mode
from graphc.frontend.backward import constant_of
from graphc.frontend.memory import copied, filled
from graphc.frontend.tape import Leaf, key_of, ones_like, pull_back, recording
from graphc.frontend.tracer import Tracer, current_trace
from graphc.frontend.tree import flatten, unflatten
from graphc.ir.ops.basic import copy
from graphc.ir.ops.creation import full_like
from graphc.ir.types import as_dtype
from graphc.passes.differentiate import gradients

Function = Callable[..., Any]


def grad(fn: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """Return a function that computes the gradient of ``fn``.

    Parameters
    ----------
    fn : callable
        Returns one number (an array with one element); takes arrays, and lists, tuples and dicts
        of them.
    argnums : int or sequence of int
        Which positional argument(s) to differentiate by.
    has_aux : bool
        ``fn`` returns a pair, of which the second is handed on: the result is ``(gradient, aux)``.

    Returns
    -------
    callable
        Takes what ``fn`` takes; the result has the structure of the argument, for several a tuple.

    Examples
    --------
    >>> import graphc
    >>> from graphc import nd
    >>> slope = graphc.grad(lambda x: (x * x * x).sum())
    >>> slope(nd.array([2.0])).asscalar()
    np.float32(12.0)
    >>> graphc.grad(lambda x: slope(x).sum())(nd.array([2.0])).asscalar()
    np.float32(12.0)
    """
    both = value_and_grad(fn, argnums, has_aux)

    @functools.wraps(fn)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, found = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient


def value_and_grad(
    fn: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Function:
    """Return a function that computes ``fn`` and its gradient.

    Parameters
    ----------
    fn : callable
    argnums : int or sequence of int
    has_aux : bool
        As of :func:`grad`.

    Returns
    -------
    callable
        Gives ``(value, gradient)``, with ``has_aux`` ``((value, aux), gradient)``.
    """
    single = isinstance(argnums, int)
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(fn)
    def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        places = _places(numbers, args, fn)
        leaves, structure = flatten(tuple(args[i] for i in places), _is_array)
        _check_leaves(leaves, numbers)
        compute = _traced if current_trace() is not None else _recorded

        def run(inputs: list[Any]) -> Any:
            chosen = unflatten(structure, list(inputs))
            given = list(args)
            for place, argument in zip(places, chosen, strict=True):
                given[place] = argument
            return fn(*given, **kwargs)

        result, found = compute(run, leaves, has_aux)
        tree = unflatten(structure, found)
        return result, (tree[0] if single else tree)

    return both


def _is_array(x: Any) -> bool:
    return isinstance(x, (Array, Tracer, np.ndarray))


def _places(numbers: Sequence[int], args: Sequence[Any], fn: Function) -> list[int]:
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise ArgumentError(
                f"argnums {number} is out of range: {getattr(fn, '__name__', 'the function')} was "
                f"called with {len(args)} positional arguments",
                where=user_location(),
            )
    return [number % len(args) for number in numbers]


def _check_leaves(leaves: Sequence[Any], numbers: Sequence[int]) -> None:
    if not leaves:
        raise ArgumentError(
            f"argument {', '.join(map(str, numbers))} has no arrays to differentiate by",
            remedy="Pass arrays, or lists, tuples and dicts of them.",
            where=user_location(),
        )
    for leaf in leaves:
        dtype = as_dtype(leaf.dtype)
        if not dtype.floating:
            raise DTypeError(
                f"argument {', '.join(map(str, numbers))} holds {dtype.name}, which has no "
                "gradient",
                remedy='Pass floating-point arrays, x.astype("float32").',
                where=user_location(),
            )


def _head(result: Any, has_aux: bool) -> Any:
    """Return the one number of a result."""
    if has_aux and not (isinstance(result, tuple) and len(result) == 2):
        raise ArgumentError(
            "with has_aux=True the function returns a pair (value, aux)", where=user_location()
        )
    head = result[0] if has_aux else result
    shape = getattr(head, "shape", None)
    if shape is None or any(size != 1 for size in shape):
        raise ShapeError(
            "grad needs a function that returns one number, got "
            f"{type(head).__name__ if shape is None else f'an array of shape {shape}'}",
            remedy="Reduce the result, for example by .sum() or .mean().",
            where=user_location(),
        )
    return head


def _recorded(
    run: Callable[[list[Any]], Any], leaves: Sequence[Any], has_aux: bool
) -> tuple[Any, list[Any]]:
    """Run on the tape and go back over it."""
    outer = mode.recording
    with recording(True):
        inputs = [_fresh(leaf) for leaf in leaves]
        result = run(list(inputs))
    head = _head(result, has_aux)
    keys = [key_of(x) for x in inputs]
    found: dict[Any, Any] = {}
    if isinstance(head, Array) and head.on_tape:
        stops = frozenset(k for k in keys if k is not None)
        found = pull_back(
            [constant_of(head)], [ones_like(head)], retain=outer, create_graph=outer, stops=stops
        )
    return result, [_handed(x, found.get(k)) for x, k in zip(inputs, keys, strict=True)]


def _fresh(leaf: Any) -> Any:
    """Return a handle of its own for an argument: only what is computed from it counts."""
    if isinstance(leaf, np.ndarray):
        leaf = Array(leaf, Unplaced())
    if leaf.on_tape:
        return copy(leaf)
    found = type(leaf)(leaf._array, leaf._storage)
    found._leaf = Leaf()
    return found


def _handed(like: Any, gradient: Any) -> Any:
    context = like._storage.context
    if gradient is None:
        zeros = filled(like.shape, 0, like._array.dtype, context)
        return type(like)(zeros, Storage.on(context))
    found = type(like)(copied(gradient._array, context), Storage.on(context))
    found._entry, found._index, found._leaf = gradient._entry, gradient._index, gradient._leaf
    return found


def _traced(
    run: Callable[[list[Any]], Any], leaves: Sequence[Any], has_aux: bool
) -> tuple[Any, list[Any]]:
    """Differentiate the graph that is being traced."""
    inputs = [copy(_as_tracer(leaf)) for leaf in leaves]
    result = run(list(inputs))
    head = _head(result, has_aux)
    wrt = [x._value for x in inputs]
    found: Sequence[Any] = [None] * len(wrt)
    if isinstance(head, Tracer):
        found = gradients([head._value], [full_like(head._value, 1.0)], wrt)
    return result, [
        type(x).wrap(full_like(x._value, 0.0) if g is None else g)
        for x, g in zip(inputs, found, strict=True)
    ]


def _as_tracer(leaf: Any) -> Any:
    if isinstance(leaf, Tracer):
        return leaf
    trace = current_trace()
    assert trace is not None
    array = Array(leaf, Unplaced()) if isinstance(leaf, np.ndarray) else leaf
    return array.tracer_class.wrap(trace.current(array))

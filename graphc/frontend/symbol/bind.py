"""From a Symbol and arrays to an Executor: which array is which argument's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.errors import ArgumentError, BindError, ShapeError, nearest, user_location
from graphc.frontend.backward import GRAD_REQUESTS
from graphc.frontend.context import Context, usable
from graphc.frontend.ndarray import NDArray
from graphc.frontend.ops.operator import chosen
from graphc.frontend.symbol.executor import (
    Bound,
    Executor,
    settled_shape,
    unknown_name,
    zeros_on,
)
from graphc.frontend.symbol.infer import Inference, known_dtypes
from graphc.frontend.symbol.node import Node
from graphc.ir.types import shape_text

Arrays = Mapping[str, Any] | Sequence[Any] | None


def bind(
    bound: Bound, ctx: Any, args: Arrays, args_grad: Arrays, grad_req: Any, aux_states: Arrays
) -> Executor:
    """Return an executor over arrays.

    Parameters
    ----------
    bound : Bound
    ctx : Context
    args, aux_states : dict of str to NDArray, or list of NDArray
        One for each variable.
    args_grad : dict of str to NDArray, or list of NDArray, optional
        Where gradients are written; an argument that has none gets no gradient.
    grad_req : str, or dict or list of str
        ``"write"``, ``"add"`` or ``"null"``, for all arguments or for each.

    Raises
    ------
    BindError
        When arrays are missing, or are given for names that there are not.
    ShapeError
        When an array does not fit the node that takes it.
    """
    arguments = [node.name for node in bound.arguments]
    states = [node.name for node in bound.auxiliary]
    _split_by_kind(args, arguments, states)
    given = _named_arrays("argument", args, arguments, required=True)
    kept = _named_arrays("auxiliary state", aux_states, states, required=True)
    requests = grad_requests(grad_req, arguments)
    grads = _named_arrays("gradient", args_grad, arguments, required=False)
    found: dict[str, NDArray | None] = {
        name: grads.get(name) if requests[name] != "null" else None for name in arguments
    }
    for name, gradient in found.items():
        if gradient is not None and gradient.shape != given[name].shape:
            raise ShapeError(
                f"the gradient of {name!r} has shape {shape_text(gradient.shape)}, the argument "
                f"has {shape_text(given[name].shape)}",
                remedy="They must be equal.",
                where=user_location(),
            )
    slopes = {f"the gradient of {n}": g for n, g in found.items() if g is not None}
    arrays = {repr(name): array for name, array in {**given, **kept}.items()} | slopes
    return Executor(bound, _device(ctx, arrays), given, found, requests, kept)


def _device(ctx: Any, arrays: Mapping[str, NDArray]) -> Context:
    """Return the device that was asked for, where all arrays are; without one, that of these."""
    first = next((a._storage.context for a in arrays.values()), None)
    device = usable(first if ctx is None else ctx)
    for name, array in arrays.items():
        if array._storage.context not in (device, None):
            raise BindError(
                f"{name} is on {array.context}, the executor on {device}",
                remedy=f"Move it with .as_in_context(graphc.{device}), or bind to the other "
                "device.",
                where=user_location(),
            )
    return device


def _split_by_kind(args: Arrays, arguments: Sequence[str], states: Sequence[str]) -> None:
    """Raise for an auxiliary state among the arguments."""
    if isinstance(args, Mapping):
        wrong = next((name for name in args if name in states and name not in arguments), None)
        if wrong is not None:
            raise BindError(
                f"{wrong!r} is an auxiliary state, no argument",
                remedy=f"Give it as aux_states={{{wrong!r}: ...}}.",
                where=user_location(),
            )


def _named_arrays(
    what: str, given: Arrays, names: Sequence[str], required: bool
) -> dict[str, NDArray]:
    """Return arrays by name, in the order of the names."""
    if given is None:
        given = {}
    if isinstance(given, Mapping):
        found = dict(given)
    elif isinstance(given, (list, tuple)):
        found = _numbered(what, given, names)
    else:
        raise BindError(
            f"{what}s are a dict or a list of NDArrays, got {type(given).__name__}",
            where=user_location(),
        )
    extra = next((name for name in found if name not in names), None)
    missing = [name for name in names if name not in found]
    if extra is not None:
        raise unknown_name(what, extra, dict.fromkeys(names))
    if required and missing:
        raise BindError(
            f"no array was given for {what} {', '.join(map(repr, missing))}"
            f"{_near_misses(missing, list(found))}",
            remedy=f"The Symbol's {what}s are: {', '.join(names[:20])}. simple_bind makes arrays "
            "of the right shapes.",
            where=user_location(),
        )
    return {name: _array(what, name, found[name]) for name in names if found.get(name) is not None}


def _near_misses(missing: Sequence[str], given: Sequence[str]) -> str:
    return nearest(missing[0], given) if given else ""


def _numbered(what: str, given: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    if len(given) != len(names):
        raise BindError(
            f"{len(given)} arrays were given for {len(names)} {what}s",
            remedy=f"They are, in order: {', '.join(names[:20]) or 'none'}.",
            where=user_location(),
        )
    return dict(zip(names, given, strict=True))


def _array(what: str, name: str, array: Any) -> NDArray:
    if not isinstance(array, NDArray):
        raise BindError(
            f"{what} {name!r} is a {type(array).__name__}, not an NDArray",
            remedy=f"Pass nd.array({name}); the executor keeps the array itself, not a copy.",
            where=user_location(),
        )
    return array


def grad_requests(given: Any, names: Sequence[str]) -> dict[str, str]:
    """Return what becomes of the gradient of each argument.

    Raises
    ------
    ArgumentError
        For a word that is none of them, or a name that is no argument.
    """
    if isinstance(given, str):
        found = dict.fromkeys(names, given)
    elif isinstance(given, Mapping):
        wrong = next((name for name in given if name not in names), None)
        if wrong is not None:
            raise unknown_name("argument", wrong, dict.fromkeys(names))
        found = {name: given.get(name, "null") for name in names}
    elif isinstance(given, (list, tuple)) and len(given) == len(names):
        found = dict(zip(names, given, strict=True))
    else:
        raise ArgumentError(
            f"grad_req is a word, a dict, or a list with one word for each of the {len(names)} "
            "arguments",
            where=user_location(),
        )
    for request in set(found.values()):
        chosen("grad_req", request, GRAD_REQUESTS)
    return found


def simple_bind(
    bound: Bound, ctx: Any, grad_req: Any, type_dict: Mapping[str, Any] | None,
    shapes: Mapping[str, Sequence[int]],
) -> Executor:  # fmt: skip
    """Return an executor over new arrays of zeros whose shapes follow from those given.

    Raises
    ------
    BindError
        For a name that is no argument, and when the shape of one does not follow.
    """
    device = usable(ctx)
    nodes = (*bound.arguments, *bound.auxiliary)
    known = dict.fromkeys(node.name for node in nodes)
    for name in (*shapes, *(type_dict or {})):
        if name not in known:
            raise unknown_name("argument", name, known)
    requests = grad_requests(grad_req, [node.name for node in bound.arguments])
    inference = Inference(bound.heads, shapes, known_dtypes(type_dict or {}))

    def zeros(node: Node) -> NDArray:
        shape = settled_shape(inference, node, "simple_bind")
        return zeros_on(device, shape, inference.dtype((node, 0)).numpy)

    arguments = {node.name: zeros(node) for node in bound.arguments}
    grads: dict[str, NDArray | None] = {
        name: None if request == "null" or not arguments[name].type.dtype.floating
        else zeros_on(device, arguments[name].shape, arguments[name].dtype)
        for name, request in requests.items()
    }  # fmt: skip
    states = {node.name: zeros(node) for node in bound.auxiliary}
    return Executor(bound, device, arguments, grads, requests, states)

"""What the functions of `nd` and `sym` share: their table, keyword checks, ``out=``, composing.

Each function is written once, in terms of op records, and serves NDArrays, traced values and
Symbols: a Symbol does not run it but keeps the call, as a node of its graph.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from graphc.errors import ArgumentError, GraphcError, nearest, user_location
from graphc.frontend.array import Array
from graphc.ir.dim import Dim
from graphc.ir.ops.composite import known_shape
from graphc.ir.ops.movement import reshape
from graphc.ir.types import DType, as_dtype

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Operator:
    """A function of arrays as `nd` and `sym` know it.

    Attributes
    ----------
    name : str
        MXNet's first name of it, which symbol files use.
    function : callable
        As written; runs on arrays and traced values.
    inputs : tuple of str
        Parameters that are arrays, in order; where `variadic`, what the varargs are called.
    aux : tuple of str
        Those inputs that the operator updates.
    variadic : bool
        Whether it takes any number of arrays.
    parameters : tuple of str
        Every parameter.
    outputs : callable or None
        ``outputs(**attributes)`` names the results where there is not exactly one.
    """

    name: str
    function: Callable[..., Any]
    inputs: tuple[str, ...]
    aux: tuple[str, ...]
    variadic: bool
    parameters: tuple[str, ...]
    outputs: Callable[..., Sequence[str]] | None = None


OPERATORS: dict[str, Operator] = {}
"""Every operator by each of its names."""

_EVERYWHERE = ("name", "out", "ctx", "attr")
_to_handle: list[Callable[[np.ndarray], Any]] = []


def set_handle(convert: Callable[[np.ndarray], Any]) -> None:
    """Name the function that makes an array of a NumPy array that an operator is given."""
    _to_handle.append(convert)


def operator(
    *names: str,
    inputs: tuple[str, ...] = ("data",),
    aux: tuple[str, ...] = (),
    variadic: bool = False,
    outputs: Callable[..., Sequence[str]] | None = None,
) -> Callable[[F], F]:
    """Register a function under MXNet's names and give it what all of them share.

    ``name=`` and ``attr=`` mean something to Symbols only; ``out=`` writes the result into an
    array. Any other keyword that the function does not have is an error that names the nearest.
    """

    def decorate(function: F) -> F:
        parameters = tuple(
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.kind is not inspect.Parameter.VAR_POSITIONAL
        )
        record = Operator(names[0], function, inputs, aux, variadic, parameters, outputs)
        for name in names:
            OPERATORS[name] = record
        allowed = frozenset(parameters)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for operand in (*args, *kwargs.values()):
                compose = getattr(type(operand), "__graphc_compose__", None)
                if compose is None and isinstance(operand, (list, tuple)) and variadic:
                    compose = next(filter(None, map(_composer, operand)), None)
                if compose is not None:
                    return compose(record, args, kwargs)
            if not allowed.issuperset(kwargs):
                kwargs = _understood(record, kwargs)
            out = kwargs.pop("out", None) if "out" in kwargs and "out" not in allowed else None
            try:
                result = function(*_operands(record, args), **_keywords(record, kwargs))
            except GraphcError as error:
                raise error.attach(where=user_location()) from None
            except TypeError as error:
                # Without a frame of its own, it is of this very call: too many or too few.
                if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                    raise _wrong_call(record, error) from None
                raise
            if type(result) is Array and not any(map(_is_handle, (*args, *kwargs.values()))):
                raise _no_array(record)
            return result if out is None else _written(result, out)

        call.operator = record  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate


def _composer(operand: Any) -> Any:
    return getattr(type(operand), "__graphc_compose__", None)


def _operands(record: Operator, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return positional arguments with NumPy operands as handles of `nd`."""
    if not any(isinstance(argument, np.ndarray) for argument in args):
        return args
    count = len(args) if record.variadic else len(record.inputs)
    return (*map(as_operand, args[:count]), *args[count:])


def _keywords(record: Operator, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return keywords with NumPy operands as handles of `nd`."""
    if not any(isinstance(argument, np.ndarray) for argument in kwargs.values()):
        return kwargs
    return {k: as_operand(v) if k in record.inputs else v for k, v in kwargs.items()}


def _is_handle(argument: Any) -> bool:
    return hasattr(argument, "__graphc_apply__")


def as_operand(argument: Any) -> Any:
    """Return an argument, a NumPy array as a handle of `nd`."""
    if isinstance(argument, np.ndarray) and _to_handle:
        return _to_handle[-1](argument)
    return argument


def _understood(record: Operator, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drop the keywords that only Symbols use; raise for those that nothing uses."""
    for keyword in kwargs:
        if keyword not in record.parameters and keyword not in _EVERYWHERE:
            raise unknown_keyword(record.name, keyword, record.parameters)
    kept = (*record.parameters, "out")
    return {key: value for key, value in kwargs.items() if key in kept}


def unknown_keyword(name: str, keyword: str, parameters: Sequence[str]) -> ArgumentError:
    """Return the error of a keyword that a function does not have."""
    return ArgumentError(
        f"{name} has no argument {keyword!r}.{nearest(keyword, parameters)}",
        remedy=f"Its arguments are {', '.join(parameters)}.",
        where=user_location(),
    )


def _no_array(record: Operator) -> ArgumentError:
    return ArgumentError(
        f"{record.name} got no array",
        remedy="Make one of lists and numbers with nd.array(...).",
        where=user_location(),
    )


def _wrong_call(record: Operator, error: TypeError) -> ArgumentError:
    return ArgumentError(
        str(error).replace(f"{record.function.__qualname__}()", record.name),
        remedy=f"Its arguments are {', '.join(record.parameters)}.",
        where=user_location(),
    )


def _written(result: Any, out: Any) -> Any:
    if isinstance(out, (list, tuple)):
        for target, part in zip(out, result, strict=True):
            target[:] = part
    else:
        out[:] = result
    return out


# -- what the functions are written with -------------------------------------------------------


def dims(x: Any) -> tuple[Dim, ...]:
    """Return the shape of an array or traced value as Dims."""
    shape = known_shape(x)
    assert shape is not None, "operators run on operands with shapes"
    return shape


def listed(op: str, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return varargs, which may also be one list; raise where there are none."""
    if len(arrays) == 1 and isinstance(arrays[0], (list, tuple)):
        arrays = tuple(arrays[0])
    if not arrays:
        raise ArgumentError(f"{op} needs at least one array", where=user_location())
    return arrays


def at_least_1d(x: Any) -> Any:
    """Return a 0-d result with shape ``(1,)``: `nd` has no 0-d arrays."""
    return reshape(x, (1,)) if not dims(x) else x


def element_type(dtype: Any) -> DType:
    """Return the DType of a user's argument; the error of a wrong one names the user's line."""
    try:
        return as_dtype(dtype)
    except GraphcError as error:
        raise error.attach(where=user_location()) from None


def chosen(what: str, value: Any, known: Sequence[str]) -> str:
    """Return an argument that is one of a few words, or raise naming the nearest."""
    if value not in known:
        raise ArgumentError(
            f"there is no {what} {value!r}.{nearest(str(value), known)}",
            remedy=f"It is one of {', '.join(known)}.",
            where=user_location(),
        )
    found: str = value
    return found

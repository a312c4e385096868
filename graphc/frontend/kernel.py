"""``graphc.kernel``: whole kernels in Python, over arrays of declared types."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ParseError, user_location
from graphc.frontend.kernel_source import module_of
from graphc.frontend.ndarray import NDArray
from graphc.ir.graph import Value
from graphc.ir.operand import apply
from graphc.ir.ops.python_kernel import PULLBACKS, python_kernel
from graphc.ir.signature import Signature, parse_signature


class PythonKernel:
    """A function that writes arrays, as an op on arrays, traced values and Symbols.

    Attributes
    ----------
    name : str
    signature : Signature
    python : callable
        The function itself: on NumPy arrays, the outputs too.
    """

    def __init__(
        self, function: Callable[..., None], types: str, vjp: Callable[..., Any] | None
    ) -> None:
        functools.update_wrapper(self, function)
        self.name, self.python = function.__name__, function
        self.signature = _signature(function, types)
        pullback = "" if vjp is None else _known_as(vjp, len(self.signature.inputs))
        self._attrs = {
            "signature": " ".join(types.split()), "function": self.name,
            "source": module_of(function), "pullback": pullback,
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"<graphc.kernel {self.name}({self._attrs['signature']})>"

    def __call__(self, *arrays: Any) -> Any:
        """Return the outputs, new arrays: one, or a tuple."""
        names = [name for name, _ in self.signature.inputs]
        if len(arrays) != len(names):
            raise ArgumentError(
                f"{self.name} takes {', '.join(names)}; got {len(arrays)} arrays",
                where=user_location(),
            )
        operands = (NDArray(x) if isinstance(x, np.ndarray) else x for x in arrays)
        return apply(python_kernel, tuple(operands), self._attrs)


def kernel(types: str, *, vjp: Callable[..., Any] | None = None) -> Any:
    """Make an op of a Python function that fills arrays; Numba compiles it.

    Parameters
    ----------
    types : str
        Names and types of the arrays that are read, and of those that are written:
        ``"x: f32[n, k], i: i32[n] -> y: f32[n]"``. Sizes are numbers, names or arithmetic of
        them; the outputs' follow from the inputs'.
    vjp : callable, optional
        ``vjp(g, *inputs)`` returns the gradient of each input, or None for one that has none,
        given that of the output (a tuple for several). It works on arrays, with `graphc.nd` or
        other kernels, and is traced. Without it a gradient that gets here is an error.

    Returns
    -------
    callable
        A decorator. The function takes the arrays in the order of ``types`` and returns nothing.
        Beside them it may use numbers, other functions in Python, ``math`` and NumPy. What it does
        not write stays undefined.

    Raises
    ------
    ArgumentError
        For a signature that cannot be read or does not fit the function.

    Examples
    --------
    >>> import graphc
    >>> from graphc import nd
    >>> @graphc.kernel("x: f32[n] -> y: f32[n]")
    ... def running_sum(x, y):
    ...     total = 0.0
    ...     for i in range(x.shape[0]):
    ...         total += x[i]
    ...         y[i] = total
    >>> running_sum(nd.array([1.0, 2.0, 3.0])).asnumpy()
    array([1., 3., 6.], dtype=float32)
    """

    def decorate(function: Callable[..., None]) -> PythonKernel:
        return PythonKernel(function, types, vjp)

    return decorate


def _signature(function: Callable[..., None], types: str) -> Signature:
    """Return the declared types; the function's parameters are called like the arrays."""
    code = function.__code__
    try:
        found = parse_signature(" ".join(types.split()))
    except ParseError as error:
        raise ArgumentError(
            f"the types of kernel {function.__name__} cannot be read: {error}",
            remedy='Write them as "x: f32[n, k], i: i32[n] -> y: f32[n]".',
            where=user_location(),
        ) from None
    names = tuple(name for name, _ in (*found.inputs, *found.outputs))
    if code.co_varnames[: code.co_argcount] != names or code.co_kwonlyargcount:
        raise ArgumentError(
            f"kernel {function.__name__} is declared over {', '.join(names)}, and takes "
            f"{', '.join(code.co_varnames[: code.co_argcount])}",
            remedy="Give the parameters the names of the arrays, in the same order.",
            where=user_location(),
        )
    return found


def _known_as(vjp: Callable[..., Any], count: int) -> str:
    """Enter what computes gradients under a name, and return that."""
    name = f"{vjp.__module__}.{vjp.__qualname__}"
    while name in PULLBACKS:  # another function of that name, or the same one defined again
        name += "'"

    def pullback(g: Any, *inputs: Any) -> Sequence[Any]:
        given = [_wrapped(g) if not isinstance(g, tuple) else tuple(map(_wrapped, g))]
        found = vjp(*given, *map(_wrapped, inputs))
        parts = found if isinstance(found, (tuple, list)) else (found,)
        if len(parts) != count:
            raise ArgumentError(
                f"the vjp {vjp.__name__} returned {len(parts)} gradients for {count} inputs",
                remedy="Return one for each input, None where there is none.",
                where=user_location(),
            )
        return tuple(getattr(part, "_value", part) for part in parts)

    PULLBACKS[name] = pullback
    return name


def _wrapped(x: Any) -> Any:
    """Return a value of a graph as what users work with."""
    return NDArray.tracer_class.wrap(x) if isinstance(x, Value) else x

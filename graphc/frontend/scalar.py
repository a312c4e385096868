"""``graphc.scalar``: Python functions of numbers that become ops, and part of generated kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, user_location
from graphc.frontend.ndarray import NDArray
from graphc.frontend.scalar_source import read
from graphc.ir.operand import apply, is_scalar
from graphc.ir.ops.scalar import scalar as record


class ScalarFunction:
    """A function of numbers, applied to arrays, traced values and Symbols element by element.

    Attributes
    ----------
    name : str
    text : str
        What its Python source was read as.
    pullback : str
        The same of its ``vjp``; empty without one.
    """

    def __init__(self, function: Callable[..., Any], vjp: Callable[..., Any] | None) -> None:
        functools.update_wrapper(self, function)
        source = read(function)
        self.name, self.text, self.pullback = source.name, source.text, ""
        self.defaults, self.parameters = source.defaults, source.parameters
        if vjp is not None:
            back = read(vjp, results=len(self.parameters))
            if len(back.parameters) != len(self.parameters) + 1:
                raise ArgumentError(
                    f"the vjp of {source.name} takes {len(back.parameters)} arguments",
                    remedy=f"It gets the gradient of the result, then {source.name}'s own: "
                    f"def {back.name}(g, {', '.join(self.parameters)}).",
                    where=back.where,
                )
            self.pullback = back.text

    def __repr__(self) -> str:
        return f"<graphc.scalar {self.text}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Apply the function; operands broadcast. Numbers alone are given to Python's own."""
        operands = self._bound(args, kwargs)
        if all(map(is_scalar, operands)):
            return self.__wrapped__(*operands)  # type: ignore[attr-defined]
        operands = [NDArray(x) if isinstance(x, np.ndarray) else x for x in operands]
        return apply(record, tuple(operands), {"body": self.text, "pullback": self.pullback})

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        given = dict(zip(self.parameters, args))
        unknown = [name for name in kwargs if name not in self.parameters or name in given]
        given.update(kwargs)
        missing = [n for n in self.parameters if n not in given and n not in self.defaults]
        if len(args) > len(self.parameters) or unknown or missing:
            raise ArgumentError(
                f"{self.name} takes {', '.join(self.parameters)}; got {len(args)} positional "
                f"arguments" + (f" and {', '.join(kwargs)}" if kwargs else ""),
                remedy=f"Missing: {', '.join(missing)}." if missing else "Pass each once.",
                where=user_location(),
            )
        return [given.get(name, self.defaults.get(name)) for name in self.parameters]


def scalar(
    function: Callable[..., Any] | None = None, *, vjp: Callable[..., Any] | None = None
) -> Any:
    """Make an op of a Python function of numbers.

    Its source is read, not run: arithmetic, comparisons, ``and``, ``or``, ``not``, conditional
    expressions, ``if``, loops over ``range`` of constants, local variables, the functions of
    ``math`` and NumPy that work element by element, other such functions, and numbers from around
    it, which are taken as they are now. The op fuses into generated kernels like every other.

    Parameters
    ----------
    function : callable
        Takes numbers, returns one.
    vjp : callable, optional
        ``vjp(g, *arguments)`` returns the gradient of each argument, a tuple of numbers, given
        that of the result; read likewise. By default the derivative is found from the source.

    Returns
    -------
    ScalarFunction
        Takes arrays, traced values and Symbols, which broadcast, and numbers.

    Raises
    ------
    ArgumentError
        For Python that cannot be read so; it names the line.

    Examples
    --------
    >>> import graphc
    >>> from graphc import nd
    >>> @graphc.scalar
    ... def soft_clip(x, a):
    ...     return x / (1 + abs(x) ** a) ** (1 / a)
    >>> soft_clip(nd.array([0.0, 3.0]), 2.0).asnumpy().round(3)
    array([0.   , 0.949], dtype=float32)
    """
    if function is None:
        return functools.partial(scalar, vjp=vjp)
    return ScalarFunction(function, vjp)

"""NumPy's own functions called on handles of `nd` and on Symbols.

An operator with a NumPy array or number on its left is that operator of the handle. A function
that works on whole arrays (``np.sum``, ``np.concatenate``) gets the elements and returns NumPy.
An element-wise one (``np.exp``) is an error: its graphc namesake is what records and compiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, user_location
from graphc.frontend.array import Array
from graphc.frontend.ops.operator import OPERATORS
from graphc.frontend.tree import flatten, unflatten

_OPERATORS = {
    np.add: "add",
    np.subtract: "subtract",
    np.multiply: "multiply",
    np.true_divide: "divide",
    np.floor_divide: "floor_divide",
    np.remainder: "mod",
    np.power: "power",
    np.matmul: "matmul",
    np.equal: "equal",
    np.not_equal: "not_equal",
    np.less: "less",
    np.less_equal: "less_equal",
    np.greater: "greater",
    np.greater_equal: "greater_equal",
}
"""What NumPy calls for Python's operators of two operands, and the op of the same meaning."""

_NAMESAKES = {"absolute": "abs", "conjugate": "identity", "fabs": "abs"}
"""Names of NumPy's functions that `nd` has under another one."""


def call_ufunc(
    handle: Any, ufunc: np.ufunc, method: str, inputs: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    """Return what an element-wise function of NumPy gives for operands with a handle among them.

    Parameters
    ----------
    handle : NDArray, NDTracer or Symbol
        The operand that was asked.
    ufunc : numpy.ufunc
    method : str
        ``"__call__"``, or ``"reduce"``, ``"outer"`` and so on.
    inputs : sequence
        The operands.
    options : dict
        ``out=``, ``where=`` and so on. Into a NumPy array, ``a += x``, goes what NumPy computes.

    Raises
    ------
    ArgumentError
        For what is no operator of Python's; names the graphc function to call.
    """
    out = options.get("out", ())
    if out and isinstance(handle, Array) and all(isinstance(o, np.ndarray) for o in out):
        return getattr(ufunc, method)(*_numpy(inputs), **_numpy(options))
    name = _OPERATORS.get(ufunc)
    if name is None or method != "__call__" or options:
        called = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        raise _refusal(handle, f"np.{called}")
    left, right = inputs
    if left is handle:
        return handle._binary(name, right)
    return handle._binary(name, left, swapped=True)


def call_function(
    handle: Any, function: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    """Return what a function of NumPy gives for the elements of the arrays it was called with.

    Raises
    ------
    ArgumentError
        Where there are none: for a traced value or a Symbol.
    """
    if not isinstance(handle, Array):
        module = function.__module__.replace("numpy", "np", 1)
        raise _refusal(handle, f"{module}.{function.__name__}")
    return function(*_numpy(args), **_numpy(options))


def _numpy(tree: Any) -> Any:
    """Return nested arguments with arrays as NumPy's."""
    leaves, structure = flatten(tree, lambda leaf: isinstance(leaf, Array))
    return unflatten(structure, [np.asarray(leaf) for leaf in leaves])


def _refusal(handle: Any, called: str) -> ArgumentError:
    """Return the error that names what to call in the place of a function of NumPy."""
    own = called.rpartition(".")[2]
    own = _NAMESAKES.get(own, own)
    space = handle.namespace
    remedy = f"Use {space}.{own}" if own in OPERATORS else f"Use the functions of graphc.{space}"
    what = "a Symbol" if space == "sym" else "a traced value"
    if isinstance(handle, Array):
        what, remedy = "an NDArray", f"{remedy}, or {called} on x.asnumpy() for a NumPy result"
    return ArgumentError(
        f"{called}() does not take {what}", remedy=f"{remedy}.", where=user_location()
    )

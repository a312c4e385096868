"""The Python text of a function and of all that it uses, as a module of its own."""

from __future__ import annotations

import ast
import builtins
import inspect
import math
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, Location
from graphc.frontend.source import definition

_MODULES = ("numpy", "math")


def module_of(function: Callable[..., Any]) -> str:
    """Return text that defines a function, what it imports, and the functions it calls.

    Raises
    ------
    ArgumentError
        With the line, where it uses what has no form in text, or has no source.
    """
    parts: dict[str, str] = {}
    _add(function, parts, {function})
    return "\n\n".join(parts.values()) + "\n"


def _add(
    function: Callable[..., Any], parts: dict[str, str], known: set[Callable[..., Any]]
) -> None:
    """Add a function's text behind that of what it uses; ``known`` ones are there or to come."""
    tree, file, first = definition(function)
    tree.decorator_list = []
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
           and isinstance(node.ctx, ast.Store)}  # fmt: skip
    own |= {a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)}
    outside = inspect.getclosurevars(function)
    around = {**outside.globals, **outside.nonlocals}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name) or node.id in own or node.id in parts:
            continue
        if node.id not in around:
            if hasattr(builtins, node.id):
                continue
            raise _error(function, file, first + node.lineno - 1, f"{node.id}, which is undefined")
        value = around[node.id]
        text = _text(node.id, value)
        if text is None and isinstance(value, FunctionType):
            if value not in known:
                known.add(value)
                _add(value, parts, known)
        elif text is None:
            what = f"{node.id}, which is a {type(value).__name__}"
            raise _error(function, file, first + node.lineno - 1, what)
        else:
            parts[node.id] = text
    parts[function.__name__] = ast.unparse(tree)


def _text(name: str, value: Any) -> str | None:
    """Return a line that makes a module or a number known; None for anything else."""
    if isinstance(value, ModuleType) and value.__name__ in _MODULES:
        return f"import {value.__name__} as {name}"
    for module in (math, np):
        known = getattr(value, "__name__", "")
        if known and getattr(module, known, None) is value:
            return f"from {module.__name__} import {known} as {name}"
    if isinstance(value, (bool, int, float, np.generic)):
        plain = value.item() if isinstance(value, np.generic) else value
        return f"{name} = float('{plain}')" if isinstance(plain, float) else f"{name} = {plain!r}"
    return None


def _error(function: Callable[..., Any], file: str, line: int, what: str) -> ArgumentError:
    return ArgumentError(
        f"kernel {function.__name__} uses {what}",
        remedy="It may use its arrays, numbers, functions in Python, math and NumPy.",
        where=Location(file, line),
    )

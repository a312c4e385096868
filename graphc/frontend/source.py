"""The source of functions that are read rather than run."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from graphc.errors import ArgumentError, Location


def definition(function: Callable[..., Any]) -> tuple[ast.FunctionDef, str, int]:
    """Return a function's syntax tree, its file, and the line of it that the tree's line 1 is.

    Raises
    ------
    ArgumentError
        Where there is no source, or it is not a ``def``.
    """
    name = getattr(function, "__name__", type(function).__name__)
    code = getattr(function, "__code__", None)
    where = None if code is None else Location(code.co_filename, code.co_firstlineno)
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        raise ArgumentError(
            f"the source of {name} cannot be read",
            remedy="Define it with def, in a file or a notebook's cell.",
            where=where,
        ) from None
    found = tree.body[0]
    if not isinstance(found, ast.FunctionDef):
        raise ArgumentError(
            f"{name} is not a function defined with def",
            remedy="Write def name(x): return ...",
            where=where,
        )
    return found, inspect.getsourcefile(function) or "", first

"""How names, types and attribute values are written in printed graphs and kernels.

What comes from users (names of inputs, paths of Blocks, strings) is written as it is where it is a
plain identifier, and else as a JSON string, so that no name can look like syntax. The text is
ASCII: it prints on every terminal and is the same bytes everywhere.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from graphc.errors import GraphcError, Location
from graphc.ir.dim import SizeExpr, symbols
from graphc.ir.types import DTYPES, DType, TensorType

PLAIN = re.compile(r"[A-Za-z0-9_.]+", re.ASCII)
PLAIN_FILE = re.compile(r"[A-Za-z0-9_.<>+-]+", re.ASCII)
RESERVED = frozenset(("None", "True", "False", "inf", "nan", "size", *(d.short for d in DTYPES)))
"""Words that mean something else than a size variable in an attribute."""
LOCATION_COLUMN = 76


def name_text(name: str) -> str:
    """Return a name as it is where it is plain, else quoted and escaped."""
    return name if PLAIN.fullmatch(name) else quoted(name)


def quoted(text: str) -> str:
    """Return a JSON string, in ASCII."""
    return json.dumps(text)


def input_text(name: str) -> str:
    """Return a reference to a graph input; one of digits only is quoted: ``%0`` is a result."""
    return "%" + (quoted(name) if name.isdigit() else name_text(name))


def location_text(where: Location) -> str:
    """Return ``file:line scope``; the file without its folder."""
    file = re.split(r"[/\\]", where.file)[-1]
    place = f"{file if PLAIN_FILE.fullmatch(file) else quoted(file)}:{where.line}"
    return f"{place} {name_text(where.scope)}" if where.scope else place


def with_location(line: str, where: Location | None) -> str:
    """Append a location as a comment, in one column where the line leaves room for it."""
    return line if where is None else f"{line:<{LOCATION_COLUMN}}  # {location_text(where)}"


def attribute_text(item: Any) -> str:
    """Return the text of an attribute's value, from which the parser makes the same value.

    Raises
    ------
    GraphcError
        For a value of a kind that the text has no form for.
    """
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, str):
        return quoted(item)
    if isinstance(item, float):
        return float_text(item)
    if item is None or isinstance(item, bool | int):
        return str(item)
    if isinstance(item, SizeExpr):
        return f"size({item})" if symbols(item) & RESERVED else str(item)
    if isinstance(item, DType | TensorType):
        return str(item)
    if isinstance(item, tuple):
        parts = ", ".join(map(attribute_text, item))
        return f"({parts},)" if len(item) == 1 else f"({parts})"
    if isinstance(item, list):
        return f"[{', '.join(map(attribute_text, item))}]"
    raise GraphcError(f"an attribute of type {type(item).__name__} has no form in graph text")


def float_text(number: float) -> str:
    """Return the shortest text of a float that reads back as the same one."""
    return "nan" if math.isnan(number) else float.__repr__(number)

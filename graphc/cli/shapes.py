"""What is written behind ``--shape`` and ``--bind``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphc.errors import ArgumentError, DTypeError
from graphc.ir.types import TensorType, as_dtype, tensor_type

_SHAPE = re.compile(r"(?:(?P<name>[^=\[\]]+)=)?(?P<dtype>[A-Za-z0-9_]*)\[(?P<sizes>[^\[\]]*)\]")
_BIND = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*([0-9]{1,15})\s*")


def parse_shape(text: str) -> tuple[str, TensorType]:
    """Return the name, '' where there is none, and the type of ``x=f32[64,1,28,28]``.

    Raises
    ------
    ArgumentError
        With the form that is expected.
    """
    found = _SHAPE.fullmatch(text.strip())
    sizes = [] if found is None else [s.strip() for s in found["sizes"].split(",") if s.strip()]
    if found is None or not all(size.isdecimal() and len(size) < 16 for size in sizes):
        raise ArgumentError(
            f"--shape {text!r} is not a shape",
            remedy="Write it as x=f32[64,1,28,28]: the argument's name, its dtype, its sizes.",
        )
    try:
        dtype = as_dtype(found["dtype"] or "float32")
    except DTypeError as error:  # which has the line that called as_dtype, and no line is to blame
        raise ArgumentError(f"--shape {text!r}: {error.message}", remedy=error.remedy) from None
    return (found["name"] or "").strip(), tensor_type(dtype, [int(size) for size in sizes])


def parse_bindings(texts: Sequence[str]) -> dict[str, int]:
    """Return the sizes of ``["B=64", "H=28,W=28"]``.

    Raises
    ------
    ArgumentError
        With the form that is expected.
    """
    sizes: dict[str, int] = {}
    for text in texts:
        for part in text.split(","):
            found = _BIND.fullmatch(part)
            if found is None:
                raise ArgumentError(
                    f"--bind {text!r} does not give a size", remedy="Write it as B=64 or B=64,H=28."
                )
            sizes[found[1]] = int(found[2])
    return sizes

"""Patterns over graph values: rewrites are data.

A `Rule` says what to look for and what to put there. Patterns nest: ``Pattern("negative",
(Pattern("negative", (X,)),))`` matches a double negation and captures its operand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphc.ir.graph import Value


@dataclass(frozen=True, slots=True)
class Capture:
    """Matches any value, or a constant for which ``where`` holds, and names it."""

    name: str
    constant: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class Pattern:
    """Matches a node of op ``op`` whose operands match; commutative ops in either order."""

    op: str
    operands: tuple[Pattern | Capture, ...]
    commutes: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rewrite: where ``pattern`` matches, ``replace(captures)``; None leaves it alone."""

    name: str
    pattern: Pattern
    replace: Callable[[Mapping[str, Value]], Value | None] = field(compare=False)


def match(pattern: Pattern | Capture, value: Value, found: dict[str, Value]) -> bool:
    """Match a value and collect captures into ``found``."""
    if isinstance(pattern, Capture):
        return _capture(pattern, value, found)
    if value.op_name != pattern.op or len(value.node.inputs) != len(pattern.operands):
        return False
    orders = [value.node.inputs]
    if pattern.commutes:
        orders.append(value.node.inputs[::-1])
    for operands in orders:
        trial = dict(found)
        if all(match(p, v, trial) for p, v in zip(pattern.operands, operands, strict=True)):
            found.update(trial)
            if pattern.name:
                found[pattern.name] = value
            return True
    return False


def _capture(pattern: Capture, value: Value, found: dict[str, Value]) -> bool:
    if pattern.constant is not None and not (
        value.op_name == "constant" and pattern.constant(value.node.attrs["value"])
    ):
        return False
    previous = found.setdefault(pattern.name, value)
    return previous == value

"""How operations are spelt in the text of CUDA kernels, and the functions that the text calls.

Numba would compute with narrow integers in 64 bits, and has no operator with NaN's or -0's rules,
so whatever differs is converted back, or is a function whose own text stands in front of the
kernel's. Both are plain Python: the same text is compiled by ``numba-cuda`` and simulated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from graphc.ir.types import DType, bool_, int64

IMPORTS = """\
import math
from math import inf, nan

from numba import cuda
from numpy import float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64
"""

_BINARY = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%",
    "xor": "^", "and": "&", "or": "|",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip
_COMPARISONS = frozenset(("lt", "le", "gt", "ge", "eq", "ne"))
_BOOLEAN = {"add": "|", "max": "|", "mul": "&", "min": "&"}
_FLOATS = {
    "sqrt": "square_root({0})",
    "floor": "floored({0})",
    "ceil": "-floored(-{0})",
    "trunc": "truncated({0})",
    "round": "rounded({0}, {type}({whole}))",
    "rem": "remainder({0}, {1}, {type}(nan), {type}(0.5))",
    "floordiv": "floor_divided({0}, {1}, {type}(nan), {type}(0.5))",
    "fma": "cuda.fma({0}, {1}, {2})",
    "scale": "scaled({0}, {1}, {type}, {layout})",
}
_INTEGERS = {
    "rem": "integer_remainder({0}, {1})",
    "mulhi": "(uint64({0}) * uint64({1})) >> uint64(32)",
    **dict.fromkeys(("floor", "ceil", "trunc", "round"), "{0}"),
}
_BOTH = {
    "abs": "abs({0})",
    "min": "minimum({0}, {1})",
    "max": "maximum({0}, {1})",
    "neg": "-{0}",
}
"""Operation -> its text: ``{0}`` is an operand, ``{type}`` its type, ``{whole}`` the number from
which on a float has no fraction, ``{layout}`` the integer of its width, the bias of its exponents
and the bits of its fraction."""
_WHOLE = {"float32": 2.0**23, "float64": 2.0**52}
_LAYOUT = {"float32": "int32, 127, 23", "float64": "int64, 1023, 52"}

_FUNCTIONS = """
def chosen(condition, a, b):
    return a if condition else b

def minimum(a, b):
    if a == 0 and b == 0:
        return -(-a - b)
    return a if a < b or a != a else b

def maximum(a, b):
    if a == 0 and b == 0:
        return a + b
    return a if a > b or a != a else b

def square_root(x):
    return type(x)(math.sqrt(x) if x >= 0 else nan)

def floored(x):
    return type(x)(math.copysign(math.floor(x), x) if abs(x) < 2.0**52 else x)

def truncated(x):
    return type(x)(math.copysign(math.floor(abs(x)), x) if abs(x) < 2.0**52 else x)

def rounded(x, whole):
    return type(x)(math.copysign((abs(x) + whole) - whole, x) if abs(x) < whole else x)

def remainder(a, b, bad, half):
    rest, divisor = abs(a), abs(b)
    if a == 0 and divisor > 0:
        return a
    if not (rest < inf and divisor > 0):
        return bad
    multiple = divisor
    while rest - multiple >= multiple:
        multiple += multiple
    while multiple > divisor:
        rest = rest - multiple if rest >= multiple else rest
        multiple *= half
    rest = rest - multiple if rest >= multiple else rest
    return rest if a > 0 else -rest

def floor_divided(a, b, bad, half):
    if b == 0:
        return a / b
    rest = remainder(a, b, bad, half)
    one = half + half
    quotient = (a - rest) / b
    if rest != 0 and (b < 0) != (rest < 0):
        quotient -= one
    if quotient == 0:
        return abs(quotient) * (a / b)
    down = floored(quotient)
    return down + one if quotient - down > half else down

def integer_remainder(a, b):
    rest = a % b
    return rest - b if rest != 0 and (a < 0) != (b < 0) else rest

def left(a, b, bits):
    return a << b if 0 <= b < bits else a ^ a

def right(a, b, bits):
    return a >> b if 0 <= b < bits else a >> (bits - 1) >> 1

def scaled(x, power, kind, integer, bias, fraction):
    if x != x:
        return x
    number = integer(power)
    half = number >> 1
    x *= bits_as(integer((half + bias) << fraction), kind)
    return x * bits_as(integer((number - half + bias) << fraction), kind)

def bits_as(x, kind):
    return x.view(kind)

def saturated(x, kind, low, high):
    if x != x:
        return kind(0)
    if x <= low:
        return kind(low)
    return kind(x) if x < high + 1.0 else kind(high)

def stopped(flag):
    return flag[1] != 0

def failed_first(flag, code):
    return cuda.atomic.cas(flag, 1, 0, code) == 0

def report(flag, place, word):
    flag[3 + place] = word
"""
FUNCTIONS: dict[str, str] = {
    part.partition("(")[0].removeprefix("def "): part for part in _FUNCTIONS.strip().split("\n\n")
}
"""Function -> its text; a function comes after those that it calls or they are compiled by name."""
_CALL = re.compile(rf"\b({'|'.join(FUNCTIONS)})\(")


def prelude(body: str) -> str:
    """Return the text that a kernel's text needs in front of it: imports, and what it calls."""
    needed: set[str] = set()
    waiting = set(_CALL.findall(body))
    while waiting:
        needed |= waiting
        waiting = {n for name in waiting for n in _CALL.findall(FUNCTIONS[name])} - needed
    parts = [f"@cuda.jit(device=True)\n{FUNCTIONS[name]}\n" for name in FUNCTIONS if name in needed]
    return "\n\n".join([IMPORTS, *parts])


def operation(op: str, dtype: DType, args: Sequence[str], amount: int | None = None) -> str:
    """Return the text of an operation.

    Parameters
    ----------
    op : str
    dtype : DType
        Of the operands, the condition of a select apart.
    args : sequence of str
        Their texts.
    amount : int, optional
        By how much a shift goes where that is known.
    """
    if op == "select":
        return f"chosen({', '.join(args)})"
    if op == "not":
        return f"(not {args[0]})" if dtype is bool_ else converted(f"~{args[0]}", dtype)
    if dtype is bool_:
        return f"({args[0]} {_BOOLEAN.get(op) or _BINARY[op]} {args[1]})"
    if op in ("shl", "shr"):
        return converted(_shifted(op, dtype, args, amount), dtype)
    table = _BOTH | (_FLOATS if dtype.floating else _INTEGERS)
    if op not in table:
        inner = f"{args[0]} {_BINARY[op]} {args[1]}"
        return f"({inner})" if op in _COMPARISONS else converted(inner, dtype)
    name = dtype.name
    text = table[op].format(*args, type=name, whole=_WHOLE.get(name), layout=_LAYOUT.get(name))
    calls = dtype.floating or dtype is int64
    return text if calls and not text.startswith("-") else converted(text, dtype)


def converted(text: str, dtype: DType) -> str:
    """Return what Numba may have computed in 64 bits as the type that it has."""
    return f"({text})" if dtype.floating or dtype is int64 else f"{dtype.name}({text})"


def _shifted(op: str, dtype: DType, args: Sequence[str], amount: int | None) -> str:
    bits = 8 * dtype.item_bytes
    if amount is not None and 0 <= amount < bits:
        return f"{args[0]} {'<<' if op == 'shl' else '>>'} {args[1]}"
    return f"{'left' if op == 'shl' else 'right'}({args[0]}, {args[1]}, {bits})"


def constant(value: int | float | bool, dtype: DType) -> str:
    """Return a number's text."""
    if dtype is int64 or dtype is bool_:
        return repr(value)
    if dtype.floating and not np.isfinite(value):
        return f"{dtype.name}({str(float(value))})"
    return f"{dtype.name}({value!r})"


def cast(text: str, old: DType, new: DType) -> str:
    """Return a conversion; from floats to integers it truncates and saturates."""
    if new is bool_:
        return f"({text} != 0)"
    if not old.floating or new.floating:
        return f"{new.name}({text})"
    limits = np.iinfo(new.name)
    return f"saturated({text}, {new.name}, {limits.min}, {limits.max})"


def stored(text: str, dtype: DType) -> str:
    """Return a value as memory holds it: truth values are bytes."""
    return f"uint8({text})" if dtype is bool_ else text


def loaded(text: str, dtype: DType) -> str:
    """Return what memory holds as a value."""
    return f"({text} != 0)" if dtype is bool_ else text


def memory_type(dtype: DType) -> str:
    """Return the type of what memory holds."""
    return "uint8" if dtype is bool_ else dtype.name

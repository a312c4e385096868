"""Arithmetic, element by element; operands broadcast and are promoted as NumPy 2 does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.expr import Expr, bitcast
from graphc.ir.op import (
    EVERY,
    NUMBERS,
    Binary,
    Pointwise,
    Spec,
    Unary,
    sample,
)
from graphc.ir.operand import apply
from graphc.ir.ops.comparison import (
    binary_samples,
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    logical_and,
    refuse,
    unary_samples,
    where,
)
from graphc.ir.types import DType, TensorType, as_dtype, bool_, float32, float64, int32, int64

_INFINITY = float("inf")
_NO_BOOL = "Cast the operands to a number type, or use logical_and, logical_or, logical_xor."


class NumberBinary(Binary):
    """A binary op that bools do not have."""

    def infer(self, *types: TensorType, **attrs: Any) -> TensorType:
        """Broadcast the shapes; two bools are refused."""
        refuse(self.name, types[0].dtype, types[0].dtype is bool_, _NO_BOOL)
        return super().infer(*types, **attrs)


class NumberUnary(Unary):
    """A unary op that bools do not have."""

    def infer(self, *types: TensorType, **attrs: Any) -> TensorType:
        """Return the operand's type; bool is refused."""
        refuse(self.name, types[0].dtype, types[0].dtype is bool_, _NO_BOOL)
        return super().infer(*types, **attrs)


def _or_bool(operation: str, on_bool: str) -> Any:
    return lambda k, a, b: k.apply(on_bool if a.dtype is bool_ else operation, a, b)


# -- sums and products -----------------------------------------------------------------------------

add = Binary(
    "add",
    "Return ``a + b``; of bools ``a or b``.",
    lower=_or_bool("add", "or"),
    reference=np.add,
    vjp=lambda g, y, a, b: (g, g),
    dtypes=EVERY,
    samples=binary_samples(),
)
subtract = NumberBinary(
    "subtract",
    "Return ``a - b``.",
    lower=lambda k, a, b: a - b,
    reference=np.subtract,
    vjp=lambda g, y, a, b: (g, -g),
    dtypes=NUMBERS,
    samples=binary_samples(),
)
multiply = Binary(
    "multiply",
    "Return ``a * b``; of bools ``a and b``.",
    lower=_or_bool("mul", "and"),
    reference=np.multiply,
    vjp=lambda g, y, a, b: (g * b, g * a),
    dtypes=EVERY,
    samples=binary_samples(),
)
negative = NumberUnary(
    "negative",
    "Return ``-x``; unsigned integers wrap.",
    lower=lambda k, x: -x,
    reference=np.negative,
    vjp=lambda g, y, x: (-g,),
    dtypes=NUMBERS,
    samples=unary_samples(),
)
square = NumberUnary(
    "square",
    "Return ``x * x``.",
    lower=lambda k, x: x * x,
    reference=np.square,
    vjp=lambda g, y, x: (g * x * 2.0,),
    dtypes=NUMBERS,
    samples=unary_samples(),
)


# -- quotients -------------------------------------------------------------------------------------


class Divide(Binary):
    """Division whose result is floating for every operand type."""

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Promote; integers and bools of any size become float64."""
        promoted = super().operand_dtypes(types)
        integers = all(not t.dtype.floating for t in types)
        return (float64,) * len(types) if integers else promoted


divide = Divide(
    "divide",
    "Return ``a / b``, floating for every operand type; ``x / 0`` is infinite or NaN.",
    lower=lambda k, a, b: a / b,
    reference=np.divide,
    vjp=lambda g, y, a, b: (g / b, -(g / b) * y),
    floating=True,
    dtypes=NUMBERS,
    samples=binary_samples((-2.0, 2.0), (0.5, 2.0)),
)
reciprocal = Unary(
    "reciprocal",
    "Return ``1 / x``; integers become floating first (NumPy's own truncates them).",
    lower=lambda k, x: k.const(1, x.dtype) / x,
    reference=np.reciprocal,
    vjp=lambda g, y, x: (-g * y * y,),
    floating=True,
    samples=unary_samples(0.5, 2.0),
)


def signs_differ(a: Expr, b: Expr) -> Expr:
    """Return whether one of two numbers is below 0 and the other is not."""
    return (a < 0) ^ (b < 0)


def copy_sign(magnitude: Expr, sign: Expr) -> Expr:
    """Return a floating number with the sign bit of another (of -0.0 and NaN too)."""
    bits = int32 if magnitude.dtype is float32 else int64
    top = -(2 ** (8 * bits.item_bytes - 1))
    kept = bitcast(magnitude, bits) & ~top
    return bitcast(kept | (bitcast(sign, bits) & top), magnitude.dtype)


def _guarded(k: Any, operation: str, a: Expr, b: Expr, at_minus_one: Expr) -> Any:
    """Divide integers: 0 for a divisor of 0, and no trap for the smallest integer by -1."""
    zero = b.eq(0)
    risky = zero | b.eq(-1) if a.dtype.kind == "i" else zero
    result = k.apply(operation, a, k.select(risky, k.const(1, b.dtype), b))
    result = k.select(b.eq(-1), at_minus_one, result) if a.dtype.kind == "i" else result
    return k.select(zero, k.const(0, a.dtype), result)


def _floor_divide(k: Any, a: Expr, b: Expr) -> Any:
    if not a.dtype.floating:
        return _guarded(k, "floordiv", a, b, -a)
    remainder = k.apply("rem", a, b)
    quotient = (a - remainder) / b
    quotient = k.select(remainder.ne(0) & signs_differ(remainder, b), quotient - 1, quotient)
    whole = k.apply("floor", quotient)
    whole = k.select((quotient - whole) > 0.5, whole + 1, whole)
    zero = copy_sign(k.const(0, a.dtype), a / b)
    return k.select(b.eq(0), a / b, k.select(quotient.ne(0), whole, zero))


def _mod(k: Any, a: Expr, b: Expr) -> Any:
    if not a.dtype.floating:
        return _guarded(k, "mod", a, b, k.const(0, a.dtype))
    remainder = k.apply("rem", a, b)
    moved = k.select(signs_differ(remainder, b), remainder + b, remainder)
    return k.select(remainder.eq(0) & b.ne(0), copy_sign(remainder, b), moved)


floor_divide = NumberBinary(
    "floor_divide",
    "Return ``a / b`` rounded down. Integers divided by 0 give 0, the smallest by -1 itself.",
    lower=_floor_divide,
    reference=np.floor_divide,
    dtypes=NUMBERS,
    samples=(*binary_samples((-9, 9), (1, 5)), sample(Spec((30,), -9, 9), Spec((30,), -4, 4))),
)
mod = NumberBinary(
    "mod",
    "Return ``a - floor(a / b) * b``, which has the sign of ``b``. Integers modulo 0 give 0.",
    lower=_mod,
    reference=np.remainder,
    vjp=lambda g, y, a, b: (g, -g * floor_divide(a, b)),
    dtypes=NUMBERS,
    samples=(*binary_samples((-9, 9), (1, 5)), sample(Spec((30,), -9, 9), Spec((30,), -4, 4))),
)


# -- order ---------------------------------------------------------------------------------------


def _extremum_vjp(wins: Any) -> Any:
    def vjp(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, ...]:
        tie, first = equal(a, b), wins(a, b)
        half = g * 0.5
        return (where(tie, half, where(first, g, 0.0)), where(tie, half, where(first, 0.0, g)))

    return vjp


maximum = Binary(
    "maximum",
    "Return the larger of ``a`` and ``b``, NaN if either is; a tie shares the gradient equally.",
    lower=_or_bool("max", "or"),
    reference=np.maximum,
    vjp=_extremum_vjp(greater),
    dtypes=EVERY,
    samples=binary_samples(),
)
minimum = Binary(
    "minimum",
    "Return the smaller of ``a`` and ``b``, NaN if either is; a tie shares the gradient equally.",
    lower=_or_bool("min", "and"),
    reference=np.minimum,
    vjp=_extremum_vjp(less),
    dtypes=EVERY,
    samples=binary_samples(),
)


def _sign(k: Any, x: Expr) -> Any:
    one, zero = k.const(1, x.dtype), k.const(0, x.dtype)
    if x.dtype.kind == "u":
        return k.select(x.ne(0), one, zero)
    below = k.select(x < 0, k.const(-1, x.dtype), zero)
    result = k.select(x > 0, one, below)
    return k.select(x.ne(x), x, result) if x.dtype.floating else result


sign = NumberUnary(
    "sign",
    "Return -1, 0 or 1 as ``x`` is below, at or above 0; NaN of NaN.",
    lower=_sign,
    reference=np.sign,
    dtypes=NUMBERS,
    samples=unary_samples(),
)
abs = Unary(
    "abs",
    "Return ``|x|``; its gradient at 0 is 0. The smallest signed integer stays as it is.",
    lower=lambda k, x: k.apply("abs", x) if x.dtype.kind in "if" else x,
    reference=np.abs,
    vjp=lambda g, y, x: (g * sign(x),),
    dtypes=EVERY,
    samples=unary_samples(),
)
copysign = Binary(
    "copysign",
    "Return ``|a|`` with the sign of ``b``, -0.0 included.",
    lower=lambda k, a, b: copy_sign(a, b),
    reference=np.copysign,
    vjp=lambda g, y, a, b: (g * sign(a) * sign(y), None),
    floating=True,
    samples=binary_samples(),
)


class Clip(Pointwise):
    """Limits to an interval with static ends."""

    def __call__(self, x: Any, low: Any = None, high: Any = None) -> Any:
        """Limit ``x`` to ``low .. high``.

        Parameters
        ----------
        x : operand
        low, high : float, int, None or operand
            Ends of the interval; None for no limit. ``high`` wins where ``low > high``. Of an
            integer ``x`` numbers must be whole; beyond the range of its type they do not limit.

        Returns
        -------
        operand
            Of the type of ``x``; NaN stays. The gradient is that of ``x`` within the ends and on
            them, 0 outside.
        """
        low, high = (e.item() if isinstance(e, np.generic) else e for e in (low, high))
        if all(e is None or isinstance(e, (int, float)) for e in (low, high)):
            return apply(self, (x,), {"low": low, "high": high})
        raised = x if low is None else maximum(x, low)
        return raised if high is None else minimum(raised, high)

    def infer(self, *types: TensorType, low: Any, high: Any) -> TensorType:
        """Return the operand's type."""
        dtype = types[0].dtype
        refuse(self.name, dtype, dtype is bool_, "Cast the operand to a number type.")
        for end in (low, high):
            if dtype.integer and end is not None and end != end // 1:
                raise DTypeError(
                    f"clip of {dtype.name} values to {end!r}, which is no whole number",
                    remedy="Cast the operand to a floating type, or give whole numbers.",
                )
        return types[0]


def _clip_ends(dtype: DType, low: Any, high: Any) -> tuple[Any, Any]:
    """Return the ends that limit values of a type; None for those that do not."""
    if dtype.integer:
        limits = np.iinfo(dtype.name)
        low = None if low is None or low <= limits.min else min(int(low), int(limits.max))
        high = None if high is None or high >= limits.max else int(high)
        high = high if high is None else max(high, int(limits.min))
    return low, high


def _clip(k: Any, x: Expr, *, low: Any, high: Any) -> Any:
    low, high = _clip_ends(x.dtype, low, high)
    raised = x if low is None else k.maximum(x, low)
    return raised if high is None else k.minimum(raised, high)


def _clip_vjp(g: Any, y: Any, x: Any, *, low: Any, high: Any) -> tuple[Any, ...]:
    if low is None and high is None:
        return (g,)
    above = None if low is None else greater_equal(x, low)
    below = None if high is None else less_equal(x, high)
    inside = below if above is None else above if below is None else logical_and(above, below)
    return (where(inside, g, 0.0),)


def _clip_reference(x: np.ndarray, *, low: Any, high: Any) -> Any:
    bounds = _clip_ends(as_dtype(x.dtype), low, high)
    low, high = (None if e is None else x.dtype.type(e) for e in bounds)
    raised = x if low is None else np.maximum(x, low)
    return raised if high is None else np.minimum(raised, high)


clip = Clip(
    "clip",
    "Limit ``x`` to ``low .. high``.",
    lower=_clip,
    reference=_clip_reference,
    vjp=_clip_vjp,
    dtypes=NUMBERS,
    samples=(
        sample((3, 4), low=-1, high=1),
        sample((5,), low=None, high=1),
        sample((5,), low=-1.0, high=None),
        sample((0, 2), low=1, high=-1),
        sample((), low=-300, high=300),
    ),
)


# -- roots ---------------------------------------------------------------------------------------


def _cbrt(k: Any, x: Expr) -> Any:
    size = k.apply("abs", x)
    guess = k.exp(k.log(size) * (1.0 / 3.0))
    root = guess - (guess - size / (guess * guess)) * (1.0 / 3.0)  # one step of Newton
    return k.select(x.eq(0) | size.eq(_INFINITY), x, copy_sign(root, x))


def _hypot(k: Any, a: Expr, b: Expr) -> Any:
    a, b = k.apply("abs", a), k.apply("abs", b)
    longer, shorter = k.maximum(a, b), k.minimum(a, b)
    ratio = shorter / k.select(longer.eq(0), k.const(1, a.dtype), longer)
    infinite = a.eq(_INFINITY) | b.eq(_INFINITY)
    length = longer * k.sqrt(k.const(1, a.dtype) + ratio * ratio)
    return k.select(infinite, k.const(_INFINITY, a.dtype), length)


sqrt = Unary(
    "sqrt",
    "Return the square root; its gradient at 0 is infinite.",
    lower=lambda k, x: k.sqrt(x),
    reference=np.sqrt,
    vjp=lambda g, y, x: (g * 0.5 / y,),
    floating=True,
    samples=unary_samples(0.5, 3.0),
)
rsqrt = Unary(
    "rsqrt",
    "Return ``1 / sqrt(x)``.",
    lower=lambda k, x: k.const(1, x.dtype) / k.sqrt(x),
    reference=lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    vjp=lambda g, y, x: (g * y * y * y * -0.5,),
    floating=True,
    samples=unary_samples(0.5, 3.0),
)
cbrt = Unary(
    "cbrt",
    "Return the real cube root, of negative numbers too.",
    lower=_cbrt,
    reference=np.cbrt,
    vjp=lambda g, y, x: (g / (y * y * 3.0),),
    floating=True,
    samples=(*unary_samples(0.5, 3.0), sample(Spec((5,), -30.0, -1.0))),
)
hypot = Binary(
    "hypot",
    "Return ``sqrt(a**2 + b**2)`` without overflow between; infinite if either operand is.",
    lower=_hypot,
    reference=np.hypot,
    vjp=lambda g, y, a, b: (g * (a / y), g * (b / y)),
    floating=True,
    samples=binary_samples((0.5, 2.0), (-2.0, 2.0)),
)

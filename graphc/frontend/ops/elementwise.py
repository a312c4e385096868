"""Element by element: MXNet's unary, broadcasting, comparing and scalar operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import ShapeError, user_location
from graphc.frontend.ops.operator import dims, element_type, listed, operator
from graphc.ir.operand import is_scalar
from graphc.ir.ops import activation, arithmetic, basic, comparison, creation
from graphc.ir.ops import transcendental as functions
from graphc.ir.types import as_dtype, same_shape, shape_text

FLOAT = "float32"
"""Type of what compares."""

Function = Callable[..., Any]


def _unary(record: Any, *names: str) -> Function:
    @operator(*(names or (record.name,)))
    def function(data: Any) -> Any:
        return record(data)

    function.__doc__ = record.__doc__
    return function


def _binary(record: Any, *names: str) -> Function:
    @operator(*names, inputs=("lhs", "rhs"))
    def function(lhs: Any, rhs: Any) -> Any:
        return record(lhs, rhs)

    function.__doc__ = record.__doc__
    return function


def as_mask(result: Any) -> Any:
    """Return a comparison as 0 and 1 in float32, marked so that it is not taken for indices."""
    found = basic.cast(result, FLOAT)
    if hasattr(found, "is_mask"):
        found.is_mask = True
    return found


def _comparing(record: Any, *names: str) -> Function:
    """Return a comparison whose result is 0 or 1 in float32."""

    @operator(*names, inputs=("lhs", "rhs"))
    def function(lhs: Any, rhs: Any) -> Any:
        return as_mask(record(lhs, rhs))

    function.__doc__ = record.__doc__
    return function


def _elementwise(record: Any, *names: str) -> Function:
    """Return an operator of two arrays of one shape."""

    @operator(*names, inputs=("lhs", "rhs"))
    def function(lhs: Any, rhs: Any) -> Any:
        if not same_shape(dims(lhs), dims(rhs)):
            raise ShapeError(
                f"{names[0]} needs equal shapes, got {shape_text(dims(lhs))} and "
                f"{shape_text(dims(rhs))}",
                remedy=f"{names[0].replace('elemwise', 'broadcast')} broadcasts.",
                where=user_location(),
            )
        return record(lhs, rhs)

    function.__doc__ = record.__doc__
    return function


abs = _unary(arithmetic.abs)
sign = _unary(arithmetic.sign)
negative = _unary(arithmetic.negative)
reciprocal = _unary(arithmetic.reciprocal)
square = _unary(arithmetic.square)
sqrt = _unary(arithmetic.sqrt)
rsqrt = _unary(arithmetic.rsqrt)
cbrt = _unary(arithmetic.cbrt)
exp = _unary(functions.exp)
expm1 = _unary(functions.expm1)
log = _unary(functions.log)
log2 = _unary(functions.log2)
log10 = _unary(functions.log10)
log1p = _unary(functions.log1p)
sin = _unary(functions.sin)
cos = _unary(functions.cos)
tan = _unary(functions.tan)
arcsin = _unary(functions.arcsin)
arccos = _unary(functions.arccos)
arctan = _unary(functions.arctan)
sinh = _unary(functions.sinh)
cosh = _unary(functions.cosh)
tanh = _unary(functions.tanh)
arcsinh = _unary(functions.arcsinh)
arccosh = _unary(functions.arccosh)
arctanh = _unary(functions.arctanh)
degrees = _unary(functions.degrees)
radians = _unary(functions.radians)
erf = _unary(functions.erf)
sigmoid = _unary(functions.sigmoid)
log_sigmoid = _unary(functions.log_sigmoid)
softsign = _unary(activation.softsign)
relu = _unary(activation.relu)
silu = _unary(activation.silu, "silu", "swish")
swish = silu
floor = _unary(functions.floor)
ceil = _unary(functions.ceil)
trunc = _unary(functions.trunc)
fix = _unary(functions.trunc, "fix")


@operator("rint")
def rint(data: Any) -> Any:
    """Return the nearest whole number, of ``n + 0.5`` the lower one, ``n``."""
    lower, upper = functions.floor(data), functions.ceil(data)
    return comparison.where(comparison.less_equal(data - lower, upper - data), lower, upper)


@operator("round")
def round(data: Any) -> Any:
    """Return the nearest whole number, halves away from zero."""
    size = arithmetic.abs(data)
    lower = functions.floor(size)
    upwards = basic.cast(comparison.greater_equal(size - lower, 0.5), as_dtype(data.dtype))
    return arithmetic.sign(data) * (lower + upwards)


@operator("gelu")
def gelu(data: Any) -> Any:
    """Return ``x`` times the normal distribution function at ``x``."""
    return activation.gelu(data)


@operator("softrelu", "softplus")
def softrelu(data: Any) -> Any:
    """Return ``log(1 + exp(x))``."""
    return functions.softplus(data)


softplus = softrelu


@operator("hard_sigmoid")
def hard_sigmoid(data: Any, alpha: float = 0.2, beta: float = 0.5) -> Any:
    """Return ``alpha * x + beta`` limited to 0 .. 1."""
    return activation.hard_sigmoid(data, alpha, beta)


@operator("logical_not")
def logical_not(data: Any) -> Any:
    """Return 1 where an element is 0, else 0."""
    return basic.cast(comparison.logical_not(data), FLOAT)


@operator("isnan", "_contrib_isnan")
def isnan(data: Any) -> Any:
    """Return 1 where an element is NaN, else 0."""
    return basic.cast(comparison.isnan(data), FLOAT)


@operator("isinf", "_contrib_isinf")
def isinf(data: Any) -> Any:
    """Return 1 where an element is infinite, else 0."""
    return basic.cast(comparison.isinf(data), FLOAT)


@operator("isfinite", "_contrib_isfinite")
def isfinite(data: Any) -> Any:
    """Return 1 where an element is neither infinite nor NaN, else 0."""
    return basic.cast(comparison.isfinite(data), FLOAT)


@operator("clip")
def clip(data: Any, a_min: float | None = None, a_max: float | None = None) -> Any:
    """Limit elements to ``a_min .. a_max``."""
    return arithmetic.clip(data, a_min, a_max)


@operator("cast", "Cast")
def cast(data: Any, dtype: Any) -> Any:
    """Convert elements to another type."""
    return basic.cast(data, element_type(dtype))


Cast = cast


@operator("zeros_like")
def zeros_like(data: Any) -> Any:
    """Return zeros in the shape and type of ``data``."""
    return creation.zeros_like(data)


@operator("ones_like")
def ones_like(data: Any) -> Any:
    """Return ones in the shape and type of ``data``."""
    return creation.ones_like(data)


@operator("full_like")
def full_like(data: Any, fill_value: float) -> Any:
    """Return ``fill_value`` in the shape and type of ``data``."""
    return creation.full_like(data, fill_value)


# -- two operands ------------------------------------------------------------------------------

add = broadcast_add = broadcast_plus = _binary(
    arithmetic.add, "broadcast_add", "broadcast_plus", "add"
)
subtract = broadcast_sub = broadcast_minus = _binary(
    arithmetic.subtract, "broadcast_sub", "broadcast_minus", "subtract"
)
multiply = broadcast_mul = _binary(arithmetic.multiply, "broadcast_mul", "multiply")
divide = true_divide = broadcast_div = _binary(
    arithmetic.divide, "broadcast_div", "divide", "true_divide"
)
modulo = broadcast_mod = _binary(arithmetic.mod, "broadcast_mod", "modulo")
power = broadcast_power = _binary(functions.power, "broadcast_power", "power", "pow")
maximum = broadcast_maximum = _binary(arithmetic.maximum, "broadcast_maximum", "maximum")
minimum = broadcast_minimum = _binary(arithmetic.minimum, "broadcast_minimum", "minimum")
hypot = broadcast_hypot = _binary(arithmetic.hypot, "broadcast_hypot", "hypot")
arctan2 = _binary(functions.arctan2, "arctan2")

equal = broadcast_equal = _comparing(comparison.equal, "broadcast_equal", "equal")
not_equal = broadcast_not_equal = _comparing(
    comparison.not_equal, "broadcast_not_equal", "not_equal"
)
lesser = broadcast_lesser = _comparing(comparison.less, "broadcast_lesser", "lesser")
lesser_equal = broadcast_lesser_equal = _comparing(
    comparison.less_equal, "broadcast_lesser_equal", "lesser_equal"
)
greater = broadcast_greater = _comparing(comparison.greater, "broadcast_greater", "greater")
greater_equal = broadcast_greater_equal = _comparing(
    comparison.greater_equal, "broadcast_greater_equal", "greater_equal"
)
logical_and = broadcast_logical_and = _comparing(
    comparison.logical_and, "broadcast_logical_and", "logical_and"
)
logical_or = broadcast_logical_or = _comparing(
    comparison.logical_or, "broadcast_logical_or", "logical_or"
)
logical_xor = broadcast_logical_xor = _comparing(
    comparison.logical_xor, "broadcast_logical_xor", "logical_xor"
)

elemwise_add = _elementwise(arithmetic.add, "elemwise_add")
elemwise_sub = _elementwise(arithmetic.subtract, "elemwise_sub")
elemwise_mul = _elementwise(arithmetic.multiply, "elemwise_mul")
elemwise_div = _elementwise(arithmetic.divide, "elemwise_div")


@operator("add_n", "ElementWiseSum", inputs=("args",), variadic=True)
def add_n(*args: Any) -> Any:
    """Return the sum of arrays of one shape."""
    arrays = listed("add_n", args)
    total = arrays[0]
    for array in arrays[1:]:
        total = elemwise_add(total, array)
    return total


ElementWiseSum = add_n


@operator("where", inputs=("condition", "x", "y"))
def where(condition: Any, x: Any, y: Any) -> Any:
    """Return elements of ``x`` where ``condition`` is not 0, of ``y`` elsewhere.

    Parameters
    ----------
    condition : array
        Of the shape of ``x``, or with one axis: one element for each of its rows.
    x, y : array or number
    """
    ndim = max(0 if is_scalar(part) else len(dims(part)) for part in (x, y))
    if len(dims(condition)) == 1 and ndim > 1:
        condition = condition.reshape((-1,) + (1,) * (ndim - 1))
    return comparison.where(condition, x, y)

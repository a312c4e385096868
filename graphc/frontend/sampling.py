"""Random arrays: MXNet's ``nd.random``.

Each call takes the next (seed, counter) of `graphc.random`, or of the trace it is called in.
"""

from __future__ import annotations

from typing import Any

from graphc.errors import ShapeError, user_location
from graphc.frontend.array import Array, common
from graphc.frontend.context import usable
from graphc.frontend.creation import wrapped
from graphc.frontend.ops.operator import dims, element_type
from graphc.frontend.ops.shape import as_tuple
from graphc.frontend.random_key import draw_key
from graphc.frontend.tracer import Tracer
from graphc.ir.ops import basic, comparison, indexing, movement, reduction, transcendental
from graphc.ir.ops import random as core
from graphc.ir.types import as_dtype
from graphc.runtime import random

Shape = Any


def _is_array(parameter: Any) -> bool:
    return isinstance(parameter, (Array, Tracer))


def _device(data: Any) -> Any:
    """Return the device of an array; None for a traced value, whose program decides."""
    return common((data,))


def _sizes(shape: Any, default: tuple[int, ...] = (1,)) -> tuple[Any, ...]:
    return (default if shape is None else as_tuple(shape)) or default


def _float(dtype: Any) -> Any:
    return element_type("float32" if dtype in (None, "None") else dtype)


def _delivered(result: Any, out: Any) -> Any:
    if out is None:
        return result
    out[:] = result
    return out


def _with_parameters(draw: Any, a: Any, b: Any, shape: Any, dtype: Any) -> Any:
    """Return ``unit * a + b`` with one unit draw for each parameter pair and sample.

    ``a`` and ``b`` are arrays of one shape, or one of them a number; ``shape`` is that of the
    samples for each of their elements.
    """
    parameters = dims(a if _is_array(a) else b)
    samples = () if shape is None else as_tuple(shape)
    context = common((a, b))
    unit = wrapped(draw(context, (*parameters, *samples), _float(dtype)), context)
    spread = [
        movement.reshape(p, (*dims(p), *(1,) * len(samples))) if _is_array(p) else p
        for p in (a, b)
    ]
    return unit * spread[0] + spread[1]


def uniform(
    low: Any = 0, high: Any = 1, shape: Shape = None, dtype: Any = "float32", ctx: Any = None,
    out: Any = None,
) -> Any:  # fmt: skip
    """Return numbers uniform in ``low <= x < high``.

    Parameters
    ----------
    low, high : float or array
        With arrays, ``shape`` samples are drawn for each element.
    shape : int or sequence of int
        By default (1,), and that of ``out`` where it is given.
    dtype : {"float32", "float64"}
    ctx : Context, optional
    out : NDArray, optional
        Written into instead of a new array.
    """
    context = usable(ctx)
    if _is_array(low) or _is_array(high):
        found = _with_parameters(
            lambda there, s, d: core.random_uniform(*draw_key(there), s, 0.0, 1.0, d),
            high - low, low, shape, dtype,
        )  # fmt: skip
        return _delivered(found, out)
    sizes = _sizes(shape, (1,) if out is None else out.shape)
    found = core.random_uniform(*draw_key(context), sizes, low, high, _float(dtype))
    return _delivered(wrapped(found, context), out)


def normal(
    loc: Any = 0, scale: Any = 1, shape: Shape = None, dtype: Any = "float32", ctx: Any = None,
    out: Any = None,
) -> Any:  # fmt: skip
    """Return normally distributed numbers of mean ``loc`` and standard deviation ``scale``.

    Arguments as of `uniform`.
    """
    context = usable(ctx)
    if _is_array(loc) or _is_array(scale):
        found = _with_parameters(
            lambda there, s, d: core.random_normal(*draw_key(there), s, 0.0, 1.0, d),
            scale, loc, shape, dtype,
        )  # fmt: skip
        return _delivered(found, out)
    sizes = _sizes(shape, (1,) if out is None else out.shape)
    found = core.random_normal(*draw_key(context), sizes, loc, scale, _float(dtype))
    return _delivered(wrapped(found, context), out)


def randn(
    *shape: int, loc: Any = 0, scale: Any = 1, dtype: Any = "float32", ctx: Any = None,
    out: Any = None,
) -> Any:  # fmt: skip
    """Return normally distributed numbers; the sizes are the positional arguments."""
    return normal(loc, scale, shape or None, dtype, ctx, out)


def randint(
    low: int, high: int, shape: Shape = None, dtype: Any = "int32", ctx: Any = None,
    out: Any = None,
) -> Any:  # fmt: skip
    """Return integers uniform in ``low <= x < high``."""
    context = usable(ctx)
    sizes = _sizes(shape, (1,) if out is None else out.shape)
    kind = element_type("int32" if dtype in (None, "None") else dtype)
    found = core.random_randint(*draw_key(context), sizes, low, high, kind)
    return _delivered(wrapped(found, context), out)


def bernoulli(
    prob: float = 0.5, shape: Shape = None, dtype: Any = "float32", ctx: Any = None
) -> Any:
    """Return 1 with probability ``prob``, else 0."""
    context = usable(ctx)
    kind = element_type(dtype)
    found = core.random_bernoulli(*draw_key(context), _sizes(shape), prob, kind)
    return wrapped(found, context)


def exponential(
    scale: Any = 1.0, shape: Shape = None, dtype: Any = "float32", ctx: Any = None,
    out: Any = None,
) -> Any:  # fmt: skip
    """Return exponentially distributed numbers of mean ``scale``.

    Arguments as of `uniform`.
    """
    context = usable(ctx)

    def unit(there: Any, sizes: Any, kind: Any) -> Any:
        # By the host: NumPy's logarithm has other bits than a kernel's.
        uniforms = wrapped(core.random_uniform(*draw_key(), sizes, 0.0, 1.0, kind), None)
        return -transcendental.log1p(-uniforms)

    if _is_array(scale):
        return _delivered(_with_parameters(unit, scale, 0.0, shape, dtype), out)
    sizes = _sizes(shape, (1,) if out is None else out.shape)
    return _delivered(wrapped(unit(context, sizes, _float(dtype)) * scale, context), out)


def shuffle(data: Any, out: Any = None) -> Any:
    """Return the rows (axis 0) of an array in random order."""
    if not dims(data):
        raise ShapeError("shuffle needs at least one axis", where=user_location())
    order = wrapped(core.random_permutation(*draw_key(), dims(data)[0]), None)
    return _delivered(indexing.take(data, order, 0), out)


def permutation(x: Any, ctx: Any = None) -> Any:
    """Return ``0 .. x - 1`` in random order as int64, or the rows of an array."""
    if _is_array(x):
        return shuffle(x)
    context = usable(ctx)
    return wrapped(core.random_permutation(*draw_key(), int(x)), context)


def multinomial(
    data: Any, shape: Shape = None, get_prob: bool = False, out: Any = None,
    dtype: Any = "int32",
) -> Any:  # fmt: skip
    """Return class numbers drawn with given probabilities.

    Each class waits for an exponential time of rate ``p``; the first one to come is drawn.

    Parameters
    ----------
    data : array, shape (..., classes)
        Probabilities along the last axis.
    shape : int or sequence of int, optional
        Of the draws for each row; by default one, without an axis of its own.
    get_prob : bool
        Return the logarithms of the drawn probabilities as well.
    """
    batch, samples = dims(data)[:-1], () if shape is None else as_tuple(shape)
    classes = dims(data)[-1]
    spread = movement.reshape(data, (*batch, *(1,) * len(samples), classes))
    u = wrapped(core.random_uniform(*draw_key(), (*batch, *samples, classes)), None)
    # A class of probability 0 never comes, even where the time is 0 as well.
    waits = comparison.where(spread > 0, -transcendental.log1p(-u) / spread, float("inf"))
    drawn = basic.cast(reduction.argmin(waits, -1), element_type(dtype))
    drawn = drawn if dims(drawn) else movement.reshape(drawn, (1,))
    if not get_prob:
        return _delivered(drawn, out)
    logs = transcendental.log(spread)
    full = movement.broadcast_to(logs, (*batch, *samples, classes))
    full = full if len(dims(full)) > 1 else movement.expand_dims(full, 0)
    return [drawn, indexing.pick(full, drawn)]


def uniform_like(data: Any, low: float = 0.0, high: float = 1.0) -> Any:
    """Return numbers uniform in ``low <= x < high`` in the shape and type of ``data``."""
    return uniform(low, high, dims(data), as_dtype(data.dtype), _device(data))


def normal_like(data: Any, loc: float = 0.0, scale: float = 1.0) -> Any:
    """Return normally distributed numbers in the shape and type of ``data``."""
    return normal(loc, scale, dims(data), as_dtype(data.dtype), _device(data))


def seed(seed_state: int, ctx: Any = "all") -> None:
    """Restart every random stream of graphc; equal seeds give equal draws on every device.

    Parameters
    ----------
    seed_state : int
    ctx : Context or "all"
        Accepted as MXNet's: there is one stream for all devices.
    """
    random.seed(int(seed_state))


# MXNet's older names, which its operators have as well.
random_uniform, random_normal, random_randint = uniform, normal, randint
random_exponential, sample_multinomial = exponential, multinomial

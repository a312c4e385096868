"""Activation functions of neural networks; `sigmoid` and `tanh` are in `transcendental`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.ir.op import NUMBERS, Pointwise, Sample, sample
from graphc.ir.operand import apply
from graphc.ir.ops.arithmetic import NumberUnary, abs, square
from graphc.ir.ops.comparison import greater, less, logical_and, unary_samples, where
from graphc.ir.ops.transcendental import erf, exp, sigmoid, tanh
from graphc.ir.scalar_math import REFERENCES

_SELU_ALPHA = 1.6732632423543772
_SELU_SCALE = 1.0507009873554805
_GELU_CUBIC = 0.044715
_SQRT_HALF = math.sqrt(0.5)
_SQRT_TWO_OVER_PI = math.sqrt(2.0 / math.pi)


def _with(samples: tuple[Sample, ...], **attrs: Any) -> tuple[Sample, ...]:
    return tuple(sample(*s.specs, **attrs) for s in samples)


relu = NumberUnary(
    "relu",
    "Return ``max(x, 0)``; NaN stays. The gradient at 0 is 0.",
    lower=lambda k, x: k.maximum(x, 0),
    reference=lambda x: np.maximum(x, x.dtype.type(0)),
    vjp=lambda g, y, x: (where(greater(y, 0.0), g, 0.0),),
    dtypes=NUMBERS,
    samples=unary_samples(),
)


class LeakyRelu(Pointwise):
    """A rectifier that lets a part of negative values through."""

    def __call__(self, x: Any, slope: float = 0.01) -> Any:
        """Return ``x`` above 0, else ``slope * x``; the gradient at 0 is ``slope``."""
        return apply(self, (x,), {"slope": float(slope)})


leaky_relu = LeakyRelu(
    "leaky_relu",
    "Return ``x`` above 0, else ``slope * x``; the gradient at 0 is ``slope``.",
    lower=lambda k, x, *, slope: k.select(x > 0, x, x * slope),
    reference=lambda x, *, slope: np.where(x > 0, x, x * x.dtype.type(slope)),
    vjp=lambda g, y, x, *, slope: (where(greater(x, 0.0), g, g * slope),),
    floating=True,
    samples=(*_with(unary_samples(), slope=0.01), sample((5,), slope=0.25)),
)


def prelu(x: Any, alpha: Any) -> Any:
    """Return ``x`` above 0, else ``alpha * x``.

    Parameters
    ----------
    x, alpha : operands
        They broadcast; ``alpha`` is learned and gets a gradient.
    """
    return where(greater(x, 0.0), x, x * alpha)


class Elu(Pointwise):
    """The exponential linear unit."""

    def __call__(self, x: Any, alpha: float = 1.0) -> Any:
        """Return ``x`` above 0, else ``alpha * (exp(x) - 1)``."""
        return apply(self, (x,), {"alpha": float(alpha)})


def _elu(k: Any, x: Any, *, alpha: float) -> Any:
    return k.select(x > 0, x, k.apply("expm1", x) * alpha)


def _elu_reference(x: np.ndarray, *, alpha: float) -> Any:
    return np.where(x > 0, x, np.expm1(x) * x.dtype.type(alpha))


elu = Elu(
    "elu",
    "Return ``x`` above 0, else ``alpha * (exp(x) - 1)``; the gradient at 0 is ``alpha``.",
    lower=_elu,
    reference=_elu_reference,
    vjp=lambda g, y, x, *, alpha: (where(greater(x, 0.0), g, g * (y + alpha)),),
    floating=True,
    samples=(*_with(unary_samples(), alpha=1.0), sample((5,), alpha=0.5)),
)
selu = NumberUnary(
    "selu",
    f"Return ``{_SELU_SCALE:.4f} * elu(x, {_SELU_ALPHA:.4f})``, which keeps mean 0 and variance 1.",
    lower=lambda k, x: _elu(k, x, alpha=_SELU_ALPHA) * _SELU_SCALE,
    reference=lambda x: _elu_reference(x, alpha=_SELU_ALPHA) * x.dtype.type(_SELU_SCALE),
    vjp=lambda g, y, x: (
        where(greater(x, 0.0), g * _SELU_SCALE, g * (y + _SELU_ALPHA * _SELU_SCALE)),
    ),
    floating=True,
    samples=unary_samples(),
)


class Gelu(Pointwise):
    """The Gaussian error linear unit."""

    def __call__(self, x: Any, approximate: bool = False) -> Any:
        """Return ``x`` times the normal distribution function at ``x``.

        Parameters
        ----------
        x : operand
        approximate : bool
            Use ``0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))`` instead.
        """
        return apply(self, (x,), {"approximate": bool(approximate)})


def _gelu(k: Any, x: Any, *, approximate: bool) -> Any:
    if approximate:
        inner = (x + x * x * x * _GELU_CUBIC) * _SQRT_TWO_OVER_PI
        return x * 0.5 * (k.tanh(inner) + 1)
    return x * 0.5 * (k.apply("erf", x * _SQRT_HALF) + 1)


def _gelu_reference(x: np.ndarray, *, approximate: bool) -> Any:
    kind = x.dtype.type
    if approximate:
        inner = (x + x * x * x * kind(_GELU_CUBIC)) * kind(_SQRT_TWO_OVER_PI)
        return x * kind(0.5) * (np.tanh(inner) + 1)
    return x * kind(0.5) * (REFERENCES["erf"](x * kind(_SQRT_HALF)) + 1)


def _gelu_vjp(g: Any, y: Any, x: Any, *, approximate: bool) -> tuple[Any, ...]:
    if approximate:
        bent = tanh((x + x * square(x) * _GELU_CUBIC) * _SQRT_TWO_OVER_PI)
        slope = (square(x) * (3.0 * _GELU_CUBIC) + 1.0) * _SQRT_TWO_OVER_PI
        return (g * ((bent + 1.0) * 0.5 + x * (1.0 - square(bent)) * slope * 0.5),)
    density = exp(square(x) * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))
    return (g * ((erf(x * _SQRT_HALF) + 1.0) * 0.5 + x * density),)


gelu = Gelu(
    "gelu",
    "Return ``x`` times the normal distribution function at ``x``, or its tanh approximation.",
    lower=_gelu,
    reference=_gelu_reference,
    vjp=_gelu_vjp,
    floating=True,
    samples=(*_with(unary_samples(), approximate=False), *_with(unary_samples(), approximate=True)),
)


def _silu_vjp(g: Any, y: Any, x: Any) -> tuple[Any, ...]:
    gate = sigmoid(x)
    return (g * (gate + y * (1.0 - gate)),)


silu = NumberUnary(
    "silu",
    "Return ``x * sigmoid(x)``, also called swish.",
    lower=lambda k, x: x * k.apply("sigmoid", x),
    reference=lambda x: x * REFERENCES["sigmoid"](x),
    vjp=_silu_vjp,
    floating=True,
    samples=unary_samples(),
)


class HardSigmoid(Pointwise):
    """A sigmoid of three straight pieces."""

    def __call__(self, x: Any, alpha: float = 0.2, beta: float = 0.5) -> Any:
        """Return ``alpha * x + beta`` limited to 0 .. 1; no gradient flows at the limits."""
        return apply(self, (x,), {"alpha": float(alpha), "beta": float(beta)})


hard_sigmoid = HardSigmoid(
    "hard_sigmoid",
    "Return ``alpha * x + beta`` limited to 0 .. 1; no gradient flows at the limits.",
    lower=lambda k, x, *, alpha, beta: k.minimum(k.maximum(x * alpha + beta, 0), 1),
    reference=lambda x, *, alpha, beta: np.minimum(
        np.maximum(x * x.dtype.type(alpha) + x.dtype.type(beta), x.dtype.type(0)), x.dtype.type(1)
    ),
    vjp=lambda g, y, x, *, alpha, beta: (
        where(logical_and(greater(y, 0.0), less(y, 1.0)), g * alpha, 0.0),
    ),
    floating=True,
    samples=_with(unary_samples(-4.0, 4.0), alpha=0.2, beta=0.5),
)
softsign = NumberUnary(
    "softsign",
    "Return ``x / (1 + |x|)``.",
    lower=lambda k, x: x / (k.apply("abs", x) + 1),
    reference=lambda x: x / (np.abs(x) + 1),
    vjp=lambda g, y, x: (g / square(abs(x) + 1.0),),
    floating=True,
    samples=unary_samples(),
)

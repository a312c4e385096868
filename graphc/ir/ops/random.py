"""Random numbers that are a function of (seed, counter, element number), and dropout.

``seed`` and ``counter`` are 0-d i64 operands; the counter names the random operation, the
row-major element number the draw. So results do not depend on schedules or threads, bits and
uniforms are equal on every target, and a dropout mask is drawn again in the backward pass instead
of stored. See `graphc.ir.ops.philox` for the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.loop import For, Let, Stmt, Store
from graphc.ir.op import FLOATS, Kind, OpDef, Sample, Spec, register, sample
from graphc.ir.operand import apply
from graphc.ir.ops.composite import as_shape, attempt, known_shape
from graphc.ir.ops.movement import flat_index
from graphc.ir.ops.philox import ARRAYS, KERNEL, Arithmetic, Words
from graphc.ir.types import (
    DType,
    TensorType,
    as_dtype,
    bool_,
    float32,
    float64,
    int32,
    int64,
    normalize_axes,
    sizes_of,
    uint8,
    uint32,
    uint64,
)

Shape = tuple[Dim, ...]
SEED = Spec((), 0, 1 << 40, int64)
COUNTER = Spec((), 0, 1000, int64)
PIECE = 1 << 14
"""Elements the NumPy references draw at a time."""


def _draws(*cases: dict[str, Any]) -> tuple[Sample, ...]:
    return tuple(sample(SEED, COUNTER, **case) for case in cases)


def _drawn(
    seed: np.ndarray, counter: np.ndarray, shape: Sequence[int], draw: Callable[[Words], Any]
) -> np.ndarray:
    """Return ``draw(words)`` of every element, computed in pieces that stay in the cache."""
    count = math.prod(shape)
    pieces = []
    with np.errstate(all="ignore"):
        for start in range(0, max(count, 1), PIECE):
            elements = np.arange(start, min(start + PIECE, count))
            pieces.append(draw(ARRAYS.block(seed, counter, elements)))
    return np.concatenate(pieces).reshape(tuple(shape))


def _require(condition: bool, message: str, remedy: str) -> None:
    if not condition:
        raise ArgumentError(message, remedy=remedy)


class Sampler(OpDef):
    """Base of the records that draw an array: ``draw`` turns a block of words into an element."""

    kind, gradient, dtypes, compiled = Kind.POINTWISE, False, (int64,), True

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Take the seed and the counter as i64."""
        return (int64,) * len(types)

    def check(self, **attrs: Any) -> None:
        """Raise ArgumentError for parameters that make no distribution."""

    def draw(self, ops: Arithmetic, words: Words, **attrs: Any) -> Any:
        """Return one element from its words."""
        raise NotImplementedError

    def sampled(self, seed: Any, counter: Any, shape: Any, dtype: Any, **attrs: Any) -> Any:
        """Apply the record to checked parameters."""
        attempt(self.name, (), lambda: self.check(dtype=as_dtype(dtype), **attrs))
        attrs = {"shape": as_shape(shape), "dtype": as_dtype(dtype), **attrs}
        return apply(self, (seed, counter), attrs)

    def infer(
        self, seed: TensorType, counter: TensorType, *, shape: Shape, dtype: DType, **attrs: Any
    ) -> TensorType:
        """Return the declared type."""
        if seed.ndim or counter.ndim:
            raise ArgumentError(f"seed and counter are 0-d, got {seed} and {counter}")
        return TensorType(dtype, sizes_of(*shape))

    def lower(
        self, k: Any, seed: Expr, counter: Expr, *, shape: Shape, dtype: DType, **attrs: Any
    ) -> Any:
        """Draw the element of this row-major number."""
        words = KERNEL.block(seed, counter, flat_index(k.index, k.shape))
        return self.draw(KERNEL, words, dtype=dtype, **attrs)

    def reference(
        self, seed: np.ndarray, counter: np.ndarray, *, shape: Any, dtype: DType, **attrs: Any
    ) -> Any:
        """Draw with NumPy."""
        return _drawn(
            seed, counter, shape, lambda words: self.draw(ARRAYS, words, dtype=dtype, **attrs)
        )


class RandomBits(Sampler):
    """Words of 32 random bits."""

    name = "random_bits"
    samples = _draws({"shape": (3, 5), "dtype": uint32}, {"shape": (0, 2), "dtype": uint32})

    def __call__(self, seed: Any, counter: Any, shape: Any) -> Any:
        """Return u32 words of random bits."""
        return self.sampled(seed, counter, shape, uint32)

    def draw(self, ops: Arithmetic, words: Words, *, dtype: DType) -> Any:
        """Return the first word."""
        return words[0]


class RandomUniform(Sampler):
    """Floats uniform in [low, high)."""

    name = "random_uniform"
    samples = _draws(
        {"shape": (4, 3), "dtype": float32, "low": 0.0, "high": 1.0},
        {"shape": (5,), "dtype": float64, "low": -2.0, "high": 3.0},
        {"shape": (), "dtype": float32, "low": -1.0, "high": 1.0},
    )
    tolerance: dict[DType, tuple[float, float]] = {}

    def __call__(
        self, seed: Any, counter: Any, shape: Any, low: float = 0.0, high: float = 1.0,
        dtype: Any = float32,
    ) -> Any:  # fmt: skip
        """Return floats uniform in ``low <= x < high``; 24 random bits, in float64 53."""
        return self.sampled(seed, counter, shape, dtype, low=float(low), high=float(high))

    def check(self, *, dtype: DType, low: float, high: float) -> None:
        """Raise for a range that is empty or not finite."""
        _floating(self.name, dtype)
        _require(low <= high, f"uniform needs low <= high, got {low} and {high}", "Exchange them.")
        with np.errstate(all="ignore"):
            width = np.subtract(high, low, dtype=dtype.numpy)
        held = f"{dtype.name} does not hold the range {low} .. {high}"
        _require(np.isfinite(width), held, "Narrow the range.")

    def draw(self, ops: Arithmetic, words: Words, *, dtype: DType, low: float, high: float) -> Any:
        """Scale 24 or 53 bits."""
        unit = ops.uniform(words[0], words[1], dtype)
        if (low, high) == (0.0, 1.0):
            return unit
        scalar: Any = dtype.numpy.type
        first, end = scalar(low), scalar(high)
        width, last = end - first, max(np.nextafter(end, first), first)
        drawn = unit * ops.constant(width, dtype) + ops.constant(first, dtype)
        # Rounding may reach the bound, which is not part of the range.
        return _least(ops, drawn, ops.constant(last, dtype))


def _least(ops: Arithmetic, a: Any, b: Any) -> Any:
    return E.apply("min", a, b) if ops is KERNEL else np.minimum(a, b)


def _floating(name: str, dtype: DType) -> None:
    if dtype not in FLOATS:
        raise DTypeError(f"{name} draws float32 or float64, not {dtype.name}")


class RandomNormal(Sampler):
    """Normally distributed floats, by the Box-Muller transform."""

    name = "random_normal"
    samples = _draws(
        {"shape": (4, 5), "dtype": float32, "loc": 0.0, "scale": 1.0},
        {"shape": (7,), "dtype": float64, "loc": 3.0, "scale": 0.5},
        {"shape": (0,), "dtype": float32, "loc": 0.0, "scale": 1.0},
    )
    # Beside a zero of the cosine a rounding of the angle shows in full.
    tolerance = {float32: (2e-5, 5e-6), float64: (1e-12, 1e-14)}

    def __call__(
        self, seed: Any, counter: Any, shape: Any, loc: float = 0.0, scale: float = 1.0,
        dtype: Any = float32,
    ) -> Any:  # fmt: skip
        """Return floats of mean ``loc`` and standard deviation ``scale``.

        ``sqrt(-2 log u) cos(2 pi v)`` of two uniform draws: G. E. P. Box, M. E. Muller, A note on
        the generation of random normal deviates, 1958, doi:10.1214/aoms/1177706645.
        """
        return self.sampled(seed, counter, shape, dtype, loc=float(loc), scale=float(scale))

    def check(self, *, dtype: DType, loc: float, scale: float) -> None:
        """Raise for a negative standard deviation."""
        _floating(self.name, dtype)
        _require(scale >= 0, f"normal needs scale >= 0, got {scale}", "Pass its absolute value.")

    def draw(self, ops: Arithmetic, words: Words, *, dtype: DType, loc: float, scale: float) -> Any:
        """Transform two draws."""
        second = (words[1], words[0]) if dtype is float32 else words[2:]
        u = ops.positive_uniform(words[0], words[1], dtype)
        angle = ops.uniform(*second, dtype) * ops.constant(2 * math.pi, dtype)
        log, sqrt, cos = (_function(ops, name) for name in ("log", "sqrt", "cos"))
        unit = sqrt(log(u) * ops.constant(-2.0, dtype)) * cos(angle)
        return unit * ops.constant(scale, dtype) + ops.constant(loc, dtype)


def _function(ops: Arithmetic, name: str) -> Any:
    return (lambda x: E.apply(name, x)) if ops is KERNEL else getattr(np, name)


class RandomRandint(Sampler):
    """Integers uniform in [low, high)."""

    name = "random_randint"
    samples = _draws(
        {"shape": (4, 5), "dtype": int32, "low": -3, "high": 4},
        {"shape": (6,), "dtype": int64, "low": -(1 << 62), "high": 1 << 62},
        {"shape": (3,), "dtype": uint8, "low": 0, "high": 256},
    )

    def __call__(
        self, seed: Any, counter: Any, shape: Any, low: int, high: int, dtype: Any = int32
    ) -> Any:
        """Return integers uniform in ``low <= x < high``."""
        return self.sampled(seed, counter, shape, dtype, low=int(low), high=int(high))

    def check(self, *, dtype: DType, low: int, high: int) -> None:
        """Raise for an empty range, or one the type does not hold."""
        if not dtype.integer:
            raise DTypeError(f"random_randint draws integers, not {dtype.name}")
        _require(low < high, f"randint needs low < high, got {low} and {high}", "Widen the range.")
        limits = np.iinfo(dtype.name)
        fits = limits.min <= low and high - 1 <= limits.max
        _require(fits, f"{dtype.name} does not hold {low} .. {high - 1}", "Pass a wider dtype.")

    def draw(self, ops: Arithmetic, words: Words, *, dtype: DType, low: int, high: int) -> Any:
        """Scale 64 bits to the range."""
        offset = ops.cast(ops.below(words[0], words[1], high - low), int64)
        first = low - (1 << 64) if low >= 1 << 63 else low
        return ops.cast(offset + ops.constant(first, int64), dtype)


def _threshold(probability: float) -> int:
    """Return below which of 2**32 words an event of this probability happens."""
    return round(probability * (1 << 32))


def _happens(ops: Arithmetic, word: Any, probability: float) -> Any:
    """Return, as a bool, whether an event of this probability happens; resolution 2**-32."""
    limit = _threshold(probability)
    if limit >= 1 << 32:
        return word >= ops.word(0)
    return word < ops.word(limit)


def _check_probability(name: str, p: float) -> None:
    _require(0 <= p <= 1, f"{name} needs a probability, got {p}", "It lies between 0 and 1.")


class RandomBernoulli(Sampler):
    """Ones with a probability, else zeros."""

    name = "random_bernoulli"
    samples = _draws(
        {"shape": (4, 5), "dtype": float32, "p": 0.3},
        {"shape": (6,), "dtype": bool_, "p": 0.5},
        {"shape": (3,), "dtype": int32, "p": 1.0},
    )

    def __call__(
        self, seed: Any, counter: Any, shape: Any, p: float = 0.5, dtype: Any = float32
    ) -> Any:
        """Return 1 with probability ``p``, else 0."""
        return self.sampled(seed, counter, shape, dtype, p=float(p))

    def check(self, *, dtype: DType, p: float) -> None:
        """Raise for what is no probability."""
        _check_probability(self.name, p)

    def draw(self, ops: Arithmetic, words: Words, *, dtype: DType, p: float) -> Any:
        """Compare the first word."""
        return ops.cast(_happens(ops, words[0], p), dtype)


class RandomPermutation(OpDef):
    """The numbers 0 .. n - 1 in random order, every order as likely as any other."""

    name, kind, gradient, dtypes = "random_permutation", Kind.OPAQUE, False, (int64,)
    samples = _draws({"n": 7}, {"n": 1}, {"n": 0})

    def __call__(self, seed: Any, counter: Any, n: Dim) -> Any:
        """Return ``0 .. n - 1`` as i64 in random order.

        The shuffle of R. A. Fisher and F. Yates (R. Durstenfeld, 1964,
        doi:10.1145/364520.364540).
        """
        return apply(self, (seed, counter), {"n": n})

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Take the seed and the counter as i64."""
        return (int64,) * len(types)

    def infer(self, seed: TensorType, counter: TensorType, *, n: Dim) -> TensorType:
        """Return a 1-d type."""
        return TensorType(int64, sizes_of(n))

    def nest(self, k: Any, outputs: Any, *operands: Buffer, **attrs: Any) -> tuple[Stmt, ...]:
        """Exchange each element, last to first, with one not after it."""
        (out,), (seed, counter) = outputs, operands
        fill, step, other, mine, theirs = (k.axis_names() for _ in range(5))
        last = E.index(out.shape[0] - 1 - symbol(step))
        start = E.index(0)
        words = KERNEL.block(E.load(seed, start), E.load(counter, start), last)
        bound = E.cast(last + 1, uint64)
        chosen = E.cast(KERNEL.below(words[0], words[1], bound), int64)
        place = E.use(other, chosen)
        value = E.load(out, last)
        body = (
            Let(other, chosen),
            Let(mine, value),
            Let(theirs, E.load(out, place)),
            Store(out, last, E.use(theirs, value)),
            Store(out, place, E.use(mine, value)),
        )
        count = E.index(out.shape[0])
        identity = Store(out, E.index(symbol(fill)), E.index(symbol(fill)))
        return For(fill, start, count, (identity,)), For(step, start, count, body)

    def reference(self, seed: np.ndarray, counter: np.ndarray, *, n: int) -> Any:
        """Shuffle with NumPy's draws."""
        words = ARRAYS.block(seed, counter, np.arange(n))
        bounds = np.arange(n, dtype=np.uint64) + np.uint64(1)
        chosen = ARRAYS.below(words[0], words[1], bounds).tolist()
        order = list(range(n))
        for last in reversed(range(n)):
            place = chosen[last]
            order[last], order[place] = order[place], order[last]
        return np.asarray(order, np.int64)


class Dropout(OpDef):
    """The operand with elements set to zero at random and the others scaled up."""

    name, kind, dtypes, compiled = "dropout", Kind.POINTWISE, FLOATS, True
    samples = (
        sample((4, 5), SEED, COUNTER, p=0.5, axes=()),
        sample((3, 4, 2), SEED, COUNTER, p=0.3, axes=(1,)),
        sample((4,), SEED, COUNTER, p=0.0, axes=()),
        sample((4,), SEED, COUNTER, p=1.0, axes=()),
        sample((0, 3), SEED, COUNTER, p=0.5, axes=()),
    )

    def __call__(
        self, x: Any, seed: Any, counter: Any, p: float = 0.5, axes: Sequence[int] = ()
    ) -> Any:
        """Return ``x / (1 - p)`` with each element 0 with probability ``p``.

        Parameters
        ----------
        x : operand
            float32 or float64.
        seed, counter : operand
            0-d i64; equal ones draw the same mask, so the gradient needs no mask kept.
        p : float
        axes : sequence of int
            Axes along which all elements share one draw.
        """
        shape = known_shape(x)
        if shape is not None and tuple(axes):
            axes = attempt(self.name, (x,), normalize_axes, tuple(axes), len(shape))
        attrs = {"p": float(p), "axes": tuple(axes)}
        return apply(self, (x, seed, counter), attrs)

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Take the seed and the counter as i64."""
        return types[0].dtype, int64, int64

    def infer(
        self, x: TensorType, seed: TensorType, counter: TensorType, *, p: float, axes: Any
    ) -> TensorType:
        """Return the operand's type."""
        _check_probability(self.name, p)
        if x.dtype not in FLOATS:
            raise DTypeError(
                f"dropout takes float32 or float64, got {x.dtype.name}",
                remedy="Cast the operand first.",
            )
        if seed.ndim or counter.ndim:
            raise ArgumentError(f"seed and counter are 0-d, got {seed} and {counter}")
        return x

    def vjp(
        self, g: Any, y: Any, x: Any, seed: Any, counter: Any, *, p: float, axes: Any
    ) -> tuple[Any, ...]:
        """Drop the same elements of the gradient."""
        return dropout(g, seed, counter, p, axes), None, None

    def lower(self, k: Any, x: Expr, seed: Expr, counter: Expr, *, p: float, axes: Any) -> Any:
        """Draw the mask again from the element's number."""
        shared = {a % len(k.shape) for a in axes}
        shape = [1 if a in shared else d for a, d in enumerate(k.shape)]
        index = [E.index(0) if a in shared else i for a, i in enumerate(k.index)]
        word = KERNEL.block(seed, counter, flat_index(index, shape))[0]
        return k.select(_happens(KERNEL, word, 1 - p), x * _scale(p), k.const(0, x.dtype))

    def reference(
        self, x: np.ndarray, seed: np.ndarray, counter: np.ndarray, *, p: float, axes: Any
    ) -> Any:
        """Drop with NumPy."""
        shared = {a % x.ndim for a in axes}
        shape = [1 if a in shared else d for a, d in enumerate(x.shape)]
        kept = _drawn(seed, counter, shape, lambda words: _happens(ARRAYS, words[0], 1 - p))
        with np.errstate(all="ignore"):
            return np.where(kept, x * x.dtype.type(_scale(p)), x.dtype.type(0))


def _scale(p: float) -> float:
    return 1 / (1 - p) if p < 1 else 0.0


random_bits = register(RandomBits())
random_uniform = register(RandomUniform())
random_normal = register(RandomNormal())
random_randint = register(RandomRandint())
random_bernoulli = register(RandomBernoulli())
random_permutation = register(RandomPermutation())
dropout = register(Dropout())

"""The generator against its published vectors; bits, shapes and statistics of what it draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.errors import ArgumentError, DTypeError, GraphcError, ShapeError
from graphc.ir import expr as E
from graphc.ir.evaluate import evaluate_expr, lower_and_evaluate
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import interpret
from graphc.ir.op import OpDef
from graphc.ir.ops.philox import ARRAYS, KERNEL, philox
from graphc.ir.ops.random import (
    PIECE,
    dropout,
    random_bernoulli,
    random_bits,
    random_normal,
    random_permutation,
    random_randint,
    random_uniform,
)
from graphc.ir.sizes import SizeSolver, solving
from graphc.ir.types import (
    DType,
    TensorType,
    as_dtype,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
)
from graphc.passes.differentiate import gradients

SEED, COUNTER = np.int64(20240229), np.int64(7)
PI_WORDS = 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0
# Known answers of the authors' distribution: rounds, counter and key words, block.
VECTORS = [
    (7, (0,) * 6, (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
    (7, (0xFFFFFFFF,) * 6, (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)),
    (7, PI_WORDS, (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A)),
    (10, (0,) * 6, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (10, (0xFFFFFFFF,) * 6, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (10, PI_WORDS, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def drawn(op: OpDef, shape: Any, dtype: DType, **attrs: Any) -> np.ndarray:
    found: np.ndarray = op.reference(SEED, COUNTER, shape=shape, dtype=dtype, **attrs)
    return found


# -- bits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rounds", "words", "block"), VECTORS)
def test_known_answers(rounds: int, words: Any, block: Any) -> None:
    with np.errstate(over="ignore"):
        arrays = [np.asarray(w, np.uint32) for w in words]
        assert philox(tuple(arrays[:4]), tuple(arrays[4:]), ARRAYS, rounds) == block
    scalars = [E.const(w, uint32) for w in words]
    exprs = philox(tuple(scalars[:4]), tuple(scalars[4:]), KERNEL, rounds)
    assert tuple(int(evaluate_expr(e)) for e in exprs) == block


def test_the_words_are_made_of_element_counter_and_seed() -> None:
    seed, counter = np.int64(0x299F31D0A4093822), np.int64(0x0370734413198A2E)
    element = np.int64(0x85A308D3243F6A88 - (1 << 64))
    with np.errstate(over="ignore"):
        assert tuple(map(int, ARRAYS.block(seed, counter, element))) == VECTORS[-1][2]


CASES: list[tuple[OpDef, DType, dict[str, Any]]] = [
    (random_bits, uint32, {}),
    (random_uniform, float32, {"low": 0.0, "high": 1.0}),
    (random_uniform, float32, {"low": -3.0, "high": 0.7}),
    (random_uniform, float64, {"low": 0.0, "high": 1.0}),
    (random_randint, int32, {"low": -5, "high": 12}),
    (random_randint, int64, {"low": -(1 << 63), "high": (1 << 63) - 1}),
    (random_bernoulli, float32, {"p": 0.25}),
]


@pytest.mark.parametrize(("op", "dtype", "attrs"), CASES)
def test_kernel_and_reference_draw_equal_bits(op: OpDef, dtype: DType, attrs: Any) -> None:
    for seed in (SEED, np.int64(-1)):
        given = {"shape": (50, 41), "dtype": dtype, **attrs}
        (computed,) = lower_and_evaluate(op, [seed, COUNTER], given)
        np.testing.assert_array_equal(computed, op.reference(seed, COUNTER, **given))


@pytest.mark.parametrize(("op", "dtype", "attrs"), CASES)
def test_an_element_depends_on_its_row_major_number_only(
    op: OpDef, dtype: DType, attrs: Any
) -> None:
    long = drawn(op, (3 * PIECE + 5,), dtype, **attrs)
    np.testing.assert_array_equal(drawn(op, (7, 11), dtype, **attrs).ravel(), long[:77])
    assert drawn(op, (0, 3), dtype, **attrs).shape == (0, 3)
    assert drawn(op, (), dtype, **attrs) == long[0]


def test_seeds_and_counters_draw_apart() -> None:
    def bits(seed: int, counter: int) -> np.ndarray:
        return random_bits.reference(np.int64(seed), np.int64(counter), shape=(999,), dtype=uint32)

    streams = [bits(0, 0), bits(1, 0), bits(0, 1), bits(1 << 32, 0), bits(0, 1 << 32)]
    assert len(np.unique(np.concatenate(streams))) > 4990
    flips = np.bitwise_count(streams[0] ^ streams[1]).mean()
    assert flips == pytest.approx(16, abs=0.4)


# -- distributions -----------------------------------------------------------------------------


def chi_square(counts: np.ndarray, expected: np.ndarray | float) -> float:
    """Return the chi-square statistic as standard deviations from its mean."""
    degrees = counts.size - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return (statistic - degrees) / math.sqrt(2 * degrees)


COUNT = 200_000


@pytest.mark.parametrize("dtype", [float32, float64])
def test_uniform(dtype: DType) -> None:
    x = drawn(random_uniform, (COUNT,), dtype, low=0.0, high=1.0)
    assert x.min() >= 0 and x.max() < 1
    assert x.mean() == pytest.approx(0.5, abs=4 / math.sqrt(12 * COUNT))
    assert x.var() == pytest.approx(1 / 12, abs=4 / math.sqrt(180 * COUNT))
    counts = np.histogram(x, 256, (0, 1))[0]
    assert abs(chi_square(counts, COUNT / 256)) < 4
    pairs = np.histogram2d(x[::2], x[1::2], 16, [(0, 1), (0, 1)])[0]
    assert abs(chi_square(pairs, COUNT / 512)) < 4
    last = (x.astype(np.float64) * (1 << 24)).astype(np.int64) & 0xFF
    assert abs(chi_square(np.bincount(last, minlength=256), COUNT / 256)) < 4


def test_uniform_never_reaches_its_upper_bound() -> None:
    for low, high in ((1.0, 1.0 + 2e-7), (-1e30, 1e30), (0.1, 0.3), (5.0, 5.0)):
        x = drawn(random_uniform, (COUNT,), float32, low=low, high=high)
        assert x.min() >= np.float32(low)
        assert x.max() < np.float32(high) or low == high


@pytest.mark.parametrize("dtype", [float32, float64])
def test_normal(dtype: DType) -> None:
    x = drawn(random_normal, (COUNT,), dtype, loc=0.0, scale=1.0).astype(np.float64)
    assert np.isfinite(x).all()
    assert x.mean() == pytest.approx(0, abs=4 / math.sqrt(COUNT))
    assert x.var() == pytest.approx(1, abs=4 * math.sqrt(2 / COUNT))
    assert (x**3).mean() == pytest.approx(0, abs=4 * math.sqrt(15 / COUNT))
    assert (x**4).mean() == pytest.approx(3, abs=4 * math.sqrt(96 / COUNT))
    edges = np.linspace(-3, 3, 41)
    below = np.array([0.5 * math.erfc(-e / math.sqrt(2)) for e in edges])
    counts = np.histogram(x, np.concatenate([[-np.inf], edges, [np.inf]]))[0]
    assert abs(chi_square(counts, np.diff(below, prepend=0, append=1) * COUNT)) < 4
    neighbours = (x[1:] * x[:-1]).mean()
    assert neighbours == pytest.approx(0, abs=4 / math.sqrt(COUNT))
    moved = drawn(random_normal, (COUNT,), dtype, loc=3.0, scale=0.5)
    np.testing.assert_allclose(moved, x * 0.5 + 3, rtol=1e-5)


@pytest.mark.parametrize("words", [(0, 0, 0, 0), (0xFFFFFFFF,) * 4])
@pytest.mark.parametrize("dtype", [float32, float64])
def test_normal_is_finite_at_the_ends_of_the_bits(words: Any, dtype: DType) -> None:
    block = tuple(np.asarray(w, np.uint32) for w in words)
    x = random_normal.draw(ARRAYS, block, dtype=dtype, loc=0.0, scale=1.0)
    assert np.isfinite(x)


@pytest.mark.parametrize(("low", "high"), [(0, 10), (-3, 4), (0, 256)])
def test_randint(low: int, high: int) -> None:
    x = drawn(random_randint, (COUNT,), int64, low=low, high=high)
    assert x.min() == low and x.max() == high - 1
    counts = np.bincount(x - low)
    assert abs(chi_square(counts, COUNT / (high - low))) < 4


def test_randint_over_more_than_32_bits() -> None:
    low, high = -3 * (1 << 60), 1 << 61
    x = drawn(random_randint, (COUNT,), int64, low=low, high=high)
    assert x.min() >= low and x.max() < high
    part = (x.astype(object) - low) * 50 // (high - low)
    assert abs(chi_square(np.bincount(part.astype(int)), COUNT / 50)) < 4


@pytest.mark.parametrize("bound", [(1 << 32) - 1, (1 << 32) + 1, 3 * (1 << 33) + 5, (1 << 64) - 1])
def test_draws_below_a_bound_are_the_upper_half_of_a_product(bound: int) -> None:
    high, low = np.random.default_rng(0).integers(0, 1 << 32, (2, 50)).astype(np.uint32)
    expected = [((int(h) << 32 | int(m)) * bound) >> 64 for h, m in zip(high, low, strict=True)]
    with np.errstate(over="ignore"):
        assert ARRAYS.below(high, low, bound).tolist() == expected


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_bernoulli(p: float) -> None:
    x = drawn(random_bernoulli, (COUNT,), int32, p=p)
    assert set(np.unique(x)) <= {0, 1}
    assert x.mean() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / COUNT))


def test_permutations_are_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for counter in range(2400):
        order = random_permutation.reference(SEED, np.int64(counter), n=4)
        counts[tuple(order)] = counts.get(tuple(order), 0) + 1
    assert len(counts) == 24
    assert abs(chi_square(np.array(list(counts.values())), 100.0)) < 4
    assert sorted(random_permutation.reference(SEED, COUNTER, n=1000)) == list(range(1000))


# -- dropout -----------------------------------------------------------------------------------


def test_dropout_scales_what_it_keeps() -> None:
    x = np.ones((400, 500), np.float32)
    y = dropout.reference(x, SEED, COUNTER, p=0.3, axes=())
    kept = y != 0
    assert kept.mean() == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / x.size))
    np.testing.assert_array_equal(y[kept], np.float32(1) * np.float32(1 / 0.7))
    assert abs(kept.mean(0) - 0.7).max() < 0.15 and abs(kept.mean(1) - 0.7).max() < 0.15


def test_dropped_elements_hide_nan_and_ends_of_p() -> None:
    x = np.full((2000,), np.nan, np.float64)
    y = dropout.reference(x, SEED, COUNTER, p=0.5, axes=())
    assert 0 < np.isnan(y).sum() < 2000 and (y[~np.isnan(y)] == 0).all()
    x = np.arange(5.0)
    np.testing.assert_array_equal(dropout.reference(x, SEED, COUNTER, p=0.0, axes=()), x)
    np.testing.assert_array_equal(dropout.reference(x, SEED, COUNTER, p=1.0, axes=()), x * 0)


def test_axes_of_dropout_share_one_draw() -> None:
    y = dropout.reference(np.ones((20, 30, 4)), SEED, COUNTER, p=0.5, axes=(0, 2))
    assert (y == y[:1, :, :1]).all()
    assert 0 < (y != 0).mean() < 1


def test_the_gradient_of_dropout_has_the_same_mask_and_keeps_nothing() -> None:
    x = placeholder("x", TensorType(float32, (30, 40)))
    g = placeholder("g", TensorType(float32, (30, 40)))
    keys = [placeholder(name, TensorType(int64, ())) for name in ("seed", "counter")]
    y = dropout(x, *keys, 0.4)
    (gradient,) = gradients([y], [g], [x])
    assert isinstance(gradient, Value)
    assert gradient.op_name == "dropout" and gradient.node.inputs == (g, *keys)
    ones = np.ones((30, 40), np.float32)
    outputs = interpret(Graph("d", (x, g, *keys), (y, gradient)), [ones, 2 * ones, SEED, COUNTER])
    np.testing.assert_array_equal(outputs[1], 2 * outputs[0])


# -- types and errors --------------------------------------------------------------------------


def key() -> tuple[Value, Value]:
    return tuple(placeholder(n, TensorType(int64, ())) for n in ("seed", "counter"))


def test_shapes_may_be_symbolic() -> None:
    solver = SizeSolver()
    with solving(solver):
        batch = solver.fresh("B", 8)
        assert random_uniform(*key(), (batch, 3)).shape == (batch, 3)
        assert random_permutation(*key(), batch).shape == (batch,)
        x = placeholder("x", TensorType(float32, (batch, 3)))
        assert dropout(x, *key()).shape == (batch, 3)
        assert not solver.constraints


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: random_uniform(*key(), (2,), 3, 1), ArgumentError, "low <= high, got 3.0 and 1.0"),
        (lambda: random_uniform(*key(), (2,), dtype="int32"), DTypeError, "not int32"),
        (lambda: random_uniform(*key(), (2,), 1, 0), ArgumentError, "low <= high"),
        (lambda: random_uniform(*key(), (2,), 0, math.inf), ArgumentError, "not hold the range"),
        (lambda: random_uniform(*key(), (2,), -3e38, 3e38), ArgumentError, "not hold the range"),
        (lambda: random_uniform(*key(), (-2,)), ShapeError, "0 or more, got (-2,)"),
        (lambda: random_normal(*key(), (2,), 0, -1), ArgumentError, "scale >= 0, got -1.0"),
        (lambda: random_randint(*key(), (2,), 4, 4), ArgumentError, "low < high, got 4 and 4"),
        (lambda: random_randint(*key(), (2,), 0, 257, uint8), ArgumentError, "uint8 does not hold"),
        (lambda: random_randint(*key(), (2,), 0, 2, "float32"), DTypeError, "draws integers"),
        (lambda: random_bernoulli(*key(), (2,), 1.5), ArgumentError, "a probability, got 1.5"),
        (lambda: dropout(vector(float32), *key(), -0.1), ArgumentError, "a probability, got -0.1"),
        (lambda: dropout(vector(int32), *key()), DTypeError, "float32 or float64, got int32"),
        (lambda: dropout(vector(float32), vector(int64), key()[0]), ArgumentError, "0-d"),
        (lambda: random_bits(vector(int64), key()[0], (2,)), ArgumentError, "0-d"),
    ],
)
def test_errors_say_what(call: Callable[[], Any], error: type[GraphcError], words: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
    assert "test_random.py" in str(caught.value)


def vector(dtype: DType) -> Value:
    return placeholder("v", TensorType(as_dtype(dtype), (4,)))

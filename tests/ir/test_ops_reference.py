"""Every record against its own reference: types, lowering, decomposition and gradients."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import graphc.ir.ops
from graphc.errors import AutogradError
from graphc.ir.evaluate import lower_and_evaluate
from graphc.ir.graph import Graph, Value, build, placeholder
from graphc.ir.interp import interpret
from graphc.ir.op import Binary, OpDef, Sample, Unary
from graphc.ir.operand import REGISTRY
from graphc.ir.types import DType, TensorType, as_dtype, float64
from graphc.passes.differentiate import gradients

for module in pkgutil.iter_modules(graphc.ir.ops.__path__):
    importlib.import_module(f"graphc.ir.ops.{module.name}")

STEP = 1e-6  # of central differences in float64, whose error is about STEP ** 2

# Of two zeros NumPy itself returns either.
SIGN_OF_ZERO_IS_FREE = ("maximum", "minimum", "relu")


def case_name(op: OpDef, number: int, dtype: DType) -> str:
    return f"{op.name}-{number}-{dtype.short}"


def cases(records: Sequence[OpDef]) -> list[Any]:
    found = []
    for op in records:
        for number, sample in enumerate(op.samples):
            for dtype in op.dtypes:
                found.append(pytest.param(op, sample, dtype, id=case_name(op, number, dtype)))
    return found


RECORDS = list(REGISTRY.values())
LOWERING = [op for op in RECORDS if op.lowers]
DECOMPOSED = [op for op in RECORDS if op.decomposes]
SMOOTH = [op for op in RECORDS if op.gradient and float64 in op.dtypes]


def drawn(op: OpDef, sample: Sample, dtype: DType) -> list[np.ndarray]:
    generator = np.random.default_rng(17)
    return [spec.draw(generator, dtype) for spec in sample.specs]


def promoted(op: OpDef, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    types = [TensorType(as_dtype(a.dtype), a.shape) for a in arrays]
    dtypes = op.operand_dtypes(types)
    if dtypes is None:
        return list(arrays)
    return [a.astype(d.numpy) for a, d in zip(arrays, dtypes, strict=True)]


def results(op: OpDef, arrays: Sequence[np.ndarray], sample: Sample) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        found = op.reference(*promoted(op, arrays), **sample.attrs)
    return tuple(map(np.asarray, found if isinstance(found, tuple) else (found,)))


def assert_close(op: OpDef, computed: np.ndarray, expected: np.ndarray) -> None:
    assert computed.shape == expected.shape
    rtol, atol = op.tolerance.get(as_dtype(expected.dtype), (0.0, 0.0))
    np.testing.assert_allclose(computed, expected, rtol=rtol, atol=atol)


def traced(op: OpDef, arrays: Sequence[np.ndarray], sample: Sample) -> tuple[Any, Any]:
    inputs = tuple(
        placeholder(f"x{n}", TensorType(as_dtype(a.dtype), a.shape)) for n, a in enumerate(arrays)
    )
    return inputs, build(op, inputs, sample.attrs, None)


@pytest.mark.parametrize(("op", "sample", "dtype"), cases(RECORDS))
def test_types_agree_with_the_reference(op: OpDef, sample: Sample, dtype: DType) -> None:
    arrays = drawn(op, sample, dtype)
    _, outputs = traced(op, arrays, sample)
    expected = results(op, arrays, sample)
    assert [(v.dtype, v.shape) for v in outputs] == [(as_dtype(e.dtype), e.shape) for e in expected]


@pytest.mark.parametrize("symbolic", [False, True], ids=["sizes", "variables"])
@pytest.mark.parametrize(("op", "sample", "dtype"), cases(LOWERING))
def test_lowering_agrees_with_the_reference(
    op: OpDef, sample: Sample, dtype: DType, symbolic: bool
) -> None:
    arrays = drawn(op, sample, dtype)
    computed = lower_and_evaluate(op, arrays, sample.attrs, symbolic=symbolic)
    for got, expected in zip(computed, results(op, arrays, sample), strict=True):
        assert got.dtype == expected.dtype
        assert_close(op, got, expected)


def composed(op: OpDef, arrays: Sequence[np.ndarray], sample: Sample) -> list[np.ndarray]:
    inputs, values = traced(op, arrays, sample)
    parts = op.decompose(*values[0].node.inputs, **sample.attrs)
    graph = Graph("parts", inputs, parts if isinstance(parts, tuple) else (parts,))
    return interpret(graph, arrays)


@pytest.mark.parametrize(("op", "sample", "dtype"), cases(DECOMPOSED))
def test_decomposition_agrees_with_the_reference(op: OpDef, sample: Sample, dtype: DType) -> None:
    arrays = drawn(op, sample, dtype)
    computed = composed(op, arrays, sample)
    for got, expected in zip(computed, results(op, arrays, sample), strict=True):
        assert got.dtype == expected.dtype
        assert_close(op, got, expected)


# -- special values --------------------------------------------------------------------------------


def special_values(dtype: DType) -> np.ndarray:
    """Return what goes wrong first: signed zeros, infinities, NaN, the ends of a range."""
    if not dtype.floating:
        if dtype.kind == "b":
            return np.array([False, True])
        limits = np.iinfo(dtype.name)
        edges = [limits.min, limits.min + 1, limits.max, limits.max - 1]
        return np.array(sorted({*edges, *range(max(-4, limits.min), 5)}), dtype.name)
    tiny = np.finfo(dtype.name).smallest_subnormal
    positive = [0.0, 0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 7.0, np.inf, tiny]
    return np.array([*positive, *(-v for v in positive), np.nan], dtype.name)


def pointwise_cases() -> list[Any]:
    found = []
    for op in RECORDS:
        if isinstance(op, Unary | Binary) and op.lowers:
            attrs = op.samples[0].attrs
            for dtype in op.dtypes:
                found.append(pytest.param(op, attrs, dtype, id=f"{op.name}-{dtype.short}"))
    return found


@pytest.mark.parametrize(("op", "attrs", "dtype"), pointwise_cases())
def test_special_values(op: OpDef, attrs: dict[str, Any], dtype: DType) -> None:
    values = special_values(dtype)
    operands = [values]
    if isinstance(op, Binary):
        operands = [m.ravel() for m in np.meshgrid(values, values)]
    (got,) = lower_and_evaluate(op, operands, attrs)
    expected = np.asarray(op.reference(*promoted(op, operands), **attrs))
    assert_close(op, got, expected)
    if got.dtype.kind == "f" and op.name not in SIGN_OF_ZERO_IS_FREE:
        zero = expected == 0
        assert (np.signbit(got[zero]) == np.signbit(expected[zero])).all()


# A kernel multiplies the zeros it reads beside the data, NumPy leaves them out; and a chain of
# three operands may be summed in either order. Both show only at infinity times zero.
ZERO_TIMES_INFINITY_IS_FREE = ("conv_data_grad", "conv_transpose", "einsum")


def scattered(array: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return an array with special values at a third of its places."""
    values = special_values(as_dtype(array.dtype))
    chosen = generator.random(array.shape) < 0.34
    return np.where(chosen, generator.choice(values, array.shape), array).astype(array.dtype)


@pytest.mark.parametrize(
    ("op", "sample", "dtype"),
    cases([op for op in RECORDS if op.lowers or op.decomposes]),
)
def test_special_values_within_samples(op: OpDef, sample: Sample, dtype: DType) -> None:
    generator = np.random.default_rng(3)
    arrays = [
        scattered(array, generator) if spec.dtype is None else array
        for spec, array in zip(sample.specs, drawn(op, sample, dtype), strict=True)
    ]
    if op.name in ZERO_TIMES_INFINITY_IS_FREE:
        arrays = [np.where(np.isfinite(a), a, 1).astype(a.dtype) for a in arrays]
    if op.decomposes:
        computed = composed(op, arrays, sample)
    else:
        computed = list(lower_and_evaluate(op, arrays, sample.attrs))
    for got, expected in zip(computed, results(op, arrays, sample), strict=True):
        assert_close(op, got, expected)


# -- gradients -------------------------------------------------------------------------------------


def directional(graph: Graph, arrays: Sequence[np.ndarray], along: Sequence[np.ndarray]) -> float:
    """Return the derivative of a graph's scalar output along a direction, by differences."""
    moved = [
        [a if d is None else a + sign * STEP * d for a, d in zip(arrays, along, strict=True)]
        for sign in (1, -1)
    ]
    ahead, behind = (interpret(graph, a) for a in moved)
    return float((ahead[0] - behind[0]) / (2 * STEP))


def weighted_sum(values: Sequence[Value], weights: Sequence[Value]) -> Value:
    total = None
    for value, weight in zip(values, weights, strict=True):
        part = REGISTRY["sum"](value * weight)
        total = part if total is None else total + part
    return total


class Slope:
    """A scalar function of an op's operands, its gradient, and checks of both by differences."""

    def __init__(self, op: OpDef, sample: Sample) -> None:
        self.generator = np.random.default_rng(5)
        self.arrays = drawn(op, sample, float64)
        self.inputs, self.outputs = traced(op, self.arrays, sample)
        self.wrt = [v for v in self.inputs if v.dtype is float64]

    def random_like(self, values: Sequence[Value]) -> tuple[list[Value], list[np.ndarray]]:
        fresh = [placeholder(f"w{n}{id(v)}", v.type) for n, v in enumerate(values)]
        return fresh, [np.asarray(self.generator.uniform(0.5, 1.5, v.shape)) for v in values]

    def check(self, outputs: Sequence[Value]) -> list[Value]:
        """Compare the gradient of a random combination of ``outputs``; return the gradient."""
        floats = [v for v in outputs if v.dtype is float64]
        weights, weight_arrays = self.random_like(floats)
        self.inputs, self.arrays = (*self.inputs, *weights), [*self.arrays, *weight_arrays]
        total = weighted_sum(floats, weights)
        one = REGISTRY["add"](total * 0.0, 1.0)
        found = gradients([total], [one], self.wrt)
        reached = [(v, g) for v, g in zip(self.wrt, found, strict=True) if g is not None]
        for value, gradient in reached:
            assert gradient.type == value.type
        along = [
            self.generator.uniform(-1, 1, v.shape) if v in dict(reached) else None
            for v in self.inputs
        ]
        graph = Graph("gradient", self.inputs, tuple(g for _, g in reached))
        computed = 0.0
        for (value, _), gradient in zip(reached, interpret(graph, self.arrays), strict=True):
            computed += float((gradient * along[self.inputs.index(value)]).sum())
        expected = directional(Graph("total", self.inputs, (total,)), self.arrays, along)
        assert computed == pytest.approx(expected, rel=2e-5, abs=2e-7)
        return [g for _, g in reached]


def has_slope(op: OpDef, sample: Sample) -> bool:
    """Return whether a sample has float64 operands and finite float64 results."""
    if not any(spec.dtype in (None, float64) for spec in sample.specs):
        return False
    found = results(op, drawn(op, sample, float64), sample)
    floats = any(r.dtype == np.float64 for r in found)
    return floats and all(np.isfinite(r).all() for r in found)


def gradient_cases() -> list[Any]:
    return [
        pytest.param(op, sample, id=f"{op.name}-{number}")
        for op in SMOOTH
        for number, sample in enumerate(op.samples)
        if has_slope(op, sample)
    ]


@pytest.mark.parametrize(("op", "sample"), gradient_cases())
def test_gradients_agree_with_differences(op: OpDef, sample: Sample) -> None:
    slope = Slope(op, sample)
    found = slope.outputs
    for order in range(op.orders):
        found = slope.check(found)
        assert found or order, f"{op.name} says it has a gradient and returned none"
    if op.orders < 2:
        with pytest.raises(AutogradError, match="cannot be differentiated"):
            slope.check(found)


def test_every_record_is_documented_and_sampled() -> None:
    for op in RECORDS:
        assert op.__doc__, f"{op.name} has no docstring"
        assert op.dtypes == () or op.samples, f"{op.name} has no samples"

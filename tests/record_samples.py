"""Samples of every record: what tests run compiled code on, and what must come out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import graphc.ir.ops  # noqa: F401
from graphc.frontend.trace import trace
from graphc.ir.graph import Graph, Value, build, lift
from graphc.ir.op import OpDef, Sample
from graphc.ir.operand import REGISTRY
from graphc.ir.types import DType, TensorType, as_dtype

RECORDS = [op for _, op in sorted(REGISTRY.items()) if op.samples and op.dtypes]
WITHOUT_CUDA = frozenset({"pooled_data_grad", "pooled_weight_grad", "python_kernel"})
"""Records without a CUDA schedule: Python, and what a pass puts in place of others on the CPU."""


def cases(every_dtype: bool) -> list[Any]:
    """Return op, sample and dtype of each test."""
    found = []
    for op in RECORDS:
        for number, sample in enumerate(op.samples):
            free = any(spec.dtype is None for spec in sample.specs)
            dtypes = op.dtypes if free else op.dtypes[:1]
            first = dtypes[number % len(dtypes)]
            chosen = dtypes if every_dtype else [first]
            found += [
                pytest.param(op, sample, d, id=f"{op.name}-{number}-{d.short}") for d in chosen
            ]
    return found


def draw(op: OpDef, sample: Sample, dtype: DType) -> list[np.ndarray]:
    """Return the operands of a sample."""
    generator = np.random.default_rng(sum(op.name.encode()))
    return [spec.draw(generator, dtype) for spec in sample.specs]


def graph_of(op: OpDef, sample: Sample, operands: Sequence[np.ndarray]) -> Graph:
    """Return the graph of one op, as users trace it."""
    types = [TensorType(as_dtype(a.dtype), a.shape) for a in operands]
    return trace(functools.partial(_apply, op, sample), types, op.name)


def _apply(op: OpDef, sample: Sample, *values: Value) -> Any:
    return build(op, lift(op, values), sample.attrs, None)


def check_outputs(
    op: OpDef,
    sample: Sample,
    operands: Sequence[np.ndarray],
    graph: Graph,
    outputs: Sequence[np.ndarray],
) -> None:
    """Demand that outputs are what the record's reference returns, within its tolerance."""
    promoted = [TensorType(as_dtype(a.dtype), a.shape) for a in operands]
    kinds = op.operand_dtypes(promoted)
    if kinds is not None:
        operands = [a.astype(k.numpy) for a, k in zip(operands, kinds, strict=True)]
    expected = op.reference(*operands, **sample.attrs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for value, found, wanted in zip(graph.outputs, outputs, expected, strict=True):
        assert found.dtype == value.dtype.numpy
        wanted = np.asarray(wanted).astype(found.dtype)
        assert found.shape == wanted.shape
        rtol, atol = op.tolerance.get(value.dtype, (0.0, 0.0))
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol, equal_nan=True)


def check_same(one: np.ndarray, other: np.ndarray) -> None:
    """Demand equal bits, those of NaNs apart."""
    np.testing.assert_array_equal(one, other)
    if one.dtype.kind == "f":  # which takes -0.0 for 0.0
        numbers = ~np.isnan(one)
        np.testing.assert_array_equal(np.signbit(one[numbers]), np.signbit(other[numbers]))

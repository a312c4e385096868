"""Every record, compiled: each sample agrees with the oracle, in each of its dtypes and engines.

The default run compiles one dtype of each sample under the default engine; the marker ``slow``
takes all of them under each engine, whose results are equal bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import graphc.ir.ops  # noqa: F401
from graphc import config
from graphc.codegen.compiler import ENGINES
from graphc.codegen.cpu import host_target
from graphc.frontend.trace import trace
from graphc.ir.graph import Graph, Value, build, lift
from graphc.ir.op import OpDef, Sample
from graphc.ir.operand import REGISTRY
from graphc.ir.types import DType, TensorType, as_dtype
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program

RECORDS = [op for _, op in sorted(REGISTRY.items()) if op.samples and op.dtypes]


def _cases(every_dtype: bool) -> list[Any]:
    """Return op, sample and dtype of each test."""
    cases = []
    for op in RECORDS:
        for number, sample in enumerate(op.samples):
            free = any(spec.dtype is None for spec in sample.specs)
            dtypes = op.dtypes if free else op.dtypes[:1]
            first = dtypes[number % len(dtypes)]
            chosen = dtypes if every_dtype else [first]
            cases += [
                pytest.param(op, sample, d, id=f"{op.name}-{number}-{d.short}") for d in chosen
            ]
    return cases


def _operands(op: OpDef, sample: Sample, dtype: DType) -> list[np.ndarray]:
    generator = np.random.default_rng(sum(op.name.encode()))
    return [spec.draw(generator, dtype) for spec in sample.specs]


def _graph(op: OpDef, sample: Sample, operands: list[np.ndarray]) -> Graph:
    types = [TensorType(as_dtype(a.dtype), a.shape) for a in operands]
    return trace(functools.partial(_apply, op, sample), types, op.name)


def _apply(op: OpDef, sample: Sample, *values: Value) -> Any:
    return build(op, lift(op, values), sample.attrs, None)


def _check(op: OpDef, sample: Sample, dtype: DType, engines: Sequence[str]) -> None:
    operands = _operands(op, sample, dtype)
    graph = _graph(op, sample, operands)
    plan = compile_graph(graph, host_target())
    found = []
    for engine in engines:
        with config.options(engine=engine):
            found.append(Program(plan)(operands))
    outputs = found[0]
    for others in found[1:]:
        for one, other in zip(outputs, others, strict=True):
            np.testing.assert_array_equal(one, other)
            if one.dtype.kind == "f":  # which takes -0.0 for 0.0
                numbers = ~np.isnan(one)
                np.testing.assert_array_equal(np.signbit(one[numbers]), np.signbit(other[numbers]))
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


@pytest.mark.parametrize(("op", "sample", "dtype"), _cases(every_dtype=False))
def test_compiled_agrees_with_the_oracle(op: OpDef, sample: Sample, dtype: DType) -> None:
    _check(op, sample, dtype, [config.current().engine])


@pytest.mark.slow
@pytest.mark.parametrize(("op", "sample", "dtype"), _cases(every_dtype=True))
def test_every_dtype_and_engine_agrees_with_the_oracle(
    op: OpDef, sample: Sample, dtype: DType
) -> None:
    _check(op, sample, dtype, list(ENGINES))

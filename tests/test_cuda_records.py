"""Every record on the CUDA target, without a GPU: as loops of the CPU, and in step.

Each sample's kernels agree with the oracle as `emulate` makes them the CPU's, and have no fault
that running their threads in step shows. Kernels without reductions give the CPU's own bits. The
default run takes one dtype of each sample; what it compiles are two samples of each record. The
marker ``slow`` compiles all samples in all dtypes, under each engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from cuda_checks import run_plan_in_step
from record_samples import (
    RECORDS,
    WITHOUT_CUDA,
    cases,
    check_outputs,
    check_same,
    draw,
    graph_of,
)

from graphc import config
from graphc.codegen.compiler import ENGINES
from graphc.codegen.cpu import host_target
from graphc.codegen.cuda import cuda_target
from graphc.errors import CompileError
from graphc.ir.expr import Reduce, walk
from graphc.ir.op import OpDef, Sample
from graphc.ir.plan import Plan
from graphc.ir.statements import expressions, statements
from graphc.ir.types import DType
from graphc.passes.emulate import emulated
from graphc.passes.lower import lower
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program

TARGET = cuda_target("sm_90")


def _plan(op: OpDef, sample: Sample, operands: Sequence[np.ndarray]) -> Plan:
    return compile_graph(graph_of(op, sample, operands), TARGET)


def _scheduled(every_dtype: bool, most: int | None = None) -> list[Any]:
    """Return the cases of records with a schedule, at most so many of each."""
    found, counts = [], dict.fromkeys((op.name for op in RECORDS), 0)
    for case in cases(every_dtype):
        name = case.values[0].name
        counts[name] += 1
        if name not in WITHOUT_CUDA and (most is None or counts[name] <= most):
            found.append(case)
    return found


@pytest.mark.parametrize(("op", "sample", "dtype"), _scheduled(every_dtype=False))
def test_threads_have_no_faults(op: OpDef, sample: Sample, dtype: DType) -> None:
    operands = draw(op, sample, dtype)
    run_plan_in_step(_plan(op, sample, operands), operands)


@pytest.mark.parametrize("name", sorted(WITHOUT_CUDA))
def test_records_without_a_schedule(name: str) -> None:
    (op,) = (op for op in RECORDS if op.name == name)
    for sample in op.samples:
        operands = draw(op, sample, op.dtypes[0])
        with pytest.raises(CompileError, match="no CUDA schedule|cannot run on a GPU"):
            Program(emulated(_plan(op, sample, operands)))(operands)


def _reduces(plan: Plan) -> bool:
    """Return whether the order of a sum is the schedule's, or the op writes its own loops."""
    kernels = [lower(launch.node.attrs["body"], "").kernel for launch in plan.launches]
    roots = (e for k in kernels for stmt in statements(k.body) for e in expressions(stmt))
    sums = any(isinstance(e, Reduce) for root in roots for e in walk(root))
    return sums or any(kernel.ordered for kernel in kernels)


def _check(op: OpDef, sample: Sample, dtype: DType, engines: Sequence[str]) -> None:
    operands = draw(op, sample, dtype)
    graph = graph_of(op, sample, operands)
    plan = emulated(compile_graph(graph, TARGET))
    found = []
    for engine in engines:
        with config.options(engine=engine):
            found.append(Program(plan)(operands))
    if not _reduces(plan):
        found.append(Program(compile_graph(graph, host_target()))(operands))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            check_same(one, other)
    check_outputs(op, sample, operands, graph, found[0])


@pytest.mark.parametrize(("op", "sample", "dtype"), _scheduled(every_dtype=False, most=2))
def test_emulated_agrees_with_the_oracle(op: OpDef, sample: Sample, dtype: DType) -> None:
    _check(op, sample, dtype, [config.current().engine])


@pytest.mark.slow
@pytest.mark.parametrize(("op", "sample", "dtype"), _scheduled(every_dtype=True))
def test_every_dtype_and_engine_agrees_with_the_oracle(
    op: OpDef, sample: Sample, dtype: DType
) -> None:
    operands = draw(op, sample, dtype)
    run_plan_in_step(_plan(op, sample, operands), operands)
    _check(op, sample, dtype, list(ENGINES))

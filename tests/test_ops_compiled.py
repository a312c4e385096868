"""Every record, compiled: each sample agrees with the oracle, in each of its dtypes and engines.

The default run compiles one dtype of each sample under the default engine; the marker ``slow``
takes all of them under each engine, whose results are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from record_samples import cases, check_outputs, check_same, draw, graph_of

from graphc import config
from graphc.codegen.compiler import ENGINES
from graphc.codegen.cpu import host_target
from graphc.ir.op import OpDef, Sample
from graphc.ir.types import DType
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program


def _check(op: OpDef, sample: Sample, dtype: DType, engines: Sequence[str]) -> None:
    operands = draw(op, sample, dtype)
    graph = graph_of(op, sample, operands)
    plan = compile_graph(graph, host_target())
    found = []
    for engine in engines:
        with config.options(engine=engine):
            found.append(Program(plan)(operands))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            check_same(one, other)
    check_outputs(op, sample, operands, graph, found[0])


@pytest.mark.parametrize(("op", "sample", "dtype"), cases(every_dtype=False))
def test_compiled_agrees_with_the_oracle(op: OpDef, sample: Sample, dtype: DType) -> None:
    _check(op, sample, dtype, [config.current().engine])


@pytest.mark.slow
@pytest.mark.parametrize(("op", "sample", "dtype"), cases(every_dtype=True))
def test_every_dtype_and_engine_agrees_with_the_oracle(
    op: OpDef, sample: Sample, dtype: DType
) -> None:
    _check(op, sample, dtype, list(ENGINES))

"""Kernels for CUDA as Python text: what Numba's simulator computes of them is the oracle's."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_samples import RECORDS, check_outputs, draw, graph_of

import graphc
from graphc.codegen import numba_cuda
from graphc.codegen.cuda import cuda_target
from graphc.errors import CompileError
from graphc.frontend.trace import trace
from graphc.ir.dim import evaluate
from graphc.ir.graph import Graph
from graphc.ir.ops.contraction import matmul
from graphc.ir.plan import LaunchSpec
from graphc.ir.sizes import bind_sizes
from graphc.ir.types import TensorType, float32
from graphc.passes.manager import compile_graph
from graphc.passes.schedule.cuda import chunks

SIMULATION = Path(__file__).with_name("cuda_simulation.py")
TARGET = cuda_target("sm_90")
CHOSEN = (
    "abs", "add", "all", "argmax", "bitwise_xor", "broadcast_to", "cast", "ceil", "clip", "concat",
    "conv", "dropout", "equal", "erf", "expm1", "floor", "floor_divide", "hypot", "isfinite",
    "logical_not", "max_pool", "maximum", "mod", "one_hot", "pick", "power", "prod", "random_bits",
    "round", "sigmoid", "sin", "softmax", "sqrt", "square", "sum", "take", "tanh", "transpose",
    "trunc", "where",
)  # fmt: skip
"""Records of each kind, those apart that take the simulator seconds."""


def simulated(jobs: list[Any]) -> list[list[np.ndarray]]:
    """Run kernels in the simulator."""
    done = subprocess.run(
        [sys.executable, str(SIMULATION)], input=pickle.dumps(jobs), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found: list[list[np.ndarray]] = pickle.loads(done.stdout)
    return found


def job_of(
    graph: Graph, launch: LaunchSpec, operands: list[np.ndarray], scratch: tuple[Any, ...] = ()
) -> Any:
    """Return a kernel of one launch for the simulator: text, blocks, arrays, sizes."""
    sizes = bind_sizes([v.shape for v in graph.inputs], [a.shape for a in operands])
    assert sizes is not None
    known = dict(zip(launch.kernel.sizes, (evaluate(d, sizes) for d in launch.sizes), strict=True))
    held = dict(zip(graph.inputs, operands, strict=True))
    given = [held[v] if v in held else scratch[0] for v in launch.reads]
    shapes = [[evaluate(d, sizes) for d in v.shape] for v in launch.writes]
    results = [
        np.zeros(shape, v.dtype.numpy) for shape, v in zip(shapes, launch.writes, strict=True)
    ]
    text = numba_cuda.source(launch.kernel, TARGET)
    blocks = evaluate(launch.kernel.extent, known)
    return text, blocks, [np.ascontiguousarray(a) for a in (*given, *results)], list(known.values())


def test_records_in_the_simulator() -> None:
    jobs, checks = [], []
    for op in RECORDS:
        if op.name not in CHOSEN:
            continue
        sample = op.samples[0]
        operands = draw(op, sample, op.dtypes[0])
        graph = graph_of(op, sample, operands)
        launches = compile_graph(graph, TARGET).launches
        if len(launches) == 1:
            jobs.append(job_of(graph, launches[0], operands))
            checks.append((op, sample, operands, graph, len(launches[0].node.outputs)))
    assert len(jobs) >= 30
    for (op, sample, operands, graph, count), arrays in zip(checks, simulated(jobs), strict=True):
        outputs = arrays[-1 - count : -1]
        shaped = [a.reshape([int(d) for d in w.shape]) for a, w in zip(
            outputs, _expected(op, sample, operands), strict=True)]  # fmt: skip
        check_outputs(op, sample, operands, graph, shaped)


def _expected(op: Any, sample: Any, operands: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    found = op.reference(*operands, **sample.attrs)
    return tuple(map(np.asarray, found if isinstance(found, tuple) else (found,)))


def test_failures_in_the_simulator() -> None:
    (op,) = (op for op in RECORDS if op.name == "check_index")
    operands = draw(op, op.samples[0], op.dtypes[0])
    graph = graph_of(op, op.samples[0], operands)
    operands[0].flat[-1] = 99
    (launch,) = compile_graph(graph, TARGET).launches
    flag, report = np.split(simulated([job_of(graph, launch, operands)])[0][-1], [3])
    assert flag[1] == report[1] == 1  # the code
    assert report[2:4].tolist() == [99, operands[0].size - 1]


def product_plan(**options: str) -> Any:
    types = [TensorType(float32, shape) for shape in ((3, 5), (5, 4))]
    with graphc.options(**options):
        return compile_graph(trace(matmul, types, "product"), cuda_target("sm_90"))


def test_barriers_and_shared_memory_in_the_simulator() -> None:
    generator = np.random.default_rng(1)
    a, b = (generator.standard_normal(shape).astype(np.float32) for shape in ((3, 5), (5, 4)))
    plan = product_plan()
    (arrays,) = simulated([job_of(plan.graph, plan.launches[0], [a, b])])
    np.testing.assert_allclose(arrays[2].reshape(3, 4), a @ b, rtol=1e-5)


def test_one_grid_after_the_other_in_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "chunk_count", lambda *given: 2)
    generator = np.random.default_rng(1)
    a, b = (generator.standard_normal(shape).astype(np.float32) for shape in ((3, 20), (20, 4)))
    plan = compile_graph(trace(matmul, [TensorType(float32, x.shape) for x in (a, b)], "g"), TARGET)
    parts, fold = plan.launches
    ((*_, partial, _),) = simulated([job_of(plan.graph, parts, [a, b])])
    ((_, found, _),) = simulated([job_of(plan.graph, fold, [a, b], (partial,))])
    np.testing.assert_allclose(found.reshape(3, 4), a @ b, rtol=1e-5)


def test_tensor_cores_are_refused() -> None:
    launch = product_plan(matmul_precision="tf32").launches[0]
    with pytest.raises(CompileError, match="no products on tensor cores"):
        numba_cuda.source(launch.kernel, TARGET)

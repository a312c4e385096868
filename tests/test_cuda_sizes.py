"""CUDA kernels at many sizes: one program, whatever tiles, rows and turns they end in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from cuda_checks import run_plan_in_step

from graphc import config
from graphc.codegen.cuda import cuda_target
from graphc.errors import VerifyError
from graphc.ir.dim import Dim, evaluate, symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.interp import interpret
from graphc.ir.loop import Barrier, Intrinsic, Kernel, Stmt
from graphc.ir.operand import REGISTRY as R
from graphc.ir.plan import Plan
from graphc.ir.statements import mapped, statements
from graphc.ir.target import Target
from graphc.ir.types import TensorType, float32
from graphc.passes.differentiate import gradients
from graphc.passes.emulate import emulated
from graphc.passes.manager import compile_graph
from graphc.runtime.program import Program

B, H, M, N, K = map(symbol, "BHMNK")
PRECISIONS = {"tf32": 1e-3, "bfloat16": 8e-3, "float16": 1e-3}
"""Precision of products -> what results may be off, relative to the largest."""


def graph(function: Callable[..., Value], *shapes: tuple[Dim, ...]) -> Graph:
    inputs = tuple(placeholder(f"x{i}", TensorType(float32, s)) for i, s in enumerate(shapes))
    return Graph("g", inputs, (function(*inputs),))


def conv_step(x: Value, w: Value) -> Graph:
    """Return a convolution and both of its gradients."""
    out = R["conv"](x, w, pad=1)
    return Graph("g", (x, w), (out, *gradients([out], [out * 0.5], [x, w])))  # type: ignore


PRODUCTS: dict[str, tuple[Graph, list[dict[str, int]]]] = {
    "matmul": (
        graph(lambda a, b: R["matmul"](a, b), (M, K), (K, N)),
        [
            {"M": 1, "K": 1, "N": 1},
            {"M": 130, "K": 70, "N": 200},
            {"M": 64, "K": 64, "N": 64},
            {"M": 7, "K": 600, "N": 5},
            {"M": 140, "K": 96, "N": 132},
            {"M": 250, "K": 36, "N": 128},
            {"M": 257, "K": 33, "N": 31},
        ],
    ),
    "transposed": (
        graph(
            lambda a, b: R["relu"](R["matmul"](a, b, transpose_a=True, transpose_b=True)),
            (K, M), (N, K),
        ),
        [{"M": 130, "K": 70, "N": 200}, {"M": 12, "K": 512, "N": 3}],
    ),
    "layer": (
        graph(
            lambda a, w, b: R["relu"](R["matmul"](a, w, transpose_b=True) + b),
            (B, 96), (40, 96), (40,),
        ),
        [{"B": 1}, {"B": 5}, {"B": 200}],
    ),
    "batches": (
        graph(lambda a, b: R["matmul"](a, b), (B, H, M, 16), (B, H, 16, N)),
        [{"B": 2, "H": 3, "M": 9, "N": 20}, {"B": 1, "H": 2, "M": 100, "N": 65}],
    ),
    "conv": (
        conv_step(
            placeholder("x", TensorType(float32, (B, 6, H, H))),
            placeholder("w", TensorType(float32, (10, 6, 3, 3))),
        ),
        [{"B": 1, "H": 5}, {"B": 3, "H": 14}],
    ),
}  # fmt: skip

ROWS: dict[str, tuple[Graph, list[dict[str, int]]]] = {
    "softmax": (
        graph(lambda x: R["softmax"](x, axis=-1), (M, N)),
        [{"M": m, "N": n} for m, n in ((1, 1), (3, 7), (9, 1024), (2, 1025), (2, 4096))],
    ),
    "layer_norm": (
        graph(lambda x, g, b: R["layer_norm"](x, g, b), (M, N), (N,), (N,)),
        [{"M": m, "N": n} for m, n in ((1, 8), (5, 100), (3, 1028), (2, 3001))],
    ),
    "columns": (
        graph(lambda x: R["sum"](x * x, axis=0), (M, N)),
        [{"M": m, "N": n} for m, n in ((1, 1), (100, 3), (33, 64), (2000, 130))],
    ),
    "all": (
        graph(lambda x: R["mean"](x), (M, N)),
        [{"M": m, "N": n} for m, n in ((1, 1), (3, 1000), (40, 129), (70, 129))],
    ),
    "middle": (
        graph(lambda x: R["max"](x, axis=1), (B, M, N)),
        [{"B": 3, "M": 40, "N": 5}, {"B": 2, "M": 3, "N": 300}],
    ),
    "transpose": (
        graph(lambda x: R["transpose"](x, axes=(1, 0)) * 2.0, (M, N)),
        [{"M": 1, "N": 1}, {"M": 70, "N": 33}],
    ),
}


def target() -> Target:
    """Return a device of so few processors that tiles are large for small products, too."""
    return replace(cuda_target("sm_90"), cores=2)


def draw(whole: Graph, bound: dict[str, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(sum(bound.values()))
    shapes = [[evaluate(d, bound) for d in v.shape] for v in whole.inputs]
    return [generator.standard_normal(s).astype(np.float32) for s in shapes]


def check(case: tuple[Graph, list[dict[str, int]]], tolerance: float) -> Plan:
    """Run a graph at all of its sizes; return its plan."""
    whole, sizes = case
    plan = compile_graph(whole, target())
    program = Program(emulated(plan))
    for bound in sizes:
        arrays = draw(whole, bound)
        expected = interpret(whole, arrays, bound)
        for found, wanted in zip(program(arrays), expected, strict=True):
            limit = tolerance * float(np.abs(wanted).max(initial=1.0))
            np.testing.assert_allclose(found, wanted, rtol=0, atol=limit, err_msg=str(bound))
        run_plan_in_step(plan, arrays)
    return plan


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    check(PRODUCTS[name], 1e-5)


@pytest.mark.parametrize(
    "precision",
    ["bfloat16", *(pytest.param(p, marks=pytest.mark.slow) for p in ("tf32", "float16"))],
)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_rounded_factors(name: str, precision: str) -> None:
    with config.options(matmul_precision=precision):
        plan = check(PRODUCTS[name], PRECISIONS[precision])
    found = [s for launch in plan.launches for s in statements(launch.kernel.body)]
    assert any(isinstance(s, Intrinsic) and s.operation.startswith("mma") for s in found)


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str) -> None:
    check(ROWS[name], 1e-5)


def without_barrier(kernel: Kernel, number: int) -> Kernel:
    """Return a kernel with one barrier less."""
    numbers = count()

    def change(stmt: Stmt) -> tuple[Stmt, ...]:
        return () if isinstance(stmt, Barrier) and next(numbers) == number else (stmt,)

    return replace(kernel, body=mapped(kernel.body, change))


@pytest.mark.parametrize("name", ["matmul", "softmax", "layer_norm", "columns", "all"])
def test_every_barrier_is_needed(name: str) -> None:
    whole, sizes = (PRODUCTS | ROWS)[name]
    plan = compile_graph(whole, target())
    launch = plan.launches[0]
    barriers = sum(isinstance(s, Barrier) for s in statements(launch.kernel.body))
    assert barriers
    for number in range(barriers):
        faulty = replace(launch, kernel=without_barrier(launch.kernel, number))
        assert any(races(replace(plan, launches=(faulty,)), draw(whole, b)) for b in sizes)


def races(plan: Plan, arrays: list[np.ndarray]) -> bool:
    try:
        run_plan_in_step(plan, arrays)
    except VerifyError:
        return True
    return False

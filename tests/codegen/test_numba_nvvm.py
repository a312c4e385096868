"""The Numba engine's kernels for a GPU, by numba-cuda's own compiler: they assemble, spill nothing,
and compute by the instructions that the LLVM engine's kernels compute by.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from ptxas import assembled, ptx
from record_samples import RECORDS, WITHOUT_CUDA, draw, graph_of

import graphc
from graphc.cli import main
from graphc.codegen import compiler, cuda_code, numba_cuda
from graphc.codegen.cuda import cuda_target
from graphc.errors import CompileError, MissingDependencyError
from graphc.frontend.trace import trace
from graphc.ir.loop import Kernel
from graphc.ir.op import OpDef
from graphc.ir.ops.contraction import matmul
from graphc.ir.types import TensorType, float32
from graphc.passes.manager import compile_graph

TARGET = cuda_target("sm_90")
MODEL = f"{Path(__file__).parent.parent / 'models' / 'mlp.py'}:gelu"
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason="no numba-cuda: the dependency group cuda-check has it",
)
CHOSEN = (
    "argmax", "bitwise_xor", "cast", "concat", "erf", "floor_divide", "max_pool", "maximum",
    "random_bits", "random_normal", "round", "sum", "take", "trunc", "where",
)  # fmt: skip
"""Records whose first kernels tests compile by default: short ones, of each kind."""
SHORT, LONG = 120, ("matmul", "conv")
"""Lines of kernels that Numba types in a second or two, and records whose kernels take longer."""
SPECIAL = re.compile(r"\b((?:fma|div|sqrt|rsqrt|rcp|ex2|lg2|sin|cos|tanh)\.\S*f\d\d)\b")
"""Instructions that a compiler may put in the place of others, and give other bits."""
INEXACT = re.compile(r"\S*\.(?:approx|full|ftz)\S*|\b(?:add|sub|mul)\.f(?:32|64)\b")
"""Instructions that do not round as IEEE 754 says, or that the assembler may fuse."""

WIDE = re.compile(r"\b(?:add|sub|mul|div|fma|setp|cvt)\.\S*f64\b")
"""Arithmetic in float64, to which Numba promotes where a text leaves it to."""


def kernels_of(name: str, samples: slice = slice(None)) -> list[Kernel]:
    """Return the kernels of a record's samples."""
    (op,) = (op for op in RECORDS if op.name == name)
    found = []
    for number, sample in enumerate(op.samples[samples]):
        operands = draw(op, sample, op.dtypes[number % len(op.dtypes)])
        plan = compile_graph(graph_of(op, sample, operands), TARGET)
        found += [launch.kernel for launch in plan.launches]
    return found


def check(kernels: Sequence[Kernel]) -> None:
    """Compare both engines' PTX of kernels, and what each takes."""
    for kernel in kernels:
        with graphc.options(engine="numba"):
            text = compiler.assembly(kernel, TARGET)
        other = ptx(kernel, TARGET)
        assert not INEXACT.findall(text), kernel.name
        assert set(SPECIAL.findall(text)) == set(SPECIAL.findall(other)), kernel.name
        assert bool(WIDE.search(text)) == bool(WIDE.search(other)), kernel.name
        taken, usual = (assembled(each, TARGET, kernel) for each in (text, other))
        assert taken.spill_bytes == 0, f"{kernel.name} spills: {taken}"
        assert taken.registers <= 2 * usual.registers + 16, f"{kernel.name}: {taken}, {usual}"


@needs_compiler
@pytest.mark.parametrize("name", CHOSEN)
def test_kernels_compile_to_the_same_instructions(name: str) -> None:
    check(kernels_of(name, slice(0, 1)))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("op", RECORDS, ids=lambda op: op.name)
def test_every_record(op: OpDef) -> None:
    if op.name not in WITHOUT_CUDA:
        kernels = kernels_of(op.name, slice(0, 1))[:1]
        check([k for k in kernels if op.name in LONG or _lines(k) <= SHORT])


def _lines(kernel: Kernel) -> int:
    return numba_cuda.source(kernel, TARGET).count("\n")


@needs_compiler
def test_compiled_kernels_are_launched_as_the_other_engine_s() -> None:
    (kernel,) = kernels_of("add", slice(0, 1))
    (usual,) = compiler.compile_kernels([kernel], TARGET)
    with graphc.options(engine="numba"):
        (made,) = compiler.compile_kernels([kernel], TARGET)
        assert compiler.compile_kernels([kernel], TARGET) == [made]
    assert made.key != usual.key
    codes = [cuda_code.read(each.code) for each in (made, usual)]
    entry = re.compile(rb"\.entry graphc_kernel\((.*?)\)", re.S)
    words = [re.findall(rb"\.param \.[ub]64", entry.search(code.code)[1]) for code in codes]
    assert len(words[0]) == len(words[1]) == len(kernel.params) + len(kernel.sizes) + 2
    assert [(code.threads, code.shared_bytes) for code in codes] == [(256, 0)] * 2


@needs_compiler
def test_products_and_sums_stay_apart() -> None:
    types = [TensorType(float32, (1000,))] * 3
    graph = trace(lambda a, b, c: a * b + c, types, "apart")
    with graphc.options(engine="numba"):
        text = compiler.assembly(compile_graph(graph, TARGET).launches[0].kernel, TARGET)
    assert "mul.rn.f32" in text and "add.rn.f32" in text and "fma" not in text


@needs_compiler
def test_text_does_not_tell_what_was_compiled_before() -> None:
    kernel, *_ = kernels_of("sum", slice(0, 1))
    with graphc.options(engine="numba"):
        assert compiler.assembly(kernel, TARGET) == compiler.assembly(kernel, TARGET)
        assert compiler.llvm_ir(kernel, TARGET) == compiler.llvm_ir(kernel, TARGET)


def product(**options: str) -> Kernel:
    """Return the kernel of a product of matrices."""
    types = [TensorType(float32, shape) for shape in ((300, 500), (500, 400))]
    with graphc.options(**options):
        plan = compile_graph(trace(matmul, types, "product"), cuda_target("sm_90"))
    return plan.launches[0].kernel


def test_products_on_tensor_cores_are_refused() -> None:
    kernel = product(matmul_precision="tf32")
    with (
        graphc.options(engine="numba"),
        pytest.raises(CompileError, match="no products on tensor cores"),
    ):
        compiler.compile_kernels([kernel], TARGET)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def missing(name: str) -> str:
        if name == "numba-cuda":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    compiler.versions.cache_clear()
    monkeypatch.setattr(importlib.metadata, "version", missing)
    with (
        graphc.options(engine="numba"),
        pytest.raises(MissingDependencyError, match=r'numba-cuda(.|\n)*graphc\[cuda-numba\]"'),
    ):
        compiler.compile_kernels(kernels_of("add", slice(0, 1)), TARGET)


@needs_compiler
def test_dump_shows_both_texts(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--target", "cuda:sm_90", "--engine", "numba", "--stage", "source,llvm,ptx"]
    assert main(["dump", MODEL, *chosen]) == 0
    shown = capsys.readouterr().out
    assert "def kernel(p0" in shown and 'target triple = "nvptx64-nvidia-cuda"' in shown
    assert "NVIDIA NVVM Compiler" in shown and ".visible .entry graphc_kernel(" in shown

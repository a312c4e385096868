"""A group's kernel on this machine: lowered, scheduled, run compiled and as Python."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from graphc.codegen.compiler import compile_kernels
from graphc.codegen.cpu import host_target
from graphc.codegen.dispatch_layout import Error
from graphc.codegen.python_engine import run_python
from graphc.ir.dim import evaluate
from graphc.ir.graph import Graph
from graphc.ir.operations import lowest
from graphc.ir.target import Target
from graphc.ir.types import DType
from graphc.passes.expand import expand
from graphc.passes.lower import lower
from graphc.passes.schedule import cpu

TARGET = host_target()
_NATIVE = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
    ctypes.c_void_p,
)  # fmt: skip


def unwritten(dtype: DType) -> float:
    """Return what outputs hold before a kernel runs: no result that a test expects."""
    return np.nan if dtype.floating else lowest(dtype)


class GroupKernel:
    """The kernel of a group's body, for a target that this machine covers."""

    def __init__(self, graph: Graph, target: Target = TARGET):
        self.graph = graph
        self.lowered = lower(graph, "case")
        self.kernel = expand(cpu.schedule(self.lowered.kernel, target))

    def arguments(self, arrays: Sequence[np.ndarray], **bindings: int):
        """Return all buffers, sizes, the extent of the parallel axis, and the new outputs."""
        sizes = [evaluate(d, bindings) for d in self.lowered.sizes]
        names = dict(zip(self.kernel.sizes, sizes, strict=True))
        results = self.kernel.params[-self.kernel.outputs :]
        outputs = [
            np.full([evaluate(d, names) for d in b.shape], unwritten(b.dtype), b.dtype.numpy)
            for b in results
        ]
        return [*arrays, *outputs], sizes, evaluate(self.kernel.extent, names), outputs

    def call(self, buffers: Sequence[np.ndarray], sizes: Sequence[int], begin: int, end: int):
        """Run iterations ``begin`` to ``end`` compiled."""
        (compiled,) = compile_kernels([self.kernel], TARGET)
        pointers = (ctypes.c_void_p * len(buffers))(*(b.ctypes.data for b in buffers))
        numbers = (ctypes.c_int64 * max(len(sizes), 1))(*sizes)
        native = _NATIVE(compiled.address)
        assert native(pointers, numbers, begin, end, ctypes.byref(Error())) == 0

    def run(
        self, arrays: Sequence[np.ndarray], alone: bool = False, **bindings: int
    ) -> list[np.ndarray]:
        """Run compiled; ``alone`` runs each iteration by a call of its own, the last one first."""
        buffers, sizes, extent, outputs = self.arguments(arrays, **bindings)
        calls = [(k, k + 1) for k in reversed(range(extent))] if alone else [(0, extent)]
        for begin, end in calls:
            self.call(buffers, sizes, begin, end)
        return outputs

    def run_as_python(self, arrays: Sequence[np.ndarray], **bindings: int) -> list[np.ndarray]:
        """Run the text as Python, which checks every address."""
        buffers, sizes, extent, outputs = self.arguments(arrays, **bindings)
        assert run_python(self.kernel, buffers, sizes, 0, extent) == 0
        return outputs

"""The op of a fusion group: a sub-graph that becomes one kernel."""

from __future__ import annotations

from typing import Any

from graphc.ir.graph import Graph
from graphc.ir.op import Kind, OpDef, register
from graphc.ir.types import TensorType


class Fused(OpDef):
    """A group of nodes that is compiled to one kernel; ``body`` is the sub-graph."""

    name, kind, dtypes, gradient = "fused", Kind.OPAQUE, (), False

    def infer(self, *types: TensorType, body: Graph, label: str) -> tuple[TensorType, ...]:
        """Return the types of the body's outputs."""
        return tuple(v.type for v in body.outputs)

    def reference(self, *arrays: Any, **attrs: Any) -> Any:
        """Run by the interpreter through ``body``."""
        raise NotImplementedError


fused = register(Fused())

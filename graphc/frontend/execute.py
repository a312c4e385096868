"""Computing one op at once: by its NumPy reference, or by a cached one-op program.

Pointwise ops, reductions and movements have no compile wait; sums of products, windows and
scatters are much faster compiled, and are compiled once for all sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import config
from graphc.frontend.build import build_program
from graphc.frontend.context import HOST, Context
from graphc.frontend.trace import Specializations, trace
from graphc.ir.op import Kind
from graphc.ir.operand import apply
from graphc.ir.types import TensorType, as_dtype
from graphc.runtime.device import DeviceArray

COMPILED_KINDS = (Kind.CONTRACT, Kind.SCATTER)
SMALL = 4096
"""Operands of fewer elements in all are computed by the reference: calling costs more."""

_programs: dict[Any, Specializations[Any]] = {}


def execute(
    op: Any, arrays: Sequence[Any], attrs: dict[str, Any], types: Sequence[TensorType],
    context: Context | None = None,
) -> list[Any]:  # fmt: skip
    """Return the results of an op as C-contiguous arrays of the given types.

    ``context`` is the device that the operands are on, None where they go with any. On a GPU every
    op is a program.
    """
    if context is not None and context.accelerator is not None:
        return _on_device(op, arrays, attrs, types, context)
    if runs_compiled(op) and _elements(arrays, types) >= SMALL:
        return one_op_program(op, arrays, attrs, context)(arrays)
    with np.errstate(all="ignore"):
        result = op.reference(*arrays, **attrs)
    results = result if isinstance(result, tuple) else (result,)
    found = [
        np.asarray(r).astype(t.dtype.numpy, order="C", copy=False)
        for r, t in zip(results, types, strict=True)
    ]
    # Only a reshape gives another handle of the same memory.
    return found if op.name == "reshape" else [_owned(r, arrays) for r in found]


def _on_device(
    op: Any, arrays: Sequence[Any], attrs: dict[str, Any], types: Sequence[TensorType],
    context: Context,
) -> list[Any]:  # fmt: skip
    """Return the results of an op on a GPU."""
    if op.name == "reshape" and isinstance(arrays[0], DeviceArray):
        return [arrays[0].reshape(tuple(map(int, types[0].shape)))]  # type: ignore[arg-type]
    found: list[Any] = one_op_program(op, arrays, attrs, context)(arrays)
    return found


def _owned(result: np.ndarray, operands: Sequence[np.ndarray]) -> np.ndarray:
    """Return a result in memory that no operand has, and that can be written."""
    own = result.base is None and all(result is not operand for operand in operands)
    if own or not any(np.may_share_memory(result, operand) for operand in operands):
        return result if result.flags.writeable else result.copy()
    return result.copy()


def _elements(arrays: Sequence[np.ndarray], types: Sequence[TensorType]) -> int:
    """Return how many elements an op reads and writes in all."""
    written = sum(math.prod(map(int, t.shape)) for t in types)  # type: ignore[arg-type]
    return written + sum(a.size for a in arrays)


def runs_compiled(op: Any) -> bool:
    """Return whether an op is worth a program of its own."""
    return op.kind in COMPILED_KINDS or op.compiled


def one_op_program(
    op: Any, arrays: Sequence[Any], attrs: dict[str, Any], context: Context | None = None
) -> Any:
    """Return the program of one op for arrays of these types; compiled at first use."""
    processor = (context or HOST).processor
    options = config.current()
    choices = processor, options.matmul_precision, options.index_bits
    key = (op.name, _key(attrs), tuple(a.dtype.char for a in arrays), *choices)
    found = _programs.setdefault(key, Specializations())
    shapes = [a.shape for a in arrays]
    program = found.lookup(shapes)
    if program is None:
        graph = trace(
            lambda *values: apply(op, values, attrs),
            [TensorType(as_dtype(a.dtype), a.shape) for a in arrays],
            op.name,
        )
        program = found.add(graph, build_program(graph, processor))
    return program


def _key(attrs: dict[str, Any]) -> tuple[Any, ...]:
    return tuple((name, repr(attrs[name])) for name in sorted(attrs))



"""Computing one op at once: by its NumPy reference, or by a cached one-op program.

Pointwise ops, reductions and movements have no compile wait; sums of products, windows and
scatters are much faster compiled, and are compiled once for all sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
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
    op is a program, but for draws so few that the CPU makes them by the reference: bits are equal.
    """
    device = None if context is None else context.accelerator
    if device is not None and any(isinstance(a, DeviceArray) for a in arrays):
        return _on_device(op, arrays, attrs, types, context)
    if runs_compiled(op) and _elements(arrays, types) >= SMALL:
        return one_op_program(op, arrays, attrs, context)(arrays)
    if device is not None:
        return [device.put(found) for found in execute(op, arrays, attrs, types)]
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
    context: Context | None,
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
    op: Any, arrays: Sequence[Any], attrs: dict[str, Any], context: Context | None = None,
    changing: bool = False,
) -> Any:  # fmt: skip
    """Return the program of one op for arrays of these types; compiled at first use.

    With ``changing`` it updates its first operand to what the op returns.
    """
    return program_of(
        lambda *values: apply(op, values, attrs), (op.name, _key(attrs)), arrays, context, changing
    )


def program_of(
    function: Callable[..., Any], known_as: tuple[str, Any], arrays: Sequence[Any],
    context: Context | None, changing: bool = False,
) -> Any:  # fmt: skip
    """Return the program of a function of graph values, as `one_op_program` does.

    ``known_as`` is its name, and what else tells it from others.
    """
    processor = (context or HOST).processor
    options = config.current()
    choices = processor, options.matmul_precision, options.index_bits, changing
    kinds = tuple(a.dtype.char for a in arrays)
    found = _programs.setdefault((*known_as, kinds, *choices), Specializations())
    program = found.lookup([a.shape for a in arrays])
    if program is None:
        types = [TensorType(as_dtype(a.dtype), a.shape) for a in arrays]
        graph = trace(function, types, known_as[0])
        if changing:
            graph = replace(graph, outputs=(), updates=((graph.inputs[0], graph.outputs[0]),))
        program = found.add(graph, build_program(graph, processor))
    return program


def _key(attrs: dict[str, Any]) -> tuple[Any, ...]:
    return tuple((name, repr(attrs[name])) for name in sorted(attrs))



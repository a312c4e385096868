"""Runs the launches of a CUDA program in step, over the memory that its plan gives them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from graphc.ir.dim import evaluate
from graphc.ir.lockstep import Failure, run_in_step
from graphc.ir.plan import Plan
from graphc.ir.sizes import bind_sizes
from graphc.ir.table import table_of


def run_plan_in_step(plan: Plan, arguments: Sequence[np.ndarray]) -> list[np.ndarray] | Failure:
    """Return a program's outputs; every access of every thread is checked.

    Raises
    ------
    VerifyError, IndexRangeError
        See `graphc.ir.lockstep.run_in_step`.
    """
    table = table_of(plan, [str(number) for number in range(len(plan.launches))])
    inputs = [np.array(a, kind.dtype.numpy) for a, (_, kind) in zip(arguments, table.inputs)]
    sizes = bind_sizes([kind.shape for _, kind in table.inputs], [a.shape for a in inputs])
    assert sizes is not None
    memory = table.memory(sizes)
    arena = np.full(memory.arena_bytes, 0xFF, np.uint8)  # not a number, where none was written
    held = {slot.value: arena[slot.offset : slot.offset + slot.n_bytes] for slot in memory.slots}
    outputs = {}
    for place, kind in table.outputs:
        shape = [evaluate(d, sizes) for d in kind.shape]
        outputs.setdefault(place, np.zeros(shape, kind.dtype.numpy))
    whole = dict(enumerate(inputs)) | {p: a for p, a in outputs.items() if p >= len(inputs)}

    def array(place: int, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
        if place in whole:
            return whole[place].reshape(-1).view(dtype)[: prod(shape)]
        count = prod(shape) * dtype.itemsize
        return held[place][:count].view(dtype)

    for spec, row in zip(plan.launches, table.launches, strict=True):
        own = {name: evaluate(dim, sizes) for name, dim in row.sizes}
        buffers = [
            array(place, b.dtype.numpy, [evaluate(d, own) for d in b.shape])
            for place, b in zip(row.places, spec.kernel.params, strict=True)
        ]
        failure = run_in_step(spec.kernel, buffers, list(own.values()))
        if failure is not None:
            return failure
    return [whole[place] for place, _ in table.outputs]

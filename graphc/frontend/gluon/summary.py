"""The table that ``Block.summary`` prints."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend.array import Array
from graphc.frontend.tree import flatten

WIDTHS = (32, 24, 14)


def summary(block: Any, inputs: tuple[Any, ...]) -> str:
    """Return a table of the layers of a network: output shape, number of Parameters.

    Parameters
    ----------
    block : Block
    inputs : tuple of NDArray
        What the network is called with.

    Returns
    -------
    str
    """
    rows: list[tuple[str, str, int]] = []
    handles = [b.register_forward_hook(_noted(rows)) for b in block.blocks()]
    active = [b for b in block.blocks() if getattr(b, "_active", False)]
    for part in active:
        part.__dict__["_active"] = False
    try:
        block(*inputs)
    finally:
        for part in active:
            part.__dict__["_active"] = True
        for handle in handles:
            handle.detach()
    parameters = list(block.collect_params().values())
    total = sum(_count(p) for p in parameters)
    trained = sum(_count(p) for p in parameters if p.grad_req != "null")
    head = _row("Layer", "Output shape", "Parameters")
    shapes = str([tuple(x.shape) for x in inputs if isinstance(x, Array)])
    lines = [head, "=" * len(head), _row("Input", shapes.strip("[]"), "0")]
    lines += [_row(name, shape, f"{count:,}") for name, shape, count in rows]
    lines += ["=" * len(head), f"Parameters: {total:,}", f"  trained: {trained:,}"]
    return "\n".join(lines)


def _noted(rows: list[tuple[str, str, int]]) -> Any:
    def note(block: Any, inputs: Any, output: Any) -> None:
        leaves, _ = flatten(output, lambda x: isinstance(x, Array))
        shapes = ", ".join(str(tuple(x.shape)) for x in leaves if isinstance(x, Array))
        own = sum(_count(p) for _, p in block._own_parameters())
        rows.append((f"{type(block).__name__} {block.name}", shapes, own))

    return note


def _count(parameter: Any) -> int:
    return int(np.prod(parameter.shape)) if parameter.shape_known else 0


def _row(*cells: str) -> str:
    name, shape, count = cells
    return f"{name:<{WIDTHS[0]}} {shape:<{WIDTHS[1]}} {count:>{WIDTHS[2]}}"

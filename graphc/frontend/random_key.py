"""Where a random draw gets its seed and counter from."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend.array import Array, Storage
from graphc.frontend.context import Context
from graphc.frontend.tracer import current_trace
from graphc.runtime import random


def draw_key(context: Context | None = None) -> tuple[Any, Any]:
    """Return the seed and counter of the next random operation, which they belong to alone.

    Parameters
    ----------
    context : Context, optional
        Where to draw what has no other operands; no matter in a trace.

    Returns
    -------
    seed, counter : operand
        0-d int64: inputs of the program in a trace, else numbers.
    """
    trace = current_trace()
    if trace is not None:
        return trace.random_key()
    seed, counter = (np.asarray(number, np.int64) for number in random.advance(1))
    if context is None or context.accelerator is None:
        return seed, counter
    # Numbers, which programs of every device take as they are.
    return Array(seed, Storage.on(context)), Array(counter, Storage.on(context))

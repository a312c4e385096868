"""Where a random draw gets its seed and counter from."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend.tracer import current_trace
from graphc.runtime import random


def draw_key() -> tuple[Any, Any]:
    """Return the seed and counter of the next random operation, which they belong to alone.

    Returns
    -------
    seed, counter : operand
        0-d int64: inputs of the program in a trace, else numbers.
    """
    trace = current_trace()
    if trace is not None:
        return trace.random_key()
    seed, counter = random.advance(1)
    return np.asarray(seed, np.int64), np.asarray(counter, np.int64)

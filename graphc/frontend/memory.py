"""What is done to the memory of arrays beside computing: made, copied, overwritten, read.

Arrays on the CPU, whichever number it has, are NumPy's. All that is particular to a device is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.frontend.context import Context


def filled(shape: Sequence[int], value: Any, dtype: Any, context: Context | None) -> Any:
    """Return new memory on a device in which every element has one value."""
    return np.full(tuple(shape), value, dtype)


def placed(memory: np.ndarray, context: Context | None) -> Any:
    """Return what new memory of NumPy's holds on a device: that memory itself on the CPU."""
    return memory


def copied(memory: Any, context: Context | None) -> Any:
    """Return a C-contiguous copy on a device of what another one, or NumPy, has."""
    return np.array(memory, order="C")


def on_host(memory: Any) -> np.ndarray:
    """Return the elements as NumPy has them: the memory itself where that is the CPU's."""
    found: np.ndarray = memory
    return found


def overwrite(memory: Any, source: Any) -> None:
    """Replace every element by those of an array of any device, or by a number."""
    memory[...] = source


def accumulate(memory: Any, source: Any) -> None:
    """Add an array on the same device to every element."""
    memory[...] += source

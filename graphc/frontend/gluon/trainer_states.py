"""Files of a Trainer's states: what the names in them mean."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from graphc.errors import FileFormatError, user_location

# A number of a Parameter and of its state, or of whose updates are counted.
_STATE_NAME = re.compile(r"(count|[0-9]{1,9})\.([0-9]{1,9})")


def parsed_states(
    fname: Any, loaded: Any
) -> tuple[dict[int, list[np.ndarray]], dict[int, int], int]:
    """Return the states of each Parameter, the numbers of its updates, and the largest of them."""
    misfit = FileFormatError(f"{fname}: is no file of optimizer states", where=user_location())
    if not isinstance(loaded, dict) or "num_update" not in loaded:
        raise misfit
    states: dict[int, dict[int, np.ndarray]] = {}
    numbers: dict[int, int] = {}
    for name, array in loaded.items():
        found = _STATE_NAME.fullmatch(name)
        if name == "num_update" or (found and found[1] == "count"):
            if array.size != 1 or array.dtype.kind not in "iu":
                raise misfit
            numbers[int(found[2]) if found else -1] = int(array.ravel()[0])
        elif found:
            states.setdefault(int(found[1]), {})[int(found[2])] = array
        else:
            raise misfit
    largest = numbers.pop(-1)
    ordered = {index: [held[n] for n in sorted(held)] for index, held in sorted(states.items())}
    return ordered, numbers, largest

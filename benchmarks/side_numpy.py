"""The reference of the functions of arrays: NumPy in float64. It checks and is never timed."""

from __future__ import annotations

import numpy as np

from benchmarks import functions_numpy
from benchmarks.record import Arrays, Row, Side


def as_float64(x: np.ndarray) -> np.ndarray:
    """Return floats in float64, indices as they are."""
    return x.astype(np.float64) if x.dtype == np.float32 else x


def function(row: Row, data: Arrays, _: Arrays) -> Side:
    """Prepare a function of arrays."""
    called = getattr(functions_numpy, row.workload.name)
    arguments = [as_float64(x) for x in data]

    def outputs(values: object) -> Arrays:
        return [np.asarray(v) for v in (values if isinstance(values, tuple) else (values,))]

    return Side(lambda: called(*arguments), outputs)


KINDS = {"function": function}

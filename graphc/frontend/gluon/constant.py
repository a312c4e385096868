"""Constants of a network: arrays that are saved and moved with it but never trained."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend import initializer as initializers
from graphc.frontend.array import Array
from graphc.frontend.gluon.parameter import Parameter
from graphc.frontend.memory import on_host
from graphc.frontend.ndarray import NDArray


class Constant(Parameter):
    """A Parameter that no Trainer changes.

    Parameters
    ----------
    name : str
    value : array
    """

    def __init__(self, name: str, value: Any) -> None:
        given = isinstance(value, Array)
        values = on_host(value._array) if given else np.asarray(value, np.float32)
        self.value = NDArray(np.array(values))
        super().__init__(
            name, grad_req="null", shape=values.shape, dtype=values.dtype,
            init=initializers.Constant(values), differentiable=False,
        )  # fmt: skip

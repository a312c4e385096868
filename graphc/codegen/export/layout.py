"""What exported libraries and their callers share: DLPack's tensors, statuses, a call's memory."""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from graphc.codegen.dispatch_layout import Call, Error, Launch
from graphc.ir.dim import Dim
from graphc.ir.plan import ALIGNMENT
from graphc.ir.sizes import Constraint
from graphc.ir.table import LaunchTable
from graphc.ir.types import DType, TensorType

CPU = 1
"""DLPack's number of memory that the processor reads."""
CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
"""DLPack's numbers of kinds of elements, by ``DType.kind``."""
TEXT_BYTES = 512
"""The most that an error's text takes."""


class Status(enum.IntEnum):
    """What a function of a library returns."""

    OK = 0
    ARGUMENT = 1
    SHAPE = 2
    DTYPE = 3
    DEVICE = 4
    LAYOUT = 5
    MEMORY = 6
    VALUE = 7
    WEIGHTS = 8


MEANINGS = {
    Status.OK: "done",
    Status.ARGUMENT: "a null pointer, or a wrong number of tensors or threads",
    Status.SHAPE: "a shape that the model does not take",
    Status.DTYPE: "another element type",
    Status.DEVICE: "memory that is not the processor's",
    Status.LAYOUT: "not contiguous, not aligned, or memory shared with an output",
    Status.MEMORY: "no memory",
    Status.VALUE: "a value that the model does not take, such as an index out of range",
    Status.WEIGHTS: "the file of weights is not loaded, or is another one's",
}
"""What each status tells a reader of the header."""


class Tensor(ctypes.Structure):
    """``DLTensor`` of DLPack, its ``DLDevice`` and ``DLDataType`` written out."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_int64),
    ]


def dtype_word(dtype: DType) -> int:
    """Return ``DLDataType`` as one number of 32 bits, as little-endian memory has it."""
    return CODES[dtype.kind] | 8 * dtype.item_bytes << 8 | 1 << 16


@dataclass(frozen=True, slots=True)
class Argument:
    """A tensor that a caller hands over.

    Attributes
    ----------
    name : str
    type : TensorType
    place : int
        Its memory in the launch table.
    """

    name: str
    type: TensorType
    place: int


@dataclass(frozen=True, slots=True)
class Export:
    """A program that becomes a library.

    Attributes
    ----------
    name : str
        What the names of its functions begin with.
    table : LaunchTable
    inputs, outputs : tuple of Argument
    weights : mapping of int to numpy.ndarray
        Constant inputs of the table by their places.
    constraints : tuple of Constraint
        What must hold for the inputs' sizes.
    header : bytes
        Of the file that the weights are read from; empty where the library holds them.
    spans : mapping of int to (int, int)
        Where in the file, behind its header, each weight begins, and its bytes.
    """

    name: str
    table: LaunchTable
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    weights: Mapping[int, np.ndarray]
    constraints: tuple[Constraint, ...]
    header: bytes = b""
    spans: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def declared(self) -> list[Dim]:
        """Return the sizes of all axes of all inputs."""
        return [size for argument in self.inputs for size in argument.type.shape]


class Context:
    """Offsets in the memory of one call, which later calls use again.

    Attributes
    ----------
    n_bytes : int
    call, error, arena, capacity, bound, parallel : int
        The dispatcher's structures; address and bytes of the arena; whether the rest holds for
        the sizes in ``variables``, and whether a launch then has more than one chunk.
    variables, table, pointers, sizes : int
        Size variables, launches, and what these refer to.
    needs, offsets, order : int
        Bytes and offset of each value in the arena, and these sorted by offset.
    """

    def __init__(self, table: LaunchTable, variables: int) -> None:
        self.n_bytes = 0
        self.owners = tuple(life for life in table.lives if life.owner == life.value)
        launches, owners = len(table.launches), len(self.owners)
        self.call = self._next(ctypes.sizeof(Call))
        self.error = self._next(ctypes.sizeof(Error))
        self.arena, self.capacity, self.bound, self.parallel = (self._next(8) for _ in range(4))
        self.variables = self._next(8 * variables)
        self.table = self._next(ctypes.sizeof(Launch) * launches)
        self.pointers = self._next(8 * sum(len(row.places) for row in table.launches))
        self.sizes = self._next(8 * sum(len(row.sizes) for row in table.launches))
        self.needs, self.offsets, self.order = (self._next(8 * owners) for _ in range(3))

    def _next(self, n_bytes: int) -> int:
        begin = self.n_bytes
        self.n_bytes = begin + -(-max(n_bytes, 8) // ALIGNMENT) * ALIGNMENT
        return begin



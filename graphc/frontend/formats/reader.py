"""A binary file read with every size checked against what the file holds."""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from graphc.errors import FileFormatError


class CheckedReader:
    """Little-endian reader that refuses a read beyond the end before it allocates.

    Parameters
    ----------
    file : binary file
        Open for reading, at its start.
    path : str
        Named in errors.
    """

    def __init__(self, file: io.BufferedReader, path: str) -> None:
        self.file = file
        self.path = path
        self.size_bytes = os.fstat(file.fileno()).st_size
        self.offset = 0

    @property
    def remaining_bytes(self) -> int:
        """Bytes between here and the end of the file."""
        return self.size_bytes - self.offset

    def fail(self, what: str, *, offset: int | None = None) -> NoReturn:
        """Raise a :class:`FileFormatError` that names the file and the offset."""
        place = self.offset if offset is None else offset
        raise FileFormatError(
            f"{self.path}: {what} (at byte {place} of {self.size_bytes})",
            remedy="The file is truncated, damaged or of another format; fetch or save it again.",
        )

    def take(self, count: int, what: str) -> bytes:
        """Return the next ``count`` bytes."""
        self._require(count, what)
        data = self.file.read(count)
        if len(data) != count:
            self.fail(f"the file ends inside {what}")
        self.offset += count
        return data

    def unpack(self, code: str, what: str) -> int:
        """Return one integer of :mod:`struct` code ``code``."""
        value: int = struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]
        return value

    def integers(self, count: int, code: str, what: str) -> tuple[int, ...]:
        """Return ``count`` integers of :mod:`struct` code ``code``."""
        layout = f"<{count}{code}"
        self._require(struct.calcsize(layout), what)
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))

    def array(self, dtype: np.dtype, shape: Sequence[int], what: str) -> np.ndarray:
        """Return a C-contiguous array that owns its memory."""
        count = math.prod(shape)
        self._require(count * dtype.itemsize, what)
        flat = np.empty(count, dtype.newbyteorder("<"))
        if count and self.file.readinto(flat.data.cast("B")) != flat.nbytes:
            self.fail(f"the file ends inside {what}")
        self.offset += flat.nbytes
        # A bool whose byte is neither 0 nor 1 would break NumPy's own arithmetic.
        flat = flat.view(np.uint8) != 0 if dtype == np.bool_ else flat.astype(dtype, copy=False)
        try:
            return flat.reshape(tuple(shape))
        except ValueError:
            self.fail(f"{what} has sizes that no array can have")

    def _require(self, count: int, what: str) -> None:
        if count > self.remaining_bytes:
            self.fail(f"{what} needs {count} bytes, but {self.remaining_bytes} are left")


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return bfloat16 values, given as uint16 bits, as float32 (exact)."""
    return (bits.astype(np.uint32) << 16).view(np.float32)

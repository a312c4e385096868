"""The IDX files of MNIST: big-endian header, then the elements; plain or gzip.

Format: http://yann.lecun.com/exdb/mnist/, "File formats".
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from typing import BinaryIO, NoReturn, cast

import numpy as np

from graphc.errors import FileFormatError

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an IDX file, compressed or not; the content decides.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    ndarray
        In the machine's byte order.

    Raises
    ------
    FileFormatError
        The file is truncated, damaged or no IDX file.
    """
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else cast(BinaryIO, file)
        try:
            return _read(stream, os.fspath(path))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            _fail(os.fspath(path), f"damaged gzip stream: {error}")


def _read(stream: BinaryIO, path: str) -> np.ndarray:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
        _fail(path, f"not an IDX file: it starts with {head.hex() or 'nothing'}")
    dtype, ndim = np.dtype(_DTYPES[head[2]]), head[3]
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        _fail(path, "the file ends inside its header")
    shape = struct.unpack(f">{ndim}I", sizes)
    expected_bytes = math.prod(shape) * dtype.itemsize
    data = _read_at_most(stream, expected_bytes + 1)
    if len(data) != expected_bytes:
        found = "more" if len(data) > expected_bytes else str(len(data))
        _fail(path, f"shape {shape} needs {expected_bytes} bytes of data, the file has {found}")
    array = np.frombuffer(data, dtype)
    return array.astype(dtype.newbyteorder("="), copy=False).reshape(shape)


def _read_at_most(stream: BinaryIO, limit_bytes: int) -> bytearray:
    """Read in pieces: a header's claim alone must not allocate."""
    data = bytearray()
    while len(data) < limit_bytes:
        piece = stream.read(min(_CHUNK_BYTES, limit_bytes - len(data)))
        if not piece:
            break
        data += piece
    return data


def _fail(path: str, what: str) -> NoReturn:
    raise FileFormatError(f"{path}: {what}", remedy="Fetch the file again.")

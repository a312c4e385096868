"""MXNet's NDArray list, the format of ``.params`` files and of ``nd.save``.

Record versions 0 to 3 are read. Version 2 is written, as MXNet 1.x does; 0-d and zero-size
arrays, which version 2 cannot hold, are written as version 3 (MXNet reads it under ``set_np``).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from graphc.errors import ArgumentError, DTypeError
from graphc.frontend.formats.atomic import atomic_write
from graphc.frontend.formats.reader import CheckedReader, widen_bfloat16

LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DENSE, _ROW_SPARSE, _CSR = 0, 1, 2
_AUX_COUNT = {_DENSE: 0, _ROW_SPARSE: 1, _CSR: 2}
_MAX_NDIM = 32
# A sparse array may be far larger than its file; beyond this a size is taken for damage.
_MAX_DENSIFIED_BYTES = 2**31
_BFLOAT16 = 12
_DTYPES: dict[int, np.dtype] = {
    0: np.dtype(np.float32),
    1: np.dtype(np.float64),
    2: np.dtype(np.float16),
    3: np.dtype(np.uint8),
    4: np.dtype(np.int32),
    5: np.dtype(np.int8),
    6: np.dtype(np.int64),
    7: np.dtype(np.bool_),
    8: np.dtype(np.int16),
    9: np.dtype(np.uint16),
    10: np.dtype(np.uint32),
    11: np.dtype(np.uint64),
    _BFLOAT16: np.dtype(np.uint16),
}
# MXNet 1.x knows the flags 0 to 7 only.
_FLAGS = {dtype: flag for flag, dtype in _DTYPES.items() if flag <= 7}
_CPU = (1, 0)


def read_params(path: str | os.PathLike[str]) -> dict[str, np.ndarray] | list[np.ndarray]:
    """Read an NDArray list.

    Sparse arrays come back dense, bfloat16 as float32, arrays that MXNet saved uninitialised as
    float32 of shape (0,).

    Parameters
    ----------
    path : path-like
        File written by MXNet's ``nd.save``, ``save_parameters``, ``export`` or by graphc.

    Returns
    -------
    dict of str to ndarray, or list of ndarray
        As it was saved; nothing saved comes back as an empty dict.

    Raises
    ------
    FileFormatError
        The file is truncated, damaged or no NDArray list; names file and offset.
    """
    with open(path, "rb") as file:
        reader = CheckedReader(file, os.fspath(path))
        if reader.unpack("Q", "the list magic") != LIST_MAGIC:
            reader.fail("not an MXNet NDArray list", offset=0)
        reader.unpack("Q", "the reserved word")
        count = reader.unpack("Q", "the number of arrays")
        # The smallest record is four bytes: an array without a shape.
        if count * 4 > reader.remaining_bytes:
            reader.fail(f"{count} arrays do not fit into the file")
        arrays = [_read_array(reader, f"array {position}") for position in range(count)]
        names = _read_names(reader, count)
        if reader.remaining_bytes:
            reader.fail(f"{reader.remaining_bytes} bytes follow the last name")
    return arrays if names is None else dict(zip(names, arrays, strict=True))


def write_params(
    path: str | os.PathLike[str], arrays: dict[str, np.ndarray] | Sequence[np.ndarray]
) -> None:
    """Write an NDArray list atomically.

    Parameters
    ----------
    path : path-like
        File to replace.
    arrays : dict of str to ndarray, or sequence of ndarray
        float32, float64, float16, uint8, int32, int8, int64 or bool.

    Raises
    ------
    DTypeError
        An array's dtype is none of MXNet's.
    ArgumentError
        A name is not a string.
    """
    names = list(arrays) if isinstance(arrays, dict) else []
    values = [np.asarray(v) for v in (arrays.values() if isinstance(arrays, dict) else arrays)]
    labels = names or [f"array {position}" for position in range(len(values))]
    for label, value in zip(labels, values, strict=True):
        _check_writable(label, value)
    with atomic_write(path) as file:
        file.write(struct.pack("<3Q", LIST_MAGIC, 0, len(values)))
        for value in values:
            _write_array(file, value)
        file.write(struct.pack("<Q", len(names)))
        for name in names:
            encoded = name.encode()
            file.write(struct.pack("<Q", len(encoded)) + encoded)


def _read_names(reader: CheckedReader, count: int) -> list[str] | None:
    """Return the names, or None where the arrays were saved as a list."""
    named = reader.unpack("Q", "the number of names")
    if named == 0:
        return None if count else []
    if named != count:
        reader.fail(f"{named} names for {count} arrays")
    names: list[str] = []
    for position in range(named):
        length = reader.unpack("Q", f"the length of name {position}")
        try:
            names.append(reader.take(length, f"name {position}").decode())
        except UnicodeDecodeError:
            reader.fail(f"name {position} is not UTF-8")
    if len(set(names)) != len(names):
        reader.fail("two arrays have the same name")
    return names


def _read_array(reader: CheckedReader, what: str) -> np.ndarray:
    """Read one record of any version."""
    start = reader.offset
    magic = reader.unpack("I", f"{what}: its magic")
    storage = _DENSE
    if magic in (_V2, _V3):
        storage = reader.unpack("i", f"{what}: its storage type")
        if storage not in _AUX_COUNT or (magic == _V3 and storage != _DENSE):
            reader.fail(f"{what} has the unknown storage type {storage}")
    elif magic != _V1 and magic > _MAX_NDIM:
        reader.fail(f"{what} starts with the unknown magic {magic:#x}", offset=start)
    stored = _read_shape(reader, _V2, what) if storage != _DENSE else None
    shape = _read_shape(reader, magic, what)
    if shape is None:
        return np.empty((0,), np.float32)
    reader.take(8, f"{what}: its device")
    dtype_flag = reader.unpack("i", f"{what}: its dtype")
    auxiliary = [_read_aux_header(reader, what) for _ in range(_AUX_COUNT[storage])]
    values = _read_data(reader, dtype_flag, shape if storage == _DENSE else stored or (0,), what)
    indices = [_read_data(reader, flag, size, what) for flag, size in auxiliary]
    if storage == _DENSE:
        return values
    _check_densified(reader, shape, values.dtype, what)
    densify = _densify_rows if storage == _ROW_SPARSE else _densify_csr
    return densify(reader, shape, values, indices, what)


def _read_shape(reader: CheckedReader, magic: int, what: str) -> tuple[int, ...] | None:
    """Return a shape, or None for the record of an uninitialised array."""
    legacy = magic not in (_V1, _V2, _V3)
    ndim = magic if legacy else reader.unpack("i", f"{what}: its number of axes")
    if ndim > _MAX_NDIM:
        reader.fail(f"{what} has {ndim} axes; the limit is {_MAX_NDIM}")
    if ndim < 0 or (ndim == 0 and magic != _V3):
        return None
    shape = reader.integers(ndim, "I" if legacy else "q", f"{what}: its shape")
    if any(size < 0 for size in shape):
        reader.fail(f"{what} has the negative size {min(shape)} in its shape {shape}")
    return shape


def _read_aux_header(reader: CheckedReader, what: str) -> tuple[int, tuple[int, ...]]:
    flag = reader.unpack("i", f"{what}: the dtype of its indices")
    return flag, _read_shape(reader, _V2, what) or (0,)


def _read_data(reader: CheckedReader, flag: int, shape: tuple[int, ...], what: str) -> np.ndarray:
    if flag not in _DTYPES:
        reader.fail(f"{what} has the unknown dtype number {flag}")
    data = reader.array(_DTYPES[flag], shape, f"{what} of shape {shape}")
    return widen_bfloat16(data) if flag == _BFLOAT16 else data


def _check_densified(
    reader: CheckedReader, shape: tuple[int, ...], dtype: np.dtype, what: str
) -> None:
    # A zero among the sizes must not hide one that no array can have.
    size_bytes = math.prod(max(size, 1) for size in shape) * dtype.itemsize
    if size_bytes > _MAX_DENSIFIED_BYTES:
        reader.fail(f"sparse {what} of shape {shape} would take {size_bytes} bytes when dense")


def _densify_rows(
    reader: CheckedReader,
    shape: tuple[int, ...],
    values: np.ndarray,
    indices: list[np.ndarray],
    what: str,
) -> np.ndarray:
    """Put the stored rows of a row-sparse array in their places."""
    rows = indices[0]
    dense = np.zeros(shape, values.dtype)
    if rows.size == 0:
        return dense
    fits = rows.dtype.kind in "iu" and rows.ndim == 1
    if not fits or values.shape != (rows.size, *shape[1:]):
        reader.fail(f"row-sparse {what}: {rows.size} rows do not fit values of {values.shape}")
    if rows.min() < 0 or rows.max() >= shape[0]:
        reader.fail(f"row-sparse {what} has a row index outside 0..{shape[0] - 1}")
    dense[rows] = values
    return dense


def _densify_csr(
    reader: CheckedReader,
    shape: tuple[int, ...],
    values: np.ndarray,
    indices: list[np.ndarray],
    what: str,
) -> np.ndarray:
    """Put the stored values of a compressed-row matrix in their places."""
    starts, columns = indices
    if len(shape) != 2:
        reader.fail(f"csr {what} has {len(shape)} axes instead of 2")
    dense = np.zeros(shape, values.dtype)
    if values.size == 0:
        return dense
    counts = np.diff(starts)
    rows_fit = starts.shape == (shape[0] + 1,) and starts[0] == 0 and (counts >= 0).all()
    if not rows_fit or starts[-1] != values.size or columns.shape != values.shape:
        reader.fail(f"csr {what}: row starts, columns and values do not fit together")
    if columns.dtype.kind not in "iu" or columns.min() < 0 or columns.max() >= shape[1]:
        reader.fail(f"csr {what} has a column index outside 0..{shape[1] - 1}")
    dense[np.repeat(np.arange(shape[0]), counts), columns] = values
    return dense


def _check_writable(name: object, value: np.ndarray) -> None:
    if not isinstance(name, str):
        raise ArgumentError(f"the name of an array must be a string, not {name!r}")
    if value.dtype.newbyteorder("=") not in _FLAGS:
        raise DTypeError(
            f"{name}: MXNet's format has no dtype {value.dtype}",
            remedy="Convert the array, or save to a name that ends in .safetensors.",
        )


def _write_array(file: BinaryIO, value: np.ndarray) -> None:
    magic = _V3 if value.ndim == 0 or value.size == 0 else _V2
    flag = _FLAGS[value.dtype.newbyteorder("=")]
    header = struct.pack(f"<Iii{value.ndim}q", magic, _DENSE, value.ndim, *value.shape)
    file.write(header + struct.pack("<3i", *_CPU, flag))
    file.write(np.ascontiguousarray(value, value.dtype.newbyteorder("<")).data)

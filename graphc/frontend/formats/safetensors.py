"""The safetensors format: 8-byte header length, JSON header, C-contiguous little-endian data.

Format: https://huggingface.co/docs/safetensors, "Format". The header of an untrusted file is
checked in full (types, ranges, sizes, overlaps, gaps, duplicates) before any data is read.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, FileFormatError
from graphc.frontend.formats.atomic import atomic_write
from graphc.frontend.formats.reader import CheckedReader, widen_bfloat16

_METADATA = "__metadata__"
# The limit of the reference implementation.
_MAX_HEADER_BYTES = 100_000_000
_MAX_NDIM = 32
_CODES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "F16": np.dtype(np.float16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "F32": np.dtype(np.float32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
}
_BFLOAT16 = "BF16"
_NAMES = {dtype: code for code, dtype in _CODES.items()}
# Tells a list, whose arrays are named by their positions, from a dict.
_LIST_METADATA = {"graphc.container": "list"}


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray] | list[np.ndarray]:
    """Read a safetensors file; bfloat16 comes back as float32.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    dict of str to ndarray
        In the header's order; a list where :func:`write_safetensors` was given a list.

    Raises
    ------
    FileFormatError
        The file is truncated, damaged or breaks a rule of the format.
    """
    with open(path, "rb") as file:
        reader = CheckedReader(file, os.fspath(path))
        header = _read_header(reader)
        metadata = header.pop(_METADATA, {})
        data_start = reader.offset
        entries = {name: _check_entry(reader, name, entry) for name, entry in header.items()}
        _check_layout(reader, {name: span for name, (_, _, span) in entries.items()})
        arrays = {}
        for name, (code, shape, (begin, _)) in entries.items():
            reader.offset = file.seek(data_start + begin)
            arrays[name] = _read_data(reader, code, shape, name)
    if isinstance(metadata, dict) and _LIST_METADATA.items() <= metadata.items():
        return _as_list(reader, arrays)
    return arrays


def write_safetensors(
    path: str | os.PathLike[str], arrays: dict[str, np.ndarray] | Sequence[np.ndarray]
) -> None:
    """Write a safetensors file atomically.

    Parameters
    ----------
    path : path-like
        File to replace.
    arrays : dict of str to ndarray, or sequence of ndarray
        Boolean, integer and float arrays (no bfloat16).

    Raises
    ------
    DTypeError
        An array's dtype is not one of the format's.
    ArgumentError
        A name is not a string, or is the reserved ``__metadata__``.
    """
    header: dict[str, Any] = {}
    if not isinstance(arrays, dict):
        header[_METADATA] = _LIST_METADATA
        arrays = {str(position): value for position, value in enumerate(arrays)}
    values = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in values.items():
        _check_writable(name, value)
    # Wide items first keeps every array aligned to its item size.
    order = sorted(values, key=lambda name: -values[name].itemsize)
    spans = _spans([values[name].nbytes for name in order])
    offsets = dict(zip(order, spans, strict=True))
    for name, value in values.items():
        code = _NAMES[value.dtype.newbyteorder("=")]
        entry = {"dtype": code, "shape": list(value.shape), "data_offsets": offsets[name]}
        header[name] = entry
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            value = values[name]
            file.write(np.ascontiguousarray(value, value.dtype.newbyteorder("<")).data)


def _spans(sizes_bytes: list[int]) -> list[list[int]]:
    ends = np.cumsum(sizes_bytes, dtype=np.int64).tolist()
    return [[end - size, end] for end, size in zip(ends, sizes_bytes, strict=True)]


def _read_header(reader: CheckedReader) -> dict[str, Any]:
    """Return the parsed header; the reader then stands at the first byte of data."""
    length = reader.unpack("Q", "the header's length")
    if length > _MAX_HEADER_BYTES:
        reader.fail(f"the header claims {length} bytes; the limit is {_MAX_HEADER_BYTES}", offset=0)
    text = reader.take(length, "the header")
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique_pairs)
    except (ValueError, RecursionError) as error:
        reader.fail(f"the header is not valid: {str(error)[:200]}", offset=8)
    if not isinstance(header, dict):
        reader.fail("the header is not a JSON object", offset=8)
    return header


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _check_entry(
    reader: CheckedReader, name: str, entry: Any
) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """Return (dtype code, shape, (begin, end)) of one array."""
    shown = repr(name[:200])
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        reader.fail(f"array {shown} needs exactly dtype, shape and data_offsets", offset=8)
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or (code not in _CODES and code != _BFLOAT16):
        reader.fail(f"array {shown} has the unsupported dtype {str(code)[:40]!r}", offset=8)
    if not _are_sizes(shape) or len(shape) > _MAX_NDIM:
        reader.fail(f"array {shown} has a bad shape", offset=8)
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        reader.fail(f"array {shown} has bad data_offsets", offset=8)
    item_bytes = 2 if code == _BFLOAT16 else _CODES[code].itemsize
    if math.prod(shape) * item_bytes != offsets[1] - offsets[0]:
        reader.fail(
            f"array {shown} of shape {tuple(shape)} and dtype {code} does not fill its "
            f"{offsets[1] - offsets[0]} bytes",
            offset=8,
        )
    return code, tuple(shape), (offsets[0], offsets[1])


def _are_sizes(values: Any) -> bool:
    if not isinstance(values, list):
        return False
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_layout(reader: CheckedReader, spans: dict[str, tuple[int, int]]) -> None:
    """Fail unless the arrays cover the data once, without gap or overlap."""
    end = 0
    for name, (begin, stop) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != end:
            fault = "overlaps another" if begin < end else "leaves a gap before it"
            reader.fail(f"array {name[:200]!r} {fault}", offset=8)
        end = stop
    if end != reader.remaining_bytes:
        reader.fail(f"the arrays take {end} bytes, but {reader.remaining_bytes} follow the header")


def _read_data(reader: CheckedReader, code: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    what = f"array {name[:200]!r}"
    if code == _BFLOAT16:
        return widen_bfloat16(reader.array(np.dtype(np.uint16), shape, what))
    return reader.array(_CODES[code], shape, what)


def _as_list(reader: CheckedReader, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    try:
        return [arrays[str(position)] for position in range(len(arrays))]
    except KeyError as error:
        raise FileFormatError(f"{reader.path}: a list without array {error}") from None


def _check_writable(name: object, value: np.ndarray) -> None:
    if not isinstance(name, str) or name == _METADATA:
        raise ArgumentError(f"{name!r} cannot name an array in a safetensors file")
    if value.dtype.newbyteorder("=") not in _NAMES:
        raise DTypeError(f"array {name!r}: safetensors has no dtype {value.dtype}")

"""Save and load named arrays; the content of a file decides how it is read."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence

import numpy as np

from graphc.errors import (
    FileAccessError,
    FileFormatError,
    GraphcError,
    MissingFileError,
    nearest,
    user_location,
)
from graphc.frontend.formats.mxnet_params import LIST_MAGIC, read_params, write_params
from graphc.frontend.formats.safetensors import read_safetensors, write_safetensors


def save_arrays(
    path: str | os.PathLike[str], arrays: dict[str, np.ndarray] | Sequence[np.ndarray]
) -> None:
    """Write arrays atomically: the old file stays whole until the new one is complete.

    Parameters
    ----------
    path : path-like
        A name that ends in ``.safetensors`` gives that format, any other MXNet's ``.params``.
    arrays : dict of str to ndarray, or sequence of ndarray
        What to save.

    Raises
    ------
    DTypeError
        The format has no such dtype; the message names the array.
    FileAccessError
        The folder is missing or not writable, or the disk is full.
    """
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    write = write_safetensors if suffix == ".safetensors" else write_params
    try:
        write(path, arrays)
    except OSError as error:
        raise refused("write", os.fspath(path), error) from error
    except GraphcError as error:
        raise error.attach(where=user_location()) from None


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray] | list[np.ndarray]:
    """Read arrays that MXNet, graphc or a safetensors writer saved.

    Parameters
    ----------
    path : path-like
        The file; its content, not its name, decides the format.

    Returns
    -------
    dict of str to ndarray, or list of ndarray
        As it was saved.

    Raises
    ------
    FileFormatError
        The content is of neither format, truncated or damaged; names file and offset.
    MissingFileError
        There is no such file.
    FileAccessError
        It cannot be read.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        raise _missing(os.fspath(path)) from None
    except OSError as error:
        raise refused("read", os.fspath(path), error) from error
    except GraphcError as error:
        raise error.attach(where=user_location()) from None


def _missing(path: str) -> MissingFileError:
    folder = os.path.dirname(path) or "."
    names = os.listdir(folder) if os.path.isdir(folder) else []
    problem = "there is no such file" if names else "its folder is empty or not there"
    error = MissingFileError(
        f"{path}: {problem}.{nearest(os.path.basename(path), names)}",
        remedy=f"Check the path; relative ones begin at {os.getcwd()}.",
        where=user_location(),
    )
    error.errno, error.filename = errno.ENOENT, path
    return error


def refused(verb: str, path: str, cause: OSError) -> FileAccessError:
    """Return the error of a file that the system does not let us read or write."""
    kind = MissingFileError if isinstance(cause, FileNotFoundError) else FileAccessError
    error = kind(
        f"cannot {verb} {path}: {cause.strerror or cause}",
        remedy="Check that it names a file, that its folder exists, and that you may "
        f"{verb} there with space left.",
        where=user_location(),
    )
    error.errno, error.filename = cause.errno, path
    return error


def _load(path: str | os.PathLike[str]) -> dict[str, np.ndarray] | list[np.ndarray]:
    with open(path, "rb") as file:
        head = file.read(9)
    # A safetensors header may be 0x112 bytes long: its brace is looked at first.
    if head[8:9] == b"{":
        return read_safetensors(path)
    if head[:8] == struct.pack("<Q", LIST_MAGIC):
        return read_params(path)
    raise FileFormatError(
        f"{os.fspath(path)}: neither an MXNet .params nor a safetensors file (at byte 0)",
        remedy=_hint(head),
    )


def _hint(head: bytes) -> str:
    if head.startswith(b"PK"):
        return "It is a zip archive; numpy.load reads .npz files."
    if head.startswith(b"\x93NUMPY"):
        return "It is a .npy file; numpy.load reads it."
    if head.lstrip().startswith((b"{", b"<")):
        return "It is a text file; a symbol's JSON is not a parameter file."
    return "Check that the file is complete and is the parameter file."

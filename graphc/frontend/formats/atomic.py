"""Write a file so that its old content survives whatever goes wrong before the last byte."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, cast


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` and put it in ``path``'s place on success.

    The bytes are on the disk before the name changes, so a crash, a full disk or a kill leaves
    either the old file or the new one, whole. An exception in the body removes the temporary file.

    Parameters
    ----------
    path : path-like
        The file to write; a symbolic link is followed, the old file's permissions are kept.

    Yields
    ------
    binary file
        Open for writing.

    Raises
    ------
    OSError
        The folder is missing or not writable, or the disk is full.
    """
    target = os.path.realpath(os.fspath(path))
    folder, name = os.path.split(target)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name[:80]}.", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _permissions(target))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _permissions(target: str) -> int:
    """Return the mode of the old file, or what ``open`` would give a new one."""
    try:
        return stat.S_IMODE(os.stat(target).st_mode)
    except FileNotFoundError:
        # The mask can only be read by setting it.
        mask = os.umask(0o077)
        os.umask(mask)
        return 0o666 & ~mask


def _sync_folder(folder: str) -> None:
    """Flush the folder's entry; systems that cannot open folders do without."""
    if os.name != "posix":
        return
    # Some network file systems refuse to flush a folder; the file itself is safe by then.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

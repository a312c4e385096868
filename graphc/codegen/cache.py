"""The disk cache: one file per entry, checked on reading, bounded in size.

An entry that is damaged, cut short or not graphc's is a miss. Writing is a rename, so readers and
other processes see whole entries only. A folder that cannot be written leaves everything working
without a cache; one warning says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graphc import config

FORMAT = 1
"""Version of the entries; a part of every key."""

_MAGIC = b"graphc\x00" + bytes([FORMAT])
_HEADER = struct.Struct("<8sQ32s")
_SUFFIX = ".entry"
_TEMPORARY = ".writing"
_TOUCH_S = 3600.0
_ABANDONED_S = 3600.0
_KEEP_FRACTION = 0.9
_numbers = itertools.count()
_totals: dict[Path, int] = {}
_warned: set[str] = set()


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the cache.

    Attributes
    ----------
    key : str
    size_bytes : int
        Size of the file, its header included.
    used_s : float
        When it was last used, in seconds since the epoch, to the hour.
    """

    key: str
    size_bytes: int
    used_s: float


def key_of(*parts: str) -> str:
    """Return the key of an entry that depends on ``parts`` (sha256, hexadecimal)."""
    digest = hashlib.sha256()
    for part in (str(FORMAT), *parts):
        item = part.encode()
        digest.update(struct.pack("<Q", len(item)) + item)
    return digest.hexdigest()


def get(key: str) -> bytes | None:
    """Return what is kept under ``key``; None where there is nothing, or nothing whole."""
    if not config.current().cache:
        return None
    path = _path(key)
    try:
        with path.open("rb") as file:
            content = file.read()
            used_s = os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    data = _checked(content)
    if data is None:
        _remove(path)
    elif abs(time.time() - used_s) > _TOUCH_S:
        _touch(path)
    return data


def put(key: str, data: bytes) -> None:
    """Keep ``data`` under ``key``; where that fails, warn once and go on without."""
    if not config.current().cache:
        return
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, _HEADER.pack(_MAGIC, len(data), hashlib.sha256(data).digest()), data)
    except OSError as error:
        _warn_once(path.parent, error)
        return
    _bound(path, _HEADER.size + len(data))


def entries() -> list[Entry]:
    """Return what the cache holds, least recently used first."""
    found = [Entry(path.stem, size, used) for path, size, used in _files(_folder())]
    return sorted(found, key=lambda entry: (entry.used_s, entry.key))


def size_bytes() -> int:
    """Return the bytes of all entries on disk."""
    return sum(size for _, size, _ in _files(_folder()))


def clear() -> int:
    """Remove every entry; return how many there were."""
    files = list(_files(_folder()))
    for path, _, _ in files:
        _remove(path)
    _totals.clear()
    return len(files)


def _folder() -> Path:
    return config.cache_dir() / "entries"


def _path(key: str) -> Path:
    if not key or not all(c in "0123456789abcdef" for c in key):
        key = hashlib.sha256(key.encode()).hexdigest()
    return _folder() / f"{key}{_SUFFIX}"


def _checked(content: bytes) -> bytes | None:
    if len(content) < _HEADER.size:
        return None
    magic, length, digest = _HEADER.unpack_from(content)
    data = content[_HEADER.size :]
    whole = magic == _MAGIC and length == len(data)
    return data if whole and hashlib.sha256(data).digest() == digest else None


def _write(path: Path, *parts: bytes) -> None:
    """Write a file beside its place and move it there."""
    unique = f"{os.getpid()}-{threading.get_ident()}-{next(_numbers)}"
    temporary = path.with_name(f"{path.stem}.{unique}{_TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
        os.replace(temporary, path)
    except OSError:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # a read-only folder: the entry stays a miss
        path.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):  # evicted meanwhile, or read-only: it only looks older
        os.utime(path)


def _files(folder: Path) -> Iterator[tuple[Path, int, float]]:
    """Yield path, size and time of each entry; drop what a killed process left half written."""
    try:
        found = list(os.scandir(folder))
    except OSError:
        return
    for item in found:
        try:
            status = item.stat()
        except OSError:
            continue
        if item.name.endswith(_SUFFIX):
            yield Path(item.path), status.st_size, status.st_mtime
        elif item.name.endswith(_TEMPORARY) and time.time() - status.st_mtime > _ABANDONED_S:
            _remove(Path(item.path))


def _bound(written: Path, added_bytes: int) -> None:
    """Evict the least recently used entries once all together pass the option's bound."""
    bound, folder = config.current().cache_bytes, written.parent
    if folder in _totals:
        total = _totals[folder] + added_bytes
    else:
        total = sum(size for _, size, _ in _files(folder))
    _totals[folder] = _evict(written, int(bound * _KEEP_FRACTION)) if total > bound else total


def _evict(written: Path, keep_bytes: int) -> int:
    files = sorted(_files(written.parent), key=lambda file: file[2])
    total = sum(size for _, size, _ in files)
    for path, size, _ in files:
        if total <= keep_bytes:
            break
        if path != written:
            _remove(path)
            total -= size
    return total


def _warn_once(folder: Path, error: OSError) -> None:
    if not _warned:
        _warned.add(str(folder))
        reason = error.strerror or str(error)
        warnings.warn(
            f"graphc keeps no compiled kernels: {folder}: {reason}", RuntimeWarning, stacklevel=4
        )

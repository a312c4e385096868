"""The disk cache under faults: damage, read-only folders, full disks, processes, its bound."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import graphc
from graphc import config
from graphc.codegen import cache

KEY = cache.key_of("a kernel")
DATA = b"object code" * 100


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    forget()
    with config.options(cache_dir=str(tmp_path)):
        yield tmp_path / "entries"
    forget()


def forget() -> None:
    """Make the module as it is in a new process."""
    cache._totals.clear()
    cache._warned.clear()


def entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_was_put_is_found() -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, DATA)
    assert cache.get(KEY) == DATA
    cache.put(KEY, b"")
    assert cache.get(KEY) == b""


def test_keys_depend_on_every_part_and_where_it_ends() -> None:
    keys = {cache.key_of(*parts) for parts in (("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""))}
    assert len(keys) == 4


def test_names_that_are_no_digests_stay_inside_the_folder(folder: Path) -> None:
    for name in ("../../outside", "", "x" * 10_000, "a\nb", "Ünï"):
        cache.put(name, name.encode())
        assert cache.get(name) == name.encode()
    assert len(list(folder.iterdir())) == 5


@pytest.mark.parametrize("damage", [
    lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:20], lambda b: b"",
    lambda b: b"GIF89a" + b[6:], lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:],
    lambda b: b[:8] + b"\xff" * 8 + b[16:], lambda b: b[:7] + b"\x63" + b[8:],
])  # fmt: skip
def test_damaged_entry_is_a_miss_and_goes(folder: Path, damage: object) -> None:
    cache.put(KEY, DATA)
    path = entry(folder)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert cache.get(KEY) is None
    assert not path.exists()
    cache.put(KEY, DATA)
    assert cache.get(KEY) == DATA


def test_folder_that_cannot_be_made_warns_once(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with config.options(cache_dir=str(blocker / "cache")):
        with pytest.warns(RuntimeWarning, match="keeps no compiled kernels"):
            cache.put(KEY, DATA)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cache.put(KEY, DATA)
        assert cache.get(KEY) is None
        assert cache.entries() == [] and cache.size_bytes() == 0 and cache.clear() == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_read_only_folder_still_reads(folder: Path) -> None:
    cache.put(KEY, DATA)
    folder.chmod(0o500)
    try:
        with pytest.warns(RuntimeWarning):
            cache.put(cache.key_of("another"), DATA)
        assert cache.get(KEY) == DATA
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("function", ["replace", "open"])
def test_failing_writes_leave_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, function: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    owner = cache.os if function == "replace" else Path
    monkeypatch.setattr(owner, function, fail)
    with pytest.warns(RuntimeWarning, match=os.strerror(code)):
        cache.put(KEY, DATA)
    monkeypatch.undo()
    assert list(folder.iterdir()) == []
    assert cache.get(KEY) is None


def test_full_disk_in_the_middle_of_a_write(folder: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    folder.mkdir()
    real = Path.open

    def onto_full_disk(path: Path, mode: str = "r", **kwargs: object) -> object:
        if mode != "xb":
            return real(path, mode, **kwargs)  # type: ignore[call-overload]
        path.symlink_to("/dev/full")
        return real(path, "wb")

    with pytest.MonkeyPatch.context() as patch, pytest.warns(RuntimeWarning, match="No space"):
        patch.setattr(Path, "open", onto_full_disk)
        cache.put(KEY, DATA * 1000)
    assert list(folder.iterdir()) == []


def test_switched_off() -> None:
    cache.put(KEY, DATA)
    with config.options(cache=False):
        assert cache.get(KEY) is None
        cache.put(cache.key_of("b"), DATA)
    assert len(cache.entries()) == 1


def test_least_recently_used_go_first(folder: Path) -> None:
    keys = [cache.key_of(str(k)) for k in range(6)]
    size = len(DATA) + cache._HEADER.size
    for age, key in enumerate(keys):
        cache.put(key, DATA)
        past = time.time() - 86400 * (10 - age)
        os.utime(folder / f"{key}.entry", (past, past))
    assert cache.get(keys[0]) == DATA  # reading makes it the newest
    with config.options(cache_bytes=4 * size):
        cache.put(cache.key_of("new"), DATA)
    kept = {e.key for e in cache.entries()}
    assert cache.key_of("new") in kept and keys[0] in kept and keys[5] in kept
    assert keys[1] not in kept
    assert cache.size_bytes() <= 4 * size
    assert cache.size_bytes() == sum(e.size_bytes for e in cache.entries())


def test_bound_holds_without_counting_again(folder: Path) -> None:
    size = len(DATA) + cache._HEADER.size
    with config.options(cache_bytes=5 * size):
        for k in range(40):
            cache.put(cache.key_of(str(k)), DATA)
            assert cache.size_bytes() <= 5 * size


def test_half_written_files_of_killed_processes_are_dropped(folder: Path) -> None:
    cache.put(KEY, DATA)
    for name, age in (("old.writing", 7200), ("new.writing", 0)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age,) * 2)
    (folder / "stranger.txt").write_text("not ours")
    assert [e.key for e in cache.entries()] == [KEY]
    assert sorted(p.name for p in folder.iterdir() if p.stem != KEY) == [
        "new.writing", "stranger.txt"]  # fmt: skip


def test_clear_removes_entries_only(folder: Path) -> None:
    cache.put(KEY, DATA)
    (folder / "stranger.txt").write_text("not ours")
    assert cache.clear() == 1
    assert cache.get(KEY) is None and (folder / "stranger.txt").exists()


WRITER = """
import sys
from graphc.codegen import cache
for k in range(150):
    key = cache.key_of(str(k % 7))
    cache.put(key, (str(k % 7) * 5000).encode())
    for other in range(7):
        found = cache.get(cache.key_of(str(other)))
        assert found in (None, (str(other) * 5000).encode()), "torn entry"
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    root = str(Path(graphc.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"GRAPHC_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    command = [sys.executable, "-c", WRITER]
    writers = [subprocess.Popen(command, env=env) for _ in range(2)]
    assert [w.wait(timeout=60) for w in writers] == [0, 0]
    assert len(cache.entries()) == 7


def test_use_after_fork() -> None:
    cache.put(KEY, DATA)
    child = os.fork()
    if child == 0:
        cache.put(cache.key_of("child"), DATA)
        os._exit(0 if cache.get(KEY) == DATA else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.get(cache.key_of("child")) == DATA

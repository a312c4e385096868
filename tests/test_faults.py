"""What goes wrong around a program: damaged caches, full disks, forks, kills."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from graphc.codegen import cache
from graphc.frontend.creation import array
from graphc.frontend.jit import compile as graphc_compile
from graphc.frontend.ops.linalg import dot

PROGRAM = textwrap.dedent(
    """
    import numpy as np
    from graphc.frontend.creation import array
    from graphc.frontend.jit import compile
    from graphc.frontend.ops.linalg import dot
    from graphc.codegen import counters
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((33, 40), (40, 50)))
    found = compile(lambda a, b: dot(a, b).tanh().sum(axis=0))(array(x), array(w)).asnumpy()
    np.testing.assert_allclose(found, np.tanh(x @ w).sum(0), rtol=1e-4, atol=1e-5)
    """
)
REPORT = "print(counters.stats()['kernels_compiled'], counters.stats()['kernels_loaded'])\n"


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "GRAPHC_CACHE_DIR": str(folder)}


def _run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _counts(folder: Path) -> tuple[int, int]:
    compiled, loaded = _run(PROGRAM + REPORT, folder).split()
    return int(float(compiled)), int(float(loaded))


def test_damaged_entries_are_compiled_again(tmp_path: Path) -> None:
    compiled, _ = _counts(tmp_path)
    assert compiled > 0
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    for number, path in enumerate(files):
        data = path.read_bytes()
        broken = (data[: len(data) // 2], b"", bytes(len(data)), data[:-7] + b"\xff" * 7)
        path.write_bytes(broken[number % 4])
    again, loaded = _counts(tmp_path)
    assert (again, loaded) == (compiled, 0)
    assert _counts(tmp_path) == (0, compiled)


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    obstacle = tmp_path / "file"
    obstacle.write_text("not a folder")
    compiled, loaded = _counts(obstacle / "cache")
    assert compiled > 0
    assert loaded == 0


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "replace", full)
    cache.put("k" * 64, b"code")
    assert cache.get("k" * 64) is None
    x = array(np.arange(7, dtype=np.float32))
    found = graphc_compile(lambda a: a * 3.5 - 0.125)(x).asnumpy()
    np.testing.assert_array_equal(found, np.arange(7, dtype=np.float32) * 3.5 - 0.125)


def test_two_processes_compile_at_once(tmp_path: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=_environment(tmp_path),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for child in children:
        _, problem = child.communicate(timeout=120)
        assert child.returncode == 0, problem
    compiled, loaded = _counts(tmp_path)
    assert compiled == 0
    assert loaded > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_after_use(tmp_path: Path) -> None:
    code = PROGRAM + textwrap.dedent(
        """
        import os
        program = compile(lambda a, b: dot(a, b).relu())
        big = array(rng.standard_normal((400, 400)).astype(np.float32))
        before = program(big, big).asnumpy()
        child = os.fork()
        if child == 0:
            same = np.array_equal(program(big, big).asnumpy(), before)
            fresh = compile(lambda a: a * 2 + 1)(array(np.ones(9, np.float32))).asnumpy()
            os._exit(0 if same and (fresh == 3).all() else 1)
        status = os.waitpid(child, 0)[1]
        assert os.waitstatus_to_exitcode(status) == 0
        assert np.array_equal(program(big, big).asnumpy(), before)
        """
    )
    _run(code, tmp_path)


def test_a_kill_in_the_middle_of_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    code = textwrap.dedent(
        f"""
        import numpy as np
        from graphc.frontend.formats import save_arrays
        number = 0
        while True:
            number += 1
            save_arrays({str(path)!r}, {{"weight": np.full(500_000, number, np.float32)}})
            print(number, flush=True)
        """
    )
    from_formats = "from graphc.frontend.formats import load_arrays\n"
    check = from_formats + textwrap.dedent(
        f"""
        weight = load_arrays({str(path)!r})["weight"]
        assert weight.shape == (500_000,)
        assert weight[0] > 0
        assert (weight == weight[0]).all()
        """
    )
    for delay_s in (0.0, 0.003, 0.011):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
        child.wait()
        _run(check, tmp_path)


def test_matrix_products_of_nothing() -> None:
    empty = array(np.zeros((0, 4), np.float32))
    found = graphc_compile(lambda a, b: dot(a, b))(empty, array(np.ones((4, 3), np.float32)))
    assert found.shape == (0, 3)

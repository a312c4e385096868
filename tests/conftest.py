"""Fixtures of every test: a kernel cache of its own, fixed seeds, golden files, the GPU rule."""

from __future__ import annotations

import ctypes
import difflib
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from emulated_cuda import FakeCuda, emulated_cuda

import graphc

GOLDEN = Path(__file__).parent / "golden"
CACHE_VARIABLE = "GRAPHC_CACHE_DIR"
SEED = 0

_own_cache = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the code prints now into tests/golden instead of comparing",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Before collection, not in a fixture: test modules import graphc while they are collected, and
    # processes that tests start inherit the variable.
    if CACHE_VARIABLE not in os.environ:
        config.stash[_own_cache] = tempfile.mkdtemp(prefix="graphc-test-cache-")
        os.environ[CACHE_VARIABLE] = config.stash[_own_cache]


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_own_cache, None)
    if folder is not None:
        os.environ.pop(CACHE_VARIABLE, None)
        shutil.rmtree(folder, ignore_errors=True)


def cuda_devices() -> int:
    """Count CUDA devices by the driver itself, so that a fault in graphc cannot hide one."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if "gpu" in item.keywords]
    if marked and cuda_devices() == 0:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def kernel_cache() -> Path:
    """Return the kernel cache of this test session; an unset variable would touch the user's."""
    return Path(os.environ[CACHE_VARIABLE])


@pytest.fixture(scope="session", autouse=True)
def verified_passes() -> None:
    """Check every graph and kernel after every pass."""
    graphc.configure(verify=True)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    graphc.random.seed(SEED)


def check_golden(path: Path, text: str, update: bool) -> None:
    """Compare ``text`` with the file, or write the file when ``update`` is true."""
    if not text.endswith("\n"):
        text += "\n"
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return
    if not path.exists():
        pytest.fail(f"no golden file {path}; run with --update-golden, then read what it wrote")
    kept = path.read_bytes().decode()
    if kept != text:
        names = f"{path.name} (kept)", f"{path.name} (now)"
        lines = difflib.unified_diff(kept.splitlines(), text.splitlines(), *names, lineterm="")
        pytest.fail("\n".join([*lines, "--update-golden accepts the change"]), pytrace=False)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Give ``golden(text, "passes/fuse_mlp.txt")``: equal to that file of ``tests/golden``."""
    update = request.config.getoption("--update-golden")

    def compare(text: str, name: str) -> None:
        path = (GOLDEN / name).resolve()
        assert path.is_relative_to(GOLDEN), f"golden files lie under {GOLDEN.name}/, not at {name}"
        check_golden(path, text, update)

    return compare


@pytest.fixture(scope="session")
def emulated_devices() -> FakeCuda:
    """Return the devices of a session: what is compiled for them is found by later tests."""
    return FakeCuda()


@pytest.fixture
def emulated(
    tmp_path_factory: pytest.TempPathFactory, emulated_devices: FakeCuda
) -> Iterator[FakeCuda]:
    """Have two CUDA devices that run on the CPU."""
    folder = tmp_path_factory.getbasetemp() / "emulated-cache"
    with emulated_cuda(folder, emulated_devices) as fake:
        yield fake

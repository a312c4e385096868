"""What there is of CUDA on this machine: package, driver, devices, and what they run."""

from __future__ import annotations

from typing import Any

from graphc import lazy
from graphc.codegen.cuda import PROCESSORS
from graphc.errors import DeviceError, MissingDependencyError


def processor_of(name: str, device: Any) -> str:
    """Return the newest processor whose code a device runs.

    Raises
    ------
    DeviceError
        If it is too old for all.
    """
    major, minor = device.compute_capability
    known = {int(p.removeprefix("sm_")): p for p in PROCESSORS if p[-1].isdigit()}
    fitting = [number for number in known if number <= 10 * major + minor]
    if not fitting:
        least = min(known)
        raise DeviceError(
            f"{name}, a {device.name}, has compute capability {major}.{minor}",
            remedy=f"graphc needs {least // 10}.{least % 10} or newer.",
        )
    return known[max(fitting)]


def missing() -> tuple[str, str] | None:
    """Return why there is no device at all, and the remedy; None where there is one."""
    try:
        lazy.cuda_core()
        driver = lazy.cuda_driver()
    except MissingDependencyError:
        return "the package cuda-core is not installed", 'Install it: pip install "graphc[cuda]".'
    try:
        (status,) = driver.cuInit(0)
    except RuntimeError:  # cuda-pathfinder does not find the library
        return "there is no NVIDIA driver on this machine", "Install it."
    if status == driver.CUresult.CUDA_SUCCESS and count() > 0:
        return None
    if status in (driver.CUresult.CUDA_SUCCESS, driver.CUresult.CUDA_ERROR_NO_DEVICE):
        return "the NVIDIA driver finds no device", "CUDA_VISIBLE_DEVICES may hide devices."
    return f"the NVIDIA driver reports {status.name}", "nvidia-smi may say more."


def count() -> int:
    """Return how many devices the driver finds."""
    _, found = lazy.cuda_driver().cuDeviceGetCount()
    return int(found)

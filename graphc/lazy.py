"""The one place where slow or optional third-party modules are imported, at their first use.

``import graphc`` must stay light, so numba, llvmlite, networkx and the optional packages are
reached through these functions. Each returns the module and costs a dictionary look-up from
the second call on.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from graphc.errors import MissingDependencyError, no_attribute


def exports(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package whose names are imported at first use.

    Parameters
    ----------
    package, file : str
        ``__name__`` and ``__file__`` of the package; the stub beside it (``.pyi``) lists the names
        as imports, for editors and for this function alike.
    """

    @cache
    def names() -> dict[str, tuple[str, str]]:
        tree = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
        return {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def load(name: str) -> Any:
        if name not in names():
            raise no_attribute(package, name, names())
        module, member = names()[name]
        if module == package:
            value: Any = importlib.import_module(f"{package}.{member}")
        else:
            value = getattr(importlib.import_module(module), member)
        setattr(sys.modules[package], name, value)
        return value

    def listing() -> list[str]:
        return sorted({*names(), *vars(sys.modules[package])})

    return load, listing


_CUDA_NUMBA = "cuda-numba"
"""The extra that the Numba engine takes on a GPU."""


def _require(name: str, extra: str | None = None) -> ModuleType:
    """Import ``name``; say how to install it where its package is not there."""
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is installed and one of its own imports failed
        raise _missing(package, extra) from error


def _missing(package: str, extra: str | None = None) -> MissingDependencyError:
    """Return the error of a package that is not installed, which an extra of graphc brings."""
    target = "graphc" if extra is None else f"graphc[{extra}]"
    return MissingDependencyError(
        f"{package} is not installed", remedy=f'Install it: pip install "{target}".'
    )


@cache
def numba() -> ModuleType:
    """Return ``numba``."""
    return _require("numba")


@cache
def llvmlite_binding() -> ModuleType:
    """Return ``llvmlite.binding``, LLVM itself, ready to compile for this machine."""
    binding = _require("llvmlite.binding")
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


@cache
def llvmlite_all_targets() -> ModuleType:
    """Return ``llvmlite.binding``, ready to compile for every machine that LLVM knows."""
    binding = llvmlite_binding()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    return binding


@cache
def networkx() -> ModuleType:
    """Return ``networkx``."""
    return _require("networkx")


@cache
def cuda_core() -> ModuleType:
    """Return ``cuda.core``: devices, streams, memory pools, kernels, graphs."""
    return _require("cuda.core", "cuda")


@cache
def cuda_driver() -> ModuleType:
    """Return ``cuda.bindings.driver``, for the little that cuda-core does not offer."""
    return _require("cuda.bindings.driver", "cuda")


@cache
def cuda_error() -> type[Exception]:
    """Return the class of what cuda-core raises where the driver fails."""
    found: type[Exception] = _require("cuda.core._utils.cuda_utils", "cuda").CUDAError
    return found


@cache
def numba_cuda() -> ModuleType:
    """Return ``numba.cuda`` of the package numba-cuda, with NVVM, which it compiles by."""
    _require("numba_cuda", _CUDA_NUMBA)
    try:
        cuda_pathfinder().load_nvidia_dynamic_lib("nvvm")
    except cuda_pathfinder().DynamicLibNotFoundError as error:
        raise _missing("NVIDIA's NVVM", _CUDA_NUMBA) from error
    found = _require("numba.cuda")
    for name in ("compiler", "cudadrv.nvvm", "cgutils", "extending", "types", "typing"):
        importlib.import_module(f"numba.cuda.{name}")
    return found


def numba_cuda_versions() -> list[str]:
    """Return the versions of numba-cuda, and of NVVM where pip installed it; imports nothing.

    Raises
    ------
    MissingDependencyError
        If numba-cuda is not installed.
    """
    found = {}
    for name in ("numba-cuda", "nvidia-nvvm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    if "numba-cuda" not in found:
        raise _missing("numba-cuda", _CUDA_NUMBA)
    return [f"{name} {version}" for name, version in found.items()]


@cache
def cuda_pathfinder() -> ModuleType:
    """Return ``cuda.pathfinder``, which knows where NVIDIA's libraries lie."""
    return _require("cuda.pathfinder", _CUDA_NUMBA)


@cache
def llvmlite_ir() -> ModuleType:
    """Return ``llvmlite.ir``, in which ``numba-cuda`` writes LLVM IR."""
    return _require("llvmlite.ir")


@cache
def cloudpickle() -> ModuleType:
    """Return ``cloudpickle``, which takes lambdas and ``__main__`` to spawned processes."""
    return _require("cloudpickle")

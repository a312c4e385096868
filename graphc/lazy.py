"""The one place where slow or optional third-party modules are imported, at their first use.

``import graphc`` must stay light, so numba, llvmlite, networkx and the optional packages are
reached through these functions. Each returns the module and costs a dictionary look-up from
the second call on.
"""

from __future__ import annotations

import ast
import importlib
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


def _require(name: str, extra: str | None = None) -> ModuleType:
    """Import ``name``; say how to install it where its package is not there."""
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is installed and one of its own imports failed
        target = "graphc" if extra is None else f"graphc[{extra}]"
        raise MissingDependencyError(
            f"{package} is not installed",
            remedy=f'Install it: pip install "{target}".',
        ) from error


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
def cloudpickle() -> ModuleType:
    """Return ``cloudpickle``, which takes lambdas and ``__main__`` to spawned processes."""
    return _require("cloudpickle")

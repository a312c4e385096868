"""Exported libraries in tests: DLPack's tensors by ctypes, calls, C programs."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.frontend.export_library import ExportedLibrary

CC = shutil.which("cc")
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler")

CPU, CUDA = 1, 2
CODES = {"i": 0, "u": 1, "f": 2, "b": 6}


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def words(*values: int) -> Any:
    """Return numbers of 64 bits as C has them."""
    return (ctypes.c_int64 * max(len(values), 1))(*values)


def tensor(array: np.ndarray, **changes: Any) -> DLTensor:
    """Return an array as a DLTensor, with some fields changed."""
    made = DLTensor(
        array.ctypes.data, CPU, 0, array.ndim, CODES[array.dtype.kind], 8 * array.itemsize, 1,
        words(*array.shape), None, 0,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(made, name, value)
    return made


class Library:
    """A library that is loaded.

    Parameters
    ----------
    files : ExportedLibrary
    path : Path, optional
        Of the library, where it was linked later.
    """

    def __init__(self, files: ExportedLibrary, path: Path | None = None) -> None:
        self.name = files.name
        self._loaded = ctypes.CDLL(str(path or files.library))
        self.function("error").restype = ctypes.c_char_p

    def function(self, name: str) -> Any:
        return getattr(self._loaded, f"{self.name}_{name}")

    def error(self) -> str:
        return self.function("error")().decode()

    def call(
        self, name: str, inputs: Sequence[DLTensor], outputs: Sequence[DLTensor]
    ) -> tuple[int, Any]:
        """Return the status of ``run`` or ``infer``, and the outputs."""
        given = (DLTensor * max(len(inputs), 1))(*inputs)
        made = (DLTensor * max(len(outputs), 1))(*outputs)
        return self.function(name)(given, len(inputs), made, len(outputs)), made

    def infer(self, *inputs: np.ndarray, outputs: int = 1) -> list[tuple[int, ...]]:
        """Return the shapes of the outputs for these inputs."""
        empty = [DLTensor(shape=words(*[-1] * 8)) for _ in range(outputs)]
        status, made = self.call("infer", [tensor(a) for a in inputs], empty)
        assert status == 0, self.error()
        return [tuple(made[i].shape[: made[i].ndim]) for i in range(outputs)]

    def run(self, *inputs: np.ndarray, like: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs for these inputs, arrays like those given."""
        outputs = [np.full_like(a, 99) for a in like]
        assert self.infer(*inputs, outputs=len(like)) == [a.shape for a in like]
        status, _ = self.call("run", [tensor(a) for a in inputs], [tensor(a) for a in outputs])
        assert status == 0, self.error()
        return outputs


def arrays_of(result: Any) -> list[np.ndarray]:
    """Return what a network returned as NumPy arrays."""
    return [a.asnumpy() for a in (result if isinstance(result, (list, tuple)) else [result])]


def equal(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Assert that arrays have the same bits."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def built(
    source: str, folder: Path, *arguments: str, compiler: str = "cc", name: str = "program"
) -> Path:
    """Compile a C program, warnings being errors."""
    file, program = folder / f"{name}.c", folder / name
    file.write_text(source, encoding="utf-8")
    flags = [] if compiler.endswith("++") else ["-std=c99", "-pedantic"]
    command = [compiler, "-Wall", "-Wextra", "-Werror", *flags, "-o", str(program), str(file)]
    done = subprocess.run(
        [*command, f"-I{folder}", f"-L{folder}", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return program


def ran(program: Path, *arguments: str, prefix: Sequence[str] = ()) -> str:
    """Return what a program prints."""
    done = subprocess.run(
        [*prefix, str(program), *arguments], capture_output=True, text=True, timeout=120,
        env={**os.environ, "LD_LIBRARY_PATH": str(program.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


RUN = """
#include <stdio.h>
#include <stdlib.h>
#include "NAME.h"

/* The arguments are the batch size, the file of the images, and that of the results. */
int main(int count, char **arguments) {
  int64_t in_shape[4] = {count == 4 ? atoll(arguments[1]) : 0, 1, 28, 28}, out_shape[2];
  size_t size = (size_t)in_shape[0] * 28 * 28;
  float *images = malloc(size * sizeof(float) + 1);
  FILE *file = fopen(arguments[2], "rb");
  if (file == NULL || fread(images, sizeof(float), size, file) != size) return 2;
  fclose(file);
  DLTensor in = {images, {kDLCPU, 0}, 4, {kDLFloat, 32, 1}, in_shape, NULL, 0};
  DLTensor out = {NULL, {0, 0}, 0, {0, 0, 0}, out_shape, NULL, 0};
  if (NAME_infer(&in, 1, &out, 1)) { puts(NAME_error()); return 1; }
  size = (size_t)(out_shape[0] * out_shape[1]);
  out.data = malloc(size * sizeof(float) + 1);
  if (NAME_run(&in, 1, &out, 1)) { puts(NAME_error()); return 1; }
  file = fopen(arguments[3], "wb");
  if (file == NULL || fwrite(out.data, sizeof(float), size, file) != size) return 2;
  fclose(file);
  NAME_release();
  free(images);
  free(out.data);
  return 0;
}
"""
"""A C program that runs a network of digits."""

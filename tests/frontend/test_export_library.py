"""Exported libraries: from C and from ctypes, graphc's own outputs bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import gluon, nd
from graphc.frontend.export_library import ExportedLibrary
from graphc.gluon import nn
from tests.exported import RUN, Library, arrays_of, built, equal, needs_cc, ran

C_LIBRARY = {"libc", "libm", "libpthread", "ld-linux-x86-64", "ld-linux-aarch64"}
QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
CROSS_CC = shutil.which("aarch64-linux-gnu-gcc")


def lenet() -> nn.HybridSequential:
    net = nn.HybridSequential(prefix="lenet_")
    net.add(
        nn.Conv2D(20, kernel_size=5, padding=2, activation="relu"), nn.MaxPool2D(2, 2),
        nn.Conv2D(50, kernel_size=5, padding=2, activation="relu"), nn.MaxPool2D(2, 2),
        nn.Dense(500, activation="relu"), nn.Dense(10),
    )  # fmt: skip
    net.initialize(graphc.init.Xavier())
    net.hybridize()
    return net


def digits(count: int) -> np.ndarray:
    """Return digits of the sample that ships with graphc."""
    sample = gluon.data.vision.MNISTSample("test")
    images = np.stack([sample[i][0].asnumpy() for i in range(count)])
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255


IMAGES = 100


@pytest.fixture(scope="module")
def net() -> nn.HybridSequential:
    graphc.random.seed(0)
    made = lenet()
    made(nd.array(digits(3)))
    return made


@pytest.fixture(scope="module")
def files(net: Any, tmp_path_factory: pytest.TempPathFactory) -> ExportedLibrary:
    return net.export_library(tmp_path_factory.mktemp("library") / "lenet")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return digits(IMAGES)


# -- LeNet -------------------------------------------------------------------------------------


@needs_cc
@pytest.mark.parametrize("batch", [1, 7, IMAGES, 0])
def test_ctypes_gets_what_graphc_computes(files, net, images, batch):
    x = images[:batch]
    expected = arrays_of(net(nd.array(x)))
    equal(Library(files).run(x, like=expected), expected)


@needs_cc
def test_a_c_program_gets_what_graphc_computes(files, net, images):
    folder = files.header.parent
    program = built(RUN.replace("NAME", "lenet"), folder, "-llenet")
    for batch in (1, 7, IMAGES, 0):
        images[:batch].tofile(folder / "images")
        ran(program, str(batch), str(folder / "images"), str(folder / "results"))
        found = np.fromfile(folder / "results", np.float32).reshape(batch, 10)
        equal([found], arrays_of(net(nd.array(images[:batch]))))


@needs_cc
def test_the_program_of_the_docs_runs(files, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "exporting.md").read_text(encoding="utf-8")
    source = page.partition("```c\n")[2].partition("```")[0]
    for file in (files.library, files.header):
        shutil.copy(file, tmp_path)
    assert ran(built(source, tmp_path, "-llenet")).startswith("10 scores, the first ")


@needs_cc
@pytest.mark.parametrize("first", ["lenet.h", "dlpack/dlpack.h"])
@pytest.mark.parametrize("compiler", ["cc", "c++"])
def test_the_header_goes_with_that_of_dlpack(files, tmp_path, first, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    declarations = files.header.read_text().partition("#define GRAPHC_DLPACK\n")[2]
    own = "#ifndef DLPACK_DLPACK_H_\n#define DLPACK_DLPACK_H_\n#include <stdint.h>\n"
    (tmp_path / "dlpack").mkdir()
    text = own + declarations.partition("#endif")[0] + "#endif\n"
    (tmp_path / "dlpack" / "dlpack.h").write_text(text)
    shutil.copy(files.header, tmp_path)
    second = {"lenet.h": "dlpack/dlpack.h"}.get(first, "lenet.h")
    source = f"""
        #include <{first}>
        #include <{second}>
        int main(void) {{ return kDLCPU == 1 && sizeof(DLTensor) == 48 ? 0 : 1; }}
    """
    ran(built(textwrap.dedent(source), tmp_path, compiler=compiler))


@needs_cc
def test_it_needs_the_c_library_alone(files):
    if shutil.which("nm") is None or shutil.which("readelf") is None:
        pytest.skip("there is no nm or readelf")
    listed = ["nm", "-D", str(files.library)]
    lines = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    shown = {line.split()[-1] for line in lines if line.split()[-2] == "T"}
    assert shown == {f"lenet_{f}" for f in ("run", "infer", "error", "set_threads", "release")}
    foreign = [line for line in lines if " U " in line and "GLIBC" not in line]
    assert not foreign
    dynamic = ["readelf", "-d", str(files.library)]
    text = subprocess.run(dynamic, capture_output=True, text=True, check=True).stdout
    needed = [line.partition("[")[2] for line in text.splitlines() if "NEEDED" in line]
    assert needed and {name.partition(".so")[0] for name in needed} <= C_LIBRARY


@needs_cc
def test_threads_may_call_at_once(files, net, images):
    library = Library(files)
    batches = (1, 7, 33, IMAGES)
    expected = {batch: arrays_of(net(nd.array(images[:batch]))) for batch in batches}
    failures: list[BaseException] = []

    def calls(number: int) -> None:
        try:
            for turn in range(12):
                batch = batches[(number + turn) % len(batches)]
                found = library.run(images[:batch], like=expected[batch])
                equal(found, expected[batch])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=calls, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@needs_cc
def test_the_number_of_threads_changes_no_result(files, net, images):
    library, expected = Library(files), arrays_of(net(nd.array(images)))
    for threads in (1, 2, 5):
        assert library.function("set_threads")(threads) == 0
        equal(library.run(images, like=expected), expected)
    for threads in (0, -1, 257):
        assert library.function("set_threads")(threads) == 1
    assert library.error() == "lenet can use 1 to 256 threads, got 257"
    library.function("release")()
    equal(library.run(images, like=expected), expected)


@needs_cc
def test_forks_and_unloading(files, images, tmp_path):
    images.tofile(tmp_path / "images")
    script = f"""
        import ctypes, os, sys
        import _ctypes
        import numpy as np
        from tests.exported import Library, tensor
        x = np.fromfile({str(tmp_path / "images")!r}, np.float32).reshape(-1, 1, 28, 28)
        out = np.zeros((len(x), 10), np.float32)
        class Files:
            name, library = "lenet", {str(files.library)!r}
        library = Library(Files)
        library.function("set_threads")(3)
        def run():
            out[:] = 0
            assert library.call("run", [tensor(x)], [tensor(out)])[0] == 0
            return out.copy()
        first = run()
        for _ in range(3):
            child = os.fork()
            if child == 0:
                os._exit(0 if all(np.array_equal(run(), first) for _ in range(3)) else 1)
            assert np.array_equal(run(), first)
            assert os.waitpid(child, 0)[1] == 0
        _ctypes.dlclose(library._loaded._handle)
        print("done", len(os.listdir("/proc/self/task")))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True,
        timeout=120, cwd=Path(__file__).parents[2],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "done"


@needs_cc
def test_two_libraries_in_one_program(files, net, images, tmp_path):
    other = nn.HybridSequential()
    other.add(nn.Flatten(), nn.Dense(10))
    other.initialize(graphc.init.Xavier())
    other.hybridize()
    expected = arrays_of(other(nd.array(images))) + arrays_of(net(nd.array(images)))
    second = other.export_library(tmp_path / "graphc", link=False)
    for file in (files.library, files.header):
        shutil.copy(file, tmp_path)
    source = RUN.replace("NAME", "lenet").replace("int main", "static int lenet_main")
    source += RUN.replace("NAME", "graphc").replace("int main", "static int graphc_main")
    source += """
    int main(int count, char **arguments) {
      int first = lenet_main(count - 1, arguments), second;
      arguments[3] = arguments[4];
      second = graphc_main(count - 1, arguments);
      return first | second;
    }
    """
    # One of them is linked into the program itself.
    program = built(source, tmp_path, str(second.code), "-llenet", "-pthread")
    images.tofile(tmp_path / "images")
    paths = [str(tmp_path / name) for name in ("images", "lenet.out", "graphc.out")]
    ran(program, str(len(images)), *paths)
    results = [np.fromfile(path, np.float32).reshape(-1, 10) for path in reversed(paths[1:])]
    equal(results, expected)


# -- how it is written -------------------------------------------------------------------------


def test_the_description_says_what_the_library_takes(files):
    data = json.loads(files.description.read_text())
    assert (data["format"], data["name"], data["graphc"]) == (1, "lenet", graphc.__version__)
    (given,), (made,) = data["inputs"], data["outputs"]
    assert given == {"name": "x0", "dtype": "float32", "shape": [given["shape"][0], 1, 28, 28]}
    assert made == {"name": "output", "dtype": "float32", "shape": [given["shape"][0], 10]}
    assert data["target"]["name"] == "host" and data["target"]["cpu"]
    assert data["constraints"] == [] and data["weights"] is None
    assert data["functions"]["run"] == "lenet_run" and data["link"][0] == "cc"
    assert "0: x0: float32[B, 1, 28, 28]" in files.header.read_text()


@needs_cc
def test_without_a_compiler_it_can_be_linked_later(net, images, tmp_path, monkeypatch):
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.warns(UserWarning, match=r"there is no cc to link liblenet.so: .*lenet.o was w"):
        files = net.export_library(tmp_path / "lenet")
    assert files.library is None and files.header.is_file() and files.description.is_file()
    assert files.code.read_bytes()[:4] == b"\x7fELF"
    monkeypatch.setenv("PATH", path)
    subprocess.run(["sh", str(files.script)], check=True)
    expected = arrays_of(net(nd.array(images)))
    equal(Library(files, tmp_path / "liblenet.so").run(images, like=expected), expected)


@needs_cc
def test_weights_beside_the_library(net, images, tmp_path):
    files = net.export_library(tmp_path / "lenet", weights="beside")
    assert files.library.stat().st_size < 300_000 < files.weights.stat().st_size
    assert json.loads(files.description.read_text())["weights"] == "lenet.safetensors"
    assert "lenet_load(const char *path)" in files.header.read_text()
    arrays = nd.load(str(files.weights))
    assert any(np.array_equal(a.asnumpy(), net[5].bias.data().asnumpy()) for a in arrays.values())
    library, expected = Library(files), arrays_of(net(nd.array(images)))
    load, path = library.function("load"), str(files.weights).encode()
    assert load(path) == 0
    equal(library.run(images, like=expected), expected)
    assert load(path) == 8
    assert library.error() == "the weights of lenet are loaded already: call lenet_release first"
    # Weights of another training go with the same library.
    other = lenet()
    expected = arrays_of(other(nd.array(images)))
    (tmp_path / "other").mkdir()
    again = other.export_library(tmp_path / "other" / "lenet", weights="beside", link=False)
    library.function("release")()
    assert load(str(again.weights).encode()) == 0
    equal(library.run(images, like=expected), expected)


@needs_cc
def test_files_that_are_no_weights(net, images, tmp_path):
    files = net.export_library(tmp_path / "lenet", weights="beside")
    library = Library(files)
    load = library.function("load")
    with pytest.raises(AssertionError, match="lenet are not loaded: call lenet_load with the path"):
        library.run(images, like=arrays_of(net(nd.array(images))))
    content = files.weights.read_bytes()
    damaged = {
        "short": content[:-1], "long": content + b"0", "empty": b"",
        "other": content.replace(b"F32", b"I32"),
    }  # fmt: skip
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        assert load(str(tmp_path / name).encode()) == 8
        assert library.error() == (
            f"{tmp_path / name} does not hold the weights of lenet, or is not whole"
        )
    assert load(str(tmp_path / "none").encode()) == 8
    assert library.error() == f"{tmp_path / 'none'} cannot be opened"
    assert load(None) == 1
    assert library.error() == "the path of the weights is null"


@pytest.mark.parametrize(
    ("target", "machine"), [("x86-64-v3", 62), ("x86-64-v4", 62), ("aarch64", 183)]
)
def test_objects_of_other_processors(net, tmp_path, target, machine):
    files = net.export_library(tmp_path / "lenet", target=target, link=False)
    code = files.code.read_bytes()
    assert code[:4] == b"\x7fELF" and struct.unpack_from("<H", code, 18) == (machine,)
    assert json.loads(files.description.read_text())["target"]["name"] == target


@pytest.mark.skipif(
    QEMU is None or CROSS_CC is None, reason="qemu-aarch64 and aarch64-linux-gnu-gcc are not there"
)
def test_a_program_of_another_processor(net, images, tmp_path):
    files = net.export_library(tmp_path / "lenet", target="aarch64", link=False)
    source, code = RUN.replace("NAME", "lenet"), str(files.code)
    program = built(source, tmp_path, code, "-static", "-pthread", compiler=str(CROSS_CC))
    images[:7].tofile(tmp_path / "images")
    paths = str(tmp_path / "images"), str(tmp_path / "results")
    ran(program, "7", *paths, prefix=[str(QEMU)])
    found = np.fromfile(tmp_path / "results", np.float32).reshape(7, 10)
    np.testing.assert_allclose(found, net(nd.array(images[:7])).asnumpy(), rtol=1e-5, atol=1e-6)

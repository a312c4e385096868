"""The builtin that calls launch tables from Python, and what does the same in Python."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from launch_tables import Table, call_of

from graphc.codegen import python_call
from graphc.codegen.dispatch import KERNEL_TYPE, Error, dispatcher
from graphc.codegen.python_call import NOT_TAKEN, Site, address, called, made, words

INT = np.dtype(np.int64)
N = 6


class Program:
    """One kernel over a read input, an updated one, and two results; ``call`` runs it."""

    def __init__(self, native: bool, kernel: Callable[..., int]) -> None:
        self.callback = KERNEL_TYPE(kernel)
        code = ctypes.cast(self.callback, ctypes.c_void_p).value
        self.error, self.pointers = Error(), words([0] * 4)
        row = (code, ctypes.addressof(self.pointers), 0, N, 0, 0)
        self.table = Table()
        self.table.rows.append(row)
        self.rows = self.table.native()
        self.walk = call_of(self.rows, self.error)
        outputs = [((N,), INT), ((2, 3), INT)]
        self.arrays = [words([0] * 4), words([8 * N] * 2), words([1]), made(outputs)]
        self.stores = words(n for pair in enumerate([0, 1, 2, 3]) for n in pair)
        addresses, n_bytes, updated, results = map(ctypes.addressof, self.arrays)
        self.site = Site(
            call=ctypes.addressof(self.walk), input_count=2, output_count=2, addresses=addresses,
            n_bytes=n_bytes, updated=updated, updated_count=1, made=results,
            stores=ctypes.addressof(self.stores), store_count=4,
            pointers=ctypes.addressof(self.pointers),
        )  # fmt: skip
        used = dispatcher()
        self.call = called(used.call_address if native else 0, used.run, self.site, outputs)

    def look(self, *arrays: np.ndarray) -> None:
        """Note that these inputs share no memory."""
        for number, array in enumerate(arrays):
            self.arrays[0][number] = address(array)


def adding(buffers: Any, sizes: Any, begin: int, end: int, error: Any) -> int:
    """Add the first input to the second; put the sum into one result, its double in the other."""
    pointers = ctypes.cast(buffers, ctypes.POINTER(ctypes.POINTER(ctypes.c_int64)))
    for i in range(begin, end):
        pointers[1][i] += pointers[0][i]
        pointers[2][i], pointers[3][i] = pointers[1][i], 2 * pointers[1][i]
    return 0


@pytest.fixture(params=[True, False], ids=["native", "python"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def inputs() -> tuple[np.ndarray, np.ndarray]:
    return np.arange(N), np.full(N, 10)


def test_results_are_new_arrays(native: bool) -> None:
    program, (x, w) = Program(native, adding), inputs()
    program.look(x, w)
    one, two = program.call([x, w])
    assert (one.shape, two.shape, one.dtype, two.dtype) == ((N,), (2, 3), INT, INT)
    assert one.tolist() == w.tolist() == [10 + i for i in range(N)]
    assert two.ravel().tolist() == [2 * v for v in w]
    again, _ = program.call([x, w])
    assert again is not one and one[1] == 11 and again[1] == 12
    assert one.flags.owndata and one.flags.writeable


def test_results_may_be_given(native: bool) -> None:
    program, (x, w) = Program(native, adding), inputs()
    program.look(x, w)
    place = np.zeros((2, 3), np.int64)
    one, two = program.call([x, w, None, place])
    assert two is place and place[0, 1] == 22 and one[1] == 11


def test_arguments_that_may_share_memory_are_not_taken(native: bool) -> None:
    program, (x, w) = Program(native, adding), inputs()
    assert program.call([x, w]) == NOT_TAKEN  # nobody looked at the updated one
    program.look(x, w)
    assert program.call([w, w]) == NOT_TAKEN
    assert program.call([x, w.copy()]) == NOT_TAKEN
    assert w.tolist() == [10] * N
    assert isinstance(program.call([x.copy(), w]), list)  # elsewhere, and apart
    whole = np.arange(2 * N)
    program.look(x, whole[N:])
    assert program.call([whole[1 : N + 1], whole[N:]]) == NOT_TAKEN
    assert isinstance(program.call([whole[:N], whole[N:]]), list)


@pytest.mark.parametrize("first", [True, False])
def test_arguments_of_another_layout_are_not_taken(native: bool, first: bool) -> None:
    program, (x, w) = Program(native, adding), inputs()
    program.look(x, w)
    strided = np.zeros(2 * N, np.int64)[::2]
    unaligned = np.zeros(8 * N + 1, np.uint8)[1:].view(np.int64)
    for array in (strided, unaligned):
        assert program.call([array, w] if first else [x, array]) == NOT_TAKEN


def test_what_a_kernel_returns_comes_back(native: bool) -> None:
    program, (x, w) = Program(native, lambda *_: -7), inputs()
    program.look(x, w)
    assert program.call([x, w]) == -7
    assert (program.error.launch, program.error.code) == (0, -7)


def test_nothing_leaks(native: bool) -> None:
    program, (x, w) = Program(native, adding), inputs()
    failing = Program(native, lambda *_: 3)
    program.look(x, w)
    failing.look(x, w)
    place = np.zeros(N, np.int64)
    held = (x, w, place, INT, None)
    program.call([x, w])
    before = [sys.getrefcount(one) for one in held]
    for _ in range(50):
        program.call([x, w, place])
        program.call([x, x])
        failing.call([x, w, place])
    after = [sys.getrefcount(one) for one in held]
    assert before[:4] == after[:4] and abs(after[4] - before[4]) < 40


def test_other_threads_run_meanwhile(native: bool) -> None:
    started, go_on = threading.Event(), threading.Event()

    def waiting(*_: Any) -> int:
        started.set()
        return 0 if go_on.wait(10) else 1

    program, (x, w) = Program(native, waiting), inputs()
    program.look(x, w)
    found: list[Any] = []
    caller = threading.Thread(target=lambda: found.append(program.call([x, w])))
    caller.start()
    assert started.wait(10)
    go_on.set()
    caller.join()
    assert isinstance(found[0], list)


def test_too_little_memory_is_an_error() -> None:
    program, (x, w) = Program(True, adding), inputs()
    program.look(x, w)
    huge = made([((1 << 55,), INT), ((2, 3), INT)])
    program.site.made = ctypes.addressof(huge)
    with pytest.raises(MemoryError):
        program.call([x, w])


def test_another_numpy_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert python_call.symbols()
    monkeypatch.setattr(python_call, "_FLAGS_OFFSET", python_call._FLAGS_OFFSET + 8)
    assert python_call.symbols.__wrapped__() is None
    monkeypatch.undo()
    monkeypatch.setattr(python_call, "_NUMPY_ABI", 0x3000000)
    assert python_call.symbols.__wrapped__() is None
    monkeypatch.undo()
    monkeypatch.setitem(python_call._FUNCTIONS, "PyList_NoSuch", "p")
    assert python_call.symbols.__wrapped__() is None

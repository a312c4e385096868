"""Memory of large outputs: lent once at a time, kept when it is free, and not too much of it."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import graphc
from graphc.runtime import blocks

FLOAT = np.dtype(np.float32)
LARGE = (blocks.LEAST_BYTES // 4, 3)


@pytest.fixture(autouse=True)
def none_kept(monkeypatch):
    monkeypatch.setattr(blocks, "_free", {})


def start(array):
    return array.__array_interface__["data"][0]


def test_array_is_as_of_numpy():
    array = blocks.empty(LARGE, FLOAT)
    assert (array.shape, array.dtype) == (LARGE, FLOAT)
    assert array.flags.c_contiguous and array.flags.aligned and array.flags.writeable
    assert start(array) % blocks.PAGE_BYTES == 0
    array[...] = 7
    assert array.sum() == 7 * array.size


def test_memory_is_lent_again_when_the_array_is_gone():
    array = blocks.empty(LARGE, FLOAT)
    place = start(array)
    del array
    assert blocks.kept_bytes() > 0
    assert start(blocks.empty(LARGE[::-1], np.dtype(np.int32))) == place


@pytest.mark.parametrize("view", [
    lambda a: a[1:2, ::2], lambda a: a.reshape(-1).T, memoryview, np.from_dlpack,
    lambda a: a.view(np.int8), lambda a: np.broadcast_to(a, (2, *a.shape)),
])  # fmt: skip
def test_a_view_keeps_memory_from_others(view):
    held = blocks.empty(LARGE, FLOAT)
    place = start(held)
    held = view(held)
    gc.collect()
    assert blocks.kept_bytes() == 0
    other = blocks.empty(LARGE, FLOAT)
    assert start(other) != place
    del held
    assert blocks.kept_bytes() > 0


def test_other_sizes_get_other_memory():
    place = start(blocks.empty(LARGE, FLOAT))
    assert start(blocks.empty((LARGE[0], 4), FLOAT)) != place


def test_what_was_given_back_first_is_returned_first(monkeypatch):
    sizes = [(LARGE[0], columns) for columns in (3, 4, 5)]
    arrays = [blocks.empty(shape, FLOAT) for shape in sizes]
    wanted = arrays[1].nbytes + arrays[2].nbytes + 3 * blocks.PAGE_BYTES
    monkeypatch.setattr(blocks, "MOST_BYTES", wanted)
    places = [start(a) for a in arrays]
    while arrays:
        del arrays[0]
    assert blocks.kept_bytes() <= blocks.MOST_BYTES
    assert [start(blocks.empty(shape, FLOAT)) == place
            for shape, place in zip(sizes[1:], places[1:])] == [True, True]  # fmt: skip


class _Interrupted(dict):
    """What the garbage collector does to the dict when it runs while the values are read."""

    arriving = None

    def values(self):
        found = iter(super().values())
        if self.arriving is not None:
            memory, self.arriving = self.arriving, None
            self[id(memory)] = memory
        return found


def test_memory_may_be_given_back_while_some_is_looked_for(monkeypatch):
    free = _Interrupted()
    monkeypatch.setattr(blocks, "_free", free)
    array = blocks.empty(LARGE, FLOAT)
    place = start(array)
    del array
    free.arriving = np.empty(8, np.uint8)
    assert start(blocks.empty(LARGE, FLOAT)) == place
    assert free.arriving is None


def test_only_large_arrays_come_from_here():
    assert blocks.allocator(LARGE, FLOAT) is blocks.empty
    assert blocks.allocator((5,), FLOAT) is np.empty


def test_huge_arrays_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(blocks, "MOST_BYTES", 1)
    blocks.empty(LARGE, FLOAT)
    assert blocks.kept_bytes() == 0


def test_empty_cache_gives_memory_back():
    blocks.empty(LARGE, FLOAT)
    assert blocks.kept_bytes() > 0
    graphc.cpu().empty_cache()
    assert blocks.kept_bytes() == 0

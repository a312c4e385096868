"""The DataLoader: equal batches in every mode, faults of workers, nothing left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

from graphc.errors import ArgumentError, DataLoaderError
from graphc.frontend.creation import array
from graphc.frontend.gluon import data
from graphc.frontend.gluon.data import batchify
from graphc.frontend.gluon.data.vision import MNISTSample, transforms
from graphc.frontend.ndarray import NDArray
from graphc.ir.ops.contraction import matmul
from graphc.runtime import random as graphc_random

FORKS = "fork" in multiprocessing.get_all_start_methods()
MODES = {
    "here": {},
    "threads": {"num_workers": 2, "thread_pool": True},
    "fork": {"num_workers": 2, "start_method": "fork"},
    "spawn": {"num_workers": 2, "start_method": "spawn"},
}
PROCESS_MODES = ["fork", "spawn"] if FORKS else ["spawn"]
ALL_MODES = ["here", "threads", *PROCESS_MODES]
to_tensor = transforms.ToTensor()


class ItemByItem(data.Dataset):
    """A user's dataset: hides every fast path of the one it wraps."""

    def __init__(self, base):
        self.base = base

    def __len__(self):
        return len(self.base)

    def __getitem__(self, index):
        return self.base[index]


class Failing(data.Dataset):
    """Items are their indices; item 5 does what it is told."""

    def __init__(self, act, length=8):
        self.act = act
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.act() if index == 5 else index


@pytest.fixture(scope="module")
def digits():
    return MNISTSample("test").take(250)


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    gc.collect()
    assert multiprocessing.active_children() == []


def epoch(dataset, batch_size=100, **arguments):
    return [
        [part.asnumpy() for part in batch] if isinstance(batch, list) else batch.asnumpy()
        for batch in data.DataLoader(dataset, batch_size, **arguments)
    ]


def assert_same_batches(actual, expected):
    assert len(actual) == len(expected)
    for left, right in zip(actual, expected, strict=True):
        for a, b in zip(left, right, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_a_batch_is_a_list_of_nd_arrays(digits):
    loader = data.DataLoader(digits.transform_first(to_tensor), batch_size=100)
    batches = list(loader)
    assert len(loader) == len(batches) == 3 and isinstance(batches[0], list)
    image, label = batches[0]
    assert isinstance(image, NDArray) and isinstance(label, NDArray)
    assert image.shape == (100, 1, 28, 28) and label.asnumpy().dtype == np.int32
    assert batches[2][0].shape[0] == 50


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize(
    "fn",
    [
        to_tensor,
        transforms.Compose([to_tensor, transforms.Normalize(0.13, 0.31), transforms.Cast()]),
        transforms.Compose([to_tensor, lambda image: image.astype("float64")]),
        lambda image: image.astype("float32") / 3,
    ],
    ids=["ToTensor", "Compose", "Compose with lambda", "lambda"],
)
def test_every_mode_and_the_fast_path_give_the_same_batches(digits, mode, fn):
    transformed = digits.transform_first(fn)
    graphc_random.seed(3)
    expected = epoch(ItemByItem(transformed), shuffle=True)
    graphc_random.seed(3)
    assert_same_batches(epoch(transformed, shuffle=True, **MODES[mode]), expected)


def test_the_number_of_workers_does_not_change_later_shuffles():
    orders = []
    for mode in ALL_MODES:
        graphc_random.seed(5)
        loader = data.DataLoader(data.SimpleDataset(range(20)), 20, shuffle=True, **MODES[mode])
        orders.append([batch.asnumpy().tolist() for _ in range(2) for batch in loader])
    assert all(order == orders[0] for order in orders) and orders[0][0] != orders[0][1]


def test_the_fast_path_is_taken_where_it_can_be(digits, monkeypatch):
    def no_items(self, index):
        raise AssertionError("an item was made")

    monkeypatch.setattr(MNISTSample, "numpy_item", no_items)
    monkeypatch.setattr(MNISTSample, "__getitem__", no_items)
    assert len(epoch(digits.transform_first(to_tensor), shuffle=True)) == 3
    assert len(epoch(data.ArrayDataset(np.ones(4), array(np.ones((4, 2)))), 2)) == 2


def test_a_batch_axis_is_not_taken_for_an_image_axis():
    flat = data.ArrayDataset(np.zeros((6, 28, 28), np.uint8), np.zeros(6))
    with pytest.raises(ValueError, match=r"not shape \(28, 28\)"):
        epoch(flat.transform_first(to_tensor), 3)


@pytest.mark.parametrize("mode", ALL_MODES)
def test_last_batch_and_samplers(mode):
    numbers = data.SimpleDataset(list(range(7)))
    shapes = {"keep": [3, 3, 1], "discard": [3, 3], "rollover": [3, 3]}
    for last_batch, expected in shapes.items():
        found = epoch(numbers, 3, last_batch=last_batch, **MODES[mode])
        assert [len(batch) for batch in found] == expected
    found = epoch(numbers, 4, sampler=[6, 5, 4, 3, 2, 1, 0], **MODES[mode])
    assert [batch.tolist() for batch in found] == [[6, 5, 4, 3], [2, 1, 0]]
    found = epoch(numbers, None, batch_sampler=[[1, 2], [0]], **MODES[mode])
    assert [batch.tolist() for batch in found] == [[1, 2], [0]]
    assert epoch(data.SimpleDataset([]), 3, **MODES[mode]) == []


@pytest.mark.parametrize("mode", ALL_MODES)
def test_a_users_batchify_function_sees_items_and_keeps_what_it_returns(digits, mode):
    def collect(items):
        assert all(isinstance(image, NDArray) for image, _ in items)
        images = array(np.stack([image.asnumpy() for image, _ in items]))
        return {"images": images, "labels": np.array([label for _, label in items]), "n": 5}

    batch = next(iter(data.DataLoader(digits, 5, batchify_fn=collect, **MODES[mode])))
    assert isinstance(batch["images"], NDArray) and isinstance(batch["labels"], np.ndarray)
    assert batch["n"] == 5 and batch["images"].shape == (5, 28, 28, 1)


@pytest.mark.parametrize("mode", ALL_MODES)
def test_ragged_items_are_padded(mode):
    ragged = data.SimpleDataset([(np.ones(n, np.float32), n) for n in (1, 3, 2)])
    pad = batchify.Group(batchify.Pad(), batchify.Stack())
    ((padded, lengths),) = epoch(ragged, 3, batchify_fn=pad, **MODES[mode])
    assert padded.shape == (3, 3) and padded.sum() == 6 and lengths.tolist() == [1, 3, 2]


@pytest.mark.parametrize("mode", PROCESS_MODES)
def test_random_transforms_depend_on_the_seed_and_not_on_the_number_of_workers(mode):
    noisy = data.SimpleDataset(list(range(12))).transform(lambda x: x + np.random.rand())

    def run(count):
        graphc_random.seed(11)
        return epoch(noisy, 2, num_workers=count, start_method=mode)

    one, three = run(1), run(3)
    np.testing.assert_array_equal(one, three)
    fractions = np.concatenate(one) % 1
    assert len(set(fractions.tolist())) == 12


def test_batches_larger_than_any_socket_buffer_arrive_whole():
    wide = np.arange(6 * 500_000, dtype=np.float64).reshape(6, 500_000)
    loader = data.DataLoader(data.SimpleDataset(wide), 2, num_workers=2, prefetch=8)
    np.testing.assert_array_equal(np.concatenate([b.asnumpy() for b in loader]), wide)


def test_a_task_larger_than_the_socket_buffer_does_not_deadlock():
    count = 400_000
    loader = data.DataLoader(data.SimpleDataset(np.arange(count)), count // 4, num_workers=1)
    assert sum(int(batch.asnumpy().sum()) for batch in loader) == count * (count - 1) // 2


@pytest.mark.parametrize("mode", PROCESS_MODES)
def test_workers_run_compiled_code_after_it_ran_here(digits, mode):
    eye = array(np.eye(28, dtype=np.float32))

    def project(image):
        return matmul(image.astype("float32").reshape((28, 28)), eye)

    few = digits.take(6).transform_first(project)
    expected = epoch(few, 3)  # compiles the product and starts the threads of the parent
    assert_same_batches(epoch(few, 3, **MODES[mode]), expected)


# --- faults -------------------------------------------------------------------------------


def divide_by_zero():
    return 1 // 0


@pytest.mark.parametrize("mode", PROCESS_MODES)
def test_an_exception_in_a_worker_names_item_dataset_and_line(mode):
    delivered = []
    with pytest.raises(DataLoaderError) as caught:
        for batch in data.DataLoader(Failing(divide_by_zero), 2, **MODES[mode]):
            delivered.append(batch.asnumpy().tolist())
    assert delivered == [[0, 1], [2, 3]]
    first, *rest = str(caught.value).splitlines()
    assert "ZeroDivisionError" in first and "item 5 of Failing" in first
    assert "in divide_by_zero" in "\n".join(rest) and "num_workers=0" in rest[-1]
    assert "test_dataloader.py" in "\n".join(rest)


@pytest.mark.parametrize("mode", ["here", "threads"])
def test_an_exception_in_this_process_stays_what_it_is(mode):
    with pytest.raises(ZeroDivisionError) as caught:
        epoch(Failing(divide_by_zero), 2, **MODES[mode])
    assert caught.value.__notes__ == ["while loading item 5 of Failing"]


@pytest.mark.parametrize("mode", PROCESS_MODES)
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: np.zeros(3), "differ in shape(.|\n)*while batching 2 items of Failing"),
        (lambda: threading.Lock(), "cannot be put into a batch"),
        (lambda: exit(3), "SystemExit: 3"),
    ],
    ids=["shape", "type", "exit"],
)
def test_other_faults_in_a_worker(mode, act, message):
    with pytest.raises(DataLoaderError, match=message):
        epoch(Failing(act), 2, **MODES[mode])


@pytest.mark.skipif(not FORKS, reason="the dataset is not pickled only where it is forked")
def test_a_batch_that_cannot_travel_is_an_error():
    with pytest.raises(DataLoaderError, match="pickle"):
        loader = data.DataLoader(
            Failing(int), 2, num_workers=1, batchify_fn=lambda x: (i for i in x)
        )
        next(iter(loader))


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("mode", PROCESS_MODES)
def test_a_killed_worker_is_an_error_and_not_a_hang(mode):
    start_s = time.monotonic()
    with pytest.raises(
        DataLoaderError, match=r"killed by SIGKILL.*batch 2 \(items 4, 5\) of Failing"
    ):
        epoch(Failing(lambda: os.kill(os.getpid(), signal.SIGKILL)), 2, **MODES[mode])
    assert time.monotonic() - start_s < 20


@pytest.mark.skipif(not FORKS, reason="forks a process that keeps the socket")
def test_a_death_is_seen_though_a_grandchild_keeps_the_socket_open():
    def leave_a_child_and_die():
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    start_s = time.monotonic()
    with pytest.raises(DataLoaderError, match="killed by SIGKILL"):
        epoch(Failing(leave_a_child_and_die), 2, num_workers=1, start_method="fork")
    assert time.monotonic() - start_s < 2.5


@pytest.mark.parametrize("mode", ["threads", *PROCESS_MODES])
def test_a_late_batch_is_a_time_out(mode):
    timeout_s = 3 if mode == "spawn" else 0.3
    start_s = time.monotonic()
    with pytest.raises(DataLoaderError, match=rf"within {timeout_s:g} s"):
        epoch(Failing(lambda: time.sleep(timeout_s + 1)), 2, timeout=timeout_s, **MODES[mode])
    assert time.monotonic() - start_s < 30


def test_a_dataset_that_spawning_cannot_pickle_is_named():
    with pytest.raises(TypeError, match="lock"):
        epoch(Failing(threading.Lock().__enter__), 2, num_workers=1, start_method="spawn")


# --- nothing is left behind ---------------------------------------------------------------


def running(loader):
    batches = iter(loader)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    return batches


@pytest.mark.parametrize("mode", PROCESS_MODES)
@pytest.mark.parametrize("end", ["exhausted", "closed", "collected", "loop left", "raised"])
def test_workers_end_with_their_iterator(mode, end):
    loader = data.DataLoader(data.SimpleDataset(list(range(100))), 2, **MODES[mode])
    batches = running(loader)
    if end == "exhausted":
        assert len(list(batches)) == 49
    elif end == "closed":
        batches.close()
    elif end == "collected":
        del batches
        gc.collect()
    elif end == "loop left":
        for _ in batches:
            break
        del batches
        gc.collect()
    else:
        with pytest.raises(RuntimeError, match="into"):
            batches.throw(RuntimeError("into"))
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_no_file_stays_open_and_busy_workers_end_at_once():
    before = len(os.listdir("/proc/self/fd"))
    busy = data.SimpleDataset(list(range(8))).transform(lambda x: time.sleep(30 * (x > 1)) or x)
    batches = running(data.DataLoader(busy, 2, num_workers=2))
    start_s = time.monotonic()
    batches.close()
    assert time.monotonic() - start_s < 2
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_passes_at_once_do_not_disturb_each_other():
    loader = data.DataLoader(data.SimpleDataset(list(range(40))), 4, num_workers=2)
    pairs = [(a.asnumpy(), b.asnumpy()) for a, b in zip(loader, loader, strict=True)]
    assert len(pairs) == 10 and all((a == b).all() for a, b in pairs)
    first, second = iter(loader), iter(loader)
    next(first), next(second)
    first.close()
    assert len(list(second)) == 9


@pytest.mark.skipif(not FORKS, reason="forks a process beside the loader's")
def test_the_workers_end_when_their_parent_is_killed(tmp_path):
    loader = data.DataLoader(data.SimpleDataset(list(range(100))), 2, num_workers=2)
    parent = os.fork()
    if parent == 0:
        batches = iter(loader)
        next(batches)
        pids = [child.pid for child in multiprocessing.active_children()]
        (tmp_path / "pids").write_text(" ".join(map(str, pids)))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    deadline_s = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in pids)


def alive(pid):
    """Whether the process runs; one that ended and was not reaped by its new parent does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs batch_size"),
        ({"batch_size": 0}, "batch_size must be an integer of 1 or more, not 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer of 1 or more, not 2.5"),
        ({"batch_size": 2, "shuffle": True, "sampler": [0]}, "contradicts a sampler"),
        ({"batch_size": 2, "batch_sampler": [[0]]}, "already decides"),
        ({"last_batch": "keep", "batch_sampler": [[0]]}, "already decides"),
        ({"batch_size": 2, "last_batch": "dicard"}, "Did you mean 'discard'"),
        ({"batch_size": 2, "num_workers": -1}, "num_workers must be an integer of 0 or more"),
        ({"batch_size": 2, "num_workers": "2"}, "num_workers must be an integer .* not '2'"),
        ({"batch_size": 2, "timeout": None}, "timeout of DataLoader must be a number, got None"),
        ({"batch_size": 2, "timeout": 0}, "timeout must be above 0 seconds, not 0"),
        ({"batch_size": 2, "start_method": "frok"}, "start_method must be one of"),
    ],
)
def test_arguments_that_contradict_each_other(arguments, message):
    with pytest.raises(ArgumentError, match=f"{message}(.|\n)*test_dataloader.py"):
        data.DataLoader(data.SimpleDataset([1, 2, 3]), **arguments)


def test_a_dataset_without_length_needs_a_sampler():
    class Squares:
        def __getitem__(self, index):
            return index * index

    with pytest.raises(ArgumentError, match="a Squares has not"):
        data.DataLoader(Squares(), 2)
    with pytest.raises(ArgumentError, match="a zip has not"):
        data.DataLoader(zip([1], [2], strict=True), 2, sampler=[0])
    batches = data.DataLoader(Squares(), 2, sampler=[3, 1])
    assert [batch.asnumpy().tolist() for batch in batches] == [[9, 1]]

"""Datasets, samplers, batchify functions, transforms and the sources of MNIST."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from graphc.errors import (
    ArgumentError,
    DatasetNotFoundError,
    DTypeError,
    FileFormatError,
    ShapeError,
)
from graphc.frontend.creation import array
from graphc.frontend.gluon import data
from graphc.frontend.gluon.data import batchify
from graphc.frontend.gluon.data.vision import MNIST, FashionMNIST, MNISTSample, transforms
from graphc.frontend.gluon.data.vision.idx import read_idx
from graphc.frontend.ndarray import NDArray
from graphc.runtime import random as graphc_random

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 5, 4, 3), dtype=np.uint8)
LABELS = np.arange(10, dtype=np.int32)


@pytest.fixture(scope="module")
def digits():
    return MNISTSample("test")


def values(batch):
    """The NumPy arrays of a batch, which must be nd arrays."""
    parts = batch if isinstance(batch, list) else [batch]
    assert all(isinstance(part, NDArray) for part in parts)
    return [part.asnumpy() for part in parts]


def equal(left, right):
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# --- datasets -----------------------------------------------------------------------------


def test_array_dataset_gives_rows_as_mxnet_does():
    mixed = data.ArrayDataset(array(PIXELS, dtype="uint8"), LABELS)
    image, label = mixed[3]
    assert isinstance(image, NDArray) and label.dtype == np.int32 and len(mixed) == 10
    np.testing.assert_array_equal(image.asnumpy(), PIXELS[3])
    assert isinstance(data.ArrayDataset(PIXELS)[0], np.ndarray)
    vector = data.ArrayDataset(array(LABELS, dtype="float32"))
    assert vector[2] == np.float32(2) and not isinstance(vector[2], NDArray)
    assert data.ArrayDataset(["a", "b"], [1, 2])[1] == ("b", 2)
    nested = data.ArrayDataset(mixed, LABELS)
    assert isinstance(nested[1][0][0], NDArray) and nested[1][1] == 1


def test_array_dataset_checks_its_lengths():
    with pytest.raises(ShapeError, match=r"differ in length: \[10, 9\].*test_data"):
        data.ArrayDataset(PIXELS, LABELS[:9])
    with pytest.raises(ArgumentError, match="at least one"):
        data.ArrayDataset()


def test_transform_takes_components_as_arguments_lazily_or_now():
    calls = []

    def double(x, y):
        calls.append(y)
        return 2 * x, y

    base = data.ArrayDataset(LABELS, LABELS)
    lazy = base.transform(double)
    assert calls == [] and lazy[3] == (6, 3) and lazy[3] == (6, 3) and calls == [3, 3]
    calls.clear()
    eager = base.transform(double, lazy=False)
    assert calls == list(range(10)) and eager[3] == (6, 3) and len(calls) == 10
    assert data.SimpleDataset([1, 2]).transform(lambda x: x + 1)[1] == 3


def test_transform_first_leaves_the_label(digits):
    halved = digits.transform_first(lambda image: image.astype("float32") / 2)
    image, label = halved[7]
    assert isinstance(image, NDArray) and label == digits[7][1]
    np.testing.assert_array_equal(image.asnumpy(), digits[7][0].asnumpy() / np.float32(2))


@pytest.mark.parametrize("fn", [transforms.ToTensor(), lambda x: x.astype("float32")])
def test_an_eager_transform_gives_the_items_of_the_lazy_one(digits, fn):
    few = digits.take(20)
    lazy, eager = few.transform_first(fn), few.transform_first(fn, lazy=False)
    assert len(eager) == 20
    for index in (0, 19, -1):
        assert type(lazy[index][0]) is type(eager[index][0])
        equal(
            [lazy[index][0].asnumpy(), lazy[index][1]],
            [eager[index][0].asnumpy(), eager[index][1]],
        )
    assert len(digits.take(0).transform_first(fn, lazy=False)) == 0


def test_filter_take_shard_and_sample_select_items():
    base = data.SimpleDataset(list(range(10)))
    items = lambda dataset: [dataset[i] for i in range(len(dataset))]  # noqa: E731
    assert items(base.filter(lambda x: x % 3 == 0)) == [0, 3, 6, 9]
    assert items(base.take(3)) == [0, 1, 2] and len(base.take(99)) == len(base.take(None)) == 10
    shards = [items(base.shard(4, index)) for index in range(4)]
    assert shards == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]
    assert items(base.sample(data.SequentialSampler(3, start=4))) == [4, 5, 6]
    with pytest.raises(IndexError):
        base.take(3)[3]
    with pytest.raises(ArgumentError, match="shard 4 of 4"):
        base.shard(4, 4)
    with pytest.raises(ArgumentError, match="not list"):
        base.sample([1, 2])


def test_a_dataset_without_items_says_what_it_lacks():
    class Empty(data.Dataset):
        pass

    with pytest.raises(NotImplementedError, match="Empty does not define __len__"):
        len(Empty())


# --- samplers -----------------------------------------------------------------------------


def test_batches_keep_discard_or_roll_over_the_rest():
    passes = {}
    for last_batch in ("keep", "discard", "rollover"):
        sampler = data.BatchSampler(data.SequentialSampler(7), 3, last_batch)
        lengths = [len(sampler)]
        passes[last_batch] = [list(sampler)]
        lengths.append(len(sampler))
        passes[last_batch].append(list(sampler))
        assert lengths == [len(batches) for batches in passes[last_batch]]
    assert passes["keep"] == [[[0, 1, 2], [3, 4, 5], [6]]] * 2
    assert passes["discard"] == [[[0, 1, 2], [3, 4, 5]]] * 2
    assert passes["rollover"][1] == [[6, 0, 1], [2, 3, 4]]


def test_random_order_is_a_new_permutation_and_obeys_the_seed():
    sampler = data.RandomSampler(100)
    graphc_random.seed(7)
    first, second = list(sampler), list(sampler)
    graphc_random.seed(7)
    assert first == list(sampler) != second and sorted(second) == list(range(100))


def test_interval_and_filter_samplers():
    assert list(data.IntervalSampler(7, 3)) == [0, 3, 6, 1, 4, 2, 5]
    assert list(data.IntervalSampler(7, 3, rollover=False)) == [0, 3, 6]
    assert len(data.IntervalSampler(7, 3)) == 7
    assert len(data.IntervalSampler(7, 3, rollover=False)) == 3
    odd = data.FilterSampler(lambda x: x % 2, data.SimpleDataset(range(6)))
    assert list(odd) == [1, 3, 5] and len(odd) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.BatchSampler(data.SequentialSampler(7), 0), "integer of 1 or more, not 0"),
        (lambda: data.BatchSampler([], 2, "discrad"), "Did you mean 'discard'"),
        (lambda: data.SequentialSampler(-1), "0 or more"),
        (lambda: data.IntervalSampler(3, 4), "at most the length, 3, not 4"),
        (lambda: data.RandomSampler("3"), "length must be an integer of 0 or more, not '3'"),
    ],
)
def test_wrong_arguments_of_samplers(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


# --- batchify -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32", "float64", "bool"])
def test_batches_keep_the_dtype_of_their_source(dtype):
    items = [(row.astype(dtype), row.astype(dtype)[0]) for row in PIXELS[:, 0, 0]]
    batch = batchify.default_batchify_fn(items)
    assert isinstance(batch, list)
    equal(values(batch), [PIXELS[:, 0, 0].astype(dtype), PIXELS[:, 0, 0, 0].astype(dtype)])


def test_nd_items_numbers_and_nested_tuples():
    items = [(array([1.0, 2.0]), (index, 0.5)) for index in range(3)]
    vectors, (whole, half) = batchify.default_batchify_fn(items)
    equal(
        values([vectors, whole, half]),
        [np.float32([[1, 2]] * 3), np.array([0, 1, 2]), np.array([0.5] * 3)],
    )


def test_items_that_do_not_batch_say_why():
    with pytest.raises(ShapeError, match=r"\(2,\) at position 0, \(3,\) at position 1(.|\n)*Pad"):
        batchify.default_batchify_fn([np.zeros(2), np.zeros(3)])
    with pytest.raises(ShapeError, match="position 1"):
        batchify.default_batchify_fn([1.0, np.zeros(3)])
    with pytest.raises(ShapeError, match="numbers of components"):
        batchify.default_batchify_fn([(1, 2), (1, 2, 3)])
    for items in (["a", "b"], [{"x": 1}], [None]):
        with pytest.raises(DTypeError, match="cannot be put into a batch(.|\n)*batchify_fn"):
            batchify.default_batchify_fn(items)


def test_pad_group_append_and_lists():
    ragged = [np.float32([1, 2, 3]), np.float32([4])]
    equal(values(batchify.Pad(val=-1)(ragged)), [np.float32([[1, 2, 3], [4, -1, -1]])])
    assert values(batchify.Pad(round_to=4, dtype="float64")(ragged))[0].shape == (2, 4)
    equal(values(batchify.Pad()([np.int32(1), np.int32(2)])), [np.int32([1, 2])])
    pairs = list(zip(ragged, [7, 8], strict=True))
    padded, labels = batchify.Tuple(batchify.Pad(), batchify.Stack())(pairs)
    assert values(padded)[0].shape == (2, 3) and values(labels)[0].tolist() == [7, 8]
    assert [v.shape for v in values(batchify.Append()(ragged))] == [(1, 3), (1, 1)]
    assert batchify.AsList()(["a", "b"]) == ["a", "b"]
    with pytest.raises(ArgumentError, match="Stack"):
        batchify.Group(len)
    with pytest.raises(ArgumentError, match="2 functions for items of 3"):
        batchify.Group([batchify.Stack(), batchify.Stack()])([(1, 2, 3)])
    with pytest.raises(ShapeError, match="equally many axes"):
        batchify.Pad()([np.zeros(2), np.zeros((2, 2))])


# --- transforms ---------------------------------------------------------------------------


def test_to_tensor_gives_what_it_is_given():
    expected = PIXELS.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    to_tensor = transforms.ToTensor()
    equal([to_tensor(PIXELS[0]), to_tensor(PIXELS)], [expected[0], expected])
    assert to_tensor(PIXELS).flags.c_contiguous and expected.max() <= 1
    equal(values(to_tensor(array(PIXELS[1], dtype="uint8"))), [expected[1]])
    with pytest.raises(ShapeError, match=r"image \(H, W, C\).*\(28, 28\)"):
        to_tensor(np.zeros((28, 28), np.uint8))


def test_normalize_and_cast():
    image = transforms.ToTensor()(PIXELS[0])
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (image - np.float32(mean).reshape(3, 1, 1)) / np.float32(std).reshape(3, 1, 1)
    equal([transforms.Normalize(mean, std)(image)], [expected])
    assert transforms.Normalize(0.5, 2)(image.astype(np.float64)).dtype == np.float64
    assert transforms.Cast("float64")(PIXELS[0]).dtype == np.float64
    with pytest.raises(DTypeError, match=r"floats, not uint8(.|\n)*ToTensor"):
        transforms.Normalize(mean, std)(PIXELS[0])
    with pytest.raises(ShapeError, match="3 values of mean for an image of 1 channels"):
        transforms.Normalize(mean, 1)(image[:1])
    with pytest.raises(DTypeError, match="Did you mean 'float32'"):
        transforms.Cast("flaot32")
    with pytest.raises(ArgumentError, match="std must not be 0"):
        transforms.Normalize(0, 0)
    with pytest.raises(ArgumentError, match="not 'ToTensor'"):
        transforms.Compose(["ToTensor"])


# --- MNIST --------------------------------------------------------------------------------


def write_idx(path, values):
    codes = {"uint8": 8, "int32": 12, "float32": 13}
    head = struct.pack(
        f">BBBB{values.ndim}I", 0, 0, codes[str(values.dtype)], values.ndim, *values.shape
    )
    blob = head + values.astype(values.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(blob) if path.suffix == ".gz" else blob)


def write_mnist(folder, prefix="train", count=5, suffix="", level=0):
    folder.mkdir(parents=True, exist_ok=True)
    images = np.full((count, 28, 28), level, np.uint8)
    write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(count, dtype=np.uint8))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("GRAPHC_DATA", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    return tmp_path / "home"


def test_the_shipped_digits_are_split_without_overlap():
    train, test = MNISTSample("train"), MNISTSample("test")
    assert (len(train), len(test)) == (9000, 1000)
    image, label = test[-1]
    assert isinstance(image, NDArray) and image.shape == (28, 28, 1)
    assert image.asnumpy().dtype == np.uint8 and label.dtype == np.int32 and label == 6
    everything = MNIST(train=False)
    equal([everything[9000][0].asnumpy()], [test[0][0].asnumpy()])
    counts = np.bincount([train[i][1] for i in range(0, 9000, 9)], minlength=10)
    assert counts.min() > 60
    with pytest.raises(ArgumentError, match="Did you mean 'train'"):
        MNISTSample("trian")


def test_the_full_training_set_is_never_replaced_by_the_shipped_digits(home):
    with pytest.raises(DatasetNotFoundError) as caught:
        MNIST(train=True)
    text = str(caught.value)
    for part in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", ".gz", "MNISTSample"):
        assert part in text
    for place in (home / ".graphc/data/mnist", home / ".mxnet/datasets/mnist"):
        assert str(place) in text
    assert "test_data.py" in text and len(MNIST(train=False)) == 10_000


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_search_path_is_followed_in_order(home, tmp_path, monkeypatch, suffix):
    base = tmp_path / "data"
    monkeypatch.setenv("GRAPHC_DATA", str(base))
    places = [
        home / ".mxnet/datasets/mnist",
        home / ".graphc/data/mnist",
        base,
        base / "mnist",
    ]
    for level, place in enumerate(places):
        write_mnist(place, suffix=suffix, level=level)
        write_mnist(place, "t10k", suffix=suffix, level=level)
        for train in (True, False):
            found = MNIST(train=train)
            assert len(found) == 5 and found[0][0].asnumpy().max() == level
    write_mnist(tmp_path / "root", level=9)
    assert MNIST(tmp_path / "root")[0][0].asnumpy().max() == 9
    with pytest.raises(DatasetNotFoundError, match="elsewhere") as caught:
        MNIST(tmp_path / "elsewhere", train=False)
    assert str(base) not in str(caught.value)


def test_fashion_mnist_does_not_take_digits_for_clothes(home, tmp_path, monkeypatch):
    base = tmp_path / "data"
    monkeypatch.setenv("GRAPHC_DATA", str(base))
    write_mnist(base)
    write_mnist(base, "t10k")
    for train in (True, False):
        with pytest.raises(DatasetNotFoundError, match="FashionMNIST"):
            FashionMNIST(train=train)
    write_mnist(home / ".mxnet/datasets/fashion-mnist", level=3)
    assert FashionMNIST()[0][0].asnumpy().max() == 3


def test_half_a_set_counts_as_missing(home, tmp_path):
    write_mnist(tmp_path / "root")
    (tmp_path / "root/train-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetNotFoundError):
        MNIST(tmp_path / "root")


def test_mnist_items_slices_and_transform(home, tmp_path):
    write_mnist(tmp_path, level=4)
    images, labels = MNIST(tmp_path)[1:4]
    assert images.shape == (3, 28, 28, 1) and labels.tolist() == [1, 2, 3]
    scaled = MNIST(
        tmp_path, transform=lambda image, label: (image.astype("float32") / 4, label + 1)
    )
    image, label = scaled[2]
    assert image.asnumpy().min() == 1 and label == 3
    batch = next(iter(data.DataLoader(scaled, 5)))
    assert values(batch)[0].dtype == np.float32 and values(batch)[1].tolist() == [1, 2, 3, 4, 5]


def test_idx_files_of_other_dtypes(tmp_path):
    for dtype in ("int32", "float32"):
        expected = np.arange(6).reshape(2, 3).astype(dtype)
        write_idx(tmp_path / "x.gz", expected)
        equal([read_idx(tmp_path / "x.gz")], [expected])


def test_damaged_idx_files_are_refused(tmp_path):
    path = tmp_path / "x-idx3-ubyte"
    write_idx(path, np.zeros((2, 3, 4), np.uint8))
    whole = path.read_bytes()
    packed = gzip.compress(whole)
    huge = struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**31, 2**31)
    cases = {
        "not an IDX file": [b"", b"\0\0", b"<html>", b"\0\0\x07\x01" + bytes(8)],
        "inside its header": [whole[:10]],
        "needs 24 bytes of data, the file has 23": [whole[:-1], gzip.compress(whole[:-1])],
        "the file has more": [whole + b"x", gzip.compress(whole + b"x")],
        "needs 9903520314283042199192993792 bytes": [huge, gzip.compress(huge)],
        "damaged gzip": [packed[:-12], packed[:10] + b"\xff" * 20, packed[:-6] + bytes(6)],
    }
    for message, blobs in cases.items():
        for blob in blobs:
            path.write_bytes(blob)
            with pytest.raises(FileFormatError, match=f"x-idx3-ubyte: .*{message}"):
                read_idx(path)


def test_images_and_labels_must_belong_together(home, tmp_path):
    write_mnist(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(4, np.uint8))
    with pytest.raises(FileFormatError, match="5 images, but 4 labels"):
        MNIST(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros((5, 1), np.uint8))
    with pytest.raises(FileFormatError, match=r"uint8 of shape \(5, 1\) in place of"):
        MNIST(tmp_path)

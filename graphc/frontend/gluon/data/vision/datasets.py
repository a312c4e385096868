"""MNIST, Fashion-MNIST and the digits that ship with graphc. Nothing is ever downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphc.errors import (
    ArgumentError,
    DatasetNotFoundError,
    FileFormatError,
    nearest,
    user_location,
)
from graphc.frontend.gluon.data.batchify import to_nd
from graphc.frontend.gluon.data.dataset import Dataset
from graphc.frontend.gluon.data.vision.idx import read_idx

_PREFIXES = {True: "train", False: "t10k"}
_SAMPLE_TRAIN_COUNT = 9000
Pair = tuple[Path, Path]


class ImageLabelDataset(Dataset):
    """Images with integer labels; an item is (nd array uint8 (H, W, C), NumPy int32).

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W, C)
        The images.
    labels : ndarray of int32, shape (n,)
        Their classes.
    transform : callable, optional
        ``transform(image, label)``; what it returns is the item.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        transform: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self._images = images
        self._labels = labels
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: Any) -> Any:
        image, label = to_nd(self._images[index]), self._labels[index]
        return (image, label) if self._transform is None else self._transform(image, label)

    def numpy_item(self, index: int) -> Any:
        """Return item ``index`` with the image as NumPy array, if there is no transform."""
        if self._transform is not None:
            return self[index]
        return self._images[index], self._labels[index]

    def numpy_batch(self, indices: np.ndarray) -> Any:
        """Return images and labels of several items, if there is no transform."""
        if self._transform is not None:
            return None
        return self._images[indices], self._labels[indices]


class MNIST(ImageLabelDataset):
    """Handwritten digits: 60,000 for training, 10,000 for testing, uint8 (28, 28, 1).

    The IDX files (``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-...``, each
    plain or with ``.gz``) are looked for in ``root`` alone where it is given, else in
    ``$GRAPHC_DATA/mnist``, ``$GRAPHC_DATA``, ``~/.graphc/data/mnist``, ``~/.mxnet/datasets/mnist``
    and, for the test set, in graphc itself, which ships those 10,000 digits.

    LeCun, Bottou, Bengio and Haffner (1998), doi:10.1109/5.726791.

    Parameters
    ----------
    root : path-like, optional
        Folder of the files; ``~`` is expanded.
    train : bool
        The training or the test set.
    transform : callable, optional
        ``transform(image, label)``; what it returns is the item.

    Raises
    ------
    DatasetNotFoundError
        The files are in none of the places; lists names and places.
    FileFormatError
        A file is damaged.
    """

    folder: ClassVar[str] = "mnist"
    # The names of the files are those of several sets; only MNIST may lie in $GRAPHC_DATA itself.
    own_root: ClassVar[bool] = True
    ships_test_set: ClassVar[bool] = True

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        transform: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        super().__init__(*_load(self._find(root, train)), transform)

    @classmethod
    def _find(cls, root: str | os.PathLike[str] | None, train: bool) -> Pair:
        names = _file_names(_PREFIXES[bool(train)])
        places = cls._places(root, train)
        for place in places:
            found = [_existing(place, name) for name in names]
            if found[0] is not None and found[1] is not None:
                return found[0], found[1]
        raise DatasetNotFoundError(
            f"{cls.__name__}(train={bool(train)}): the files {names[0]} and {names[1]} "
            "(each plain or with .gz) were not found; looked in\n"
            + "\n".join(f"    {place}" for place in places),
            remedy=cls._remedy(train),
            where=user_location(),
        )

    @classmethod
    def _places(cls, root: str | os.PathLike[str] | None, train: bool) -> list[Path]:
        if root is not None:
            return [Path(root).expanduser()]
        places = []
        if os.environ.get("GRAPHC_DATA"):
            base = Path(os.environ["GRAPHC_DATA"]).expanduser()
            places = [base / cls.folder, base] if cls.own_root else [base / cls.folder]
        home = Path.home()
        places += [home / ".graphc/data" / cls.folder, home / ".mxnet/datasets" / cls.folder]
        return [*places, _shipped_folder()] if cls.ships_test_set and not train else places

    @classmethod
    def _remedy(cls, train: bool) -> str:
        remedy = "Put the files into one of these folders, or pass root=; graphc downloads nothing."
        if cls.ships_test_set and train:
            remedy += " gluon.data.vision.MNISTSample() has 9,000 + 1,000 digits that ship with it."
        return remedy


class FashionMNIST(MNIST):
    """Pictures of clothes in ten classes, in files like MNIST's: 60,000 and 10,000 of them.

    Looked for in ``root`` alone where it is given, else in ``$GRAPHC_DATA/fashion-mnist``,
    ``~/.graphc/data/fashion-mnist`` and ``~/.mxnet/datasets/fashion-mnist``.

    Xiao, Rasul and Vollgraf (2017), arXiv:1708.07747.

    Parameters
    ----------
    root, train, transform
        As in :class:`MNIST`.
    """

    folder = "fashion-mnist"
    own_root = False
    ships_test_set = False


class MNISTSample(ImageLabelDataset):
    """The 10,000 digits that ship with graphc (MNIST's test set), split 9,000 to 1,000.

    Parameters
    ----------
    split : {"train", "test"}
        The first 9,000 or the last 1,000.
    transform : callable, optional
        ``transform(image, label)``; what it returns is the item.
    """

    def __init__(
        self, split: str = "train", transform: Callable[[Any, Any], Any] | None = None
    ) -> None:
        if split not in ("train", "test"):
            raise ArgumentError(
                f"split must be train or test, not {split!r}."
                + nearest(str(split), ("train", "test")),
                remedy="train is the first 9,000 digits, test the last 1,000.",
                where=user_location(),
            )
        rows = np.s_[:_SAMPLE_TRAIN_COUNT] if split == "train" else np.s_[_SAMPLE_TRAIN_COUNT:]
        names = _file_names(_PREFIXES[False])
        folder = _shipped_folder()
        images, labels = _load((folder / f"{names[0]}.gz", folder / f"{names[1]}.gz"))
        super().__init__(images[rows], labels[rows], transform)


def _file_names(prefix: str) -> tuple[str, str]:
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _shipped_folder() -> Path:
    return Path(str(files("graphc"))) / "datasets" / "mnist"


def _existing(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _load(paths: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images (n, H, W, 1) and int32 labels (n,)."""
    images, labels = (read_idx(path) for path in paths)
    for path, array, ndim in ((paths[0], images, 3), (paths[1], labels, 1)):
        if array.ndim != ndim or array.dtype != np.uint8:
            raise FileFormatError(
                f"{path}: {array.dtype} of shape {array.shape} in place of uint8 with {ndim} axes"
            )
    if len(images) != len(labels):
        raise FileFormatError(f"{paths[0]}: {len(images)} images, but {len(labels)} labels")
    return images[..., None], labels.astype(np.int32)

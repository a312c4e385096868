"""Transforms of images: they give what they are given, nd arrays or NumPy arrays.

Each takes one image or a batch; the loader uses that to transform a whole batch at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError, nearest, user_location
from graphc.frontend.gluon.data.batchify import is_nd, to_nd, to_numpy

_DTYPE_NAMES = [
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
]


class Transform:
    """Base of the transforms; a subclass defines ``apply``."""

    def __call__(self, x: Any) -> Any:
        """Return the transformed image or batch, of the kind that was given."""
        result = self.apply(to_numpy(x))
        return to_nd(result) if is_nd(x) else result

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Return the transformed image, or batch of images."""
        raise NotImplementedError(f"{type(self).__name__} does not define apply")

    def apply_batch(self, x: np.ndarray) -> np.ndarray:
        """Return what stacking ``apply`` over the first axis would give."""
        return self.apply(x)


class Compose:
    """Several transforms, one after the other.

    Parameters
    ----------
    transforms : sequence of callable
        graphc's, or any functions of an image.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        for transform in transforms:
            if not callable(transform):
                raise ArgumentError(
                    f"Compose takes functions of an image, not {transform!r}",
                    where=user_location(),
                )
        self._transforms = tuple(transforms)

    def __call__(self, x: Any) -> Any:
        """Return the transformed image or batch."""
        for transform in self._transforms:
            x = transform(x)
        return x

    @property
    def apply_batch(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """The transform of a whole batch; None unless every part has one."""
        parts = [getattr(transform, "apply_batch", None) for transform in self._transforms]
        return None if None in parts else _Chain([part for part in parts if part is not None])


class _Chain:
    """Functions of a batch, one after the other; a class, so that it can be pickled."""

    def __init__(self, parts: Sequence[Callable[[np.ndarray], np.ndarray]]) -> None:
        self._parts = parts

    def __call__(self, x: np.ndarray) -> np.ndarray:
        for part in self._parts:
            x = part(x)
        return x


class ToTensor(Transform):
    """From (H, W, C) in 0..255 to float32 (C, H, W) in 0..1; batches from NHWC to NCHW.

    Raises
    ------
    ShapeError
        The image has no three axes.
    """

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Return float32 of shape (C, H, W) or (N, C, H, W)."""
        return _to_tensor(x, x.shape)

    def apply_batch(self, x: np.ndarray) -> np.ndarray:
        """Return what stacking ``apply`` over the first axis would give."""
        return _to_tensor(x, x.shape[1:])


class Normalize(Transform):
    """``(x - mean) / std`` for each channel of a float (C, H, W) image or batch of them.

    Parameters
    ----------
    mean, std : float or sequence of float
        One number, or one per channel.

    Raises
    ------
    DTypeError
        The image holds integers.
    ShapeError
        The channels do not fit.
    """

    def __init__(self, mean: Any = 0.0, std: Any = 1.0) -> None:
        self._mean = np.atleast_1d(np.asarray(mean, np.float64))
        self._std = np.atleast_1d(np.asarray(std, np.float64))
        if self._mean.ndim > 1 or self._std.ndim > 1:
            raise ArgumentError("mean and std are numbers or one number per channel")
        if not self._std.all():
            raise ArgumentError(f"std must not be 0: {self._std.tolist()}", where=user_location())

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Return the normalized image or batch, of the same shape and dtype."""
        return self._normalize(x, x.shape)

    def apply_batch(self, x: np.ndarray) -> np.ndarray:
        """Return what stacking ``apply`` over the first axis would give."""
        return self._normalize(x, x.shape[1:])

    def _normalize(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if x.dtype.kind != "f":
            raise DTypeError(
                f"Normalize takes floats, not {x.dtype}",
                remedy="Put ToTensor() before it.",
                where=user_location(),
            )
        if len(shape) not in (3, 4):
            raise _not_an_image("Normalize", shape, "(C, H, W)")
        for name, values in (("mean", self._mean), ("std", self._std)):
            if values.size not in (1, shape[-3]):
                raise ShapeError(
                    f"Normalize: {values.size} values of {name} for an image of {shape[-3]} "
                    f"channels, shape {shape}",
                    where=user_location(),
                )
        mean, std = (v.astype(x.dtype).reshape(-1, 1, 1) for v in (self._mean, self._std))
        return (x - mean) / std


class Cast(Transform):
    """Convert the elements to ``dtype``.

    Parameters
    ----------
    dtype : dtype
        Its name or NumPy type.

    Raises
    ------
    DTypeError
        There is no such dtype; gives the nearest one.
    """

    def __init__(self, dtype: Any = "float32") -> None:
        try:
            self._dtype = np.dtype(dtype)
        except TypeError:
            raise DTypeError(
                f"no dtype is called {dtype!r}.{nearest(str(dtype), _DTYPE_NAMES)}",
                where=user_location(),
            ) from None

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Return a converted copy."""
        return x.astype(self._dtype)


def _to_tensor(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) not in (3, 4):
        raise _not_an_image("ToTensor", shape, "(H, W, C)")
    channels_first = np.moveaxis(x, -1, -3)
    out = np.empty(channels_first.shape, np.float32)
    return np.divide(channels_first, np.float32(255), out=out, dtype=np.float32, casting="unsafe")


def _not_an_image(name: str, shape: tuple[int, ...], layout: str) -> ShapeError:
    return ShapeError(
        f"{name} takes an image {layout} or a batch of them, not shape {shape}",
        where=user_location(),
    )

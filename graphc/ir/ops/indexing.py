"""Reading at indices that are data: take, pick, one_hot, and checks of their range.

Indices may be of any integer type, or floats, which are truncated. ``mode`` says what becomes of
an index that is out of range: ``"clip"`` takes the nearest end, ``"wrap"`` counts around,
``"raise"`` checks first (`check_index`) and counts negative ones from the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import (
    ArgumentError,
    DTypeError,
    IndexRangeError,
    ShapeError,
    VerifyError,
    nearest,
)
from graphc.ir import expr as E
from graphc.ir.dim import Dim, dim_max, product, symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.loop import Fail, For, If, Let, Stmt, Store
from graphc.ir.op import Kind, OpDef, Spec, register, sample
from graphc.ir.operand import REGISTRY, apply
from graphc.ir.ops.composite import attempt, known_shape, shape_of
from graphc.ir.ops.movement import Movement, expand_dims, squeeze
from graphc.ir.scalar_math import convert
from graphc.ir.sizes import known_size
from graphc.ir.types import (
    DType,
    TensorType,
    as_dtype,
    bool_,
    float32,
    int32,
    int64,
    normalize_axis,
    same_shape,
    shape_text,
    sizes_of,
)

MODES = ("clip", "wrap", "raise")
OUT_OF_RANGE = 1
"""Code of the `Fail` of an index out of range; its details are (value, position, size)."""


def check_mode(mode: str) -> str:
    """Return ``mode``, or raise ArgumentError naming the nearest one."""
    if mode not in MODES:
        raise ArgumentError(
            f"there is no index mode {mode!r}.{nearest(mode, MODES)}",
            remedy=f"Modes are {', '.join(MODES)}.",
        )
    return mode


def check_indices(indices: TensorType) -> None:
    """Raise DTypeError for bools, which would be a mask, not indices."""
    if indices.dtype is bool_:
        raise DTypeError(
            "indices are integers (or floats, truncated), got a bool array",
            remedy="Select by a mask with where().",
        )


def whole_index(k: Any, index: Expr, size: Dim, mode: str) -> Expr:
    """Return a data index as an i64 scalar in ``0 .. size - 1``."""
    if mode == "raise":
        raise VerifyError("mode 'raise' is lowered as check_index and mode 'wrap'")
    position = E.cast(index, int64)
    if mode == "wrap":
        # There is no remainder by an axis of size 0.
        divisor = dim_max(size, 1)
        return position % E.index(divisor)
    return E.apply("max", E.apply("min", position, E.index(size) - 1), 0)


def whole_indices(indices: np.ndarray, size: int, mode: str) -> np.ndarray:
    """Return indices as int64 in ``0 .. size - 1``: the reference of `whole_index`."""
    positions = as_integers(indices)
    if mode == "wrap":
        return np.asarray(positions % max(size, 1))
    return np.asarray(np.clip(positions, 0, max(size - 1, 0)))


def as_integers(indices: np.ndarray) -> np.ndarray:
    """Return indices as int64; floats are truncated and saturate, as in kernels."""
    with np.errstate(all="ignore"):
        return convert(np.asarray(indices), int64)


# -- range checks ------------------------------------------------------------------------------


NAN_INDEX = 1 - 2**63
"""What a check sees in place of NaN; no float converts to it."""


def range_error(
    what: str, value: int, position: int, size: int, negative: bool = False
) -> IndexRangeError:
    """Return the error of one index out of range.

    Parameters
    ----------
    what : str
        What the index is, ``"label"``.
    value, position, size : int
        The index, its row-major place among the indices, and the size it must fit.
    negative : bool
        Whether negative indices count from the end.
    """
    lowest = -size if negative else 0
    allowed = f"it must be in {lowest} .. {size - 1}" if size else "there is nothing to choose from"
    return IndexRangeError(
        f"{what} {'nan' if value == NAN_INDEX else value} at position {position} is out of range: "
        f"{allowed}",
        remedy=f"Check the {what} against the size {size} of the axis it chooses from.",
    )


class CheckIndex(OpDef):
    """The indices themselves, if all are in range; else the call fails and changes nothing."""

    name, kind, gradient = "check_index", Kind.OPAQUE, False
    dtypes = (int32, int64, float32, as_dtype("uint8"))
    samples = (
        sample(Spec((3, 2), 0, 4), size=4, what="index", negative=False),
        sample(Spec((5,), -3, 3), size=3, what="label", negative=True),
        sample(Spec((0,), 0, 1), size=0, what="index", negative=False),
    )

    def __call__(
        self, indices: Any, size_of: Dim, what: str = "index", negative: bool = False
    ) -> Any:
        """Return ``indices``; raise where one of them is not in ``0 .. size_of - 1``.

        Parameters
        ----------
        indices : operand
            Integers or floats of any shape.
        size_of : Dim
            Size of the axis they choose from.
        what : str
            What they are, for the message: ``"label"``, ``"row of the embedding"``.
        negative : bool
            Allow ``-size_of .. -1`` as well.

        Raises
        ------
        IndexRangeError
            Names the offending index, its position and the allowed range.
        """
        attrs = {"size": size_of, "what": what, "negative": negative}
        return apply(self, (indices,), attrs)

    def infer(self, indices: TensorType, *, size: Dim, what: str, negative: bool) -> TensorType:
        """Return the indices' type."""
        check_indices(indices)
        return indices

    def nest(self, k: Any, outputs: Any, *operands: Buffer, **attrs: Any) -> tuple[Stmt, ...]:
        """Check and copy one index after the other, so that the first wrong one is reported."""
        (out,), (indices,) = outputs, operands
        place, name = k.axis_names(), k.axis_names()
        position = E.index(symbol(place))
        value = E.load(indices, position)
        size = k.size(attrs["size"])
        index = E.use(name, value)
        whole = E.cast(index, int64)
        if indices.dtype.floating:
            whole = E.select(index.ne(index), E.const(NAN_INDEX, int64), whole)
        lowest = E.index(0) - size if attrs["negative"] else E.index(0)
        wrong = (whole < lowest) | (whole >= size)
        body = (
            Let(name, value),
            If(wrong, (Fail(OUT_OF_RANGE, (whole, position, size)),)),
            Store(out, position, index),
        )
        return (For(place, E.index(0), E.index(product(indices.shape)), body),)

    def failure(self, code: int, details: tuple[int, ...], **attrs: Any) -> IndexRangeError:
        """Return the error of a kernel that stopped with this code and these details."""
        assert code == OUT_OF_RANGE, f"check_index stopped with code {code}"
        value, position, size = details[:3]
        return range_error(attrs["what"], value, position, size, attrs["negative"])

    def reference(self, indices: np.ndarray, *, size: int, what: str, negative: bool) -> Any:
        """Check with NumPy."""
        whole = np.where(np.isnan(indices), NAN_INDEX, as_integers(indices)).reshape(-1)
        wrong = (whole < (-size if negative else 0)) | (whole >= size)
        if wrong.any():
            first = int(np.argmax(wrong))
            raise range_error(what, int(whole[first]), first, size, negative)
        return indices


check_index = register(CheckIndex())


def checked(indices: Any, size: Dim, mode: str, what: str = "index") -> tuple[Any, str]:
    """Return indices and mode of a read, with ``"raise"`` turned into a check and ``"wrap"``."""
    if check_mode(mode) != "raise":
        return indices, mode
    return check_index(indices, size, what, negative=True), "wrap"


# -- reading along one axis --------------------------------------------------------------------


def _check_axis(x: TensorType, indices: TensorType, place: int) -> None:
    check_indices(indices)
    if x.shape[place] == 0 and known_size(indices.size) != 0:
        raise ShapeError(
            f"axis {place} of {x} is empty: there is nothing to take",
            remedy="Take from an axis with at least one element.",
        )


class Take(Movement):
    """Elements at given indices along an axis."""

    name = "take"
    samples = (
        sample((5, 3), Spec((4,), -2, 8, int64), axis=0, mode="clip"),
        sample((2, 4, 3), Spec((2, 2), -6, 6, int32), axis=1, mode="wrap"),
        sample((4,), Spec((), 0, 4, int64), axis=0, mode="clip"),
        sample((2, 3), Spec((3,), 0, 2.9, float32), axis=1, mode="clip"),
        sample((2, 3), Spec((0,), 0, 3, int64), axis=1, mode="clip"),
        sample((0, 3), Spec((2,), 0, 3, int64), axis=1, mode="wrap"),
    )

    def __call__(self, x: Any, indices: Any, axis: int = 0, mode: str = "clip") -> Any:
        """Return the elements of ``x`` at ``indices`` along ``axis``.

        Parameters
        ----------
        x : operand
        indices : operand
            Integers or floats; their axes replace ``axis`` in the result.
        axis : int
        mode : {"clip", "wrap", "raise"}
            What becomes of an index that is out of range.

        Raises
        ------
        IndexRangeError
            With ``mode="raise"``, for an index outside ``-size .. size - 1``.
        """
        shape = known_shape(x)
        if shape is not None:
            axis = attempt(self.name, (x, indices), normalize_axis, axis, len(shape))
            size = shape[axis]
            indices, mode = attempt(self.name, (x, indices), checked, indices, size, mode)
        return apply(self, (x, indices), {"axis": int(axis), "mode": mode})

    def infer(self, x: TensorType, indices: TensorType, *, axis: int, mode: str) -> TensorType:
        """Return the shape with the axis replaced by those of the indices."""
        check_mode(mode)
        place = normalize_axis(axis, x.ndim)
        _check_axis(x, indices, place)
        return x.with_shape((*x.shape[:place], *indices.shape, *x.shape[place + 1 :]))

    def vjp(self, g: Any, y: Any, x: Any, indices: Any, *, axis: int, mode: str) -> Any:
        """Add the gradient up where it was taken from."""
        scatter = REGISTRY["scatter_add"]
        return scatter(indices, g, shape_of(x), axis % x.ndim, mode), None

    def lower(self, k: Any, x: Any, indices: Any, *, axis: int, mode: str) -> Any:
        """Read at the index that the indices hold."""
        place = axis % x.ndim
        end = place + indices.ndim
        index = indices.at(*k.index[place:end])
        chosen = whole_index(k, index, x.shape[place], mode)
        return x.at(*k.index[:place], chosen, *k.index[end:])

    def reference(self, x: np.ndarray, indices: np.ndarray, *, axis: int, mode: str) -> Any:
        """Take with NumPy."""
        if mode == "raise":
            check_index.reference(indices, size=x.shape[axis], what="index", negative=True)
        chosen = whole_indices(indices, x.shape[axis], "wrap" if mode == "raise" else mode)
        return np.take(x, chosen, axis)


def _pick_shape(x: TensorType, place: int, keepdims: bool) -> tuple[Dim, ...]:
    middle = (1,) if keepdims else ()
    return (*x.shape[:place], *middle, *x.shape[place + 1 :])


class Pick(Movement):
    """One element along an axis for each position of the others."""

    name = "pick"
    samples = (
        sample((3, 4), Spec((3,), -2, 6, int64), axis=-1, keepdims=False, mode="clip"),
        sample((3, 4), Spec((1, 4), -5, 5, int32), axis=0, keepdims=True, mode="wrap"),
        sample((2, 3, 2), Spec((2, 2), 0, 2.9, float32), axis=1, keepdims=False, mode="clip"),
        sample((4,), Spec((), 0, 4, int64), axis=0, keepdims=False, mode="clip"),
        sample((0, 4), Spec((0,), 0, 4, int64), axis=1, keepdims=False, mode="clip"),
    )

    def __call__(
        self, x: Any, indices: Any, axis: int = -1, keepdims: bool = False, mode: str = "clip"
    ) -> Any:
        """Return ``x[..., indices[...], ...]`` along ``axis``.

        Parameters
        ----------
        x : operand
        indices : operand
            The shape of ``x`` without ``axis``, or with 1 there.
        axis : int
        keepdims : bool
            Keep ``axis`` with size 1.
        mode : {"clip", "wrap", "raise"}
            What becomes of an index that is out of range.
        """
        shape, own = known_shape(x), known_shape(indices)
        if shape is not None and own is not None:
            place = attempt(self.name, (x, indices), normalize_axis, axis, len(shape))
            indices, mode = attempt(self.name, (x, indices), checked, indices, shape[place], mode)
            if len(own) == len(shape) and not keepdims:
                indices = squeeze(indices, place)
            elif len(own) == len(shape) - 1 and keepdims:
                indices = expand_dims(indices, place)
            axis = place
        attrs = {"axis": int(axis), "keepdims": bool(keepdims), "mode": mode}
        return apply(self, (x, indices), attrs)

    def infer(
        self, x: TensorType, indices: TensorType, *, axis: int, keepdims: bool, mode: str
    ) -> TensorType:
        """Return the shape without the axis, or with 1 there."""
        check_mode(mode)
        place = normalize_axis(axis, x.ndim)
        _check_axis(x, indices, place)
        shape = _pick_shape(x, place, keepdims)
        if not same_shape(indices.shape, shape):
            raise ShapeError(
                f"indices of shape {shape_text(indices.shape)} do not pick from {x} along "
                f"axis {axis}",
                remedy=f"Their shape must be {shape_text(shape)}.",
            )
        return x.with_shape(shape)

    def vjp(
        self, g: Any, y: Any, x: Any, indices: Any, *, axis: int, keepdims: bool, mode: str
    ) -> tuple[Any, ...]:
        """Put the gradient where it was picked from."""
        place = axis % x.ndim
        return unpick(g, indices, shape_of(x)[place], place, keepdims, mode), None

    def lower(
        self, k: Any, x: Any, indices: Any, *, axis: int, keepdims: bool, mode: str
    ) -> Any:
        """Read at the index that the indices hold."""
        place = axis % x.ndim
        chosen = whole_index(k, indices.at(*k.index), x.shape[place], mode)
        return x.at(*k.index[:place], chosen, *k.index[place + keepdims :])

    def reference(
        self, x: np.ndarray, indices: np.ndarray, *, axis: int, keepdims: bool, mode: str
    ) -> Any:
        """Take along the axis with NumPy."""
        if mode == "raise":
            check_index.reference(indices, size=x.shape[axis], what="index", negative=True)
        kept = indices if keepdims else np.expand_dims(indices, axis)
        chosen = whole_indices(kept, x.shape[axis], "wrap" if mode == "raise" else mode)
        found = np.take_along_axis(x, chosen, axis)
        return found if keepdims else np.squeeze(found, axis)


class Unpick(Movement):
    """Zeros with one element along an axis for each position: the transpose of ``pick``."""

    name = "unpick"
    samples = (
        sample((3,), Spec((3,), -2, 6, int64), size=4, axis=1, keepdims=False, mode="clip"),
        sample((1, 4), Spec((1, 4), -5, 5, int32), size=3, axis=0, keepdims=True, mode="wrap"),
        sample((2, 2), Spec((2, 2), 0, 3, int64), size=3, axis=1, keepdims=False, mode="clip"),
    )

    def __call__(
        self, x: Any, indices: Any, size: Dim, axis: int, keepdims: bool, mode: str
    ) -> Any:
        """Return zeros with ``x`` at ``indices`` along a new ``axis`` of ``size`` elements."""
        attrs = {"size": size, "axis": axis, "keepdims": keepdims, "mode": mode}
        return apply(self, (x, indices), attrs)

    def infer(
        self, x: TensorType, indices: TensorType, *, size: Dim, axis: int, keepdims: bool, mode: str
    ) -> TensorType:
        """Return the shape with the axis."""
        return x.with_shape((*x.shape[:axis], size, *x.shape[axis + keepdims :]))

    def vjp(self, g: Any, y: Any, x: Any, indices: Any, **attrs: Any) -> tuple[Any, ...]:
        """Pick from the gradient."""
        return pick(g, indices, attrs["axis"], attrs["keepdims"], attrs["mode"]), None

    def lower(
        self, k: Any, x: Any, indices: Any, *, size: Dim, axis: int, keepdims: bool, mode: str
    ) -> Any:
        """Compare the index along the axis with the one the indices hold."""
        middle = (E.index(0),) if keepdims else ()
        index = (*k.index[:axis], *middle, *k.index[axis + 1 :])
        chosen = whole_index(k, indices.at(*index), k.shape[axis], mode)
        return k.select(k.index[axis].eq(chosen), x.at(*index), k.const(0, x.dtype))

    def reference(
        self, x: np.ndarray, indices: np.ndarray, *, size: int, axis: int, keepdims: bool, mode: str
    ) -> Any:
        """Put along the axis with NumPy."""
        wide = x if keepdims else np.expand_dims(x, axis)
        chosen = whole_indices(indices if keepdims else np.expand_dims(indices, axis), size, mode)
        out = np.zeros((*wide.shape[:axis], size, *wide.shape[axis + 1 :]), x.dtype)
        np.put_along_axis(out, chosen, wide, axis)
        return out


class OneHot(OpDef):
    """Vectors that are ``on_value`` at an index and ``off_value`` elsewhere."""

    name, kind, gradient = "one_hot", Kind.MOVEMENT, False
    dtypes = (int32, int64, float32)
    samples = (
        sample(Spec((4,), -1, 4), depth=3, on_value=1, off_value=0, dtype=float32),
        sample(Spec((2, 2), 0, 4), depth=4, on_value=5, off_value=-1, dtype=int32),
        sample(Spec((), 0, 2), depth=2, on_value=True, off_value=False, dtype=bool_),
        sample(Spec((0,), 0, 2), depth=2, on_value=1, off_value=0, dtype=float32),
    )

    def __call__(
        self, indices: Any, depth: Dim, on_value: Any = 1, off_value: Any = 0, dtype: Any = float32
    ) -> Any:
        """Return a new last axis of ``depth`` elements, ``on_value`` at the index.

        An index outside ``0 .. depth - 1`` gives ``off_value`` everywhere.
        """
        attrs = {
            "depth": depth, "on_value": on_value, "off_value": off_value,
            "dtype": as_dtype(dtype),
        }  # fmt: skip
        return apply(self, (indices,), attrs)

    def infer(
        self, indices: TensorType, *, depth: Dim, on_value: Any, off_value: Any, dtype: DType
    ) -> TensorType:
        """Return the indices' shape with the new axis."""
        check_indices(indices)
        return TensorType(dtype, (*indices.shape, *sizes_of(depth)))

    def lower(
        self, k: Any, indices: Any, *, depth: Dim, on_value: Any, off_value: Any, dtype: DType
    ) -> Any:
        """Compare the index along the new axis with the one the indices hold."""
        index = k.cast(indices.at(*k.index[:-1]), int64)
        on, off = k.const(on_value, dtype), k.const(off_value, dtype)
        return k.select(k.index[-1].eq(index), on, off)

    def reference(
        self, indices: np.ndarray, *, depth: int, on_value: Any, off_value: Any, dtype: DType
    ) -> Any:
        """Compare with NumPy."""
        hot = as_integers(indices)[..., None] == np.arange(depth)
        return np.where(hot, on_value, off_value).astype(dtype.numpy)


take = register(Take())
pick = register(Pick())
unpick = register(Unpick())
one_hot = register(OneHot())

"""Element types, tensor types, promotion and broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.errors import DTypeError, ShapeError, nearest, user_location
from graphc.ir.dim import Dim, SizeExpr, product
from graphc.ir.sizes import broadcast_dims, known_size, resolve, unify


@dataclass(frozen=True, slots=True)
class DType:
    """An element type.

    Parameters
    ----------
    name : str
        NumPy's name, ``"float32"``.
    short : str
        Name in printed graphs and kernels, ``"f32"``.
    kind : str
        ``"f"`` floating, ``"i"`` signed, ``"u"`` unsigned, ``"b"`` bool.
    item_bytes : int
        Size of one element.
    """

    name: str
    short: str
    kind: str
    item_bytes: int

    def __str__(self) -> str:
        return self.short

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy dtype."""
        return np.dtype(self.name)

    @property
    def floating(self) -> bool:
        """Whether this is a floating-point type."""
        return self.kind == "f"

    @property
    def integer(self) -> bool:
        """Whether this is a signed or unsigned integer type."""
        return self.kind in "iu"


float32 = DType("float32", "f32", "f", 4)
float64 = DType("float64", "f64", "f", 8)
int8 = DType("int8", "i8", "i", 1)
int16 = DType("int16", "i16", "i", 2)
int32 = DType("int32", "i32", "i", 4)
int64 = DType("int64", "i64", "i", 8)
uint8 = DType("uint8", "u8", "u", 1)
uint16 = DType("uint16", "u16", "u", 2)
uint32 = DType("uint32", "u32", "u", 4)
uint64 = DType("uint64", "u64", "u", 8)
bool_ = DType("bool", "bool", "b", 1)

DTYPES = (
    float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64, bool_,
)  # fmt: skip
_BY_NAME = {d.name: d for d in DTYPES} | {d.short: d for d in DTYPES}
_BY_NUMPY = {d.numpy: d for d in DTYPES}


def as_dtype(source: object) -> DType:
    """Return the DType of a name, a Python type, a NumPy dtype or scalar type.

    Raises
    ------
    DTypeError
        When there is no such type; names the nearest one.
    """
    if isinstance(source, DType):
        return source
    if isinstance(source, str) and source in _BY_NAME:
        return _BY_NAME[source]
    try:
        return _BY_NUMPY[np.dtype(source)]  # type: ignore[call-overload]
    except (TypeError, KeyError):
        name = source if isinstance(source, str) else getattr(source, "__name__", str(source))
        raise DTypeError(
            f"there is no dtype {name!r}.{nearest(name, [d.name for d in DTYPES])}",
            remedy=f"Types are {', '.join(d.name for d in DTYPES)}.",
            where=user_location(),
        ) from None


def promote(*dtypes: DType) -> DType:
    """Return the type NumPy 2 gives an operation over arrays of these types."""
    found = dtypes[0]
    for dtype in dtypes[1:]:
        if dtype is not found:
            found = as_dtype(np.promote_types(found.numpy, dtype.numpy))
    return found


def weak_dtype(scalar: object, other: DType) -> DType:
    """Return the type a Python scalar takes beside an array of type ``other`` (NumPy 2).

    Raises
    ------
    DTypeError
        When an integer is out of the range of an integer type.
    """
    require_range(scalar, other)
    return as_dtype(np.result_type(scalar, other.numpy))  # type: ignore[arg-type]


def require_range(scalar: object, dtype: DType) -> None:
    """Raise DTypeError for a whole number that would wrap in an integer type."""
    if not (dtype.integer and isinstance(scalar, (int, np.integer))):
        return
    limits = np.iinfo(dtype.name)
    if not limits.min <= scalar <= limits.max:
        raise DTypeError(
            f"{scalar} is out of range for {dtype.name}, which holds {limits.min} .. {limits.max}",
            remedy="Cast the array to a wider type first.",
            where=user_location(),
        )


def floating_dtype(dtype: DType) -> DType:
    """Return the type itself where it is floating, else the one its values are computed in."""
    if dtype.floating:
        return dtype
    return float64 if dtype.item_bytes >= 4 else float32


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and shape of a value.

    Parameters
    ----------
    dtype : DType
    shape : tuple of Dim
        Each axis an integer or an expression over size variables.
    """

    dtype: DType
    shape: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.dtype.short}[{', '.join(map(str, self.shape))}]"

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return product(self.shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        """Return the same shape with another element type."""
        return TensorType(dtype, self.shape)

    def sized(self) -> TensorType:
        """Return the type with the sizes of the call that is being traced, for messages."""
        sizes = [(dim, known_size(dim)) for dim in self.shape]
        return self.with_shape([dim if size is None else size for dim, size in sizes])

    def with_shape(self, shape: Sequence[Dim]) -> TensorType:
        """Return the same element type with another shape."""
        return TensorType(self.dtype, tuple(shape))


def tensor_type(dtype: object, shape: Sequence[Dim]) -> TensorType:
    """Return a TensorType from anything that names a dtype and a sequence of sizes."""
    return TensorType(
        as_dtype(dtype), tuple(d if isinstance(d, SizeExpr) else int(d) for d in shape)
    )


def sizes_of(*shape: Dim) -> tuple[Dim, ...]:
    """Return the sizes of a shape that a caller asked for.

    Raises
    ------
    ShapeError
        When one is negative.
    """
    if any(isinstance(d, int) and d < 0 for d in shape):
        raise ShapeError(f"sizes must be 0 or more, got {shape_text(shape)}")
    return shape


def broadcast_shapes(*shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """Return the common shape by NumPy's rule; a symbolic size never broadcasts.

    Raises
    ------
    ShapeError
        When two sizes differ and neither is 1.
    """
    ndim = max((len(shape) for shape in shapes), default=0)
    result: list[Dim] = [1] * ndim
    for shape in shapes:
        offset = ndim - len(shape)
        for axis, dim in enumerate(shape):
            joined = broadcast_dims(result[offset + axis], dim)
            if joined is None:
                raise ShapeError(
                    "shapes " + " and ".join(shape_text(s) for s in shapes) + " do not broadcast: "
                    f"sizes {result[offset + axis]} and {dim} differ on axis {offset + axis}",
                    remedy="Counted from the last axis, sizes must be equal or 1: use reshape, "
                    "expand_dims or transpose on one of them.",
                )
            result[offset + axis] = joined
    return tuple(result)


def shape_text(shape: Sequence[Dim]) -> str:
    """Return a shape as a person writes it, with sizes that are known put in."""
    return f"({', '.join(str(resolve(d)) for d in shape)}{',' if len(shape) == 1 else ''})"


def same_shape(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    """Return whether the shapes are equal, unifying symbolic sizes where they can be."""
    return len(a) == len(b) and all(unify(x, y) is not None for x, y in zip(a, b, strict=True))


def normalize_axis(axis: int, ndim: int) -> int:
    """Return ``axis`` in ``0 .. ndim-1``; negative counts from the end.

    Raises
    ------
    ShapeError
        When the axis does not exist.
    """
    if not isinstance(axis, (int, np.integer)) or isinstance(axis, bool):
        raise ShapeError(f"axis must be an integer, got {axis!r}")
    if not -ndim <= axis < ndim:
        raise ShapeError(
            f"axis {axis} does not exist: the operand has {ndim} axes",
            remedy=f"Axes run from {-ndim} to {ndim - 1}." if ndim else "A 0-d value has no axes.",
        )
    return int(axis) % ndim


def normalize_axes(axis: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Return sorted distinct axes; None means all of them."""
    if axis is None:
        return tuple(range(ndim))
    chosen = (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    axes = sorted(normalize_axis(a, ndim) for a in chosen)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"axis {tuple(chosen)} names an axis twice")
    return tuple(axes)

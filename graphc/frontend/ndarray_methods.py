"""What is MXNet's of a handle: its methods, operators and rules of types, eager or traced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError, no_attribute, user_location
from graphc.frontend.numpy_calls import call_function, call_ufunc
from graphc.frontend.ops import elementwise, indexing, nn, reduce, shape
from graphc.frontend.ops.elementwise import as_mask
from graphc.frontend.ops.operator import as_operand, at_least_1d, element_type
from graphc.frontend.tracer import Size, plain_sizes
from graphc.ir.op import Kind
from graphc.ir.operand import REGISTRY, apply, is_scalar
from graphc.ir.ops import basic, gather, rearrange
from graphc.ir.types import DType, TensorType, as_dtype, bool_, float32, float64

COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
Axis = int | Sequence[int] | None


def nd_scalar_dtype(scalar: Any, peer: DType) -> DType:
    """Return the type a number takes beside arrays: theirs, float32 for a fraction beside ints."""
    whole = isinstance(scalar, (bool, np.bool_, int, np.integer))
    if peer.floating or (whole and peer is not bool_):
        return peer
    if isinstance(scalar, (bool, np.bool_)):
        return bool_
    return as_dtype("int32") if whole else float32


def nd_operand_dtypes(op: Any, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
    """Return the types operands are cast to: float32 where NumPy would widen to float64.

    Raises
    ------
    DTypeError
        When a contraction gets two types.
    """
    own = {t.dtype for t in types}
    if op.kind is Kind.CONTRACT and len(own) > 1:
        names = " and ".join(t.dtype.name for t in types)
        raise DTypeError(
            f"{op.name} got operands of different types, {names}",
            remedy="Make them equal, for example by .astype('float32').",
        )
    found: tuple[DType, ...] | None = op.operand_dtypes(types)
    if found is None or float64 in own:
        return found
    return tuple(float32 if d is float64 else d for d in found)


def key_parts(key: Any) -> tuple[Any, ...]:
    """Return an index as a tuple, with traced sizes as Dims.

    Raises
    ------
    DTypeError
        For a boolean mask.
    """
    parts = key if isinstance(key, tuple) else (key,)
    return tuple(_key_part(part) for part in parts)


def _key_part(part: Any) -> Any:
    if isinstance(part, slice):
        return slice(*(plain_sizes(_whole(end)) for end in (part.start, part.stop, part.step)))
    if isinstance(part, Size):
        return part.dim
    if isinstance(part, (list, np.ndarray)):
        part = np.asarray(part)
        part = part.astype(np.int64) if part.size == 0 else part
    dtype = getattr(part, "dtype", None)
    masks = isinstance(part, bool) or (dtype is not None and as_dtype(dtype) is bool_)
    if masks or getattr(part, "is_mask", False):
        raise DTypeError(
            "an nd array cannot be indexed by a boolean mask",
            remedy="Use nd.where(mask, x, y), multiply by the mask, or index by integers.",
            where=user_location(),
        )
    return int(part) if isinstance(part, np.generic) else part


def _whole(end: Any) -> Any:
    """Return an end of a slice that is an array of one element as a number."""
    return int(end) if hasattr(end, "asscalar") or isinstance(end, np.generic) else end


class NDMethods:
    """Mixin of MXNet's methods for handles of `nd`, eager and traced."""

    __slots__ = ()
    namespace = "nd"
    """The module of graphc whose functions take it."""
    type: Any
    shape: Any

    @classmethod
    def scalar_dtype(cls, scalar: Any, peer: DType) -> DType:
        """Return the type a number takes beside arrays of type ``peer``."""
        return nd_scalar_dtype(scalar, peer)

    @classmethod
    def operand_dtypes(cls, op: Any, types: Sequence[TensorType]) -> tuple[DType, ...] | None:
        """Return the types operands are cast to."""
        return nd_operand_dtypes(op, types)

    def __getattr__(self, name: str) -> Any:
        cls = type(self)
        if hasattr(cls, name):  # a slot without a value
            raise AttributeError(name)
        raise no_attribute(cls.__name__.replace("NDTracer", "NDArray"), name, dir(cls))

    # -- operators -----------------------------------------------------------------------------

    def _binary(self, name: str, other: Any, swapped: bool = False) -> Any:
        other = as_operand(_matching(plain_size(other), self.type.dtype))
        if not (hasattr(other, "__graphc_apply__") or is_scalar(other)):
            return NotImplemented
        operands = (other, self) if swapped else (self, other)
        result = apply(REGISTRY[name], operands, {})
        if name in COMPARISONS:
            return as_mask(result)
        return at_least_1d(result) if name == "matmul" else result

    def __eq__(self, other: object) -> Any:
        return self._binary("equal", other)

    def __ne__(self, other: object) -> Any:
        return self._binary("not_equal", other)

    def __hash__(self) -> int:
        return id(self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return call_ufunc(self, ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return call_function(self, function, args, kwargs)

    def __len__(self) -> int:
        sizes = self.shape
        if not sizes:
            raise ShapeError("a 0-d array has no length", where=user_location())
        return int(sizes[0])

    def __iter__(self) -> Iterator[Any]:
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, key: Any) -> Any:
        parts = key_parts(key)
        if any(gather.is_index_array(part) for part in parts):
            parts = tuple(as_operand(part) for part in parts)
            return at_least_1d(gather.getitem_advanced(self, parts))
        return at_least_1d(rearrange.getitem(self, parts))

    # -- what an array is ----------------------------------------------------------------------

    @property
    def dtype(self) -> type[np.generic]:
        """NumPy's class of the element type, ``numpy.float32``."""
        return self.type.dtype.numpy.type

    @property
    def size(self) -> Any:
        """Number of elements."""
        total: Any = 1
        for d in self.shape:
            total = d * total
        return total

    @property
    def T(self) -> Any:
        """The array with its axes reversed."""
        return shape.transpose(self)

    @property
    def stype(self) -> str:
        """Storage type; every array is dense."""
        return "default"

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """Return a copy of another element type; the array itself if it need not be one."""
        kind = element_type(dtype)
        if kind is self.type.dtype:
            return self.copy() if copy else self
        return basic.cast(self, kind)

    def copy(self) -> Any:
        """Return a copy."""
        return basic.copy(self)

    def detach(self) -> Any:
        """Return the same elements as a constant for differentiation."""
        return basic.stop_gradient(self)

    # -- shapes --------------------------------------------------------------------------------

    def reshape(self, *sizes: Any, **kwargs: Any) -> Any:
        """Return the elements under another shape; see `nd.reshape` for 0, -1, -2, -3 and -4."""
        given = kwargs.pop("shape", sizes)
        if len(given) == 1 and isinstance(given[0], (tuple, list, np.ndarray)):
            given = given[0]
        return self._reshape(given, **kwargs)

    def _reshape(self, sizes: Any, reverse: bool = False) -> Any:
        return shape.reshape(self, sizes, reverse=reverse)

    def reshape_like(self, rhs: Any) -> Any:
        """Return the elements under the shape of ``rhs``."""
        return shape.reshape_like(self, rhs)

    def flatten(self) -> Any:
        """Return all axes but the first joined into one."""
        return shape.flatten(self)

    def transpose(self, *axes: Any) -> Any:
        """Return the axes in another order, reversed where none is given."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return shape.transpose(self, order)

    def swapaxes(self, dim1: int, dim2: int) -> Any:
        """Exchange two axes."""
        return shape.swapaxes(self, dim1, dim2)

    def expand_dims(self, axis: int) -> Any:
        """Insert an axis of size 1."""
        return shape.expand_dims(self, axis)

    def squeeze(self, axis: Axis = None) -> Any:
        """Drop axes of size 1."""
        return shape.squeeze(self, axis)

    def broadcast_to(self, shape_: Any = None, **kwargs: Any) -> Any:
        """Repeat to a shape."""
        return shape.broadcast_to(self, kwargs.get("shape", shape_))

    def broadcast_like(self, other: Any) -> Any:
        """Repeat to the shape of another array."""
        return shape.broadcast_like(self, other)

    def broadcast_axes(self, *args: Any, **kwargs: Any) -> Any:
        """Repeat axes of size 1."""
        return shape.broadcast_axis(self, *args, **kwargs)

    def split(self, *args: Any, **kwargs: Any) -> Any:
        """Cut into equal parts."""
        return shape.split(self, *args, **kwargs)

    def split_v2(self, *args: Any, **kwargs: Any) -> Any:
        """Cut into equal parts, or at places."""
        return shape.split_v2(self, *args, **kwargs)

    def slice(self, *args: Any, **kwargs: Any) -> Any:
        """Return a part."""
        return shape.slice(self, *args, **kwargs)

    def slice_axis(self, *args: Any, **kwargs: Any) -> Any:
        """Return a part of one axis."""
        return shape.slice_axis(self, *args, **kwargs)

    def slice_like(self, *args: Any, **kwargs: Any) -> Any:
        """Cut to the sizes of another array."""
        return shape.slice_like(self, *args, **kwargs)

    def tile(self, *args: Any, **kwargs: Any) -> Any:
        """Repeat the whole array."""
        return shape.tile(self, *args, **kwargs)

    def repeat(self, *args: Any, **kwargs: Any) -> Any:
        """Repeat each element."""
        return shape.repeat(self, *args, **kwargs)

    def flip(self, *args: Any, **kwargs: Any) -> Any:
        """Reverse axes."""
        return shape.flip(self, *args, **kwargs)

    def pad(self, *args: Any, **kwargs: Any) -> Any:
        """Add elements around."""
        return shape.pad(self, *args, **kwargs)

    # -- reductions ----------------------------------------------------------------------------

    def sum(self, *args: Any, **kwargs: Any) -> Any:
        """Return sums over axes."""
        return reduce.sum(self, *args, **kwargs)

    def nansum(self, *args: Any, **kwargs: Any) -> Any:
        """Return sums over axes, NaN counted as 0."""
        return reduce.nansum(self, *args, **kwargs)

    def mean(self, *args: Any, **kwargs: Any) -> Any:
        """Return means over axes."""
        return reduce.mean(self, *args, **kwargs)

    def prod(self, *args: Any, **kwargs: Any) -> Any:
        """Return products over axes."""
        return reduce.prod(self, *args, **kwargs)

    def nanprod(self, *args: Any, **kwargs: Any) -> Any:
        """Return products over axes, NaN counted as 1."""
        return reduce.nanprod(self, *args, **kwargs)

    def max(self, *args: Any, **kwargs: Any) -> Any:
        """Return the largest elements over axes."""
        return reduce.max(self, *args, **kwargs)

    def min(self, *args: Any, **kwargs: Any) -> Any:
        """Return the smallest elements over axes."""
        return reduce.min(self, *args, **kwargs)

    def norm(self, *args: Any, **kwargs: Any) -> Any:
        """Return norms over axes."""
        return reduce.norm(self, *args, **kwargs)

    def argmax(self, *args: Any, **kwargs: Any) -> Any:
        """Return positions of the largest elements."""
        return reduce.argmax(self, *args, **kwargs)

    def argmin(self, *args: Any, **kwargs: Any) -> Any:
        """Return positions of the smallest elements."""
        return reduce.argmin(self, *args, **kwargs)

    def argmax_channel(self) -> Any:
        """Return the position of the largest element of each row."""
        return reduce.argmax_channel(self)

    # -- elements at indices -------------------------------------------------------------------

    def take(self, *args: Any, **kwargs: Any) -> Any:
        """Return elements at indices along an axis."""
        return indexing.take(self, *args, **kwargs)

    def pick(self, *args: Any, **kwargs: Any) -> Any:
        """Return one element along an axis for each position."""
        return indexing.pick(self, *args, **kwargs)

    def one_hot(self, *args: Any, **kwargs: Any) -> Any:
        """Return the indices that this array holds as vectors of zeros and a one."""
        return indexing.one_hot(self, *args, **kwargs)

    # -- elements ------------------------------------------------------------------------------

    def clip(self, *args: Any, **kwargs: Any) -> Any:
        """Limit elements."""
        return elementwise.clip(self, *args, **kwargs)

    def zeros_like(self) -> Any:
        """Return zeros of the same shape and type."""
        return elementwise.zeros_like(self)

    def ones_like(self) -> Any:
        """Return ones of the same shape and type."""
        return elementwise.ones_like(self)

    def softmax(self, *args: Any, **kwargs: Any) -> Any:
        """Return probabilities along an axis."""
        return nn.softmax(self, *args, **kwargs)

    def log_softmax(self, *args: Any, **kwargs: Any) -> Any:
        """Return logarithms of the probabilities along an axis."""
        return nn.log_softmax(self, *args, **kwargs)

    def softmin(self, *args: Any, **kwargs: Any) -> Any:
        """Return the softmax of the negative along an axis."""
        return nn.softmin(self, *args, **kwargs)

    abs = elementwise.abs
    sign = elementwise.sign
    square = elementwise.square
    sqrt = elementwise.sqrt
    rsqrt = elementwise.rsqrt
    cbrt = elementwise.cbrt
    reciprocal = elementwise.reciprocal
    exp = elementwise.exp
    expm1 = elementwise.expm1
    log = elementwise.log
    log2 = elementwise.log2
    log10 = elementwise.log10
    log1p = elementwise.log1p
    sin = elementwise.sin
    cos = elementwise.cos
    tan = elementwise.tan
    arcsin = elementwise.arcsin
    arccos = elementwise.arccos
    arctan = elementwise.arctan
    sinh = elementwise.sinh
    cosh = elementwise.cosh
    tanh = elementwise.tanh
    arcsinh = elementwise.arcsinh
    arccosh = elementwise.arccosh
    arctanh = elementwise.arctanh
    degrees = elementwise.degrees
    radians = elementwise.radians
    erf = elementwise.erf
    relu = elementwise.relu
    sigmoid = elementwise.sigmoid
    floor = elementwise.floor
    ceil = elementwise.ceil
    round = elementwise.round
    rint = elementwise.rint
    trunc = elementwise.trunc
    fix = elementwise.fix


def plain_size(other: Any) -> Any:
    """Return a traced size that takes part in arithmetic as the number it is in this call."""
    return int(other) if isinstance(other, Size) else other


def _matching(other: Any, dtype: DType) -> Any:
    """Return a NumPy operand of float64 as float32 unless the array is float64 itself."""
    if isinstance(other, np.ndarray) and other.dtype == np.float64 and dtype is not float64:
        return other.astype(np.float32)
    return other

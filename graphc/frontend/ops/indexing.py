"""Reading at indices that are data; indices may be floats, as MXNet's mostly are."""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError, ShapeError, user_location
from graphc.frontend.ops.operator import chosen, dims, operator
from graphc.ir.ops import basic, comparison, creation, gather, movement, rearrange
from graphc.ir.ops import indexing as core
from graphc.ir.sizes import known_size, unify
from graphc.ir.types import as_dtype, shape_text

_MODES = ("clip", "wrap", "raise")


@operator("take", inputs=("a", "indices"))
def take(a: Any, indices: Any, axis: int = 0, mode: str = "clip") -> Any:
    """Return the elements of ``a`` at ``indices`` along ``axis``.

    Parameters
    ----------
    a, indices : array
    axis : int
    mode : {"clip", "wrap", "raise"}
        What becomes of an index that is out of range.
    """
    return core.take(a, indices, axis, chosen("mode", mode, _MODES))


@operator("batch_take", inputs=("a", "indices"))
def batch_take(a: Any, indices: Any) -> Any:
    """Return ``a[i, indices[i]]`` for each row."""
    return core.pick(a, indices, 1)


@operator("pick", "choose_element_0index", inputs=("data", "index"))
def pick(data: Any, index: Any, axis: int = -1, keepdims: bool = False, mode: str = "clip") -> Any:
    """Return one element along ``axis`` for each position of the other axes."""
    return core.pick(data, index, axis, keepdims, chosen("mode", mode, _MODES))


choose_element_0index = pick


@operator("one_hot", inputs=("indices",))
def one_hot(
    indices: Any, depth: int, on_value: float = 1.0, off_value: float = 0.0,
    dtype: Any = "float32",
) -> Any:  # fmt: skip
    """Return a new last axis of ``depth`` elements, ``on_value`` at the index."""
    return core.one_hot(indices, depth, on_value, off_value, dtype)


@operator("gather_nd", inputs=("data", "indices"))
def gather_nd(data: Any, indices: Any) -> Any:
    """Return ``data[indices[0], indices[1], ...]``."""
    return gather.gather_nd(data, indices)


@operator("scatter_nd", inputs=("data", "indices"))
def scatter_nd(data: Any, indices: Any, shape: Any) -> Any:
    """Return zeros of ``shape`` with ``data`` at ``indices``; equal indices add up."""
    return gather.scatter_nd(indices, data, shape)


@operator("Embedding", inputs=("data", "weight"))
def Embedding(
    data: Any, weight: Any, input_dim: int | None = None, output_dim: int | None = None,
    dtype: Any = "float32", sparse_grad: bool = False,
) -> Any:  # fmt: skip
    """Return the rows of ``weight`` that ``data`` names.

    Parameters
    ----------
    data : array
        Row numbers, of any shape.
    weight : array, shape (input_dim, output_dim)
    input_dim, output_dim : int, optional
        Checked against the weight.
    dtype, sparse_grad
        Accepted as MXNet's; the weight has the type, gradients are dense.

    Raises
    ------
    IndexRangeError
        For a row that does not exist.
    """
    shape = dims(weight)
    for size, asked, name in zip(shape, (input_dim, output_dim), ("input_dim", "output_dim")):
        if asked is not None and unify(size, asked) is None:
            raise ShapeError(
                f"Embedding: {name} is {asked}, but the weight has shape {shape_text(shape)}",
                where=user_location(),
            )
    return gather.embedding(data, weight)


@operator("SequenceMask", inputs=("data", "sequence_length"))
def SequenceMask(
    data: Any, sequence_length: Any = None, use_sequence_length: bool = False,
    value: float = 0.0, axis: int = 0,
) -> Any:  # fmt: skip
    """Replace the elements of each sequence after its end by ``value``.

    Parameters
    ----------
    data : array, shape (T, N, ...) or, with ``axis=1``, (N, T, ...)
    sequence_length : array, shape (N,)
    use_sequence_length : bool
        Without it ``data`` comes back.
    value : float
    axis : {0, 1}
        The axis of time.
    """
    if not use_sequence_length or sequence_length is None:
        return data
    if axis not in (0, 1):
        raise ArgumentError(f"SequenceMask: axis is 0 or 1, got {axis}", where=user_location())
    shape = dims(data)
    steps = creation.arange(shape[axis], dtype=as_dtype(sequence_length.dtype))
    rest = (1,) * (len(shape) - 2)
    time = (shape[0], 1) if axis == 0 else (1, shape[1])
    batch = (1, shape[1]) if axis == 0 else (shape[0], 1)
    ends = movement.reshape(sequence_length, (*batch, *rest))
    inside = comparison.less(movement.reshape(steps, (*time, *rest)), ends)
    return comparison.where(inside, data, value)


@operator("SequenceLast", inputs=("data", "sequence_length"))
def SequenceLast(
    data: Any, sequence_length: Any = None, use_sequence_length: bool = False, axis: int = 0
) -> Any:
    """Return the last element of each sequence, along the time axis ``axis`` (0 or 1)."""
    if not use_sequence_length or sequence_length is None:
        last = known_size(dims(data)[axis])
        key = (slice(None),) * axis + (-1 if last is None else last - 1,)
        return data[key]
    steps = sequence_length - 1
    batch = dims(data)[1 - axis]
    rows = creation.arange(batch, dtype="int64")
    pairs = [steps, rows] if axis == 0 else [rows, steps]
    return gather.getitem_advanced(data, tuple(pairs), "clip")


@operator("SequenceReverse", inputs=("data", "sequence_length"))
def SequenceReverse(
    data: Any, sequence_length: Any = None, use_sequence_length: bool = False, axis: int = 0
) -> Any:
    """Turn each sequence around; what lies after its end stays in place.

    Parameters
    ----------
    data : array, shape (T, N, ...)
    sequence_length : array, shape (N,)
    use_sequence_length : bool
        Without it all steps count.
    axis : int
        The axis of time: 0.
    """
    if axis != 0:
        raise ArgumentError(f"SequenceReverse: axis is 0, got {axis}", where=user_location())
    if not use_sequence_length or sequence_length is None:
        return rearrange.flip(data, 0)
    length, batch = dims(data)[:2]
    steps = movement.expand_dims(creation.arange(length, dtype="int64"), 1)
    ends = movement.expand_dims(basic.cast(sequence_length, "int64"), 0)
    turned = comparison.where(comparison.less(steps, ends), ends - 1 - steps, steps)
    return gather.getitem_advanced(data, (turned, creation.arange(batch, dtype="int64")), "clip")

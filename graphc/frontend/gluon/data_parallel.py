"""Splitting batches, and limiting the norm of gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, user_location
from graphc.frontend.array import Array
from graphc.frontend.memory import on_host, overwrite
from graphc.frontend.ndarray import NDArray


def split_data(
    data: Any, num_slice: int, batch_axis: int = 0, even_split: bool = True
) -> list[Any]:
    """Cut a batch into slices.

    Parameters
    ----------
    data : NDArray
    num_slice : int
    batch_axis : int
    even_split : bool
        Whether unequal slices are an error.

    Returns
    -------
    list of NDArray
    """
    size = data.shape[batch_axis]
    if even_split and size % num_slice:
        raise ArgumentError(
            f"a batch of {size} cannot be split evenly into {num_slice} slices",
            remedy="Use a batch size that is a multiple, or pass even_split=False.",
            where=user_location(),
        )
    if size < num_slice:
        raise ArgumentError(
            f"a batch of {size} is too small for {num_slice} slices", where=user_location()
        )
    step = size // num_slice
    ends = [*range(step, step * num_slice, step), size]
    starts = [0, *ends[:-1]]
    if num_slice == 1:
        return [data]
    return [
        data.slice_axis(batch_axis, start, end) for start, end in zip(starts, ends, strict=True)
    ]


def split_and_load(
    data: Any, ctx_list: Sequence[Any], batch_axis: int = 0, even_split: bool = True
) -> list[Any]:
    """Cut a batch into a slice for each device and put it there.

    Parameters
    ----------
    data : NDArray or numpy.ndarray
    ctx_list : list of Context
    batch_axis : int
    even_split : bool

    Returns
    -------
    list of NDArray

    Examples
    --------
    >>> import graphc
    >>> from graphc import gluon, nd
    >>> parts = gluon.utils.split_and_load(nd.arange(4), [graphc.cpu(0), graphc.cpu(1)])
    >>> [(part.asnumpy().tolist(), part.context) for part in parts]
    [([0.0, 1.0], cpu(0)), ([2.0, 3.0], cpu(1))]
    """
    array = data if isinstance(data, Array) else NDArray(np.ascontiguousarray(data))
    contexts = list(ctx_list) if isinstance(ctx_list, (list, tuple)) else [ctx_list]
    parts = split_data(array, len(contexts), batch_axis, even_split)
    return [part.as_in_context(ctx) for part, ctx in zip(parts, contexts, strict=True)]


def clip_global_norm(
    arrays: Sequence[Any], max_norm: float, check_isfinite: bool = True
) -> float:
    """Scale arrays in place so that their common Euclidean norm is at most ``max_norm``.

    Parameters
    ----------
    arrays : list of NDArray
        Gradients: ``[p.grad() for p in net.collect_params().values()]``; of any devices.
    max_norm : float
    check_isfinite : bool
        Warn where the norm is not finite.

    Returns
    -------
    float
        The norm before scaling.
    """
    if not arrays:
        raise ArgumentError("clip_global_norm got no arrays", where=user_location())
    total = 0.0
    for array in arrays:
        flat = np.ravel(on_host(array._array)).astype(np.float64)
        total += float(flat @ flat)
    norm = math.sqrt(total)
    if check_isfinite and not math.isfinite(norm):
        warnings.warn(f"the norm of the arrays is {norm}: they are not scaled", stacklevel=2)
    scale = max_norm / (norm + 1e-8)
    if scale < 1.0 and math.isfinite(norm):
        for array in arrays:
            values = on_host(array._array)
            overwrite(array._array, values * values.dtype.type(scale))
            array._storage.touch()
    return norm

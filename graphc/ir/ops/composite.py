"""Public functions that are compositions of other ops, and what shape-dependent functions need.

Where the operands' shapes are known (arrays, traced values), such a function simply runs. A Symbol
has no shape yet: then the call is kept as one `Composite` record, which `decompose` s later.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

from graphc.errors import ArgumentError, GraphcError, user_location
from graphc.ir.dim import Dim, SizeExpr
from graphc.ir.graph import build, placeholder
from graphc.ir.op import EVERY, Kind, OpDef, Sample, register
from graphc.ir.operand import apply
from graphc.ir.sizes import resolve
from graphc.ir.types import DType, TensorType, as_dtype

P = ParamSpec("P")
R = TypeVar("R")


def type_of(x: Any) -> TensorType | None:
    """Return the type of an operand, or None where it has none yet (a Symbol)."""
    kind = getattr(x, "type", None)
    if isinstance(kind, TensorType):
        return kind.with_shape([resolve(d) for d in kind.shape])
    if hasattr(x, "__graphc_apply__"):
        return None
    array = np.asarray(x)
    return TensorType(as_dtype(array.dtype), array.shape)


def known_shape(x: Any) -> tuple[Dim, ...] | None:
    """Return the shape of an operand as Dims, or None where it has none yet."""
    kind = type_of(x)
    return None if kind is None else kind.shape


def shape_of(x: Any) -> tuple[Dim, ...]:
    """Return the shape, as Dims, of an operand that has one."""
    kind = type_of(x)
    if kind is None:
        raise ArgumentError(f"the shape of {type(x).__name__} is not known yet")
    return kind.shape


def attempt(op: str, operands: Sequence[Any], compute: Callable[..., R], *args: Any) -> R:
    """Return ``compute(*args)``; its errors get the op, the operand types and the user's line."""
    try:
        return compute(*args)
    except GraphcError as error:
        types = [t.sized() for t in map(type_of, operands) if t is not None]
        raise error.attach(where=user_location(), op=op, operands=types) from None


def create(op: OpDef, attrs: dict[str, Any]) -> Any:
    """Apply an op without operands; symbolic sizes can only mean a traced value."""
    if any(isinstance(d, SizeExpr) for item in attrs.values() for d in _parts(item)):
        return build(op, (), attrs, user_location())[0]
    return apply(op, (), attrs)


def _parts(item: Any) -> tuple[Any, ...]:
    return item if isinstance(item, tuple) else (item,)


class Composite(OpDef):
    """A call whose operands' shapes are not known yet; a composition of other ops once they are."""

    kind = Kind.OPAQUE

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        reference: Callable[..., Any],
        operands: int | None,
        samples: tuple[Sample, ...],
        dtypes: tuple[DType, ...],
    ) -> None:
        self.name, self.__doc__ = name, function.__doc__
        self.function, self._reference, self.operands = function, reference, operands
        self.samples, self.dtypes = samples, dtypes

    def __call__(self, *operands: Any, **attrs: Any) -> Any:
        """Run the composition, or keep the call where an operand has no shape yet."""
        if any(known_shape(x) is None for x in operands):
            return apply(self, operands, attrs)
        return self.decompose(*operands, **attrs)

    def infer(self, *types: TensorType, **attrs: Any) -> TensorType | tuple[TensorType, ...]:
        """Return the type(s) of the composition over operands of these types."""
        values = [placeholder(f"x{n}", kind) for n, kind in enumerate(types)]
        result = self.decompose(*values, **attrs)
        return tuple(v.type for v in result) if isinstance(result, tuple) else result.type

    def decompose(self, *inputs: Any, **attrs: Any) -> Any:
        """Run the composition."""
        return self.function(*((inputs,) if self.operands is None else inputs), **attrs)

    def reference(self, *arrays: np.ndarray, **attrs: Any) -> Any:
        """Compute with NumPy."""
        return self._reference(*((arrays,) if self.operands is None else arrays), **attrs)


def composite(
    reference: Callable[..., Any],
    *,
    name: str | None = None,
    operands: int | None = 1,
    samples: tuple[Sample, ...] = (),
    dtypes: tuple[DType, ...] = EVERY,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a function of operands as a `Composite`, for operands without a shape.

    Parameters
    ----------
    reference : callable
        The same with NumPy arrays.
    name : str, optional
        The record's name, where it is not the function's.
    operands : int or None
        How many of the first parameters are operands; None: the first is a sequence of them.
    samples, dtypes : tuple
        As of every record.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        record = register(Composite(
            name or function.__name__, function, reference, operands, samples, dtypes
        ))
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            items = list(bound.arguments.items())
            inputs = items[0][1] if operands is None else [item for _, item in items[:operands]]
            if all(known_shape(x) is not None for x in inputs):
                return function(*args, **kwargs)
            first = 1 if operands is None else operands
            attrs = {key: frozen(item) for key, item in items[first:]}
            return apply(record, tuple(inputs), attrs)  # type: ignore[no-any-return]

        return call

    return decorate


def frozen(item: Any) -> Any:
    """Return an argument as a hashable attribute; lists, slices and ``...`` become tuples."""
    if isinstance(item, slice):
        return ("slice", frozen(item.start), frozen(item.stop), frozen(item.step))
    if item is Ellipsis:
        return ("ellipsis",)
    if isinstance(item, (list, tuple)):
        return tuple(frozen(part) for part in item)
    return item.item() if isinstance(item, np.generic) else item


def as_shape(shape: Any) -> tuple[Dim, ...]:
    """Return a shape given as one size or a sequence of sizes as a tuple of Dims.

    Raises
    ------
    ArgumentError
        When a size is no integer.
    """
    try:
        sizes = (shape,) if _is_size(shape) else tuple(shape)
        return tuple(d if isinstance(d, SizeExpr) else operator.index(d) for d in sizes)
    except TypeError:
        raise ArgumentError(
            f"a shape is an integer or a sequence of them, got {shape!r}", where=user_location()
        ) from None


def _is_size(item: Any) -> bool:
    return isinstance(item, (int, np.integer, SizeExpr))



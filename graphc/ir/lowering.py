"""What an op's ``lower`` works with: operands read at an index, and the builder ``k``.

``lower(k, *operands, **attrs)`` returns the scalar at one output index, ``k.index``. It is free of
targets, loops and schedules. Sizes come from the types of operands and outputs, never from
attributes, so kernels that differ only in sizes are the same kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.ir import expr as E
from graphc.ir.dim import Dim, symbol
from graphc.ir.expr import Axis, Expr, Scalar
from graphc.ir.operations import IDENTITY
from graphc.ir.types import DType, TensorType, bool_, int64


@dataclass(frozen=True, slots=True)
class Operand:
    """An input of the op being lowered: its type, and its scalar at an index."""

    type: TensorType
    read: Callable[[tuple[Expr, ...], Expr | None, int | float | bool], Expr]

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Size of each axis, over the kernel's size variables."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.type.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.type.ndim

    def at(self, *index: Scalar) -> Expr:
        """Return the element at a full multi-index."""
        return self.read(tuple(E.as_expr(i, int64) for i in index), None, 0)

    def at_where(self, mask: Expr, fill: int | float | bool, *index: Scalar) -> Expr:
        """Return the element where ``mask`` holds, else ``fill``, reading nothing there."""
        return self.read(tuple(E.as_expr(i, int64) for i in index), mask, fill)

    def broadcast(self, index: Sequence[Expr]) -> Expr:
        """Return the element that a broadcast result has at ``index`` (axes align at the end)."""
        own = index[len(index) - self.ndim :] if self.ndim else ()
        return self.at(*(0 if d == 1 else i for d, i in zip(self.shape, own, strict=True)))


@dataclass(slots=True)
class Lowering:
    """The builder ``k`` passed to ``lower``.

    Attributes
    ----------
    index : tuple of Expr
        Output index, one i64 scalar for each output axis.
    types : tuple of TensorType
        Output types, over the kernel's size variables.
    memo : dict
        What a node's lowering at one index may leave for those at others.
    """

    index: tuple[Expr, ...]
    types: tuple[TensorType, ...]
    axis_names: Callable[[], str]
    sizes: Callable[[Dim], Dim] = field(default=lambda dim: dim)
    memo: dict[Any, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> DType:
        """Element type of the (first) output."""
        return self.types[0].dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Shape of the (first) output."""
        return self.types[0].shape

    def reduce(
        self, combine: str, extents: Sequence[Dim], body: Callable[..., Expr]
    ) -> Expr:
        """Combine ``body(*indices)`` over all indices below ``extents``.

        Parameters
        ----------
        combine : {"add", "mul", "max", "min", "and", "or"}
        extents : sequence of Dim
        body : callable
            Gets one i64 `Expr` for each extent.
        """
        if any(extent == 0 for extent in extents):
            dtype = body(*(E.index(0) for _ in extents)).dtype
            return E.const(IDENTITY[combine](dtype), dtype)
        # An axis with one index is none: schedules would make a loop of it, innermost perhaps.
        long = [place for place, extent in enumerate(extents) if extent != 1] or [0][: len(extents)]
        axes = {place: Axis(self.axis_names(), extents[place]) for place in long}
        indices = (
            E.index(symbol(axes[place].name) if place in axes else 0)
            for place in range(len(extents))
        )
        return E.reduce(combine, tuple(axes.values()), body(*indices))

    def size(self, dim: Dim, dtype: DType = int64) -> Expr:
        """Return a size of the model as a scalar."""
        return E.cast(E.index(self.sizes(dim)), dtype)

    def const(self, value: int | float | bool, dtype: DType) -> Expr:
        """Return a constant."""
        return E.const(value, dtype)

    def cast(self, x: Expr, dtype: DType) -> Expr:
        """Convert to another type; to bool this is ``x != 0``."""
        if dtype is bool_ and x.dtype is not bool_:
            return x.ne(0)
        return E.cast(x, dtype)

    def select(self, condition: Expr, a: Scalar, b: Scalar) -> Expr:
        """Return ``a`` where ``condition`` holds, else ``b``."""
        return E.select(condition, a, b)

    def apply(self, op: str, *args: Scalar) -> Expr:
        """Apply any operation of `graphc.ir.expr.OPERATIONS` by name."""
        return E.apply(op, *args)

    def maximum(self, a: Scalar, b: Scalar) -> Expr:
        """Return the larger; NaN if either is NaN."""
        return E.apply("max", a, b)

    def minimum(self, a: Scalar, b: Scalar) -> Expr:
        """Return the smaller; NaN if either is NaN."""
        return E.apply("min", a, b)

    def exp(self, x: Expr) -> Expr:
        """Return ``e**x``."""
        return E.apply("exp", x)

    def log(self, x: Expr) -> Expr:
        """Return the natural logarithm."""
        return E.apply("log", x)

    def sqrt(self, x: Expr) -> Expr:
        """Return the square root."""
        return E.apply("sqrt", x)

    def tanh(self, x: Expr) -> Expr:
        """Return the hyperbolic tangent."""
        return E.apply("tanh", x)


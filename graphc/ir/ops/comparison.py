"""Comparisons, logic, tests for special values, and selection. All but ``where`` yield bool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.op import (
    EVERY,
    INTEGERS,
    Binary,
    Kind,
    OpDef,
    Sample,
    Spec,
    Unary,
    register,
    sample,
)
from graphc.ir.operand import apply
from graphc.ir.types import DType, TensorType, as_dtype, bool_, broadcast_shapes, promote, uint8

LOGICAL_DTYPES = (*INTEGERS, bool_)


def unary_samples(low: float = -2.0, high: float = 2.0) -> tuple[Sample, ...]:
    """Return samples of a pointwise op of one operand: plain, 0-d, size 1 and empty."""
    return tuple(sample(Spec(shape, low, high)) for shape in ((3, 4), (), (1,), (0, 2)))


def binary_samples(*ranges: tuple[float, float]) -> tuple[Sample, ...]:
    """Return samples of a pointwise op of two operands: plain and every kind of broadcasting.

    Parameters
    ----------
    *ranges : tuple of float
        Lowest and highest value of the first operand, then of the second.
    """
    (low, high), (low_b, high_b) = (*ranges, (-2.0, 2.0), (-2.0, 2.0))[:2]
    shapes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((3, 4), (3, 4)),
        ((2, 1, 3), (4, 1)),
        ((), (5,)),
        ((), ()),
        ((0, 3), (3,)),
        ((1,), (2, 1)),
    )
    return tuple(sample(Spec(a, low, high), Spec(b, low_b, high_b)) for a, b in shapes)


# -- comparison ------------------------------------------------------------------------------


def _compare(operation: str) -> Callable[..., Any]:
    def lower(k: Any, a: Any, b: Any) -> Any:
        if a.dtype is bool_:  # machines compare numbers
            a, b = k.cast(a, uint8), k.cast(b, uint8)
        return k.apply(operation, a, b)

    return lower


def _truth(name: str, doc: str, lower: Callable[..., Any]) -> Binary:
    return Binary(
        name,
        doc,
        lower=lower,
        reference=getattr(np, name),
        result="bool",
        dtypes=EVERY,
        samples=binary_samples(),
    )


def _comparison(name: str, sign: str, operation: str) -> Binary:
    doc = f"Return whether ``a {sign} b``, element by element, as bool; operands broadcast."
    return _truth(name, doc, _compare(operation))


equal = _comparison("equal", "==", "eq")
not_equal = _comparison("not_equal", "!=", "ne")
less = _comparison("less", "<", "lt")
less_equal = _comparison("less_equal", "<=", "le")
greater = _comparison("greater", ">", "gt")
greater_equal = _comparison("greater_equal", ">=", "ge")


# -- logic -------------------------------------------------------------------------------------


def _logical(word: str) -> Binary:
    doc = f"Return ``a {word} b`` as bool; a number is true unless it is 0 (NaN is true)."
    return _truth(
        f"logical_{word}", doc, lambda k, a, b: k.apply(word, k.cast(a, bool_), k.cast(b, bool_))
    )


logical_and = _logical("and")
logical_or = _logical("or")
logical_xor = _logical("xor")
logical_not = Unary(
    "logical_not",
    "Return ``not x`` as bool; a number is true unless it is 0 (NaN is true).",
    lower=lambda k, x: ~k.cast(x, bool_),
    reference=np.logical_not,
    result="bool",
    dtypes=EVERY,
    samples=unary_samples(),
)


def refuse(op: str, dtype: DType, refused: bool, remedy: str) -> None:
    """Raise DTypeError when an op does not take a type."""
    if refused:
        raise DTypeError(f"{op} is not defined for {dtype.name} operands", remedy=remedy)


class Bitwise(Binary):
    """A pointwise op on the bits of two integers or bools."""

    def infer(self, *types: TensorType, **attrs: Any) -> TensorType:
        """Broadcast the shapes; only integers and bools have bits to combine."""
        dtype = types[0].dtype
        refuse(self.name, dtype, dtype.floating, "Cast the operands to an integer type or bool.")
        return super().infer(*types, **attrs)


def _bitwise(name: str, sign: str, operation: str, reference: Any) -> Bitwise:
    return Bitwise(
        name,
        f"Return ``a {sign} b`` bit by bit, of integers or bools.",
        lower=lambda k, a, b: k.apply(operation, a, b),
        reference=reference,
        dtypes=LOGICAL_DTYPES,
        samples=binary_samples((-50, 50), (-50, 50)),
    )


bitwise_and = _bitwise("bitwise_and", "&", "and", np.bitwise_and)
bitwise_or = _bitwise("bitwise_or", "|", "or", np.bitwise_or)
bitwise_xor = _bitwise("bitwise_xor", "^", "xor", np.bitwise_xor)


class Invert(Unary):
    """A pointwise op on the bits of one integer or bool."""

    def infer(self, *types: TensorType, **attrs: Any) -> TensorType:
        """Return the operand's type; floats have no bits to invert."""
        dtype = types[0].dtype
        refuse(self.name, dtype, dtype.floating, "Cast the operand to an integer type or bool.")
        return types[0]


invert = Invert(
    "invert",
    "Return ``~x`` bit by bit: of a bool its opposite, of a signed integer ``-x - 1``.",
    lower=lambda k, x: ~x,
    reference=np.invert,
    dtypes=LOGICAL_DTYPES,
    samples=unary_samples(-50, 50),
)


# -- special values ------------------------------------------------------------------------------


def _special(name: str, doc: str, test: Callable[..., Any], otherwise: bool) -> Unary:
    def lower(k: Any, x: Any) -> Any:
        return test(k, x) if x.dtype.floating else k.const(otherwise, bool_)

    return Unary(
        name,
        doc,
        lower=lower,
        reference=getattr(np, name),
        result="bool",
        dtypes=EVERY,
        samples=unary_samples(),
    )


_INFINITY = float("inf")
isnan = _special("isnan", "Return whether ``x`` is NaN.", lambda k, x: x.ne(x), False)
isinf = _special(
    "isinf",
    "Return whether ``x`` is plus or minus infinity.",
    lambda k, x: k.apply("abs", x).eq(_INFINITY),
    False,
)
isfinite = _special(
    "isfinite",
    "Return whether ``x`` is neither infinite nor NaN.",
    lambda k, x: k.apply("abs", x) < _INFINITY,
    True,
)


# -- selection -----------------------------------------------------------------------------------


class Where(OpDef):
    """Elements of ``a`` where ``condition`` holds, of ``b`` elsewhere."""

    name, kind, dtypes = "where", Kind.POINTWISE, EVERY
    samples = (
        sample(Spec((3, 4), dtype=bool_), (3, 4), (3, 4)),
        sample(Spec((4,), dtype=bool_), (3, 1), ()),
        sample(Spec((), dtype=bool_), (2,), (2, 2)),
        sample(Spec((2, 0), dtype=bool_), (2, 1), (2, 0)),
        sample(Spec((3, 1), dtype=bool_), (2,), ()),
    )

    def __call__(self, condition: Any, a: Any, b: Any) -> Any:
        """Choose between ``a`` and ``b``, element by element.

        Parameters
        ----------
        condition, a, b : operands
            They broadcast; ``condition`` of another type than bool holds where it is not 0.

        Returns
        -------
        operand
            Of the promoted type of ``a`` and ``b``. What is not chosen gets no gradient.
        """
        return apply(self, (condition, a, b), {})

    def peer(self, dtypes: Sequence[DType | None]) -> DType | None:
        """Leave out the condition: the other two are promoted without it."""
        return super().peer(dtypes[1:])

    def operand_dtypes(self, types: Sequence[TensorType]) -> tuple[DType, ...]:
        """Make the condition bool and promote the other two."""
        dtype = promote(types[1].dtype, types[2].dtype)
        return (bool_, dtype, dtype)

    def infer(self, *types: TensorType) -> TensorType:
        """Broadcast all three shapes."""
        return TensorType(types[1].dtype, broadcast_shapes(*(t.shape for t in types)))

    def vjp(self, g: Any, y: Any, *inputs: Any) -> tuple[Any, ...]:
        """Send the gradient to whichever operand was chosen."""
        if not as_dtype(y.dtype).floating:
            return (None, None, None)
        return (None, where(inputs[0], g, 0.0), where(inputs[0], 0.0, g))

    def lower(self, k: Any, *scalars: Any) -> Any:
        """Select one element."""
        condition, a, b = scalars
        return k.select(condition, a, b)

    def reference(self, *arrays: np.ndarray) -> Any:
        """Choose with NumPy."""
        return np.where(*arrays)


where = register(Where())

"""Writing into some elements of an array: at steps from a first one, or at places that are data.

Both leave the other elements as they are, and take what tells where to write as an operand, so that
one kernel serves every index.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, product, symbol
from graphc.ir.expr import Buffer, Expr
from graphc.ir.loop import Bind, For, If, Let, Stmt, Store
from graphc.ir.op import EVERY, Kind, OpDef, Spec, register, sample
from graphc.ir.types import TensorType, int64, same_shape


class _Assign(OpDef):
    """What both have in common: the first operand is changed, in the shape of one axis."""

    kind, dtypes, gradient = Kind.SCATTER, EVERY, False
    tolerance = {}
    overwrites = 0

    def _checked(self, x: TensorType, where: TensorType, fits: bool) -> TensorType:
        if x.ndim != 1 or where.dtype is not int64 or not fits:
            raise ShapeError(f"{self.name} cannot write into {x} where {where} says")
        return x


class AssignStrided(_Assign):
    """A flat array with values at steps from a first element, one step for each of their axes."""

    name = "assign_strided"
    samples = (
        sample((9,), Spec((2,), 2, 3, int64), (3,)),
        sample((7,), Spec((3,), 1, 2, int64), (4, 1)),
        sample((5,), Spec((1,), 3, 4, int64), ()),
        sample((5,), Spec((3,), 1, 2, int64), (0, 2)),
    )

    def infer(self, x: TensorType, layout: TensorType, values: TensorType) -> TensorType:
        """Return the type of ``x``; ``layout`` has the first place, then the steps."""
        return self._checked(x, layout, same_shape(layout.shape, (1 + values.ndim,)))

    def nest(self, k: Any, outputs: Any, *operands: Buffer) -> tuple[Stmt, ...]:
        """Write each element by itself."""
        (out,), (_, layout, values) = outputs, operands
        name = k.axis_names()
        place: Expr = E.load(layout, E.index(0))
        rest: Dim = symbol(name)
        for axis in reversed(range(len(values.shape))):
            number = rest % values.shape[axis] if axis else rest
            rest = rest // values.shape[axis] if axis else rest
            place = place + E.index(number) * E.load(layout, E.index(1 + axis))
        store = Store(out, place, E.load(values, E.index(symbol(name))))
        return (_each(name, values, (store,)),)

    def reference(self, x: np.ndarray, layout: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Write with NumPy."""
        found, (first, *steps) = x.copy(), layout
        places = np.full(values.shape, first)
        for numbers, step in zip(np.indices(values.shape), steps, strict=True):
            places += numbers * step
        found[places] = values
        return found


class AssignAt(_Assign):
    """A flat array with values at places; what belongs to a negative place is not written."""

    name = "assign_at"
    samples = (
        sample((9,), Spec((1,), 3, 4, int64), (1,)),
        sample((5,), Spec((2, 3), -1, 0, int64), (2, 3)),
        sample((5,), Spec((0,), 0, 1, int64), (0,)),
    )

    def infer(self, x: TensorType, places: TensorType, values: TensorType) -> TensorType:
        """Return the type of ``x``; no place may be there twice."""
        return self._checked(x, places, same_shape(places.shape, values.shape))

    def nest(self, k: Any, outputs: Any, *operands: Buffer) -> tuple[Stmt, ...]:
        """Write each element by itself."""
        (out,), (_, places, values) = outputs, operands
        name, chosen = k.axis_names(), k.axis_names()
        number = E.index(symbol(name))
        place = E.use(chosen, E.load(places, number))
        store = Store(out, place, E.load(values, number))
        body = Let(chosen, E.load(places, number)), If(place >= 0, (store,))
        return (_each(name, values, body),)

    def reference(self, x: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Write with NumPy."""
        found = x.copy()
        found[places[places >= 0]] = values[places >= 0]
        return found


def _each(name: str, values: Buffer, body: tuple[Stmt, ...]) -> For:
    """Return the loop over all values."""
    stop: Expr = E.index(product(values.shape))
    return For(name, E.index(0), stop, body, bind=Bind.PARALLEL)


assign_strided = register(AssignStrided())
assign_at = register(AssignAt())

"""Scalars beside typed operands: which type they take, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import DTypeError
from graphc.ir import expr as E
from graphc.ir.graph import Value, cast, constant, placeholder
from graphc.ir.ops.arithmetic import add
from graphc.ir.ops.comparison import less, where
from graphc.ir.sizes import SizeSolver, solving
from graphc.ir.types import DType, TensorType, bool_, float32, float64, int32, int64, uint8


def value(dtype: DType, *shape: int) -> Value:
    return placeholder("x", TensorType(dtype, shape))


@pytest.mark.parametrize(
    ("dtype", "scalar", "expected"),
    [(uint8, 255, uint8), (uint8, 1.5, float64), (int32, True, int32), (bool_, 3, int64),
     (float32, 1e300, float32), (int64, np.int8(3), int64)],
)  # fmt: skip
def test_a_scalar_is_weak(dtype: DType, scalar: float, expected: DType) -> None:
    assert add(value(dtype, 2), scalar).dtype is expected


@pytest.mark.parametrize(
    ("dtype", "scalar"),
    [(uint8, 256), (uint8, -1), (int32, 2**31), (int64, 2**63), (uint8, np.int64(300))],
)
def test_an_integer_that_would_wrap_is_an_error(dtype: DType, scalar: int) -> None:
    for op in (add, less):
        with pytest.raises(DTypeError, match=rf"{scalar} is out of range for {dtype.name}"):
            op(value(dtype, 2), scalar)


@pytest.mark.parametrize("condition", [bool_, int64, float64], ids=str)
def test_a_scalar_is_weak_beside_what_is_chosen_not_beside_the_condition(condition: DType) -> None:
    chosen = value(condition, 2)
    assert where(chosen, value(int32, 2), 0).dtype is int32
    assert where(chosen, 0.0, value(float32, 2)).dtype is float32


@pytest.mark.parametrize(("number", "expected"), [(300.0, 255), (-1.5, 0), (float("nan"), 0)])
def test_conversion_of_a_constant_saturates(number: float, expected: int) -> None:
    assert E.cast(E.const(number, float32), uint8) is E.const(expected, uint8)
    found = cast(constant(number, float32), uint8)
    array = np.asarray(found.node.inputs[0].node.attrs["value"], np.float32)
    assert found.node.op.reference(array, **found.node.attrs) == expected


def test_a_factor_of_zero_equates_nothing() -> None:
    with solving(SizeSolver()) as solver:
        batch, a, b = solver.fresh("B", 0), solver.fresh("M", 2), solver.fresh("K", 3)
        assert solver.unify(batch * a, batch * b) is not None
        assert (solver.hint(a), solver.hint(b)) == (2, 3)
        assert solver.resolve(a) != solver.resolve(b)

"""Graphs that once compiled to something wrong, each in its smallest form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from checks import check
from gradient_checks import check_gradient

from graphc.ir.dim import symbol
from graphc.ir.graph import Graph, Value, placeholder
from graphc.ir.operand import REGISTRY
from graphc.ir.ops.rearrange import flip, getitem
from graphc.ir.types import TensorType, as_dtype

B, C, H, W = (symbol(name) for name in "BCHW")
SIZES = {"B": 3, "C": 4, "H": 9, "W": 5}


def _input(name: str, *shape: object, dtype: str = "float32") -> Value:
    return placeholder(name, TensorType(as_dtype(dtype), shape))  # type: ignore[arg-type]


def _graph(inputs: tuple[Value, ...], *outputs: Value) -> Graph:
    return Graph("found", inputs, outputs)


def windows_in_a_reduction() -> Graph:
    """A pooled value is reduced in the same kernel: a sum inside a sum."""
    x = _input("x", B, C, H)
    pooled = REGISTRY["avg_pool"](x, 3, 1)
    return _graph((x,), REGISTRY["softmax"](pooled * 0.5, axis=-1))


def in_place_over_a_small_axis() -> Graph:
    """Each element reads a whole line, so the result must not be written over the operand."""
    a, b = _input("a", B, 5, C), _input("b", B, 5, C)
    normal = REGISTRY["layer_norm"](REGISTRY["matmul"](a, b, transpose_b=True), axis=1, eps=0.1)
    return _graph((a, b), REGISTRY["transpose"](normal, (2, 0, 1)))


def in_place_under_another_name() -> Graph:
    """A kernel reads one memory at two places: as it is, and through a reshape, transposed."""
    a = _input("a", 4, 6)
    y = REGISTRY["matmul"](a, a, transpose_b=True)
    turned = REGISTRY["transpose"](REGISTRY["reshape"](y, (2, 8)), (1, 0))
    z = REGISTRY["reshape"](y, (8, 2)) + turned
    return _graph((a,), flip(z, 0))


def sizes_named_like_a_kernel() -> Graph:
    """A graph's own size is called n1, which kernels use for theirs."""
    n1, n0 = symbol("n1"), symbol("n0")
    x, i = _input("x", n1, n0, 7), _input("i", 3, dtype="int32")
    return _graph((x, i), REGISTRY["take"](x, i, axis=2, mode="clip"))


def updates_of_scalars() -> Graph:
    """The old value of an updated scalar is read by the kernel that writes the new one."""
    x, c = _input("x", dtype="int64"), _input("c", 17, dtype="bool")
    new = REGISTRY["maximum"](REGISTRY["cast"](REGISTRY["any"](c), as_dtype("int64")), 1)
    return Graph("found", (x, c), (x * new,), ((x, new),))


def no_input_gives_the_size() -> Graph:
    """The gradient of a sum needs the size of what was summed, and none of its elements."""
    x = _input("x", B, C)
    return _graph((x,), REGISTRY["sum"](x, axis=None))


def cotangent_of_a_clamped_slice() -> Graph:
    """The size of the cotangent alone does not give that of the operand."""
    x = _input("x", H, 3)
    return _graph((x,), getitem(x, (slice(None, 4),)) * 2.0)


def pooling_with_padding() -> Graph:
    """The index arithmetic of the gradient has a negative multiple of a quotient."""
    x = _input("x", B, C, H, W)
    return _graph((x,), REGISTRY["max_pool"](x, 2, 2, 1))


def convolution_with_a_window_of_one() -> Graph:
    """One axis of the window needs a mask, the one after it does not."""
    x, w = _input("x", B, 2, H, 7), _input("w", 2, 1, 2, 1)
    return _graph((x, w), REGISTRY["conv"](x, w, 1, 0, 1, 2))


FORWARD = (
    windows_in_a_reduction,
    in_place_over_a_small_axis,
    in_place_under_another_name,
    updates_of_scalars,
)
GRADIENT = (
    no_input_gives_the_size,
    cotangent_of_a_clamped_slice,
    pooling_with_padding,
    convolution_with_a_window_of_one,
)


@pytest.mark.parametrize("make", FORWARD, ids=lambda make: make.__name__)
def test_agrees_with_the_interpreter(make: Callable[[], Graph]) -> None:
    check(make(), SIZES, 0)


def test_sizes_named_like_a_kernel() -> None:
    check(sizes_named_like_a_kernel(), {"n0": 3, "n1": 4}, 0)


@pytest.mark.parametrize("make", GRADIENT, ids=lambda make: make.__name__)
def test_gradient_agrees_with_the_interpreter(make: Callable[[], Graph]) -> None:
    check_gradient(make(), SIZES, 0)

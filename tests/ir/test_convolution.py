"""Convolution beyond what every record is tested for: loops, adjoints, errors, symbolic sizes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc.ir.ops.arithmetic  # noqa: F401 - what the operators of values mean
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.ir import expr as E
from graphc.ir.dim import symbol
from graphc.ir.expr import Apply, Buffer, Index, Load, Reduce
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.lowering import Lowering, Operand
from graphc.ir.ops.convolution import conv, conv_data_grad, conv_weight_grad
from graphc.ir.ops.transposed_convolution import conv_transpose
from graphc.ir.sizes import SizeSolver, solving
from graphc.ir.types import TensorType, as_dtype, float32
from graphc.passes.differentiate import gradients

CHOICES = [(1, 1), (2, 3)], [(0, 0), (2, 1)], [(1, 1), (2, 1)], [1, 2]
SETTINGS = [
    {"stride": s, "pad": p, "dilate": d, "groups": g} for s, p, d, g in itertools.product(*CHOICES)
]


def values(*shapes, dtype=np.float32):
    return [
        placeholder(f"x{n}", TensorType(as_dtype(dtype), shape)) for n, shape in enumerate(shapes)
    ]


def by_loops(x, w, stride, pad, dilate, groups):
    """Convolve with plain loops over outputs and windows."""
    n, _, *sizes = x.shape
    o, own, *window = w.shape
    counts = [
        (a + 2 * p - d * (k - 1) - 1) // s + 1
        for a, k, s, p, d in zip(sizes, window, stride, pad, dilate)
    ]
    y = np.zeros((n, o, *counts), x.dtype)
    for index in np.ndindex(*y.shape):
        batch, out, *at = index
        first = out // (o // groups) * own
        for channel, *offset in np.ndindex(own, *window):
            place = [i * s + r * d - p for i, s, r, d, p in zip(at, stride, offset, dilate, pad)]
            if all(0 <= i < a for i, a in zip(place, sizes)):
                y[index] += x[(batch, first + channel, *place)] * w[(out, channel, *offset)]
    return y


@pytest.mark.parametrize("settings", SETTINGS)
def test_convolution_by_loops(settings):
    generator = np.random.default_rng(1)
    x = generator.integers(-5, 5, (2, 4, 7, 6))
    w = generator.integers(-5, 5, (2, 4 // settings["groups"], 3, 2))
    expected = by_loops(x, w, **settings)
    np.testing.assert_array_equal(conv.reference(x, w, **settings), expected)
    # <conv(x, w), g> = <x, data_grad(g, w)> = <w, weight_grad(g, x)>, exactly, in integers.
    g = generator.integers(-5, 5, expected.shape)
    product = (expected * g).sum()
    dx = conv_data_grad.reference(g, w, spatial=x.shape[2:], **settings)
    dw = conv_weight_grad.reference(g, x, window=w.shape[2:], **settings)
    assert dx.shape == x.shape
    assert dw.shape == w.shape
    assert (dx * x).sum() == product
    assert (dw * w).sum() == product


@pytest.mark.parametrize("settings", SETTINGS[::3])
def test_gradients_stay_among_the_three(settings):
    x, w = values((2, 4, 7, 6), (2, 4 // settings["groups"], 3, 2))
    found = [conv(x, w, **settings)]
    for _ in range(3):
        found = [v for v in gradients(found, found, [x, w]) if v is not None]
        assert [v.type for v in found] == [x.type, w.type]
        names = {n.op.name for n in Graph("g", (x, w), tuple(found)).nodes}
        assert names <= {"conv", "conv_data_grad", "conv_weight_grad", "add"}


def test_transposed_convolution_restores_the_size():
    x, w = values((2, 6, 4, 5), (6, 3, 3, 3))
    y = conv_transpose(x, w, stride=2, pad=1, output_pad=1)
    assert y.shape == (2, 3, 8, 10)
    assert conv(y, w, stride=2, pad=1).shape == x.shape
    with pytest.raises(ArgumentError, match="output_pad 2 must be less than the stride"):
        conv_transpose(x, w, stride=2, output_pad=2)


# -- lowerings -------------------------------------------------------------------------------------


def lowered(op, shapes, **attrs):
    """Return the lowering over size variables, as compiled programs have it."""
    types, names = [], itertools.count()
    for shape in shapes:
        dims = tuple(symbol(f"n{next(names)}") if n > 8 else n for n in shape)
        types.append(TensorType(float32, dims))

    def operand(position, kind):
        buffer = Buffer(f"p{position}", kind.dtype, kind.shape)
        return Operand(kind, lambda index, mask, fill: E.load(
            buffer, E.flatten(buffer, index), mask=mask, fill=fill
        ))  # fmt: skip

    sizes = [n for shape in shapes for n in shape]
    solver = SizeSolver()
    solver.hints.update({f"n{i}": n for i, n in enumerate(n for n in sizes if n > 8)})
    with solving(solver):
        output = op.infer(*types, **attrs)
    index = tuple(E.index(symbol(f"i{axis}")) for axis in range(output.ndim))
    k = Lowering(index, (output,), lambda: f"r{next(names)}")
    return op.lower(k, *(operand(n, t) for n, t in enumerate(types)), **attrs)


def plain(**changes):
    return {"stride": (1, 1), "pad": (0, 0), "dilate": (1, 1), "groups": 1} | changes


LOWERED = [
    (conv, [(9, 3, 12, 12), (16, 3, 5, 5)], {}),
    (conv_data_grad, [(9, 16, 8, 8), (16, 3, 5, 5)], {"spatial": (12, 12)}),
    (conv_weight_grad, [(9, 16, 8, 8), (9, 3, 12, 12)], {"window": (5, 5)}),
]


@pytest.mark.parametrize(("op", "shapes", "extra"), LOWERED, ids=lambda v: getattr(v, "name", ""))
def test_lowerings_are_plain_sums_of_products(op, shapes, extra):
    found = lowered(op, shapes, **extra, **plain())
    assert isinstance(found, Reduce)
    assert found.combine == "add"
    assert len(found.axes) == 3
    assert isinstance(found.body, Apply)
    assert found.body.op == "mul"
    assert all(isinstance(factor, Load) for factor in found.body.args)
    masks = [factor.mask for factor in found.body.args]
    assert [m is not None for m in masks] == [op is conv_data_grad, False]
    for part in E.walk(found):
        if isinstance(part, Index):
            assert "//" not in str(part.dim)
            assert "%" not in str(part.dim)


def test_padding_guards_only_padded_axes():
    found = lowered(conv, LOWERED[0][1], **plain(pad=(0, 1)))
    data, weights = found.body.args
    assert weights.mask is None
    comparisons = [e for e in E.walk(data.mask) if isinstance(e, Apply) and e.op in ("lt", "ge")]
    assert len(comparisons) == 2


def test_a_window_of_one_needs_no_guard_in_the_gradient():
    found = lowered(conv_data_grad, [(9, 16, 12, 12), (16, 3, 1, 1)], spatial=(12, 12), **plain())
    assert all(factor.mask is None for factor in found.body.args)


# -- types -----------------------------------------------------------------------------------------


def test_the_batch_stays_symbolic_and_sizes_are_canonical():
    solver = SizeSolver()
    n, h, w = solver.fresh("N", 100), solver.fresh("H", 28), solver.fresh("W", 28)
    x = placeholder("x", TensorType(float32, (n, solver.fresh("C", 1), h, w)))
    kernel = placeholder("w", TensorType(float32, (20, 1, 5, 5)))
    with solving(solver):
        same = conv(x, kernel, pad=2)
        half = conv(x, kernel, stride=2, pad=2)
        assert same.shape == (n, 20, h, w)
        assert half.shape == (n, 20, (h - 1) // 2 + 1, (w - 1) // 2 + 1)
        gradient = gradients([half], [half], [x])[0]
    assert gradient.shape == (n, 1, h, w)
    assert [str(c).split("  ")[0] for c in solver.constraints] == ["C == 1"]


def test_a_symbolic_program_runs_for_other_sizes():
    n, h = symbol("N"), symbol("H")
    x = placeholder("x", TensorType(float32, (n, 2, h)))
    w = placeholder("w", TensorType(float32, (3, 2, 3)))
    y = conv(x, w, stride=2, pad=1)
    graph = Graph("g", (x, w), (y, *gradients([y], [y], [x, w])))
    for sizes in ((2, 7), (5, 10)):
        arrays = [np.ones((sizes[0], 2, sizes[1]), np.float32), np.ones((3, 2, 3), np.float32)]
        result, dx, dw = interpret(graph, arrays)
        assert result.shape == (sizes[0], 3, (sizes[1] - 1) // 2 + 1)
        assert (dx.shape, dw.shape) == (arrays[0].shape, arrays[1].shape)


# -- errors ----------------------------------------------------------------------------------------


def test_images_with_channels_last():
    x, w = values((100, 28, 28, 1), (20, 1, 5, 5))
    with pytest.raises(ShapeError) as caught:
        conv(x, w, pad=2)
    text = str(caught.value)
    assert "conv expects (N, C, H, W) with 1 channels, got (100, 28, 28, 1)" in text
    assert "ToTensor()" in text
    assert "transpose((0, 3, 1, 2))" in text
    assert "test_convolution.py" in text


def test_raw_bytes():
    x = values((100, 1, 28, 28), dtype=np.uint8)[0]
    with pytest.raises(DTypeError, match="uint8 data and float32 weights") as caught:
        conv(x, values((20, 1, 5, 5))[0])
    assert '.astype("float32")' in str(caught.value)
    assert "ToTensor()" in str(caught.value)


def test_missing_axes():
    x, w = values((28, 28), (20, 1, 5, 5))
    with pytest.raises(ShapeError, match=r"expects \(N, C, H, W\) with 1 channels, got \(28, 28\)"):
        conv(x, w)
    with pytest.raises(ShapeError, match="weights"):
        conv(w, x, stride=(1, 1))


def test_wrong_channels_and_groups():
    x, w = values((1, 4, 8, 8), (20, 3, 5, 5))
    with pytest.raises(ShapeError, match=r"with 3 channels, got \(1, 4, 8, 8\)"):
        conv(x, w)
    x, w = values((1, 4, 8, 8), (5, 2, 3, 3))
    with pytest.raises(ShapeError, match="5 output channels of conv do not divide into 2 groups"):
        conv(x, w, groups=2)
    with pytest.raises(ArgumentError, match="groups must be a positive integer"):
        conv(x, w, groups=0)


def test_a_window_larger_than_the_input():
    x, w = values((1, 1, 4, 9), (2, 1, 5, 5))
    with pytest.raises(ShapeError, match="5, is larger than spatial axis 0 of the input: 4"):
        conv(x, w)
    with pytest.raises(ShapeError, match="9, is larger"):
        conv(x, w, dilate=2, pad=(1, 0))


def test_settings_that_are_wrong():
    x, w = values((1, 1, 8, 8), (2, 1, 3, 3))
    with pytest.raises(ArgumentError, match="stride must be at least 1"):
        conv(x, w, stride=0)
    with pytest.raises(ArgumentError, match="pad has 2 numbers for 3 spatial axes"):
        conv(x, w, stride=(1, 1, 1), pad=(1, 1))
    with pytest.raises(ArgumentError, match="1, 2 or 3 spatial axes"):
        conv(*values((1, 1, 2, 2, 2, 2), (1, 1, 1, 1, 1, 1)))


def test_gradients_that_do_not_fit():
    g, w = values((1, 2, 5, 5), (2, 1, 3, 3))
    with pytest.raises(ShapeError, match="got 5 windows on spatial axis 0, where 6 fit"):
        conv_data_grad(g, w, spatial=(8, 7))
    with pytest.raises(ShapeError, match="batch sizes of conv_weight_grad differ: 1 and 3"):
        conv_weight_grad(g, values((3, 1, 7, 7))[0], window=(3, 3))

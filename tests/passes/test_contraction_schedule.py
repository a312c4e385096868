"""Contractions: recognised, scheduled, compiled, and equal to the ops' NumPy references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from group_kernels import TARGET, GroupKernel

from graphc.ir.dim import evaluate, symbol
from graphc.ir.graph import Graph, placeholder
from graphc.ir.interp import interpret
from graphc.ir.kernel_printer import print_kernel
from graphc.ir.ops.arithmetic import maximum
from graphc.ir.ops.contraction import matmul
from graphc.ir.ops.convolution import conv, conv_data_grad, conv_weight_grad
from graphc.ir.ops.reduction import sum as sum_
from graphc.ir.ops.transcendental import exp
from graphc.ir.target import Target
from graphc.ir.types import DType, TensorType, float32, float64, int32
from graphc.ir.verify import verify_kernel
from graphc.passes.schedule import contraction, cpu
from graphc.passes.schedule.blocking import blocking
from graphc.passes.schedule.nest import collapse, collapse_reductions, nests
from graphc.passes.schedule.register_tiles import strip_counts, strip_place

B, M, N, K = map(symbol, "BMNK")
SIZES = [
    (1, 1, 1), (1, 300, 130), (2, 50, 70), (7, 17, 33), (33, 7, 100), (100, 33, 17), (17, 100, 1),
    (3, 2, 1000), (130, 310, 200),
]  # fmt: skip
NARROW = [replace(TARGET, vector_bytes=width, registers=16) for width in (32, 16)]
Build = Callable[..., Any]


class Case(GroupKernel):
    """A graph, its plain kernel, and its schedule for a target that this machine covers."""

    def __init__(self, build: Build, types: Sequence[TensorType], target: Target = TARGET):
        inputs = [placeholder(f"x{n}", kind) for n, kind in enumerate(types)]
        built = build(*inputs)
        outputs = built if isinstance(built, tuple) else (built,)
        super().__init__(Graph("case", tuple(inputs), outputs), target)
        items = collapse(collapse_reductions(nests(self.lowered.kernel)))
        self.matched = contraction.match(items)
        if self.matched is not None:
            verify_kernel(self.kernel)


def random(dtype: DType, *shape: int) -> np.ndarray:
    return np.random.standard_normal(shape).astype(dtype.numpy)


def check(case: Case, arrays: Sequence[np.ndarray], matched: bool = True, **bindings: int) -> None:
    """Compare with the oracle, and one call for all iterations with one call for each."""
    assert (case.matched is not None) == matched
    expected = interpret(case.graph, arrays)
    together = case.run(arrays, **bindings)
    apart = case.run(arrays, alone=True, **bindings)
    wide = arrays[0].dtype == np.float64
    for want, found, again in zip(expected, together, apart, strict=True):
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        np.testing.assert_allclose(found, want, rtol=0, atol=scale * (1e-12 if wide else 1e-5))
        np.testing.assert_array_equal(found, again)


def matrices(ta: bool, tb: bool, dtype: DType = float32, target: Target = TARGET) -> Case:
    a, b = (K, M) if ta else (M, K), (N, K) if tb else (K, N)
    return Case(
        lambda x, y: matmul(x, y, transpose_a=ta, transpose_b=tb),
        [TensorType(dtype, a), TensorType(dtype, b)],
        target,
    )


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("tb", [False, True], ids=["n", "t"])
@pytest.mark.parametrize("ta", [False, True], ids=["n", "t"])
def test_matmul(ta, tb, dtype):
    case = matrices(ta, tb, dtype)
    for m, n, k in SIZES:
        a, b = random(dtype, m, k), random(dtype, k, n)
        arrays = [np.ascontiguousarray(a.T if ta else a), np.ascontiguousarray(b.T if tb else b)]
        check(case, arrays, M=m, N=n, K=k)


@pytest.mark.skipif(TARGET.vector_bytes == 16, reason="no wider than the narrowest")
@pytest.mark.parametrize("target", NARROW, ids=["256 bits", "128 bits"])
def test_narrower_vectors(target):
    case = matrices(False, True, float32, target)
    for m, n, k in SIZES:
        check(case, [random(float32, m, k), random(float32, n, k)], M=m, N=n, K=k)
    kinds = f32(B, 3, 11, 9), f32(7, 3, 3, 3)
    case = Case(lambda x, w: conv(x, w, stride=2, pad=1), kinds, target)
    check(case, [random(float32, 3, 3, 11, 9), random(float32, 7, 3, 3, 3)], B=3)


@pytest.mark.parametrize("sizes", [(5, 4, 0), (1, 4, 0), (0, 4, 3), (5, 0, 3), (0, 0, 0)])
@pytest.mark.parametrize("tb", [False, True])
def test_empty(tb, sizes):
    m, n, k = sizes
    b = (n, k) if tb else (k, n)
    check(matrices(False, tb), [random(float32, m, k), random(float32, *b)], M=m, N=n, K=k)


@pytest.mark.parametrize("columns", [10, 25, 64, 90, 700])
def test_deep_sums_are_shared_out_in_narrow_blocks(columns):
    case = matrices(True, False)
    arrays = [random(float32, 5000, 20), random(float32, 5000, columns)]
    check(case, arrays, M=20, N=columns, K=5000)


def test_blocks_cover_the_output_once():
    case = matrices(False, False)
    plan = contraction.Plan(case.matched, TARGET)
    for _ in range(300):
        names = {n: int(10 ** np.random.uniform(0, 4)) for n in case.kernel.sizes}
        count = dict(names)
        for name, size in plan.sizes().items():
            names[name] = evaluate(size, names)
        assert (names["row_blocks"] - 1) * names["row_step"] < count["n0"]
        assert names["row_blocks"] * names["row_step"] >= count["n0"]
        assert (names["width_blocks"] - 1) * names["width_step"] < count["n2"]
        assert names["width_blocks"] * names["width_step"] >= count["n2"]
        assert names["width_step"] <= plan.blocks.columns


TWO_CORES = replace(
    TARGET, cores=2, registers=32, vector_bytes=64, l1_bytes=32 << 10, l2_bytes=1 << 20
)


def starts(ta: bool, tb: bool, **bindings: int) -> tuple[list[int], list[int]]:
    """Return where the rows and where the columns of each block begin, in order."""
    case = matrices(ta, tb, float32, TWO_CORES)
    plan = contraction.Plan(case.matched, TWO_CORES)
    sizes = (evaluate(d, bindings) for d in case.lowered.sizes)
    names = dict(zip(case.kernel.sizes, sizes, strict=True))
    for name, size in plan.sizes().items():
        names[name] = evaluate(size, names)
    found = []
    for p in range(evaluate(case.kernel.extent, names)):
        names["p"] = p
        for let in plan.place():
            names[let.name] = evaluate(let.value.dim, names)
        found.append((names["row0"], names["column0"]))
    rows, columns = zip(*found, strict=True)
    return list(rows), list(columns)


def test_a_core_multiplies_by_the_weights_that_it_updates():
    product, _ = starts(False, True, M=64, N=512, K=100)
    gradient, _ = starts(True, False, M=512, N=700, K=64)
    for units in (product, gradient):
        assert units == sorted(units) and units[len(units) // 2] == 256 > units[len(units) // 2 - 1]


def test_a_layer_with_more_inputs_than_units_shares_out_the_inputs():
    units, inputs = starts(False, True, M=1024, N=512, K=100)
    assert inputs == sorted(inputs) and units != sorted(units)


@pytest.mark.parametrize("vectors", [2, 3])
def test_strips_cover_all_columns_once(vectors):
    lanes, columns = 8, symbol("columns")
    counts, place = strip_counts(columns, vectors, lanes), strip_place(columns, vectors, lanes)
    for count in range(200):
        sizes = {"columns": count}
        wides, strips = (evaluate(d, sizes) for d in counts)
        ends, widths = [0], []
        for strip in range(strips):
            start, wide = (evaluate(d, sizes | {"strip": strip, "wides": wides}) for d in place)
            assert start == ends[-1]
            ends.append(start + wide)
            widths.append(-(-wide // lanes))
        assert ends[-1] == count
        assert widths.count(1) <= (1 if vectors == 2 or count <= lanes else 0)
        assert all(1 <= width <= vectors for width in widths)


@pytest.mark.parametrize("ta", [False, True], ids=["n", "t"])
@pytest.mark.parametrize("tb", [False, True], ids=["n", "t"])
def test_which_factor_is_read_in_place(ta, tb):
    plan = contraction.Plan(matrices(ta, tb).matched, TARGET)
    assert (plan.in_place is not None) == (not ta)
    assert (plan.strip is not None) == (tb and not ta)
    assert plan.in_place is None or plan.in_place.buffer.name == ("p1" if tb else "p0")


def test_products_of_a_batch_are_not_turned():
    kinds = [TensorType(float32, (B, M, K)), TensorType(float32, (B, N, K))]
    case = Case(lambda x, y: matmul(x, y, transpose_b=True), kinds)
    plan = contraction.Plan(case.matched, TARGET)
    assert plan.strip is None and plan.in_place is not None


@pytest.mark.parametrize("tb", [False, True])
def test_the_number_of_cores_changes_no_bit(tb):
    a, b = random(float32, 70, 500), random(float32, *((90, 500) if tb else (500, 90)))
    found = [
        matrices(False, tb, target=replace(TARGET, cores=cores)).run([a, b], M=70, N=90, K=500)[0]
        for cores in (1, 2, 3, 64)
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_sums_are_exact_where_floats_are():
    """Small integers have exact products and sums: any lost or doubled term would show."""
    case = matrices(False, True)
    a = np.random.randint(-8, 9, (50, 700)).astype(np.float32)
    b = np.random.randint(-8, 9, (70, 700)).astype(np.float32)
    (found,) = case.run([a, b], M=50, N=70, K=700)
    np.testing.assert_array_equal(found, a @ b.T)


@pytest.mark.parametrize("tb", [False, True])
def test_batches(tb):
    b = (B, N, K) if tb else (B, K, N)
    case = Case(
        lambda x, y: matmul(x, y, transpose_b=tb),
        [TensorType(float32, (2, B, M, K)), TensorType(float32, b)],
    )
    assert len(case.matched.batch) == 1
    arrays = [random(float32, 2, 3, 9, 20), random(float32, 3, *((33, 20) if tb else (20, 33)))]
    check(case, arrays, B=3, M=9, N=33, K=20)


def test_weights_shared_by_a_batch():
    case = Case(matmul, [TensorType(float32, (B, M, K)), TensorType(float32, (K, N))])
    check(case, [random(float32, 3, 9, 20), random(float32, 20, 33)], B=3, M=9, N=33, K=20)


def test_bias_and_activation():
    case = Case(
        lambda x, w, c: maximum(matmul(x, w, transpose_b=True) + c, 0.0),
        [TensorType(float32, s) for s in ((B, K), (N, K), (N,))],
    )
    arrays = [random(float32, *s) for s in ((50, 90), (37, 90), (37,))]
    check(case, arrays, B=50, N=37, K=90)


def test_two_stores():
    def both(x, w, c):
        before = matmul(x, w) + c
        return before, maximum(before, 0.0) * 2.0

    case = Case(both, [TensorType(float32, s) for s in ((B, K), (K, N), (N,))])
    arrays = [random(float32, *s) for s in ((50, 90), (90, 37), (37,))]
    check(case, arrays, B=50, N=37, K=90)


def test_update_in_place():
    case = Case(
        lambda w, x, g: w - matmul(g, x, transpose_a=True) * 0.5,
        [TensorType(float32, s) for s in ((N, K), (B, K), (B, N))],
    )
    w, x, g = (random(float32, *s) for s in ((37, 90), (50, 90), (50, 37)))
    (expected,) = interpret(case.graph, [w, x, g])
    _, sizes, extent, _ = case.arguments([w, x, g], B=50, N=37, K=90)
    case.call([w, x, g, w], sizes, 0, extent)
    np.testing.assert_allclose(w, expected, atol=1e-5)


@pytest.mark.parametrize("rows", [3, 8, 12, 37, 300])
def test_updates_run_beside_the_products_of_the_next_tile(rows):
    """Where the number of rows is known; more than one block of depth, strips of all widths."""
    kinds = [TensorType(float32, s) for s in ((rows, K), (B, K), (B, rows))]
    case = Case(lambda w, x, g: w - matmul(g, x, transpose_a=True) * w, kinds)
    assert "pending" in print_kernel(case.kernel)
    for depth, columns in ((1, 5), (50, 90), (400, 330), (0, 20), (7, 0)):
        shapes = (rows, columns), (depth, columns), (depth, rows)
        check(case, [random(float32, *s) for s in shapes], B=depth, K=columns)


def requests(text: str, name: str) -> int:
    """Return at how many places of a kernel lines of a buffer are asked for."""
    return text.count(f"prefetch {name}[")


def test_what_stores_touch_at_their_own_place_is_asked_for_beside_the_products():
    shapes = (N, K), (N, K), (B, K), (B, N), (K,)
    kinds = [TensorType(float32, s) for s in shapes]

    def step(w, m, x, g, bias):
        moved = m * 0.9 + matmul(g, x, transpose_a=True) + bias
        return w - moved, moved

    text = print_kernel(Case(step, kinds).kernel)
    assert [requests(text, name) for name in ("p0", "p1", "o0", "o1", "p4")] == [2, 2, 2, 2, 0]
    assert text.count(" to write\n") == 4


@pytest.mark.parametrize(
    ("ta", "tb", "asked"),
    [(False, False, "p1"), (False, True, "p0"), (True, False, "p0 p1"), (True, True, "p0 p1")],
)
def test_what_the_next_stretch_of_the_depth_copies_is_asked_for(ta, tb, asked):
    text = print_kernel(matrices(ta, tb).kernel)
    expected = [1 if name in asked else 0 for name in ("p0", "p1")]
    assert [requests(text, name) for name in ("p0", "p1")] == expected


@pytest.mark.parametrize("sizes", [(50, 37, 90), (3, 37, 90)])
def test_updates_that_read_each_other_in_place(sizes):
    """A weight and its momentum, both written where they were read."""

    def step(w, m, x, g):
        moved = m * 0.9 + matmul(g, x, transpose_a=True)
        return w - moved * m, moved + w

    shapes = (N, K), (N, K), (B, K), (B, N)
    case = Case(step, [TensorType(float32, s) for s in shapes])
    b, n, k = sizes
    arrays = [random(float32, *s) for s in ((n, k), (n, k), (b, k), (b, n))]
    expected = interpret(case.graph, arrays)
    _, numbers, extent, _ = case.arguments(arrays, B=b, N=n, K=k)
    case.call([*arrays, *arrays[:2]], numbers, 0, extent)
    for found, right in zip(arrays[:2], expected, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-4)


def test_what_is_the_same_for_all_elements_is_computed_ahead_of_the_loops():
    case = Case(
        lambda x, w, rate: matmul(x, w) * (exp(rate) - 1.0),
        [TensorType(float32, s) for s in ((M, K), (K, N), ())],
    )
    scheduled = print_kernel(cpu.schedule(case.lowered.kernel, TARGET)).splitlines()
    (line,) = (text for text in scheduled if "p2[" in text)
    assert line == "  same0 = exp(p2[0]) - 1.0"
    arrays = [random(float32, 20, 50), random(float32, 50, 30), np.float32(0.5)[...]]
    check(case, arrays, M=20, N=30, K=50)


def test_operand_with_arithmetic():
    case = Case(
        lambda x, w: matmul(maximum(x, 0.0), w * 2.0, transpose_b=True),
        [TensorType(float32, (M, K)), TensorType(float32, (N, K))],
    )
    check(case, [random(float32, 20, 50), random(float32, 30, 50)], M=20, N=30, K=50)


def f32(*shape: Any) -> TensorType:
    return TensorType(float32, shape)


CONVOLUTIONS = {
    "padded": ((3, 5, 9, 11), (6, 5, 3, 3), dict(pad=1)),
    "lenet": ((4, 2, 14, 14), (20, 2, 5, 5), dict(pad=2)),
    "pointwise": ((3, 12, 8, 8), (20, 12, 1, 1), {}),
    "one channel": ((3, 1, 9, 11), (1, 1, 3, 3), dict(pad=1)),
    "small pointwise": ((9, 12, 3, 3), (20, 12, 1, 1), {}),
    "strided": ((2, 3, 13, 12), (5, 3, 3, 3), dict(stride=2, pad=1)),
    "dilated": ((2, 3, 13, 12), (5, 3, 3, 2), dict(stride=(1, 2), pad=(2, 0), dilate=(2, 1))),
    "wide": ((1, 2, 3, 700), (4, 2, 3, 3), dict(pad=1)),
    "one axis": ((3, 4, 40), (6, 4, 5), dict(stride=2, pad=2)),
    "large window": ((2, 3, 20, 20), (5, 3, 11, 11), dict(pad=5)),
}


def _convolution(name: str, op: str, dtype: DType = float32) -> tuple[Case, list, dict[str, int]]:
    x, w, attrs = CONVOLUTIONS[name]
    data, weights = random(dtype, *x), random(dtype, *w)
    kinds = TensorType(dtype, (B, *x[1:])), TensorType(dtype, w)
    out = Case(lambda a, b: conv(a, b, **attrs), kinds).graph.outputs[0].type.shape
    g = random(dtype, x[0], *out[1:])
    of_g = TensorType(dtype, (B, *out[1:]))
    if op == "conv":
        case = Case(lambda a, b: conv(a, b, **attrs), kinds)
        arrays = [data, weights]
    elif op == "data":
        case = Case(lambda a, b: conv_data_grad(a, b, spatial=x[2:], **attrs), (of_g, kinds[1]))
        arrays = [g, weights]
    else:
        case = Case(lambda a, b: conv_weight_grad(a, b, window=w[2:], **attrs), (of_g, kinds[0]))
        arrays = [g, data]
    return case, arrays, {"B": x[0]}


@pytest.mark.parametrize("op", ["conv", "data", "weights"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name, op):
    case, arrays, bindings = _convolution(name, op)
    check(case, arrays, **bindings)


@pytest.mark.parametrize("op", ["conv", "data", "weights"])
def test_convolution_in_float64(op):
    case, arrays, bindings = _convolution("padded", op, float64)
    check(case, arrays, **bindings)


def test_convolution_with_bias_and_activation():
    case = Case(
        lambda x, w, c: maximum(conv(x, w, pad=1) + c, 0.0),
        [f32(B, 3, 9, 9), f32(12, 3, 3, 3), f32(12, 1, 1)],
    )
    arrays = [random(float32, *s) for s in ((5, 3, 9, 9), (12, 3, 3, 3), (12, 1, 1))]
    check(case, arrays, B=5)


def test_one_compiled_kernel_serves_every_batch_size():
    case = Case(lambda x, w: conv(x, w, pad=2), [f32(B, 2, 14, 14), f32(20, 2, 5, 5)])
    weights = random(float32, 20, 2, 5, 5)
    for batch in (1, 2, 9):
        check(case, [random(float32, batch, 2, 14, 14), weights], B=batch)


@pytest.mark.parametrize("op", ["conv", "data", "weights"])
def test_no_access_out_of_bounds(op):
    """Plain Python raises where compiled code would read or write what is not its own."""
    case, arrays, bindings = _convolution("padded", op)
    small = [a[:1] if a.shape[0] == 3 else a for a in arrays]
    (found,) = case.run_as_python(small, B=1)
    (expected,) = case.run(small, B=1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("tb", [False, True])
def test_engines_agree(tb):
    case = matrices(False, tb)
    arrays = [random(float32, 9, 21), random(float32, *((19, 21) if tb else (21, 19)))]
    found, expected = case.run_as_python(arrays, M=9, N=19, K=21), case.run(arrays, M=9, N=19, K=21)
    np.testing.assert_array_equal(found[0], expected[0])


# -- what is recognised ------------------------------------------------------------------------


def test_columns_are_where_stores_are_contiguous():
    matched = matrices(True, True).matched
    assert [a.extent for a in matched.columns] == [symbol("n2")]
    assert [a.extent for a in matched.rows] == [symbol("n1")]


@pytest.mark.parametrize(
    ("build", "types"),
    [
        (lambda x, y: x * y, [f32(M, N), f32(M, N)]),
        (lambda x: sum_(x * x, axis=1), [f32(M, N)]),
        (lambda x, y: sum_(matmul(x, y), axis=1), [f32(M, K), f32(K, N)]),
        (lambda x, y: matmul(x, y), [TensorType(int32, (M, K)), TensorType(int32, (K, N))]),
        (lambda x, y: matmul(x, y), [f32(M, K), f32(K)]),
        (lambda x, w: conv(x, w, groups=4), [f32(B, 4, 9, 9), f32(4, 1, 3, 3)]),
        (lambda x, w: conv(x, w, pad=1, groups=4), [f32(B, 4, 9, 9), f32(4, 1, 3, 3)]),
    ],
    ids=["no sum", "square", "two sums", "integers", "vector", "depthwise", "padded depthwise"],
)
def test_left_to_the_plain_schedule(build, types):
    assert Case(build, types).matched is None


def test_typical_layers_have_work_for_several_threads():
    dense = matrices(False, True).kernel
    names = {"n0": 100, "n1": 2450, "n2": 500}
    assert evaluate(dense.extent, names) >= 4
    assert evaluate(dense.work, names) > 10_000
    for name in ("conv", "data", "weights"):
        case, _, _ = _convolution("lenet", name)
        sizes = [evaluate(d, {"B": 100}) for d in case.lowered.sizes]
        assert evaluate(case.kernel.extent, dict(zip(case.kernel.sizes, sizes, strict=True))) >= 2


@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("l2_bytes", [256 << 10, 1 << 20, 4 << 20])
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("in_place", [False, True])
def test_blocks_fit_caches_and_registers(in_place, dtype, l2_bytes, registers, vector_bytes):
    target = replace(TARGET, vector_bytes=vector_bytes, registers=registers, l2_bytes=l2_bytes)
    b = blocking(target, dtype, in_place)
    assert b.tile_rows * b.tile_vectors <= registers - b.tile_vectors - 1
    assert b.rows % b.tile_rows == 0 and b.columns % b.tile_columns == 0
    elements = b.rows * b.depth + b.depth * b.columns + b.rows * b.columns
    assert elements * dtype.item_bytes <= max(l2_bytes, 256 << 10)

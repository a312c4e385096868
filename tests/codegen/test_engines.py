"""Hand-written scheduled kernels: compiled by each engine, against plain Python and NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scheduled_kernels import (
    TARGET,
    apply_kernel,
    micro_kernel,
    padded_shift,
    pointwise,
    row_sums,
    run_both,
    run_native,
    same_bits,
    scratch,
    sized,
    take_rows,
    transpose,
    whole_powers,
)

from graphc import config
from graphc.codegen import compiler, llvm_compile
from graphc.codegen.compiler import compile_kernels
from graphc.codegen.python_engine import run_python
from graphc.codegen.python_text import source
from graphc.errors import CompileError
from graphc.ir import expr as E
from graphc.ir.dim import Dim, dim_max, dim_min, symbol
from graphc.ir.dim import evaluate as evaluate_dim
from graphc.ir.expr import Axis, Buffer, index
from graphc.ir.loop import Assign, Declare, For, Kernel, Let, Store
from graphc.ir.operations import OPERATIONS
from graphc.ir.scalar_math import REFERENCES
from graphc.ir.types import (
    DTYPES,
    DType,
    bool_,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
    uint32,
    uint64,
)

RANDOM = np.random.default_rng(7)


@pytest.fixture(autouse=True, params=list(compiler.ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs under every engine."""
    with config.options(engine=request.param, verify=True):
        yield


def object_code(kernel: Kernel) -> bytes:
    """Compile a kernel with the engine of the test."""
    text = compiler.current_engine().source(kernel, TARGET)
    return compiler.object_code(text, TARGET)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 37, 64])
def test_pointwise_with_masked_tail(n: int) -> None:
    x = floats(n + 1)[1:]  # aligned to its item only
    (y,) = run_both(pointwise(), [x.copy(), np.zeros(n, np.float32)], [n], 0, n)
    np.testing.assert_allclose(y, np.maximum(x * x + 0.5, 0) / (x * x + 1), rtol=1e-6)


def test_only_the_given_iterations_are_written() -> None:
    out = np.full(40, 5, np.float32)
    run_both(pointwise(), [floats(40), out], [40], 8, 29)
    assert (out[:8] == 5).all() and (out[29:] == 5).all() and (out[8:29] != 5).all()


@pytest.mark.parametrize("n", [0, 3, 64, 131])
def test_reduction_with_register_accumulators(n: int) -> None:
    x = floats(5, n)
    (y,) = run_both(row_sums(), [x, np.zeros(5, np.float32)], [5, n], 0, 5)
    np.testing.assert_allclose(y, x.sum(axis=1), rtol=1e-4, atol=1e-5)


def test_gather() -> None:
    table, ids = floats(9, 21), np.array([3, 0, 8, 3], np.int32)
    (y,) = run_both(take_rows(), [table, ids, np.zeros((4, 21), np.float32)], [4, 9, 21], 0, 4)
    np.testing.assert_array_equal(y, table[ids])


@pytest.mark.parametrize("run", [run_native, run_python])
def test_fail_reports_code_and_details(run: Callable[..., int]) -> None:
    ids, out, error = np.array([3, 12], np.int32), np.zeros((2, 4), np.float32), []
    status = run(take_rows(), [floats(9, 4), ids, out], [2, 9, 4], 0, 2, error)
    assert status != 0
    assert error[:4] == [7, 12, 9, 1]


def test_guarded_scalar_loads() -> None:
    x = floats(6)
    (y,) = run_both(padded_shift(), [x, np.zeros(6, np.float32)], [6], 0, 6)
    np.testing.assert_array_equal(y, np.concatenate([[18, 18], x[:4] * 2]).astype(np.float32))


@pytest.mark.parametrize(("rows", "lanes"), [(16, 16), (4, 16), (16, 4), (8, 8)])
def test_transposing_store(rows: int, lanes: int) -> None:
    x = floats(32, 48)
    kernel = transpose(rows, lanes)
    (y,) = run_both(kernel, [x, np.zeros((48, 32), np.float32)], [32, 48], 0, 32 // rows)
    np.testing.assert_array_equal(y, x.T)
    assert "scatter" not in compiler.llvm_ir(kernel, TARGET)


def test_matrix_product_in_registers() -> None:
    a, b = floats(2, 10, 8), floats(2, 10, 48)
    (c,) = run_both(micro_kernel(), [a, b, np.zeros((2, 8, 48), np.float32)], [10], 0, 2)
    np.testing.assert_allclose(c, np.einsum("pkm,pkn->pmn", a, b), rtol=1e-5, atol=1e-5)
    if TARGET.vector_bytes == 64:  # 24 accumulators stay in registers: nothing is spilled
        lines = compiler.assembly(micro_kernel(), TARGET).splitlines()
        assert sum("vfmadd" in line for line in lines) >= 24
        assert not any("vmov" in line and "(%rsp" in line for line in lines)


def test_scratch_and_streaming() -> None:
    x = floats(3, 64)
    (y,) = run_both(scratch(), [x, np.zeros((3, 64), np.float32)], [3], 0, 3)
    np.testing.assert_array_equal(y, x[:, ::-1] * np.float32(3))
    if TARGET.triple.startswith("x86_64"):
        assembly = compiler.assembly(scratch(), TARGET)
        assert all(word in assembly for word in ("vmovntps", "sfence", "prefetcht0"))
        assert ("prefetchw" in assembly) == ("+prfchw" in TARGET.features)


# -- every operation in every dtype ----------------------------------------------------------

INTEGERS = [d for d in DTYPES if d.integer]
FLOATS = [float32, float64]
NUMBERS = [*FLOATS, *INTEGERS]
DEFINED = {
    **{op: DTYPES for op in ("add", "mul", "min", "max", "lt", "le", "gt", "ge", "eq", "ne")},
    **{op: NUMBERS for op in ("sub", "floordiv", "rem", "neg", "abs", "floor", "ceil", "trunc")},
    **{op: [*INTEGERS, bool_] for op in ("and", "or", "xor", "not")},
    **{op: INTEGERS for op in ("mod", "shl", "shr")},
    **{op: FLOATS for op in ("div", "sqrt", "fma", "scale")},
    # NumPy rounds 64-bit integers as float64, which has too few bits
    "round": [d for d in NUMBERS if d.floating or d.item_bytes < 8],
    "mulhi": [uint32], "select": DTYPES,
}  # fmt: skip


def special(dtype: DType) -> np.ndarray:
    """Values at which operations go wrong."""
    if dtype is bool_:
        return np.array([False, True])
    if dtype.floating:
        info = np.finfo(dtype.numpy)
        items = [0, 0.5, 1, 1.5, 2.5, 3, 7, 0.1, 1e-3, 300, 2.0**31, 2.0**63, 1e19, info.max,
                 info.tiny, info.smallest_subnormal, np.inf]  # fmt: skip
        return np.array([*items, *(-x for x in items), np.nan]).astype(dtype.numpy)
    limits = np.iinfo(dtype.numpy)
    near = [0, 1, 2, 3, 7, 8, 31, 63, 100, limits.max, limits.max - 1, limits.min, limits.min + 1]
    return np.array([*near, *([-1, -2, -7, -8, -100] if dtype.kind == "i" else [])], dtype.numpy)


def pairs(dtype: DType, count: int) -> list[np.ndarray]:
    """All tuples of special values, padded to whole vectors with random ones."""
    values = special(dtype)
    picked = values if count < 3 else values[:: 2 if dtype.floating else 1][:16]
    columns = [c.ravel() for c in np.meshgrid(*[picked] * count)]
    padding = -len(columns[0]) % 16
    return [np.concatenate([c, RANDOM.choice(values, padding)]) for c in columns]


def evaluate(
    value: Callable[..., object], columns: list[np.ndarray], dtypes: tuple[DType, ...],
    result: DType,
) -> np.ndarray:  # fmt: skip
    """Run scalars and vectors, compiled and as Python; all agree."""
    found = []
    size = len(columns[0])
    for lanes in (1, 16):
        kernel = apply_kernel(value, dtypes, result, lanes)
        buffers = [*(c.copy() for c in columns), np.zeros(size, result.numpy)]
        found += run_both(kernel, buffers, [size], 0, size)
    same_bits(*found)
    return found[0]


def reference(op: str, columns: list[np.ndarray], result: DType) -> np.ndarray:
    with np.errstate(all="ignore"):
        expected = np.asarray(REFERENCES[op](*columns), result.numpy)
    return expected


@pytest.mark.parametrize(
    ("op", "dtype"), [(op, d) for op, ds in DEFINED.items() for d in ds], ids=str
)
def test_operation(op: str, dtype: DType) -> None:
    rule = OPERATIONS[op]
    result = bool_ if rule.result == "bool" else dtype
    if op == "select":
        columns = pairs(dtype, 2)
        condition = columns[0] != columns[1]
        columns, dtypes = [condition, *columns], (bool_, dtype, dtype)
    else:
        columns, dtypes = pairs(dtype, rule.arity), (dtype,) * rule.arity
    if op == "scale":
        columns[1] = whole_powers(*columns)
    found = evaluate(lambda *xs: E.apply(op, *xs), columns, dtypes, result)
    same_bits(found + 0, reference(op, columns, result) + 0)  # of zeros NumPy may take either


def test_every_machine_operation_is_tested() -> None:
    machine = {op for op, rule in OPERATIONS.items() if rule.machine}
    assert machine == set(DEFINED) | {"cast", "bitcast"}


def saturated(x: np.ndarray, dtype: DType) -> np.ndarray:
    if dtype is bool_:
        return x != 0
    if x.dtype.kind != "f" or dtype.floating:
        with np.errstate(all="ignore"):
            return x.astype(dtype.numpy)
    limits = np.iinfo(dtype.numpy)
    items = [0 if np.isnan(v) else limits.max if v > limits.max else limits.min
             if v < limits.min else int(v) for v in x.tolist()]  # fmt: skip
    return np.array(items, dtype.numpy)


@pytest.mark.parametrize("old", DTYPES, ids=str)
def test_cast(old: DType) -> None:
    (x,) = pairs(old, 1)
    for new in DTYPES:
        if new is not old:
            found = evaluate(lambda v, new=new: E.cast(v, new), [x], (old,), new)
            same_bits(found, saturated(x, new))


@pytest.mark.parametrize(("old", "new"), [(float32, uint32), (uint64, float64), (int8, uint8)])
def test_bitcast(old: DType, new: DType) -> None:
    (x,) = pairs(old, 1)
    found = evaluate(lambda v: E.bitcast(v, new), [x], (old,), new)
    same_bits(found, x.view(new.numpy))


@pytest.mark.parametrize(("op", "dtype"), [("div", int32), ("sqrt", int64), ("mod", float32),
                                           ("neg", bool_), ("mulhi", uint64)])  # fmt: skip
def test_undefined_operation_is_an_error(op: str, dtype: DType) -> None:
    arity = OPERATIONS[op].arity
    kernel = apply_kernel(lambda *xs: E.apply(op, *xs), (dtype,) * arity, dtype, 1)
    with pytest.raises(CompileError, match=f"{op} is not defined on {dtype}"):
        object_code(kernel)


@pytest.mark.parametrize("op", ["add", "mul", "max", "min"])
@pytest.mark.parametrize("tile", [(16,), (4, 16), (3, 5), (2, 3, 8), (7, 1)])
def test_fold_is_a_tree_by_halves(op: str, tile: tuple[int, ...]) -> None:
    size = int(np.prod(tile))
    p0, o0 = Buffer("p0", float32, (size,)), Buffer("o0", float32, (1,))
    value = E.load(p0, index(0), tile, E.row_major(tile))
    kernel = Kernel("fold", (p0, o0), 1, (), (Store(o0, index(0), E.fold(op, value)),))
    x = floats(size)
    (y,) = run_both(kernel, [x, np.zeros(1, np.float32)], [], 0, 1)
    expected = {"add": x.sum(), "mul": x.prod(), "max": x.max(), "min": x.min()}[op]
    np.testing.assert_allclose(y[0], expected, rtol=1e-4)


def test_strided_tiles_broadcast_loads_and_masked_gathers() -> None:
    n = symbol("n")
    p0, o0 = Buffer("p0", float32, (200,)), Buffer("o0", float32, (3, 8))
    strided = E.load(p0, index(1), (3, 8), (n, 5))
    repeated = E.load(p0, index(2), (3, 8), (1, 0))
    mask = E.load(Buffer("m", bool_, (8,)), index(0), (8,), (1,))
    masked = E.load(p0, index(0), (3, 8), (8, 3), mask, -1.0)
    value = strided + repeated * masked
    params = (p0, Buffer("m", bool_, (8,)), o0)
    store = Store(o0, index(0), value, (8, 1))
    kernel = Kernel("strided", params, 1, ("n",), (store,))
    x, m = floats(200), np.array([1, 0, 0, 1, 1, 0, 1, 1], bool)
    (y,) = run_both(kernel, [x, m, np.zeros((3, 8), np.float32)], [31], 0, 1)
    rows, lanes = np.arange(3)[:, None], np.arange(8)
    picked = np.where(m, x[8 * rows + 3 * lanes], np.float32(-1))
    np.testing.assert_array_equal(y, x[1 + 31 * rows + 5 * lanes] + x[2 + rows] * picked)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("lanes", [4, 16, 64])
@pytest.mark.parametrize("stride", [2, 3, 4])
def test_near_elements(stride: int, lanes: int, masked: bool) -> None:
    count = (lanes - 1) * stride + 3
    p0, m = Buffer("p0", float32, (count,)), Buffer("m", bool_, (lanes,))
    mask = E.load(m, index(0), (lanes,), (1,)) if masked else None
    value = E.load(p0, index(2), (lanes,), (stride,), mask, -1.0)
    o0 = Buffer("o0", float32, (lanes,))
    kernel = Kernel("near", (p0, m, o0), 1, (), (Store(o0, index(0), value, (1,)),))
    x, kept = floats(count), np.arange(lanes) % 3 > 0
    (y,) = run_both(kernel, [x, kept, np.zeros(lanes, np.float32)], [], 0, 1)
    np.testing.assert_array_equal(y, np.where(kept | (not masked), x[2::stride], np.float32(-1)))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("lanes", [2, 4, 16, 64])
@pytest.mark.parametrize("stride", [2, 3, 4, 5])
def test_stores_apart_leave_what_is_between(stride: int, lanes: int, masked: bool) -> None:
    count = (lanes - 1) * stride + 3
    p0, m = Buffer("p0", float32, (lanes,)), Buffer("m", bool_, (lanes,))
    mask = E.load(m, index(0), (lanes,), (1,)) if masked else None
    o0 = Buffer("o0", float32, (count,))
    store = Store(o0, index(2), E.load(p0, index(0), (lanes,), (1,)), (stride,), mask)
    x, kept = floats(lanes), np.arange(lanes) % 3 > 0
    before = floats(count) + 9
    expected = before.copy()
    expected[2::stride] = np.where(kept | (not masked), x, expected[2::stride])
    (y,) = run_both(Kernel("apart", (p0, m, o0), 1, (), (store,)), [x, kept, before], [], 0, 1)
    np.testing.assert_array_equal(y, expected)


def test_scatter_with_mask_and_strides() -> None:
    o0, o1 = Buffer("o0", int32, (40,)), Buffer("o1", int32, (40,))
    lanes = E.iota(8)
    body = (
        Store(o0, lanes * 3 + 1, E.cast(lanes, int32), mask=lanes < 5),
        Store(o1, index(2), E.cast(lanes, int32), (4,), mask=lanes > 2),
    )
    outputs = [np.full(40, -1, np.int32) for _ in range(2)]
    run_both(Kernel("scatter", (o0, o1), 2, (), body), outputs, [], 0, 1)
    assert outputs[0][1:14:3].tolist() == [0, 1, 2, 3, 4] and (outputs[0] >= 0).sum() == 5
    assert outputs[1][14::4][:5].tolist() == [3, 4, 5, 6, 7] and (outputs[1] >= 0).sum() == 5


i, n = symbol("i"), symbol("n")


@pytest.mark.parametrize("dim", [
    (i - 3) // 4, (i - 9) % 8, (i - 5) // 3, (i * 2 - 7) % 5, (i - 6) // n, (3 - i) % n,
    dim_min(i, n), dim_max(3 - i, i * n), i // 4 * 4 - i * n * n + 2, (7 - 2 * i) // 4 * (i % 3),
    -i, (i + n) // 2 % 3,
], ids=str)  # fmt: skip
def test_index_arithmetic_rounds_down(dim: Dim) -> None:
    (y,) = run_both(sized(dim), [np.zeros(12, np.int64)], [3], 0, 12)
    assert y.tolist() == [evaluate_dim(dim, {"i": k, "n": 3}) for k in range(12)]


# -- the text --------------------------------------------------------------------------------

KERNELS = {
    "pointwise": pointwise, "row_sums": row_sums, "take_rows": take_rows,
    "transpose": transpose, "micro_kernel": micro_kernel, "scratch": scratch,
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_text_is_golden(name: str, golden: Callable[[str, str], None]) -> None:
    golden(source(KERNELS[name]()), f"codegen/{name}.txt")


def test_shared_expressions_are_evaluated_once_and_reloaded_after_a_store() -> None:
    p0, o0 = Buffer("p0", float32, (4,)), Buffer("o0", float32, (4,))
    x = E.load(p0, index(0))
    root = E.apply("sqrt", x * x + 1.0)
    body = (
        Store(o0, index(0), root * root),
        Store(o0, index(1), root + x),
        Store(p0, index(0), x * 2.0),
        Store(o0, index(2), x),
    )
    kernel = Kernel("shared", (p0, o0), 1, (), body)
    text = source(kernel)
    assert text.count("sqrt") == 1
    assert text.count("load(p0, 0)") == 2
    (y,) = run_both(kernel, [np.full(4, 3, np.float32), np.zeros(4, np.float32)], [], 0, 1)
    np.testing.assert_allclose(y, [10, 10**0.5 + 3, 6, 0], rtol=1e-6)


def test_registers_change_between_uses() -> None:
    o0 = Buffer("o0", float32, (3,))
    a = E.Use("a", float32)
    body = (
        Declare("a", E.const(1.0, float32)),
        Let("b", a + a),
        Assign("a", a + a + 1.0),
        Let("c", a + a),
        Store(o0, index(0), E.Use("b", float32)),
        Store(o0, index(1), E.Use("c", float32)),
        Store(o0, index(2), a),
    )
    (y,) = run_both(Kernel("registers", (o0,), 1, (), body), [np.zeros(3, np.float32)], [], 0, 1)
    assert y.tolist() == [2, 6, 3]


def test_one_name_may_be_a_scalar_here_and_a_vector_there() -> None:
    o0 = Buffer("o0", float32, (20,))
    x, y = E.Use("x", float32), E.Use("x", float32, (16,))
    body = (
        For("i", index(0), index(4), (
            Let("x", E.cast(index(i), float32)), Store(o0, index(i), x + 1.0))),
        For("i", index(4), index(20), (
            Let("x", E.cast(E.iota(16), float32)), Store(o0, index(i), y + 1.0, (1,))), 16),
    )  # fmt: skip
    kernel = Kernel("names", (o0,), 1, (), body)
    (found,) = run_both(kernel, [np.zeros(20, np.float32)], [], 0, 1)
    assert found.tolist() == [1, 2, 3, 4, *range(1, 17)]


@pytest.mark.parametrize("name", ["load", "for", "t1", "begin", "0; import os", "é" * 50, "a.b"])
def test_hostile_names_become_plain_identifiers(name: str) -> None:
    o0 = Buffer("o0", float32, (4,))
    body = (Let(name, E.const(2.0, float32)), Store(o0, index(0), E.Use(name, float32)))
    kernel = Kernel('"; import os', (o0,), 1, (), body)
    assert "import" not in source(kernel)
    (y,) = run_both(kernel, [np.zeros(4, np.float32)], [], 0, 1)
    assert y[0] == 2


def test_wide_expressions_are_broken_into_lines() -> None:
    p0, o0 = Buffer("p0", float32, (4,)), Buffer("o0", float32, (4,))
    x = E.load(p0, index(0))
    value = x
    for k in range(1, 60):
        value = E.apply("fma", value, x, float(k) / 7)
    text = source(Kernel("wide", (p0, o0), 1, (), (Store(o0, index(0), value),)))
    assert max(map(len, text.splitlines())) <= 100


def test_unscheduled_and_unexpanded_kernels_are_errors() -> None:
    o0 = Buffer("o0", float32, (4,))
    x = E.load(o0, index(0))
    summed = E.reduce("add", (Axis("k", 4),), E.load(o0, index(symbol("k"))))
    for value, message in ((E.apply("exp", x), "exp is no machine"), (summed, "Reduce")):
        with pytest.raises(CompileError, match=message):
            source(Kernel("bad", (o0,), 1, (), (Store(o0, index(0), value),)))


def test_python_run_checks_bounds_and_arguments() -> None:
    with pytest.raises(IndexError, match="offset 37 is outside"):
        run_python(pointwise(), [floats(37), np.zeros(37, np.float32)], [40], 0, 40)
    with pytest.raises(ValueError, match="C-contiguous f32"):
        run_python(pointwise(), [floats(8).astype("f8"), np.zeros(8, np.float32)], [8], 0, 8)


# -- object code -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", KERNELS)
def test_object_code_needs_nothing_else(name: str) -> None:
    code = object_code(KERNELS[name]())
    assert llvm_compile.undefined_symbols(code) == []
    assert code == object_code(KERNELS[name]())


def test_undefined_symbols_are_found() -> None:
    text = "declare i32 @outside()\ndefine i32 @f() { %x = call i32 @outside() ret i32 %x }\n"
    with pytest.raises(CompileError, match="calls outside"):
        llvm_compile.object_code(text, TARGET, ())
    with pytest.raises(CompileError, match="neither"):
        llvm_compile.undefined_symbols(b"nonsense")


def test_fills_and_copies_call_no_library() -> None:
    p0, o0, o1 = (Buffer(name, float32, (n,)) for name in ("p0", "o0", "o1"))
    stores = (
        Store(o0, index(i), E.const(0.0, float32)),
        Store(o1, index(i), E.load(p0, index(i))),
    )
    body = For("i", index(0), index(n), stores)
    kernel = Kernel("fill", (p0, o0, o1), 2, ("n",), (body,))
    x = floats(33)
    found = run_both(kernel, [x, *(np.ones(33, np.float32) for _ in range(2))], [33], 0, 1)
    assert not found[0].any() and np.array_equal(found[1], x)


def test_nothing_is_contracted() -> None:
    p0, p1 = floats(4096), floats(4096)
    kernel = apply_kernel(lambda a, b: a * b + a, (float32, float32), float32, 16)
    (y,) = run_both(kernel, [p0, p1, np.zeros(4096, np.float32)], [4096], 0, 4096)
    same_bits(y, p0 * p1 + p0)
    (compiled,) = compile_kernels([kernel], TARGET)
    assert compiled.address


def test_constants_keep_their_bits_and_are_short_in_the_text() -> None:
    p0, o0 = Buffer("p0", float32, (4,)), Buffer("o0", float32, (4,))
    x = E.load(p0, index(0))
    y = (x * 12582912.0 + 0.1) * 12582912.0
    body = (Store(o0, index(0), y), Store(o0, index(1), E.const(float("-inf"), float32)))
    kernel = Kernel("constants", (p0, o0), 1, (), body)
    text = source(kernel)
    assert "+ 0.1)" in text and "t0 =" not in text and "f32(-inf)" in text
    (z,) = run_both(kernel, [np.full(4, 0.3, np.float32), np.zeros(4, np.float32)], [], 0, 1)
    big = np.float32(12582912)
    assert z[0] == (np.float32(0.3) * big + np.float32(0.1)) * big and z[1] == -np.inf

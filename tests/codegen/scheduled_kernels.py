"""Scheduled kernels written by hand, and running them natively and as Python."""

from __future__ import annotations

import ctypes

import numpy as np

from graphc.codegen.compiler import compile_kernels
from graphc.codegen.cpu import host_target
from graphc.codegen.dispatch_layout import Error
from graphc.codegen.python_engine import run_python
from graphc.ir import expr as E
from graphc.ir.dim import Dim, symbol
from graphc.ir.expr import Buffer, Const, Expr, index
from graphc.ir.loop import Alloc, Assign, Declare, Fail, For, If, Kernel, Let, Prefetch, Store
from graphc.ir.types import DType, float32, int32

BEGIN, END = symbol("begin"), symbol("end")
TARGET = host_target()

_NATIVE = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
    ctypes.c_void_p,
)  # fmt: skip


def run_native(
    kernel: Kernel, buffers: list[np.ndarray], sizes: list[int], begin: int, end: int,
    error: list[int] | None = None,
) -> int:  # fmt: skip
    """Like run_python, compiled."""
    (compiled,) = compile_kernels([kernel], TARGET)
    return call(compiled.address, buffers, sizes, begin, end, error)


def call(
    address: int, buffers: list[np.ndarray], sizes: list[int], begin: int, end: int,
    error: list[int] | None = None,
) -> int:  # fmt: skip
    pointers = (ctypes.c_void_p * max(len(buffers), 1))(*(b.ctypes.data for b in buffers))
    values = (ctypes.c_int64 * max(len(sizes), 1))(*sizes)
    what = Error()
    status = _NATIVE(address)(pointers, values, begin, end, ctypes.byref(what))
    if error is not None:
        error[:] = [what.code, *what.detail]
    return status


def run_both(
    kernel: Kernel, buffers: list[np.ndarray], sizes: list[int], begin: int, end: int
) -> list[np.ndarray]:
    """Run natively and as Python; demand equal bits; return the outputs."""
    copies = [b.copy() for b in buffers]
    assert run_native(kernel, buffers, sizes, begin, end) == 0
    assert run_python(kernel, copies, sizes, begin, end) == 0
    for native, python in zip(buffers, copies, strict=True):
        same_bits(native, python)
    return buffers[len(buffers) - kernel.outputs :]


def same_bits(a: np.ndarray, b: np.ndarray) -> None:
    """Equal bit for bit; any NaN equals any other."""
    assert a.dtype == b.dtype and a.shape == b.shape
    if a.dtype.kind == "f":
        nan = np.isnan(a)
        assert np.array_equal(nan, np.isnan(b))
        a, b = (np.where(nan, 0, x).astype(x.dtype).view(f"u{x.itemsize}") for x in (a, b))
    np.testing.assert_array_equal(a, b)


def vector_loops(name: str, body: object, lanes: int) -> tuple[For, ...]:
    """``body(index, mask)`` over begin .. end: whole vectors, then a masked tail."""
    i = symbol("i")
    whole = END - (END - BEGIN) % lanes
    tail = E.iota(lanes) < index(END - i)
    return (
        For("i", index(BEGIN), index(whole), body(index(i), None), lanes),  # type: ignore[operator]
        For("i", index(whole), index(END), body(index(i), tail), lanes),  # type: ignore[operator]
    )


def pointwise() -> Kernel:
    """``max(x * x + 0.5, 0) / (x * x + 1)`` of n elements."""
    n = symbol("n")
    p0, o0 = Buffer("p0", float32, (n,)), Buffer("o0", float32, (n,))

    def body(i: Expr, mask: Expr | None) -> tuple[Store, ...]:
        x = E.load(p0, i, (16,), (1,), mask)
        y = E.apply("max", E.apply("fma", x, x, 0.5), 0.0) / (x * x + 1.0)
        return (Store(o0, i, y, (1,), mask),)

    return Kernel("pointwise", (p0, o0), 1, ("n",), vector_loops("i", body, 16), n)


def row_sums() -> Kernel:
    """Sums of the rows of (m, n): four vectors of partial sums, then a tail, then a tree."""
    m, n, i, j = map(symbol, ("m", "n", "i", "j"))
    p0, o0 = Buffer("p0", float32, (m, n)), Buffer("o0", float32, (m,))
    acc = E.Use("acc", float32, (4, 16))
    total = E.Use("total", float32)
    whole = n - n % 64
    body = (
        Declare("acc", Const(0.0, float32, (4, 16))),
        For("j", index(0), index(whole), (
            Assign("acc", acc + E.load(p0, index(i * n + j), (4, 16), (16, 1))),
        ), 64),
        Declare("total", E.fold("add", acc)),
        For("j", index(whole), index(n), (
            Assign("total", total + E.load(p0, index(i * n + j))),
        )),
        Store(o0, index(i), total),
    )  # fmt: skip
    loop = For("i", index(BEGIN), index(END), body)
    return Kernel("row_sums", (p0, o0), 1, ("m", "n"), (loop,), m)


def take_rows() -> Kernel:
    """``table[ids[i], j]``, failing on an id that is out of range."""
    m, rows, n, i, j = map(symbol, ("m", "rows", "n", "i", "j"))
    table, ids = Buffer("table", float32, (rows, n)), Buffer("ids", int32, (m,))
    o0 = Buffer("o0", float32, (m, n))
    row = E.Use("row", E.int64)
    outside = (row < 0) | (row >= index(rows))
    lanes = index(j) + E.iota(16)
    inside = lanes < index(n)
    body = (
        Let("row", E.cast(E.load(ids, index(i)), E.int64)),
        If(outside, (Fail(7, (row, index(rows), index(i))),)),
        For("j", index(0), index(n), (
            Store(
                o0, index(i * n + j),
                E.load(table, row * index(n) + lanes, (), (), inside, 0.0), (1,), inside,
            ),
        ), 16),
    )  # fmt: skip
    loop = For("i", index(BEGIN), index(END), body)
    return Kernel("take", (table, ids, o0), 1, ("m", "rows", "n"), (loop,), m)


def padded_shift() -> Kernel:
    """``x[i - 2]`` with 9.0 outside: loads guarded by a scalar condition."""
    n, i = symbol("n"), symbol("i")
    p0, o0 = Buffer("p0", float32, (n,)), Buffer("o0", float32, (n,))
    place = index(i - 2)
    value = E.load(p0, place, (), (), (place >= 0) & (place < index(n)), 9.0)
    loop = For("i", index(BEGIN), index(END), (Store(o0, index(i), value * 2.0),))
    return Kernel("shift", (p0, o0), 1, ("n",), (loop,), n)


def transpose(rows: int = 16, lanes: int = 16) -> Kernel:
    """(m, n) to (n, m) in tiles through registers."""
    m, n, i, j = map(symbol, ("m", "n", "i", "j"))
    p0, o0 = Buffer("p0", float32, (m, n)), Buffer("o0", float32, (n, m))
    tile = E.load(p0, index(i * rows * n + j), (rows, lanes), (n, 1))
    store = Store(o0, index(j * m + i * rows), tile, (1, m))
    inner = For("j", index(0), index(n), (store,), lanes)
    loop = For("i", index(BEGIN), index(END), (inner,))
    return Kernel("transpose", (p0, o0), 1, ("m", "n"), (loop,), m // rows)


def micro_kernel(height: int = 8, vectors: int = 3, lanes: int = 16) -> Kernel:
    """Product of packed panels: a[k, 8] and b[k, 48], accumulated in registers."""
    depth, p, k = map(symbol, ("k", "p", "q"))
    width = vectors * lanes
    a = Buffer("a", float32, (1, depth, height))
    b = Buffer("b", float32, (1, depth, width))
    c = Buffer("c", float32, (1, height, width))
    tile = (height, vectors, lanes)
    acc = E.Use("acc", float32, tile)
    left = E.load(a, index((p * depth + k) * height), (height, 1, 1), (1, 0, 0))
    right = E.load(b, index((p * depth + k) * width), (1, vectors, lanes), (0, lanes, 1))
    body = (
        Declare("acc", Const(0.0, float32, tile)),
        For("q", index(0), index(depth), (Assign("acc", E.apply("fma", left, right, acc)),)),
        Store(c, index(p * height * width), acc, (width, lanes, 1)),
    )
    loop = For("p", index(BEGIN), index(END), body)
    return Kernel("micro", (a, b, c), 1, ("k",), (loop,), symbol("panels"))


def scratch() -> Kernel:
    """``reverse(x) * 3`` of 64 elements through stack memory, prefetched and streamed."""
    i, j = symbol("i"), symbol("j")
    n = symbol("n")
    p0, o0 = Buffer("p0", float32, (n, 64)), Buffer("o0", float32, (n, 64))
    local = Buffer("local", float32, (64,), "local")
    body = (
        Alloc(local),
        Prefetch(o0, index(i * 64), write=True),
        For("j", index(0), index(64), (
            Prefetch(p0, index(i * 64 + j + 64)),
            Store(local, index(63 - j), E.load(p0, index(i * 64 + j))),
        )),
        For("j", index(0), index(64), (
            Store(o0, index(i * 64 + j), E.load(local, index(j), (16,), (1,)) * 3.0, (1,),
                  streaming=True),
        ), 16),
    )  # fmt: skip
    loop = For("i", index(BEGIN), index(END), body)
    return Kernel("scratch", (p0, o0), 1, ("n",), (loop,), n)


def apply_kernel(value: object, inputs: tuple[DType, ...], result: DType, lanes: int) -> Kernel:
    """``value(*operands)`` of n elements, in vectors of ``lanes`` (1 is scalars)."""
    n, i = symbol("n"), symbol("i")
    params = tuple(Buffer(f"p{k}", dtype, (n,)) for k, dtype in enumerate(inputs))
    out = Buffer("o0", result, (n,))
    tile, strides = ((lanes,), (1,)) if lanes > 1 else ((), ())
    loads = [E.load(p, index(i), tile, strides) for p in params]
    store = Store(out, index(i), value(*loads), strides)  # type: ignore[operator]
    loop = For("i", index(BEGIN), index(END), (store,), lanes)
    return Kernel("apply", (*params, out), 1, ("n",), (loop,), n)


def sized(dim: Dim) -> Kernel:
    """Stores the value of an index expression over i and n."""
    n = symbol("n")
    out = Buffer("o0", E.int64, (n,))
    loop = For("i", index(BEGIN), index(END), (Store(out, index(symbol("i")), index(dim)),))
    return Kernel("sized", (out,), 1, ("n",), (loop,), n)


def whole_powers(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Powers for which results are denormal, zero and infinite, too; NaN beside NaN."""
    most = 2 * np.finfo(n.dtype).maxexp / 7
    return np.where(np.isnan(a), a, np.rint(np.clip(np.nan_to_num(n), -most, most) * 7 * 0.9))

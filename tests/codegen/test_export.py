"""Parts of exported libraries by themselves: sizes and memory as in Python, texts of failures."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graphc import lazy
from graphc.codegen import llvm_compile
from graphc.codegen.cpu import host_target
from graphc.codegen.export.arena import arrange
from graphc.codegen.export.object_code import _failure
from graphc.codegen.export.sizes import AXIS, SizeWriter, solutions
from graphc.codegen.llvm_types import I64
from graphc.codegen.native.function import NativeFunction
from graphc.codegen.native.module import NativeModule
from graphc.errors import Location
from graphc.ir.dim import Dim, dim_max, dim_min, evaluate, floor_div, modulo, symbol
from graphc.ir.plan import ALIGNMENT, Cost, Life
from graphc.ir.plan import arrange as arrange_in_python
from graphc.ir.table import Check, LaunchRow

_numbers = itertools.count()


def loaded(module: NativeModule, name: str) -> tuple[Any, int]:
    """Return a module's function as a library to keep, and its address."""
    binding, target = lazy.llvmlite_binding(), host_target()
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    code = llvm_compile.machine(target).emit_object(parsed)
    jit = binding.create_lljit_compiler(llvm_compile.new_machine(target))
    builder = binding.JITLibraryBuilder().add_object_img(code).export_symbol(name)
    library = builder.link(jit, f"export-{next(_numbers)}")
    return (jit, library), library[name]


def evaluated(dim: Dim, names: Sequence[str], rows: Sequence[Sequence[int]]) -> list[int | None]:
    """Return a Dim's value for rows of sizes by native code; None for a fault."""
    module = NativeModule(host_target().triple)
    body = NativeFunction(module, "evaluate", "q", "pp", internal=False)
    given, result = body.arguments
    writer = SizeWriter(body, {name: body.get_word(given, i) for i, name in enumerate(names)})
    body.put_word(writer.value(dim), result, 0)
    body.returns(body.builder.zext(writer.fault, I64))
    keep, address = loaded(module, "evaluate")
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(address)
    found: list[int | None] = []
    for row in rows:
        sizes, value = (ctypes.c_int64 * len(names))(*row), ctypes.c_int64()
        fault = function(sizes, ctypes.addressof(value))
        found.append(None if fault else value.value)
    assert keep
    return found


N, M = symbol("n"), symbol("m")
DIMS = {
    "polynomial": N * N * 3 - M * 2 + 7,
    "rounded down": floor_div(N * 3 - 50, 4) + modulo(M - 9, 5),
    "divided by a size": floor_div(N * M + 3, M + 1) * modulo(N, M + 2),
    "nested": dim_min(dim_max(N - M, 0), floor_div(N + 6, 7)) * 5,
    "constant": 42,
}


@pytest.mark.parametrize("name", DIMS)
def test_sizes_are_what_python_computes(name):
    rows = list(itertools.product((0, 1, 2, 7, 64, 1000), repeat=2))
    expected = [evaluate(DIMS[name], {"n": n, "m": m}) for n, m in rows]
    assert evaluated(DIMS[name], ("n", "m"), rows) == expected


@pytest.mark.parametrize(
    ("dim", "row"),
    [
        (N * N * N, (2**22, 0)),
        (N * M + N, (2**31, 2**32)),
        (floor_div(N + 1, M), (5, 0)),
        (modulo(N + 1, M), (5, 0)),
    ],
)
def test_what_cannot_be_held_is_a_fault(dim, row):
    assert evaluated(dim, ("n", "m"), [row, (3, 2)]) == [None, evaluate(dim, {"n": 3, "m": 2})]


def test_sizes_are_found_in_an_order_that_can_be_computed():
    k = symbol("k")
    dims = [N * M + k, 3, N * 2 + 1, M, k * 5 - M]
    actual = {"n": 4, "m": 6, "k": 9}
    sizes: dict[str, int] = {}
    for solution in solutions(dims):
        axis = evaluate(dims[solution.axis], actual)
        sizes[solution.name] = evaluate(solution.value, {**sizes, AXIS: axis})
    assert sizes == actual
    assert [s.name for s in solutions([-N + 8])] == ["n"]
    assert solutions([N * N]) == []


def lives(random: np.random.Generator, count: int) -> list[Life]:
    """Return values of random sizes and lives; some take over others' memory."""
    found: list[Life] = []
    for value in range(count):
        first = int(random.integers(0, count))
        last = first + int(random.integers(0, 4))
        heads = [x for x in found if x.owner == x.value]
        owner = heads[int(random.integers(len(heads)))] if heads and random.random() < 0.3 else None
        size = int(random.integers(1, 6)) * 100 if owner is None else owner.size
        number = value if owner is None else owner.value
        found.append(Life(value, number, size, 4, first, last))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_memory_is_laid_out_as_in_python(seed):
    random = np.random.default_rng(seed)
    values = lives(random, 1 + 6 * seed)
    owners = [life for life in values if life.owner == life.value]
    module = NativeModule(host_target().triple)
    arrange(module, values)
    entry = NativeFunction(module, "entry", "q", "ppp", internal=False)
    entry.returns(entry.builder.call(module.functions["arena_arrange"], entry.arguments))
    keep, address = loaded(module, "entry")
    words = ctypes.c_int64 * len(owners)
    needs = [-(-life.n_bytes({}) // ALIGNMENT) * ALIGNMENT for life in owners]
    offsets, order = words(), words()
    function = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3)(address)
    total = function(words(*needs), offsets, order)
    expected = arrange_in_python(values, {})
    slots = {slot.value: slot.offset for slot in expected.slots}
    assert list(offsets) == [slots[life.value] for life in owners]
    assert 0 <= total - expected.arena_bytes < ALIGNMENT
    assert sorted(order) == list(range(len(owners))) and keep


def test_failures_are_formats():
    attrs = {"what": "100% label", "size": 3, "negative": True}
    where = Location("model.py", 7, "net")
    check = Check("check_index", attrs)
    row = LaunchRow("", "check", where, (), 0, (), 1, 1, 1, Cost(0, 0, ()), check)
    assert _failure(row) == (
        "100%% label %lld at position %lld is out of range: it must be in -%lld .. %lld"
        "  [model.py:7 net]",
        [(0, 0), (1, 0), (2, 0), (2, -1)],
    )

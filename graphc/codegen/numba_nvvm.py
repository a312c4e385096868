"""The text of a CUDA kernel to PTX: ``numba-cuda``'s front end, then NVIDIA's NVVM.

Neither needs a driver. NVVM is asked for what the loop IR says: products and sums stay apart, and
divisions and roots are exact. Buffers are plain pointers, so that a launch passes the same words
as to a kernel of the LLVM engine.

What a text calls most often is given to Numba as a few instructions each; its own functions in
Python are compiled where nothing is given, inlined.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import lazy
from graphc.codegen.llvm_cuda import REPORT_BYTES
from graphc.codegen.llvm_kernel import CODE_BYTES, SYMBOL
from graphc.codegen.numba_cuda import SIGNATURE
from graphc.codegen.numba_cuda_names import FUNCTIONS, IMPORTS
from graphc.ir.target import Target

_OPTIONS = {"opt": 3, "fma": False, "ftz": False, "prec_div": True, "prec_sqrt": True}
_COUNTED = (r"_ZN08NumbaEnv\w+", r"_cudapy_smem_\d+", r"kernel\$\d+")
"""Names that end in a number of Numba's own."""


def modules(text: str, target: Target) -> list[str]:
    """Return what a kernel's text becomes: modules in NVVM's dialect of LLVM IR.

    Raises
    ------
    MissingDependencyError
        If ``numba-cuda`` is not installed.
    """
    compiler, nvvm = lazy.numba_cuda().compiler, lazy.numba_cuda().cudadrv.nvvm
    scope = dict(_scope())
    _, _, own = text.partition(f"\n{SIGNATURE} = ")
    exec(compile(f"{SIGNATURE} = {own}", "<kernel>", "exec"), scope)
    void = lazy.numba_cuda().types.void
    types = [_type(kind) for kind in scope[SIGNATURE].split(", ")]
    version = divmod(int(target.cpu.removeprefix("sm_").rstrip("a")), 10)
    found = compiler.compile_cuda(scope["kernel"], void, tuple(types), cc=version)
    name = found.fndesc.llvm_func_name
    function = found.library.get_function(name)
    compiler.kernel_fixup(function, False)
    nvvm.set_launch_bounds(function, (scope["BLOCK_THREADS"], scope["BLOCKS_AT_ONCE"]))
    return _renamed(found.library.llvm_strs, name)


def _renamed(texts: Sequence[str], entry: str) -> list[str]:
    """Return modules whose names do not tell how much Numba has compiled before."""
    known = {entry: SYMBOL}
    pattern = re.compile("|".join((re.escape(entry), *_COUNTED)))

    def name(match: re.Match[str]) -> str:
        return known.setdefault(match[0], f"name{len(known)}")

    return [pattern.sub(name, text) for text in texts]


def ptx(text: str, target: Target) -> str:
    """Return the PTX of a kernel's text; its entry is `SYMBOL`."""
    nvvm = lazy.numba_cuda().cudadrv.nvvm
    arch = target.cpu.replace("sm_", "compute_")
    unit = nvvm.CompilationUnit({**_OPTIONS, "arch": arch})
    for module in modules(text, target):
        unit.add_module(nvvm.llvm_replace(module).encode())
    unit.lazy_add_module(_device_library())
    return str(unit.compile().decode().strip("\0"))


@functools.cache
def _device_library() -> bytes:
    """Return NVIDIA's functions of mathematics as LLVM bit code."""
    with open(lazy.cuda_pathfinder().find_bitcode_lib("device"), "rb") as file:
        return file.read()


def _type(kind: str) -> Any:
    types = lazy.numba_cuda().types
    item = getattr(types, kind.removesuffix("*"))
    return types.CPointer(item) if kind.endswith("*") else item


# -- the names of the text -----------------------------------------------------------------------


@functools.cache
def _scope() -> dict[str, Any]:
    """Return what every text starts from: its imports, and the functions that it may call."""
    scope: dict[str, Any] = {}
    exec(IMPORTS, scope)
    for text in FUNCTIONS.values():
        exec(compile(text, "<kernel>", "exec"), scope)
    inline = lazy.numba_cuda().jit(device=True, inline="always")
    plain = {name: scope[name] for name in FUNCTIONS}
    scope |= {name: inline(function) for name, function in plain.items() if name not in _GIVEN}
    # In place: functions find each other in it.
    scope |= {name: _instructions(plain[name], *given) for name, given in _GIVEN.items()}
    return scope


Emit = Callable[..., Any]
"""``emit(builder, types, *values)`` writes instructions and returns the result's value."""


def _instructions(function: Any, result: Callable[..., Any], emit: Emit) -> Any:
    """Return a function of the text as one that Numba replaces by instructions.

    Parameters
    ----------
    function : callable
        It in Python.
    result : callable
        The types of its arguments to the result's.
    emit : Emit
    """
    numba = lazy.numba_cuda()

    def typed(context: Any, *args: Any) -> Any:
        def generate(_context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
            return emit(builder, signature.args, *values)

        plain = [numba.types.unliteral(arg) for arg in args]
        return numba.typing.signature(result(*plain), *plain), generate

    context, *_ = inspect.signature(typed).parameters.values()
    parameters = inspect.signature(function).parameters.values()
    typed.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
    return numba.extending.intrinsic(typed)


def _first(*types: Any) -> Any:
    return types[0]


def _floating(kind: Any) -> bool:
    return kind in (lazy.numba_cuda().types.float32, lazy.numba_cuda().types.float64)


def _called(builder: Any, name: str, *values: Any) -> Any:
    """Call an instruction on values of one type."""
    kind = values[0].type
    made = lazy.llvmlite_ir().FunctionType(kind, [kind] * len(values))
    function = lazy.numba_cuda().cgutils.get_or_insert_function(builder.module, made, name)
    return builder.call(function, values)


def _machine(stem: str) -> Emit:
    """Return what writes an instruction on one float: its name ends in the float's size."""
    return lambda builder, types, x: _called(
        builder, f"llvm.nvvm.{stem}.{'f' if types[0].bitwidth == 32 else 'd'}", x
    )


def _rounded(builder: Any, types: Sequence[Any], x: Any, _: Any) -> Any:
    return _machine("round")(builder, types, x)


def _chosen(builder: Any, types: Sequence[Any], condition: Any, a: Any, b: Any) -> Any:
    return builder.select(condition, a, b)


def _extreme(name: str, sign: str, merge: str) -> Emit:
    """Return what writes a minimum or maximum: NaN where one is, -0 less than 0."""

    def emit(builder: Any, types: Sequence[Any], a: Any, b: Any) -> Any:
        kind = types[0]
        if not _floating(kind):
            compare = builder.icmp_signed if getattr(kind, "signed", False) else None
            return builder.select((compare or builder.icmp_unsigned)(sign, a, b), a, b)
        if kind.bitwidth == 32:
            made = lazy.llvmlite_ir().FunctionType(a.type, [a.type, a.type])
            return builder.asm(made, f"{name}.NaN.f32 $0, $1, $2;", "=f,f,f", [a, b], False)
        bits = lazy.llvmlite_ir().IntType(kind.bitwidth)
        words = [builder.bitcast(value, bits) for value in (a, b)]
        zero = builder.bitcast(getattr(builder, merge)(*words), a.type)
        found = builder.select(builder.fcmp_ordered(sign, a, b), a, b)
        found = builder.select(builder.fcmp_ordered("==", a, b), zero, found)
        return builder.select(builder.fcmp_unordered("uno", a, b), a.type(math.nan), found)

    return emit


def _bits_as(builder: Any, types: Sequence[Any], x: Any, _: Any) -> Any:
    kind = types[1].dtype
    ir = lazy.llvmlite_ir()
    if _floating(kind):
        return builder.bitcast(x, ir.FloatType() if kind.bitwidth == 32 else ir.DoubleType())
    return builder.bitcast(x, ir.IntType(kind.bitwidth))


def _saturated(builder: Any, types: Sequence[Any], x: Any, *_: Any) -> Any:
    kind = types[1].dtype
    made, limits = lazy.llvmlite_ir().IntType(kind.bitwidth), np.iinfo(kind.name)
    convert = builder.fptosi if kind.signed else builder.fptoui
    found = convert(x, made)
    low, high = x.type(float(limits.min)), x.type(float(limits.max + 1))
    above = builder.fcmp_ordered(">=", x, high)
    below = builder.fcmp_ordered("<=", x, low)
    found = builder.select(above, made(int(limits.max)), found)
    found = builder.select(below, made(int(limits.min)), found)
    return builder.select(builder.fcmp_unordered("uno", x, x), made(0), found)


# -- failures: a Flag and a Report, see `graphc.codegen.dispatch_layout` --------------------------


def _word(builder: Any, address: Any, number: int) -> Any:
    return builder.gep(address, [lazy.llvmlite_ir().IntType(64)(number)])


def _stopped(builder: Any, types: Sequence[Any], flag: Any) -> Any:
    truth = lazy.llvmlite_ir().IntType(1)
    before = builder.block
    with builder.if_then(builder.icmp_unsigned("!=", flag, flag.type(None))):
        code = builder.load(_word(builder, flag, CODE_BYTES // 8))
        raised = builder.icmp_unsigned("!=", code, code.type(0))
        inside = builder.block
    found = builder.phi(truth)
    found.add_incoming(truth(0), before)
    found.add_incoming(raised, inside)
    return found


def _failed_first(builder: Any, types: Sequence[Any], flag: Any, code: Any) -> Any:
    place = _word(builder, flag, CODE_BYTES // 8)
    swapped = builder.cmpxchg(place, code.type(0), code, "monotonic", "monotonic")
    return builder.extract_value(swapped, 1)


def _report(builder: Any, types: Sequence[Any], flag: Any, place: Any, word: Any) -> Any:
    address = builder.load(_word(builder, flag, REPORT_BYTES // 8))
    words = builder.inttoptr(address, flag.type)
    builder.store(word, builder.gep(words, [place]))


_GIVEN: dict[str, Any] = {
    "chosen": (lambda condition, a, b: a, _chosen),
    "minimum": (_first, _extreme("min", "<", "or_")),
    "maximum": (_first, _extreme("max", ">", "and_")),
    "square_root": (_first, _machine("sqrt.rn")),
    "floored": (_first, _machine("floor")),
    "truncated": (_first, _machine("trunc")),
    "rounded": (_first, _rounded),
    "bits_as": (lambda x, kind: kind.dtype, _bits_as),
    "saturated": (lambda x, kind, low, high: kind.dtype, _saturated),
    "stopped": (lambda flag: lazy.numba_cuda().types.boolean, _stopped),
    "failed_first": (lambda flag, code: lazy.numba_cuda().types.boolean, _failed_first),
    "report": (lambda flag, place, word: lazy.numba_cuda().types.void, _report),
}
"""Function -> the type of its result, and what writes its instructions."""

"""The object file of an exported library: kernels, dispatcher and calls as one LLVM module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from typing import Any

from graphc import config, lazy
from graphc.codegen import compiler, dispatch_ir, llvm_compile, python_kernels
from graphc.codegen.export.calls import PUBLIC, Calls
from graphc.codegen.export.layout import Export
from graphc.codegen.export.linking import is_mac
from graphc.codegen.export.weights import WEIGHT, constant_name
from graphc.codegen.llvm_kernel import SYMBOL
from graphc.codegen.native.module import NativeModule, constant_text
from graphc.errors import CompileError
from graphc.ir.loop import Kernel, python_of
from graphc.ir.operand import REGISTRY
from graphc.ir.plan import ALIGNMENT
from graphc.ir.table import LaunchRow
from graphc.ir.target import Target

# CLOCK_MONOTONIC of each system; graphc's dispatcher needs it though a library keeps no profile.
_LINUX_CLOCK, _MAC_CLOCK = 1, 6
_C_LIBRARY = frozenset((
    "__tls_get_addr", "_tlv_bootstrap", "atexit", "bcmp", "clock_gettime", "fclose", "fgetc",
    "fopen", "fread", "free", "getpid", "memcmp", "memcpy", "memmove", "memset", "posix_memalign",
    "pthread_attr_destroy", "pthread_attr_init", "pthread_attr_setstacksize",
    "pthread_cond_broadcast", "pthread_cond_init", "pthread_cond_wait", "pthread_create",
    "pthread_join", "pthread_mutex_init", "pthread_mutex_lock", "pthread_mutex_unlock",
    "pthread_sigmask", "sched_getaffinity", "sched_yield", "sigfillset", "snprintf", "sysconf",
))  # fmt: skip
"""What object code may expect of the C library and of threads."""


def object_code(export: Export, kernels: Sequence[Kernel], target: Target) -> bytes:
    """Compile a library.

    Parameters
    ----------
    export : Export
    kernels : sequence of Kernel
        Of the launches of its table, scheduled for the target.
    target : Target

    Returns
    -------
    bytes
        An object file that shows the functions of the library and nothing else, and expects
        nothing but functions of the C library, of its mathematics and of threads.

    Raises
    ------
    CompileError
        If a kernel cannot be compiled, or calls what only Python has.
    """
    numbers, parts = _kernel_parts(kernels, target)
    names = [f"kernel{number}" for number in numbers]
    binding = lazy.llvmlite_binding()
    context = binding.create_context()
    whole = _parsed(_runtime(export, names, target), context, target)
    for number, part in enumerate(parts):
        module = binding.parse_bitcode(part, context)
        module.get_function(SYMBOL).name = f"kernel{number}"
        whole.link_in(module)
    for place, array in () if export.header else export.weights.items():
        # One by one: text takes three times the bytes.
        text = constant_text(constant_name(place), array.tobytes(), ALIGNMENT)
        whole.link_in(binding.parse_assembly(text, context))
    _hide(whole, export.name)
    code = bytes(llvm_compile.machine(target).emit_object(whole))
    foreign = sorted(_expected(code, target) - _C_LIBRARY - python_kernels.LIBRARY)
    if foreign:
        calls = dict.fromkeys(call.function for call in map(python_of, kernels) if call)
        raise CompileError(
            f"the code of {export.name} calls {', '.join(foreign)[:200]}, which a library without "
            "Python does not have",
            remedy=f"What is exported of a graphc.kernel ({', '.join(calls)}) are loops, numbers "
            "and functions of math.",
        )
    return code


def mathematics(code: bytes, target: Target) -> bool:
    """Return whether object code calls functions of the C library's mathematics."""
    return not _expected(code, target) <= _C_LIBRARY


def _expected(code: bytes, target: Target) -> set[str]:
    """Return the functions that object code expects from elsewhere, by their names in C."""
    names = llvm_compile.undefined_symbols(code)
    return {name.removeprefix("_") if is_mac(target) else name for name in names}


def _kernel_parts(kernels: Sequence[Kernel], target: Target) -> tuple[list[int], list[bytes]]:
    """Return the bitcode of every kernel that differs, and for each kernel which one it is."""
    numbers: dict[Kernel, int] = {}
    known: dict[str, int] = {}
    jobs: list[Future[bytes]] = []
    nameless = [replace(kernel, name="") for kernel in kernels]
    with ThreadPoolExecutor(config.current().compile_threads, "graphc-export") as pool:
        for kernel in dict.fromkeys(nameless):
            engine = compiler.engine_of(kernel, target)
            text = engine.source(kernel, target)
            numbers[kernel] = known.setdefault(text, len(jobs))
            if numbers[kernel] == len(jobs):
                run = copy_context().run
                jobs.append(pool.submit(run, _bitcode, text, engine, target))
        return [numbers[kernel] for kernel in nameless], [job.result() for job in jobs]


def _bitcode(text: str, engine: Any, target: Target) -> bytes:
    """Return a kernel as optimized as it is for a call from Python."""
    module = llvm_compile.optimized(engine.llvm_text(text, target), target, engine.PASSES)
    return bytes(module.as_bitcode())


def _runtime(export: Export, names: Sequence[str], target: Target) -> str:
    """Return all of a library but its kernels, as LLVM IR."""
    clock = _MAC_CLOCK if is_mac(target) else _LINUX_CLOCK
    platform = dispatch_ir.Platform(target.triple, clock)
    module = NativeModule(target.triple)
    dispatch_ir.write(module, platform)
    failures = [_failure(row) for row in export.table.launches]
    Calls(module, export, names, failures)
    return str(module)


def _parsed(text: str, context: Any, target: Target) -> Any:
    """Return LLVM IR text as an optimized module."""
    binding = lazy.llvmlite_binding()
    module = binding.parse_assembly(text, context)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=2)
    builder = binding.create_pass_builder(llvm_compile.machine(target), options)
    manager = binding.create_new_function_pass_manager()
    for name in ("sroa", "instruction_combine", "simplify_cfg"):
        getattr(manager, f"add_{name}_pass")()
    for function in module.functions:
        if not function.is_declaration:
            manager.run(function, builder)
    return module


def _hide(module: Any, name: str) -> None:
    """Leave visible what users call, under the library's name."""
    for function in module.functions:
        if not function.is_declaration:
            if function.name.startswith(PUBLIC):
                function.name = f"{name}_{function.name.removeprefix(PUBLIC)}"
            else:
                function.linkage = "internal"
                function.name = f"{name}.{function.name}"
    for variable in module.global_variables:
        if variable.name.startswith(WEIGHT):
            variable.linkage, variable.visibility = "internal", "default"


# -- failures ------------------------------------------------------------------------------------

_FIRST_DETAIL, _DETAIL_STEP = 7_000_000_000_000_000, 1_000_000
_DETAIL = re.compile(r"[67]\d{15}")
_DETAILS = 6


def _failure(row: LaunchRow) -> tuple[str, list[tuple[int, int]]] | None:
    """Return what the op says of a failure, with its numbers replaced.

    Numbers that no message has by itself stand for the details; where one is found again, shifted
    by a little, the detail goes there.
    """
    if row.check is None:
        return None
    details = tuple(_FIRST_DETAIL + _DETAIL_STEP * i for i in range(_DETAILS))
    error = REGISTRY[row.check.op].failure(1, details, **row.check.attrs)
    text = error.message.replace("%", "%%") + (
        f"  [{row.where}]".replace("%", "%%") if row.where else ""
    )
    shown = []
    for found in _DETAIL.finditer(text):
        number = int(found[0]) - _FIRST_DETAIL
        index = round(number / _DETAIL_STEP)
        shown.append((index, number - index * _DETAIL_STEP))
    return _DETAIL.sub("%lld", text), shown

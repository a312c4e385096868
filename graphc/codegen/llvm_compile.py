"""LLVM IR to object code: optimization, code generation, and a check that nothing is undefined."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from graphc import config, lazy
from graphc.errors import CompileError
from graphc.ir.target import Target

_own = threading.local()


def machine(target: Target) -> Any:
    """Return LLVM's code generator for a target, made once per thread."""
    machines: dict[Target, Any] = _own.__dict__.setdefault("machines", {})
    found = machines.get(target)
    if found is None:
        found = machines[target] = new_machine(target)
    return found


def new_machine(target: Target) -> Any:
    """Return a code generator of its own, for a JIT that takes it over."""
    binding = lazy.llvmlite_binding()
    if target.triple.partition("-")[0] != binding.get_process_triple().partition("-")[0]:
        binding = lazy.llvmlite_all_targets()
    return binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=_features(target), opt=3, reloc="pic", codemodel="small"
    )


def _features(target: Target) -> str:
    """Return a target's features; divisions of 64 bits are one instruction, not a choice of two.

    None is in a loop that has much to do, and each would be three blocks for LLVM to carry along.
    """
    wide = target.triple.startswith("x86_64")
    return ",".join(filter(None, (target.features, "-idivq-to-divl" if wide else "")))


def optimized(text: str, target: Target, passes: Sequence[str]) -> Any:
    """Parse LLVM IR and optimize it.

    Kernels come with explicit vectors, unrolled tiles, shared values named and addresses moved out
    of loops, so no pass or a few give the code of -O3 in a fraction of its time.

    Parameters
    ----------
    text : str
    target : Target
    passes : sequence of str
        Function passes in order, by their names in llvmlite.
    """
    binding = lazy.llvmlite_binding()
    module = binding.parse_assembly(text, binding.create_context())
    if config.current().verify:
        module.verify()
    builder = binding.create_pass_builder(
        machine(target), binding.create_pipeline_tuning_options(speed_level=2)
    )
    manager = binding.create_new_function_pass_manager()
    for name in passes:
        getattr(manager, f"add_{name}_pass")()
    run = _unlocked().LLVMPY_RunNewFunctionPassManager
    for function in module.functions:
        if not function.is_declaration:
            run(manager, function, builder)
    return module


@cache
def _unlocked() -> Any:
    """Return llvmlite's library without its lock, which would let one thread compile at a time.

    LLVM itself needs none between threads that have a context and a code generator each.
    """
    ffi = lazy.llvmlite_binding().ffi
    library = ctypes.CDLL(ffi.lib._name)
    for name in ("LLVMPY_RunNewFunctionPassManager", "LLVMPY_TargetMachineEmitToMemory"):
        locked, function = getattr(ffi.lib, name), getattr(library, name)
        function.argtypes, function.restype = locked.argtypes, locked.restype
    return library


def _emitted(module: Any, target: Target, as_object: bool = True) -> bytes:
    """Return a module's object code, or its assembly."""
    ffi = lazy.llvmlite_binding().ffi
    with ffi.OutputString() as message:
        emit = _unlocked().LLVMPY_TargetMachineEmitToMemory
        buffer = emit(machine(target), module, int(as_object), message)
        if not buffer:
            raise CompileError(f"LLVM cannot generate code: {message}")
    try:
        start, size = ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer)
        return ctypes.string_at(start, size)
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def object_code(
    text: str, target: Target, passes: Sequence[str], library: Collection[str] = ()
) -> bytes:
    """Return the object file of LLVM IR text, which may call functions of a library.

    Raises
    ------
    CompileError
        If the code would call anything else outside itself.
    """
    code = _emitted(optimized(text, target, passes), target)
    missing = [name for name in undefined_symbols(code) if name not in library]
    if missing and library:
        raise CompileError(
            f"a kernel calls {', '.join(missing)[:200]}, which only Python has",
            remedy="It cannot make arrays or other objects, print, or catch exceptions: take "
            "scratch memory as one more output.",
        )
    if missing:
        raise CompileError(
            f"kernel code calls {', '.join(missing)}, which {target.cpu} has no instruction for",
            remedy="graphc needs fused multiply-add and rounding: x86-64-v3 or 64-bit ARM.",
        )
    return code


def only_last(text: str, target: Target) -> str:
    """Return a module's text with its last function and what that needs."""
    binding = lazy.llvmlite_binding()
    module = binding.parse_assembly(text, binding.create_context())
    for function in [f for f in module.functions if not f.is_declaration][:-1]:
        function.linkage = "internal"
    builder = binding.create_pass_builder(
        machine(target), binding.create_pipeline_tuning_options(speed_level=2)
    )
    manager = binding.create_new_module_pass_manager()
    manager.add_global_dead_code_eliminate_pass()
    manager.run(module, builder)
    return str(module)


def assembly(text: str, target: Target, passes: Sequence[str]) -> str:
    """Return the machine code of LLVM IR text as assembly."""
    return _emitted(optimized(text, target, passes), target, as_object=False).decode()


def undefined_symbols(code: bytes) -> list[str]:
    """Return the names an ELF or Mach-O object file of 64 bits expects from elsewhere.

    Raises
    ------
    CompileError
        If it is no such file.
    """
    if code[:4] == b"\x7fELF" and code[4:6] == b"\x02\x01":
        return _undefined_elf(code)
    if code[:4] == b"\xcf\xfa\xed\xfe":
        return _undefined_macho(code)
    raise CompileError("object code is neither 64-bit ELF nor Mach-O")


def _undefined_elf(code: bytes) -> list[str]:
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", code, table + k * size) for k in range(count)]
    found = []
    for header in headers:
        kind, offset, length, link = header[1], header[4], header[5], header[6]
        if kind != 2:  # SHT_SYMTAB
            continue
        strings = headers[link][4]
        for place in range(offset + 24, offset + length, 24):
            name, _, _, section = struct.unpack_from("<IBBH", code, place)
            if section == 0:
                found.append(_text_at(code, strings + name))
    return found


def _undefined_macho(code: bytes) -> list[str]:
    (commands,) = struct.unpack_from("<I", code, 16)
    place, found = 32, []
    for _ in range(commands):
        kind, size = struct.unpack_from("<II", code, place)
        if kind == 2:  # LC_SYMTAB
            table, count, strings, _ = struct.unpack_from("<IIII", code, place + 8)
            for entry in range(table, table + 16 * count, 16):
                name, flags = struct.unpack_from("<IB", code, entry)
                if flags & 0x0E == 0:  # N_UNDF
                    found.append(_text_at(code, strings + name))
        place += size
    return found


def _text_at(code: bytes, place: int) -> str:
    return code[place : code.index(b"\0", place)].decode()

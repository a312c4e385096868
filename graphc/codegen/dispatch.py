"""The native dispatcher: compiled once, loaded once per process; Python calls it by a builtin."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphc import lazy
from graphc.codegen import cache, dispatch_ir, python_call
from graphc.codegen.dispatch_ir import Platform
from graphc.codegen.dispatch_layout import LINE_BYTES, Call, Error, Launch, PoolState
from graphc.codegen.llvm_builder import Module
from graphc.errors import DeviceError

__all__ = [
    "KERNEL_TYPE",
    "Call",
    "Dispatcher",
    "Error",
    "Launch",
    "PoolState",
    "allocate_pool",
    "dispatcher",
    "host_platform",
    "object_code",
]

KERNEL_TYPE = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.POINTER(Error),
)
"""ctypes type of a kernel; a Python callback of it holds the GIL while it runs."""

# One argument: ctypes takes 40 ns for each.
_RUN_TYPE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
_WORKER_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

# macOS numbers its clocks in its own way; Python's constant is the C library's.
_CLOCK_MONOTONIC = getattr(time, "CLOCK_MONOTONIC", None)
_SOURCES = (
    "dispatch.py", "dispatch_ir.py", "dispatch_layout.py", "native/function.py", "python_call.py",
)  # fmt: skip
"""What decides the object code, beside LLVM and the machine."""


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """The dispatcher's entry points; they let other threads of Python run meanwhile.

    Attributes
    ----------
    run : callable
        ``run(call) -> int``: walk the launch table of the Call at an address. Returns 0, or what
        the kernel of the failing launch returned: all chunks of its step have run then, none of
        the rows below it, and the call's error is that of its lowest failing chunk whatever the
        number of threads.
    worker : callable
        ``worker(pool, idle_ns, index)``: help programs of more than ``index`` threads
        (``index`` counts from 1, the caller is 0); returns after ``idle_ns`` nanoseconds
        without a program, or when the pool is stopping.
    run_address, worker_address : int
        Addresses of the same functions.
    call_address : int
        Address of ``graphc_call``, see `python_call`; 0 where it cannot be.
    """

    run: Callable[..., int]
    worker: Callable[..., None]
    run_address: int
    worker_address: int
    call_address: int
    _engine: Any = field(repr=False)


def host_platform() -> Platform:
    """Return this machine's Platform.

    Raises
    ------
    DeviceError
        On a system that is not 64-bit POSIX.
    """
    if _CLOCK_MONOTONIC is None or sys.maxsize < 2**32:
        raise DeviceError(
            f"graphc's dispatcher does not run on {sys.platform}",
            remedy="It needs 64-bit Linux, macOS or another POSIX system.",
        )
    return Platform(lazy.llvmlite_binding().get_process_triple(), _CLOCK_MONOTONIC)


def _host_machine(triple: str) -> Any:
    binding = lazy.llvmlite_binding()
    features = binding.get_host_cpu_features().flatten()
    target = binding.Target.from_triple(triple)
    return target.create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features, opt=3, reloc="pic", codemodel="small"
    )


def build_module(platform: Platform, python: bool = False) -> Module:
    """Write the dispatcher as an LLVM module.

    Parameters
    ----------
    platform : Platform
        The machine it is for: a 64-bit POSIX system.
    python : bool
        Whether Python's interpreter will be there.

    Returns
    -------
    Module
        Defines ``graphc_run`` and ``graphc_worker``; needs ``clock_gettime`` and
        ``sched_yield`` of the C library. For Python it defines ``graphc_call``, too, and needs
        `python_call.symbols`.
    """
    module = Module(platform.triple)
    run = dispatch_ir.write(module, platform)
    if python:
        python_call.write(module, run)
    return module


def object_code(platform: Platform, machine: Any, python: bool = False) -> bytes:
    """Compile the dispatcher.

    Parameters
    ----------
    platform : Platform
        What it is for.
    machine : llvmlite.binding.TargetMachine
        LLVM's code generator for that platform.
    python : bool
        As of `build_module`.

    Returns
    -------
    bytes
        A relocatable object file.
    """
    binding = lazy.llvmlite_binding()
    module = binding.parse_assembly(str(build_module(platform, python)))
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))


def _key(platform: Platform, python: bool) -> str:
    """Name what the object code depends on, without writing its LLVM IR."""
    binding, llvmlite = lazy.llvmlite_binding(), sys.modules["llvmlite"]
    folder = Path(__file__).parent
    return cache.key_of(
        "dispatcher",
        *((folder / name).read_text(encoding="utf-8") for name in _SOURCES),
        repr((platform, python, python_call.DATA_OFFSET)),
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
        llvmlite.__version__,
        str(binding.llvm_version_info),
    )


def _cached_object_code() -> bytes:
    """Return the object code from the disk cache, or compile it and keep it there."""
    platform, python = host_platform(), python_call.symbols() is not None
    key = _key(platform, python)
    code = cache.get(key)
    if code is None:
        code = object_code(platform, _host_machine(platform.triple), python)
        cache.put(key, code)
    return code


def _load(code: bytes) -> Dispatcher:
    binding = lazy.llvmlite_binding()
    triple, symbols = binding.get_process_triple(), python_call.symbols()
    for name, address in (symbols or {}).items():
        binding.add_symbol(name, address)
    engine = binding.create_mcjit_compiler(
        binding.parse_assembly(f'target triple = "{triple}"'), _host_machine(triple)
    )
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    run = engine.get_function_address("graphc_run")
    worker = engine.get_function_address("graphc_worker")
    call = engine.get_function_address(python_call.NAME) if symbols else 0
    return Dispatcher(_RUN_TYPE(run), _WORKER_TYPE(worker), run, worker, call, engine)


# No lock guards it: a child forked while another thread held one could never take it. Two
# threads may compile at the same time; the first to finish wins.
_loaded: dict[str, Dispatcher] = {}


def dispatcher() -> Dispatcher:
    """Return the process's dispatcher, loaded from the disk cache or compiled at the first call.

    It lives as long as the process.
    """
    found = _loaded.get("dispatcher")
    return found or _loaded.setdefault("dispatcher", _load(_cached_object_code()))


def allocate_pool() -> PoolState:
    """Return a zeroed PoolState on cache lines of its own; ``ctypes.addressof`` is its address."""
    memory = ctypes.create_string_buffer(ctypes.sizeof(PoolState) + LINE_BYTES)
    offset = -ctypes.addressof(memory) % LINE_BYTES
    return PoolState.from_buffer(memory, offset)

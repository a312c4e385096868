"""The CUDA target: processors by name, and LLVM's names of what only they have."""

from __future__ import annotations

from graphc import config
from graphc.errors import ArgumentError, nearest
from graphc.ir.loop import Bind
from graphc.ir.target import Target

TRIPLE = "nvptx64-nvidia-cuda"
PTX = "+ptx80"
"""The version of PTX that is written: what drivers from CUDA 12.0 on read."""
SHARED_BYTES = 48 << 10
"""Shared memory that every kernel may have without asking."""

PROCESSORS = {
    "sm_80": (108, 40 << 20, 163 << 10),
    "sm_86": (84, 6 << 20, 99 << 10),
    "sm_89": (128, 72 << 20, 99 << 10),
    "sm_90": (132, 50 << 20, 227 << 10),
    "sm_90a": (132, 50 << 20, 227 << 10),
}
"""Processor -> multiprocessors and bytes of the second-level cache of its largest model, and bytes
that a block can share.

A schedule may depend on them, so they are fixed here rather than asked of the device.
"""

POSITIONS = {
    Bind.BLOCK: "llvm.nvvm.read.ptx.sreg.ctaid.x",
    Bind.THREAD: "llvm.nvvm.read.ptx.sreg.tid.x",
}
"""Who runs a loop -> LLVM's name of the register that numbers it."""

BARRIER = "llvm.nvvm.barrier.cta.sync.aligned.all"
SHUFFLE_XOR = "llvm.nvvm.shfl.sync.bfly.i32"
PRODUCTS = {
    "mma_tf32": "llvm.nvvm.mma.m16n8k8.row.col.tf32",
    "mma_bf16": "llvm.nvvm.mma.m16n8k16.row.col.bf16",
    "mma_f16": "llvm.nvvm.mma.m16n8k16.row.col.f32.f32",
}
"""Product of a warp -> its name in LLVM."""


def cuda_target(processor: str) -> Target:
    """Return the Target of a processor such as ``"sm_90"``, with the options in force.

    Raises
    ------
    ArgumentError
        If it is not among `PROCESSORS`.
    """
    if processor not in PROCESSORS:
        raise ArgumentError(
            f"there is no CUDA processor {processor!r}.{nearest(processor, list(PROCESSORS))}",
            remedy=f"Known are {', '.join(PROCESSORS)}.",
        )
    cores, l2_bytes, shared_bytes = PROCESSORS[processor]
    return Target(
        name="cuda",
        triple=TRIPLE,
        cpu=processor,
        features=PTX,
        vector_bytes=16,
        registers=255,
        l1_bytes=SHARED_BYTES,
        l2_bytes=l2_bytes,
        l3_bytes=l2_bytes,
        cores=cores,
        products=config.current().matmul_precision,
        shared_bytes=shared_bytes,
        index_bits=config.current().index_bits,
    )

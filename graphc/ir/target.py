"""What a schedule must know of a machine: vector width, caches, registers."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.types import DType


@dataclass(frozen=True, slots=True)
class Target:
    """A machine that kernels are compiled for.

    Attributes
    ----------
    name : str
        Kind of machine: ``"cpu"``.
    triple : str
        LLVM's name of architecture, vendor and system.
    cpu : str
        LLVM's name of the processor model.
    features : str
        LLVM's list of processor features, ``"+avx2,-sse4a"``.
    vector_bytes : int
        Width of a vector register: 64 with AVX-512, 32 with AVX2, else 16.
    registers : int
        Number of vector registers.
    l1_bytes, l2_bytes, l3_bytes : int
        Data cache that one core sees at each level.
    cores : int
        Threads that run at once. Work is cut by it where the way of cutting changes no result.
    products : str
        In what products of float32 matrices are computed: ``"float32"``, or what tensor cores
        round factors to, ``"tf32"``, ``"bfloat16"`` or ``"float16"``.
    shared_bytes : int
        Memory that the threads of a block can share; 0 where there are no blocks.
    index_bits : int
        Bits in which indices are computed, and loops count: 64, or 32 where no array has 2**31
        elements.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    cores: int = 4
    products: str = "float32"
    shared_bytes: int = 0
    index_bits: int = 64

    def lanes(self, dtype: DType) -> int:
        """Return how many elements of a type one vector register holds."""
        return self.vector_bytes // dtype.item_bytes

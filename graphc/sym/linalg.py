"""Linear algebra: ``sym.linalg``."""

from graphc.frontend.ops.linalg import linalg_gemm as gemm
from graphc.frontend.ops.linalg import linalg_gemm2 as gemm2
from graphc.frontend.ops.linalg import linalg_syrk as syrk

__all__ = ["gemm", "gemm2", "syrk"]

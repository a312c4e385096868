"""Linear algebra: ``nd.linalg``."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.ops.linalg import linalg_gemm as gemm
from graphc.frontend.ops.linalg import linalg_gemm2 as gemm2
from graphc.frontend.ops.linalg import linalg_syrk as syrk

__all__ = ["gemm", "gemm2", "syrk"]

_suggest_attributes(__name__)

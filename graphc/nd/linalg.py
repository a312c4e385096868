"""Linear algebra: ``nd.linalg``."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.ops.linalg import gemm as gemm
from graphc.frontend.ops.linalg import gemm2 as gemm2
from graphc.frontend.ops.linalg import syrk as syrk

_suggest_attributes(__name__)

"""Operators that MXNet keeps under ``sym.contrib``."""

from graphc.frontend.ops.elementwise import isfinite as isfinite
from graphc.frontend.ops.elementwise import isinf as isinf
from graphc.frontend.ops.elementwise import isnan as isnan

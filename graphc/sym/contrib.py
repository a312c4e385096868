"""Operators that MXNet keeps under ``sym.contrib``."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.ops.elementwise import isfinite as isfinite
from graphc.frontend.ops.elementwise import isinf as isinf
from graphc.frontend.ops.elementwise import isnan as isnan

_suggest_attributes(__name__)

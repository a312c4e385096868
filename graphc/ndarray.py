"""`graphc.nd` under its long name."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.nd import *  # noqa: F403
from graphc.nd import __all__ as __all__

_suggest_attributes(__name__)

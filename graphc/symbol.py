"""`graphc.sym` under its long name."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.sym import *  # noqa: F403

_suggest_attributes(__name__)

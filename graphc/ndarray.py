"""`graphc.nd` under its long name."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.nd import *  # noqa: F403

_suggest_attributes(__name__)

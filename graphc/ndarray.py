"""`graphc.nd` under its long name."""

from graphc.nd import *  # noqa: F403
from graphc.nd import __all__ as __all__

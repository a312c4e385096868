"""`graphc.sym` under its long name."""

from graphc.sym import *  # noqa: F403
from graphc.sym import __all__ as __all__

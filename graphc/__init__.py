"""graphc: a deep-learning compiler that people can read.

The names are listed in ``__init__.pyi`` and imported when they are first used, so that
``import graphc`` costs next to nothing.
"""

from graphc.lazy import exports

__version__ = "0.1.0"
__getattr__, __dir__ = exports(__name__, __file__)

"""Random Symbols: ``sym.random``; each run of a program draws anew."""

from graphc.frontend.symbol.functions import normal as normal
from graphc.frontend.symbol.functions import randint as randint
from graphc.frontend.symbol.functions import uniform as uniform

__all__ = ["normal", "randint", "uniform"]

"""Random Symbols: ``sym.random``; each run of a program draws anew."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.symbol.functions import normal as normal
from graphc.frontend.symbol.functions import randint as randint
from graphc.frontend.symbol.functions import uniform as uniform

_suggest_attributes(__name__)

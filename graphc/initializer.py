"""Initializers of Parameters: `graphc.init` under its long name."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.initializer import Bilinear as Bilinear
from graphc.frontend.initializer import Constant as Constant
from graphc.frontend.initializer import InitDesc as InitDesc
from graphc.frontend.initializer import Initializer as Initializer
from graphc.frontend.initializer import LSTMBias as LSTMBias
from graphc.frontend.initializer import Mixed as Mixed
from graphc.frontend.initializer import MSRAPrelu as MSRAPrelu
from graphc.frontend.initializer import Normal as Normal
from graphc.frontend.initializer import One as One
from graphc.frontend.initializer import Orthogonal as Orthogonal
from graphc.frontend.initializer import Uniform as Uniform
from graphc.frontend.initializer import Xavier as Xavier
from graphc.frontend.initializer import Zero as Zero
from graphc.frontend.initializer import alias as alias
from graphc.frontend.initializer import create as create
from graphc.frontend.initializer import register as register

_suggest_attributes(__name__)

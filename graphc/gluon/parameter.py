"""Parameters and what reading one too early raises."""

from graphc.errors import DeferredInitializationError as DeferredInitializationError
from graphc.errors import UninitializedError as UninitializedError
from graphc.frontend.gluon.constant import Constant as Constant
from graphc.frontend.gluon.parameter import Parameter as Parameter
from graphc.frontend.gluon.parameter_dict import ParameterDict as ParameterDict

# The public names, as editors and type checkers see them; `graphc/__init__.py` imports each at
# its first use.

from graphc import autograd as autograd
from graphc import base as base
from graphc import config as config
from graphc import context as context
from graphc import errors as errors
from graphc import gluon as gluon
from graphc import init as init
from graphc import initializer as initializer
from graphc import lr_scheduler as lr_scheduler
from graphc import metric as metric
from graphc import nd as nd
from graphc import ndarray as ndarray
from graphc import optimizer as optimizer
from graphc import random as random
from graphc import sym as sym
from graphc import symbol as symbol
from graphc.codegen.counters import stats as stats
from graphc.config import configure as configure
from graphc.config import options as options
from graphc.errors import GraphcError as GraphcError
from graphc.frontend.context import Context as Context
from graphc.frontend.context import cpu as cpu
from graphc.frontend.context import cpu_pinned as cpu_pinned
from graphc.frontend.context import current_context as current_context
from graphc.frontend.context import gpu as gpu
from graphc.frontend.context import num_gpus as num_gpus
from graphc.frontend.export_library import export_library as export_library
from graphc.frontend.functional import grad as grad
from graphc.frontend.functional import value_and_grad as value_and_grad
from graphc.frontend.jit import compile as compile
from graphc.frontend.kernel import kernel as kernel
from graphc.frontend.scalar import scalar as scalar
from graphc.runtime.profile import profile as profile

__version__: str

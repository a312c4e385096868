"""Random arrays: ``nd.random``."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.sampling import bernoulli as bernoulli
from graphc.frontend.sampling import exponential as exponential
from graphc.frontend.sampling import multinomial as multinomial
from graphc.frontend.sampling import normal as normal
from graphc.frontend.sampling import normal_like as normal_like
from graphc.frontend.sampling import permutation as permutation
from graphc.frontend.sampling import randint as randint
from graphc.frontend.sampling import randn as randn
from graphc.frontend.sampling import seed as seed
from graphc.frontend.sampling import shuffle as shuffle
from graphc.frontend.sampling import uniform as uniform
from graphc.frontend.sampling import uniform_like as uniform_like

_suggest_attributes(__name__)

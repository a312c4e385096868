"""Learning rate schedules."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.lr_scheduler import CosineScheduler as CosineScheduler
from graphc.frontend.lr_scheduler import FactorScheduler as FactorScheduler
from graphc.frontend.lr_scheduler import LRScheduler as LRScheduler
from graphc.frontend.lr_scheduler import MultiFactorScheduler as MultiFactorScheduler
from graphc.frontend.lr_scheduler import PolyScheduler as PolyScheduler

_suggest_attributes(__name__)

"""Learning rate schedules."""

from graphc.frontend.lr_scheduler import CosineScheduler as CosineScheduler
from graphc.frontend.lr_scheduler import FactorScheduler as FactorScheduler
from graphc.frontend.lr_scheduler import LRScheduler as LRScheduler
from graphc.frontend.lr_scheduler import MultiFactorScheduler as MultiFactorScheduler
from graphc.frontend.lr_scheduler import PolyScheduler as PolyScheduler

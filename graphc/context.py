"""Devices."""

from graphc.frontend.context import Context as Context
from graphc.frontend.context import cpu as cpu
from graphc.frontend.context import cpu_pinned as cpu_pinned
from graphc.frontend.context import current_context as current_context
from graphc.frontend.context import gpu as gpu
from graphc.frontend.context import num_gpus as num_gpus

"""Splitting batches, and limiting the norm of gradients."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.gluon.data_parallel import clip_global_norm as clip_global_norm
from graphc.frontend.gluon.data_parallel import split_and_load as split_and_load
from graphc.frontend.gluon.data_parallel import split_data as split_data

_suggest_attributes(__name__)

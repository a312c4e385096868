"""Metrics of predictions."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.metric import F1 as F1
from graphc.frontend.metric import MAE as MAE
from graphc.frontend.metric import MSE as MSE
from graphc.frontend.metric import RMSE as RMSE
from graphc.frontend.metric import Accuracy as Accuracy
from graphc.frontend.metric import CrossEntropy as CrossEntropy
from graphc.frontend.metric import Loss as Loss
from graphc.frontend.metric import Perplexity as Perplexity
from graphc.frontend.metric import TopKAccuracy as TopKAccuracy
from graphc.frontend.metric_base import CompositeEvalMetric as CompositeEvalMetric
from graphc.frontend.metric_base import CustomMetric as CustomMetric
from graphc.frontend.metric_base import EvalMetric as EvalMetric
from graphc.frontend.metric_base import create as create
from graphc.frontend.metric_base import np as np
from graphc.frontend.metric_base import register as register

_suggest_attributes(__name__)

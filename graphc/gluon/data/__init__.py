"""Datasets, samplers and the DataLoader."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.gluon.data import batchify as batchify
from graphc.frontend.gluon.data.dataloader import DataLoader as DataLoader
from graphc.frontend.gluon.data.dataset import ArrayDataset as ArrayDataset
from graphc.frontend.gluon.data.dataset import Dataset as Dataset
from graphc.frontend.gluon.data.dataset import SimpleDataset as SimpleDataset
from graphc.frontend.gluon.data.sampler import BatchSampler as BatchSampler
from graphc.frontend.gluon.data.sampler import FilterSampler as FilterSampler
from graphc.frontend.gluon.data.sampler import IntervalSampler as IntervalSampler
from graphc.frontend.gluon.data.sampler import RandomSampler as RandomSampler
from graphc.frontend.gluon.data.sampler import Sampler as Sampler
from graphc.frontend.gluon.data.sampler import SequentialSampler as SequentialSampler
from graphc.gluon.data import vision as vision

_suggest_attributes(__name__)
